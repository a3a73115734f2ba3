//! `ExportTraceServiceRequest` on the wire: one pass that yields a view of every span, and full spans when read back.
//!
//! Owns OTLP's field numbers for traces. Must not know RED, graphs or storage.
//! Schema: opentelemetry-proto, `trace/v1/trace.proto`.

use model::span::{Attribute, Span, SpanEvent, SpanId, SpanKind, SpanLink, SpanStatus, TraceId};

use super::attributes::{self, AnyValue, checked, lossy};
use model::protobuf::{Reader, WireError};

/// What RED, the service graph and the trace index need of one span, borrowed from the request. Texts are the
/// sender's bytes, not yet checked to be UTF-8.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpanView<'a> {
    /// Index into [`Request::services`].
    pub service: usize,
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// Its parent; zero for a root.
    pub parent_id: SpanId,
    /// Its name.
    pub name: &'a [u8],
    /// Its kind.
    pub kind: SpanKind,
    /// Start, Unix nanoseconds.
    pub start_ns: u64,
    /// End, Unix nanoseconds.
    pub end_ns: u64,
    /// How it ended.
    pub status: SpanStatus,
    /// `http.route`.
    pub route: &'a [u8],
    /// `http.request.method` (or the older `http.method`).
    pub method: &'a [u8],
    /// `http.response.status_code` (or the older `http.status_code`), 0 for none.
    pub status_code: u16,
    /// `rpc.method`.
    pub rpc_method: &'a [u8],
    /// `peer.service`.
    pub peer: &'a [u8],
    /// `server.address` (or the older `net.peer.name`).
    pub server_address: &'a [u8],
    /// `db.system.name` (or the older `db.system`).
    pub db_system: &'a [u8],
    /// `db.namespace` (or the older `db.name`).
    pub db_namespace: &'a [u8],
    /// `messaging.system`.
    pub messaging_system: &'a [u8],
    /// `messaging.destination.name`.
    pub destination: &'a [u8],
    /// The first link's span, which a consumer has instead of a parent.
    pub link: Option<(TraceId, SpanId)>,
}

impl SpanView<'_> {
    /// Length in nanoseconds; 0 when it ends before it starts.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// A whole request, walked.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// `service.name` of each resource, in order of appearance.
    pub services: Vec<String>,
    /// Every valid span.
    pub spans: Vec<SpanView<'a>>,
    /// Spans without a valid trace id or span id.
    pub invalid: u64,
}

/// Bytes that walking and indexing a span may take besides its own.
pub const BYTES_PER_SPAN: usize = 700;

/// How many spans a request has, without looking into them.
pub fn count(request: &[u8]) -> Result<usize, WireError> {
    let mut count = 0;
    each_resource(request, |_, scopes| {
        for scope in scopes {
            each_span(scope, |_| {
                count += 1;
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(count)
}

/// Walks a request once. An error means the message is malformed and nothing of it may be used.
pub fn walk(request: &[u8]) -> Result<Request<'_>, WireError> {
    let mut out = Request::default();
    each_resource(request, |resource, scopes| {
        out.services.push(service_of(resource)?);
        let service = out.services.len() - 1;
        for scope in scopes {
            each_span(scope, |message| {
                match view(message)? {
                    Some(span) => out.spans.push(SpanView { service, ..span }),
                    None => out.invalid += 1,
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(out)
}

/// Reads the spans that `wanted` accepts (given their trace id) in full.
pub fn materialise(
    request: &[u8],
    wanted: impl Fn(TraceId) -> bool,
) -> Result<Vec<Span>, WireError> {
    let mut out = Vec::new();
    each_resource(request, |resource, scopes| {
        let mut attributes: Option<Vec<Attribute>> = None;
        for scope in scopes {
            each_span(scope, |message| {
                if !trace_id_of(message)?.is_some_and(&wanted) {
                    return Ok(());
                }
                if attributes.is_none() {
                    attributes = Some(attributes::resource(resource)?);
                }
                if let Some(resource) = &attributes {
                    out.extend(full(message, resource)?);
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(out)
}

/// Calls `then` for each `ResourceSpans` with its resource (empty when absent) and its `ScopeSpans` messages.
fn each_resource<'a>(
    request: &'a [u8],
    mut then: impl FnMut(&'a [u8], &[&'a [u8]]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut scopes = Vec::new();
    let mut reader = Reader::new(request);
    while let Some((n, field)) = reader.next_field()? {
        if n != 1 {
            continue;
        }
        let mut resource = &b""[..];
        scopes.clear();
        let mut inner = Reader::new(field.bytes(n)?);
        while let Some((n, field)) = inner.next_field()? {
            match n {
                1 => resource = field.bytes(n)?,
                // 1000 is the field's number before OTLP 0.15 (InstrumentationLibrarySpans).
                2 | 1000 => scopes.push(field.bytes(n)?),
                _ => {}
            }
        }
        then(resource, &scopes)?;
    }
    Ok(())
}

fn each_span<'a>(
    scope: &'a [u8],
    mut then: impl FnMut(&'a [u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut reader = Reader::new(scope);
    while let Some((n, field)) = reader.next_field()? {
        if n == 2 {
            then(field.bytes(n)?)?;
        }
    }
    Ok(())
}

/// The service's name; all attributes of the resource are checked.
fn service_of(resource: &[u8]) -> Result<String, WireError> {
    let mut name = &b""[..];
    let mut reader = Reader::new(resource);
    while let Some((n, field)) = reader.next_field()? {
        if n == 1 {
            let (key, value) = checked(field.bytes(n)?)?;
            if key == b"service.name" && name.is_empty() {
                name = value.as_text();
            }
        }
    }
    Ok(match name {
        [] => "unknown_service".to_owned(),
        name => lossy(name),
    })
}

fn trace_id_of(span: &[u8]) -> Result<Option<TraceId>, WireError> {
    let mut reader = Reader::new(span);
    while let Some((n, field)) = reader.next_field()? {
        if n == 1 {
            return Ok(field.bytes(n)?.try_into().ok().map(TraceId));
        }
    }
    Ok(None)
}

/// `None` when an id is missing, zero or of the wrong length.
fn view(message: &[u8]) -> Result<Option<SpanView<'_>>, WireError> {
    let mut span = SpanView::default();
    let mut valid = true;
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => match field.bytes(n)?.try_into() {
                Ok(id) => span.trace_id = TraceId(id),
                Err(_) => valid = false,
            },
            2 => match field.bytes(n)?.try_into() {
                Ok(id) => span.span_id = SpanId(id),
                Err(_) => valid = false,
            },
            4 => match field.bytes(n)? {
                [] => {}
                id => match id.try_into() {
                    Ok(id) => span.parent_id = SpanId(id),
                    Err(_) => valid = false,
                },
            },
            5 => span.name = field.bytes(n)?,
            6 => span.kind = SpanKind::from_otlp(field.number(n)?),
            7 => span.start_ns = field.number(n)?,
            8 => span.end_ns = field.number(n)?,
            9 => {
                let (key, value) = checked(field.bytes(n)?)?;
                note(&mut span, key, value);
            }
            11 => check_event(field.bytes(n)?)?,
            13 => {
                let link = link(field.bytes(n)?)?;
                span.link.get_or_insert((link.trace_id, link.span_id));
            }
            15 => span.status = status(field.bytes(n)?)?.0,
            _ => {}
        }
    }
    valid &= !span.trace_id.is_zero() && !span.span_id.is_zero();
    Ok(valid.then_some(span))
}

/// Remembers the attributes that labels are made of; new names win over old ones.
fn note<'a>(span: &mut SpanView<'a>, key: &'a [u8], value: AnyValue<'a>) {
    let newer = |slot: &mut &'a [u8]| *slot = value.as_text();
    let older = |slot: &mut &'a [u8]| {
        if slot.is_empty() {
            *slot = value.as_text();
        }
    };
    match key {
        b"http.route" => newer(&mut span.route),
        b"http.request.method" => newer(&mut span.method),
        b"http.method" => older(&mut span.method),
        b"http.response.status_code" => span.status_code = value.as_u16().unwrap_or(0),
        b"http.status_code" if span.status_code == 0 => {
            span.status_code = value.as_u16().unwrap_or(0);
        }
        b"rpc.method" => newer(&mut span.rpc_method),
        b"peer.service" | b"service.peer.name" => newer(&mut span.peer),
        b"server.address" => newer(&mut span.server_address),
        b"net.peer.name" => older(&mut span.server_address),
        b"db.system.name" => newer(&mut span.db_system),
        b"db.system" => older(&mut span.db_system),
        b"db.namespace" => newer(&mut span.db_namespace),
        b"db.name" => older(&mut span.db_namespace),
        b"messaging.system" => newer(&mut span.messaging_system),
        b"messaging.destination.name" => newer(&mut span.destination),
        _ => {}
    }
}

fn status(message: &[u8]) -> Result<(SpanStatus, &[u8]), WireError> {
    let (mut status, mut text) = (SpanStatus::Unset, &b""[..]);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            2 => text = field.bytes(n)?,
            3 => {
                status = match field.number(n)? {
                    1 => SpanStatus::Ok,
                    2 => SpanStatus::Error,
                    _ => SpanStatus::Unset,
                }
            }
            _ => {}
        }
    }
    Ok((status, text))
}

fn link(message: &[u8]) -> Result<SpanLink, WireError> {
    let mut link = SpanLink {
        trace_id: TraceId::default(),
        span_id: SpanId::default(),
    };
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => link.trace_id = TraceId(field.bytes(n)?.try_into().unwrap_or_default()),
            2 => link.span_id = SpanId(field.bytes(n)?.try_into().unwrap_or_default()),
            _ => {}
        }
    }
    Ok(link)
}

/// What [`event`] reads, without keeping it.
fn check_event(message: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => drop(field.number(n)?),
            2 => drop(field.bytes(n)?),
            3 => drop(checked(field.bytes(n)?)?),
            _ => {}
        }
    }
    Ok(())
}

fn event(message: &[u8]) -> Result<SpanEvent, WireError> {
    let mut event = SpanEvent {
        time_ns: 0,
        name: String::new(),
        attributes: Vec::new(),
    };
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => event.time_ns = field.number(n)?,
            2 => event.name = lossy(field.bytes(n)?),
            3 => event
                .attributes
                .push(attributes::to_attribute(field.bytes(n)?)?),
            _ => {}
        }
    }
    Ok(event)
}

fn full(message: &[u8], resource: &[Attribute]) -> Result<Option<Span>, WireError> {
    let Some(view) = view(message)? else {
        return Ok(None);
    };
    let mut span = Span {
        trace_id: view.trace_id,
        span_id: view.span_id,
        parent_id: view.parent_id,
        service: attributes::service_name(resource).to_owned(),
        name: lossy(view.name),
        kind: view.kind,
        start_ns: view.start_ns,
        end_ns: view.end_ns,
        status: view.status,
        resource: resource.to_vec(),
        ..Span::default()
    };
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            9 => span
                .attributes
                .push(attributes::to_attribute(field.bytes(n)?)?),
            11 => span.events.push(event(field.bytes(n)?)?),
            13 => span.links.push(link(field.bytes(n)?)?),
            15 => span.status_message = lossy(status(field.bytes(n)?)?.1),
            _ => {}
        }
    }
    Ok(Some(span))
}
