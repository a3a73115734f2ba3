//! Bytes of a block: header, parts, footer, trailer.
//!
//! Owns their encoding and checksums. Must not know files.

use crate::wire::{Damaged, Reader, put_bytes, put_ivarint, put_varint};

const MAGIC: &[u8; 8] = b"NINESBLK";
const END: &[u8; 8] = b"NINESEND";
/// Version 2 brought start times in chunks; version 1 is still read.
const VERSION: u32 = 2;
/// Bytes of the header.
pub(crate) const HEADER: usize = 24;
/// Bytes of the trailer.
pub(crate) const TRAILER: usize = 24;
/// Bytes before a part's content.
pub(crate) const PART_HEADER: usize = 9;
/// The most bytes that a part may claim to have; a reader refuses more before it allocates.
pub(crate) const MAX_PART: usize = 1 << 30;

/// Where a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    /// Bytes on disk, the part's header included.
    pub(crate) len: u32,
}

// === impl Part ===

impl Part {
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

/// What a block says about itself, and where its parts are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Footer {
    pub(crate) seq: u64,
    /// The number of the first flush that is in it: of samples at the same time the one in the block with the lowest
    /// stays.
    pub(crate) first_seq: u64,
    /// The log's segments below this number are in this block or in earlier ones.
    pub(crate) log_before: u64,
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
    pub(crate) samples: u64,
    pub(crate) chunks: u64,
    pub(crate) series: u32,
    /// Blocks whose content is in this one; whoever finds them deletes them.
    pub(crate) replaces: Vec<u64>,
    pub(crate) data: Vec<Part>,
    pub(crate) series_pages: Vec<Part>,
    /// One part for each label name, ascending.
    pub(crate) labels: Vec<(String, Part)>,
}

// === impl Footer ===

impl Footer {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for number in [self.seq, self.first_seq, self.log_before] {
            put_varint(out, number);
        }
        put_ivarint(out, self.min_t);
        put_ivarint(out, self.max_t);
        for number in [self.samples, self.chunks, u64::from(self.series)] {
            put_varint(out, number);
        }
        put_varint(out, self.replaces.len() as u64);
        self.replaces.iter().for_each(|seq| put_varint(out, *seq));
        for parts in [&self.data, &self.series_pages] {
            put_varint(out, parts.len() as u64);
            parts.iter().for_each(|part| put_part(out, *part));
        }
        put_varint(out, self.labels.len() as u64);
        for (name, part) in &self.labels {
            put_bytes(out, name.as_bytes());
            put_part(out, *part);
        }
    }

    /// Reads a footer; every part must lie before `end`.
    pub(crate) fn read(raw: &[u8], end: u64) -> Result<Self, Damaged> {
        let reader = &mut Reader::new(raw);
        let mut footer = Footer {
            seq: reader.uvarint()?,
            first_seq: reader.uvarint()?,
            log_before: reader.uvarint()?,
            min_t: reader.ivarint()?,
            max_t: reader.ivarint()?,
            samples: reader.uvarint()?,
            chunks: reader.uvarint()?,
            series: u32::try_from(reader.uvarint()?).map_err(|_| Damaged("too many series"))?,
            ..Footer::default()
        };
        for _ in 0..reader.count(1)? {
            footer.replaces.push(reader.uvarint()?);
        }
        for parts in [&mut footer.data, &mut footer.series_pages] {
            for _ in 0..reader.count(2)? {
                parts.push(read_part(reader, end)?);
            }
        }
        for _ in 0..reader.count(3)? {
            let name = reader.text()?.to_owned();
            footer.labels.push((name, read_part(reader, end)?));
        }
        let ascending = footer.labels.windows(2).all(|w| w[0].0 < w[1].0);
        let paged = footer.series.div_ceil(SERIES_PER_PAGE as u32) as usize;
        if !reader.is_empty() || !ascending || footer.series_pages.len() != paged {
            return Err(Damaged("a footer contradicts itself"));
        }
        Ok(footer)
    }
}

/// Series in one part of the list of series.
pub(crate) const SERIES_PER_PAGE: usize = 64;

fn put_part(out: &mut Vec<u8>, part: Part) {
    put_varint(out, part.offset);
    put_varint(out, u64::from(part.len));
}

fn read_part(reader: &mut Reader<'_>, end: u64) -> Result<Part, Damaged> {
    let offset = reader.uvarint()?;
    let len = u32::try_from(reader.uvarint()?).map_err(|_| Damaged("a part is too long"))?;
    let part = Part { offset, len };
    if offset < HEADER as u64 || part.end() > end || (len as usize) < PART_HEADER {
        return Err(Damaged("a part is outside its block"));
    }
    Ok(part)
}

pub(crate) fn header(seq: u64) -> Vec<u8> {
    header_of(VERSION, seq)
}

fn header_of(version: u32, seq: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

pub(crate) fn read_header(bytes: &[u8], expected_seq: u64) -> Result<(), Damaged> {
    if (1..=VERSION).any(|version| bytes == header_of(version, expected_seq)) {
        Ok(())
    } else {
        Err(Damaged("not a block of this version, or a damaged header"))
    }
}

pub(crate) fn trailer(footer: Part) -> Vec<u8> {
    let mut out = footer.offset.to_le_bytes().to_vec();
    out.extend_from_slice(&footer.len.to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(END);
    out
}

pub(crate) fn read_trailer(bytes: &[u8]) -> Result<Part, Damaged> {
    let mut reader = Reader::new(bytes);
    let covered = reader.clone().take(12)?;
    let part = Part {
        offset: reader.u64()?,
        len: reader.u32()?,
    };
    if reader.u32()? != crc32fast::hash(covered) || reader.rest() != END {
        return Err(Damaged("a block does not end as it should"));
    }
    Ok(part)
}

/// Encodes a part: checksum, compression, length, content. Compressed when that makes it smaller.
pub(crate) fn seal_part(raw: &[u8], level: i32) -> Vec<u8> {
    let compressed = zstd::bulk::compress(raw, level).ok();
    let (code, content) = match &compressed {
        Some(smaller) if smaller.len() < raw.len() => (1u8, smaller.as_slice()),
        _ => (0, raw),
    };
    let mut out = vec![0; 4];
    out.push(code);
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    out.extend_from_slice(content);
    let crc = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Checks and decodes a part.
pub(crate) fn open_part(stored: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut reader = Reader::new(stored);
    let crc = reader.u32()?;
    if crc32fast::hash(reader.rest()) != crc {
        return Err(Damaged("a part has a wrong checksum"));
    }
    let code = reader.byte()?;
    let raw_len = reader.u32()? as usize;
    if raw_len > MAX_PART {
        return Err(Damaged("a part is too long"));
    }
    let raw = match code {
        0 => reader.rest().to_vec(),
        1 => zstd::bulk::decompress(reader.rest(), raw_len)
            .map_err(|_| Damaged("a part does not decompress"))?,
        _ => return Err(Damaged("unknown compression")),
    };
    if raw.len() == raw_len {
        Ok(raw)
    } else {
        Err(Damaged("a part has a wrong length"))
    }
}
