//! Flushes: asking every collector for its newest numbers, and waiting until they have handed them in.
//!
//! Owns the request and its completion. Must not know what a collector does.

use std::time::Duration;

use tokio::sync::{broadcast, mpsc};

/// How many requests wait for a slow collector.
const BACKLOG: usize = 16;

/// Where flushes are asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Flushes {
    sender: broadcast::Sender<mpsc::Sender<()>>,
}

/// A collector's side.
#[derive(Debug)]
pub struct FlushRequests {
    receiver: broadcast::Receiver<mpsc::Sender<()>>,
}

/// One request. Drop it when everything newest is in the store.
#[derive(Debug)]
#[must_use = "the flush is complete when this is dropped"]
pub struct FlushTicket {
    _done: mpsc::Sender<()>,
}

impl Default for Flushes {
    fn default() -> Self {
        Flushes {
            sender: broadcast::channel(BACKLOG).0,
        }
    }
}

// === impl Flushes ===

impl Flushes {
    /// A collector's side; from now on flushes wait for it.
    #[must_use]
    pub fn subscribe(&self) -> FlushRequests {
        FlushRequests {
            receiver: self.sender.subscribe(),
        }
    }

    /// Asks everyone and waits, at most for `deadline`. Whether everyone was done in time.
    pub async fn flush(&self, deadline: Duration) -> bool {
        let (done, mut all_done) = mpsc::channel(1);
        // An error means that nobody listens: then there is nothing to wait for.
        let _ = self.sender.send(done);
        tokio::time::timeout(deadline, all_done.recv())
            .await
            .is_ok()
    }
}

impl FlushRequests {
    /// The next request; pending forever when there will be none.
    pub async fn next(&mut self) -> FlushTicket {
        loop {
            match self.receiver.recv().await {
                Ok(done) => return FlushTicket { _done: done },
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flush_waits_for_everyone_but_not_forever() {
        let flushes = Flushes::default();
        assert!(
            flushes.flush(Duration::from_secs(1)).await,
            "nobody to wait for"
        );
        let mut requests = flushes.subscribe();
        let collector = tokio::spawn(async move {
            let ticket = requests.next().await;
            tokio::task::yield_now().await;
            drop(ticket);
            requests
        });
        assert!(flushes.flush(Duration::from_secs(1)).await);
        let _silent = collector.await.unwrap();
        assert!(!flushes.flush(Duration::from_millis(1)).await);
    }
}
