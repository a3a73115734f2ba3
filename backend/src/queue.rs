//! The durable queue and its consumers: outbox relay, at-least-once delivery, retries with backoff, dead letters.
//! Must not know HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use opentelemetry::trace::TraceContextExt as _;
use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension as _, params};
use serde_json::{Value, json};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::app::App;
use crate::backoff;
use crate::clock;
use crate::db::DbError;
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

#[derive(Clone, Debug)]
struct Message {
    id: i64,
    topic: String,
    body: String,
    trace: Option<String>,
    attempts: u32,
}

/// Moves committed events to the queues bound to their topic; the event leaves the outbox in the same transaction.
pub(crate) async fn relay(app: &Arc<App>) -> Result<usize, DbError> {
    let next = app.db.primary.read(0.0, |c| {
        let mut s =
            c.prepare_cached("SELECT id, topic, body, trace FROM outbox ORDER BY id LIMIT 100")?;
        s.query_map([], |r| {
            Ok((
                r.get::<_, i64>(0)?,
                r.get::<_, String>(1)?,
                r.get::<_, String>(2)?,
                r.get::<_, Option<String>>(3)?,
            ))
        })?
        .collect::<Result<Vec<_>, _>>()
    });
    let (events, _) = next.await?;
    let mut moved = 0;
    for (id, topic, body, trace) in events {
        if app.struck("publish_fail", &topic) {
            break;
        }
        let cx = Cx::root(String::new());
        let producer = if topic == "payment.completed" {
            Role::Payment
        } else if topic == "task.created" {
            Role::Task
        } else {
            Role::Order
        };
        let span = app.telemetry.span(
            &cx,
            producer,
            Kind::Producer,
            &format!("send {topic}"),
            trace.as_deref().and_then(parse_traceparent),
        );
        messaging(&span, "send", &topic);
        let trace = cx.below(&span).traceparent().or(trace);
        let now = clock::unix_ms() as i64;
        let t = topic.clone();
        let sent = app.db.write(0.0, move |tx| {
            if tx.local("DELETE FROM outbox WHERE id = ?1", vec![id.into()])? == 0 {
                return Ok(0);
            }
            let bound = QUEUES.iter().filter(|(_, topic, _)| *topic == t);
            for (queue, ..) in bound {
                let values = vec![(*queue).to_owned().into(), t.clone().into(), body.clone().into(), trace.clone().map_or(Sql::Null, Sql::Text), now.into()];
                tx.local("INSERT INTO messages(queue, topic, body, trace, attempts, due_ms, at_ms, state) VALUES(?1, ?2, ?3, ?4, 0, ?5, ?5, 'ready')", values)?;
            }
            Ok(1)
        });
        moved += sent.await?;
        app.truth.published.fetch_add(1, Ordering::Relaxed);
    }
    Ok(moved)
}

fn messaging(span: &tracing::Span, operation: &'static str, destination: &str) {
    attr(span, "messaging.system", "sqlite_queue");
    attr(span, "messaging.operation.type", operation);
    attr(span, "messaging.destination.name", destination.to_owned());
}

/// Handles one due message of a queue; `false` when there is none.
pub(crate) async fn work(app: &Arc<App>, queue: &'static str, role: Role) -> Result<bool, DbError> {
    if app.struck("worker_stop", queue) {
        return Ok(false);
    }
    let Some(message) = claim(app, queue).await? else {
        return Ok(false);
    };
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
    messaging(&span, "process", queue);
    attr(
        &span,
        "messaging.message.delivery_attempt",
        i64::from(message.attempts) + 1,
    );
    let outcome = handle(app, &cx.below(&span), queue, role, &message).await;
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
    settle(app, message, outcome.err(), result).await?;
    app.metrics.jobs.with_label_values(&[queue, result]).inc();
    app.metrics
        .job_seconds
        .with_label_values(&[queue])
        .observe(begin.elapsed().as_secs_f64());
    let counter = match result {
        "ok" => &app.truth.acked,
        "dead" => &app.truth.dead,
        _ => &app.truth.retried,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    Ok(true)
}

async fn claim(app: &App, queue: &'static str) -> Result<Option<Message>, DbError> {
    // One consumer a queue, so a read is a claim; an unsettled message is simply delivered again.
    let read = app.db.primary.read(0.0, move |c| {
        let sql = "SELECT id, topic, body, trace, attempts FROM messages WHERE queue = ?1 AND state = 'ready' AND due_ms <= ?2 ORDER BY due_ms, id LIMIT 1";
        let row = |r: &rusqlite::Row<'_>| Ok(Message { id: r.get(0)?, topic: r.get(1)?, body: r.get(2)?, trace: r.get(3)?, attempts: r.get(4)? });
        c.prepare_cached(sql)?.query_row(params![queue, clock::unix_ms() as i64], row).optional()
    });
    Ok(read.await?.0)
}

async fn settle(
    app: &App,
    m: Message,
    error: Option<String>,
    result: &'static str,
) -> Result<(), DbError> {
    let retry = Retry {
        attempts: u32::MAX,
        base_ms: app.settings.queue.backoff_ms,
        cap_ms: 60_000,
    };
    let jitter = (!app.struck("no_jitter", "")).then(rand::random::<f64>);
    let due = clock::unix_ms() + backoff::wait_ms(&retry, m.attempts + 2, jitter);
    app.db.write(0.0, move |tx| {
        match result {
            "ok" => tx.local("DELETE FROM messages WHERE id = ?1", vec![m.id.into()]),
            state => {
                let state = if state == "dead" { "dead" } else { "ready" };
                let values = vec![m.id.into(), state.to_owned().into(), (due as i64).into(), error.map_or(Sql::Null, Sql::Text)];
                tx.local("UPDATE messages SET state = ?2, due_ms = ?3, error = ?4, attempts = attempts + 1 WHERE id = ?1", values)
            }
        }
    })
    .await
    .map(|_| ())
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
                tx.exec(
                    "UPDATE orders SET status = 'paid' WHERE id = ?1 AND status = 'pending'",
                    vec![order.into()],
                )?;
                Ok(tx
                    .conn()
                    .query_row("SELECT user_id FROM orders WHERE id = ?1", [order], |r| {
                        r.get::<_, i64>(0)
                    })
                    .optional()?)
            });
            if let Some(user) = done.await.map_err(|e| e.to_string())? {
                app.cache_del(cx, role, &format!("user:orders:{user}"))
                    .await;
            }
            Ok(())
        }
        "analytics" => {
            let (topic, body) = (m.topic.clone(), m.body.clone());
            let values = vec![topic.into(), body.into(), (clock::unix_ms() as i64).into()];
            let done = app.write(cx, role, "audit", move |tx| {
                tx.exec(
                    "INSERT INTO audit(topic, body, at_ms) VALUES(?1, ?2, ?3)",
                    values,
                )
            });
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

/// Waiting and dead messages by queue, oldest age in ms, and the outbox.
pub(crate) async fn numbers(app: &App) -> Result<Value, DbError> {
    let now = clock::unix_ms() as i64;
    let read = app.db.primary.read(0.0, move |c| {
        let mut queues = serde_json::Map::new();
        for (queue, ..) in QUEUES {
            let sql = "SELECT count(*) FILTER (WHERE state = 'ready'), count(*) FILTER (WHERE state = 'dead'), coalesce(?2 - min(CASE WHEN state = 'ready' THEN at_ms END), 0) FROM messages WHERE queue = ?1";
            let row = c.prepare_cached(sql)?.query_row(params![queue, now], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?, r.get::<_, i64>(2)?)))?;
            queues.insert(queue.into(), json!({"depth": row.0, "dead": row.1, "oldest_ms": row.2.max(0)}));
        }
        let outbox: i64 = c.prepare_cached("SELECT count(*) FROM outbox")?.query_row([], |r| r.get(0))?;
        Ok(json!({"queues": queues, "outbox": outbox}))
    });
    Ok(read.await?.0)
}

/// Makes dead letters of a queue (all queues for "") ready again, with a fresh count of attempts.
pub(crate) async fn requeue(app: &App, queue: String) -> Result<usize, DbError> {
    let now = clock::unix_ms() as i64;
    let sql = "UPDATE messages SET state = 'ready', attempts = 0, due_ms = ?2 WHERE state = 'dead' AND (?1 = '' OR queue = ?1)";
    app.db
        .write(0.0, move |tx| tx.local(sql, vec![queue.into(), now.into()]))
        .await
}
