//! Owns looking a name up beside the event loop: one question at a time, asked for all connections that wait for it.
//! Nothing is remembered here: who asks for each dial sees the name as it is then.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use super::driver::Waker;

type Answer = io::Result<Vec<SocketAddr>>;

/// Connections that wait for an address.
pub(super) struct Resolver {
    host: String,
    port: u16,
    waker: Waker,
    /// Those whose question is being asked.
    asked: Vec<usize>,
    /// Those that came later: their own question follows.
    later: Vec<usize>,
    answer: Arc<Mutex<Option<Answer>>>,
}

impl Resolver {
    pub(super) fn new((host, port): &(String, u16), waker: Waker) -> Resolver {
        Resolver {
            host: host.clone(),
            port: *port,
            waker,
            asked: Vec::new(),
            later: Vec::new(),
            answer: Arc::default(),
        }
    }

    /// Connection `key` needs an address; the waker rings when there is an answer.
    pub(super) fn ask(&mut self, key: usize) {
        self.later.push(key);
        self.begin();
    }

    fn begin(&mut self) {
        if !self.asked.is_empty() || self.later.is_empty() {
            return;
        }
        self.asked = std::mem::take(&mut self.later);
        let (host, port) = (self.host.clone(), self.port);
        let (slot, waker) = (Arc::clone(&self.answer), self.waker.clone());
        let ask = move || {
            let answer = (host.as_str(), port).to_socket_addrs();
            *slot.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(answer.map(Iterator::collect));
            waker.wake();
        };
        let thread = std::thread::Builder::new().name("nines-dns".to_owned());
        if let Err(error) = thread.spawn(ask) {
            *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Err(error));
            self.waker.wake();
        }
    }

    /// Connection `key` waits no longer.
    pub(super) fn forget(&mut self, key: usize) {
        self.later.retain(|k| *k != key);
    }

    /// The answer, once, and for whom it is.
    pub(super) fn answer(&mut self) -> Option<(Vec<usize>, Answer)> {
        let answer = self
            .answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        let keys = std::mem::take(&mut self.asked);
        self.begin();
        Some((keys, answer))
    }
}
