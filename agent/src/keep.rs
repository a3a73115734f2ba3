//! What keeps traces and logs: segments of the requests' own bytes, with footers to search by.
//!
//! Owns the content of blocks and footers. Must not know transports, metrics or the HTTP API.

mod footer;
pub mod logs;
pub mod traces;

/// The largest content of one block: what the segments take, with room for a margin.
const MAX_BLOCK_BYTES: usize = store::spool::MAX_BLOCK_BYTES;

/// Requests smaller than half of this become blocks of about this size once their segment is closed.
const MERGED_BLOCK_BYTES: usize = 128 << 10;

/// Reads again when blocks got new names meanwhile (small ones were merged), since some were not found then. That
/// happens once a segment, so twice is enough.
fn steady<T>(segments: &store::spool::Segments, read: impl Fn() -> T) -> T {
    let edition = segments.edition();
    let first = read();
    match segments.edition() == edition {
        true => first,
        false => read(),
    }
}

/// Cuts a request at its top-level fields into parts of at most `limit` bytes: each part is a request of its own. A
/// field larger than that is left out and counted in the second value.
fn split(request: &[u8], limit: usize) -> (Vec<&[u8]>, usize) {
    let (mut parts, mut left_out) = (Vec::new(), 0);
    let (mut from, mut at) = (0, 0);
    let mut reader = model::protobuf::Reader::new(request);
    while let Ok(Some(_)) = reader.next_field() {
        let end = request.len() - reader.remaining();
        if end - from > limit {
            if at > from {
                parts.push(&request[from..at]);
            }
            from = at;
            if end - from > limit {
                left_out += 1;
                from = end;
            }
        }
        at = end;
    }
    if at > from {
        parts.push(&request[from..at]);
    }
    (parts, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::protobuf::put_bytes;

    #[test]
    fn parts_add_up_to_the_request() {
        let mut request = Vec::new();
        for len in [10, 20, 200, 30, 5] {
            put_bytes(&mut request, 1, &vec![7; len]);
        }
        let (parts, left_out) = split(&request, 50);
        assert_eq!(left_out, 1);
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [34, 39]);
        let (parts, left_out) = split(&request, 10_000);
        assert_eq!((parts, left_out), (vec![&request[..]], 0));
        assert_eq!(split(b"", 10), (vec![], 0));
    }
}
