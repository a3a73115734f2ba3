//! Owns requests as bytes: what never changes is written once, what differs from one to the next (the trace id, `{n}`)
//! is put between. Sends nothing.

use std::io::Write;

use http::{HeaderName, Method, header};

use crate::plan::{Prepared, Requests};

/// Header fields with which a request is not one head and one body of known length.
const UNSUPPORTED: [HeaderName; 5] = [
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::UPGRADE,
    header::TE,
];

/// Why these requests need another engine.
pub(super) fn refusal(requests: &Requests) -> Option<String> {
    requests.prepared.iter().find_map(|p| {
        if p.method == Method::CONNECT {
            return Some("the method CONNECT".to_owned());
        }
        let name = UNSUPPORTED.iter().find(|n| p.headers.contains_key(*n))?;
        Some(format!("the header {name}"))
    })
}

enum Piece {
    Bytes(Vec<u8>),
    /// The request's random number.
    Number,
    /// The value of `traceparent`.
    Parent,
    /// The length of a body that holds so many bytes beside so many numbers.
    Length(usize, usize),
}

/// One of the plan's requests.
pub(super) struct Template {
    pieces: Vec<Piece>,
    pub(super) route: usize,
    /// The method is HEAD.
    pub(super) head: bool,
    /// Repeating it does no harm.
    pub(super) idempotent: bool,
    /// It asks for the connection to be closed.
    pub(super) closes: bool,
}

/// All of them.
pub(super) struct Templates(Vec<Template>);

impl Templates {
    /// `authority` goes into `Host` where a request has none of its own.
    pub(super) fn new(requests: &Requests, authority: &str) -> Templates {
        let literal = requests.literal();
        let each = requests.prepared.iter();
        Templates(each.map(|p| template(p, literal, authority)).collect())
    }

    /// Puts the request of this index, whole, into `out`, and says which it is.
    pub(super) fn write(&self, requests: &Requests, index: u64, out: &mut Vec<u8>) -> &Template {
        out.clear();
        let picked = requests.pick(index);
        let template = &self.0[picked];
        let mut number = Digits::default();
        for piece in &template.pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Parent => out.extend_from_slice(&requests.parent(index)),
                Piece::Number => out.extend_from_slice(number.of(requests, index, picked)),
                Piece::Length(bytes, numbers) => {
                    let length = bytes + numbers * number.of(requests, index, picked).len();
                    // Writing to memory does not fail.
                    let _ = write!(out, "{length}");
                }
            }
        }
        template
    }
}

/// A number's digits, worked out at most once.
#[derive(Default)]
struct Digits(String);

impl Digits {
    fn of(&mut self, requests: &Requests, index: u64, picked: usize) -> &[u8] {
        if self.0.is_empty() {
            self.0 = requests.number(index, picked).to_string();
        }
        self.0.as_bytes()
    }
}

fn template(p: &Prepared, literal: bool, authority: &str) -> Template {
    let mut pieces = vec![Piece::Bytes(format!("{} ", p.method).into_bytes())];
    let path = if literal {
        filled(&p.path)
    } else {
        split(&p.path)
    };
    pieces.extend(path);
    let mut fields = b" HTTP/1.1\r\n".to_vec();
    let mut field = |name: &str, value: &[u8]| {
        fields.extend_from_slice(name.as_bytes());
        fields.extend_from_slice(b": ");
        fields.extend_from_slice(value);
        fields.extend_from_slice(b"\r\n");
    };
    for (name, value) in &p.headers {
        if name.as_str() != "traceparent" {
            field(name.as_str(), value.as_bytes());
        }
    }
    if !p.headers.contains_key(header::HOST) {
        field("host", authority.as_bytes());
    }
    fields.extend_from_slice(b"traceparent: ");
    pieces.push(Piece::Bytes(fields));
    pieces.push(Piece::Parent);
    let body = match &p.body {
        Some(text) if literal => filled(text),
        Some(text) => split(text),
        None => Vec::new(),
    };
    if body.is_empty() {
        pieces.push(Piece::Bytes(b"\r\n\r\n".to_vec()));
    } else {
        let (mut bytes, mut numbers) = (0, 0);
        for piece in &body {
            match piece {
                Piece::Bytes(text) => bytes += text.len(),
                _ => numbers += 1,
            }
        }
        pieces.push(Piece::Bytes(b"\r\ncontent-length: ".to_vec()));
        pieces.push(Piece::Length(bytes, numbers));
        pieces.push(Piece::Bytes(b"\r\n\r\n".to_vec()));
        pieces.extend(body);
    }
    let says_close = |value: &header::HeaderValue| {
        let tokens = value.as_bytes().split(|b| *b == b',');
        tokens
            .map(<[u8]>::trim_ascii)
            .any(|t| t.eq_ignore_ascii_case(b"close"))
    };
    Template {
        pieces: joined(pieces),
        route: p.route,
        head: p.method == Method::HEAD,
        idempotent: p.method != Method::POST && p.method != Method::PATCH,
        closes: p.headers.get_all(header::CONNECTION).iter().any(says_close),
    }
}

/// The text as it is.
fn filled(text: &str) -> Vec<Piece> {
    if text.is_empty() {
        return Vec::new();
    }
    vec![Piece::Bytes(text.as_bytes().to_vec())]
}

/// The text with a number for each `{n}`.
fn split(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (i, part) in text.split("{n}").enumerate() {
        if i > 0 {
            pieces.push(Piece::Number);
        }
        pieces.extend(filled(part));
    }
    pieces
}

/// Neighbouring bytes, and lengths that are known, in one piece.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for piece in pieces {
        let piece = match piece {
            Piece::Length(bytes, 0) => Piece::Bytes(bytes.to_string().into_bytes()),
            other => other,
        };
        match (all.last_mut(), piece) {
            (Some(Piece::Bytes(before)), Piece::Bytes(after)) => before.extend_from_slice(&after),
            (_, piece) => all.push(piece),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::{Plan, RequestSpec};

    fn spec(method: &str, path: &str, body: Option<&str>) -> RequestSpec {
        RequestSpec {
            method: method.to_owned(),
            body: body.map(str::to_owned),
            range: 2000,
            headers: vec![("accept".to_owned(), "*/*".to_owned())],
            ..RequestSpec::get(path)
        }
    }

    #[tokio::test]
    async fn the_bytes_are_the_request_that_hyper_would_send() {
        let plan = Plan {
            requests: vec![
                spec("GET", "/a/{n}?b={n}", None),
                spec("POST", "/b", Some("[{n},{n}]")),
                spec("PUT", "/c", Some("text")),
                spec("DELETE", "/", Some("")),
            ],
            ..Plan::new("http://localhost:7").unwrap()
        };
        for in_turn in [false, true] {
            let plan = Plan {
                in_turn,
                ..plan.clone()
            };
            let requests = Requests::prepare(&plan).unwrap();
            let templates = Templates::new(&requests, "localhost:7");
            let mut out = Vec::new();
            for index in 0..200 {
                let route = templates.write(&requests, index, &mut out).route;
                let (expected_route, expected) = requests.render(index);
                let (head, body) = expected.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let text = String::from_utf8(out.clone()).unwrap();
                let (got_head, got_body) = text.split_once("\r\n\r\n").unwrap();
                let mut lines: Vec<&str> = got_head.split("\r\n").collect();
                assert_eq!(
                    lines.remove(0),
                    format!("{} {} HTTP/1.1", head.method, head.uri)
                );
                let mut fields: Vec<String> = head
                    .headers
                    .iter()
                    .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
                    .collect();
                fields.push("host: localhost:7".to_owned());
                if !body.is_empty() {
                    fields.push(format!("content-length: {}", body.len()));
                }
                fields.sort();
                lines.sort_unstable();
                assert_eq!(lines, fields);
                assert_eq!((got_body.as_bytes(), route), (&body[..], expected_route));
            }
        }
    }

    #[test]
    fn what_needs_another_engine_is_named() {
        let refused = |spec: RequestSpec| {
            let plan = Plan {
                requests: vec![spec],
                ..Plan::new("http://localhost").unwrap()
            };
            refusal(&Requests::prepare(&plan).unwrap())
        };
        assert_eq!(refused(spec("GET", "/", None)), None);
        assert_eq!(
            refused(spec("CONNECT", "/", None)).unwrap(),
            "the method CONNECT"
        );
        let mut upgrade = spec("GET", "/", None);
        upgrade
            .headers
            .push(("Upgrade".to_owned(), "websocket".to_owned()));
        assert_eq!(refused(upgrade).unwrap(), "the header upgrade");
    }
}
