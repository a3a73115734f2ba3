//! A source with this tick's recordings on top, so that later rules see what earlier rules made.
//!
//! Owns the merge. Must not know rules.

use std::sync::{PoisonError, RwLock};

use model::source::{Exemplar, Metadata, WholeQuery};
use model::{Labels, Points, QueryData, SelectRequest, SeriesData, Source, SourceError};

/// A base and samples newer than what it holds.
pub(super) struct Overlay<'a> {
    base: &'a dyn Source,
    extra: RwLock<Vec<(Labels, i64, f64)>>,
}

// === impl Overlay ===

impl<'a> Overlay<'a> {
    pub(super) fn new(base: &'a dyn Source, extra: Vec<(Labels, i64, f64)>) -> Self {
        Overlay {
            base,
            extra: RwLock::new(extra),
        }
    }

    pub(super) fn push(&self, samples: &[(Labels, i64, f64)]) {
        let mut extra = self.extra.write().unwrap_or_else(PoisonError::into_inner);
        extra.extend_from_slice(samples);
    }
}

impl Source for Overlay<'_> {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        let mut out = self.base.select(request)?;
        let extra = self.extra.read().unwrap_or_else(PoisonError::into_inner);
        for (labels, t_ms, value) in extra.iter() {
            let inside = (request.start_ms..=request.end_ms).contains(t_ms);
            if !inside || !request.matchers.iter().all(|m| m.matches_labels(labels)) {
                continue;
            }
            match out.iter_mut().find(|s| s.labels == *labels) {
                Some(series) => {
                    if series.points.t_ms.last().is_none_or(|last| last < t_ms) {
                        series.points.push_float(*t_ms, *value);
                    }
                }
                None => {
                    let mut points = Points::default();
                    points.push_float(*t_ms, *value);
                    out.push(SeriesData {
                        labels: labels.clone(),
                        points,
                    });
                }
            }
        }
        Ok(out)
    }

    fn exemplars(
        &self,
        request: &SelectRequest<'_>,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, SourceError> {
        self.base.exemplars(request)
    }

    fn metadata(&self) -> Result<std::collections::BTreeMap<String, Metadata>, SourceError> {
        self.base.metadata()
    }

    fn evaluate(&self, query: &WholeQuery<'_>) -> Option<Result<QueryData, SourceError>> {
        let extra = self.extra.read().unwrap_or_else(PoisonError::into_inner);
        if extra.is_empty() {
            self.base.evaluate(query)
        } else {
            None
        }
    }
}
