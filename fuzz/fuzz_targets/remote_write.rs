//! Any bytes as a remote write body, and as its message: the quick way and the thorough one agree on what is valid.
#![no_main]

use agent::receive::remote_write::{decompress, read, walk};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let _ = agent::receive::remote_write_v2::walk(body);
    let message = decompress(body, 1 << 20);
    for message in [body].into_iter().chain(message.as_deref()) {
        let samples = |w: agent::receive::remote_write::Write| w.packed.len() + w.samples.len();
        assert_eq!(
            read(message, None).ok().map(samples),
            walk(message).ok().map(samples)
        );
    }
});
