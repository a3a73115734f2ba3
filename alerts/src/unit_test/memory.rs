//! A source that holds series in memory.
//!
//! Owns them in a map by labels. For tests and backtests; must not grow into a store.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use model::{Labels, Points, SelectRequest, SeriesData, Source, SourceError, Value};

/// Series in memory. A sample that is not newer than the last of its series is ignored.
#[derive(Debug, Default)]
pub struct MemorySource {
    series: RwLock<BTreeMap<Labels, Points>>,
}

impl MemorySource {
    /// Appends a sample.
    pub fn append(&self, labels: &Labels, t_ms: i64, value: Value) {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let points = series.entry(labels.clone()).or_default();
        if points.t_ms.last().is_none_or(|last| *last < t_ms) {
            points.push(t_ms, value);
        }
    }
}

impl Source for MemorySource {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::new();
        let mut total = 0;
        for (labels, all) in series.iter() {
            if !request.matchers.iter().all(|m| m.matches_labels(labels)) {
                continue;
            }
            let from = all.t_ms.partition_point(|t| *t < request.start_ms);
            let to = all.t_ms.partition_point(|t| *t <= request.end_ms);
            let mut points = Points::default();
            (from..to).for_each(|i| points.push(all.t_ms[i], all.value(i)));
            total += points.len();
            if total > request.max_points {
                return Err(SourceError::TooManyPoints {
                    limit: request.max_points,
                });
            }
            if !points.is_empty() {
                let labels = labels.clone();
                out.push(SeriesData { labels, points });
            }
        }
        Ok(out)
    }
}
