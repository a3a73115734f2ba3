//! Signals as values: labels, samples, histograms, spans, logs, SLO status and the bodies of the HTTP API.
//!
//! Owns the vocabulary that every other crate speaks, and [`source::Source`], the one way to read series.
//! Must not know: tokio, files, the network, the system clock. Time is always an argument, in Unix milliseconds
//! (`i64`, `_ms`) for samples and Unix nanoseconds (`u64`, `_ns`) for spans and logs.

pub mod api;
pub mod caret;
pub mod critical;
pub mod duration;
pub mod exphist;
pub mod hashing;
pub mod histogram;
pub mod labels;
pub mod log;
pub mod matcher;
pub mod prompb;
pub mod protobuf;
pub mod query;
pub mod sample;
pub mod slo;
pub mod source;
pub mod span;
pub mod spelling;
pub mod timestamp;

pub use exphist::ExpHistogram;
pub use histogram::NativeHistogram;
pub use labels::{AscendingLabels, Labels, LabelsBuilder, METRIC_NAME, UncheckedLabels};
pub use matcher::{MatchOp, Matcher};
pub use query::{QueryData, RangeSeries, VectorElement};
pub use sample::{Points, STALE_NAN_BITS, SeriesData, Value, is_stale, stale_nan};
pub use source::{SelectRequest, Source, SourceError};
