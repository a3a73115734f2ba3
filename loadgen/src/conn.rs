//! Owns one HTTP/1.1 client connection: one exchange at a time, each step timed, each failure named.
//! Knows nothing of schedules, plans or reports; never retries and never follows a redirect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use crate::LoadError;
use crate::decode::Decoder;
pub use crate::dial::{Connector, Opened};
use crate::http1::Fault;
use crate::outgoing::Outgoing;

/// Why an exchange failed, as counted in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// Nobody listens on the port.
    Refused,
    /// The peer reset the connection.
    Reset,
    /// The time allowed ran out (dial, handshake, headers or body).
    Timeout,
    /// The host name did not resolve.
    Dns,
    /// The TLS handshake or a record failed.
    Tls,
    /// The peer did not speak HTTP/1.
    Protocol,
    /// Headers or body beyond the limit.
    TooLarge,
    /// The peer closed before the response was complete.
    Closed,
    /// No route to the host or network.
    Unreachable,
    /// This machine ran out of something: file descriptors, local ports.
    Local,
    /// Any other input or output error.
    Io,
    /// HTTP/2: the peer reset the stream.
    StreamReset,
    /// HTTP/2: the peer ended the connection without answering the request.
    GoAway,
    /// HTTP/2: more frames than any answer needs.
    Flood,
    /// The proxy did not open the way.
    Proxy,
    /// The body is not what its content-encoding says.
    Encoding,
}

impl ErrorKind {
    /// The name used in reports and as the `kind` label.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Refused => "refused",
            ErrorKind::Reset => "reset",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Dns => "dns",
            ErrorKind::Tls => "tls",
            ErrorKind::Protocol => "protocol",
            ErrorKind::TooLarge => "too_large",
            ErrorKind::Closed => "closed",
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::Local => "local",
            ErrorKind::Io => "io",
            ErrorKind::StreamReset => "stream_reset",
            ErrorKind::GoAway => "goaway",
            ErrorKind::Flood => "flood",
            ErrorKind::Proxy => "proxy",
            ErrorKind::Encoding => "encoding",
        }
    }
}

/// A failed dial or exchange.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {detail}", kind.as_str())]
pub struct ConnError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The underlying message.
    pub detail: String,
    /// True when not one byte of a response had arrived for this request.
    pub nothing_received: bool,
    /// True when the request never left: repeating it is always safe.
    pub never_sent: bool,
}

impl ConnError {
    pub(crate) fn new(kind: ErrorKind, detail: impl ToString) -> ConnError {
        ConnError {
            kind,
            detail: detail.to_string(),
            nothing_received: true,
            never_sent: false,
        }
    }
}

/// The place to connect to, from a base URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// True for https.
    pub tls: bool,
    /// Host name or IP address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What the `Host` header says (no port when it is the scheme's own).
    pub authority: String,
}

impl Target {
    /// Reads `http(s)://host[:port][/...]`; path and query are ignored.
    ///
    /// # Errors
    /// [`LoadError::Target`] when it is not a URL, not http(s), or carries no host.
    pub fn parse(text: &str) -> Result<Target, LoadError> {
        let bad = |why: &str| LoadError::Target {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        let url = url::Url::parse(text).map_err(|e| bad(&e.to_string()))?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(bad(&format!("scheme {other:?} is not http or https"))),
        };
        let shown = url
            .host_str()
            .filter(|h| !h.is_empty())
            .ok_or_else(|| bad("no host"))?;
        let port = url.port_or_known_default().ok_or_else(|| bad("no port"))?;
        let authority = authority(&url);
        let host = shown
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Target {
            tls,
            host,
            port,
            authority,
        })
    }

    /// True for 127.0.0.0/8, ::1 and `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    }
}

/// What the `Host` field says of a URL: no port when it is the scheme's own.
pub(crate) fn authority(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

impl Connector {
    /// Opens an HTTP/1.1 connection within `timeout`.
    ///
    /// # Errors
    /// Every way a dial fails, `never_sent` set.
    pub async fn open(&self, timeout: Duration) -> Result<Connection, ConnError> {
        let (wire, opened) = self.stream(timeout).await?;
        let received = wire.received();
        let (sender, driver) = http1::handshake(TokioIo::new(wire))
            .await
            .map_err(|e| ConnError::new(hyper_kind(&e), &e))?;
        let driver = tokio::spawn(async move {
            // The failure also reaches whoever waits for a response; an idle connection's end is seen by `is_open`.
            let _ = driver.await;
        });
        let header = |text: &str| {
            HeaderValue::from_str(text).map_err(|e| ConnError::new(ErrorKind::Protocol, e))
        };
        let authority = &self.target().authority;
        let forward = self.forward_proxy().map(|authorization| {
            let base = format!("http://{authority}");
            Ok((base, authorization.map(header).transpose()?))
        });
        Ok(Connection {
            sender,
            driver,
            received,
            host: header(authority)?,
            forward: forward.transpose()?,
            exchanges: 0,
            opened,
        })
    }
}

/// How long an exchange took, by step, counted from the moment the request was given away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Until the response's headers were complete.
    pub first_byte: Duration,
    /// From there until the last byte of the body.
    pub transfer: Duration,
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Status code.
    pub status: StatusCode,
    /// Response headers.
    pub headers: HeaderMap,
    /// Length of the body received, in bytes.
    pub body_len: u64,
    /// The same when decoded; equal to `body_len` when there was nothing to decode.
    pub decoded_len: u64,
    /// What came over the connection for this exchange, in bytes, headers included.
    pub wire_bytes: u64,
    /// How long it took.
    pub timings: Timings,
}

/// One open HTTP/1.1 connection. Dropping it closes it.
pub struct Connection {
    sender: SendRequest<Outgoing>,
    driver: JoinHandle<()>,
    received: Arc<AtomicU64>,
    host: HeaderValue,
    /// Requests go to a proxy: what comes before their path, and the proxy's password.
    forward: Option<(String, Option<HeaderValue>)>,
    exchanges: u64,
    opened: Opened,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// How long opening it took.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Exchanges completed on it.
    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// False once the peer closed it or an exchange failed: open another.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.driver.is_finished()
    }

    /// Sends one request and reads the whole response; of its body, at most `max_body` bytes, only the length is kept.
    /// A request URI with an authority is sent in origin form; `Host` is added when missing.
    ///
    /// # Errors
    /// [`ConnError`]; the connection is then closed. `TooLarge` when the body is longer than `max_body`.
    pub async fn send_discarding(
        &mut self,
        request: Request<impl Into<Outgoing>>,
        timeout: Duration,
        max_body: u64,
    ) -> Result<Exchange, ConnError> {
        let request = request.map(Into::into);
        self.bounded(request, timeout, max_body, false).await
    }

    /// Like [`Connection::send_discarding`], but the body is decoded as its `content-encoding` says (gzip, deflate,
    /// br) and both sizes are counted, each at most `max_body`.
    ///
    /// # Errors
    /// As for [`Connection::send_discarding`], and `Encoding` when it cannot be decoded.
    pub(crate) async fn send_decoding(
        &mut self,
        request: Request<Outgoing>,
        timeout: Duration,
        max_body: u64,
    ) -> Result<Exchange, ConnError> {
        self.bounded(request, timeout, max_body, true).await
    }

    async fn bounded(
        &mut self,
        mut request: Request<Outgoing>,
        timeout: Duration,
        max_body: u64,
        decodes: bool,
    ) -> Result<Exchange, ConnError> {
        if request.uri().authority().is_some() || self.forward.is_some() {
            let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
            let path = match &self.forward {
                Some((base, _)) => format!("{base}{path}"),
                None => path.to_owned(),
            };
            *request.uri_mut() = path
                .parse()
                .map_err(|e| ConnError::new(ErrorKind::Protocol, e))?;
        }
        if let Some((_, Some(authorization))) = &self.forward {
            let headers = request.headers_mut();
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        if !request.headers().contains_key(header::HOST) {
            request
                .headers_mut()
                .insert(header::HOST, self.host.clone());
        }
        let before = self.received.load(Ordering::Relaxed);
        let deadline = tokio::time::Instant::now() + timeout;
        let outcome =
            match timeout_at(deadline, self.exchange(request, max_body, decodes, before)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ConnError::new(
                    ErrorKind::Timeout,
                    "no complete response in time",
                )),
            };
        match outcome {
            Ok(exchange) => {
                self.exchanges += 1;
                Ok(exchange)
            }
            Err(mut error) => {
                self.driver.abort();
                error.nothing_received = self.received.load(Ordering::Relaxed) == before;
                Err(error)
            }
        }
    }

    async fn exchange(
        &mut self,
        request: Request<Outgoing>,
        max_body: u64,
        decodes: bool,
        before: u64,
    ) -> Result<Exchange, ConnError> {
        let began = Instant::now();
        if let Err(e) = self.sender.ready().await {
            return Err(ConnError {
                never_sent: true,
                ..ConnError::new(hyper_kind(&e), &e)
            });
        }
        let response = match self.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut e) => {
                let never_sent = e.take_message().is_some();
                return Err(ConnError {
                    never_sent,
                    ..ConnError::new(hyper_kind(e.error()), e.error())
                });
            }
        };
        let first_byte = began.elapsed();
        let (head, mut body) = response.into_parts();
        let mut body_len = 0_u64;
        let mut decoder = match decodes {
            true => Decoder::of(&head.headers, max_body)?,
            false => None,
        };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| ConnError::new(hyper_kind(&e), &e))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            body_len += data.len() as u64;
            if body_len > max_body {
                return Err(ConnError::new(
                    ErrorKind::TooLarge,
                    format!("body longer than {max_body} bytes"),
                ));
            }
            if let Some(decoder) = &mut decoder {
                decoder.write(&data)?;
            }
        }
        let decoded_len = decoder.map_or(Ok(body_len), Decoder::finish)?;
        let timings = Timings {
            first_byte,
            transfer: began.elapsed().saturating_sub(first_byte),
        };
        let wire_bytes = self.received.load(Ordering::Relaxed).saturating_sub(before);
        Ok(Exchange {
            status: head.status,
            headers: head.headers,
            body_len,
            decoded_len,
            wire_bytes,
            timings,
        })
    }
}

pub(crate) fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    // EMFILE and ENFILE have no stable std kind.
    if matches!(error.raw_os_error(), Some(23 | 24)) {
        return ErrorKind::Local;
    }
    match error.kind() {
        Io::ConnectionRefused => ErrorKind::Refused,
        Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe => ErrorKind::Reset,
        Io::TimedOut => ErrorKind::Timeout,
        Io::UnexpectedEof | Io::NotConnected => ErrorKind::Closed,
        Io::HostUnreachable | Io::NetworkUnreachable => ErrorKind::Unreachable,
        Io::AddrNotAvailable | Io::AddrInUse => ErrorKind::Local,
        Io::InvalidData => ErrorKind::Tls,
        _ => ErrorKind::Io,
    }
}

pub(crate) fn fault_kind(fault: Fault) -> ErrorKind {
    match fault {
        Fault::Malformed(_) => ErrorKind::Protocol,
        Fault::TooLarge => ErrorKind::TooLarge,
        Fault::Cut => ErrorKind::Closed,
    }
}

fn hyper_kind(error: &hyper::Error) -> ErrorKind {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return io_kind(io);
        }
        source = inner.source();
    }
    if error.is_parse_too_large() {
        ErrorKind::TooLarge
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        ErrorKind::Closed
    } else if error.is_timeout() {
        ErrorKind::Timeout
    } else {
        ErrorKind::Protocol
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that accepts once, reads a little and answers with these bytes, then closes.
    async fn canned(answer: &'static [u8]) -> Connector {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buf = [0_u8; 1024];
            let _ = socket.read(&mut buf).await;
            let _ = socket.write_all(answer).await;
        });
        Connector::new(Target::parse(&format!("http://{addr}")).unwrap(), false).unwrap()
    }

    fn get() -> Request<Full<Bytes>> {
        Request::get("/x").body(Full::default()).unwrap()
    }

    async fn outcome(answer: &'static [u8]) -> Result<Exchange, ConnError> {
        let mut conn = canned(answer)
            .await
            .open(Duration::from_secs(5))
            .await
            .unwrap();
        conn.send_discarding(get(), Duration::from_secs(5), 10)
            .await
    }

    #[test]
    fn targets_are_read() {
        let t = Target::parse("http://127.0.0.1:8080/x").unwrap();
        assert_eq!(
            (t.tls, t.port, t.authority.as_str(), t.is_loopback()),
            (false, 8080, "127.0.0.1:8080", true)
        );
        let t = Target::parse("https://example.com").unwrap();
        assert_eq!(
            (t.tls, t.port, t.authority.as_str(), t.is_loopback()),
            (true, 443, "example.com", false)
        );
        assert!(Target::parse("http://[::1]:1").unwrap().is_loopback());
        assert!(Target::parse("ftp://example.com").is_err());
        assert!(Target::parse("nonsense").is_err());
    }

    #[tokio::test]
    async fn a_response_is_read_whole() {
        let got = outcome(b"HTTP/1.1 201 Created\r\ncontent-length: 3\r\nx-a: b\r\n\r\nabc")
            .await
            .unwrap();
        assert_eq!(
            (got.status.as_u16(), got.body_len, got.decoded_len),
            (201, 3, 3)
        );
        assert_eq!(got.wire_bytes, 54);
        assert_eq!(got.headers["x-a"], "b");
    }

    #[tokio::test]
    async fn failures_are_named() {
        let kind = async |answer| {
            outcome(answer)
                .await
                .map(|_| ())
                .map_err(|e| (e.kind, e.nothing_received))
        };
        assert_eq!(
            kind(b"garbage\r\n\r\n").await,
            Err((ErrorKind::Protocol, false))
        );
        assert_eq!(kind(b"").await, Err((ErrorKind::Closed, true)));
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
        assert_eq!(kind(cut).await, Err((ErrorKind::Closed, false)));
        let long = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nabcdefghijk";
        assert_eq!(kind(long).await, Err((ErrorKind::TooLarge, false)));
    }

    #[tokio::test]
    async fn a_silent_server_times_out_and_a_shut_port_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let connector = Connector::new(target, false).unwrap();
        let mut conn = connector.open(Duration::from_secs(5)).await.unwrap();
        let error = conn
            .send_discarding(get(), Duration::from_millis(20), 10)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        drop(listener);
        let error = connector.open(Duration::from_secs(5)).await.err().unwrap();
        assert_eq!((error.kind, error.never_sent), (ErrorKind::Refused, true));
    }
}
