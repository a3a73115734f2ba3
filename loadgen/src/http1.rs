//! Owns reading HTTP/1 responses: bytes go in, wherever they were cut, and the end of each response comes out. The body
//! is counted and, unless the reader is to keep it, thrown away. Knows no socket, no clock and no plan.
//!
//! RFC 9112, with the leniences of the common parsers: a line may end in LF alone, empty lines may precede a response,
//! a reason phrase may be missing.

use memchr::memchr;

#[cfg(test)]
mod tests;

/// The longest head read (status line and fields, interim responses apart), and the most a chunked body may spend on
/// chunk extensions and trailers, in bytes.
pub const MAX_HEAD: usize = 400 * 1024;

/// Why the bytes are no complete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// They are not HTTP/1.
    #[error("not HTTP/1: {0}")]
    Malformed(&'static str),
    /// The head is longer than [`MAX_HEAD`], or the body than the limit.
    #[error("head or body beyond the limit")]
    TooLarge,
    /// The peer closed before the end.
    #[error("closed before the response was complete")]
    Cut,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Status,
    Fields,
    /// So many bytes of body are missing.
    Length(u64),
    /// The body ends with the connection.
    UntilClose,
    Chunk(Chunk),
    Trailers,
    Done,
}

/// Where in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// No digit yet.
    Start,
    Size(u64),
    SizeSpace(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Unknown,
    Is(u64),
    Bad,
}

/// What a head says of the response.
#[derive(Debug, Clone, Copy)]
struct Head {
    status: u16,
    minor: u8,
    length: Length,
    /// A transfer coding was named; the last one is `chunked`.
    coding: Option<bool>,
    says_close: bool,
    says_keep: bool,
}

const NO_HEAD: Head = Head {
    status: 0,
    minor: 1,
    length: Length::Unknown,
    coding: None,
    says_close: false,
    says_keep: false,
};

/// The last head read, whole, and what it says: most responses of a run begin with the same bytes, the date included,
/// and comparing is quicker than reading.
#[derive(Debug, Clone)]
pub struct Known {
    bytes: Vec<u8>,
    head: Head,
    /// Counts the heads it has held.
    id: u64,
}

/// Longer heads are not remembered, in bytes.
const MAX_KNOWN: usize = 2048;

impl Default for Known {
    fn default() -> Known {
        Known {
            bytes: Vec::new(),
            head: NO_HEAD,
            id: 0,
        }
    }
}

impl Known {
    /// The head as it came, interim responses before it included.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a reader keeps of a response besides its figures.
#[derive(Debug, Clone, Default)]
struct Kept {
    /// The head, unless it is a known one.
    head: Vec<u8>,
    /// The head is the one that [`Known`] held under this number.
    known: Option<u64>,
    body: Vec<u8>,
    /// The body is kept, too.
    whole: bool,
}

/// Reads one response at a time.
#[derive(Debug, Clone)]
pub struct Reader {
    state: State,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// Bytes of head, or of extensions and trailers, so far.
    overhead: usize,
    head: Head,
    head_request: bool,
    head_complete: bool,
    keep_alive: bool,
    body: u64,
    limit: u64,
    kept: Option<Box<Kept>>,
}

impl Reader {
    /// A reader that refuses bodies of more than `limit` bytes.
    pub fn new(limit: u64) -> Reader {
        Reader {
            state: State::Done,
            line: Vec::new(),
            overhead: 0,
            head: NO_HEAD,
            head_request: false,
            head_complete: false,
            keep_alive: false,
            body: 0,
            limit,
            kept: None,
        }
    }

    /// A reader that also keeps heads, and bodies when [`Reader::expect`] says so.
    pub(crate) fn keeping(limit: u64) -> Reader {
        Reader {
            kept: Some(Box::default()),
            ..Reader::new(limit)
        }
    }

    /// Of the next response at most `limit` bytes of body are read, and kept when `keep` says so.
    pub(crate) fn expect(&mut self, limit: u64, keep: bool) {
        self.limit = limit;
        if let Some(kept) = &mut self.kept {
            kept.whole = keep;
        }
    }

    /// Under which number [`Known`] held the head of this response, if it did.
    pub(crate) fn head_known(&self) -> Option<u64> {
        self.kept.as_ref()?.known
    }

    /// The head of this response, if it was kept and is not a known one.
    pub(crate) fn head_bytes(&self) -> &[u8] {
        self.kept.as_ref().map_or(&[], |k| &k.head)
    }

    /// The body that was kept.
    pub(crate) fn take_body(&mut self) -> Vec<u8> {
        let kept = self.kept.as_mut();
        kept.map_or_else(Vec::new, |k| std::mem::take(&mut k.body))
    }

    fn keep_body(&mut self, bytes: &[u8]) {
        if let Some(kept) = self.kept.as_mut().filter(|k| k.whole) {
            kept.body.extend_from_slice(bytes);
        }
    }

    /// A request was sent whose response comes next; `head` when its method was HEAD: the response has no body.
    pub fn begin(&mut self, head: bool) {
        self.head_request = head;
        self.body = 0;
        if let Some(kept) = &mut self.kept {
            kept.body.clear();
            kept.known = None;
        }
        self.begin_head();
    }

    fn begin_head(&mut self) {
        self.state = State::Status;
        self.line.clear();
        self.overhead = 0;
        self.head = NO_HEAD;
        self.head_complete = false;
        self.keep_alive = false;
        if let Some(kept) = &mut self.kept {
            kept.head.clear();
        }
    }

    /// The status code; meaningful once [`Reader::head_complete`].
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// True once the final response's head has been read.
    pub fn head_complete(&self) -> bool {
        self.head_complete
    }

    /// True when, the response being complete, the connection may carry another request.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Bytes of body so far, transfer coding removed.
    pub fn body_len(&self) -> u64 {
        self.body
    }

    /// Takes what arrived. `Some(used)` when the response is complete, after so many of these bytes; `None` when more
    /// is needed, all of them being used.
    ///
    /// # Errors
    /// [`Fault::Malformed`] and [`Fault::TooLarge`]; the connection is then of no further use.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        self.read(bytes, bytes)
    }

    /// As [`Reader::feed`], quicker when the head is the one read last.
    ///
    /// # Errors
    /// As for [`Reader::feed`].
    pub fn feed_known(&mut self, bytes: &[u8], known: &mut Known) -> Result<Option<usize>, Fault> {
        if self.state != State::Status || !self.line.is_empty() || self.overhead > 0 {
            return self.feed(bytes);
        }
        if !known.bytes.is_empty()
            && let Some(rest) = bytes.strip_prefix(known.bytes.as_slice())
        {
            self.head = known.head;
            self.head_ends()?;
            if let Some(kept) = &mut self.kept {
                kept.known = Some(known.id);
            }
            return self.read(bytes, rest);
        }
        let mut rest = bytes;
        self.lines(&mut rest)?;
        let length = bytes.len() - rest.len();
        if self.head_complete && length <= MAX_KNOWN {
            known.bytes.clear();
            known.bytes.extend_from_slice(&bytes[..length]);
            known.head = self.head;
            known.id += 1;
            if let Some(kept) = &mut self.kept {
                kept.known = Some(known.id);
            }
        }
        self.read(bytes, rest)
    }

    /// Reads on at `rest`, the end of `bytes`.
    fn read(&mut self, bytes: &[u8], mut rest: &[u8]) -> Result<Option<usize>, Fault> {
        loop {
            match self.state {
                State::Done => return Ok(Some(bytes.len() - rest.len())),
                _ if rest.is_empty() => return Ok(None),
                State::Status | State::Fields | State::Trailers => self.lines(&mut rest)?,
                State::Length(left) => {
                    let n = left.min(rest.len() as u64);
                    self.body += n;
                    self.keep_body(&rest[..n as usize]);
                    rest = &rest[n as usize..];
                    self.state = if n == left {
                        State::Done
                    } else {
                        State::Length(left - n)
                    };
                }
                State::UntilClose => {
                    self.body += rest.len() as u64;
                    self.within_limit(0)?;
                    self.keep_body(rest);
                    rest = &[];
                }
                State::Chunk(at) => self.chunk(at, &mut rest)?,
            }
        }
    }

    /// The peer closed its side.
    ///
    /// # Errors
    /// [`Fault::Cut`] unless that ends the response.
    pub fn close(&mut self) -> Result<(), Fault> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Fault::Cut),
        }
    }

    fn within_limit(&self, more: u64) -> Result<(), Fault> {
        if self.body.saturating_add(more) > self.limit {
            return Err(Fault::TooLarge);
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Fault> {
        self.overhead += bytes;
        if self.overhead > MAX_HEAD {
            return Err(Fault::TooLarge);
        }
        Ok(())
    }

    /// Takes lines until the head or the trailers end, or the bytes do.
    fn lines(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        while matches!(self.state, State::Status | State::Fields | State::Trailers) {
            let Some(end) = memchr(b'\n', rest) else {
                self.spend(rest.len())?;
                self.line.extend_from_slice(rest);
                *rest = &[];
                return self.promising();
            };
            let (line, after) = rest.split_at(end + 1);
            *rest = after;
            self.spend(line.len())?;
            if self.line.is_empty() {
                self.one_line(&line[..end])?;
            } else {
                self.line.extend_from_slice(&line[..end]);
                let whole = std::mem::take(&mut self.line);
                let read = self.one_line(&whole);
                self.line = whole;
                self.line.clear();
                read?;
            }
        }
        Ok(())
    }

    /// Another protocol's greeting is recognised without waiting for the end of its line.
    fn promising(&self) -> Result<(), Fault> {
        let begun = &self.line[..self.line.len().min(7)];
        if self.state == State::Status && begun != b"\r" && !b"HTTP/1.".starts_with(begun) {
            return Err(Fault::Malformed("the status line"));
        }
        Ok(())
    }

    /// One line without its LF.
    fn one_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let (Some(kept), State::Status | State::Fields) = (&mut self.kept, self.state) {
            kept.head.extend_from_slice(line);
            kept.head.push(b'\n');
        }
        match self.state {
            State::Status if line.is_empty() => Ok(()),
            State::Status => self.status_line(line),
            State::Trailers if line.is_empty() => {
                self.state = State::Done;
                Ok(())
            }
            State::Trailers => field(line).map(|_| ()),
            _ if line.is_empty() => self.head_ends(),
            _ => self.field_line(line),
        }
    }

    fn status_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let bad = Err(Fault::Malformed("the status line"));
        let Some([minor @ (b'0' | b'1'), b' ', a, b, c, reason @ ..]) =
            line.strip_prefix(b"HTTP/1.")
        else {
            return bad;
        };
        let digits = [*a, *b, *c];
        if !digits.iter().all(u8::is_ascii_digit) || *a == b'0' || !is_text(reason) {
            return bad;
        }
        if !matches!(reason, [] | [b' ', ..]) {
            return bad;
        }
        self.head.minor = minor - b'0';
        self.head.status = digits.iter().fold(0, |n, d| n * 10 + u16::from(*d - b'0'));
        self.state = State::Fields;
        Ok(())
    }

    fn field_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let (name, value) = field(line)?;
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    self.head.says_close |= token.eq_ignore_ascii_case(b"close");
                    self.head.says_keep |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                for part in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    self.head.length = match (self.head.length, decimal(part)) {
                        (Length::Unknown, Some(n)) => Length::Is(n),
                        (Length::Is(was), Some(n)) if was == n => Length::Is(n),
                        _ => Length::Bad,
                    };
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let last = value.rsplit(|b| *b == b',').next().unwrap_or(value);
                self.head.coding = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            }
            _ => {}
        }
        Ok(())
    }

    fn head_ends(&mut self) -> Result<(), Fault> {
        if (100..200).contains(&self.head.status) && self.head.status != 101 {
            self.begin_head();
            return Ok(());
        }
        self.head_complete = true;
        self.overhead = 0;
        self.keep_alive = !self.head.says_close && (self.head.minor == 1 || self.head.says_keep);
        if self.head.coding.is_some() && self.head.minor == 0 {
            return Err(Fault::Malformed("a transfer coding in HTTP/1.0"));
        }
        let bodiless = self.head_request || matches!(self.head.status, 101 | 204 | 304);
        self.state = match (bodiless, self.head.coding, self.head.length) {
            (true, _, _) => State::Done,
            (_, Some(true), _) => State::Chunk(Chunk::Start),
            (_, None, Length::Is(0)) => State::Done,
            (_, None, Length::Is(n)) => {
                self.within_limit(n)?;
                State::Length(n)
            }
            (_, None, Length::Bad) => return Err(Fault::Malformed("the content length")),
            (_, Some(false), _) | (_, None, Length::Unknown) => State::UntilClose,
        };
        // A connection that was upgraded, or that ends the body, carries nothing more.
        self.keep_alive &= self.head.status != 101 && self.state != State::UntilClose;
        Ok(())
    }

    fn chunk(&mut self, at: Chunk, rest: &mut &[u8]) -> Result<(), Fault> {
        if let Chunk::Data(left) = at {
            let n = left.min(rest.len() as u64);
            self.body += n;
            self.within_limit(0)?;
            self.keep_body(&rest[..n as usize]);
            *rest = &rest[n as usize..];
            let next = if n == left {
                Chunk::DataCr
            } else {
                Chunk::Data(left - n)
            };
            self.state = State::Chunk(next);
            return Ok(());
        }
        let (byte, after) = (rest[0], &rest[1..]);
        *rest = after;
        let next = match (at, byte) {
            (Chunk::Start, b) if b.is_ascii_hexdigit() => Chunk::Size(hex(b)),
            (Chunk::Size(n), b) if b.is_ascii_hexdigit() => {
                if n >> 60 != 0 {
                    return Err(Fault::Malformed("the size of a chunk"));
                }
                Chunk::Size(n << 4 | hex(b))
            }
            (Chunk::Size(n) | Chunk::SizeSpace(n), b' ' | b'\t') => {
                self.spend(1)?;
                Chunk::SizeSpace(n)
            }
            (Chunk::Size(n) | Chunk::SizeSpace(n), b';') => Chunk::Extension(n),
            (Chunk::Size(n) | Chunk::SizeSpace(n) | Chunk::Extension(n), b'\r') => Chunk::SizeLf(n),
            (Chunk::Extension(n), b) if b != b'\n' => {
                self.spend(1)?;
                Chunk::Extension(n)
            }
            (Chunk::SizeLf(0), b'\n') => {
                self.state = State::Trailers;
                return Ok(());
            }
            (Chunk::SizeLf(n), b'\n') => {
                self.within_limit(n)?;
                Chunk::Data(n)
            }
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::Start,
            _ => return Err(Fault::Malformed("a chunk")),
        };
        self.state = State::Chunk(next);
        Ok(())
    }
}

/// Name and value of a field line, the value without surrounding blanks.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let bad = Fault::Malformed("a header field");
    let colon = memchr(b':', line).ok_or(bad)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| TOKEN[usize::from(*b)]) || !is_text(value) {
        return Err(bad);
    }
    Ok((name, value.trim_ascii()))
}

/// No control character but the tab.
fn is_text(bytes: &[u8]) -> bool {
    // Without an early way out the compiler checks sixteen at a time.
    !bytes.iter().fold(false, |bad, b| {
        bad | ((*b < 0x20) & (*b != b'\t')) | (*b == 0x7f)
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(*b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

fn hex(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

/// The characters of a field name (RFC 9110, section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        i += 1;
    }
    table
};
