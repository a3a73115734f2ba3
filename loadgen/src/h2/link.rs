//! Owns one HTTP/2 connection that many requests share: a task moves its bytes, requests come by a channel, answers go
//! back one by one. Must not know schedules, cookies or redirects.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use super::codec::{Codec, Ended, Failed, Sink};
use super::hpack::Field;
use crate::conn::{ConnError, ErrorKind, Exchange, Opened, Timings, io_kind};
use crate::decode::Decoder;
use crate::dial::{Connector, Wire};
use crate::outgoing::{Outgoing, Source};

/// Requests on their way to a connection's task: twice as many as may be under way on it.
const QUEUE: usize = 2048;
/// Room for one read at first; most answers are small.
const BUFFER: usize = 4 << 10;
/// Room for one read at most: four frames and what is left of another.
const LONG_BUFFER: usize = 80 << 10;

/// A request on its way to the connection's task.
struct Job {
    fields: Vec<Field>,
    last: Option<Field>,
    body: Option<Source>,
    decode: bool,
    /// Given up by whoever waited.
    gone: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<Answered, Failed>>,
}

enum Message {
    Send(Box<Job>),
    /// A request was given up.
    Sweep,
}

/// An answer, with when its steps happened.
struct Answered {
    exchange: Exchange,
    sent: Instant,
}

/// A kept connection; cheap to clone. When the last clone goes, it closes.
#[derive(Clone)]
pub(crate) struct Link {
    jobs: mpsc::Sender<Message>,
    state: Arc<State>,
    scheme: &'static str,
    authority: Arc<str>,
    opened: Opened,
}

/// What the task tells.
#[derive(Default)]
struct State {
    over: AtomicBool,
    /// Streams the peer takes at once; 0 when it has not said so.
    streams: AtomicU32,
    asked: AtomicU64,
}

/// One request through a link, done.
pub(crate) struct Through {
    /// When it left; none when it did not.
    pub(crate) sent: Option<Instant>,
    pub(crate) outcome: Result<Exchange, ConnError>,
}

impl Link {
    /// Opens a connection within `timeout`. Bodies longer than `max_body` fail.
    ///
    /// # Errors
    /// As for [`Connector::open`].
    pub(crate) async fn open(
        connector: &Connector,
        timeout: Duration,
        max_body: u64,
    ) -> Result<Link, ConnError> {
        let (wire, opened) = connector.stream(timeout).await?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let state = Arc::new(State::default());
        let driver = Driver {
            wire: Pipe::new(wire),
            codec: Codec::new(max_body),
            queue,
            backlog: VecDeque::new(),
            unused: false,
            sink: Waiters {
                slots: Vec::new(),
                free: Vec::new(),
                max_body,
            },
            state: Arc::clone(&state),
        };
        tokio::spawn(driver.run());
        let target = connector.target();
        Ok(Link {
            jobs,
            state,
            scheme: if target.tls { "https" } else { "http" },
            authority: target.authority.as_str().into(),
            opened,
        })
    }

    /// How long opening it took.
    pub(crate) fn opened(&self) -> Opened {
        self.opened
    }

    /// False once no further request may go through it.
    pub(crate) fn is_open(&self) -> bool {
        !self.state.over.load(Ordering::Acquire) && !self.jobs.is_closed()
    }

    /// Counts a request, and says which of the connection's it is, from 1.
    pub(crate) fn count(&self) -> u64 {
        self.state.asked.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Nothing more goes through it; what is under way ends.
    pub(crate) fn retire(&self) {
        self.state.over.store(true, Ordering::Release);
    }

    /// How many streams the peer takes at once, once it said so.
    pub(crate) fn peer_streams(&self) -> Option<u32> {
        Some(self.state.streams.load(Ordering::Relaxed)).filter(|n| *n > 0)
    }

    /// Sends one request and reads its answer within `timeout`; the body is counted, and decoded when asked for.
    pub(crate) async fn send(
        &self,
        request: Request<Outgoing>,
        timeout: Duration,
        decode: bool,
    ) -> Through {
        let (head, body) = request.into_parts();
        let source = body.into_source();
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
        let place = (self.scheme, &*self.authority, path);
        let (fields, last) = super::fields(&head.method, place, &head.headers, source.len());
        let gone = Arc::new(AtomicBool::new(false));
        let (answer, answered) = oneshot::channel();
        let job = Job {
            fields,
            last,
            body: (!source.is_empty()).then_some(source),
            decode,
            gone: Arc::clone(&gone),
            answer,
        };
        let failed = |kind, why: &str, never_sent| Through {
            sent: None,
            outcome: Err(ConnError {
                never_sent,
                ..ConnError::new(kind, why)
            }),
        };
        match self.jobs.try_send(Message::Send(Box::new(job))) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return failed(ErrorKind::Closed, "the connection is closed", true);
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                return failed(ErrorKind::Local, "too many requests wait to be sent", true);
            }
        }
        let deadline = tokio::time::Instant::now() + timeout;
        match timeout_at(deadline, answered).await {
            Ok(Ok(Ok(Answered { exchange, sent }))) => Through {
                sent: Some(sent),
                outcome: Ok(exchange),
            },
            Ok(Ok(Err(why))) => Through {
                sent: None,
                outcome: Err(ConnError {
                    kind: why.kind,
                    detail: why.detail,
                    nothing_received: true,
                    never_sent: why.unprocessed,
                }),
            },
            Ok(Err(_)) => failed(ErrorKind::Closed, "the connection ended", false),
            Err(_) => {
                gone.store(true, Ordering::Release);
                // One that does not fit is not needed: the next one sweeps for both.
                let _ = self.jobs.try_send(Message::Sweep);
                failed(ErrorKind::Timeout, "no complete response in time", false)
            }
        }
    }
}

/// Who waits for which stream.
struct Waiters {
    slots: Vec<Option<Waiter>>,
    free: Vec<u32>,
    max_body: u64,
}

struct Waiter {
    answer: oneshot::Sender<Result<Answered, Failed>>,
    gone: Arc<AtomicBool>,
    decode: bool,
    decoder: Option<Decoder>,
    fault: Option<ConnError>,
    headers: HeaderMap,
    sent: Instant,
    first_byte: Duration,
}

impl Waiters {
    fn put(&mut self, waiter: Waiter) -> u32 {
        match self.free.pop() {
            Some(token) => {
                self.slots[token as usize] = Some(waiter);
                token
            }
            None => {
                self.slots.push(Some(waiter));
                self.slots.len() as u32 - 1
            }
        }
    }

    fn take(&mut self, token: u32) -> Option<Waiter> {
        let waiter = self.slots.get_mut(token as usize)?.take()?;
        self.free.push(token);
        Some(waiter)
    }

    fn waiter(&mut self, token: u32) -> Option<&mut Waiter> {
        self.slots.get_mut(token as usize)?.as_mut()
    }
}

impl Sink for Waiters {
    const FIELDS: bool = true;

    fn field(&mut self, token: u32, name: &[u8], value: &[u8]) {
        let Some(waiter) = self.waiter(token) else {
            return;
        };
        let name = HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            // Beyond what a map holds (32,768) they are left out.
            let _ = waiter.headers.try_append(name, value);
        }
    }

    fn head(&mut self, token: u32, _status: u16) {
        let max_body = self.max_body;
        let Some(waiter) = self.waiter(token) else {
            return;
        };
        waiter.first_byte = waiter.sent.elapsed();
        if waiter.decode {
            match Decoder::of(&waiter.headers, max_body) {
                Ok(decoder) => waiter.decoder = decoder,
                Err(fault) => waiter.fault = Some(fault),
            }
        }
    }

    fn data(&mut self, token: u32, data: &[u8]) {
        if let Some(waiter) = self.waiter(token)
            && let Some(decoder) = &mut waiter.decoder
            && waiter.fault.is_none()
        {
            waiter.fault = decoder.write(data).err();
        }
    }

    fn end(&mut self, token: u32, ended: Ended) {
        let Some(waiter) = self.take(token) else {
            return;
        };
        let body_len = ended.body_len;
        let decoded = match (waiter.fault, waiter.decoder) {
            (Some(fault), _) => Err(fault),
            (None, decoder) => decoder.map_or(Ok(body_len), Decoder::finish),
        };
        let transfer = waiter.sent.elapsed().saturating_sub(waiter.first_byte);
        let answered = decoded.map(|decoded_len| Answered {
            exchange: Exchange {
                status: StatusCode::from_u16(ended.status).unwrap_or_default(),
                headers: waiter.headers,
                body_len,
                decoded_len,
                wire_bytes: ended.wire_bytes,
                timings: Timings {
                    first_byte: waiter.first_byte,
                    transfer,
                },
            },
            sent: waiter.sent,
        });
        let answered = answered.map_err(|e| Failed::new(e.kind, e.detail));
        let _ = waiter.answer.send(answered);
    }

    fn fail(&mut self, token: u32, failed: Failed) {
        if let Some(waiter) = self.take(token) {
            let _ = waiter.answer.send(Err(failed));
        }
    }
}

/// A socket with room for what was read and not yet understood.
pub(crate) struct Pipe {
    wire: Wire,
    input: Vec<u8>,
    held: usize,
    /// Written and not yet flushed: TLS keeps records until asked.
    dirty: bool,
}

/// What one turn of a pipe came to.
pub(crate) enum Turn {
    /// Nothing more to read or write now.
    Idle,
    /// Something was read or written.
    Moved,
}

impl Pipe {
    pub(crate) fn new(wire: Wire) -> Pipe {
        Pipe {
            wire,
            input: vec![0; BUFFER],
            held: 0,
            dirty: false,
        }
    }

    /// Writes what waits and reads once.
    ///
    /// # Errors
    /// The connection is over; the codec must be told.
    pub(crate) fn turn(
        &mut self,
        codec: &mut Codec,
        sink: &mut impl Sink,
        cx: &mut Context<'_>,
    ) -> Result<Turn, Failed> {
        let mut turn = self.write(codec, cx)?;
        let mut buf = ReadBuf::new(&mut self.input[self.held..]);
        match Pin::new(&mut self.wire).poll_read(cx, &mut buf) {
            Poll::Pending => {}
            Poll::Ready(Err(e)) => return Err(io_failed(&e)),
            Poll::Ready(Ok(())) => {
                let got = buf.filled().len();
                if got == 0 {
                    let why = "the server closed the connection";
                    return Err(Failed::new(ErrorKind::Closed, why));
                }
                let held = self.held + got;
                sink.arrived();
                let used = codec.receive(&self.input[..held], sink)?;
                self.input.copy_within(used..held, 0);
                self.held = held - used;
                if held == self.input.len() && held < LONG_BUFFER {
                    self.input.resize((held * 4).min(LONG_BUFFER), 0);
                }
                turn = Turn::Moved;
            }
        }
        Ok(turn)
    }

    /// Writes what waits.
    pub(crate) fn write(
        &mut self,
        codec: &mut Codec,
        cx: &mut Context<'_>,
    ) -> Result<Turn, Failed> {
        let mut turn = Turn::Idle;
        while !codec.out().is_empty() {
            match Pin::new(&mut self.wire).poll_write(cx, codec.out()) {
                Poll::Pending => return Ok(turn),
                Poll::Ready(Err(e)) => return Err(io_failed(&e)),
                Poll::Ready(Ok(0)) => {
                    return Err(Failed::new(ErrorKind::Closed, "the socket takes nothing"));
                }
                Poll::Ready(Ok(n)) => codec.written(n),
            }
            self.dirty = true;
            turn = Turn::Moved;
        }
        if self.dirty {
            match Pin::new(&mut self.wire).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Err(e)) => return Err(io_failed(&e)),
                Poll::Ready(Ok(())) => self.dirty = false,
            }
        }
        Ok(turn)
    }
}

fn io_failed(error: &std::io::Error) -> Failed {
    Failed::new(io_kind(error), error.to_string())
}

struct Driver {
    wire: Pipe,
    codec: Codec,
    queue: mpsc::Receiver<Message>,
    /// Requests for which the peer has no stream free.
    backlog: VecDeque<Job>,
    /// Nobody is left who could ask.
    unused: bool,
    sink: Waiters,
    state: Arc<State>,
}

impl Driver {
    async fn run(mut self) {
        let why = std::future::poll_fn(|cx| self.turn(cx)).await;
        self.state.over.store(true, Ordering::Release);
        self.codec.over(&why, &mut self.sink);
        self.queue.close();
        while let Ok(message) = self.queue.try_recv() {
            self.take(message);
        }
        self.refuse();
    }

    /// Goes on as far as it can; ready when the connection is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Failed> {
        loop {
            while let Poll::Ready(message) = self.queue.poll_recv(cx) {
                match message {
                    Some(message) => self.take(message),
                    None => {
                        self.unused = true;
                        break;
                    }
                }
            }
            if !self.codec.usable() {
                self.state.over.store(true, Ordering::Release);
                self.refuse();
            }
            while self.codec.can_open()
                && let Some(job) = self.backlog.pop_front()
            {
                self.open(job);
            }
            let done = self.unused || !self.codec.usable();
            if done && self.codec.active() == 0 {
                self.codec.bye();
                let _ = self.wire.write(&mut self.codec, cx);
                return Poll::Ready(Failed::new(ErrorKind::Closed, "the connection ended"));
            }
            match self.wire.turn(&mut self.codec, &mut self.sink, cx) {
                Err(why) => return Poll::Ready(why),
                Ok(Turn::Moved) => {}
                Ok(Turn::Idle) => return Poll::Pending,
            }
            let streams = self.codec.peer_streams().unwrap_or(0);
            self.state.streams.store(streams, Ordering::Relaxed);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Send(job) => self.backlog.push_back(*job),
            Message::Sweep => self.sweep(),
        }
    }

    fn open(&mut self, job: Job) {
        if job.gone.load(Ordering::Acquire) {
            return;
        }
        let waiter = Waiter {
            answer: job.answer,
            gone: job.gone,
            decode: job.decode,
            decoder: None,
            fault: None,
            headers: HeaderMap::new(),
            sent: Instant::now(),
            first_byte: Duration::ZERO,
        };
        let token = self.sink.put(waiter);
        let last = job.last.as_ref().map(|f| (&*f.name, &*f.value));
        self.codec.open(token, None, &job.fields, last, job.body);
    }

    /// Frees the streams of requests given up.
    fn sweep(&mut self) {
        for token in 0..self.sink.slots.len() as u32 {
            let gone = |w: &mut Waiter| w.gone.load(Ordering::Acquire);
            if self.sink.waiter(token).is_some_and(gone) {
                self.sink.take(token);
                self.codec.cancel(token);
            }
        }
    }

    /// Tells those whose request never left.
    fn refuse(&mut self) {
        for job in self.backlog.drain(..) {
            let mut failed =
                Failed::new(ErrorKind::Closed, "the connection ended before the request");
            failed.unprocessed = true;
            let _ = job.answer.send(Err(failed));
        }
    }
}
