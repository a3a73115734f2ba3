//! OTLP over gRPC, on bytes: unary calls, five-byte frames, gzip, trailers.
//!
//! Owns gRPC's framing and statuses. Must not know protobuf messages.
//! Specification: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md.

use base64::Engine as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{Empty, Full};
use hyper::body::{Bytes, Incoming};

use super::body::{self, BodyError, Encoding, Read};
use super::json::Signal;
use super::otlp::{self, Failure, Receiver};
use crate::pipeline::Accepted;

/// The bytes before a message: a flag and the length.
const FRAME: usize = 5;
const UNIMPLEMENTED: u32 = 12;
const UNAUTHENTICATED: u32 = 16;

type Answer = Response<BoxBody<Bytes, std::convert::Infallible>>;

/// Answers one call.
pub async fn handle(receiver: Receiver, request: Request<Incoming>) -> Answer {
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    let content_type = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    if !matches!(
        content_type,
        b"application/grpc" | b"application/grpc+proto"
    ) {
        let mut answer = Response::new(Empty::new().boxed());
        *answer.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return answer;
    }
    let Some(signal) = signal(request.uri().path()) else {
        let message = format!("no such method: {}", request.uri().path());
        return refuse(UNIMPLEMENTED, &message, false);
    };
    if !receiver.authorised(request.headers()) {
        receiver
            .pipeline
            .telemetry
            .reject(signal.name(), "unauthenticated");
        return refuse(UNAUTHENTICATED, "a bearer token is required", false);
    }
    let encoding = match request
        .headers()
        .get("grpc-encoding")
        .map(HeaderValue::as_bytes)
    {
        None | Some(b"identity") => Encoding::Identity,
        Some(b"gzip") => Encoding::Gzip,
        Some(_) => {
            let mut answer = refuse(UNIMPLEMENTED, "only gzip and identity are supported", false);
            let headers = answer.headers_mut();
            headers.insert(
                "grpc-accept-encoding",
                HeaderValue::from_static("identity,gzip"),
            );
            return answer;
        }
    };
    match call(&receiver, signal, encoding, request.into_body()).await {
        Ok(accepted) => answer(&otlp::response(&accepted)),
        Err(failure) => {
            receiver.count(signal, &failure);
            refuse(
                failure.grpc_status(),
                &failure.to_string(),
                failure.may_retry(),
            )
        }
    }
}

async fn call(
    receiver: &Receiver,
    signal: Signal,
    encoding: Encoding,
    body: Incoming,
) -> Result<Accepted, Failure> {
    let mut limits = receiver.limits.clone();
    limits.bytes += FRAME;
    let read = body::read(body, &limits).await?;
    let (read, compressed) = unframe(read)?;
    let encoding = if compressed {
        encoding
    } else {
        Encoding::Identity
    };
    receiver.take(signal, read, encoding, false, "grpc").await
}

/// Takes the one message out of its frame, and whether it is compressed.
fn unframe(read: Read) -> Result<(Read, bool), BodyError> {
    let Read { mut bytes, lease } = read;
    let truncated = |what: &str| BodyError::Truncated(what.to_owned());
    let Some(header) = bytes.first_chunk::<FRAME>() else {
        return Err(truncated("no whole gRPC frame"));
    };
    let flag = header[0];
    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    match (bytes.len() - FRAME).cmp(&len) {
        std::cmp::Ordering::Less => Err(truncated("the gRPC frame ends early")),
        std::cmp::Ordering::Greater => Err(truncated("more than one message in a unary call")),
        std::cmp::Ordering::Equal if flag > 1 => Err(truncated("unknown gRPC frame flag")),
        std::cmp::Ordering::Equal => {
            bytes.drain(..FRAME);
            Ok((Read { bytes, lease }, flag == 1))
        }
    }
}

fn signal(path: &str) -> Option<Signal> {
    match path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Signal::Traces),
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Some(Signal::Metrics),
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Signal::Logs),
        _ => None,
    }
}

fn answer(message: &[u8]) -> Answer {
    let mut frame = Vec::with_capacity(FRAME + message.len());
    frame.push(0);
    frame.extend_from_slice(
        &u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    frame.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut answer = Response::new(body.boxed());
    let headers = answer.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert(
        "grpc-accept-encoding",
        HeaderValue::from_static("identity,gzip"),
    );
    answer
}

/// An answer that has only headers.
fn refuse(code: u32, message: &str, retry: bool) -> Answer {
    let mut answer = Response::new(Empty::new().boxed());
    let headers = answer.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code));
    if let Ok(value) = HeaderValue::try_from(percent_encode(message)) {
        headers.insert("grpc-message", value);
    }
    if retry {
        let details = otlp::status(code, message, true);
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(details);
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert("grpc-status-details-bin", value);
        }
    }
    answer
}

/// As gRPC wants messages: printable ASCII but `%` stays.
fn percent_encode(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn frames_hold_exactly_one_message() {
        let read = |bytes: &[u8]| Read {
            bytes: bytes.to_vec(),
            lease: Budget::new(100).lease(),
        };
        let (message, compressed) = unframe(read(&[1, 0, 0, 0, 2, 7, 8])).unwrap();
        assert_eq!((message.bytes, compressed), (vec![7, 8], true));
        for bad in [
            &[][..],
            &[0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 7],
            &[0, 0, 0, 0, 1, 7, 8],
            &[2, 0, 0, 0, 0],
        ] {
            assert!(unframe(read(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(percent_encode("50% é\n"), "50%25 %C3%A9%0A");
    }
}
