//! Owns connections by host: a limit on how many are open, kept ones used again, a stale one replaced once.
//! Must not know scripts, cookies or redirects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use url::Url;

use crate::conn::{ConnError, Connector, ErrorKind, Opened, Target};
use crate::fast::reactor::{Answered, Link, Way};

/// The longest body kept, in bytes.
const MAX_BODY: u64 = 64 << 20;
/// The most hosts one pool dials.
const MAX_HOSTS: usize = 1_000;

/// How to get to each host; all users of a run share it, but no TLS session.
pub(crate) struct Dialers {
    insecure: bool,
    by_origin: Mutex<HashMap<Arc<str>, Arc<Way>>>,
}

impl Dialers {
    pub(crate) fn new(insecure: bool) -> Dialers {
        Dialers {
            insecure,
            by_origin: Mutex::default(),
        }
    }

    fn of(&self, url: &Url, origin: &Arc<str>) -> Result<Arc<Way>, NoExchange> {
        let mut all = lock(&self.by_origin);
        if let Some(way) = all.get(origin) {
            return Ok(Arc::clone(way));
        }
        let bad = |e: crate::LoadError| NoExchange::Url(e.to_string());
        let target = Target::parse(url.as_str()).map_err(bad)?;
        let connector = Connector::new(target, self.insecure).map_err(bad)?;
        let way = Arc::new(Way::of(&connector.without_resumption()));
        if all.len() >= MAX_HOSTS {
            all.clear();
        }
        all.insert(Arc::clone(origin), Arc::clone(&way));
        Ok(way)
    }
}

/// Connections of one user, or of all.
pub(crate) struct Pool {
    per_host: usize,
    dialers: Arc<Dialers>,
    hosts: Mutex<Hosts>,
}

#[derive(Default)]
struct Hosts {
    /// The one asked for last: most users have only one.
    last: Option<(Arc<str>, Arc<Host>)>,
    all: HashMap<Arc<str>, Arc<Host>>,
}

struct Host {
    way: Arc<Way>,
    permits: Semaphore,
    idle: Mutex<Vec<Link>>,
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

/// A request as it goes onto the wire, and what must be known of it.
pub(crate) struct Outgoing<'a> {
    pub(crate) url: &'a Url,
    /// The URL's, as [`Url::origin`] writes it.
    pub(crate) origin: &'a Arc<str>,
    pub(crate) bytes: &'a [u8],
    pub(crate) method: &'a http::Method,
    /// Somebody looks at the response's body.
    pub(crate) keep_body: bool,
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

    fn host(&self, url: &Url, origin: &Arc<str>) -> Result<Arc<Host>, NoExchange> {
        let mut hosts = lock(&self.hosts);
        if let Some((last, host)) = &hosts.last
            && last == origin
        {
            return Ok(Arc::clone(host));
        }
        let host = match hosts.all.get(origin) {
            Some(host) => Arc::clone(host),
            None => {
                let host = Arc::new(Host {
                    way: self.dialers.of(url, origin)?,
                    permits: Semaphore::new(self.per_host),
                    idle: Mutex::default(),
                });
                if hosts.all.len() >= MAX_HOSTS {
                    hosts.all.clear();
                }
                hosts.all.insert(Arc::clone(origin), Arc::clone(&host));
                host
            }
        };
        hosts.last = Some((Arc::clone(origin), Arc::clone(&host)));
        Ok(host)
    }

    /// Sends a request, within `timeout` from when a connection slot is free. To be called on a reactor's thread.
    pub(crate) async fn send(
        &self,
        request: &Outgoing<'_>,
        timeout: Duration,
        trip: &mut Trip,
    ) -> Result<Answered, NoExchange> {
        let host = self.host(request.url, request.origin)?;
        trip.queued = host.permits.available_permits() == 0;
        // Never closed, so acquiring cannot fail.
        let _permit = host.permits.acquire().await.ok();
        let began = Instant::now();
        trip.picked = Some(began);
        let deadline = began + timeout;
        let head = *request.method == http::Method::HEAD;
        let idempotent = !matches!(*request.method, http::Method::POST | http::Method::PATCH);
        let mut kept = lock(&host.idle).pop().filter(Link::is_open);
        loop {
            let reused = kept.is_some();
            let mut link = match kept.take() {
                Some(link) => link,
                None => {
                    let opened = Link::open(&host.way, deadline).await;
                    let (link, opened) = opened.map_err(NoExchange::Conn)?;
                    trip.opened = Some(opened);
                    link
                }
            };
            trip.sent = Some(if trip.opened.is_some() {
                Instant::now()
            } else {
                began
            });
            let read = (MAX_BODY, request.keep_body);
            match link.exchange(request.bytes, head, read, deadline).await {
                Ok(answered) => {
                    if link.is_open() {
                        lock(&host.idle).push(link);
                    }
                    return Ok(answered);
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
