//! Any bytes as a logs request: what the walk accepts is read in full, as many records as it counted.
#![no_main]

use agent::receive::log_records::{each_record, walk};

libfuzzer_sys::fuzz_target!(|request: &[u8]| {
    let Ok(extent) = walk(request, 1) else { return };
    let mut records = 0;
    if each_record(request, 1, |_| records += 1).is_ok() {
        assert_eq!(records, extent.records);
    }
});
