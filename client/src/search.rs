//! What to look for among traces and log records.
//!
//! Owns the parameters of those searches. Must not know how they are answered.

use model::log::Severity;

/// A search for traces. What is `None` does not narrow it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TraceSearch {
    /// A service that has a span in it.
    pub service: Option<String>,
    /// The root's `http.route`.
    pub route: Option<String>,
    /// The shortest duration, milliseconds.
    pub min_duration_ms: Option<u64>,
    /// The longest duration, milliseconds.
    pub max_duration_ms: Option<u64>,
    /// The root's status (`500`) or class (`5xx`).
    pub status: Option<String>,
    /// Only those with (or without) a failed span.
    pub error: Option<bool>,
    /// The first start, Unix milliseconds; the agent goes back an hour by default.
    pub start_ms: Option<i64>,
    /// The last start, Unix milliseconds.
    pub end_ms: Option<i64>,
    /// At most so many; the agent lists 100 by default.
    pub limit: Option<usize>,
}

/// A search for log records. What is `None` does not narrow it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogSearch {
    /// The service.
    pub service: Option<String>,
    /// The least severity.
    pub severity: Option<Severity>,
    /// Text in the body.
    pub text: Option<String>,
    /// The trace, 32 hex digits.
    pub trace_id: Option<String>,
    /// The first instant, Unix milliseconds; the agent goes back an hour by default.
    pub start_ms: Option<i64>,
    /// The last instant, Unix milliseconds.
    pub end_ms: Option<i64>,
    /// At most so many; the agent lists 100 by default.
    pub limit: Option<usize>,
}

type Parameters = Vec<(&'static str, String)>;

fn push(out: &mut Parameters, name: &'static str, value: Option<String>) {
    out.extend(value.map(|v| (name, v)));
}

// === impl TraceSearch ===

impl TraceSearch {
    pub(crate) fn parameters(&self) -> Parameters {
        let mut out = Vec::new();
        push(&mut out, "service", self.service.clone());
        push(&mut out, "route", self.route.clone());
        let ms = |v: Option<u64>| v.map(|ms| format!("{ms}ms"));
        push(&mut out, "min_duration", ms(self.min_duration_ms));
        push(&mut out, "max_duration", ms(self.max_duration_ms));
        push(&mut out, "status", self.status.clone());
        push(&mut out, "error", self.error.map(|e| e.to_string()));
        push(&mut out, "start", self.start_ms.map(crate::calls::seconds));
        push(&mut out, "end", self.end_ms.map(crate::calls::seconds));
        push(&mut out, "limit", self.limit.map(|n| n.to_string()));
        out
    }
}

// === impl LogSearch ===

impl LogSearch {
    pub(crate) fn parameters(&self) -> Parameters {
        let mut out = Vec::new();
        push(&mut out, "service", self.service.clone());
        let severity = self.severity.map(|s| match s {
            Severity::Trace => "trace",
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Error => "error",
            Severity::Fatal => "fatal",
        });
        push(&mut out, "severity", severity.map(str::to_owned));
        push(&mut out, "text", self.text.clone());
        push(&mut out, "trace_id", self.trace_id.clone());
        push(&mut out, "start", self.start_ms.map(crate::calls::seconds));
        push(&mut out, "end", self.end_ms.map(crate::calls::seconds));
        push(&mut out, "limit", self.limit.map(|n| n.to_string()));
        out
    }
}
