//! Time for collectors: the clock they read and rounds that neither drift nor start all at once.
//!
//! Owns the start offset, which depends on the collector's key only. Must not know what a round does.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::flush::{FlushRequests, FlushTicket};
use crate::ingest::Ingest;

/// Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Where in its interval the collector `key` starts: spread over the interval, but never later than a second.
pub(crate) fn offset(key: &str, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let span = interval.min(Duration::from_secs(1)).as_millis().max(1) as u64;
    Duration::from_millis(hasher.finish() % span)
}

/// Rounds of one collector. A round that is overdue runs at once; those missed are skipped.
pub(crate) struct Rounds {
    ticks: tokio::time::Interval,
    flushes: Option<FlushRequests>,
    /// The flush that the present round answers.
    ticket: Option<FlushTicket>,
    shutdown: CancellationToken,
}

// === impl Rounds ===

impl Rounds {
    /// Rounds every `interval`, the first after an offset that depends on `key`.
    pub(crate) fn new(key: &str, interval: Duration, shutdown: CancellationToken) -> Self {
        let start = Instant::now() + offset(key, interval);
        let mut ticks = tokio::time::interval_at(start, interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Rounds {
            ticks,
            flushes: None,
            ticket: None,
            shutdown,
        }
    }

    /// Makes a flush begin a round at once; the flush waits until that round is over.
    pub(crate) fn on_flush(mut self, ingest: &Ingest) -> Self {
        self.flushes = Some(ingest.flushes().subscribe());
        self
    }

    /// Waits for the next round; its time in Unix milliseconds, or `None` when the agent stops.
    pub(crate) async fn next(&mut self) -> Option<i64> {
        self.ticket = None;
        let flush = async {
            match &mut self.flushes {
                Some(flushes) => flushes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            ticket = flush => {
                self.ticket = Some(ticket);
                Some(now_ms())
            }
            _ = self.ticks.tick() => Some(now_ms()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_stable_spread_and_bounded() {
        let interval = Duration::from_secs(5);
        let offsets: Vec<_> = (0..50)
            .map(|i| offset(&format!("target {i}"), interval))
            .collect();
        assert_eq!(offsets[3], offset("target 3", interval));
        assert!(offsets.iter().all(|o| *o < Duration::from_secs(1)));
        assert!(offsets.iter().max() > offsets.iter().min());
        assert!(offset("x", Duration::from_millis(10)) < Duration::from_millis(10));
    }
}
