//! Owns what the peer's frames mean: the receiving half of the [`Codec`], its limits on what a peer may send, and what each
//! request comes to. Must not know what is sent beyond the answers that the protocol asks for.

use super::frame::{code_name, frame, unpadded, word};
use super::{
    CONNECTION_WINDOW, Codec, Ended, Failed, Head, MAX_FRAME, MAX_IDLE_FRAMES, MAX_PARTS,
    STREAM_WINDOW, Sink, broken,
};
use crate::conn::ErrorKind;
use crate::h2::hpack::{MAX_LIST, Unreadable};

impl Codec {
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
