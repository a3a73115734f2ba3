//! Traces and logs by search and by id.
//!
//! Owns their parameters. Must not know how they are kept.

use axum::extract::{Path, State};
use axum::response::Response;
use model::log::Severity;
use model::span::TraceId;

use super::form::Params;
use super::respond::{ApiError, success};
use super::state::{Api, blocking};
use crate::clock;
use crate::keep::logs::LogQuery;
use crate::keep::traces::TraceQuery;
use crate::own_spans::TARGET;

/// Items that are listed when the caller does not say.
const DEFAULT_LIMIT: usize = 100;
/// Items that are listed at most.
const MAX_LIMIT: usize = 10_000;
/// How far back a search goes when the caller does not say.
const DEFAULT_WINDOW_MS: i64 = 3_600_000;

/// `GET traces?service&route&min_duration&max_duration&status&error&start&end&limit`.
pub(super) async fn traces(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let (start_ns, end_ns) = window(&params)?;
    let query = TraceQuery {
        service: params.get("service").map(str::to_owned),
        route: params.get("route").map(str::to_owned),
        min_duration_ns: duration_ns(&params, "min_duration")?,
        max_duration_ns: duration_ns(&params, "max_duration")?,
        status: status(&params)?,
        error: params.flag("error")?,
        start_ns: Some(start_ns),
        end_ns: Some(end_ns),
        limit: limit(&params)?,
    };
    let found = blocking(move || {
        let _span = tracing::info_span!(target: TARGET, "search traces").entered();
        Ok(api.pipeline.traces.search(&query))
    })
    .await?;
    Ok(success(found.traces))
}

/// `GET traces/{id}`.
pub(super) async fn trace(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = trace_id("id", &id)?;
    let spans = blocking(move || Ok(api.pipeline.traces.trace(id)?)).await?;
    if spans.is_empty() {
        return Err(ApiError::new("not_found", format!("no trace {id} is kept")));
    }
    Ok(success(spans))
}

/// `GET logs?service&severity&text&trace_id&start&end&limit`.
pub(super) async fn logs(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let (start_ns, end_ns) = window(&params)?;
    let trace_id = params.get("trace_id").map(|t| trace_id("trace_id", t));
    let query = LogQuery {
        service: params.get("service").map(str::to_owned),
        severity: severity(&params)?,
        text: params.get("text").map(str::to_owned),
        trace_id: trace_id.transpose()?,
        start_ns: Some(start_ns),
        end_ns: Some(end_ns),
        limit: limit(&params)?,
    };
    let found = blocking(move || {
        let _span = tracing::info_span!(target: TARGET, "search logs").entered();
        Ok(api.pipeline.logs.search(&query))
    })
    .await?;
    Ok(success(found))
}

/// From `start` (default an hour before `end`) to `end` (default now, and what clocks ahead of ours say).
fn window(params: &Params) -> Result<(u64, u64), ApiError> {
    let end_ms = params.time("end")?;
    let start_ms = match params.time("start")? {
        Some(start_ms) => start_ms,
        None => end_ms.unwrap_or_else(clock::now_ms) - DEFAULT_WINDOW_MS,
    };
    let ns = |ms: i64| ms.max(0).unsigned_abs().saturating_mul(1_000_000);
    let end_ns = end_ms.map_or(u64::MAX, |ms| ns(ms).saturating_add(999_999));
    Ok((ns(start_ms), end_ns))
}

fn limit(params: &Params) -> Result<usize, ApiError> {
    Ok(params
        .count("limit")?
        .unwrap_or(DEFAULT_LIMIT)
        .min(MAX_LIMIT))
}

fn duration_ns(params: &Params, name: &str) -> Result<Option<u64>, ApiError> {
    let ms = params.duration(name)?;
    Ok(ms.map(|ms| ms.max(0).unsigned_abs().saturating_mul(1_000_000)))
}

fn status(params: &Params) -> Result<Option<String>, ApiError> {
    let Some(text) = params.get("status") else {
        return Ok(None);
    };
    let class = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX"));
    if class.unwrap_or(text).parse::<u16>().is_err() {
        let problem = format!("{text:?} is neither a status such as 500 nor a class such as 5xx");
        return Err(ApiError::parameter("status", problem));
    }
    Ok(Some(text.to_owned()))
}

fn severity(params: &Params) -> Result<Option<Severity>, ApiError> {
    Ok(Some(match params.get("severity") {
        None => return Ok(None),
        Some("trace") => Severity::Trace,
        Some("debug") => Severity::Debug,
        Some("info") => Severity::Info,
        Some("warn") => Severity::Warn,
        Some("error") => Severity::Error,
        Some("fatal") => Severity::Fatal,
        Some(other) => {
            let problem = format!("{other:?} is none of trace, debug, info, warn, error, fatal");
            return Err(ApiError::parameter("severity", problem));
        }
    }))
}

fn trace_id(name: &str, text: &str) -> Result<TraceId, ApiError> {
    TraceId::from_hex(text)
        .ok_or_else(|| ApiError::parameter(name, format!("{text:?} is not 32 hex digits")))
}
