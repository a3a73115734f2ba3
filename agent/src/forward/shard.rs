//! One server's shards: collect, write down what goes out, send until it is settled, go on.
//!
//! Owns that loop and the change of the number of shards. Must not know files nor HTTP.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::{self, Batch, Share};
use super::position::{Position, Positions, Saved, Shard};
use super::queue::Queue;
use super::send::{Peer, Verdict};
use crate::clock;
use crate::config::RemoteWrite;
use crate::telemetry::Telemetry;

/// Further requests that one refused request may be split into, to save what is good in it.
const MAX_SPLITS: usize = 64;
/// A place without news is written down this often.
const IDLE_SAVE: Duration = Duration::from_secs(1);

/// Everything that a server's tasks need.
#[derive(Clone)]
pub(super) struct Server {
    pub key: String,
    pub peer: Peer,
    pub config: RemoteWrite,
    pub queue: Arc<Queue>,
    pub positions: Arc<Positions>,
    pub telemetry: Arc<Telemetry>,
    pub stop: CancellationToken,
    pub drain: CancellationToken,
}

// === impl Server ===

impl Server {
    /// Sends until stopped, or drained.
    pub(super) async fn run(self) {
        let saved = self.positions.all();
        if saved.shards.len() != self.config.shards {
            // Hashes had another divisor: what is there is sent by the old one, so that every series keeps its order.
            let end = self.queue.tail();
            let until = Saved::at(1, end).behind();
            if !self.all(saved.shards.len(), Some(until)).await {
                return;
            }
            let fresh = Saved::at(self.config.shards, end);
            if let Err(error) = self.positions.replace(fresh) {
                tracing::warn!(%error, peer = self.key, "positions of remote write not written");
            }
        }
        self.all(self.config.shards, None).await;
    }

    /// Runs every shard; true when all have reached `until`.
    async fn all(&self, shards: usize, until: Option<Position>) -> bool {
        let tasks: Vec<_> = (0..shards)
            .map(|shard| {
                let server = self.clone();
                tokio::spawn(async move { server.shard(shard, shards, until).await })
            })
            .collect();
        let mut reached = true;
        for task in tasks {
            reached &= task.await.unwrap_or(false);
        }
        reached
    }

    /// Runs one shard; true when it has reached `until`.
    async fn shard(&self, shard: usize, shards: usize, until: Option<Position>) -> bool {
        let share = Arc::new(Share {
            shard,
            shards,
            max_samples: self.config.max_samples,
            native_histograms: self.config.native_histograms,
            external_labels: self.config.external_labels.clone(),
        });
        let mut tail = self.queue.follow();
        let mut state = self.positions.get(shard);
        let mut saved_at = Instant::now();
        loop {
            if self.stop.is_cancelled() {
                return false;
            }
            tail.mark_unchanged();
            let Some(batch) = self.collect(&share, state, until).await else {
                return false;
            };
            if batch.samples == 0 {
                self.note(&batch, shards);
                let moved = batch.to != state.done;
                let settled = Shard {
                    done: batch.to,
                    sending: None,
                };
                let end = until.is_some_and(|u| batch.to >= u);
                let idle = !batch.full;
                if moved && (saved_at.elapsed() >= IDLE_SAVE || end || self.drain.is_cancelled()) {
                    self.save(shard, settled);
                    saved_at = Instant::now();
                }
                state = settled;
                if end || (idle && self.drain.is_cancelled()) {
                    return end;
                }
                if idle {
                    tokio::select! {
                        () = self.stop.cancelled() => return false,
                        () = self.drain.cancelled() => {}
                        _ = tail.changed() => {}
                        () = tokio::time::sleep(IDLE_SAVE), if moved => {}
                    }
                }
                continue;
            }
            if state.sending.is_none() && !self.ripe(&batch).await {
                continue;
            }
            self.note(&batch, shards);
            state.sending = Some(batch.to);
            self.save(shard, state);
            if !self.deliver(&batch).await {
                return false;
            }
            state = Shard {
                done: batch.to,
                sending: None,
            };
            self.save(shard, state);
            saved_at = Instant::now();
        }
    }

    async fn collect(
        &self,
        share: &Arc<Share>,
        state: Shard,
        until: Option<Position>,
    ) -> Option<Batch> {
        let (queue, share) = (Arc::clone(&self.queue), Arc::clone(share));
        let work = move || {
            let exactly = state.sending.filter(|to| *to > state.done);
            batch::collect(&queue, &share, state.done, exactly, until)
        };
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Waits until a batch is worth a request. False: it was too small, look again.
    async fn ripe(&self, batch: &Batch) -> bool {
        let age = clock::now_ms() - batch.oldest_ms.unwrap_or(0);
        let left = self.config.wait.0 - age;
        if batch.full || left <= 0 || self.drain.is_cancelled() {
            return true;
        }
        let left = Duration::from_millis(left.unsigned_abs()).min(self.config.wait.duration());
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.drain.cancelled() => {}
            () = tokio::time::sleep(left) => {}
        }
        false
    }

    /// Sends a batch until it is settled; false when stopped before.
    async fn deliver(&self, batch: &Batch) -> bool {
        let whole = 0..batch.series.len();
        let (mut parts, mut splits) = (vec![whole], MAX_SPLITS);
        while let Some(part) = parts.pop() {
            let (message, samples) = batch.message(part.clone());
            let Some(verdict) = self.insist(&message).await else {
                return false;
            };
            match verdict {
                Verdict::Refused(400, _) if part.len() > 1 && splits >= 2 => {
                    // One bad series must not take the others with it.
                    splits -= 2;
                    let middle = part.start + part.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
                Verdict::Refused(status, text) => {
                    tracing::warn!(
                        peer = self.key,
                        status,
                        text,
                        samples,
                        "samples were refused"
                    );
                    self.count("refused", samples);
                }
                _ => self.count("sent", samples),
            }
        }
        true
    }

    /// Sends a message until the server has decided; `None` when stopped before.
    async fn insist(&self, message: &[u8]) -> Option<Verdict> {
        let body = snap::raw::Encoder::new().compress_vec(message).ok()?;
        let requests = |result: &str| {
            let all = &self.telemetry.forward_requests;
            all.with_label_values(&[&self.key, result]).inc();
        };
        let mut tries = 0u32;
        loop {
            let verdict = tokio::select! {
                () = self.stop.cancelled() => return None,
                verdict = self.peer.send(body.clone()) => verdict,
            };
            let (reason, after) = match verdict {
                Verdict::Later(reason, after) => (reason, after),
                Verdict::Taken => {
                    requests("taken");
                    return Some(verdict);
                }
                Verdict::Refused(..) => {
                    requests("refused");
                    return Some(verdict);
                }
            };
            requests("retried");
            tries += 1;
            if tries.is_power_of_two() {
                tracing::warn!(
                    peer = self.key,
                    reason,
                    tries,
                    "remote write is tried again"
                );
            }
            let dice = (RandomState::new().hash_one(tries) >> 11) as f64 / (1u64 << 53) as f64;
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(self.peer.wait(tries, after, dice)) => {}
            }
        }
    }

    fn save(&self, shard: usize, state: Shard) {
        if let Err(error) = self.positions.set(shard, state) {
            self.telemetry.reject("remote_write", "positions");
            tracing::warn!(%error, peer = self.key, "positions of remote write not written");
        }
    }

    fn note(&self, batch: &Batch, shards: usize) {
        // Every shard notices the same loss; each counts its part.
        self.count("lost", batch.lost.div_ceil(shards as u64));
        self.count("skipped", batch.skipped);
    }

    fn count(&self, result: &str, samples: u64) {
        if samples > 0 {
            let all = &self.telemetry.forward_samples;
            all.with_label_values(&[&self.key, result]).inc_by(samples);
        }
    }
}
