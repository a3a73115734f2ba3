//! Owns the HTTP server of known delay: it takes GET requests, lets each response go at its instant, and keeps account
//! of its own lateness. Speaks only as much HTTP/1.1 as that needs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Delays, Profile};
use crate::pacer::Alarm;
use crate::stats::{histogram, micros};

/// What is sent for every request.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";
/// Responses that may wait at once; a request beyond it ends its connection.
const HELD: usize = 65_536;
/// Requests whose own lateness is kept.
const EACH: usize = 1_000_000;
/// The longest request head read.
const MAX_HEAD: usize = 16_384;

/// A running server; dropping it stops it.
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// What it saw of itself so far.
    pub fn account(&self) -> Account {
        lock(&self.shared.state).account.clone()
    }
}

/// What a server of known delay saw.
#[derive(Debug, Clone)]
pub struct Account {
    /// Requests received.
    pub requests: u64,
    /// Its own lateness: response written minus the instant it was meant to leave, microseconds.
    pub late: Histogram<u64>,
    /// The same request by request, in order of arrival.
    pub each_late_us: Vec<u32>,
    /// Time between arrivals, microseconds: shows bursts.
    pub gaps: Histogram<u64>,
    /// Time between a response and the next request on the same connection, microseconds.
    pub turnaround: Histogram<u64>,
}

/// A response that waits.
struct Held {
    at: Duration,
    to: Arc<Link>,
}

/// One connection's way back, and when its last response left.
struct Link {
    half: OwnedWriteHalf,
    answered: Mutex<Option<Duration>>,
}

struct State {
    /// The first request's arrival; profiles count from there.
    epoch: Option<Instant>,
    delays: Delays,
    last: Duration,
    number: u64,
    held: BinaryHeap<Reverse<(Duration, u64)>>,
    waiting: std::collections::HashMap<u64, Held>,
    account: Account,
}

struct Shared {
    state: Mutex<State>,
    sooner: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Starts a server on 127.0.0.1 with a thread of its own; the profile counts from the first request's arrival. With
/// `spin` the thread never sleeps: it costs a core and saves the time it takes to wake.
///
/// # Errors
/// When the socket or a thread cannot be had.
pub fn serve(profile: Profile, spin: bool) -> std::io::Result<Server> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let account = Account {
        requests: 0,
        late: histogram(),
        each_late_us: Vec::new(),
        gaps: histogram(),
        turnaround: histogram(),
    };
    let state = State {
        epoch: None,
        delays: profile.delays(),
        last: Duration::ZERO,
        number: 0,
        held: BinaryHeap::new(),
        waiting: std::collections::HashMap::new(),
        account,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        sooner: Notify::new(),
    });
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(if spin { 4 } else { 61 })
        .build()?;
    let (stopped, theirs) = (stop.clone(), Arc::clone(&shared));
    let body = async move {
        let releasing = async {
            if spin {
                release_spinning(&theirs).await
            } else {
                release(&theirs).await
            }
        };
        tokio::select! {
            () = stopped.cancelled() => {}
            () = accept(listener, &theirs) => {}
            () = releasing => {}
        }
    };
    std::thread::Builder::new()
        .name("truth-server".to_owned())
        .spawn(move || runtime.block_on(body))?;
    Ok(Server { addr, shared, stop })
}

async fn accept(listener: std::net::TcpListener, shared: &Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (reads, half) = stream.into_split();
        let link = Arc::new(Link {
            half,
            answered: Mutex::new(None),
        });
        tokio::spawn(connection(reads, link, Arc::clone(shared)));
    }
}

/// Reads request heads; a request has no body.
async fn connection(mut reads: OwnedReadHalf, link: Arc<Link>, shared: Arc<Shared>) {
    let mut head = Vec::with_capacity(1024);
    loop {
        match reads.read_buf(&mut head).await {
            Ok(n) if n > 0 && head.len() <= MAX_HEAD => {}
            _ => return,
        }
        while let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            head.drain(..end + 4);
            if !shared.arrived(&link) {
                return;
            }
        }
    }
}

impl Shared {
    /// Takes a request; false when too many wait.
    fn arrived(&self, link: &Arc<Link>) -> bool {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let epoch = *state.epoch.get_or_insert(now);
        let at = now - epoch;
        let gap = micros(at.saturating_sub(state.last));
        if state.account.requests > 0 {
            state.account.gaps.saturating_record(gap);
        }
        state.account.requests += 1;
        state.last = at;
        if let Some(left) = lock(&link.answered).take() {
            let turnaround = micros(at.saturating_sub(left));
            state.account.turnaround.saturating_record(turnaround);
        }
        if state.held.len() >= HELD {
            return false;
        }
        let leaves = state.delays.leaves(at);
        let number = state.number;
        state.number += 1;
        let sooner = state
            .held
            .peek()
            .is_none_or(|Reverse((first, _))| leaves < *first);
        state.held.push(Reverse((leaves, number)));
        let to = Arc::clone(link);
        state.waiting.insert(number, Held { at: leaves, to });
        drop(state);
        if sooner {
            self.sooner.notify_one();
        }
        true
    }

    /// Sends what is due; when the next one is.
    fn send_due(&self) -> Option<Instant> {
        loop {
            let mut state = lock(&self.state);
            let epoch = state.epoch?;
            let Reverse((at, number)) = *state.held.peek()?;
            let now = epoch.elapsed();
            if at > now {
                return Some(epoch + at);
            }
            state.held.pop();
            let Some(held) = state.waiting.remove(&number) else {
                continue;
            };
            drop(state);
            // A few dozen bytes fit in any socket's buffer; a peer that went away wants none.
            let _ = held.to.half.try_write(ANSWER);
            let left = epoch.elapsed();
            *lock(&held.to.answered) = Some(left);
            let late = micros(left.saturating_sub(held.at));
            let account = &mut lock(&self.state).account;
            account.late.saturating_record(late);
            let (index, late) = (number as usize, u32::try_from(late).unwrap_or(u32::MAX));
            if index < EACH {
                if account.each_late_us.len() <= index {
                    account.each_late_us.resize(index + 1, 0);
                }
                account.each_late_us[index] = late;
            }
        }
    }
}

async fn release(shared: &Shared) {
    let mut alarm = Alarm::new();
    loop {
        match shared.send_due() {
            None => shared.sooner.notified().await,
            Some(next) => tokio::select! {
                () = alarm.until(next) => {}
                () = shared.sooner.notified() => {}
            },
        }
    }
}

async fn release_spinning(shared: &Shared) {
    loop {
        let _ = shared.send_due();
        tokio::task::yield_now().await;
    }
}
