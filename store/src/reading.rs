//! A read's own copy of what memory holds: taken under the lock as it is, decoded after it, one series at a time.
//!
//! Owns the copy and its decoding. Must not know locks, series' order of samples, or files.

use std::ops::Range;

use model::Points;

use crate::chunk;
use crate::frames::{self, Frames};
use crate::merge::{self, Run};
use crate::open::Opened;
use crate::wire::{Damaged, Reader};

/// The bytes of all parts.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    bytes: Vec<u8>,
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

/// Samples that are no chunk yet, see [`crate::open`].
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) bytes: Range<usize>,
    pub(crate) step_ms: i64,
    pub(crate) last_t: i64,
    /// When they began to count, 0 for unknown.
    pub(crate) start: i64,
}

// === impl Copies ===

impl Copies {
    /// Keeps frames of chunks, or samples that are no chunk yet.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        at..self.bytes.len()
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
            open.append(&open.read(&self.bytes)?, (start, end), out);
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
                    let read = open.read(&self.bytes)?;
                    if let Some(first) = read.times().first() {
                        let run = merge::last_run_before(runs, *first);
                        open.append(&read, bounds, run);
                    }
                }
            }
        }
        Ok(())
    }
}

// === impl Open ===

impl Open {
    fn read(&self, bytes: &[u8]) -> Result<Opened, Damaged> {
        Opened::read(&bytes[self.bytes.clone()], self.step_ms, self.last_t)
    }

    fn append(&self, read: &Opened, (start, end): (i64, i64), out: &mut Points) {
        let times = read.times();
        // Times ascend.
        let from = times.partition_point(|t| *t < start);
        let to = times.partition_point(|t| *t <= end);
        let inside = from..to.max(from);
        out.t_ms.extend_from_slice(&times[inside.clone()]);
        out.values.extend_from_slice(&read.values()[inside.clone()]);
        let len = out.t_ms.len();
        if !out.histograms.is_empty() {
            out.histograms.resize(len, None);
        }
        if self.start != 0 || !out.start_ms.is_empty() {
            out.start_ms.resize(len - inside.len(), 0);
            out.start_ms.resize(len, self.start);
        }
    }
}
