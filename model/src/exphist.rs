//! A recording exponential histogram: integer counts, automatic downscaling, exact merge.
//!
//! Owns the arithmetic of the OpenTelemetry exponential histogram data model (base `2^(2^-scale)`, bucket `i` holds
//! `(base^i, base^(i+1)]`, at most [`MAX_BUCKETS`] a side). Must not know what is measured, nor where it goes.
//! At scale `s` a bucket's relative width is `2^(2^-s) - 1`, so a quantile is within half of that of the truth: 1.09 %
//! wide at scale 6, 4.4 % at scale 4.

use crate::histogram::{NativeHistogram, from_indexed};

/// Buckets kept before the resolution is halved (OpenTelemetry SDK default).
pub const MAX_BUCKETS: usize = 160;

/// The finest scale recorded: what Prometheus' native histograms can carry.
pub const MAX_SCALE: i32 = 8;

/// The coarsest scale: one bucket spans 2^16.
pub const MIN_SCALE: i32 = -4;

/// Counts of non-negative observations in exponential buckets. Merging is associative and commutative, exact in counts.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpHistogram {
    scale: i32,
    zero_count: u64,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    /// Index of `buckets[0]`.
    offset: i32,
    buckets: Vec<u64>,
}

impl Default for ExpHistogram {
    fn default() -> Self {
        Self::new(MAX_SCALE)
    }
}

// === impl ExpHistogram ===

impl ExpHistogram {
    /// An empty histogram that starts at `scale`, clamped to [`MIN_SCALE`]..=[`MAX_SCALE`].
    #[must_use]
    pub fn new(scale: i32) -> Self {
        ExpHistogram {
            scale: scale.clamp(MIN_SCALE, MAX_SCALE),
            zero_count: 0,
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            offset: 0,
            buckets: Vec::new(),
        }
    }

    /// Observations so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the observations.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The smallest observation, or `None`.
    #[must_use]
    pub fn min(&self) -> Option<f64> {
        (self.count > 0).then_some(self.min)
    }

    /// The largest observation, or `None`.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max)
    }

    /// The current scale.
    #[must_use]
    pub fn scale(&self) -> i32 {
        self.scale
    }

    /// Records one observation. Negative values count as zero; NaN and infinities are ignored. Amortised O(1).
    pub fn record(&mut self, value: f64) {
        self.record_n(value, 1);
    }

    /// Records `n` equal observations.
    pub fn record_n(&mut self, value: f64, n: u64) {
        if !value.is_finite() || n == 0 {
            return;
        }
        let value = value.max(0.0);
        self.count += n;
        self.sum += value * n as f64;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if value < f64::MIN_POSITIVE {
            self.zero_count += n;
            return;
        }
        loop {
            let index = bucket_index(value, self.scale);
            if self.make_room(index) {
                let at = (index - self.offset).unsigned_abs() as usize;
                self.buckets[at] += n;
                return;
            }
        }
    }

    /// Adds another histogram. The result has the coarser of the two scales, or one coarser still when it must.
    pub fn merge(&mut self, other: &ExpHistogram) {
        if other.count == 0 {
            return;
        }
        let mut other = other.clone();
        while other.scale > self.scale {
            other.halve();
        }
        while self.scale > other.scale {
            self.halve();
        }
        self.count += other.count;
        self.zero_count += other.zero_count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        let Some(mut last) = other.last_index() else {
            return;
        };
        while !(self.make_room(other.offset) && self.make_room(last)) {
            while other.scale > self.scale {
                other.halve();
            }
            last = other.last_index().unwrap_or(last);
        }
        while other.scale > self.scale {
            other.halve();
        }
        for (i, n) in other.buckets.iter().enumerate() {
            let index = other.offset + i32::try_from(i).unwrap_or(i32::MAX);
            self.buckets[(index - self.offset).unsigned_abs() as usize] += n;
        }
    }

    /// The value below which a share `q` (0 to 1) of the observations lies: the geometric middle of its bucket, held
    /// within the observed minimum and maximum. `None` when empty. O(buckets).
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = self.zero_count;
        if seen >= rank {
            return Some(self.min);
        }
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                let index = self.offset + i32::try_from(i).unwrap_or(i32::MAX);
                let middle =
                    (lower_bound(index, self.scale) * lower_bound(index + 1, self.scale)).sqrt();
                return Some(middle.clamp(self.min, self.max));
            }
        }
        Some(self.max)
    }

    /// The largest relative error of [`Self::quantile`]: half a bucket's width.
    #[must_use]
    pub fn relative_error(&self) -> f64 {
        (2f64.powf(2f64.powi(-self.scale)).sqrt()) - 1.0
    }

    /// How many observations are at most `bound`, for each of the ascending `bounds`, as classic cumulative buckets.
    /// Exact where a bound is a bucket's bound; otherwise the bucket that the bound cuts counts by its upper bound, so
    /// the count is never too high.
    #[must_use]
    pub fn cumulative(&self, bounds: &[f64]) -> Vec<u64> {
        let mut out = Vec::with_capacity(bounds.len());
        let mut at = 0;
        let mut seen = self.zero_count;
        for bound in bounds {
            while at < self.buckets.len() {
                let index = self.offset + i32::try_from(at).unwrap_or(i32::MAX);
                if lower_bound(index + 1, self.scale) > *bound {
                    break;
                }
                seen += self.buckets[at];
                at += 1;
            }
            out.push(seen);
        }
        out
    }

    /// The same observations as a Prometheus native histogram (its bucket `i` is this one's `i - 1`).
    #[must_use]
    pub fn to_native(&self) -> NativeHistogram {
        let pairs = self.buckets.iter().enumerate().filter(|(_, n)| **n > 0);
        let (positive_spans, positive_buckets) = from_indexed(pairs.map(|(i, n)| {
            (
                self.offset + 1 + i32::try_from(i).unwrap_or(i32::MAX),
                *n as f64,
            )
        }));
        NativeHistogram {
            schema: self.scale,
            zero_threshold: f64::MIN_POSITIVE,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans,
            positive_buckets,
            ..NativeHistogram::default()
        }
    }

    fn last_index(&self) -> Option<i32> {
        let len = i32::try_from(self.buckets.len()).ok()?;
        (len > 0).then(|| self.offset + len - 1)
    }

    /// Makes `index` addressable, or halves the resolution and says no.
    fn make_room(&mut self, index: i32) -> bool {
        if self.buckets.is_empty() {
            self.offset = index;
            self.buckets.push(0);
            return true;
        }
        let first = self.offset.min(index);
        let last = self.last_index().unwrap_or(index).max(index);
        let wanted = (i64::from(last) - i64::from(first) + 1).unsigned_abs() as usize;
        if wanted > MAX_BUCKETS && self.scale > MIN_SCALE {
            self.halve();
            return false;
        }
        if first < self.offset {
            let missing = (self.offset - first).unsigned_abs() as usize;
            self.buckets.splice(0..0, std::iter::repeat_n(0, missing));
            self.offset = first;
        }
        self.buckets.resize(wanted.max(self.buckets.len()), 0);
        true
    }

    /// Merges neighbouring buckets: scale - 1.
    fn halve(&mut self) {
        let mut merged: Vec<u64> = Vec::with_capacity(self.buckets.len() / 2 + 1);
        let first = self.offset >> 1;
        for (i, n) in self.buckets.iter().enumerate() {
            let index = (self.offset + i32::try_from(i).unwrap_or(i32::MAX)) >> 1;
            let at = (index - first).unsigned_abs() as usize;
            merged.resize(merged.len().max(at + 1), 0);
            merged[at] += n;
        }
        self.buckets = merged;
        self.offset = first;
        self.scale -= 1;
    }
}

/// The lower bound (exclusive) of bucket `index` at `scale`: `2^(index · 2^-scale)`.
#[must_use]
pub fn lower_bound(index: i32, scale: i32) -> f64 {
    (f64::from(index) * 2f64.powi(-scale)).exp2()
}

/// The bucket that holds `value` (> 0, normal) at `scale`; the upper bound is inclusive.
fn bucket_index(value: f64, scale: i32) -> i32 {
    let guess = (value.log2() * 2f64.powi(scale)).ceil() as i32 - 1;
    // The logarithm may round across a bound; exact powers must fall into the bucket they close.
    if value > lower_bound(guess + 1, scale) {
        guess + 1
    } else if value <= lower_bound(guess, scale) {
        guess - 1
    } else {
        guess
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[f64]) -> ExpHistogram {
        let mut h = ExpHistogram::default();
        values.iter().for_each(|v| h.record(*v));
        h
    }

    #[test]
    fn powers_of_two_close_their_bucket() {
        for scale in MIN_SCALE..=MAX_SCALE {
            for power in -20..20 {
                let value = 2f64.powi(power);
                let index = bucket_index(value, scale);
                assert!(
                    lower_bound(index, scale) < value && value <= lower_bound(index + 1, scale),
                    "{value} at {scale}"
                );
            }
        }
    }

    #[test]
    fn odd_values_are_counted_or_ignored_never_lost_twice() {
        let h = of(&[
            0.0,
            -1.0,
            f64::NAN,
            f64::INFINITY,
            f64::MIN_POSITIVE,
            f64::MAX,
        ]);
        assert_eq!(h.count(), 4);
        assert_eq!(h.to_native().count, 4.0);
        let in_buckets: f64 = h.to_native().positive_buckets.iter().sum();
        assert_eq!(in_buckets + h.to_native().zero_count, 4.0);
    }

    #[test]
    fn cumulative_is_exact_at_bucket_bounds() {
        let h = of(&[0.5, 1.0, 1.5, 2.0, 3.0, 4.0]);
        assert_eq!(
            h.cumulative(&[0.25, 0.5, 1.0, 2.0, 4.0, 8.0]),
            [0, 1, 2, 4, 6, 6]
        );
    }

    proptest! {
        #[test]
        fn quantile_is_within_the_stated_error(mut values in proptest::collection::vec(1e-6f64..1e3, 1..300), q in 0.0f64..1.0) {
            let h = of(&values);
            values.sort_by(f64::total_cmp);
            let rank = ((q * values.len() as f64).ceil().max(1.0) as usize) - 1;
            let truth = values[rank];
            let got = h.quantile(q).unwrap();
            prop_assert!((got / truth - 1.0).abs() <= h.relative_error() * 1.0001, "{} for {}", got, truth);
        }

        #[test]
        fn merge_equals_recording_all(a in proptest::collection::vec(1e-9f64..1e9, 0..200), b in proptest::collection::vec(1e-3f64..1e3, 0..200)) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            let mut other_way = of(&b);
            other_way.merge(&of(&a));
            let all = of(&a.iter().chain(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(merged.count(), all.count());
            prop_assert_eq!((merged.scale, merged.offset, &merged.buckets), (other_way.scale, other_way.offset, &other_way.buckets));
            prop_assert_eq!(merged.to_native().positive_buckets.iter().sum::<f64>(), all.to_native().positive_buckets.iter().sum::<f64>());
            prop_assert!(merged.buckets.len() <= MAX_BUCKETS);
        }
    }
}
