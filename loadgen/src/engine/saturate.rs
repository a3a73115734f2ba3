//! Owns the closed model over HTTP/2 at full speed: one task a connection fills its streams and records each answer
//! where it is read, with no hand-over between tasks. Cookies, redirects and the open model go the other way.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;

use super::{Shared, lock};
use crate::conn::{ConnError, ErrorKind, Opened, Timings};
use crate::dispatch::Ticket;
use crate::h2::codec::{Codec, Ended, Failed, Sink};
use crate::h2::hpack::Field;
use crate::h2::link::{Pipe, Turn};
use crate::outgoing::{Outgoing, Source};
use crate::plan::{Model, Plan};
use crate::stats::{Answer, Sample};
use crate::wire::MAX_BODY;

/// Whether a run goes this way.
pub(super) fn fits(plan: &Plan) -> bool {
    let t = &plan.transport;
    t.http2
        && matches!(plan.model, Model::Closed { .. })
        && plan.think.is_zero()
        && !t.cookies
        && t.redirects == 0
        && !t.compressed
        && t.requests_per_connection.is_none()
}

/// One connection's share of the load, until there is no more to send.
pub(super) async fn saturate(shared: Arc<Shared>) {
    let mut flow = Flow {
        shared: Arc::clone(&shared),
        now: shared.start.elapsed(),
        slots: Vec::new(),
        free: Vec::new(),
        again: VecDeque::new(),
        opened: None,
        answered: false,
    };
    let mut prepared = Prepared::default();
    let mut failed_dials = 0_u32;
    loop {
        // A connection is opened for a request, which fails when it cannot be.
        flow.now = shared.start.elapsed();
        let Some(first) = flow.again.pop_front().or_else(|| flow.take()) else {
            return;
        };
        match shared.wire.connector().stream(shared.plan.timeout).await {
            Ok((wire, opened)) => {
                failed_dials = 0;
                flow.opened = Some(opened);
                flow.answered = false;
                flow.again.push_front(first);
                let mut line = Line {
                    pipe: Pipe::new(wire),
                    codec: Codec::new(MAX_BODY),
                    timer: Box::pin(tokio::time::sleep(shared.plan.timeout)),
                    empty: false,
                };
                std::future::poll_fn(|cx| line.turn(&mut flow, &mut prepared, cx)).await;
                if let Some(streams) = line.codec.peer_streams() {
                    shared.wire.saw_streams(streams);
                }
                if !flow.answered {
                    // One that takes connections and answers nothing is not to be hammered.
                    failed_dials = 1;
                }
            }
            Err(error) => {
                flow.now = shared.start.elapsed();
                flow.dial_failed(first, &error);
                failed_dials = (failed_dials + 1).min(7);
            }
        }
        if failed_dials > 0 {
            let pause = Duration::from_millis(5 << failed_dials);
            let _ = tokio::time::timeout(pause, shared.stop.cancelled()).await;
        }
    }
}

/// A request to send, perhaps for the second time.
#[derive(Clone, Copy)]
struct Due {
    ticket: Ticket,
    again: bool,
}

/// A request under way.
struct Under {
    due: Due,
    sent: Duration,
    first_byte: Duration,
    opened: Option<Opened>,
}

/// What is under way on one connection, and the record of what ends.
struct Flow {
    shared: Arc<Shared>,
    /// When the last bytes came, from the run's start: all that one read brought came by then.
    now: Duration,
    slots: Vec<Option<Under>>,
    free: Vec<u32>,
    /// Not acted on by the server: to be sent once more.
    again: VecDeque<Due>,
    /// How long the connection took to open, until its first request has it.
    opened: Option<Opened>,
    /// The connection brought an answer.
    answered: bool,
}

impl Flow {
    fn take(&mut self) -> Option<Due> {
        let ticket = self.shared.next_closed(self.now)?;
        lock(&self.shared.stats).started(ticket.due);
        Some(Due {
            ticket,
            again: false,
        })
    }

    fn put(&mut self, under: Under) -> u32 {
        match self.free.pop() {
            Some(token) => {
                self.slots[token as usize] = Some(under);
                token
            }
            None => {
                self.slots.push(Some(under));
                self.slots.len() as u32 - 1
            }
        }
    }

    fn ended(&mut self, token: u32) -> Option<Under> {
        let under = self.slots.get_mut(token as usize)?.take()?;
        self.free.push(token);
        Some(under)
    }

    fn record(&self, under: Under, outcome: Result<Answer, ErrorKind>) {
        let Due { ticket, again } = under.due;
        let requests = &self.shared.requests;
        let sample = Sample {
            route: requests.constant(requests.pick(ticket.index)).0,
            due: ticket.due,
            picked: ticket.due,
            sent: under.sent,
            ended: self.now,
            queued: false,
            opened: under.opened,
            reconnected: again,
            outcome,
        };
        lock(&self.shared.stats).record(&sample);
        self.shared.gather.done();
    }

    fn dial_failed(&mut self, due: Due, error: &ConnError) {
        tracing::trace!(error = %error, "no connection");
        let under = Under {
            due,
            sent: due.ticket.due,
            first_byte: Duration::ZERO,
            opened: None,
        };
        self.record(under, Err(error.kind));
    }
}

impl Sink for Flow {
    const FIELDS: bool = false;

    fn arrived(&mut self) {
        self.now = self.shared.start.elapsed();
    }

    fn head(&mut self, token: u32, _status: u16) {
        let now = self.now;
        if let Some(Some(under)) = self.slots.get_mut(token as usize) {
            under.first_byte = now.saturating_sub(under.sent);
        }
    }

    fn end(&mut self, token: u32, ended: Ended) {
        let Some(under) = self.ended(token) else {
            return;
        };
        self.answered = true;
        let first_byte = under.first_byte;
        let whole = self.now.saturating_sub(under.sent);
        let answer = Answer {
            status: ended.status,
            bytes: ended.wire_bytes,
            timings: Timings {
                first_byte,
                transfer: whole.saturating_sub(first_byte),
            },
        };
        self.record(under, Ok(answer));
    }

    fn fail(&mut self, token: u32, failed: Failed) {
        let Some(under) = self.ended(token) else {
            return;
        };
        if failed.unprocessed && !under.due.again {
            self.again.push_back(Due {
                again: true,
                ..under.due
            });
            return;
        }
        tracing::trace!(index = under.due.ticket.index, why = %failed.detail, "request failed");
        self.record(under, Err(failed.kind));
    }
}

/// Header fields of requests that are the same each time, by their number.
#[derive(Default)]
struct Prepared(Vec<Option<Ready>>);

#[derive(Clone)]
struct Ready {
    fields: Arc<[Field]>,
    body: Option<Source>,
}

struct Line {
    pipe: Pipe,
    codec: Codec,
    timer: Pin<Box<tokio::time::Sleep>>,
    /// There is no more to send.
    empty: bool,
}

impl Line {
    /// Goes on as far as it can; ready when the connection is over.
    fn turn(&mut self, flow: &mut Flow, prepared: &mut Prepared, cx: &mut Context<'_>) -> Poll<()> {
        let streams = flow.shared.plan.transport.streams;
        loop {
            while self.codec.active() < streams && self.codec.can_open() {
                let Some(due) = flow.again.pop_front().or_else(|| flow.take()) else {
                    self.empty = true;
                    break;
                };
                self.open(due, flow, prepared);
            }
            if self.codec.active() == 0 && (self.empty || !self.codec.usable()) {
                self.codec.bye();
                let _ = self.pipe.write(&mut self.codec, cx);
                return Poll::Ready(());
            }
            match self.pipe.turn(&mut self.codec, flow, cx) {
                Ok(Turn::Moved) => {}
                Ok(Turn::Idle) => break,
                Err(why) => {
                    flow.arrived();
                    self.codec.over(&why, flow);
                    return Poll::Ready(());
                }
            }
        }
        self.time_out(flow, cx);
        Poll::Pending
    }

    fn open(&mut self, due: Due, flow: &mut Flow, prepared: &mut Prepared) {
        let shared = Arc::clone(&flow.shared);
        let requests = &shared.requests;
        let index = due.ticket.index;
        let number = requests.pick(index);
        let (_, constant) = requests.constant(number);
        let make = || {
            let (_, request) = requests.render(index);
            shared.ready(request)
        };
        let ready = if constant {
            if prepared.0.len() <= number {
                prepared.0.resize(number + 1, None);
            }
            prepared.0[number].get_or_insert_with(make).clone()
        } else {
            make()
        };
        let under = Under {
            due,
            sent: flow.now,
            first_byte: Duration::ZERO,
            opened: flow.opened.take(),
        };
        let token = flow.put(under);
        let parent = requests.parent(index);
        let last: (&[u8], &[u8]) = (b"traceparent", &parent);
        let number = Some(number).filter(|_| constant);
        self.codec
            .open(token, number, &ready.fields, Some(last), ready.body);
    }

    /// Gives up what takes too long, and sets the timer for the next.
    fn time_out(&mut self, flow: &mut Flow, cx: &mut Context<'_>) {
        while self.timer.as_mut().poll(cx).is_ready() {
            flow.arrived();
            let limit = flow.shared.plan.timeout;
            let mut next = limit;
            while let Some(token) = self.codec.oldest() {
                let slot = flow.slots.get(token as usize);
                let sent = slot.and_then(|u| u.as_ref()).map(|u| u.sent);
                let waited = flow.now.saturating_sub(sent.unwrap_or_default());
                if waited < limit {
                    next = limit - waited;
                    break;
                }
                self.codec.cancel(token);
                if let Some(under) = flow.ended(token) {
                    flow.record(under, Err(ErrorKind::Timeout));
                }
                // Its stream is free for another.
                cx.waker().wake_by_ref();
            }
            let at = tokio::time::Instant::now() + next;
            self.timer.as_mut().reset(at);
        }
    }
}

impl Shared {
    fn ready(&self, request: Request<Outgoing>) -> Ready {
        let (head, body) = request.into_parts();
        let body = body.into_source();
        let target = self.wire.connector().target();
        let scheme = if target.tls { "https" } else { "http" };
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
        let place = (scheme, target.authority.as_str(), path);
        let (fields, _) = crate::h2::fields(&head.method, place, &head.headers, body.len());
        Ready {
            fields: fields.into(),
            body: (!body.is_empty()).then_some(body),
        }
    }
}
