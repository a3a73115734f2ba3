//! Writing a block: series in order, chunks gathered in pages by encoding, then the index.
//!
//! Owns the layout of pages and of the index. Must not know where series come from. Memory: one open page for each
//! encoding, the index of the block, and nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use model::Labels;

use super::format::{self, Footer, Part, SERIES_PER_PAGE};
use crate::chunk::{self, Encoding};
use crate::disk::{self, WriteBudget};
use crate::error::StoreError;
use crate::wire::{Reader, put_bytes, put_ivarint, put_varint};

/// Bytes of chunks in a page before compression.
const PAGE_BYTES: usize = 16 << 10;

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// The zstd level of pages and of the index.
const LEVEL: i32 = 3;

/// A page that is being filled. Its number is known from the start: chunks refer to it.
#[derive(Debug)]
struct Page {
    number: usize,
    bytes: Vec<u8>,
}

/// A block that is being written, to a file that ends in `.tmp` until it is whole.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    file: File,
    tmp: PathBuf,
    path: PathBuf,
    budget: WriteBudget,
    buffer: Vec<u8>,
    written: u64,
    footer: Footer,
    pages: [Option<Page>; Encoding::ALL.len()],
    series_page: Vec<u8>,
    last_labels: String,
    /// Label name to value to ordinals of series, ascending.
    postings: BTreeMap<String, BTreeMap<String, Vec<u32>>>,
}

// === impl BlockWriter ===

impl BlockWriter {
    /// Begins a block. `footer` gives its numbers; the rest of it is filled in.
    pub(crate) fn create(
        dir: &Path,
        footer: Footer,
        budget: &WriteBudget,
    ) -> Result<Self, StoreError> {
        let path = super::block_path(dir, footer.seq);
        let tmp = path.with_extension("tmp");
        disk::remove(&tmp)?;
        let file = disk::create_new(&tmp)?;
        let buffer = format::header(footer.seq);
        Ok(BlockWriter {
            file,
            tmp,
            path,
            budget: budget.clone(),
            buffer,
            written: 0,
            footer: Footer {
                min_t: i64::MAX,
                max_t: i64::MIN,
                ..footer
            },
            pages: Default::default(),
            series_page: Vec::new(),
            last_labels: String::new(),
            postings: BTreeMap::new(),
        })
    }

    pub(crate) fn series_count(&self) -> u32 {
        self.footer.series
    }

    /// Adds a series, after all those whose packed labels are smaller. Its chunks are in order of time.
    pub(crate) fn add(&mut self, labels: &Labels, chunks: &[Vec<u8>]) -> Result<(), StoreError> {
        debug_assert!(self.footer.series == 0 || self.last_labels.as_str() < labels.as_packed());
        if chunks.is_empty() {
            return Ok(());
        }
        labels.as_packed().clone_into(&mut self.last_labels);
        let ordinal = self.footer.series;
        self.footer.series += 1;
        for (name, value) in labels {
            let values = entry(&mut self.postings, name);
            entry(values, value).push(ordinal);
        }
        put_bytes(&mut self.series_page, labels.as_packed().as_bytes());
        put_varint(&mut self.series_page, chunks.len() as u64);
        let mut before = 0i64;
        for chunk in chunks {
            before = self.add_chunk(chunk, before)?;
        }
        if (self.footer.series as usize).is_multiple_of(SERIES_PER_PAGE) {
            self.close_series_page()?;
        }
        Ok(())
    }

    /// Puts a chunk in a page and its reference in the list of series.
    fn add_chunk(&mut self, chunk: &[u8], before: i64) -> Result<i64, StoreError> {
        let header = chunk::read_header(&mut Reader::new(chunk))
            .map_err(|e| StoreError::corrupt(&self.tmp, 0, e))?;
        let class = header.encoding as usize;
        let data = &mut self.footer.data;
        let page = self.pages[class].get_or_insert_with(|| {
            data.push(Part { offset: 0, len: 0 });
            Page {
                number: data.len() - 1,
                bytes: Vec::with_capacity(PAGE_BYTES + 4096),
            }
        });
        let out = &mut self.series_page;
        put_ivarint(out, header.min_t.wrapping_sub(before));
        put_varint(out, header.max_t.wrapping_sub(header.min_t) as u64);
        put_varint(out, page.number as u64);
        put_varint(out, page.bytes.len() as u64);
        put_varint(out, chunk.len() as u64);
        page.bytes.extend_from_slice(chunk);
        self.footer.chunks += 1;
        self.footer.samples += header.count as u64;
        self.footer.min_t = self.footer.min_t.min(header.min_t);
        self.footer.max_t = self.footer.max_t.max(header.max_t);
        if page.bytes.len() >= PAGE_BYTES {
            self.close_page(class)?;
        }
        Ok(header.max_t)
    }

    fn close_page(&mut self, class: usize) -> Result<(), StoreError> {
        if let Some(page) = self.pages[class].take() {
            self.footer.data[page.number] = self.put_part(&page.bytes)?;
        }
        Ok(())
    }

    fn close_series_page(&mut self) -> Result<(), StoreError> {
        let page = std::mem::take(&mut self.series_page);
        let part = self.put_part(&page)?;
        self.footer.series_pages.push(part);
        Ok(())
    }

    fn put_part(&mut self, raw: &[u8]) -> Result<Part, StoreError> {
        if raw.len() > format::MAX_PART {
            return Err(StoreError::Invalid("a block's index is too large".into()));
        }
        let offset = self.written + self.buffer.len() as u64;
        let sealed = format::seal_part(raw, LEVEL);
        self.buffer.extend_from_slice(&sealed);
        if self.buffer.len() >= WRITE_BYTES {
            self.write_out()?;
        }
        Ok(Part {
            offset,
            len: sealed.len() as u32,
        })
    }

    fn write_out(&mut self) -> Result<(), StoreError> {
        disk::write_all(&self.file, &self.tmp, &self.buffer, &self.budget)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the index, makes everything durable, and puts the block in its place.
    pub(crate) fn finish(mut self) -> Result<PathBuf, StoreError> {
        for class in 0..self.pages.len() {
            self.close_page(class)?;
        }
        if !self.series_page.is_empty() {
            self.close_series_page()?;
        }
        for (name, values) in std::mem::take(&mut self.postings) {
            let part = self.put_part(&encode_values(&values))?;
            self.footer.labels.push((name, part));
        }
        let mut raw = Vec::new();
        self.footer.write(&mut raw);
        let footer = self.put_part(&raw)?;
        self.buffer.extend_from_slice(&format::trailer(footer));
        self.write_out()?;
        disk::sync(&self.file, &self.tmp)?;
        disk::rename(&self.tmp, &self.path)?;
        Ok(std::mem::take(&mut self.path))
    }
}

impl Drop for BlockWriter {
    /// What was not finished leaves no file.
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = disk::remove(&self.tmp);
        }
    }
}

fn entry<'a, V: Default>(map: &'a mut BTreeMap<String, V>, key: &str) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    map.entry(key.to_owned()).or_default()
}

/// One label's values, ascending, each with the bytes of its list so that a reader can skip it.
fn encode_values(values: &BTreeMap<String, Vec<u32>>) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, values.len() as u64);
    let mut list = Vec::new();
    for (value, ordinals) in values {
        put_bytes(&mut out, value.as_bytes());
        list.clear();
        let mut before = 0;
        for ordinal in ordinals {
            put_varint(&mut list, u64::from(ordinal - before));
            before = *ordinal;
        }
        put_bytes(&mut out, &list);
    }
    out
}
