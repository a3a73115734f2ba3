//! Footers of trace blocks: for every trace in the block what is needed to find and list it.
//!
//! Owns their bytes: a count, the sorted trace ids (16 bytes each, so that a lookup is a binary search without
//! decoding), then a protobuf-like message a trace over a table of strings. Must not know segments.

use std::collections::{BTreeSet, HashMap};

use model::span::{SpanStatus, TraceId, TraceSummary};

use crate::receive::attributes::lossy;
use crate::receive::spans::{Request, SpanView};
use model::protobuf::{Reader, WireError, put_bytes, put_number, put_varint, repeated_varint};

/// Routes kept of one trace; a trace that touches more is found by the first ones only.
const MAX_ROUTES: usize = 16;
/// Services kept of one trace.
const MAX_SERVICES: usize = 64;

/// What is known about a trace from some of its spans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Partial {
    pub trace_id: TraceId,
    pub start_ns: u64,
    pub end_ns: u64,
    pub spans: u32,
    pub errors: u32,
    pub services: BTreeSet<String>,
    pub routes: BTreeSet<String>,
    pub head: Head,
}

/// The span that names the trace: its root, or the earliest one while the root is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Head {
    pub is_root: bool,
    pub start_ns: u64,
    pub service: String,
    pub name: String,
    pub route: String,
    pub status_code: u16,
}

// === impl Partial ===

impl Partial {
    /// Adds what other spans of the same trace say.
    pub(super) fn merge(&mut self, other: Partial) {
        self.start_ns = self.start_ns.min(other.start_ns);
        self.end_ns = self.end_ns.max(other.end_ns);
        self.spans = self.spans.saturating_add(other.spans);
        self.errors = self.errors.saturating_add(other.errors);
        take_some(&mut self.services, other.services, MAX_SERVICES);
        take_some(&mut self.routes, other.routes, MAX_ROUTES);
        if other.head.goes_before(&self.head) {
            self.head = other.head;
        }
    }

    /// As the API lists it.
    pub(super) fn summary(&self) -> TraceSummary {
        TraceSummary {
            trace_id: self.trace_id,
            root_service: self.head.service.clone(),
            root_name: self.head.name.clone(),
            start_ns: self.start_ns,
            duration_ns: self.end_ns.saturating_sub(self.start_ns),
            spans: self.spans,
            errors: self.errors,
            services: self.services.iter().cloned().collect(),
            status_code: self.head.status_code,
            route: self.head.route.clone(),
        }
    }

    fn of(service: &str, span: &SpanView<'_>) -> Self {
        Partial {
            trace_id: span.trace_id,
            start_ns: span.start_ns,
            end_ns: span.end_ns.max(span.start_ns),
            spans: 1,
            errors: u32::from(span.status == SpanStatus::Error),
            services: BTreeSet::from([service.to_owned()]),
            routes: (!span.route.is_empty())
                .then(|| lossy(span.route))
                .into_iter()
                .collect(),
            head: Head {
                is_root: span.parent_id.is_zero(),
                start_ns: span.start_ns,
                service: service.to_owned(),
                name: lossy(span.name),
                route: lossy(span.route),
                status_code: span.status_code,
            },
        }
    }

    fn add(&mut self, service: &str, span: &SpanView<'_>) {
        self.start_ns = self.start_ns.min(span.start_ns);
        self.end_ns = self.end_ns.max(span.end_ns);
        self.spans = self.spans.saturating_add(1);
        self.errors += u32::from(span.status == SpanStatus::Error);
        if !self.services.contains(service) && self.services.len() < MAX_SERVICES {
            self.services.insert(service.to_owned());
        }
        if !span.route.is_empty() && self.routes.len() < MAX_ROUTES {
            self.routes.insert(lossy(span.route));
        }
        let root = span.parent_id.is_zero();
        if (root && !self.head.is_root)
            || (root == self.head.is_root && span.start_ns < self.head.start_ns)
        {
            self.head = Partial::of(service, span).head;
        }
    }
}

impl Head {
    fn goes_before(&self, other: &Head) -> bool {
        (!self.is_root, self.start_ns) < (!other.is_root, other.start_ns)
    }
}

fn take_some(into: &mut BTreeSet<String>, from: BTreeSet<String>, limit: usize) {
    for text in from {
        if into.len() >= limit {
            break;
        }
        into.insert(text);
    }
}

/// The traces of a request, ascending by id.
pub(super) fn partials(request: &Request<'_>) -> Vec<Partial> {
    let mut by_id: HashMap<TraceId, Partial> = HashMap::new();
    for span in &request.spans {
        let service = request
            .services
            .get(span.service)
            .map_or("", String::as_str);
        by_id
            .entry(span.trace_id)
            .and_modify(|p| p.add(service, span))
            .or_insert_with(|| Partial::of(service, span));
    }
    let mut all: Vec<Partial> = by_id.into_values().collect();
    all.sort_by_key(|p| p.trace_id);
    all
}

/// Writes a footer; empty when it would be larger than the segments take.
pub(super) fn encode(partials: &[Partial]) -> Vec<u8> {
    let mut table = Vec::new();
    let mut messages = Vec::new();
    let mut known: HashMap<String, u64> = HashMap::new();
    let mut intern = |text: &str| {
        let next = known.len() as u64;
        *known.entry(text.to_owned()).or_insert_with(|| {
            put_bytes(&mut table, 1, text.as_bytes());
            next
        })
    };
    for partial in partials {
        let mut message = Vec::new();
        put_number(&mut message, 1, partial.start_ns);
        put_number(&mut message, 2, partial.end_ns - partial.start_ns);
        put_number(&mut message, 3, u64::from(partial.spans));
        put_number(&mut message, 4, u64::from(partial.errors));
        for (number, texts) in [(5, &partial.services), (6, &partial.routes)] {
            let mut packed = Vec::new();
            for text in texts {
                put_varint(&mut packed, intern(text));
            }
            put_bytes(&mut message, number, &packed);
        }
        let head = &partial.head;
        put_number(&mut message, 7, u64::from(head.is_root));
        put_number(&mut message, 8, head.start_ns);
        for (number, text) in [(9, &head.service), (10, &head.name), (11, &head.route)] {
            put_number(&mut message, number, intern(text));
        }
        put_number(&mut message, 12, u64::from(head.status_code));
        put_bytes(&mut messages, 2, &message);
    }
    let mut out = Vec::with_capacity(4 + partials.len() * 16 + table.len() + messages.len());
    out.extend_from_slice(&u32::try_from(partials.len()).unwrap_or(0).to_le_bytes());
    for partial in partials {
        out.extend_from_slice(&partial.trace_id.0);
    }
    out.extend_from_slice(&table);
    out.extend_from_slice(&messages);
    if out.len() > store::spool::MAX_FOOTER_BYTES {
        return Vec::new();
    }
    out
}

/// Whether a footer lists `id`; `None` when the footer is empty or damaged, so that the block must be read.
pub(super) fn contains(footer: &[u8], id: TraceId) -> Option<bool> {
    let (ids, _) = ids(footer)?;
    Some(ids.binary_search(&id.0).is_ok())
}

/// Reads a footer back; `None` when it is empty or damaged.
pub(super) fn decode(footer: &[u8]) -> Option<Vec<Partial>> {
    let (ids, rest) = ids(footer)?;
    decode_messages(ids, rest).ok()
}

fn ids(footer: &[u8]) -> Option<(&[[u8; 16]], &[u8])> {
    let (count, rest) = footer.split_first_chunk::<4>()?;
    let bytes = (u32::from_le_bytes(*count) as usize).checked_mul(16)?;
    let (ids, rest) = rest.split_at_checked(bytes)?;
    Some((ids.as_chunks::<16>().0, rest))
}

fn decode_messages(ids: &[[u8; 16]], rest: &[u8]) -> Result<Vec<Partial>, WireError> {
    let mut table: Vec<String> = Vec::new();
    let mut out = Vec::with_capacity(ids.len());
    let mut reader = Reader::new(rest);
    let mut next = ids.iter();
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => table.push(lossy(field.bytes(n)?)),
            2 => {
                let id = next.next().ok_or(WireError::Truncated)?;
                out.push(decode_one(TraceId(*id), field.bytes(n)?, &table)?);
            }
            _ => {}
        }
    }
    Ok(out)
}

fn decode_one(trace_id: TraceId, message: &[u8], table: &[String]) -> Result<Partial, WireError> {
    let text = |at: u64| {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        table.get(at).cloned().unwrap_or_default()
    };
    let small = |v: u64| u32::try_from(v).unwrap_or(u32::MAX);
    let mut partial = Partial {
        trace_id,
        ..Partial::default()
    };
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        let mut packed = Vec::new();
        match n {
            5 | 6 => repeated_varint(n, field, &mut packed)?,
            _ => packed.push(field.number(n)?),
        }
        let value = packed.first().copied().unwrap_or(0);
        match n {
            1 => partial.start_ns = value,
            2 => partial.end_ns = partial.start_ns.saturating_add(value),
            3 => partial.spans = small(value),
            4 => partial.errors = small(value),
            5 => partial.services = packed.into_iter().map(text).collect(),
            6 => partial.routes = packed.into_iter().map(text).collect(),
            7 => partial.head.is_root = value != 0,
            8 => partial.head.start_ns = value,
            9 => partial.head.service = text(value),
            10 => partial.head.name = text(value),
            11 => partial.head.route = text(value),
            12 => partial.head.status_code = u16::try_from(value).unwrap_or(0),
            _ => {}
        }
    }
    Ok(partial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::span::SpanId;
    use proptest::prelude::*;

    fn view(trace: u8, id: u8, parent: u8, start_ns: u64) -> SpanView<'static> {
        SpanView {
            trace_id: TraceId([trace; 16]),
            span_id: SpanId([id; 8]),
            parent_id: SpanId([parent; 8]),
            name: if parent == 0 { b"root" } else { b"child" },
            route: b"/r",
            start_ns,
            end_ns: start_ns + 10,
            ..SpanView::default()
        }
    }

    #[test]
    fn a_root_names_its_trace_whenever_it_comes() {
        let request = Request {
            services: vec!["a".into()],
            spans: vec![view(2, 2, 1, 5), view(2, 1, 0, 7), view(1, 1, 0, 1)],
            invalid: 0,
        };
        let all = partials(&request);
        assert_eq!(all[1].summary().root_name, "root");
        assert_eq!((all[1].start_ns, all[1].end_ns, all[1].spans), (5, 17, 2));
        let footer = encode(&all);
        assert_eq!(decode(&footer), Some(all.clone()));
        assert_eq!(contains(&footer, TraceId([1; 16])), Some(true));
        assert_eq!(contains(&footer, TraceId([3; 16])), Some(false));
        assert_eq!(contains(b"", TraceId([1; 16])), None);
        let mut merged = all[1].clone();
        merged.merge(Partial {
            start_ns: 1,
            head: Head {
                start_ns: 1,
                name: "earlier, no root".into(),
                ..Head::default()
            },
            ..all[1].clone()
        });
        assert_eq!(
            (merged.summary().root_name.as_str(), merged.spans),
            ("root", 4)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_footers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = contains(&bytes, TraceId([1; 16]));
        }
    }
}
