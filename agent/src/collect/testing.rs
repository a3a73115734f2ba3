//! What the collectors' tests share: reading back what a collector appended.
//!
//! Must not be compiled outside tests.

use model::{Matcher, SelectRequest, SeriesData};

use crate::ingest::Ingest;

/// All series of a metric, with all their points.
pub(crate) fn read(ingest: &Ingest, name: &str) -> Vec<SeriesData> {
    let matchers = [Matcher::equal("__name__", name)];
    let request = SelectRequest {
        matchers: &matchers,
        start_ms: i64::MIN,
        end_ms: i64::MAX,
        max_points: usize::MAX,
    };
    ingest.source().select(&request).unwrap()
}

/// The last value of the series of `name` that has all of `labels`.
pub(crate) fn last(ingest: &Ingest, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    read(ingest, name)
        .iter()
        .find(|s| labels.iter().all(|(n, v)| s.labels.get(n) == Some(v)))
        .and_then(|s| s.points.values.last().copied())
}
