//! Owns HTTP/2 (RFC 9113) for a client without sockets or clocks: bytes in, events out, bytes to write. Bounded whatever
//! the peer sends: frames of 16 KiB, header blocks of 256 KiB, and a count of frames that bring nothing.
//! Must not know requests' meaning, time or who waits for an answer.

use super::hpack::{Decoder, Encoder, Field, Keep, MAX_LIST};
use crate::conn::ErrorKind;
use crate::outgoing::Source;

mod frame;
mod receive;

use frame::{code_name, frame, head};

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
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
