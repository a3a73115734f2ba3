//! Fuzz target: arbitrary text as a line of an import; see `store::fuzzing::text`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| store::fuzzing::text(bytes));
