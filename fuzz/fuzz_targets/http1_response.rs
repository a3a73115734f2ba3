//! Any bytes as HTTP/1 responses, cut anywhere: reading does not panic, and where they are cut changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use loadgen::http1::{Fault, Known, Reader};

/// Status, body length, keep-alive and bytes used of each response, until the bytes end or are wrong.
fn read(
    bytes: &[u8],
    mut known: Option<Known>,
    mut piece: impl FnMut() -> usize,
) -> (Vec<(u16, u64, bool, usize)>, Result<(), Fault>) {
    let mut all = Vec::new();
    let mut reader = Reader::new(1 << 20);
    reader.begin(false);
    let (mut rest, mut used) = (bytes, 0);
    while !rest.is_empty() {
        let now = &rest[..piece().clamp(1, rest.len())];
        let fed = match &mut known {
            Some(known) => reader.feed_known(now, known),
            None => reader.feed(now),
        };
        match fed {
            Ok(None) => {
                used += now.len();
                rest = &rest[now.len()..];
            }
            Ok(Some(n)) => {
                used += n;
                rest = &rest[n..];
                all.push((
                    reader.status(),
                    reader.body_len(),
                    reader.keep_alive(),
                    used,
                ));
                // A response of no bytes would never end.
                if all.len() > bytes.len() {
                    break;
                }
                reader.begin(used % 2 == 1);
            }
            Err(fault) => return (all, Err(fault)),
        }
    }
    let end = reader.close();
    (all, end)
}

fuzz_target!(|input: (u64, Vec<u8>)| {
    let (seed, bytes) = input;
    let whole = read(&bytes, Some(Known::default()), || usize::MAX);
    assert_eq!(read(&bytes, None, || 1), whole);
    let mut state = seed;
    let random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 60) as usize
    };
    assert_eq!(read(&bytes, Some(Known::default()), random), whole);
});
