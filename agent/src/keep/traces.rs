//! Traces on disk: appended as received, found by id, service, route, duration, status, error and time.
//!
//! Owns search over footers and reading spans back. The newest footers are in the segments' bounded cache; older ones
//! are read from disk. Must not know HTTP.

use std::collections::HashMap;

use model::span::{Span, TraceId, TraceSummary};
use store::StoreError;
use store::spool::{BlockInfo, NewBlock, Segments, SegmentsOptions, SegmentsStats};

use super::footer::{self, Partial};
use super::{MAX_BLOCK_BYTES, split};
use crate::receive::spans::{self, Request};

/// Blocks that one search looks at; it says so when it stopped there.
const MAX_BLOCKS_SEARCHED: usize = 50_000;
/// Spans of one trace that are read.
pub const MAX_TRACE_SPANS: usize = 100_000;

/// What to look for; every field that is set must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TraceQuery {
    /// A service with a span in the trace.
    pub service: Option<String>,
    /// An `http.route` in the trace.
    pub route: Option<String>,
    /// Shortest duration, nanoseconds.
    pub min_duration_ns: Option<u64>,
    /// Longest duration, nanoseconds.
    pub max_duration_ns: Option<u64>,
    /// Status of the root span: `500`, or a class as in `5xx`.
    pub status: Option<String>,
    /// Whether a span has status error.
    pub error: Option<bool>,
    /// Earliest start, Unix nanoseconds.
    pub start_ns: Option<u64>,
    /// Latest start, Unix nanoseconds.
    pub end_ns: Option<u64>,
    /// At most so many, newest first.
    pub limit: usize,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The traces, newest first.
    pub traces: Vec<TraceSummary>,
    /// Whether older blocks were not looked at.
    pub stopped_early: bool,
    /// Blocks that could not be read.
    pub damaged: usize,
}

/// Kept traces. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces {
    segments: Segments,
}

// === impl Traces ===

impl Traces {
    /// Opens the segments.
    pub fn open(options: SegmentsOptions) -> Result<Self, StoreError> {
        Segments::open(options).map(|segments| Traces { segments })
    }

    /// Keeps a request that was walked into `walked`. When it returns, the spans survive `kill -9`. Returns how many
    /// resources were too large to keep.
    pub fn append(&self, request: &[u8], walked: &Request<'_>) -> Result<usize, StoreError> {
        if request.len() <= MAX_BLOCK_BYTES {
            self.append_part(request, walked)?;
            return Ok(0);
        }
        let (parts, left_out) = split(request, MAX_BLOCK_BYTES);
        for part in parts {
            let walked = spans::walk(part).map_err(|e| StoreError::Invalid(e.to_string()))?;
            self.append_part(part, &walked)?;
        }
        Ok(left_out)
    }

    fn append_part(&self, bytes: &[u8], walked: &Request<'_>) -> Result<(), StoreError> {
        let partials = footer::partials(walked);
        let (Some(min_ns), Some(max_ns)) = (
            partials.iter().map(|p| p.start_ns).min(),
            partials.iter().map(|p| p.end_ns).max(),
        ) else {
            return Ok(());
        };
        self.segments.append(&NewBlock {
            bytes,
            footer: &footer::encode(&partials),
            items: u32::try_from(walked.spans.len()).unwrap_or(u32::MAX),
            min_ns,
            max_ns,
        })?;
        Ok(())
    }

    /// Lists traces, newest first. Reads footers, seldom blocks.
    #[must_use]
    pub fn search(&self, query: &TraceQuery) -> Found {
        let mut found = Found::default();
        let mut merged: HashMap<TraceId, Partial> = HashMap::new();
        let from = query.start_ns.unwrap_or(0);
        let to = query.end_ns.unwrap_or(u64::MAX);
        let blocks = self.segments.blocks_between(from, u64::MAX);
        for (looked_at, block) in blocks.iter().enumerate() {
            if looked_at >= MAX_BLOCKS_SEARCHED {
                found.stopped_early = true;
                break;
            }
            let Some(partials) = self.partials(block) else {
                found.damaged += 1;
                continue;
            };
            for partial in partials {
                match merged.get_mut(&partial.trace_id) {
                    Some(known) => known.merge(partial),
                    None => {
                        merged.insert(partial.trace_id, partial);
                    }
                }
            }
        }
        let mut all: Vec<&Partial> = merged
            .values()
            .filter(|p| (from..=to).contains(&p.start_ns) && query.matches(p))
            .collect();
        all.sort_by_key(|p| std::cmp::Reverse((p.start_ns, p.trace_id)));
        all.truncate(query.limit);
        found.traces = all.into_iter().map(Partial::summary).collect();
        found
    }

    /// Every kept span of a trace, by start; empty when there is none.
    pub fn trace(&self, id: TraceId) -> Result<Vec<Span>, StoreError> {
        let mut out: Vec<Span> = Vec::new();
        for block in self.segments.blocks() {
            let footer = match self.segments.footer(block.id) {
                Ok(footer) => footer,
                Err(StoreError::NoSuchBlock) => continue,
                Err(error) => return Err(error),
            };
            if footer::contains(&footer, id) == Some(false) {
                continue;
            }
            let bytes = self.segments.read(block.id)?;
            let spans = spans::materialise(&bytes, |t| t == id)
                .map_err(|e| StoreError::Invalid(e.to_string()))?;
            out.extend(spans);
            if out.len() >= MAX_TRACE_SPANS {
                out.truncate(MAX_TRACE_SPANS);
                break;
            }
        }
        // A sender that retries after a lost answer sends a span twice.
        out.sort_by(|a, b| {
            (a.start_ns, a.span_id, a.kind as u8).cmp(&(b.start_ns, b.span_id, b.kind as u8))
        });
        out.dedup();
        Ok(out)
    }

    /// Deletes what is past retention.
    pub fn maintain(&self, now_ns: u64) -> Result<(), StoreError> {
        self.segments.maintain(now_ns).map(|_| ())
    }

    /// Forces everything to the disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.segments.flush()
    }

    /// The segments' counters.
    #[must_use]
    pub fn stats(&self) -> SegmentsStats {
        self.segments.stats()
    }

    fn partials(&self, block: &BlockInfo) -> Option<Vec<Partial>> {
        let footer = self.segments.footer(block.id).ok()?;
        if let Some(partials) = footer::decode(&footer) {
            return Some(partials);
        }
        let bytes = self.segments.read(block.id).ok()?;
        let walked = spans::walk(&bytes).ok()?;
        Some(footer::partials(&walked))
    }
}

impl TraceQuery {
    fn matches(&self, trace: &Partial) -> bool {
        let duration_ns = trace.end_ns - trace.start_ns;
        self.service
            .as_ref()
            .is_none_or(|s| trace.services.contains(s))
            && self.route.as_ref().is_none_or(|r| trace.routes.contains(r))
            && self.min_duration_ns.is_none_or(|d| duration_ns >= d)
            && self.max_duration_ns.is_none_or(|d| duration_ns <= d)
            && self.error.is_none_or(|e| (trace.errors > 0) == e)
            && self
                .status
                .as_ref()
                .is_none_or(|s| status_matches(s, trace.head.status_code))
    }
}

/// `500` or `5xx`.
fn status_matches(wanted: &str, code: u16) -> bool {
    match wanted
        .strip_suffix("xx")
        .or_else(|| wanted.strip_suffix("XX"))
    {
        Some(class) => class.parse() == Ok(code / 100),
        None => wanted.parse() == Ok(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_match_by_number_or_class() {
        for (wanted, code, matches) in [
            ("500", 500, true),
            ("5xx", 503, true),
            ("5xx", 404, false),
            ("xx", 404, false),
            ("ok", 200, false),
        ] {
            assert_eq!(status_matches(wanted, code), matches, "{wanted} {code}");
        }
    }
}
