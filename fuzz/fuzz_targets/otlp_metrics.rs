//! Any bytes as a metrics request: what the check accepts is translated, and every histogram is valid.
#![no_main]

use agent::ingest::Value;
use agent::receive::metrics::{Translator, check};

libfuzzer_sys::fuzz_target!(|request: &[u8]| {
    if check(request).is_err() {
        return;
    }
    let mut check_all = |part: agent::receive::metrics::Translated| {
        for sample in part.samples {
            if let Value::Histogram(h) = sample.value {
                h.validate().expect("a valid histogram");
            }
        }
    };
    Translator::new(100)
        .translate(request, 0, &mut check_all)
        .expect("the check accepted it");
});
