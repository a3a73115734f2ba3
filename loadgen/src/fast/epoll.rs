//! Owns moving bytes with epoll, edge-triggered: one system call to read, one to write, one wait for many sockets. Of a
//! core that sleeps between two requests these touch the least memory. Knows neither HTTP nor schedules.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::driver::{Driver, Event, LAZY, Waker, dial, dialled};
use super::memory;

const WAKER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
/// How long responses are let gather when several are wanted at once.
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 150_000,
};
/// Read at once, in bytes.
const BUFFER: usize = 64 * 1024;

struct Socket {
    fd: OwnedFd,
    connecting: bool,
    /// What found no room in the kernel's buffer.
    out: Vec<u8>,
}

/// One epoll instance and its sockets.
pub(super) struct Epoll {
    epoll: OwnedFd,
    waker: Waker,
    timer: OwnedFd,
    /// When the timer fires, if it was set and has not.
    fires: Option<Instant>,
    sockets: Vec<Option<Socket>>,
    /// One more with each socket of a key, so that events of the last one are not taken for its own.
    generations: Vec<u32>,
    events: Vec<epoll::Event>,
    at: usize,
    buffer: Box<[u8]>,
    filled: usize,
    /// When the last event's bytes arrived.
    arrived: Option<Duration>,
    /// Receives say when bytes arrived.
    stamps: bool,
}

impl Driver for Epoll {
    const NAME: &'static str = "epoll";

    fn new(waker: &Waker, stamps: bool) -> io::Result<Epoll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, waker, EventData::new_u64(WAKER), edge)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), edge)?;
        Ok(Epoll {
            epoll,
            waker: waker.clone(),
            timer,
            fires: None,
            sockets: Vec::new(),
            generations: Vec::new(),
            events: Vec::with_capacity(256),
            at: 0,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            filled: 0,
            arrived: None,
            stamps: stamps && memory::STAMPS,
        })
    }

    fn connect(&mut self, key: usize, to: SocketAddr) -> io::Result<()> {
        self.close(key);
        if self.sockets.len() <= key {
            self.sockets.resize_with(key + 1, || None);
            self.generations.resize(key + 1, 0);
        }
        let fd = dial(to, self.stamps)?;
        let data = EventData::new_u64(u64::from(self.generations[key]) << 32 | key as u64);
        let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &fd, data, both)?;
        self.sockets[key] = Some(Socket {
            fd,
            connecting: true,
            out: Vec::new(),
        });
        Ok(())
    }

    fn send(&mut self, key: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(key).and_then(Option::as_mut) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let sent = if socket.out.is_empty() {
            write(&socket.fd, bytes)?
        } else {
            0
        };
        socket.out.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn sending(&self, key: usize) -> bool {
        matches!(self.sockets.get(key), Some(Some(socket)) if !socket.out.is_empty())
    }

    fn close(&mut self, key: usize) {
        if let Some(slot) = self.sockets.get_mut(key)
            && slot.take().is_some()
        {
            // Closing the descriptor takes it out of the epoll set.
            self.generations[key] = self.generations[key].wrapping_add(1);
        }
    }

    fn wait(&mut self, left: Option<Duration>, enough: usize) -> io::Result<()> {
        if enough > 1 && enough != LAZY && left != Some(Duration::ZERO) {
            // epoll cannot wait for several; asleep, we are not woken for each.
            let _ = rustix::thread::nanosleep(&NAP);
        }
        let zero = Timespec::default();
        let timeout = match left {
            Some(Duration::ZERO) => Some(&zero),
            Some(left) if enough == LAZY => {
                // It ends early by a signal only, and then the next wait goes on.
                let _ = rustix::thread::nanosleep(&timespec(left));
                Some(&zero)
            }
            Some(left) => {
                self.arm(left)?;
                None
            }
            None => None,
        };
        self.events.clear();
        self.at = 0;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn next(&mut self) -> Option<Event> {
        loop {
            let event = *self.events.get(self.at)?;
            let (data, flags) = ({ event.data }.u64(), event.flags);
            match data {
                WAKER => {
                    self.at += 1;
                    self.waker.clear();
                    return Some(Event::Woken);
                }
                TIMER => {
                    self.at += 1;
                    self.fires = None;
                }
                _ => {
                    let (key, generation) = ((data & 0xffff_ffff) as usize, (data >> 32) as u32);
                    if self.generations.get(key) == Some(&generation)
                        && let Some(event) = self.on_socket(key, flags)
                    {
                        return Some(event);
                    }
                    self.at += 1;
                }
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    fn age(&self) -> Option<Duration> {
        memory::age(self.arrived?)
    }
}

impl Epoll {
    /// Sets the timer unless it fires early enough already; a wake too early only costs another wait.
    fn arm(&mut self, left: Duration) -> io::Result<()> {
        let now = Instant::now();
        let at = now + left;
        if self.fires.is_some_and(|fires| fires > now && fires <= at) {
            return Ok(());
        }
        let spec = Itimerspec {
            it_interval: Timespec::default(),
            it_value: timespec(left),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        self.fires = Some(at);
        Ok(())
    }

    /// The next event of this socket; none when there is no more for now.
    fn on_socket(&mut self, key: usize, flags: EventFlags) -> Option<Event> {
        let socket = self.sockets.get_mut(key)?.as_mut()?;
        let over = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if socket.connecting {
            if !over && !flags.contains(EventFlags::OUT) {
                return None;
            }
            socket.connecting = false;
            return Some(match dialled(&socket.fd) {
                Ok(()) => Event::Connected(key),
                Err(error) => broken(key, error, true),
            });
        }
        if !socket.out.is_empty() && flags.contains(EventFlags::OUT) {
            match write(&socket.fd, &socket.out) {
                Ok(sent) => drop(socket.out.drain(..sent)),
                Err(error) => return Some(broken(key, error, false)),
            }
        }
        if !over && !flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
            return None;
        }
        let received = if self.stamps {
            memory::receive(&socket.fd, &mut self.buffer)
        } else {
            let received = rustix::net::recv(&socket.fd, &mut *self.buffer, RecvFlags::empty());
            received.map(|(n, _)| (n, None)).map_err(io::Error::from)
        };
        match received {
            Ok((0, _)) => {
                self.at += 1;
                Some(Event::End(key))
            }
            Ok((n, at)) => {
                self.filled = n;
                self.arrived = at;
                // A short read has emptied the socket, unless the end is behind it.
                if n < BUFFER && !over && !flags.contains(EventFlags::RDHUP) {
                    self.at += 1;
                }
                Some(Event::Data(key))
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                None
            }
            Err(error) => {
                self.at += 1;
                Some(broken(key, error, false))
            }
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    }
}

fn broken(key: usize, error: io::Error, unsent: bool) -> Event {
    Event::Broken { key, error, unsent }
}

/// How much the kernel took.
fn write(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    match rustix::net::send(fd, bytes, SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(sent),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(e) => Err(e.into()),
    }
}
