//! One series' values at every step, on their way from a selector or a function to whoever wants them.
//!
//! Owns the row, which is used again for the next series. Must not know where it comes from or goes to.

use model::Labels;

use super::block::{ABSENT, Block, Cell, Hist, is_absent};
use super::run::Evaluated;

/// Values of one series; absent cells as in a [`Block`].
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) floats: Vec<f64>,
    /// Empty, or as long as `floats`.
    pub(crate) hists: Vec<Option<Hist>>,
}

/// Takes the rows of a vector, one series after another: its labels, whether its name is due to go, its values (at
/// least one). It may take the histograms.
pub(crate) type Sink<'s> = dyn FnMut(&Labels, bool, &mut Row) -> Evaluated<()> + 's;

// === impl Row ===

impl Row {
    pub(crate) fn new(steps: usize) -> Self {
        Row {
            floats: vec![ABSENT; steps],
            hists: Vec::new(),
        }
    }

    /// Takes away every value.
    pub(crate) fn clear(&mut self) {
        self.floats.fill(ABSENT);
        self.hists.clear();
    }

    pub(crate) fn set(&mut self, step: usize, cell: Cell) {
        match cell {
            Cell::None => {}
            Cell::Float(v) => self.floats[step] = v,
            Cell::Hist(h) => {
                if self.hists.is_empty() {
                    self.hists.resize(self.floats.len(), None);
                }
                self.hists[step] = Some(h);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.floats.iter().all(|v| is_absent(*v)) && self.hists.iter().all(Option::is_none)
    }

    /// Hands out the rows of a block.
    pub(crate) fn of_block(block: Block, sink: &mut Sink<'_>) -> Evaluated<()> {
        let steps = block.steps;
        let mut row = Row::new(steps);
        let mut hists = block.hists.into_iter();
        for (s, meta) in block.series.iter().enumerate() {
            row.floats
                .copy_from_slice(&block.floats[s * steps..(s + 1) * steps]);
            row.hists.clear();
            row.hists.extend(hists.by_ref().take(steps));
            if row.hists.iter().all(Option::is_none) {
                row.hists.clear();
            }
            sink(&meta.labels, meta.drop_name, &mut row)?;
        }
        Ok(())
    }
}
