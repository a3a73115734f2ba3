//! Prometheus remote write 1.0: snappy over a protobuf that is walked by hand.
//!
//! Owns the `prometheus.WriteRequest` field numbers. Must not know HTTP. The length that snappy announces is checked
//! before anything is allocated. Specification: prometheus.io/docs/specs/prw/remote_write_spec.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint, Span};
use model::source::{Exemplar, Metadata};
use model::{Labels, LabelsBuilder, METRIC_NAME, NativeHistogram, Value};

use super::wire::{Field, Reader, WireError, repeated_fixed64, zigzag};
use crate::ingest::Sample;

/// What a request holds.
#[derive(Debug, Default)]
pub struct Write {
    /// Samples in the order of the request.
    pub samples: Vec<Sample>,
    /// Exemplars by series.
    pub exemplars: Vec<(Labels, Exemplar)>,
    /// Metadata by metric.
    pub metadata: Vec<(String, Metadata)>,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Not snappy's block format.
    #[error("the body is not snappy: {0}")]
    Snappy(String),
    /// Larger than the limit once decompressed.
    #[error("the body is larger than {0} bytes once decompressed")]
    TooLarge(usize),
    /// Not a write request.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A series that Prometheus would not take either.
    #[error("invalid series: {0}")]
    Labels(String),
    /// A histogram whose buckets do not add up.
    #[error("{0}")]
    Histogram(String),
}

/// Decompresses a body of at most `limit` bytes.
pub fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>, WriteError> {
    let len = snap::raw::decompress_len(body).map_err(|e| WriteError::Snappy(e.to_string()))?;
    if len > limit {
        return Err(WriteError::TooLarge(limit));
    }
    snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|e| WriteError::Snappy(e.to_string()))
}

/// Walks a `WriteRequest`.
pub fn walk(message: &[u8]) -> Result<Write, WriteError> {
    let mut out = Write::default();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => series(field.bytes(n)?, &mut out)?,
            3 => out.metadata.extend(metadata(field.bytes(n)?)?),
            _ => {}
        }
    }
    Ok(out)
}

fn series(message: &[u8], out: &mut Write) -> Result<(), WriteError> {
    let mut builder = LabelsBuilder::default();
    let mut points = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => label(field.bytes(n)?, &mut builder)?,
            2..=4 => points.push((n, field.bytes(n)?)),
            _ => {}
        }
    }
    let labels = builder.build();
    if labels.get(METRIC_NAME).is_none() {
        return Err(WriteError::Labels(format!("{labels} has no metric name")));
    }
    for (n, message) in points {
        match n {
            2 => out.samples.push(sample(message, &labels)?),
            3 => out.exemplars.push((labels.clone(), exemplar(message)?)),
            _ => out.samples.push(histogram(message, &labels)?),
        }
    }
    Ok(())
}

fn label(message: &[u8], builder: &mut LabelsBuilder) -> Result<(), WriteError> {
    let (mut name, mut value) = ("", "");
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => name = text(field.bytes(n)?)?,
            2 => value = text(field.bytes(n)?)?,
            _ => {}
        }
    }
    if builder.get(name).is_some() {
        return Err(WriteError::Labels(format!("label {name:?} comes twice")));
    }
    builder.set(name, value);
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, WriteError> {
    std::str::from_utf8(bytes).map_err(|_| WriteError::Labels("a label is not valid UTF-8".into()))
}

fn sample(message: &[u8], labels: &Labels) -> Result<Sample, WireError> {
    let (mut value, mut t_ms) = (0.0, 0);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => value = field.double(n)?,
            2 => t_ms = field.number(n)?.cast_signed(),
            _ => {}
        }
    }
    Ok(Sample::float(labels.clone(), t_ms, value))
}

fn exemplar(message: &[u8]) -> Result<Exemplar, WriteError> {
    let mut builder = LabelsBuilder::default();
    let (mut value, mut t_ms) = (0.0, 0);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => label(field.bytes(n)?, &mut builder)?,
            2 => value = field.double(n)?,
            3 => t_ms = field.number(n)?.cast_signed(),
            _ => {}
        }
    }
    let labels = builder.build();
    Ok(Exemplar {
        labels,
        value,
        t_ms,
    })
}

fn metadata(message: &[u8]) -> Result<Option<(String, Metadata)>, WriteError> {
    let (mut name, mut metadata) = (String::new(), Metadata::default());
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => {
                metadata.kind = match field.number(n)? {
                    1 => "counter",
                    2 => "gauge",
                    3 => "histogram",
                    4 => "gaugehistogram",
                    5 => "summary",
                    6 => "info",
                    7 => "stateset",
                    _ => "unknown",
                }
                .into();
            }
            2 => name = text(field.bytes(n)?)?.to_owned(),
            4 => metadata.help = text(field.bytes(n)?)?.to_owned(),
            5 => metadata.unit = text(field.bytes(n)?)?.to_owned(),
            _ => {}
        }
    }
    Ok((!name.is_empty()).then_some((name, metadata)))
}

/// One side of a native histogram: spans, and counts as deltas of integers or as floats.
#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<u64>,
    counts: Vec<u64>,
}

impl Side {
    fn buckets(&self) -> Vec<f64> {
        if !self.counts.is_empty() {
            return self.counts.iter().map(|b| f64::from_bits(*b)).collect();
        }
        let mut count = 0i64;
        let deltas = self.deltas.iter().map(|d| zigzag(*d));
        deltas
            .map(|d| {
                count = count.wrapping_add(d);
                count as f64
            })
            .collect()
    }
}

fn histogram(message: &[u8], labels: &Labels) -> Result<Sample, WriteError> {
    let mut h = NativeHistogram::default();
    let (mut negative, mut positive) = (Side::default(), Side::default());
    let (mut t_ms, mut custom) = (0, Vec::new());
    let count = |n, field: Field<'_>| match field {
        Field::Fixed64(bits) => Ok(f64::from_bits(bits)),
        other => other.number(n).map(|v| v as f64),
    };
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 | 2 => h.count = count(n, field)?,
            3 => h.sum = field.double(n)?,
            4 => h.schema = i32::try_from(zigzag(field.number(n)?)).unwrap_or(i32::MAX),
            5 => h.zero_threshold = field.double(n)?,
            6 | 7 => h.zero_count = count(n, field)?,
            8 => negative.spans.push(span(field.bytes(n)?)?),
            9 => super::wire::repeated_varint(n, field, &mut negative.deltas)?,
            10 => repeated_fixed64(n, field, &mut negative.counts)?,
            11 => positive.spans.push(span(field.bytes(n)?)?),
            12 => super::wire::repeated_varint(n, field, &mut positive.deltas)?,
            13 => repeated_fixed64(n, field, &mut positive.counts)?,
            14 => {
                h.reset_hint = match field.number(n)? {
                    1 => ResetHint::Reset,
                    2 => ResetHint::NotReset,
                    3 => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                }
            }
            15 => t_ms = field.number(n)?.cast_signed(),
            16 => repeated_fixed64(n, field, &mut custom)?,
            _ => {}
        }
    }
    if h.schema == CUSTOM_BUCKETS_SCHEMA {
        h.custom_values = custom.into_iter().map(f64::from_bits).collect();
    }
    (h.negative_buckets, h.positive_buckets) = (negative.buckets(), positive.buckets());
    (h.negative_spans, h.positive_spans) = (negative.spans, positive.spans);
    h.validate()
        .map_err(|e| WriteError::Histogram(e.to_string()))?;
    Ok(Sample {
        labels: labels.clone(),
        t_ms,
        value: Value::Histogram(Arc::new(h)),
    })
}

fn span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span::default();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => span.offset = i32::try_from(zigzag(field.number(n)?)).unwrap_or(0),
            2 => span.length = u32::try_from(field.number(n)?).unwrap_or(u32::MAX),
            _ => {}
        }
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::wire::{put_bytes, put_fixed64, put_number};
    use proptest::prelude::*;

    fn label_bytes(name: &str, value: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, name.as_bytes());
        put_bytes(&mut out, 2, value.as_bytes());
        out
    }

    fn request(labels: &[(&str, &str)], points: &[(f64, i64)]) -> Vec<u8> {
        let mut series = Vec::new();
        for (name, value) in labels {
            put_bytes(&mut series, 1, &label_bytes(name, value));
        }
        for (value, t_ms) in points {
            let mut sample = Vec::new();
            put_fixed64(&mut sample, 1, value.to_bits());
            put_number(&mut sample, 2, t_ms.cast_unsigned());
            put_bytes(&mut series, 2, &sample);
        }
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &series);
        out
    }

    #[test]
    fn series_are_read() {
        let message = request(&[("__name__", "a"), ("x", "y")], &[(1.5, 1), (2.5, -2)]);
        let write = walk(&message).unwrap();
        let labels = Labels::from_pairs([("__name__", "a"), ("x", "y")]);
        assert_eq!(
            write.samples,
            [
                Sample::float(labels.clone(), 1, 1.5),
                Sample::float(labels, -2, 2.5)
            ]
        );
        let error = walk(&request(&[("x", "y")], &[])).unwrap_err();
        assert!(error.to_string().contains("no metric name"));
        let twice = [("__name__", "a"), ("x", "1"), ("x", "2")];
        assert!(walk(&request(&twice, &[])).is_err());
    }

    #[test]
    fn lengths_are_checked_before_allocating() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert_eq!(
            decompress(&huge, 1 << 20),
            Err(WriteError::TooLarge(1 << 20))
        );
        assert!(matches!(
            decompress(&[5, 1], 100),
            Err(WriteError::Snappy(_))
        ));
        let packed = snap::raw::Encoder::new().compress_vec(b"abc").unwrap();
        assert_eq!(decompress(&packed, 3).unwrap(), b"abc");
    }

    #[test]
    fn histograms_with_integer_deltas_are_read() {
        let mut spans = Vec::new();
        put_number(&mut spans, 1, 1);
        put_number(&mut spans, 2, 2);
        let mut h = Vec::new();
        put_number(&mut h, 1, 5);
        put_fixed64(&mut h, 3, 9.0f64.to_bits());
        put_number(&mut h, 4, 6);
        put_bytes(&mut h, 11, &spans);
        put_bytes(&mut h, 12, &[4, 2]);
        put_number(&mut h, 15, 77);
        let sample = histogram(&h, &Labels::empty()).unwrap();
        let Value::Histogram(h) = sample.value else {
            panic!("not a histogram")
        };
        assert_eq!((h.schema, h.count, h.sum, sample.t_ms), (3, 5.0, 9.0, 77));
        assert_eq!(h.positive().collect::<Vec<_>>(), [(-1, 2.0), (0, 3.0)]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = walk(&bytes);
            let _ = decompress(&bytes, 1 << 16);
        }
    }
}
