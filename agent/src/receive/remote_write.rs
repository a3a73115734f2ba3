//! Prometheus remote write 1.0: snappy over a protobuf that is walked by hand.
//!
//! Owns the `prometheus.WriteRequest` field numbers. Must not know HTTP. The length that snappy announces is checked
//! before anything is allocated. Specification: prometheus.io/docs/specs/prw/remote_write_spec.

use std::sync::Arc;

use model::labels::MAX_LABEL_BYTES;
use model::prompb::{self, PrompbError, read_text};
use model::protobuf::{Reader, WireError};
use model::source::{Exemplar, Metadata};
use model::{AscendingLabels, Labels, LabelsBuilder, METRIC_NAME, UncheckedLabels, Value};
use store::{Finder, PackedBatch, Store};

use crate::ingest::Sample;

/// What a request holds.
#[derive(Debug, Default)]
pub struct Write {
    /// Floats by packed labels: all samples of the request, or none.
    pub packed: PackedBatch,
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
    /// A label or a histogram that is not one.
    #[error(transparent)]
    Message(#[from] PrompbError),
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

/// Reads a `WriteRequest`: floats of series with sorted labels, which is what senders send, without an allocation a
/// series; anything else as [`walk`] does. With `known`, series that are in that store are named by their ids, and
/// their labels are compared but not read.
pub fn read(message: &[u8], known: Option<&Store>) -> Result<Write, WriteError> {
    let plain = Plain {
        known,
        finder: None,
        served: 0,
        unchecked: UncheckedLabels::default(),
        labels: AscendingLabels::default(),
        out: Write::default(),
    };
    match plain.walk(message)? {
        Some(write) => Ok(write),
        None => walk(message),
    }
}

/// Series that are looked up before appends may go on.
const LOOKUPS: usize = 1_000;

/// Reads requests of floats with sorted labels, and metadata.
struct Plain<'a> {
    known: Option<&'a Store>,
    finder: Option<Finder<'a>>,
    /// Look-ups of this finder.
    served: usize,
    unchecked: UncheckedLabels,
    labels: AscendingLabels,
    out: Write,
}

// === impl Plain ===

impl Plain<'_> {
    /// `None` when there is more than floats and metadata, or labels are not sorted.
    fn walk(mut self, message: &[u8]) -> Result<Option<Write>, WriteError> {
        let mut reader = Reader::new(message);
        while let Some((n, field)) = reader.next_field()? {
            match n {
                1 => {
                    let series = field.bytes(n)?;
                    if !self.known_series(series)? && !self.series(series)? {
                        return Ok(None);
                    }
                }
                3 => self.out.metadata.extend(metadata(field.bytes(n)?)?),
                _ => {}
            }
        }
        Ok(Some(self.out))
    }

    /// Takes the samples of a series that the store knows; false, and nothing is taken, when it does not.
    fn known_series(&mut self, message: &[u8]) -> Result<bool, WriteError> {
        let Some(store) = self.known else {
            return Ok(false);
        };
        self.unchecked.clear();
        let mut named = false;
        let mut reader = Reader::new(message);
        let mut next = reader.next_field()?;
        while let Some((1, field)) = next {
            let (name, value) = prompb::read_raw_pair(field.bytes(1)?)?;
            named |= name == METRIC_NAME.as_bytes() && !value.is_empty();
            self.unchecked.push(name, value);
            next = reader.next_field()?;
        }
        if self.served >= LOOKUPS {
            (self.finder, self.served) = (None, 0);
        }
        self.served += 1;
        let finder = self.finder.get_or_insert_with(|| store.finder());
        let Some(id) = finder.find(&self.unchecked).filter(|_| named) else {
            return Ok(false);
        };
        let before = self.out.packed.len();
        self.out.packed.begin_id(id);
        while let Some((n, field)) = next {
            match n {
                2 => {
                    let (t_ms, value) = prompb::read_sample(field.bytes(n)?)?;
                    self.out.packed.push(t_ms, value);
                }
                // More than samples: what was taken is taken back.
                1 | 3 | 4 => {
                    self.out.packed.truncate(before);
                    return Ok(false);
                }
                _ => {}
            }
            next = reader.next_field()?;
        }
        Ok(self.out.packed.len() > before)
    }

    fn series(&mut self, message: &[u8]) -> Result<bool, WriteError> {
        let labels = &mut self.labels;
        let out = &mut self.out.packed;
        labels.clear();
        let (mut begun, mut named) = (false, false);
        let mut reader = Reader::new(message);
        while let Some((n, field)) = reader.next_field()? {
            match n {
                1 => {
                    let (name, value) = prompb::read_pair(field.bytes(n)?)?;
                    named |= name == METRIC_NAME && !value.is_empty();
                    if begun || !labels.push(name, value) {
                        return Ok(false);
                    }
                }
                2 => {
                    begun = begun || (named && out.begin(labels));
                    if !begun {
                        return Ok(false);
                    }
                    let (t_ms, value) = prompb::read_sample(field.bytes(n)?)?;
                    out.push(t_ms, value);
                }
                3 | 4 => return Ok(false),
                _ => {}
            }
        }
        Ok(begun)
    }
}

/// Walks a `WriteRequest`.
pub fn walk(message: &[u8]) -> Result<Write, WriteError> {
    let mut out = Write::default();
    let mut ascending = AscendingLabels::default();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => series(field.bytes(n)?, &mut ascending, &mut out)?,
            3 => out.metadata.extend(metadata(field.bytes(n)?)?),
            _ => {}
        }
    }
    Ok(out)
}

fn series(
    message: &[u8],
    ascending: &mut AscendingLabels,
    out: &mut Write,
) -> Result<(), WriteError> {
    ascending.clear();
    let mut sorted = true;
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        if n == 1 {
            let (name, value) = prompb::read_pair(field.bytes(n)?)?;
            sorted = sorted && ascending.push(name, value);
        }
    }
    let labels = match sorted {
        true => ascending.build(),
        false => unsorted(message)?,
    };
    if labels.get(METRIC_NAME).is_none() {
        return Err(WriteError::Labels(format!("{labels} has no metric name")));
    }
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        if !(2..=4).contains(&n) {
            continue;
        }
        let message = field.bytes(n)?;
        let (t_ms, value) = match n {
            2 => {
                let (t_ms, value) = prompb::read_sample(message)?;
                (t_ms, Value::Float(value))
            }
            3 => {
                let exemplar = prompb::read_exemplar(message)?;
                out.exemplars.push((labels.clone(), exemplar));
                continue;
            }
            _ => {
                let (t_ms, histogram) = prompb::read_histogram(message)?;
                (t_ms, Value::Histogram(Arc::new(histogram)))
            }
        };
        let labels = labels.clone();
        out.samples.push(Sample {
            labels,
            t_ms,
            start_ms: 0,
            value,
        });
    }
    Ok(())
}

/// Refuses a label that would have to be cut: two series could become one.
pub(super) fn check_length((name, value): (&str, &str)) -> Result<(), WriteError> {
    let longest = name.len().max(value.len());
    if longest <= MAX_LABEL_BYTES {
        return Ok(());
    }
    let begin: String = name.chars().take(40).collect();
    Err(WriteError::Labels(format!(
        "label {begin:?} is {longest} bytes long; at most {MAX_LABEL_BYTES} are taken"
    )))
}

/// The labels of a sender that does not sort them.
fn unsorted(message: &[u8]) -> Result<Labels, WriteError> {
    let mut builder = LabelsBuilder::default();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        if n == 1 {
            let message = field.bytes(n)?;
            check_length(prompb::read_pair(message)?)?;
            prompb::read_label(message, &mut builder)?;
        }
    }
    Ok(builder.build())
}

fn metadata(message: &[u8]) -> Result<Option<(String, Metadata)>, WriteError> {
    let (mut name, mut metadata) = (String::new(), Metadata::default());
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => {
                metadata.kind = prompb::metric_type(field.number(n)?).into();
            }
            2 => name = read_text(field.bytes(n)?)?.to_owned(),
            4 => metadata.help = read_text(field.bytes(n)?)?.to_owned(),
            5 => metadata.unit = read_text(field.bytes(n)?)?.to_owned(),
            _ => {}
        }
    }
    Ok((!name.is_empty()).then_some((name, metadata)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use model::protobuf::{put_bytes, put_fixed64, put_number};
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
        let long = "v".repeat(MAX_LABEL_BYTES + 1);
        let error = read(
            &request(&[("__name__", "a"), ("x", &long)], &[(1.0, 1)]),
            None,
        );
        let text = error.unwrap_err().to_string();
        assert!(text.contains("label \"x\" is 1048577 bytes long"), "{text}");
        let twice = [("__name__", "a"), ("x", "1"), ("x", "2")];
        assert!(walk(&request(&twice, &[])).is_err());
    }

    /// The samples of either form.
    fn all(write: &Write, known: &HashMap<store::SeriesId, Labels>) -> Vec<Sample> {
        let packed = write.packed.iter().map(|(series, t_ms, value)| {
            let labels = match series {
                store::SeriesName::Packed(packed) => Labels::from_packed(packed).unwrap(),
                store::SeriesName::Id(id) => known[&id].clone(),
            };
            Sample::float(labels, t_ms, value)
        });
        packed.chain(write.samples.iter().cloned()).collect()
    }

    /// A store that knows a few of the series that the test below makes, and their ids.
    fn knowing(dir: &tempfile::TempDir) -> (Store, HashMap<store::SeriesId, Labels>) {
        let store = Store::open(store::StoreOptions::new(dir.path())).unwrap();
        let mut ids = HashMap::new();
        for a in ["", "x", "y", "xy"] {
            for b in ["", "x"] {
                let labels = Labels::from_pairs([("__name__", "n"), ("a", a), ("b", b)]);
                ids.insert(store.series_id(&labels), labels);
            }
        }
        (store, ids)
    }

    proptest! {
        #[test]
        fn the_quick_way_reads_what_the_thorough_one_does(
            series in proptest::collection::vec(
                (proptest::collection::vec(("[a-c]{0,2}|__name__", "[xy]{0,2}"), 0..5),
                 proptest::collection::vec((any::<i32>(), any::<i64>()), 0..4), any::<bool>()),
                0..5),
            cut in any::<usize>(),
        ) {
            let mut message = Vec::new();
            for (mut labels, points, sort) in series {
                if sort {
                    labels.push(("__name__".into(), "n".into()));
                    labels.sort();
                    labels.dedup_by(|a, b| a.0 == b.0);
                }
                let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let points: Vec<(f64, i64)> = points.iter().map(|(v, t)| (f64::from(*v), *t)).collect();
                message.extend(request(&labels, &points));
            }
            let dir = tempfile::tempdir().unwrap();
            let (store, ids) = knowing(&dir);
            for message in [&message[..], &message[..cut % (message.len() + 1)]] {
                for known in [None, Some(&store)] {
                    match (read(message, known), walk(message)) {
                        (Ok(quick), Ok(thorough)) => prop_assert_eq!(all(&quick, &ids), all(&thorough, &ids)),
                        (quick, thorough) => prop_assert_eq!(quick.is_err(), thorough.is_err()),
                    }
                }
            }
        }
    }

    #[test]
    fn sorted_floats_take_the_quick_way() {
        let sorted = request(&[("__name__", "a"), ("x", "y")], &[(1.5, 1)]);
        let write = read(&sorted, None).unwrap();
        assert_eq!((write.packed.len(), write.samples.len()), (1, 0));
        let unsorted = request(&[("x", "y"), ("__name__", "a")], &[(1.5, 1)]);
        let write = read(&unsorted, None).unwrap();
        assert_eq!((write.packed.len(), write.samples.len()), (0, 1));
        let dir = tempfile::tempdir().unwrap();
        let (store, ids) = knowing(&dir);
        let known = request(&[("__name__", "n"), ("a", "x")], &[(1.5, 1), (2.5, 2)]);
        let write = read(&[known, sorted].concat(), Some(&store)).unwrap();
        let by_id = write.packed.iter().map(|(series, _, _)| matches!(series, store::SeriesName::Id(id) if ids[&id].get("a") == Some("x")));
        assert_eq!(by_id.collect::<Vec<_>>(), [true, true, false]);
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

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = walk(&bytes);
            let _ = decompress(&bytes, 1 << 16);
        }
    }
}
