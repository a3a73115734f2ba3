//! Remote read out: raw samples for another Prometheus-compatible server.
//!
//! Owns its limits and statuses. The messages are `model::prompb`'s. Must not know how series are found.
//! Specification: prometheus.io/docs/prometheus/latest/querying/remote_read_api. Answers are of type SAMPLES; a reader
//! that prefers chunks takes them too.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::prompb::{self, ReadRequest};
use model::protobuf::put_bytes;
use model::{SelectRequest, Source};

use super::state::Api;
use crate::own_spans::TARGET;
use crate::receive::body;
use crate::receive::remote_write;

/// Bytes of a request, before and after decompression.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Queries of one request.
const MAX_QUERIES: usize = 100;

/// A refusal: Prometheus answers remote reads with plain text.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

fn bad(problem: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, problem.to_string())
}

/// `POST /api/v1/read`.
pub(super) async fn remote_read(State(api): State<Api>, request: Request) -> Response {
    let begun = Instant::now();
    let telemetry = Arc::clone(&api.telemetry);
    let answer = answer(api, request).await;
    telemetry.query("remote_read", begun.elapsed().as_secs_f64());
    match answer {
        Ok(body) => {
            let headers = [
                (header::CONTENT_TYPE, "application/x-protobuf"),
                (header::CONTENT_ENCODING, "snappy"),
            ];
            (headers, body).into_response()
        }
        Err(refusal) => {
            let failures = &telemetry.query_failures;
            failures.with_label_values(&["remote_read"]).inc();
            refusal.into_response()
        }
    }
}

async fn answer(api: Api, request: Request) -> Result<Vec<u8>, Refusal> {
    let mut limits = api.limits.clone();
    limits.bytes = limits.bytes.min(MAX_REQUEST_BYTES);
    let read = body::read(request.into_body(), &limits)
        .await
        .map_err(bad)?;
    let message = remote_write::decompress(&read.bytes, MAX_REQUEST_BYTES).map_err(bad)?;
    let wanted = prompb::read_request(&message).map_err(bad)?;
    if wanted.queries.len() > MAX_QUERIES {
        return Err(bad(format!("more than {MAX_QUERIES} queries")));
    }
    if !wanted.accepted.is_empty() && !wanted.accepted.contains(&0) {
        return Err(bad(
            "none of requested response types are supported; ask for SAMPLES",
        ));
    }
    let timeout = api.config.query.timeout.duration();
    let work = async move {
        let turn = Arc::clone(&api.turns).acquire_owned().await;
        let limit = api.config.query.remote_read_samples;
        let source = api.pipeline.ingest.source();
        let worker = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let _entered = tracing::info_span!(target: TARGET, "remote read").entered();
            respond(source.as_ref(), &wanted, limit)
        });
        worker.await.unwrap_or_else(|_| {
            let failed = "the worker failed".to_owned();
            Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, failed))
        })
    };
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| {
            let late = "remote read timed out".to_owned();
            Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, late))
        })
}

/// The `ReadResponse`, compressed. At most `limit` samples over all queries.
fn respond(source: &dyn Source, wanted: &ReadRequest, limit: usize) -> Result<Vec<u8>, Refusal> {
    let (mut message, mut left) = (Vec::new(), limit);
    for query in &wanted.queries {
        let request = SelectRequest {
            matchers: &query.matchers,
            start_ms: query.start_ms,
            end_ms: query.end_ms,
            max_points: left,
        };
        let mut found = source.select(&request).map_err(|e| match e {
            model::SourceError::TooManyPoints { .. } => {
                bad(format!("exceeded sample limit ({limit})"))
            }
            model::SourceError::Refused(text) => bad(text),
            other => Refusal(StatusCode::INTERNAL_SERVER_ERROR, other.to_string()),
        })?;
        // Prometheus merges results of several servers and wants each sorted.
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut result = Vec::new();
        for series in &found {
            left = left.saturating_sub(series.points.len());
            put_bytes(&mut result, 1, &prompb::series(series));
        }
        drop(found);
        put_bytes(&mut message, 1, &result);
    }
    snap::raw::Encoder::new()
        .compress_vec(&message)
        .map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}
