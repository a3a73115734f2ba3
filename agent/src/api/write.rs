//! Remote write in, 1.0 and 2.0.
//!
//! Owns the choice of the version and its statuses: 204 when taken, 400 when it can never be, 5xx and 429 when it should come again. Must not know
//! the protobuf.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::respond::ApiError;
use super::state::{Api, blocking};
use crate::pipeline::{Pipeline, Refused, Written, refusal};
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
        let message = match remote_write::decompress(&read.bytes, limit) {
            Ok(message) => message,
            Err(error) => return Ok(Err(error)),
        };
        let held = read.bytes.len() + message.len() * version.growth();
        if !lease.grow_to(held) {
            return Ok(Ok(None));
        }
        Ok(take(&pipeline, &message, version).map(Some))
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

/// Reads a message and keeps what it holds.
fn take(
    pipeline: &Pipeline,
    message: &[u8],
    version: Version,
) -> Result<Result<Written, Refused>, WriteError> {
    if let (Version::V1, Some(store)) = (version, pipeline.ingest.by_id()) {
        let write = remote_write::read(message, Some(store))?;
        let done = pipeline.remote_write(write, message.len()).transpose();
        if let Some(done) = done {
            return Ok(done);
        }
    }
    let write = version.read(message)?;
    let done = pipeline.remote_write(write, message.len());
    Ok(done.map(Option::unwrap_or_default))
}

// === impl Version ===

impl Version {
    /// Bytes in memory for each byte of a message.
    fn growth(self) -> usize {
        match self {
            Version::V1 => BYTES_PER_BYTE,
            Version::V2 => remote_write_v2::EXPANSION,
        }
    }

    /// Reads a message, every series by its labels.
    fn read(self, message: &[u8]) -> Result<Write, WriteError> {
        match self {
            Version::V1 => remote_write::read(message, None),
            Version::V2 => remote_write_v2::walk(message),
        }
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
