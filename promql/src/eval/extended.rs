//! `anchored` and `smoothed`: windows that reach beyond their edges (experimental).
//!
//! Owns interpolation between samples. Must not know how windows are found.

use std::sync::Arc;

use model::histogram::ResetHint;
use model::{NativeHistogram, SeriesData};

use super::block::{Block, Cell, Hist, Meta};
use super::engine::QueryError;
use super::notes::Note;
use super::rate::{Kind, Scope};
use super::run::{Evaluated, Evaluator, Grid, reference};
use super::window::{Cursor, Samples, Window};
use crate::hist::arith;
use crate::syntax::ast::{Extension, Modifiers, Span};

/// Which functions an extended range may stand in.
pub(crate) fn check_function(extension: Extension, name: &str) -> Evaluated<()> {
    let (word, allowed): (&str, &[&str]) = match extension {
        Extension::None => return Ok(()),
        Extension::Anchored => (
            "anchored",
            &["changes", "delta", "increase", "rate", "resets"],
        ),
        Extension::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if allowed.contains(&name) {
        return Ok(());
    }
    Err(QueryError::Execution(format!(
        "{word} modifier can only be used with: {} - not with {name}",
        allowed.join(", ")
    )))
}

/// The value at `t` on the line between two samples; a counter that fell counts from zero.
fn between(a: (i64, f64), b: (i64, f64), t: i64, counter: bool) -> f64 {
    let start = if counter && b.1 < a.1 { 0.0 } else { a.1 };
    start + (b.1 - start) * (t - a.0) as f64 / (b.0 - a.0) as f64
}

/// The first and last sample that count in a window, as indices.
fn ends(times: &[i64], w: &Window<'_>, smoothed: bool) -> Option<(usize, usize)> {
    let mut last = times.len().checked_sub(1)?;
    let first = times[..last]
        .partition_point(|t| *t <= w.from)
        .saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|t| *t < w.to);
    }
    if times[last] <= w.from || (smoothed && times[first] > w.to) {
        return None;
    }
    Some((first, last))
}

/// Values at both edges of a window.
fn edges(
    times: &[i64],
    values: &[f64],
    w: &Window<'_>,
    smoothed: bool,
    counter: bool,
    at: (usize, usize),
) -> (f64, f64) {
    let (first, last) = at;
    let point = |i: usize| (times[i], values[i]);
    let left = if smoothed && times[first] < w.from {
        between(point(first), point(first + 1), w.from, counter)
    } else {
        values[first]
    };
    let right = if smoothed && last > 0 && times[last] > w.to {
        between(point(last - 1), point(last), w.to, counter)
    } else {
        values[last]
    };
    (left, right)
}

/// rate, increase and delta over an extended window.
pub(crate) fn rate(w: &Window<'_>, scope: &Scope<'_>, kind: Kind, smoothed: bool) -> Cell {
    match (w.floats.is_empty(), w.hists.is_empty()) {
        (true, true) => Cell::None,
        (false, false) => {
            scope.note(Note::MixedFloatsHistograms);
            Cell::None
        }
        (false, true) => float_rate(w, scope, kind, smoothed),
        (true, false) => match hist_rate(w, scope, kind, smoothed) {
            Some(h) => Cell::Hist(Arc::new(h)),
            None => Cell::None,
        },
    }
}

fn float_rate(w: &Window<'_>, scope: &Scope<'_>, kind: Kind, smoothed: bool) -> Cell {
    let (t, v) = (w.float_t, w.floats);
    let Some((first, last)) = ends(t, w, smoothed) else {
        return Cell::None;
    };
    let (left, right) = edges(t, v, w, smoothed, kind.counter, (first, last));
    let mut result = right - left;
    if kind.counter {
        let from = first + usize::from(t[first] <= w.from);
        let to = if t[last] >= w.to { last } else { last + 1 };
        let mut before = left;
        for now in v.get(from..to).unwrap_or(&[]).iter().chain([&right]) {
            if *now < before {
                result += before;
            }
            before = *now;
        }
    }
    if kind.per_second {
        result /= scope.range_s;
    }
    Cell::Float(result)
}

/// The histogram at `t` between two, or `None` when they do not fit together.
fn between_hists(
    a: (i64, &Hist),
    b: (i64, &Hist),
    t: i64,
    counter: bool,
    scope: &Scope<'_>,
) -> Option<NativeHistogram> {
    if t == a.0 {
        return Some((**a.1).clone());
    }
    let mut out = (**b.1).clone();
    if t == b.0 {
        return Some(out);
    }
    let fraction = (t - a.0) as f64 / (b.0 - a.0) as f64;
    if counter && arith::is_reset(b.1, a.1) {
        arith::mul(&mut out, fraction);
        return Some(out);
    }
    if !scope.sub(&mut out, a.1) {
        return None;
    }
    arith::mul(&mut out, fraction);
    scope.add(&mut out, a.1).then_some(out)
}

fn hist_rate(
    w: &Window<'_>,
    scope: &Scope<'_>,
    kind: Kind,
    smoothed: bool,
) -> Option<NativeHistogram> {
    let (t, h) = (w.hist_t, w.hists);
    let (first, last) = ends(t, w, smoothed)?;
    let custom = h[first].has_custom_buckets();
    for sample in &h[first..=last] {
        if sample.has_custom_buckets() != custom {
            scope.note(Note::MixedSchemas);
            return None;
        }
        if kind.counter && sample.reset_hint == ResetHint::Gauge {
            scope.note(Note::NotCounter);
        }
    }
    let point = |i: usize| (t[i], &h[i]);
    let left = if smoothed && t[first] < w.from {
        between_hists(point(first), point(first + 1), w.from, kind.counter, scope)?
    } else {
        (*h[first]).clone()
    };
    let right = if smoothed && last > 0 && t[last] > w.to {
        between_hists(point(last - 1), point(last), w.to, kind.counter, scope)?
    } else {
        (*h[last]).clone()
    };
    let gauge = |h: &NativeHistogram| h.reset_hint == ResetHint::Gauge;
    let gauges = gauge(&left) && gauge(&right);
    if !kind.counter && !gauges {
        scope.note(Note::NotGauge);
    }
    let mut result = right.clone();
    if !scope.sub(&mut result, &left) {
        return None;
    }
    if kind.counter {
        let resets = resets(w, (first, last), &left, &right, smoothed);
        let mut correction: Option<NativeHistogram> = None;
        for part in resets {
            match &mut correction {
                None => correction = Some(part.clone()),
                Some(sum) => {
                    if !scope.add(sum, part) {
                        return None;
                    }
                }
            }
        }
        if let Some(correction) = correction
            && !scope.add(&mut result, &correction)
        {
            return None;
        }
    }
    if kind.per_second {
        arith::div(&mut result, scope.range_s);
    }
    result.reset_hint = ResetHint::Gauge;
    arith::compact(&mut result);
    Some(result)
}

/// The histograms right before each reset in the window.
fn resets<'w>(
    w: &Window<'w>,
    (first, last): (usize, usize),
    left: &'w NativeHistogram,
    right: &NativeHistogram,
    smoothed: bool,
) -> Vec<&'w NativeHistogram> {
    let (t, h) = (w.hist_t, w.hists);
    let mut from = first + 1;
    let mut before = left;
    if smoothed && t[first] < w.from && first < last && arith::is_reset(&h[first + 1], &h[first]) {
        before = &h[first + 1];
        from += 1;
    }
    let mut out = Vec::new();
    if from > last {
        return out;
    }
    for now in &h[from..last] {
        if arith::is_reset(now, before) {
            out.push(before);
        }
        before = now;
    }
    if arith::is_reset(right, before) {
        out.push(before);
    }
    out
}

/// A smoothed instant selector: values interpolated between the samples around each step.
pub(crate) fn smooth(
    ev: &Evaluator<'_>,
    series: Vec<SeriesData>,
    modifiers: &Modifiers,
    span: Span,
    grid: Grid,
) -> Evaluated<Block> {
    ev.check_size(series.len().saturating_mul(grid.steps))?;
    let lookback = ev.options.lookback_ms;
    let mut block = Block::new(grid.steps);
    for samples in series.into_iter().map(Samples::from_series) {
        let at = block.push_series(Meta {
            labels: samples.labels.clone(),
            drop_name: false,
        });
        let scope = Scope {
            notes: ev.notes,
            span,
            name: samples.labels.name(),
            range_s: 0.0,
        };
        let (mut fc, mut hc) = (Cursor::default(), Cursor::default());
        for (step, t) in grid.times().enumerate() {
            let t = reference(modifiers, t);
            let f = fc.seek(
                &samples.float_t,
                t.saturating_sub(lookback),
                t.saturating_add(lookback),
            );
            let h = hc.seek(
                &samples.hist_t,
                t.saturating_sub(lookback),
                t.saturating_add(lookback),
            );
            let cell = match (f.is_empty(), h.is_empty()) {
                (true, true) => Cell::None,
                (false, false) => {
                    scope.note(Note::MixedFloatsHistograms);
                    Cell::None
                }
                (false, true) => smooth_float(&samples.float_t[f.clone()], &samples.floats[f], t),
                (true, false) => {
                    smooth_hist(&samples.hist_t[h.clone()], &samples.hists[h], t, &scope)
                }
            };
            block.set(at, step, cell);
        }
        block.pop_if_empty();
    }
    Ok(block)
}

fn smooth_float(times: &[i64], values: &[f64], t: i64) -> Cell {
    let next = times.partition_point(|x| *x < t);
    match (next.checked_sub(1), times.get(next)) {
        (_, Some(x)) if *x == t => Cell::Float(values[next]),
        (Some(before), Some(x)) => Cell::Float(between(
            (times[before], values[before]),
            (*x, values[next]),
            t,
            false,
        )),
        (Some(before), None) => Cell::Float(values[before]),
        _ => Cell::None,
    }
}

fn smooth_hist(times: &[i64], hists: &[Hist], t: i64, scope: &Scope<'_>) -> Cell {
    let next = times.partition_point(|x| *x < t);
    match (next.checked_sub(1), times.get(next)) {
        (_, Some(x)) if *x == t => Cell::Hist(Arc::clone(&hists[next])),
        (Some(before), Some(x)) => {
            let (a, b) = (&hists[before], &hists[next]);
            if a.has_custom_buckets() != b.has_custom_buckets() {
                scope.note(Note::MixedSchemas);
                return Cell::None;
            }
            let counter = a.reset_hint != ResetHint::Gauge || b.reset_hint != ResetHint::Gauge;
            match between_hists((times[before], a), (*x, b), t, counter, scope) {
                Some(h) => Cell::Hist(Arc::new(h)),
                None => Cell::None,
            }
        }
        (Some(before), None) => {
            let mut h = (*hists[before]).clone();
            h.reset_hint = ResetHint::Unknown;
            Cell::Hist(Arc::new(h))
        }
        _ => Cell::None,
    }
}

/// An extended range vector as a result: its inner samples, and values at both edges.
pub(crate) fn clip_result(
    s: &mut Samples,
    extension: Extension,
    from: i64,
    to: i64,
) -> Evaluated<()> {
    let (word, smoothed) = match extension {
        Extension::None => return Ok(()),
        Extension::Anchored => ("anchored", false),
        Extension::Smoothed => ("smoothed", true),
    };
    if !s.hists.is_empty() {
        return Err(QueryError::Execution(format!(
            "{word} modifier is not supported with histograms"
        )));
    }
    let (t, v) = (
        std::mem::take(&mut s.float_t),
        std::mem::take(&mut s.floats),
    );
    s.float_start.clear();
    let w = Window {
        float_t: &t,
        floats: &v,
        float_start: &[],
        hist_t: &[],
        hists: &[],
        hist_start: &[],
        from,
        to,
        t_ms: to,
        has_drop: None,
    };
    let Some(at) = ends(&t, &w, smoothed) else {
        return Ok(());
    };
    let (left, right) = edges(&t, &v, &w, smoothed, false, at);
    s.float_t.push(from);
    s.floats.push(left);
    for i in (at.0..=at.1).filter(|i| t[*i] > from && t[*i] < to) {
        s.float_t.push(t[i]);
        s.floats.push(v[i]);
    }
    s.float_t.push(to);
    s.floats.push(right);
    Ok(())
}
