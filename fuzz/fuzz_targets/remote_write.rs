//! Any bytes as a remote write body, and as its message.
#![no_main]

use agent::receive::remote_write::{decompress, walk};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let _ = walk(body);
    let _ = agent::receive::remote_write_v2::walk(body);
    if let Ok(message) = decompress(body, 1 << 20) {
        let _ = walk(&message);
    }
});
