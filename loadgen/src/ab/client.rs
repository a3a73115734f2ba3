//! Owns ab's closed loop: one thread, one poll, `-c` connections, each sending its request again when it was answered.
//! Must not know the report's layout or the command line's letters.
//!
//! The first connection alone finds an address that answers; when its header lines came, the others are opened.
//! The poll reports changes only (edge-triggered), so reading goes on until the socket is empty or the answer complete.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use tokio_util::sync::CancellationToken;

use super::head::{self, Chunks, Head, MAX_HEAD};
use super::options::Options;
use super::secure::{self, Security};
use super::tally::{Answer, Sample, Tally};
use super::wire::{self, Wire};
use super::{AbError, Method, Say, os_text, request};

/// How long one poll waits at most, so that a stop is seen.
const GLANCE: Duration = Duration::from_millis(50);
/// Bytes read at once.
const BUFFER: usize = 64 * 1024;
/// ab gives up after more than so many failed dials.
const MAX_DIALS: u64 = 11;
/// Name of the timeout as APR words it, and its number.
const TIMED_OUT: (&str, i32) = ("The timeout specified has expired", 70007);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Connecting,
    Handshake,
    Writing,
    Reading,
}

struct Conn {
    state: State,
    wire: Option<Wire>,
    written: usize,
    /// Header lines so far; kept until they are complete.
    lines: Vec<u8>,
    head: Option<Head>,
    read: u64,
    body: u64,
    /// This answer leaves the connection open, and ends after so many bytes of body.
    kept: bool,
    expected: u64,
    /// Of a body in chunks.
    chunks: Option<Chunks>,
    started: Instant,
    connected: Instant,
    sent: Instant,
    first_byte: Option<Instant>,
}

struct Client<'a> {
    options: &'a Options,
    request: Vec<u8>,
    security: Option<Security>,
    addresses: Vec<SocketAddr>,
    address: usize,
    from: Option<IpAddr>,
    poll: Poll,
    conns: Vec<Conn>,
    /// Connections to be opened.
    todo: VecDeque<usize>,
    all_opened: bool,
    /// Requests written whole.
    sent: u64,
    tally: Tally,
    began: Instant,
    began_unix: Duration,
    /// The last thing that happened.
    last: Instant,
    buffer: Vec<u8>,
    say: &'a mut dyn FnMut(Say, &str),
}

/// Sends until `-n`, `-t` or `stop`. The second value is true when `stop` ended the run.
///
/// # Errors
/// What ends a run of ab early: a name that does not resolve, a socket error without `-r`, too many failed dials, and
/// `-s` seconds without an event.
pub(super) fn drive(
    options: &Options,
    request: Vec<u8>,
    security: Option<Security>,
    stop: &CancellationToken,
    say: &mut dyn FnMut(Say, &str),
) -> Result<(Tally, bool), AbError> {
    let system = |e: io::Error| AbError::new(1, format!("apr_pollset_create failed: {e}\n"));
    let (addresses, from) = resolve(options)?;
    let now = Instant::now();
    let blank = || Conn {
        state: State::Closed,
        wire: None,
        written: 0,
        lines: Vec::new(),
        head: None,
        read: 0,
        body: 0,
        kept: false,
        expected: 0,
        chunks: None,
        started: now,
        connected: now,
        sent: now,
        first_byte: None,
    };
    let mut client = Client {
        options,
        request,
        security,
        addresses,
        address: 0,
        from,
        poll: Poll::new().map_err(system)?,
        conns: (0..options.concurrency).map(|_| blank()).collect(),
        todo: VecDeque::from([0]),
        all_opened: false,
        sent: 0,
        tally: Tally::new(options.gnuplot_file.is_some(), options.variable_length),
        began: now,
        began_unix: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
        last: now,
        buffer: vec![0; BUFFER],
        say,
    };
    if let Some(security) = &client.security {
        client.tally.tls_name.clone_from(&security.shown_name);
    }
    let ended = client.run(stop);
    let done = client.tally.done;
    match ended {
        Ok(interrupted) => {
            client.tally.elapsed = client.last.duration_since(client.began);
            Ok((client.tally, interrupted))
        }
        Err(error) => {
            if done > 0 {
                (client.say)(Say::Out, &format!("Total of {done} requests completed\n"));
            }
            Err(error)
        }
    }
}

fn resolve(options: &Options) -> Result<(Vec<SocketAddr>, Option<IpAddr>), AbError> {
    let look_up = |host: &str, port: u16| {
        let found = (host, port)
            .to_socket_addrs()
            .map(|all| all.collect::<Vec<_>>());
        found.map_err(|e| {
            let text = e.to_string();
            let why = text.rsplit(": ").next().unwrap_or(&text);
            // APR numbers the resolver's errors from 670000.
            let number = match why {
                "Name or service not known" => 670_002,
                "Temporary failure in name resolution" => 670_003,
                "No address associated with hostname" => 670_005,
                _ => 670_001,
            };
            AbError::system(&format!("apr_sockaddr_info_get() for {host}"), why, number)
        })
    };
    let from = match &options.bind {
        None => None,
        Some(host) => look_up(host, 0)?.first().map(SocketAddr::ip),
    };
    let (host, port) = match &options.proxy {
        Some((host, port)) => (host, *port),
        None => (&options.url.host, options.url.port),
    };
    let mut addresses = look_up(host, port)?;
    if let Some(from) = from {
        addresses.retain(|to| to.is_ipv4() == from.is_ipv4());
    }
    if addresses.is_empty() {
        let what = format!("apr_sockaddr_info_get() for {host}");
        return Err(AbError::system(
            &what,
            "No address associated with hostname",
            670_005,
        ));
    }
    Ok((addresses, from))
}

impl Client<'_> {
    /// The loop. True when `stop` ended it.
    fn run(&mut self, stop: &CancellationToken) -> Result<bool, AbError> {
        let until = self.options.time_limit.map(|limit| self.began + limit);
        let mut events = Events::with_capacity(1024);
        loop {
            while let Some(index) = self.todo.pop_front() {
                self.open(index)?;
            }
            if self.tally.done >= self.options.requests || until.is_some_and(|at| self.last >= at) {
                return Ok(false);
            }
            if stop.is_cancelled() {
                self.last = Instant::now();
                return Ok(true);
            }
            if let Err(e) = self.poll.poll(&mut events, Some(GLANCE))
                && e.kind() != io::ErrorKind::Interrupted
            {
                return Err(socket_error("apr_pollset_poll", &e));
            }
            if events.is_empty() {
                let now = Instant::now();
                if until.is_some_and(|at| now >= at) {
                    self.last = now;
                } else if now.duration_since(self.last) >= self.options.timeout {
                    let (text, number) = TIMED_OUT;
                    return Err(AbError::system("apr_pollset_poll", text, number));
                }
            }
            for event in &events {
                self.handle(event)?;
            }
        }
    }

    fn open(&mut self, index: usize) -> Result<(), AbError> {
        if self.sent >= self.options.requests {
            return Ok(());
        }
        let now = Instant::now();
        self.last = now;
        let conn = &mut self.conns[index];
        conn.begin(now);
        let session = match &self.security {
            Some(security) => {
                let made = security.session();
                Some(made.map_err(|e| AbError::new(1, format!("SSL_new failed.\n{e}\n")))?)
            }
            None => None,
        };
        let to = self.addresses[self.address];
        match wire::open(to, self.from, self.options.window, session) {
            Ok(mut wire) => {
                let interest = Interest::READABLE | Interest::WRITABLE;
                let registry = self.poll.registry();
                registry
                    .register(wire.source(), Token(index), interest)
                    .map_err(|e| socket_error("apr_pollset_add", &e))?;
                conn.wire = Some(wire);
                conn.state = State::Connecting;
                Ok(())
            }
            Err((step @ "apr_socket_connect()", e)) => self.dial_refused(index, step, &e),
            Err((step, e)) => Err(socket_error(step, &e)),
        }
    }

    /// A dial that the system refused at once: the next address, or another try.
    fn dial_refused(&mut self, index: usize, step: &str, e: &io::Error) -> Result<(), AbError> {
        if !self.next_address() {
            if self.tally.bad >= MAX_DIALS {
                (self.say)(Say::Err, "\nTest aborted after 10 failures\n\n");
                return Err(socket_error(step, e));
            }
            self.tally.connect_failed();
        }
        self.todo.push_back(index);
        Ok(())
    }

    /// As long as nothing was answered, the next address of the name is tried.
    fn next_address(&mut self) -> bool {
        let more = self.tally.none_good() && self.address + 1 < self.addresses.len();
        self.address += usize::from(more);
        more
    }

    fn handle(&mut self, event: &Event) -> Result<(), AbError> {
        let index = event.token().0;
        let conn = &mut self.conns[index];
        let Some(wire) = &mut conn.wire else {
            return Ok(());
        };
        match conn.state {
            State::Closed => Ok(()),
            State::Connecting => match wire.connected() {
                Ok(false) => Ok(()),
                Ok(true) if wire.is_tls() => {
                    conn.state = State::Handshake;
                    self.shake(index);
                    Ok(())
                }
                Ok(true) => self.begin_request(index),
                // Nothing is left to send: nobody misses this one. Or the name has another address.
                Err(_) if self.sent >= self.options.requests || self.next_address() => {
                    self.abandon(index);
                    Ok(())
                }
                // On Linux ab learns of a refused dial by reading.
                Err(e) => self.read_error(index, &e),
            },
            State::Handshake => {
                self.shake(index);
                Ok(())
            }
            State::Writing => {
                self.write(index)?;
                match self.conns[index].state == State::Reading && event.is_readable() {
                    true => self.read(index, event.is_read_closed()),
                    false => Ok(()),
                }
            }
            State::Reading => {
                // What is encrypted may still be here although the request was taken whole.
                if event.is_writable() && wire.is_tls() {
                    let _ = wire.flush();
                }
                match event.is_readable() || event.is_read_closed() || event.is_error() {
                    true => self.read(index, event.is_read_closed() || event.is_error()),
                    false => Ok(()),
                }
            }
        }
    }

    fn shake(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let Some(wire) = &mut conn.wire else {
            return;
        };
        match wire.handshake() {
            Ok(_) => {
                if let Some(session) = wire.session() {
                    if self.options.verbosity >= 2 {
                        (self.say)(Say::Err, &secure::shown(session));
                    }
                    if self.tally.tls.is_none() {
                        self.tally.tls = secure::summary(session);
                        self.tally.temp_key = secure::temp_key(session);
                    }
                }
                // Nothing can be wrong with writing but what write() itself counts.
                let _ = self.begin_request(index);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => {
                let text = format!("SSL handshake failed (1).\n{}\n", os_text(&e));
                (self.say)(Say::Err, &text);
                self.tally.connect_failed();
                self.finish(index);
                self.abandon(index);
            }
        }
    }

    fn begin_request(&mut self, index: usize) -> Result<(), AbError> {
        let now = Instant::now();
        self.last = now;
        let conn = &mut self.conns[index];
        conn.connected = now;
        conn.written = 0;
        conn.state = State::Writing;
        self.write(index)
    }

    fn write(&mut self, index: usize) -> Result<(), AbError> {
        // Others have sent what is left to send; this connection is not needed.
        if self.sent >= self.options.requests {
            return Ok(());
        }
        let conn = &mut self.conns[index];
        let Some(wire) = &mut conn.wire else {
            return Ok(());
        };
        while conn.written < self.request.len() {
            match wire.write(&self.request[conn.written..]) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    conn.written += n;
                    self.tally.sent += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if conn.connected.elapsed() > self.options.timeout {
                        (self.say)(Say::Out, "Send request timed out!\n");
                        self.tally.write_failed();
                        self.finish(index);
                        self.abandon(index);
                    }
                    return Ok(());
                }
                Err(_) => {
                    let text = match wire.is_tls() {
                        true => "SSL write failed - closing connection\n",
                        false => "Send request failed!\n",
                    };
                    (self.say)(if wire.is_tls() { Say::Err } else { Say::Out }, text);
                    self.tally.write_failed();
                    self.finish(index);
                    self.abandon(index);
                    return Ok(());
                }
            }
        }
        let now = Instant::now();
        self.last = now;
        conn.sent = now;
        conn.state = State::Reading;
        self.sent += 1;
        Ok(())
    }

    /// Reads what is there. `closed`: the poll saw the peer's end, too.
    fn read(&mut self, index: usize, closed: bool) -> Result<(), AbError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.read_into(index, closed, &mut buffer);
        self.buffer = buffer;
        read
    }

    fn read_into(&mut self, index: usize, closed: bool, buffer: &mut [u8]) -> Result<(), AbError> {
        while self.conns[index].state == State::Reading {
            let conn = &mut self.conns[index];
            let Some(wire) = &mut conn.wire else {
                return Ok(());
            };
            let plain = !wire.is_tls();
            match wire.read(buffer) {
                Ok(0) => {
                    let answer = conn.answer();
                    self.tally.answered(answer);
                    self.finish(index);
                    self.abandon(index);
                }
                Ok(n) => {
                    self.take(index, &buffer[..n])?;
                    // A short read has emptied the socket: the poll tells of what comes next.
                    if plain && n < buffer.len() && !closed {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if wire.is_tls() => {
                    let text = format!(
                        "SSL read failed (1) - closing connection\n{}\n",
                        os_text(&e)
                    );
                    (self.say)(Say::Err, &text);
                    let cut = Answer {
                        complete: false,
                        ..conn.answer()
                    };
                    self.tally.answered(cut);
                    self.finish(index);
                    self.abandon(index);
                }
                Err(e) => self.read_error(index, &e)?,
            }
        }
        Ok(())
    }

    /// The socket failed: the end of the run, or with `-r` of this request.
    fn read_error(&mut self, index: usize, e: &io::Error) -> Result<(), AbError> {
        let error = socket_error("apr_socket_recv", e);
        if !self.options.keep_going {
            return Err(error);
        }
        if self.options.verbosity >= 1 {
            (self.say)(Say::Err, &error.said);
        }
        self.tally.read_failed(self.conns[index].body);
        self.finish(index);
        self.abandon(index);
        Ok(())
    }

    /// Bytes of an answer came.
    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<(), AbError> {
        let conn = &mut self.conns[index];
        self.tally.received += bytes.len() as u64;
        if conn.read == 0 {
            conn.first_byte = Some(Instant::now());
        }
        conn.read += bytes.len() as u64;
        let mut body = bytes.len() as u64;
        if conn.head.is_none() {
            let before = conn.lines.len();
            let room = (MAX_HEAD - before).min(bytes.len());
            conn.lines.extend_from_slice(&bytes[..room]);
            if self.options.verbosity >= 2 {
                let text = String::from_utf8_lossy(&conn.lines);
                (self.say)(Say::Out, &format!("LOG: header received:\n{text}\n"));
            }
            let Some(end) = head::end(&conn.lines) else {
                return match conn.lines.len() < MAX_HEAD {
                    true => Ok(()),
                    false => self.head_too_long(index),
                };
            };
            body = (before + bytes.len() - end) as u64;
            conn.lines.truncate(end);
            self.head_came(index);
        }
        let conn = &mut self.conns[index];
        conn.body += body;
        self.tally.body_received += body;
        let fresh = &bytes[bytes.len() - (body as usize).min(bytes.len())..];
        conn.chunks = conn.chunks.map(|chunks| chunks.feed(fresh));
        let ended = match conn.chunks {
            Some(chunks) => chunks == Chunks::Done,
            None => conn.body >= conn.expected,
        };
        if conn.head.is_some() && conn.kept && ended {
            let answer = conn.answer();
            self.tally.answered(answer);
            if self.tally.done < self.options.requests {
                self.tally.kept += 1;
            }
            self.finish(index);
            let now = Instant::now();
            let conn = &mut self.conns[index];
            conn.begin(now);
            return self.begin_request(index);
        }
        Ok(())
    }

    fn head_too_long(&mut self, index: usize) -> Result<(), AbError> {
        self.tally.not_2xx += 1;
        // The request is sent again; ab does not, and waits for an answer that never comes.
        self.sent -= 1;
        self.abandon(index);
        if self.tally.bad >= MAX_DIALS {
            return Err(AbError::new(1, "\nTest aborted after 10 failures\n\n\n"));
        }
        self.tally.bad += 1;
        Ok(())
    }

    fn head_came(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let first = self.tally.none_good();
        let mut head = head::read(&conn.lines, first);
        if bodiless(self.options) {
            head.length = None;
        }
        if first {
            self.tally.server.clone_from(&head.server);
        }
        let status = String::from_utf8_lossy(&head.status);
        if !head.is_success() {
            self.tally.not_2xx += 1;
            if self.options.verbosity >= 2 {
                let text = format!("WARNING: Response code not 2xx ({status})\n");
                (self.say)(Say::Out, &text);
            }
        } else if self.options.verbosity >= 3 {
            (self.say)(Say::Out, &format!("LOG: Response code = {status}\n"));
        }
        // Without a length only the end of the connection ends the body.
        let no_body = head.has_no_body() || bodiless(self.options);
        let bounded = no_body || head.length.is_some() || head.chunked;
        if self.options.keep_alive && head.keep_alive && bounded {
            conn.kept = true;
            conn.expected = match no_body {
                true => 0,
                false => head.length.unwrap_or(0),
            };
            if head.chunked && !no_body {
                conn.chunks = Some(Chunks::begin());
            }
        }
        conn.head = Some(head);
        if !self.all_opened {
            self.all_opened = true;
            self.todo.extend(1..self.conns.len());
        }
    }

    /// Records the times of a request that ended, well or not.
    fn finish(&mut self, index: usize) {
        if self.tally.done >= self.options.requests {
            return;
        }
        let now = Instant::now();
        self.last = now;
        let conn = &self.conns[index];
        let us = |from: Instant, to: Instant| {
            let time = to.saturating_duration_since(from).as_micros();
            u32::try_from(time).unwrap_or(u32::MAX)
        };
        let first_byte = conn.first_byte.unwrap_or(conn.sent);
        self.tally.record(Sample {
            started: self.began_unix + conn.started.saturating_duration_since(self.began),
            connect: us(conn.started, conn.connected),
            total: us(conn.started, now),
            waiting: us(conn.sent, first_byte),
        });
        if let Some(every) = self.options.progress_every()
            && self.tally.done.is_multiple_of(every)
        {
            let text = format!("Completed {} requests\n", self.tally.done);
            (self.say)(Say::Err, &text);
        }
    }

    /// Closes a connection; it is opened again while requests are left.
    fn abandon(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        conn.state = State::Closed;
        if let Some(mut wire) = conn.wire.take() {
            // A descriptor that is closed leaves the poll by itself.
            let _ = self.poll.registry().deregister(wire.source());
            wire.close();
        }
        self.todo.push_back(index);
    }
}

/// Whether answers to this method have no body.
fn bodiless(options: &Options) -> bool {
    options.method == Method::Head || request::method_name(options).eq_ignore_ascii_case("HEAD")
}

fn socket_error(what: &str, error: &io::Error) -> AbError {
    AbError::system(what, &os_text(error), error.raw_os_error().unwrap_or(1))
}

impl Conn {
    /// Forgets the answer before.
    fn begin(&mut self, now: Instant) {
        self.written = 0;
        self.lines.clear();
        self.head = None;
        self.read = 0;
        self.body = 0;
        self.kept = false;
        self.expected = 0;
        self.chunks = None;
        self.started = now;
        self.connected = now;
        self.first_byte = None;
    }

    /// How the answer ended that was read so far.
    fn answer(&self) -> Answer {
        let promised = |head: &Head| match head.has_no_body() {
            true => 0,
            false => head.length.unwrap_or(0),
        };
        let whole = |head: &Head| match self.chunks {
            Some(chunks) => chunks == Chunks::Done,
            None => self.body >= promised(head),
        };
        Answer {
            body: self.body,
            complete: self.head.as_ref().is_some_and(whole),
        }
    }
}
