//! Owns a connection as the task sees it that has it: opened, used for one request after another, closed when dropped.
//! Must not know how bytes move, nor what requests say.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::with;
use crate::conn::{ConnError, Connector, ErrorKind, Opened, Timings};

/// How to get to a host.
pub(crate) struct Way {
    host: String,
    port: u16,
    /// Its addresses, when they need no lookup.
    addrs: Option<Vec<SocketAddr>>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Way {
    /// As this connector goes, which must not use a proxy or a Unix socket.
    pub(crate) fn of(connector: &Connector) -> Way {
        let ((host, port), addrs) = connector.place();
        Way {
            host,
            port,
            addrs,
            tls: connector.tls(),
        }
    }
}

/// A complete response.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Arc<HeaderMap>,
    /// Empty when it was not to be kept.
    pub(crate) body: Bytes,
    /// Its length, transfer coding removed.
    pub(crate) body_len: u64,
    /// What came for this exchange, in bytes, head included.
    pub(crate) wire_bytes: u64,
    pub(crate) timings: Timings,
    /// When the request was handed to the connection, and when the response's last byte arrived.
    pub(crate) sent: Instant,
    pub(crate) ended: Instant,
}

impl Answered {
    /// Its status, as a type that knows what statuses mean.
    pub(crate) fn status(&self) -> StatusCode {
        // The reader lets only 100 to 999 pass.
        StatusCode::from_u16(self.status).unwrap_or_default()
    }
}

/// A connection of this thread's reactor. Dropping it closes it.
pub(crate) struct Link {
    key: usize,
    generation: u32,
}

impl Drop for Link {
    fn drop(&mut self) {
        with(|core| core.close(self.key, self.generation));
    }
}

fn gone() -> ConnError {
    ConnError::new(ErrorKind::Local, "there is no reactor on this thread")
}

impl Link {
    /// Opens a connection: the name looked up, each address tried in turn, TLS spoken.
    ///
    /// # Errors
    /// Every way a dial fails, `never_sent` set.
    pub(crate) async fn open(way: &Way, deadline: Instant) -> Result<(Link, Opened), ConnError> {
        let opened = Link::dial(way, deadline).await;
        opened.map_err(|e| ConnError {
            never_sent: true,
            ..e
        })
    }

    async fn dial(way: &Way, deadline: Instant) -> Result<(Link, Opened), ConnError> {
        let mut opened = Opened::default();
        let began = Instant::now();
        let found;
        let addrs = match &way.addrs {
            Some(addrs) => addrs,
            None => {
                found = look_up(way, deadline).await?;
                opened.dns = began.elapsed();
                &found
            }
        };
        let (key, generation) = with(|core| core.claim()).ok_or_else(gone)?;
        let link = Link { key, generation };
        let began = Instant::now();
        let mut last = ConnError::new(ErrorKind::Dns, "the name has no address");
        let mut connected = false;
        for addr in addrs {
            let begun = with(|core| core.connect(key, *addr, deadline)).ok_or_else(gone)?;
            let tried = match begun {
                Ok(()) => link.ready().await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(()) => {
                    connected = true;
                    break;
                }
                Err(error) => last = error,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        if !connected {
            return Err(last);
        }
        opened.tcp = began.elapsed();
        if let Some((config, name)) = &way.tls {
            let began = Instant::now();
            with(|core| core.shake(key, (config, name), deadline)).ok_or_else(gone)??;
            link.ready().await?;
            opened.tls = began.elapsed();
        }
        Ok((link, opened))
    }

    async fn ready(&self) -> Result<(), ConnError> {
        poll_fn(|cx| {
            let opened = with(|core| core.opened(self.key, cx.waker()));
            match opened.unwrap_or_else(|| Some(Err(gone()))) {
                Some(outcome) => Poll::Ready(outcome),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// False once the peer closed it or an exchange failed: open another.
    pub(crate) fn is_open(&self) -> bool {
        with(|core| core.is_open(self.key)).unwrap_or(false)
    }

    /// Sends a request, whole as it goes onto the wire, and reads the response: at most `limit` bytes of body, which are
    /// kept only when `keep` says so. `head` when the request's method was HEAD.
    ///
    /// # Errors
    /// [`ConnError`]; the connection is then closed. `TooLarge` when the body is longer than `limit`.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        head: bool,
        (limit, keep): (u64, bool),
        deadline: Instant,
    ) -> Result<Answered, ConnError> {
        let sent = with(|core| core.send(self.key, request, head, (limit, keep), deadline));
        sent.ok_or_else(gone)??;
        poll_fn(|cx| {
            let outcome = with(|core| core.outcome(self.key, cx.waker()));
            match outcome.unwrap_or_else(|| Some(Err(gone()))) {
                Some(outcome) => Poll::Ready(outcome),
                None => Poll::Pending,
            }
        })
        .await
    }
}

async fn look_up(way: &Way, deadline: Instant) -> Result<Vec<SocketAddr>, ConnError> {
    let lookup = tokio::net::lookup_host((way.host.as_str(), way.port));
    match tokio::time::timeout_at(deadline.into(), lookup).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(ConnError::new(ErrorKind::Dns, error)),
        Err(_) => Err(ConnError::new(
            ErrorKind::Timeout,
            "connecting took too long",
        )),
    }
}
