//! Any bytes as OTLP/JSON: what is rewritten is protobuf that the walks accept.
#![no_main]

use agent::receive::json::{Signal, to_protobuf};
use agent::receive::{log_records, metrics, spans};

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Ok(request) = to_protobuf(Signal::Traces, json) {
        spans::walk(&request).expect("a trace request");
    }
    if let Ok(request) = to_protobuf(Signal::Metrics, json) {
        metrics::check(&request).expect("a metrics request");
    }
    if let Ok(request) = to_protobuf(Signal::Logs, json) {
        log_records::walk(&request, 0).expect("a logs request");
    }
});
