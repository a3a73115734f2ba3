//! [`Table`]: a range query's answer as it was computed, series by step.
//!
//! Owns the order of its series. Must not know how an answer is written.

use std::sync::Arc;

use model::{Labels, NativeHistogram, Points, QueryData, RangeSeries};

use super::block::{Block, Meta, is_absent};
use super::run::{Grid, Out};

/// Series sorted by labels, each with at least one value; all have the same times.
#[derive(Debug)]
pub struct Table {
    grid: Grid,
    block: Block,
    order: Vec<u32>,
}

// === impl Table ===

impl Table {
    pub(crate) fn new(out: Out, grid: Grid) -> Self {
        let block = match out {
            Out::Scalar(values) => {
                let mut block = Block::new(grid.steps);
                block.push_series(Meta {
                    labels: Labels::empty(),
                    drop_name: false,
                });
                block.floats = values;
                block
            }
            Out::Vector(block) => block,
            Out::Text(_) | Out::Matrix(_) => Block::new(grid.steps),
        };
        let any = |s: &u32| (0..block.steps).any(|step| block.present(*s as usize, step));
        let mut order: Vec<u32> = (0..block.len() as u32).filter(any).collect();
        order.sort_by(|a, b| {
            let labels = |s: &u32| &block.series[*s as usize].labels;
            labels(a).cmp(labels(b))
        });
        Table { grid, block, order }
    }

    /// How many series there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Keeps the first `len` series.
    pub fn truncate(&mut self, len: usize) {
        self.order.truncate(len);
    }

    /// The instants of all series, Unix milliseconds.
    pub fn times(&self) -> impl Iterator<Item = i64> + Clone + use<> {
        self.grid.times()
    }

    /// The labels of series `index`. Panics past the end, as indexing does; so do the other columns.
    #[must_use]
    pub fn labels(&self, index: usize) -> &Labels {
        &self.block.series[self.row(index)].labels
    }

    /// The floats of series `index`, one for each instant; the staleness marker where there is none.
    #[must_use]
    pub fn floats(&self, index: usize) -> &[f64] {
        self.block.row(self.row(index))
    }

    /// The histograms of series `index`, one for each instant, or empty.
    #[must_use]
    pub fn histograms(&self, index: usize) -> &[Option<Arc<NativeHistogram>>] {
        let (steps, row) = (self.block.steps, self.row(index));
        let at = row * steps..(row + 1) * steps;
        self.block.hists.get(at).unwrap_or(&[])
    }

    fn row(&self, index: usize) -> usize {
        self.order[index] as usize
    }

    /// The same as a matrix.
    #[must_use]
    pub fn into_data(self) -> QueryData {
        let times: Vec<i64> = self.times().collect();
        let series = |s: usize| RangeSeries {
            labels: self.labels(s).clone(),
            points: points(&times, self.floats(s), self.histograms(s)),
        };
        QueryData::Matrix((0..self.len()).map(series).collect())
    }
}

fn points(times: &[i64], floats: &[f64], histograms: &[Option<Arc<NativeHistogram>>]) -> Points {
    let mut points = Points::default();
    if histograms.is_empty() && !floats.iter().any(|v| is_absent(*v)) {
        points.t_ms = times.to_vec();
        points.values = floats.to_vec();
        return points;
    }
    for (step, (t, v)) in times.iter().zip(floats).enumerate() {
        match histograms.get(step) {
            Some(Some(h)) => points.push_histogram(*t, Arc::clone(h)),
            _ if is_absent(*v) => {}
            _ => points.push_float(*t, *v),
        }
    }
    points
}
