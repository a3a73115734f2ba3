//! Fuzz target: arbitrary bytes where the store reads its files; see `store::fuzzing::log_segment`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| store::fuzzing::log_segment(bytes));
