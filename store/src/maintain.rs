//! Upkeep: memory becomes blocks, blocks become larger blocks, old blocks go.
//!
//! Owns the order of those steps, so that a crash or a full disk between any two loses nothing and shows nothing
//! twice. Must not know encodings.
//!
//! A cut: roll the log to segment N; take the samples out of the series (readers see them as "frozen"); write them as
//! a block that says "the log before N is in here"; show the block instead of the frozen samples; write a checkpoint
//! of the series that stay; delete the log before N.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::Labels;

use crate::block::Block;
use crate::block::format::Footer;
use crate::block::read::{Entry, Pages};
use crate::block::writer::BlockWriter;
use crate::blocks::{self, Size};
use crate::chunk;
use crate::disk;
use crate::error::StoreError;
use crate::frames;
use crate::merge::{self, Run};
use crate::record::Batch;
use crate::stats::add;
use crate::store::{Log, Store};
use crate::sync::lock;
use crate::wal::{self, BATCH, RECORD_HEADER};
use crate::wire::Damaged;

/// Samples in one chunk of a block, at most.
const CHUNK_SAMPLES: usize = 1024;

/// Series in one record of a checkpoint.
const CHECKPOINT_BATCH: usize = 4_096;

/// Samples on their way from memory to a block.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) series: HashMap<u32, FrozenSeries>,
    pub(crate) log_before: u64,
    pub(crate) samples: u64,
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
    /// The newest time of each slot at the cut: what a checkpoint says, since later samples are in the log after it.
    last_t: Vec<Option<i64>>,
}

/// A series of them.
#[derive(Debug)]
pub(crate) struct FrozenSeries {
    pub(crate) labels: Labels,
    /// Chunks, see [`frames`].
    pub(crate) chunks: Vec<u8>,
}

/// What only upkeep knows.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) next_seq: u64,
    /// When samples began to gather in memory, by the caller's clock.
    pub(crate) gathering_since: Option<i64>,
    /// A checkpoint that is to be written.
    pub(crate) checkpoint_due: Option<Due>,
}

/// What a checkpoint needs to know of its cut.
#[derive(Debug)]
pub(crate) struct Due {
    /// The log before this segment is no longer needed then.
    before: u64,
    last_t: Vec<Option<i64>>,
    /// Series that had no sample since the cut before: they leave memory.
    idle: HashSet<u32>,
}

// === impl Store ===

impl Store {
    /// Deletes what is past retention, writes a block when enough has gathered in memory, and merges blocks. Call it
    /// every few seconds with the current time, Unix milliseconds; it may take long and blocks its thread, while
    /// appends and reads go on. An error (such as a full disk) leaves everything readable, and the next call tries
    /// again.
    pub fn maintain(&self, now_ms: i64) -> Result<(), StoreError> {
        let mut upkeep = lock(&self.inner.upkeep);
        let done = self.maintain_steps(&mut upkeep, now_ms, false);
        add(
            &self.inner.counters.failed_maintenance,
            u64::from(done.is_err()),
        );
        done
    }

    /// The same, but writes everything in memory to a block whatever its age.
    pub fn compact(&self, now_ms: i64) -> Result<(), StoreError> {
        let mut upkeep = lock(&self.inner.upkeep);
        let done = self.maintain_steps(&mut upkeep, now_ms, true);
        add(
            &self.inner.counters.failed_maintenance,
            u64::from(done.is_err()),
        );
        done
    }

    fn maintain_steps(
        &self,
        upkeep: &mut Upkeep,
        now_ms: i64,
        cut: bool,
    ) -> Result<(), StoreError> {
        self.expire(now_ms)?;
        self.write_frozen(upkeep)?;
        if cut || self.is_ripe(upkeep, now_ms) {
            self.freeze(upkeep)?;
            self.write_frozen(upkeep)?;
        }
        if let Some(due) = &upkeep.checkpoint_due {
            self.checkpoint(due)?;
            upkeep.checkpoint_due = None;
        }
        while self.merge_some(upkeep)? {}
        self.expire(now_ms)
    }

    /// Whether enough has gathered in memory, by time or by size.
    fn is_ripe(&self, upkeep: &mut Upkeep, now_ms: i64) -> bool {
        let options = &self.inner.options;
        if self.read().head.samples == 0 {
            upkeep.gathering_since = None;
            return false;
        }
        let since = *upkeep.gathering_since.get_or_insert(now_ms);
        let age = options.retention_ms.map_or(options.block_ms, |keep| {
            options.block_ms.min(keep / 4).max(1_000)
        });
        let most = options
            .head_log_bytes
            .min(options.retention_bytes.map_or(u64::MAX, |b| b / 4));
        now_ms.saturating_sub(since) >= age || lock(&self.inner.log).wal.bytes() >= most
    }

    fn freeze(&self, upkeep: &mut Upkeep) -> Result<(), StoreError> {
        let mut log = lock(&self.inner.log);
        if self.read().head.samples == 0 {
            return Ok(());
        }
        log.wal.roll()?;
        self.inner.syncer.switched(log.wal.file());
        let mut state = self.write();
        let head = &mut state.head;
        let mut frozen = Frozen {
            series: HashMap::new(),
            log_before: log.wal.seq(),
            samples: head.samples,
            min_t: head.min_t,
            max_t: head.max_t,
            last_t: Vec::with_capacity(head.slots.len()),
        };
        for (slot, series) in head.slots.iter_mut().enumerate() {
            frozen.last_t.push(series.last_t());
            if !series.is_empty() {
                let taken = FrozenSeries {
                    labels: series.labels.clone(),
                    chunks: series.cut(),
                };
                frozen.series.insert(slot as u32, taken);
            }
        }
        head.samples = 0;
        (head.min_t, head.max_t) = (i64::MAX, i64::MIN);
        state.frozen = Some(Arc::new(frozen));
        upkeep.gathering_since = None;
        Ok(())
    }

    /// Writes frozen samples, if there are any, as a block, and shows that instead.
    fn write_frozen(&self, upkeep: &mut Upkeep) -> Result<(), StoreError> {
        let Some(frozen) = self.read().frozen.clone() else {
            return Ok(());
        };
        let seq = upkeep.next_seq;
        upkeep.next_seq += 1;
        let footer = Footer {
            seq,
            first_seq: seq,
            log_before: frozen.log_before,
            ..Footer::default()
        };
        let dir = self.inner.options.dir.join("blocks");
        let mut writer = BlockWriter::create(&dir, footer, &self.inner.options.write_budget)?;
        let mut all: Vec<&FrozenSeries> = frozen.series.values().collect();
        all.sort_unstable_by(|a, b| a.labels.as_packed().cmp(b.labels.as_packed()));
        for one in all {
            let mut runs = Vec::new();
            frames::collect(&one.chunks, false, (i64::MIN, i64::MAX), &mut runs)
                .map_err(|e| StoreError::corrupt("memory", 0, e))?;
            writer.add(&one.labels, &encode(runs))?;
        }
        let block = Arc::new(Block::open(&writer.finish()?, seq)?);
        let mut state = self.write();
        let mut blocks = state.blocks.to_vec();
        blocks.push(block);
        blocks::sort(&mut blocks);
        state.blocks = Arc::new(blocks);
        state.frozen = None;
        drop(state);
        add(&self.inner.counters.flushes, 1);
        upkeep.checkpoint_due = Some(Due {
            before: frozen.log_before,
            last_t: frozen.last_t.clone(),
            idle: self.idle(&frozen),
        });
        Ok(())
    }

    fn idle(&self, frozen: &Frozen) -> HashSet<u32> {
        let state = self.read();
        let slots = (0u32..).zip(&state.head.slots);
        slots
            .filter(|(slot, s)| s.is_live() && s.is_empty() && !frozen.series.contains_key(slot))
            .map(|(slot, _)| slot)
            .collect()
    }

    /// Writes what must outlive the log before the cut, then deletes that.
    fn checkpoint(&self, due: &Due) -> Result<(), StoreError> {
        let dir = self.inner.options.dir.join("log");
        let path = wal::checkpoint_path(&dir, due.before);
        let tmp = path.with_extension("tmp");
        disk::remove(&tmp)?;
        let (salt, budget) = (wal::fresh_salt(), &self.inner.options.write_budget);
        let file = wal::create_with_header(&tmp, due.before, salt, budget)?;
        let records = self.checkpoint_records(&mut lock(&self.inner.log), salt, due);
        disk::write_all(&file, &tmp, &records, budget)
            .and_then(|()| disk::sync(&file, &tmp))
            .inspect_err(|_| drop(disk::remove(&tmp)))?;
        disk::rename(&tmp, &path)?;
        let mut log = lock(&self.inner.log);
        let mut state = self.write();
        let gone: HashSet<u32> = due
            .idle
            .iter()
            .copied()
            .filter(|slot| state.head.slots[*slot as usize].is_empty())
            .collect();
        state.head.evict(&gone);
        drop(state);
        log.wal.remove_before(due.before)
    }

    /// The records of a checkpoint. Series that are about to leave memory are not in it, and are introduced again
    /// when they get a sample after all. Others are not taken for introduced: the checkpoint is not in place yet.
    fn checkpoint_records(&self, log: &mut Log, salt: u32, due: &Due) -> Vec<u8> {
        let mut out = Vec::new();
        let mut state = self.write();
        let floor_ms = state.floor_ms;
        let head = &mut state.head;
        head.exemplars.expire(floor_ms);
        let batch = &mut log.batch;
        batch.clear();
        let mut leaving = HashSet::new();
        for (slot, series) in (0u32..).zip(&mut head.slots) {
            if due.idle.contains(&slot) && series.is_empty() {
                series.logged = false;
                leaving.insert(slot);
            } else if series.is_live() {
                let last_t = due.last_t.get(slot as usize).copied().flatten();
                batch.define(slot, last_t, series.overflow, &series.labels);
            }
            if slot as usize % CHECKPOINT_BATCH == CHECKPOINT_BATCH - 1 {
                seal_into(&mut out, batch, salt);
            }
        }
        seal_into(&mut out, batch, salt);
        for (slot, exemplar) in head.exemplars.iter() {
            if !leaving.contains(slot) {
                batch.exemplar(*slot, exemplar);
            }
        }
        for (name, metadata) in &head.metadata {
            batch.metadata(name, metadata);
        }
        seal_into(&mut out, batch, salt);
        out
    }

    /// Merges some neighbouring blocks, if there are any worth it.
    fn merge_some(&self, upkeep: &mut Upkeep) -> Result<bool, StoreError> {
        let all = Arc::clone(&self.read().blocks);
        let sizes: Vec<Size> = all.iter().map(|b| Size::from(b.as_ref())).collect();
        let Some(range) = blocks::choose(&sizes, &self.inner.options) else {
            return Ok(false);
        };
        let sources = &all[range];
        let seq = upkeep.next_seq;
        upkeep.next_seq += 1;
        let dir = self.inner.options.dir.join("blocks");
        let merged = merge_blocks(sources, seq, &dir, &self.inner.options.write_budget);
        let merged = match merged {
            Ok(block) => Arc::new(block),
            // The source that is damaged is known as such now, and will not be chosen again.
            Err(StoreError::Corrupt { .. }) => {
                if !sources.iter().any(|b| b.is_suspect()) {
                    sources.iter().for_each(|b| b.suspect());
                }
                return Ok(true);
            }
            Err(other) => return Err(other),
        };
        let gone: Vec<u64> = sources.iter().map(|b| b.seq()).collect();
        self.replace(&gone, Some(merged));
        for block in sources {
            disk::remove(block.path())?;
        }
        add(&self.inner.counters.compactions, 1);
        Ok(true)
    }

    fn replace(&self, gone: &[u64], by: Option<Arc<Block>>) {
        let mut state = self.write();
        let mut blocks: Vec<Arc<Block>> = state
            .blocks
            .iter()
            .filter(|b| !gone.contains(&b.seq()))
            .cloned()
            .collect();
        blocks.extend(by);
        blocks::sort(&mut blocks);
        state.blocks = Arc::new(blocks);
    }

    /// Deletes blocks past retention, oldest first.
    fn expire(&self, now_ms: i64) -> Result<(), StoreError> {
        let options = &self.inner.options;
        let floor_ms = options
            .retention_ms
            .map_or(i64::MIN, |keep| now_ms.saturating_sub(keep));
        self.write().floor_ms = floor_ms;
        let mut all = self.read().blocks.to_vec();
        all.sort_by_key(|b| b.footer.max_t);
        let log_bytes = lock(&self.inner.log).wal.bytes();
        let mut total = log_bytes + all.iter().map(|b| b.bytes).sum::<u64>();
        for block in all {
            let too_much = options.retention_bytes.is_some_and(|most| total > most);
            if block.footer.max_t >= floor_ms && !too_much {
                break;
            }
            self.replace(&[block.seq()], None);
            disk::remove(block.path())?;
            total -= block.bytes;
            add(&self.inner.counters.expired_blocks, 1);
            add(&self.inner.counters.expired_samples, block.footer.samples);
        }
        Ok(())
    }
}

fn seal_into(out: &mut Vec<u8>, batch: &mut Batch, salt: u32) {
    if !batch.is_empty() {
        let mut record = vec![0; RECORD_HEADER];
        batch.write(&mut record);
        wal::seal(BATCH, salt, &mut record);
        out.extend_from_slice(&record);
    }
    batch.clear();
}

/// Chunks of merged runs.
pub(crate) fn encode(runs: Vec<Run>) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    chunk::encode_points(&merge::merge(runs), CHUNK_SAMPLES, |c| {
        chunks.push(c.to_vec())
    });
    chunks
}

/// Reads a block's series one after another.
pub(crate) struct Cursor<'a> {
    block: &'a Block,
    page: usize,
    entries: std::vec::IntoIter<Entry>,
    pages: Pages,
    pub(crate) next: Option<Entry>,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    pub(crate) fn new(block: &'a Block) -> Result<Self, StoreError> {
        let mut cursor = Cursor {
            block,
            page: 0,
            entries: Vec::new().into_iter(),
            pages: Pages::default(),
            next: None,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.next = self.entries.next();
        if self.next.is_none() && self.page < self.block.footer.series_pages.len() {
            self.entries = self.block.page_of_series(self.page)?.into_iter();
            self.page += 1;
            self.next = self.entries.next();
        }
        Ok(())
    }

    pub(crate) fn take_if(
        &mut self,
        labels: &Labels,
        runs: &mut Vec<Run>,
    ) -> Result<(), StoreError> {
        if let Some(entry) = self.next.take_if(|e| e.labels == *labels) {
            let everything = (i64::MIN, i64::MAX);
            self.block
                .collect(&entry, everything, &mut self.pages, None, runs)?;
            self.advance()?;
        }
        Ok(())
    }
}

/// Merges neighbouring blocks, the one written first first.
pub(crate) fn merge_blocks(
    sources: &[Arc<Block>],
    seq: u64,
    dir: &std::path::Path,
    budget: &crate::disk::WriteBudget,
) -> Result<Block, StoreError> {
    let first_seq = sources.iter().map(|b| b.footer.first_seq).min();
    let footer = Footer {
        seq,
        first_seq: first_seq.unwrap_or(seq),
        log_before: blocks::log_before(sources),
        replaces: sources.iter().map(|b| b.seq()).collect(),
        ..Footer::default()
    };
    let mut writer = BlockWriter::create(dir, footer, budget)?;
    let mut cursors = Vec::new();
    for block in sources {
        cursors.push(Cursor::new(block)?);
    }
    let expected = sources.iter().map(|b| b.footer.series).max().unwrap_or(0);
    loop {
        let next = cursors
            .iter()
            .filter_map(|c| c.next.as_ref())
            .map(|e| &e.labels)
            .min_by(|a, b| a.as_packed().cmp(b.as_packed()))
            .cloned();
        let Some(labels) = next else { break };
        let mut runs = Vec::new();
        for cursor in &mut cursors {
            cursor.take_if(&labels, &mut runs)?;
        }
        writer.add(&labels, &encode(runs))?;
    }
    if writer.series_count() < expected {
        return Err(StoreError::corrupt(dir, 0, Damaged("series are missing")));
    }
    Block::open(&writer.finish()?, seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SampleRef, StoreOptions};
    use model::{SelectRequest, Source};

    fn times(store: &Store) -> Vec<i64> {
        let request = SelectRequest {
            matchers: &[],
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            max_points: usize::MAX,
        };
        let mut all = store.select(&request).expect("readable");
        all.pop().map(|s| s.points.t_ms).unwrap_or_default()
    }

    /// Samples arrive between every two steps of a cut, and the process may die after any of them.
    #[test]
    fn samples_between_the_steps_of_a_cut_are_kept() {
        for (window, steps) in (0..6).flat_map(|n| [(0, n), (1_000, n)]) {
            let dir = tempfile::tempdir().unwrap();
            let mut options = StoreOptions::new(dir.path());
            options.out_of_order_ms = window;
            let store = Store::open(options.clone()).unwrap();
            let labels = Labels::from_pairs([("__name__", "a")]);
            let mut t = 0;
            let mut append = || {
                for _ in 0..3 {
                    t += 1;
                    let one = [SampleRef::float(&labels, t, t as f64)];
                    assert_eq!(store.append(&one).unwrap().appended, 1);
                }
            };
            append();
            let mut upkeep = lock(&store.inner.upkeep);
            for step in 0..steps {
                match step % 3 {
                    0 => store.freeze(&mut upkeep).unwrap(),
                    1 => store.write_frozen(&mut upkeep).unwrap(),
                    _ => store
                        .checkpoint(&upkeep.checkpoint_due.take().unwrap())
                        .unwrap(),
                }
                append();
            }
            drop(upkeep);
            let expected: Vec<i64> = (1..=t).collect();
            assert_eq!(times(&store), expected);
            drop(store);
            let store = Store::open(options).unwrap();
            assert_eq!(times(&store), expected, "after {steps} steps");
        }
    }
}
