//! Exemplars in memory: a ring that drops the oldest.
//!
//! Owns which exemplars are kept. Must not know the log, which brings them back after a restart.

use std::collections::{HashSet, VecDeque};

use model::source::Exemplar;

/// The most bytes that an exemplar's labels may have.
pub(crate) const MAX_LABEL_BYTES: usize = 512;

/// Exemplars with the slots of their series, oldest first.
#[derive(Debug)]
pub(crate) struct Exemplars {
    ring: VecDeque<(u32, Exemplar)>,
    most: usize,
    pub(crate) dropped: u64,
}

// === impl Exemplars ===

impl Exemplars {
    pub(crate) fn new(most: usize) -> Self {
        Exemplars {
            ring: VecDeque::new(),
            most,
            dropped: 0,
        }
    }

    pub(crate) fn push(&mut self, slot: u32, exemplar: Exemplar) {
        if self.ring.len() >= self.most {
            self.dropped += 1;
            self.ring.pop_front();
        }
        if self.most > 0 {
            self.ring.push_back((slot, exemplar));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(u32, Exemplar)> {
        self.ring.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(crate) fn remove(&mut self, gone: &HashSet<u32>) {
        self.ring.retain(|(slot, _)| !gone.contains(slot));
    }

    /// Drops what is older than `t_ms`.
    pub(crate) fn expire(&mut self, t_ms: i64) {
        self.ring.retain(|(_, e)| e.t_ms >= t_ms);
    }
}
