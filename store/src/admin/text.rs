//! Samples as OpenMetrics text: out here, in by [`read`].
//!
//! Owns writing the text: OpenMetrics 1.0 with Prometheus' quoted UTF-8 names; from 2.0 native histograms as composite
//! values and start times as `st@`; and `StaleNaN`, our own, for the staleness marker. Must not know files.
//! Source: <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>.

mod composite;
mod read;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use model::labels::{is_label_identifier, is_metric_identifier};
use model::source::Metadata;
use model::{Labels, METRIC_NAME, Matcher, SelectRequest, SeriesData, Source, SourceError};

use crate::error::StoreError;

pub(crate) use read::for_fuzzing;
pub use read::{ImportReport, import};

/// The staleness marker as a number's text.
const STALE: &str = "StaleNaN";

/// What an export may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Everything: what goes in again is what came out.
    #[default]
    Whole,
    /// What OpenMetrics 1.0 can say, for other tools. Native histograms, staleness markers and start times are left out
    /// and counted.
    Plain,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Series written.
    pub series: u64,
    /// Samples written.
    pub samples: u64,
    /// Native histograms left out.
    pub histograms: u64,
    /// Staleness markers left out.
    pub stale: u64,
    /// Samples whose start time was left out.
    pub starts: u64,
}

/// Writes the matching samples as OpenMetrics text, every sample with its time, grouped by metric. Reads one metric
/// after another; memory is that of the largest.
pub fn export(
    source: &dyn Source,
    request: &SelectRequest<'_>,
    dialect: Dialect,
    out: &mut dyn Write,
) -> Result<ExportReport, StoreError> {
    let readable = |e: SourceError| StoreError::Invalid(e.to_string());
    let metadata = source.metadata().map_err(readable)?;
    let mut names = source
        .label_values(METRIC_NAME, request)
        .map_err(readable)?;
    names.push(String::new());
    names.sort_by_cached_key(|name| (family_of(name, &metadata).0, name.clone()));
    names.dedup();
    let mut report = ExportReport::default();
    let mut last_family = None;
    let mut text = String::new();
    for name in names {
        let mut matchers = request.matchers.to_vec();
        matchers.push(Matcher::equal(METRIC_NAME, &name));
        let one = SelectRequest {
            matchers: &matchers,
            ..*request
        };
        let mut all = source.select(&one).map_err(readable)?;
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        let (family, known) = family_of(&name, &metadata);
        if !all.is_empty() && last_family.as_ref() != Some(&family) {
            if let Some(known) = known {
                put_metadata(&mut text, &family, known);
            }
            last_family = Some(family);
        }
        for series in &all {
            report.series += 1;
            put_series(&mut text, series, dialect, &mut report);
            write_text(out, &text)?;
            text.clear();
        }
    }
    write_text(out, "# EOF\n")?;
    Ok(report)
}

fn put_series(text: &mut String, series: &SeriesData, dialect: Dialect, report: &mut ExportReport) {
    let name = name_text(&series.labels);
    let points = &series.points;
    let whole = dialect == Dialect::Whole;
    for (i, t) in points.t_ms.iter().enumerate() {
        let value = match points.histogram(i) {
            Some(_) if !whole => {
                report.histograms += 1;
                continue;
            }
            Some(h) => composite::write(h),
            None if !whole && model::is_stale(points.values[i]) => {
                report.stale += 1;
                continue;
            }
            None => number_text(points.values[i]),
        };
        report.samples += 1;
        let _ = write!(text, "{name} {value} {}", time_text(*t));
        match points.start(i) {
            0 => {}
            start if whole => {
                let _ = write!(text, " st@{}", time_text(start));
            }
            _ => report.starts += 1,
        }
        text.push('\n');
    }
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
        .filter(|m| is(m, &["gauge", "unknown", "histogram", "gaugehistogram", ""]));
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
    if model::is_stale(value) {
        STALE.into()
    } else if value.is_nan() {
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

/// A number as [`number_text`] writes it.
fn parse_number(text: &str) -> Result<f64, String> {
    if text == STALE {
        return Ok(model::stale_nan());
    }
    text.parse()
        .map_err(|_| format!("{text:?} is not a number"))
}

#[cfg(test)]
mod tests;
