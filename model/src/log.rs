//! Log records as values, after the OpenTelemetry log data model.
//!
//! Owns the record and its severity. Must not know where a record came from nor where it is kept.

use serde::{Deserialize, Serialize};

use crate::span::{Attribute, SpanId, TraceId};

/// Severity, coarse.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Finest.
    Trace,
    /// For debugging.
    Debug,
    /// Normal.
    #[default]
    Info,
    /// Suspicious.
    Warn,
    /// Failed.
    Error,
    /// The process cannot go on.
    Fatal,
}

impl Severity {
    /// From OTLP's severity number (1 to 24); 0 and what is unknown are info.
    #[must_use]
    pub fn from_otlp(number: u64) -> Self {
        match number {
            1..=4 => Severity::Trace,
            5..=8 => Severity::Debug,
            13..=16 => Severity::Warn,
            17..=20 => Severity::Error,
            21..=24 => Severity::Fatal,
            _ => Severity::Info,
        }
    }
}

/// One log record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogRecord {
    /// When, Unix nanoseconds.
    pub time_ns: u64,
    /// Severity.
    pub severity: Severity,
    /// `service.name` of its resource.
    pub service: String,
    /// The text.
    pub body: String,
    /// Its trace; zero for none.
    pub trace_id: TraceId,
    /// Its span; zero for none.
    pub span_id: SpanId,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
}
