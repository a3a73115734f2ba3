//! Rules, alerts, SLOs, the log of alert events, and what Alertmanager's v2 API offers.
//!
//! Owns parameters and filters. Must not know how alerts are judged or delivered.

use std::collections::BTreeSet;

use alerts::silence::{PostableSilence, SilenceError, am_status, parse_matcher};
use axum::Json as AxumJson;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use super::form::Params;
use super::respond::{self, ApiError, success};
use super::state::{Api, blocking};
use crate::clock;

/// Events that are listed when the caller does not say.
const DEFAULT_EVENTS: usize = 1_000;

/// `rules?type&rule_name[]&rule_group[]&file[]&exclude_alerts`.
pub(super) async fn rules(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let kind = match params.get("type") {
        None => "",
        Some("alert") => "alerting",
        Some("record") => "recording",
        Some(other) => {
            return Err(ApiError::bad_data(format!("not supported value {other:?}")));
        }
    };
    let set = |name: &str| params.all(name).map(str::to_owned).collect::<BTreeSet<_>>();
    let (names, groups, files) = (set("rule_name[]"), set("rule_group[]"), set("file[]"));
    let bare = params.flag("exclude_alerts")?.unwrap_or(false);
    let filtering = !(kind.is_empty() && names.is_empty());
    let mut body = blocking(move || Ok(api.judge.rules())).await?;
    let wanted = |set: &BTreeSet<String>, name: &String| set.is_empty() || set.contains(name);
    body.groups
        .retain(|g| wanted(&groups, &g.name) && wanted(&files, &g.file));
    for group in &mut body.groups {
        group
            .rules
            .retain(|r| (kind.is_empty() || r.kind == kind) && wanted(&names, &r.name));
        if bare {
            group.rules.iter_mut().for_each(|r| r.alerts.clear());
        }
    }
    body.groups.retain(|g| !filtering || !g.rules.is_empty());
    Ok(success(body))
}

/// `alerts`.
pub(super) async fn alerts(State(api): State<Api>) -> Result<Response, ApiError> {
    Ok(success(blocking(move || Ok(api.judge.alerts())).await?))
}

/// `slos`.
pub(super) async fn slos(State(api): State<Api>) -> Result<Response, ApiError> {
    let all = blocking(move || {
        let source = api.pipeline.ingest.source();
        let status = api.judge.slos(source.as_ref(), &api.engine);
        status.map_err(|e| ApiError::new("execution", e))
    })
    .await?;
    Ok(success(all))
}

/// `alert-events?since&limit`.
pub(super) async fn events(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let since_ms = params.time("since")?.unwrap_or(0);
    let limit = params.count("limit")?.unwrap_or(DEFAULT_EVENTS);
    let events = blocking(move || Ok(api.judge.events(since_ms, limit))).await?;
    Ok(success(events))
}

/// `GET /api/v2/status`.
pub(super) async fn am_status_body(State(api): State<Api>) -> Response {
    let started_ms = api.telemetry.started_ms();
    respond::json(&am_status(env!("CARGO_PKG_VERSION"), started_ms))
}

/// `GET /api/v2/alerts?filter&silenced&active&receiver`.
pub(super) async fn am_alerts(
    State(api): State<Api>,
    params: Params,
) -> Result<Response, ApiError> {
    let matchers = matchers(&params)?;
    let shown = |name| Ok::<_, ApiError>(params.flag(name)?.unwrap_or(true));
    let (active, silenced) = (shown("active")?, shown("silenced")?);
    let body = blocking(move || Ok(api.judge.am_alerts())).await?;
    let listed: Vec<&Json> = body.as_array().into_iter().flatten().collect();
    let wanted = listed.into_iter().filter(|alert| {
        let suppressed = alert["status"]["state"] == "suppressed";
        let labels = |name: &str| alert["labels"][name].as_str().unwrap_or("");
        (if suppressed { silenced } else { active })
            && matchers.iter().all(|m| m.matches(labels(&m.name)))
    });
    Ok(respond::json(&wanted.collect::<Vec<_>>()))
}

/// `GET /api/v2/receivers`.
pub(super) async fn am_receivers(State(api): State<Api>) -> Response {
    let names = api.judge.dispatcher.receivers();
    let all: Vec<Json> = names.iter().map(|n| json!({"name": n})).collect();
    respond::json(&all)
}

/// `GET /api/v2/silences?filter`.
pub(super) async fn am_silences(
    State(api): State<Api>,
    params: Params,
) -> Result<Response, ApiError> {
    let matchers = matchers(&params)?;
    let now_ms = clock::now_ms();
    let all: Vec<Json> = api.judge.dispatcher.with_silences(|silences| {
        let listed = silences.list(&matchers);
        listed.into_iter().map(|s| s.to_json(now_ms)).collect()
    });
    Ok(respond::json(&all))
}

/// `POST /api/v2/silences`.
pub(super) async fn am_post_silence(
    State(api): State<Api>,
    body: Result<AxumJson<PostableSilence>, JsonRejection>,
) -> Response {
    let AxumJson(wanted) = match body {
        Ok(body) => body,
        Err(rejection) => return am_error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let posted = tokio::task::spawn_blocking(move || api.judge.dispatcher.post_silence(wanted));
    match posted.await {
        Ok(Ok(id)) => respond::json(&json!({"silenceID": id})),
        Ok(Err(error)) => silence_error(&error),
        Err(_) => am_error(StatusCode::INTERNAL_SERVER_ERROR, "the worker failed"),
    }
}

/// `GET /api/v2/silence/{id}`.
pub(super) async fn am_silence(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let now_ms = clock::now_ms();
    let find = api
        .judge
        .dispatcher
        .with_silences(|s| s.get(&id).map(|s| s.to_json(now_ms)));
    match find {
        Some(silence) => respond::json(&silence),
        None => am_error(StatusCode::NOT_FOUND, "silence not found"),
    }
}

/// `DELETE /api/v2/silence/{id}`.
pub(super) async fn am_expire_silence(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let expired = tokio::task::spawn_blocking(move || api.judge.dispatcher.expire_silence(&id));
    match expired.await {
        Ok(Ok(())) => StatusCode::OK.into_response(),
        Ok(Err(error)) => silence_error(&error),
        Err(_) => am_error(StatusCode::INTERNAL_SERVER_ERROR, "the worker failed"),
    }
}

fn matchers(params: &Params) -> Result<Vec<model::Matcher>, ApiError> {
    params
        .all("filter")
        .map(|text| parse_matcher(text).map_err(|e| ApiError::parameter("filter", e)))
        .collect()
}

fn silence_error(error: &SilenceError) -> Response {
    let status = match error {
        SilenceError::NotFound(_) => StatusCode::NOT_FOUND,
        SilenceError::Bad(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    am_error(status, &error.to_string())
}

/// Alertmanager's errors are a text in JSON.
fn am_error(status: StatusCode, text: &str) -> Response {
    let mut response = respond::json(&text);
    *response.status_mut() = status;
    response
}
