//! Prometheus remote write 2.0: labels and metadata as numbers into one table of texts.
//!
//! Owns the `io.prometheus.write.v2.Request` field numbers. Must not know HTTP. What the numbers stand for is bounded
//! before it is built: a table of one long text and a million references to it is a small message.
//! Specification: prometheus.io/docs/specs/prw/remote_write_spec_2_0.

use std::sync::Arc;

use model::prompb::{PrompbError, metric_type, read_histogram, read_sample, read_text};
use model::protobuf::{Field, Reader, WireError, repeated_varint};
use model::source::{Exemplar, Metadata};
use model::{Labels, LabelsBuilder, METRIC_NAME, Value};

use super::remote_write::{Write, WriteError, check_length};
use crate::ingest::Sample;

/// Bytes of labels that a message may stand for, for each byte that it has.
pub const EXPANSION: usize = 16;

/// The table of texts, and how many more bytes of them may be used.
struct Symbols<'a> {
    texts: Vec<&'a str>,
    left: usize,
}

/// Walks a `Request`.
pub fn walk(message: &[u8]) -> Result<Write, WriteError> {
    let mut symbols = Symbols {
        texts: Vec::new(),
        left: message.len().saturating_mul(EXPANSION) + (64 << 10),
    };
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        if n == 4 {
            symbols.texts.push(read_text(field.bytes(n)?)?);
        }
    }
    if symbols.texts.first().is_some_and(|first| !first.is_empty()) {
        return Err(invalid("the first symbol must be empty"));
    }
    let mut out = Write::default();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        if n == 5 {
            series(field.bytes(n)?, &mut symbols, &mut out)?;
        }
    }
    Ok(out)
}

fn invalid(problem: impl Into<String>) -> WriteError {
    WriteError::Message(PrompbError::Label(problem.into()))
}

// === impl Symbols ===

impl Symbols<'_> {
    fn text(&mut self, number: u64) -> Result<&str, WriteError> {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let text = self.texts.get(at).copied().ok_or_else(|| {
            invalid(format!(
                "symbol {number} is referred to, there are {}",
                self.texts.len()
            ))
        })?;
        self.left = self
            .left
            .checked_sub(text.len())
            .ok_or_else(|| invalid("the labels are larger than the message has room for"))?;
        Ok(text)
    }

    fn labels(&mut self, numbers: &[u64]) -> Result<Labels, WriteError> {
        if !numbers.len().is_multiple_of(2) {
            return Err(invalid("the number of label references is odd"));
        }
        let mut builder = LabelsBuilder::default();
        for pair in numbers.chunks_exact(2) {
            let name = self.text(pair[0])?.to_owned();
            if builder.get(&name).is_some() {
                return Err(invalid(format!("label {name:?} comes twice")));
            }
            let value = self.text(pair[1])?;
            check_length((&name, value))?;
            builder.set(name, value);
        }
        Ok(builder.build())
    }
}

fn series(message: &[u8], symbols: &mut Symbols<'_>, out: &mut Write) -> Result<(), WriteError> {
    let (mut numbers, mut points) = (Vec::new(), Vec::new());
    let mut about = None;
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => repeated_varint(n, field, &mut numbers)?,
            2..=4 => points.push((n, field.bytes(n)?)),
            5 => about = Some(field.bytes(n)?),
            _ => {}
        }
    }
    let labels = symbols.labels(&numbers)?;
    if labels.get(METRIC_NAME).is_none() {
        return Err(invalid(format!("{labels} has no metric name")));
    }
    // Every sample holds the same labels; only their first copy costs memory.
    for (n, message) in points {
        let (t_ms, value, start_ms) = match n {
            2 => {
                let (t_ms, value) = read_sample(message)?;
                (t_ms, Value::Float(value), start(message, 3)?)
            }
            3 => {
                let (t_ms, histogram) = read_histogram(message)?;
                let value = Value::Histogram(Arc::new(histogram));
                (t_ms, value, start(message, 17)?)
            }
            _ => {
                let exemplar = exemplar(message, symbols)?;
                out.exemplars.push((labels.clone(), exemplar));
                continue;
            }
        };
        let labels = labels.clone();
        out.samples.push(Sample {
            labels,
            t_ms,
            value,
            start_ms,
        });
    }
    if let Some(message) = about {
        out.metadata.extend(metadata(message, &labels, symbols)?);
    }
    Ok(())
}

/// When the counter began, Unix milliseconds: field `number` of a sample or histogram; 0 for unknown.
fn start(message: &[u8], number: u32) -> Result<i64, WireError> {
    let (mut reader, mut start_ms) = (Reader::new(message), 0);
    while let Some((n, field)) = reader.next_field()? {
        if n == number {
            start_ms = field.number(n)?.cast_signed();
        }
    }
    Ok(start_ms)
}

fn exemplar(message: &[u8], symbols: &mut Symbols<'_>) -> Result<Exemplar, WriteError> {
    let (mut numbers, mut value, mut t_ms) = (Vec::new(), 0.0, 0);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => repeated_varint(n, field, &mut numbers)?,
            2 => value = field.double(n)?,
            3 => t_ms = field.number(n)?.cast_signed(),
            _ => {}
        }
    }
    let labels = symbols.labels(&numbers)?;
    Ok(Exemplar {
        labels,
        value,
        t_ms,
    })
}

/// What a series says of its metric; `None` when it says nothing.
fn metadata(
    message: &[u8],
    labels: &Labels,
    symbols: &mut Symbols<'_>,
) -> Result<Option<(String, Metadata)>, WriteError> {
    let mut out = Metadata::default();
    let number = |n, field: Field<'_>| -> Result<u64, WireError> { field.number(n) };
    let mut reader = Reader::new(message);
    let mut kind = 0;
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => kind = number(n, field)?,
            3 => out.help = symbols.text(number(n, field)?)?.to_owned(),
            4 => out.unit = symbols.text(number(n, field)?)?.to_owned(),
            _ => {}
        }
    }
    if kind == 0 && out.help.is_empty() && out.unit.is_empty() {
        return Ok(None);
    }
    out.kind = metric_type(kind).into();
    Ok(Some((family(labels.name(), &out.kind).to_owned(), out)))
}

/// The name that a series' metadata is kept under: without the suffixes of classic histograms and summaries.
fn family<'a>(name: &'a str, kind: &str) -> &'a str {
    let suffixes: &[&str] = match kind {
        "histogram" | "gaugehistogram" => &["_bucket", "_sum", "_count"],
        "summary" => &["_sum", "_count"],
        _ => &[],
    };
    let found = suffixes.iter().find_map(|s| name.strip_suffix(s));
    found.unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::protobuf::{put_bytes, put_fixed64, put_number, put_varint};
    use proptest::prelude::*;

    fn packed(numbers: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        numbers.iter().for_each(|n| put_varint(&mut out, *n));
        out
    }

    fn sample(value: f64, t_ms: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_fixed64(&mut out, 1, value.to_bits());
        put_number(&mut out, 2, t_ms);
        put_number(&mut out, 3, 1);
        out
    }

    fn request(symbols: &[&str], series: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        // The order of fields is free: series may come before the table.
        series.iter().for_each(|s| put_bytes(&mut out, 5, s));
        symbols
            .iter()
            .for_each(|s| put_bytes(&mut out, 4, s.as_bytes()));
        out
    }

    const SYMBOLS: [&str; 9] = [
        "",
        "__name__",
        "x_bucket",
        "le",
        "1",
        "help text",
        "seconds",
        "trace_id",
        "ab",
    ];

    #[test]
    fn everything_is_read() {
        let mut one = Vec::new();
        put_bytes(&mut one, 1, &packed(&[1, 2, 3, 4]));
        put_bytes(&mut one, 2, &sample(1.5, 10));
        put_bytes(&mut one, 2, &sample(2.5, 20));
        let mut exemplar = Vec::new();
        put_bytes(&mut exemplar, 1, &packed(&[7, 8]));
        put_fixed64(&mut exemplar, 2, 0.5f64.to_bits());
        put_number(&mut exemplar, 3, 15);
        put_bytes(&mut one, 4, &exemplar);
        let mut about = Vec::new();
        put_number(&mut about, 1, 3);
        put_number(&mut about, 3, 5);
        put_number(&mut about, 4, 6);
        put_bytes(&mut one, 5, &about);
        let write = walk(&request(&SYMBOLS, &[one])).unwrap();
        let labels = Labels::from_pairs([("__name__", "x_bucket"), ("le", "1")]);
        assert_eq!(
            write.samples,
            [(10, 1.5), (20, 2.5)].map(|(t_ms, value)| Sample {
                start_ms: 1,
                ..Sample::float(labels.clone(), t_ms, value)
            })
        );
        let (of, exemplar) = &write.exemplars[0];
        assert_eq!((of, exemplar.t_ms, exemplar.value), (&labels, 15, 0.5));
        assert_eq!(exemplar.labels.get("trace_id"), Some("ab"));
        let (name, metadata) = &write.metadata[0];
        assert_eq!(name, "x");
        assert_eq!(
            (
                metadata.kind.as_str(),
                metadata.help.as_str(),
                metadata.unit.as_str()
            ),
            ("histogram", "help text", "seconds")
        );
    }

    #[test]
    fn native_histograms_are_read() {
        let mut histogram = Vec::new();
        put_number(&mut histogram, 1, 2);
        put_fixed64(&mut histogram, 3, 3.0f64.to_bits());
        put_number(&mut histogram, 15, 10);
        put_number(&mut histogram, 17, 1);
        let mut one = Vec::new();
        put_bytes(&mut one, 1, &packed(&[1, 2]));
        put_bytes(&mut one, 3, &histogram);
        let write = walk(&request(&SYMBOLS, &[one])).unwrap();
        let Value::Histogram(h) = &write.samples[0].value else {
            panic!("not a histogram")
        };
        let sample = &write.samples[0];
        assert_eq!((h.count, h.sum, sample.t_ms), (2.0, 3.0, 10));
        assert_eq!(sample.start_ms, 1);
    }

    #[test]
    fn references_are_checked() {
        let refused = |symbols: &[&str], numbers: &[u64]| {
            let mut one = Vec::new();
            put_bytes(&mut one, 1, &packed(numbers));
            walk(&request(symbols, &[one])).unwrap_err().to_string()
        };
        assert!(refused(&SYMBOLS, &[1, 9]).contains("symbol 9"));
        assert!(refused(&SYMBOLS, &[1, 2, 3]).contains("odd"));
        assert!(refused(&SYMBOLS, &[3, 4]).contains("no metric name"));
        assert!(refused(&SYMBOLS, &[1, 2, 1, 4]).contains("twice"));
        assert!(refused(&["a"], &[]).contains("first symbol"));
        let long = "x".repeat(1 << 20);
        let bomb: Vec<u64> = (0..1_000).flat_map(|i| [i + 2, 1]).collect();
        let names: Vec<String> = (0..1_000).map(|i| format!("n{i}")).collect();
        let mut table = vec!["", long.as_str()];
        table.extend(names.iter().map(String::as_str));
        assert!(refused(&table, &bomb).contains("larger than"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = walk(&bytes);
        }
    }
}
