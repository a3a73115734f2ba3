//! Owns one thread's share of a run: its connections, and what each does next. One loop waits for whatever comes first
//! (bytes, an instant, a stop) and acts on it; nothing else blocks. Must not know how bytes move.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::conn::{ErrorKind, Opened, Timings, fault_kind, io_kind};
use crate::dispatch::Ticket;
use crate::http1::{Known, Reader};
use crate::stats::{Answer, Sample};
use crate::transport::Dns;

use super::batching::Batching;
use super::deadlines::Deadlines;
use super::driver::{Driver, Event, Nap, Waker};
use super::early::Early;
use super::lazy::Lazy;
use super::resolve::Resolver;
use super::tls::Session;
use super::work::Queue;
use super::{Ended, MAX_BODY, Run, cpu_time};

/// So many samples are handed over at once when there is time to gather them.
const MANY: usize = 32;
/// So long before a second ends everything is handed over.
const NEAR: Duration = Duration::from_millis(1);

/// How far a connection has come.
pub(super) enum Link {
    Closed,
    /// Since when its name is being looked up.
    Resolving(Duration),
    Connecting {
        began: Duration,
        dns: Duration,
        addrs: Rc<[SocketAddr]>,
        /// Which of them is being tried.
        at: usize,
    },
    Handshaking {
        began: Duration,
        dns: Duration,
        tcp: Duration,
    },
    Open,
}

/// A request under way.
pub(super) struct Flight {
    pub(super) ticket: Ticket,
    picked: Duration,
    pub(super) sent: Duration,
    headers: Option<Duration>,
    opened: Option<Opened>,
    pub(super) route: usize,
    /// Its method is HEAD.
    pub(super) head: bool,
    idempotent: bool,
    pub(super) closes: bool,
    /// This try is on a connection that has carried another request.
    reused: bool,
    reconnected: bool,
    dialled: bool,
    /// Bytes of the response so far.
    received: u64,
}

/// A connection, and what it carries.
pub(super) struct Slot {
    pub(super) link: Link,
    pub(super) tls: Option<Box<Session>>,
    pub(super) reader: Reader,
    /// The request that is answered next.
    pub(super) flight: Option<Flight>,
    /// Those sent after it, when they are pipelined.
    pub(super) line: VecDeque<Flight>,
    /// What was answered since somebody looked, of those in line.
    pub(super) answered: Vec<Sample>,
    failed_dials: u32,
}

/// What bytes meant to a request.
pub(super) enum Verdict {
    More,
    Complete {
        reusable: bool,
    },
    Failed(ErrorKind),
    /// Nothing was asked.
    Stray,
}

/// One thread's connections and what they wait for.
pub(super) struct Shard<D> {
    pub(super) run: Arc<Run>,
    pub(super) driver: D,
    /// None in the closed model.
    queue: Option<Queue>,
    /// Most connections.
    limit: usize,
    pub(super) slots: Vec<Slot>,
    /// Connections of an open load that wait for a request; the last used is the first to be used, so that few stay
    /// warm.
    idle: Vec<usize>,
    /// Connections that have just become free.
    free: Vec<usize>,
    /// Connections of a closed load that pause, and until when.
    paused: BinaryHeap<Reverse<(Duration, usize)>>,
    pub(super) deadlines: Deadlines,
    resolver: Resolver,
    /// Where to connect, once that is known for good.
    addrs: Option<Rc<[SocketAddr]>>,
    /// Which address comes first.
    turn: usize,
    /// Requests under way.
    pub(super) flying: usize,
    /// Connections of a closed load that are not done.
    active: usize,
    pub(super) scratch: Vec<u8>,
    /// Since the last flush: requests started, those of them measured, and requests finished.
    pub(super) started: (u64, u64),
    pub(super) samples: Vec<Sample>,
    batching: Batching,
    known: Known,
    early: Early,
    lazy: Lazy,
    /// What is looked at after a nap, when it is not all.
    asked: Vec<usize>,
    /// Connections that are being opened.
    opening: usize,
    /// No connection is free, as of when the last wait began.
    blocked: bool,
    /// When the last wait began: what it found had not arrived before it.
    waited: Duration,
}

impl<D: Driver> Shard<D> {
    pub(super) fn new(
        run: Arc<Run>,
        driver: D,
        queue: Option<Queue>,
        limit: usize,
        waker: Waker,
    ) -> Shard<D> {
        let closed = queue.is_none();
        let mut shard = Shard {
            resolver: Resolver::new(&run.place, waker),
            addrs: run.addrs.as_deref().map(Rc::from),
            turn: 0,
            driver,
            queue,
            limit,
            slots: Vec::new(),
            idle: Vec::new(),
            free: Vec::new(),
            paused: BinaryHeap::new(),
            deadlines: Deadlines::new(),
            flying: 0,
            active: 0,
            scratch: Vec::new(),
            started: (0, 0),
            samples: Vec::new(),
            known: Known::default(),
            early: Early::default(),
            lazy: Lazy::default(),
            asked: Vec::new(),
            opening: 0,
            blocked: false,
            waited: Duration::ZERO,
            batching: Batching::new(closed.then_some(limit)),
            run,
        };
        if closed {
            shard.active = limit;
            for _ in 0..limit {
                let key = shard.add_slot();
                shard.free.push(key);
            }
        }
        shard
    }

    fn add_slot(&mut self) -> usize {
        self.slots.push(Slot {
            link: Link::Closed,
            tls: None,
            reader: Reader::new(MAX_BODY),
            flight: None,
            line: VecDeque::new(),
            answered: Vec::new(),
            failed_dials: 0,
        });
        self.slots.len() - 1
    }

    fn now(&self) -> Duration {
        self.run.start.elapsed()
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Ended, io::Error> {
        let cpu_before = cpu_time();
        // The last wait ended by its time.
        let mut woken = false;
        // It was a nap, so that nothing more is looked for just now.
        let mut napped = false;
        loop {
            let now = self.now();
            let stop = self.run.stop.load(Ordering::Relaxed);
            if let Some(queue) = &mut self.queue {
                queue.maybe_end(now, stop);
            }
            self.release_due(now);
            self.expire(now);
            self.resume(now, stop);
            self.settle(now);
            self.blocked = self.idle.is_empty() && self.slots.len() >= self.limit;
            if !self.gathers(now) {
                self.flush();
            }
            let now = self.now();
            if self.run.abort.load(Ordering::Relaxed) || self.finished(now) {
                break;
            }
            let left = self.wakes().map(|at| at.saturating_sub(now));
            let wait = left.map(|left| match self.queue {
                Some(_) => self.early.shorten(left, woken),
                None => left,
            });
            let lies = self.lies(wait);
            if lies && napped && wait == Some(Duration::ZERO) {
                // It ended some microseconds early.
                self.spin_until(now + left.unwrap_or_default());
                (napped, woken) = (false, true);
                continue;
            }
            napped = lies && wait.is_some_and(|wait| !wait.is_zero());
            match wait {
                Some(wait) if napped => self.nap(wait, left.unwrap_or(wait), now)?,
                _ => self.driver.wait(wait, self.batching.enough())?,
            }
            let over = wait.and_then(|w| self.now().checked_sub(now + w));
            woken = true;
            while let Some(event) = self.driver.next() {
                woken = lies;
                let now = self.now();
                if self.blocked {
                    // What fell due meanwhile waited for this.
                    self.release_due(now);
                }
                self.on(event, now);
                self.settle(now);
                self.blocked &= self.idle.is_empty();
                self.release_due(now);
            }
            self.waited = now;
            if woken && let Some(late) = over {
                self.early.observe(late, wait.unwrap_or_default());
            }
            self.batching.tick(self.samples.len());
        }
        self.flush();
        Ok(Ended {
            cpu: cpu_time().saturating_sub(cpu_before),
            queue: self.queue,
            engine: D::NAME,
        })
    }

    /// Whether what comes during the next wait may lie until its end.
    fn lies(&self, left: Option<Duration>) -> bool {
        let calm = |q: &Queue| q.waiting() == 0 && !q.over();
        !self.blocked
            && self.opening == 0
            && self.queue.as_ref().is_some_and(calm)
            && self.lazy.allows(left)
    }

    /// Lets a few microseconds pass.
    fn spin_until(&self, at: Duration) {
        while self.now() < at {
            std::hint::spin_loop();
        }
    }

    /// Sleeps for `wait`, of what is `left` until something falls due, and looks where a response may be.
    fn nap(&mut self, wait: Duration, left: Duration, now: Duration) -> io::Result<()> {
        let after = self.queue.as_ref().and_then(Queue::after);
        let then = after.map(|at| at.saturating_sub(now + left.saturating_sub(wait)));
        self.asked.clear();
        if self.lazy.asks(self.flying) {
            self.asked.extend(self.deadlines.keys());
        }
        self.driver.nap(&Nap {
            left: wait,
            then,
            ask: &self.asked,
        })
    }

    /// Whether what was seen may wait for more of its kind before it is handed over: responses lie, it is not much yet, and
    /// no second ends meanwhile. One at a time, each would find the histograms gone from the CPU's caches.
    fn gathers(&mut self, now: Duration) -> bool {
        let left = self.wakes().map(|at| at.saturating_sub(now));
        let tick = nanos(self.run.plan.tick).max(1);
        let second = |at: Duration| nanos(at) / tick;
        self.samples.len() < MANY
            && self.lies(left)
            && second(now) == second(now + left.unwrap_or_default() + NEAR)
    }

    /// Notes how far a connection has come.
    fn link(&mut self, key: usize, link: Link) {
        let opening = |l: &Link| !matches!(l, Link::Closed | Link::Open);
        let before = std::mem::replace(&mut self.slots[key].link, link);
        self.opening += usize::from(opening(&self.slots[key].link));
        self.opening -= usize::from(opening(&before));
    }

    fn finished(&self, now: Duration) -> bool {
        match &self.queue {
            None => self.active == 0,
            Some(queue) => {
                queue.over() && self.flying == 0 && (queue.waiting() == 0 || queue.closed(now))
            }
        }
    }

    /// When there is something to do without anything having happened.
    fn wakes(&mut self) -> Option<Duration> {
        let due = self.queue.as_mut().and_then(|q| q.wakes(self.blocked));
        let deadline = self.deadlines.first().map(|(_, at)| at);
        let pause = self.paused.peek().map(|Reverse((at, _))| *at);
        [due, deadline, pause].into_iter().flatten().min()
    }

    /// Releases what is due; a late batch in pieces, so that responses are not kept waiting for the whole of it.
    fn release_due(&mut self, now: Duration) {
        for _ in 0..64 {
            let Some(queue) = &mut self.queue else { return };
            if !queue.release(now, self.blocked) {
                return;
            }
            // Whoever waits longer goes first.
            if queue.waiting() > 1 {
                continue;
            }
            let key = match self.idle.pop() {
                Some(key) => key,
                None if self.slots.len() < self.limit => self.add_slot(),
                None => continue,
            };
            if let Some(ticket) = self.queue.as_mut().and_then(|q| q.take(false)) {
                self.start(key, ticket, now);
            }
        }
    }

    /// Ends what ran out of time.
    fn expire(&mut self, now: Duration) {
        while let Some((key, _)) = self.deadlines.first().filter(|(_, at)| *at <= now) {
            self.deadlines.remove(key);
            self.resolver.forget(key);
            self.close(key);
            self.finish(key, Err(ErrorKind::Timeout), now);
        }
    }

    /// Ends pauses.
    fn resume(&mut self, now: Duration, stop: bool) {
        while let Some(Reverse((at, key))) = self.paused.peek().copied()
            && (at <= now || stop)
        {
            self.paused.pop();
            self.free.push(key);
        }
    }

    /// Gives each free connection its next request, or nothing more.
    fn settle(&mut self, now: Duration) {
        while let Some(key) = self.free.pop() {
            let Some(queue) = &mut self.queue else {
                let stopped = self.run.stop.load(Ordering::Relaxed);
                let run = &self.run;
                match (!stopped)
                    .then(|| run.counter.take(&run.plan, now))
                    .flatten()
                {
                    Some(ticket) => self.start(key, ticket, now),
                    None => {
                        self.active -= 1;
                        self.close(key);
                    }
                }
                continue;
            };
            if queue.closed(now) {
                continue;
            }
            if queue.waiting() > 0 {
                if let Some(ticket) = queue.take(true) {
                    self.start(key, ticket, now);
                }
            } else if !queue.over() {
                self.idle.push(key);
            }
        }
    }

    fn start(&mut self, key: usize, ticket: Ticket, now: Duration) {
        self.count(&ticket);
        self.deadlines.push(key, now + self.run.plan.timeout);
        let reused = matches!(self.slots[key].link, Link::Open);
        if reused && self.run.plan.transport.pipeline > 1 {
            return self.fill(key, Some(ticket), now);
        }
        self.slots[key].flight = Some(Flight::new(ticket, now, reused));
        if reused {
            self.send(key, now);
        } else {
            self.dial(key, now);
        }
    }

    /// A request starts.
    pub(super) fn count(&mut self, ticket: &Ticket) {
        self.started.0 += 1;
        self.started.1 += u64::from(ticket.due >= self.run.plan.warm_up);
        self.flying += 1;
    }

    fn dial(&mut self, key: usize, now: Duration) {
        if let Some(flight) = &mut self.slots[key].flight {
            flight.dialled = false;
            flight.reused = false;
            flight.sent = now;
        }
        match self.addrs.clone() {
            Some(addrs) => {
                let addrs = self.in_turn(addrs);
                self.connect(key, Duration::ZERO, addrs, 0, now);
            }
            None => {
                self.link(key, Link::Resolving(now));
                self.resolver.ask(key);
            }
        }
    }

    /// The same addresses, beginning with another one each time.
    fn in_turn(&mut self, addrs: Rc<[SocketAddr]>) -> Rc<[SocketAddr]> {
        if addrs.len() == 1 {
            return addrs;
        }
        self.turn = self.turn.wrapping_add(1);
        let mut turned = addrs.to_vec();
        turned.rotate_left(self.turn % addrs.len());
        turned.into()
    }

    /// Tries one address after another.
    fn connect(
        &mut self,
        key: usize,
        dns: Duration,
        addrs: Rc<[SocketAddr]>,
        mut at: usize,
        now: Duration,
    ) {
        loop {
            let error = match self.driver.connect(key, addrs[at]) {
                Ok(()) => {
                    let began = now;
                    let link = Link::Connecting {
                        began,
                        dns,
                        addrs,
                        at,
                    };
                    self.link(key, link);
                    return;
                }
                Err(error) => error,
            };
            at += 1;
            if at == addrs.len() {
                self.fail(key, io_kind(&error), true, now);
                return;
            }
        }
    }

    fn resolved(&mut self, now: Duration) {
        let Some((keys, answer)) = self.resolver.answer() else {
            return;
        };
        let addrs = answer.ok().filter(|all| !all.is_empty());
        let addrs = addrs.map(Rc::<[SocketAddr]>::from);
        if self.run.plan.transport.dns == Dns::Run {
            self.addrs.clone_from(&addrs);
        }
        for key in keys {
            let Link::Resolving(began) = self.slots[key].link else {
                continue;
            };
            match addrs.clone() {
                Some(addrs) => {
                    let addrs = self.in_turn(addrs);
                    self.connect(key, now.saturating_sub(began), addrs, 0, now);
                }
                None => self.fail(key, ErrorKind::Dns, true, now),
            }
        }
    }

    fn on(&mut self, event: Event, now: Duration) {
        match event {
            Event::Data(key) => {
                let age = self.driver.age();
                let arrived = age.map(|age| now.saturating_sub(age).max(self.waited));
                self.data(key, now, arrived);
            }
            Event::Connected(key) => self.connected(key, now),
            Event::End(key) => self.end(key, now),
            Event::Broken { key, error, unsent } => self.broken(key, &error, unsent, now),
            Event::Woken => self.resolved(now),
        }
    }

    fn connected(&mut self, key: usize, now: Duration) {
        let slot = &mut self.slots[key];
        let Link::Connecting { began, dns, .. } = slot.link else {
            return;
        };
        let tcp = now.saturating_sub(began);
        let Some((config, name)) = &self.run.tls else {
            let tls = Duration::ZERO;
            self.open(key, Opened { dns, tcp, tls }, now);
            return;
        };
        let began = now;
        match Session::new(config, name) {
            Ok(session) => slot.tls = Some(Box::new(session)),
            Err(_) => return self.fail(key, ErrorKind::Tls, true, now),
        }
        self.link(key, Link::Handshaking { began, dns, tcp });
        self.data(key, now, None);
    }

    /// The connection carries its first request.
    fn open(&mut self, key: usize, opened: Opened, now: Duration) {
        self.link(key, Link::Open);
        let slot = &mut self.slots[key];
        if let Some(flight) = &mut slot.flight {
            flight.opened = Some(opened);
            flight.dialled = true;
            self.send(key, now);
            self.fill(key, None, now);
        }
    }

    fn send(&mut self, key: usize, now: Duration) {
        let slot = &mut self.slots[key];
        let Some(flight) = &mut slot.flight else {
            return;
        };
        let run = &self.run;
        let index = flight.ticket.index;
        let template = run.templates.write(&run.requests, index, &mut self.scratch);
        flight.sent = now;
        flight.route = template.route;
        flight.head = template.head;
        flight.idempotent = template.idempotent;
        flight.closes = template.closes;
        slot.reader.begin(template.head);
        let sent = match &mut slot.tls {
            None => self.driver.send(key, &mut self.scratch),
            Some(session) => session
                .encrypt(&mut self.scratch)
                .and_then(|()| self.driver.send(key, &mut self.scratch)),
        };
        if let Err(error) = sent {
            self.fail(key, io_kind(&error), true, now);
        }
    }

    /// Bytes came; when, if that is known.
    fn data(&mut self, key: usize, now: Duration, arrived: Option<Duration>) {
        let at = arrived.unwrap_or(now);
        let slot = &mut self.slots[key];
        let earlier = slot.flight.as_ref().is_some_and(|f| f.received > 0);
        let Some(mut session) = slot.tls.take() else {
            let verdict = slot.receive(self.driver.bytes(), &mut self.known, at);
            self.came(key, &verdict, earlier, arrived.is_some());
            let more = self.account(key) && matches!(verdict, Verdict::More);
            self.judge(key, verdict, now, at);
            if more {
                self.refill(key, now);
            }
            return;
        };
        // A new session has read nothing yet; it only has something to say.
        let fresh = matches!(slot.link, Link::Handshaking { .. }) && !session.begun();
        let wire = if fresh { &[] } else { self.driver.bytes() };
        let mut verdict = Verdict::More;
        let read = session.decrypt(wire, |plain| {
            verdict = match std::mem::replace(&mut verdict, Verdict::More) {
                Verdict::More => slot.receive(plain, &mut self.known, at),
                Verdict::Complete { .. } => Verdict::Complete { reusable: false },
                over => over,
            };
        });
        let over = session.peer_closed();
        let shaken = !session.is_handshaking();
        let answer = session.answer(&mut self.scratch);
        slot.tls = Some(session);
        let told = match answer {
            true => self.driver.send(key, &mut self.scratch),
            false => Ok(()),
        };
        if let Link::Handshaking { began, dns, tcp } = slot.link {
            if let Err(error) = told {
                return self.broken(key, &error, true, now);
            }
            if read.is_err() || over {
                return self.fail(key, ErrorKind::Tls, true, now);
            }
            if shaken {
                let tls = now.saturating_sub(began);
                self.open(key, Opened { dns, tcp, tls }, now);
            }
            return;
        }
        self.came(key, &verdict, earlier, arrived.is_some());
        let more = self.account(key);
        match verdict {
            Verdict::More if more && read.is_ok() && !over => self.refill(key, now),
            Verdict::More if read.is_err() => self.fail(key, ErrorKind::Tls, false, now),
            Verdict::More if over => self.end(key, now),
            Verdict::Complete { .. } if read.is_err() || over => {
                self.judge(key, Verdict::Complete { reusable: false }, now, at);
            }
            verdict => self.judge(key, verdict, now, at),
        }
    }

    /// Learns whether responses come whole: not when `earlier` bytes of this one came before. The first response of a
    /// connection does not count, since a new connection's bytes come as its window opens.
    fn came(&mut self, key: usize, verdict: &Verdict, earlier: bool, stamped: bool) {
        let Some(flight) = &self.slots[key].flight else {
            return;
        };
        match verdict {
            _ if flight.opened.is_some() => {}
            Verdict::Complete { .. } if !earlier => self.lazy.whole(stamped),
            Verdict::More if flight.received == 0 => {}
            _ => self.lazy.pieces(),
        }
    }

    /// What bytes that arrived `at` meant.
    fn judge(&mut self, key: usize, verdict: Verdict, now: Duration, at: Duration) {
        match verdict {
            Verdict::More => {}
            Verdict::Stray => self.close(key),
            Verdict::Failed(kind) => self.fail(key, kind, false, now),
            Verdict::Complete { reusable } => {
                // A request that was answered before it had left whole cannot be followed by another.
                if !reusable || self.driver.sending(key) {
                    self.close(key);
                }
                self.finish(key, Ok(()), at);
            }
        }
    }

    /// The peer closed its side.
    fn end(&mut self, key: usize, now: Duration) {
        let slot = &mut self.slots[key];
        match (&slot.link, &slot.flight) {
            (Link::Handshaking { .. }, Some(_)) => self.fail(key, ErrorKind::Tls, true, now),
            (Link::Connecting { .. }, Some(_)) => self.fail(key, ErrorKind::Closed, true, now),
            (_, None) => self.close(key),
            // An end without TLS' own word for it may be a cut.
            (_, Some(_)) if slot.tls.as_ref().is_some_and(|s| !s.peer_closed()) => {
                self.fail(key, ErrorKind::Closed, false, now);
            }
            (_, Some(_)) => match slot.reader.close() {
                Ok(()) => {
                    self.lazy.pieces();
                    self.close(key);
                    self.finish(key, Ok(()), now);
                }
                Err(_) => self.fail(key, ErrorKind::Closed, false, now),
            },
        }
    }

    fn broken(&mut self, key: usize, error: &io::Error, unsent: bool, now: Duration) {
        let kind = io_kind(error);
        match &self.slots[key].link {
            Link::Connecting { dns, addrs, at, .. } => {
                let (dns, addrs, next) = (*dns, Rc::clone(addrs), at + 1);
                if next < addrs.len() {
                    self.connect(key, dns, addrs, next, now);
                } else {
                    self.fail(key, kind, true, now);
                }
            }
            Link::Handshaking { .. } if kind != ErrorKind::Reset => {
                self.fail(key, ErrorKind::Tls, true, now);
            }
            _ => self.fail(key, kind, unsent, now),
        }
    }

    fn close(&mut self, key: usize) {
        self.driver.close(key);
        self.link(key, Link::Closed);
        self.slots[key].tls = None;
    }

    /// The connection failed; its request too, unless it may be tried again.
    pub(super) fn fail(&mut self, key: usize, kind: ErrorKind, never_sent: bool, now: Duration) {
        self.close(key);
        let Some(flight) = &mut self.slots[key].flight else {
            return;
        };
        let closed = matches!(kind, ErrorKind::Closed | ErrorKind::Reset) && flight.received == 0;
        // What is pipelined is not repeated: which of them the server acted on is not known.
        let alone = self.run.plan.transport.pipeline == 1;
        if flight.reused && closed {
            self.lazy.surprised();
        }
        let stale = alone && flight.reused && closed && (flight.idempotent || never_sent);
        if stale && !flight.reconnected {
            flight.reconnected = true;
            self.dial(key, now);
            return;
        }
        self.finish(key, Err(kind), now);
    }

    fn finish(&mut self, key: usize, outcome: Result<(), ErrorKind>, now: Duration) {
        let slot = &mut self.slots[key];
        let Some(flight) = slot.flight.take() else {
            return;
        };
        self.flying -= 1;
        self.deadlines.remove(key);
        let dialled = flight.dialled;
        let status = slot.reader.status();
        let lost = outcome.err().unwrap_or(ErrorKind::Closed);
        self.samples
            .push(flight.ended(outcome.map(|()| status), now));
        // What was in line behind it went with the connection.
        self.flying -= slot.line.len();
        let behind = slot.line.drain(..);
        self.samples.extend(behind.map(|f| f.ended(Err(lost), now)));
        if dialled {
            slot.failed_dials = 0;
        } else {
            slot.failed_dials = (slot.failed_dials + 1).min(7);
        }
        if slot.failed_dials > 0 && self.queue.is_none() {
            // A target that refuses at once would otherwise be dialled as fast as the machine can.
            let pause = Duration::from_millis(5 << slot.failed_dials);
            self.paused.push(Reverse((now + pause, key)));
        } else {
            self.free.push(key);
        }
    }

    /// Hands over what was seen.
    fn flush(&mut self) {
        if self.started.0 == 0 && self.samples.is_empty() {
            return;
        }
        let mut stats = self.run.stats();
        let (all, measured) = std::mem::take(&mut self.started);
        stats.started_many(all, measured);
        for sample in self.samples.drain(..) {
            stats.record(&sample);
        }
    }
}

/// Whole nanoseconds, of which 64 bits hold some centuries: quicker to divide than 128.
fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

impl Flight {
    pub(super) fn new(ticket: Ticket, now: Duration, reused: bool) -> Flight {
        Flight {
            ticket,
            picked: now,
            sent: now,
            headers: None,
            opened: None,
            route: 0,
            head: false,
            idempotent: false,
            closes: false,
            reused,
            reconnected: false,
            dialled: true,
            received: 0,
        }
    }

    /// What is recorded of it: the status of its response, or why there is none.
    pub(super) fn ended(self, outcome: Result<u16, ErrorKind>, now: Duration) -> Sample {
        let headers = self.headers.unwrap_or(now);
        let outcome = outcome.map(|status| Answer {
            status,
            bytes: self.received,
            timings: Timings {
                first_byte: headers.saturating_sub(self.sent),
                transfer: now.saturating_sub(headers),
            },
        });
        Sample {
            route: self.route,
            due: self.ticket.due,
            picked: self.picked,
            sent: self.sent,
            ended: now,
            queued: self.ticket.queued,
            opened: self.opened,
            reconnected: self.reconnected,
            outcome,
        }
    }
}

impl Slot {
    fn receive(&mut self, mut bytes: &[u8], known: &mut Known, now: Duration) -> Verdict {
        loop {
            let (verdict, used) = self.feed(bytes, known, now);
            // Of what is pipelined, the next answer may follow at once.
            bytes = match verdict {
                Verdict::Complete { reusable: true } if self.next_in_line(now) => &bytes[used..],
                Verdict::Complete { reusable } => {
                    let reusable = reusable && used == bytes.len();
                    return Verdict::Complete { reusable };
                }
                other => return other,
            };
            if bytes.is_empty() {
                return Verdict::More;
            }
        }
    }

    /// What these bytes mean to the request in front, and how many are its own.
    fn feed(&mut self, bytes: &[u8], known: &mut Known, now: Duration) -> (Verdict, usize) {
        let Some(flight) = &mut self.flight else {
            return (Verdict::Stray, 0);
        };
        let fed = self.reader.feed_known(bytes, known);
        let used = match &fed {
            Ok(Some(used)) if !self.line.is_empty() => *used,
            _ => bytes.len(),
        };
        flight.received += used as u64;
        if self.reader.head_complete() && flight.headers.is_none() {
            flight.headers = Some(now);
        }
        let verdict = match fed {
            Ok(None) => Verdict::More,
            Ok(Some(used)) => {
                let reusable = self.reader.keep_alive() && !flight.closes;
                return (Verdict::Complete { reusable }, used);
            }
            Err(fault) => Verdict::Failed(fault_kind(fault)),
        };
        (verdict, used)
    }
}
