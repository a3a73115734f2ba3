//! Answers and errors in Prometheus' envelope.
//!
//! Owns the mapping of error types to HTTP statuses. Must not know what is answered.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::api::Envelope;
use serde::Serialize;

/// A refusal: Prometheus' error type and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    kind: &'static str,
    message: String,
}

// === impl ApiError ===

impl ApiError {
    /// An error of type `kind`: `bad_data`, `execution`, `timeout`, `canceled`, `internal`, `not_found`, `unavailable`.
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            kind,
            message: message.into(),
        }
    }

    /// The caller's mistake.
    pub(crate) fn bad_data(message: impl Into<String>) -> Self {
        ApiError::new("bad_data", message)
    }

    /// A parameter that cannot be read, in Prometheus' words.
    pub(crate) fn parameter(name: &str, problem: impl std::fmt::Display) -> Self {
        ApiError::bad_data(format!("invalid parameter {name:?}: {problem}"))
    }

    /// The error's type.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    fn status(&self) -> StatusCode {
        match self.kind {
            "bad_data" => StatusCode::BAD_REQUEST,
            "execution" => StatusCode::UNPROCESSABLE_ENTITY,
            "not_found" => StatusCode::NOT_FOUND,
            "unauthorized" => StatusCode::UNAUTHORIZED,
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            "unsupported" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "overloaded" => StatusCode::TOO_MANY_REQUESTS,
            "timeout" | "canceled" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json(&Envelope::<()>::error(self.kind, self.message.clone()));
        *response.status_mut() = self.status();
        if matches!(self.kind, "overloaded" | "unavailable") {
            let seconds = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<store::StoreError> for ApiError {
    fn from(error: store::StoreError) -> Self {
        ApiError::new("internal", error.to_string())
    }
}

impl From<model::SourceError> for ApiError {
    fn from(error: model::SourceError) -> Self {
        let kind = match error {
            model::SourceError::TooManyPoints { .. } => "execution",
            model::SourceError::Unavailable(_) => "unavailable",
            model::SourceError::Refused(_) => "bad_data",
            model::SourceError::Corrupt(_) => "internal",
        };
        ApiError::new(kind, error.to_string())
    }
}

/// Data in the envelope of success.
pub(crate) fn success<T: Serialize>(data: T) -> Response {
    json(&Envelope::success(data))
}

/// A body as JSON.
pub(crate) fn json<T: Serialize>(body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => json_bytes(bytes),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A body that is JSON already.
pub(crate) fn json_bytes(bytes: Vec<u8>) -> Response {
    json_body(Body::from(bytes))
}

/// The same, in whatever pieces.
pub(crate) fn json_body(body: Body) -> Response {
    let mut response = Response::new(body);
    let value = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
