//! The HTTP API: Prometheus' own endpoints, remote write in, remote read out, and ours under `/api/nines/v1`.
//!
//! Owns routes and what they need. Must not know wire formats of receivers. Queries run off the async threads.

mod admin;
mod alerting;
mod body;
mod cardinality;
mod form;
mod keep;
mod query;
mod read;
mod respond;
mod series;
mod state;
mod status;
mod tree;
mod write;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use model::api::path;

pub(crate) use respond::ApiError;
pub(crate) use state::Api;

use crate::receive::otlp::bearer_matches;

/// Every route.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route(path::QUERY, get(query::instant).post(query::instant))
        .route(path::QUERY_RANGE, get(query::range).post(query::range))
        .route(path::FORMAT_QUERY, get(query::format).post(query::format))
        .route(
            path::PARSE_QUERY,
            get(query::parse_tree).post(query::parse_tree),
        )
        .route(path::SERIES, get(series::series).post(series::series))
        .route(path::LABELS, get(series::labels).post(series::labels))
        .route(path::LABEL_VALUES, get(series::label_values))
        .route(path::METADATA, get(series::metadata))
        .route(
            path::EXEMPLARS,
            get(series::exemplars).post(series::exemplars),
        )
        .route(path::RULES, get(alerting::rules))
        .route(path::ALERTS, get(alerting::alerts))
        .route(path::SLOS, get(alerting::slos))
        .route(path::ALERT_EVENTS, get(alerting::events))
        .route(path::AM_STATUS, get(alerting::am_status_body))
        .route(path::AM_ALERTS, get(alerting::am_alerts))
        .route(path::AM_RECEIVERS, get(alerting::am_receivers))
        .route(
            path::AM_SILENCES,
            get(alerting::am_silences).post(alerting::am_post_silence),
        )
        .route(
            path::AM_SILENCE,
            get(alerting::am_silence).delete(alerting::am_expire_silence),
        )
        .route(path::TARGETS, get(status::targets))
        .route(path::BUILD_INFO, get(status::build_info))
        .route(path::TSDB_STATUS, get(cardinality::tsdb))
        .route(
            "/api/v1/admin/tsdb/snapshot",
            post(admin::snapshot).put(admin::snapshot),
        )
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/config", get(status::config))
        .route("/api/v1/status/runtimeinfo", get(status::runtime_info))
        .route(path::HEALTHY, get(status::healthy))
        .route(path::READY, get(status::healthy))
        .route(path::METRICS, get(status::metrics))
        .route(path::REMOTE_WRITE, post(write::remote_write))
        .route(path::REMOTE_READ, post(read::remote_read))
        .route(path::TRACES, get(keep::traces))
        .route(path::TRACE, get(keep::trace))
        .route(path::LOGS, get(keep::logs))
        .route(path::SELF, get(status::self_status))
        .route(path::FLUSH, post(status::flush))
        .fallback(not_found)
        .layer(from_fn_with_state(api.clone(), authorise))
        .layer(compression())
        .with_state(api)
}

/// gzip for those who ask. The quickest level: the best one takes three times the CPU of the query for a fifth less.
fn compression() -> tower_http::compression::CompressionLayer {
    tower_http::compression::CompressionLayer::new()
        .gzip(true)
        .quality(tower_http::CompressionLevel::Fastest)
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// Everything but the two probes needs the token, when there is one.
async fn authorise(State(api): State<Api>, request: Request, next: Next) -> Response {
    let open = matches!(request.uri().path(), path::HEALTHY | path::READY);
    match &api.token {
        Some(token) if !open && !bearer_matches(request.headers(), token) => {
            let error = ApiError::new("unauthorized", "a bearer token is required");
            let mut response = error.into_response();
            let challenge = header::HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
            response
        }
        _ => next.run(request).await,
    }
}
