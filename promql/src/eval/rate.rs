//! rate, increase, delta, irate, idelta.
//!
//! Owns extrapolation and counter resets. Must not know how windows are found.

use std::sync::Arc;

use model::NativeHistogram;
use model::histogram::ResetHint;

use super::block::{Cell, Hist};
use super::notes::{Note, Notes};
use super::version2::{Difference, is_on};
use super::window::Window;
use crate::hist::arith;
use crate::syntax::ast::Span;

/// What a function over a window may refer to.
pub(crate) struct Scope<'a> {
    pub(crate) notes: &'a Notes,
    /// Where the range stands.
    pub(crate) span: Span,
    /// The metric's name, or empty.
    pub(crate) name: &'a str,
    /// The range's length, seconds.
    pub(crate) range_s: f64,
}

// === impl Scope ===

impl Scope<'_> {
    pub(crate) fn note(&self, make: impl FnOnce(String) -> Note) {
        self.notes.add(make(self.name.to_owned()), self.span);
    }

    /// `h += other`, with annotations; false when they do not fit together.
    pub(crate) fn add(&self, h: &mut NativeHistogram, other: &NativeHistogram) -> bool {
        self.combined(arith::add(h, other), "addition")
    }

    /// `h -= other`, with annotations; false when they do not fit together.
    pub(crate) fn sub(&self, h: &mut NativeHistogram, other: &NativeHistogram) -> bool {
        self.combined(arith::sub(h, other), "subtraction")
    }

    fn combined(
        &self,
        result: Result<arith::Notes, arith::Incompatible>,
        what: &'static str,
    ) -> bool {
        match result {
            Ok(notes) => {
                if notes.bounds_reconciled {
                    self.notes.add(Note::BoundsReconciled(what), self.span);
                }
                true
            }
            Err(arith::Incompatible) => {
                self.note(Note::MixedSchemas);
                false
            }
        }
    }
}

/// What the members of the rate family differ in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) counter: bool,
    pub(crate) per_second: bool,
}

/// Whether the start timestamps tell of a reset between two samples.
pub(crate) fn is_start_reset(before: (i64, i64), now: (i64, i64)) -> bool {
    let ((before_start, before_t), (start, t)) = (before, now);
    if start == 0 || start >= t || start < before_t {
        return false;
    }
    if start > before_t {
        return true;
    }
    before_start <= before_t && before_start != 0 && before_start != before_t
}

/// Whether any sample claims to have started while the one before it was still counting.
fn overlaps(times: &[i64], starts: &[i64]) -> bool {
    (1..starts.len())
        .any(|i| starts[i] != 0 && starts[i] < times[i - 1] && starts[i] != starts[i - 1])
}

fn start_reset_at(times: &[i64], starts: &[i64], i: usize) -> bool {
    i < starts.len() && is_start_reset((starts[i - 1], times[i - 1]), (starts[i], times[i]))
}

/// rate, increase and delta.
pub(crate) fn extrapolated(w: &Window<'_>, scope: &Scope<'_>, kind: Kind) -> Cell {
    match (w.floats.is_empty(), w.hists.is_empty()) {
        (true, true) => Cell::None,
        (false, false) => {
            scope.note(Note::MixedFloatsHistograms);
            Cell::None
        }
        (false, true) => floats(w, scope, kind),
        (true, false) => histograms(w, scope, kind),
    }
}

fn floats(w: &Window<'_>, scope: &Scope<'_>, kind: Kind) -> Cell {
    let (v, n) = (w.floats, w.floats.len());
    let mut result = v[n - 1] - v[0];
    let starts = if kind.counter { w.float_start } else { &[] };
    if kind.counter {
        if overlaps(w.float_t, starts) {
            scope.note(Note::StartOverlap);
        }
        if !starts.is_empty() || w.has_drop != Some(false) {
            for i in 1..n {
                if v[i] < v[i - 1] || start_reset_at(w.float_t, starts, i) {
                    result += v[i - 1];
                }
            }
        }
    }
    let span = Extent {
        first: w.float_t[0],
        last: w.float_t[n - 1],
        gaps: n - 1,
        start: starts.first().copied().unwrap_or(0),
    };
    let mut from_start = false;
    let factor = span.factor(w, scope, kind, &mut from_start, || {
        (result > 0.0 && v[0] >= 0.0).then(|| v[0] / result)
    });
    let Some(factor) = factor else {
        return Cell::None;
    };
    if from_start {
        result += v[0];
    }
    Cell::Float(result * factor)
}

fn histograms(w: &Window<'_>, scope: &Scope<'_>, kind: Kind) -> Cell {
    let n = w.hists.len();
    let mut result = None;
    if n > 1 {
        match histogram_rate(w, scope, kind.counter) {
            Some(h) => result = Some(h),
            None => return Cell::None,
        }
    }
    let starts = if kind.counter { w.hist_start } else { &[] };
    let span = Extent {
        first: w.hist_t[0],
        last: w.hist_t[n - 1],
        gaps: n - 1,
        start: starts.first().copied().unwrap_or(0),
    };
    let first = w.hists[0].count;
    let mut from_start = false;
    let factor = span.factor(w, scope, kind, &mut from_start, || {
        let total = result.as_ref().map_or(0.0, |h: &NativeHistogram| h.count);
        (total > 0.0 && first >= 0.0).then(|| first / total)
    });
    let Some(factor) = factor else {
        return Cell::None;
    };
    if from_start {
        match &mut result {
            Some(h) => {
                if !scope.add(h, &w.hists[0]) {
                    return Cell::None;
                }
            }
            None => result = Some((*w.hists[0]).clone()),
        }
    }
    match result {
        Some(mut h) => {
            arith::mul(&mut h, factor);
            Cell::Hist(Arc::new(h))
        }
        None => Cell::None,
    }
}

/// Where the samples of a window lie in it.
struct Extent {
    first: i64,
    last: i64,
    gaps: usize,
    /// When the first sample began to count, 0 for unknown.
    start: i64,
}

// === impl Extent ===

impl Extent {
    /// What the difference of the first and last sample is multiplied with. `zero_share` is how much of the covered
    /// time lies between a counter's zero and its first sample, if that is known. `None`: no result.
    fn factor(
        &self,
        w: &Window<'_>,
        scope: &Scope<'_>,
        kind: Kind,
        from_start: &mut bool,
        zero_share: impl FnOnce() -> Option<f64>,
    ) -> Option<f64> {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let mut to_start = seconds(self.first - w.from);
        let mut to_end = seconds(w.to - self.last);
        let mut covered = seconds(self.last - self.first);
        let average = if self.gaps > 0 {
            covered / self.gaps as f64
        } else {
            0.0
        };
        let threshold = average * 1.1;
        if kind.counter && self.start != 0 && self.start > w.from && self.start < self.first {
            to_start = 0.0;
            covered = seconds(self.last - self.start);
            *from_start = true;
        } else if self.gaps == 0 {
            return None;
        } else {
            let zero_first = is_on(Difference::ZeroFirst);
            if to_start >= threshold && !zero_first {
                to_start = average / 2.0;
            }
            if kind.counter
                && let Some(share) = zero_share()
            {
                let to_zero = covered * share;
                if to_zero < to_start {
                    to_start = to_zero;
                }
            }
            if to_start >= threshold && zero_first {
                to_start = average / 2.0;
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let mut factor = 1.0;
        if covered != 0.0 {
            factor = (covered + to_start + to_end) / covered;
        }
        if kind.per_second {
            factor /= scope.range_s;
        }
        Some(factor)
    }
}

/// The increase over a window of at least two histograms.
fn histogram_rate(w: &Window<'_>, scope: &Scope<'_>, counter: bool) -> Option<NativeHistogram> {
    let (hists, times, n) = (w.hists, w.hist_t, w.hists.len());
    let starts = if counter { w.hist_start } else { &[] };
    let (first, last) = (&hists[0], &hists[n - 1]);
    let is_gauge = |h: &Hist| h.reset_hint == ResetHint::Gauge;
    if counter && (is_gauge(first) || is_gauge(last)) {
        scope.note(Note::NotCounter);
    }
    let nothing;
    let mut before: &NativeHistogram = first;
    if counter && (start_reset_at(times, starts, 1) || arith::is_reset(&hists[1], first)) {
        // What came before a reset right after the first sample does not matter, its schema included.
        nothing = NativeHistogram {
            schema: hists[1].schema,
            custom_values: hists[1].custom_values.clone(),
            ..NativeHistogram::default()
        };
        before = &nothing;
    }
    let custom = before.has_custom_buckets();
    if last.has_custom_buckets() != custom {
        scope.note(Note::MixedSchemas);
        return None;
    }
    let mut schema = last.schema.min(before.schema);
    if counter {
        for h in &hists[1..n - 1] {
            if is_gauge(h) {
                scope.note(Note::NotCounter);
            }
            schema = schema.min(h.schema);
            if h.has_custom_buckets() != custom {
                scope.note(Note::MixedSchemas);
                return None;
            }
        }
    }
    let mut result = arith::at_schema(last, schema);
    if !scope.sub(&mut result, before) {
        return None;
    }
    if counter {
        if overlaps(times, starts) {
            scope.note(Note::StartOverlap);
        }
        for (i, now) in hists.iter().enumerate().skip(1) {
            let reset = start_reset_at(times, starts, i) || arith::is_reset(now, before);
            if reset && !scope.add(&mut result, before) {
                return None;
            }
            before = now;
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        scope.note(Note::NotGauge);
    }
    result.reset_hint = ResetHint::Gauge;
    arith::compact(&mut result);
    Some(result)
}

/// irate and idelta: from the last two samples.
pub(crate) fn instant(w: &Window<'_>, scope: &Scope<'_>, counter: bool) -> Cell {
    let mut last: Vec<(i64, i64, Option<&Hist>, f64)> = Vec::with_capacity(4);
    let from = w.floats.len().saturating_sub(2);
    for i in from..w.floats.len() {
        last.push((
            w.float_t[i],
            w.float_start.get(i).copied().unwrap_or(0),
            None,
            w.floats[i],
        ));
    }
    let from = w.hists.len().saturating_sub(2);
    for i in from..w.hists.len() {
        last.push((
            w.hist_t[i],
            w.hist_start.get(i).copied().unwrap_or(0),
            Some(&w.hists[i]),
            0.0,
        ));
    }
    last.sort_by_key(|s| s.0);
    let [.., a, b] = last.as_slice() else {
        return Cell::None;
    };
    let interval = (b.0 - a.0) as f64 / 1000.0;
    if interval == 0.0 {
        return Cell::None;
    }
    let start_reset = counter && is_start_reset((a.1, a.0), (b.1, b.0));
    match (a.2, b.2) {
        (None, None) => {
            let reset = counter && (b.3 < a.3 || start_reset);
            let change = if reset { b.3 } else { b.3 - a.3 };
            Cell::Float(if counter { change / interval } else { change })
        }
        (Some(x), Some(y)) => {
            let gauges = [x, y].map(|h| h.reset_hint == ResetHint::Gauge);
            if counter && gauges.contains(&true) {
                scope.note(Note::NotCounter);
            }
            if !counter && gauges.contains(&false) {
                scope.note(Note::NotGauge);
            }
            let mut h = (**y).clone();
            if (!counter || !(start_reset || arith::is_reset(y, x))) && !scope.sub(&mut h, x) {
                return Cell::None;
            }
            h.reset_hint = ResetHint::Gauge;
            arith::compact(&mut h);
            if counter {
                arith::div(&mut h, interval);
            }
            Cell::Hist(Arc::new(h))
        }
        _ => {
            scope.note(Note::MixedFloatsHistograms);
            Cell::None
        }
    }
}
