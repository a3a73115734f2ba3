//! Reading selectors from the source.
//!
//! Owns which time span a selector needs, lookback and staleness. Must not know functions.

use std::sync::Arc;

use model::histogram::ResetHint;
use model::{Matcher, SelectRequest, SeriesData};

use super::block::{Block, Hist, Meta};
use super::engine::QueryError;
use super::extended;
use super::run::{Evaluated, Evaluator, Grid, reference};
use super::window::Samples;
use crate::hist::arith;
use crate::syntax::ast::{Extension, MatrixSelector, Modifiers, Selector, Span};

// === impl Evaluator ===

impl Evaluator<'_> {
    /// Reads the series that match in `(after, to]`.
    pub(crate) fn read(
        &self,
        matchers: &[Matcher],
        after: i64,
        to: i64,
    ) -> Evaluated<Vec<SeriesData>> {
        let limit = self.options.max_samples;
        let request = SelectRequest {
            matchers,
            start_ms: after.saturating_add(1),
            end_ms: to,
            max_points: self.budget(),
        };
        let series = self.source.select(&request).map_err(|e| match e {
            model::SourceError::TooManyPoints { .. } => QueryError::TooManySamples { limit },
            other => QueryError::Source(other),
        })?;
        self.charge(series.iter().map(|s| s.points.len()).sum())?;
        self.look()?;
        Ok(series)
    }

    /// An instant vector selector over all steps.
    pub(crate) fn selector(&self, s: &Selector, span: Span, grid: Grid) -> Evaluated<Block> {
        let smoothed = s.extension == Extension::Smoothed;
        let mut series = self.read_instants(&s.all_matchers(), &s.modifiers, smoothed, grid)?;
        if self.is_hinted(span) {
            series.iter_mut().for_each(hint);
        }
        if smoothed {
            return extended::smooth(self, series, &s.modifiers, span, grid);
        }
        self.check_size(series.len().saturating_mul(grid.steps))?;
        let mut block = Block::new(grid.steps);
        block.series.reserve(series.len());
        block.floats.reserve(series.len() * grid.steps);
        for data in series {
            self.tick(grid.steps + data.points.len())?;
            let meta = Meta {
                labels: data.labels.clone(),
                drop_name: false,
            };
            let at = block.push_series(meta);
            self.look_back(&data, &s.modifiers, grid, |step, i| {
                block.set(at, step, super::block::Cell::from(data.points.value(i)));
            });
            block.pop_if_empty();
        }
        Ok(block)
    }

    /// Reads what instant lookups on the grid can see.
    pub(crate) fn read_instants(
        &self,
        matchers: &[Matcher],
        modifiers: &Modifiers,
        ahead: bool,
        grid: Grid,
    ) -> Evaluated<Vec<SeriesData>> {
        let lookback = self.options.lookback_ms;
        let first = reference(modifiers, grid.start);
        let last = reference(modifiers, grid.last());
        let to = if ahead {
            last.saturating_add(lookback)
        } else {
            last
        };
        self.read(matchers, first.saturating_sub(lookback), to)
    }

    /// Calls `found(step, index)` for each step at which the series has a current sample.
    pub(crate) fn look_back(
        &self,
        data: &SeriesData,
        modifiers: &Modifiers,
        grid: Grid,
        mut found: impl FnMut(usize, usize),
    ) {
        let times = &data.points.t_ms;
        let mut next = 0;
        for (step, t) in grid.times().enumerate() {
            let to = reference(modifiers, t);
            while next < times.len() && times[next] <= to {
                next += 1;
            }
            let Some(i) = next.checked_sub(1) else {
                continue;
            };
            let stale = match data.points.histogram(i) {
                Some(h) => model::is_stale(h.sum),
                None => model::is_stale(data.points.values[i]),
            };
            if times[i] > to.saturating_sub(self.options.lookback_ms) && !stale {
                found(step, i);
            }
        }
    }

    /// A range vector selector's samples over all windows that the grid needs.
    pub(crate) fn ranges(&self, m: &MatrixSelector, grid: Grid) -> Evaluated<Vec<Samples>> {
        let range = m.range.literal_ms().unwrap_or(0);
        let modifiers = &m.selector.modifiers;
        let (behind, ahead) = self.reach(m.selector.extension);
        let first = reference(modifiers, grid.start).saturating_sub(range);
        let last = reference(modifiers, grid.last());
        let mut series = self.read(
            &m.selector.all_matchers(),
            first.saturating_sub(behind),
            last.saturating_add(ahead),
        )?;
        if self.is_hinted(m.selector_span) {
            series.iter_mut().for_each(hint);
        }
        let mut all = Vec::with_capacity(series.len());
        for data in series {
            self.tick(data.points.len())?;
            let samples = Samples::from_series(data);
            if samples.len() > 0 {
                all.push(samples);
            }
        }
        Ok(all)
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
fn hint(series: &mut SeriesData) {
    let mut before: Option<Hist> = None;
    for h in series.points.histograms.iter_mut().flatten() {
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

impl From<model::Value> for super::block::Cell {
    fn from(value: model::Value) -> Self {
        match value {
            model::Value::Float(v) => super::block::Cell::Float(v),
            model::Value::Histogram(h) => super::block::Cell::Hist(h),
        }
    }
}
