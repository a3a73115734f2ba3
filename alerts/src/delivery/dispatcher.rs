//! The dispatcher: takes notifications, keeps groups, and sends what the outbox holds.
//!
//! Owns the task, the events of deliveries, self alerts and the fallback. Must not know rules.
//!
//! Locking: one mutex over groups, outbox and silences. It is held while the journal is synced (milliseconds), never
//! while a request is sent.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::Labels;
use model::api::AlertEvent;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::config::{DeliveryConfig, ReceiverConfig};
use super::group::Group;
use super::message::Message;
use super::outbox::{Decision, Job, Outbox, Outcome, Pace, Verdict};
use super::route::{self, Route};
use super::{DeliveryError, send};
use crate::notification::{Fnv, Notification, Status};
use crate::silence::{PostableSilence, SilenceError, Silences, am_alert};

/// Events kept until someone takes them; older ones are dropped and counted.
const MAX_EVENTS: usize = 4096;
/// Requests under way at once.
const MAX_IN_FLIGHT: usize = 16;
/// Alert name of the alert about delivery itself.
const SELF_ALERT: &str = "AlertDeliveryFailed";
/// How long the task sleeps at most, milliseconds: the limit for noticing that a silence ended.
const MAX_SLEEP_MS: i64 = 1_000;

/// Counters since the start, and gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DeliveryStats {
    /// Notifications taken.
    pub notifications: u64,
    /// Messages queued for a receiver.
    pub queued: u64,
    /// Messages that a receiver took.
    pub delivered: u64,
    /// Attempts that failed and will be made again.
    pub retries: u64,
    /// Messages given up.
    pub dead_letters: u64,
    /// Notifications held back by a silence.
    pub silenced: u64,
    /// Events that nobody took in time.
    pub dropped_events: u64,
    /// Messages lost because the outbox could not be written for long.
    pub dropped_messages: u64,
    /// Messages that wait or are being sent.
    pub pending: u64,
}

/// Delivers notifications. Cheap to clone; [`Dispatcher::shutdown`] ends the task.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    wake: Notify,
    stop: watch::Sender<bool>,
    client: reqwest::Client,
    clock: Clock,
}

/// Wall time at the start plus monotonic time since: a clock that is set does not stall retries.
#[derive(Debug)]
struct Clock {
    start_ms: i64,
    started: Instant,
}

#[derive(Debug)]
struct Core {
    config: DeliveryConfig,
    routes: Vec<Route>,
    groups: BTreeMap<String, Group>,
    outbox: Outbox,
    silences: Silences,
    /// Firing alerts that a silence holds back, by fingerprint.
    muted: BTreeMap<String, Notification>,
    /// Receivers about which a self alert is open.
    failing: BTreeMap<String, Notification>,
    /// Messages that could not be written to the outbox yet: (receiver, message, repeat).
    unsaved: VecDeque<(String, Message, bool)>,
    events: VecDeque<AlertEvent>,
    stats: DeliveryStats,
    dice: u64,
}

// === impl Clock ===

impl Clock {
    fn start() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            start_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            started: Instant::now(),
        }
    }

    fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.start_ms.saturating_add(elapsed)
    }
}

// === impl Dispatcher ===

impl Dispatcher {
    /// Checks the configuration, opens the outbox and the silences in `dir` (none: kept in memory), and starts to
    /// send, first what a former run left. Must be called within a tokio runtime.
    pub fn start(
        config: DeliveryConfig,
        dir: Option<PathBuf>,
    ) -> Result<Dispatcher, DeliveryError> {
        let routes = route::routes(&config).map_err(DeliveryError::Config)?;
        let (mut outbox, silences) = match &dir {
            Some(dir) => {
                let outbox = Outbox::open(dir)?;
                let silences =
                    Silences::open(dir).map_err(|e| DeliveryError::Config(e.to_string()))?;
                (outbox, silences)
            }
            None => (Outbox::in_memory(), Silences::default()),
        };
        outbox.set_pace(Pace {
            min_ms: config.retry_min,
            max_ms: config.retry_max,
            give_up_ms: config.give_up_after,
        });
        let clock = Clock::start();
        let shared = Arc::new(Shared {
            client: send::client(&config)?,
            core: Mutex::new(Core {
                dice: clock.start_ms.unsigned_abs() | 1,
                config,
                routes,
                groups: BTreeMap::new(),
                outbox,
                silences,
                muted: BTreeMap::new(),
                failing: BTreeMap::new(),
                unsaved: VecDeque::new(),
                events: VecDeque::new(),
                stats: DeliveryStats::default(),
            }),
            wake: Notify::new(),
            stop: watch::channel(false).0,
            clock,
        });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Ok(Dispatcher {
            shared,
            task: Arc::new(Mutex::new(Some(task))),
        })
    }

    /// Takes notifications. What must be sent at once is on disk when this returns; groups that wait are told again by
    /// the rule engine after a restart. Blocks for a disk sync: call it from a blocking thread.
    pub fn submit(&self, notifications: &[Notification]) -> Result<(), DeliveryError> {
        let now_ms = self.shared.clock.now_ms();
        let mut core = self.shared.core();
        core.take(notifications, now_ms);
        let flushed = core.flush(now_ms);
        drop(core);
        self.shared.wake.notify_one();
        flushed
    }

    /// Closes incidents that a receiver has open but for which nothing fires: call it once, when every rule was
    /// evaluated after a start, with what fires ([`crate::RuleEngine::firing`]). For when alert state was lost.
    /// Returns how many were closed.
    pub fn reconcile(&self, firing: &[Notification]) -> Result<usize, DeliveryError> {
        let now_ms = self.shared.clock.now_ms();
        let closed = self.shared.core().reconcile(firing, now_ms)?;
        self.shared.wake.notify_one();
        Ok(closed)
    }

    /// Takes the events since the last call: queued, delivered, retry, dead_letter, silenced.
    #[must_use]
    pub fn take_events(&self) -> Vec<AlertEvent> {
        self.shared.core().events.drain(..).collect()
    }

    /// Counters and gauges, for the agent's own metrics.
    #[must_use]
    pub fn stats(&self) -> DeliveryStats {
        let core = self.shared.core();
        DeliveryStats {
            pending: core.outbox.pending() as u64,
            ..core.stats
        }
    }

    /// The last dead letters: receiver, dedup key, summary, reason.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<(String, String, String, String)> {
        let core = self.shared.core();
        let line = |(job, reason): &(Job, String)| {
            let key = job.message.dedup_key.clone();
            (
                job.receiver.clone(),
                key,
                job.message.summary(),
                reason.clone(),
            )
        };
        core.outbox.dead_letters().iter().map(line).collect()
    }

    /// Names of the receivers.
    #[must_use]
    pub fn receivers(&self) -> Vec<String> {
        let core = self.shared.core();
        core.config
            .receivers
            .iter()
            .map(|r| r.name.clone())
            .collect()
    }

    /// Runs `f` over the silences; use [`Dispatcher::post_silence`] and [`Dispatcher::expire_silence`] to change them.
    pub fn with_silences<T>(&self, f: impl FnOnce(&Silences) -> T) -> T {
        f(&self.shared.core().silences)
    }

    /// Creates or changes a silence; on disk when this returns.
    pub fn post_silence(&self, wanted: PostableSilence) -> Result<String, SilenceError> {
        let now_ms = self.shared.clock.now_ms();
        self.shared.core().silences.post(wanted, now_ms)
    }

    /// Ends a silence. What it held back and still fires is told.
    pub fn expire_silence(&self, id: &str) -> Result<(), SilenceError> {
        let now_ms = self.shared.clock.now_ms();
        self.shared.core().silences.expire(id, now_ms)?;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// `GET /api/v2/alerts` over what fires.
    #[must_use]
    pub fn am_alerts(&self, firing: &[Notification]) -> serde_json::Value {
        let now_ms = self.shared.clock.now_ms();
        let core = self.shared.core();
        let one = |alert: &Notification| {
            let routes = route::matching(&core.routes, alert);
            let receivers: Vec<String> = routes
                .iter()
                .flat_map(|i| core.routes[*i].config.receivers.clone())
                .collect();
            let silence = core.silences.silenced_by(&alert.labels, now_ms);
            am_alert(alert, silence, &receivers, now_ms)
        };
        firing.iter().map(one).collect()
    }

    /// Waits until nothing is pending, at most so long. False when something still is.
    pub async fn flush(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        while self.shared.core().outbox.pending() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Ends the task. Requests under way are given up; what is not acknowledged is on disk and is sent after the next
    /// start.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

// === impl Shared ===

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task: sends what is due, sleeps until something is.
async fn run(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut sending: JoinSet<(Job, Outcome)> = JoinSet::new();
    while !*stop.borrow() {
        let free = MAX_IN_FLIGHT.saturating_sub(sending.len());
        let worker = Arc::clone(&shared);
        let pumped =
            tokio::task::spawn_blocking(move || worker.core().pump(worker.clock.now_ms(), free))
                .await;
        let Ok((jobs, next_ms)) = pumped else {
            return;
        };
        for (job, receiver) in jobs {
            let shared = Arc::clone(&shared);
            sending.spawn(async move {
                let outcome = match &receiver {
                    Some(r) => {
                        send::send(&shared.client, r, &job.message, shared.clock.now_ms()).await
                    }
                    None => Outcome::Rejected {
                        reason: "the receiver is no longer configured".into(),
                    },
                };
                (job, outcome)
            });
        }
        let now_ms = shared.clock.now_ms();
        let wait = next_ms.map_or(MAX_SLEEP_MS, |next| (next - now_ms).clamp(0, MAX_SLEEP_MS));
        // With every slot taken only an answer makes room.
        let wait = if sending.len() >= MAX_IN_FLIGHT {
            MAX_SLEEP_MS
        } else {
            wait
        };
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            Some(done) = sending.join_next(), if !sending.is_empty() => {
                if let Ok((job, outcome)) = done {
                    let worker = Arc::clone(&shared);
                    let finish = move || worker.core().finish(&job, outcome, worker.clock.now_ms());
                    // Joining fails only when the runtime ends.
                    let _ = tokio::task::spawn_blocking(finish).await;
                }
            }
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(wait.max(1).unsigned_abs())) => {}
        }
    }
}

// === impl Core ===

impl Core {
    /// Sorts notifications into groups, or holds them back.
    fn take(&mut self, notifications: &[Notification], now_ms: i64) {
        for alert in notifications {
            self.stats.notifications += 1;
            let fingerprint = alert.fingerprint();
            if alert.status == Status::Resolved {
                self.muted.remove(&fingerprint);
            } else if let Some(id) = self.silences.silenced_by(&alert.labels, now_ms) {
                let detail = format!("by silence {id}");
                if self.muted.insert(fingerprint, alert.clone()).is_none() {
                    self.stats.silenced += 1;
                    self.event(event(now_ms, "silenced", alert, "", "", &detail));
                }
                continue;
            }
            self.group(alert, now_ms, None);
        }
    }

    /// Puts an alert into its groups; `except` is a receiver that must not be used.
    fn group(&mut self, alert: &Notification, now_ms: i64, except: Option<&str>) {
        for index in route::matching(&self.routes, alert) {
            let mut route = self.routes[index].clone();
            route
                .config
                .receivers
                .retain(|r| Some(r.as_str()) != except);
            if route.config.receivers.is_empty() {
                continue;
            }
            let labels = route::group_labels(&route, alert);
            let key = route::dedup_key(&route, &labels);
            let receivers = &route.config.receivers;
            let open = receivers.iter().any(|r| self.outbox.will_be_open(r, &key));
            if alert.status == Status::Resolved && !open && !self.groups.contains_key(&key) {
                continue;
            }
            let group = self
                .groups
                .entry(key)
                .or_insert_with(|| Group::new(route.config, labels, now_ms, open));
            group.apply(alert.clone());
        }
    }

    /// Tells again what a silence that has ended held back.
    fn unmute(&mut self, now_ms: i64) {
        let free: Vec<String> = self
            .muted
            .iter()
            .filter(|(_, a)| self.silences.silenced_by(&a.labels, now_ms).is_none())
            .map(|(f, _)| f.clone())
            .collect();
        for fingerprint in free {
            if let Some(alert) = self.muted.remove(&fingerprint) {
                self.group(&alert, now_ms, None);
            }
        }
    }

    /// Writes what groups have to say into the outbox. What cannot be written is kept and tried again.
    fn flush(&mut self, now_ms: i64) -> Result<(), DeliveryError> {
        for (key, group) in &mut self.groups {
            let Some(say) = group.flush(key, &self.config.external_url, now_ms) else {
                continue;
            };
            let receivers = group.route.receivers.iter();
            // A fallback may have stood in for a receiver and have the incident open.
            let fallback = self.config.fallback.iter();
            let fallback = fallback.filter(|_| say.message.status == Status::Resolved);
            for receiver in receivers.chain(fallback) {
                if self.unsaved.len() == MAX_EVENTS {
                    self.unsaved.pop_front();
                    self.stats.dropped_messages += 1;
                }
                self.unsaved
                    .push_back((receiver.clone(), say.message.clone(), say.repeats));
            }
        }
        self.groups.retain(|_, g| !g.is_done());
        while let Some((receiver, message, repeats)) = self.unsaved.pop_front() {
            if let Err(e) = self.queue(&receiver, &message, now_ms, repeats) {
                self.unsaved.push_front((receiver, message, repeats));
                return Err(e);
            }
        }
        Ok(())
    }

    fn queue(
        &mut self,
        receiver: &str,
        message: &Message,
        now_ms: i64,
        repeat: bool,
    ) -> Result<(), DeliveryError> {
        if self.outbox.intend(receiver, message, now_ms, repeat)? == Decision::Queued {
            self.stats.queued += 1;
            self.tell("queued", receiver, message, now_ms, "");
        }
        Ok(())
    }

    fn reconcile(&mut self, firing: &[Notification], now_ms: i64) -> Result<usize, DeliveryError> {
        let mut wanted = std::collections::BTreeSet::new();
        for alert in firing.iter().chain(self.failing.values()) {
            for index in route::matching(&self.routes, alert) {
                let labels = route::group_labels(&self.routes[index], alert);
                wanted.insert(route::dedup_key(&self.routes[index], &labels));
            }
        }
        let stuck: Vec<(String, String)> = self
            .outbox
            .open_incidents()
            .filter(|(_, key)| !wanted.contains(*key) && !self.groups.contains_key(*key))
            .map(|(r, k)| (r.to_owned(), k.to_owned()))
            .collect();
        for (receiver, key) in &stuck {
            let message = Message {
                status: Status::Resolved,
                dedup_key: key.clone(),
                group_labels: Labels::empty(),
                alerts: Vec::new(),
                external_url: self.config.external_url.clone(),
                note: Some("nothing of this incident fires any more".into()),
            };
            self.queue(receiver, &message, now_ms, false)?;
        }
        Ok(stuck.len())
    }

    /// What to send now, and when to look again.
    fn pump(
        &mut self,
        now_ms: i64,
        max: usize,
    ) -> (Vec<(Job, Option<ReceiverConfig>)>, Option<i64>) {
        self.unmute(now_ms);
        if let Err(e) = self.flush(now_ms) {
            tracing::error!(error = %e, "the outbox cannot be written; alerts are kept in memory and tried again");
        }
        let receivers = &self.config.receivers;
        let find = |name: &str| receivers.iter().find(|r| r.name == name).cloned();
        let jobs = self.outbox.take_due(now_ms, max);
        let jobs = jobs
            .into_iter()
            .map(|j| (find(&j.receiver), j))
            .map(|(r, j)| (j, r))
            .collect();
        let groups = self.groups.values().filter_map(Group::due_ms).min();
        let next = [groups, self.outbox.next_due_ms()]
            .into_iter()
            .flatten()
            .min();
        (jobs, next)
    }

    fn finish(&mut self, job: &Job, outcome: Outcome, now_ms: i64) {
        let reason = match &outcome {
            Outcome::Delivered => String::new(),
            Outcome::Retry { reason, .. } | Outcome::Rejected { reason } => reason.clone(),
        };
        let dice = self.roll();
        let verdict = match self.outbox.finish(job.id, outcome, now_ms, dice) {
            Ok(Some(verdict)) => verdict,
            Ok(None) => return,
            Err(e) => {
                tracing::error!(error = %e, "an attempt cannot be written to the outbox; it may be sent twice");
                return;
            }
        };
        let (receiver, message) = (job.receiver.as_str(), &job.message);
        match verdict {
            Verdict::Delivered => {
                self.stats.delivered += 1;
                let detail = format!("{} (attempt {})", word(message), job.attempt);
                self.tell("delivered", receiver, message, now_ms, &detail);
                self.recovered(receiver, now_ms);
            }
            Verdict::WillRetry(wait) => {
                self.stats.retries += 1;
                let wait = model::duration::format_ms(wait);
                let detail = format!("attempt {} failed: {reason}; next in {wait}", job.attempt);
                self.tell("retry", receiver, message, now_ms, &detail);
                if job.attempt == self.config.fallback_after_attempts {
                    self.fall_back(job, &reason, now_ms);
                }
            }
            Verdict::Dead(reason) => {
                self.stats.dead_letters += 1;
                self.tell("dead_letter", receiver, message, now_ms, &reason);
                self.fall_back(job, &reason, now_ms);
                self.failed(job, &reason, now_ms);
            }
        }
        if let Err(e) = self.flush(now_ms) {
            tracing::error!(error = %e, "the outbox cannot be written");
        }
    }

    /// Sends a trigger that another receiver does not take to the fallback.
    fn fall_back(&mut self, job: &Job, reason: &str, now_ms: i64) {
        let Some(fallback) = self.config.fallback.clone() else {
            return;
        };
        if fallback == job.receiver {
            return;
        }
        let mut message = job.message.clone();
        message.note = Some(format!(
            "sent here because {:?} does not take it: {reason}",
            job.receiver
        ));
        if let Err(e) = self.queue(&fallback, &message, now_ms, false) {
            tracing::error!(error = %e, "the fallback cannot be queued");
        }
    }

    /// Raises the alert about a receiver, on every route but through that receiver.
    fn failed(&mut self, job: &Job, reason: &str, now_ms: i64) {
        let about_itself = job.message.alerts.iter().all(|a| a.name() == SELF_ALERT);
        if about_itself || self.failing.contains_key(&job.receiver) {
            return;
        }
        let alert = self_alert(&job.receiver, &job.message.summary(), reason, now_ms);
        self.group(&alert, now_ms, Some(&job.receiver));
        self.failing.insert(job.receiver.clone(), alert);
    }

    /// A receiver takes messages again.
    fn recovered(&mut self, receiver: &str, now_ms: i64) {
        if let Some(mut alert) = self.failing.remove(receiver) {
            alert.status = Status::Resolved;
            alert.ends_at_ms = Some(now_ms);
            self.group(&alert, now_ms, Some(receiver));
        }
    }

    fn tell(&mut self, kind: &str, receiver: &str, message: &Message, now_ms: i64, detail: &str) {
        let mut events = Vec::new();
        for alert in &message.alerts {
            events.push(event(
                now_ms,
                kind,
                alert,
                receiver,
                &message.dedup_key,
                detail,
            ));
        }
        events.into_iter().for_each(|e| self.event(e));
    }

    fn event(&mut self, event: AlertEvent) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.stats.dropped_events += 1;
        }
        self.events.push_back(event);
    }

    /// A number in 0..1 (xorshift64): jitter needs spread, not secrecy.
    fn roll(&mut self) -> f64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let mut hash = Fnv::default();
        hash.write(&self.dice.to_le_bytes());
        (hash.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn word(message: &Message) -> &'static str {
    match message.status {
        Status::Firing => "trigger",
        Status::Resolved => "resolve",
    }
}

fn event(
    now_ms: i64,
    kind: &str,
    alert: &Notification,
    receiver: &str,
    key: &str,
    detail: &str,
) -> AlertEvent {
    AlertEvent {
        t_ms: now_ms,
        kind: kind.to_owned(),
        alert: alert.name().to_owned(),
        labels: alert.labels.clone(),
        receiver: receiver.to_owned(),
        dedup_key: key.to_owned(),
        detail: detail.to_owned(),
    }
}

fn self_alert(receiver: &str, summary: &str, reason: &str, now_ms: i64) -> Notification {
    let incident = format!("delivery-{receiver}");
    Notification {
        status: Status::Firing,
        labels: Labels::from_pairs([
            ("alertname", SELF_ALERT),
            ("severity", "critical"),
            ("receiver", receiver),
            ("incident", incident.as_str()),
        ]),
        annotations: BTreeMap::from([
            (
                "summary".to_owned(),
                format!("receiver {receiver} does not take alerts: {reason}"),
            ),
            (
                "description".to_owned(),
                format!("Not delivered: {summary}"),
            ),
            (
                "runbook".to_owned(),
                "docs/runbooks.md#alertdeliveryfailed".to_owned(),
            ),
        ]),
        starts_at_ms: now_ms,
        ends_at_ms: None,
        value: "1".to_owned(),
        generator_url: String::new(),
    }
}
