//! Serving connections: accept, bound, time out, drain.
//!
//! Owns the accept loop that the API and both OTLP ports share. Must not know what is served.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::telemetry::Telemetry;

/// Bytes that a peer may send before it must wait, of one stream; a connection has four times that. HTTP/2's default of
/// 64 KiB costs a round trip every 64 KiB.
const STREAM_WINDOW: u32 = 1 << 20;
/// Requests of one HTTP/2 connection at the same time.
const MAX_STREAMS: u32 = 128;
/// Bytes of a request's headers.
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// Streams that a peer may reset before it is cut off (rapid reset).
const MAX_RESETS: usize = 128;
/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(30);

/// Which protocol versions a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/2 with prior knowledge, as gRPC has it.
    Http2,
    /// HTTP/1.1 and HTTP/2.
    Both,
}

/// A listener and how it is served.
pub struct Server {
    /// Its name in metrics.
    pub name: &'static str,
    /// The bound socket.
    pub listener: TcpListener,
    /// What it speaks.
    pub versions: Versions,
    /// Limits.
    pub limits: Limits,
    /// Where connections are counted.
    pub telemetry: Arc<Telemetry>,
}

// === impl Server ===

impl Server {
    /// The bound address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until `shutdown`; connections live on in `tracker` until they are drained.
    pub async fn run<H, F, B>(self, handler: H, shutdown: CancellationToken, tracker: TaskTracker)
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let builder = Arc::new(builder(self.versions, &self.limits));
        let permits = Arc::new(Semaphore::new(self.limits.connections));
        let open = self.telemetry.connections(self.name);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of file descriptors, most likely: closing connections will help.
                    self.telemetry.reject(self.name, "accept_failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                self.telemetry.reject(self.name, "too_many_connections");
                continue;
            };
            let (builder, handler) = (Arc::clone(&builder), handler.clone());
            let (open, shutdown) = (open.clone(), shutdown.clone());
            tracker.spawn(async move {
                open.inc();
                serve_one(&builder, stream, handler, shutdown).await;
                open.dec();
                drop(permit);
            });
        }
    }
}

async fn serve_one<H, F, B>(
    builder: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Answers are small; waiting for more to send costs 40 ms.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A connection that ends in an error was ended by its peer, which knows.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

fn builder(versions: Versions, limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout.duration())
        .max_buf_size(MAX_HEADER_BYTES as usize * 4);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * 4)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(Some(MAX_RESETS))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    match versions {
        Versions::Http2 => builder.http2_only(),
        Versions::Both => builder,
    }
}
