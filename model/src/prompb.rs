//! Prometheus' protobuf messages of series: labels, samples, exemplars and native histograms, in both directions.
//!
//! Owns the field numbers that remote write 1.0 and remote read share (`prompb/types.proto`), and those of
//! `ReadRequest` and `ReadResponse`. Must not know HTTP nor compression. Histograms have the same numbers in remote
//! write 2.0. Specifications: <https://prometheus.io/docs/specs/prw/remote_write_spec/>,
//! <https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/>.

use std::sync::Arc;

use crate::histogram::{CUSTOM_BUCKETS_SCHEMA, NativeHistogram, ResetHint, Span};
use crate::labels::{Labels, LabelsBuilder};
use crate::matcher::{MatchOp, Matcher};
use crate::protobuf::{
    Field, Reader, WireError, put_bytes, put_fixed64, put_number, put_varint, put_zigzag,
    repeated_fixed64, repeated_varint, unzigzag,
};
use crate::sample::{Points, SeriesData, Value};
use crate::source::Exemplar;

/// Why a message is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrompbError {
    /// Not protobuf.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A label that no series can have.
    #[error("invalid series: {0}")]
    Label(String),
    /// A histogram whose buckets do not add up.
    #[error("{0}")]
    Histogram(String),
    /// A matcher that cannot be compiled, or of an unknown type.
    #[error("invalid matcher: {0}")]
    Matcher(String),
}

/// One query of a `ReadRequest`. Both bounds are inclusive.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadQuery {
    /// The first instant, Unix milliseconds.
    pub start_ms: i64,
    /// The last instant, Unix milliseconds.
    pub end_ms: i64,
    /// All must match.
    pub matchers: Vec<Matcher>,
}

/// A `ReadRequest`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadRequest {
    /// What to read.
    pub queries: Vec<ReadQuery>,
    /// The types of answer that the asker takes, best first: 0 samples, 1 streamed XOR chunks. Empty means samples.
    pub accepted: Vec<u64>,
}

// === reading ===

/// Bytes as text.
pub fn read_text(bytes: &[u8]) -> Result<&str, PrompbError> {
    std::str::from_utf8(bytes).map_err(|_| PrompbError::Label("a label is not valid UTF-8".into()))
}

/// Reads a `Label`: its name and value.
pub fn read_pair(message: &[u8]) -> Result<(&str, &str), PrompbError> {
    let (name, value) = read_raw_pair(message)?;
    Ok((read_text(name)?, read_text(value)?))
}

/// The name and value of a `Label`, whatever their bytes are.
#[inline]
pub fn read_raw_pair(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    // As every writer writes it: both fields, in order, shorter than 128 bytes.
    if let [0x0a, len, rest @ ..] = message
        && let Some((name, [0x12, value_len, value @ ..])) = rest.split_at_checked(*len as usize)
        && *len < 0x80
        && *value_len < 0x80
        && value.len() == *value_len as usize
    {
        return Ok((name, value));
    }
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => name = field.bytes(n)?,
            2 => value = field.bytes(n)?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// Reads a `Label` into a builder; a name that is already there is an error.
pub fn read_label(message: &[u8], builder: &mut LabelsBuilder) -> Result<(), PrompbError> {
    let (name, value) = read_pair(message)?;
    if builder.get(name).is_some() {
        return Err(PrompbError::Label(format!("label {name:?} comes twice")));
    }
    builder.set(name, value);
    Ok(())
}

/// Reads a `Sample`: when (Unix milliseconds) and the value.
#[inline]
pub fn read_sample(message: &[u8]) -> Result<(i64, f64), WireError> {
    // As every writer writes it: both fields, in order.
    if let [0x09, rest @ ..] = message
        && let Some((value, [0x10, time @ ..])) = rest.split_first_chunk::<8>()
        && let Some(t_ms) = whole_varint(time)
    {
        return Ok((t_ms.cast_signed(), f64::from_le_bytes(*value)));
    }
    let (mut value, mut t_ms) = (0.0, 0);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => value = field.double(n)?,
            2 => t_ms = field.number(n)?.cast_signed(),
            _ => {}
        }
    }
    Ok((t_ms, value))
}

/// A varint that takes all of `bytes`, at most nine of them.
#[inline]
fn whole_varint(bytes: &[u8]) -> Option<u64> {
    let (last, before) = bytes.split_last()?;
    if *last >= 0x80 || before.len() > 8 {
        return None;
    }
    let mut value = u64::from(*last);
    for byte in before.iter().rev() {
        if *byte < 0x80 {
            return None;
        }
        value = value << 7 | u64::from(byte & 0x7f);
    }
    Some(value)
}

/// Reads an `Exemplar`.
pub fn read_exemplar(message: &[u8]) -> Result<Exemplar, PrompbError> {
    let mut builder = LabelsBuilder::default();
    let (mut value, mut t_ms) = (0.0, 0);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => read_label(field.bytes(n)?, &mut builder)?,
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
        let deltas = self.deltas.iter().map(|d| unzigzag(*d));
        deltas
            .map(|d| {
                count = count.wrapping_add(d);
                count as f64
            })
            .collect()
    }
}

/// Reads a `Histogram`, of integers or floats: when (Unix milliseconds) and the histogram, which is valid.
pub fn read_histogram(message: &[u8]) -> Result<(i64, NativeHistogram), PrompbError> {
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
            4 => h.schema = i32::try_from(unzigzag(field.number(n)?)).unwrap_or(i32::MAX),
            5 => h.zero_threshold = field.double(n)?,
            6 | 7 => h.zero_count = count(n, field)?,
            8 => negative.spans.push(read_span(field.bytes(n)?)?),
            9 => repeated_varint(n, field, &mut negative.deltas)?,
            10 => repeated_fixed64(n, field, &mut negative.counts)?,
            11 => positive.spans.push(read_span(field.bytes(n)?)?),
            12 => repeated_varint(n, field, &mut positive.deltas)?,
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
        .map_err(|e| PrompbError::Histogram(e.to_string()))?;
    Ok((t_ms, h))
}

fn read_span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span::default();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => span.offset = i32::try_from(unzigzag(field.number(n)?)).unwrap_or(0),
            2 => span.length = u32::try_from(field.number(n)?).unwrap_or(u32::MAX),
            _ => {}
        }
    }
    Ok(span)
}

/// The word for a metric's type, as metadata has it.
#[must_use]
pub fn metric_type(number: u64) -> &'static str {
    match number {
        1 => "counter",
        2 => "gauge",
        3 => "histogram",
        4 => "gaugehistogram",
        5 => "summary",
        6 => "info",
        7 => "stateset",
        _ => "unknown",
    }
}

/// Reads the `TimeSeries` of a `ReadResponse`'s first result. Points are put in order of time; of two at one instant
/// the first stays. Stops with `None` when there are more than `max_points`.
pub fn read_response(
    message: &[u8],
    max_points: usize,
) -> Result<Option<Vec<SeriesData>>, PrompbError> {
    let (mut out, mut points) = (Vec::new(), 0);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        if n != 1 {
            continue;
        }
        let mut result = Reader::new(field.bytes(n)?);
        while let Some((n, field)) = result.next_field()? {
            if n == 1 {
                let series = read_series(field.bytes(n)?)?;
                points += series.points.len();
                if points > max_points {
                    return Ok(None);
                }
                out.push(series);
            }
        }
    }
    Ok(Some(out))
}

fn read_series(message: &[u8]) -> Result<SeriesData, PrompbError> {
    let mut builder = LabelsBuilder::default();
    let mut all: Vec<(i64, Value)> = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => read_label(field.bytes(n)?, &mut builder)?,
            2 => {
                let (t_ms, value) = read_sample(field.bytes(n)?)?;
                all.push((t_ms, Value::Float(value)));
            }
            4 => {
                let (t_ms, histogram) = read_histogram(field.bytes(n)?)?;
                all.push((t_ms, Value::Histogram(Arc::new(histogram))));
            }
            _ => {}
        }
    }
    all.sort_by_key(|(t_ms, _)| *t_ms);
    all.dedup_by_key(|(t_ms, _)| *t_ms);
    let mut points = Points::default();
    for (t_ms, value) in all {
        points.push(t_ms, value);
    }
    let labels = builder.build();
    Ok(SeriesData { labels, points })
}

/// Reads a `ReadRequest`.
pub fn read_request(message: &[u8]) -> Result<ReadRequest, PrompbError> {
    let mut out = ReadRequest::default();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => out.queries.push(read_query(field.bytes(n)?)?),
            2 => repeated_varint(n, field, &mut out.accepted)?,
            _ => {}
        }
    }
    Ok(out)
}

fn read_query(message: &[u8]) -> Result<ReadQuery, PrompbError> {
    let mut out = ReadQuery::default();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => out.start_ms = field.number(n)?.cast_signed(),
            2 => out.end_ms = field.number(n)?.cast_signed(),
            3 => out.matchers.push(read_matcher(field.bytes(n)?)?),
            _ => {}
        }
    }
    Ok(out)
}

fn read_matcher(message: &[u8]) -> Result<Matcher, PrompbError> {
    let (mut kind, mut name, mut value) = (0, "", "");
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => kind = field.number(n)?,
            2 => name = read_text(field.bytes(n)?)?,
            3 => value = read_text(field.bytes(n)?)?,
            _ => {}
        }
    }
    let op = match kind {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        other => return Err(PrompbError::Matcher(format!("type {other} is unknown"))),
    };
    Matcher::new(name, op, value).map_err(|e| PrompbError::Matcher(e.to_string()))
}

// === writing ===

/// Appends labels, each as field 1.
pub fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    for (name, value) in labels {
        let body = text_bytes(name) + text_bytes(value);
        put_varint(out, 1 << 3 | 2);
        put_varint(out, body as u64);
        put_bytes(out, 1, name.as_bytes());
        put_bytes(out, 2, value.as_bytes());
    }
}

/// Bytes of a text in a field with a number below 16.
fn text_bytes(text: &str) -> usize {
    1 + varint_bytes(text.len() as u64) + text.len()
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a point of a series: a float as field 2, a histogram as field 4.
pub fn put_point(out: &mut Vec<u8>, t_ms: i64, value: &Value) {
    match value {
        Value::Float(v) => {
            let t = t_ms.cast_unsigned();
            put_varint(out, 2 << 3 | 2);
            put_varint(out, 9 + 1 + varint_bytes(t) as u64);
            put_fixed64(out, 1, v.to_bits());
            put_number(out, 2, t);
        }
        Value::Histogram(h) => put_bytes(out, 4, &histogram(t_ms, h)),
    }
}

/// A `Histogram` of floats, which loses nothing.
fn histogram(t_ms: i64, h: &NativeHistogram) -> Vec<u8> {
    let mut out = Vec::new();
    put_fixed64(&mut out, 2, h.count.to_bits());
    put_fixed64(&mut out, 3, h.sum.to_bits());
    put_zigzag(&mut out, 4, i64::from(h.schema));
    put_fixed64(&mut out, 5, h.zero_threshold.to_bits());
    put_fixed64(&mut out, 7, h.zero_count.to_bits());
    for (spans, counts, span_field, count_field) in [
        (&h.negative_spans, &h.negative_buckets, 8, 10),
        (&h.positive_spans, &h.positive_buckets, 11, 13),
    ] {
        for span in spans {
            let mut part = Vec::new();
            put_zigzag(&mut part, 1, i64::from(span.offset));
            put_number(&mut part, 2, u64::from(span.length));
            put_bytes(&mut out, span_field, &part);
        }
        put_doubles(&mut out, count_field, counts);
    }
    let hint = match h.reset_hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    };
    put_number(&mut out, 14, hint);
    put_number(&mut out, 15, t_ms.cast_unsigned());
    put_doubles(&mut out, 16, &h.custom_values);
    out
}

/// Appends a packed field of doubles, or nothing.
fn put_doubles(out: &mut Vec<u8>, number: u32, values: &[f64]) {
    if !values.is_empty() {
        let packed: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        put_bytes(out, number, &packed);
    }
}

/// Appends an exemplar of a series as field 3.
pub fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    let mut part = Vec::new();
    put_labels(&mut part, &exemplar.labels);
    put_fixed64(&mut part, 2, exemplar.value.to_bits());
    put_number(&mut part, 3, exemplar.t_ms.cast_unsigned());
    put_bytes(out, 3, &part);
}

/// A series as a `TimeSeries` message.
#[must_use]
pub fn series(series: &SeriesData) -> Vec<u8> {
    let mut out = Vec::new();
    put_labels(&mut out, &series.labels);
    for (i, t_ms) in series.points.t_ms.iter().enumerate() {
        put_point(&mut out, *t_ms, &series.points.value(i));
    }
    out
}

/// A `ReadRequest` of one query that takes samples.
#[must_use]
pub fn request(query: &ReadQuery) -> Vec<u8> {
    let mut body = Vec::new();
    put_number(&mut body, 1, query.start_ms.cast_unsigned());
    put_number(&mut body, 2, query.end_ms.cast_unsigned());
    for matcher in &query.matchers {
        let mut part = Vec::new();
        let kind = match matcher.op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        };
        put_number(&mut part, 1, kind);
        put_bytes(&mut part, 2, matcher.name.as_bytes());
        put_bytes(&mut part, 3, matcher.value.as_bytes());
        put_bytes(&mut body, 3, &part);
    }
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &body);
    put_number(&mut out, 2, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sided() -> NativeHistogram {
        NativeHistogram {
            schema: 3,
            zero_threshold: 0.001,
            zero_count: 2.0,
            count: 10.5,
            sum: -3.25,
            positive_spans: vec![
                Span {
                    offset: -2,
                    length: 2,
                },
                Span {
                    offset: 3,
                    length: 1,
                },
            ],
            negative_spans: vec![Span {
                offset: 1,
                length: 1,
            }],
            positive_buckets: vec![1.0, 2.5, 3.0],
            negative_buckets: vec![2.0],
            custom_values: Vec::new(),
            reset_hint: ResetHint::Gauge,
        }
    }

    #[test]
    fn series_round_trip() {
        let custom = NativeHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 3.0,
            positive_spans: vec![Span {
                offset: 0,
                length: 2,
            }],
            positive_buckets: vec![1.0, 2.0],
            custom_values: vec![0.5],
            ..NativeHistogram::default()
        };
        let mut points = Points::default();
        points.push_float(-5, 1.5);
        points.push_histogram(10, Arc::new(sided()));
        points.push_histogram(20, Arc::new(custom));
        let one = SeriesData {
            labels: Labels::from_pairs([("__name__", "x"), ("a", "b")]),
            points,
        };
        let mut result = Vec::new();
        put_bytes(&mut result, 1, &series(&one));
        let mut response = Vec::new();
        put_bytes(&mut response, 1, &result);
        assert_eq!(read_response(&response, 3), Ok(Some(vec![one])));
        assert_eq!(read_response(&response, 2), Ok(None));
    }

    #[test]
    fn requests_round_trip() {
        let query = ReadQuery {
            start_ms: -1,
            end_ms: 2,
            matchers: vec![
                Matcher::equal("__name__", "x"),
                Matcher::new("a", MatchOp::NotRegex, "b|c").unwrap(),
            ],
        };
        let read = read_request(&request(&query)).unwrap();
        assert_eq!((read.queries, read.accepted), (vec![query], vec![0]));
        let mut bad = Vec::new();
        put_number(&mut bad, 1, 9);
        assert!(read_matcher(&bad).unwrap_err().to_string().contains("9"));
    }

    #[test]
    fn histograms_with_integer_deltas_are_read() {
        let mut spans = Vec::new();
        put_number(&mut spans, 1, 1);
        put_number(&mut spans, 2, 2);
        let mut message = Vec::new();
        put_number(&mut message, 1, 5);
        put_fixed64(&mut message, 3, 9.0f64.to_bits());
        put_number(&mut message, 4, 6);
        put_bytes(&mut message, 11, &spans);
        put_bytes(&mut message, 12, &[4, 2]);
        put_number(&mut message, 15, 77);
        let (t_ms, h) = read_histogram(&message).unwrap();
        assert_eq!((h.schema, h.count, h.sum, t_ms), (3, 5.0, 9.0, 77));
        assert_eq!(h.positive().collect::<Vec<_>>(), [(-1, 2.0), (0, 3.0)]);
    }

    proptest! {
        #[test]
        fn labels_round_trip(pairs in proptest::collection::btree_map("[a-zé]{1,200}", ".{1,300}", 0..6)) {
            let labels = Labels::from_pairs(pairs);
            let mut bytes = Vec::new();
            put_labels(&mut bytes, &labels);
            put_point(&mut bytes, i64::MIN, &Value::Float(1.0));
            prop_assert_eq!(read_series(&bytes).unwrap().labels, labels);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_request(&bytes);
            let _ = read_response(&bytes, 10);
        }
    }
}
