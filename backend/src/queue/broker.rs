//! The queue in RabbitMQ: events go there with confirms, consumers answer each delivery, the broker itself counts
//! deliveries and dead-letters. Must not know what a message does.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Message, QUEUES, Queue, count, process, producer, wait_ms};
use crate::app::App;
use crate::clock;
use crate::data::DbError;
use crate::rabbit::{Delivery, Rabbit};
use crate::telemetry::Role;

/// Deliveries that a consumer holds unanswered at most, those that wait for their retry among them.
const PREFETCH: u16 = 16;
/// Depths are asked for this often at most, ms.
const LOOK_MS: u64 = 1000;

/// The broker, and what was seen of its queues.
pub(crate) struct Broker {
    rabbit: Rabbit,
    seen: Mutex<HashMap<&'static str, Seen>>,
    looked: tokio::sync::Mutex<(u64, Value)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// When the queue was last seen empty, Unix ms.
    empty_ms: u64,
    /// When the message was sent that was delivered last, Unix ms.
    sent_ms: u64,
}

// === impl Broker ===

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

impl Broker {
    /// Connects and declares exchanges, queues and their dead letters.
    pub(crate) async fn connect(url: &str, delivery_limit: u32) -> Result<Self, String> {
        let topics: Vec<(&str, [&str; 1])> = QUEUES.iter().map(|(q, t, _)| (*q, [*t])).collect();
        let queues: Vec<(&str, &[&str])> = topics.iter().map(|(q, t)| (*q, &t[..])).collect();
        Ok(Broker {
            rabbit: Rabbit::connect(url, &queues, delivery_limit).await?,
            seen: Mutex::default(),
            looked: tokio::sync::Mutex::new((0, Value::Null)),
        })
    }

    fn see(&self, queue: &'static str, update: impl FnOnce(&mut Seen)) -> Seen {
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        let one = seen.entry(queue).or_default();
        update(one);
        *one
    }

    /// Depths at most a second old. The age of the oldest message is an upper bound: the time since the queue was seen
    /// empty, or since the message delivered last was sent, whichever is shorter.
    pub(super) async fn numbers(&self) -> Value {
        let mut looked = self.looked.lock().await;
        let now = clock::unix_ms();
        if now.saturating_sub(looked.0) < LOOK_MS && !looked.1.is_null() {
            return looked.1.clone();
        }
        let mut queues = serde_json::Map::new();
        for (queue, ..) in QUEUES {
            // A broker that does not answer leaves its queues out: no number is better than an old one.
            let Ok((ready, dead)) = self.rabbit.depths(queue).await else {
                continue;
            };
            let seen = self.see(queue, |s| {
                if ready == 0 {
                    s.empty_ms = now;
                }
            });
            let oldest = now.saturating_sub(seen.empty_ms.max(seen.sent_ms));
            let oldest = if ready == 0 { 0 } else { oldest };
            queues.insert(
                queue.into(),
                json!({"depth": ready, "dead": dead, "oldest_ms": oldest}),
            );
        }
        *looked = (now, Value::Object(queues));
        looked.1.clone()
    }

    /// Makes dead letters of a queue (all for "") ready again.
    pub(super) async fn requeue(&self, queue: &str) -> Result<usize, String> {
        let mut moved = 0;
        for (name, ..) in QUEUES
            .iter()
            .filter(|(n, ..)| queue.is_empty() || *n == queue)
        {
            moved += self.rabbit.requeue_dead(name).await?;
        }
        Ok(moved)
    }
}

/// Sends committed events. One leaves the outbox once the broker has confirmed it; should the commit fail after that,
/// it is sent again, which every consumer bears.
pub(super) async fn relay(app: &Arc<App>) -> Result<usize, DbError> {
    let app = Arc::clone(app);
    let data = Arc::clone(&app);
    let sent = data.data.write(0.0, move |tx| {
        Box::pin(async move {
            let Queue::Broker(broker) = &app.queue else {
                return Ok(0);
            };
            // Rows that another instance is sending are skipped.
            let sql = "SELECT id, topic, body, trace FROM outbox ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED";
            let events = tx.rows(sql, Vec::new()).await?;
            let mut sent = 0;
            for event in events {
                let (id, topic) = (event.int(0), event.text(1).unwrap_or(""));
                if app.struck("publish_fail", topic) {
                    break;
                }
                let (span, trace) = producer(&app, topic, event.text(3));
                let body = event.text(2).unwrap_or("").as_bytes();
                let key = id.to_string();
                let told = broker.rabbit.publish(topic, body, &key, trace.as_deref());
                if let Err(e) = told.await {
                    crate::telemetry::fail(&span, "publish_failed");
                    app.note("ERROR", &format!("publishing to RabbitMQ failed: {e}"));
                    break;
                }
                tx.local("DELETE FROM outbox WHERE id = ?1", vec![id.into()]).await?;
                app.truth.published.fetch_add(1, Ordering::Relaxed);
                sent += 1;
            }
            Ok(sent)
        })
    });
    sent.await
}

/// Handles deliveries one after the other; a lost connection is opened again.
pub(super) async fn consume(app: &Arc<App>, broker: &Broker, queue: &'static str, role: Role) {
    let poll = app.settings.queue.poll_ms as f64;
    loop {
        if app.struck("worker_stop", queue) {
            clock::wait_ms(poll).await;
            continue;
        }
        let Ok(mut consumer) = broker.rabbit.consume(queue, PREFETCH).await else {
            clock::wait_ms(poll.max(200.0)).await;
            continue;
        };
        // A consumer that is stopped goes away, so that what it holds is ready again.
        while !app.struck("worker_stop", queue) {
            let next = tokio::time::timeout(std::time::Duration::from_millis(500), consumer.next());
            match next.await {
                Ok(Some(delivery)) => deliver(app, broker, queue, role, delivery).await,
                Ok(None) => break,
                Err(_) => {}
            }
        }
    }
}

async fn deliver(
    app: &Arc<App>,
    broker: &Broker,
    queue: &'static str,
    role: Role,
    delivery: Delivery,
) {
    broker.see(queue, |s| s.sent_ms = delivery.timestamp_ms);
    // An event of somebody else's: no consumer can handle it, now or later.
    let Ok(id) = delivery.message_id.parse() else {
        app.note(
            "ERROR",
            &format!("{queue}: a message without an event's id went to the dead letters"),
        );
        if delivery.dead().await.is_ok() {
            app.truth.dead.fetch_add(1, Ordering::Relaxed);
        }
        return;
    };
    let message = Message {
        id,
        topic: delivery.topic.clone(),
        body: String::from_utf8_lossy(&delivery.body).into_owned(),
        trace: delivery.traceparent.clone(),
        attempts: delivery.attempts,
    };
    let done = process(app, queue, role, &message).await;
    if done.result == "ok" {
        if delivery.ack().await.is_ok() {
            count(app, queue, &done);
        }
        return;
    }
    // The broker has no delay of its own: the delivery is held back until its retry is due, others go on meanwhile.
    let (app, attempts) = (Arc::clone(app), message.attempts);
    tokio::spawn(async move {
        clock::wait_ms(wait_ms(&app, attempts) as f64).await;
        if delivery.retry().await.is_ok() {
            count(&app, queue, &done);
        }
    });
}
