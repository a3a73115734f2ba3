//! Samples as OpenMetrics text, out and in.
//!
//! Owns reading and writing the text (OpenMetrics 1.0, and Prometheus' quoted UTF-8 names). Must not know files.
//! Source: <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, Read, Write};

use model::labels::{is_label_identifier, is_metric_identifier};
use model::source::{Exemplar, Metadata};
use model::{Labels, LabelsBuilder, METRIC_NAME, SelectRequest, Source, SourceError};

use crate::append::SampleRef;
use crate::error::StoreError;
use crate::store::Store;

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 4 << 20;

/// Samples appended in one batch.
const BATCH: usize = 10_000;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Series written.
    pub series: u64,
    /// Samples written.
    pub samples: u64,
    /// Native histograms left out: the text has no form for them.
    pub histograms: u64,
    /// Staleness markers left out: likewise.
    pub stale: u64,
}

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

/// Writes the matching samples as OpenMetrics text, every sample with its time, grouped by metric.
pub fn export(
    source: &dyn Source,
    request: &SelectRequest<'_>,
    out: &mut dyn Write,
) -> Result<ExportReport, StoreError> {
    let readable = |e: SourceError| StoreError::Invalid(e.to_string());
    let metadata = source.metadata().map_err(readable)?;
    let mut all = source.select(request).map_err(readable)?;
    all.sort_by_cached_key(|s| (family_of(s.labels.name(), &metadata).0, s.labels.clone()));
    let mut report = ExportReport::default();
    let mut last_family = None;
    let mut text = String::new();
    for series in all {
        text.clear();
        let (family, known) = family_of(series.labels.name(), &metadata);
        if last_family.as_ref() != Some(&family) {
            if let Some(known) = known {
                put_metadata(&mut text, &family, known);
            }
            last_family = Some(family);
        }
        let name = name_text(&series.labels);
        report.series += 1;
        let points = &series.points;
        for (i, t) in points.t_ms.iter().enumerate() {
            if points.histogram(i).is_some() {
                report.histograms += 1;
            } else if model::is_stale(points.values[i]) {
                report.stale += 1;
            } else {
                report.samples += 1;
                let _ = writeln!(
                    text,
                    "{name} {} {}",
                    number_text(points.values[i]),
                    time_text(*t)
                );
            }
        }
        write_text(out, &text)?;
    }
    write_text(out, "# EOF\n")?;
    Ok(report)
}

fn write_text(out: &mut dyn Write, text: &str) -> Result<(), StoreError> {
    out.write_all(text.as_bytes())
        .map_err(|e| StoreError::io("write", "the export", e))
}

/// The metric that a series belongs to, and what is known about it.
fn family_of<'m>(
    name: &str,
    metadata: &'m BTreeMap<String, Metadata>,
) -> (String, Option<&'m Metadata>) {
    let is = |m: &Metadata, kinds: &[&str]| kinds.contains(&m.kind.as_str());
    for suffix in ["_bucket", "_sum", "_count"] {
        if let Some(base) = name.strip_suffix(suffix)
            && let Some(known) = metadata
                .get(base)
                .filter(|m| is(m, &["histogram", "summary"]))
        {
            return (base.to_owned(), Some(known));
        }
    }
    if let Some(base) = name.strip_suffix("_total") {
        let known = metadata.get(name).or_else(|| metadata.get(base));
        if let Some(known) = known.filter(|m| is(m, &["counter"])) {
            return (base.to_owned(), Some(known));
        }
    }
    let known = metadata
        .get(name)
        .filter(|m| is(m, &["gauge", "unknown", ""]));
    (name.to_owned(), known)
}

fn put_metadata(text: &mut String, family: &str, known: &Metadata) {
    let name = if is_metric_identifier(family) {
        family.to_owned()
    } else {
        quoted(family)
    };
    let kind = if known.kind.is_empty() {
        "unknown"
    } else {
        &known.kind
    };
    let _ = writeln!(text, "# TYPE {name} {kind}");
    if !known.unit.is_empty() && family.ends_with(&format!("_{}", known.unit)) {
        let _ = writeln!(text, "# UNIT {name} {}", known.unit);
    }
    if !known.help.is_empty() {
        let help = quoted(&known.help);
        let _ = writeln!(text, "# HELP {name} {}", &help[1..help.len() - 1]);
    }
}

fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

fn name_text(labels: &Labels) -> String {
    let name = labels.name();
    let plain = is_metric_identifier(name);
    let mut pairs: Vec<String> = Vec::new();
    if !plain && !name.is_empty() {
        pairs.push(quoted(name));
    }
    for (n, v) in labels.iter().filter(|(n, _)| *n != METRIC_NAME) {
        let n = if is_label_identifier(n) {
            n.to_owned()
        } else {
            quoted(n)
        };
        pairs.push(format!("{n}={}", quoted(v)));
    }
    let name = if plain { name } else { "" };
    if pairs.is_empty() && plain {
        return name.to_owned();
    }
    format!("{name}{{{}}}", pairs.join(","))
}

fn number_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.into()
    } else if value != 0.0 && !(1e-5..1e17).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        format!("{value}")
    }
}

/// Seconds with three decimals.
fn time_text(t_ms: i64) -> String {
    let sign = if t_ms < 0 { "-" } else { "" };
    let t = t_ms.unsigned_abs();
    match t % 1000 {
        0 => format!("{sign}{}", t / 1000),
        ms => format!("{sign}{}.{ms:03}", t / 1000),
    }
}

/// One sample line.
#[derive(Debug, PartialEq)]
struct Line {
    labels: Labels,
    value: f64,
    t_ms: Option<i64>,
    exemplar: Option<Exemplar>,
}

/// Reads OpenMetrics text into a store. A sample without a time gets `default_ms`, or is an error when that is
/// `None`. What was read before an error stays.
pub fn import(
    store: &Store,
    input: &mut dyn BufRead,
    default_ms: Option<i64>,
) -> Result<ImportReport, StoreError> {
    let mut report = ImportReport::default();
    let mut pending: Vec<(Labels, i64, f64)> = Vec::new();
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
        pending.push((line.labels, t_ms, line.value));
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

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn flush(
    store: &Store,
    pending: &mut Vec<(Labels, i64, f64)>,
    exemplars: &mut Vec<(Labels, Exemplar)>,
    report: &mut ImportReport,
) -> Result<(), StoreError> {
    let samples: Vec<SampleRef<'_>> = pending
        .iter()
        .map(|(labels, t, v)| SampleRef::float(labels, *t, *v))
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
                known.help = unescaped(rest);
            } else {
                known.unit = rest.to_owned();
            }
        }
        _ => {}
    }
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    out
}

/// Reads `name{labels} value [timestamp] [# {labels} value [timestamp]]`.
fn parse_line(text: &str) -> Result<Line, String> {
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
    let (sample, exemplar) = match rest.split_once(" # ") {
        Some((sample, exemplar)) => (sample, Some(parse_exemplar(exemplar.trim())?)),
        None => (rest, None),
    };
    let mut words = sample.split_ascii_whitespace();
    let value = parse_number(words.next().ok_or("a value is missing")?)?;
    let t_ms = words.next().map(parse_time).transpose()?;
    if let Some(more) = words.next() {
        return Err(format!("unexpected {more:?} after the timestamp"));
    }
    Ok(Line {
        labels: labels.build(),
        value,
        t_ms,
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
            b'"' => return Ok((unescaped(&inner[..at]), &inner[at + 1..])),
            _ => {}
        }
    }
    Err("a quoted text does not end".into())
}

fn parse_number(text: &str) -> Result<f64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number"))
}

/// Seconds, to the nearest millisecond.
fn parse_time(text: &str) -> Result<i64, String> {
    let seconds = parse_number(text)?;
    let t_ms = (seconds * 1000.0).round();
    if t_ms.is_finite() && t_ms.abs() < 9e15 {
        Ok(t_ms as i64)
    } else {
        Err(format!("{text:?} is not a timestamp in seconds"))
    }
}

#[cfg(test)]
mod tests;
