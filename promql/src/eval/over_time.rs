//! Functions over the samples of one window: the `*_over_time` family, resets, changes, regression, smoothing.
//!
//! Owns their arithmetic. Must not know how windows are found.

use std::sync::Arc;

use super::block::{Cell, Hist};
use super::notes::Note;
use super::rate::{Scope, is_start_reset};
use super::window::Window;
use crate::hist::accumulate::{Kahan, Sum};
use crate::hist::{arith, quantile};
use crate::syntax::ast::Extension;
use model::histogram::ResetHint;

/// Tells when histograms stand between the floats that alone count.
fn ignore_hists(w: &Window<'_>, scope: &Scope<'_>) {
    if !w.hists.is_empty() {
        scope.note(Note::IgnoredInRange);
    }
}

/// sum and avg: over floats or over histograms, not over a mix.
pub(crate) fn sum_or_avg(w: &Window<'_>, scope: &Scope<'_>, avg: bool) -> Cell {
    match (w.floats.is_empty(), w.hists.is_empty()) {
        (true, true) => Cell::None,
        (false, false) => {
            scope.note(Note::MixedFloatsHistograms);
            Cell::None
        }
        (true, false) => hist_sum(w, scope, avg),
        (false, true) if avg => Cell::Float(mean(w.floats.iter().copied())),
        (false, true) => {
            let mut sum = Kahan::default();
            w.floats.iter().for_each(|v| sum.add(*v));
            Cell::Float(sum.total())
        }
    }
}

/// The mean, without overflow on the way.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let mut mean = Mean::default();
    values.for_each(|v| mean.add(v));
    mean.value()
}

/// A running mean: a sum, until that would overflow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mean {
    sum: Kahan,
    count: f64,
    incremental: bool,
}

// === impl Mean ===

impl Mean {
    pub(crate) fn add(&mut self, v: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.sum = Kahan::new(v);
            return;
        }
        if !self.incremental {
            let mut next = self.sum;
            next.add(v);
            if !next.sum.is_infinite() {
                self.sum = next;
                return;
            }
            self.incremental = true;
            self.sum.sum /= self.count - 1.0;
            self.sum.lost /= self.count - 1.0;
        }
        let q = (self.count - 1.0) / self.count;
        self.sum.sum *= q;
        self.sum.lost *= q;
        self.sum.add(v / self.count);
    }

    pub(crate) fn value(&self) -> f64 {
        if self.incremental {
            self.sum.sum + self.sum.lost
        } else {
            self.sum.sum / self.count + self.sum.lost / self.count
        }
    }
}

/// A running sum or mean of histograms, with what there is to tell about it.
#[derive(Debug, Clone)]
pub(crate) struct HistMean {
    sum: Sum,
    count: f64,
    avg: bool,
    incremental: bool,
    reset_seen: bool,
    no_reset_seen: bool,
    pub(crate) reconciled: bool,
}

// === impl HistMean ===

impl HistMean {
    pub(crate) fn new(h: &Hist, avg: bool) -> Self {
        let mut new = HistMean {
            sum: Sum::new(h),
            count: 1.0,
            avg,
            incremental: false,
            reset_seen: false,
            no_reset_seen: false,
            reconciled: false,
        };
        new.track(h);
        new
    }

    fn track(&mut self, h: &Hist) {
        self.reset_seen |= h.reset_hint == ResetHint::Reset;
        self.no_reset_seen |= h.reset_hint == ResetHint::NotReset;
    }

    pub(crate) fn add(&mut self, h: &Hist) -> Result<(), arith::Incompatible> {
        self.track(h);
        self.count += 1.0;
        if !self.avg {
            self.reconciled |= self.sum.add(h)?.bounds_reconciled;
            return Ok(());
        }
        if !self.incremental {
            let mut next = self.sum.clone();
            self.reconciled |= next.add(h)?.bounds_reconciled;
            if !next.overflows() {
                self.sum = next;
                return Ok(());
            }
            self.incremental = true;
            self.sum.divide(self.count - 1.0);
        }
        self.sum.scale((self.count - 1.0) / self.count);
        let mut part = (**h).clone();
        arith::div(&mut part, self.count);
        self.reconciled |= self.sum.add(&part)?.bounds_reconciled;
        Ok(())
    }

    pub(crate) fn collides(&self) -> bool {
        self.reset_seen && self.no_reset_seen
    }

    pub(crate) fn value(mut self) -> model::NativeHistogram {
        if self.avg && !self.incremental {
            self.sum.divide(self.count);
        }
        self.sum.total()
    }
}

fn hist_sum(w: &Window<'_>, scope: &Scope<'_>, avg: bool) -> Cell {
    let mut sum = HistMean::new(&w.hists[0], avg);
    let fits = w.hists[1..].iter().try_for_each(|h| sum.add(h));
    if sum.collides() {
        scope
            .notes
            .add(Note::ResetCollision("aggregation"), scope.span);
    }
    if sum.reconciled {
        scope
            .notes
            .add(Note::BoundsReconciled("aggregation"), scope.span);
    }
    if fits.is_err() {
        scope.note(Note::MixedSchemas);
        return Cell::None;
    }
    Cell::Hist(Arc::new(sum.value()))
}

/// The extreme float, or when it was.
pub(crate) fn extreme(
    w: &Window<'_>,
    scope: &Scope<'_>,
    better: impl Fn(f64, f64) -> bool,
    when: bool,
) -> Cell {
    let Some(first) = w.floats.first() else {
        return Cell::None;
    };
    ignore_hists(w, scope);
    let (mut best, mut at) = (*first, 0);
    for (i, v) in w.floats.iter().enumerate() {
        if better(*v, best) || best.is_nan() {
            (best, at) = (*v, i);
        }
    }
    Cell::Float(if when {
        w.float_t[at] as f64 / 1000.0
    } else {
        best
    })
}

/// The first or last sample of either kind.
pub(crate) fn edge(w: &Window<'_>, last: bool) -> Cell {
    let index = |n: usize| {
        if last {
            n.checked_sub(1)
        } else {
            (n > 0).then_some(0)
        }
    };
    match (index(w.floats.len()), index(w.hists.len())) {
        (None, None) => Cell::None,
        (Some(f), None) => Cell::Float(w.floats[f]),
        (None, Some(h)) => Cell::Hist(Arc::clone(&w.hists[h])),
        (Some(f), Some(h)) => {
            if last == (w.float_t[f] > w.hist_t[h]) {
                Cell::Float(w.floats[f])
            } else {
                Cell::Hist(Arc::clone(&w.hists[h]))
            }
        }
    }
}

/// When the first or last sample was, seconds.
pub(crate) fn edge_time(w: &Window<'_>, last: bool) -> Cell {
    let t = if last {
        w.float_t.last().max(w.hist_t.last()).copied()
    } else {
        [w.float_t.first(), w.hist_t.first()]
            .into_iter()
            .flatten()
            .min()
            .copied()
    };
    t.map_or(Cell::None, |t| Cell::Float(t as f64 / 1000.0))
}

/// The quantile of the floats.
pub(crate) fn quantile_of(w: &Window<'_>, scope: &Scope<'_>, q: f64) -> Cell {
    if w.floats.is_empty() {
        return Cell::None;
    }
    ignore_hists(w, scope);
    Cell::Float(quantile::of_values(q, &mut w.floats.to_vec()))
}

/// The median absolute deviation of the floats.
pub(crate) fn mad(w: &Window<'_>, scope: &Scope<'_>) -> Cell {
    if w.floats.is_empty() {
        return Cell::None;
    }
    ignore_hists(w, scope);
    if w.floats.iter().any(|v| v.is_nan()) {
        return Cell::Float(f64::NAN);
    }
    let mut values = w.floats.to_vec();
    let median = quantile::of_values(0.5, &mut values);
    values.iter_mut().for_each(|v| *v = (*v - median).abs());
    Cell::Float(quantile::of_values(0.5, &mut values))
}

/// The population variance of the floats.
pub(crate) fn variance(w: &Window<'_>, scope: &Scope<'_>, root: bool) -> Cell {
    if w.floats.is_empty() {
        return Cell::None;
    }
    ignore_hists(w, scope);
    let (mut mean, mut spread, mut count) = (Kahan::default(), Kahan::default(), 0.0);
    for v in w.floats {
        count += 1.0;
        let delta = v - (mean.sum + mean.lost);
        mean.add(delta / count);
        spread.add(delta * (v - (mean.sum + mean.lost)));
    }
    let variance = (spread.sum + spread.lost) / count;
    Cell::Float(if root { variance.sqrt() } else { variance })
}

/// Slope and value at `origin` of the line of least squares through at least two floats.
fn regression(w: &Window<'_>, origin: i64) -> (f64, f64) {
    let first = w.floats[0];
    if w.floats[1..].iter().all(|v| *v == first) {
        return if first.is_infinite() {
            (f64::NAN, f64::NAN)
        } else {
            (0.0, first)
        };
    }
    let n = w.floats.len() as f64;
    let mut sums = [Kahan::default(); 4];
    for (t, y) in w.float_t.iter().zip(w.floats) {
        let x = (*t as f64 - origin as f64) / 1e3;
        for (sum, v) in sums.iter_mut().zip([x, *y, x * y, x * x]) {
            sum.add(v);
        }
    }
    let [x, y, xy, xx] = sums.map(|s| s.sum + s.lost);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

/// deriv and predict_linear (`ahead` seconds).
pub(crate) fn trend(w: &Window<'_>, scope: &Scope<'_>, ahead: Option<f64>) -> Cell {
    if !w.floats.is_empty() {
        ignore_hists(w, scope);
    }
    if w.floats.len() < 2 {
        return Cell::None;
    }
    Cell::Float(match ahead {
        None => regression(w, w.float_t[0]).0,
        Some(ahead) => {
            let (slope, now) = regression(w, w.t_ms);
            slope * ahead + now
        }
    })
}

/// Holt's double exponential smoothing.
pub(crate) fn double_exponential(
    w: &Window<'_>,
    scope: &Scope<'_>,
    level: f64,
    trend: f64,
) -> Cell {
    if !w.floats.is_empty() {
        ignore_hists(w, scope);
    }
    if w.floats.len() < 2 {
        return Cell::None;
    }
    let (mut before, mut now) = (0.0, w.floats[0]);
    let mut slope = w.floats[1] - w.floats[0];
    for (i, v) in w.floats.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (now - before) + (1.0 - trend) * slope;
        }
        let next = level * v + (1.0 - level) * (now + slope);
        (before, now) = (now, next);
    }
    Cell::Float(now)
}

/// Where counting begins in an anchored window: the first float and histogram index; `None` when nothing lies in it.
fn first_indices(w: &Window<'_>, extension: Extension) -> Option<(usize, usize)> {
    if extension != Extension::Anchored {
        return Some((0, 0));
    }
    let f = w.float_t.partition_point(|t| *t <= w.from);
    let h = w.hist_t.partition_point(|t| *t <= w.from);
    if f >= w.float_t.len() && h >= w.hist_t.len() {
        return None;
    }
    Some(match (f.checked_sub(1), h.checked_sub(1)) {
        (None, None) => (0, 0),
        (Some(lf), None) => (lf, h),
        (Some(lf), Some(lh)) if w.float_t[lf] >= w.hist_t[lh] => (lf, h),
        (_, Some(lh)) => (f, lh),
    })
}

/// resets (`changes` false) and changes: pairs of neighbours, of either kind, that differ so.
pub(crate) fn count_pairs(w: &Window<'_>, extension: Extension, changes: bool) -> Cell {
    if w.floats.is_empty() && w.hists.is_empty() {
        return Cell::None;
    }
    let Some((mut f, mut h)) = first_indices(w, extension) else {
        return Cell::None;
    };
    let mut count = 0u32;
    let mut before: Option<(i64, i64, Option<&Hist>, f64)> = None;
    while f < w.floats.len() || h < w.hists.len() {
        let float_next = h >= w.hists.len() || (f < w.floats.len() && w.float_t[f] < w.hist_t[h]);
        let now = if float_next {
            f += 1;
            let start = w.float_start.get(f - 1).copied().unwrap_or(0);
            (w.float_t[f - 1], start, None, w.floats[f - 1])
        } else {
            h += 1;
            let start = w.hist_start.get(h - 1).copied().unwrap_or(0);
            (w.hist_t[h - 1], start, Some(&w.hists[h - 1]), 0.0)
        };
        if let Some(b) = before {
            let start_reset = is_start_reset((b.1, b.0), (now.1, now.0));
            let counts = match (b.2, now.2, changes) {
                (None, None, true) => now.3 != b.3 && !(now.3.is_nan() && b.3.is_nan()),
                (None, None, false) => now.3 < b.3 || start_reset,
                (Some(x), Some(y), true) => !arith::equal(x, y),
                (Some(x), Some(y), false) => start_reset || arith::is_reset(y, x),
                _ => true,
            };
            count += u32::from(counts);
        }
        before = Some(now);
    }
    Cell::Float(f64::from(count))
}
