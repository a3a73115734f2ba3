//! Owns connections by host: a limit on how many are open, kept ones used again, a stale one replaced once.
//! Must not know scripts, cookies or redirects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::sync::Semaphore;
use url::Url;

use crate::conn::{ConnError, Connection, Connector, ErrorKind, Exchange, Opened, Target};

/// The longest body kept, in bytes.
const MAX_BODY: u64 = 64 << 20;
/// The most hosts one pool dials.
const MAX_HOSTS: usize = 1_000;

/// What dials each host; all users of a run share it, but no TLS session.
pub(crate) struct Dialers {
    insecure: bool,
    by_origin: Mutex<HashMap<String, Connector>>,
}

impl Dialers {
    pub(crate) fn new(insecure: bool) -> Dialers {
        Dialers {
            insecure,
            by_origin: Mutex::default(),
        }
    }

    fn of(&self, url: &Url, origin: &str) -> Result<Connector, NoExchange> {
        let mut all = lock(&self.by_origin);
        if let Some(connector) = all.get(origin) {
            return Ok(connector.clone());
        }
        let bad = |e: crate::LoadError| NoExchange::Url(e.to_string());
        let target = Target::parse(url.as_str()).map_err(bad)?;
        let connector = Connector::new(target, self.insecure).map_err(bad)?;
        let connector = connector.without_resumption();
        if all.len() >= MAX_HOSTS {
            all.clear();
        }
        all.insert(origin.to_owned(), connector.clone());
        Ok(connector)
    }
}

/// Connections of one user, or of all.
pub(crate) struct Pool {
    per_host: usize,
    dialers: Arc<Dialers>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

struct Host {
    connector: Connector,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

/// What is known of an exchange besides its outcome.
#[derive(Default)]
pub(crate) struct Trip {
    /// Another request had to end first.
    pub(crate) queued: bool,
    /// When it had a connection slot, and when it was handed to an open connection.
    pub(crate) picked: Option<Instant>,
    pub(crate) sent: Option<Instant>,
    pub(crate) opened: Option<Opened>,
    pub(crate) reconnected: bool,
}

/// Why there was no exchange.
pub(crate) enum NoExchange {
    /// The URL is not one to send to.
    Url(String),
    Conn(ConnError),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(crate) fn new(per_host: usize, dialers: &Arc<Dialers>) -> Pool {
        Pool {
            per_host,
            dialers: Arc::clone(dialers),
            hosts: Mutex::default(),
        }
    }

    fn host(&self, url: &Url) -> Result<Arc<Host>, NoExchange> {
        let key = url.origin().ascii_serialization();
        let mut hosts = lock(&self.hosts);
        if let Some(host) = hosts.get(&key) {
            return Ok(Arc::clone(host));
        }
        let host = Arc::new(Host {
            connector: self.dialers.of(url, &key)?,
            permits: Semaphore::new(self.per_host),
            idle: Mutex::default(),
        });
        if hosts.len() >= MAX_HOSTS {
            hosts.clear();
        }
        hosts.insert(key, Arc::clone(&host));
        Ok(host)
    }

    /// Sends what `make` makes, within `timeout` from when a connection slot is free.
    pub(crate) async fn send(
        &self,
        url: &Url,
        make: &(dyn Fn() -> Request<Full<Bytes>> + Sync),
        timeout: Duration,
        trip: &mut Trip,
    ) -> Result<Exchange, NoExchange> {
        let host = self.host(url)?;
        trip.queued = host.permits.available_permits() == 0;
        // Never closed, so acquiring cannot fail.
        let _permit = host.permits.acquire().await.ok();
        let began = Instant::now();
        trip.picked = Some(began);
        let left = || timeout.saturating_sub(began.elapsed());
        let mut kept = lock(&host.idle).pop().filter(Connection::is_open);
        loop {
            let reused = kept.is_some();
            let mut conn = match kept.take() {
                Some(conn) => conn,
                None => {
                    let conn = host.connector.open(left()).await;
                    let conn = conn.map_err(NoExchange::Conn)?;
                    trip.opened = Some(conn.opened());
                    conn
                }
            };
            trip.sent = Some(Instant::now());
            let request = make();
            let idempotent =
                *request.method() != http::Method::POST && *request.method() != http::Method::PATCH;
            match conn.send(request, left(), MAX_BODY).await {
                Ok(exchange) => {
                    if conn.is_open() {
                        lock(&host.idle).push(conn);
                    }
                    return Ok(exchange);
                }
                Err(error) => {
                    let closed = matches!(error.kind, ErrorKind::Closed | ErrorKind::Reset)
                        && error.nothing_received;
                    let stale = reused && closed && (idempotent || error.never_sent);
                    if !stale || trip.reconnected {
                        return Err(NoExchange::Conn(error));
                    }
                    trip.reconnected = true;
                }
            }
        }
    }
}

/// The name Node, and so Artillery, gives to a failure; of certificates by what rustls says of them. One that nobody known
/// has signed is told apart from one that signed itself only when it says that it may sign others.
pub(crate) fn node_name(error: &ConnError) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|w| error.detail.contains(w));
    match error.kind {
        ErrorKind::Tls if says(&["CaUsedAsEndEntity"]) => "DEPTH_ZERO_SELF_SIGNED_CERT",
        ErrorKind::Tls if says(&["UnknownIssuer"]) => "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        ErrorKind::Tls if says(&["expired", "Expired"]) => "CERT_HAS_EXPIRED",
        ErrorKind::Tls if says(&["not valid for name", "NotValidForName"]) => {
            "ERR_TLS_CERT_ALTNAME_INVALID"
        }
        kind => node_code(kind),
    }
}

/// The same by the kind of failure alone.
pub(crate) fn node_code(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Refused => "ECONNREFUSED",
        ErrorKind::Reset | ErrorKind::Closed => "ECONNRESET",
        ErrorKind::Timeout => "ETIMEDOUT",
        ErrorKind::Dns => "ENOTFOUND",
        ErrorKind::Unreachable => "EHOSTUNREACH",
        ErrorKind::Protocol | ErrorKind::Encoding => "HPE_INVALID_CONSTANT",
        ErrorKind::TooLarge => "ERR_TOO_LARGE",
        ErrorKind::Tls => "ERR_TLS",
        ErrorKind::Local => "EADDRNOTAVAIL",
        ErrorKind::Io | ErrorKind::Proxy => "EIO",
        ErrorKind::StreamReset | ErrorKind::GoAway | ErrorKind::Flood => "ERR_HTTP2_STREAM_ERROR",
    }
}
