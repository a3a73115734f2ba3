//! What an operator does with a store's files: look inside, check them, copy a moment, move samples as text.
//!
//! Owns these as functions; they print nothing. [`inspect`] and [`verify`] only read, take no lock, and may be used
//! while the store is running (files that it deletes meanwhile are left out). Must not know a command line.

mod inspect;
mod snapshot;
mod text;

pub use inspect::{
    BlockReport, EncodingReport, Inspection, LogReport, Problem, Verification, inspect, verify,
};
pub use snapshot::SnapshotReport;
pub(crate) use text::for_fuzzing as text_for_fuzzing;
pub use text::{Dialect, ExportReport, ImportReport, export, import};
