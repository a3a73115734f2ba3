//! Series as test scripts write them: `name{label="value"} 0+10x5 _ stale {{schema:1 buckets:[1 2]}}`.
//!
//! Owns that notation. Must not know evaluation.

use std::sync::Arc;

use model::histogram::{ResetHint, Span as BucketSpan};
use model::{Labels, METRIC_NAME, NativeHistogram, Value, stale_nan};

use super::diagnose::ParseError;
use super::lexer::{Token, parse_duration, parse_number};
use super::parse::{Parsed, Parser};
use crate::hist::arith;

/// One value of a written series.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceValue {
    /// The value; `None` for a gap (`_`).
    pub value: Option<Value>,
    /// Whether the text gives the histogram's reset hint.
    pub hint_given: bool,
}

// === impl Parser ===

impl Parser<'_> {
    /// `name{a="b"}` or `{"name", a="b"}`, to the end of the braces.
    pub(crate) fn series_labels(&mut self) -> Parsed<Labels> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        if let Token::Ident(name) = self.peek().clone() {
            pairs.push((METRIC_NAME.to_owned(), name));
            self.advance();
        }
        if !self.take_sign("{") {
            return Ok(Labels::from_pairs(pairs));
        }
        while !self.take_sign("}") {
            let (name, quoted) = match self.peek().clone() {
                Token::Ident(name) => (name, false),
                Token::Text(name) => (name, true),
                _ => return Err(self.unexpected("label set", "identifier or \"}\"")),
            };
            self.advance();
            if self.take_sign("=") {
                let Token::Text(value) = self.peek().clone() else {
                    return Err(self.unexpected("label set", "string"));
                };
                self.advance();
                pairs.push((name, value));
            } else if quoted {
                pairs.push((METRIC_NAME.to_owned(), name));
            } else {
                return Err(self.unexpected("label set", "\"=\""));
            }
            if !self.take_sign(",") && !self.is_sign("}") {
                return Err(self.unexpected("label set", "\",\" or \"}\""));
            }
        }
        Ok(Labels::from_pairs(pairs))
    }
}

/// Reads the values of a written series, expanded. `offset` is where `text` begins in what the error should point at.
/// Errors say what could not be read.
pub fn parse_values(text: &str) -> Result<Vec<SequenceValue>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        rest = if rest.starts_with("{{") {
            histogram_item(rest, &mut out)?
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            float_item(&rest[..end], &mut out)?;
            &rest[end..]
        }
        .trim_start();
    }
    Ok(out)
}

/// The longest expansion of one item.
const MAX_REPEAT: u64 = 10_000_000;

fn repeat_count(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(n) if n <= MAX_REPEAT => Ok(n),
        _ => Err(format!("invalid repetition in series values: {text:?}")),
    }
}

fn float_item(word: &str, out: &mut Vec<SequenceValue>) -> Result<(), String> {
    let plain = |value: Option<f64>| SequenceValue {
        value: value.map(Value::Float),
        hint_given: false,
    };
    let (body, times) = match word.rsplit_once('x') {
        Some((body, times)) if !body.is_empty() => (body, Some(repeat_count(times)?)),
        _ => (word, None),
    };
    if body == "_" {
        out.extend((0..times.unwrap_or(1)).map(|_| plain(None)));
        return Ok(());
    }
    if body == "stale" {
        out.push(plain(Some(stale_nan())));
        return Ok(());
    }
    // The step's sign is the last one that is not the number's own, nor an exponent's.
    let bytes = body.as_bytes();
    let split = (1..bytes.len()).rev().find(|&i| {
        (bytes[i] == b'+' || bytes[i] == b'-') && !matches!(bytes[i - 1], b'e' | b'E' | b'+' | b'-')
    });
    let (first, step) = match split {
        Some(at) if times.is_some() => (signed(&body[..at])?, signed(&body[at..])?),
        _ => (signed(body)?, 0.0),
    };
    let mut value = first;
    for _ in 0..=times.unwrap_or(0) {
        out.push(plain(Some(value)));
        value += step;
    }
    Ok(())
}

/// A number with any sign; durations count as seconds.
fn signed(text: &str) -> Result<f64, String> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = match body.to_ascii_lowercase().as_str() {
        "inf" => Some(f64::INFINITY),
        "nan" => Some(f64::NAN),
        _ => body
            .parse()
            .ok()
            .or_else(|| parse_number(body))
            .or_else(|| parse_duration(body)),
    };
    match value {
        Some(v) if negative => Ok(-v),
        Some(v) => Ok(v),
        None => Err(format!(
            "{text:?} is not a value; expected a number, \"_\", \"stale\" or a histogram"
        )),
    }
}

fn histogram_item<'a>(text: &'a str, out: &mut Vec<SequenceValue>) -> Result<&'a str, String> {
    let (base, hint_given, rest) = histogram_literal(text)?;
    let push = |out: &mut Vec<SequenceValue>, h: &NativeHistogram| {
        out.push(SequenceValue {
            value: Some(Value::Histogram(Arc::new(h.clone()))),
            hint_given,
        });
    };
    if let Some(times) = rest.strip_prefix('x') {
        let end = times.find(char::is_whitespace).unwrap_or(times.len());
        for _ in 0..=repeat_count(&times[..end])? {
            push(out, &base);
        }
        return Ok(&times[end..]);
    }
    if !rest.starts_with(['+', '-']) {
        push(out, &base);
        return Ok(rest);
    }
    let subtract = rest.starts_with('-');
    let (step, step_hint, rest) = histogram_literal(&rest[1..])?;
    let hint_given = step_hint;
    let times = rest
        .strip_prefix('x')
        .ok_or("a histogram's step needs a repetition, as in x5")?;
    let end = times.find(char::is_whitespace).unwrap_or(times.len());
    let mut current = base;
    let count = repeat_count(&times[..end])?;
    for i in 0..=count {
        out.push(SequenceValue {
            value: Some(Value::Histogram(Arc::new(current.clone()))),
            hint_given,
        });
        if i == count {
            break;
        }
        if current.schema > step.schema {
            return Err(format!(
                "error combining histograms: cannot merge from schema {} to {}",
                step.schema, current.schema
            ));
        }
        let combined = if subtract {
            arith::sub(&mut current, &step)
        } else {
            arith::add(&mut current, &step)
        };
        combined.map_err(|_| {
            "histograms with exponential and custom buckets do not combine".to_owned()
        })?;
    }
    Ok(&times[end..])
}

/// Reads `{{key:value ...}}`; gives the histogram, whether it names a reset hint, and what follows.
fn histogram_literal(text: &str) -> Result<(NativeHistogram, bool, &str), String> {
    let body = text
        .strip_prefix("{{")
        .ok_or_else(|| format!("expected a histogram at {text:?}"))?;
    let end = body.find("}}").ok_or("histogram is not closed with }}")?;
    let (mut rest, after) = (body[..end].trim(), &body[end + 2..]);
    let mut h = NativeHistogram::default();
    let (mut offset, mut n_offset, mut hint) = (0, 0, false);
    while !rest.is_empty() {
        let (key, tail) = rest
            .split_once(':')
            .ok_or_else(|| format!("histogram description: missing ':' at {rest:?}"))?;
        let close = if tail.starts_with('[') {
            tail.find(']').ok_or("histogram description: missing ']'")? + 1
        } else {
            tail.find(char::is_whitespace).unwrap_or(tail.len())
        };
        let value = &tail[..close];
        let int = || {
            value
                .parse::<i32>()
                .map_err(|_| format!("{key}: {value:?} is not an integer"))
        };
        match key {
            "schema" => h.schema = int()?,
            "sum" => h.sum = signed(value)?,
            "count" => h.count = signed(value)?,
            "z_bucket" => h.zero_count = signed(value)?,
            "z_bucket_w" => h.zero_threshold = signed(value)?,
            "custom_values" => h.custom_values = list(value)?,
            "buckets" => h.positive_buckets = list(value)?,
            "n_buckets" => h.negative_buckets = list(value)?,
            "offset" => offset = int()?,
            "n_offset" => n_offset = int()?,
            "counter_reset_hint" => {
                hint = true;
                h.reset_hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => return Err(format!("unknown counter_reset_hint {value:?}")),
                };
            }
            _ => return Err(format!("unknown key {key:?} in a histogram")),
        }
        rest = tail[close..].trim_start();
    }
    h.positive_spans = spans(offset, &h.positive_buckets);
    h.negative_spans = spans(n_offset, &h.negative_buckets);
    Ok((h, hint, after))
}

fn spans(offset: i32, buckets: &[f64]) -> Vec<BucketSpan> {
    match u32::try_from(buckets.len()) {
        Ok(length) if length > 0 => vec![BucketSpan { offset, length }],
        _ => Vec::new(),
    }
}

fn list(text: &str) -> Result<Vec<f64>, String> {
    text.trim_start_matches('[')
        .trim_end_matches(']')
        .split_whitespace()
        .map(signed)
        .collect()
}

/// Reads a whole line: labels, then values.
pub fn parse_line(line: &str) -> Result<(Labels, Vec<SequenceValue>), String> {
    let split = labels_end(line);
    let labels =
        super::parse::parse_series(&line[..split]).map_err(|e: ParseError| e.to_string())?;
    Ok((labels, parse_values(&line[split..])?))
}

/// Where the labels of a written series end: after the closing brace, or at the first blank.
fn labels_end(line: &str) -> usize {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    let mut depth = 0;
    for (i, c) in line.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(q) if c == '\\' && q != '`' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' | '`' => quote = Some(c),
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return i + 1;
                    }
                }
                c if c.is_whitespace()
                    && depth == 0
                    && !line[i..].trim_start().starts_with("{") =>
                {
                    return i;
                }
                c if c.is_whitespace()
                    && depth == 0
                    && line[i..].trim_start().starts_with("{{") =>
                {
                    return i;
                }
                _ => {}
            },
        }
    }
    line.len()
}
