//! Remote write in.
//!
//! Owns its statuses: 204 when taken, 400 when it can never be, 5xx and 429 when it should come again. Must not know
//! the protobuf.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::respond::ApiError;
use super::state::{Api, blocking};
use crate::pipeline::{Refused, refusal};
use crate::receive::body::{self, BodyError};
use crate::receive::remote_write::{self, WriteError};

/// Decompressed bytes for each byte that a body may have: snappy seldom reaches more, and requests are small.
const EXPANSION: usize = 4;

/// Bytes in memory for each byte of a message: small samples grow most.
const BYTES_PER_BYTE: usize = 4;

/// `POST /api/v1/write`.
pub(super) async fn remote_write(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, ApiError> {
    let refused = write(&api, request).await;
    if let Err((error, reason)) = &refused {
        api.telemetry.reject("samples", reason);
        return Err(error.clone());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn write(api: &Api, request: Request) -> Result<(), (ApiError, &'static str)> {
    check_headers(&request)?;
    let read = body::read(request.into_body(), &api.limits)
        .await
        .map_err(|e| (body_error(&e), e.reason()))?;
    let (pipeline, limit) = (api.pipeline.clone(), api.limits.bytes * EXPANSION);
    let result = blocking(move || {
        let mut lease = read.lease;
        let taken = remote_write::decompress(&read.bytes, limit).and_then(|message| {
            let room = lease.grow_to(read.bytes.len() + message.len() * BYTES_PER_BYTE);
            Ok((remote_write::walk(&message)?, message.len(), room))
        });
        Ok(taken.map(|(write, bytes, room)| room.then(|| pipeline.remote_write(write, bytes))))
    })
    .await
    .map_err(|e| (e, "internal"))?;
    match result {
        Err(error) => Err((write_error(&error), "malformed")),
        Ok(None) => Err((
            ApiError::new("overloaded", "too many bytes are in flight"),
            "overloaded",
        )),
        Ok(Some(Err(Refused::Malformed(text)))) => Err((ApiError::bad_data(text), "malformed")),
        Ok(Some(Err(Refused::Unavailable(text)))) => {
            Err((ApiError::new("unavailable", text), "unavailable"))
        }
        Ok(Some(Ok(appended))) if appended.refused() > 0 => {
            Err((ApiError::bad_data(refusal(&appended)), "partly_refused"))
        }
        Ok(Some(Ok(_))) => Ok(()),
    }
}

fn check_headers(request: &Request) -> Result<(), (ApiError, &'static str)> {
    let header = |name| {
        let value = request.headers().get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or("")
    };
    let refuse = |text: &str| Err((ApiError::new("unsupported", text), "content_type"));
    let content_type = header(header::CONTENT_TYPE);
    if content_type.contains("io.prometheus.write.v2") {
        return refuse("only remote write 1.0 (prometheus.WriteRequest) is supported");
    }
    if !content_type.is_empty() && !content_type.starts_with("application/x-protobuf") {
        return refuse("content-type must be application/x-protobuf");
    }
    if !matches!(header(header::CONTENT_ENCODING), "" | "snappy") {
        return refuse("content-encoding must be snappy");
    }
    Ok(())
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
