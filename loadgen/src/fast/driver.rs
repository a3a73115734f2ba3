//! Owns the contract between the event loop and the two ways to move bytes: epoll and io_uring. Knows neither HTTP nor
//! schedules.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

use super::memory;

/// What happened on the socket with this key, or to the loop.
pub(super) enum Event {
    /// It is connected.
    Connected(usize),
    /// Bytes arrived; [`Driver::bytes`] has them until the next call of any other method.
    Data(usize),
    /// The peer closed its side in good order.
    End(usize),
    /// It is of no further use; `unsent` when nothing of what was last sent has left.
    Broken {
        key: usize,
        error: io::Error,
        unsent: bool,
    },
    /// Somebody called [`Waker::wake`].
    Woken,
}

/// Sleep between two requests of a slow load, whatever comes meanwhile.
pub(super) struct Nap<'a> {
    pub(super) left: Duration,
    /// How far away the end of the nap after it is, if that is known.
    pub(super) then: Option<Duration>,
    /// The only sockets on which anything is expected; empty when they are many, or none is left out.
    pub(super) ask: &'a [usize],
}

/// Sockets by key, and one wait for all of them.
pub(super) trait Driver: Sized {
    /// What reports call it.
    const NAME: &'static str;

    /// With `stamps` it asks the kernel when bytes arrive, if it can.
    fn new(waker: &Waker, stamps: bool) -> io::Result<Self>;

    /// Begins to connect socket `key`, replacing one that has it; [`Event::Connected`] or [`Event::Broken`] follows.
    fn connect(&mut self, key: usize, to: SocketAddr) -> io::Result<()>;

    /// Sends all of it, in order, now or when there is room. What is left in `bytes` means nothing.
    ///
    /// # Errors
    /// When the socket is broken and not one byte left.
    fn send(&mut self, key: usize, bytes: &mut Vec<u8>) -> io::Result<()>;

    /// True while something that was given to [`Driver::send`] has not left.
    fn sending(&self, key: usize) -> bool;

    /// Closes; no event of this socket follows.
    fn close(&mut self, key: usize);

    /// Waits for an event, at most for so long; with `enough` above 1 until so many responses are there, but then not
    /// for long.
    fn wait(&mut self, left: Option<Duration>, enough: usize) -> io::Result<()>;

    /// Lets the time pass, then sees what there is.
    fn nap(&mut self, nap: &Nap) -> io::Result<()>;

    /// The next event of those that [`Driver::wait`] or [`Driver::nap`] found.
    fn next(&mut self) -> Option<Event>;

    /// What the last event brought.
    fn bytes(&self) -> &[u8];

    /// How long ago, on the kernel's word, the last of these bytes had arrived; `None` where it does not say.
    fn age(&self) -> Option<Duration>;
}

/// Ends a wait from another thread.
#[derive(Clone)]
pub(super) struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Waker(Arc::new(eventfd(0, flags)?)))
    }

    pub(super) fn wake(&self) {
        // The only failure is a counter that is full, and then the loop is being woken already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Forgets wakes so far.
    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket that is being connected; with `stamps` the kernel is asked when bytes arrive.
pub(super) fn dial(to: SocketAddr, stamps: bool) -> io::Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    let _ = sockopt::set_tcp_nodelay(&fd, true);
    if stamps {
        // A receive without a stamp is one whose time is not known.
        let _ = memory::stamp(&fd);
    }
    match rustix::net::connect(&fd, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(fd),
        Err(e) => Err(e.into()),
    }
}

/// How a connection attempt that is over came out.
pub(super) fn dialled(fd: &OwnedFd) -> io::Result<()> {
    Ok(sockopt::socket_error(fd)??)
}
