//! The embedded queue: a table of the database, one consumer a queue. Must not know what a message does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Done, Message, QUEUES, count, process, producer, wait_ms};
use crate::app::App;
use crate::clock;
use crate::data::{Cell, DbError};
use crate::telemetry::Role;

/// Moves committed events to the queues bound to their topic; the event leaves the outbox in the same transaction.
pub(super) async fn relay(app: &Arc<App>) -> Result<usize, DbError> {
    let sql = "SELECT id, topic, body, trace FROM outbox ORDER BY id LIMIT 100";
    let (events, _) = app.data.rows(false, 0.0, sql, Vec::new()).await?;
    let mut moved = 0;
    for event in events {
        let id = event.int(0);
        let text = |i: usize| event.text(i).unwrap_or("").to_owned();
        let (topic, body, trace) = (text(1), text(2), event.text(3).map(str::to_owned));
        if app.struck("publish_fail", &topic) {
            break;
        }
        let (_span, trace) = producer(app, &topic, trace.as_deref());
        let now = clock::unix_ms() as i64;
        let t = topic.clone();
        let sent = app.data.write(0.0, move |tx| {
            Box::pin(async move {
                let gone = tx.local("DELETE FROM outbox WHERE id = ?1", vec![id.into()]);
                if gone.await? == 0 {
                    return Ok(0);
                }
                for (queue, ..) in QUEUES.iter().filter(|(_, topic, _)| *topic == t) {
                    let values = vec![(*queue).into(), t.as_str().into(), body.as_str().into(), trace.clone().into(), now.into()];
                    let sql = "INSERT INTO messages(queue, topic, body, trace, attempts, due_ms, at_ms, state) VALUES(?1, ?2, ?3, ?4, 0, ?5, ?5, 'ready')";
                    tx.local(sql, values).await?;
                }
                Ok(1)
            })
        });
        moved += sent.await?;
        app.truth.published.fetch_add(1, Ordering::Relaxed);
    }
    Ok(moved)
}

/// Handles due messages one after the other, looking for them every `poll_ms`.
pub(super) async fn consume(app: &Arc<App>, queue: &'static str, role: Role) {
    loop {
        if !matches!(work(app, queue, role).await, Ok(true)) {
            clock::wait_ms(app.settings.queue.poll_ms as f64).await;
        }
    }
}

/// Handles one due message of a queue; `false` when there is none.
async fn work(app: &App, queue: &'static str, role: Role) -> Result<bool, DbError> {
    if app.struck("worker_stop", queue) {
        return Ok(false);
    }
    let Some(message) = claim(app, queue).await? else {
        return Ok(false);
    };
    let done = process(app, queue, role, &message).await;
    settle(app, &message, &done).await?;
    count(app, queue, &done);
    Ok(true)
}

async fn claim(app: &App, queue: &'static str) -> Result<Option<Message>, DbError> {
    // One consumer a queue, so a read is a claim; an unsettled message is simply delivered again.
    let sql = "SELECT id, topic, body, trace, attempts FROM messages WHERE queue = ?1 AND state = 'ready' AND due_ms <= ?2 ORDER BY due_ms, id LIMIT 1";
    let values = vec![queue.into(), (clock::unix_ms() as i64).into()];
    let (rows, _) = app.data.rows(false, 0.0, sql, values).await?;
    Ok(rows.first().map(|r| Message {
        id: r.int(0),
        topic: r.text(1).unwrap_or("").to_owned(),
        body: r.text(2).unwrap_or("").to_owned(),
        trace: r.text(3).map(str::to_owned),
        attempts: r.int(4) as u32,
    }))
}

async fn settle(app: &App, m: &Message, done: &Done) -> Result<(), DbError> {
    let due = clock::unix_ms() + wait_ms(app, m.attempts);
    let (sql, values): (_, Vec<Cell>) = match done.result {
        "ok" => ("DELETE FROM messages WHERE id = ?1", vec![m.id.into()]),
        state => {
            let state = if state == "dead" { "dead" } else { "ready" };
            let sql = "UPDATE messages SET state = ?2, due_ms = ?3, error = ?4, attempts = attempts + 1 WHERE id = ?1";
            (
                sql,
                vec![
                    m.id.into(),
                    state.into(),
                    (due as i64).into(),
                    done.error.clone().into(),
                ],
            )
        }
    };
    let done = app
        .data
        .write(0.0, move |tx| Box::pin(tx.local(sql, values)));
    done.await.map(|_| ())
}

/// Waiting and dead messages by queue, and the age of the oldest, ms.
pub(super) async fn numbers(app: &App) -> Result<Value, DbError> {
    let now = clock::unix_ms() as i64;
    let mut queues = serde_json::Map::new();
    for (queue, ..) in QUEUES {
        let sql = "SELECT count(*) FILTER (WHERE state = 'ready'), count(*) FILTER (WHERE state = 'dead'), coalesce(?2 - min(CASE WHEN state = 'ready' THEN at_ms END), 0) FROM messages WHERE queue = ?1";
        let (rows, _) = app
            .data
            .rows(false, 0.0, sql, vec![queue.into(), now.into()])
            .await?;
        let n = |i: usize| rows.first().map_or(0, |r| r.int(i));
        queues.insert(
            queue.into(),
            json!({"depth": n(0), "dead": n(1), "oldest_ms": n(2).max(0)}),
        );
    }
    Ok(queues.into())
}

/// Makes dead letters of a queue (all queues for "") ready again, with a fresh count of attempts.
pub(super) async fn requeue(app: &App, queue: String) -> Result<usize, DbError> {
    let now = clock::unix_ms() as i64;
    let sql = "UPDATE messages SET state = 'ready', attempts = 0, due_ms = ?2 WHERE state = 'dead' AND (?1 = '' OR queue = ?1)";
    let values = vec![queue.into(), now.into()];
    let moved = app
        .data
        .write(0.0, move |tx| Box::pin(tx.local(sql, values)));
    moved.await
}
