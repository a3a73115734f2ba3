//! [`Answer`]: a query's answer as JSON, written straight from its columns.
//!
//! Owns the same form as [`super::query_data_to_json`], for answers of millions of points. Must not know HTTP.

use std::fmt;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::{format_float, histogram_pair};
use crate::query::{QueryData, RangeSeries, VectorElement};
use crate::sample::{Points, Value};

/// The `data` object of a query answer; what it serialises to is what [`super::query_data_to_json`] gives.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a>(pub &'a QueryData);

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("resultType", self.0.type_name())?;
        match self.0 {
            QueryData::Scalar(t, v) => map.serialize_entry("result", &pair(*t, *v))?,
            QueryData::String(t, text) => map.serialize_entry("result", &(Seconds(*t), text))?,
            QueryData::Vector(all) => map.serialize_entry("result", &List(all, Element))?,
            QueryData::Matrix(all) => map.serialize_entry("result", &List(all, Range))?,
        }
        map.end()
    }
}

/// A list whose items serialise as `W` wraps them.
struct List<'a, T, W>(&'a [T], fn(&'a T) -> W);

impl<T, W: Serialize> Serialize for List<'_, T, W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

struct Element<'a>(&'a VectorElement);

impl Serialize for Element<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("metric", &self.0.labels)?;
        match &self.0.value {
            Value::Float(v) => map.serialize_entry("value", &pair(self.0.t_ms, *v))?,
            Value::Histogram(h) => {
                map.serialize_entry("histogram", &histogram_pair(self.0.t_ms, h))?;
            }
        }
        map.end()
    }
}

struct Range<'a>(&'a RangeSeries);

impl Serialize for Range<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let points = &self.0.points;
        let histograms = points.histograms.iter().flatten().count();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("metric", &self.0.labels)?;
        if points.len() > histograms {
            map.serialize_entry("values", &Floats(points))?;
        }
        if histograms > 0 {
            map.serialize_entry("histograms", &Histograms(points))?;
        }
        map.end()
    }
}

struct Floats<'a>(&'a Points);

impl Serialize for Floats<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for (i, t) in self.0.t_ms.iter().enumerate() {
            if self.0.histogram(i).is_none() {
                list.serialize_element(&pair(*t, self.0.values[i]))?;
            }
        }
        list.end()
    }
}

struct Histograms<'a>(&'a Points);

impl Serialize for Histograms<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for (i, t) in self.0.t_ms.iter().enumerate() {
            if let Some(h) = self.0.histogram(i) {
                list.serialize_element(&histogram_pair(*t, h))?;
            }
        }
        list.end()
    }
}

fn pair(t_ms: i64, value: f64) -> (Seconds, Float) {
    (Seconds(t_ms), Float(value))
}

struct Seconds(i64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1000 == 0 {
            serializer.serialize_i64(self.0 / 1000)
        } else {
            serializer.serialize_f64(self.0 as f64 / 1000.0)
        }
    }
}

struct Float(f64);

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size == 0.0 || (1e-6..1e21).contains(&size) {
            write!(f, "{}", self.0)
        } else {
            f.write_str(&format_float(self.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::query_data_to_json;
    use super::*;
    use crate::labels::Labels;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_text_is_that_of_the_tree(
            points in proptest::collection::vec((any::<i32>(), prop_oneof![any::<f64>(), (-1_000_000i32..1_000_000).prop_map(|v| f64::from(v) / 100.0), Just(f64::NAN), Just(-0.0)], any::<bool>()), 0..12),
            text in ".{0,9}",
        ) {
            let labels = Labels::from_pairs([("__name__", "up"), ("a", text.as_str())]);
            let histogram = Arc::new(crate::NativeHistogram { count: 2.0, zero_count: 2.0, ..Default::default() });
            let mut columns = Points::default();
            let mut elements = Vec::new();
            for (t, v, is_histogram) in points {
                let value = if is_histogram { Value::Histogram(Arc::clone(&histogram)) } else { Value::Float(v) };
                columns.push(i64::from(t), value.clone());
                elements.push(VectorElement { labels: labels.clone(), t_ms: i64::from(t), value });
            }
            for data in [
                QueryData::Scalar(columns.t_ms.first().copied().unwrap_or(5), 1.5),
                QueryData::String(7, text),
                QueryData::Vector(elements),
                QueryData::Matrix(vec![RangeSeries { labels, points: columns }]),
            ] {
                let quick = serde_json::to_string(&Answer(&data)).unwrap();
                prop_assert_eq!(quick, serde_json::to_string(&query_data_to_json(&data)).unwrap());
            }
        }
    }
}
