//! Remote write in, 1.0 and 2.0.
//!
//! Owns the choice of the version and its statuses: 204 when taken, 400 when it can never be, 5xx and 429 when it should come again. Must not know
//! the protobuf.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::respond::ApiError;
use super::state::{Api, blocking};
use crate::pipeline::{Refused, Written, refusal};
use crate::receive::body::{self, BodyError};
use crate::receive::remote_write::{self, Write, WriteError};
use crate::receive::remote_write_v2;

const SAMPLES_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-samples-written");
const HISTOGRAMS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-histograms-written");
const EXEMPLARS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written");

/// Decompressed bytes for each byte that a body may have: snappy seldom reaches more, and requests are small.
const EXPANSION: usize = 4;

/// Bytes in memory for each byte of a message: small samples grow most.
const BYTES_PER_BYTE: usize = 4;

/// Which message a body holds. The sender opts into 2.0 by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Reads a message.
type Walk = fn(&[u8]) -> Result<Write, WriteError>;

/// A refusal: what the sender is told, the reason that is counted, and what of the request was kept all the same.
type Refusal = (ApiError, &'static str, Written);

/// `POST /api/v1/write`.
pub(super) async fn remote_write(State(api): State<Api>, request: Request) -> Response {
    let version = version(&request);
    let (mut response, written) = match write(&api, request, version.clone()).await {
        Ok(written) => (StatusCode::NO_CONTENT.into_response(), written),
        Err((error, reason, written)) => {
            api.telemetry.reject("samples", reason);
            (error.into_response(), written)
        }
    };
    if version == Ok(Version::V2) {
        for (name, count) in [
            (SAMPLES_WRITTEN, written.floats_taken),
            (HISTOGRAMS_WRITTEN, written.histograms_taken),
            (EXEMPLARS_WRITTEN, written.exemplars),
        ] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from(count));
        }
    }
    response
}

async fn write(
    api: &Api,
    request: Request,
    version: Result<Version, ApiError>,
) -> Result<Written, Refusal> {
    let nothing = |error, reason| (error, reason, Written::default());
    let version = version.map_err(|e| nothing(e, "content_type"))?;
    let read = body::read(request.into_body(), &api.limits)
        .await
        .map_err(|e| nothing(body_error(&e), e.reason()))?;
    let (pipeline, limit) = (api.pipeline.clone(), api.limits.bytes * EXPANSION);
    let result = blocking(move || {
        let mut lease = read.lease;
        let taken = remote_write::decompress(&read.bytes, limit).and_then(|message| {
            let (growth, walk): (usize, Walk) = match version {
                Version::V1 => (BYTES_PER_BYTE, remote_write::read),
                Version::V2 => (remote_write_v2::EXPANSION, remote_write_v2::walk),
            };
            if !lease.grow_to(read.bytes.len() + message.len() * growth) {
                return Ok(None);
            }
            Ok(Some((walk(&message)?, message.len())))
        });
        Ok(taken.map(|taken| taken.map(|(write, bytes)| pipeline.remote_write(write, bytes))))
    })
    .await
    .map_err(|e| nothing(e, "internal"))?;
    match result {
        Err(error) => Err(nothing(write_error(&error), "malformed")),
        Ok(None) => Err(nothing(
            ApiError::new("overloaded", "too many bytes are in flight"),
            "overloaded",
        )),
        Ok(Some(Err(Refused::Malformed(text)))) => {
            Err(nothing(ApiError::bad_data(text), "malformed"))
        }
        Ok(Some(Err(Refused::Unavailable(text)))) => {
            Err(nothing(ApiError::new("unavailable", text), "unavailable"))
        }
        Ok(Some(Ok(written))) if written.total().refused() > 0 => {
            let error = ApiError::bad_data(refusal(&written.total()));
            Err((error, "partly_refused", written))
        }
        Ok(Some(Ok(written))) => Ok(written),
    }
}

fn version(request: &Request) -> Result<Version, ApiError> {
    let header = |name| {
        let value = request.headers().get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or("")
    };
    let refuse = |text: &str| Err(ApiError::new("unsupported", text));
    if !matches!(header(header::CONTENT_ENCODING), "" | "snappy") {
        return refuse("content-encoding must be snappy");
    }
    let mut parts = header(header::CONTENT_TYPE).split(';').map(str::trim);
    if !matches!(parts.next(), Some("" | "application/x-protobuf")) {
        return refuse("content-type must be application/x-protobuf");
    }
    match parts.find_map(|p| p.strip_prefix("proto=")) {
        None | Some("prometheus.WriteRequest") => Ok(Version::V1),
        Some("io.prometheus.write.v2.Request") => Ok(Version::V2),
        Some(_) => {
            refuse("proto must be prometheus.WriteRequest or io.prometheus.write.v2.Request")
        }
    }
}

fn body_error(error: &BodyError) -> ApiError {
    let kind = match error {
        BodyError::TooLarge(_) | BodyError::Bomb(_) => "too_large",
        BodyError::Overloaded => "overloaded",
        BodyError::Timeout(_) => "timeout",
        BodyError::Truncated(_) | BodyError::Gzip(_) => "bad_data",
    };
    ApiError::new(kind, error.to_string())
}

fn write_error(error: &WriteError) -> ApiError {
    let kind = match error {
        WriteError::TooLarge(_) => "too_large",
        _ => "bad_data",
    };
    ApiError::new(kind, error.to_string())
}
