//! Quantiles and fractions of classic and of native histograms.
//!
//! Owns interpolation within buckets. Must not know queries.

use model::NativeHistogram;

use super::bucket;

/// A cumulative bucket of a classic histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Classic {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// Where decreasing counts had to be lifted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lifted {
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) largest_drop: f64,
}

/// Relative differences of neighbouring counts below this are rounding.
const TOLERANCE: f64 = 1e-12;

/// The quantile of a classic histogram, and what had to be repaired.
pub(crate) fn classic(q: f64, buckets: &mut Vec<Classic>) -> (f64, Option<Lifted>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !prepare(buckets) {
        return (f64::NAN, None);
    }
    let lifted = lift(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 {
        return (f64::NAN, lifted);
    }
    let mut rank = q * observations;
    let at = buckets[..last].partition_point(|b| b.count < rank || b.count.is_nan());
    let value = if at == last {
        buckets[last - 1].upper
    } else if at == 0 && buckets[0].upper <= 0.0 {
        buckets[0].upper
    } else {
        let (mut start, mut count) = (0.0, buckets[at].count);
        if at > 0 {
            start = buckets[at - 1].upper;
            count -= buckets[at - 1].count;
            rank -= buckets[at - 1].count;
        }
        start + (buckets[at].upper - start) * (rank / count)
    };
    (value, lifted)
}

/// Sorts and joins buckets of equal bound; whether the last one is `+Inf`.
fn prepare(buckets: &mut Vec<Classic>) -> bool {
    if !buckets.windows(2).all(|w| w[0].upper < w[1].upper) {
        buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
        buckets.dedup_by(|next, kept| {
            let same = next.upper == kept.upper;
            if same {
                kept.count += next.count;
            }
            same
        });
    }
    buckets.last().is_some_and(|b| b.upper == f64::INFINITY)
}

fn lift(buckets: &mut [Classic]) -> Option<Lifted> {
    let mut lifted: Option<Lifted> = None;
    let mut before = buckets[0].count;
    for b in &mut buckets[1..] {
        if b.count == before {
            continue;
        }
        if almost_equal(before, b.count) {
            b.count = before;
        } else if b.count < before {
            let drop = before - b.count;
            let seen = lifted.get_or_insert(Lifted {
                lowest: b.upper,
                highest: b.upper,
                largest_drop: drop,
            });
            seen.highest = b.upper;
            seen.largest_drop = seen.largest_drop.max(drop);
            b.count = before;
        } else {
            before = b.count;
        }
    }
    lifted
}

fn almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

/// The share of a classic histogram's observations between two values.
pub(crate) fn classic_fraction(lower: f64, upper: f64, buckets: &mut Vec<Classic>) -> f64 {
    if !prepare(buckets) {
        return f64::NAN;
    }
    let count = buckets.last().map_or(0.0, |b| b.count);
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let mut ranks = Ranks::new(lower, upper);
    let mut start = if buckets[0].upper <= 0.0 {
        f64::NEG_INFINITY
    } else {
        0.0
    };
    let mut rank = 0.0;
    for b in buckets.iter() {
        let within = |v: f64| {
            if start == f64::NEG_INFINITY {
                b.count
            } else {
                rank + (b.count - rank) * (v - start) / (b.upper - start)
            }
        };
        if ranks.visit(start, b.upper, rank, within) {
            break;
        }
        rank = b.count;
        start = b.upper;
    }
    ranks.between(count) / count
}

/// The ranks of two values, found bucket by bucket.
struct Ranks {
    lower: f64,
    upper: f64,
    lower_rank: Option<f64>,
    upper_rank: Option<f64>,
}

// === impl Ranks ===

impl Ranks {
    fn new(lower: f64, upper: f64) -> Self {
        Ranks {
            lower,
            upper,
            lower_rank: None,
            upper_rank: None,
        }
    }

    /// Looks at the bucket from `start` to `end`, `rank` observations lie below it. Whether both ranks are known.
    fn visit(&mut self, start: f64, end: f64, rank: f64, within: impl Fn(f64) -> f64) -> bool {
        for (value, slot) in [
            (self.lower, &mut self.lower_rank),
            (self.upper, &mut self.upper_rank),
        ] {
            if slot.is_some() {
                continue;
            }
            if start >= value {
                *slot = Some(rank);
            } else if start < value && end > value {
                *slot = Some(within(value));
            }
        }
        self.lower_rank.is_some() && self.upper_rank.is_some()
    }

    fn between(&self, count: f64) -> f64 {
        let cap = |r: Option<f64>| r.filter(|r| *r <= count || r.is_nan()).unwrap_or(count);
        cap(self.upper_rank) - cap(self.lower_rank)
    }
}

/// What NaN observations did to a native histogram's quantile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NanEffect {
    None,
    /// The result is NaN.
    Result,
    /// The result is too high.
    Skew,
}

/// The quantile of a native histogram.
pub(crate) fn native(q: f64, h: &NativeHistogram) -> (f64, NanEffect) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, NanEffect::None);
    }
    if q > 1.0 {
        return (f64::INFINITY, NanEffect::None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, NanEffect::None);
    }
    let custom = h.has_custom_buckets();
    let forward = h.sum.is_nan() || q < 0.5;
    let mut buckets = bucket::all(h);
    let mut rank = if forward {
        q * h.count
    } else {
        (1.0 - q) * h.count
    };
    if !forward {
        buckets.reverse();
    }
    let mut count = 0.0;
    let mut at = None;
    for (i, b) in buckets.iter().enumerate() {
        at = Some(i);
        if b.count == 0.0 {
            continue;
        }
        count += b.count;
        if count >= rank {
            break;
        }
    }
    let found = at.unwrap_or(0);
    let mut b = buckets.get(found).copied().unwrap_or(bucket::Bucket::EMPTY);
    if custom {
        if b.lower == f64::NEG_INFINITY {
            if b.upper <= 0.0 {
                return (b.upper, NanEffect::None);
            }
            b.lower = 0.0;
        } else if b.upper == f64::INFINITY {
            return (b.lower, NanEffect::None);
        }
    } else if b.lower < 0.0 && b.upper > 0.0 {
        clip_zero(h, &mut b);
    }
    count = count.min(h.count);
    if count < rank {
        return if h.sum.is_nan() {
            (f64::NAN, NanEffect::Result)
        } else {
            (b.upper, NanEffect::None)
        };
    }
    let mut effect = NanEffect::None;
    rank = if forward {
        rank - (count - b.count)
    } else {
        count - rank
    };
    if h.sum.is_nan() {
        let rest: f64 = buckets.iter().skip(found + 1).map(|b| b.count).sum();
        if count + rest < h.count {
            effect = NanEffect::Skew;
        }
    }
    let fraction = rank / b.count;
    if custom || (b.lower <= 0.0 && b.upper >= 0.0) {
        return (b.lower + (b.upper - b.lower) * fraction, effect);
    }
    let (low, high) = (b.lower.abs().log2(), b.upper.abs().log2());
    let value = if b.lower > 0.0 {
        (low + (high - low) * fraction).exp2()
    } else {
        -(high + (low - high) * (1.0 - fraction)).exp2()
    };
    (value, effect)
}

/// With observations on one side of zero only, the zero bucket ends at zero.
fn clip_zero(h: &NativeHistogram, b: &mut bucket::Bucket) {
    match (h.negative_buckets.is_empty(), h.positive_buckets.is_empty()) {
        (true, false) => b.lower = 0.0,
        (false, true) => b.upper = 0.0,
        _ => {}
    }
}

/// The share of a native histogram's observations between two values; whether NaN observations are left out.
pub(crate) fn native_fraction(lower: f64, upper: f64, h: &NativeHistogram) -> (f64, bool) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let mut ranks = Ranks::new(lower, upper);
    let mut rank = 0.0;
    let buckets = bucket::all(h);
    for b in &buckets {
        let mut b = *b;
        let zero = b.lower <= 0.0 && b.upper >= 0.0;
        if zero {
            clip_zero(h, &mut b);
        }
        let linear = h.has_custom_buckets() || zero;
        let within = |v: f64| {
            if linear && b.lower == f64::NEG_INFINITY {
                b.count
            } else {
                rank + b.count * b.fraction_below(v, linear)
            }
        };
        if ranks.visit(b.lower, b.upper, rank, within) {
            break;
        }
        rank += b.count;
    }
    let mut count = h.count;
    let mut left_out = false;
    if h.sum.is_nan() {
        count = buckets.iter().map(|b| b.count).sum();
        left_out = count < h.count;
    }
    (ranks.between(count) / h.count, left_out)
}

/// The quantile of plain values; sorts them.
pub(crate) fn of_values(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(order);
    let rank = q * (values.len() - 1) as f64;
    let low = (rank.floor() as usize).min(values.len() - 1);
    let high = (low + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[low] * (1.0 - weight) + values[high] * weight
}

/// Ascending, NaN first.
pub(crate) fn order(a: &f64, b: &f64) -> std::cmp::Ordering {
    a.partial_cmp(b)
        .unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_quantiles_interpolate() {
        let buckets = [(0.1, 50.0), (0.2, 90.0), (f64::INFINITY, 100.0)];
        let make = || {
            buckets
                .iter()
                .map(|(upper, count)| Classic {
                    upper: *upper,
                    count: *count,
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(classic(0.5, &mut make()).0, 0.1);
        assert!((classic(0.7, &mut make()).0 - 0.15).abs() < 1e-12);
        assert_eq!(classic(0.99, &mut make()).0, 0.2);
        assert_eq!(classic(1.5, &mut make()).0, f64::INFINITY);
        assert!(classic(0.5, &mut make()[..2].to_vec()).0.is_nan());
    }

    #[test]
    fn decreasing_counts_are_lifted_and_told() {
        let mut buckets = vec![
            Classic {
                upper: 1.0,
                count: 10.0,
            },
            Classic {
                upper: 2.0,
                count: 8.0,
            },
            Classic {
                upper: f64::INFINITY,
                count: 20.0,
            },
        ];
        let (_, lifted) = classic(0.5, &mut buckets);
        assert_eq!(lifted.map(|l| (l.lowest, l.largest_drop)), Some((2.0, 2.0)));
    }
}
