//! [`Store`]: opening, locks, and what it says about itself.
//!
//! Owns the order of locks: upkeep, then log, then state. Readers take the state only. Must not know
//! encodings.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::blocks::{self, Blocks};
use crate::cache::Cache;
use crate::cardinality::Cardinality;
use crate::disk::{self, DirLock};
use crate::error::StoreError;
use crate::head::{Head, Replay};
use crate::maintain::{Frozen, Upkeep};
use crate::options::StoreOptions;
use crate::record::{self, Batch};
use crate::stats::{self, Counters, Recovery, StoreStats};
use crate::sync::{Syncer, lock};
use crate::wal::{self, Wal};

/// The embedded time series store. Cheap to clone; every clone is the same store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: StoreOptions,
    pub(crate) log: Mutex<Log>,
    pub(crate) state: RwLock<State>,
    pub(crate) counters: Counters,
    pub(crate) syncer: Syncer,
    pub(crate) upkeep: Mutex<Upkeep>,
    pub(crate) cache: Cache,
    recovery: Recovery,
    _lock: DirLock,
}

/// The writing side: who holds it may change the head.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) wal: Wal,
    pub(crate) batch: Batch,
    pub(crate) record: Vec<u8>,
}

/// What readers see.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) head: Head,
    pub(crate) cardinality: Cardinality,
    /// Samples on their way to a block.
    pub(crate) frozen: Option<Arc<Frozen>>,
    pub(crate) blocks: Blocks,
    /// Samples before this are refused: retention would delete them.
    pub(crate) floor_ms: i64,
}

// === impl Store ===

impl Store {
    /// Opens the store in `options.dir`, making it when it does not exist. Reads the log back: a torn tail is cut,
    /// damage is skipped, both are counted in [`StoreStats::recovery`].
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let (log_dir, block_dir) = (options.dir.join("log"), options.dir.join("blocks"));
        disk::create_dir(&log_dir)?;
        disk::create_dir(&block_dir)?;
        let lock_file = disk::lock_dir(&options.dir)?;
        disk::remove_unfinished(&log_dir)?;
        disk::remove_unfinished(&block_dir)?;
        let opened = blocks::open_all(&block_dir)?;
        let counters = Counters::default();
        stats::add(&counters.damaged_blocks, opened.damaged);
        let mut head = Head::new(options.max_exemplars);
        let mut recovery = Recovery::default();
        let covered = blocks::log_before(&opened.blocks);
        let wal = replay(&log_dir, &options, covered, &mut head, &mut recovery)?;
        let syncer = Syncer::start(wal.file());
        let inner = Inner {
            log: Mutex::new(Log {
                wal,
                batch: Batch::new(wal::fresh_salt()),
                record: Vec::new(),
            }),
            state: RwLock::new(State {
                head,
                cardinality: Cardinality::default(),
                frozen: None,
                blocks: Arc::new(opened.blocks),
                floor_ms: i64::MIN,
            }),
            counters,
            syncer,
            upkeep: Mutex::new(Upkeep {
                next_seq: opened.next_seq,
                gathering_since: None,
                checkpoint_due: None,
            }),
            cache: Cache::new(options.cache_bytes),
            recovery,
            options,
            _lock: lock_file,
        };
        Ok(Store {
            inner: Arc::new(inner),
        })
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        let guard = self.inner.state.read();
        guard.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        let guard = self.inner.state.write();
        guard.unwrap_or_else(PoisonError::into_inner)
    }

    /// Forces everything acknowledged to the disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        let log = lock(&self.inner.log);
        disk::sync(&log.wal.file(), log.wal.path())
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.options.dir
    }

    /// The counters now. O(series).
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let log_bytes = lock(&self.inner.log).wal.bytes();
        let c = &self.inner.counters;
        let state = self.read();
        let head = &state.head;
        let bounds = (head.samples > 0).then_some((head.min_t, head.max_t));
        let frozen = state.frozen.as_ref();
        let oldest = bounds
            .map(|b| b.0)
            .into_iter()
            .chain(frozen.map(|f| f.min_t))
            .chain(state.blocks.iter().map(|b| b.footer.min_t))
            .min();
        StoreStats {
            series: head.series_count(),
            head_samples: head.samples + frozen.map_or(0, |f| f.samples),
            head_bounds: bounds,
            head_bytes: head.bytes(),
            log_bytes,
            blocks: state.blocks.len(),
            block_bytes: state.blocks.iter().map(|b| b.bytes).sum(),
            block_samples: state.blocks.iter().map(|b| b.footer.samples).sum(),
            oldest_ms: oldest,
            appended: stats::get(&c.appended),
            out_of_order: stats::get(&c.out_of_order),
            duplicates: stats::get(&c.duplicates),
            rejected_cardinality: stats::get(&c.rejected_cardinality),
            refused_full: stats::get(&c.refused_full),
            full: stats::get(&c.full) != 0,
            expired_samples: stats::get(&c.expired_samples),
            expired_blocks: stats::get(&c.expired_blocks),
            damaged_blocks: stats::get(&c.damaged_blocks),
            corrupt_reads: stats::get(&c.corrupt_reads),
            flushes: stats::get(&c.flushes),
            compactions: stats::get(&c.compactions),
            failed_maintenance: stats::get(&c.failed_maintenance),
            failed_syncs: self.inner.syncer.failures(),
            exemplars: head.exemplars.len(),
            dropped_exemplars: head.exemplars.dropped + stats::get(&c.long_exemplars),
            recovery: self.inner.recovery,
            offenders: state.cardinality.offenders().cloned().collect(),
        }
    }
}

/// Reads the newest checkpoint and the segments from it on, and opens the log for more. The samples of segments below
/// `covered` are in blocks.
fn replay(
    dir: &Path,
    options: &StoreOptions,
    covered: u64,
    head: &mut Head,
    recovery: &mut Recovery,
) -> Result<Wal, StoreError> {
    let checkpoint = disk::numbered(dir, "checkpoint-", ".wal")?.pop();
    let from = checkpoint.as_ref().map_or(0, |(seq, _)| *seq);
    let segments = disk::numbered(dir, "log-", ".wal")?;
    let mut replay = Replay::new(head, options.window_ms());
    if let Some((seq, path)) = checkpoint {
        let scan = replay_file(&path, seq, &mut replay)?;
        recovery.damaged += scan.damaged;
        recovery.damaged_bytes += scan.damaged_bytes;
    }
    let mut last = None;
    let mut bytes = 0;
    for (seq, path) in segments.into_iter().filter(|(seq, _)| *seq >= from) {
        replay.with_samples = seq >= covered;
        let scan = replay_file(&path, seq, &mut replay)?;
        let len = fs::metadata(&path).map_or(0, |m| m.len());
        recovery.segments += 1;
        recovery.records += scan.records;
        recovery.damaged += scan.damaged;
        recovery.damaged_bytes += scan.damaged_bytes;
        recovery.torn_bytes += len - scan.good_end.min(len);
        bytes += len;
        last = Some((seq, scan));
    }
    recovery.samples = replay.replayed;
    recovery.orphans = replay.orphans;
    let budget = &options.write_budget;
    let mut wal = match last {
        Some((seq, scan))
            if scan.good_end > 0 && seq >= covered && scan.version == wal::VERSION =>
        {
            bytes -= scan.good_end;
            Wal::resume(dir, seq, &scan, budget)?
        }
        Some((seq, _)) => Wal::create(dir, covered.max(seq + 1), budget)?,
        None => Wal::create(dir, from.max(covered).max(1), budget)?,
    };
    wal.add_closed_bytes(bytes);
    Ok(wal)
}

fn replay_file(path: &Path, seq: u64, replay: &mut Replay<'_>) -> Result<wal::Scan, StoreError> {
    let bytes = fs::read(path).map_err(|e| StoreError::io("read", path, e))?;
    let mut unreadable = 0;
    let mut scan = wal::scan(&bytes, seq, |kind, payload| {
        if kind != wal::BATCH || record::read(payload, replay).is_err() {
            unreadable += 1;
        }
    });
    scan.damaged += unreadable;
    Ok(scan)
}
