//! Reading: [`model::Source`] over the store.
//!
//! Owns how the parts of an answer (blocks, what is on its way to a block, memory) become one: of samples at the same
//! time the one written first stays. Must not know how any of them is encoded.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::hashing::FoldState;
use model::source::{Exemplar, Metadata, Visit};
use model::{Labels, Points, SelectRequest, SeriesData, Source, SourceError};

use crate::block::read::{Entry, Pages};
use crate::blocks::Blocks;
use crate::error::StoreError;
use crate::frames;
use crate::merge;
use crate::reading::{Copies, Part};
use crate::stats;
use crate::store::{State, Store};
use crate::wire::Damaged;

/// What memory answers, and the blocks that go with it: taken under one lock, so that no sample is missed or seen
/// twice. Decoding comes after it.
pub(crate) struct InMemory {
    pub(crate) series: Vec<(Labels, Part)>,
    pub(crate) copies: Copies,
    pub(crate) blocks: Blocks,
}

/// Where the parts of one series are, in the order in which they were written.
struct Parts {
    labels: Labels,
    /// The number of a block, and the series in it.
    blocks: Vec<(usize, Entry)>,
    memory: Option<Part>,
}

/// Hands series over and counts their points.
struct Handing<'a, 'v> {
    visit: &'a mut Visit<'v>,
    limit: usize,
    points: usize,
}

// === impl Handing ===

impl Handing<'_, '_> {
    /// Whether more is wanted.
    fn hand_over(&mut self, labels: &Labels, points: &mut Points) -> Result<bool, SourceError> {
        if points.is_empty() {
            return Ok(true);
        }
        self.points = self.points.saturating_add(points.len());
        if self.points > self.limit {
            return Err(SourceError::TooManyPoints { limit: self.limit });
        }
        Ok((self.visit)(labels, points).is_continue())
    }
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
        let slots = state.head.matching(request.matchers);
        let mut series = Vec::with_capacity(slots.len());
        let mut copies = Copies::default();
        for slot in slots {
            let part = copy(&state, slot, request, &mut copies).map_err(in_memory)?;
            if let Some(part) = part {
                series.push((state.head.slots[slot as usize].labels.clone(), part));
            }
        }
        Ok(InMemory {
            series,
            copies,
            blocks: state.blocks.clone(),
        })
    }

    /// The series in the blocks that overlap the bounds.
    fn in_blocks(
        &self,
        blocks: &Blocks,
        request: &SelectRequest<'_>,
        known: &mut HashMap<Labels, usize, FoldState>,
    ) -> Result<Vec<Parts>, SourceError> {
        let (start, end) = (request.start_ms, request.end_ms);
        let mut all: Vec<Parts> = Vec::new();
        let overlapping = blocks.iter().enumerate();
        for (number, block) in overlapping.filter(|(_, b)| b.overlaps(start, end)) {
            let read = block.visit_matching(request.matchers, &self.inner.cache, |entry| {
                if entry.overlaps(start, end) {
                    let at = *known.entry(entry.labels.clone()).or_insert(all.len());
                    if at == all.len() {
                        all.push(Parts {
                            labels: entry.labels.clone(),
                            blocks: Vec::with_capacity(1),
                            memory: None,
                        });
                    }
                    all[at].blocks.push((number, entry));
                }
                Ok(())
            });
            read.map_err(|e| self.corrupt(e))?;
        }
        Ok(all)
    }

    /// Hands over the series of blocks and memory together.
    fn visit_together(
        &self,
        memory: InMemory,
        mut all: Vec<Parts>,
        mut known: HashMap<Labels, usize, FoldState>,
        bounds: (i64, i64),
        handing: &mut Handing<'_, '_>,
    ) -> Result<(), SourceError> {
        for (labels, part) in memory.series {
            let at = *known.entry(labels.clone()).or_insert(all.len());
            if at == all.len() {
                all.push(Parts {
                    labels,
                    blocks: Vec::new(),
                    memory: None,
                });
            }
            all[at].memory = Some(part);
        }
        drop(known);
        let mut pages: Vec<Pages> = memory.blocks.iter().map(|_| Pages::default()).collect();
        for parts in all {
            let mut runs = Vec::new();
            for (number, entry) in &parts.blocks {
                let cache = Some(&self.inner.cache);
                memory.blocks[*number]
                    .collect(entry, bounds, &mut pages[*number], cache, &mut runs)
                    .map_err(|e| self.corrupt(e))?;
            }
            if let Some(part) = parts.memory {
                let read = memory.copies.runs(part, bounds, &mut runs);
                read.map_err(in_memory)?;
            }
            if !handing.hand_over(&parts.labels, &mut merge::merge(runs))? {
                break;
            }
        }
        Ok(())
    }
}

fn in_memory(damage: Damaged) -> SourceError {
    SourceError::Corrupt(format!("in memory: {damage}"))
}

/// Copies what memory holds of one series. While its older samples are on their way to a block they are decoded at once.
fn copy(
    state: &State,
    slot: u32,
    request: &SelectRequest<'_>,
    copies: &mut Copies,
) -> Result<Option<Part>, Damaged> {
    let (start, end) = (request.start_ms, request.end_ms);
    let series = &state.head.slots[slot as usize];
    let Some(frozen) = state.frozen.as_ref().and_then(|f| f.series.get(&slot)) else {
        return series.copy(start, end, copies);
    };
    let mut runs = Vec::new();
    frames::collect(&frozen.chunks, false, (start, end), &mut runs)?;
    series.collect(start, end, &mut runs)?;
    Ok((!runs.is_empty()).then_some(Part::Runs(runs)))
}

impl Source for Store {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        let mut all = Vec::new();
        self.visit(request, &mut |labels, points| {
            all.push(SeriesData {
                labels: labels.clone(),
                // The copy has the size that it needs; what was decoded into is used again.
                points: points.clone(),
            });
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    fn visit(&self, request: &SelectRequest<'_>, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        let memory = self.in_memory(request)?;
        let bounds = (request.start_ms, request.end_ms);
        let mut handing = Handing {
            visit,
            limit: request.max_points,
            points: 0,
        };
        let mut known = HashMap::with_hasher(FoldState::default());
        let blocks = self.in_blocks(&memory.blocks, request, &mut known)?;
        if !blocks.is_empty() {
            return self.visit_together(memory, blocks, known, bounds, &mut handing);
        }
        let mut points = Points::default();
        for (labels, part) in memory.series {
            let decoded = memory.copies.decode(part, bounds, &mut points);
            decoded.map_err(in_memory)?;
            if !handing.hand_over(&labels, &mut points)? {
                break;
            }
        }
        Ok(())
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
