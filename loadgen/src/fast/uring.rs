//! Owns moving bytes with io_uring: a receive that stays armed for each socket, buffers that the kernel fills, sends
//! handed over together with the wait. Knows neither HTTP nor schedules.
//!
//! The unsafe code that this takes is in [`memory`]. What it pays: beside wrk on the same nginx,
//! a bare loop over epoll reaches 1.10 times wrk's requests per CPU second, one over io_uring that waits for 16
//! responses at once 1.39 times.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::net::Shutdown;

use super::driver::{Driver, Event, Nap, Waker, dial, dialled};
use super::memory::{self, Buffers, Stamped};

/// `MSG_NOSIGNAL`: a broken connection is an error, not a signal.
const NO_SIGNAL: i32 = 0x4000;
/// `POLLIN` and `POLLOUT`.
const READABLE: u32 = 1;
const WRITABLE: u32 = 4;
const NO_BUFFERS: i32 = -105;
/// Completions the ring has room for; as many are never there at once.
const ROOM: usize = 4096;

/// How long to wait for more responses once there is one, in microseconds.
const PATIENCE_US: u32 = 1000;
/// Descriptors that the ring may know by number, and after how many sends of a connection it is told: what is looked up
/// so costs less, but telling is a system call.
const FIXED: usize = 1024;
const FIXED_AFTER: u32 = 16;
/// A send of at most so many bytes on a connection that carries nothing else completes at once.
const SMALL: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Receive,
    Send,
    Connect,
    Wake,
}

/// Key, generation and operation in the 64 bits that come back with a completion.
fn pack(key: usize, generation: u32, op: Op) -> u64 {
    (op as u64) << 62 | u64::from(generation & GENERATION) << 32 | key as u64
}

const GENERATION: u32 = (1 << 30) - 1;

fn unpack(data: u64) -> (usize, u32, Op) {
    let op = match data >> 62 {
        0 => Op::Receive,
        1 => Op::Send,
        2 => Op::Connect,
        _ => Op::Wake,
    };
    let generation = (data >> 32) as u32 & GENERATION;
    ((data & 0xffff_ffff) as usize, generation, op)
}

struct Socket {
    fd: OwnedFd,
    generation: u32,
    /// Operations that the kernel has not completed.
    pending: u32,
    /// What the kernel is sending; not touched until it says how much it took.
    out: Vec<u8>,
    /// How much of it has left.
    left: usize,
    busy: bool,
    /// What comes after it.
    later: Vec<u8>,
    /// Sends so far.
    sent: u32,
    /// The ring knows the descriptor by the socket's key.
    fixed: bool,
}

/// One ring and its sockets.
pub(super) struct Uring {
    // Dropped before the memory it may write to.
    ring: IoUring,
    buffers: Buffers,
    waker: Waker,
    sockets: Vec<Option<Socket>>,
    generations: Vec<u32>,
    /// Sockets closed with operations pending, by key and generation: what those use lives until they are over.
    closing: HashMap<(usize, u32), Socket>,
    /// Completions fetched and not looked at.
    fetched: Vec<(u64, i32, u32)>,
    at: usize,
    /// The buffer that the last event is in, where in it, and when it arrived.
    current: Option<(u16, Range<usize>, Option<Duration>)>,
    /// Small sends since the last submission.
    sends: usize,
    /// All operations that the kernel has not completed.
    pending: usize,
    /// The kernel can wait for several and settle for one after a time.
    settles: bool,
    /// Descriptors can be known by number.
    fixes: bool,
    /// Receives say when bytes arrived.
    stamps: bool,
}

impl Driver for Uring {
    const NAME: &'static str = "io_uring";

    fn new(waker: &Waker, stamps: bool) -> io::Result<Uring> {
        let ring = ring()?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let buffers = Buffers::register(&ring)?;
        let mut uring = Uring {
            settles: ring.params().is_feature_min_timeout(),
            fixes: ring.submitter().register_files_sparse(FIXED as u32).is_ok(),
            ring,
            buffers,
            waker: waker.clone(),
            sockets: Vec::new(),
            generations: Vec::new(),
            closing: HashMap::new(),
            fetched: Vec::new(),
            at: 0,
            current: None,
            sends: 0,
            pending: 0,
            stamps: stamps && memory::STAMPS,
        };
        uring.watch_waker()?;
        Ok(uring)
    }

    fn connect(&mut self, key: usize, to: SocketAddr) -> io::Result<()> {
        self.close(key);
        if self.sockets.len() <= key {
            self.sockets.resize_with(key + 1, || None);
            self.generations.resize(key + 1, 0);
        }
        let fd = dial(to, self.stamps)?;
        let generation = self.generations[key];
        let poll = opcode::PollAdd::new(Fd(fd.as_raw_fd()), WRITABLE).build();
        self.push(poll.user_data(pack(key, generation, Op::Connect)))?;
        self.sockets[key] = Some(Socket {
            fd,
            generation,
            pending: 1,
            out: Vec::new(),
            left: 0,
            busy: false,
            later: Vec::new(),
            sent: 0,
            fixed: false,
        });
        Ok(())
    }

    fn send(&mut self, key: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(key).and_then(Option::as_mut) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if socket.busy {
            socket.later.extend_from_slice(bytes);
            return Ok(());
        }
        std::mem::swap(&mut socket.out, bytes);
        socket.left = 0;
        if socket.out.len() <= SMALL {
            self.sends += 1;
        }
        self.push_send(key)
    }

    fn sending(&self, key: usize) -> bool {
        // A small request that was answered has left, though the kernel has not said so yet.
        let left = |s: &Socket| s.busy && (s.out.len() > SMALL || !s.later.is_empty());
        matches!(self.sockets.get(key), Some(Some(socket)) if left(socket))
    }

    fn close(&mut self, key: usize) {
        let Some(socket) = self.sockets.get_mut(key).and_then(Option::take) else {
            return;
        };
        let generation = socket.generation;
        self.generations[key] = (generation + 1) & GENERATION;
        if socket.fixed {
            let _ = self
                .ring
                .submitter()
                .register_files_update(key as u32, &[-1]);
        }
        if socket.pending > 0 {
            // Ends what is pending.
            let _ = rustix::net::shutdown(&socket.fd, Shutdown::Both);
            self.closing.insert((key, generation), socket);
        }
    }

    fn wait(&mut self, left: Option<Duration>, enough: usize) -> io::Result<()> {
        let sends = self.begin();
        if enough > 1 {
            self.enter(left, sends + enough, true)?;
            return self.fetch();
        }
        // What is sent completes at once; only then it is known whether anything else is there.
        if !self.ring.submission().is_empty() {
            ignore_early_end(self.ring.submit())?;
            self.fetch()?;
        }
        if self.fetched.is_empty() {
            self.enter(left, 1, false)?;
            self.fetch()?;
        }
        Ok(())
    }

    fn nap(&mut self, nap: &Nap) -> io::Result<()> {
        self.begin();
        self.enter(Some(nap.left), ROOM, false)?;
        self.fetch()
    }

    fn next(&mut self) -> Option<Event> {
        loop {
            self.release();
            let (data, result, flags) = *self.fetched.get(self.at)?;
            self.at += 1;
            if let Some(event) = self.on_completion(data, result, flags) {
                return Some(event);
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.current {
            Some((buffer, at, _)) => self
                .buffers
                .bytes(*buffer, at.end)
                .get(at.clone())
                .unwrap_or(&[]),
            None => &[],
        }
    }

    fn age(&self) -> Option<Duration> {
        let (_, _, arrived) = self.current.as_ref()?;
        memory::age((*arrived)?)
    }
}

/// A ring, without the list that older kernels need beside the queue where this one does not.
fn ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(ROOM as u32);
    let plain = builder.clone();
    let made = builder.setup_no_sqarray().build(1024);
    made.or_else(|_| plain.build(1024))
}

impl Uring {
    /// Forgets the last wait; how much was sent since.
    fn begin(&mut self) -> usize {
        self.release();
        self.fetched.clear();
        self.at = 0;
        std::mem::take(&mut self.sends)
    }

    /// Hands an operation to the kernel with the next submission.
    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            ignore_early_end(self.ring.submit())?;
        }
        memory::push(&mut self.ring, &entry)?;
        self.pending += 1;
        Ok(())
    }

    fn watch_waker(&mut self) -> io::Result<()> {
        let fd = Fd(self.waker.as_fd().as_raw_fd());
        let poll = opcode::PollAdd::new(fd, READABLE).build();
        self.push(poll.user_data(pack(0, 0, Op::Wake)))
    }

    /// Sends what is in `out` from `left` on.
    fn push_send(&mut self, key: usize) -> io::Result<()> {
        let Some(socket) = self.sockets[key].as_mut() else {
            return Ok(());
        };
        socket.busy = true;
        socket.pending += 1;
        socket.sent = socket.sent.saturating_add(1);
        if socket.sent == FIXED_AFTER && self.fixes && key < FIXED {
            let fds = [socket.fd.as_raw_fd()];
            let told = self
                .ring
                .submitter()
                .register_files_update(key as u32, &fds);
            socket.fixed = told.is_ok();
        }
        let rest = &socket.out[socket.left..];
        let (start, length) = (rest.as_ptr(), rest.len() as u32);
        let send = if socket.fixed {
            opcode::Send::new(Fixed(key as u32), start, length)
        } else {
            opcode::Send::new(Fd(socket.fd.as_raw_fd()), start, length)
        };
        let send = send.flags(NO_SIGNAL).build();
        let data = pack(key, socket.generation, Op::Send);
        self.push(send.user_data(data))
    }

    fn push_receive(&mut self, key: usize) -> io::Result<()> {
        let Some(socket) = self.sockets[key].as_mut() else {
            return Ok(());
        };
        socket.pending += 1;
        let fd = Fd(socket.fd.as_raw_fd());
        let receive = if self.stamps {
            self.buffers.stamped(fd)
        } else {
            opcode::RecvMulti::new(fd, memory::GROUP).build()
        };
        let data = pack(key, socket.generation, Op::Receive);
        self.push(receive.user_data(data))
    }

    /// Submits what is pushed and waits for so many completions, or, if `batch`, for what comes within
    /// [`PATIENCE_US`].
    fn enter(&mut self, left: Option<Duration>, want: usize, batch: bool) -> io::Result<()> {
        let patience = Duration::from_micros(PATIENCE_US.into());
        let left = match left {
            None if batch && !self.settles => Some(patience),
            Some(left) if batch && !self.settles => Some(left.min(patience)),
            other => other,
        };
        let timeout = left.map(Timespec::from);
        let mut args = SubmitArgs::new();
        if let Some(timeout) = &timeout {
            args = args.timespec(timeout);
        }
        if batch && self.settles {
            args = args.min_wait_usec(PATIENCE_US);
        }
        ignore_early_end(self.ring.submitter().submit_with_args(want, &args))
    }

    /// Takes completions from the ring; those of sends are dealt with.
    fn fetch(&mut self) -> io::Result<()> {
        let before = self.fetched.len();
        for entry in self.ring.completion() {
            self.fetched
                .push((entry.user_data(), entry.result(), entry.flags()));
        }
        let mut kept = before;
        for i in before..self.fetched.len() {
            let (data, result, _) = self.fetched[i];
            let (key, generation, op) = unpack(data);
            if op == Op::Send && result >= 0 {
                self.pending -= 1;
                self.sent(key, generation, result as usize)?;
            } else {
                self.fetched.swap(kept, i);
                kept += 1;
            }
        }
        self.fetched.truncate(kept);
        Ok(())
    }

    fn sent(&mut self, key: usize, generation: u32, bytes: usize) -> io::Result<()> {
        let Some(socket) = self.live(key, generation) else {
            self.over(key, generation);
            return Ok(());
        };
        socket.pending -= 1;
        socket.busy = false;
        socket.left += bytes;
        if socket.left == socket.out.len() {
            if socket.later.is_empty() {
                return Ok(());
            }
            std::mem::swap(&mut socket.out, &mut socket.later);
            socket.later.clear();
            socket.left = 0;
        }
        self.push_send(key)
    }

    fn live(&mut self, key: usize, generation: u32) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(key)?.as_mut()?;
        (socket.generation == generation).then_some(socket)
    }

    /// An operation of a socket that was closed is over.
    fn over(&mut self, key: usize, generation: u32) {
        if let Some(socket) = self.closing.get_mut(&(key, generation)) {
            socket.pending -= 1;
            if socket.pending == 0 {
                self.closing.remove(&(key, generation));
            }
        }
    }

    /// Gives the last event's buffer back to the kernel.
    fn release(&mut self) {
        if let Some((buffer, ..)) = self.current.take() {
            self.buffers.give_back(buffer);
        }
    }

    fn on_completion(&mut self, data: u64, result: i32, flags: u32) -> Option<Event> {
        let (key, generation, op) = unpack(data);
        let last = !cqueue::more(flags);
        if last {
            self.pending -= 1;
        }
        let mut received = 0;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            let filled = result.max(0) as usize;
            let (start, at) = if self.stamps {
                let Stamped { start, at } = Stamped::read(self.buffers.bytes(buffer, filled));
                (start, at)
            } else {
                (0, None)
            };
            received = filled.saturating_sub(start);
            self.current = Some((buffer, start..start + received, at));
        }
        if op == Op::Wake {
            self.waker.clear();
            return match self.watch_waker() {
                Ok(()) => Some(Event::Woken),
                Err(_) => None,
            };
        }
        let Some(socket) = self.live(key, generation) else {
            if last {
                self.over(key, generation);
            }
            return None;
        };
        if last {
            socket.pending -= 1;
        }
        match op {
            Op::Connect => {
                // From here on the kernel waits for the socket itself.
                let ready = dialled(&socket.fd)
                    .and_then(|()| Ok(rustix::io::ioctl_fionbio(&socket.fd, false)?));
                match ready.and_then(|()| self.push_receive(key)) {
                    Ok(()) => Some(Event::Connected(key)),
                    Err(error) => Some(broken(key, error, true)),
                }
            }
            Op::Send => {
                let unsent = socket.left == 0;
                socket.busy = false;
                Some(broken(key, io::Error::from_raw_os_error(-result), unsent))
            }
            _ if received > 0 => {
                if last && let Err(error) = self.push_receive(key) {
                    return Some(broken(key, error, false));
                }
                Some(Event::Data(key))
            }
            _ if result >= 0 => Some(Event::End(key)),
            _ if result == NO_BUFFERS => match self.push_receive(key) {
                Ok(()) => None,
                Err(error) => Some(broken(key, error, false)),
            },
            _ => Some(broken(key, io::Error::from_raw_os_error(-result), false)),
        }
    }
}

impl Drop for Uring {
    /// Waits until the kernel uses none of our memory any more; what it does not let go of is never freed.
    fn drop(&mut self) {
        self.release();
        for key in 0..self.sockets.len() {
            self.close(key);
        }
        let _ = self.ring.submit();
        let all = CancelBuilder::any();
        let _ = self.ring.submitter().register_sync_cancel(None, all);
        for _ in 0..100 {
            let ended = self.ring.completion().filter(|e| !cqueue::more(e.flags()));
            self.pending = self.pending.saturating_sub(ended.count());
            if self.pending == 0 {
                return;
            }
            let _ = self.enter(Some(Duration::from_millis(10)), 1, false);
        }
        self.buffers.leak();
        for socket in std::mem::take(&mut self.closing).into_values() {
            std::mem::forget(socket.out);
        }
    }
}

fn broken(key: usize, error: io::Error, unsent: bool) -> Event {
    Event::Broken { key, error, unsent }
}

/// A wait that ended by its timeout, by a signal or for want of room is no failure: the next one goes on.
fn ignore_early_end(entered: io::Result<usize>) -> io::Result<()> {
    const TIME: i32 = 62;
    const BUSY: i32 = 16;
    const INTERRUPTED: i32 = 4;
    const AGAIN: i32 = 11;
    match entered {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.raw_os_error(), Some(TIME | BUSY | INTERRUPTED | AGAIN)) => Ok(()),
        Err(e) => Err(e),
    }
}
