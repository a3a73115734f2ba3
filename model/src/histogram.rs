//! Native histograms as Prometheus has them: exponential or custom buckets, counts as floats.
//!
//! Owns the shape and its validity. Must not know PromQL's arithmetic on it (that is `promql`) nor any wire format.
//! Specification: Prometheus "Native Histograms" (schema -4..=8 exponential, -53 custom boundaries).

/// The schema number that stands for custom bucket boundaries.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A run of buckets that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Gap to the end of the span before; of the first span, the index of its first bucket.
    pub offset: i32,
    /// How many buckets the span has.
    pub length: u32,
}

/// What is known about a counter reset between this histogram and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResetHint {
    /// Nothing is known: compare.
    #[default]
    Unknown,
    /// There was a reset.
    Reset,
    /// There was none.
    NotReset,
    /// A gauge: resets have no meaning.
    Gauge,
}

/// One native histogram. With schema `s` in `-4..=8`, bucket `i` of the positive side holds the observations in
/// `(2^((i-1)·2^-s), 2^(i·2^-s)]`; with schema -53 the upper bounds are `custom_values` and a last `+Inf`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NativeHistogram {
    /// The resolution, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Observations in `[-zero_threshold, zero_threshold]` are in the zero bucket.
    pub zero_threshold: f64,
    /// The zero bucket's count.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Where the positive buckets are.
    pub positive_spans: Vec<Span>,
    /// Where the negative buckets are.
    pub negative_spans: Vec<Span>,
    /// Counts of the positive buckets, absolute (not deltas), one for each bucket in the spans.
    pub positive_buckets: Vec<f64>,
    /// Counts of the negative buckets, absolute.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds, ascending, of a custom-bucket histogram; `+Inf` is implied.
    pub custom_values: Vec<f64>,
    /// What is known about a reset.
    pub reset_hint: ResetHint,
}

/// Why a histogram is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid native histogram: {0}")]
pub struct InvalidHistogram(pub String);

// === impl NativeHistogram ===

impl NativeHistogram {
    /// Whether the buckets have custom boundaries.
    #[must_use]
    pub fn has_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Checks that spans and buckets agree, the schema is known, and counts are not negative. O(buckets).
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        let fail = |reason: String| Err(InvalidHistogram(reason));
        if self.has_custom_buckets() {
            if !self.custom_values.windows(2).all(|w| w[0] < w[1]) {
                return fail("custom bucket bounds are not ascending".into());
            }
            if !self.negative_spans.is_empty() || self.zero_count != 0.0 {
                return fail("custom buckets exclude negative and zero buckets".into());
            }
        } else if !(-4..=8).contains(&self.schema) {
            return fail(format!("schema {} is not in -4..=8 nor -53", self.schema));
        }
        for (side, spans, buckets) in [
            ("positive", &self.positive_spans, &self.positive_buckets),
            ("negative", &self.negative_spans, &self.negative_buckets),
        ] {
            let wanted: usize = spans.iter().map(|s| s.length as usize).sum();
            if wanted != buckets.len() {
                return fail(format!(
                    "{side} spans ask for {wanted} buckets, there are {}",
                    buckets.len()
                ));
            }
            if spans.iter().skip(1).any(|s| s.offset < 0) {
                return fail(format!(
                    "a {side} span after the first has a negative offset"
                ));
            }
            if buckets.iter().any(|b| *b < 0.0) {
                return fail(format!("a {side} bucket is negative"));
            }
        }
        Ok(())
    }

    /// The positive buckets as (index, count), ascending.
    pub fn positive(&self) -> impl Iterator<Item = (i32, f64)> + '_ {
        indexed(&self.positive_spans, &self.positive_buckets)
    }

    /// The negative buckets as (index, count), ascending by index (so descending by value).
    pub fn negative(&self) -> impl Iterator<Item = (i32, f64)> + '_ {
        indexed(&self.negative_spans, &self.negative_buckets)
    }
}

/// Pairs each bucket with its index.
pub fn indexed<'a>(spans: &'a [Span], buckets: &'a [f64]) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = 0i32;
    spans
        .iter()
        .flat_map(move |span| {
            let first = next.wrapping_add(span.offset);
            next = first.wrapping_add_unsigned(span.length);
            (0..span.length).map(move |i| first.wrapping_add_unsigned(i))
        })
        .zip(buckets.iter().copied())
}

/// Builds spans and buckets from (index, count) pairs in ascending order of the index. Gaps become new spans.
#[must_use]
pub fn from_indexed(pairs: impl IntoIterator<Item = (i32, f64)>) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut buckets = Vec::new();
    let mut next = 0i32;
    for (index, count) in pairs {
        match spans.last_mut() {
            Some(last) if index == next => last.length += 1,
            _ => spans.push(Span {
                offset: index.wrapping_sub(next),
                length: 1,
            }),
        }
        next = index.wrapping_add(1);
        buckets.push(count);
    }
    (spans, buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_round_trip() {
        let pairs = [(-3, 1.0), (-2, 2.0), (0, 4.0), (7, 1.0)];
        let (spans, buckets) = from_indexed(pairs);
        assert_eq!(
            spans,
            [(-3, 2), (1, 1), (6, 1)].map(|(offset, length)| Span { offset, length })
        );
        assert_eq!(indexed(&spans, &buckets).collect::<Vec<_>>(), pairs);
    }

    #[test]
    fn validate_names_the_fault() {
        let mut h = NativeHistogram {
            schema: 9,
            ..Default::default()
        };
        assert!(h.validate().unwrap_err().to_string().contains("schema 9"));
        h.schema = 0;
        h.positive_buckets.push(1.0);
        assert!(
            h.validate()
                .unwrap_err()
                .to_string()
                .contains("ask for 0 buckets, there are 1")
        );
    }
}
