//! Reading: [`model::Source`] over the store.
//!
//! Owns how the parts of an answer (blocks, memory) become one. Must not know how any of them is encoded.

use std::collections::{BTreeMap, BTreeSet};

use model::source::{Exemplar, Metadata};
use model::{Labels, SelectRequest, SeriesData, Source, SourceError};

use crate::merge;
use crate::store::Store;

// === impl Store ===

impl Source for Store {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        let state = self.read();
        let mut left = request.max_points;
        let mut found = Vec::new();
        for slot in state.head.matching(request.matchers) {
            let series = &state.head.slots[slot as usize];
            let mut runs = Vec::new();
            series
                .collect(request.start_ms, request.end_ms, &mut runs)
                .map_err(|e| SourceError::Corrupt(format!("in memory: {e}")))?;
            let points = merge::merge(runs);
            if points.is_empty() {
                continue;
            }
            left = left
                .checked_sub(points.len())
                .ok_or(SourceError::TooManyPoints {
                    limit: request.max_points,
                })?;
            found.push(SeriesData {
                labels: series.labels.clone(),
                points,
            });
        }
        Ok(found)
    }

    fn series(&self, request: &SelectRequest<'_>) -> Result<Vec<Labels>, SourceError> {
        let state = self.read();
        let overlaps = |(from, to): (i64, i64)| from <= request.end_ms && to >= request.start_ms;
        Ok(state
            .head
            .matching(request.matchers)
            .into_iter()
            .map(|slot| &state.head.slots[slot as usize])
            .filter(|s| s.bounds().is_some_and(overlaps))
            .map(|s| s.labels.clone())
            .collect())
    }

    fn label_names(&self, request: &SelectRequest<'_>) -> Result<Vec<String>, SourceError> {
        if !request.matchers.is_empty() {
            let series = self.series(request)?;
            let names: BTreeSet<&str> = series.iter().flatten().map(|(n, _)| n).collect();
            return Ok(names.into_iter().map(str::to_owned).collect());
        }
        let state = self.read();
        let names: BTreeSet<&str> = state.head.postings.label_names().collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn label_values(
        &self,
        name: &str,
        request: &SelectRequest<'_>,
    ) -> Result<Vec<String>, SourceError> {
        if !request.matchers.is_empty() {
            let series = self.series(request)?;
            let values: BTreeSet<&str> = series.iter().filter_map(|l| l.get(name)).collect();
            return Ok(values.into_iter().map(str::to_owned).collect());
        }
        let state = self.read();
        let values: BTreeSet<&str> = state.head.postings.label_values(name).collect();
        Ok(values.into_iter().map(str::to_owned).collect())
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
