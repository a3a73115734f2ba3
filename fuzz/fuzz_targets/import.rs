//! Any text as a HAR file, an OpenAPI document and an access log: refused with a place, or a script that can be read
//! as YAML, without a panic and bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use loadgen::import::{self, Options, Verbs};

fuzz_target!(|text: &str| {
    let options = Options {
        target: Some("http://127.0.0.1:1".to_owned()),
        host: None,
        verbs: Verbs::All,
        rate: None,
        duration_s: 1,
    };
    for read in [import::har, import::openapi, import::access_log] {
        match read("file", text, &options) {
            Ok(imported) => {
                assert!(imported.requests > 0);
                assert!(imported.script.len() < 64_000_000);
                assert!(imported.notes.len() <= 32 + text.len());
            }
            Err(error) => assert!(error.to_string().starts_with("file:")),
        }
    }
});
