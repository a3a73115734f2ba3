//! The embedded store: time series behind [`model::Source`], and segments of opaque blocks for traces and logs.
//!
//! Owns every byte on disk (docs/store-format.md). Must not know PromQL, HTTP, OTLP, or what time it is: time is an
//! argument. Samples are in a checksummed log before they are acknowledged, then in memory in small typed chunks, then
//! in immutable compressed blocks.

pub mod admin;
mod append;
mod block;
mod blocks;
mod cache;
mod cardinality;
mod chunk;
mod disk;
mod error;
mod exemplars;
mod frames;
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod maintain;
mod merge;
mod open;
mod options;
mod packed;
mod postings;
mod reading;
mod record;
mod select;
mod series;
pub mod spool;
mod stats;
mod store;
mod sync;
mod wal;
mod wire;

pub use append::{AppendReport, IdSample, SampleRef};
pub use cardinality::{OVERFLOW_LABEL, Offender, Scope};
pub use chunk::Encoding;
pub use disk::WriteBudget;
pub use error::StoreError;
pub use head::SeriesId;
pub use options::{Fsync, StoreOptions};
pub use packed::{Finder, PackedBatch, SeriesName};
pub use stats::{Recovery, StoreStats};
pub use store::Store;
