//! `status/tsdb`: which metrics, labels and pairs the series in memory are made of.
//!
//! Owns the counting. Must not know how series are kept. It looks at every series in memory, so it takes a query's turn.

use std::collections::{HashMap, HashSet};

use axum::extract::State;
use axum::response::Response;
use model::{Labels, METRIC_NAME, SelectRequest, Source};
use serde_json::{Value as Json, json};

use super::form::Params;
use super::respond::{ApiError, success};
use super::state::{Api, blocking};

/// Entries of a list when the caller does not say.
const DEFAULT_LIMIT: usize = 10;
/// Entries of a list at most.
const MAX_LIMIT: usize = 10_000;

/// `status/tsdb?limit`.
pub(super) async fn tsdb(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let limit = match params.count("limit")? {
        Some(0) => return Err(ApiError::bad_data("limit must be a positive number")),
        limit => limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT),
    };
    let turn = std::sync::Arc::clone(&api.turns).acquire_owned().await;
    let body = blocking(move || {
        let _turn = turn;
        let stats = api.store.stats();
        let bounds = stats.head_bounds;
        let series = match bounds {
            None => Vec::new(),
            Some((start_ms, end_ms)) => api.store.series(&SelectRequest {
                matchers: &[],
                start_ms,
                end_ms,
                max_points: usize::MAX,
            })?,
        };
        let counted = Counts::of(&series);
        // Prometheus shows the largest and smallest time there is where it has no sample.
        let (min, max) = bounds.unwrap_or((i64::MAX, i64::MIN));
        Ok(json!({
            "headStats": {
                "numSeries": stats.series,
                "numLabelPairs": counted.pairs.len(),
                "chunkCount": 0,
                "minTime": min,
                "maxTime": max,
            },
            "seriesCountByMetricName": top(&counted.metrics, limit),
            "labelValueCountByLabelName": top(&counted.values, limit),
            "memoryInBytesByLabelName": top(&counted.bytes, limit),
            "seriesCountByLabelValuePair": top(&counted.pairs(), limit),
        }))
    })
    .await?;
    Ok(success(body))
}

/// What is counted of some series.
#[derive(Default)]
struct Counts<'a> {
    /// Series of each metric.
    metrics: HashMap<&'a str, u64>,
    /// Distinct values of each label.
    values: HashMap<&'a str, u64>,
    /// Bytes of those values.
    bytes: HashMap<&'a str, u64>,
    /// Series of each label and value.
    pairs: HashMap<(&'a str, &'a str), u64>,
}

// === impl Counts ===

impl<'a> Counts<'a> {
    fn of(series: &'a [Labels]) -> Self {
        let mut counts = Counts::default();
        // A series may be in memory and in a block; it is listed once, but nothing here relies on it.
        let mut seen = HashSet::new();
        for labels in series {
            if !seen.insert(labels.as_packed()) {
                continue;
            }
            for (name, value) in labels {
                if name == METRIC_NAME {
                    *counts.metrics.entry(value).or_default() += 1;
                }
                let pair = counts.pairs.entry((name, value)).or_default();
                *pair += 1;
                if *pair == 1 {
                    *counts.values.entry(name).or_default() += 1;
                    *counts.bytes.entry(name).or_default() += value.len() as u64;
                }
            }
        }
        counts
    }

    fn pairs(&self) -> HashMap<String, u64> {
        let all = self.pairs.iter();
        all.map(|((name, value), n)| (format!("{name}={value}"), *n))
            .collect()
    }
}

/// The largest, largest first; of equals the first by name.
fn top<N: AsRef<str> + Ord + Eq + std::hash::Hash>(
    counts: &HashMap<N, u64>,
    limit: usize,
) -> Vec<Json> {
    let mut all: Vec<(&N, u64)> = counts.iter().map(|(name, n)| (name, *n)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    all.truncate(limit);
    let entry = |(name, value): (&N, u64)| json!({"name": name.as_ref(), "value": value});
    all.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first() {
        let labels = |name: &str, path: &str| {
            Labels::from_pairs([("__name__", name), ("path", path), ("job", "a")])
        };
        let series = [labels("x", "/1"), labels("x", "/22"), labels("y", "/1")];
        let counts = Counts::of(&series);
        assert_eq!(top(&counts.metrics, 1), [json!({"name": "x", "value": 2})]);
        let of = |map: &HashMap<&str, u64>, name| map.get(name).copied();
        assert_eq!(of(&counts.values, "path"), Some(2));
        assert_eq!(of(&counts.bytes, "path"), Some(5));
        assert_eq!(
            top(&counts.pairs(), 2),
            [
                json!({"name": "job=a", "value": 3}),
                json!({"name": "__name__=x", "value": 2})
            ]
        );
    }
}
