//! Owns pipelining (RFC 9112, 9.3.2): a connection of a closed load sends its next requests before the last is answered,
//! and the answers come in the order of the requests. Must not know how bytes move.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::conn::io_kind;
use crate::dispatch::Ticket;

use super::driver::Driver;
use super::shard::{Flight, Link, Shard, Slot};

impl<D: Driver> Shard<D> {
    /// Sends requests on an open connection until its pipeline is full, in one piece; `first` has been counted.
    pub(super) fn fill(&mut self, key: usize, mut first: Option<Ticket>, now: Duration) {
        let most = self.run.plan.transport.pipeline;
        if most == 1 || !matches!(self.slots[key].link, Link::Open) {
            return;
        }
        let mut bytes = Vec::new();
        let stopped = self.run.stop.load(Ordering::Relaxed);
        while self.slots[key].under_way() < most && (!stopped || first.is_some()) {
            let ticket = match first.take() {
                Some(ticket) => ticket,
                None => {
                    let Some(ticket) = self.run.counter.take(&self.run.plan, now) else {
                        break;
                    };
                    self.count(&ticket);
                    ticket
                }
            };
            let mut flight = Flight::new(ticket, now, true);
            let run = &self.run;
            let index = flight.ticket.index;
            let template = run.templates.write(&run.requests, index, &mut self.scratch);
            bytes.extend_from_slice(&self.scratch);
            flight.route = template.route;
            flight.head = template.head;
            flight.closes = template.closes;
            let closes = template.closes;
            self.slots[key].line.push_back(flight);
            if closes {
                break;
            }
        }
        if bytes.is_empty() {
            return;
        }
        let slot = &mut self.slots[key];
        if slot.flight.is_none()
            && let Some(front) = slot.line.pop_front()
        {
            slot.reader.begin(front.head);
            slot.flight = Some(front);
        }
        let sent = match &mut slot.tls {
            None => self.driver.send(key, &mut bytes),
            Some(session) => session
                .encrypt(&mut bytes)
                .and_then(|()| self.driver.send(key, &mut bytes)),
        };
        if let Err(error) = sent {
            self.fail(key, io_kind(&error), true, now);
        }
    }

    /// Records what was answered and has another behind it; false when that is nothing.
    pub(super) fn account(&mut self, key: usize) -> bool {
        let answered = &mut self.slots[key].answered;
        self.flying -= answered.len();
        let some = !answered.is_empty();
        self.samples.append(answered);
        some
    }

    /// Sends as many as were answered. The time of a request runs out from when it is the one to be answered next.
    pub(super) fn refill(&mut self, key: usize, now: Duration) {
        if self.slots[key].flight.is_some() {
            self.deadlines.push(key, now + self.run.plan.timeout);
            self.fill(key, None, now);
        }
    }
}

impl Slot {
    fn under_way(&self) -> usize {
        usize::from(self.flight.is_some()) + self.line.len()
    }

    /// The request in front is answered, whole: the next in line takes its place, if there is one.
    pub(super) fn next_in_line(&mut self, now: Duration) -> bool {
        let Some(next) = self.line.pop_front() else {
            return false;
        };
        let status = self.reader.status();
        self.reader.begin(next.head);
        if let Some(front) = self.flight.replace(next) {
            self.answered.push(front.ended(Ok(status), now));
        }
        true
    }
}
