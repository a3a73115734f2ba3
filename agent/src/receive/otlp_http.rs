//! OTLP over HTTP: `/v1/traces`, `/v1/metrics`, `/v1/logs`, protobuf or JSON, gzip or not.
//!
//! Owns paths, content types and the form of answers. Must not know protobuf messages.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::json;

use super::body::{self, Encoding};
use super::json::Signal;
use super::otlp::{self, Failure, RETRY_AFTER_SECONDS, Receiver};
use crate::pipeline::Accepted;

type Answer = Response<Full<Bytes>>;

/// Answers one request.
pub async fn handle(receiver: Receiver, request: Request<Incoming>) -> Answer {
    let Some(signal) = signal(request.uri().path()) else {
        let text = "no such path; OTLP is received on /v1/traces, /v1/metrics and /v1/logs\n";
        return plain(StatusCode::NOT_FOUND, text);
    };
    if request.method() != Method::POST {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "use POST\n");
        answer
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
        return answer;
    }
    let Some(json) = is_json(request.headers().get(header::CONTENT_TYPE)) else {
        receiver
            .pipeline
            .telemetry
            .reject(signal.name(), "content_type");
        let text = "content-type must be application/x-protobuf or application/json\n";
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    };
    if !receiver.authorised(request.headers()) {
        receiver
            .pipeline
            .telemetry
            .reject(signal.name(), "unauthenticated");
        return error(
            StatusCode::UNAUTHORIZED,
            16,
            "a bearer token is required",
            json,
            false,
        );
    }
    let encoding = match request
        .headers()
        .get(header::CONTENT_ENCODING)
        .map(HeaderValue::as_bytes)
    {
        None | Some(b"" | b"identity") => Encoding::Identity,
        Some(b"gzip") => Encoding::Gzip,
        Some(_) => {
            receiver
                .pipeline
                .telemetry
                .reject(signal.name(), "content_encoding");
            let text = "content-encoding must be gzip or identity\n";
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        }
    };
    let taken = match body::read(request.into_body(), &receiver.limits).await {
        Ok(read) => receiver.take(signal, read, encoding, json, "http").await,
        Err(error) => Err(Failure::Body(error)),
    };
    match taken {
        Ok(accepted) => success(signal, &accepted, json),
        Err(failure) => {
            receiver.count(signal, &failure);
            let status = StatusCode::from_u16(failure.http_status()).unwrap_or_default();
            error(
                status,
                failure.grpc_status(),
                &failure.to_string(),
                json,
                failure.may_retry(),
            )
        }
    }
}

fn signal(path: &str) -> Option<Signal> {
    match path {
        "/v1/traces" => Some(Signal::Traces),
        "/v1/metrics" => Some(Signal::Metrics),
        "/v1/logs" => Some(Signal::Logs),
        _ => None,
    }
}

fn is_json(content_type: Option<&HeaderValue>) -> Option<bool> {
    let text = content_type?.to_str().ok()?;
    match text.split(';').next().unwrap_or("").trim() {
        "application/x-protobuf" => Some(false),
        "application/json" => Some(true),
        _ => None,
    }
}

fn success(signal: Signal, accepted: &Accepted, json: bool) -> Answer {
    if !json {
        return with_type(
            StatusCode::OK,
            "application/x-protobuf",
            otlp::response(accepted),
        );
    }
    let field = match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
        Signal::Logs => "rejectedLogRecords",
    };
    let body = if accepted.rejected == 0 {
        json!({})
    } else {
        json!({"partialSuccess": {
            field: accepted.rejected.to_string(),
            "errorMessage": accepted.reason,
        }})
    };
    with_type(
        StatusCode::OK,
        "application/json",
        body.to_string().into_bytes(),
    )
}

fn error(status: StatusCode, code: u32, message: &str, json: bool, retry: bool) -> Answer {
    let mut answer = if json {
        let body = json!({"code": code, "message": message}).to_string();
        with_type(status, "application/json", body.into_bytes())
    } else {
        with_type(
            status,
            "application/x-protobuf",
            otlp::status(code, message, retry),
        )
    };
    if retry {
        let seconds = HeaderValue::from(RETRY_AFTER_SECONDS);
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    with_type(
        status,
        "text/plain; charset=utf-8",
        text.as_bytes().to_vec(),
    )
}

fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let value = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(header::CONTENT_TYPE, value);
    answer
}
