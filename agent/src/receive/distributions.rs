//! Histogram, exponential histogram and summary points of OTLP, as Prometheus series.
//!
//! Owns their fields and translation: classic buckets, native histograms (scale at most 8, at least -4), quantiles.
//! Must not know names beyond what [`super::metrics`] hands over.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::api::format_float;
use model::histogram::from_indexed;
use model::{NativeHistogram, Value, stale_nan};

use super::deltas::{Classic, Deltas, Exponential};
use super::metrics::{Common, Origin, Translated, exemplar};
use crate::ingest::Sample;
use model::protobuf::{Reader, WireError, repeated_fixed64, repeated_varint, unzigzag};

/// Buckets read of one side of an exponential histogram.
const MAX_BUCKETS: usize = 100_000;
/// Classic buckets read of one point.
const MAX_BOUNDS: usize = 10_000;

/// Translates a `HistogramDataPoint` into `_bucket`, `_sum` and `_count`.
pub(super) fn classic(
    message: &[u8],
    origin: &Origin<'_>,
    deltas: &mut Deltas,
    now_ms: i64,
    out: &mut Translated,
) -> Result<(), WireError> {
    let mut common = Common::default();
    let (mut bounds, mut counts) = (Vec::new(), Vec::new());
    let mut histogram = Classic::default();
    let mut has_sum = false;
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            9 => common.attributes.push(field.bytes(n)?),
            4 => histogram.count = field.number(n)?,
            5 => {
                histogram.sum = field.double(n)?;
                has_sum = true;
            }
            6 => repeated_fixed64(n, field, &mut counts)?,
            7 => repeated_fixed64(n, field, &mut bounds)?,
            8 => common.exemplars.push(field.bytes(n)?),
            10 => common.flags = field.number(n)?,
            _ => common.times(n, field)?,
        }
    }
    if counts.is_empty() && bounds.is_empty() {
        counts.push(histogram.count);
    }
    if counts.len() != bounds.len() + 1 || bounds.len() > MAX_BOUNDS {
        return out.reject("a histogram needs one more bucket count than bounds");
    }
    histogram.bounds = bounds.into_iter().map(f64::from_bits).collect();
    histogram.counts = counts;
    if origin.delta && !common.nothing_recorded() {
        match deltas.add_classic(&origin.labels(&common, "")?, &histogram) {
            Some(total) => histogram = total,
            None => return out.reject("too many delta streams"),
        }
    }
    write_classic(&histogram, has_sum, &common, origin, now_ms, out)
}

fn write_classic(
    histogram: &Classic,
    has_sum: bool,
    common: &Common<'_>,
    origin: &Origin<'_>,
    now_ms: i64,
    out: &mut Translated,
) -> Result<(), WireError> {
    let t_ms = common.time(now_ms, out);
    let start_ms = origin.start(common);
    let stale = common.nothing_recorded();
    let or_stale = |v: f64| if stale { stale_nan() } else { v };
    let bucket = origin.labels(common, "_bucket")?;
    let mut exemplars: Vec<_> = common
        .exemplars
        .iter()
        .map(|m| exemplar(m))
        .collect::<Result<_, _>>()?;
    let mut cumulative = 0u64;
    let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
    for (bound, n) in bounds.zip(&histogram.counts) {
        cumulative = cumulative.saturating_add(*n);
        let labels = bucket.with("le", &format_float(bound));
        exemplars.retain(|e| {
            let here = e.value <= bound;
            if here {
                out.exemplars.push((labels.clone(), e.clone()));
            }
            !here
        });
        out.started(labels, t_ms, start_ms, or_stale(cumulative as f64));
    }
    if has_sum {
        let labels = origin.labels(common, "_sum")?;
        out.started(labels, t_ms, start_ms, or_stale(histogram.sum));
    }
    let labels = origin.labels(common, "_count")?;
    out.started(labels, t_ms, start_ms, or_stale(histogram.count as f64));
    out.points += 1;
    Ok(())
}

/// Translates an `ExponentialHistogramDataPoint` into one native histogram.
pub(super) fn exponential(
    message: &[u8],
    origin: &Origin<'_>,
    deltas: &mut Deltas,
    now_ms: i64,
    out: &mut Translated,
) -> Result<(), WireError> {
    let mut common = Common::default();
    let mut histogram = Exponential::default();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => common.attributes.push(field.bytes(n)?),
            4 => histogram.count = field.number(n)?,
            5 => histogram.sum = field.double(n)?,
            6 => histogram.scale = i32::try_from(unzigzag(field.number(n)?)).unwrap_or(i32::MIN),
            7 => histogram.zero_count = field.number(n)?,
            8 => histogram.positive = buckets(field.bytes(n)?)?,
            9 => histogram.negative = buckets(field.bytes(n)?)?,
            10 => common.flags = field.number(n)?,
            11 => common.exemplars.push(field.bytes(n)?),
            14 => histogram.zero_threshold = field.double(n)?,
            _ => common.times(n, field)?,
        }
    }
    let labels = origin.labels(&common, "")?;
    let t_ms = common.time(now_ms, out);
    if common.nothing_recorded() {
        out.float(labels, t_ms, stale_nan());
        out.points += 1;
        return Ok(());
    }
    if histogram.scale < -4 {
        return out.reject("an exponential histogram's scale is below -4");
    }
    histogram.scale_down(8);
    if origin.delta {
        match deltas.add_exponential(&labels, &histogram) {
            Some(total) => histogram = total,
            None => return out.reject("too many delta streams"),
        }
    }
    out.exemplars_of(&labels, &common)?;
    out.samples.push(Sample {
        labels,
        t_ms,
        start_ms: origin.start(&common),
        value: Value::Histogram(Arc::new(native(&histogram))),
    });
    out.points += 1;
    Ok(())
}

fn buckets(message: &[u8]) -> Result<BTreeMap<i32, u64>, WireError> {
    let (mut offset, mut counts) = (0i64, Vec::new());
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => offset = unzigzag(field.number(n)?),
            2 => repeated_varint(n, field, &mut counts)?,
            _ => {}
        }
    }
    let indexed = (offset..).zip(counts.into_iter().take(MAX_BUCKETS));
    Ok(indexed
        .filter(|(_, n)| *n > 0)
        .filter_map(|(i, n)| Some((i32::try_from(i).ok()?, n)))
        .collect())
}

/// Prometheus' bucket `i` is OTLP's `i - 1`.
fn native(histogram: &Exponential) -> NativeHistogram {
    let shifted = |side: &BTreeMap<i32, u64>| {
        from_indexed(side.iter().map(|(i, n)| (i.saturating_add(1), *n as f64)))
    };
    let (positive_spans, positive_buckets) = shifted(&histogram.positive);
    let (negative_spans, negative_buckets) = shifted(&histogram.negative);
    NativeHistogram {
        schema: histogram.scale,
        zero_threshold: if histogram.zero_threshold > 0.0 {
            histogram.zero_threshold
        } else {
            f64::MIN_POSITIVE
        },
        zero_count: histogram.zero_count as f64,
        count: histogram.count as f64,
        sum: histogram.sum,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        ..NativeHistogram::default()
    }
}

/// Translates a `SummaryDataPoint` into one series a quantile, `_sum` and `_count`.
pub(super) fn summary(
    message: &[u8],
    origin: &Origin<'_>,
    now_ms: i64,
    out: &mut Translated,
) -> Result<(), WireError> {
    let mut common = Common::default();
    let (mut count, mut sum, mut quantiles) = (0, 0.0, Vec::new());
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            7 => common.attributes.push(field.bytes(n)?),
            4 => count = field.number(n)?,
            5 => sum = field.double(n)?,
            6 => quantiles.push(field.bytes(n)?),
            8 => common.flags = field.number(n)?,
            _ => common.times(n, field)?,
        }
    }
    let t_ms = common.time(now_ms, out);
    let stale = common.nothing_recorded();
    let or_stale = |v: f64| if stale { stale_nan() } else { v };
    for message in quantiles {
        let (mut quantile, mut value) = (0.0, 0.0);
        let mut reader = Reader::new(message);
        while let Some((n, field)) = reader.next_field()? {
            match n {
                1 => quantile = field.double(n)?,
                2 => value = field.double(n)?,
                _ => {}
            }
        }
        let labels = origin.labels(&common, "")?;
        let labels = labels.with("quantile", &format_float(quantile));
        out.float(labels, t_ms, or_stale(value));
    }
    let labels = origin.labels(&common, "_sum")?;
    out.float(labels, t_ms, or_stale(sum));
    let labels = origin.labels(&common, "_count")?;
    out.float(labels, t_ms, or_stale(count as f64));
    out.points += 1;
    Ok(())
}
