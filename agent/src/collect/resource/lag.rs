//! How far a standby is behind, truly.
//!
//! Owns the rule. `pg_stat_replication.replay_lag` is stale while applying is delayed, and `now() -
//! pg_last_xact_replay_timestamp()` grows for ever when nothing is written; so neither is believed alone. Pure.

use std::collections::VecDeque;

/// The most observations that are kept.
const MAX_HISTORY: usize = 10_000;

/// One look at a standby.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// When, Unix milliseconds.
    pub(super) t_ms: i64,
    /// Whether WAL is arriving.
    pub(super) streaming: bool,
    /// The last byte received.
    pub(super) received: i64,
    /// The last byte applied.
    pub(super) replayed: i64,
    /// Age of the last transaction applied, seconds.
    pub(super) last_transaction_age: Option<f64>,
}

/// What it takes from look to look.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// Looks at which more had been received than at the one before, and the time of that one before.
    arrivals: VecDeque<(i64, i64)>,
    last: Option<(i64, i64)>,
    /// When the standby was last known to have all that the primary had.
    current_ms: Option<i64>,
}

// === impl Lag ===

impl Lag {
    /// The lag in seconds: an upper bound that is never more than one look too high. 0 when everything received is
    /// applied and more is arriving; the time since then when the connection is lost; `None` when nothing is known.
    pub(super) fn seconds(&mut self, look: Look) -> Option<f64> {
        if let Some((then_ms, received)) = self.last
            && look.received > received
        {
            if self.arrivals.len() == MAX_HISTORY {
                self.arrivals.pop_front();
            }
            // All bytes after `received` arrived after `then_ms`.
            self.arrivals.push_back((then_ms, look.received));
        }
        self.last = Some((look.t_ms, look.received));
        while self
            .arrivals
            .front()
            .is_some_and(|(_, received)| *received <= look.replayed)
        {
            self.arrivals.pop_front();
        }
        if look.replayed >= look.received {
            if look.streaming {
                self.current_ms = Some(look.t_ms);
                return Some(0.0);
            }
            let silent = self.current_ms.map(|at| (look.t_ms - at) as f64 / 1000.0);
            return silent.or(look.last_transaction_age);
        }
        // Nothing that waits is older than the oldest arrival, nor than the last transaction that was applied.
        let arrived = self
            .arrivals
            .front()
            .map(|(then_ms, _)| (look.t_ms - then_ms) as f64 / 1000.0);
        match (arrived, look.last_transaction_age) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(t_s: i64, received: i64, replayed: i64, age: f64) -> Look {
        Look {
            t_ms: t_s * 1000,
            streaming: true,
            received,
            replayed,
            last_transaction_age: Some(age),
        }
    }

    #[test]
    fn idle_is_not_late() {
        let mut lag = Lag::default();
        assert_eq!(lag.seconds(look(0, 100, 100, 3600.0)), Some(0.0));
        assert_eq!(lag.seconds(look(60, 100, 100, 3660.0)), Some(0.0));
        // The first write after an hour waits: it is not an hour late.
        assert_eq!(lag.seconds(look(61, 110, 100, 3661.0)), Some(1.0));
        assert_eq!(lag.seconds(look(62, 110, 100, 3662.0)), Some(2.0));
        assert_eq!(lag.seconds(look(63, 110, 110, 1.0)), Some(0.0));
    }

    #[test]
    fn steady_writes_behind_a_delay() {
        let mut lag = Lag::default();
        let mut got = None;
        for t in 0..20 {
            got = lag.seconds(look(t, t * 10, (t - 3).max(0) * 10, 3.2));
        }
        assert_eq!(got, Some(3.0));
    }

    #[test]
    fn a_lost_connection_is_not_zero() {
        let mut lag = Lag::default();
        lag.seconds(look(10, 5, 5, 1.0));
        let lost = Look {
            streaming: false,
            ..look(25, 5, 5, 16.0)
        };
        assert_eq!(lag.seconds(lost), Some(15.0));
        assert_eq!(Lag::default().seconds(lost), Some(16.0));
    }
}
