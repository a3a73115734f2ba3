//! Taking samples in: find or make the series, write the log, then change memory.
//!
//! Owns the order of those steps: nothing is in memory that is not in the log, nothing is acknowledged that is not
//! written. Must not know how samples are kept.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use model::source::{Exemplar, Metadata};
use model::{Labels, NativeHistogram, Value};

use crate::cardinality::Admission;
use crate::error::StoreError;
use crate::exemplars::MAX_LABEL_BYTES;
use crate::head::{Head, SeriesId};
use crate::options::Fsync;
use crate::packed::{Finder, PackedBatch, SeriesName};
use crate::record::Batch;
use crate::series::{Outcome, Series};
use crate::stats;
use crate::store::{Log, State, Store};
use crate::sync::lock;
use crate::wal::{BATCH, RECORD_HEADER};

/// Samples in one log record, at most; larger appends are split.
const MAX_BATCH: usize = 200_000;

/// Bytes of one log record, at most.
const MAX_RECORD: usize = 1 << 30;

/// One sample and whose it is.
#[derive(Debug, Clone)]
pub struct SampleRef<'a> {
    /// The series, its name included.
    pub labels: &'a Labels,
    /// When, Unix milliseconds.
    pub t_ms: i64,
    /// When what it counts began to be counted, Unix milliseconds; 0 when that is not known.
    pub start_ms: i64,
    /// What.
    pub value: Value,
}

// === impl SampleRef ===

impl<'a> SampleRef<'a> {
    /// A float sample.
    #[must_use]
    pub fn float(labels: &'a Labels, t_ms: i64, value: f64) -> Self {
        SampleRef {
            labels,
            t_ms,
            start_ms: 0,
            value: Value::Float(value),
        }
    }

    /// A histogram sample.
    #[must_use]
    pub fn histogram(labels: &'a Labels, t_ms: i64, value: Arc<NativeHistogram>) -> Self {
        SampleRef {
            labels,
            t_ms,
            start_ms: 0,
            value: Value::Histogram(value),
        }
    }

    /// The same sample, which began to count at `start_ms` (0: not known).
    #[must_use]
    pub fn started(self, start_ms: i64) -> Self {
        SampleRef { start_ms, ..self }
    }
}

/// One float sample of a series whose id is known: the fast way in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IdSample {
    /// The series, from [`Store::series_id`].
    pub id: SeriesId,
    /// When, Unix milliseconds.
    pub t_ms: i64,
    /// What.
    pub value: f64,
}

/// What became of the samples of one append.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppendReport {
    /// Stored, and in the log.
    pub appended: u64,
    /// Refused: older than the window for late samples, or than retention.
    pub out_of_order: u64,
    /// Refused: there is a sample of that series at that time (the first one stays).
    pub duplicate: u64,
    /// Folded into an overflow series, or refused, because of a limit on the number of series.
    pub rejected_cardinality: u64,
    /// Positions in the call of samples whose id is no longer valid; ask for a new id and send them again.
    pub stale_ids: Vec<usize>,
}

const REFUSED: u32 = u32::MAX;

/// Series, time, start time, value.
type FloatSample = (u32, i64, i64, f64);

/// The same of a histogram.
type HistogramSample = (u32, i64, i64, Arc<NativeHistogram>);

/// Samples that fold into overflow series: added up per series and time within one batch.
type Folded = BTreeMap<(u32, i64), f64>;

// === impl Store ===

impl Store {
    /// Appends samples as one batch: when this returns they survive the death of the process. On an error nothing of
    /// the batch is kept (of more than 200,000 samples, whole batches of that size may be; and when only the sync of
    /// `fsync: every append` fails, the samples are kept but may not survive a power cut).
    pub fn append(&self, samples: &[SampleRef<'_>]) -> Result<AppendReport, StoreError> {
        let mut report = AppendReport::default();
        for part in samples.chunks(MAX_BATCH) {
            self.append_batch(part, &mut report)?;
        }
        self.settle()?;
        Ok(report)
    }

    fn append_batch(
        &self,
        samples: &[SampleRef<'_>],
        report: &mut AppendReport,
    ) -> Result<(), StoreError> {
        let mut log = lock(&self.inner.log);
        let slots = self.resolve(samples.iter().map(|s| Named::Labels(s.labels)));
        let mut floats = Vec::with_capacity(samples.len());
        let mut histograms = Vec::new();
        for (sample, slot) in samples.iter().zip(slots) {
            if slot == REFUSED {
                report.rejected_cardinality += 1;
                stats::add(&self.inner.counters.rejected_cardinality, 1);
                continue;
            }
            match &sample.value {
                Value::Float(v) => floats.push((slot, sample.t_ms, sample.start_ms, *v)),
                Value::Histogram(h) => {
                    h.validate()
                        .map_err(|e| StoreError::Invalid(e.to_string()))?;
                    histograms.push((slot, sample.t_ms, sample.start_ms, Arc::clone(h)));
                }
            }
        }
        self.commit(&mut log, floats.iter().copied(), &histograms, report)
    }

    /// The id of a series, which is made when it does not exist. With too many series it may be that of an overflow
    /// series, or one whose samples are refused and counted.
    #[must_use]
    pub fn series_id(&self, labels: &Labels) -> SeriesId {
        let _log = lock(&self.inner.log);
        match self.resolve(std::iter::once(Named::Labels(labels))).first() {
            Some(slot) if *slot != REFUSED => self.read().head.id(*slot),
            _ => SeriesId::REFUSED,
        }
    }

    /// Appends floats of series whose ids are known, as [`Store::append`] does.
    pub fn append_ids(&self, samples: &[IdSample]) -> Result<AppendReport, StoreError> {
        let mut report = AppendReport::default();
        let mut log = lock(&self.inner.log);
        for (index, part) in samples.chunks(MAX_BATCH).enumerate() {
            if !self.commit_ids(&mut log, part, &mut report)? {
                self.append_some(&mut log, part, index * MAX_BATCH, &mut report)?;
            }
        }
        drop(log);
        self.settle()?;
        Ok(report)
    }

    /// Appends floats of series that are named by packed labels or ids, as [`Store::append`] does: the fast way in for
    /// series whose ids are not all known. When an id is no longer valid nothing is appended, and the report's
    /// `stale_ids` is not empty: gather the batch again without ids.
    pub fn append_packed(&self, batch: &PackedBatch) -> Result<AppendReport, StoreError> {
        let mut report = AppendReport::default();
        let all = batch.iter();
        let mut log = lock(&self.inner.log);
        {
            let state = self.read();
            let gone = all.clone().enumerate().filter(|(_, (series, _, _))| {
                matches!(series, SeriesName::Id(id) if state.head.get(*id).is_none())
            });
            report.stale_ids.extend(gone.map(|(index, _)| index));
        }
        if !report.stale_ids.is_empty() {
            return Ok(report);
        }
        for from in (0..all.len()).step_by(MAX_BATCH) {
            let part = all.clone().skip(from).take(MAX_BATCH);
            let slots = self.resolve(part.clone().map(|(series, _, _)| series.into()));
            let refused = slots.iter().filter(|slot| **slot == REFUSED).count() as u64;
            report.rejected_cardinality += refused;
            stats::add(&self.inner.counters.rejected_cardinality, refused);
            let floats = slots
                .iter()
                .zip(part)
                .filter(|(slot, _)| **slot != REFUSED)
                .map(|(slot, (_, t_ms, value))| (*slot, t_ms, 0, value));
            self.commit(&mut log, floats, &[], &mut report)?;
        }
        drop(log);
        self.settle()?;
        Ok(report)
    }

    /// Looks up series by packed labels that nobody checked.
    #[must_use]
    pub fn finder(&self) -> Finder<'_> {
        Finder::new(self.read())
    }

    /// The id of a series that is in memory and takes samples of its own; `None` for any other.
    #[must_use]
    pub fn find_id(&self, labels: &Labels) -> Option<SeriesId> {
        self.finder().find_bytes(labels.as_packed().as_bytes())
    }

    fn append_some(
        &self,
        log: &mut Log,
        samples: &[IdSample],
        offset: usize,
        report: &mut AppendReport,
    ) -> Result<(), StoreError> {
        let mut floats = Vec::with_capacity(samples.len());
        {
            let state = self.read();
            for (index, sample) in samples.iter().enumerate() {
                if sample.id == SeriesId::REFUSED {
                    report.rejected_cardinality += 1;
                    stats::add(&self.inner.counters.rejected_cardinality, 1);
                } else if state.head.get(sample.id).is_some() {
                    floats.push((sample.id.slot(), sample.t_ms, 0, sample.value));
                } else {
                    report.stale_ids.push(offset + index);
                }
            }
        }
        self.commit(log, floats.iter().copied(), &[], report)
    }

    /// The slots of label sets, made when they do not exist. The caller holds the log, so no slot goes away.
    fn resolve<'a>(&self, all: impl Iterator<Item = Named<'a>>) -> Vec<u32> {
        let mut missing = Vec::new();
        let mut slots: Vec<u32> = {
            let state = self.read();
            let mut last = REFUSED;
            all.enumerate()
                .map(|(index, named)| {
                    let found = named.find(&state.head, last.wrapping_add(1));
                    last = found.unwrap_or(last);
                    found.unwrap_or_else(|| {
                        missing.push((index, named));
                        REFUSED
                    })
                })
                .collect()
        };
        if !missing.is_empty() {
            let mut state = self.write();
            for (index, named) in missing {
                if let Some(labels) = named.labels() {
                    slots[index] = admit(&mut state, self, &labels);
                }
            }
        }
        slots
    }

    /// Writes the log, then memory. `floats` is iterated over twice.
    fn commit(
        &self,
        log: &mut Log,
        floats: impl Iterator<Item = FloatSample> + Clone,
        histograms: &[HistogramSample],
        report: &mut AppendReport,
    ) -> Result<(), StoreError> {
        let planned = {
            let state = self.read();
            let mut plan = self.plan(&state, &mut log.batch);
            for sample in floats.clone() {
                plan.float(&state.head.slots[sample.0 as usize], sample);
            }
            plan.histograms(histograms);
            plan.planned()
        };
        self.carry_out(log, planned, floats, histograms, report)
    }

    /// The same for floats of series by their ids. False, and nothing is done, when an id is not valid.
    fn commit_ids(
        &self,
        log: &mut Log,
        samples: &[IdSample],
        report: &mut AppendReport,
    ) -> Result<bool, StoreError> {
        let planned = {
            let state = self.read();
            let mut plan = self.plan(&state, &mut log.batch);
            for s in samples {
                let Some(series) = state.head.get(s.id) else {
                    return Ok(false);
                };
                plan.float(series, (s.id.slot(), s.t_ms, 0, s.value));
            }
            plan.planned()
        };
        let floats = samples.iter().map(|s| (s.id.slot(), s.t_ms, 0, s.value));
        self.carry_out(log, planned, floats, &[], report)?;
        Ok(true)
    }

    fn plan<'a>(&self, state: &'a State, batch: &'a mut Batch) -> Plan<'a> {
        batch.clear();
        Plan {
            head: &state.head,
            floor_ms: state.floor_ms,
            window_ms: self.inner.options.window_ms(),
            batch,
            planned: Planned::default(),
        }
    }

    fn carry_out(
        &self,
        log: &mut Log,
        planned: Planned,
        floats: impl Iterator<Item = FloatSample>,
        histograms: &[HistogramSample],
        report: &mut AppendReport,
    ) -> Result<(), StoreError> {
        self.write_log(log)?;
        let mut state = self.write();
        let before = report.clone();
        for slot in planned.defined {
            state.head.slots[slot as usize].logged = true;
        }
        self.apply(&mut state, floats, histograms, &planned.folded, report);
        drop(state);
        self.count(&before, report);
        Ok(())
    }

    fn apply(
        &self,
        state: &mut State,
        floats: impl Iterator<Item = FloatSample>,
        histograms: &[HistogramSample],
        folded: &Folded,
        report: &mut AppendReport,
    ) {
        let window_ms = self.inner.options.window_ms();
        let floor_ms = state.floor_ms;
        let head = &mut state.head;
        let (mut appended, mut min_t, mut max_t) = (0u64, i64::MAX, i64::MIN);
        for (slot, t, start, value) in floats {
            let series = &mut head.slots[slot as usize];
            if t < floor_ms {
                report.out_of_order += 1;
            } else if series.overflow {
                report.rejected_cardinality += 1;
            } else {
                match series.push_float(t, start, value, window_ms) {
                    Outcome::Appended => {
                        appended += 1;
                        min_t = min_t.min(t);
                        max_t = max_t.max(t);
                    }
                    Outcome::Duplicate => report.duplicate += 1,
                    Outcome::TooLate => report.out_of_order += 1,
                }
            }
        }
        report.appended += appended;
        head.samples += appended;
        head.min_t = head.min_t.min(min_t);
        head.max_t = head.max_t.max(max_t);
        for ((slot, t), sum) in folded {
            let series = &mut head.slots[*slot as usize];
            if series.push_float(*t, 0, *sum, window_ms) == Outcome::Appended {
                head.note(*t);
            }
        }
        for (slot, t, start, h) in histograms {
            let series = &mut head.slots[*slot as usize];
            if *t < floor_ms {
                report.out_of_order += 1;
                continue;
            }
            if series.overflow {
                report.rejected_cardinality += 1;
                continue;
            }
            match series.push_histogram(*t, *start, Arc::clone(h), window_ms) {
                Outcome::Appended => {
                    report.appended += 1;
                    head.note(*t);
                }
                Outcome::Duplicate => report.duplicate += 1,
                Outcome::TooLate => report.out_of_order += 1,
            }
        }
    }

    fn write_log(&self, log: &mut Log) -> Result<(), StoreError> {
        if log.batch.is_empty() {
            return Ok(());
        }
        log.record.clear();
        log.record.shrink_to(crate::record::KEPT_BYTES);
        log.record.resize(RECORD_HEADER, 0);
        log.batch.write(&mut log.record);
        if log.record.len() > MAX_RECORD {
            return Err(StoreError::Invalid(format!(
                "a batch of {} bytes is too large",
                log.record.len()
            )));
        }
        let counters = &self.inner.counters;
        let seq = log.wal.seq();
        let written = log.wal.append(BATCH, &mut log.record);
        if log.wal.seq() != seq {
            self.inner.syncer.switched(log.wal.file());
        }
        if let Err(error) = &written {
            stats::add(&counters.refused_full, u64::from(error.is_full()));
        }
        let full = written.as_ref().is_err_and(StoreError::is_full);
        counters
            .full
            .store(u64::from(full), std::sync::atomic::Ordering::Relaxed);
        written?;
        self.inner.syncer.wrote(&log.wal.file());
        Ok(())
    }

    /// With `fsync: every append`, waits until what was written is on the disk. The log is free meanwhile, so that many
    /// who append share one sync.
    fn settle(&self) -> Result<(), StoreError> {
        match self.inner.options.fsync {
            Fsync::EverySecond => Ok(()),
            Fsync::EveryAppend => self
                .inner
                .syncer
                .settle()
                .map_err(|e| StoreError::io("sync", self.dir(), e)),
        }
    }

    fn count(&self, before: &AppendReport, after: &AppendReport) {
        let counters = &self.inner.counters;
        stats::add(&counters.appended, after.appended - before.appended);
        stats::add(
            &counters.out_of_order,
            after.out_of_order - before.out_of_order,
        );
        stats::add(&counters.duplicates, after.duplicate - before.duplicate);
        stats::add(
            &counters.rejected_cardinality,
            after.rejected_cardinality - before.rejected_cardinality,
        );
    }

    /// Keeps exemplars of series that exist; others, and those with labels past 512 bytes, are dropped and counted.
    pub fn append_exemplars(&self, all: &[(&Labels, Exemplar)]) -> Result<(), StoreError> {
        let mut log = lock(&self.inner.log);
        log.batch.clear();
        let mut kept = Vec::new();
        let mut defined = HashSet::new();
        {
            let state = self.read();
            for (labels, exemplar) in all {
                match state.head.find(labels) {
                    Some(slot) if exemplar.labels.as_packed().len() <= MAX_LABEL_BYTES => {
                        define(&mut log.batch, &state.head, slot, &mut defined);
                        log.batch.exemplar(slot, exemplar);
                        kept.push((slot, exemplar));
                    }
                    _ => stats::add(&self.inner.counters.long_exemplars, 1),
                }
            }
        }
        self.write_log(&mut log)?;
        let mut state = self.write();
        for slot in defined {
            state.head.slots[slot as usize].logged = true;
        }
        for (slot, exemplar) in kept {
            state.head.exemplars.push(slot, exemplar.clone());
        }
        drop((state, log));
        self.settle()
    }

    /// Remembers what is known about metrics. Names past 100,000 are left out.
    pub fn set_metadata(&self, all: &[(&str, Metadata)]) -> Result<(), StoreError> {
        let mut log = lock(&self.inner.log);
        log.batch.clear();
        let news: Vec<&(&str, Metadata)> = {
            let state = self.read();
            all.iter()
                .filter(|(name, m)| state.head.metadata.get(*name) != Some(m))
                .collect()
        };
        for (name, metadata) in &news {
            log.batch.metadata(name, metadata);
        }
        self.write_log(&mut log)?;
        let mut state = self.write();
        for (name, metadata) in news {
            state
                .head
                .set_metadata((*name).to_owned(), metadata.clone());
        }
        Ok(())
    }
}

/// How a sample names its series.
#[derive(Clone, Copy)]
enum Named<'a> {
    Labels(&'a Labels),
    Packed(&'a str),
    /// Known to be valid.
    Id(SeriesId),
}

impl<'a> From<SeriesName<'a>> for Named<'a> {
    fn from(name: SeriesName<'a>) -> Self {
        match name {
            SeriesName::Packed(packed) => Named::Packed(packed),
            SeriesName::Id(id) => Named::Id(id),
        }
    }
}

// === impl Named ===

impl<'a> Named<'a> {
    /// The slot; looked for at `guess` first.
    #[inline]
    fn find(self, head: &Head, guess: u32) -> Option<u32> {
        match self {
            Named::Labels(labels) => head.find_near(labels.as_packed().as_bytes(), guess),
            Named::Packed(packed) => head.find_near(packed.as_bytes(), guess),
            Named::Id(id) => Some(id.slot()),
        }
    }

    /// The labels to keep; `None` for packed labels that are none, which [`PackedBatch`] cannot hold.
    fn labels(self) -> Option<Labels> {
        match self {
            Named::Labels(labels) => Some(labels.clone()),
            Named::Packed(packed) => Labels::from_packed(packed).ok(),
            Named::Id(_) => None,
        }
    }
}

/// Finds or makes the slot for a label set that had none when last looked.
fn admit(state: &mut State, store: &Store, labels: &Labels) -> u32 {
    if let Some(slot) = state.head.find(labels) {
        return slot;
    }
    let options = &store.inner.options;
    match state.cardinality.admit(&state.head, options, labels) {
        Admission::Own => {
            let slot = state.head.create(labels);
            let folds = labels.get(crate::cardinality::OVERFLOW_LABEL).is_some();
            state.head.slots[slot as usize].overflow = folds;
            slot
        }
        Admission::Refuse => REFUSED,
        Admission::Fold(into) => match state.head.find(&into) {
            Some(slot) => slot,
            None => {
                let slot = state.head.create(&into);
                state.head.slots[slot as usize].overflow = true;
                slot
            }
        },
    }
}

/// Introduces a series that the log does not know yet.
fn define(batch: &mut Batch, head: &Head, slot: u32, defined: &mut HashSet<u32>) {
    let series = &head.slots[slot as usize];
    if !series.logged && defined.insert(slot) {
        batch.define(slot, series.last_t(), series.overflow, &series.labels);
    }
}

/// Writes into a batch what memory will accept.
struct Plan<'a> {
    head: &'a Head,
    floor_ms: i64,
    window_ms: i64,
    batch: &'a mut Batch,
    planned: Planned,
}

/// What else is to be done when a batch has been written.
#[derive(Debug, Default)]
struct Planned {
    /// Series that the log has got to know.
    defined: HashSet<u32>,
    folded: Folded,
}

// === impl Plan ===

impl Plan<'_> {
    #[inline]
    fn accepts(&self, series: &Series, t: i64) -> bool {
        series.is_in_order(t) || series.judge_late(t, self.window_ms) == Outcome::Appended
    }

    /// A sample of `series`, which is in the sample's slot.
    #[inline]
    fn float(&mut self, series: &Series, (slot, t, start, value): FloatSample) {
        if t < self.floor_ms || !self.accepts(series, t) {
            return;
        }
        if !series.logged {
            define(self.batch, self.head, slot, &mut self.planned.defined);
        }
        if series.overflow {
            *self.planned.folded.entry((slot, t)).or_default() += value;
        } else {
            self.batch.float(slot, t, start, value);
        }
    }

    fn histograms(&mut self, histograms: &[HistogramSample]) {
        for (slot, t, start, h) in histograms {
            let series = &self.head.slots[*slot as usize];
            if *t >= self.floor_ms && !series.overflow && self.accepts(series, *t) {
                define(self.batch, self.head, *slot, &mut self.planned.defined);
                self.batch.histogram(*slot, *t, *start, h);
            }
        }
    }

    /// Ends the batch.
    fn planned(self) -> Planned {
        for ((slot, t), sum) in &self.planned.folded {
            self.batch.float(*slot, *t, 0, *sum);
        }
        self.planned
    }
}
