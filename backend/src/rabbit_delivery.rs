//! A consumer and what it is given. Must not know what a message means, nor how connections are made.

use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::{Live, in_time, said, shape};

/// A consumer of one queue. Dropped, it gives back what it holds; the broker counts that as returned.
pub(crate) struct Consumer {
    stream: lapin::Consumer,
    channel: lapin::Channel,
    _live: Arc<Live>,
}

impl Consumer {
    pub(super) async fn open(live: Arc<Live>, queue: &str, prefetch: u16) -> Result<Self, String> {
        let channel = live.connection.create_channel().await.map_err(said)?;
        let qos = channel.basic_qos(prefetch.max(1), BasicQosOptions::default());
        qos.await.map_err(said)?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let opened = channel.basic_consume(queue.into(), "".into(), options, none);
        let stream = opened.await.map_err(said)?;
        Ok(Self {
            stream,
            channel,
            _live: live,
        })
    }

    /// The next message; `None` when the connection is lost or the queue is gone: open a new consumer.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        match self.stream.next().await {
            Some(Ok(delivery)) if self.channel.status().connected() => {
                Some(Delivery::new(delivery))
            }
            _ => None,
        }
    }
}

/// One message, to be settled by [`ack`](Self::ack), [`retry`](Self::retry) or [`dead`](Self::dead). Neither: it is
/// held until its consumer is dropped.
pub(crate) struct Delivery {
    /// As published.
    pub(crate) body: Vec<u8>,
    /// Topic it was published to, for one that came back from the dead letters too.
    pub(crate) topic: String,
    /// The publisher's name for it: the same on every delivery, and when it was published twice.
    pub(crate) message_id: String,
    /// W3C trace context of the publisher.
    pub(crate) traceparent: Option<String>,
    /// Deliveries before this one, 0 the first time.
    pub(crate) attempts: u32,
    /// Time of publishing, Unix ms; 0 if the publisher named none.
    pub(crate) timestamp_ms: u64,
    acker: Acker,
}

impl Delivery {
    fn new(delivery: lapin::message::Delivery) -> Self {
        let properties = &delivery.properties;
        let header = |name: &str| {
            let headers = properties.headers().as_ref()?.inner();
            headers
                .iter()
                .find(|(n, _)| n.as_str() == name)
                .map(|(_, v)| v)
        };
        let owned = |s: &lapin::types::ShortString| s.as_str().to_owned();
        let seconds = properties.timestamp().unwrap_or(0);
        Self {
            topic: owned(properties.kind().as_ref().unwrap_or(&delivery.routing_key)),
            message_id: properties
                .message_id()
                .as_ref()
                .map(owned)
                .unwrap_or_default(),
            traceparent: header(shape::TRACE).and_then(|v| match v {
                AMQPValue::LongString(s) => Some(s.to_string()),
                AMQPValue::ShortString(s) => Some(owned(s)),
                _ => None,
            }),
            attempts: header("x-delivery-count").and_then(number).unwrap_or(0) as u32,
            timestamp_ms: header(shape::AT_MS)
                .and_then(number)
                .unwrap_or(seconds.saturating_mul(1000)),
            body: delivery.data,
            acker: delivery.acker,
        }
    }

    /// It is done. An error means that the broker will deliver it again.
    pub(crate) async fn ack(self) -> Result<(), String> {
        self.settle(None).await
    }

    /// Gives it back: delivered again at once, or a dead letter when it was returned too often.
    pub(crate) async fn retry(self) -> Result<(), String> {
        self.settle(Some(true)).await
    }

    /// Makes it a dead letter at once.
    pub(crate) async fn dead(self) -> Result<(), String> {
        self.settle(Some(false)).await
    }

    async fn settle(self, requeue: Option<bool>) -> Result<(), String> {
        let told = in_time(async {
            match requeue {
                None => self.acker.ack(BasicAckOptions::default()).await,
                Some(requeue) => {
                    let options = BasicNackOptions {
                        requeue,
                        multiple: false,
                    };
                    self.acker.nack(options).await
                }
            }
            .map_err(said)
        });
        match told.await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err("RabbitMQ: the connection is lost, the message will come again".to_owned())
            }
            Err(e) => Err(format!("RabbitMQ: the message was not settled: {e}")),
        }
    }
}

fn number(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::LongLongInt(n) => u64::try_from(*n).ok(),
        AMQPValue::LongInt(n) => u64::try_from(*n).ok(),
        AMQPValue::LongUInt(n) => Some(u64::from(*n)),
        AMQPValue::ShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortUInt(n) => Some(u64::from(*n)),
        AMQPValue::ShortShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortShortUInt(n) => Some(u64::from(*n)),
        AMQPValue::Timestamp(n) => Some(*n),
        _ => None,
    }
}
