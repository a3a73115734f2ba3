//! Cutting a native histogram at a value: `</` and `>/`.
//!
//! Owns the estimate of what remains. Must not know queries.

use model::NativeHistogram;

use super::arith;
use super::bucket::{self, Bucket};

/// Keeps the observations below (`upper`) or above the value; count and sum are estimated from what remains.
pub(crate) fn trim(h: &mut NativeHistogram, at: f64, upper: bool) {
    let linear = h.has_custom_buckets();
    let (mut count, mut sum, mut changed) = (0.0, 0.0, false);
    let sides = [
        (bucket::positives(h).collect::<Vec<_>>(), true),
        (bucket::negatives(h).collect::<Vec<_>>(), false),
    ];
    let mut present = [false, false];
    for (side, (buckets, positive)) in sides.into_iter().enumerate() {
        for (i, b) in buckets.iter().enumerate().filter(|(_, b)| b.count != 0.0) {
            present[side] = true;
            let whole = if upper { b.upper <= at } else { b.lower >= at };
            let part = if upper { b.lower < at } else { b.upper > at };
            let (keep, middle) = if whole {
                (b.count, midpoint(b.lower, b.upper, positive, linear))
            } else if part {
                split(b, at, upper, positive, linear)
            } else {
                (0.0, 0.0)
            };
            count += keep;
            sum += middle * keep;
            if keep != b.count {
                changed = true;
                let slots = if positive {
                    &mut h.positive_buckets
                } else {
                    &mut h.negative_buckets
                };
                slots[i] = keep;
            }
        }
    }
    if h.zero_count > 0.0 {
        let (keep, middle) = split_zero(&bucket::zero(h), at, present[1], present[0], upper);
        changed |= keep != h.zero_count;
        h.zero_count = keep;
        count += keep;
        sum += middle * keep;
    }
    if changed {
        h.count = count;
        h.sum = sum;
        arith::compact(h);
    }
}

fn finite(v: f64) -> f64 {
    if v.is_infinite() { 0.0 } else { v }
}

/// What remains of a bucket, and the value that stands for it.
fn split(b: &Bucket, at: f64, upper: bool, positive: bool, linear: bool) -> (f64, f64) {
    if b.lower == f64::NEG_INFINITY {
        return split_lowest(b, at, upper);
    }
    if b.upper == f64::INFINITY {
        return match upper {
            true => (0.0, finite(b.lower)),
            false if at >= b.lower => (b.count, at),
            false => (0.0, finite(b.lower)),
        };
    }
    let below = if at <= b.lower {
        0.0
    } else if at >= b.upper {
        b.count
    } else {
        b.count * b.fraction_below(at, linear)
    };
    if upper {
        (below, midpoint(b.lower, at, positive, linear))
    } else {
        (b.count - below, midpoint(at, b.upper, positive, linear))
    }
}

fn split_lowest(b: &Bucket, at: f64, upper: bool) -> (f64, f64) {
    let bounded = b.upper != f64::INFINITY;
    if upper {
        if at >= b.upper {
            (b.count, 0.0)
        } else if at > 0.0 && b.upper > 0.0 && bounded {
            (b.count * at / b.upper, at / 2.0)
        } else if b.upper <= 0.0 {
            (b.count, at)
        } else {
            (0.0, finite(b.upper))
        }
    } else if at <= b.lower {
        (b.count, 0.0)
    } else if at >= 0.0 && b.upper > at && bounded {
        (b.count * (1.0 - at / b.upper), f64::midpoint(at, b.upper))
    } else {
        (0.0, finite(b.upper))
    }
}

fn split_zero(
    b: &Bucket,
    at: f64,
    has_negative: bool,
    has_positive: bool,
    keep_lower: bool,
) -> (f64, f64) {
    let (mut lower, mut upper) = (b.lower, b.upper);
    if has_negative && !has_positive {
        upper = 0.0;
    }
    if has_positive && !has_negative {
        lower = 0.0;
    }
    let all = (b.count, (lower + upper) / 2.0);
    if at <= lower {
        return if keep_lower { (0.0, 0.0) } else { all };
    }
    if at >= upper {
        return if keep_lower { all } else { (0.0, 0.0) };
    }
    if keep_lower {
        (
            b.count * ((at - lower) / (upper - lower)),
            (lower + at) / 2.0,
        )
    } else {
        (
            b.count * ((upper - at) / (upper - lower)),
            (at + upper) / 2.0,
        )
    }
}

fn midpoint(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    if lower.is_infinite() {
        return match upper {
            u if u.is_infinite() => 0.0,
            u if u > 0.0 => u / 2.0,
            u => u,
        };
    }
    if upper.is_infinite() {
        return lower;
    }
    if linear {
        return (lower + upper) / 2.0;
    }
    let mean = (lower * upper).abs().sqrt();
    if positive { mean } else { -mean }
}
