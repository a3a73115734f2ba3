//! Segments: an append-only log of opaque, compressed, checksummed blocks, for traces and logs.
//!
//! Owns the files (docs/store-format.md, "Segment") and their retention. Must not know what is in a block: the caller
//! gives its bytes, its bounds in time, and a small footer by which it later decides whether to read the block.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::disk::{self, DirLock, WriteBudget};
use crate::error::StoreError;
use crate::options::Fsync;
use crate::sync::{Syncer, lock};

mod format;
mod merging;
mod segment;

pub use format::Compression;
pub use merging::{FooterOf, Merged, Part};
use segment::{Opened, Segment, Writer};

/// The most bytes that a block may have before compression.
pub const MAX_BLOCK_BYTES: usize = 16 << 20;

/// The most bytes that a footer may have.
pub const MAX_FOOTER_BYTES: usize = 1 << 20;

/// Where and how blocks are kept.
#[derive(Debug, Clone)]
pub struct SegmentsOptions {
    /// The folder; created when missing. One process at a time.
    pub dir: PathBuf,
    /// A segment is closed when it has grown past this. Retention deletes whole segments; with `retention_bytes` set
    /// a segment is at most an eighth of that (but not below 256 KiB). Default 32 MiB.
    pub segment_bytes: u64,
    /// Oldest segments are deleted while all take more bytes. Default none.
    pub retention_bytes: Option<u64>,
    /// Segments whose newest block is older than this are deleted, in milliseconds. Default none.
    pub retention_ms: Option<i64>,
    /// How blocks are compressed. Default zstd, level 1.
    pub compression: Compression,
    /// Footers kept in memory, in bytes, the newest first; others are read from disk. Default 16 MiB.
    pub footer_cache_bytes: usize,
    /// When written blocks are forced to the disk.
    pub fsync: Fsync,
    /// How many more bytes may be written; a stand-in for a full disk. Default no limit.
    pub write_budget: WriteBudget,
}

// === impl SegmentsOptions ===

impl SegmentsOptions {
    /// The defaults, in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        SegmentsOptions {
            dir: dir.into(),
            segment_bytes: 32 << 20,
            retention_bytes: None,
            retention_ms: None,
            compression: Compression::Zstd,
            footer_cache_bytes: 16 << 20,
            fsync: Fsync::default(),
            write_budget: WriteBudget::default(),
        }
    }

    /// What is older than this is past retention.
    fn cutoff_ns(&self, now_ns: u64) -> u64 {
        self.retention_ms.map_or(0, |keep| {
            let keep_ns = keep.max(0).unsigned_abs().saturating_mul(1_000_000);
            now_ns.saturating_sub(keep_ns)
        })
    }

    fn segment_limit(&self) -> u64 {
        let by_retention = self.retention_bytes.map_or(u64::MAX, |b| b / 8);
        self.segment_bytes.min(by_retention).max(256 << 10)
    }
}

/// What to append.
#[derive(Debug, Clone, Copy)]
pub struct NewBlock<'a> {
    /// The content, best 64 to 256 KiB, at most [`MAX_BLOCK_BYTES`].
    pub bytes: &'a [u8],
    /// What the caller wants to know without reading the content, at most [`MAX_FOOTER_BYTES`]. Not compressed.
    pub footer: &'a [u8],
    /// How many things are in it; only counted.
    pub items: u32,
    /// The earliest time in it, Unix nanoseconds.
    pub min_ns: u64,
    /// The latest time in it, Unix nanoseconds.
    pub max_ns: u64,
}

/// Names a block, in the order of appends, until its segment is merged ([`Segments::merge_small`]) or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// How often the segment was merged since it was opened.
    pub(crate) merges: u32,
}

/// What is known about a block without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// Its name.
    pub id: BlockId,
    /// The earliest time in it, Unix nanoseconds.
    pub min_ns: u64,
    /// The latest time in it, Unix nanoseconds.
    pub max_ns: u64,
    /// How many things are in it.
    pub items: u32,
    /// Bytes of the content.
    pub raw_bytes: u32,
    /// Bytes of the content on disk.
    pub stored_bytes: u32,
    /// Bytes of the footer.
    pub footer_bytes: u32,
}

/// What [`Segments::maintain`] deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Segments deleted.
    pub segments: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Things in those blocks.
    pub items: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A snapshot of the counters; they start at zero when the log is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentsStats {
    /// Segments on disk.
    pub segments: usize,
    /// Blocks on disk.
    pub blocks: usize,
    /// Things in them.
    pub items: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of the blocks' contents before compression.
    pub raw_bytes: u64,
    /// The earliest time in them, Unix nanoseconds.
    pub oldest_ns: Option<u64>,
    /// The latest time in them, Unix nanoseconds.
    pub newest_ns: Option<u64>,
    /// Bytes of footers in memory.
    pub cached_footer_bytes: usize,
    /// Bytes of the torn tail that opening cut off.
    pub torn_bytes: u64,
    /// Stretches of damaged bytes that opening skipped.
    pub damaged: u64,
    /// Bytes of those.
    pub damaged_bytes: u64,
    /// What retention deleted since then.
    pub expired: Expired,
    /// Appends refused because the disk was full.
    pub refused_full: u64,
}

/// The log. Cheap to clone; every clone is the same log.
#[derive(Debug, Clone)]
pub struct Segments {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: SegmentsOptions,
    writer: Mutex<Writer>,
    index: RwLock<Index>,
    syncer: Syncer,
    _lock: DirLock,
}

#[derive(Debug, Default)]
struct Index {
    /// Ascending by number; the last one grows.
    segments: Vec<Segment>,
    stats: SegmentsStats,
    edition: u64,
}

// === impl Segments ===

impl Segments {
    /// Opens the log in `options.dir`, making it when it does not exist. A torn tail is cut and counted; damage before
    /// good blocks is skipped and counted.
    pub fn open(options: SegmentsOptions) -> Result<Self, StoreError> {
        disk::create_dir(&options.dir)?;
        let lock_file = disk::lock_dir(&options.dir)?;
        disk::remove_unfinished(&options.dir)?;
        let mut index = Index::default();
        let found = disk::numbered(&options.dir, "seg-", ".nseg")?;
        let newest = found.last().map_or(0, |(seq, _)| *seq);
        let mut resume = None;
        for (seq, path) in found {
            let Opened {
                segment,
                damaged,
                damaged_bytes,
                tail_bytes,
            } = segment::open(seq, &path)?;
            index.stats.damaged += damaged;
            index.stats.damaged_bytes += damaged_bytes;
            if seq == newest {
                index.stats.torn_bytes += tail_bytes;
                resume = segment.as_ref().map(Writer::resume).transpose()?;
            } else if tail_bytes > 0 {
                index.stats.damaged += 1;
                index.stats.damaged_bytes += tail_bytes;
            }
            if segment.is_none() {
                let aside = path.with_extension("nseg.damaged");
                std::fs::rename(&path, &aside).map_err(|e| StoreError::io("rename", &path, e))?;
            }
            index.segments.extend(segment);
        }
        let writer = match resume {
            Some(writer) => writer,
            None => {
                let (writer, segment) =
                    Writer::create(&options.dir, newest + 1, &options.write_budget)?;
                index.segments.push(segment);
                writer
            }
        };
        index.trim_footers(options.footer_cache_bytes);
        let syncer = Syncer::start(writer.file());
        Ok(Segments {
            inner: Arc::new(Inner {
                options,
                writer: Mutex::new(writer),
                index: RwLock::new(index),
                syncer,
                _lock: lock_file,
            }),
        })
    }

    fn read_index(&self) -> RwLockReadGuard<'_, Index> {
        let guard = self.inner.index.read();
        guard.unwrap_or_else(PoisonError::into_inner)
    }

    fn write_index(&self) -> RwLockWriteGuard<'_, Index> {
        let guard = self.inner.index.write();
        guard.unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one block: when this returns it survives the death of the process. On an error nothing of it is kept.
    pub fn append(&self, block: &NewBlock<'_>) -> Result<BlockId, StoreError> {
        if block.bytes.len() > MAX_BLOCK_BYTES || block.footer.len() > MAX_FOOTER_BYTES {
            return Err(StoreError::Invalid(format!(
                "a block of {} bytes with a footer of {} is too large",
                block.bytes.len(),
                block.footer.len()
            )));
        }
        let stored = format::compress(self.inner.options.compression, block.bytes);
        let mut writer = lock(&self.inner.writer);
        if writer.len() >= self.inner.options.segment_limit() {
            self.roll(&mut writer)?;
        }
        let written = writer.append(block, &stored, &self.inner.options.write_budget);
        let info = match written {
            Ok(info) => info,
            Err(error) => {
                self.write_index().stats.refused_full += u64::from(error.is_full());
                return Err(error);
            }
        };
        if self.inner.options.fsync == Fsync::EveryAppend {
            writer.sync()?;
        } else {
            self.inner.syncer.wrote(&writer.file());
        }
        let mut index = self.write_index();
        if let Some(segment) = index.segments.last_mut() {
            segment.push(info, Some(Arc::from(block.footer)));
        }
        index.stats.cached_footer_bytes += block.footer.len();
        if index.stats.cached_footer_bytes > self.inner.options.footer_cache_bytes {
            index.trim_footers(self.inner.options.footer_cache_bytes);
        }
        Ok(info.id)
    }

    fn roll(&self, writer: &mut Writer) -> Result<(), StoreError> {
        writer.sync()?;
        let options = &self.inner.options;
        let (next, segment) =
            Writer::create(&options.dir, writer.seq() + 1, &options.write_budget)?;
        *writer = next;
        self.inner.syncer.switched(writer.file());
        let mut index = self.write_index();
        index.segments.push(segment);
        index.expire(options, 0)
    }

    /// Every block, newest first.
    #[must_use]
    pub fn blocks(&self) -> Vec<BlockInfo> {
        self.blocks_between(0, u64::MAX)
    }

    /// The blocks that have a time in `min_ns..=max_ns`, newest append first.
    #[must_use]
    pub fn blocks_between(&self, min_ns: u64, max_ns: u64) -> Vec<BlockInfo> {
        let index = self.read_index();
        index
            .segments
            .iter()
            .rev()
            .filter(|s| s.overlaps(min_ns, max_ns))
            .flat_map(|s| s.blocks().rev())
            .filter(|b| b.min_ns <= max_ns && b.max_ns >= min_ns)
            .copied()
            .collect()
    }

    /// A block's content.
    pub fn read(&self, id: BlockId) -> Result<Vec<u8>, StoreError> {
        let (file, info) = self.find(id)?;
        file.read(&info)
    }

    /// A block's footer.
    pub fn footer(&self, id: BlockId) -> Result<Arc<[u8]>, StoreError> {
        let cached = {
            let index = self.read_index();
            let segment = index.segment(id)?;
            segment.cached_footer(id)
        };
        match cached {
            Some(footer) => Ok(footer),
            None => {
                let (file, info) = self.find(id)?;
                file.read_footer(&info).map(Arc::from)
            }
        }
    }

    fn find(&self, id: BlockId) -> Result<(segment::SegmentFile, BlockInfo), StoreError> {
        let index = self.read_index();
        let segment = index.segment(id)?;
        let info = segment.info(id).ok_or(StoreError::NoSuchBlock)?;
        Ok((segment.file(), info))
    }

    /// Deletes what is past retention, oldest first. Call it every few seconds with the time, Unix nanoseconds.
    pub fn maintain(&self, now_ns: u64) -> Result<Expired, StoreError> {
        let before = self.read_index().stats.expired;
        let cutoff_ns = self.inner.options.cutoff_ns(now_ns);
        {
            let mut writer = lock(&self.inner.writer);
            let newest = self
                .read_index()
                .segments
                .last()
                .and_then(Segment::newest_ns);
            if newest.is_some_and(|t| t < cutoff_ns) {
                self.roll(&mut writer)?;
            }
        }
        self.write_index().expire(&self.inner.options, cutoff_ns)?;
        let after = self.read_index().stats.expired;
        Ok(Expired {
            segments: after.segments - before.segments,
            blocks: after.blocks - before.blocks,
            items: after.items - before.items,
            bytes: after.bytes - before.bytes,
        })
    }

    /// Forces everything appended to the disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        lock(&self.inner.writer).sync()
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> SegmentsStats {
        let index = self.read_index();
        let mut stats = index.stats;
        stats.segments = index.segments.len();
        for segment in &index.segments {
            stats.bytes += segment.bytes();
            for block in segment.blocks() {
                stats.blocks += 1;
                stats.items += u64::from(block.items);
                stats.raw_bytes += u64::from(block.raw_bytes);
                stats.oldest_ns = Some(
                    stats
                        .oldest_ns
                        .map_or(block.min_ns, |t| t.min(block.min_ns)),
                );
                stats.newest_ns = Some(
                    stats
                        .newest_ns
                        .map_or(block.max_ns, |t| t.max(block.max_ns)),
                );
            }
        }
        stats
    }
}

// === impl Index ===

impl Index {
    fn segment_file(&self, seq: u64) -> Option<segment::SegmentFile> {
        let segment = self.segments.iter().find(|s| s.seq() == seq)?;
        Some(segment.file())
    }

    fn segment(&self, id: BlockId) -> Result<&Segment, StoreError> {
        self.segments
            .binary_search_by_key(&id.segment, Segment::seq)
            .map(|at| &self.segments[at])
            .map_err(|_| StoreError::NoSuchBlock)
    }

    /// Deletes the oldest segments past the limits; never the one that grows.
    fn expire(&mut self, options: &SegmentsOptions, cutoff_ns: u64) -> Result<(), StoreError> {
        let mut total: u64 = self.segments.iter().map(Segment::bytes).sum();
        while let [first, _, ..] = self.segments.as_slice() {
            let too_old = first.newest_ns().is_none_or(|t| t < cutoff_ns);
            let too_much = options.retention_bytes.is_some_and(|most| total > most);
            if !too_old && !too_much {
                break;
            }
            disk::remove(first.path())?;
            total -= first.bytes();
            let expired = &mut self.stats.expired;
            expired.segments += 1;
            expired.bytes += first.bytes();
            expired.blocks += first.blocks().len() as u64;
            expired.items += first.blocks().map(|b| u64::from(b.items)).sum::<u64>();
            let cached = first.cached_bytes();
            self.segments.remove(0);
            self.stats.cached_footer_bytes -= cached;
        }
        Ok(())
    }

    /// Forgets the oldest footers until at most three quarters of `most` are left.
    fn trim_footers(&mut self, most: usize) {
        let mut total: usize = self.segments.iter().map(Segment::cached_bytes).sum();
        if total > most {
            for segment in &mut self.segments {
                total -= segment.forget_footers(total.saturating_sub(most / 4 * 3));
            }
        }
        self.stats.cached_footer_bytes = total;
    }
}

/// Reads bytes as a block, checksums taken for good.
pub(crate) fn check_for_fuzzing(bytes: &[u8]) {
    let _ = format::read_checked(bytes, 0);
    if let Ok(header) = format::read_header(bytes) {
        let stored = bytes.get(format::BLOCK_HEADER..).unwrap_or(&[]);
        let _ = format::read_content(&header.with_crc_of(stored), stored);
    }
}

#[cfg(test)]
mod tests;
