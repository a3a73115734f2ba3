//! Sums, differences, products and comparisons of native histograms.
//!
//! Owns how histograms of unlike schema, zero bucket or bounds are brought together. Must not know queries.

use model::NativeHistogram;
use model::histogram::{ResetHint, Span, from_indexed, indexed};

use super::bucket::{bound, coarser};

/// The buckets of one side: ascending index, count.
pub(crate) type Side = Vec<(i32, f64)>;

/// What a sum or difference had to gloss over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Notes {
    /// One operand claimed a counter reset, the other that there was none.
    pub(crate) reset_collision: bool,
    /// The custom bounds were not the same; only the shared ones are kept.
    pub(crate) bounds_reconciled: bool,
}

/// One histogram has exponential buckets, the other custom ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// `h += other`.
pub(crate) fn add(h: &mut NativeHistogram, other: &NativeHistogram) -> Result<Notes, Incompatible> {
    combine(h, other, 1.0)
}

/// `h -= other`.
pub(crate) fn sub(h: &mut NativeHistogram, other: &NativeHistogram) -> Result<Notes, Incompatible> {
    combine(h, other, -1.0)
}

fn combine(
    h: &mut NativeHistogram,
    other: &NativeHistogram,
    factor: f64,
) -> Result<Notes, Incompatible> {
    if h.has_custom_buckets() != other.has_custom_buckets() {
        return Err(Incompatible);
    }
    let reset_collision = adjust_hint(&mut h.reset_hint, other.reset_hint);
    let mut bounds_reconciled = false;
    if h.has_custom_buckets() {
        if h.custom_values != other.custom_values {
            bounds_reconciled = true;
            let shared = shared_bounds(&h.custom_values, &other.custom_values);
            let mine = to_bounds(h.positive(), &h.custom_values, &shared);
            let theirs = to_bounds(other.positive(), &other.custom_values, &shared);
            let merged = merge(&mine, &theirs, factor);
            set_positive(h, merged.into_iter().filter(|(_, c)| *c != 0.0).collect());
            h.custom_values = shared;
        } else if same_layout(&h.positive_spans, &other.positive_spans) {
            add_flat(&mut h.positive_buckets, &other.positive_buckets, factor);
        } else {
            let merged = merge(&h.positive().collect(), &other.positive().collect(), factor);
            set_positive(h, merged);
        }
    } else {
        combine_exponential(h, other, factor);
    }
    h.count += factor * other.count;
    h.sum += factor * other.sum;
    Ok(Notes {
        reset_collision,
        bounds_reconciled,
    })
}

fn combine_exponential(h: &mut NativeHistogram, other: &NativeHistogram, factor: f64) {
    let zero = reconcile_zero(h, other);
    h.zero_count += factor * zero;
    if h.schema == other.schema
        && h.zero_threshold == other.zero_threshold
        && same_layout(&h.positive_spans, &other.positive_spans)
        && same_layout(&h.negative_spans, &other.negative_spans)
    {
        add_flat(&mut h.positive_buckets, &other.positive_buckets, factor);
        add_flat(&mut h.negative_buckets, &other.negative_buckets, factor);
        return;
    }
    let schema = h.schema.min(other.schema);
    let (p, n) = sides(h, schema);
    let (op, on) = sides(other, schema);
    h.schema = schema;
    let keep = |side: Side| above_threshold(side, schema, h.zero_threshold);
    let (op, on) = (keep(op), keep(on));
    set_positive(h, merge(&p, &op, factor));
    set_negative(h, merge(&n, &on, factor));
}

fn same_layout(a: &[Span], b: &[Span]) -> bool {
    a == b
}

fn add_flat(a: &mut [f64], b: &[f64], factor: f64) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += factor * b;
    }
}

/// Without the leading buckets that lie within the zero bucket.
pub(crate) fn above_threshold(side: Side, schema: i32, threshold: f64) -> Side {
    let skip = side
        .iter()
        .take_while(|(i, _)| bound(*i, schema) <= threshold)
        .count();
    if skip == 0 {
        side
    } else {
        side[skip..].to_vec()
    }
}

fn merge(a: &Side, b: &Side, factor: f64) -> Side {
    let mut out = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) if x.0 == y.0 => {
                out.push((x.0, x.1 + factor * y.1));
                i += 1;
                j += 1;
            }
            (Some(x), y) if y.is_none_or(|y| x.0 < y.0) => {
                out.push(*x);
                i += 1;
            }
            (_, Some(y)) => {
                out.push((y.0, factor * y.1));
                j += 1;
            }
            _ => break,
        }
    }
    out
}

/// Both sides at a schema no finer than the histogram's own.
pub(crate) fn sides(h: &NativeHistogram, schema: i32) -> (Side, Side) {
    let reduce = |spans: &[Span], buckets: &[f64]| -> Side {
        let mut out: Side = Vec::with_capacity(buckets.len());
        for (i, c) in indexed(spans, buckets) {
            let i = if schema == h.schema {
                i
            } else {
                coarser(i, h.schema, schema)
            };
            match out.last_mut() {
                Some(last) if last.0 == i => last.1 += c,
                _ => out.push((i, c)),
            }
        }
        out
    };
    (
        reduce(&h.positive_spans, &h.positive_buckets),
        reduce(&h.negative_spans, &h.negative_buckets),
    )
}

pub(crate) fn set_positive(h: &mut NativeHistogram, side: Side) {
    (h.positive_spans, h.positive_buckets) = from_indexed(side);
}

pub(crate) fn set_negative(h: &mut NativeHistogram, side: Side) {
    (h.negative_spans, h.negative_buckets) = from_indexed(side);
}

/// The reset hint of a sum; whether the operands' hints contradict each other.
pub(crate) fn adjust_hint(mine: &mut ResetHint, other: ResetHint) -> bool {
    use ResetHint::{Gauge, Unknown};
    match (*mine, other) {
        (a, b) if a == b => false,
        (Gauge, _) | (Unknown, _) if other != Gauge || *mine == Gauge => false,
        (_, Gauge) => {
            *mine = Gauge;
            false
        }
        (_, Unknown) => {
            *mine = Unknown;
            false
        }
        _ => {
            *mine = Unknown;
            true
        }
    }
}

/// Widens the zero bucket of `h` to that of `other` if it must; gives `other`'s count in a zero bucket that wide.
pub(crate) fn reconcile_zero(h: &mut NativeHistogram, other: &NativeHistogram) -> f64 {
    let (mut count, mut threshold) = (other.zero_count, other.zero_threshold);
    while threshold != h.zero_threshold {
        if h.zero_threshold > threshold {
            (count, threshold) = zero_for_threshold(other, h.zero_threshold);
        }
        if threshold > h.zero_threshold {
            (h.zero_count, h.zero_threshold) = zero_for_threshold(h, threshold);
            drop_within_zero(h);
        }
        if threshold.is_nan() || h.zero_threshold.is_nan() {
            break;
        }
    }
    count
}

/// The zero count if the zero bucket were at least `threshold` wide, and how wide it must be so that it cuts no bucket.
fn zero_for_threshold(h: &NativeHistogram, mut threshold: f64) -> (f64, f64) {
    if threshold <= h.zero_threshold {
        return (h.zero_count, h.zero_threshold);
    }
    'again: loop {
        let mut count = h.zero_count;
        for (i, c) in h.positive() {
            if bound(i - 1, h.schema) >= threshold {
                break;
            }
            count += c;
            let upper = bound(i, h.schema);
            if upper > threshold {
                if c != 0.0 {
                    threshold = upper;
                }
                break;
            }
        }
        for (i, c) in h.negative() {
            if bound(i - 1, h.schema) >= threshold {
                break;
            }
            count += c;
            let upper = bound(i, h.schema);
            if upper > threshold {
                if c != 0.0 {
                    threshold = upper;
                    continue 'again;
                }
                break;
            }
        }
        return (count, threshold);
    }
}

fn drop_within_zero(h: &mut NativeHistogram) {
    let (p, n) = sides(h, h.schema);
    let (schema, threshold) = (h.schema, h.zero_threshold);
    let keep = |side: Side| -> Side {
        side.into_iter()
            .filter(|(i, c)| *c != 0.0 && bound(*i - 1, schema) >= threshold)
            .collect()
    };
    set_positive(h, keep(p));
    set_negative(h, keep(n));
}

/// The bounds that both sets have.
pub(crate) fn shared_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().copied().filter(|x| b.contains(x)).collect()
}

/// Custom buckets counted into coarser bounds.
pub(crate) fn to_bounds(side: impl Iterator<Item = (i32, f64)>, from: &[f64], to: &[f64]) -> Side {
    let mut out: Side = Vec::new();
    for (i, c) in side {
        let target = match usize::try_from(i).ok().and_then(|i| from.get(i)) {
            Some(upper) => to.partition_point(|b| b < upper),
            None => to.len(),
        };
        let target = i32::try_from(target).unwrap_or(i32::MAX);
        match out.last_mut() {
            Some(last) if last.0 == target => last.1 += c,
            _ => out.push((target, c)),
        }
    }
    out
}

/// `h *= factor`.
pub(crate) fn mul(h: &mut NativeHistogram, factor: f64) {
    each(h, |v| v * factor);
    if factor < 0.0 {
        h.reset_hint = ResetHint::Gauge;
    }
}

/// `h /= divisor`.
pub(crate) fn div(h: &mut NativeHistogram, divisor: f64) {
    each(h, |v| v / divisor);
    if divisor == 0.0 {
        set_positive(h, Vec::new());
        set_negative(h, Vec::new());
    } else if divisor < 0.0 {
        h.reset_hint = ResetHint::Gauge;
    }
}

fn each(h: &mut NativeHistogram, f: impl Fn(f64) -> f64) {
    h.zero_count = f(h.zero_count);
    h.count = f(h.count);
    h.sum = f(h.sum);
    for b in h.positive_buckets.iter_mut().chain(&mut h.negative_buckets) {
        *b = f(*b);
    }
}

/// Removes empty buckets.
pub(crate) fn compact(h: &mut NativeHistogram) {
    let canonical = |spans: &[Span]| {
        spans.iter().skip(1).all(|s| s.offset != 0) && spans.iter().all(|s| s.length > 0)
    };
    let full = |h: &NativeHistogram| {
        h.positive_buckets
            .iter()
            .chain(&h.negative_buckets)
            .all(|c| *c != 0.0)
    };
    if full(h) && canonical(&h.positive_spans) && canonical(&h.negative_spans) {
        return;
    }
    let (p, n) = sides(h, h.schema);
    set_positive(h, p.into_iter().filter(|(_, c)| *c != 0.0).collect());
    set_negative(h, n.into_iter().filter(|(_, c)| *c != 0.0).collect());
}

/// The histogram at a coarser schema; its reset hint is then unknown.
pub(crate) fn at_schema(h: &NativeHistogram, schema: i32) -> NativeHistogram {
    if schema >= h.schema || h.has_custom_buckets() {
        return h.clone();
    }
    let (p, n) = sides(h, schema);
    let mut out = NativeHistogram {
        schema,
        zero_threshold: h.zero_threshold,
        zero_count: h.zero_count,
        count: h.count,
        sum: h.sum,
        ..NativeHistogram::default()
    };
    set_positive(&mut out, p);
    set_negative(&mut out, n);
    out
}

/// Whether two histograms are the same, bit by bit, whatever their reset hints.
pub(crate) fn equal(a: &NativeHistogram, b: &NativeHistogram) -> bool {
    let bits = |x: f64, y: f64| x.to_bits() == y.to_bits();
    let side = |x: Vec<(i32, f64)>, y: Vec<(i32, f64)>| {
        x.len() == y.len() && x.iter().zip(&y).all(|(x, y)| x.0 == y.0 && bits(x.1, y.1))
    };
    a.schema == b.schema
        && bits(a.count, b.count)
        && bits(a.sum, b.sum)
        && (!a.has_custom_buckets() || a.custom_values == b.custom_values)
        && a.zero_threshold == b.zero_threshold
        && bits(a.zero_count, b.zero_count)
        && side(a.positive().collect(), b.positive().collect())
        && side(a.negative().collect(), b.negative().collect())
}

/// Whether a counter reset lies between `previous` and `h`.
pub(crate) fn is_reset(h: &NativeHistogram, previous: &NativeHistogram) -> bool {
    match h.reset_hint {
        ResetHint::Reset => return true,
        ResetHint::NotReset => return false,
        _ => {}
    }
    if h.count < previous.count {
        return true;
    }
    if h.has_custom_buckets() {
        if !previous.has_custom_buckets() {
            return true;
        }
        if h.custom_values != previous.custom_values {
            let shared = shared_bounds(&h.custom_values, &previous.custom_values);
            let now = to_bounds(h.positive(), &h.custom_values, &shared);
            let before = to_bounds(previous.positive(), &previous.custom_values, &shared);
            return shrinks(&now, &before);
        }
        return shrinks(&h.positive().collect(), &previous.positive().collect());
    }
    if h.schema > previous.schema || h.zero_threshold < previous.zero_threshold {
        return true;
    }
    let (zero, threshold) = zero_for_threshold(previous, h.zero_threshold);
    if threshold != h.zero_threshold || h.zero_count < zero {
        return true;
    }
    let keep = |side: Side| above_threshold(side, h.schema, h.zero_threshold);
    let (p, n) = sides(h, h.schema);
    let (pp, pn) = sides(previous, h.schema);
    shrinks(&keep(p), &keep(pp)) || shrinks(&keep(n), &keep(pn))
}

/// Whether any bucket holds less than it did.
fn shrinks(now: &Side, before: &Side) -> bool {
    let mut i = 0;
    before.iter().any(|(index, count)| {
        while i < now.len() && now[i].0 < *index {
            i += 1;
        }
        match now.get(i) {
            Some((at, c)) if at == index => c < count,
            _ => *count != 0.0,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn histogram(schema: i32, buckets: &[(i32, u32)]) -> NativeHistogram {
        let side: Side = buckets.iter().map(|(i, c)| (*i, f64::from(*c))).collect();
        let mut h = NativeHistogram {
            schema,
            count: side.iter().fold(0.0, |sum, b| sum + b.1),
            ..Default::default()
        };
        set_positive(&mut h, side);
        h
    }

    #[test]
    fn hints_combine_as_specified() {
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        for (a, b, want, collision) in [
            (Gauge, Reset, Gauge, false),
            (Reset, Gauge, Gauge, false),
            (Unknown, Gauge, Gauge, false),
            (Unknown, Reset, Unknown, false),
            (Reset, Unknown, Unknown, false),
            (Reset, NotReset, Unknown, true),
            (Reset, Reset, Reset, false),
        ] {
            let mut hint = a;
            assert_eq!(adjust_hint(&mut hint, b), collision, "{a:?} {b:?}");
            assert_eq!(hint, want, "{a:?} {b:?}");
        }
    }

    #[test]
    fn widening_the_zero_bucket_swallows_whole_buckets() {
        let mut a = histogram(0, &[(0, 1), (1, 2), (2, 4)]);
        let b = NativeHistogram {
            zero_threshold: 1.5,
            zero_count: 7.0,
            count: 7.0,
            ..Default::default()
        };
        add(&mut a, &b).unwrap();
        assert_eq!(a.zero_threshold, 2.0);
        assert_eq!(a.zero_count, 10.0);
        assert_eq!(a.positive().collect::<Vec<_>>(), [(2, 4.0)]);
    }

    proptest! {
        #[test]
        fn sums_commute_and_differences_undo(
            a in proptest::collection::btree_map(-20i32..20, 1u32..50, 0..12),
            b in proptest::collection::btree_map(-20i32..20, 1u32..50, 0..12),
            s in -2i32..3, t in -2i32..3,
        ) {
            let make = |m: &std::collections::BTreeMap<i32, u32>, s| histogram(s, &m.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
            let (x, y) = (make(&a, s), make(&b, t));
            let (mut xy, mut yx) = (x.clone(), y.clone());
            add(&mut xy, &y).unwrap();
            add(&mut yx, &x).unwrap();
            prop_assert!(equal(&xy, &yx));
            prop_assert!(!is_reset(&xy, &x));
            sub(&mut xy, &y).unwrap();
            compact(&mut xy);
            prop_assert!(equal(&xy, &at_schema(&x, s.min(t))));
        }
    }
}
