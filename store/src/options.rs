//! How a store is set up. Owns the defaults. Must not know configuration files.

use std::path::PathBuf;

use crate::disk::WriteBudget;

/// When acknowledged samples are forced to the disk. Either way they survive the death of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// In the background, at most a second later: a power cut may lose that second.
    #[default]
    EverySecond,
    /// Before every acknowledgement.
    EveryAppend,
}

/// Where and how samples are kept.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The folder; created when missing. One process at a time.
    pub dir: PathBuf,
    /// Samples older than this many milliseconds are deleted, a block at a time. `None` keeps everything, and then
    /// samples of any time are accepted however late. Default 15 days.
    pub retention_ms: Option<i64>,
    /// Oldest blocks are deleted while the store takes more bytes on disk. Default none.
    pub retention_bytes: Option<u64>,
    /// Most series in memory; samples of others are refused. Default 1,000,000.
    pub max_series: usize,
    /// Most series of one metric; others fold into its overflow series. Default 20,000.
    pub max_series_per_metric: usize,
    /// Most series of one source; others fold into an overflow series. Default 200,000.
    pub max_series_per_source: usize,
    /// The label that says which source a series is from. Default `job`.
    pub source_label: String,
    /// How much older than its series' newest sample a sample may be, in milliseconds. Default one hour.
    pub out_of_order_ms: i64,
    /// Samples stay in memory (and in the log) for about this long before they become a block. Default two hours.
    pub block_ms: i64,
    /// A block is cut earlier when the log has grown past this many bytes. Default 256 MiB.
    pub head_log_bytes: u64,
    /// Blocks are not merged past this many bytes. Default 512 MiB.
    pub max_block_bytes: u64,
    /// Decoded pages and index parts kept in memory, in bytes. Default 32 MiB.
    pub cache_bytes: usize,
    /// Exemplars kept, the oldest dropped first. Default 20,000.
    pub max_exemplars: usize,
    /// When acknowledged samples are forced to the disk.
    pub fsync: Fsync,
    /// How many more bytes may be written; a stand-in for a full disk. Default no limit.
    pub write_budget: WriteBudget,
}

// === impl StoreOptions ===

impl StoreOptions {
    /// The defaults, in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        StoreOptions {
            dir: dir.into(),
            retention_ms: Some(15 * 24 * 3_600_000),
            retention_bytes: None,
            max_series: 1_000_000,
            max_series_per_metric: 20_000,
            max_series_per_source: 200_000,
            source_label: "job".to_owned(),
            out_of_order_ms: 3_600_000,
            block_ms: 2 * 3_600_000,
            head_log_bytes: 256 << 20,
            max_block_bytes: 512 << 20,
            cache_bytes: 32 << 20,
            max_exemplars: 20_000,
            fsync: Fsync::default(),
            write_budget: WriteBudget::default(),
        }
    }

    /// How late a sample may be, with retention taken into account.
    pub(crate) fn window_ms(&self) -> i64 {
        match self.retention_ms {
            Some(_) => self.out_of_order_ms,
            None => i64::MAX,
        }
    }
}
