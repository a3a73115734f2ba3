//! One budget of bytes for everything that is in flight: bodies being read and requests being worked on.
//!
//! Owns the count. Must not know what the bytes are. Nobody waits for bytes: who does not get them refuses its peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be in flight at once. Cheap to clone; clones share the count.
#[derive(Debug, Clone)]
pub struct Budget {
    limit: usize,
    used: Arc<AtomicUsize>,
}

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Budget,
    bytes: usize,
}

// === impl Budget ===

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Budget {
            limit,
            used: Arc::default(),
        }
    }

    /// An empty lease that can grow.
    #[must_use]
    pub fn lease(&self) -> Lease {
        Lease {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// Bytes in flight.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }
}

impl Lease {
    /// Makes the lease at least `bytes` large; false, and unchanged, when the budget has not that much.
    #[must_use]
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|m| *m > 0) else {
            return true;
        };
        let taken = self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more)
                    .filter(|all| *all <= self.budget.limit)
            });
        if taken.is_ok() {
            self.bytes = bytes;
        }
        taken.is_ok()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let budget = Budget::new(100);
        let mut a = budget.lease();
        let mut b = budget.lease();
        assert!(a.grow_to(60) && a.grow_to(50) && !b.grow_to(41) && b.grow_to(40));
        assert_eq!(budget.used(), 100);
        assert!(!a.grow_to(usize::MAX));
        drop(a);
        assert_eq!(budget.used(), 40);
        drop(b);
        assert_eq!(budget.used(), 0);
    }
}
