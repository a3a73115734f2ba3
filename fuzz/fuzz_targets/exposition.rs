//! Any bytes as a scrape body, in both formats: read to the end or to one error, without a panic, in bounded steps;
//! guessing the series that comes next changes nothing.
#![no_main]

use agent::collect::exposition::{Format, Item, Parser, labels_of};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    for format in [Format::Text, Format::OpenMetrics] {
        let (Ok(parser), Ok(mut guessing)) = (Parser::new(body, format), Parser::new(body, format))
        else {
            continue;
        };
        let mut last = "";
        for (n, item) in parser.enumerate() {
            assert!(n <= body.len());
            // By its text: a number that is none equals itself there.
            let guessed = guessing.next_expecting(last);
            assert_eq!(format!("{guessed:?}"), format!("{:?}", Some(&item)));
            if let Ok(Item::Sample { series, .. }) = &item {
                last = series;
            }
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
