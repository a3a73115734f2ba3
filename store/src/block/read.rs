//! Reading series and their chunks from a block.
//!
//! Owns the list of series and the references to chunks. Must not know how an answer is put together.

use std::sync::Arc;

use model::{Labels, Matcher};

use super::Block;
use super::format::{Part, SERIES_PER_PAGE};
use crate::cache::Cache;
use crate::error::StoreError;
use crate::merge::{self, Run};
use crate::wire::{Damaged, Reader};

/// Where a chunk is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRef {
    min_t: i64,
    max_t: i64,
    page: usize,
    offset: usize,
    len: usize,
}

/// A series of a block.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) labels: Labels,
    pub(crate) chunks: Vec<ChunkRef>,
}

// === impl Entry ===

impl Entry {
    pub(crate) fn overlaps(&self, start: i64, end: i64) -> bool {
        self.chunks
            .iter()
            .any(|c| c.min_t <= end && c.max_t >= start)
    }
}

/// The pages that were read last, one for each encoding: neighbours share them.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    recent: Vec<(usize, Arc<Vec<u8>>)>,
}

const RECENT_PAGES: usize = 8;

// === impl Block ===

impl Block {
    /// Visits the series that match, in order of their packed labels.
    pub(crate) fn visit_matching(
        &self,
        matchers: &[Matcher],
        cache: &Cache,
        mut visit: impl FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let candidates = self.candidates(matchers, cache)?;
        let all_applied = matchers.iter().all(crate::postings::is_narrowing);
        let ordinals = candidates.unwrap_or_else(|| (0..self.footer.series).collect());
        let mut rest = ordinals.as_slice();
        while let Some(first) = rest.first() {
            let number = *first as usize / SERIES_PER_PAGE;
            let end = (number as u32 + 1).saturating_mul(SERIES_PER_PAGE as u32);
            let (here, later) = rest.split_at(rest.partition_point(|o| *o < end));
            rest = later;
            let part = self.footer.series_pages[number];
            let raw = self.cached(part, cache)?;
            let wanted = |at: usize| {
                here.binary_search(&((number * SERIES_PER_PAGE + at) as u32))
                    .is_ok()
            };
            let entries = read_page(&raw, self.footer.data.len(), wanted);
            for entry in entries.map_err(|e| self.corrupt(part, e))? {
                if all_applied || matchers.iter().all(|m| m.matches_labels(&entry.labels)) {
                    visit(entry)?;
                }
            }
        }
        Ok(())
    }

    /// One page of the list of series, past the cache.
    pub(crate) fn page_of_series(&self, number: usize) -> Result<Vec<Entry>, StoreError> {
        let part = self.footer.series_pages[number];
        let raw = self.part(part)?;
        read_page(&raw, self.footer.data.len(), |_| true).map_err(|e| self.corrupt(part, e))
    }

    /// A series' chunks as they are stored, each with the page that it is in.
    pub(crate) fn raw_chunks(
        &self,
        entry: &Entry,
        pages: &mut Pages,
    ) -> Result<Vec<(Part, Vec<u8>)>, StoreError> {
        let mut all = Vec::new();
        for chunk in &entry.chunks {
            let part = self.footer.data[chunk.page];
            let page = pages.get(self, chunk.page, part, None)?;
            let bytes = page
                .get(chunk.offset..chunk.offset.saturating_add(chunk.len))
                .ok_or_else(|| self.corrupt(part, Damaged("a chunk is outside its page")))?;
            all.push((part, bytes.to_vec()));
        }
        Ok(all)
    }

    /// Appends the runs that hold a series' samples in `start..=end`.
    pub(crate) fn collect(
        &self,
        entry: &Entry,
        (start, end): (i64, i64),
        pages: &mut Pages,
        cache: Option<&Cache>,
        runs: &mut Vec<Run>,
    ) -> Result<(), StoreError> {
        for chunk in &entry.chunks {
            if chunk.min_t > end || chunk.max_t < start {
                continue;
            }
            let part = self.footer.data[chunk.page];
            let page = pages.get(self, chunk.page, part, cache)?;
            let decoded = page
                .get(chunk.offset..chunk.offset.saturating_add(chunk.len))
                .ok_or(Damaged("a chunk is outside its page"))
                .and_then(|bytes| merge::decode_into(bytes, start, end, runs).map(drop));
            decoded.map_err(|e| self.corrupt(part, e))?;
        }
        Ok(())
    }
}

// === impl Pages ===

impl Pages {
    fn get(
        &mut self,
        block: &Block,
        number: usize,
        part: Part,
        cache: Option<&Cache>,
    ) -> Result<Arc<Vec<u8>>, StoreError> {
        if let Some((_, page)) = self.recent.iter().find(|(n, _)| *n == number) {
            return Ok(Arc::clone(page));
        }
        let page = match cache {
            Some(cache) => block.cached(part, cache)?,
            None => Arc::new(block.part(part)?),
        };
        if self.recent.len() >= RECENT_PAGES {
            self.recent.remove(0);
        }
        self.recent.push((number, Arc::clone(&page)));
        Ok(page)
    }
}

/// Decodes those series of a page whose position `wanted` accepts.
pub(crate) fn read_page(
    raw: &[u8],
    pages: usize,
    wanted: impl Fn(usize) -> bool,
) -> Result<Vec<Entry>, Damaged> {
    let mut reader = Reader::new(raw);
    let mut entries = Vec::new();
    for at in 0..SERIES_PER_PAGE {
        if reader.is_empty() {
            break;
        }
        let packed = reader.text()?;
        let count = reader.count(5)?;
        let mut before = 0i64;
        let keep = wanted(at);
        let mut chunks = Vec::with_capacity(if keep { count } else { 0 });
        for _ in 0..count {
            let min_t = before.wrapping_add(reader.ivarint()?);
            let max_t = min_t.wrapping_add(reader.uvarint()? as i64);
            before = max_t;
            let page = reader.uvarint()? as usize;
            let (offset, len) = (reader.uvarint()? as usize, reader.uvarint()? as usize);
            if page >= pages || max_t < min_t {
                return Err(Damaged("a reference to a chunk is impossible"));
            }
            if keep {
                chunks.push(ChunkRef {
                    min_t,
                    max_t,
                    page,
                    offset,
                    len,
                });
            }
        }
        if keep {
            let labels =
                Labels::from_packed(packed).map_err(|_| Damaged("labels are not packed labels"))?;
            entries.push(Entry { labels, chunks });
        }
    }
    Ok(entries)
}
