//! Owns what ab reads of a response's header lines: status, server, whether the connection stays, the body's length.
//! Pure: bytes in, values out.

use super::options::atoi;

/// Header lines are read up to this many bytes.
pub(super) const MAX_HEAD: usize = 8191;

/// What the header lines say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The three characters of the status; `500` when there are none.
    pub(super) status: [u8; 3],
    /// The first word of `Server`, when it was asked for.
    pub(super) server: String,
    /// The text `Keep-Alive` occurs.
    pub(super) keep_alive: bool,
    /// `Content-Length`.
    pub(super) length: Option<u64>,
    /// `Transfer-Encoding: chunked`, though HTTP/1.0 does not know it: some servers send it to keep the connection.
    pub(super) chunked: bool,
}

impl Head {
    /// 200 to 299.
    pub(super) fn is_success(&self) -> bool {
        self.status[0] == b'2'
    }

    /// 1xx, 204 and 304 have no body whatever their fields say.
    pub(super) fn has_no_body(&self) -> bool {
        self.status[0] == b'1' || matches!(&self.status, b"204" | b"304")
    }
}

/// Where the header lines end: the length with the blank line. `\n\n` is taken too when there is no `\r\n\r\n`.
pub(super) fn end(bytes: &[u8]) -> Option<usize> {
    let find = |needle: &[u8]| {
        bytes
            .windows(needle.len())
            .position(|w| w == needle)
            .map(|at| at + needle.len())
    };
    find(b"\r\n\r\n").or_else(|| find(b"\n\n"))
}

/// Reads the header lines; `server` only when it is wanted.
pub(super) fn read(bytes: &[u8], server: bool) -> Head {
    // Anywhere in the header lines, as ab looks for them.
    let after = |name: &[u8]| {
        bytes
            .windows(name.len())
            .position(|w| w[0] | 0x20 == name[0] && w.eq_ignore_ascii_case(name))
            .map(|at| &bytes[at + name.len()..])
    };
    let status = bytes
        .windows(4)
        .position(|w| w == b"HTTP")
        .and_then(|at| bytes.get(at + 9..at + 12));
    let server = server.then(|| after(b"server:")).flatten().map(|rest| {
        let word = rest.iter().skip(1).take_while(|b| **b > 32).take(1023);
        word.copied().collect::<Vec<u8>>()
    });
    let length = after(b"content-length:").map(|rest| {
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        u64::try_from(atoi(&String::from_utf8_lossy(line))).unwrap_or(0)
    });
    Head {
        status: status.and_then(|s| s.try_into().ok()).unwrap_or(*b"500"),
        server: String::from_utf8_lossy(&server.unwrap_or_default()).into_owned(),
        keep_alive: after(b"keep-alive").is_some(),
        // Of the two, chunks say where the body ends (RFC 9112, 6.3).
        chunked: length.is_none() && after(b"transfer-encoding: chunked").is_some(),
        length,
    }
}

/// Where a body in chunks ends (RFC 9112, 7.1); only counted, not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// Within the size of a chunk: digits so far.
    Size(u64),
    /// After the size, up to the end of the line.
    Extension(u64),
    /// Bytes of a chunk that are still to come, its line end included.
    Data(u64),
    /// After the last chunk: bytes of the line so far.
    Trailer(u64),
    /// The body is complete.
    Done,
    /// Not a body in chunks.
    Broken,
}

impl Chunks {
    /// Before the first chunk.
    pub(super) fn begin() -> Chunks {
        Chunks::Size(0)
    }

    /// After these bytes.
    pub(super) fn feed(mut self, mut bytes: &[u8]) -> Chunks {
        while let [byte, rest @ ..] = bytes {
            bytes = rest;
            self = match (self, *byte) {
                (Chunks::Data(left), _) => {
                    let skip = (left - 1).min(rest.len() as u64);
                    bytes = &rest[skip as usize..];
                    match left - 1 - skip {
                        0 => Chunks::Size(0),
                        left => Chunks::Data(left),
                    }
                }
                (Chunks::Size(n), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    let digit = char::from(*byte).to_digit(16).unwrap_or(0);
                    match n.checked_mul(16) {
                        Some(n) => Chunks::Size(n + u64::from(digit)),
                        None => Chunks::Broken,
                    }
                }
                (Chunks::Size(0) | Chunks::Extension(0), b'\n') => Chunks::Trailer(0),
                (Chunks::Size(n) | Chunks::Extension(n), b'\n') => {
                    Chunks::Data(n.saturating_add(2))
                }
                (Chunks::Size(n), b';' | b' ' | b'\r') => Chunks::Extension(n),
                (Chunks::Size(_), _) => Chunks::Broken,
                (Chunks::Extension(n), _) => Chunks::Extension(n),
                (Chunks::Trailer(0), b'\n') => Chunks::Done,
                (Chunks::Trailer(_), b'\n') => Chunks::Trailer(0),
                (Chunks::Trailer(n), b'\r') => Chunks::Trailer(n),
                (Chunks::Trailer(n), _) => Chunks::Trailer(n + 1),
                (done @ (Chunks::Done | Chunks::Broken), _) => return done,
            };
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_chunks_ends_where_it_ends_however_it_arrives() {
        let whole = b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n";
        assert_eq!(Chunks::begin().feed(whole), Chunks::Done);
        for cut in 1..whole.len() {
            let (one, two) = whole.split_at(cut);
            let half = Chunks::begin().feed(one);
            assert_ne!(half, Chunks::Done, "{cut}");
            assert_eq!(half.feed(two), Chunks::Done, "{cut}");
        }
        assert_eq!(Chunks::begin().feed(b"hello"), Chunks::Broken);
        assert_eq!(
            Chunks::begin().feed(b"fffffffffffffffffffff"),
            Chunks::Broken
        );
    }

    #[test]
    fn header_lines_are_read_as_ab_reads_them() {
        let text = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22 (x)\r\ncontent-length: 12\r\nConnection: keep-alive\r\n\r\nbody";
        let end = end(text).unwrap();
        assert_eq!(&text[end..], b"body");
        let head = read(&text[..end], true);
        assert_eq!((&head.status, head.is_success()), (b"200", true));
        assert_eq!(
            (head.server.as_str(), head.keep_alive, head.length),
            ("nginx/1.22", true, Some(12))
        );
        let odd = read(b"junk\n\n", true);
        assert_eq!((&odd.status, odd.length), (b"500", None));
        assert_eq!(super::end(b"a\n\nb"), Some(3));
        assert!(read(b"HTTP/1.0 304 x\r\n\r\n", false).has_no_body());
        assert_eq!(read(b"HTTP/1.0 20", false).status, *b"500");
    }
}
