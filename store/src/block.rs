//! Blocks: immutable files of compressed chunks with their own index.
//!
//! Owns opening a block and reading its checked parts (docs/store-format.md, "Block"). Must not know which blocks
//! there are. Reads are `pread`s: a file that changes under us is an error, never undefined behaviour.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cache::Cache;
use crate::error::StoreError;
use crate::wire::Damaged;

pub(crate) mod format;
pub(crate) mod index;
pub(crate) mod read;
pub(crate) mod writer;

use format::{Footer, HEADER, Part, TRAILER};

/// An open block.
#[derive(Debug)]
pub(crate) struct Block {
    file: File,
    path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) footer: Footer,
    footer_part: Part,
    /// A read met damage: the block is not merged with others any more.
    suspect: AtomicBool,
}

pub(crate) fn block_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("block-{seq:010}.nblk"))
}

// === impl Block ===

impl Block {
    /// Opens a block and checks its header and footer. Its parts are checked when they are read.
    pub(crate) fn open(path: &Path, seq: u64) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|e| StoreError::io("open", path, e))?;
        let bytes = file
            .metadata()
            .map_err(|e| StoreError::io("read", path, e))?
            .len();
        let read = |offset: u64, len: usize| read_exact(&file, path, offset, len);
        let corrupt = |offset: u64, damage: Damaged| StoreError::corrupt(path, offset, damage);
        if bytes < (HEADER + TRAILER) as u64 {
            return Err(corrupt(0, Damaged("a block is too short")));
        }
        format::read_header(&read(0, HEADER)?, seq).map_err(|e| corrupt(0, e))?;
        let trailer_at = bytes - TRAILER as u64;
        let part = format::read_trailer(&read(trailer_at, TRAILER)?)
            .and_then(|part| match part.end() == trailer_at {
                true => Ok(part),
                false => Err(Damaged("the footer is not where it should be")),
            })
            .map_err(|e| corrupt(trailer_at, e))?;
        let stored = read(part.offset, part.len as usize)?;
        let footer = format::open_part(&stored)
            .and_then(|raw| Footer::read(&raw, part.offset))
            .map_err(|e| corrupt(part.offset, e))?;
        if footer.seq != seq {
            return Err(corrupt(part.offset, Damaged("a footer of another block")));
        }
        Ok(Block {
            file,
            path: path.to_owned(),
            bytes,
            footer,
            footer_part: part,
            suspect: AtomicBool::new(false),
        })
    }

    pub(crate) fn seq(&self) -> u64 {
        self.footer.seq
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the footer on disk.
    pub(crate) fn footer_bytes(&self) -> u64 {
        u64::from(self.footer_part.len)
    }

    pub(crate) fn overlaps(&self, start: i64, end: i64) -> bool {
        self.footer.min_t <= end && self.footer.max_t >= start
    }

    /// Keeps the block from being merged with others.
    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    pub(crate) fn corrupt(&self, part: Part, damage: Damaged) -> StoreError {
        self.suspect();
        StoreError::corrupt(&self.path, part.offset, damage)
    }

    /// Reads, checks and decompresses a part.
    pub(crate) fn part(&self, part: Part) -> Result<Vec<u8>, StoreError> {
        let stored = read_exact(&self.file, &self.path, part.offset, part.len as usize);
        let stored = stored.inspect_err(|_| self.suspect())?;
        format::open_part(&stored).map_err(|e| self.corrupt(part, e))
    }

    /// The same, from memory when it is there.
    pub(crate) fn cached(&self, part: Part, cache: &Cache) -> Result<Arc<Vec<u8>>, StoreError> {
        let key = (self.seq(), part.offset);
        if let Some(found) = cache.get(key) {
            return Ok(found);
        }
        let read = Arc::new(self.part(part)?);
        cache.put(key, &read);
        Ok(read)
    }
}

fn read_exact(file: &File, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                StoreError::corrupt(path, offset, Damaged("unexpected end"))
            }
            _ => StoreError::io("read", path, e),
        })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
