//! Any bytes as a trace request: walked, counted and read in full without a panic; both walks agree on what is valid.
#![no_main]

use agent::analyse::graph::Graph;
use agent::analyse::red::Red;
use agent::receive::spans;

libfuzzer_sys::fuzz_target!(|request: &[u8]| {
    let Ok(walked) = spans::walk(request) else {
        return;
    };
    let (mut red, mut graph) = (Red::new(10, 0), Graph::new(1_000, 100, 0));
    red.record(&walked);
    graph.record(&walked, 0);
    red.flush(1, 1);
    graph.flush(2_000, 1, &mut Vec::new());
    if let Ok(full) = spans::materialise(request, |_| true) {
        assert_eq!(full.len(), walked.spans.len());
    }
});
