//! The cache kept by a real Redis: one multiplexed connection to the primary, one to the replica when there is one.
//! Must not know what is cached, breakers, faults, metrics or HTTP.
//!
//! Every call ends within the time-out. A lost connection is noticed as soon as the server closes it and a new one is
//! tried about every 250 to 500 ms for as long as it takes, in the background, so that a server that is back is used
//! within about a second; calls made meanwhile fail. At most [`MAX_WAITING`] calls wait for an answer and at most
//! about that many given up ones are remembered; beyond either a call fails at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo as _, ProtocolVersion};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Calls that may wait for an answer of one server at the same time.
const MAX_WAITING: usize = 1024;
/// While a server does not answer at all and that many calls were given up, one call in so many ms is let through.
const PROBE_MS: u64 = 100;
/// Longest time for one attempt to connect, and for the first connection of all.
const CONNECT: Duration = Duration::from_millis(500);
const FIRST_CONNECT: Duration = Duration::from_secs(2);

/// A Redis primary with an optional replica for reading.
pub(crate) struct RedisCache {
    primary: Server,
    replica: Option<Server>,
    /// Reads go to the replica, if there is one; nothing falls back from one to the other.
    pub(crate) read_replica: bool,
}

impl RedisCache {
    /// Connects to `redis://host:port/db` addresses; a call slower than `timeout_ms` is an error.
    ///
    /// # Errors
    /// Says which server, at what address, cannot be used and what to do.
    pub(crate) async fn connect(
        primary_url: &str,
        replica_url: Option<&str>,
        timeout_ms: u64,
    ) -> Result<Self, String> {
        let limit = Duration::from_millis(timeout_ms.max(1));
        let primary = Server::connect("Redis primary", primary_url, limit).await?;
        let replica = match replica_url {
            Some(url) => Some(Server::connect("Redis replica", url, limit).await?),
            None => None,
        };
        Ok(Self {
            primary,
            replica,
            read_replica: false,
        })
    }

    /// The value of a key, `None` when there is none or its life is over.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Bytes>, String> {
        let server = match &self.replica {
            Some(replica) if self.read_replica => replica,
            _ => &self.primary,
        };
        let value: Option<Vec<u8>> = server.call(redis::cmd("GET").arg(key)).await?;
        Ok(value.map(Bytes::from))
    }

    /// Keeps a value for `ttl_s` seconds, at least 1.
    pub(crate) async fn set(&self, key: &str, bytes: &[u8], ttl_s: u64) -> Result<(), String> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(key).arg(bytes).arg("EX").arg(ttl_s.max(1));
        self.primary.call(&cmd).await
    }

    /// Deletes a key; a key that is not there is no error.
    pub(crate) async fn del(&self, key: &str) -> Result<(), String> {
        self.primary.call(redis::cmd("DEL").arg(key)).await
    }

    /// Empties the database that the address names. Keys are gone at once, their memory a little later.
    pub(crate) async fn purge(&self) -> Result<(), String> {
        self.primary.call(redis::cmd("FLUSHDB").arg("ASYNC")).await
    }
}

/// One server and its connection.
struct Server {
    manager: ConnectionManager,
    name: &'static str,
    address: String,
    limit: Duration,
    waiting: Semaphore,
    /// Calls given up since the last answer: their answers are still expected on the connection.
    given_up: AtomicUsize,
    started: Instant,
    probed_ms: AtomicU64,
}

impl Server {
    async fn connect(name: &'static str, url: &str, limit: Duration) -> Result<Self, String> {
        // The address alone is shown, never the text of the URL: it may hold a password.
        let info = url.into_connection_info().map_err(|e| {
            format!("{name}: the address is not understood ({e}): write redis://host:port")
        })?;
        let address = info.addr().to_string();
        let hint = |e: &dyn std::fmt::Display| {
            format!(
                "{name} at {address} cannot be used: {e}: start the server or correct its address"
            )
        };
        // RESP3, because its connections report their own end, so that a reconnect needs no failed call first.
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(|e| hint(&e))?;
        // The manager below tries again for ever; a first plain connection names the error at once.
        let attempt = async {
            let mut plain = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING").query_async::<()>(&mut plain).await?;
            let config = ConnectionManagerConfig::new()
                .set_response_timeout(Some(limit))
                .set_connection_timeout(Some(CONNECT))
                .set_min_delay(Duration::from_millis(50))
                .set_max_delay(Duration::from_millis(250))
                .set_number_of_retries(usize::MAX);
            ConnectionManager::new_with_config(client.clone(), config).await
        };
        let manager = match timeout(FIRST_CONNECT, attempt).await {
            Ok(Ok(manager)) => manager,
            Ok(Err(e)) => return Err(hint(&e)),
            Err(_) => {
                return Err(hint(&format!(
                    "no answer within {} ms",
                    FIRST_CONNECT.as_millis()
                )));
            }
        };
        Ok(Self {
            manager,
            name,
            address,
            limit,
            waiting: Semaphore::new(MAX_WAITING),
            given_up: AtomicUsize::new(0),
            started: Instant::now(),
            probed_ms: AtomicU64::new(0),
        })
    }

    async fn call<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, String> {
        let failed = |e: &dyn std::fmt::Display| format!("{} at {}: {e}", self.name, self.address);
        if self.given_up.load(Ordering::Relaxed) >= MAX_WAITING && !self.may_probe() {
            return Err(failed(&"it does not answer"));
        }
        let Ok(_permit) = self.waiting.try_acquire() else {
            return Err(failed(&format!("{MAX_WAITING} calls wait for an answer")));
        };
        let mut manager = self.manager.clone();
        match timeout(self.limit, cmd.query_async(&mut manager)).await {
            Ok(Ok(value)) => {
                self.given_up.store(0, Ordering::Relaxed);
                Ok(value)
            }
            Ok(Err(e)) => {
                if e.is_timeout() {
                    self.given_up.fetch_add(1, Ordering::Relaxed);
                }
                Err(failed(&e))
            }
            Err(_) => {
                self.given_up.fetch_add(1, Ordering::Relaxed);
                Err(failed(&format!(
                    "no answer within {} ms",
                    self.limit.as_millis()
                )))
            }
        }
    }

    fn may_probe(&self) -> bool {
        let now = self.started.elapsed().as_millis() as u64;
        let last = self.probed_ms.load(Ordering::Relaxed);
        now >= last + PROBE_MS
            && self
                .probed_ms
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
#[path = "redis_cache_test.rs"]
mod tests;
