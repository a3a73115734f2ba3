//! Buckets of a native histogram with their bounds.
//!
//! Owns the mapping from index to bound. Must not know arithmetic on histograms.

use model::NativeHistogram;

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) lower_inclusive: bool,
    pub(crate) upper_inclusive: bool,
    pub(crate) count: f64,
}

/// The upper bound of positive bucket `index` with an exponential `schema`.
pub(crate) fn bound(index: i32, schema: i32) -> f64 {
    let (fraction, exponent) = if schema < 0 {
        (1.0, i64::from(index) << -schema)
    } else {
        let steps = 1i32 << schema;
        let fraction = f64::from(index & (steps - 1)) / f64::from(steps);
        (fraction.exp2(), i64::from(index >> schema))
    };
    if exponent == 1024 && fraction == 1.0 {
        return f64::MAX;
    }
    scale(fraction, exponent)
}

/// `fraction * 2^exponent` without intermediate overflow.
fn scale(fraction: f64, exponent: i64) -> f64 {
    match exponent.clamp(-2200, 2200) {
        e if e > 1000 => fraction * 2f64.powi(1000) * 2f64.powi((e - 1000) as i32),
        e if e < -1000 => fraction * 2f64.powi(-1000) * 2f64.powi((e + 1000) as i32),
        e => fraction * 2f64.powi(e as i32),
    }
}

/// The index at a coarser schema of the bucket that holds bucket `index` of `from`.
pub(crate) fn coarser(index: i32, from: i32, to: i32) -> i32 {
    ((index - 1) >> (from - to)) + 1
}

/// The positive bucket `index` of `h`.
fn positive(h: &NativeHistogram, index: i32, count: f64) -> Bucket {
    let (lower, upper) = if h.has_custom_buckets() {
        let at = |i: i32| {
            usize::try_from(i)
                .ok()
                .and_then(|i| h.custom_values.get(i))
                .copied()
        };
        let lower = if index <= 0 {
            f64::NEG_INFINITY
        } else {
            at(index - 1).unwrap_or(f64::INFINITY)
        };
        (lower, at(index).unwrap_or(f64::INFINITY))
    } else {
        (bound(index - 1, h.schema), bound(index, h.schema))
    };
    Bucket {
        lower,
        upper,
        lower_inclusive: h.has_custom_buckets() && index <= 0,
        upper_inclusive: true,
        count,
    }
}

fn negative(h: &NativeHistogram, index: i32, count: f64) -> Bucket {
    Bucket {
        lower: -bound(index, h.schema),
        upper: -bound(index - 1, h.schema),
        lower_inclusive: true,
        upper_inclusive: false,
        count,
    }
}

/// The positive buckets, ascending.
pub(crate) fn positives(h: &NativeHistogram) -> impl Iterator<Item = Bucket> + '_ {
    h.positive().map(|(i, c)| positive(h, i, c))
}

/// The negative buckets, from zero outwards (so descending).
pub(crate) fn negatives(h: &NativeHistogram) -> impl Iterator<Item = Bucket> + '_ {
    h.negative().map(|(i, c)| negative(h, i, c))
}

/// The bucket around zero.
pub(crate) fn zero(h: &NativeHistogram) -> Bucket {
    Bucket {
        lower: -h.zero_threshold,
        upper: h.zero_threshold,
        lower_inclusive: true,
        upper_inclusive: true,
        count: h.zero_count,
    }
}

/// Every bucket, ascending, without overlap with the zero bucket.
pub(crate) fn all(h: &NativeHistogram) -> Vec<Bucket> {
    let mut out: Vec<Bucket> = negatives(h).collect();
    out.reverse();
    let threshold = h.zero_threshold;
    for b in &mut out {
        if b.upper < 0.0 && b.upper > -threshold {
            b.upper = -threshold;
        }
    }
    if h.zero_count > 0.0 && !h.has_custom_buckets() {
        out.push(zero(h));
    }
    out.extend(positives(h).map(|mut b| {
        if b.lower > 0.0 && b.lower < threshold {
            b.lower = threshold;
        }
        b
    }));
    out
}

impl Bucket {
    /// Nothing, at zero.
    pub(crate) const EMPTY: Bucket = Bucket {
        lower: 0.0,
        upper: 0.0,
        lower_inclusive: false,
        upper_inclusive: false,
        count: 0.0,
    };

    /// The share of the bucket below `v`, which lies in it.
    pub(crate) fn fraction_below(&self, v: f64, linear: bool) -> f64 {
        if linear {
            return (v - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper, v_log) = (
            self.lower.abs().log2(),
            self.upper.abs().log2(),
            v.abs().log2(),
        );
        if v > 0.0 {
            (v_log - lower) / (upper - lower)
        } else {
            1.0 - (v_log - upper) / (lower - upper)
        }
    }
}

/// A number as Go's `%g` writes it.
pub(crate) fn go_float(v: f64) -> String {
    if v.is_nan() {
        return "NaN".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let magnitude = v.abs();
    if v == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return format!("{v}");
    }
    let text = format!("{v:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(d) => ('-', d),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}{},{}{}:{}",
            if self.lower_inclusive { '[' } else { '(' },
            go_float(self.lower),
            go_float(self.upper),
            if self.upper_inclusive { ']' } else { ')' },
            go_float(self.count)
        )
    }
}

/// A histogram as text, as `count_values` labels it.
pub(crate) fn to_text(h: &NativeHistogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", go_float(h.count), go_float(h.sum));
    let mut low: Vec<Bucket> = negatives(h).filter(|b| b.count != 0.0).collect();
    low.reverse();
    if h.zero_count != 0.0 {
        low.push(zero(h));
    }
    low.extend(positives(h).filter(|b| b.count != 0.0));
    for bucket in low {
        out.push_str(&format!(", {bucket}"));
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_the_schema() {
        assert_eq!(bound(0, 0), 1.0);
        assert_eq!(bound(3, 0), 8.0);
        assert_eq!(bound(1, 1), 2f64.sqrt());
        assert_eq!(bound(-1, -1), 0.25);
        assert_eq!(bound(1024, 0), f64::MAX);
        assert_eq!(bound(-1074, 0), f64::from_bits(1));
        assert_eq!(coarser(3, 1, 0), 2);
        assert_eq!(coarser(0, 1, 0), 0);
    }

    #[test]
    fn floats_read_as_in_go() {
        assert_eq!(go_float(1e21), "1e+21");
        assert_eq!(go_float(1e-5), "1e-05");
        assert_eq!(go_float(123.5), "123.5");
        assert_eq!(go_float(-f64::INFINITY), "-Inf");
    }
}
