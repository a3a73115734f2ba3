//! The outbox: what is to be sent, on disk before it is sent, until it is acknowledged or dead.
//!
//! Owns intents, their order for each (receiver, dedup key), collapsing, retries and dead letters. Time and dice are
//! arguments. Must not know HTTP.
//!
//! An intent that was never attempted may be superseded: a trigger by a newer trigger, a resolve by a trigger that
//! reopens. A trigger and the resolve after it are always both sent, in order.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::backoff;
use super::journal::Journal;
use super::message::Message;
use crate::notification::Status;

/// The journal is rewritten without what is done when it is longer than this, bytes.
const COMPACT_BYTES: u64 = 4 << 20;
/// How many dead letters are kept in memory for people to see.
const DEAD_KEPT: usize = 100;

/// How retries are paced, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// First wait.
    pub min_ms: i64,
    /// Longest wait.
    pub max_ms: i64,
    /// Age at which an intent becomes a dead letter.
    pub give_up_ms: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            min_ms: 1_000,
            max_ms: 300_000,
            give_up_ms: 86_400_000,
        }
    }
}

/// What became of a message that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is on disk and will be sent.
    Queued,
    /// The receiver knows it already (or never knew what it would close).
    Known,
}

/// One attempt to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The intent.
    pub id: u64,
    /// The receiver's name.
    pub receiver: String,
    /// What to send.
    pub message: Message,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver took it.
    Delivered,
    /// It may work later; the receiver may have said when (milliseconds from now).
    Retry {
        /// Why.
        reason: String,
        /// What the receiver asked for.
        after_ms: Option<i64>,
    },
    /// It will never work.
    Rejected {
        /// Why.
        reason: String,
    },
}

/// What an outcome led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Done.
    Delivered,
    /// Another attempt follows in so many milliseconds.
    WillRetry(i64),
    /// Given up.
    Dead(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Intent {
        id: u64,
        receiver: String,
        at_ms: i64,
        message: Message,
    },
    Attempt {
        id: u64,
        at_ms: i64,
        reason: String,
    },
    Ack {
        id: u64,
        at_ms: i64,
    },
    Dead {
        id: u64,
        at_ms: i64,
        reason: String,
    },
    Superseded {
        id: u64,
    },
    /// What a receiver has open: written when the journal is compacted.
    Open {
        receiver: String,
        key: String,
        content: String,
    },
}

#[derive(Debug, Clone)]
struct Intent {
    receiver: String,
    at_ms: i64,
    message: Message,
    attempts: u32,
    /// It may have reached the receiver.
    touched: bool,
    due_ms: i64,
    in_flight: bool,
}

type Slot = (String, String);

/// The outbox. Every method that changes it returns after the change is on disk.
#[derive(Debug)]
pub struct Outbox {
    journal: Option<Journal>,
    pace: Pace,
    next_id: u64,
    intents: BTreeMap<u64, Intent>,
    /// What receivers have open, with the content they were told.
    open: BTreeMap<Slot, String>,
    /// Receivers that asked to be left alone until then.
    not_before: BTreeMap<String, i64>,
    dead: Vec<(Job, String)>,
    cut_bytes: u64,
}

// === impl Outbox ===

impl Outbox {
    /// Opens the outbox in `dir` (created if needed) and replays it. Everything not acknowledged is due at once.
    pub fn open(dir: &Path) -> std::io::Result<Outbox> {
        std::fs::create_dir_all(dir)?;
        let opened = Journal::open::<Record>(&dir.join("outbox.log"))?;
        let mut outbox = Outbox::in_memory();
        outbox.cut_bytes = opened.cut_bytes;
        for record in opened.records {
            outbox.replay(record);
        }
        outbox.journal = Some(opened.journal);
        Ok(outbox)
    }

    /// An outbox that forgets when the process ends.
    #[must_use]
    pub fn in_memory() -> Outbox {
        Outbox {
            journal: None,
            pace: Pace::default(),
            next_id: 1,
            intents: BTreeMap::new(),
            open: BTreeMap::new(),
            not_before: BTreeMap::new(),
            dead: Vec::new(),
            cut_bytes: 0,
        }
    }

    /// Sets how retries are paced.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Bytes of a damaged tail that opening cut off.
    #[must_use]
    pub fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    fn replay(&mut self, record: Record) {
        match record {
            Record::Intent {
                id,
                receiver,
                at_ms,
                message,
            } => {
                self.next_id = self.next_id.max(id + 1);
                let intent = Intent {
                    receiver,
                    at_ms,
                    message,
                    attempts: 0,
                    touched: true,
                    due_ms: i64::MIN,
                    in_flight: false,
                };
                self.intents.insert(id, intent);
            }
            Record::Attempt { id, .. } => {
                if let Some(intent) = self.intents.get_mut(&id) {
                    intent.attempts += 1;
                }
            }
            Record::Ack { id, .. } => self.settle(id, true),
            Record::Dead { id, .. } => self.settle(id, false),
            Record::Superseded { id } => drop(self.intents.remove(&id)),
            Record::Open {
                receiver,
                key,
                content,
            } => drop(self.open.insert((receiver, key), content)),
        }
    }

    /// Removes an intent and notes what its receiver now has open.
    fn settle(&mut self, id: u64, delivered: bool) {
        let Some(intent) = self.intents.remove(&id) else {
            return;
        };
        let slot = (intent.receiver, intent.message.dedup_key.clone());
        match intent.message.status {
            Status::Firing if delivered => {
                drop(self.open.insert(slot, intent.message.content_hash()))
            }
            Status::Firing => {}
            Status::Resolved => drop(self.open.remove(&slot)),
        }
    }

    /// Whether the receiver has an open incident of this key, or will have when everything queued is sent.
    #[must_use]
    pub fn will_be_open(&self, receiver: &str, key: &str) -> bool {
        self.expected(receiver, key).is_some()
    }

    /// The content that the receiver will know when everything queued is sent; `None` for nothing open.
    fn expected(&self, receiver: &str, key: &str) -> Option<String> {
        let queued = self.queued(receiver, key).next_back();
        match queued {
            Some((_, i)) if i.message.status == Status::Firing => Some(i.message.content_hash()),
            Some(_) => None,
            None => self
                .open
                .get(&(receiver.to_owned(), key.to_owned()))
                .cloned(),
        }
    }

    fn queued<'a>(
        &'a self,
        receiver: &'a str,
        key: &'a str,
    ) -> impl DoubleEndedIterator<Item = (&'a u64, &'a Intent)> {
        let same = move |i: &Intent| i.receiver == receiver && i.message.dedup_key == key;
        self.intents.iter().filter(move |(_, i)| same(i))
    }

    /// Queues a message for a receiver, unless the receiver knows it already. With `repeat` it is queued though its
    /// content is known. On disk when this returns.
    pub fn intend(
        &mut self,
        receiver: &str,
        message: &Message,
        now_ms: i64,
        repeat: bool,
    ) -> std::io::Result<Decision> {
        let key = &message.dedup_key;
        let expected = self.expected(receiver, key);
        match (message.status, &expected) {
            (Status::Resolved, None) => return Ok(Decision::Known),
            (Status::Firing, Some(content)) if *content == message.content_hash() && !repeat => {
                return Ok(Decision::Known);
            }
            _ => {}
        }
        let superseded = self.superseded_by(receiver, message);
        let id = self.next_id;
        let mut records: Vec<Record> = superseded
            .iter()
            .map(|id| Record::Superseded { id: *id })
            .collect();
        records.push(Record::Intent {
            id,
            receiver: receiver.to_owned(),
            at_ms: now_ms,
            message: message.clone(),
        });
        self.write(&records)?;
        self.next_id += 1;
        superseded
            .iter()
            .for_each(|id| drop(self.intents.remove(id)));
        let intent = Intent {
            receiver: receiver.to_owned(),
            at_ms: now_ms,
            message: message.clone(),
            attempts: 0,
            touched: false,
            due_ms: now_ms,
            in_flight: false,
        };
        self.intents.insert(id, intent);
        Ok(Decision::Queued)
    }

    /// Intents that a new message makes pointless: a trigger replaces everything of its key that was never attempted.
    fn superseded_by(&self, receiver: &str, message: &Message) -> Vec<u64> {
        if message.status == Status::Resolved {
            return Vec::new();
        }
        self.queued(receiver, &message.dedup_key)
            .filter(|(_, i)| !i.touched)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Takes up to `max` attempts that are due: of each (receiver, key) only the oldest intent.
    pub fn take_due(&mut self, now_ms: i64, max: usize) -> Vec<Job> {
        let mut heads: std::collections::BTreeSet<Slot> = std::collections::BTreeSet::new();
        let mut jobs = Vec::new();
        for (id, intent) in &mut self.intents {
            let slot = (intent.receiver.clone(), intent.message.dedup_key.clone());
            let wait = self
                .not_before
                .get(&intent.receiver)
                .copied()
                .unwrap_or(i64::MIN);
            let is_head = heads.insert(slot);
            if !is_head || intent.in_flight || intent.due_ms.max(wait) > now_ms || jobs.len() >= max
            {
                continue;
            }
            intent.in_flight = true;
            intent.touched = true;
            jobs.push(Job {
                id: *id,
                receiver: intent.receiver.clone(),
                message: intent.message.clone(),
                attempt: intent.attempts + 1,
            });
        }
        jobs
    }

    /// When the next attempt is due, Unix milliseconds; `None` when nothing waits.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<i64> {
        let mut heads: std::collections::BTreeSet<(&str, &str)> = std::collections::BTreeSet::new();
        let mut next: Option<i64> = None;
        for intent in self.intents.values() {
            let is_head = heads.insert((&intent.receiver, &intent.message.dedup_key));
            if is_head && !intent.in_flight {
                let wait = self
                    .not_before
                    .get(&intent.receiver)
                    .copied()
                    .unwrap_or(i64::MIN);
                let due = intent.due_ms.max(wait);
                next = Some(next.map_or(due, |n| n.min(due)));
            }
        }
        next
    }

    /// Notes how an attempt ended. `dice` is in 0..1. `None` when the intent is not known.
    pub fn finish(
        &mut self,
        id: u64,
        outcome: Outcome,
        now_ms: i64,
        dice: f64,
    ) -> std::io::Result<Option<Verdict>> {
        let pace = self.pace;
        let Some(intent) = self.intents.get_mut(&id) else {
            return Ok(None);
        };
        intent.in_flight = false;
        intent.attempts += 1;
        let (verdict, record) = match outcome {
            Outcome::Delivered => (Verdict::Delivered, Record::Ack { id, at_ms: now_ms }),
            Outcome::Rejected { reason } => (
                Verdict::Dead(reason.clone()),
                Record::Dead {
                    id,
                    at_ms: now_ms,
                    reason,
                },
            ),
            Outcome::Retry { reason, .. } if now_ms - intent.at_ms >= pace.give_up_ms => {
                let age = model::duration::format_ms((now_ms - intent.at_ms) / 1000 * 1000);
                let reason = format!(
                    "gave up after {age} and {} attempts: {reason}",
                    intent.attempts
                );
                (
                    Verdict::Dead(reason.clone()),
                    Record::Dead {
                        id,
                        at_ms: now_ms,
                        reason,
                    },
                )
            }
            Outcome::Retry { reason, after_ms } => {
                let wait = match after_ms {
                    Some(ms) => backoff::obey(ms, dice),
                    None => backoff::full_jitter(intent.attempts, pace.min_ms, pace.max_ms, dice),
                };
                intent.due_ms = now_ms + wait;
                if after_ms.is_some() {
                    self.not_before
                        .insert(intent.receiver.clone(), now_ms + wait);
                }
                (
                    Verdict::WillRetry(wait),
                    Record::Attempt {
                        id,
                        at_ms: now_ms,
                        reason,
                    },
                )
            }
        };
        self.conclude(id, &verdict);
        self.write(&[record])?;
        self.compact()?;
        Ok(Some(verdict))
    }

    fn conclude(&mut self, id: u64, verdict: &Verdict) {
        match verdict {
            Verdict::Delivered => self.settle(id, true),
            Verdict::WillRetry(_) => {}
            Verdict::Dead(reason) => {
                if let Some(intent) = self.intents.get(&id) {
                    let job = Job {
                        id,
                        receiver: intent.receiver.clone(),
                        message: intent.message.clone(),
                        attempt: intent.attempts,
                    };
                    if self.dead.len() == DEAD_KEPT {
                        self.dead.remove(0);
                    }
                    self.dead.push((job, reason.clone()));
                }
                self.settle(id, false);
            }
        }
    }

    /// Intents that wait or are being sent.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.intents.len()
    }

    /// The last dead letters with their reasons, oldest first.
    #[must_use]
    pub fn dead_letters(&self) -> &[(Job, String)] {
        &self.dead
    }

    /// (receiver, dedup key) of every incident that is open at a receiver.
    pub fn open_incidents(&self) -> impl Iterator<Item = (&str, &str)> {
        self.open.keys().map(|(r, k)| (r.as_str(), k.as_str()))
    }

    fn write(&mut self, records: &[Record]) -> std::io::Result<()> {
        match &mut self.journal {
            Some(journal) => journal.append(records),
            None => Ok(()),
        }
    }

    fn compact(&mut self) -> std::io::Result<()> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        if journal.bytes < COMPACT_BYTES {
            return Ok(());
        }
        let open = self
            .open
            .iter()
            .map(|((receiver, key), content)| Record::Open {
                receiver: receiver.clone(),
                key: key.clone(),
                content: content.clone(),
            });
        let waiting = self.intents.iter().map(|(id, i)| Record::Intent {
            id: *id,
            receiver: i.receiver.clone(),
            at_ms: i.at_ms,
            message: i.message.clone(),
        });
        let records: Vec<Record> = open.chain(waiting).collect();
        journal.rewrite(&records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::Notification;
    use model::Labels;
    use proptest::prelude::*;

    fn message(status: Status, key: &str, starts_at_ms: i64) -> Message {
        Message {
            status,
            dedup_key: key.to_owned(),
            group_labels: Labels::empty(),
            alerts: vec![Notification {
                status,
                labels: Labels::from_pairs([("alertname", key)]),
                annotations: BTreeMap::new(),
                starts_at_ms,
                ends_at_ms: None,
                value: "1".into(),
                generator_url: String::new(),
            }],
            external_url: String::new(),
            note: None,
        }
    }

    fn trigger(start: i64) -> Message {
        message(Status::Firing, "k", start)
    }

    fn resolve() -> Message {
        message(Status::Resolved, "k", 0)
    }

    fn drain(outbox: &mut Outbox) -> String {
        let mut sent = String::new();
        while let [job] = outbox.take_due(i64::MAX, 1).as_slice() {
            sent.push(match job.message.status {
                Status::Firing => 'T',
                Status::Resolved => 'R',
            });
            outbox.finish(job.id, Outcome::Delivered, 0, 0.5).unwrap();
        }
        sent
    }

    #[test]
    fn knows_what_receivers_know() {
        let mut o = Outbox::in_memory();
        assert_eq!(
            o.intend("r", &resolve(), 0, false).unwrap(),
            Decision::Known
        );
        assert_eq!(
            o.intend("r", &trigger(1), 0, false).unwrap(),
            Decision::Queued
        );
        assert_eq!(
            o.intend("r", &trigger(1), 0, false).unwrap(),
            Decision::Known
        );
        assert_eq!(drain(&mut o), "T");
        assert_eq!(
            o.intend("r", &trigger(1), 0, false).unwrap(),
            Decision::Known
        );
        assert_eq!(
            o.intend("r", &trigger(1), 0, true).unwrap(),
            Decision::Queued
        );
        assert_eq!(
            o.intend("r", &resolve(), 0, false).unwrap(),
            Decision::Queued
        );
        assert_eq!(
            o.intend("r", &resolve(), 0, false).unwrap(),
            Decision::Known
        );
        assert_eq!(drain(&mut o), "TR");
    }

    #[test]
    fn collapses_what_was_never_attempted() {
        let mut o = Outbox::in_memory();
        for i in 0..5 {
            o.intend("r", &trigger(i), 0, false).unwrap();
            o.intend("r", &resolve(), 0, false).unwrap();
        }
        // The last episode, whole and in order.
        assert_eq!(drain(&mut o), "TR");
        // What may have been received is not withdrawn.
        o.intend("r", &trigger(7), 0, false).unwrap();
        let job = o.take_due(0, 1).remove(0);
        o.intend("r", &resolve(), 0, false).unwrap();
        o.intend("r", &trigger(8), 0, false).unwrap();
        assert!(o.take_due(0, 9).is_empty(), "one at a time for each key");
        o.finish(job.id, Outcome::Delivered, 0, 0.0).unwrap();
        assert_eq!(drain(&mut o), "T");
    }

    #[test]
    fn retries_gives_up_and_obeys() {
        let mut o = Outbox::in_memory();
        o.intend("r", &trigger(1), 0, false).unwrap();
        let retry = |after_ms| Outcome::Retry {
            reason: "status 503".into(),
            after_ms,
        };
        let id = o.take_due(0, 1)[0].id;
        assert_eq!(
            o.finish(id, retry(None), 0, 1.0).unwrap(),
            Some(Verdict::WillRetry(1_000))
        );
        assert!(o.take_due(999, 1).is_empty());
        assert_eq!(o.next_due_ms(), Some(1_000));
        assert_eq!(o.take_due(1_000, 1)[0].attempt, 2);
        assert_eq!(
            o.finish(id, retry(Some(30_000)), 1_000, 0.0).unwrap(),
            Some(Verdict::WillRetry(30_000))
        );
        // The receiver asked for quiet: other incidents wait as well.
        o.intend("r", &message(Status::Firing, "other", 1), 1_000, false)
            .unwrap();
        assert!(o.take_due(30_999, 9).is_empty());
        assert_eq!(o.take_due(31_000, 9).len(), 2);
        let verdict = o.finish(id, retry(None), 86_400_000, 0.0).unwrap().unwrap();
        assert!(
            matches!(verdict, Verdict::Dead(r) if r.contains("gave up after 24h") || r.contains("gave up after 1d"))
        );
        assert_eq!(o.dead_letters().len(), 1);
        assert!(!o.will_be_open("r", "k"));
    }

    #[test]
    fn compaction_keeps_what_is_open_and_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let mut o = Outbox::open(dir.path()).unwrap();
        let mut big = message(Status::Firing, "open", 1);
        big.note = Some("x".repeat(1 << 20));
        for _ in 0..6 {
            o.intend("r", &big, 0, true).unwrap();
            let id = o.take_due(0, 1)[0].id;
            o.finish(id, Outcome::Delivered, 0, 0.0).unwrap();
        }
        o.intend("r", &trigger(1), 0, false).unwrap();
        let length = std::fs::metadata(dir.path().join("outbox.log"))
            .unwrap()
            .len();
        assert!(length < COMPACT_BYTES, "{length}");
        let o = Outbox::open(dir.path()).unwrap();
        assert!(o.will_be_open("r", "open") && o.will_be_open("r", "k"));
        assert_eq!(o.pending(), 1);
    }

    /// What happens in a run: news, an attempt that ends in some way, a crash.
    #[derive(Debug, Clone)]
    enum Step {
        Fire,
        Resolve,
        Attempt(u8),
        Crash,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Fire),
            Just(Step::Resolve),
            (0u8..4).prop_map(Step::Attempt),
            Just(Step::Crash)
        ];
        proptest::collection::vec(step, 1..25)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever fails and whenever the process dies: in the end the receiver has open exactly what fires, every
        /// episode that was acknowledged was announced before it was closed, and nothing is left over.
        #[test]
        fn no_lost_page_no_stuck_incident(steps in steps()) {
            let dir = tempfile::tempdir().unwrap();
            let mut outbox = Outbox::open(dir.path()).unwrap();
            let (mut fires, mut episode, mut receiver_open) = (false, 0, false);
            let mut announced = 0;
            for step in steps {
                match step {
                    Step::Fire => {
                        if !fires { episode += 1; }
                        fires = true;
                        outbox.intend("r", &trigger(episode), 0, false).unwrap();
                    }
                    Step::Resolve => {
                        fires = false;
                        outbox.intend("r", &resolve(), 0, false).unwrap();
                    }
                    Step::Attempt(how) => {
                        let Some(job) = outbox.take_due(i64::MAX / 2, 1).pop() else { continue };
                        // 0: refused before it arrived; 1: arrived, answer lost; 2, 3: delivered.
                        if how > 0 {
                            receiver_open = job.message.status == Status::Firing;
                            announced = announced.max(job.message.alerts[0].starts_at_ms);
                        }
                        let outcome = if how > 1 { Outcome::Delivered } else {
                            Outcome::Retry { reason: "x".into(), after_ms: None }
                        };
                        outbox.finish(job.id, outcome, 0, 0.5).unwrap();
                    }
                    Step::Crash => {
                        drop(outbox.take_due(i64::MAX / 2, 1));
                        outbox = Outbox::open(dir.path()).unwrap();
                        // The rule engine tells again what it knows.
                        if fires { outbox.intend("r", &trigger(episode), 0, false).unwrap(); }
                        else { outbox.intend("r", &resolve(), 0, false).unwrap(); }
                    }
                }
            }
            while let Some(job) = outbox.take_due(i64::MAX / 2, 1).pop() {
                receiver_open = job.message.status == Status::Firing;
                announced = announced.max(job.message.alerts[0].starts_at_ms);
                outbox.finish(job.id, Outcome::Delivered, 0, 0.5).unwrap();
            }
            prop_assert_eq!(receiver_open, fires);
            prop_assert_eq!(announced, episode, "the last episode was announced");
            prop_assert_eq!(outbox.pending(), 0);
        }
    }
}
