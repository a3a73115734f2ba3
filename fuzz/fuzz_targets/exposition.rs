//! Any bytes as a scrape body, in both formats: read to the end or to one error, without a panic, in bounded steps.
#![no_main]

use agent::collect::exposition::{Format, Item, Parser, labels_of};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    for format in [Format::Text, Format::OpenMetrics] {
        let Ok(parser) = Parser::new(body, format) else {
            continue;
        };
        for (n, item) in parser.enumerate() {
            assert!(n <= body.len());
            if let Ok(Item::Sample {
                series, exemplar, ..
            }) = item
            {
                let _ = labels_of(series);
                let _ = exemplar.map(|e| labels_of(e.labels));
            }
        }
    }
});
