//! Events and their consumers: what each message does, at-least-once delivery, retries with backoff, dead letters.
//! Must not know HTTP, nor (but for the two modules below) where messages wait.

pub(crate) mod broker;
mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Value, json};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::app::App;
use crate::backoff;
use crate::clock;
use crate::data::DbError;
use crate::services::pay;
use crate::settings::Retry;
use crate::telemetry::{Cx, Kind, Role, attr, fail, parse_traceparent};

/// Queue, topic bound to it, role that consumes it.
pub(crate) const QUEUES: [(&str, &str, Role); 6] = [
    ("email", "order.created", Role::Worker),
    ("payment", "order.created", Role::Payment),
    ("analytics", "order.created", Role::Worker),
    ("notification", "order.created", Role::Notification),
    ("order_payments", "payment.completed", Role::Order),
    ("task_notifications", "task.created", Role::Notification),
];

/// Where messages wait.
#[derive(Debug)]
pub(crate) enum Queue {
    /// A table of the embedded database.
    Table,
    /// RabbitMQ.
    Broker(Box<broker::Broker>),
}

#[derive(Clone, Debug)]
struct Message {
    id: i64,
    topic: String,
    body: String,
    trace: Option<String>,
    attempts: u32,
}

// === impl Queue ===

impl Queue {
    /// `messaging.system`.
    fn system(&self) -> &'static str {
        match self {
            Queue::Table => "sqlite_queue",
            Queue::Broker(_) => "rabbitmq",
        }
    }
}

/// Moves committed events on to the queues bound to their topic; how many.
pub(crate) async fn relay(app: &Arc<App>) -> Result<usize, DbError> {
    match &app.queue {
        Queue::Table => table::relay(app).await,
        Queue::Broker(_) => broker::relay(app).await,
    }
}

/// Consumes a queue for ever.
pub(crate) async fn consume(app: Arc<App>, queue: &'static str, role: Role) {
    match &app.queue {
        Queue::Table => table::consume(&app, queue, role).await,
        Queue::Broker(b) => broker::consume(&app, b, queue, role).await,
    }
}

/// Waiting and dead messages by queue, oldest age in ms, and the outbox.
pub(crate) async fn numbers(app: &App) -> Result<Value, DbError> {
    let queues = match &app.queue {
        Queue::Table => table::numbers(app).await?,
        Queue::Broker(b) => b.numbers().await,
    };
    let sql = "SELECT count(*) FROM outbox";
    let (rows, _) = app.data.rows(false, 0.0, sql, Vec::new()).await?;
    let outbox = rows.first().map_or(0, |r| r.int(0));
    Ok(json!({"queues": queues, "outbox": outbox}))
}

/// Makes dead letters of a queue (all queues for "") ready again, with a fresh count of attempts.
pub(crate) async fn requeue(app: &App, queue: String) -> Result<usize, String> {
    match &app.queue {
        Queue::Table => table::requeue(app, queue).await.map_err(|e| e.to_string()),
        Queue::Broker(b) => b.requeue(&queue).await,
    }
}

/// The PRODUCER span of an event and the trace context that its messages carry.
fn producer(app: &App, topic: &str, trace: Option<&str>) -> (tracing::Span, Option<String>) {
    let cx = Cx::root(String::new());
    let role = match topic {
        "payment.completed" => Role::Payment,
        "task.created" => Role::Task,
        _ => Role::Order,
    };
    let span = app.telemetry.span(
        &cx,
        role,
        Kind::Producer,
        &format!("send {topic}"),
        trace.and_then(parse_traceparent),
    );
    messaging(app, &span, "send", topic);
    let trace = cx.below(&span).traceparent().or(trace.map(str::to_owned));
    (span, trace)
}

fn messaging(app: &App, span: &tracing::Span, operation: &'static str, destination: &str) {
    attr(span, "messaging.system", app.queue.system());
    attr(span, "messaging.operation.type", operation);
    attr(span, "messaging.destination.name", destination.to_owned());
}

/// How the handling of one message ended.
struct Done {
    /// `ok`, `retry` or `dead`.
    result: &'static str,
    error: Option<String>,
    begin: Instant,
}

/// Handles one message in a CONSUMER span that is linked to its producer.
async fn process(app: &App, queue: &'static str, role: Role, message: &Message) -> Done {
    let begin = Instant::now();
    let cx = Cx::root(format!("msg-{}", message.id));
    let producer = message.trace.as_deref().and_then(parse_traceparent);
    let span = app.telemetry.span(
        &cx,
        role,
        Kind::Consumer,
        &format!("process {queue}"),
        producer.clone(),
    );
    if let Some(context) = &producer {
        span.add_link(context.span().span_context().clone());
    }
    messaging(app, &span, "process", queue);
    attr(
        &span,
        "messaging.message.delivery_attempt",
        i64::from(message.attempts) + 1,
    );
    let outcome = handle(app, &cx.below(&span), queue, role, message).await;
    let result = match &outcome {
        Ok(()) => "ok",
        Err(_) if message.attempts >= app.settings.queue.max_retries => "dead",
        Err(_) => "retry",
    };
    if let Err(e) = &outcome {
        fail(&span, "job_failed");
        app.telemetry.log(
            "ERROR",
            role,
            &cx.below(&span),
            &format!("{queue} failed ({result})"),
            Some(e),
            None,
        );
    }
    Done {
        result,
        error: outcome.err(),
        begin,
    }
}

/// Counts a message whose end is known to the queue.
fn count(app: &App, queue: &'static str, done: &Done) {
    app.metrics
        .jobs
        .with_label_values(&[queue, done.result])
        .inc();
    app.metrics
        .job_seconds
        .with_label_values(&[queue])
        .observe(done.begin.elapsed().as_secs_f64());
    let counter = match done.result {
        "ok" => &app.truth.acked,
        "dead" => &app.truth.dead,
        _ => &app.truth.retried,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Wait before the next delivery of a message that was delivered `attempts` times before, ms.
fn wait_ms(app: &App, attempts: u32) -> u64 {
    let retry = Retry {
        attempts: u32::MAX,
        base_ms: app.settings.queue.backoff_ms,
        cap_ms: 60_000,
    };
    let jitter = (!app.struck("no_jitter", "")).then(rand::random::<f64>);
    backoff::wait_ms(&retry, attempts + 2, jitter)
}

async fn handle(app: &App, cx: &Cx, queue: &str, role: Role, m: &Message) -> Result<(), String> {
    // Which messages are poison depends on the message alone, so that every delivery of one fails.
    if app
        .faults
        .chosen("poison", queue, m.id as u64, clock::unix_ms())
    {
        return Err("poison message".into());
    }
    if app.struck("worker_crash", queue) {
        return Err("worker crashed".into());
    }
    app.delay(role.name()).await;
    let event: Value =
        serde_json::from_str(&m.body).map_err(|e| format!("event is not JSON: {e}"))?;
    let order = event["orderId"].as_i64().unwrap_or(0);
    match queue {
        "payment" => pay(app, cx, order, event["amount"].as_i64().unwrap_or(0)).await,
        "order_payments" => {
            let done = app.write(cx, role, "orders", move |tx| {
                Box::pin(async move {
                    let paid =
                        "UPDATE orders SET status = 'paid' WHERE id = ?1 AND status = 'pending'";
                    tx.exec(paid, vec![order.into()]).await?;
                    let whose = "SELECT user_id FROM orders WHERE id = ?1";
                    let rows = tx.rows(whose, vec![order.into()]).await?;
                    Ok(rows.first().map(|r| r.int(0)))
                })
            });
            if let Some(user) = done.await.map_err(|e| e.to_string())? {
                app.cache_del(cx, role, &format!("user:orders:{user}"))
                    .await;
            }
            Ok(())
        }
        "analytics" => {
            let now = clock::unix_ms() as i64;
            let values = vec![m.topic.as_str().into(), m.body.as_str().into(), now.into()];
            // An event that comes twice is the same topic and body: it is kept once.
            let sql =
                "INSERT INTO audit(topic, body, at_ms) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING";
            let done = app.write(cx, role, "audit", move |tx| Box::pin(tx.exec(sql, values)));
            done.await.map(|_| ()).map_err(|e| e.to_string())
        }
        external => third_party(app, cx, role, external).await,
    }
}

async fn third_party(app: &App, cx: &Cx, role: Role, name: &str) -> Result<(), String> {
    let span = app
        .telemetry
        .span(cx, role, Kind::Client, "POST /send", None);
    attr(&span, "http.request.method", "POST");
    attr(&span, "peer.service", format!("{name}-provider"));
    attr(&span, "server.address", format!("{name}-provider"));
    clock::wait_ms(app.knob_ms("external_latency", name)).await;
    if app.struck("external_error", name) {
        fail(&span, "503");
        return Err(format!("{name} provider answered 503"));
    }
    Ok(())
}
