//! The wall clock. Owns the only reading of it in this crate's own code; pure code gets the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, Unix milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    i64::try_from(now_ns() / 1_000_000).unwrap_or(i64::MAX)
}

/// Now, Unix nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
