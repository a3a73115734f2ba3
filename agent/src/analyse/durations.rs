//! Durations of one series: exact classic buckets and an exponential histogram, side by side.
//!
//! Owns the bucket bounds of everything derived from spans, and how durations become samples. Must not know spans.

use std::sync::Arc;

use model::{ExpHistogram, Labels, METRIC_NAME, Value};

use crate::ingest::Sample;

/// Upper bounds of the classic buckets, seconds: OpenTelemetry's HTTP buckets and the bounds that SLOs and alerts ask
/// for. `+Inf` is implied.
pub const BOUNDS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
    10.0,
];

/// The label sets of one histogram's series, built once.
#[derive(Debug)]
pub struct Names {
    buckets: Vec<Labels>,
    sum: Labels,
    count: Labels,
    native: Option<Labels>,
}

impl Names {
    /// For the metric `name` with the labels `base` (which have no `__name__`).
    #[must_use]
    pub fn new(name: &str, base: &Labels, native: bool) -> Self {
        let bucket = base.with(METRIC_NAME, &format!("{name}_bucket"));
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        Names {
            buckets: bounds
                .map(|b| bucket.with("le", &model::api::format_float(b)))
                .collect(),
            sum: base.with(METRIC_NAME, &format!("{name}_sum")),
            count: base.with(METRIC_NAME, &format!("{name}_count")),
            native: native.then(|| base.with(METRIC_NAME, name)),
        }
    }

    /// The series of the bucket that a duration falls into; for exemplars.
    #[must_use]
    pub fn bucket(&self, index: usize) -> &Labels {
        &self.buckets[index.min(BOUNDS.len())]
    }

    /// The native histogram's series.
    #[must_use]
    pub fn native(&self) -> Option<&Labels> {
        self.native.as_ref()
    }
}

/// Which of the [`BOUNDS`] a duration falls into; `BOUNDS.len()` past the last.
#[must_use]
pub fn bucket_of(seconds: f64) -> usize {
    BOUNDS.partition_point(|bound| *bound < seconds)
}

/// Recorded durations. Counts are exact; the sum is a float sum.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [u64; BOUNDS.len() + 1],
    histogram: ExpHistogram,
}

// === impl Durations ===

impl Durations {
    /// Records one duration in seconds.
    pub fn record(&mut self, seconds: f64) {
        self.buckets[bucket_of(seconds)] += 1;
        self.histogram.record(seconds);
    }

    /// Durations recorded so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.count()
    }

    /// Appends every sample of this histogram at `t_ms`.
    pub fn samples(&self, names: &Names, t_ms: i64, out: &mut Vec<Sample>) {
        let mut cumulative = 0;
        for (labels, n) in names.buckets.iter().zip(self.buckets) {
            cumulative += n;
            out.push(Sample::float(labels.clone(), t_ms, cumulative as f64));
        }
        out.push(Sample::float(names.sum.clone(), t_ms, self.histogram.sum()));
        out.push(Sample::float(
            names.count.clone(),
            t_ms,
            self.count() as f64,
        ));
        if let Some(native) = &names.native {
            out.push(Sample {
                labels: native.clone(),
                t_ms,
                start_ms: 0,
                value: Value::Histogram(Arc::new(self.histogram.to_native())),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_buckets_accumulate() {
        let base = Labels::from_pairs([("a", "b")]);
        let names = Names::new("d_seconds", &base, true);
        let mut durations = Durations::default();
        for seconds in [0.2, 0.2000001, 11.0, 0.0] {
            durations.record(seconds);
        }
        let mut out = Vec::new();
        durations.samples(&names, 7, &mut out);
        let value = |le: &str| {
            let sample = out.iter().find(|s| s.labels.get("le") == Some(le)).unwrap();
            sample.value.clone()
        };
        assert_eq!(value("0.001"), Value::Float(1.0));
        assert_eq!(value("0.2"), Value::Float(2.0));
        assert_eq!(value("0.25"), Value::Float(3.0));
        assert_eq!(value("+Inf"), Value::Float(4.0));
        assert_eq!(out.len(), 18 + 3);
        assert_eq!(out[20].labels.to_string(), r#"d_seconds{a="b"}"#);
    }
}
