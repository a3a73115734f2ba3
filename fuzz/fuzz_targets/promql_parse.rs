//! Any text: parsing does not panic; what parses prints to a text that parses to the same print.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match promql::parse(text) {
        Ok(expr) => {
            let printed = expr.to_string();
            let again = promql::parse(&printed).expect("what is printed parses");
            assert_eq!(again.to_string(), printed);
            let laid_out = promql::parse(&promql::format(&expr)).expect("what is laid out parses");
            assert_eq!(laid_out.to_string(), printed);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
