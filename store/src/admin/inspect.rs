//! Looking inside a store's files, and checking every byte of them.
//!
//! Owns the reports. Must not change anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::Points;
use model::source::{Exemplar, Metadata};

use crate::block::Block;
use crate::block::format::{HEADER, TRAILER};
use crate::block::read::Pages;
use crate::chunk::{self, Encoding};
use crate::disk;
use crate::error::StoreError;
use crate::record::{self, Definition, Visitor};
use crate::wal;

/// What is in one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReport {
    /// Its file.
    pub path: PathBuf,
    /// Its number.
    pub seq: u64,
    /// First and last time, Unix milliseconds.
    pub bounds: (i64, i64),
    /// Series in it.
    pub series: u32,
    /// Chunks in it.
    pub chunks: u64,
    /// Samples in it.
    pub samples: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the pages that hold chunks.
    pub data_bytes: u64,
    /// Bytes of the list of series.
    pub series_bytes: u64,
    /// Bytes of the postings.
    pub postings_bytes: u64,
    /// Blocks that were merged into it.
    pub replaces: Vec<u64>,
}

/// What is in one file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReport {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Good records.
    pub records: u64,
    /// Series introduced.
    pub series: u64,
    /// Float samples.
    pub floats: u64,
    /// Histogram samples.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// First and last time of the samples, Unix milliseconds.
    pub bounds: Option<(i64, i64)>,
    /// Stretches of damaged bytes before good records.
    pub damaged: u64,
    /// Bytes after the last good record.
    pub torn_bytes: u64,
}

/// What is in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Its blocks, by number.
    pub blocks: Vec<BlockReport>,
    /// Its log: checkpoint first, then segments.
    pub log: Vec<LogReport>,
    /// Files that cannot be read, and blocks set aside as damaged.
    pub problems: Vec<Problem>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In which file.
    pub path: PathBuf,
    /// What.
    pub what: String,
}

/// How much each encoding takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodingReport {
    /// Chunks.
    pub chunks: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes before the pages are compressed.
    pub bytes: u64,
}

/// What checking a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Blocks read.
    pub blocks: u64,
    /// Series decoded, each once a block.
    pub series: u64,
    /// Chunks decoded.
    pub chunks: u64,
    /// Samples decoded from blocks.
    pub samples: u64,
    /// Records of the log decoded.
    pub records: u64,
    /// Samples decoded from the log.
    pub log_samples: u64,
    /// Chunks by encoding.
    pub encodings: BTreeMap<&'static str, EncodingReport>,
    /// Everything that is wrong; empty when the store is whole.
    pub problems: Vec<Problem>,
}

/// Reports what is in the store in `dir`.
pub fn inspect(dir: &Path) -> Result<Inspection, StoreError> {
    let mut inspection = Inspection::default();
    for (seq, path) in disk::numbered(&dir.join("blocks"), "block-", ".nblk")? {
        match Block::open(&path, seq) {
            Ok(block) => inspection.blocks.push(block_report(&block)),
            Err(error) => inspection.problems.push(problem(&path, &error)),
        }
    }
    inspection.problems.extend(set_aside(dir)?);
    for (seq, path) in log_files(dir)? {
        match log_report(seq, &path) {
            Ok((report, _)) => inspection.log.push(report),
            Err(error) => inspection.problems.push(problem(&path, &error)),
        }
    }
    Ok(inspection)
}

fn block_report(block: &Block) -> BlockReport {
    let footer = &block.footer;
    let bytes = |parts: &[crate::block::format::Part]| parts.iter().map(|p| u64::from(p.len)).sum();
    BlockReport {
        path: block.path().to_owned(),
        seq: footer.seq,
        bounds: (footer.min_t, footer.max_t),
        series: footer.series,
        chunks: footer.chunks,
        samples: footer.samples,
        bytes: block.bytes,
        data_bytes: bytes(&footer.data),
        series_bytes: bytes(&footer.series_pages),
        postings_bytes: footer.labels.iter().map(|(_, p)| u64::from(p.len)).sum(),
        replaces: footer.replaces.clone(),
    }
}

fn problem(path: &Path, error: &StoreError) -> Problem {
    Problem {
        path: path.to_owned(),
        what: error.to_string(),
    }
}

fn set_aside(dir: &Path) -> Result<Vec<Problem>, StoreError> {
    let found = disk::numbered(&dir.join("blocks"), "block-", ".nblk.damaged")?;
    Ok(found
        .into_iter()
        .map(|(_, path)| Problem {
            path,
            what: "a damaged block that was set aside when the store was opened".into(),
        })
        .collect())
}

/// The newest checkpoint, then the segments.
fn log_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let log = dir.join("log");
    let mut files: Vec<_> = disk::numbered(&log, "checkpoint-", ".wal")?
        .pop()
        .into_iter()
        .collect();
    files.extend(disk::numbered(&log, "log-", ".wal")?);
    Ok(files)
}

/// Counts what a record says.
struct Tally<'a>(&'a mut LogReport);

impl Tally<'_> {
    fn cover(&mut self, t_ms: i64) {
        let (from, to) = self.0.bounds.unwrap_or((t_ms, t_ms));
        self.0.bounds = Some((from.min(t_ms), to.max(t_ms)));
    }
}

impl Visitor for Tally<'_> {
    fn run(&mut self, _: u32) {}
    fn series(&mut self, _: Definition) {
        self.0.series += 1;
    }
    fn float(&mut self, _: u32, t_ms: i64, _: i64, _: f64) {
        self.0.floats += 1;
        self.cover(t_ms);
    }
    fn histogram(&mut self, _: u32, t_ms: i64, _: i64, _: std::sync::Arc<model::NativeHistogram>) {
        self.0.histograms += 1;
        self.cover(t_ms);
    }
    fn exemplar(&mut self, _: u32, _: Exemplar) {
        self.0.exemplars += 1;
    }
    fn metadata(&mut self, _: String, _: Metadata) {}
}

fn log_report(seq: u64, path: &Path) -> Result<(LogReport, Vec<Problem>), StoreError> {
    let bytes = fs::read(path).map_err(|e| StoreError::io("read", path, e))?;
    let mut report = LogReport {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        records: 0,
        series: 0,
        floats: 0,
        histograms: 0,
        exemplars: 0,
        bounds: None,
        damaged: 0,
        torn_bytes: 0,
    };
    let mut problems = Vec::new();
    let mut wrong = |what: String| {
        problems.push(Problem {
            path: path.to_owned(),
            what,
        });
    };
    let scan = wal::scan(&bytes, seq, |kind, payload| {
        if kind != wal::BATCH {
            wrong(format!("a record of unknown kind {kind}"));
        } else if let Err(damage) = record::read(payload, &mut Tally(&mut report)) {
            wrong(format!("a record with a good checksum: {damage}"));
        }
    });
    report.records = scan.records;
    report.damaged = scan.damaged;
    report.torn_bytes = report.bytes - scan.good_end;
    if scan.damaged > 0 {
        wrong(format!(
            "{} damaged stretches of {} bytes in all between good records",
            scan.damaged, scan.damaged_bytes
        ));
    }
    if report.torn_bytes > 0 {
        wrong(format!(
            "{} bytes after the last good record",
            report.torn_bytes
        ));
    }
    Ok((report, problems))
}

/// Reads and decodes everything in the store in `dir`.
pub fn verify(dir: &Path) -> Result<Verification, StoreError> {
    let mut found = Verification {
        problems: set_aside(dir)?,
        ..Verification::default()
    };
    for (seq, path) in disk::numbered(&dir.join("blocks"), "block-", ".nblk")? {
        let checked = Block::open(&path, seq).and_then(|block| verify_block(&block, &mut found));
        if let Err(error) = checked {
            found.problems.push(problem(&path, &error));
        }
    }
    for (seq, path) in log_files(dir)? {
        match log_report(seq, &path) {
            Ok((report, problems)) => {
                found.records += report.records;
                found.log_samples += report.floats + report.histograms;
                found.problems.extend(problems);
            }
            Err(error) => found.problems.push(problem(&path, &error)),
        }
    }
    Ok(found)
}

fn verify_block(block: &Block, found: &mut Verification) -> Result<(), StoreError> {
    found.blocks += 1;
    let footer = &block.footer;
    let before = (found.chunks, found.samples);
    for page in &footer.data {
        block.part(*page)?;
    }
    let (mut series, mut pages) = (0, Pages::default());
    for number in 0..footer.series_pages.len() {
        for entry in block.page_of_series(number)? {
            series += 1;
            for (part, bytes) in block.raw_chunks(&entry, &mut pages)? {
                let header = chunk::decode(&bytes, i64::MIN, i64::MAX, &mut Points::default())
                    .map_err(|e| block.corrupt(part, e))?;
                count(found, header.encoding, header.count, bytes.len());
            }
        }
    }
    found.series += series;
    let cache = crate::cache::Cache::new(1 << 20);
    for (name, _) in &footer.labels {
        let matcher = model::Matcher::new(name.as_str(), model::MatchOp::NotEqual, "");
        if let Ok(matcher) = matcher {
            block.candidates(&[matcher], &cache)?;
        }
    }
    let counted = (found.chunks - before.0, found.samples - before.1);
    let sizes = footer.data.iter().chain(&footer.series_pages);
    let parts: u64 = sizes
        .chain(footer.labels.iter().map(|(_, part)| part))
        .map(|part| u64::from(part.len))
        .sum();
    let accounted = parts + (HEADER + TRAILER) as u64 + block.footer_bytes();
    if counted != (footer.chunks, footer.samples)
        || series != u64::from(footer.series)
        || accounted != block.bytes
    {
        found.problems.push(Problem {
            path: block.path().to_owned(),
            what: "the footer's totals are not those of the block".into(),
        });
    }
    Ok(())
}

fn count(found: &mut Verification, encoding: Encoding, samples: usize, bytes: usize) {
    found.chunks += 1;
    found.samples += samples as u64;
    let one = found.encodings.entry(encoding.name()).or_default();
    one.chunks += 1;
    one.samples += samples as u64;
    one.bytes += bytes as u64;
}
