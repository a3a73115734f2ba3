//! [`Ingest`]: the one door through which samples, metadata, exemplars and collected log lines reach what keeps them.
//!
//! Owns the handle, its counters and the table of targets that `/api/v1/targets` shows. Receivers and collectors write
//! through it and never see what is behind it: the store in the agent, a bounded memory in tests. Must not know where a
//! sample came from, nor any wire format.

mod memory;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use model::log::LogRecord;
use model::source::{Exemplar, Metadata};
use model::{Labels, Source};

pub use model::Value;

use crate::failure::Failure;
use crate::flush::Flushes;

pub use memory::Memory;

/// One sample of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The series' identity, `__name__` included.
    pub labels: Labels,
    /// When, Unix milliseconds.
    pub t_ms: i64,
    /// When what it counts began to be counted, Unix milliseconds; 0 when that is not known.
    pub start_ms: i64,
    /// A float (a stale NaN ends the series) or a native histogram.
    pub value: Value,
}

impl Sample {
    /// A float sample.
    #[must_use]
    pub fn float(labels: Labels, t_ms: i64, value: f64) -> Self {
        Sample {
            labels,
            t_ms,
            start_ms: 0,
            value: Value::Float(value),
        }
    }

    /// The same sample, which began to count at `start_ms`.
    #[must_use]
    pub fn started(self, start_ms: i64) -> Self {
        Sample { start_ms, ..self }
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appended {
    /// Samples kept.
    pub appended: u64,
    /// Refused: older than the newest of their series (or than the store accepts).
    pub out_of_order: u64,
    /// Refused: the series has another value at that instant.
    pub duplicate: u64,
    /// Refused: one series too many.
    pub cardinality: u64,
    /// Lost because the disk refused the write.
    pub failed: u64,
}

impl Appended {
    /// Adds another batch's report.
    pub fn add(&mut self, other: &Appended) {
        self.appended += other.appended;
        self.out_of_order += other.out_of_order;
        self.duplicate += other.duplicate;
        self.cardinality += other.cardinality;
        self.failed += other.failed;
    }

    /// Samples that were not kept.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.out_of_order + self.duplicate + self.cardinality + self.failed
    }
}

/// Samples handed to [`Ingest::append`] since the start, by what became of them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Kept.
    pub appended: AtomicU64,
    /// Refused as out of order.
    pub out_of_order: AtomicU64,
    /// Refused as a second value for an instant.
    pub duplicate: AtomicU64,
    /// Refused because there are too many series.
    pub cardinality: AtomicU64,
    /// Lost to a failing disk.
    pub failed: AtomicU64,
}

/// What a collector knows about one of its targets; the row of `/api/v1/targets`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Target {
    /// The job, which is also the scrape pool's name.
    pub job: String,
    /// The URL that is scraped or probed.
    pub url: String,
    /// Labels before relabelling.
    pub discovered: Labels,
    /// Labels that its samples carry.
    pub labels: Labels,
    /// Whether the last attempt succeeded; `None` before the first.
    pub up: Option<bool>,
    /// The last error, or empty.
    pub last_error: String,
    /// When the last attempt began, Unix milliseconds.
    pub last_ms: i64,
    /// How long it took, seconds.
    pub duration_seconds: f64,
    /// How often it is tried, milliseconds.
    pub interval_ms: i64,
    /// When an attempt is given up, milliseconds.
    pub timeout_ms: i64,
}

/// Writes samples to what keeps them. Cheap to clone; every clone is the same door.
#[derive(Clone)]
pub struct Ingest {
    inner: Arc<Inner>,
}

struct Inner {
    behind: Behind,
    logs: OnceLock<LogSink>,
    forward: OnceLock<ForwardSink>,
    counters: Counters,
    targets: Mutex<BTreeMap<(String, String), Target>>,
    flushes: Flushes,
    failure: Failure,
}

/// What is behind the door.
enum Behind {
    Memory(Memory),
    Store(store::Store),
}

/// Takes samples for other servers before they are kept; false when it could not.
type ForwardSink = Box<dyn Fn(&[Sample]) -> bool + Send + Sync>;

/// Takes log records; returns how many it kept.
type LogSink = Box<dyn Fn(&[LogRecord]) -> usize + Send + Sync>;

// === impl Ingest ===

impl Ingest {
    /// A door to a bounded memory, for tests: keeps at most `max_samples` and refuses what comes after.
    #[must_use]
    pub fn in_memory(max_samples: usize) -> Self {
        Ingest::before(Behind::Memory(Memory::new(max_samples)))
    }

    /// The door to a store.
    #[must_use]
    pub fn to_store(store: store::Store) -> Self {
        Ingest::before(Behind::Store(store))
    }

    fn before(behind: Behind) -> Self {
        Ingest {
            inner: Arc::new(Inner {
                behind,
                logs: OnceLock::new(),
                forward: OnceLock::new(),
                counters: Counters::default(),
                targets: Mutex::default(),
                flushes: Flushes::default(),
                failure: Failure::default(),
            }),
        }
    }

    /// Keeps a batch. When it returns, what was appended is queryable and survives `kill -9` (in front of a store).
    /// Refused samples are counted, never an error. Blocks for one write of the log; cheap enough for async callers
    /// with batches below about 10 000 samples.
    pub fn append(&self, samples: &[Sample]) -> Appended {
        // First the queue: what is acknowledged must be in it, even if we are killed between the two.
        let forward = self.inner.forward.get();
        if !samples.is_empty() && forward.is_some_and(|forward| !forward(samples)) {
            let report = Appended {
                failed: samples.len() as u64,
                ..Appended::default()
            };
            self.count(&report);
            return report;
        }
        let report = match &self.inner.behind {
            Behind::Memory(memory) => memory.append(samples),
            Behind::Store(store) => self.append_to(store, samples),
        };
        self.count(&report);
        report
    }

    fn append_to(&self, store: &store::Store, samples: &[Sample]) -> Appended {
        let by_ref: Vec<store::SampleRef<'_>> = samples
            .iter()
            .map(|s| store::SampleRef {
                labels: &s.labels,
                t_ms: s.t_ms,
                start_ms: s.start_ms,
                value: s.value.clone(),
            })
            .collect();
        let result = store.append(&by_ref);
        self.inner.failure.note(&result);
        appended(result, samples.len())
    }

    /// Why the store refused what it refused last.
    pub(crate) fn failure(&self) -> String {
        self.inner.failure.words()
    }

    /// The store whose ids [`Ingest::append_packed`] takes, if there is one: nobody else takes samples then.
    #[must_use]
    pub fn by_id(&self) -> Option<&store::Store> {
        match (&self.inner.behind, self.inner.forward.get()) {
            (Behind::Store(store), None) => Some(store),
            _ => None,
        }
    }

    /// [`Ingest::append`] of floats by packed labels, or by ids of [`Ingest::by_id`]: cheaper when a store is behind, and
    /// nobody else takes samples. `None`, and nothing is appended, when an id is no longer valid: then gather the batch
    /// without ids.
    pub fn append_packed(&self, batch: &store::PackedBatch) -> Option<Appended> {
        if let Some(store) = self.by_id() {
            let result = store.append_packed(batch);
            if result.as_ref().is_ok_and(|r| !r.stale_ids.is_empty()) {
                return None;
            }
            self.inner.failure.note(&result);
            let report = appended(result, batch.len());
            self.count(&report);
            return Some(report);
        }
        let samples: Option<Vec<Sample>> = batch
            .iter()
            .map(|(series, t_ms, value)| match series {
                store::SeriesName::Packed(packed) => {
                    let labels = Labels::from_packed(packed).ok()?;
                    Some(Sample::float(labels, t_ms, value))
                }
                store::SeriesName::Id(_) => None,
            })
            .collect();
        Some(self.append(&samples?))
    }

    /// Keeps what is known about the metric `name` (for histograms the name without suffix).
    pub fn metadata(&self, name: &str, metadata: Metadata) {
        match &self.inner.behind {
            Behind::Memory(memory) => memory.set_metadata(name, metadata),
            // Metadata that could not be written comes again with the next request.
            Behind::Store(store) => drop(store.set_metadata(&[(name, metadata)])),
        }
    }

    /// Keeps exemplars of series. They are a sample by nature: what the disk refuses is lost.
    pub fn exemplars(&self, exemplars: &[(Labels, Exemplar)]) {
        match &self.inner.behind {
            Behind::Memory(memory) => memory.append_exemplars(exemplars),
            Behind::Store(store) => {
                let by_ref: Vec<(&Labels, Exemplar)> =
                    exemplars.iter().map(|(l, e)| (l, e.clone())).collect();
                drop(store.append_exemplars(&by_ref));
            }
        }
    }

    /// Keeps log records that a collector read (a tailed file). Returns how many were kept.
    pub fn logs(&self, records: &[LogRecord]) -> usize {
        match (&self.inner.behind, self.inner.logs.get()) {
            (_, Some(sink)) => sink(records),
            (Behind::Memory(memory), None) => memory.append_logs(records),
            (Behind::Store(_), None) => 0,
        }
    }

    /// Says where log records go. The first call counts.
    pub(crate) fn set_log_sink(
        &self,
        sink: impl Fn(&[LogRecord]) -> usize + Send + Sync + 'static,
    ) {
        drop(self.inner.logs.set(Box::new(sink)));
    }

    /// Says who takes samples for other servers. The first call counts.
    pub(crate) fn set_forward(&self, sink: impl Fn(&[Sample]) -> bool + Send + Sync + 'static) {
        drop(self.inner.forward.set(Box::new(sink)));
    }

    /// Reads back what was appended.
    #[must_use]
    pub fn source(&self) -> Arc<dyn Source> {
        match &self.inner.behind {
            Behind::Memory(memory) => Arc::new(memory.clone()),
            Behind::Store(store) => Arc::new(store.clone()),
        }
    }

    /// Where flushes are asked for. A collector that polls subscribes, polls at once on every request, and drops the
    /// ticket when its samples are appended; so `POST /api/nines/v1/flush` leaves nothing behind.
    #[must_use]
    pub fn flushes(&self) -> &Flushes {
        &self.inner.flushes
    }

    /// The counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Writes a target's row (keyed by job and URL): after every attempt, and once before the first.
    pub fn report_target(&self, target: Target) {
        let key = (target.job.clone(), target.url.clone());
        self.lock_targets().insert(key, target);
    }

    /// Removes a target that is no longer configured.
    pub fn forget_target(&self, job: &str, url: &str) {
        self.lock_targets()
            .remove(&(job.to_owned(), url.to_owned()));
    }

    /// All targets, by job and URL.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        self.lock_targets().values().cloned().collect()
    }

    fn lock_targets(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Target>> {
        self.inner
            .targets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, report: &Appended) {
        let counters = &self.inner.counters;
        for (counter, n) in [
            (&counters.appended, report.appended),
            (&counters.out_of_order, report.out_of_order),
            (&counters.duplicate, report.duplicate),
            (&counters.cardinality, report.cardinality),
            (&counters.failed, report.failed),
        ] {
            if n > 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        }
    }
}

/// The store's report as ours.
fn appended(report: Result<store::AppendReport, store::StoreError>, samples: usize) -> Appended {
    match report {
        Ok(report) => Appended {
            appended: report.appended,
            out_of_order: report.out_of_order,
            duplicate: report.duplicate,
            cardinality: report.rejected_cardinality,
            failed: 0,
        },
        Err(_) => Appended {
            failed: samples as u64,
            ..Appended::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Matcher, SelectRequest};

    #[test]
    fn what_is_appended_is_read_back_and_the_rest_is_counted() {
        let ingest = Ingest::in_memory(3);
        let up = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        let sample = |t, v| Sample::float(up.clone(), t, v);
        let report = ingest.append(&[
            sample(1, 1.0),
            sample(1, 2.0),
            sample(0, 1.0),
            sample(2, 0.0),
        ]);
        assert_eq!(
            (report.appended, report.duplicate, report.out_of_order),
            (2, 1, 1)
        );
        ingest.append(&[sample(3, 1.0), sample(4, 1.0)]);
        assert_eq!(ingest.counters().cardinality.load(Ordering::Relaxed), 1);
        let matchers = [Matcher::equal("__name__", "up")];
        let read = ingest
            .source()
            .select(&SelectRequest {
                matchers: &matchers,
                start_ms: 0,
                end_ms: 10,
                max_points: 10,
            })
            .unwrap();
        assert_eq!(read[0].points.t_ms, [1, 2, 3]);
    }

    #[test]
    fn targets_are_one_row_each() {
        let ingest = Ingest::in_memory(0);
        for up in [None, Some(true)] {
            ingest.report_target(Target {
                job: "a".into(),
                url: "http://127.0.0.1:1/metrics".into(),
                up,
                ..Target::default()
            });
        }
        assert_eq!(ingest.targets().len(), 1);
        assert_eq!(ingest.targets()[0].up, Some(true));
        ingest.forget_target("a", "http://127.0.0.1:1/metrics");
        assert!(ingest.targets().is_empty());
    }
}
