//! Owns HTTP/2 (RFC 9113) for a client without sockets or clocks: bytes in, events out, bytes to write. Bounded whatever
//! the peer sends: frames of 16 KiB, header blocks of 256 KiB, and a count of frames that bring nothing.
//! Must not know requests' meaning, time or who waits for an answer.

use super::hpack::{Decoder, Encoder, Field, Keep, MAX_LIST, Unreadable};
use crate::conn::ErrorKind;
use crate::outgoing::Source;

/// What we tell the peer it may send before we say that we took it: of one stream, in bytes.
const STREAM_WINDOW: u32 = 6 << 20;
/// The same of all streams together.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The longest frame we take (the protocol's default).
const MAX_FRAME: usize = 16_384;
/// So many frames in a row that bring no part of a response end the connection.
const MAX_IDLE_FRAMES: u32 = 10_000;
/// A header block in more parts than this is a flood.
const MAX_PARTS: u32 = 64;
/// Streams opened before the peer says how many it takes.
const FIRST_STREAMS: u32 = 100;
/// Bodies are written while less than this waits for the socket.
const OUT_ENOUGH: usize = 64 << 10;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a stream's end came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: u16,
    pub(crate) body_len: u64,
    /// Bytes of its frames, frame headers included.
    pub(crate) wire_bytes: u64,
}

/// Why a stream or the connection failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) kind: ErrorKind,
    pub(crate) detail: String,
    /// The peer did not act on the request: repeating it is safe.
    pub(crate) unprocessed: bool,
}

impl Failed {
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Failed {
        Failed {
            kind,
            detail: detail.into(),
            unprocessed: false,
        }
    }
}

/// Who is told what arrives. `token` is what [`Codec::open`] was given.
pub(crate) trait Sink {
    /// Whether header fields are wanted.
    const FIELDS: bool;
    /// Bytes arrived; what they say follows.
    fn arrived(&mut self) {}
    /// One field of the response, before `head`.
    fn field(&mut self, _token: u32, _name: &[u8], _value: &[u8]) {}
    /// The response's headers are complete.
    fn head(&mut self, token: u32, status: u16);
    /// A part of the body.
    fn data(&mut self, _token: u32, _data: &[u8]) {}
    /// The response is complete; the token is free.
    fn end(&mut self, token: u32, ended: Ended);
    /// There will be no (further) response; the token is free.
    fn fail(&mut self, token: u32, failed: Failed);
}

struct Stream {
    id: u32,
    token: u32,
    /// The answer has no body whatever it says.
    head_only: bool,
    status: u16,
    expected: Option<u64>,
    body_len: u64,
    wire_bytes: u64,
    /// What the peer may still send us without news, as far as we count.
    taken: u32,
    window: i64,
    /// What is left of the request's body, and where it goes on.
    body: Option<(Source, u64)>,
}

/// One HTTP/2 connection.
pub(crate) struct Codec {
    out: Vec<u8>,
    /// By id, which is the order they were opened in.
    streams: Vec<Stream>,
    next_id: u32,
    encoder: Encoder,
    /// Blocks written before, by what the caller numbers them.
    blocks: Vec<Block>,
    /// Streams with a body on its way.
    bodies: usize,
    decoder: Decoder,
    /// The last block, read when the table had changed so often, and what it said.
    seen: Option<(Vec<u8>, u64, Head)>,
    /// A header block in parts: stream, its end mark, what came so far, how many parts.
    parts: Option<(u32, bool, Vec<u8>, u32)>,
    peer_streams: u32,
    told: bool,
    peer_window: i64,
    peer_frame: usize,
    window: i64,
    taken: u32,
    idle_frames: u32,
    max_body: u64,
    /// The last stream that the peer will answer, and why it goes.
    going: Option<(u32, u32)>,
}

/// A header block as it was written, without the value of its last field.
#[derive(Default)]
struct Block {
    /// The encoder's epoch it was written in.
    epoch: u64,
    last_len: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Head {
    status: u16,
    length: Option<u64>,
    broken: Option<&'static str>,
}

fn broken(detail: impl Into<String>) -> Failed {
    Failed::new(ErrorKind::Protocol, detail)
}

impl Codec {
    /// A connection of which nothing was sent. Bodies longer than `max_body` fail.
    pub(crate) fn new(max_body: u64) -> Codec {
        let mut codec = Codec {
            out: PREFACE.to_vec(),
            streams: Vec::new(),
            next_id: 1,
            encoder: Encoder::new(),
            blocks: Vec::new(),
            bodies: 0,
            decoder: Decoder::new(),
            seen: None,
            parts: None,
            peer_streams: FIRST_STREAMS,
            told: false,
            peer_window: 65_535,
            peer_frame: MAX_FRAME,
            window: 65_535,
            taken: 0,
            idle_frames: 0,
            max_body,
            going: None,
        };
        frame(18, 4, 0, 0, &mut codec.out);
        // No pushes, a window for each stream, the longest header list.
        for (id, value) in [(2_u16, 0_u32), (4, STREAM_WINDOW), (6, MAX_LIST as u32)] {
            codec.out.extend_from_slice(&id.to_be_bytes());
            codec.out.extend_from_slice(&value.to_be_bytes());
        }
        codec.window_update(0, CONNECTION_WINDOW - 65_535);
        codec
    }

    /// What waits for the socket.
    pub(crate) fn out(&self) -> &[u8] {
        &self.out
    }

    /// So much of it was written.
    pub(crate) fn written(&mut self, bytes: usize) {
        if bytes == self.out.len() {
            self.out.clear();
        } else {
            self.out.drain(..bytes);
        }
        self.pump();
    }

    /// Streams under way.
    pub(crate) fn active(&self) -> usize {
        self.streams.len()
    }

    /// How many streams the peer takes at once, once it said so.
    pub(crate) fn peer_streams(&self) -> Option<u32> {
        self.told.then_some(self.peer_streams)
    }

    /// Whether the peer takes another stream now.
    pub(crate) fn can_open(&self) -> bool {
        self.usable() && (self.streams.len() as u64) < u64::from(self.peer_streams)
    }

    /// False once the peer says that it goes, or the stream numbers are used up.
    pub(crate) fn usable(&self) -> bool {
        self.going.is_none() && self.next_id < 1 << 31
    }

    /// The token whose request was opened first of those under way.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.streams.first().map(|s| s.token)
    }

    /// Sends a request. Ask [`Codec::can_open`] first. Blocks of the same number (below 1024) must have the same
    /// fields: their encoding is kept. `last`, name and value, differs each time and is written after them.
    pub(crate) fn open(
        &mut self,
        token: u32,
        number: Option<usize>,
        fields: &[Field],
        last: Option<(&[u8], &[u8])>,
        body: Option<Source>,
    ) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 9]);
        self.encoder.begin(&mut self.out);
        self.block(number, fields, last);
        let id = self.next_id;
        self.next_id += 2;
        let end = u8::from(body.is_none());
        self.finish_block(start, id, end);
        let head_only = fields
            .iter()
            .any(|f| &*f.name == b":method" && &*f.value == b"HEAD");
        self.bodies += usize::from(body.is_some());
        self.streams.push(Stream {
            id,
            token,
            head_only,
            status: 0,
            expected: None,
            body_len: 0,
            wire_bytes: 0,
            taken: 0,
            window: self.peer_window,
            body: body.map(|b| (b, 0)),
        });
        self.pump();
    }

    fn block(&mut self, number: Option<usize>, fields: &[Field], last: Option<(&[u8], &[u8])>) {
        let epoch = self.encoder.epoch();
        let last_len = last.map_or(0, |(_, value)| value.len());
        if let Some(block) = number.and_then(|n| self.blocks.get(n))
            && block.epoch == epoch
            && block.last_len == last_len
            && !block.bytes.is_empty()
        {
            self.out.extend_from_slice(&block.bytes);
            self.out.extend_from_slice(last.unwrap_or_default().1);
            return;
        }
        let from = self.out.len();
        for f in fields {
            self.encoder.field(&f.name, &f.value, f.keep, &mut self.out);
        }
        if let Some((name, value)) = last {
            self.encoder.field(name, value, Keep::Name, &mut self.out);
        }
        if let Some(n) = number.filter(|n| *n < 1024)
            && self.encoder.epoch() == epoch
        {
            if self.blocks.len() <= n {
                self.blocks.resize_with(n + 1, Block::default);
            }
            // A value is written as it is, at the end: all before it is the same each time.
            self.blocks[n] = Block {
                epoch,
                last_len,
                bytes: self.out[from..self.out.len() - last_len].to_vec(),
            };
        }
    }

    /// Puts frame headers around the block that begins 9 bytes after `start`.
    fn finish_block(&mut self, start: usize, id: u32, end: u8) {
        let length = self.out.len() - start - 9;
        if length <= self.peer_frame {
            self.out[start..start + 9].copy_from_slice(&head(length, 1, 4 | end, id));
            return;
        }
        let block = self.out.split_off(start + 9);
        self.out.truncate(start);
        let count = block.chunks(self.peer_frame).len();
        for (i, part) in block.chunks(self.peer_frame).enumerate() {
            let last = if i + 1 == count { 4 } else { 0 };
            let (kind, flags) = if i == 0 { (1, last | end) } else { (9, last) };
            frame(part.len(), kind, flags, id, &mut self.out);
            self.out.extend_from_slice(part);
        }
    }

    /// Gives a request up; its token is free and nobody is told.
    pub(crate) fn cancel(&mut self, token: u32) {
        if let Some(at) = self.streams.iter().position(|s| s.token == token) {
            let id = self.streams.remove(at).id;
            self.reset(id, 8);
        }
    }

    /// Ends the connection in good order; nothing may be opened afterwards.
    pub(crate) fn bye(&mut self) {
        frame(8, 7, 0, 0, &mut self.out);
        self.out.extend_from_slice(&[0; 8]);
        self.going = self.going.or(Some((0, 0)));
    }

    /// Tells everybody who still waits that the connection is over.
    pub(crate) fn over(&mut self, why: &Failed, sink: &mut impl Sink) {
        let going = self.going;
        for stream in self.streams.drain(..) {
            let mut why = why.clone();
            if let Some((_, code)) = going.filter(|(_, code)| *code != 0) {
                why.kind = ErrorKind::GoAway;
                why.detail = format!("the server went away: {}", code_name(code));
            }
            sink.fail(stream.token, why);
        }
        self.going = going.or(Some((0, 0)));
    }

    fn reset(&mut self, id: u32, code: u32) {
        frame(4, 3, 0, id, &mut self.out);
        self.out.extend_from_slice(&code.to_be_bytes());
    }

    fn window_update(&mut self, id: u32, by: u32) {
        frame(4, 8, 0, id, &mut self.out);
        self.out.extend_from_slice(&by.to_be_bytes());
    }

    /// Writes what the windows allow of the bodies.
    fn pump(&mut self) {
        if self.bodies == 0 {
            return;
        }
        let mut failed = None;
        let mut pending = 0;
        for at in 0..self.streams.len() {
            while self.out.len() < OUT_ENOUGH && self.window > 0 {
                let stream = &mut self.streams[at];
                let Some((body, offset)) = &mut stream.body else {
                    break;
                };
                let left = body.len() - *offset;
                let most = self.window.min(stream.window).min(self.peer_frame as i64);
                if most <= 0 && left > 0 {
                    break;
                }
                let size = (left.min(most.max(0).unsigned_abs())) as usize;
                let Ok(part) = body.part(*offset, size) else {
                    failed = Some(at);
                    break;
                };
                let last = part.len() as u64 == left;
                frame(part.len(), 0, u8::from(last), stream.id, &mut self.out);
                self.out.extend_from_slice(&part);
                *offset += part.len() as u64;
                stream.window -= part.len() as i64;
                self.window -= part.len() as i64;
                if last {
                    stream.body = None;
                }
            }
            pending += usize::from(self.streams[at].body.is_some());
        }
        // Streams that ended meanwhile are not in it any more.
        self.bodies = pending;
        if let Some(at) = failed {
            // The file shrank or cannot be read: the stream ends by its timeout or the peer's reset.
            let id = self.streams[at].id;
            self.streams[at].body = None;
            self.reset(id, 2);
        }
    }

    /// Reads whole frames from the front of `input` and says how much it read: keep the rest and append to it.
    ///
    /// # Errors
    /// The connection cannot go on; call [`Codec::over`].
    pub(crate) fn receive(&mut self, input: &[u8], sink: &mut impl Sink) -> Result<usize, Failed> {
        let mut at = 0;
        while let Some(head) = input.get(at..at + 9) {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if !self.told && head[3] != 4 {
                return Err(broken(
                    "the first frame is no SETTINGS: the peer does not speak HTTP/2",
                ));
            }
            if length > MAX_FRAME {
                return Err(broken(format!(
                    "a frame of {length} bytes, longer than {MAX_FRAME}"
                )));
            }
            let Some(payload) = input.get(at + 9..at + 9 + length) else {
                break;
            };
            let id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            self.frame(head[3], head[4], id, payload, sink)?;
            at += 9 + length;
        }
        Ok(at)
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Failed> {
        if self.parts.is_some() && kind != 9 {
            return Err(broken("a header block was interrupted"));
        }
        match kind {
            0 => return self.data(flags, id, payload, sink),
            1 => return self.headers(flags, id, payload, sink),
            9 => return self.continuation(flags, id, payload, sink),
            _ => {}
        }
        self.idle()?;
        match kind {
            3 => self.was_reset(id, payload, sink),
            4 => self.settings(flags, id, payload),
            5 => Err(broken("a push, which was not offered")),
            6 => {
                if id != 0 || payload.len() != 8 {
                    return Err(broken("a malformed PING"));
                }
                if flags & 1 == 0 {
                    frame(8, 6, 1, 0, &mut self.out);
                    self.out.extend_from_slice(payload);
                }
                Ok(())
            }
            7 => self.goes(id, payload, sink),
            8 => self.window_updated(id, payload, sink),
            // PRIORITY says nothing to a client; what is unknown is to be ignored.
            _ => Ok(()),
        }
    }

    fn idle(&mut self) -> Result<(), Failed> {
        self.idle_frames += 1;
        if self.idle_frames > MAX_IDLE_FRAMES {
            return Err(Failed::new(
                ErrorKind::Flood,
                format!("{MAX_IDLE_FRAMES} frames in a row that are no part of a response"),
            ));
        }
        Ok(())
    }

    /// Where the stream is among those under way; an error when it was never opened.
    fn find(&self, id: u32) -> Result<Option<usize>, Failed> {
        if id == 0 || id.is_multiple_of(2) || id >= self.next_id {
            return Err(broken(format!(
                "a frame for stream {id}, which was never opened"
            )));
        }
        Ok(self.streams.binary_search_by_key(&id, |s| s.id).ok())
    }

    fn data(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Failed> {
        let found = self.find(id)?;
        let body = unpadded(flags, payload)?;
        if body.is_empty() && flags & 1 == 0 {
            self.idle()?;
        } else {
            self.idle_frames = 0;
        }
        self.taken += payload.len() as u32;
        if self.taken >= CONNECTION_WINDOW / 2 {
            let taken = std::mem::take(&mut self.taken);
            self.window_update(0, taken);
        }
        let Some(at) = found else {
            return Ok(());
        };
        let stream = &mut self.streams[at];
        stream.wire_bytes += 9 + payload.len() as u64;
        stream.body_len += body.len() as u64;
        stream.taken += payload.len() as u32;
        let token = stream.token;
        if stream.status == 0 || (stream.head_only && !body.is_empty()) {
            return self.refuse(at, broken("a body where none may be"), sink);
        }
        if stream.taken > STREAM_WINDOW {
            return Err(broken("more than the flow control window allows"));
        }
        if stream.body_len > self.max_body {
            let long = format!("body longer than {} bytes", self.max_body);
            return self.refuse(at, Failed::new(ErrorKind::TooLarge, long), sink);
        }
        if flags & 1 == 0 && stream.taken >= STREAM_WINDOW / 2 {
            let taken = std::mem::take(&mut stream.taken);
            self.window_update(id, taken);
        }
        if !body.is_empty() {
            sink.data(token, body);
        }
        if flags & 1 != 0 {
            return self.finish(at, sink);
        }
        Ok(())
    }

    /// The response is complete.
    fn finish(&mut self, at: usize, sink: &mut impl Sink) -> Result<(), Failed> {
        let stream = &self.streams[at];
        let whole = stream.head_only
            || stream.status == 304
            || stream.expected.is_none_or(|e| e == stream.body_len);
        if !whole {
            let lie = format!(
                "a body of {} bytes under content-length {}",
                stream.body_len,
                stream.expected.unwrap_or_default()
            );
            return self.refuse(at, broken(lie), sink);
        }
        let stream = self.streams.remove(at);
        if stream.body.is_some() {
            // Answered before our body was through: we may stop.
            self.reset(stream.id, 8);
        }
        let ended = Ended {
            status: stream.status,
            body_len: stream.body_len,
            wire_bytes: stream.wire_bytes,
        };
        sink.end(stream.token, ended);
        Ok(())
    }

    /// Ends one stream for what the peer did wrong on it.
    fn refuse(&mut self, at: usize, why: Failed, sink: &mut impl Sink) -> Result<(), Failed> {
        let stream = self.streams.remove(at);
        let code = if why.kind == ErrorKind::TooLarge {
            8
        } else {
            1
        };
        self.reset(stream.id, code);
        sink.fail(stream.token, why);
        Ok(())
    }

    fn headers(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Failed> {
        self.find(id)?;
        let mut fragment = unpadded(flags, payload)?;
        if flags & 0x20 != 0 {
            fragment = fragment
                .get(5..)
                .ok_or_else(|| broken("a malformed HEADERS"))?;
        }
        let end = flags & 1 != 0;
        if flags & 4 == 0 {
            self.parts = Some((id, end, fragment.to_vec(), 1));
            return Ok(());
        }
        self.whole_block(id, end, fragment, sink)
    }

    fn continuation(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Failed> {
        let Some((of, end, mut block, count)) = self.parts.take().filter(|p| p.0 == id) else {
            return Err(broken("a CONTINUATION of nothing"));
        };
        block.extend_from_slice(payload);
        if block.len() > MAX_LIST {
            let long = format!("headers longer than {MAX_LIST} bytes");
            return Err(Failed::new(ErrorKind::TooLarge, long));
        }
        if count >= MAX_PARTS {
            let many = format!("a header block in more than {MAX_PARTS} parts");
            return Err(Failed::new(ErrorKind::Flood, many));
        }
        if flags & 4 == 0 {
            self.parts = Some((of, end, block, count + 1));
            return Ok(());
        }
        self.whole_block(of, end, &block, sink)
    }

    fn whole_block<S: Sink>(
        &mut self,
        id: u32,
        end: bool,
        block: &[u8],
        sink: &mut S,
    ) -> Result<(), Failed> {
        let found = self.find(id)?;
        // What comes for a stream given up is read all the same: the table depends on it.
        let wanted = found.map(|at| self.streams[at].token).filter(|_| S::FIELDS);
        let head = self.read_block(
            block,
            |name, value| {
                if let Some(token) = wanted {
                    sink.field(token, name, value);
                }
            },
            S::FIELDS,
        )?;
        let Some(at) = found else {
            return self.idle();
        };
        self.idle_frames = 0;
        let stream = &mut self.streams[at];
        stream.wire_bytes += 9 + block.len() as u64;
        if stream.status != 0 {
            // Trailers.
            if !end || head.status != 0 {
                return self.refuse(at, broken("a second header block that is no trailer"), sink);
            }
            return self.finish(at, sink);
        }
        let fault = match head.broken {
            _ if (100..200).contains(&head.status) && head.status != 101 && !end => {
                return self.idle();
            }
            Some(fault) => Some(fault),
            None if !(200..1000).contains(&head.status) => Some("no status"),
            None => None,
        };
        if let Some(fault) = fault {
            return self.refuse(at, broken(format!("malformed headers: {fault}")), sink);
        }
        stream.status = head.status;
        stream.expected = head.length;
        sink.head(stream.token, head.status);
        if end {
            return self.finish(at, sink);
        }
        Ok(())
    }

    fn read_block(
        &mut self,
        block: &[u8],
        mut each: impl FnMut(&[u8], &[u8]),
        fields: bool,
    ) -> Result<Head, Failed> {
        if let Some((bytes, changes, head)) = &self.seen
            && !fields
            && *changes == self.decoder.changes()
            && bytes == block
        {
            return Ok(*head);
        }
        let mut head = Head::default();
        let mut plain = false;
        let before = self.decoder.changes();
        let read = self.decoder.decode(block, &mut |name, value| {
            if let Some(pseudo) = name.strip_prefix(b":") {
                let status = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                match (pseudo, status) {
                    (b"status", Some(status)) if !plain && head.status == 0 && value.len() == 3 => {
                        head.status = status;
                    }
                    _ => head.broken = Some("a wrong pseudo-header"),
                }
                return;
            }
            plain = true;
            if name.iter().any(u8::is_ascii_uppercase) || name.is_empty() {
                head.broken = Some("a name that is not lower case");
            }
            if name == b"content-length" {
                let length = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                if length.is_none() || head.length.is_some_and(|l| Some(l) != length) {
                    head.broken = Some("a content-length that is no number");
                }
                head.length = length;
            }
            if matches!(name, b"connection" | b"transfer-encoding" | b"upgrade") {
                head.broken = Some("a header of HTTP/1");
            }
            each(name, value);
        });
        match read {
            Ok(()) => {}
            Err(Unreadable::Broken(why)) => return Err(broken(format!("headers: {why}"))),
            Err(Unreadable::TooLong) => {
                let long = format!("headers longer than {MAX_LIST} bytes");
                return Err(Failed::new(ErrorKind::TooLarge, long));
            }
        }
        if self.decoder.changes() == before && block.len() <= 4096 {
            self.seen = Some((block.to_vec(), before, head));
        }
        Ok(head)
    }

    fn was_reset(&mut self, id: u32, payload: &[u8], sink: &mut impl Sink) -> Result<(), Failed> {
        let found = self.find(id)?;
        let code = word(payload).ok_or_else(|| broken("a malformed RST_STREAM"))?;
        if let Some(at) = found {
            let stream = self.streams.remove(at);
            let detail = format!("the server reset the stream: {}", code_name(code));
            let mut failed = Failed::new(ErrorKind::StreamReset, detail);
            failed.unprocessed = code == 7;
            sink.fail(stream.token, failed);
        }
        Ok(())
    }

    fn settings(&mut self, flags: u8, id: u32, payload: &[u8]) -> Result<(), Failed> {
        if id != 0 || !payload.len().is_multiple_of(6) || (flags & 1 != 0 && !payload.is_empty()) {
            return Err(broken("malformed SETTINGS"));
        }
        if flags & 1 != 0 {
            return Ok(());
        }
        let mut table = if self.told { None } else { Some(4096) };
        for setting in payload.chunks_exact(6) {
            let value = word(&setting[2..]).unwrap_or_default();
            match u16::from_be_bytes([setting[0], setting[1]]) {
                1 => table = Some(value),
                3 => self.peer_streams = value,
                4 => {
                    if value > 0x7fff_ffff {
                        return Err(broken("an initial window beyond the limit"));
                    }
                    let by = i64::from(value) - self.peer_window;
                    self.peer_window = i64::from(value);
                    self.streams.iter_mut().for_each(|s| s.window += by);
                }
                5 => {
                    if !(16_384..=16_777_215).contains(&value) {
                        return Err(broken("a frame size beyond the limits"));
                    }
                    // More would only fill our buffer.
                    self.peer_frame = (value as usize).min(MAX_FRAME);
                }
                _ => {}
            }
        }
        if !self.told && !payload.chunks_exact(6).any(|s| s[..2] == [0, 3]) {
            self.peer_streams = u32::MAX;
        }
        if let Some(table) = table {
            self.encoder.limit(table as usize);
        }
        self.told = true;
        frame(0, 4, 1, 0, &mut self.out);
        self.pump();
        Ok(())
    }

    fn goes(&mut self, id: u32, payload: &[u8], sink: &mut impl Sink) -> Result<(), Failed> {
        let last = word(payload).map(|l| l & 0x7fff_ffff);
        let code = payload.get(4..).and_then(word);
        let (Some(last), Some(code), 0) = (last, code, id) else {
            return Err(broken("a malformed GOAWAY"));
        };
        self.going = Some((last, code));
        let kept = self.streams.partition_point(|s| s.id <= last);
        for stream in self.streams.drain(kept..) {
            let detail = format!("the server went away: {}", code_name(code));
            let failed = Failed {
                unprocessed: true,
                ..Failed::new(ErrorKind::GoAway, detail)
            };
            sink.fail(stream.token, failed);
        }
        Ok(())
    }

    fn window_updated(
        &mut self,
        id: u32,
        payload: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Failed> {
        let by = word(payload)
            .filter(|_| payload.len() == 4)
            .map(|by| i64::from(by & 0x7fff_ffff))
            .ok_or_else(|| broken("a malformed WINDOW_UPDATE"))?;
        if self.streams.iter().any(|s| s.body.is_some()) {
            self.idle_frames = 0;
        }
        if id == 0 {
            self.window += by;
            if by == 0 || self.window > 0x7fff_ffff {
                return Err(broken("a flow control window beyond the limit"));
            }
        } else if let Some(at) = self.find(id)? {
            let stream = &mut self.streams[at];
            stream.window += by;
            if by == 0 || stream.window > 0x7fff_ffff {
                let why = broken("a flow control window beyond the limit");
                return self.refuse(at, why, sink);
            }
        }
        self.pump();
        Ok(())
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    let four = bytes.get(..4)?;
    Some(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

fn frame(length: usize, kind: u8, flags: u8, id: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&head(length, kind, flags, id));
}

fn head(length: usize, kind: u8, flags: u8, id: u32) -> [u8; 9] {
    let l = (length as u32).to_be_bytes();
    let i = id.to_be_bytes();
    [l[1], l[2], l[3], kind, flags, i[0], i[1], i[2], i[3]]
}

/// A DATA or HEADERS payload without its padding.
fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8], Failed> {
    if flags & 8 == 0 {
        return Ok(payload);
    }
    let (pad, rest) = payload
        .split_first()
        .ok_or_else(|| broken("a padded frame without padding"))?;
    let kept = rest.len().checked_sub(usize::from(*pad));
    kept.map(|n| &rest[..n])
        .ok_or_else(|| broken("padding longer than its frame"))
}

/// The names of RFC 9113, section 7.
fn code_name(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES
        .get(code as usize)
        .map_or_else(|| format!("code {code}"), |n| (*n).to_owned())
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
