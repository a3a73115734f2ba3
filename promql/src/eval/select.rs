//! Reading selectors from the source.
//!
//! Owns which time span a selector needs, lookback and staleness. Must not know functions.

use std::ops::ControlFlow;
use std::sync::Arc;

use model::histogram::ResetHint;
use model::{Labels, Matcher, Points, SelectRequest, SeriesData};

use super::block::{Block, Cell, Hist};
use super::engine::QueryError;
use super::extended;
use super::row::{Row, Sink};
use super::run::{Evaluated, Evaluator, Grid, reference};
use super::version2;
use super::window::Samples;
use crate::hist::arith;
use crate::syntax::ast::{Extension, MatrixSelector, Modifiers, Selector, Span};

// === impl Evaluator ===

impl Evaluator<'_> {
    /// Reads the series that match in `(after, to]`, one after another. The points are `each`'s to take.
    pub(crate) fn visit(
        &self,
        matchers: &[Matcher],
        (after, to): (i64, i64),
        mut each: impl FnMut(&Labels, &mut Points) -> Evaluated<()>,
    ) -> Evaluated<()> {
        let limit = self.options.max_samples;
        let request = SelectRequest {
            matchers,
            start_ms: after.saturating_add(1),
            end_ms: to,
            max_points: self.budget(),
        };
        let mut failed = None;
        let read = self.source.visit(&request, &mut |labels, points| {
            let samples = points.len();
            let charged = self.charge(samples).and_then(|()| self.tick(samples));
            match charged.and_then(|()| each(labels, points)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        read.map_err(|e| match e {
            model::SourceError::TooManyPoints { .. } => QueryError::TooManySamples { limit },
            other => QueryError::Source(other),
        })?;
        self.look()
    }

    /// The same, all at once.
    pub(crate) fn read(
        &self,
        matchers: &[Matcher],
        bounds: (i64, i64),
    ) -> Evaluated<Vec<SeriesData>> {
        let mut all = Vec::new();
        self.visit(matchers, bounds, |labels, points| {
            all.push(SeriesData {
                labels: labels.clone(),
                points: std::mem::take(points),
            });
            Ok(())
        })?;
        Ok(all)
    }

    /// An instant vector selector over all steps.
    pub(crate) fn selector(&self, s: &Selector, span: Span, grid: Grid) -> Evaluated<Block> {
        if s.extension == Extension::Smoothed {
            let mut series = self.read_instants(&s.all_matchers(), &s.modifiers, true, grid)?;
            if self.is_hinted(span) {
                series.iter_mut().for_each(|s| hint(&mut s.points));
            }
            return extended::smooth(self, series, &s.modifiers, span, grid);
        }
        let mut block = Block::new(grid.steps);
        self.instants(s, span, grid, &mut |labels, drop_name, row| {
            self.check_size((block.len() + 1).saturating_mul(grid.steps))?;
            block.push_row(labels, drop_name, row);
            Ok(())
        })?;
        Ok(block)
    }

    /// The same, row by row; not for `smoothed`.
    pub(crate) fn instants(
        &self,
        s: &Selector,
        span: Span,
        grid: Grid,
        sink: &mut Sink<'_>,
    ) -> Evaluated<()> {
        let hinted = self.is_hinted(span);
        let bounds = self.instant_bounds(&s.modifiers, false, grid);
        let mut row = Row::new(grid.steps);
        self.visit(&s.all_matchers(), bounds, |labels, points| {
            self.tick(grid.steps)?;
            if hinted {
                hint(points);
            }
            row.clear();
            if points.histograms.is_empty() {
                let values = &points.values;
                self.look_back(points, &s.modifiers, grid, |step, i| {
                    row.floats[step] = values[i];
                });
            } else {
                self.look_back(points, &s.modifiers, grid, |step, i| {
                    row.set(step, Cell::from(points.value(i)));
                });
            }
            if row.is_empty() {
                return Ok(());
            }
            sink(labels, false, &mut row)
        })
    }

    /// Reads what instant lookups on the grid can see.
    pub(crate) fn read_instants(
        &self,
        matchers: &[Matcher],
        modifiers: &Modifiers,
        ahead: bool,
        grid: Grid,
    ) -> Evaluated<Vec<SeriesData>> {
        self.read(matchers, self.instant_bounds(modifiers, ahead, grid))
    }

    /// After when, and until when, instant lookups on the grid see samples.
    fn instant_bounds(&self, modifiers: &Modifiers, ahead: bool, grid: Grid) -> (i64, i64) {
        let lookback = self.options.lookback_ms;
        let first = reference(modifiers, grid.start);
        let last = reference(modifiers, grid.last());
        let to = if ahead {
            last.saturating_add(lookback)
        } else {
            last
        };
        (first.saturating_sub(lookback), to)
    }

    /// Calls `found(step, index)` for each step at which the series has a current sample.
    pub(crate) fn look_back(
        &self,
        points: &Points,
        modifiers: &Modifiers,
        grid: Grid,
        mut found: impl FnMut(usize, usize),
    ) {
        let times = &points.t_ms;
        let mut next = 0;
        for (step, t) in grid.times().enumerate() {
            let to = reference(modifiers, t);
            while next < times.len() && times[next] <= to {
                next += 1;
            }
            let Some(i) = next.checked_sub(1) else {
                continue;
            };
            let stale = match points.histogram(i) {
                Some(h) => model::is_stale(h.sum),
                None => model::is_stale(points.values[i]),
            };
            if times[i] > to.saturating_sub(self.options.lookback_ms) && !stale {
                found(step, i);
            }
        }
    }

    /// A range vector selector's samples over all windows that the grid needs.
    fn ranges(&self, m: &MatrixSelector, grid: Grid) -> Evaluated<Vec<Samples>> {
        let mut all = Vec::new();
        self.each_range(m, grid, |samples| {
            all.push(std::mem::take(samples));
            Ok(())
        })?;
        Ok(all)
    }

    /// The same, one series after another. The samples are `each`'s to take.
    pub(crate) fn each_range(
        &self,
        m: &MatrixSelector,
        grid: Grid,
        mut each: impl FnMut(&mut Samples) -> Evaluated<()>,
    ) -> Evaluated<()> {
        let range = m.range.literal_ms().unwrap_or(0);
        let modifiers = &m.selector.modifiers;
        let (behind, ahead) = self.reach(m.selector.extension);
        let range = range.saturating_add(version2::earlier_ms());
        let first = reference(modifiers, grid.start).saturating_sub(range);
        let last = reference(modifiers, grid.last());
        let bounds = (first.saturating_sub(behind), last.saturating_add(ahead));
        let hinted = self.is_hinted(m.selector_span);
        let mut samples = Samples::default();
        self.visit(&m.selector.all_matchers(), bounds, |labels, points| {
            if hinted {
                hint(points);
            }
            samples.refill(labels, points);
            if samples.len() > 0 {
                each(&mut samples)?;
            }
            Ok(())
        })
    }

    /// How far beyond its window an extended selector looks, before and after, milliseconds.
    pub(crate) fn reach(&self, extension: Extension) -> (i64, i64) {
        match extension {
            Extension::None => (0, 0),
            Extension::Anchored => (self.options.lookback_ms, 0),
            Extension::Smoothed => (self.options.lookback_ms, self.options.lookback_ms),
        }
    }

    /// A range vector selector as a result: its samples at one instant.
    pub(crate) fn matrix(&self, m: &MatrixSelector, grid: Grid) -> Evaluated<Vec<Samples>> {
        let range = m.range.literal_ms().unwrap_or(0);
        let (from, to) = self.window_of(&m.selector.modifiers, range, grid.start);
        let (behind, ahead) = self.reach(m.selector.extension);
        let mut all = self.ranges(m, grid)?;
        for s in &mut all {
            s.clip(from.saturating_sub(behind), to.saturating_add(ahead));
            extended::clip_result(s, m.selector.extension, from, to)?;
        }
        all.retain(|s| s.len() > 0);
        Ok(all)
    }
}

/// Settles unknown reset hints by the histogram before.
fn hint(points: &mut Points) {
    let mut before: Option<Hist> = None;
    for h in points.histograms.iter_mut().flatten() {
        if model::is_stale(h.sum) {
            continue;
        }
        let last = before.replace(Arc::clone(h));
        if h.reset_hint == ResetHint::Unknown
            && let Some(last) = last
        {
            let reset = arith::is_reset(h, &last);
            Arc::make_mut(h).reset_hint = if reset {
                ResetHint::Reset
            } else {
                ResetHint::NotReset
            };
        }
    }
}

impl From<model::Value> for Cell {
    fn from(value: model::Value) -> Self {
        match value {
            model::Value::Float(v) => Cell::Float(v),
            model::Value::Histogram(h) => Cell::Hist(h),
        }
    }
}
