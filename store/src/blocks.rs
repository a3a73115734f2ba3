//! The set of blocks: opening them, deleting them, choosing which to merge.
//!
//! Owns which blocks count. Must not know what is in memory.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::block::Block;
use crate::disk;
use crate::error::StoreError;
use crate::options::StoreOptions;

/// Blocks in the order in which their first samples were written.
pub(crate) type Blocks = Arc<Vec<Arc<Block>>>;

/// Blocks that are merged in one go.
const MERGE: usize = 4;

/// What opening a folder of blocks found.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) blocks: Vec<Arc<Block>>,
    pub(crate) damaged: u64,
    pub(crate) next_seq: u64,
}

/// Opens every block in `dir`. Those whose content is in a newer one are deleted; those that are damaged are set
/// aside under another name and counted.
pub(crate) fn open_all(dir: &Path) -> Result<Opened, StoreError> {
    let mut opened = Opened {
        next_seq: 1,
        ..Opened::default()
    };
    for (seq, path) in disk::numbered(dir, "block-", ".nblk")? {
        opened.next_seq = opened.next_seq.max(seq + 1);
        match Block::open(&path, seq) {
            Ok(block) => opened.blocks.push(Arc::new(block)),
            Err(StoreError::Corrupt { .. }) => {
                let aside = path.with_extension("nblk.damaged");
                fs::rename(&path, &aside).map_err(|e| StoreError::io("rename", &path, e))?;
                opened.damaged += 1;
            }
            Err(other) => return Err(other),
        }
    }
    let replaced: Vec<u64> = opened
        .blocks
        .iter()
        .flat_map(|b| b.footer.replaces.iter().copied())
        .collect();
    for block in opened
        .blocks
        .extract_if(.., |b| replaced.contains(&b.seq()))
    {
        disk::remove(block.path())?;
    }
    sort(&mut opened.blocks);
    Ok(opened)
}

pub(crate) fn sort(blocks: &mut [Arc<Block>]) {
    blocks.sort_by_key(|b| (b.footer.first_seq, b.seq()));
}

/// The samples in the log's segments below this number are in blocks.
pub(crate) fn log_before(blocks: &[Arc<Block>]) -> u64 {
    blocks
        .iter()
        .map(|b| b.footer.log_before)
        .max()
        .unwrap_or(0)
}

/// What is to be known about a block to decide about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
    pub(crate) suspect: bool,
}

impl From<&Block> for Size {
    fn from(block: &Block) -> Self {
        Size {
            bytes: block.bytes,
            min_t: block.footer.min_t,
            max_t: block.footer.max_t,
            suspect: block.is_suspect(),
        }
    }
}

/// The neighbours to merge next: four of about one size whose union is not too large, nor so long that retention
/// would wait for it.
pub(crate) fn choose(sizes: &[Size], options: &StoreOptions) -> Option<Range<usize>> {
    let longest = options
        .retention_ms
        .map_or(i64::MAX, |keep| (keep / 8).max(options.block_ms));
    let most = options
        .max_block_bytes
        .min(options.retention_bytes.map_or(u64::MAX, |b| b / 8));
    let fits = |window: &[Size]| {
        let total: u64 = window.iter().map(|s| s.bytes).sum();
        let largest = window.iter().map(|s| s.bytes).max().unwrap_or(0);
        let from = window.iter().map(|s| s.min_t).min().unwrap_or(0);
        let to = window.iter().map(|s| s.max_t).max().unwrap_or(0);
        total <= most
            && largest <= (total - largest).saturating_mul(2)
            && to.saturating_sub(from) <= longest
            && !window.iter().any(|s| s.suspect)
    };
    sizes.windows(MERGE).position(fits).map(|at| at..at + MERGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: u64, min_t: i64, max_t: i64) -> Size {
        Size {
            bytes,
            min_t,
            max_t,
            suspect: false,
        }
    }

    #[test]
    fn neighbours_of_one_size_are_merged() {
        let mut options = StoreOptions::new("");
        options.max_block_bytes = 1_000;
        let hour = 3_600_000;
        let of = |bytes: &[u64]| -> Vec<Size> {
            let mut at = 0;
            bytes
                .iter()
                .map(|b| {
                    at += hour;
                    size(*b, at - hour, at)
                })
                .collect()
        };
        assert_eq!(choose(&of(&[100, 100, 100]), &options), None);
        assert_eq!(choose(&of(&[100, 100, 100, 100]), &options), Some(0..4));
        assert_eq!(
            choose(&of(&[900, 100, 100, 100, 100]), &options),
            Some(1..5)
        );
        assert_eq!(choose(&of(&[300, 300, 300, 300]), &options), None);
        let mut suspect = of(&[100; 5]);
        suspect[0].suspect = true;
        assert_eq!(choose(&suspect, &options), Some(1..5));
        options.retention_ms = Some(8 * hour);
        options.block_ms = hour;
        assert_eq!(choose(&of(&[100; 4]), &options), None);
    }
}
