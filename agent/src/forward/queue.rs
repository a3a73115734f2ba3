//! The queue on disk that every server of `remote_write` reads: one log, numbered blocks, deleted when all have read.
//!
//! Owns numbering, reading in order and deleting. Must not know servers. Built on the segments of `store`: a block's
//! number takes the place of its time there, so "older than" means "numbered below", and whole segments go.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::StoreError;
use store::spool::{NewBlock, Segments, SegmentsOptions};
use tokio::sync::watch;

use super::block;
use crate::ingest::Sample;

/// Samples of one block at most.
const MAX_BLOCK_SAMPLES: usize = 20_000;
/// Small segments: what was read is deleted soon.
const SEGMENT_BYTES: u64 = 4 << 20;
/// The newest blocks that are kept in memory, in bytes: servers that keep up never read the disk.
const CACHE_BYTES: usize = 4 << 20;
/// Blocks looked up at once.
const WINDOW: u64 = 64;

/// A block that was read.
#[derive(Debug)]
pub(super) struct Block {
    pub number: u64,
    /// Samples enqueued before this block since the queue was made.
    pub before: u64,
    /// When it was enqueued, Unix milliseconds.
    pub t_ms: i64,
    pub bytes: Vec<u8>,
}

/// What comes at a number.
#[derive(Debug)]
pub(super) enum Next {
    /// The block.
    Block(Arc<Block>),
    /// Nothing yet.
    End,
    /// Blocks were deleted or damaged; the oldest after them has this number.
    Gap(u64),
}

/// Where the queue ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tail {
    /// The number of the next block.
    pub next: u64,
    /// Samples enqueued since the queue was made.
    pub samples: u64,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    segments: Segments,
    writing: Mutex<Tail>,
    tail: watch::Sender<Tail>,
    cache: Mutex<VecDeque<Arc<Block>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Queue ===

impl Queue {
    /// Opens it. `known` is the furthest that any server is known to have read: numbers go on from there.
    pub(super) fn open(dir: PathBuf, bytes: u64, known: Tail) -> Result<Self, StoreError> {
        let mut options = SegmentsOptions::new(dir);
        options.retention_bytes = Some(bytes);
        options.retention_ms = Some(0);
        options.segment_bytes = SEGMENT_BYTES;
        let segments = Segments::open(options)?;
        let mut tail = Tail {
            next: known.next.max(1),
            samples: known.samples,
        };
        if let Some(newest) = segments.blocks().first() {
            tail.next = tail.next.max(newest.max_ns + 1);
            let before = segments.footer(newest.id).map_or(0, |f| footer(&f).0);
            tail.samples = tail.samples.max(before + u64::from(newest.items));
        }
        Ok(Queue {
            segments,
            writing: Mutex::new(tail),
            tail: watch::Sender::new(tail),
            cache: Mutex::default(),
        })
    }

    /// Appends samples; they survive `kill -9` when this returns.
    pub(super) fn append(&self, samples: &[Sample], now_ms: i64) -> Result<(), StoreError> {
        for part in samples.chunks(MAX_BLOCK_SAMPLES) {
            let bytes = block::encode(part);
            let mut tail = lock(&self.writing);
            let number = tail.next;
            let mut footer = tail.samples.to_le_bytes().to_vec();
            footer.extend_from_slice(&now_ms.to_le_bytes());
            self.segments.append(&NewBlock {
                bytes: &bytes,
                footer: &footer,
                items: u32::try_from(part.len()).unwrap_or(u32::MAX),
                min_ns: number,
                max_ns: number,
            })?;
            self.remember(Block {
                number,
                before: tail.samples,
                t_ms: now_ms,
                bytes,
            });
            tail.next += 1;
            tail.samples += part.len() as u64;
            self.tail.send_replace(*tail);
        }
        Ok(())
    }

    fn remember(&self, block: Block) {
        let mut cache = lock(&self.cache);
        cache.push_back(Arc::new(block));
        let mut bytes: usize = cache.iter().map(|b| b.bytes.len()).sum();
        while bytes > CACHE_BYTES
            && let Some(oldest) = cache.pop_front()
        {
            bytes -= oldest.bytes.len();
        }
    }

    /// The block with this number, or what is there instead. Reads the disk.
    pub(super) fn at(&self, number: u64) -> Next {
        if number >= lock(&self.writing).next {
            return Next::End;
        }
        {
            let cache = lock(&self.cache);
            let first = cache.front().map_or(u64::MAX, |b| b.number);
            let index = number.checked_sub(first).map(usize::try_from);
            if let Some(Ok(index)) = index
                && let Some(block) = cache.get(index)
            {
                return Next::Block(Arc::clone(block));
            }
        }
        let mut to = number.saturating_add(WINDOW);
        let mut found = self.segments.blocks_between(number, to);
        if found.is_empty() {
            to = u64::MAX;
            found = self.segments.blocks_between(number, to);
        }
        let Some(info) = found.last() else {
            // Everything up to the end is gone.
            return Next::Gap(lock(&self.writing).next);
        };
        if info.min_ns > number {
            return Next::Gap(info.min_ns);
        }
        let read = self.segments.read(info.id);
        match (read, self.segments.footer(info.id)) {
            (Ok(bytes), Ok(foot)) => {
                let (before, t_ms) = footer(&foot);
                Next::Block(Arc::new(Block {
                    number,
                    before,
                    t_ms,
                    bytes,
                }))
            }
            // Damaged, or deleted a moment ago.
            _ => Next::Gap(number + 1),
        }
    }

    /// Follows the end.
    pub(super) fn follow(&self) -> watch::Receiver<Tail> {
        self.tail.subscribe()
    }

    /// The end.
    pub(super) fn tail(&self) -> Tail {
        *lock(&self.writing)
    }

    /// The beginning: the oldest block that is there, or the end.
    pub(super) fn oldest(&self) -> Tail {
        let Some(info) = self.segments.blocks().last().copied() else {
            return self.tail();
        };
        let before = self.segments.footer(info.id).map_or(0, |f| footer(&f).0);
        Tail {
            next: info.min_ns,
            samples: before,
        }
    }

    /// Deletes segments of which every block is numbered below `number`.
    pub(super) fn release(&self, number: u64) -> Result<(), StoreError> {
        self.segments.maintain(number).map(|_| ())
    }

    /// Forces everything to the disk.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.segments.flush()
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.stats().bytes
    }
}

/// Samples before the block, and when it was enqueued.
fn footer(bytes: &[u8]) -> (u64, i64) {
    let Some((before, rest)) = bytes.split_first_chunk::<8>() else {
        return (0, 0);
    };
    let t_ms = rest
        .first_chunk::<8>()
        .map_or(0, |b| i64::from_le_bytes(*b));
    (u64::from_le_bytes(*before), t_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Labels;

    fn samples(n: i64) -> Vec<Sample> {
        let labels = Labels::from_pairs([("__name__", "a")]);
        (0..n)
            .map(|t| Sample::float(labels.clone(), t, 0.5))
            .collect()
    }

    fn number(next: &Next) -> (char, u64) {
        match next {
            Next::Block(block) => ('b', block.number),
            Next::End => ('e', 0),
            Next::Gap(to) => ('g', *to),
        }
    }

    #[test]
    fn blocks_are_numbered_over_restarts_and_released() {
        let dir = tempfile::tempdir().unwrap();
        let open = |known| Queue::open(dir.path().join("q"), 64 << 20, known).unwrap();
        let queue = open(Tail::default());
        assert_eq!(number(&queue.at(1)), ('e', 0));
        queue.append(&samples(3), 10).unwrap();
        queue.append(&samples(20_001), 20).unwrap();
        let tail = queue.tail();
        assert_eq!((tail.next, tail.samples), (4, 20_004));
        drop(queue);
        let queue = open(Tail::default());
        assert_eq!(queue.tail(), tail);
        let Next::Block(block) = queue.at(2) else {
            panic!("no block")
        };
        assert_eq!((block.number, block.before, block.t_ms), (2, 3, 20));
        assert_eq!(block::entries(&block.bytes).count(), 20);
        queue.release(4).unwrap();
        assert_eq!(number(&queue.at(1)), ('g', 4), "all were read and deleted");
        queue.append(&samples(1), 30).unwrap();
        assert_eq!(number(&queue.at(4)), ('b', 4));
        drop(queue);
        let further = Tail {
            next: 9,
            samples: 50_000,
        };
        let queue = open(further);
        assert_eq!(queue.tail(), further);
    }

    #[test]
    fn past_its_bytes_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::open(dir.path().join("q"), 512 << 10, Tail::default()).unwrap();
        let noise = |seed: u64| -> Vec<Sample> {
            let labels = |i: u64| Labels::from_pairs([("__name__", format!("n{i}"))]);
            let value = |i: u64| {
                f64::from_bits((i + seed * 7_919).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2)
            };
            (0..10_000)
                .map(|i| Sample::float(labels(i % 50), i.cast_signed(), value(i)))
                .collect()
        };
        for seed in 0..20 {
            queue.append(&noise(seed), 0).unwrap();
        }
        let Next::Gap(oldest) = queue.at(1) else {
            panic!("nothing was deleted, {} bytes", queue.bytes())
        };
        assert!(oldest > 1 && queue.bytes() < 1 << 20, "{oldest}");
        assert_eq!(number(&queue.at(oldest)), ('b', oldest));
    }
}
