//! The value of an instant vector over all steps of an evaluation: a dense table, series by step.
//!
//! Owns the layout: one column of floats for all series, absent cells marked by the staleness bits (which no evaluation
//! can produce), histograms beside it only when there are any. Must not know what the values mean.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use model::hashing::FoldState;
use model::{Labels, METRIC_NAME, NativeHistogram, STALE_NAN_BITS};

use super::engine::QueryError;
use super::row::Row;

/// A histogram shared with the source.
pub(crate) type Hist = Arc<NativeHistogram>;

/// Marks a cell without a value.
pub(crate) const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether a float cell has no value.
pub(crate) fn is_absent(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// A series' identity.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) labels: Labels,
    /// Whether the name goes when the result is final.
    pub(crate) drop_name: bool,
}

/// One value.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    None,
    Float(f64),
    Hist(Hist),
}

/// Series by step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub(crate) steps: usize,
    pub(crate) series: Vec<Meta>,
    /// `series.len() * steps` values.
    pub(crate) floats: Vec<f64>,
    /// Empty, or as long as `floats`; where one is set, the float is absent.
    pub(crate) hists: Vec<Option<Hist>>,
}

// === impl Block ===

impl Block {
    pub(crate) fn new(steps: usize) -> Self {
        Block {
            steps,
            ..Block::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    pub(crate) fn row(&self, series: usize) -> &[f64] {
        &self.floats[series * self.steps..(series + 1) * self.steps]
    }

    pub(crate) fn hist(&self, series: usize, step: usize) -> Option<&Hist> {
        self.hists
            .get(series * self.steps + step)
            .and_then(Option::as_ref)
    }

    pub(crate) fn has_hists(&self) -> bool {
        !self.hists.is_empty()
    }

    pub(crate) fn present(&self, series: usize, step: usize) -> bool {
        !is_absent(self.floats[series * self.steps + step]) || self.hist(series, step).is_some()
    }

    pub(crate) fn cell(&self, series: usize, step: usize) -> Cell {
        if let Some(h) = self.hist(series, step) {
            return Cell::Hist(Arc::clone(h));
        }
        let v = self.floats[series * self.steps + step];
        if is_absent(v) {
            Cell::None
        } else {
            Cell::Float(v)
        }
    }

    /// Appends a series without values.
    pub(crate) fn push_series(&mut self, meta: Meta) -> usize {
        self.series.push(meta);
        self.floats.resize(self.series.len() * self.steps, ABSENT);
        if self.has_hists() {
            self.hists.resize(self.series.len() * self.steps, None);
        }
        self.series.len() - 1
    }

    /// Appends a series with its values.
    pub(crate) fn push_row(&mut self, labels: &Labels, drop_name: bool, row: &mut Row) {
        self.series.push(Meta {
            labels: labels.clone(),
            drop_name,
        });
        if self.has_hists() || !row.hists.is_empty() {
            self.hists.resize(self.floats.len(), None);
            self.hists.append(&mut row.hists);
            self.hists.resize(self.floats.len() + self.steps, None);
        }
        self.floats.extend_from_slice(&row.floats);
    }

    pub(crate) fn set_float(&mut self, series: usize, step: usize, v: f64) {
        self.floats[series * self.steps + step] = v;
    }

    pub(crate) fn set(&mut self, series: usize, step: usize, cell: Cell) {
        let at = series * self.steps + step;
        match cell {
            Cell::None => {
                self.floats[at] = ABSENT;
                if let Some(h) = self.hists.get_mut(at) {
                    *h = None;
                }
            }
            Cell::Float(v) => self.floats[at] = v,
            Cell::Hist(h) => {
                if self.hists.is_empty() {
                    self.hists.resize(self.floats.len(), None);
                }
                self.hists[at] = Some(h);
                self.floats[at] = ABSENT;
            }
        }
    }

    /// Removes the last series if it has no value.
    pub(crate) fn pop_if_empty(&mut self) {
        let Some(last) = self.series.len().checked_sub(1) else {
            return;
        };
        if !(0..self.steps).any(|step| self.present(last, step)) {
            self.series.pop();
            self.floats.truncate(last * self.steps);
            self.hists.truncate(last * self.steps);
        }
    }

    /// Removes series without any value.
    pub(crate) fn drop_empty(&mut self) {
        let keep: Vec<bool> = (0..self.len())
            .map(|s| (0..self.steps).any(|step| self.present(s, step)))
            .collect();
        if keep.iter().all(|k| *k) {
            return;
        }
        let steps = self.steps;
        let mut at = 0;
        for (s, k) in keep.iter().enumerate() {
            if !k {
                continue;
            }
            if at != s {
                self.series.swap(at, s);
                self.floats
                    .copy_within(s * steps..(s + 1) * steps, at * steps);
                if !self.hists.is_empty() {
                    for step in 0..steps {
                        self.hists.swap(at * steps + step, s * steps + step);
                    }
                }
            }
            at += 1;
        }
        self.series.truncate(at);
        self.floats.truncate(at * steps);
        if !self.hists.is_empty() {
            self.hists.truncate(at * steps);
        }
    }

    /// Joins series of equal labels. Errors when two of them have a value at the same step.
    pub(crate) fn merge_equal(&mut self) -> Result<(), QueryError> {
        if self.len() < 2 {
            return Ok(());
        }
        let mut first: HashMap<&str, usize, FoldState> =
            HashMap::with_capacity_and_hasher(self.len(), FoldState::default());
        let mut duplicates: Vec<(usize, usize)> = Vec::new();
        for (s, meta) in self.series.iter().enumerate() {
            match first.entry(meta.labels.as_packed()) {
                Entry::Occupied(e) => duplicates.push((*e.get(), s)),
                Entry::Vacant(e) => {
                    e.insert(s);
                }
            }
        }
        if duplicates.is_empty() {
            return Ok(());
        }
        for (into, from) in duplicates {
            for step in 0..self.steps {
                let cell = self.cell(from, step);
                if matches!(cell, Cell::None) {
                    continue;
                }
                if self.present(into, step) {
                    return Err(QueryError::execution(
                        "vector cannot contain metrics with the same labelset",
                    ));
                }
                self.set(into, step, cell);
                self.set(from, step, Cell::None);
            }
        }
        self.drop_empty();
        Ok(())
    }

    /// Takes away the names that are due to go.
    pub(crate) fn finish(&mut self) -> Result<(), QueryError> {
        for meta in self.series.iter_mut().filter(|m| m.drop_name) {
            meta.labels = without_metadata(&meta.labels);
            meta.drop_name = false;
        }
        self.merge_equal()
    }

    /// One step, repeated.
    pub(crate) fn repeat(self, steps: usize) -> Block {
        if steps == self.steps {
            return self;
        }
        Block {
            steps,
            floats: self
                .floats
                .iter()
                .flat_map(|v| std::iter::repeat_n(*v, steps))
                .collect(),
            hists: self
                .hists
                .iter()
                .flat_map(|h| std::iter::repeat_n(h.clone(), steps))
                .collect(),
            series: self.series,
        }
    }
}

/// Whether a label describes the metric rather than the series.
pub(crate) fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// The labels without the metric's name, type and unit.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    labels.retain(|n| !is_metadata(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &str) -> Meta {
        Meta {
            labels: Labels::from_pairs([(METRIC_NAME, name), ("a", "1")]),
            drop_name: true,
        }
    }

    #[test]
    fn series_that_lose_their_name_join_or_collide() {
        let mut block = Block::new(2);
        for (name, step) in [("x", 0), ("y", 1)] {
            let s = block.push_series(meta(name));
            block.set_float(s, step, 1.0);
        }
        let mut clash = block.clone();
        block.finish().unwrap();
        assert_eq!((block.len(), block.row(0)), (1, &[1.0, 1.0][..]));
        clash.set_float(1, 0, 2.0);
        assert!(clash.finish().is_err());
    }
}
