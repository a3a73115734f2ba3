//! OTLP's answers and errors, shared by its two transports.
//!
//! Owns the mapping of outcomes: malformed is final, overload and a full disk may be retried, what was refused in part
//! is told by partial success. Must not know how they are framed. Specification: opentelemetry.io/docs/specs/otlp.

use std::sync::Arc;

use super::body::{self, BodyError, BodyLimits, Encoding, Read};
use super::json::Signal;
use crate::pipeline::{Accepted, Pipeline, Refused};
use model::protobuf::{put_bytes, put_number};

/// Bodies larger than this are worked on off the async threads.
const INLINE_BYTES: usize = 64 << 10;
/// Seconds after which a refused sender should try again.
pub const RETRY_AFTER_SECONDS: u64 = 1;

/// What a receiver needs. Cheap to clone.
#[derive(Clone)]
pub struct Receiver {
    /// Where requests go.
    pub pipeline: Arc<Pipeline>,
    /// What bodies may be.
    pub limits: BodyLimits,
    /// What clients must present.
    pub token: Option<Arc<str>>,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its body could not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It could not be used.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The worker died; a bug.
    #[error("internal error")]
    Internal,
}

// === impl Failure ===

impl Failure {
    /// A short name, for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Failure::Body(error) => error.reason(),
            Failure::Refused(Refused::Malformed(_)) => "malformed",
            Failure::Refused(Refused::Unavailable(_)) => "unavailable",
            Failure::Internal => "internal",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Failure::Body(BodyError::TooLarge(_) | BodyError::Bomb(_)) => 413,
            Failure::Body(BodyError::Truncated(_) | BodyError::Gzip(_))
            | Failure::Refused(Refused::Malformed(_)) => 400,
            Failure::Body(BodyError::Timeout(_)) => 408,
            Failure::Body(BodyError::Overloaded) => 429,
            Failure::Refused(Refused::Unavailable(_)) => 503,
            Failure::Internal => 500,
        }
    }

    /// The gRPC status.
    #[must_use]
    pub fn grpc_status(&self) -> u32 {
        match self {
            Failure::Body(
                BodyError::TooLarge(_)
                | BodyError::Bomb(_)
                | BodyError::Truncated(_)
                | BodyError::Gzip(_),
            )
            | Failure::Refused(Refused::Malformed(_)) => 3,
            Failure::Body(BodyError::Timeout(_)) => 4,
            Failure::Body(BodyError::Overloaded) => 8,
            Failure::Refused(Refused::Unavailable(_)) => 14,
            Failure::Internal => 13,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        matches!(
            self,
            Failure::Body(BodyError::Overloaded) | Failure::Refused(Refused::Unavailable(_))
        )
    }
}

// === impl Receiver ===

impl Receiver {
    /// Whether an `Authorization` header is good enough.
    #[must_use]
    pub fn authorised(&self, headers: &http::HeaderMap) -> bool {
        self.token
            .as_ref()
            .is_none_or(|token| bearer_matches(headers, token))
    }

    /// Decompresses and works on a body, off the async threads when it is large.
    pub async fn take(
        &self,
        signal: Signal,
        read: Read,
        encoding: Encoding,
        json: bool,
        transport: &'static str,
    ) -> Result<Accepted, Failure> {
        if read.bytes.len() <= INLINE_BYTES && encoding == Encoding::Identity {
            return self.work(signal, read, encoding, json, transport);
        }
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.work(signal, read, encoding, json, transport))
            .await
            .unwrap_or(Err(Failure::Internal))
    }

    fn work(
        &self,
        signal: Signal,
        read: Read,
        encoding: Encoding,
        json: bool,
        transport: &str,
    ) -> Result<Accepted, Failure> {
        let mut read = body::decompress(read, encoding, self.limits.bytes)?;
        if json {
            // Protobuf is hardly ever larger than the JSON it came from.
            Self::charge(&mut read, |read| read.bytes.len())?;
            read.bytes = super::json::to_protobuf(signal, &read.bytes)
                .map_err(|e| Refused::Malformed(format!("invalid OTLP/JSON: {e}")))?;
        }
        if signal == Signal::Traces {
            let spans =
                super::spans::count(&read.bytes).map_err(|e| Refused::Malformed(e.to_string()))?;
            Self::charge(&mut read, |_| {
                spans.saturating_mul(super::spans::BYTES_PER_SPAN)
            })?;
        }
        let bytes = &read.bytes;
        Ok(match signal {
            Signal::Traces => self.pipeline.traces(bytes, transport)?,
            Signal::Metrics => self.pipeline.metrics(bytes, transport)?,
            Signal::Logs => self.pipeline.logs(bytes, transport)?,
        })
    }

    /// Takes more bytes of the budget for what working on a body needs.
    fn charge(read: &mut Read, more: impl FnOnce(&Read) -> usize) -> Result<(), BodyError> {
        let bytes = read.bytes.len().saturating_add(more(read));
        if read.lease.grow_to(bytes) {
            Ok(())
        } else {
            Err(BodyError::Overloaded)
        }
    }

    /// Counts a refused request.
    pub fn count(&self, signal: Signal, failure: &Failure) {
        self.pipeline
            .telemetry
            .reject(signal.name(), failure.reason());
    }
}

/// Compares a bearer token in constant time.
#[must_use]
pub fn bearer_matches(headers: &http::HeaderMap, token: &str) -> bool {
    let given = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|v| v.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or(b"");
    let differing = given
        .iter()
        .zip(token.as_bytes().iter().cycle())
        .fold(0u8, |all, (a, b)| all | (a ^ b));
    given.len() == token.len() && differing == 0
}

impl Signal {
    /// As in counters and paths.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
        }
    }
}

/// An `Export…ServiceResponse`: empty, or with a partial success (the field numbers are the same for every signal).
#[must_use]
pub fn response(accepted: &Accepted) -> Vec<u8> {
    let mut out = Vec::new();
    if accepted.rejected > 0 {
        let mut partial = Vec::new();
        put_number(&mut partial, 1, accepted.rejected);
        put_bytes(&mut partial, 2, accepted.reason.as_bytes());
        put_bytes(&mut out, 1, &partial);
    }
    out
}

/// A `google.rpc.Status`, with `RetryInfo` when `retry` says so.
#[must_use]
pub fn status(code: u32, message: &str, retry: bool) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, 1, u64::from(code));
    put_bytes(&mut out, 2, message.as_bytes());
    if retry {
        let mut delay = Vec::new();
        put_number(&mut delay, 1, RETRY_AFTER_SECONDS);
        let mut info = Vec::new();
        put_bytes(&mut info, 1, &delay);
        let mut any = Vec::new();
        put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
        put_bytes(&mut any, 2, &info);
        put_bytes(&mut out, 3, &any);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_must_match_whole() {
        for (header, good) in [
            (Some("Bearer secret"), true),
            (Some("Bearer secretsecret"), false),
            (Some("Bearer secre"), false),
            (Some("Bearer "), false),
            (Some("secret"), false),
            (None, false),
        ] {
            let mut headers = http::HeaderMap::new();
            if let Some(header) = header {
                headers.insert("authorization", header.parse().unwrap());
            }
            assert_eq!(bearer_matches(&headers, "secret"), good, "{header:?}");
        }
    }
}
