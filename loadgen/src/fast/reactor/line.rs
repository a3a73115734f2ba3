//! Owns one connection of a reactor: how far it has come, its exchange, and what bytes that arrive mean to it. Must not
//! know how bytes move.

use std::task::Waker;
use std::time::Instant;

use http::HeaderMap;

use super::super::tls::Session;
use super::link::Answered;
use crate::conn::ConnError;
use crate::http1::{Fault, Known, Reader};

/// How far a connection has come.
pub(super) enum Stage {
    /// The number is nobody's.
    Free,
    Connecting,
    Handshaking,
    Open,
    /// Of no further use, and why.
    Over(ConnError),
}

/// The exchange under way.
pub(super) struct Flight {
    pub(super) sent: Instant,
    pub(super) head_at: Option<Instant>,
    pub(super) received: u64,
}

/// One connection.
pub(super) struct Line {
    pub(super) generation: u32,
    pub(super) stage: Stage,
    pub(super) tls: Option<Box<Session>>,
    pub(super) reader: Reader,
    pub(super) flight: Option<Flight>,
    pub(super) outcome: Option<Result<Answered, ConnError>>,
    pub(super) waker: Option<Waker>,
    /// What is under way ends then at the latest; none when nothing is.
    pub(super) deadline: Option<Instant>,
    /// Its earliest entry among the deadlines.
    pub(super) listed: Option<Instant>,
}

/// What bytes meant to the exchange.
pub(super) enum Read {
    More,
    Complete {
        reusable: bool,
    },
    Bad(Fault),
    /// Nothing was asked.
    Stray,
}

impl Flight {
    pub(super) fn begun(at: Instant) -> Flight {
        Flight {
            sent: at,
            head_at: None,
            received: 0,
        }
    }
}

impl Line {
    pub(super) fn new() -> Line {
        Line {
            generation: 0,
            stage: Stage::Free,
            tls: None,
            reader: Reader::keeping(0),
            flight: None,
            outcome: None,
            waker: None,
            deadline: None,
            listed: None,
        }
    }

    /// Who is woken when something comes of it.
    pub(super) fn wait(&mut self, waker: &Waker) {
        match &self.waker {
            Some(kept) if kept.will_wake(waker) => {}
            _ => self.waker = Some(waker.clone()),
        }
    }

    /// Takes bytes that arrived `at`, if that is known.
    pub(super) fn feed(&mut self, bytes: &[u8], known: &mut Known, at: Option<Instant>) -> Read {
        let Some(flight) = &mut self.flight else {
            return Read::Stray;
        };
        flight.received += bytes.len() as u64;
        let fed = self.reader.feed_known(bytes, known);
        if flight.head_at.is_none() && self.reader.head_complete() {
            flight.head_at = Some(at.unwrap_or_else(Instant::now));
        }
        match fed {
            Ok(None) => Read::More,
            Ok(Some(used)) => Read::Complete {
                reusable: self.reader.keep_alive() && used == bytes.len(),
            },
            Err(fault) => Read::Bad(fault),
        }
    }
}

/// The fields of a head, which the reader has found to be well-formed; interim responses before it are passed over.
pub(super) fn fields(head: &[u8]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for line in head.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"HTTP/1.") {
            all.clear();
            continue;
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let name = http::HeaderName::from_bytes(&line[..colon]);
        let value = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            all.append(name, value);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_last_head() {
        let head = b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\nSet-Cookie: a=1\r\nset-cookie:b=2 \r\nX: \xff\r\n\r\n";
        let all = fields(head);
        let cookies: Vec<_> = all.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(all["x"].as_bytes(), b"\xff");
        assert_eq!(all.len(), 3);
    }
}
