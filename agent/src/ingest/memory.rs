//! A bounded memory of samples that implements `Source`, for tests of collectors and receivers.
//!
//! Owns nothing that lasts. Must not know files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::log::LogRecord;
use model::source::{Exemplar, Metadata, SelectRequest};
use model::{Labels, Points, SeriesData, Source, SourceError, Value};

use super::{Appended, Sample};

/// Series in memory. Clones share their content.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    room: usize,
    series: BTreeMap<Labels, Points>,
    metadata: BTreeMap<String, Metadata>,
    exemplars: BTreeMap<Labels, Vec<Exemplar>>,
    logs: Vec<LogRecord>,
}

// === impl Memory ===

impl Memory {
    /// Room for `max_samples` samples, and as many exemplars and log records.
    #[must_use]
    pub fn new(max_samples: usize) -> Self {
        Memory {
            inner: Arc::new(Mutex::new(Inner {
                room: max_samples,
                series: BTreeMap::new(),
                metadata: BTreeMap::new(),
                exemplars: BTreeMap::new(),
                logs: Vec::new(),
            })),
        }
    }

    /// Appends in order of time per series; see [`super::Ingest::append`].
    pub fn append(&self, samples: &[Sample]) -> Appended {
        let mut report = Appended::default();
        let mut inner = self.lock();
        for sample in samples {
            if inner.room == 0 {
                report.cardinality += 1;
                continue;
            }
            let points = inner.series.entry(sample.labels.clone()).or_default();
            match points.t_ms.last() {
                Some(last) if *last > sample.t_ms => report.out_of_order += 1,
                Some(last) if *last == sample.t_ms => {
                    if !same(&points.value(points.len() - 1), &sample.value) {
                        report.duplicate += 1;
                    }
                }
                _ => {
                    points.push(sample.t_ms, sample.value.clone());
                    report.appended += 1;
                    inner.room -= 1;
                }
            }
        }
        report
    }

    /// Log records appended so far.
    #[must_use]
    pub fn logs(&self) -> Vec<LogRecord> {
        self.lock().logs.clone()
    }

    pub(super) fn set_metadata(&self, name: &str, metadata: Metadata) {
        self.lock().metadata.insert(name.to_owned(), metadata);
    }

    pub(super) fn append_exemplars(&self, exemplars: &[(Labels, Exemplar)]) {
        let mut inner = self.lock();
        let room = inner.room;
        for (series, exemplar) in exemplars.iter().take(room) {
            let kept = inner.exemplars.entry(series.clone()).or_default();
            kept.push(exemplar.clone());
        }
    }

    pub(super) fn append_logs(&self, records: &[LogRecord]) -> usize {
        let mut inner = self.lock();
        let kept = records.len().min(inner.room);
        inner.logs.extend(records[..kept].iter().cloned());
        kept
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

impl Source for Memory {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        let inner = self.lock();
        let mut out = Vec::new();
        let mut left = request.max_points;
        for (labels, all) in &inner.series {
            if !request.matchers.iter().all(|m| m.matches_labels(labels)) {
                continue;
            }
            let mut points = Points::default();
            for (i, t) in all.t_ms.iter().enumerate() {
                if (request.start_ms..=request.end_ms).contains(t) {
                    left = left.checked_sub(1).ok_or(SourceError::TooManyPoints {
                        limit: request.max_points,
                    })?;
                    points.push(*t, all.value(i));
                }
            }
            if !points.is_empty() {
                let labels = labels.clone();
                out.push(SeriesData { labels, points });
            }
        }
        Ok(out)
    }

    fn exemplars(
        &self,
        request: &SelectRequest<'_>,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, SourceError> {
        let inner = self.lock();
        let matching = inner
            .exemplars
            .iter()
            .filter(|(l, _)| request.matchers.iter().all(|m| m.matches_labels(l)));
        Ok(matching.map(|(l, e)| (l.clone(), e.clone())).collect())
    }

    fn metadata(&self) -> Result<BTreeMap<String, Metadata>, SourceError> {
        Ok(self.lock().metadata.clone())
    }
}
