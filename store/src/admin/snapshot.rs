//! A copy of a store as it was at a moment.
//!
//! Owns which files are shared and which are written anew. Must not stop appends for longer than one read of memory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use model::{SelectRequest, Source};

use crate::block::format::Footer;
use crate::block::writer::BlockWriter;
use crate::block::{Block, block_path};
use crate::disk;
use crate::error::StoreError;
use crate::maintain::{Cursor, encode};
use crate::merge;
use crate::options::StoreOptions;
use crate::store::Store;
use crate::wire::Damaged;

/// What a snapshot is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Blocks shared with the store (hard links), or copied where links are not possible.
    pub linked: u64,
    /// Blocks written anew, because only a part of them is old enough or because it was in memory.
    pub written: u64,
    /// Samples in the snapshot.
    pub samples: u64,
}

// === impl Store ===

impl Store {
    /// Writes to `dir`, which must not exist or be empty, a store that holds every sample with a time up to `at_ms`
    /// (Unix milliseconds; `i64::MAX` for all), metadata and exemplars included. Appends and reads go on meanwhile;
    /// the snapshot is of one moment.
    pub fn snapshot(&self, dir: &Path, at_ms: i64) -> Result<SnapshotReport, StoreError> {
        let empty =
            !dir.exists() || fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
        if !empty {
            return Err(StoreError::Invalid(format!(
                "{} is not empty",
                dir.display()
            )));
        }
        let block_dir = dir.join("blocks");
        disk::create_dir(&block_dir)?;
        // No block may go away while it is linked.
        let upkeep = crate::sync::lock(&self.inner.upkeep);
        let request = SelectRequest {
            matchers: &[],
            start_ms: i64::MIN,
            end_ms: at_ms,
            max_points: usize::MAX,
        };
        let memory = self
            .in_memory(&request)
            .map_err(|_| StoreError::corrupt(self.dir(), 0, Damaged("memory does not decode")))?;
        let mut report = SnapshotReport::default();
        for block in memory.blocks.iter().filter(|b| b.footer.min_t <= at_ms) {
            if block.footer.max_t <= at_ms {
                let to = block_path(&block_dir, block.seq());
                fs::hard_link(block.path(), &to)
                    .or_else(|_| fs::copy(block.path(), &to).map(drop))
                    .map_err(|e| StoreError::io("copy", block.path(), e))?;
                report.linked += 1;
                report.samples += block.footer.samples;
            } else {
                let footer = Footer {
                    replaces: Vec::new(),
                    ..block.footer.clone()
                };
                let writer = self.begin(&block_dir, &footer)?;
                self.finish(copy_until(block, at_ms, writer)?, footer.seq, &mut report)?;
            }
        }
        if !memory.series.is_empty() {
            let numbers = Footer {
                seq: upkeep.next_seq,
                first_seq: upkeep.next_seq,
                log_before: crate::blocks::log_before(&memory.blocks),
                ..Footer::default()
            };
            let mut writer = self.begin(&block_dir, &numbers)?;
            let mut all = memory.series;
            all.sort_unstable_by(|a, b| a.0.as_packed().cmp(b.0.as_packed()));
            for (labels, part) in all {
                let mut runs = Vec::new();
                let decoded = memory.copies.runs(part, (i64::MIN, at_ms), &mut runs);
                decoded.map_err(|e| StoreError::corrupt(self.dir(), 0, e))?;
                writer.add(&labels, &encode(runs))?;
            }
            self.finish(writer, numbers.seq, &mut report)?;
        }
        drop(upkeep);
        self.copy_rest(dir, at_ms)?;
        Ok(report)
    }

    /// Begins a block with the numbers of another.
    fn begin(&self, dir: &Path, numbers: &Footer) -> Result<BlockWriter, StoreError> {
        let footer = Footer {
            seq: numbers.seq,
            first_seq: numbers.first_seq,
            log_before: numbers.log_before,
            ..Footer::default()
        };
        BlockWriter::create(dir, footer, &self.inner.options.write_budget)
    }

    fn finish(
        &self,
        writer: BlockWriter,
        seq: u64,
        report: &mut SnapshotReport,
    ) -> Result<(), StoreError> {
        let block = Block::open(&writer.finish()?, seq)?;
        report.written += 1;
        report.samples += block.footer.samples;
        Ok(())
    }

    /// Metadata and exemplars go through the log of the snapshot.
    fn copy_rest(&self, dir: &Path, at_ms: i64) -> Result<(), StoreError> {
        let copy = Store::open(StoreOptions {
            dir: dir.to_owned(),
            ..self.inner.options.clone()
        })?;
        let request = SelectRequest {
            matchers: &[],
            start_ms: i64::MIN,
            end_ms: at_ms,
            max_points: usize::MAX,
        };
        let unreadable = |_| StoreError::Invalid("exemplars cannot be read".into());
        let metadata = self.metadata().map_err(unreadable)?;
        let all: Vec<_> = metadata
            .iter()
            .map(|(n, m)| (n.as_str(), m.clone()))
            .collect();
        copy.set_metadata(&all)?;
        for (labels, exemplars) in self.exemplars(&request).map_err(unreadable)? {
            let _ = copy.series_id(&labels);
            let all: Vec<_> = exemplars.into_iter().map(|e| (&labels, e)).collect();
            copy.append_exemplars(&all)?;
        }
        copy.flush()
    }
}

/// Writes those samples of a block that are old enough.
fn copy_until(
    block: &Arc<Block>,
    at_ms: i64,
    mut writer: BlockWriter,
) -> Result<BlockWriter, StoreError> {
    let mut cursor = Cursor::new(block)?;
    while let Some(labels) = cursor.next.as_ref().map(|e| e.labels.clone()) {
        let mut runs = Vec::new();
        cursor.take_if(&labels, &mut runs)?;
        let mut points = merge::merge(runs);
        let keep = points.t_ms.partition_point(|t| *t <= at_ms);
        points.t_ms.truncate(keep);
        points.values.truncate(keep);
        points.histograms.truncate(keep);
        writer.add(&labels, &encode(vec![points]))?;
    }
    Ok(writer)
}
