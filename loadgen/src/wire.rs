//! Owns one request's way to an answer: a connection of the worker's own or a stream of one it shares, a stale one
//! replaced once, redirects followed, cookies kept. Must not know schedules, routes or reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use tokio::sync::Mutex;
use url::Url;

use crate::LoadError;
use crate::artillery::cookies::Jar;
use crate::conn::{ConnError, Connection, Connector, ErrorKind, Exchange, Opened, Target};
use crate::h2::link::Link;
use crate::outgoing::{Outgoing, Source};
use crate::plan::{MAX_RATE_ELSEWHERE, Plan};
use crate::transport::Transport;

/// The longest body read, in bytes; it is not kept.
pub(crate) const MAX_BODY: u64 = 1 << 30;

/// The way to the server that all workers of a run share.
pub(crate) struct Wire {
    connector: Connector,
    transport: Transport,
    insecure: bool,
    base: Url,
    /// Redirects may lead to hosts other than this machine.
    roam: bool,
    /// HTTP/2 connections, each shared by as many workers as it has streams.
    links: Vec<Mutex<Option<Link>>>,
    lanes: AtomicUsize,
    counts: Counts,
}

/// One worker's part of it.
pub(crate) struct Lane {
    conn: Option<Connection>,
    /// The connection to the last other origin that a redirect led to.
    elsewhere: Option<(String, Connection)>,
    /// The same over HTTP/2.
    away: Option<(String, Link)>,
    jar: Option<Jar>,
    link: usize,
}

/// What is known of a request while it is tried.
#[derive(Debug, Default)]
pub(crate) struct Trip {
    /// When it was handed to an open connection.
    pub(crate) sent: Option<Instant>,
    pub(crate) opened: Option<Opened>,
    pub(crate) reconnected: bool,
    /// No connection could be opened.
    pub(crate) undialled: bool,
}

/// What happened beside requests and answers, in the measured part.
#[derive(Debug, Default)]
struct Counts {
    redirects: AtomicU64,
    redirects_refused: AtomicU64,
    body: AtomicU64,
    decoded: AtomicU64,
    peer_streams: AtomicU64,
}

impl Wire {
    /// # Errors
    /// What the transport names cannot be used: a certificate, for example.
    pub(crate) fn new(plan: &Plan) -> Result<Wire, LoadError> {
        let target = Target::parse(&plan.target)?;
        let base = Url::parse(&plan.target).map_err(|e| LoadError::Target {
            text: plan.target.clone(),
            why: e.to_string(),
        })?;
        let links = if plan.transport.http2 {
            plan.connections
        } else {
            0
        };
        let slow = plan.peak_rate().is_some_and(|r| r <= MAX_RATE_ELSEWHERE);
        Ok(Wire {
            connector: Connector::with(target, plan.insecure, &plan.transport)?,
            transport: plan.transport.clone(),
            insecure: plan.insecure,
            base,
            roam: plan.own_target || slow,
            links: (0..links).map(|_| Mutex::default()).collect(),
            lanes: AtomicUsize::new(0),
            counts: Counts::default(),
        })
    }

    /// What opens connections to the target.
    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// A further worker's part.
    pub(crate) fn lane(&self) -> Lane {
        let number = self.lanes.fetch_add(1, Ordering::Relaxed);
        Lane {
            conn: None,
            elsewhere: None,
            away: None,
            jar: self.transport.cookies.then(Jar::default),
            link: (number / self.transport.streams) % self.links.len().max(1),
        }
    }

    /// The server takes so many streams on one connection.
    pub(crate) fn saw_streams(&self, streams: u32) {
        let seen = &self.counts.peer_streams;
        let before = seen.load(Ordering::Relaxed);
        if before == 0 || before > u64::from(streams) {
            seen.store(u64::from(streams).max(1), Ordering::Relaxed);
        }
    }

    /// What was counted, by name; nothing of what was not asked for.
    pub(crate) fn counted(&self) -> BTreeMap<String, u64> {
        let t = &self.transport;
        let streams = self.counts.peer_streams.load(Ordering::Relaxed);
        let all = [
            (
                "redirects_followed",
                t.redirects > 0,
                &self.counts.redirects,
            ),
            (
                "redirects_refused",
                t.redirects > 0,
                &self.counts.redirects_refused,
            ),
            ("body_bytes", t.compressed, &self.counts.body),
            ("decoded_bytes", t.compressed, &self.counts.decoded),
            (
                "server_max_streams",
                t.http2 && streams > 0 && streams < u64::from(u32::MAX),
                &self.counts.peer_streams,
            ),
        ];
        let asked = all.into_iter().filter(|(_, asked, _)| *asked);
        asked
            .map(|(name, _, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
            .collect()
    }

    /// Sends what `make` makes and gets its last answer: redirects are followed as far as the transport says.
    pub(crate) async fn exchange(
        &self,
        lane: &mut Lane,
        make: &(dyn Fn() -> Request<Outgoing> + Sync),
        timeout: Duration,
        measured: bool,
        trip: &mut Trip,
    ) -> Result<Exchange, ConnError> {
        let deadline = Instant::now() + timeout;
        if lane.jar.is_none() && self.transport.redirects == 0 {
            let exchange = self.once(lane, None, make, deadline, trip).await?;
            self.sizes(&exchange, measured);
            return Ok(exchange);
        }
        let first = make();
        let (method, headers) = (first.method().clone(), first.headers().clone());
        let path = first.uri().path_and_query().map_or("/", |p| p.as_str());
        let url = self.base.join(path);
        let mut hop = Hop {
            method,
            headers,
            url: url.unwrap_or_else(|_| self.base.clone()),
            body: first.into_body().into_source(),
        };
        let (mut followed, mut wire_bytes) = (0, 0);
        loop {
            let origin = hop.url.origin() != self.base.origin();
            let cookie = lane.cookies(&hop.url);
            let make = || hop.request(cookie.as_ref());
            let elsewhere = origin.then_some(&hop.url);
            let mut exchange = self.once(lane, elsewhere, &make, deadline, trip).await?;
            lane.keep_cookies(&exchange.headers, &hop.url);
            self.sizes(&exchange, measured);
            wire_bytes += exchange.wire_bytes;
            exchange.wire_bytes = wire_bytes;
            let Some(next) = hop.redirected(&exchange) else {
                return Ok(exchange);
            };
            let allowed = followed < self.transport.redirects && self.may_go(&next);
            let count = if allowed {
                &self.counts.redirects
            } else {
                &self.counts.redirects_refused
            };
            if measured && self.transport.redirects > 0 {
                count.fetch_add(1, Ordering::Relaxed);
            }
            if !allowed {
                return Ok(exchange);
            }
            followed += 1;
            hop.follow(exchange.status, next);
        }
    }

    fn sizes(&self, exchange: &Exchange, measured: bool) {
        if measured && self.transport.compressed {
            let (body, decoded) = (&self.counts.body, &self.counts.decoded);
            body.fetch_add(exchange.body_len, Ordering::Relaxed);
            decoded.fetch_add(exchange.decoded_len, Ordering::Relaxed);
        }
    }

    /// Whether a redirect may be followed to this place.
    fn may_go(&self, next: &Url) -> bool {
        if !matches!(next.scheme(), "http" | "https") {
            return false;
        }
        if next.origin() == self.base.origin() {
            return true;
        }
        // Another origin needs a connection of its own, which a socket file is not.
        // With connect-to, only the plan's own origin is known to lead where the user said.
        let t = &self.transport;
        if t.unix_socket.is_some() || t.connect_to.is_some() {
            return false;
        }
        if next.host_str() == self.base.host_str() {
            return true;
        }
        let here = Target::parse(next.as_str()).is_ok_and(|t| t.is_loopback());
        self.transport.redirect_hosts && (self.roam || here)
    }

    /// One request and its answer; a kept connection that turns out to be closed is replaced once.
    async fn once(
        &self,
        lane: &mut Lane,
        elsewhere: Option<&Url>,
        make: &(dyn Fn() -> Request<Outgoing> + Sync),
        deadline: Instant,
        trip: &mut Trip,
    ) -> Result<Exchange, ConnError> {
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            let request = make();
            let repeatable = !matches!(*request.method(), Method::POST | Method::PATCH);
            let (reused, outcome) = match elsewhere {
                Some(url) if self.transport.http2 => {
                    self.away(lane, url, request, left, trip).await
                }
                None if self.transport.http2 => self.shared(lane, request, left, trip).await,
                _ => self.alone(lane, elsewhere, request, left, trip).await,
            };
            let error = match outcome {
                Ok(exchange) => return Ok(exchange),
                Err(error) => error,
            };
            let closed = matches!(error.kind, ErrorKind::Closed | ErrorKind::Reset)
                && error.nothing_received
                && !self.transport.http2;
            // What an HTTP/2 server says it did not act on may be sent again, whatever it is.
            let refused = matches!(
                error.kind,
                ErrorKind::GoAway | ErrorKind::StreamReset | ErrorKind::Closed
            ) && error.never_sent
                && self.transport.http2;
            let stale = reused && ((closed && (repeatable || error.never_sent)) || refused);
            if !stale || trip.reconnected {
                return Err(error);
            }
            trip.reconnected = true;
        }
    }

    /// Over the worker's own HTTP/1.1 connection.
    async fn alone(
        &self,
        lane: &mut Lane,
        elsewhere: Option<&Url>,
        mut request: Request<Outgoing>,
        left: impl Fn() -> Duration,
        trip: &mut Trip,
    ) -> (bool, Result<Exchange, ConnError>) {
        let origin = elsewhere.map(|url| url.origin().ascii_serialization());
        let kept = match &origin {
            None => lane.conn.take(),
            Some(origin) => {
                let other = lane.elsewhere.take_if(|(o, _)| o == origin);
                other.map(|(_, conn)| conn)
            }
        };
        let kept = kept.filter(Connection::is_open);
        let reused = kept.is_some();
        let mut conn = match kept {
            Some(conn) => conn,
            None => {
                let opened = match elsewhere {
                    None => self.connector.open(left()).await,
                    Some(url) => match self.connector_elsewhere(url) {
                        Ok(connector) => connector.open(left()).await,
                        Err(error) => Err(error),
                    },
                };
                match opened {
                    Ok(conn) => {
                        trip.opened = Some(conn.opened());
                        conn
                    }
                    Err(error) => {
                        trip.undialled = elsewhere.is_none();
                        return (reused, Err(error));
                    }
                }
            }
        };
        let last = self.is_last(conn.exchanges() + 1);
        if last {
            let close = HeaderValue::from_static("close");
            request.headers_mut().insert(header::CONNECTION, close);
        }
        trip.sent = trip.sent.or(Some(Instant::now()));
        if trip.reconnected {
            trip.sent = Some(Instant::now());
        }
        let outcome = if self.transport.compressed {
            conn.send_decoding(request, left(), MAX_BODY).await
        } else {
            conn.send_discarding(request, left(), MAX_BODY).await
        };
        if outcome.is_ok() && !last {
            match origin {
                None => lane.conn = Some(conn),
                Some(origin) => lane.elsewhere = Some((origin, conn)),
            }
        }
        (reused, outcome)
    }

    fn is_last(&self, exchange: u64) -> bool {
        let most = self.transport.requests_per_connection;
        most.is_some_and(|most| exchange >= most)
    }

    fn connector_elsewhere(&self, url: &Url) -> Result<Connector, ConnError> {
        let bad = |e: LoadError| ConnError::new(ErrorKind::Protocol, e);
        let target = Target::parse(url.as_str()).map_err(bad)?;
        let mut transport = self.transport.clone();
        if url.host_str() != self.base.host_str() {
            // The addresses are the plan's own host's.
            transport.resolve.clear();
        }
        Connector::with(target, self.insecure, &transport).map_err(bad)
    }

    /// To another origin over an HTTP/2 connection of the worker's own, which is kept for the next redirect there.
    async fn away(
        &self,
        lane: &mut Lane,
        url: &Url,
        request: Request<Outgoing>,
        left: impl Fn() -> Duration,
        trip: &mut Trip,
    ) -> (bool, Result<Exchange, ConnError>) {
        let origin = url.origin().ascii_serialization();
        let kept = lane
            .away
            .take_if(|(o, link)| *o == origin && link.is_open());
        let reused = kept.is_some();
        let link = match kept {
            Some((_, link)) => link,
            None => {
                let opened = match self.connector_elsewhere(url) {
                    Ok(connector) => Link::open(&connector, left(), MAX_BODY).await,
                    Err(error) => Err(error),
                };
                match opened {
                    Ok(link) => {
                        trip.opened = Some(link.opened());
                        link
                    }
                    Err(error) => return (reused, Err(error)),
                }
            }
        };
        let through = link.send(request, left(), self.transport.compressed).await;
        if trip.sent.is_none() {
            trip.sent = through.sent;
        }
        lane.away = Some((origin, link));
        (reused, through.outcome)
    }

    /// Over a stream of an HTTP/2 connection.
    async fn shared(
        &self,
        lane: &mut Lane,
        request: Request<Outgoing>,
        left: impl Fn() -> Duration,
        trip: &mut Trip,
    ) -> (bool, Result<Exchange, ConnError>) {
        let Some(place) = self.links.get(lane.link) else {
            let none = ConnError::new(ErrorKind::Local, "no HTTP/2 connection was planned");
            return (false, Err(none));
        };
        let mut held = place.lock().await;
        let mut reused = true;
        let link = match held.as_ref().filter(|link| link.is_open()) {
            Some(link) => link.clone(),
            None => {
                reused = false;
                *held = None;
                match Link::open(&self.connector, left(), MAX_BODY).await {
                    Ok(link) => {
                        trip.opened = Some(link.opened());
                        held.insert(link).clone()
                    }
                    Err(error) => {
                        trip.undialled = true;
                        return (reused, Err(error));
                    }
                }
            }
        };
        if self.is_last(link.count()) {
            link.retire();
            *held = None;
        }
        drop(held);
        let handed = Instant::now();
        let through = link.send(request, left(), self.transport.compressed).await;
        if trip.sent.is_none() || trip.reconnected {
            trip.sent = Some(through.sent.unwrap_or(handed));
        }
        if let Some(streams) = link.peer_streams() {
            self.saw_streams(streams);
        }
        (reused, through.outcome)
    }
}

impl Lane {
    fn cookies(&self, url: &Url) -> Option<HeaderValue> {
        let text = self.jar.as_ref()?.header(url, SystemTime::now())?;
        HeaderValue::from_str(&text).ok()
    }

    fn keep_cookies(&mut self, headers: &HeaderMap, url: &Url) {
        let Some(jar) = &mut self.jar else { return };
        for value in headers.get_all(header::SET_COOKIE) {
            if let Ok(text) = value.to_str() {
                jar.set(text, url, SystemTime::now());
            }
        }
    }
}

/// A request on its way through redirects.
struct Hop {
    method: Method,
    headers: HeaderMap,
    url: Url,
    body: Source,
}

impl Hop {
    fn request(&self, cookie: Option<&HeaderValue>) -> Request<Outgoing> {
        let mut request = Request::new(Outgoing::from(self.body.clone()));
        *request.method_mut() = self.method.clone();
        let path = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        *request.uri_mut() = path.parse().unwrap_or_default();
        *request.headers_mut() = self.headers.clone();
        if let Some(cookie) = cookie
            && !self.headers.contains_key(header::COOKIE)
        {
            request.headers_mut().insert(header::COOKIE, cookie.clone());
        }
        request
    }

    /// Where the answer leads.
    fn redirected(&self, exchange: &Exchange) -> Option<Url> {
        if !matches!(exchange.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = exchange.headers.get(header::LOCATION)?.to_str().ok()?;
        self.url.join(location).ok()
    }

    /// As browsers do (Fetch, HTTP-redirect fetch): 303, and 301 and 302 after a POST, become a GET.
    fn follow(&mut self, status: StatusCode, next: Url) {
        let posted = self.method == Method::POST && matches!(status.as_u16(), 301 | 302);
        let see_other = status == StatusCode::SEE_OTHER && self.method != Method::HEAD;
        if posted || see_other {
            self.method = Method::GET;
            self.body = Source::from(Bytes::new());
            self.headers.remove(header::CONTENT_TYPE);
            self.headers.remove(header::CONTENT_LENGTH);
        }
        if next.origin() != self.url.origin() {
            // What was meant for one server is not for another.
            for name in [header::AUTHORIZATION, header::COOKIE, header::HOST] {
                self.headers.remove(name);
            }
        }
        self.url = next;
    }
}
