//! Reading: [`model::Source`] over the store.
//!
//! Owns how the parts of an answer (blocks, what is on its way to a block, memory) become one: of samples at the same
//! time the one written first stays. Must not know how any of them is encoded.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::source::{Exemplar, Metadata};
use model::{Labels, SelectRequest, SeriesData, Source, SourceError};

use crate::block::read::Pages;
use crate::blocks::Blocks;
use crate::error::StoreError;
use crate::frames;
use crate::merge::{self, Run};
use crate::stats;
use crate::store::{State, Store};
use crate::wire::Damaged;

/// The parts of each series found so far, in the order in which they were written.
struct Found {
    all: Vec<(Labels, Vec<Run>)>,
    by_labels: HashMap<Labels, usize>,
    points: usize,
    limit: usize,
}

// === impl Found ===

impl Found {
    fn runs(&mut self, labels: Labels) -> &mut Vec<Run> {
        let next = self.all.len();
        let at = *self.by_labels.entry(labels.clone()).or_insert(next);
        if at == next {
            self.all.push((labels, Vec::new()));
        }
        &mut self.all[at].1
    }

    fn count(&mut self, points: usize) -> Result<(), SourceError> {
        self.points = self.points.saturating_add(points);
        if self.points > self.limit {
            return Err(SourceError::TooManyPoints { limit: self.limit });
        }
        Ok(())
    }
}

fn points(runs: &[Run]) -> usize {
    runs.iter().map(Run::len).sum()
}

/// What memory answers, and the blocks that go with it: taken under one lock, so that no sample is missed or seen
/// twice.
pub(crate) struct InMemory {
    pub(crate) series: Vec<(Labels, Vec<Run>)>,
    pub(crate) blocks: Blocks,
}

// === impl Store ===

impl Store {
    fn corrupt(&self, error: StoreError) -> SourceError {
        let error = SourceError::from(error);
        if matches!(error, SourceError::Corrupt(_)) {
            stats::add(&self.inner.counters.corrupt_reads, 1);
        }
        error
    }

    pub(crate) fn in_memory(&self, request: &SelectRequest<'_>) -> Result<InMemory, SourceError> {
        let state = self.read();
        let mut left = request.max_points;
        let mut all = Vec::new();
        for slot in state.head.matching(request.matchers) {
            let series = &state.head.slots[slot as usize];
            let mut runs = Vec::new();
            collect(&state, slot, request, &mut runs)
                .map_err(|e| SourceError::Corrupt(format!("in memory: {e}")))?;
            if runs.is_empty() {
                continue;
            }
            left = left
                .checked_sub(points(&runs))
                .ok_or(SourceError::TooManyPoints {
                    limit: request.max_points,
                })?;
            all.push((series.labels.clone(), runs));
        }
        Ok(InMemory {
            series: all,
            blocks: state.blocks.clone(),
        })
    }

    fn add_blocks(
        &self,
        blocks: &Blocks,
        request: &SelectRequest<'_>,
        found: &mut Found,
    ) -> Result<(), SourceError> {
        let bounds = (request.start_ms, request.end_ms);
        let cache = &self.inner.cache;
        for block in blocks.iter().filter(|b| b.overlaps(bounds.0, bounds.1)) {
            let mut pages = Pages::default();
            let mut over = None;
            let read = block.visit_matching(request.matchers, cache, |entry| {
                if over.is_some() || !entry.overlaps(bounds.0, bounds.1) {
                    return Ok(());
                }
                let runs = found.runs(entry.labels.clone());
                let before = points(runs);
                block.collect(&entry, bounds, &mut pages, Some(cache), runs)?;
                let more = points(runs) - before;
                over = found.count(more).err();
                Ok(())
            });
            read.map_err(|e| self.corrupt(e))?;
            if let Some(error) = over {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Appends the runs of one series in memory.
fn collect(
    state: &State,
    slot: u32,
    request: &SelectRequest<'_>,
    runs: &mut Vec<Run>,
) -> Result<(), Damaged> {
    let (start, end) = (request.start_ms, request.end_ms);
    if let Some(frozen) = state.frozen.as_ref().and_then(|f| f.series.get(&slot)) {
        frames::collect(&frozen.chunks, false, (start, end), runs)?;
    }
    state.head.slots[slot as usize].collect(start, end, runs)
}

impl Source for Store {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        let memory = self.in_memory(request)?;
        let mut found = Found {
            all: Vec::new(),
            by_labels: HashMap::new(),
            points: memory.series.iter().map(|(_, runs)| points(runs)).sum(),
            limit: request.max_points,
        };
        self.add_blocks(&memory.blocks, request, &mut found)?;
        if found.all.is_empty() {
            found.all = memory.series;
        } else {
            for (labels, runs) in memory.series {
                found.runs(labels).extend(runs);
            }
        }
        let merged = found.all.into_iter().map(|(labels, runs)| SeriesData {
            labels,
            points: merge::merge(runs),
        });
        Ok(merged.filter(|s| !s.points.is_empty()).collect())
    }

    fn series(&self, request: &SelectRequest<'_>) -> Result<Vec<Labels>, SourceError> {
        let (start, end) = (request.start_ms, request.end_ms);
        let mut found: BTreeSet<Labels> = BTreeSet::new();
        let blocks = {
            let state = self.read();
            let overlaps = |(from, to): (i64, i64)| from <= end && to >= start;
            let frozen = state.frozen.as_ref();
            for slot in state.head.matching(request.matchers) {
                let series = &state.head.slots[slot as usize];
                let in_frozen = frozen
                    .is_some_and(|f| overlaps((f.min_t, f.max_t)) && f.series.contains_key(&slot));
                if in_frozen || series.bounds().is_some_and(overlaps) {
                    found.insert(series.labels.clone());
                }
            }
            state.blocks.clone()
        };
        for block in blocks.iter().filter(|b| b.overlaps(start, end)) {
            let read = block.visit_matching(request.matchers, &self.inner.cache, |entry| {
                if entry.overlaps(start, end) {
                    found.insert(entry.labels);
                }
                Ok(())
            });
            read.map_err(|e| self.corrupt(e))?;
        }
        Ok(found.into_iter().collect())
    }

    fn label_names(&self, request: &SelectRequest<'_>) -> Result<Vec<String>, SourceError> {
        let mut names = BTreeSet::new();
        if !request.matchers.is_empty() {
            let series = self.series(request)?;
            names.extend(series.iter().flatten().map(|(n, _)| n.to_owned()));
            return Ok(names.into_iter().collect());
        }
        let state = self.read();
        if memory_overlaps(&state, request) {
            names.extend(state.head.postings.label_names().map(str::to_owned));
        }
        let overlapping =
            |b: &&std::sync::Arc<crate::block::Block>| b.overlaps(request.start_ms, request.end_ms);
        for block in state.blocks.iter().filter(overlapping) {
            names.extend(block.footer.labels.iter().map(|(n, _)| n.clone()));
        }
        Ok(names.into_iter().collect())
    }

    fn label_values(
        &self,
        name: &str,
        request: &SelectRequest<'_>,
    ) -> Result<Vec<String>, SourceError> {
        let mut values = BTreeSet::new();
        if !request.matchers.is_empty() {
            let series = self.series(request)?;
            values.extend(series.iter().filter_map(|l| l.get(name)).map(str::to_owned));
            return Ok(values.into_iter().collect());
        }
        let blocks = {
            let state = self.read();
            if memory_overlaps(&state, request) {
                values.extend(state.head.postings.label_values(name).map(str::to_owned));
            }
            state.blocks.clone()
        };
        for block in blocks.iter() {
            if block.overlaps(request.start_ms, request.end_ms) {
                let read = block.visit_values(name, &self.inner.cache, |value, _| {
                    values.insert(value.to_owned());
                    Ok(false)
                });
                read.map_err(|e| self.corrupt(e))?;
            }
        }
        Ok(values.into_iter().collect())
    }

    fn exemplars(
        &self,
        request: &SelectRequest<'_>,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, SourceError> {
        let state = self.read();
        let wanted: BTreeSet<u32> = state.head.matching(request.matchers).into_iter().collect();
        let mut found: BTreeMap<u32, Vec<Exemplar>> = BTreeMap::new();
        for (slot, exemplar) in state.head.exemplars.iter() {
            let inside = (request.start_ms..=request.end_ms).contains(&exemplar.t_ms);
            if inside && wanted.contains(slot) {
                found.entry(*slot).or_default().push(exemplar.clone());
            }
        }
        Ok(found
            .into_iter()
            .map(|(slot, mut all)| {
                all.sort_by_key(|e| e.t_ms);
                (state.head.slots[slot as usize].labels.clone(), all)
            })
            .collect())
    }

    fn metadata(&self) -> Result<BTreeMap<String, Metadata>, SourceError> {
        Ok(self.read().head.metadata.clone())
    }
}

/// Whether memory may have a sample in the bounds.
fn memory_overlaps(state: &State, request: &SelectRequest<'_>) -> bool {
    let overlaps = |from: i64, to: i64| from <= request.end_ms && to >= request.start_ms;
    let frozen = state.frozen.as_ref();
    overlaps(state.head.min_t, state.head.max_t)
        || frozen.is_some_and(|f| overlaps(f.min_t, f.max_t))
}
