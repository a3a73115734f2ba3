//! Reading OpenMetrics text into a store.
//!
//! Owns lines: names, labels, values, times, exemplars, comments, and errors that name the line. Must not know how text
//! is written.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::sync::Arc;

use model::labels::{is_label_identifier, is_metric_identifier, unescape};
use model::source::{Exemplar, Metadata};
use model::{Labels, LabelsBuilder, METRIC_NAME, Value};

use super::{composite, parse_number};
use crate::append::SampleRef;
use crate::error::StoreError;
use crate::store::Store;

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 4 << 20;

/// Samples appended in one batch.
const BATCH: usize = 10_000;

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Lines read.
    pub lines: u64,
    /// Samples stored.
    pub appended: u64,
    /// Samples refused as duplicates.
    pub duplicate: u64,
    /// Samples refused as too late.
    pub out_of_order: u64,
    /// Samples folded or refused because of too many series.
    pub rejected_cardinality: u64,
    /// Exemplars read.
    pub exemplars: u64,
    /// Metrics whose metadata was read.
    pub metadata: u64,
}

/// One sample line.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    labels: Labels,
    value: Value,
    pub(super) t_ms: Option<i64>,
    /// 0 when it is not given.
    start_ms: i64,
    pub(super) exemplar: Option<Exemplar>,
}

/// A sample that waits for the others of its batch: labels, time, start time, value.
type Pending = (Labels, i64, i64, Value);

/// Reads OpenMetrics text into a store. A sample without a time gets `default_ms`, or is an error when that is
/// `None`. What was read before an error stays.
pub fn import(
    store: &Store,
    input: &mut dyn BufRead,
    default_ms: Option<i64>,
) -> Result<ImportReport, StoreError> {
    let mut report = ImportReport::default();
    let mut pending: Vec<Pending> = Vec::new();
    let mut exemplars: Vec<(Labels, Exemplar)> = Vec::new();
    let mut metadata: BTreeMap<String, Metadata> = BTreeMap::new();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut limited = (&mut *input).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut bytes);
        let read = read.map_err(|e| StoreError::io("read", "the import", e))?;
        if read == 0 {
            break;
        }
        report.lines += 1;
        let at = |reason: String| StoreError::Text {
            line: report.lines as usize,
            reason,
        };
        if read as u64 == MAX_LINE {
            return Err(at(format!("longer than {MAX_LINE} bytes")));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| at("not UTF-8".into()))?
            .trim();
        if text == "# EOF" {
            break;
        }
        if text.starts_with('#') {
            read_comment(text, &mut metadata);
            continue;
        }
        if text.is_empty() {
            continue;
        }
        let line =
            parse_line(text).map_err(|reason| at(format!("{reason}: {}", shortened(text))))?;
        let t_ms = line
            .t_ms
            .or(default_ms)
            .ok_or_else(|| at("the sample has no timestamp".into()))?;
        if let Some(mut exemplar) = line.exemplar {
            exemplar.t_ms = if exemplar.t_ms == 0 {
                t_ms
            } else {
                exemplar.t_ms
            };
            exemplars.push((line.labels.clone(), exemplar));
        }
        pending.push((line.labels, t_ms, line.start_ms, line.value));
        if pending.len() >= BATCH {
            flush(store, &mut pending, &mut exemplars, &mut report)?;
        }
    }
    flush(store, &mut pending, &mut exemplars, &mut report)?;
    report.metadata = metadata.len() as u64;
    let all: Vec<(&str, Metadata)> = metadata
        .iter()
        .map(|(n, m)| (n.as_str(), m.clone()))
        .collect();
    store.set_metadata(&all)?;
    Ok(report)
}

/// Any bytes as a line; a histogram that is read is a valid one.
pub(crate) fn for_fuzzing(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    read_comment(text, &mut BTreeMap::new());
    if let Ok(line) = parse_line(text)
        && let Value::Histogram(h) = line.value
    {
        assert!(h.validate().is_ok());
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn flush(
    store: &Store,
    pending: &mut Vec<Pending>,
    exemplars: &mut Vec<(Labels, Exemplar)>,
    report: &mut ImportReport,
) -> Result<(), StoreError> {
    let samples: Vec<SampleRef<'_>> = pending
        .iter()
        .map(|(labels, t_ms, start_ms, value)| SampleRef {
            labels,
            t_ms: *t_ms,
            start_ms: *start_ms,
            value: value.clone(),
        })
        .collect();
    let done = store.append(&samples)?;
    report.appended += done.appended;
    report.duplicate += done.duplicate;
    report.out_of_order += done.out_of_order;
    report.rejected_cardinality += done.rejected_cardinality;
    let all: Vec<(&Labels, Exemplar)> = exemplars.iter().map(|(l, e)| (l, e.clone())).collect();
    store.append_exemplars(&all)?;
    report.exemplars += all.len() as u64;
    pending.clear();
    exemplars.clear();
    Ok(())
}

/// Reads `# TYPE`, `# HELP` and `# UNIT`; a counter is known under its samples' name, `..._total`.
fn read_comment(text: &str, metadata: &mut BTreeMap<String, Metadata>) {
    let mut words = text.splitn(4, ' ').skip(1);
    let (Some(word), Some(name)) = (words.next(), words.next()) else {
        return;
    };
    let rest = words.next().unwrap_or("");
    let name = name.trim_matches('"').to_owned();
    match word {
        "TYPE" if rest == "counter" && !name.ends_with("_total") => {
            let known = metadata.remove(&name).unwrap_or_default();
            let kind = rest.to_owned();
            metadata.insert(format!("{name}_total"), Metadata { kind, ..known });
        }
        "TYPE" => metadata.entry(name).or_default().kind = rest.to_owned(),
        "HELP" | "UNIT" => {
            let total = format!("{name}_total");
            let key = if metadata.contains_key(&total) {
                total
            } else {
                name
            };
            let known = metadata.entry(key).or_default();
            if word == "HELP" {
                known.help = unescape(rest);
            } else {
                known.unit = rest.to_owned();
            }
        }
        _ => {}
    }
}

/// Reads `name{labels} value [timestamp] [st@start] [# {labels} value [timestamp]]`. The value is a number or a native
/// histogram.
pub(super) fn parse_line(text: &str) -> Result<Line, String> {
    let name_end = text.find(['{', ' ', '\t']).ok_or("a value is missing")?;
    let (name, mut rest) = text.split_at(name_end);
    let mut labels = LabelsBuilder::default();
    if !name.is_empty() {
        if !is_metric_identifier(name) {
            return Err(format!("{name:?} is not a metric's name"));
        }
        labels.set(METRIC_NAME, name);
    }
    if rest.starts_with('{') {
        rest = parse_labels(rest, &mut labels)?;
    }
    if labels.get(METRIC_NAME).is_none() {
        return Err("the metric has no name".into());
    }
    let mut histogram = None;
    if let Some(inner) = rest.trim_start().strip_prefix('{') {
        let (inner, after) = inner.split_once('}').ok_or("a histogram has no '}'")?;
        histogram = Some(composite::parse(inner)?);
        rest = after;
    }
    let (sample, exemplar) = match rest.split_once(" # ") {
        Some((sample, exemplar)) => (sample, Some(parse_exemplar(exemplar.trim())?)),
        None => (rest, None),
    };
    let mut words = sample.split_ascii_whitespace();
    let value = match histogram {
        Some(h) => Value::Histogram(Arc::new(h)),
        None => Value::Float(parse_number(words.next().ok_or("a value is missing")?)?),
    };
    let (mut t_ms, mut start_ms) = (None, 0);
    for word in words {
        match word.strip_prefix("st@") {
            Some(start) if start_ms == 0 => start_ms = parse_time(start)?,
            None if t_ms.is_none() && start_ms == 0 => t_ms = Some(parse_time(word)?),
            _ => return Err(format!("unexpected {word:?} after the timestamp")),
        }
    }
    Ok(Line {
        labels: labels.build(),
        value,
        t_ms,
        start_ms,
        exemplar,
    })
}

fn parse_exemplar(text: &str) -> Result<Exemplar, String> {
    let mut labels = LabelsBuilder::default();
    let rest = parse_labels(text, &mut labels)?;
    let mut words = rest.split_ascii_whitespace();
    let value = parse_number(words.next().ok_or("the exemplar's value is missing")?)?;
    let t_ms = words.next().map(parse_time).transpose()?.unwrap_or(0);
    Ok(Exemplar {
        labels: labels.build(),
        value,
        t_ms,
    })
}

/// Reads `{a="b","quoted name"="c","metric name"}` and gives what comes after it.
fn parse_labels<'a>(text: &'a str, labels: &mut LabelsBuilder) -> Result<&'a str, String> {
    let mut rest = text.strip_prefix('{').ok_or("expected '{'")?.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let name;
        if rest.starts_with('"') {
            let (text, after) = parse_quoted(rest)?;
            name = text;
            rest = after.trim_start();
            if !rest.starts_with('=') {
                labels.set(METRIC_NAME, name);
                rest = after_comma(rest)?;
                continue;
            }
        } else {
            let end = rest.find('=').ok_or("a label has no '='")?;
            name = rest[..end].trim().to_owned();
            if !is_label_identifier(&name) {
                return Err(format!("{name:?} is not a label's name"));
            }
            rest = &rest[end..];
        }
        let (value, after) = parse_quoted(rest[1..].trim_start())?;
        if labels.get(&name).is_some() {
            return Err(format!("label {name:?} comes twice"));
        }
        labels.set(name, value);
        rest = after_comma(after.trim_start())?;
    }
}

fn after_comma(rest: &str) -> Result<&str, String> {
    match rest.strip_prefix(',') {
        Some(after) => Ok(after.trim_start()),
        None if rest.starts_with('}') => Ok(rest),
        None => Err("expected ',' or '}' after a label".into()),
    }
}

fn parse_quoted(text: &str) -> Result<(String, &str), String> {
    let inner = text.strip_prefix('"').ok_or("expected '\"'")?;
    let mut escaped = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok((unescape(&inner[..at]), &inner[at + 1..])),
            _ => {}
        }
    }
    Err("a quoted text does not end".into())
}

/// Seconds, to the nearest millisecond.
pub(super) fn parse_time(text: &str) -> Result<i64, String> {
    let seconds = parse_number(text)?;
    let t_ms = (seconds * 1000.0).round();
    if t_ms.is_finite() && t_ms.abs() < 9e15 {
        Ok(t_ms as i64)
    } else {
        Err(format!("{text:?} is not a timestamp in seconds"))
    }
}
