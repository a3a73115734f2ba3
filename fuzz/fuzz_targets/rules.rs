//! Any text as a rule file: read, or refused with a place.

#![no_main]

use alerts::rules::RuleFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match RuleFile::parse("rules.yaml", text) {
        Ok(file) => assert!(file.rules().count() <= text.len()),
        Err(error) => assert!(error.to_string().contains("rules.yaml")),
    }
});
