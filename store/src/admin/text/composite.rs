//! Native histograms as OpenMetrics 2.0 composite values, `{count:3,sum:1.5,schema:0,...}`, out and in.
//!
//! Owns the order of fields and what we add to them (bounds of custom buckets, what is known about a reset). Must not
//! know lines. Source: <https://prometheus.io/docs/specs/om/open_metrics_spec_2_0/>, "CompositeValues".

use std::fmt::Write as _;

use model::NativeHistogram;
use model::histogram::{ResetHint, Span};

use super::{number_text, parse_number};

/// The histogram as text without blanks. A gauge's count and sum are `gcount` and `gsum`.
pub(super) fn write(h: &NativeHistogram) -> String {
    let g = match h.reset_hint {
        ResetHint::Gauge => "g",
        _ => "",
    };
    let mut out = format!(
        "{{{g}count:{},{g}sum:{},schema:{},zero_threshold:{},zero_count:{}",
        number_text(h.count),
        number_text(h.sum),
        h.schema,
        number_text(h.zero_threshold),
        number_text(h.zero_count)
    );
    for (side, spans, buckets) in [
        ("negative", &h.negative_spans, &h.negative_buckets),
        ("positive", &h.positive_spans, &h.positive_buckets),
    ] {
        if !spans.is_empty() {
            let spans = spans.iter().map(|s| format!("{}:{}", s.offset, s.length));
            let _ = write!(out, ",{side}_spans:[{}]", joined(spans));
            let buckets = buckets.iter().map(|b| number_text(*b));
            let _ = write!(out, ",{side}_buckets:[{}]", joined(buckets));
        }
    }
    if !h.custom_values.is_empty() {
        let bounds = h.custom_values.iter().map(|v| number_text(*v));
        let _ = write!(out, ",custom_values:[{}]", joined(bounds));
    }
    match h.reset_hint {
        ResetHint::Reset => out.push_str(",reset:yes"),
        ResetHint::NotReset => out.push_str(",reset:no"),
        ResetHint::Unknown | ResetHint::Gauge => {}
    }
    out.push('}');
    out
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// Reads what stands between the braces. Errors name the field.
pub(super) fn parse(text: &str) -> Result<NativeHistogram, String> {
    let mut h = NativeHistogram::default();
    let (mut count, mut sum, mut schema) = (None, None, None);
    for field in fields(text) {
        let (key, value) = field
            .split_once(':')
            .ok_or_else(|| format!("{field:?} is not key:value"))?;
        let number = || parse_number(value);
        match key {
            "count" | "gcount" => count = Some(number()?),
            "sum" | "gsum" => sum = Some(number()?),
            "schema" => schema = Some(integer::<i32>(value)?),
            "zero_threshold" => h.zero_threshold = number()?,
            "zero_count" => h.zero_count = number()?,
            "negative_spans" => h.negative_spans = spans(value)?,
            "positive_spans" => h.positive_spans = spans(value)?,
            "negative_buckets" => h.negative_buckets = numbers(value)?,
            "positive_buckets" => h.positive_buckets = numbers(value)?,
            "custom_values" => h.custom_values = numbers(value)?,
            "reset" if value == "yes" => h.reset_hint = ResetHint::Reset,
            "reset" if value == "no" => h.reset_hint = ResetHint::NotReset,
            "bucket" => return Err("classic buckets in a composite value are not read".into()),
            _ => return Err(format!("unknown field {key:?} of a histogram")),
        }
        if key.starts_with('g') {
            h.reset_hint = ResetHint::Gauge;
        }
    }
    h.count = count.ok_or("the histogram has no count")?;
    h.sum = sum.ok_or("the histogram has no sum")?;
    h.schema = schema.ok_or("the histogram has no schema")?;
    h.validate().map_err(|e| e.to_string())?;
    Ok(h)
}

/// The parts between commas that are not in brackets.
fn fields(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
}

/// What stands in a list.
fn list(text: &str) -> Result<impl Iterator<Item = &str>, String> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let inner = inner.ok_or_else(|| format!("{text:?} is not a list"))?;
    Ok(inner.split(',').filter(|part| !part.is_empty()))
}

fn numbers(text: &str) -> Result<Vec<f64>, String> {
    list(text)?.map(parse_number).collect()
}

fn spans(text: &str) -> Result<Vec<Span>, String> {
    let span = |part: &str| {
        let (offset, length) = part
            .split_once(':')
            .ok_or_else(|| format!("{part:?} is not offset:length"))?;
        Ok(Span {
            offset: integer(offset)?,
            length: integer(length)?,
        })
    };
    list(text)?.map(span).collect()
}

fn integer<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an integer in range"))
}
