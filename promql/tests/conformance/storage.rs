//! Series in memory, as the scripts load them.
//!
//! Owns the storage that answers the engine. Must not know the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint, from_indexed};
use model::{
    Labels, METRIC_NAME, NativeHistogram, Points, SelectRequest, SeriesData, Source, SourceError,
    Value,
};

use crate::script::Load;

#[derive(Default)]
pub(crate) struct Storage {
    series: BTreeMap<Labels, BTreeMap<i64, (Value, i64)>>,
    ready: Vec<SeriesData>,
}

impl Storage {
    pub(crate) fn load(&mut self, load: &Load) -> Result<(), String> {
        for (labels, values, starts) in &load.series {
            let series = self.series.entry(labels.clone()).or_default();
            for (i, v) in values.iter().enumerate() {
                let t = load.gap_ms * i as i64;
                let start = starts
                    .as_ref()
                    .and_then(|s| s.get(i).copied().flatten())
                    .map_or(0, |s| t + s);
                if let Some(value) = &v.value {
                    series.insert(t, (value.clone(), start));
                }
            }
        }
        if load.custom_buckets {
            self.convert(load)?;
        }
        self.ready = self.series.iter().map(|(l, s)| ready(l, s)).collect();
        Ok(())
    }

    /// Classic histograms of this load as native ones with custom buckets.
    fn convert(&mut self, load: &Load) -> Result<(), String> {
        #[derive(Default)]
        struct Parts {
            buckets: Vec<(f64, f64)>,
            count: Option<f64>,
            sum: f64,
        }
        let mut found: BTreeMap<(Labels, i64), Parts> = BTreeMap::new();
        for (labels, values, _) in &load.series {
            let name = labels.name().to_owned();
            let Some((base, suffix)) = name.rsplit_once('_') else {
                continue;
            };
            if !["bucket", "count", "sum"].contains(&suffix) {
                continue;
            }
            let target = labels.with(METRIC_NAME, base).retain(|n| n != "le");
            for (i, v) in values.iter().enumerate() {
                let Some(Value::Float(v)) = v.value else {
                    continue;
                };
                let parts = found
                    .entry((target.clone(), load.gap_ms * i as i64))
                    .or_default();
                match suffix {
                    "bucket" => {
                        if let Ok(le) = labels.get("le").unwrap_or("").parse::<f64>()
                            && !le.is_nan()
                        {
                            parts.buckets.push((le, v));
                        }
                    }
                    "count" => parts.count = Some(v),
                    _ => parts.sum = v,
                }
            }
        }
        for ((labels, t), mut parts) in found {
            parts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            parts.buckets.dedup_by(|a, b| a.0 == b.0);
            let count = parts
                .count
                .or(parts.buckets.last().map(|b| b.1))
                .unwrap_or(0.0);
            if parts.buckets.last().is_none_or(|b| b.0 != f64::INFINITY) {
                parts.buckets.push((f64::INFINITY, count));
            }
            let mut before = 0.0;
            let mut pairs = Vec::new();
            for (i, (_, c)) in parts.buckets.iter().enumerate() {
                pairs.push((i as i32, c - before));
                before = *c;
            }
            let (positive_spans, positive_buckets) =
                from_indexed(pairs.into_iter().filter(|p| p.1 != 0.0));
            let h = NativeHistogram {
                schema: CUSTOM_BUCKETS_SCHEMA,
                count,
                sum: parts.sum,
                positive_spans,
                positive_buckets,
                custom_values: parts
                    .buckets
                    .iter()
                    .map(|b| b.0)
                    .filter(|b| b.is_finite())
                    .collect(),
                ..Default::default()
            };
            self.series
                .entry(labels)
                .or_default()
                .insert(t, (Value::Histogram(Arc::new(h)), 0));
        }
        Ok(())
    }
}

/// The points as a database hands them out: hints tell of the histogram before.
fn ready(labels: &Labels, samples: &BTreeMap<i64, (Value, i64)>) -> SeriesData {
    let mut points = Points::default();
    let mut before: Option<NativeHistogram> = None;
    for (t, (value, start)) in samples {
        match value {
            Value::Float(v) => {
                before = None;
                points.push_float(*t, *v);
            }
            Value::Histogram(h) => {
                let mut h = (**h).clone();
                let stale = model::is_stale(h.sum);
                if !stale && h.reset_hint != ResetHint::Gauge {
                    h.reset_hint = match &before {
                        Some(b) if h.reset_hint != ResetHint::Reset && !is_reset(&h, b) => {
                            ResetHint::NotReset
                        }
                        _ => ResetHint::Unknown,
                    };
                }
                before = (!stale && h.reset_hint != ResetHint::Gauge).then(|| h.clone());
                points.push_histogram(*t, Arc::new(h));
            }
        }
        if *start != 0 {
            points.set_last_start(*start);
        }
    }
    SeriesData {
        labels: labels.clone(),
        points,
    }
}

/// A plain comparison, as a database makes when it appends.
fn is_reset(h: &NativeHistogram, before: &NativeHistogram) -> bool {
    if h.count < before.count
        || h.schema != before.schema
        || h.zero_threshold != before.zero_threshold
        || h.zero_count < before.zero_count
        || h.custom_values != before.custom_values
    {
        return true;
    }
    let shrinks = |now: Vec<(i32, f64)>, then: Vec<(i32, f64)>| {
        let now: BTreeMap<i32, f64> = now.into_iter().collect();
        then.iter()
            .any(|(i, c)| now.get(i).copied().unwrap_or(0.0) < *c)
    };
    shrinks(h.positive().collect(), before.positive().collect())
        || shrinks(h.negative().collect(), before.negative().collect())
}

impl Source for Storage {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        let mut out = Vec::new();
        for series in &self.ready {
            if !request
                .matchers
                .iter()
                .all(|m| m.matches_labels(&series.labels))
            {
                continue;
            }
            let mut points = Points::default();
            for i in 0..series.points.len() {
                let t = series.points.t_ms[i];
                if t >= request.start_ms && t <= request.end_ms {
                    points.push(t, series.points.value(i));
                    if series.points.start(i) != 0 {
                        points.set_last_start(series.points.start(i));
                    }
                }
            }
            if !points.is_empty() {
                out.push(SeriesData {
                    labels: series.labels.clone(),
                    points,
                });
            }
        }
        Ok(out)
    }
}
