//! The admin port: faults, truth, cache purge, queue, flush. Must not be reachable through the front.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Value, json};

use crate::app::App;
use crate::clock;
use crate::faults::{FaultList, KNOBS};
use crate::queue;

/// Routes of the admin port.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/admin/faults", get(faults).put(set_faults))
        .route("/admin/cache/purge", post(purge))
        .route("/admin/queue", get(queues))
        .route("/admin/dlq/requeue", post(requeue))
        .route("/admin/state", get(state))
        .route("/admin/flush", post(flush))
        .route("/metrics", get(metrics))
        .with_state(app)
}

fn answer(status: StatusCode, value: &Value) -> Response {
    (
        status,
        [("content-type", "application/json")],
        value.to_string(),
    )
        .into_response()
}

fn ok(value: &Value) -> Response {
    answer(StatusCode::OK, value)
}

fn failed(status: StatusCode, error: &str) -> Response {
    answer(status, &json!({"error": error}))
}

async fn metrics(State(app): State<Arc<App>>) -> String {
    app.metrics.text()
}

async fn faults(State(app): State<Arc<App>>) -> Response {
    let knobs: HashMap<_, _> = KNOBS.iter().copied().collect();
    ok(&json!({"faults": app.faults.list(), "knobs": knobs}))
}

async fn set_faults(State(app): State<Arc<App>>, body: Bytes) -> Response {
    let list: FaultList = match serde_json::from_slice(&body) {
        Ok(list) => list,
        Err(e) => return failed(StatusCode::BAD_REQUEST, &e.to_string()),
    };
    match app.faults.set(list.faults, clock::unix_ms()) {
        Ok(changes) => {
            app.tell(changes);
            ok(&json!({"faults": app.faults.list()}))
        }
        Err(e) => failed(StatusCode::BAD_REQUEST, &e),
    }
}

async fn purge(State(app): State<Arc<App>>) -> Response {
    match app.cache.purge().await {
        Ok(()) => {
            app.note("WARN", "cache was purged by hand");
            ok(&json!({"purged": true}))
        }
        Err(e) => failed(StatusCode::SERVICE_UNAVAILABLE, &e),
    }
}

async fn queues(State(app): State<Arc<App>>) -> Response {
    queue::numbers(&app).await.map_or_else(
        |e| failed(StatusCode::SERVICE_UNAVAILABLE, &e.to_string()),
        |v| ok(&v),
    )
}

async fn requeue(
    State(app): State<Arc<App>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let queue = query.get("queue").cloned().unwrap_or_default();
    let n = queue::requeue(&app, queue).await;
    n.map_or_else(
        |e| failed(StatusCode::SERVICE_UNAVAILABLE, &e.to_string()),
        |n| ok(&json!({"requeued": n})),
    )
}

async fn state(State(app): State<Arc<App>>) -> Response {
    let mut value = app.truth.json();
    let breakers: HashMap<_, _> = app
        .breaker_states()
        .into_iter()
        .map(|(d, s)| (d, s.name()))
        .collect();
    value["breakers"] = json!(breakers);
    value["spans"] = app.telemetry.counts();
    value["logs"] = app.telemetry.log_counts();
    value["uptime_ms"] = json!(app.now_ms());
    value["now_ms"] = json!(clock::unix_ms());
    ok(&value)
}

async fn flush(State(app): State<Arc<App>>) -> Response {
    let flushed = tokio::task::spawn_blocking({
        let app = Arc::clone(&app);
        move || app.telemetry.flush()
    });
    match flushed.await {
        Ok(Ok(())) => ok(
            &json!({"flushed": true, "spans": app.telemetry.counts(), "logs": app.telemetry.log_counts()}),
        ),
        Ok(Err(e)) => failed(StatusCode::BAD_GATEWAY, &e),
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, "flush was interrupted"),
    }
}
