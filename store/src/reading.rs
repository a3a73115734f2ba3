//! A read's own copy of what memory holds: taken under the lock as it is, decoded after it, one series at a time.
//!
//! Owns the copy and its decoding. Must not know locks, series' order of samples, or files.

use std::ops::Range;

use model::Points;

use crate::chunk;
use crate::frames::{self, Frames};
use crate::merge::{self, Run};
use crate::series::OPEN;
use crate::wire::{Damaged, Reader};

/// The bytes and values of all parts.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    bytes: Vec<u8>,
    values: Vec<f64>,
}

/// What memory holds of one series.
#[derive(Debug)]
pub(crate) enum Part {
    /// Chunks whose times ascend, and samples behind them.
    Copied {
        closed: Range<usize>,
        open: Option<Open>,
    },
    /// Samples that are decoded already.
    Runs(Vec<Run>),
}

/// Samples that are no chunk yet.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) first: i64,
    pub(crate) step: i64,
    /// When they began to count, 0 for unknown.
    pub(crate) start: i64,
    pub(crate) irregular: Option<Box<[i64; OPEN]>>,
    pub(crate) values: Range<usize>,
}

// === impl Copies ===

impl Copies {
    /// Keeps frames of chunks.
    pub(crate) fn closed(&mut self, frames: &[u8]) -> Range<usize> {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(frames);
        at..self.bytes.len()
    }

    /// Keeps values.
    pub(crate) fn open(&mut self, values: &[f64]) -> Range<usize> {
        let at = self.values.len();
        self.values.extend_from_slice(values);
        at..self.values.len()
    }

    /// Replaces what is in `out` by the part's samples in `start..=end`.
    pub(crate) fn decode(
        &self,
        part: Part,
        (start, end): (i64, i64),
        out: &mut Points,
    ) -> Result<(), Damaged> {
        out.clear();
        let (closed, open) = match part {
            Part::Runs(runs) => {
                *out = merge::merge(runs);
                return Ok(());
            }
            Part::Copied { closed, open } => (&self.bytes[closed], open),
        };
        for chunk in Frames::new(closed) {
            let mut reader = Reader::new(chunk?);
            let header = chunk::read_header(&mut reader)?;
            if header.min_t > end {
                break;
            }
            if out.t_ms.last().is_some_and(|last| *last >= header.min_t) {
                return Err(Damaged("chunks in memory are not in order"));
            }
            if header.overlaps(start, end) {
                chunk::decode_rest(reader, &header, start, end, out)?;
            }
        }
        if let Some(open) = open {
            open.append(&self.values, (start, end), out);
        }
        Ok(())
    }

    /// The part as runs, oldest written first.
    pub(crate) fn runs(
        &self,
        part: Part,
        bounds: (i64, i64),
        runs: &mut Vec<Run>,
    ) -> Result<(), Damaged> {
        match part {
            Part::Runs(more) => runs.extend(more),
            Part::Copied { closed, open } => {
                frames::collect(&self.bytes[closed], true, bounds, runs)?;
                if let Some(open) = open {
                    let run = merge::last_run_before(runs, open.time(0));
                    open.append(&self.values, bounds, run);
                }
            }
        }
        Ok(())
    }
}

// === impl Open ===

impl Open {
    fn time(&self, index: usize) -> i64 {
        match &self.irregular {
            Some(times) => times[index],
            None => self
                .first
                .wrapping_add(self.step.wrapping_mul(index as i64)),
        }
    }

    fn append(&self, values: &[f64], (start, end): (i64, i64), out: &mut Points) {
        let values = &values[self.values.clone()];
        let inside = |i: &usize| (start..=end).contains(&self.time(*i));
        // Times ascend, so those inside lie together.
        let from = (0..values.len()).find(inside).unwrap_or(values.len());
        let count = (from..values.len()).take_while(inside).count();
        out.t_ms.extend((from..from + count).map(|i| self.time(i)));
        out.values.extend_from_slice(&values[from..from + count]);
        let len = out.t_ms.len();
        if !out.histograms.is_empty() {
            out.histograms.resize(len, None);
        }
        if self.start != 0 || !out.start_ms.is_empty() {
            out.start_ms.resize(len - count, 0);
            out.start_ms.resize(len, self.start);
        }
    }
}
