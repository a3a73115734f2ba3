//! The reader against fixed cases, against itself with the bytes cut anywhere, and against httparse.

use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 1000;

/// Feeds pieces of these lengths, the last one as long as needed, then, when `eof`, the end.
fn read(bytes: &[u8], cuts: &[usize], head: bool) -> Result<(u16, u64, bool, usize), Fault> {
    let mut reader = Reader::new(LIMIT);
    reader.begin(head);
    let (mut rest, mut used) = (bytes, 0);
    let mut cuts = cuts.iter();
    loop {
        let n = cuts.next().map_or(rest.len(), |n| (*n).min(rest.len()));
        let (piece, after) = rest.split_at(n);
        rest = after;
        if let Some(n) = reader.feed(piece)? {
            used += n;
            break;
        }
        used += n;
        if rest.is_empty() {
            reader.close()?;
            break;
        }
    }
    assert!(reader.head_complete());
    Ok((
        reader.status(),
        reader.body_len(),
        reader.keep_alive(),
        used,
    ))
}

#[test]
fn responses_end_where_they_say() {
    let ok = |text: &str, head: bool| {
        let got = read(text.as_bytes(), &[], head).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        (got.0, got.1, got.2, text.len() - got.3)
    };
    for (text, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcX",
            (200, 3, true, 1),
        ),
        (
            "HTTP/1.1 200\r\nContent-Length:3\r\n\r\nabc",
            (200, 3, true, 0),
        ),
        (
            "\r\n\nHTTP/1.1 404 No\ncontent-length: 0, 0\n\nHTTP",
            (404, 0, true, 4),
        ),
        (
            "HTTP/1.1 204 x\r\ncontent-length: 5\r\n\r\n",
            (204, 0, true, 0),
        ),
        ("HTTP/1.1 304 x\r\n\r\n", (304, 0, true, 0)),
        ("HTTP/1.1 101 x\r\nupgrade: y\r\n\r\nz", (101, 0, false, 1)),
        (
            "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 103 y\r\nlink: z\r\n\r\nHTTP/1.1 201 C\r\ncontent-length: 1\r\n\r\nq",
            (201, 1, true, 0),
        ),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nq",
            (200, 1, false, 0),
        ),
        (
            "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 1\r\n\r\nq",
            (200, 1, true, 0),
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: x, CLOSE\r\ncontent-length: 1\r\n\r\nq",
            (200, 1, false, 0),
        ),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", (200, 13, false, 0)),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
            (200, 3, false, 0),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\ncontent-length: 9\r\n\r\n1 ;a=b\r\nx\r\n00A\r\n0123456789\r\n0\r\nt: u\r\n\r\nX",
            (200, 11, true, 1),
        ),
    ] {
        assert_eq!(ok(text, false), expected, "{text:?}");
    }
    assert_eq!(
        ok("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", true),
        (200, 0, true, 0)
    );
}

#[test]
fn faults_are_told_apart() {
    let fault = |text: &str| read(text.as_bytes(), &[], false).unwrap_err();
    for text in [
        "220 smtp ready\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 \x01\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nname : v\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11111111111111111\r\n",
    ] {
        assert!(matches!(fault(text), Fault::Malformed(_)), "{text:?}");
    }
    for text in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        assert_eq!(fault(text), Fault::Cut, "{text:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD));
    let chunks = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{}",
        "b".repeat(MAX_HEAD + 1)
    );
    let body = format!("HTTP/1.1 200 OK\r\n\r\n{}", "b".repeat(1001));
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n",
        &long,
        &chunks,
        &body,
    ] {
        assert_eq!(fault(text), Fault::TooLarge, "{}", &text[..40]);
    }
}

/// Something like a response, more often right than wrong.
fn response() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        8 => Just("HTTP/1.1 200 OK\r\n".to_owned()),
        1 => Just("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n".to_owned()),
        1 => Just("HTTP/1.0 200 OK\r\n".to_owned()),
        1 => "HTTP/1\\.[012] [0-9]{2,4}( [ -~]{0,8})?\r?\n",
    ];
    let field = prop_oneof![
        4 => "(content-length|Content-Length): ?[0-9]{1,3}\r\n",
        4 => "(transfer-encoding: |Transfer-Encoding:)(gzip, )?(chunked|Chunked|x)\r\n",
        2 => "connection: (close|keep-alive|x, close)\r\n",
        4 => "[a-z-]{1,8}: ?[ -~]{0,12}\r?\n",
        1 => "[ -~]{0,12}\r\n",
    ];
    let body = prop_oneof![
        3 => "[ -~]{0,40}",
        3 => "(([1-9]\r\n[a-z]{3,9}\r\n)|(3[ ;][a-z]{0,3}\r\nabc\r\n)){0,3}0\r\n(a: b\r\n)?\r\n[a-z]{0,3}",
    ];
    (
        line,
        prop::collection::vec(field, 0..4),
        body,
        prop::option::weighted(0.2, any::<(u16, u8)>()),
    )
        .prop_map(|(line, fields, body, damage)| {
            let mut bytes = format!("{line}{}\r\n{body}", fields.concat()).into_bytes();
            if let Some((at, byte)) = damage {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            bytes
        })
}

proptest! {
    #[test]
    fn where_the_bytes_are_cut_changes_nothing(
        bytes in response(), cuts in prop::collection::vec(0_usize..12, 0..40), head: bool,
    ) {
        let whole = read(&bytes, &[], head);
        prop_assert_eq!(&read(&bytes, &cuts, head), &whole);
        prop_assert_eq!(&read(&bytes, &vec![1; bytes.len()], head), &whole);
    }

    #[test]
    fn a_head_that_is_known_is_read_as_before(
        all in prop::collection::vec((response(), any::<bool>(), 0_usize..4), 1..4),
        order in prop::collection::vec(0_usize..4, 1..10),
    ) {
        let mut known = Known::default();
        for i in order {
            let (bytes, head, cut) = &all[i % all.len()];
            let (mut with, mut without) = (Reader::new(LIMIT), Reader::new(LIMIT));
            with.begin(*head);
            without.begin(*head);
            // Whole, or in two pieces.
            let (a, b) = bytes.split_at(bytes.len() - cut.min(&bytes.len()));
            for piece in [a, b] {
                let (x, y) = (with.feed_known(piece, &mut known), without.feed(piece));
                prop_assert_eq!(x, y);
                prop_assert_eq!(
                    (with.status(), with.body_len(), with.keep_alive(), with.head_complete()),
                    (without.status(), without.body_len(), without.keep_alive(), without.head_complete())
                );
                if x != Ok(None) {
                    break;
                }
            }
        }
    }

    #[test]
    fn heads_are_read_as_httparse_reads_them(bytes in response()) {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut theirs = httparse::Response::new(&mut fields);
        let parsed = theirs.parse(&bytes);
        let mut ours = Reader::new(u64::MAX);
        ours.begin(true);
        let fed = ours.feed(&bytes);
        match parsed {
            Err(_) => {
                // Ours may need the end of the line to see it.
                let fed = fed.and_then(|_| ours.feed(b"\n\r\n\r\n"));
                prop_assert!(matches!(fed, Err(Fault::Malformed(_))), "{fed:?}");
            }
            Ok(httparse::Status::Partial) => prop_assert!(!ours.head_complete()),
            // The types of hyper know no status below 100, and its decoder no coding in HTTP/1.0.
            Ok(httparse::Status::Complete(_)) if theirs.code < Some(100) => prop_assert!(fed.is_err()),
            Ok(httparse::Status::Complete(_)) if theirs.code < Some(200) && theirs.code != Some(101) => {}
            Ok(httparse::Status::Complete(at)) => {
                let coded = theirs.headers.iter().any(|h| h.name.eq_ignore_ascii_case("transfer-encoding"));
                if coded && theirs.version == Some(0) {
                    prop_assert!(matches!(fed, Err(Fault::Malformed(_))));
                } else {
                    prop_assert_eq!((fed, Some(ours.status())), (Ok(Some(at)), theirs.code));
                }
            }
        }
    }
}
