//! Owns the connections of a reactor's thread and what the event loop says of them: connected, shaken hands, answered,
//! broken, out of time. Each has at most one exchange; whoever waits for it is woken. Must not know tasks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::super::driver::Event;
use super::super::tls::Session;
use super::alarms::Alarms;
use super::either::Either;
use super::line::{Flight, Line, Read, Stage, fields};
use super::link::Answered;
use crate::conn::{ConnError, ErrorKind, Timings, fault_kind, io_kind};
use crate::http1::Known;

/// Everything of a reactor but its tasks.
pub(super) struct Core {
    driver: Either,
    lines: Vec<Line>,
    free: Vec<usize>,
    alarms: Alarms,
    /// An entry a connection, rarely more; one that is too early is put back.
    deadlines: BinaryHeap<Reverse<(Instant, usize)>>,
    flying: usize,
    known: Known,
    /// The fields of the head that `known` holds, and of which head.
    fields: (u64, Arc<HeaderMap>),
    scratch: Vec<u8>,
}

impl Core {
    pub(super) fn new(driver: Either) -> Core {
        Core {
            driver,
            lines: Vec::new(),
            free: Vec::new(),
            alarms: Alarms::default(),
            deadlines: BinaryHeap::new(),
            flying: 0,
            known: Known::default(),
            fields: (0, Arc::default()),
            scratch: Vec::new(),
        }
    }

    /// Wakes somebody at an instant.
    pub(super) fn wake_at(&mut self, at: Instant, waker: &Waker) {
        self.alarms.set(at, waker.clone());
    }

    /// Somebody waits for an instant.
    pub(super) fn sleeps(&self) -> bool {
        !self.alarms.is_empty()
    }

    /// Exchanges under way.
    pub(super) fn flying(&self) -> usize {
        self.flying
    }

    /// When there is something to do without anything having happened.
    pub(super) fn wakes(&self) -> Option<Instant> {
        let alarm = self.alarms.next();
        let deadline = self.deadlines.peek().map(|Reverse((at, _))| *at);
        [alarm, deadline].into_iter().flatten().min()
    }

    /// Wakes whose instant has come, and ends what ran out of time.
    pub(super) fn expire(&mut self) {
        if self.alarms.is_empty() && self.deadlines.is_empty() {
            return;
        }
        let now = Instant::now();
        self.alarms.ring(now);
        while let Some(Reverse((at, key))) = self.deadlines.peek().copied()
            && at <= now
        {
            self.deadlines.pop();
            let line = &mut self.lines[key];
            line.listed = line.listed.filter(|listed| *listed != at);
            match line.deadline {
                Some(deadline) if deadline > now => self.list(key, deadline),
                Some(_) => self.late(key),
                None => {}
            }
        }
    }

    fn list(&mut self, key: usize, deadline: Instant) {
        let line = &mut self.lines[key];
        if line.listed.is_none_or(|listed| deadline < listed) {
            line.listed = Some(deadline);
            self.deadlines.push(Reverse((deadline, key)));
        }
    }

    fn late(&mut self, key: usize) {
        let what = match self.lines[key].stage {
            Stage::Open => "no complete response in time",
            _ => "connecting took too long",
        };
        self.fail(key, ConnError::new(ErrorKind::Timeout, what));
    }

    /// A deadline for what this connection is about to do.
    fn until(&mut self, key: usize, deadline: Instant) {
        self.lines[key].deadline = Some(deadline);
        self.list(key, deadline);
    }

    /// A number for a new connection, and which of its users this is.
    pub(super) fn claim(&mut self) -> (usize, u32) {
        let key = self.free.pop().unwrap_or_else(|| {
            self.lines.push(Line::new());
            self.lines.len() - 1
        });
        (key, self.lines[key].generation)
    }

    /// Begins to connect.
    pub(super) fn connect(
        &mut self,
        key: usize,
        to: SocketAddr,
        deadline: Instant,
    ) -> Result<(), ConnError> {
        let io = |e: io::Error| ConnError::new(io_kind(&e), &e);
        self.driver.connect(key, to).map_err(io)?;
        self.lines[key].stage = Stage::Connecting;
        self.until(key, deadline);
        Ok(())
    }

    /// Begins to shake hands on a connection that is open.
    pub(super) fn shake(
        &mut self,
        key: usize,
        (config, name): (&Arc<ClientConfig>, &ServerName<'static>),
        deadline: Instant,
    ) -> Result<(), ConnError> {
        let tls = |e: &dyn std::fmt::Display| ConnError::new(ErrorKind::Tls, e);
        let mut session = Session::new(config, name).map_err(|e| tls(&e))?;
        if session.answer(&mut self.scratch) {
            let sent = self.driver.send(key, &mut self.scratch);
            sent.map_err(|e| ConnError::new(io_kind(&e), &e))?;
        }
        let line = &mut self.lines[key];
        line.tls = Some(Box::new(session));
        line.stage = Stage::Handshaking;
        self.until(key, deadline);
        Ok(())
    }

    /// Whether the connection has come so far that it carries requests, or why not; none while it is on its way.
    pub(super) fn opened(&mut self, key: usize, waker: &Waker) -> Option<Result<(), ConnError>> {
        let line = &mut self.lines[key];
        match &line.stage {
            Stage::Open => {
                line.deadline = None;
                Some(Ok(()))
            }
            Stage::Over(why) => Some(Err(why.clone())),
            Stage::Free => Some(Err(ConnError::new(ErrorKind::Closed, "not connected"))),
            Stage::Connecting | Stage::Handshaking => {
                line.wait(waker);
                None
            }
        }
    }

    /// False once it cannot carry another request.
    pub(super) fn is_open(&self, key: usize) -> bool {
        matches!(self.lines[key].stage, Stage::Open)
    }

    /// Sends a request; `head` when the response has no body, of which at most `limit` bytes are read and, when `keep`
    /// says so, kept.
    pub(super) fn send(
        &mut self,
        key: usize,
        request: &[u8],
        head: bool,
        (limit, keep): (u64, bool),
        deadline: Instant,
    ) -> Result<(), ConnError> {
        let line = &mut self.lines[key];
        if let Stage::Over(why) = &line.stage {
            return Err(ConnError {
                never_sent: true,
                ..why.clone()
            });
        }
        line.reader.expect(limit, keep);
        line.reader.begin(head);
        line.outcome = None;
        line.flight = Some(Flight::begun(Instant::now()));
        self.scratch.clear();
        self.scratch.extend_from_slice(request);
        let sent = match &mut line.tls {
            None => self.driver.send(key, &mut self.scratch),
            Some(session) => session
                .encrypt(&mut self.scratch)
                .and_then(|()| self.driver.send(key, &mut self.scratch)),
        };
        self.flying += 1;
        self.until(key, deadline);
        if let Err(error) = sent {
            let error = ConnError::new(io_kind(&error), &error);
            self.fail(
                key,
                ConnError {
                    never_sent: true,
                    ..error
                },
            );
        }
        Ok(())
    }

    /// What came of the request, once.
    pub(super) fn outcome(
        &mut self,
        key: usize,
        waker: &Waker,
    ) -> Option<Result<Answered, ConnError>> {
        let line = &mut self.lines[key];
        let outcome = line.outcome.take();
        if outcome.is_none() {
            line.wait(waker);
        }
        outcome
    }

    /// Closes; the number is free when `generation` still had it.
    pub(super) fn close(&mut self, key: usize, generation: u32) {
        let line = &mut self.lines[key];
        if line.generation != generation {
            return;
        }
        self.driver.close(key);
        self.flying -= usize::from(line.flight.take().is_some());
        line.generation = line.generation.wrapping_add(1);
        (line.stage, line.tls, line.outcome) = (Stage::Free, None, None);
        (line.waker, line.deadline) = (None, None);
        self.free.push(key);
    }

    /// Waits for what comes; see [`super::super::driver::Driver::wait`].
    pub(super) fn wait(&mut self, left: Option<Duration>, enough: usize) -> io::Result<()> {
        self.driver.wait(left, enough)
    }

    /// Takes the next event that was found: whether it ended an exchange; none when there is no more.
    pub(super) fn next(&mut self) -> Option<bool> {
        let event = self.driver.next()?;
        let before = self.flying;
        match event {
            Event::Woken => {}
            Event::Connected(key) => self.connected(key),
            Event::Data(key) => self.data(key),
            Event::End(key) => self.end(key),
            Event::Broken { key, error, unsent } => self.broken(key, &error, unsent),
        }
        Some(self.flying < before)
    }

    fn connected(&mut self, key: usize) {
        self.lines[key].stage = Stage::Open;
        self.wake(key);
    }

    fn wake(&mut self, key: usize) {
        if let Some(waker) = self.lines[key].waker.take() {
            waker.wake();
        }
    }

    /// The connection is of no further use; whoever waits for it hears why.
    fn fail(&mut self, key: usize, mut error: ConnError) {
        self.driver.close(key);
        let line = &mut self.lines[key];
        line.deadline = None;
        match line.flight.take() {
            Some(flight) => {
                self.flying -= 1;
                error.nothing_received = flight.received == 0;
                line.outcome = Some(Err(error.clone()));
            }
            None => error.never_sent = true,
        }
        line.stage = Stage::Over(error);
        self.wake(key);
    }

    fn broken(&mut self, key: usize, error: &io::Error, unsent: bool) {
        let kind = match (io_kind(error), &self.lines[key].stage) {
            (ErrorKind::Reset, _) => ErrorKind::Reset,
            (_, Stage::Handshaking) => ErrorKind::Tls,
            (kind, _) => kind,
        };
        let never_sent = unsent;
        let error = ConnError::new(kind, error);
        self.fail(
            key,
            ConnError {
                never_sent,
                ..error
            },
        );
    }

    /// The peer closed its side.
    fn end(&mut self, key: usize) {
        let line = &mut self.lines[key];
        let closed = |why: &str| ConnError::new(ErrorKind::Closed, why);
        match (&line.stage, &mut line.flight) {
            (Stage::Handshaking, _) => {
                let error = ConnError::new(ErrorKind::Tls, "closed during the TLS handshake");
                self.fail(key, error);
            }
            // An end without TLS' own word for it may be a cut.
            (_, Some(_)) if line.tls.as_ref().is_some_and(|s| !s.peer_closed()) => {
                self.fail(key, closed("closed without TLS' close_notify"));
            }
            (_, Some(_)) if line.reader.close().is_ok() => self.complete(key, false, None),
            (_, _) => self.fail(key, closed("the peer closed the connection")),
        }
    }

    /// Bytes came.
    fn data(&mut self, key: usize) {
        let age = self.driver.age();
        let at = age.and_then(|a| Instant::now().checked_sub(a));
        let line = &mut self.lines[key];
        let Some(mut session) = line.tls.take() else {
            let read = line.feed(self.driver.bytes(), &mut self.known, at);
            self.judge(key, read, at);
            return;
        };
        let shaking = matches!(line.stage, Stage::Handshaking);
        let mut read = Read::More;
        let decrypted = session.decrypt(self.driver.bytes(), |plain| {
            read = match std::mem::replace(&mut read, Read::More) {
                Read::More => line.feed(plain, &mut self.known, at),
                Read::Complete { .. } => Read::Complete { reusable: false },
                over => over,
            };
        });
        let over = session.peer_closed();
        let shaken = !session.is_handshaking();
        let answered = session.answer(&mut self.scratch);
        line.tls = Some(session);
        let told = match answered {
            true => self.driver.send(key, &mut self.scratch),
            false => Ok(()),
        };
        let tls = |e: &dyn std::fmt::Display| ConnError::new(ErrorKind::Tls, e);
        if shaking {
            match (decrypted, told) {
                (Err(error), _) => self.fail(key, tls(&error)),
                (_, Err(error)) => self.broken(key, &error, true),
                _ if over => self.fail(key, tls(&"closed during the TLS handshake")),
                _ if shaken => {
                    self.lines[key].stage = Stage::Open;
                    self.wake(key);
                }
                _ => {}
            }
            return;
        }
        match (read, decrypted) {
            (Read::More, Err(error)) => self.fail(key, tls(&error)),
            (Read::More, Ok(())) if over => self.end(key),
            (Read::Complete { .. }, bad) if bad.is_err() || over => {
                self.judge(key, Read::Complete { reusable: false }, at);
            }
            (read, _) => self.judge(key, read, at),
        }
    }

    /// What bytes that arrived `at` meant.
    fn judge(&mut self, key: usize, read: Read, at: Option<Instant>) {
        match read {
            Read::More => {}
            Read::Stray => {
                let why = "bytes that nobody asked for";
                self.fail(key, ConnError::new(ErrorKind::Protocol, why));
            }
            Read::Bad(fault) => self.fail(key, ConnError::new(fault_kind(fault), fault)),
            Read::Complete { reusable } => self.complete(key, reusable, at),
        }
    }

    fn complete(&mut self, key: usize, reusable: bool, at: Option<Instant>) {
        let ended = at.unwrap_or_else(Instant::now);
        let line = &mut self.lines[key];
        let Some(flight) = line.flight.take() else {
            return;
        };
        self.flying -= 1;
        line.deadline = None;
        let fields = match line.reader.head_known() {
            Some(id) if id == self.fields.0 => Arc::clone(&self.fields.1),
            Some(id) => {
                let fields = Arc::new(fields(self.known.bytes()));
                self.fields = (id, Arc::clone(&fields));
                fields
            }
            None => Arc::new(fields(line.reader.head_bytes())),
        };
        // A clock that was set back must not make an answer older than its question.
        let ended = ended.max(flight.sent);
        let head_at = flight.head_at.unwrap_or(ended).clamp(flight.sent, ended);
        line.outcome = Some(Ok(Answered {
            status: line.reader.status(),
            headers: fields,
            body_len: line.reader.body_len(),
            body: Bytes::from(line.reader.take_body()),
            wire_bytes: flight.received,
            timings: Timings {
                first_byte: head_at - flight.sent,
                transfer: ended - head_at,
            },
            sent: flight.sent,
            ended,
        }));
        self.wake(key);
        // A request that was answered before it had left whole cannot be followed by another.
        if !reusable || self.driver.sending(key) {
            self.driver.close(key);
            let why = ConnError::new(
                ErrorKind::Closed,
                "the connection ended with its last response",
            );
            self.lines[key].stage = Stage::Over(why);
        }
    }
}
