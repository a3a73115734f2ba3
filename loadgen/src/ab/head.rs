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
        length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
