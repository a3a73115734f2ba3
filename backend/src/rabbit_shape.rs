//! What is declared in the broker and how a message looks there. Must not know connections that come and go.

use std::time::{SystemTime, UNIX_EPOCH};

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};

use super::said;

pub(super) const EXCHANGE: &str = "events";
const DEAD_EXCHANGE: &str = "dlx";
pub(super) const TRACE: &str = "traceparent";
pub(super) const AT_MS: &str = "published-ms";

/// Queues, their topics, and the limit of returns.
pub(super) struct Shape {
    queues: Vec<(String, Vec<String>)>,
    delivery_limit: u32,
}

fn dead_queue(queue: &str) -> String {
    format!("{queue}.dlq")
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

impl Shape {
    pub(super) fn new(queues: &[(&str, &[&str])], delivery_limit: u32) -> Self {
        let owned = |(queue, topics): &(&str, &[&str])| {
            let topics = topics.iter().map(|t| (*t).to_owned()).collect();
            ((*queue).to_owned(), topics)
        };
        Self {
            queues: queues.iter().map(owned).collect(),
            delivery_limit,
        }
    }

    /// Declares everything; what is there already in the same shape stays as it is.
    pub(super) async fn declare(&self, channel: &Channel) -> Result<(), String> {
        for (name, kind) in [
            (EXCHANGE, ExchangeKind::Topic),
            (DEAD_EXCHANGE, ExchangeKind::Direct),
        ] {
            let options = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let declared =
                channel.exchange_declare(name.into(), kind, options, FieldTable::default());
            declared.await.map_err(said)?;
        }
        for (queue, topics) in &self.queues {
            let dead = dead_queue(queue);
            declare_queue(channel, &dead, quorum()).await?;
            bind(channel, &dead, DEAD_EXCHANGE, &dead).await?;
            let mut arguments = quorum();
            arguments.insert(
                "x-delivery-limit".into(),
                AMQPValue::LongLongInt(self.delivery_limit.into()),
            );
            arguments.insert("x-dead-letter-exchange".into(), text(DEAD_EXCHANGE));
            arguments.insert("x-dead-letter-routing-key".into(), text(&dead));
            // Together: a dead letter leaves its queue only when it is confirmed in the other one.
            arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
            arguments.insert("x-overflow".into(), text("reject-publish"));
            declare_queue(channel, queue, arguments).await?;
            for topic in topics {
                bind(channel, queue, EXCHANGE, topic).await?;
            }
        }
        Ok(())
    }
}

async fn declare_queue(
    channel: &Channel,
    queue: &str,
    arguments: FieldTable,
) -> Result<(), String> {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    match channel
        .queue_declare(queue.into(), options, arguments)
        .await
    {
        Ok(_) => Ok(()),
        Err(e) => Err(format!(
            "queue {queue}: {e} (if it exists in another shape, delete it or use another virtual host)"
        )),
    }
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), String> {
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    let bound = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, none);
    bound.await.map_err(said)
}

/// A channel whose messages are confirmed.
pub(super) async fn confirming(connection: &Connection) -> Result<Channel, String> {
    let channel = connection.create_channel().await.map_err(said)?;
    let options = ConfirmSelectOptions::default();
    channel.confirm_select(options).await.map_err(said)?;
    Ok(channel)
}

/// Persistent JSON. The topic is kept in the message too: a dead letter is routed by another key.
pub(super) fn properties(topic: &str, id: &str, traceparent: Option<&str>) -> BasicProperties {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut headers = FieldTable::default();
    headers.insert(AT_MS.into(), AMQPValue::LongLongInt(now.as_millis() as i64));
    if let Some(traceparent) = traceparent {
        headers.insert(TRACE.into(), text(traceparent));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(id.into())
        .with_type(topic.into())
        .with_timestamp(now.as_secs())
        .with_headers(headers)
}

/// Publishes and waits for the confirm.
pub(super) async fn send(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
    properties: BasicProperties,
) -> Result<(), String> {
    let options = BasicPublishOptions {
        // To a named queue: a message that no queue takes is an error. To a topic: nobody need listen.
        mandatory: exchange.is_empty(),
        ..BasicPublishOptions::default()
    };
    let sent = channel.basic_publish(exchange.into(), key.into(), options, body, properties);
    let confirm = sent.await.map_err(said)?.await.map_err(said)?;
    let acked = confirm.is_ack();
    if !acked || confirm.take_message().is_some() {
        return Err(format!("the broker did not take a message for {key}"));
    }
    Ok(())
}

/// Ready messages and dead letters. A channel of its own: asking for a queue that is not there ends the channel.
pub(super) async fn depths(connection: &Connection, queue: &str) -> Result<(u64, u64), String> {
    let channel = connection.create_channel().await.map_err(said)?;
    let mut counts = [0; 2];
    for (name, count) in [queue.to_owned(), dead_queue(queue)]
        .iter()
        .zip(&mut counts)
    {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(name.as_str().into(), options, FieldTable::default());
        *count = u64::from(declared.await.map_err(said)?.message_count());
    }
    Ok((counts[0], counts[1]))
}

/// Moves the oldest dead letter back; `false` when there is none.
pub(super) async fn requeue_one(channel: &Channel, queue: &str) -> Result<bool, String> {
    let options = BasicGetOptions::default();
    let got = channel.basic_get(dead_queue(queue).into(), options).await;
    let Some(dead) = got.map_err(said)? else {
        return Ok(false);
    };
    let ours = |name: &str| name == TRACE || name == AT_MS;
    let mut headers = FieldTable::default();
    for (name, value) in dead.properties.headers().iter().flat_map(FieldTable::inner) {
        if ours(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let properties = dead.properties.clone().with_headers(headers);
    send(channel, "", queue, &dead.data, properties).await?;
    let acked = dead.acker.ack(BasicAckOptions::default()).await;
    acked.map(|_| true).map_err(said)
}
