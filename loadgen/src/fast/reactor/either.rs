//! Owns the choice between the two ways to move bytes where it is made at run time. Knows neither HTTP nor tasks.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::driver::{Driver, Event, Waker};
use super::super::epoll::Epoll;
use super::super::uring::Uring;
use crate::plan::Engine;

/// One of the two.
pub(super) enum Either {
    Uring(Box<Uring>),
    Epoll(Box<Epoll>),
}

macro_rules! of {
    ($self:ident, $driver:ident => $what:expr) => {
        match $self {
            Either::Uring($driver) => $what,
            Either::Epoll($driver) => $what,
        }
    };
}

impl Either {
    /// The first of these that this machine has.
    pub(super) fn first(engines: &[Engine], waker: &Waker) -> io::Result<Either> {
        let mut refused = io::Error::other("no engine is left to choose from");
        for engine in engines {
            let made = match engine {
                Engine::IoUring => Uring::new(waker, true).map(|d| Either::Uring(Box::new(d))),
                _ => Epoll::new(waker, true).map(|d| Either::Epoll(Box::new(d))),
            };
            match made {
                Ok(driver) => return Ok(driver),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Either::Uring(_) => Uring::NAME,
            Either::Epoll(_) => Epoll::NAME,
        }
    }

    pub(super) fn connect(&mut self, key: usize, to: SocketAddr) -> io::Result<()> {
        of!(self, d => d.connect(key, to))
    }

    pub(super) fn send(&mut self, key: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        of!(self, d => d.send(key, bytes))
    }

    pub(super) fn sending(&self, key: usize) -> bool {
        of!(self, d => d.sending(key))
    }

    pub(super) fn close(&mut self, key: usize) {
        of!(self, d => d.close(key));
    }

    pub(super) fn wait(&mut self, left: Option<Duration>, enough: usize) -> io::Result<()> {
        of!(self, d => d.wait(left, enough))
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        of!(self, d => d.next())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        of!(self, d => d.bytes())
    }

    pub(super) fn age(&self) -> Option<Duration> {
        of!(self, d => d.age())
    }
}
