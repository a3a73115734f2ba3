//! Remote write out: every sample that comes in goes to other servers too, from the disk.
//!
//! Owns the tasks, one for each shard of each server, and what is counted. Must not know where samples come from.
//!
//! ```text
//! Ingest ─▶ queue.rs (blocks on disk) ─▶ batch.rs (a shard's request) ─▶ send.rs ─▶ server
//!                                            ▲  position.rs: done, sending (on disk, before the request goes out)
//! ```
//!
//! A sample is in the queue before it is acknowledged. A series always goes through one shard, with one request in
//! flight, so its order holds. A request whose fate is unknown (a broken connection, a killed agent) is repeated
//! exactly: servers refuse a whole request when it mixes what they have with what they have not.

mod batch;
mod block;
mod position;
mod queue;
mod send;
mod shard;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::{Bytes, RemoteWrite};
use crate::error::AgentError;
use crate::ingest::Sample;
use crate::telemetry::Telemetry;
use position::{Former, Positions, Saved};
use queue::{Queue, Tail};

/// How often what was read is deleted, and gauges are set.
const MAINTAIN_EVERY: Duration = Duration::from_secs(2);

/// Remote write out, running.
pub(crate) struct Forward {
    queue: Arc<Queue>,
    servers: Vec<Server>,
    telemetry: Arc<Telemetry>,
    /// Ends tasks at once.
    stop: CancellationToken,
    /// Tells tasks to send what is there without waiting for more, and to end.
    drain: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// One server.
struct Server {
    key: String,
    positions: Arc<Positions>,
}

// === impl Forward ===

impl Forward {
    /// Opens the queue below `dir` and starts sending. Must be called within a tokio runtime. Reads the disk.
    pub(crate) fn start(
        dir: &Path,
        bytes: Bytes,
        peers: &[RemoteWrite],
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, AgentError> {
        let failed = |e: std::io::Error| {
            AgentError::Config(format!("remote write: cannot use {}: {e}", dir.display()))
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let former: Vec<Former> = peers
            .iter()
            .map(|p| Positions::load(dir, &p.key()))
            .collect();
        let mut known = Tail::default();
        for saved in &former {
            if let Former::Known(saved) = saved {
                let ahead = saved.ahead();
                known.next = known.next.max(ahead.block + u64::from(ahead.entry > 0));
                known.samples = known.samples.max(ahead.before);
            }
        }
        let queue = Arc::new(Queue::open(dir.join("queue"), bytes.0, known)?);
        let mut forward = Forward {
            servers: Vec::new(),
            telemetry,
            stop: CancellationToken::new(),
            drain: CancellationToken::new(),
            tasks: Vec::new(),
            queue,
        };
        for (config, saved) in peers.iter().zip(former) {
            forward.add(dir, config, saved).map_err(|e| match e {
                Ok(error) => error,
                Err(io) => failed(io),
            })?;
        }
        forward.look_after();
        Ok(forward)
    }

    fn add(
        &mut self,
        dir: &Path,
        config: &RemoteWrite,
        former: Former,
    ) -> Result<(), Result<AgentError, std::io::Error>> {
        let key = config.key();
        let saved = match former {
            Former::Known(saved) => saved,
            // It gets what comes from now on.
            Former::New => Saved::at(config.shards, self.queue.tail()),
            // Rather twice than not at all: servers keep what they have.
            Former::Damaged => Saved::at(config.shards, self.queue.oldest()),
        };
        let positions = Arc::new(Positions::new(dir, &key, saved.clone()));
        positions.replace(saved).map_err(Err)?;
        let server = shard::Server {
            key: key.clone(),
            peer: send::Peer::new(config).map_err(Ok)?,
            config: config.clone(),
            queue: Arc::clone(&self.queue),
            positions: Arc::clone(&positions),
            telemetry: Arc::clone(&self.telemetry),
            stop: self.stop.clone(),
            drain: self.drain.clone(),
        };
        self.tasks.push(tokio::spawn(server.run()));
        self.servers.push(Server { key, positions });
        Ok(())
    }

    /// Puts samples into the queue; false when the disk refused. When it returns true they survive `kill -9`.
    pub(crate) fn sink(&self) -> impl Fn(&[Sample]) -> bool + Send + Sync + 'static {
        let queue = Arc::clone(&self.queue);
        move |samples| match queue.append(samples, clock::now_ms()) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the queue of remote write refused samples");
                false
            }
        }
    }

    /// Deletes what every server has, and sets gauges, again and again.
    fn look_after(&mut self) {
        let (queue, telemetry) = (Arc::clone(&self.queue), Arc::clone(&self.telemetry));
        let servers: Vec<(String, Arc<Positions>)> = self
            .servers
            .iter()
            .map(|s| (s.key.clone(), Arc::clone(&s.positions)))
            .collect();
        let stop = self.stop.clone();
        self.tasks.push(tokio::spawn(async move {
            loop {
                let (queue, servers) = (Arc::clone(&queue), servers.clone());
                let telemetry = Arc::clone(&telemetry);
                let work = move || look(&queue, &servers, &telemetry);
                if tokio::task::spawn_blocking(work).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(MAINTAIN_EVERY) => {}
                }
            }
        }));
    }

    /// Sends what is there, at most for `deadline`; the rest stays on disk and is sent after the next start.
    pub(crate) async fn shutdown(self, deadline: Duration) -> Result<(), store::StoreError> {
        self.drain.cancel();
        let stop = self.stop.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(deadline).await;
            stop.cancel();
        });
        let mut tasks = self.tasks;
        let keeper = tasks.pop();
        for task in tasks {
            // A panic in it was reported by the panic hook.
            let _ = task.await;
        }
        timer.abort();
        self.stop.cancel();
        if let Some(keeper) = keeper {
            let _ = keeper.await;
        }
        self.queue.flush()
    }
}

fn look(queue: &Queue, servers: &[(String, Arc<Positions>)], telemetry: &Telemetry) {
    let tail = queue.tail();
    let mut oldest = tail.next;
    for (key, positions) in servers {
        let behind = positions.all().behind();
        oldest = oldest.min(behind.block);
        let pending = tail.samples.saturating_sub(behind.before);
        let waiting_since = match queue.at(behind.block) {
            queue::Next::Block(block) => block.t_ms,
            _ => clock::now_ms(),
        };
        let lag = (clock::now_ms() - waiting_since).max(0) as f64 / 1e3;
        let pending = i64::try_from(pending).unwrap_or(i64::MAX);
        telemetry
            .forward_pending
            .with_label_values(&[key])
            .set(pending);
        telemetry.forward_lag.with_label_values(&[key]).set(lag);
    }
    if let Err(error) = queue.release(oldest) {
        tracing::warn!(%error, "the queue of remote write could not be shortened");
    }
    telemetry.set("remote_write_queue_bytes", queue.bytes());
}
