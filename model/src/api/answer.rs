//! [`AnswerText`]: a query's answer as JSON, written straight from its columns, a piece at a time.
//!
//! Owns the same form as [`super::query_data_to_json`], for answers of millions of points. Must not know HTTP, nor who
//! evaluates.

use std::sync::Arc;

use super::{format_float, histogram_pair};
use crate::histogram::NativeHistogram;
use crate::labels::Labels;
use crate::query::QueryData;
use crate::sample::{Points, Value, is_stale};

/// Writes the parts of an answer behind one another. What it remembers between series (how an instant reads) makes it
/// quicker, not different.
#[derive(Debug, Default)]
pub struct AnswerText {
    out: Vec<u8>,
    stamps: Vec<Stamp>,
    floats: Vec<Known>,
    /// Points written: for a few nothing is remembered.
    points: usize,
}

/// How a float reads. Rates of counters, and gauges at rest, are the same few numbers over and over.
#[derive(Debug, Clone, Copy)]
struct Known {
    bits: u64,
    /// 0: nothing is known.
    len: u8,
    text: [u8; FLOAT],
}

const FLOAT: usize = 24;

/// Floats that are remembered, a power of two; where two fall into one place the later one stays.
const KNOWN: usize = 1 << 12;

/// `[seconds,"` of an instant, as long as that fits.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    t_ms: i64,
    len: u8,
    text: [u8; STAMP],
}

const STAMP: usize = 32;

// === impl AnswerText ===

impl AnswerText {
    /// Takes what is written so far and begins anew.
    pub fn take(&mut self) -> Vec<u8> {
        let next = Vec::with_capacity(self.out.capacity().min(1 << 20));
        std::mem::replace(&mut self.out, next)
    }

    /// Bytes written and not taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing is written, or all is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Text that is JSON already.
    pub fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// The whole `data` object.
    pub fn data(&mut self, data: &QueryData) {
        self.raw("{\"resultType\":\"");
        self.raw(data.type_name());
        self.raw("\",\"result\":");
        match data {
            QueryData::Scalar(t, v) => self.point(*t, *v),
            QueryData::String(t, text) => {
                self.stamp_open(*t);
                self.out.pop();
                put_string(&mut self.out, text);
                self.raw("]");
            }
            QueryData::Vector(all) => {
                self.list(all, |text, e| text.element(&e.labels, e.t_ms, &e.value))
            }
            QueryData::Matrix(all) => self.list(all, |text, s| text.series(&s.labels, &s.points)),
        }
        self.raw("}");
    }

    fn list<T>(&mut self, all: &[T], mut put: impl FnMut(&mut Self, &T)) {
        self.raw("[");
        for (i, item) in all.iter().enumerate() {
            if i > 0 {
                self.raw(",");
            }
            put(self, item);
        }
        self.raw("]");
    }

    /// An item of an instant vector.
    pub fn element(&mut self, labels: &Labels, t_ms: i64, value: &Value) {
        self.metric(labels);
        match value {
            Value::Float(v) => {
                self.raw(",\"value\":");
                self.point(t_ms, *v);
            }
            Value::Histogram(h) => {
                self.raw(",\"histogram\":");
                self.histogram(t_ms, h);
            }
        }
        self.raw("}");
    }

    /// An item of a matrix.
    pub fn series(&mut self, labels: &Labels, points: &Points) {
        self.metric(labels);
        let mut list = List::default();
        for (i, t) in points.t_ms.iter().enumerate() {
            if points.histogram(i).is_none() {
                self.open(&mut list, "values");
                self.stamped(i, *t, points.values[i]);
            }
        }
        self.close(&mut list);
        for (i, t) in points.t_ms.iter().enumerate() {
            if let Some(h) = points.histogram(i) {
                self.open(&mut list, "histograms");
                self.histogram(*t, h);
            }
        }
        self.close(&mut list);
        self.raw("}");
    }

    /// An item of a matrix whose points lie at `times`: where the float is the staleness marker there is none, or the
    /// histogram of that place. `histograms` is empty or as long as `floats`.
    pub fn row(
        &mut self,
        labels: &Labels,
        times: impl Iterator<Item = i64> + Clone,
        floats: &[f64],
        histograms: &[Option<Arc<NativeHistogram>>],
    ) {
        self.metric(labels);
        let mut list = List::default();
        for (i, (t, v)) in times.clone().zip(floats).enumerate() {
            if !is_stale(*v) {
                self.open(&mut list, "values");
                self.stamped(i, t, *v);
            }
        }
        self.close(&mut list);
        for (t, h) in times.zip(histograms) {
            if let Some(h) = h {
                self.open(&mut list, "histograms");
                self.histogram(t, h);
            }
        }
        self.close(&mut list);
        self.raw("}");
    }

    /// Begins an item: `{"metric":{...}`.
    fn metric(&mut self, labels: &Labels) {
        self.raw("{\"metric\":{");
        for (i, (name, value)) in labels.iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            put_string(&mut self.out, name);
            self.out.push(b':');
            put_string(&mut self.out, value);
        }
        self.out.push(b'}');
    }

    #[inline]
    fn open(&mut self, list: &mut List, name: &str) {
        if list.open {
            self.out.push(b',');
            return;
        }
        list.open = true;
        self.raw(",\"");
        self.raw(name);
        self.raw("\":[");
    }

    fn close(&mut self, list: &mut List) {
        if std::mem::take(&mut list.open) {
            self.out.push(b']');
        }
    }

    fn histogram(&mut self, t_ms: i64, h: &NativeHistogram) {
        self.raw(&histogram_pair(t_ms, h).to_string());
    }

    fn point(&mut self, t_ms: i64, value: f64) {
        self.stamp_open(t_ms);
        put_float(&mut self.out, value);
        self.raw("\"]");
    }

    /// The point at place `i` of a series: most series have the same times.
    #[inline]
    fn stamped(&mut self, i: usize, t_ms: i64, value: f64) {
        match self.stamps.get(i) {
            Some(stamp) if stamp.t_ms == t_ms => {
                let len = self.out.len() + stamp.len as usize;
                // A copy of fixed size, cut to length, is quicker than one of any size.
                self.out.extend_from_slice(&stamp.text);
                self.out.truncate(len);
            }
            _ => self.stamp(i, t_ms),
        }
        self.float(value);
        self.out.extend_from_slice(b"\"]");
    }

    #[inline]
    fn float(&mut self, value: f64) {
        self.points += 1;
        let bits = value.to_bits();
        let place = (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize;
        match self.floats.get(place) {
            Some(known) if known.bits == bits && known.len > 0 => {
                let len = self.out.len() + known.len as usize;
                self.out.extend_from_slice(&known.text);
                self.out.truncate(len);
            }
            Some(_) => self.learn(place, value),
            None => {
                put_float(&mut self.out, value);
                if self.points == KNOWN {
                    let nothing = Known {
                        bits: 0,
                        len: 0,
                        text: [0; FLOAT],
                    };
                    self.floats.resize(KNOWN, nothing);
                }
            }
        }
    }

    fn learn(&mut self, place: usize, value: f64) {
        let at = self.out.len();
        put_float(&mut self.out, value);
        let written = &self.out[at..];
        if written.len() <= FLOAT {
            let known = &mut self.floats[place];
            known.bits = value.to_bits();
            known.len = written.len() as u8;
            known.text[..written.len()].copy_from_slice(written);
        }
    }

    #[cold]
    fn stamp(&mut self, i: usize, t_ms: i64) {
        let at = self.out.len();
        self.stamp_open(t_ms);
        let written = &self.out[at..];
        if written.len() > STAMP || i > self.stamps.len() {
            return;
        }
        let mut stamp = Stamp {
            t_ms,
            len: written.len() as u8,
            text: [0; STAMP],
        };
        stamp.text[..written.len()].copy_from_slice(written);
        match self.stamps.get_mut(i) {
            Some(place) => *place = stamp,
            None => self.stamps.push(stamp),
        }
    }

    fn stamp_open(&mut self, t_ms: i64) {
        self.out.push(b'[');
        put_seconds(&mut self.out, t_ms);
        self.raw(",\"");
    }
}

/// Whether a list of an item has begun.
#[derive(Debug, Default)]
struct List {
    open: bool,
}

/// Milliseconds as seconds, as JSON writes the float.
fn put_seconds(out: &mut Vec<u8>, t_ms: i64) {
    if t_ms % 1000 == 0 {
        out.extend_from_slice(itoa::Buffer::new().format(t_ms / 1000).as_bytes());
    } else {
        let seconds = t_ms as f64 / 1000.0;
        out.extend_from_slice(zmij::Buffer::new().format_finite(seconds).as_bytes());
    }
}

/// A float as [`format_float`] writes it.
#[inline]
fn put_float(out: &mut Vec<u8>, value: f64) {
    let whole = value as i64;
    if whole as f64 == value
        && whole.unsigned_abs() < 1 << 53
        && (whole != 0 || value.is_sign_positive())
    {
        let mut buffer = itoa::Buffer::new();
        out.extend_from_slice(buffer.format(whole).as_bytes());
        return;
    }
    // Within these bounds the shortest form has no exponent, and it is not whole, so it ends in no `.0`.
    if (1e-4..1e15).contains(&value.abs()) {
        let mut buffer = zmij::Buffer::new();
        out.extend_from_slice(buffer.format_finite(value).as_bytes());
        return;
    }
    out.extend_from_slice(format_float(value).as_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    let plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
    if !text.bytes().all(plain) {
        out.extend_from_slice(serde_json::json!(text).to_string().as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::query_data_to_json;
    use super::*;
    use crate::query::{RangeSeries, VectorElement};
    use crate::stale_nan;
    use proptest::prelude::*;

    fn floats() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            any::<u64>().prop_map(f64::from_bits),
            (-1_000_000i32..1_000_000).prop_map(|v| f64::from(v) / 100.0),
            (any::<i64>(), -30i32..30).prop_map(|(v, e)| v as f64 * 10f64.powi(e)),
            any::<i64>().prop_map(|v| v as f64),
            Just(f64::NAN),
            Just(-0.0),
            Just(9_007_199_254_740_992.0),
            Just(1e-4),
            Just(9.999e-5),
            Just(1e15),
            Just(1e21),
        ]
    }

    proptest! {
        #[test]
        fn floats_read_as_everywhere(v in floats()) {
            let mut out = Vec::new();
            put_float(&mut out, v);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format_float(v));
        }

        #[test]
        fn the_text_is_that_of_the_tree(
            points in proptest::collection::vec((any::<i32>(), floats(), any::<bool>()), 0..12),
            text in "(?s).{0,9}",
        ) {
            let labels = Labels::from_pairs([("__name__", "up"), ("a", text.as_str())]);
            let histogram = Arc::new(NativeHistogram { count: 2.0, zero_count: 2.0, ..Default::default() });
            let mut columns = Points::default();
            let mut elements = Vec::new();
            for (t, v, is_histogram) in points {
                let value = if is_histogram { Value::Histogram(Arc::clone(&histogram)) } else { Value::Float(v) };
                columns.push(i64::from(t), value.clone());
                elements.push(VectorElement { labels: labels.clone(), t_ms: i64::from(t), value });
            }
            let series = RangeSeries { labels, points: columns };
            let mut shifted = series.clone();
            shifted.points.t_ms.iter_mut().step_by(2).for_each(|t| *t += 1);
            let mut writer = AnswerText::default();
            for data in [
                QueryData::Scalar(series.points.t_ms.first().copied().unwrap_or(5), 1.5),
                QueryData::String(7, text),
                QueryData::Vector(elements),
                QueryData::Matrix(vec![series.clone(), series.clone(), shifted]),
            ] {
                writer.data(&data);
                let quick = String::from_utf8(writer.take()).unwrap();
                prop_assert_eq!(quick, query_data_to_json(&data).to_string());
            }
            // The same points as a row of a table.
            let (p, n) = (&series.points, series.points.len());
            let floats: Vec<f64> = (0..n).map(|i| if p.histogram(i).is_some() { stale_nan() } else { p.values[i] }).collect();
            prop_assume!((0..n).all(|i| p.histogram(i).is_some() || !is_stale(floats[i])));
            // With everything that a long answer makes it remember.
            writer.floats.resize(KNOWN, Known { bits: 0, len: 0, text: [0; FLOAT] });
            let mut row = String::new();
            for _ in 0..2 {
                writer.row(&series.labels, p.t_ms.iter().copied(), &floats, &p.histograms);
                row = String::from_utf8(writer.take()).unwrap();
            }
            writer = AnswerText::default();
            writer.series(&series.labels, p);
            prop_assert_eq!(row, String::from_utf8(writer.take()).unwrap());
        }
    }
}
