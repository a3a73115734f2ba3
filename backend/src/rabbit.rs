//! The queue kept by a real RabbitMQ: a topic exchange, a quorum queue a name, dead letters. Must not know what the
//! messages mean, faults, metrics, tracing or HTTP.
//!
//! Shape: durable topic exchange `events`; quorum queues bound to their topics; direct exchange `dlx`; a quorum queue
//! `<queue>.dlq` for each. Dead letters move with confirms inside the broker (`at-least-once`), none is lost.
//!
//! Seen with RabbitMQ 3.10.8 and kept by a test: `x-delivery-limit` L means L + 1 deliveries; after the return that
//! follows the last one the broker makes the message a dead letter with the reason `delivery_limit`. A returned
//! message comes again at once, before the ones behind it: there is no backoff in the broker, so whoever wants one
//! waits before [`Delivery::retry`]. A message held by a consumer whose channel or connection ends counts as returned
//! too. The count is in `x-delivery-count`, absent the first time.
//!
//! Two connections, so that a broker that throttles publishers never stops acknowledgements. Every call ends within
//! [`WAIT`]; a lost connection is made anew by the next call, at most one try a second and never two at once, and the
//! shape is declared again with it. A broker that is silent is taken for lost after two [`HEARTBEAT_S`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use delivery::{Consumer, Delivery};

#[path = "rabbit_delivery.rs"]
mod delivery;
#[path = "rabbit_shape.rs"]
mod shape;

/// Longest time of one call; of connecting, when a call needs a new connection, too.
const WAIT: Duration = Duration::from_secs(2);
/// Least time between two tries to connect.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// Heartbeat asked for when the address names none, seconds.
const HEARTBEAT_S: u16 = 5;
/// Messages that may wait for their confirm at the same time; more wait for their turn, within [`WAIT`].
const UNCONFIRMED: usize = 256;

/// Two connections to one broker and the shape of its queues.
pub(crate) struct Rabbit {
    out: Link,
    inward: Link,
    turns: Semaphore,
}

impl Rabbit {
    /// Connects to `amqp://user:password@host:port/vhost` and declares the queues, each with its topics.
    ///
    /// # Errors
    /// Says at what address the broker cannot be used, why, and what to do.
    pub(crate) async fn connect(
        url: &str,
        queues: &[(&str, &[&str])],
        delivery_limit: u32,
    ) -> Result<Self, String> {
        let mut uri: AMQPUri = url.parse().map_err(
            |_| "RabbitMQ: the address is not understood: write amqp://user:password@host:port/%2f",
        )?;
        uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT_S));
        let shape = Arc::new(shape::Shape::new(queues, delivery_limit));
        let (out, inward) = (Link::new(&uri, &shape), Link::new(&uri, &shape));
        for link in [&out, &inward] {
            in_time(link.live()).await.map_err(|e| {
                let at = &link.address;
                format!(
                    "RabbitMQ at {at} cannot be used: {e}: start the server or correct its address"
                )
            })?;
        }
        let turns = Semaphore::new(UNCONFIRMED);
        Ok(Self { out, inward, turns })
    }

    /// Publishes a persistent message to every queue bound to the topic and waits for the broker's confirm. After an
    /// error it may or may not be there: publish it again under the same `message_id`.
    pub(crate) async fn publish(
        &self,
        topic: &str,
        body: &[u8],
        message_id: &str,
        traceparent: Option<&str>,
    ) -> Result<(), String> {
        let properties = shape::properties(topic, message_id, traceparent);
        let send = async {
            let _turn = self.turns.acquire().await.map_err(|e| e.to_string())?;
            let live = self.out.live().await?;
            shape::send(&live.channel, shape::EXCHANGE, topic, body, properties).await
        };
        in_time(send)
            .await
            .map_err(|e| self.out.failed("publish", &e))
    }

    /// Opens a consumer of a queue that holds at most `prefetch` (at least 1) messages not yet settled.
    pub(crate) async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, String> {
        let open = async { Consumer::open(self.inward.live().await?, queue, prefetch).await };
        in_time(open)
            .await
            .map_err(|e| self.inward.failed("consume", &e))
    }

    /// Messages ready in a queue (those held by consumers are not counted), and its dead letters.
    pub(crate) async fn depths(&self, queue: &str) -> Result<(u64, u64), String> {
        let count = async {
            let live = self.out.live().await?;
            shape::depths(&live.connection, queue).await
        };
        in_time(count)
            .await
            .map_err(|e| self.out.failed("depths", &e))
    }

    /// Moves the dead letters that are there now back to the end of their queue, with a fresh count of deliveries, and
    /// returns how many. Each is confirmed there before it is taken away here: a failure in between doubles one, and
    /// loses none.
    pub(crate) async fn requeue_dead(&self, queue: &str) -> Result<usize, String> {
        let failed = |e: String| self.out.failed("requeue", &e);
        let live = in_time(self.out.live()).await.map_err(failed)?;
        let channel = in_time(shape::confirming(&live.connection))
            .await
            .map_err(failed)?;
        let (_, dead) = in_time(shape::depths(&live.connection, queue))
            .await
            .map_err(failed)?;
        let mut moved = 0;
        while moved < dead as usize
            && in_time(shape::requeue_one(&channel, queue))
                .await
                .map_err(failed)?
        {
            moved += 1;
        }
        Ok(moved)
    }
}

/// A connection with a confirming channel.
struct Live {
    connection: Connection,
    channel: Channel,
}

impl Live {
    fn works(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}

/// One connection that is made again when it is lost.
struct Link {
    uri: AMQPUri,
    shape: Arc<shape::Shape>,
    /// `host:port`, for messages: no user, no password.
    address: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    /// A try under way. It goes on when the call that began it has given up: the next one waits for the same.
    pending: Option<JoinHandle<Result<Live, String>>>,
    tried: Option<Instant>,
    error: String,
}

impl Link {
    fn new(uri: &AMQPUri, shape: &Arc<shape::Shape>) -> Self {
        Self {
            uri: uri.clone(),
            shape: Arc::clone(shape),
            address: format!("{}:{}", uri.authority.host, uri.authority.port),
            state: Mutex::default(),
        }
    }

    fn failed(&self, what: &str, e: &str) -> String {
        format!("RabbitMQ at {}: {what}: {e}", self.address)
    }

    /// The connection, a new one if it is lost.
    async fn live(&self) -> Result<Arc<Live>, String> {
        let mut state = self.state.lock().await;
        if let Some(live) = state.live.take_if(|live| !live.works()) {
            drop(live);
            state.error = "the connection is lost".to_owned();
        }
        if let Some(live) = &state.live {
            return Ok(Arc::clone(live));
        }
        if state.pending.is_none() {
            if state.tried.is_some_and(|at| at.elapsed() < BETWEEN_TRIES) {
                return Err(state.error.clone());
            }
            state.tried = Some(Instant::now());
            let (uri, shape) = (self.uri.clone(), Arc::clone(&self.shape));
            state.pending = Some(tokio::spawn(open(uri, shape)));
        }
        let done = match &mut state.pending {
            Some(pending) => pending.await,
            None => return Err(state.error.clone()),
        };
        state.pending = None;
        match done.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(live) => {
                let live = Arc::new(live);
                state.live = Some(Arc::clone(&live));
                Ok(live)
            }
            Err(e) => {
                state.error.clone_from(&e);
                Err(e)
            }
        }
    }
}

async fn open(uri: AMQPUri, shape: Arc<shape::Shape>) -> Result<Live, String> {
    let properties = ConnectionProperties::default().with_connection_name("refbackend".into());
    let connection = Connection::connect_uri(uri, properties)
        .await
        .map_err(said)?;
    let channel = shape::confirming(&connection).await?;
    shape.declare(&channel).await?;
    Ok(Live {
        connection,
        channel,
    })
}

async fn in_time<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(WAIT, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} ms", WAIT.as_millis())),
    }
}

fn said(e: lapin::Error) -> String {
    e.to_string()
}

#[cfg(test)]
#[path = "rabbit_test.rs"]
mod tests;
