//! One request's worth of a shard's samples, collected from the queue.
//!
//! Owns which samples make a request: a function of the queue and two places in it, so that a request whose fate is
//! unknown can be repeated exactly. Must not know HTTP.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use model::{LabelsBuilder, prompb, protobuf};

use super::block;
use super::position::Position;
use super::queue::{Next, Queue};

/// Blocks that one collection reads at most.
const MAX_BLOCKS: usize = 1_000;

/// Which samples a shard takes.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub shard: usize,
    pub shards: usize,
    pub max_samples: usize,
    pub native_histograms: bool,
    pub external_labels: BTreeMap<String, String>,
}

/// A series and its points in order of time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    labels: Vec<u8>,
    points: Vec<(i64, Vec<u8>)>,
}

/// Samples to send.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Batch {
    /// The place after the last sample.
    pub to: Position,
    pub series: Vec<Series>,
    pub samples: usize,
    /// Whether there may be more at `to`.
    pub full: bool,
    /// When its oldest sample was enqueued, Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Samples of all shards that were deleted or damaged before they could be read.
    pub lost: u64,
    /// Native histograms left out.
    pub skipped: u64,
}

/// Collects from `from`: exactly up to `exactly`, or else until there are enough, but not past `end`. Reads the disk.
pub(super) fn collect(
    queue: &Queue,
    share: &Share,
    from: Position,
    exactly: Option<Position>,
    end: Option<Position>,
) -> Batch {
    let until = exactly.or(end);
    let mut batch = Batch {
        to: from,
        ..Batch::default()
    };
    let mut at: HashMap<Vec<u8>, usize> = HashMap::new();
    batch.full = true;
    for _ in 0..MAX_BLOCKS {
        if until.is_some_and(|u| batch.to >= u) {
            break;
        }
        let block = match queue.at(batch.to.block) {
            Next::End => {
                batch.full = false;
                break;
            }
            Next::Gap(next) => {
                batch.skip_to(next, queue);
                continue;
            }
            Next::Block(block) => block,
        };
        // What is gone is noticed by the count of samples before this block.
        batch.lost += block.before.saturating_sub(batch.to.before);
        batch.to.before = block.before;
        let mut samples = 0;
        for (index, entry) in block::entries(&block.bytes).enumerate() {
            samples += u64::from(entry.count);
            if index < batch.to.entry {
                continue;
            }
            let enough = exactly.is_none() && batch.samples >= share.max_samples;
            if enough || until.is_some_and(|u| batch.to >= u) {
                batch.sort();
                return batch;
            }
            batch.to.entry = index + 1;
            if entry.hash % share.shards as u64 == share.shard as u64 {
                batch.take(&entry, share, &mut at);
                batch.oldest_ms.get_or_insert(block.t_ms);
            }
        }
        batch.to = Position {
            block: batch.to.block + 1,
            entry: 0,
            before: block.before + samples,
        };
    }
    batch.sort();
    batch
}

// === impl Batch ===

impl Batch {
    fn skip_to(&mut self, next: u64, queue: &Queue) {
        (self.to.block, self.to.entry) = (next, 0);
        if let Next::End = queue.at(next) {
            let end = queue.tail().samples;
            self.lost += end.saturating_sub(self.to.before);
            self.to.before = end;
        }
    }

    fn take(&mut self, entry: &block::Entry<'_>, share: &Share, at: &mut HashMap<Vec<u8>, usize>) {
        let points: Vec<(i64, Vec<u8>)> = entry
            .points()
            .filter(|p| share.native_histograms || !p.histogram)
            .map(|p| (p.t_ms, p.field.to_vec()))
            .collect();
        self.skipped += u64::from(entry.count) - points.len() as u64;
        if points.is_empty() {
            return;
        }
        self.samples += points.len();
        let labels = with_external(entry.labels, &share.external_labels);
        match at.get(&labels) {
            Some(index) => self.series[*index].points.extend(points),
            None => {
                at.insert(labels.clone(), self.series.len());
                self.series.push(Series { labels, points });
            }
        }
    }

    /// The protocol wants samples in order of time, and servers refuse a second one at the same instant.
    fn sort(&mut self) {
        for series in &mut self.series {
            series.points.sort_by_key(|(t_ms, _)| *t_ms);
            series.points.dedup_by_key(|(t_ms, _)| *t_ms);
        }
    }

    /// The `WriteRequest` of some of its series, and how many samples that is.
    pub(super) fn message(&self, series: Range<usize>) -> (Vec<u8>, u64) {
        let (mut out, mut one, mut samples) = (Vec::new(), Vec::new(), 0);
        for series in &self.series[series] {
            one.clear();
            one.extend_from_slice(&series.labels);
            for (_, field) in &series.points {
                one.extend_from_slice(field);
            }
            samples += series.points.len() as u64;
            protobuf::put_bytes(&mut out, 1, &one);
        }
        (out, samples)
    }
}

/// Labels with those added that they lack, still in order.
fn with_external(labels: &[u8], external: &BTreeMap<String, String>) -> Vec<u8> {
    if external.is_empty() {
        return labels.to_vec();
    }
    let mut builder = LabelsBuilder::default();
    let mut reader = protobuf::Reader::new(labels);
    // We wrote these fields ourselves, and a checksum guards them.
    while let Ok(Some((_, field))) = reader.next_field() {
        if let Ok(bytes) = field.bytes(1) {
            let _ = prompb::read_label(bytes, &mut builder);
        }
    }
    for (name, value) in external {
        if builder.get(name).is_none() {
            builder.set(name, value);
        }
    }
    let mut out = Vec::new();
    prompb::put_labels(&mut out, &builder.build());
    out
}

#[cfg(test)]
#[path = "batch_test.rs"]
mod tests;
