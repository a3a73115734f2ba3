//! rate, increase and delta of a series of floats at every step of a query: [`super::rate`] window by window, but with
//! running indices, and with what depends only on where a window's samples lie computed once as long as that repeats.
//!
//! Owns the quick way. Must not know histograms, start times, notes: series that have any take the other way. Every
//! operation on floats is that of [`super::rate::extrapolated`], in its order, so that results are the same bit for bit.

use super::rate::Kind;
use super::run::{Grid, reference};
use super::version2::{Difference, is_on};
use super::window::count_drops;
use crate::syntax::ast::Modifiers;

/// The windows of all steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edges {
    /// The end of the first window, inclusive.
    first: i64,
    stride: i64,
    range_ms: i64,
}

// === impl Edges ===

impl Edges {
    /// `None` when a window would reach beyond the times that there are.
    pub(crate) fn new(modifiers: &Modifiers, grid: Grid, range_ms: i64) -> Option<Self> {
        if is_on(Difference::ZeroFirst) || is_on(Difference::ClosedWindows) {
            return None;
        }
        let (first, last) = (
            reference(modifiers, grid.start),
            reference(modifiers, grid.last()),
        );
        let stride = if modifiers.at.is_some() { 0 } else { grid.step };
        let steps = i64::try_from(grid.steps.saturating_sub(1)).ok()?;
        let reached = first.checked_add(stride.checked_mul(steps)?)?;
        first.checked_sub(range_ms)?;
        (reached == last && range_ms >= 0 && stride >= 0).then_some(Edges {
            first,
            stride,
            range_ms,
        })
    }
}

/// Where the samples of a window lie in it, and what follows from that alone.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// From the window's start to the first sample, from the first to the last, milliseconds; samples less one.
    key: (i64, i64, usize),
    to_start: f64,
    to_end: f64,
    covered: f64,
    /// What the difference is multiplied with when the counter's zero is far.
    factor: f64,
}

// === impl Layout ===

impl Layout {
    fn new(key: (i64, i64, usize), range_ms: i64, kind: Kind) -> Self {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let (before, between, gaps) = key;
        let mut to_start = seconds(before);
        let mut to_end = seconds(range_ms - before - between);
        let covered = seconds(between);
        let average = covered / gaps as f64;
        let threshold = average * 1.1;
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let mut layout = Layout {
            key,
            to_start,
            to_end,
            covered,
            factor: 1.0,
        };
        layout.factor = layout.factor_from(to_start, range_ms, kind);
        layout
    }

    fn factor_from(&self, to_start: f64, range_ms: i64, kind: Kind) -> f64 {
        let mut factor = 1.0;
        if self.covered != 0.0 {
            factor = (self.covered + to_start + self.to_end) / self.covered;
        }
        if kind.per_second {
            factor /= range_ms as f64 / 1000.0;
        }
        factor
    }
}

/// Writes the values to `out`, one for each step that has one; whether there was any.
pub(crate) fn rates(
    times: &[i64],
    values: &[f64],
    edges: Edges,
    kind: Kind,
    out: &mut [f64],
) -> bool {
    let values = &values[..times.len()];
    let falls = kind.counter && falls(values);
    let drops = if falls {
        count_drops(values)
    } else {
        Vec::new()
    };
    let (mut lo, mut hi) = (0, 0);
    let mut to = edges.first;
    let mut any = false;
    let mut layout: Option<Layout> = None;
    for out in out {
        let from = to - edges.range_ms;
        while hi < times.len() && times[hi] <= to {
            hi += 1;
        }
        while lo < hi && times[lo] <= from {
            lo += 1;
        }
        to = to.saturating_add(edges.stride);
        let gaps = (hi - lo).saturating_sub(1);
        if gaps == 0 {
            continue;
        }
        let (first, last) = (times[lo], times[hi - 1]);
        let v = &values[lo..hi];
        let mut result = v[gaps] - v[0];
        if falls && drops[hi - 1] > drops[lo] {
            for pair in v.windows(2).filter(|pair| pair[1] < pair[0]) {
                result += pair[0];
            }
        }
        let key = (first - from, last - first, gaps);
        let here = match &layout {
            Some(layout) if layout.key == key => layout,
            _ => layout.insert(Layout::new(key, edges.range_ms, kind)),
        };
        let mut factor = here.factor;
        // A counter is not extrapolated to below its zero. That is beyond the window's start anyway when the first
        // value is no less than the increase: then `covered * (v[0] / result) >= covered >= to_start`.
        let near = !(v[0] >= result && here.covered >= here.to_start);
        if kind.counter && result > 0.0 && v[0] >= 0.0 && near {
            let to_zero = here.covered * (v[0] / result);
            if to_zero < here.to_start {
                factor = here.factor_from(to_zero, edges.range_ms, kind);
            }
        }
        *out = result * factor;
        any = true;
    }
    any
}

/// Whether any value is smaller than the one before it.
fn falls(values: &[f64]) -> bool {
    let after = values.get(1..).unwrap_or(&[]);
    let pairs = values.iter().zip(after);
    pairs.fold(false, |any, (before, now)| any | (now < before))
}

#[cfg(test)]
mod tests {
    use super::super::block::{ABSENT, Cell, is_absent};
    use super::super::notes::Notes;
    use super::super::rate::{Scope, extrapolated};
    use super::super::window::{Cursor, Window};
    use super::*;
    use crate::syntax::ast::Span;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => (0i32..2_000).prop_map(f64::from),
            2 => any::<f64>(),
            1 => Just(f64::INFINITY),
            1 => Just(f64::NAN),
            1 => (-50i32..50).prop_map(|v| f64::from(v) / 8.0),
        ]
    }

    proptest! {
        #[test]
        fn the_quick_way_is_the_other_one_bit_for_bit(
            samples in proptest::collection::vec((1i64..40_000, value(), any::<bool>()), 0..60),
            regular in any::<bool>(),
            rising in any::<bool>(),
            start in -50_000i64..400_000,
            step in 1i64..60_000,
            steps in 1usize..40,
            range_ms in 0i64..200_000,
            (counter, per_second) in (any::<bool>(), any::<bool>()),
        ) {
            let (mut t, mut sum) = (0, 0.0);
            let (mut times, mut values) = (Vec::new(), Vec::new());
            for (gap, value, rise) in samples {
                t += if regular { 15_000 } else { gap };
                sum = if rising || rise { sum + value.abs() } else { value };
                times.push(t);
                values.push(sum);
            }
            let grid = Grid { start, end: start + step * steps as i64, step, steps };
            let kind = Kind { counter, per_second };
            let notes = Notes::default();
            let scope = Scope {
                notes: &notes,
                span: Span { start: 0, end: 0 },
                name: "",
                range_s: range_ms as f64 / 1000.0,
            };
            let edges = Edges::new(&Modifiers::default(), grid, range_ms).unwrap();
            let mut quick = vec![ABSENT; steps];
            let any = rates(&times, &values, edges, kind, &mut quick);
            let mut cursor = Cursor::default();
            for (t_ms, quick) in grid.times().zip(&quick) {
                let (from, to) = (t_ms - range_ms, t_ms);
                let found = cursor.seek(&times, from, to);
                let window = Window {
                    float_t: &times[found.clone()],
                    floats: &values[found],
                    float_start: &[],
                    hist_t: &[],
                    hists: &[],
                    hist_start: &[],
                    from,
                    to,
                    t_ms,
                    has_drop: None,
                };
                match extrapolated(&window, &scope, kind) {
                    Cell::Float(v) => {
                        // The sign and payload of a NaN say nothing.
                        prop_assert!(v.to_bits() == quick.to_bits() || (v.is_nan() && quick.is_nan() && !is_absent(*quick)));
                    }
                    _ => prop_assert!(is_absent(*quick)),
                }
            }
            prop_assert_eq!(any, quick.iter().any(|v| !is_absent(*v)));
        }
    }
}
