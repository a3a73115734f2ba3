//! [`Stop`]: how a running query is told that nobody wants its answer any more.
//!
//! Owns the two reasons to stop, and how often a query asks. Must not know expressions. It reads the monotonic clock,
//! and only to compare it with a deadline that it was given.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use super::engine::QueryError;

const RUNNING: u8 = 0;
const CANCELED: u8 = 1;
const EXPIRED: u8 = 2;

/// Cells that are worked through between two looks at the switch; some 0.1 ms of work.
const STRIDE: usize = 1 << 15;

/// A switch that ends queries: hand a clone to [`crate::Engine::with_stop`], keep one, and turn it from any thread.
/// The first turn decides; it cannot be turned back.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    state: Arc<AtomicU8>,
}

// === impl Stop ===

impl Stop {
    /// A switch that is not turned.
    #[must_use]
    pub fn new() -> Self {
        Stop::default()
    }

    /// Ends the query with [`QueryError::Canceled`].
    pub fn cancel(&self) {
        self.turn(CANCELED);
    }

    /// Ends the query with [`QueryError::Timeout`], for callers that measure time themselves.
    pub fn expire(&self) {
        self.turn(EXPIRED);
    }

    /// Whether it is turned.
    #[must_use]
    pub fn is_turned(&self) -> bool {
        self.state.load(Ordering::Relaxed) != RUNNING
    }

    fn turn(&self, to: u8) {
        let _ = self
            .state
            .compare_exchange(RUNNING, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A query's look at its switch and its deadline, now and then. Once it says stop, it always does.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    stop: &'a Stop,
    deadline: Option<Instant>,
    work: Cell<usize>,
}

// === impl Watch ===

impl<'a> Watch<'a> {
    pub(crate) fn new(stop: &'a Stop, deadline: Option<Instant>) -> Self {
        Watch {
            stop,
            deadline,
            work: Cell::new(0),
        }
    }

    /// Errors when the query is to stop.
    pub(crate) fn look(&self) -> Result<(), QueryError> {
        match self.stop.state.load(Ordering::Relaxed) {
            RUNNING if self.deadline.is_some_and(|d| Instant::now() >= d) => {
                Err(QueryError::Timeout)
            }
            RUNNING => Ok(()),
            CANCELED => Err(QueryError::Canceled),
            _ => Err(QueryError::Timeout),
        }
    }

    /// Counts work done and looks when it was enough.
    #[inline]
    pub(crate) fn tick(&self, work: usize) -> Result<(), QueryError> {
        let done = self.work.get().saturating_add(work);
        if done < STRIDE {
            self.work.set(done);
            return Ok(());
        }
        self.work.set(0);
        self.look()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_turn_decides() {
        let stop = Stop::new();
        let watch = Watch::new(&stop, None);
        assert_eq!(watch.look(), Ok(()));
        stop.clone().cancel();
        stop.expire();
        assert!(stop.is_turned());
        assert_eq!(watch.look(), Err(QueryError::Canceled));
    }

    #[test]
    fn a_deadline_in_the_past_is_found_once_there_was_enough_work() {
        let stop = Stop::new();
        let watch = Watch::new(&stop, Some(Instant::now()));
        assert_eq!(watch.tick(STRIDE - 1), Ok(()));
        assert_eq!(watch.tick(1), Err(QueryError::Timeout));
        assert_eq!(watch.look(), Err(QueryError::Timeout));
    }
}
