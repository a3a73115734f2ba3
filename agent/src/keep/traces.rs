//! Traces on disk: appended as received, found by id, service, route, duration, status, error and time.
//!
//! Owns search over footers and reading spans back. The newest footers are in the segments' bounded cache; older ones
//! are read from disk. Must not know HTTP.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use model::span::{Span, TraceId, TraceSummary};
use store::StoreError;
use store::spool::{BlockInfo, NewBlock, Part, Segments, SegmentsOptions, SegmentsStats};

use super::footer::{self, Partial};
use super::{MAX_BLOCK_BYTES, MERGED_BLOCK_BYTES, split, steady};
use crate::receive::spans::{self, Request};

/// Blocks that one search looks at; it says so when it stopped there.
const MAX_BLOCKS_SEARCHED: usize = 50_000;
/// Traces that a search holds open for spans in older blocks.
const MAX_OPEN: usize = 50_000;
/// After so many blocks a search looks which traces are complete.
const SETTLE_EVERY: usize = 64;
/// A trace that began this long after everything in a block is not expected in that block or in older ones.
const SETTLED_NS: u64 = 60_000_000_000;
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
        steady(&self.segments, || self.search_once(query))
    }

    fn search_once(&self, query: &TraceQuery) -> Found {
        let mut found = Found::default();
        let mut open: HashMap<TraceId, Partial> = HashMap::new();
        let mut done: Vec<Partial> = Vec::new();
        let blocks = self
            .segments
            .blocks_between(query.start_ns.unwrap_or(0), u64::MAX);
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
                match open.get_mut(&partial.trace_id) {
                    Some(known) => known.merge(partial),
                    None => {
                        open.insert(partial.trace_id, partial);
                    }
                }
            }
            if open.len() >= MAX_OPEN || looked_at % SETTLE_EVERY == SETTLE_EVERY - 1 {
                settle(
                    &mut open,
                    block.max_ns.saturating_add(SETTLED_NS),
                    query,
                    &mut done,
                );
                // What is still open, or in older blocks, began earlier than all of these.
                if done.len() >= query.limit {
                    open.clear();
                    break;
                }
            }
        }
        settle(&mut open, 0, query, &mut done);
        done.sort_by_key(|p| std::cmp::Reverse((p.start_ns, p.trace_id)));
        done.truncate(query.limit);
        found.traces = done.iter().map(Partial::summary).collect();
        found
    }

    /// Every kept span of a trace, by start; empty when there is none.
    pub fn trace(&self, id: TraceId) -> Result<Vec<Span>, StoreError> {
        steady(&self.segments, || self.trace_once(id))
    }

    fn trace_once(&self, id: TraceId) -> Result<Vec<Span>, StoreError> {
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
            let bytes = match self.segments.read(block.id) {
                Ok(bytes) => bytes,
                Err(StoreError::NoSuchBlock) => continue,
                Err(error) => return Err(error),
            };
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

    /// Deletes what is past retention, and merges the small blocks of one segment.
    pub fn maintain(&self, now_ns: u64) -> Result<(), StoreError> {
        self.segments.maintain(now_ns)?;
        self.segments
            .merge_small(MERGED_BLOCK_BYTES, &mut merged_footer)
            .map(|_| ())
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

/// The footer of several requests one after another, which are one request; `None` when it would be too large to keep.
fn merged_footer(parts: &[Part<'_>]) -> Option<Vec<u8>> {
    let mut by_id: BTreeMap<TraceId, Partial> = BTreeMap::new();
    for part in parts {
        let partials = match footer::decode(part.footer) {
            Some(partials) => partials,
            None => footer::partials(&spans::walk(part.bytes).ok()?),
        };
        for partial in partials {
            match by_id.entry(partial.trace_id) {
                Entry::Occupied(mut known) => known.get_mut().merge(partial),
                Entry::Vacant(place) => drop(place.insert(partial)),
            }
        }
    }
    let all: Vec<Partial> = by_id.into_values().collect();
    Some(footer::encode(&all)).filter(|footer| !footer.is_empty())
}

/// Moves traces that began after `after_ns` out of `open`; those that match go to `done`. When too many are left open,
/// the newest half goes too.
fn settle(
    open: &mut HashMap<TraceId, Partial>,
    after_ns: u64,
    query: &TraceQuery,
    done: &mut Vec<Partial>,
) {
    let mut after_ns = after_ns;
    let left = open.values().filter(|p| p.start_ns < after_ns).count();
    if left > MAX_OPEN / 2 {
        let mut starts: Vec<u64> = open.values().map(|p| p.start_ns).collect();
        starts.sort_unstable();
        after_ns = starts[starts.len() / 2];
    }
    let ready = open.extract_if(|_, p| p.start_ns >= after_ns);
    done.extend(ready.map(|(_, p)| p).filter(|p| query.matches(p)));
}

impl TraceQuery {
    fn matches(&self, trace: &Partial) -> bool {
        let (from, to) = (self.start_ns.unwrap_or(0), self.end_ns.unwrap_or(u64::MAX));
        if !(from..=to).contains(&trace.start_ns) {
            return false;
        }
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

    fn partial(n: u32, start_ns: u64) -> Partial {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        Partial {
            trace_id: TraceId(id),
            start_ns,
            end_ns: start_ns,
            ..Partial::default()
        }
    }

    #[test]
    fn open_traces_are_bounded_and_the_newest_settle_first() {
        let most = u32::try_from(MAX_OPEN).unwrap();
        let mut open: HashMap<TraceId, Partial> = (0..most)
            .map(|n| partial(n, 1 + u64::from(n)))
            .map(|p| (p.trace_id, p))
            .collect();
        let mut done = Vec::new();
        settle(&mut open, u64::MAX, &TraceQuery::default(), &mut done);
        assert!(open.len() <= MAX_OPEN / 2 + 1);
        let newest_open = open.values().map(|p| p.start_ns).max();
        assert!(newest_open < done.iter().map(|p| p.start_ns).min());
        settle(&mut open, 0, &TraceQuery::default(), &mut done);
        assert_eq!((open.len(), done.len()), (0, MAX_OPEN));
    }

    #[test]
    fn a_trace_is_judged_over_all_its_blocks() {
        use model::protobuf::{put_bytes, put_fixed64};
        let dir = tempfile::tempdir().unwrap();
        let traces = Traces::open(SegmentsOptions::new(dir.path())).unwrap();
        for (n, start) in (0..200u64).map(|n| (n, 1_000 + n % 100)) {
            let mut span = Vec::new();
            put_bytes(&mut span, 1, &[u8::try_from(n % 100 + 1).unwrap(); 16]);
            put_bytes(&mut span, 2, &[u8::try_from(n + 1).unwrap_or(255); 8]);
            put_fixed64(&mut span, 7, start);
            put_fixed64(&mut span, 8, start + n);
            let mut request = Vec::new();
            for number in [2, 2, 1] {
                let inner = if request.is_empty() {
                    span.clone()
                } else {
                    request.clone()
                };
                request.clear();
                put_bytes(&mut request, number, &inner);
            }
            let walked = spans::walk(&request).unwrap();
            assert_eq!(traces.append(&request, &walked).unwrap(), 0);
        }
        let found = traces.search(&TraceQuery {
            limit: 5,
            ..TraceQuery::default()
        });
        assert_eq!(found.traces.len(), 5);
        assert!(found.traces.iter().all(|t| t.spans == 2), "{found:?}");
        assert_eq!(found.traces[0].start_ns, 1_099);
        let long = TraceQuery {
            min_duration_ns: Some(195),
            limit: 500,
            ..TraceQuery::default()
        };
        assert_eq!(traces.search(&long).traces.len(), 5);
        assert_eq!(traces.trace(TraceId([1; 16])).unwrap().len(), 2);
    }

    /// A request of three spans of one trace, as a small service's SDK sends it: about 800 bytes.
    fn small_request(n: u64) -> Vec<u8> {
        use model::protobuf::{put_bytes, put_fixed64, put_number};
        let attribute = |key: &str, value: &str| {
            let (mut any, mut out) = (Vec::new(), Vec::new());
            put_bytes(&mut any, 1, value.as_bytes());
            put_bytes(&mut out, 1, key.as_bytes());
            put_bytes(&mut out, 2, &any);
            out
        };
        let (mut resource, mut scope) = (Vec::new(), Vec::new());
        for (key, value) in [
            ("service.name", "checkout"),
            ("service.instance.id", "checkout-5d9c7b-x2x4p"),
            ("telemetry.sdk.language", "go"),
        ] {
            put_bytes(&mut resource, 1, &attribute(key, value));
        }
        let mut id = [0; 16];
        id[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        id[0] = 1;
        for k in 0..3u64 {
            let mut span = Vec::new();
            put_bytes(&mut span, 1, &id);
            put_bytes(&mut span, 2, &(n * 3 + k + 1).to_be_bytes());
            if k > 0 {
                put_bytes(&mut span, 4, &(n * 3 + 1).to_be_bytes());
            }
            put_bytes(&mut span, 5, b"GET /api/orders/{id}");
            put_number(&mut span, 6, 2);
            put_fixed64(&mut span, 7, 1_000_000 * n + k);
            put_fixed64(&mut span, 8, 1_000_000 * n + 500_000 - k);
            for (key, value) in [
                ("http.request.method", "GET"),
                ("http.route", "/api/orders/{id}"),
                ("url.path", &format!("/api/orders/{n}")),
            ] {
                put_bytes(&mut span, 9, &attribute(key, value));
            }
            put_bytes(&mut scope, 2, &span);
        }
        let (mut resource_spans, mut request) = (Vec::new(), Vec::new());
        put_bytes(&mut resource_spans, 1, &resource);
        put_bytes(&mut resource_spans, 2, &scope);
        put_bytes(&mut request, 1, &resource_spans);
        request
    }

    fn append_small(traces: &Traces, requests: std::ops::Range<u64>) {
        for n in requests {
            let request = small_request(n);
            let walked = spans::walk(&request).unwrap();
            traces.append(&request, &walked).unwrap();
        }
    }

    #[test]
    fn merged_blocks_hold_the_same_traces() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = SegmentsOptions::new(dir.path());
        options.segment_bytes = 1;
        let traces = Traces::open(options).unwrap();
        append_small(&traces, 0..2_000);
        let all = TraceQuery {
            limit: 5_000,
            ..TraceQuery::default()
        };
        let some = TraceQuery {
            route: Some("/api/orders/{id}".into()),
            start_ns: Some(5_000_000),
            end_ns: Some(9_000_000),
            limit: 100,
            ..TraceQuery::default()
        };
        let before = (traces.search(&all), traces.search(&some), traces.stats());
        let id = before.0.traces[1_900].trace_id;
        let one = traces.trace(id).unwrap();
        assert_eq!(
            (before.0.traces.len(), before.1.traces.len(), one.len()),
            (2_000, 5, 3)
        );
        for _ in 0..before.2.segments {
            traces.maintain(0).unwrap();
        }
        let after = traces.stats();
        assert!(after.blocks * 2 < before.2.blocks, "{after:?}");
        assert_eq!(after.items, before.2.items);
        assert_eq!(traces.search(&all), before.0);
        assert_eq!(traces.search(&some), before.1);
        assert_eq!(traces.trace(id).unwrap(), one);
    }

    /// Three days of eight requests a second: `cargo test --release -p agent --lib many_small -- --ignored --nocapture`
    /// prints what they take, in memory and on the disk, before and after they are merged.
    #[test]
    #[ignore = "two million requests, for a figure"]
    fn many_small_requests_cost_little_memory() {
        let dir = tempfile::tempdir().unwrap();
        let traces = Traces::open(SegmentsOptions::new(dir.path())).unwrap();
        append_small(&traces, 0..3 * 86_400 * 8);
        let resident = || crate::observe::resident_bytes() as f64 / 1e6;
        let show = |what: &str, traces: &Traces, base: f64| {
            let stats = traces.stats();
            println!(
                "{what}: {} blocks, {:.0} MB on disk, {:.0} MB of memory",
                stats.blocks,
                stats.bytes as f64 / 1e6,
                resident() - base
            );
        };
        let reopened = |base: f64| {
            let begun = std::time::Instant::now();
            let traces = Traces::open(SegmentsOptions::new(dir.path())).unwrap();
            show(&format!("opened in {:.1?}", begun.elapsed()), &traces, base);
            traces
        };
        drop(traces);
        let base = resident();
        let traces = reopened(base);
        let (before, begun) = (traces.stats(), std::time::Instant::now());
        for _ in 0..before.segments {
            traces.maintain(0).unwrap();
        }
        println!("merged in {:.1?}", begun.elapsed());
        drop(traces);
        let after = reopened(base).stats();
        assert!(after.blocks * 20 < before.blocks, "{after:?}");
        assert_eq!(after.items, before.items);
    }

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
