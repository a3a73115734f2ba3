//! One segment file: reading its list of blocks, reading a block, growing.
//!
//! Owns file offsets. Must not know retention.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{self, BLOCK_HEADER, SEGMENT_HEADER, Stored};
use super::{BlockId, BlockInfo, NewBlock};
use crate::disk::{self, WriteBudget};
use crate::error::StoreError;
use crate::wal;
use crate::wire::Damaged;

/// An open file to read from; it stays readable after retention has deleted it.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFile {
    file: Arc<File>,
    path: Arc<Path>,
    salt: u32,
}

/// A segment and its blocks.
#[derive(Debug)]
pub(crate) struct Segment {
    seq: u64,
    file: SegmentFile,
    blocks: Vec<BlockInfo>,
    /// As long as `blocks`.
    footers: Vec<Option<Arc<[u8]>>>,
    cached_bytes: usize,
    bytes: u64,
    min_ns: u64,
    max_ns: u64,
    merges: u32,
    /// Its blocks are merged, or cannot be.
    pub(crate) settled: bool,
}

/// What opening a segment found.
#[derive(Debug)]
pub(crate) struct Opened {
    /// `None` when not even the header is good.
    pub(crate) segment: Option<Segment>,
    pub(crate) damaged: u64,
    pub(crate) damaged_bytes: u64,
    /// Bytes after the last good block.
    pub(crate) tail_bytes: u64,
}

pub(crate) fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("seg-{seq:010}.nseg"))
}

// === impl SegmentFile ===

impl SegmentFile {
    fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    self.corrupt(offset, Damaged("unexpected end"))
                }
                _ => StoreError::io("read", self.path.as_ref(), e),
            })?;
        Ok(bytes)
    }

    fn corrupt(&self, offset: u64, damage: Damaged) -> StoreError {
        StoreError::corrupt(self.path.as_ref(), offset, damage)
    }

    pub(crate) fn read(&self, info: &BlockInfo) -> Result<Vec<u8>, StoreError> {
        let offset = info.id.offset;
        let front = BLOCK_HEADER + info.footer_bytes as usize;
        let bytes = self.read_at(offset, front + info.stored_bytes as usize)?;
        let content = format::read_checked(&bytes, self.salt)
            .and_then(|(header, _)| format::read_content(&header, &bytes[front..]));
        content.map_err(|e| self.corrupt(offset, e))
    }

    pub(crate) fn read_footer(&self, info: &BlockInfo) -> Result<Vec<u8>, StoreError> {
        let offset = info.id.offset;
        let bytes = self.read_at(offset, BLOCK_HEADER + info.footer_bytes as usize)?;
        match format::read_checked(&bytes, self.salt) {
            Ok((_, footer)) => Ok(footer.to_vec()),
            Err(e) => Err(self.corrupt(offset, e)),
        }
    }
}

// === impl Segment ===

impl Segment {
    fn new(seq: u64, file: SegmentFile) -> Self {
        Segment {
            seq,
            file,
            blocks: Vec::new(),
            footers: Vec::new(),
            cached_bytes: 0,
            bytes: SEGMENT_HEADER as u64,
            min_ns: u64::MAX,
            max_ns: 0,
            merges: 0,
            settled: false,
        }
    }

    /// Goes on under the name and path of the segment whose blocks it holds.
    pub(crate) fn take_place_of(&mut self, old: &Segment, path: &Path) {
        self.file.path = Arc::from(path);
        self.merges = old.merges + 1;
        self.settled = true;
        for block in &mut self.blocks {
            block.id.merges = self.merges;
        }
    }

    pub(crate) fn push(&mut self, info: BlockInfo, footer: Option<Arc<[u8]>>) {
        self.cached_bytes += footer.as_ref().map_or(0, |f| f.len());
        self.blocks.push(info);
        self.footers.push(footer);
        self.min_ns = self.min_ns.min(info.min_ns);
        self.max_ns = self.max_ns.max(info.max_ns);
        let len = BLOCK_HEADER as u64 + u64::from(info.footer_bytes) + u64::from(info.stored_bytes);
        self.bytes = info.id.offset + len;
    }

    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    pub(crate) fn file(&self) -> SegmentFile {
        self.file.clone()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn blocks(&self) -> std::slice::Iter<'_, BlockInfo> {
        self.blocks.iter()
    }

    pub(crate) fn newest_ns(&self) -> Option<u64> {
        (!self.blocks.is_empty()).then_some(self.max_ns)
    }

    pub(crate) fn overlaps(&self, min_ns: u64, max_ns: u64) -> bool {
        self.min_ns <= max_ns && self.max_ns >= min_ns
    }

    fn position(&self, id: BlockId) -> Option<usize> {
        if id.merges != self.merges {
            return None;
        }
        self.blocks
            .binary_search_by_key(&id.offset, |b| b.id.offset)
            .ok()
    }

    pub(crate) fn info(&self, id: BlockId) -> Option<BlockInfo> {
        self.position(id).map(|at| self.blocks[at])
    }

    pub(crate) fn cached_footer(&self, id: BlockId) -> Option<Arc<[u8]>> {
        self.position(id).and_then(|at| self.footers[at].clone())
    }

    pub(crate) fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// Forgets the oldest footers, at least `wanted` bytes of them if there are as many; gives how many it were.
    pub(crate) fn forget_footers(&mut self, wanted: usize) -> usize {
        let before = self.cached_bytes;
        for footer in &mut self.footers {
            if before - self.cached_bytes >= wanted {
                break;
            }
            self.cached_bytes -= footer.take().map_or(0, |f| f.len());
        }
        before - self.cached_bytes
    }
}

/// Reads the headers and footers of a segment's blocks. Contents are checked when they are read, but for the last
/// block, whose write may have been interrupted.
pub(crate) fn open(seq: u64, path: &Path) -> Result<Opened, StoreError> {
    let file = File::open(path).map_err(|e| StoreError::io("open", path, e))?;
    let len = file
        .metadata()
        .map_err(|e| StoreError::io("read", path, e))?
        .len();
    let mut opened = Opened {
        segment: None,
        damaged: 0,
        damaged_bytes: 0,
        tail_bytes: len,
    };
    let mut file = SegmentFile {
        file: Arc::new(file),
        path: Arc::from(path),
        salt: 0,
    };
    if len < SEGMENT_HEADER as u64 {
        return Ok(opened);
    }
    let header = file.read_at(0, SEGMENT_HEADER)?;
    let Ok(salt) = format::read_segment_header(&header, seq) else {
        return Ok(opened);
    };
    file.salt = salt;
    let mut segment = Segment::new(seq, file.clone());
    let mut at = SEGMENT_HEADER as u64;
    while let Some((found, info, footer)) = next_block(&file, seq, at, len)? {
        if found > at {
            opened.damaged += 1;
            opened.damaged_bytes += found - at;
        }
        segment.push(info, Some(Arc::from(footer)));
        at = segment.bytes;
    }
    opened.tail_bytes = len - at;
    opened.segment = Some(segment);
    Ok(opened)
}

type Found = (u64, BlockInfo, Vec<u8>);

/// The next good block at or after `at`.
fn next_block(
    file: &SegmentFile,
    seq: u64,
    at: u64,
    len: u64,
) -> Result<Option<Found>, StoreError> {
    if let Some(found) = block_at(file, seq, at, len)? {
        return Ok(Some(found));
    }
    let rest = file.read_at(at, (len - at) as usize)?;
    for skip in 1..rest.len() {
        if format::read_checked(&rest[skip..], file.salt).is_ok()
            && let Some(found) = block_at(file, seq, at + skip as u64, len)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn block_at(file: &SegmentFile, seq: u64, at: u64, len: u64) -> Result<Option<Found>, StoreError> {
    if at + BLOCK_HEADER as u64 > len {
        return Ok(None);
    }
    let bytes = file.read_at(at, BLOCK_HEADER)?;
    let Ok(header) = format::read_header(&bytes) else {
        return Ok(None);
    };
    let end = at + header.block_len();
    if end > len {
        return Ok(None);
    }
    let front = file.read_at(at, BLOCK_HEADER + header.footer as usize)?;
    let Ok((header, footer)) = format::read_checked(&front, file.salt) else {
        return Ok(None);
    };
    let info = header.info(BlockId {
        segment: seq,
        offset: at,
        merges: 0,
    });
    if end == len && file.read(&info).is_err() {
        return Ok(None);
    }
    Ok(Some((at, info, footer.to_vec())))
}

/// The growing end of the newest segment.
#[derive(Debug)]
pub(crate) struct Writer {
    seq: u64,
    file: SegmentFile,
    len: u64,
    /// A failed write could not be undone: nothing more is written to this segment.
    broken: bool,
}

// === impl Writer ===

impl Writer {
    pub(crate) fn create(
        dir: &Path,
        seq: u64,
        budget: &WriteBudget,
    ) -> Result<(Self, Segment), StoreError> {
        let created = Writer::create_at(&segment_path(dir, seq), seq, budget)?;
        disk::sync_dir(dir)?;
        Ok(created)
    }

    /// A new segment in the file `path`, whose name is not yet durable.
    pub(crate) fn create_at(
        path: &Path,
        seq: u64,
        budget: &WriteBudget,
    ) -> Result<(Self, Segment), StoreError> {
        let salt = wal::fresh_salt();
        let raw = disk::create_new(path)?;
        if let Err(error) = disk::write_all(&raw, path, &format::segment_header(seq, salt), budget)
        {
            disk::remove(path)?;
            return Err(error);
        }
        let file = SegmentFile {
            file: Arc::new(raw),
            path: Arc::from(path),
            salt,
        };
        let writer = Writer {
            seq,
            file: file.clone(),
            len: SEGMENT_HEADER as u64,
            broken: false,
        };
        Ok((writer, Segment::new(seq, file)))
    }

    /// Goes on with a segment after its last good block.
    pub(crate) fn resume(segment: &Segment) -> Result<Self, StoreError> {
        let path = segment.path();
        let file = File::options()
            .read(true)
            .append(true)
            .open(path)
            .map_err(|e| StoreError::io("open", path, e))?;
        file.set_len(segment.bytes)
            .map_err(|e| StoreError::io("cut", path, e))?;
        Ok(Writer {
            seq: segment.seq,
            file: SegmentFile {
                file: Arc::new(file),
                ..segment.file()
            },
            len: segment.bytes,
            broken: false,
        })
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file.file)
    }

    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Bytes so far; a broken segment counts as full.
    pub(crate) fn len(&self) -> u64 {
        if self.broken { u64::MAX } else { self.len }
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        disk::sync(&self.file.file, &self.file.path)
    }

    pub(crate) fn append(
        &mut self,
        block: &NewBlock<'_>,
        stored: &Stored<'_>,
        budget: &WriteBudget,
    ) -> Result<BlockInfo, StoreError> {
        let bytes = format::encode(block, stored, self.file.salt);
        if let Err(error) = disk::write_all(&self.file.file, &self.file.path, &bytes, budget) {
            self.broken = self.file.file.set_len(self.len).is_err();
            return Err(error);
        }
        let id = BlockId {
            segment: self.seq,
            offset: self.len,
            merges: 0,
        };
        self.len += bytes.len() as u64;
        Ok(BlockInfo {
            id,
            min_ns: block.min_ns,
            max_ns: block.max_ns,
            items: block.items,
            raw_bytes: block.bytes.len() as u32,
            stored_bytes: stored.bytes.len() as u32,
            footer_bytes: block.footer.len() as u32,
        })
    }
}
