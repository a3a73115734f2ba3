//! Samples of one series as columns, and windows that slide over them.
//!
//! Owns the split into floats and histograms, and the sweep. Must not know what is computed over a window.

use std::sync::Arc;

use model::histogram::ResetHint;
use model::{Labels, Points, RangeSeries, SeriesData, is_stale};

use super::block::{Block, Cell, Hist};
use super::run::Grid;

/// One series' samples without staleness markers. Start timestamps are empty or as long as the times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    pub(crate) labels: Labels,
    pub(crate) drop_name: bool,
    pub(crate) float_t: Vec<i64>,
    pub(crate) floats: Vec<f64>,
    pub(crate) float_start: Vec<i64>,
    pub(crate) hist_t: Vec<i64>,
    pub(crate) hists: Vec<Hist>,
    pub(crate) hist_start: Vec<i64>,
}

// === impl Samples ===

impl Samples {
    pub(crate) fn from_series(mut series: SeriesData) -> Self {
        let mut out = Samples::default();
        out.refill(&series.labels, &mut series.points);
        out
    }

    /// Replaces everything by the points of a series. `points` gets the old columns, to be overwritten.
    pub(crate) fn refill(&mut self, labels: &Labels, points: &mut Points) {
        self.clear();
        self.labels = labels.clone();
        let stale = points
            .values
            .iter()
            .fold(false, |any, v| any | is_stale(*v));
        if points.histograms.is_empty() && !stale {
            std::mem::swap(&mut self.float_t, &mut points.t_ms);
            std::mem::swap(&mut self.floats, &mut points.values);
            std::mem::swap(&mut self.float_start, &mut points.start_ms);
            return;
        }
        let starts = !points.start_ms.is_empty();
        for i in 0..points.len() {
            match points.histogram(i) {
                Some(h) if !is_stale(h.sum) => {
                    self.hist_t.push(points.t_ms[i]);
                    self.hists.push(Arc::clone(h));
                    if starts {
                        self.hist_start.push(points.start(i));
                    }
                }
                Some(_) => {}
                None if is_stale(points.values[i]) => {}
                None => {
                    self.float_t.push(points.t_ms[i]);
                    self.floats.push(points.values[i]);
                    if starts {
                        self.float_start.push(points.start(i));
                    }
                }
            }
        }
    }

    fn clear(&mut self) {
        self.drop_name = false;
        self.float_t.clear();
        self.floats.clear();
        self.float_start.clear();
        self.hist_t.clear();
        self.hists.clear();
        self.hist_start.clear();
    }

    /// A subquery's result as samples.
    pub(crate) fn from_block(block: Block, grid: Grid) -> Vec<Samples> {
        let mut all = Vec::with_capacity(block.len());
        for (s, meta) in block.series.iter().enumerate() {
            let mut out = Samples {
                labels: meta.labels.clone(),
                drop_name: meta.drop_name,
                ..Samples::default()
            };
            for (step, t) in grid.times().enumerate() {
                match block.cell(s, step) {
                    Cell::None => {}
                    Cell::Float(v) => {
                        out.float_t.push(t);
                        out.floats.push(v);
                    }
                    Cell::Hist(h) => {
                        out.hist_t.push(t);
                        out.hists.push(without_reset_claim(h));
                    }
                }
            }
            if out.len() > 0 {
                all.push(out);
            }
        }
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.float_t.len() + self.hist_t.len()
    }

    /// Keeps the samples in `(from, to]`.
    pub(crate) fn clip(&mut self, from: i64, to: i64) {
        clip(&mut self.float_t, from, to, |lo, hi| {
            cut(&mut self.floats, lo, hi);
            cut(&mut self.float_start, lo, hi);
        });
        clip(&mut self.hist_t, from, to, |lo, hi| {
            cut(&mut self.hists, lo, hi);
            cut(&mut self.hist_start, lo, hi);
        });
    }

    pub(crate) fn into_series(self) -> RangeSeries {
        let mut points = Points::default();
        let (mut f, mut h) = (0, 0);
        while f < self.float_t.len() || h < self.hist_t.len() {
            let float_next = match (self.float_t.get(f), self.hist_t.get(h)) {
                (Some(a), Some(b)) => a < b,
                (a, _) => a.is_some(),
            };
            if float_next {
                points.push_float(self.float_t[f], self.floats[f]);
                f += 1;
            } else {
                points.push_histogram(self.hist_t[h], Arc::clone(&self.hists[h]));
                h += 1;
            }
        }
        RangeSeries {
            labels: self.labels,
            points,
        }
    }
}

fn clip(times: &mut Vec<i64>, from: i64, to: i64, mut others: impl FnMut(usize, usize)) {
    let lo = times.partition_point(|t| *t <= from);
    let hi = times.partition_point(|t| *t <= to).max(lo);
    others(lo, hi);
    cut(times, lo, hi);
}

fn cut<T>(column: &mut Vec<T>, lo: usize, hi: usize) {
    if !column.is_empty() {
        column.truncate(hi);
        column.drain(..lo);
    }
}

/// Steps of a subquery are not neighbouring scrapes, so what a hint says of its predecessor is void.
fn without_reset_claim(h: Hist) -> Hist {
    match h.reset_hint {
        ResetHint::Reset | ResetHint::NotReset => {
            let mut plain = (*h).clone();
            plain.reset_hint = ResetHint::Unknown;
            Arc::new(plain)
        }
        _ => h,
    }
}

/// The samples of one window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) float_t: &'a [i64],
    pub(crate) floats: &'a [f64],
    pub(crate) float_start: &'a [i64],
    pub(crate) hist_t: &'a [i64],
    pub(crate) hists: &'a [Hist],
    pub(crate) hist_start: &'a [i64],
    /// The window's start, exclusive.
    pub(crate) from: i64,
    /// The window's end, inclusive.
    pub(crate) to: i64,
    /// The instant of the evaluation.
    pub(crate) t_ms: i64,
    /// Whether any float is smaller than its predecessor in the window; `None` when not known.
    pub(crate) has_drop: Option<bool>,
}

/// Running counts of floats that are smaller than their predecessor: `drops[i]` up to and including sample `i`.
pub(crate) fn count_drops(floats: &[f64]) -> Vec<u32> {
    let mut drops = Vec::with_capacity(floats.len());
    let mut count = 0;
    for (i, v) in floats.iter().enumerate() {
        count += u32::from(i > 0 && *v < floats[i - 1]);
        drops.push(count);
    }
    drops
}

/// Moves `lo..hi` on to the samples in `(from, to]`; both bounds mostly ascend from call to call.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    lo: usize,
    hi: usize,
}

// === impl Cursor ===

impl Cursor {
    pub(crate) fn seek(&mut self, times: &[i64], from: i64, to: i64) -> std::ops::Range<usize> {
        if self.lo > 0 && times[self.lo - 1] > from {
            self.lo = 0;
        }
        if self.hi > 0 && times[self.hi - 1] > to {
            self.hi = 0;
        }
        self.lo = forward(times, self.lo, from);
        self.hi = forward(times, self.hi.max(self.lo), to);
        self.lo..self.hi
    }
}

/// The first index from `at` on whose time is later than `t`.
fn forward(times: &[i64], at: usize, t: i64) -> usize {
    let near = times.len().min(at + 8);
    match times[at..near].iter().position(|x| *x > t) {
        Some(i) => at + i,
        None => near + times[near..].partition_point(|x| *x <= t),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursor_finds_left_open_windows(
            times in proptest::collection::btree_set(0i64..200, 0..40),
            windows in proptest::collection::vec((-20i64..220, 0i64..60), 1..20),
        ) {
            let times: Vec<i64> = times.into_iter().collect();
            let mut cursor = Cursor::default();
            for (to, range) in windows {
                let got: Vec<i64> = times[cursor.seek(&times, to - range, to)].to_vec();
                let want: Vec<i64> = times.iter().copied().filter(|t| *t > to - range && *t <= to).collect();
                prop_assert_eq!(got, want);
            }
        }
    }
}
