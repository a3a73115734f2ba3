//! Owns HTTP/2 of the load generator: the protocol without sockets ([`codec`], [`hpack`]) and a connection that many
//! requests share ([`link`]). Must not know schedules or reports.

pub(crate) mod codec;
pub(crate) mod hpack;
mod huffman;
pub(crate) mod link;

use http::{HeaderMap, Method, header};

use hpack::{Field, Keep};

/// The header fields of a request, in HTTP/2's order, without what HTTP/1 alone needs; the `traceparent`, which differs
/// each time, apart.
pub(crate) fn fields(
    method: &Method,
    (scheme, authority, path): (&str, &str, &str),
    headers: &HeaderMap,
    body: u64,
) -> (Vec<Field>, Option<Field>) {
    let field = |name: &[u8], value: &[u8], keep| Field {
        name: name.into(),
        value: value.into(),
        keep,
    };
    let host = headers.get(header::HOST);
    let authority = host.map_or(authority.as_bytes(), |h| h.as_bytes());
    let mut all = vec![
        field(b":method", method.as_str().as_bytes(), Keep::Whole),
        field(b":scheme", scheme.as_bytes(), Keep::Whole),
        field(b":authority", authority, Keep::Whole),
        field(b":path", path.as_bytes(), Keep::Whole),
    ];
    let mut last = None;
    for (name, value) in headers {
        let keep = match name.as_str() {
            // Of the connection, which HTTP/2 has frames for (RFC 9113, 8.2.2).
            "host" | "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding"
            | "upgrade" | "content-length" => continue,
            "traceparent" => {
                last = Some(field(b"traceparent", value.as_bytes(), Keep::Name));
                continue;
            }
            "authorization" | "cookie" | "proxy-authorization" => Keep::Never,
            _ => Keep::Whole,
        };
        all.push(field(name.as_str().as_bytes(), value.as_bytes(), keep));
    }
    let bodied = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if body > 0 || bodied {
        let length = body.to_string();
        all.push(field(b"content-length", length.as_bytes(), Keep::Whole));
    }
    (all, last)
}
