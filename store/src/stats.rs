//! What the store says about itself. Owns the counters. Must not know who asks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cardinality::Offender;

/// A snapshot of the store's counters. Counters start at zero when the store is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Series in memory.
    pub series: usize,
    /// Samples in memory, not yet in a block.
    pub head_samples: u64,
    /// First and last time of the samples in memory, Unix milliseconds.
    pub head_bounds: Option<(i64, i64)>,
    /// Estimated bytes of the series in memory, index included.
    pub head_bytes: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Blocks on disk.
    pub blocks: usize,
    /// Bytes of the blocks.
    pub block_bytes: u64,
    /// Samples in the blocks (samples that are in two blocks count twice).
    pub block_samples: u64,
    /// The oldest time there is, Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Samples accepted.
    pub appended: u64,
    /// Samples refused because they came too late.
    pub out_of_order: u64,
    /// Samples refused because there was one at that time already.
    pub duplicates: u64,
    /// Samples folded or refused because of a cardinality limit.
    pub rejected_cardinality: u64,
    /// Appends refused because the disk was full.
    pub refused_full: u64,
    /// Whether the last append was refused because the disk was full.
    pub full: bool,
    /// Samples deleted by retention.
    pub expired_samples: u64,
    /// Blocks deleted by retention.
    pub expired_blocks: u64,
    /// Blocks that could not be opened and are left out; they keep their file with `.damaged` at its end.
    pub damaged_blocks: u64,
    /// Reads that met damaged data and were answered with an error.
    pub corrupt_reads: u64,
    /// Blocks written from memory.
    pub flushes: u64,
    /// Blocks written from other blocks.
    pub compactions: u64,
    /// Attempts to write a block that failed.
    pub failed_maintenance: u64,
    /// Background syncs that failed.
    pub failed_syncs: u64,
    /// Exemplars in memory.
    pub exemplars: usize,
    /// Exemplars dropped to make room, or because they were too long.
    pub dropped_exemplars: u64,
    /// What opening the store found in the log.
    pub recovery: Recovery,
    /// Limits that were reached, with the label to blame.
    pub offenders: Vec<Offender>,
}

/// What opening the store found in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Log segments read.
    pub segments: u64,
    /// Good records.
    pub records: u64,
    /// Samples that are in memory again.
    pub samples: u64,
    /// Bytes of the torn tail that were cut off.
    pub torn_bytes: u64,
    /// Stretches of damaged bytes before good records, each skipped.
    pub damaged: u64,
    /// Bytes of those.
    pub damaged_bytes: u64,
    /// Samples left out because the record that introduced their series is damaged.
    pub orphans: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) out_of_order: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) rejected_cardinality: AtomicU64,
    pub(crate) refused_full: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) expired_samples: AtomicU64,
    pub(crate) expired_blocks: AtomicU64,
    pub(crate) damaged_blocks: AtomicU64,
    pub(crate) corrupt_reads: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) failed_maintenance: AtomicU64,
    pub(crate) long_exemplars: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
