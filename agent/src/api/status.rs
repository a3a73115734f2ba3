//! What the agent says about itself: health, targets, build, store, flush, own metrics.
//!
//! Owns those bodies. Must not know how anything is computed.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use model::api::SelfStatus;
use model::timestamp::format_rfc3339;
use serde_json::{Value as Json, json};

use super::form::Params;
use super::respond::{ApiError, success};
use super::state::{Api, blocking};
use crate::clock;
use crate::ingest::Target;
use crate::observe;

/// How long a flush waits for collectors.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);
/// The version of Prometheus whose API this is; clients look at it to know which features there are.
const API_VERSION: &str = "3.5.0";

/// The two probes: whoever is answered is alive, and listeners are bound only when everything is open.
pub(super) async fn healthy() -> &'static str {
    "nines agent is healthy.\n"
}

/// `GET /metrics`.
pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, ApiError> {
    let text = blocking(move || {
        observe::look_up(&api);
        Ok(api.telemetry.text())
    })
    .await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// `POST flush`: everything received before it is queryable after it.
pub(super) async fn flush(State(api): State<Api>) -> Result<Response, ApiError> {
    let in_time = api.pipeline.ingest.flushes().flush(FLUSH_DEADLINE).await;
    blocking(move || {
        api.pipeline.flush_spans(clock::now_ms());
        Ok(())
    })
    .await?;
    if !in_time {
        return Err(ApiError::new(
            "timeout",
            "a collector did not finish within 10s",
        ));
    }
    Ok(success(json!({"flushed": true})))
}

/// `GET self`.
pub(super) async fn self_status(State(api): State<Api>) -> Result<Response, ApiError> {
    let body = blocking(move || {
        let now_ms = clock::now_ms();
        let stats = api.store.stats();
        let kept = observe::disk_bytes(&api);
        let counted = |signal: &str| observe::received(&api.telemetry, signal);
        Ok(SelfStatus {
            name: api.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: api.telemetry.started_ms(),
            now_ms,
            time_scale: api.config.alerts.time_scale,
            series: stats.series as u64,
            samples: stats.appended,
            spans: counted("traces"),
            logs: counted("logs"),
            dropped: api.telemetry.losses(),
            lag_ms: stats
                .head_bounds
                .map_or(0, |(_, newest)| (now_ms - newest).max(0)),
            disk_bytes: kept,
            wal_bytes: stats.log_bytes,
            queries: api.telemetry.queries(),
            rss_bytes: observe::resident_bytes(),
        })
    })
    .await?;
    Ok(success(body))
}

/// `GET targets?state=active|dropped|any`.
pub(super) async fn targets(State(api): State<Api>, params: Params) -> Response {
    let active: Vec<Json> = match params.get("state") {
        Some("dropped") => Vec::new(),
        _ => api.pipeline.ingest.targets().iter().map(target).collect(),
    };
    success(json!({
        "activeTargets": active,
        "droppedTargets": [],
        "droppedTargetCounts": {},
    }))
}

fn target(target: &Target) -> Json {
    let health = match target.up {
        Some(true) => "up",
        Some(false) => "down",
        None => "unknown",
    };
    json!({
        "discoveredLabels": target.discovered,
        "labels": target.labels,
        "scrapePool": target.job,
        "scrapeUrl": target.url,
        "globalUrl": target.url,
        "lastError": target.last_error,
        "lastScrape": format_rfc3339(target.last_ms),
        "lastScrapeDuration": target.duration_seconds,
        "health": health,
        "scrapeInterval": model::duration::format_ms(target.interval_ms),
        "scrapeTimeout": model::duration::format_ms(target.timeout_ms),
    })
}

/// `GET status/buildinfo`. Grafana reads the version to know what the API can do.
pub(super) async fn build_info() -> Response {
    success(json!({
        "version": API_VERSION,
        "revision": concat!("nines-", env!("CARGO_PKG_VERSION")),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

/// `GET status/flags`.
pub(super) async fn flags(State(api): State<Api>) -> Response {
    success(json!({
        "query.timeout": api.config.query.timeout.to_string(),
        "query.max-samples": api.config.query.max_samples.to_string(),
        "query.max-concurrency": api.config.query.concurrency.to_string(),
        "query.lookback-delta": api.config.query.lookback.to_string(),
        "storage.tsdb.path": api.config.data_dir.display().to_string(),
        "storage.tsdb.retention.time": api.config.retention.to_string(),
        "web.listen-address": api.config.listen,
    }))
}

/// `GET status/config`. Nothing of it is shown: scrape URLs may hold passwords.
pub(super) async fn config() -> Response {
    success(json!({"yaml": ""}))
}

/// `GET status/runtimeinfo`.
pub(super) async fn runtime_info(State(api): State<Api>) -> Response {
    success(json!({
        "startTime": format_rfc3339(api.telemetry.started_ms()),
        "CWD": "",
        "reloadConfigSuccess": true,
        "lastConfigTime": format_rfc3339(api.telemetry.started_ms()),
        "corruptionCount": 0,
        "goroutineCount": 0,
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, usize::from),
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": api.config.retention.to_string(),
    }))
}
