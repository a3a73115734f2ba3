//! Owns opening a connection: names looked up, addresses taken in turn, Unix sockets, proxies, TLS; each step timed,
//! each failure named. Must not know HTTP beyond a proxy's CONNECT, nor plans.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use crate::LoadError;
use crate::conn::{ConnError, ErrorKind, Target, io_kind};
use crate::transport::{Dns, Proxy, Transport, bare};

/// The longest answer of a proxy to CONNECT, in bytes.
const MAX_PROXY_HEAD: usize = 16 << 10;

/// Dials one target; cheap to clone.
#[derive(Clone)]
pub struct Connector {
    target: Arc<Target>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    way: Arc<Way>,
}

/// How to get to the target.
struct Way {
    first: First,
    proxy: Option<Proxy>,
    http2: bool,
    dns: Dns,
    /// Start at another address with each connection.
    in_turn: bool,
    turn: AtomicUsize,
    found: OnceCell<Vec<SocketAddr>>,
}

/// Where the first hop goes.
enum First {
    Unix(PathBuf),
    Host(String, u16),
    Addrs(Vec<SocketAddr>),
}

/// How long opening a connection took, by step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opened {
    /// Name resolution.
    pub dns: Duration,
    /// TCP handshake, and a proxy's CONNECT.
    pub tcp: Duration,
    /// TLS handshake; zero without TLS.
    pub tls: Duration,
}

impl Connector {
    /// For this target over HTTP/1.1, the name looked up for each connection; `insecure` trusts any certificate.
    ///
    /// # Errors
    /// As for [`Connector::with`].
    pub fn new(target: Target, insecure: bool) -> Result<Connector, LoadError> {
        let transport = Transport {
            dns: Dns::Connection,
            ..Transport::default()
        };
        let mut connector = Connector::with(target, insecure, &transport)?;
        if let Some(way) = Arc::get_mut(&mut connector.way) {
            way.in_turn = false;
        }
        Ok(connector)
    }

    /// For this target, by these means; `insecure` trusts any certificate.
    ///
    /// # Errors
    /// [`LoadError::Target`] when the host cannot be a TLS server name, [`LoadError::Tls`] when TLS cannot be set up:
    /// a certificate or key that cannot be read, for example.
    pub fn with(
        target: Target,
        insecure: bool,
        transport: &Transport,
    ) -> Result<Connector, LoadError> {
        let tls = if target.tls {
            let name =
                ServerName::try_from(target.host.clone()).map_err(|e| LoadError::Target {
                    text: target.host.clone(),
                    why: e.to_string(),
                })?;
            let config = crate::tls::client_config(insecure, transport).map_err(LoadError::Tls)?;
            Some((TlsConnector::from(config), name))
        } else {
            None
        };
        let first = match (
            &transport.unix_socket,
            &transport.proxy,
            &transport.connect_to,
        ) {
            (Some(path), ..) => First::Unix(path.clone()),
            (_, Some(proxy), _) => First::Host(proxy.host.clone(), proxy.port),
            (_, _, Some((host, port))) => First::Host(bare(host), *port),
            _ if !transport.resolve.is_empty() => {
                let ips = transport.resolve.iter();
                First::Addrs(ips.map(|ip| SocketAddr::new(*ip, target.port)).collect())
            }
            _ => First::Host(target.host.clone(), target.port),
        };
        Ok(Connector {
            target: Arc::new(target),
            tls,
            way: Arc::new(Way {
                first,
                proxy: transport.proxy.clone(),
                http2: transport.http2,
                dns: transport.dns,
                in_turn: true,
                turn: AtomicUsize::new(0),
                found: OnceCell::new(),
            }),
        })
    }

    /// The same, each connection with a full TLS handshake, as strangers make it.
    pub(crate) fn without_resumption(mut self) -> Connector {
        if let Some((connector, _)) = &mut self.tls {
            let mut config = rustls::ClientConfig::clone(connector.config());
            config.resumption = rustls::client::Resumption::disabled();
            *connector = TlsConnector::from(Arc::new(config));
        }
        self
    }

    /// The target dialled.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How TLS is spoken, and to whom; none for http.
    pub(crate) fn tls(&self) -> Option<(Arc<rustls::ClientConfig>, ServerName<'static>)> {
        let (connector, name) = self.tls.as_ref()?;
        Some((Arc::clone(connector.config()), name.clone()))
    }

    /// The host that is connected to, and its addresses when they need no lookup.
    pub(crate) fn place(&self) -> ((String, u16), Option<Vec<SocketAddr>>) {
        let here = (self.target.host.clone(), self.target.port);
        match &self.way.first {
            First::Addrs(addrs) => (here, Some(addrs.clone())),
            First::Host(host, port) => {
                let ip = host.parse::<std::net::IpAddr>().ok();
                let addrs = ip.map(|ip| vec![SocketAddr::new(ip, *port)]);
                ((host.clone(), *port), addrs)
            }
            First::Unix(_) => (here, None),
        }
    }

    /// The proxy's `Proxy-Authorization`, when requests name the whole URL to a proxy.
    pub(crate) fn forward_proxy(&self) -> Option<Option<&str>> {
        let proxy = self.way.proxy.as_ref().filter(|_| !self.tunnels())?;
        Some(proxy.authorization.as_deref())
    }

    fn tunnels(&self) -> bool {
        self.target.tls || self.way.http2
    }

    /// Opens the byte stream within `timeout`.
    ///
    /// # Errors
    /// Every way a dial fails, `never_sent` set.
    pub(crate) async fn stream(&self, timeout: Duration) -> Result<(Wire, Opened), ConnError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let opened = match timeout_at(deadline, self.dial()).await {
            Ok(opened) => opened,
            Err(_) => Err(ConnError::new(
                ErrorKind::Timeout,
                "connecting took too long",
            )),
        };
        opened.map_err(|e| ConnError {
            never_sent: true,
            ..e
        })
    }

    async fn dial(&self) -> Result<(Wire, Opened), ConnError> {
        let io = |e: std::io::Error| ConnError::new(io_kind(&e), &e);
        let began = Instant::now();
        let mut opened = Opened::default();
        let mut stream: Stream = match &self.way.first {
            First::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|e| {
                    let kind = match e.kind() {
                        std::io::ErrorKind::NotFound => ErrorKind::Refused,
                        _ => io_kind(&e),
                    };
                    ConnError::new(kind, format!("{}: {e}", path.display()))
                })?;
                Box::new(stream)
            }
            First::Addrs(addrs) => Box::new(self.way.connect(addrs).await.map_err(io)?),
            First::Host(host, port) => {
                let addrs = self.way.addresses(host, *port).await?;
                opened.dns = began.elapsed();
                Box::new(self.way.connect(&addrs).await.map_err(io)?)
            }
        };
        if let Some(proxy) = self.way.proxy.as_ref().filter(|_| self.tunnels()) {
            tunnel(&mut stream, &self.target, proxy).await?;
        }
        opened.tcp = began.elapsed().saturating_sub(opened.dns);
        let received = Arc::new(AtomicU64::new(0));
        let stream = match &self.tls {
            None => stream,
            Some((connector, name)) => {
                let began = Instant::now();
                let stream = connector.connect(name.clone(), stream).await.map_err(|e| {
                    let kind = match io_kind(&e) {
                        ErrorKind::Reset => ErrorKind::Reset,
                        _ => ErrorKind::Tls,
                    };
                    ConnError::new(kind, &e)
                })?;
                opened.tls = began.elapsed();
                if self.way.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    let why = "the server does not offer HTTP/2 (ALPN h2)";
                    return Err(ConnError::new(ErrorKind::Protocol, why));
                }
                Box::new(stream)
            }
        };
        Ok((Wire { stream, received }, opened))
    }
}

impl Way {
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnError> {
        let look_up = async || {
            let found = tokio::net::lookup_host((host, port))
                .await
                .map_err(|e| ConnError::new(ErrorKind::Dns, e))?;
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                return Err(ConnError::new(ErrorKind::Dns, "the name has no address"));
            }
            Ok(found)
        };
        match self.dns {
            Dns::Connection => look_up().await,
            // A failed lookup is not kept: the next connection tries again.
            Dns::Run => self.found.get_or_try_init(look_up).await.cloned(),
        }
    }

    /// Tries each address until one takes the connection; another one first each time.
    async fn connect(&self, addrs: &[SocketAddr]) -> std::io::Result<TcpStream> {
        let first = match self.in_turn {
            true => self.turn.fetch_add(1, Ordering::Relaxed) % addrs.len().max(1),
            false => 0,
        };
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for addr in addrs[first..].iter().chain(&addrs[..first]) {
            match TcpStream::connect(addr).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Asks a proxy for a tunnel to the target.
pub(crate) async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Target,
    proxy: &Proxy,
) -> Result<(), ConnError> {
    let failed = |why: String| ConnError::new(ErrorKind::Proxy, why);
    let host = if target.host.contains(':') {
        format!("[{}]:{}", target.host, target.port)
    } else {
        format!("{}:{}", target.host, target.port)
    };
    let mut ask = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n");
    if let Some(value) = &proxy.authorization {
        ask += &format!("Proxy-Authorization: {value}\r\n");
    }
    ask += "\r\n";
    let io = |e: std::io::Error| ConnError::new(ErrorKind::Proxy, &e);
    stream.write_all(ask.as_bytes()).await.map_err(io)?;
    let mut head = Vec::new();
    // One byte at a time: what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_PROXY_HEAD {
            return Err(failed("the proxy's answer is too long".to_owned()));
        }
        let mut byte = [0];
        if stream.read(&mut byte).await.map_err(io)? == 0 {
            return Err(failed("the proxy closed the connection".to_owned()));
        }
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.").and_then(|l| l.get(2..5));
    match status {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => Err(failed(format!("the proxy answered {line:?}"))),
    }
}

/// What a byte stream must be able to do; a socket, and TLS over one.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Stream = Box<dyn Io>;

/// The byte stream below HTTP, counting what arrives.
pub(crate) struct Wire {
    stream: Stream,
    received: Arc<AtomicU64>,
}

impl Wire {
    /// The count of bytes that arrived.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let count = (buf.filled().len() - before) as u64;
        self.received.fetch_add(count, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
