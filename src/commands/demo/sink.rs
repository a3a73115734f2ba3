//! The local on-call: an HTTP server that takes PagerDuty Events v2 and Slack messages and remembers when they came.
//!
//! Owns what arrived. Must not know who sends or why.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::console::now_ms;

/// How many messages are remembered; later ones are only answered.
const REMEMBERED: usize = 10_000;

/// One message that arrived.
#[derive(Debug, Clone, Serialize)]
pub struct Arrival {
    /// When, Unix milliseconds.
    pub t_ms: i64,
    /// `pagerduty` or `slack`.
    pub channel: &'static str,
    /// `trigger`, `resolve`, `acknowledge`; of Slack, `message`.
    pub action: String,
    /// PagerDuty's dedup key.
    pub dedup_key: String,
    /// What it says.
    pub summary: String,
}

type Arrivals = Arc<Mutex<Vec<Arrival>>>;

/// The running sink.
pub struct Sink {
    /// Where it listens.
    pub addr: SocketAddr,
    arrivals: Arrivals,
    stop: CancellationToken,
}

impl Sink {
    /// Binds a free port on loopback and serves.
    pub async fn start() -> anyhow::Result<Sink> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let arrivals = Arrivals::default();
        let router = Router::new()
            .route("/v2/enqueue", post(page))
            .route("/slack", post(slack))
            .with_state(Arc::clone(&arrivals));
        let stop = CancellationToken::new();
        let ended = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(ended)
                .await
        });
        Ok(Sink {
            addr,
            arrivals,
            stop,
        })
    }

    /// What arrived so far, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops serving.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

fn remember(arrivals: &Arrivals, arrival: Arrival) {
    let mut all = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() < REMEMBERED {
        all.push(arrival);
    }
}

async fn page(
    State(arrivals): State<Arrivals>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let arrival = Arrival {
        t_ms: now_ms(),
        channel: "pagerduty",
        action: text(&body["event_action"]),
        dedup_key: text(&body["dedup_key"]),
        summary: text(&body["payload"]["summary"]),
    };
    let answer = serde_json::json!({"status": "success", "message": "Event processed", "dedup_key": arrival.dedup_key});
    remember(&arrivals, arrival);
    (StatusCode::ACCEPTED, Json(answer))
}

async fn slack(State(arrivals): State<Arrivals>, Json(body): Json<Value>) -> &'static str {
    let summary = body["text"].as_str().unwrap_or("").to_owned();
    let arrival = Arrival {
        t_ms: now_ms(),
        channel: "slack",
        action: "message".into(),
        dedup_key: String::new(),
        summary,
    };
    remember(&arrivals, arrival);
    "ok"
}
