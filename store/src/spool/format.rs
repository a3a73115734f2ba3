//! Bytes of a segment: its header, and each block's header, footer and content.
//!
//! Owns encoding, checksums and compression. Must not know files.

use std::borrow::Cow;

use super::{BlockId, BlockInfo, MAX_BLOCK_BYTES, MAX_FOOTER_BYTES, NewBlock};
use crate::wire::{Damaged, Reader};

const MAGIC: &[u8; 8] = b"NINESSEG";
const VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 28;
const BLOCK_MAGIC: u8 = 0xb1;
/// Bytes of a block's header.
pub(crate) const BLOCK_HEADER: usize = 42;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: fastest.
    Lz4,
    /// Zstandard, level 1: a quarter smaller than LZ4 at two thirds of its speed.
    #[default]
    Zstd,
}

// === impl Compression ===

impl Compression {
    fn code(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Lz4 => 1,
            Compression::Zstd => 2,
        }
    }

    fn from_code(code: u8) -> Result<Self, Damaged> {
        match code {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Lz4),
            2 => Ok(Compression::Zstd),
            _ => Err(Damaged("unknown compression")),
        }
    }
}

/// A block's content as it is stored.
#[derive(Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) compression: Compression,
    pub(crate) bytes: Cow<'a, [u8]>,
}

/// Compresses, unless that does not make it smaller.
pub(crate) fn compress(compression: Compression, bytes: &[u8]) -> Stored<'_> {
    let compressed = match compression {
        Compression::None => None,
        Compression::Lz4 => Some(lz4_flex::block::compress(bytes)),
        Compression::Zstd => zstd::bulk::compress(bytes, 1).ok(),
    };
    match compressed {
        Some(smaller) if smaller.len() < bytes.len() => Stored {
            compression,
            bytes: Cow::Owned(smaller),
        },
        _ => Stored {
            compression: Compression::None,
            bytes: Cow::Borrowed(bytes),
        },
    }
}

fn decompress(compression: Compression, bytes: &[u8], raw: usize) -> Result<Vec<u8>, Damaged> {
    let out = match compression {
        Compression::None => Ok(bytes.to_vec()),
        Compression::Lz4 => lz4_flex::block::decompress(bytes, raw).map_err(|_| ()),
        Compression::Zstd => zstd::bulk::decompress(bytes, raw).map_err(|_| ()),
    };
    out.ok()
        .filter(|o| o.len() == raw)
        .ok_or(Damaged("a block does not decompress"))
}

pub(crate) fn segment_header(seq: u64, salt: u32) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&salt.to_le_bytes());
    header.extend_from_slice(&seq.to_le_bytes());
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

/// Reads a segment's header and gives its salt.
pub(crate) fn read_segment_header(bytes: &[u8], expected_seq: u64) -> Result<u32, Damaged> {
    let mut reader = Reader::new(bytes);
    let covered = reader.clone().take(SEGMENT_HEADER - 4)?;
    if reader.take(8)? != MAGIC || reader.u32()? != VERSION {
        return Err(Damaged("not a segment of this version"));
    }
    let salt = reader.u32()?;
    if reader.u64()? != expected_seq || reader.u32()? != crc32fast::hash(covered) {
        return Err(Damaged("the segment's header is damaged"));
    }
    Ok(salt)
}

/// A block's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) compression: Compression,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
    pub(crate) footer: u32,
    pub(crate) items: u32,
    pub(crate) min_ns: u64,
    pub(crate) max_ns: u64,
    pub(crate) data_crc: u32,
    crc: u32,
}

// === impl Header ===

impl Header {
    /// Bytes of the block on disk.
    pub(crate) fn block_len(&self) -> u64 {
        BLOCK_HEADER as u64 + u64::from(self.footer) + u64::from(self.stored)
    }

    pub(crate) fn info(&self, id: BlockId) -> BlockInfo {
        BlockInfo {
            id,
            min_ns: self.min_ns,
            max_ns: self.max_ns,
            items: self.items,
            raw_bytes: self.raw,
            stored_bytes: self.stored,
            footer_bytes: self.footer,
        }
    }

    /// This header, as if the content were the one that was written.
    pub(crate) fn with_crc_of(self, stored: &[u8]) -> Self {
        Header {
            data_crc: crc32fast::hash(stored),
            ..self
        }
    }

    fn checks(&self, salt: u32, header: &[u8], footer: &[u8]) -> bool {
        header_crc(salt, header, footer) == self.crc
    }
}

fn header_crc(salt: u32, header: &[u8], footer: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&header[..BLOCK_HEADER - 4]);
    hasher.update(footer);
    hasher.finalize()
}

/// Encodes a whole block.
pub(crate) fn encode(block: &NewBlock<'_>, stored: &Stored<'_>, salt: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK_HEADER + block.footer.len() + stored.bytes.len());
    out.push(BLOCK_MAGIC);
    out.push(stored.compression.code());
    for length in [
        stored.bytes.len(),
        block.bytes.len(),
        block.footer.len(),
        block.items as usize,
    ] {
        out.extend_from_slice(&(length as u32).to_le_bytes());
    }
    out.extend_from_slice(&block.min_ns.to_le_bytes());
    out.extend_from_slice(&block.max_ns.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&stored.bytes).to_le_bytes());
    let crc = header_crc(salt, &[out.as_slice(), &[0; 4]].concat(), block.footer);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(block.footer);
    out.extend_from_slice(&stored.bytes);
    out
}

/// Reads a block's header without its checksum, which covers the footer too.
pub(crate) fn read_header(bytes: &[u8]) -> Result<Header, Damaged> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != BLOCK_MAGIC {
        return Err(Damaged("no block begins here"));
    }
    let compression = Compression::from_code(reader.byte()?)?;
    let (stored, raw) = (reader.u32()?, reader.u32()?);
    let (footer, items) = (reader.u32()?, reader.u32()?);
    let (min_ns, max_ns) = (reader.u64()?, reader.u64()?);
    let (data_crc, crc) = (reader.u32()?, reader.u32()?);
    let fits =
        stored <= raw && raw as usize <= MAX_BLOCK_BYTES && footer as usize <= MAX_FOOTER_BYTES;
    if !fits {
        return Err(Damaged("a block's lengths are impossible"));
    }
    Ok(Header {
        compression,
        stored,
        raw,
        footer,
        items,
        min_ns,
        max_ns,
        data_crc,
        crc,
    })
}

/// Reads and checks a header and its footer from `bytes`, which hold both or more.
pub(crate) fn read_checked(bytes: &[u8], salt: u32) -> Result<(Header, &[u8]), Damaged> {
    let header = read_header(bytes)?;
    let footer = bytes
        .get(BLOCK_HEADER..BLOCK_HEADER + header.footer as usize)
        .ok_or(Damaged("unexpected end"))?;
    if !header.checks(salt, &bytes[..BLOCK_HEADER], footer) {
        return Err(Damaged("a block's header has a wrong checksum"));
    }
    Ok((header, footer))
}

/// Checks and decompresses a block's content.
pub(crate) fn read_content(header: &Header, stored: &[u8]) -> Result<Vec<u8>, Damaged> {
    if crc32fast::hash(stored) != header.data_crc {
        return Err(Damaged("a block's content has a wrong checksum"));
    }
    decompress(header.compression, stored, header.raw as usize)
}
