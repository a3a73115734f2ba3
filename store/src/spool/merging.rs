//! Small blocks become larger ones, once their segment no longer grows.
//!
//! Owns which blocks go together, and the exchange of a segment's file for a smaller one. Must not know what is in a
//! block: the caller says what the footer of several blocks in one is.
//!
//! Senders of small requests leave one block a request: in memory a block takes 64 bytes and its footer, on disk a
//! header and compression that never sees two requests together. The new file is complete and on the disk before it
//! takes the old one's name, so that a crash leaves one or the other.

use std::sync::Arc;

use super::segment::{self, Segment, Writer};
use super::{BlockInfo, MAX_FOOTER_BYTES, NewBlock, Segments, format};
use crate::disk;
use crate::error::StoreError;

/// Fewer blocks than this in a segment are not worth it.
const MIN_BLOCKS: usize = 8;

/// One of several blocks that are to become one; their contents will be one after another in it.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its content.
    pub bytes: &'a [u8],
    /// Its footer.
    pub footer: &'a [u8],
}

/// What [`Segments::merge_small`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Blocks of the segment before.
    pub blocks_before: usize,
    /// Blocks of it now.
    pub blocks_after: usize,
}

/// Gives the footer of a block that holds the parts' contents one after another; `None` when they must stay apart.
pub type FooterOf<'a> = dyn FnMut(&[Part<'_>]) -> Option<Vec<u8>> + 'a;

// === impl Segments ===

impl Segments {
    /// Merges neighbouring small blocks of one closed segment into blocks of about `most_bytes`; `None` when no segment
    /// is worth it. Blocks get new names; who lists blocks and then reads them looks at [`Segments::edition`]. Needs
    /// room for one segment on the disk; when there is none, everything stays as it was.
    pub fn merge_small(
        &self,
        most_bytes: usize,
        footer_of: &mut FooterOf<'_>,
    ) -> Result<Option<Merged>, StoreError> {
        let Some((seq, groups)) = self.worth_merging(most_bytes) else {
            return Ok(None);
        };
        let rewritten = self.rewrite(seq, &groups, footer_of)?;
        let mut index = self.write_index();
        if let Some(segment) = index.segments.iter_mut().find(|s| s.seq() == seq) {
            // A damaged block is left where it is, with its neighbours.
            segment.settled = true;
        }
        let Some(mut new) = rewritten else {
            return Ok(Some(Merged::default()));
        };
        let Some(at) = index.segments.iter().position(|s| s.seq() == seq) else {
            // Retention was faster.
            disk::remove(new.path())?;
            return Ok(Some(Merged::default()));
        };
        let old = &index.segments[at];
        let merged = Merged {
            blocks_before: old.blocks().len(),
            blocks_after: new.blocks().len(),
        };
        let path = old.path().to_owned();
        disk::rename(new.path(), &path)?;
        new.take_place_of(old, &path);
        index.segments[at] = new;
        index.edition += 1;
        index.trim_footers(self.inner.options.footer_cache_bytes);
        Ok(Some(merged))
    }

    /// Changes when blocks got new names: a list of blocks that was made before may not find them all.
    #[must_use]
    pub fn edition(&self) -> u64 {
        self.read_index().edition
    }

    /// The oldest closed segment in which merging at least halves the number of blocks, and the groups to merge.
    fn worth_merging(&self, most_bytes: usize) -> Option<(u64, Vec<Vec<BlockInfo>>)> {
        let index = self.read_index();
        let (_, closed) = index.segments.split_last()?;
        closed.iter().find_map(|segment| {
            if segment.settled || segment.blocks().len() < MIN_BLOCKS {
                return None;
            }
            let groups = group(segment.blocks(), most_bytes);
            (groups.len() * 2 <= segment.blocks().len()).then(|| (segment.seq(), groups))
        })
    }

    /// Writes a segment's blocks, merged, into a file beside it; `None` when the segment is gone or damaged.
    fn rewrite(
        &self,
        seq: u64,
        groups: &[Vec<BlockInfo>],
        footer_of: &mut FooterOf<'_>,
    ) -> Result<Option<Segment>, StoreError> {
        let Some(file) = self.read_index().segment_file(seq) else {
            return Ok(None);
        };
        let options = &self.inner.options;
        let tmp = segment::segment_path(&options.dir, seq).with_extension("tmp");
        disk::remove(&tmp)?;
        let (mut writer, mut segment) = Writer::create_at(&tmp, seq, &options.write_budget)?;
        let mut write = |block: &NewBlock<'_>| {
            let stored = format::compress(options.compression, block.bytes);
            let info = writer.append(block, &stored, &options.write_budget)?;
            segment.push(info, Some(Arc::from(block.footer)));
            Ok::<_, StoreError>(())
        };
        let mut written = Ok(true);
        for group in groups {
            written = write_group(&file, group, footer_of, &mut write);
            if !matches!(written, Ok(true)) {
                break;
            }
        }
        let done = written.and_then(|whole| writer.sync().map(|()| whole));
        match done {
            Ok(true) => Ok(Some(segment)),
            Ok(false) => disk::remove(&tmp).map(|()| None),
            Err(error) => {
                disk::remove(&tmp)?;
                Err(error)
            }
        }
    }
}

/// Whether every block of the group could be read.
fn write_group(
    file: &segment::SegmentFile,
    group: &[BlockInfo],
    footer_of: &mut FooterOf<'_>,
    write: &mut impl FnMut(&NewBlock<'_>) -> Result<(), StoreError>,
) -> Result<bool, StoreError> {
    let mut contents = Vec::with_capacity(group.len());
    for info in group {
        match (file.read(info), file.read_footer(info)) {
            (Ok(content), Ok(footer)) => contents.push((content, footer)),
            (Err(StoreError::Corrupt { .. }), _) | (_, Err(StoreError::Corrupt { .. })) => {
                return Ok(false);
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        }
    }
    let parts: Vec<Part<'_>> = contents
        .iter()
        .map(|(bytes, footer)| Part { bytes, footer })
        .collect();
    let merged = match parts.len() {
        0 | 1 => None,
        _ => footer_of(&parts).filter(|f| f.len() <= MAX_FOOTER_BYTES),
    };
    let Some(footer) = merged else {
        for (part, info) in parts.iter().zip(group) {
            write(&NewBlock {
                bytes: part.bytes,
                footer: part.footer,
                items: info.items,
                min_ns: info.min_ns,
                max_ns: info.max_ns,
            })?;
        }
        return Ok(true);
    };
    let whole: Vec<u8> = contents
        .iter()
        .flat_map(|(bytes, _)| bytes)
        .copied()
        .collect();
    write(&NewBlock {
        bytes: &whole,
        footer: &footer,
        items: group.iter().fold(0, |n, b| n.saturating_add(b.items)),
        min_ns: group.iter().map(|b| b.min_ns).min().unwrap_or(0),
        max_ns: group.iter().map(|b| b.max_ns).max().unwrap_or(0),
    })?;
    Ok(true)
}

/// Neighbours that have at most `most_bytes` together; those of more than half of that stay alone.
fn group<'a>(
    blocks: impl Iterator<Item = &'a BlockInfo>,
    most_bytes: usize,
) -> Vec<Vec<BlockInfo>> {
    let mut groups: Vec<Vec<BlockInfo>> = Vec::new();
    let (mut bytes, mut footers) = (usize::MAX, 0);
    for block in blocks {
        let (raw, footer) = (block.raw_bytes as usize, block.footer_bytes as usize);
        let fits =
            bytes.saturating_add(raw) <= most_bytes && footers + footer <= MAX_FOOTER_BYTES / 2;
        match groups.last_mut() {
            Some(last) if fits && raw <= most_bytes / 2 => {
                last.push(*block);
                (bytes, footers) = (bytes + raw, footers + footer);
            }
            _ => {
                groups.push(vec![*block]);
                (bytes, footers) = (raw, footer);
            }
        }
    }
    groups
}
