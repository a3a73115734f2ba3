//! Owns a server on loopback whose delay is known exactly, and the latencies an open load on it must show: what the
//! generator's accuracy is judged against. Knows nothing of plans or reports.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A constant delay, and a stall at the end of each period in which no response leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Delay of every response.
    pub delay: Duration,
    /// Length of a period, counted from the server's start.
    pub every: Duration,
    /// Length of the stall that ends each period; zero for none.
    pub stall: Duration,
}

impl Profile {
    /// When the response to a request that arrived at this offset leaves.
    pub fn leaves(&self, arrived: Duration) -> Duration {
        let at = arrived + self.delay;
        if self.stall.is_zero() || self.every.is_zero() {
            return at;
        }
        let (at_ns, every) = (at.as_nanos() as u64, self.every.as_nanos() as u64);
        let into = at_ns % every;
        let stalled = into >= every.saturating_sub(self.stall.as_nanos() as u64);
        if stalled {
            Duration::from_nanos(at_ns - into + every)
        } else {
            at
        }
    }

    /// The latency quantile `q` of requests due at these offsets, in order, over so many connections that carry one
    /// request at a time. With enough of them (more than ever wait at once) the limit does not matter.
    pub fn expected(
        &self,
        due: impl Iterator<Item = Duration>,
        connections: usize,
        q: f64,
    ) -> Duration {
        let mut left: Vec<Duration> = Vec::new();
        let mut all: Vec<Duration> = Vec::new();
        for (i, due) in due.enumerate() {
            // First in is first out, so the connection that frees first carried the request `connections` before.
            let free = i
                .checked_sub(connections)
                .map_or(Duration::ZERO, |before| left[before]);
            let leaves = self.leaves(due.max(free));
            left.push(leaves);
            all.push(leaves.saturating_sub(due));
        }
        all.sort_unstable();
        let rank = ((all.len() as f64 * q).ceil() as usize).clamp(1, all.len().max(1));
        all.get(rank - 1).copied().unwrap_or_default()
    }
}

/// A running server; dropping it stops it.
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Responses waiting for their instant, in order of it.
type Held = (Instant, oneshot::Sender<()>);
/// How many may wait at once; beyond it the server answers 503.
const HELD: usize = 65_536;

/// Starts a server on 127.0.0.1 with threads of its own; offsets count from `epoch`.
///
/// # Errors
/// When the socket or a thread cannot be had.
pub fn serve(profile: Profile, epoch: Instant) -> std::io::Result<Server> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let stop = CancellationToken::new();
    let (hold, held) = sync_channel(HELD);
    std::thread::Builder::new()
        .name("truth-clock".to_owned())
        .spawn(move || release(&held))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stopped = stop.clone();
    std::thread::Builder::new()
        .name("truth-server".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = accept(listener, profile, epoch, hold) => {}
                }
            });
        })?;
    Ok(Server { addr, stop })
}

/// Lets each response go at its instant: delays are constant and stalls end together, so first in is first out.
fn release(held: &Receiver<Held>) {
    while let Ok((at, go)) = held.recv() {
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(
                left.saturating_sub(Duration::from_micros(60))
                    .max(Duration::from_nanos(1)),
            );
        }
        let _ = go.send(());
    }
}

async fn accept(
    listener: std::net::TcpListener,
    profile: Profile,
    epoch: Instant,
    hold: SyncSender<Held>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let hold = Arc::new(hold);
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let hold = Arc::clone(&hold);
        let service = service_fn(move |_request| {
            let hold = Arc::clone(&hold);
            async move { Ok::<_, Infallible>(answer(profile, epoch, &hold).await) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn answer(
    profile: Profile,
    epoch: Instant,
    hold: &SyncSender<Held>,
) -> Response<Full<Bytes>> {
    let (go, gone) = oneshot::channel();
    let at = epoch + profile.leaves(epoch.elapsed());
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok\n")));
    if hold.try_send((at, go)).is_err() || gone.await.is_err() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_of_a_stall_is_known() {
        let ms = Duration::from_millis;
        let profile = Profile {
            delay: ms(2),
            every: ms(5000),
            stall: ms(1000),
        };
        assert_eq!(profile.leaves(ms(10)), ms(12));
        assert_eq!(profile.leaves(ms(3997)), ms(3999));
        assert_eq!(profile.leaves(ms(3998)), ms(5000));
        assert_eq!(profile.leaves(ms(4999)), ms(5001));
        let arrivals = || (0..5000).map(|i| ms(2 * i));
        let expected = |connections, q| profile.expected(arrivals(), connections, q);
        assert_eq!(
            [0.5, 0.9, 0.99].map(|q| expected(5000, q)),
            [ms(2), ms(502), ms(952)]
        );
        // 500 fall due in a stall; 64 of them wait in the server, the rest leave in rounds of 64 every 2 ms.
        assert_eq!(expected(64, 0.5), ms(2));
        assert!(
            (ms(503)..ms(515)).contains(&expected(64, 0.9)),
            "{:?}",
            expected(64, 0.9)
        );
    }
}
