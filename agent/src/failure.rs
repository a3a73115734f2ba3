//! Whether the store takes samples, said once each time that changes.
//!
//! Owns the last failure's words and the lines in the log. Must not know what is appended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use store::StoreError;

/// Failures are said this far apart, at least: near the end of a disk small batches are taken and large ones are not.
const APART: Duration = Duration::from_secs(10);

/// Why the store does not take samples, while it does not.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    /// Whether the last append failed.
    failing: AtomicBool,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    words: String,
    said: Option<Instant>,
    /// Whether the log's last line about this is that of a failure.
    open: bool,
}

// === impl Failure ===

impl Failure {
    /// Notes how an append ended. A line in the log says when failures begin and end.
    pub(crate) fn note<T>(&self, result: &Result<T, StoreError>) {
        match result {
            Err(error) => {
                if self.failed(error, Instant::now()) {
                    tracing::error!(%error, "the store refuses samples; senders are told to send them again");
                }
            }
            Ok(_) if self.failing.load(Ordering::Relaxed) => {
                if self.ended() {
                    tracing::warn!("the store takes samples again");
                }
            }
            Ok(_) => {}
        }
    }

    /// Whether to say it.
    fn failed(&self, error: &StoreError, now: Instant) -> bool {
        let mut last = self.last();
        self.failing.store(true, Ordering::Relaxed);
        last.words = error.to_string();
        let due = last
            .said
            .is_none_or(|said| now.duration_since(said) >= APART);
        if due {
            last.said = Some(now);
            last.open = true;
        }
        due
    }

    /// Whether to say it.
    fn ended(&self) -> bool {
        let mut last = self.last();
        self.failing.store(false, Ordering::Relaxed);
        std::mem::take(&mut last.open)
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a sender is told.
    pub(crate) fn words(&self) -> String {
        match self.last().words.as_str() {
            "" => "the disk refused the write".to_owned(),
            why => format!("the disk refused the write: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_said_when_it_begins_and_when_it_ends() {
        let failure = Failure::default();
        assert_eq!(failure.words(), "the disk refused the write");
        let full = StoreError::Full {
            path: "log-1.wal".into(),
        };
        let begun = Instant::now();
        assert!(failure.failed(&full, begun));
        let words = failure.words();
        assert!(words.contains("no space left for log-1.wal"), "{words}");
        assert!(!failure.failed(&full, begun + APART / 2), "said already");
        assert!(failure.ended());
        assert!(!failure.failed(&full, begun + APART / 2), "too soon");
        assert!(!failure.ended(), "its begin was not said");
        assert!(failure.failed(&full, begun + APART));
    }
}
