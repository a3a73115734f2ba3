//! Owns moving bytes with epoll, edge-triggered: one system call to read, one to write, one wait for many sockets. Of a
//! core that sleeps between two requests these touch the least memory. Knows neither HTTP nor schedules.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::time::{TimerfdFlags, Timespec};

use super::batching::let_gather;
use super::driver::{Driver, Event, Nap, Waker, dial, dialled};
use super::memory;
use super::naps::Naps;
use super::timer::Timer;

const WAKER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
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
    timer: Timer,
    naps: Naps,
    /// Sockets that hold bytes for which there was no room.
    unsent: usize,
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
        let timer = Timer::new(TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer.fd, EventData::new_u64(TIMER), edge)?;
        Ok(Epoll {
            epoll,
            waker: waker.clone(),
            timer,
            naps: Naps::new()?,
            unsent: 0,
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
        let data = data(key, self.generations[key]);
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
        let empty = socket.out.is_empty();
        let sent = match empty {
            true => write(&socket.fd, bytes)?,
            false => 0,
        };
        socket.out.extend_from_slice(&bytes[sent..]);
        self.unsent += usize::from(empty && !socket.out.is_empty());
        Ok(())
    }

    fn sending(&self, key: usize) -> bool {
        matches!(self.sockets.get(key), Some(Some(socket)) if !socket.out.is_empty())
    }

    fn close(&mut self, key: usize) {
        if let Some(slot) = self.sockets.get_mut(key)
            && let Some(socket) = slot.take()
        {
            self.unsent -= usize::from(!socket.out.is_empty());
            // Closing the descriptor takes it out of the epoll set.
            self.generations[key] = self.generations[key].wrapping_add(1);
        }
    }

    fn wait(&mut self, left: Option<Duration>, enough: usize) -> io::Result<()> {
        if enough > 1 && left != Some(Duration::ZERO) {
            // epoll cannot wait for several.
            let_gather();
        }
        let zero = Timespec::default();
        let timeout = match left {
            Some(Duration::ZERO) => Some(&zero),
            Some(left) => {
                self.timer.within(left)?;
                None
            }
            None => None,
        };
        self.look(timeout)
    }

    fn nap(&mut self, nap: &Nap) -> io::Result<()> {
        if self.unsent > 0 {
            // A peer waits for the rest.
            return self.wait(Some(nap.left), 1);
        }
        self.naps.sleep(nap.left, nap.then)?;
        if nap.ask.is_empty() {
            return self.look(Some(&Timespec::default()));
        }
        self.events.clear();
        self.at = 0;
        for key in nap.ask {
            let generation = self.generations.get(*key).copied().unwrap_or_default();
            self.events.push(epoll::Event {
                flags: EventFlags::IN,
                data: data(*key, generation),
            });
        }
        Ok(())
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
                    self.timer.fired();
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
    /// Takes the events that are there, or the first that come.
    fn look(&mut self, timeout: Option<&Timespec>) -> io::Result<()> {
        self.events.clear();
        self.at = 0;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
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
                Ok(sent) => {
                    socket.out.drain(..sent);
                    self.unsent -= usize::from(socket.out.is_empty());
                }
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

/// What events of this socket are known by.
fn data(key: usize, generation: u32) -> EventData {
    EventData::new_u64(u64::from(generation) << 32 | key as u64)
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_nap_does_not_keep_waiting_who_reads_what_had_no_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut epoll = Epoll::new(&Waker::new().unwrap(), false).unwrap();
        epoll.connect(3, listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        epoll.wait(None, 1).unwrap();
        assert!(matches!(epoll.next(), Some(Event::Connected(3))));
        let length = 64 << 20;
        epoll.send(3, &mut vec![7; length]).unwrap();
        assert!(epoll.sending(3));
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; length];
            peer.read_exact(&mut all).map(|()| (all, peer))
        });
        let (began, long) = (Instant::now(), Duration::from_secs(60));
        while epoll.sending(3) {
            let nap = Nap {
                left: long,
                then: None,
                ask: &[3],
            };
            epoll.nap(&nap).unwrap();
            while epoll.next().is_some() {}
        }
        let (all, _peer) = reader.join().unwrap().unwrap();
        assert!(all.iter().all(|octet| *octet == 7));
        assert!(began.elapsed() < long, "it slept");
    }
}
