//! Samples: what a series holds. A point is a timestamp and a float or a native histogram.
//!
//! Owns the in-memory shape that a [`crate::Source`] answers with. Must not know how points are compressed or kept.

use std::sync::Arc;

use crate::histogram::NativeHistogram;
use crate::labels::Labels;

/// The bit pattern of the float that marks a series as gone (Prometheus `value.StaleNaN`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The float that marks a series as gone. Compare with [`is_stale`], never with `==`.
#[must_use]
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the staleness marker (and not just any NaN).
#[must_use]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The value of one point.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<NativeHistogram>),
}

impl Value {
    /// Whether this marks the series as gone: a stale NaN, or a histogram whose sum is one.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            Value::Float(v) => is_stale(*v),
            Value::Histogram(h) => is_stale(h.sum),
        }
    }
}

/// The points of one series in ascending order of time, as columns. Timestamps are strictly ascending.
///
/// `histograms` and `start_ms` are empty when no point has one; otherwise they are as long as `t_ms`. Where
/// `histograms[i]` is `Some`, `values[i]` has no meaning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Points {
    /// Timestamps, Unix milliseconds.
    pub t_ms: Vec<i64>,
    /// Float values.
    pub values: Vec<f64>,
    /// Histogram values, or empty.
    pub histograms: Vec<Option<Arc<NativeHistogram>>>,
    /// When the counter behind the point began to count, Unix milliseconds, 0 for unknown; or empty.
    pub start_ms: Vec<i64>,
}

// === impl Points ===

impl Points {
    /// How many points there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.t_ms.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.t_ms.is_empty()
    }

    /// Removes every point and keeps the memory.
    pub fn clear(&mut self) {
        self.t_ms.clear();
        self.values.clear();
        self.histograms.clear();
        self.start_ms.clear();
    }

    /// Appends a float.
    pub fn push_float(&mut self, t_ms: i64, value: f64) {
        self.t_ms.push(t_ms);
        self.values.push(value);
        if !self.histograms.is_empty() {
            self.histograms.push(None);
        }
        if !self.start_ms.is_empty() {
            self.start_ms.push(0);
        }
    }

    /// Appends a histogram.
    pub fn push_histogram(&mut self, t_ms: i64, histogram: Arc<NativeHistogram>) {
        if self.histograms.is_empty() {
            self.histograms.resize(self.t_ms.len(), None);
        }
        self.t_ms.push(t_ms);
        self.values.push(0.0);
        self.histograms.push(Some(histogram));
        if !self.start_ms.is_empty() {
            self.start_ms.push(0);
        }
    }

    /// Appends either kind.
    pub fn push(&mut self, t_ms: i64, value: Value) {
        match value {
            Value::Float(v) => self.push_float(t_ms, v),
            Value::Histogram(h) => self.push_histogram(t_ms, h),
        }
    }

    /// Sets the start timestamp of the last point.
    pub fn set_last_start(&mut self, start_ms: i64) {
        if self.start_ms.is_empty() {
            self.start_ms.resize(self.t_ms.len(), 0);
        }
        if let Some(last) = self.start_ms.last_mut() {
            *last = start_ms;
        }
    }

    /// The value at `index`. Panics past the end, as indexing does.
    #[must_use]
    pub fn value(&self, index: usize) -> Value {
        match self.histogram(index) {
            Some(h) => Value::Histogram(Arc::clone(h)),
            None => Value::Float(self.values[index]),
        }
    }

    /// The histogram at `index`, when the point is one.
    #[must_use]
    pub fn histogram(&self, index: usize) -> Option<&Arc<NativeHistogram>> {
        self.histograms.get(index).and_then(Option::as_ref)
    }

    /// The start timestamp at `index`, 0 for unknown.
    #[must_use]
    pub fn start(&self, index: usize) -> i64 {
        self.start_ms.get(index).copied().unwrap_or(0)
    }
}

/// A series and those of its points that a read asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesData {
    /// The series' identity, its name included.
    pub labels: Labels,
    /// Its points, ascending.
    pub points: Points,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_is_not_any_nan() {
        assert!(is_stale(stale_nan()));
        assert!(!is_stale(f64::NAN));
        assert!(stale_nan().is_nan());
    }

    #[test]
    fn columns_stay_aligned_when_kinds_mix() {
        let mut points = Points::default();
        points.push_float(1, 1.0);
        points.push_histogram(2, Arc::new(NativeHistogram::default()));
        points.push_float(3, 3.0);
        points.set_last_start(2);
        points.push_float(4, 4.0);
        assert_eq!(points.histograms.len(), 4);
        assert_eq!(points.start_ms, [0, 0, 2, 0]);
        assert_eq!(points.value(0), Value::Float(1.0));
        assert!(points.histogram(1).is_some());
        assert_eq!(points.value(3), Value::Float(4.0));
    }
}
