//! A series as both text formats write it: `name{label="value",...}`, or `{"name", "label"="value"}` for UTF-8 names.
//!
//! Owns that syntax. Must not know values, timestamps or lines. Scanning finds the end and checks the syntax without
//! allocating; [`labels_of`] reads the labels of a text that was scanned.

use super::Step;
use model::labels::{METRIC_NAME, unescape};

/// How many bytes of a plain metric name `text` begins with.
pub(super) fn name_len(text: &str) -> usize {
    text.bytes()
        .enumerate()
        .take_while(|(i, b)| {
            b.is_ascii_alphabetic() || *b == b'_' || *b == b':' || (*i > 0 && b.is_ascii_digit())
        })
        .count()
}

fn label_len(text: &str) -> usize {
    text.bytes()
        .enumerate()
        .take_while(|(i, b)| {
            b.is_ascii_alphabetic() || *b == b'_' || (*i > 0 && b.is_ascii_digit())
        })
        .count()
}

/// The quoted text at `at`, its quotes included. Escapes are `\\`, `\"` and `\n`.
pub(super) fn quoted(text: &str, at: usize) -> Step<&str> {
    let bytes = text.as_bytes();
    let mut i = at + 1;
    loop {
        match bytes.get(i) {
            None | Some(b'\n') => {
                return Err((i, "the quoted text does not end on its line".into()));
            }
            Some(b'"') => return Ok(&text[at..=i]),
            Some(b'\\') => match bytes.get(i + 1) {
                Some(b'\\' | b'"' | b'n') => i += 2,
                _ => return Err((i, "expected \\\\, \\\" or \\n after a backslash".into())),
            },
            Some(_) => i += 1,
        }
    }
}

/// The series text at `at`: a name, labels, or both.
pub(super) fn scan(text: &str, at: usize) -> Step<&str> {
    let name = name_len(&text[at..]);
    let brace = at + name;
    if text.as_bytes().get(brace) == Some(&b'{') {
        let labels = scan_braces(text, brace, name == 0)?;
        return Ok(&text[at..brace + labels.len()]);
    }
    if name == 0 {
        let found = text[at..].chars().next().unwrap_or('\n');
        return Err((at, format!("expected a metric name, found {found:?}")));
    }
    // Spaces are allowed between the name and the labels.
    let gap = text[brace..]
        .bytes()
        .take_while(|b| *b == b' ' || *b == b'\t')
        .count();
    if gap > 0 && text.as_bytes().get(brace + gap) == Some(&b'{') {
        let labels = scan_braces(text, brace + gap, false)?;
        return Ok(&text[at..brace + gap + labels.len()]);
    }
    Ok(&text[at..brace])
}

/// The label set at `at` (which is a `{`), without a quoted metric name.
pub(super) fn scan_labels(text: &str, at: usize) -> Step<&str> {
    scan_braces(text, at, false)
}

fn scan_braces(text: &str, at: usize, wants_name: bool) -> Step<&str> {
    let bytes = text.as_bytes();
    let mut i = at + 1;
    let mut named = !wants_name;
    let spaces = |mut i: usize| {
        while matches!(bytes.get(i), Some(b' ' | b'\t')) {
            i += 1;
        }
        i
    };
    loop {
        i = spaces(i);
        if bytes.get(i) == Some(&b'}') {
            break;
        }
        let is_quoted = bytes.get(i) == Some(&b'"');
        let start = i;
        i += if is_quoted {
            quoted(text, i)?.len()
        } else {
            label_len(&text[i..])
        };
        if i == start {
            return Err((i, "expected a label name or \"}\"".into()));
        }
        i = spaces(i);
        if bytes.get(i) == Some(&b'=') {
            i = spaces(i + 1);
            if bytes.get(i) != Some(&b'"') {
                return Err((i, "expected a label value in double quotes".into()));
            }
            i += quoted(text, i)?.len();
        } else if is_quoted && !named {
            named = true;
        } else {
            return Err((i, "expected \"=\" after the label name".into()));
        }
        i = spaces(i);
        match bytes.get(i) {
            Some(b',') => i += 1,
            Some(b'}') => break,
            _ => return Err((i, "expected \",\" or \"}\" after a label".into())),
        }
    }
    if !named {
        return Err((at, "the series has no metric name".into()));
    }
    Ok(&text[at..=i])
}

/// The pairs of a series text (or of an exemplar's label set), the metric's name as `__name__` first, in the order
/// written. Errors when a label is repeated.
pub fn labels_of(series: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let name = &series[..name_len(series)];
    if !name.is_empty() {
        pairs.push((METRIC_NAME.into(), name.into()));
    }
    let mut rest = series[name.len()..].trim_start().trim_start_matches('{');
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() || rest.starts_with('}') {
            return Ok(pairs);
        }
        let (label, tail) = take(rest);
        rest = tail.trim_start_matches([' ', '\t']);
        let (label, value) = match rest.strip_prefix('=') {
            Some(tail) => {
                let (value, tail) = take(tail.trim_start_matches([' ', '\t']));
                rest = tail;
                (label, value)
            }
            None => (METRIC_NAME.to_owned(), label),
        };
        if pairs.iter().any(|(n, _)| *n == label) {
            return Err(format!("the label {label:?} is given twice"));
        }
        pairs.push((label, value));
    }
}

/// One plain or quoted word and what follows it. A text that was not scanned is taken whole rather than looped on.
fn take(text: &str) -> (String, &str) {
    if text.starts_with('"') {
        match quoted(text, 0) {
            Ok(q) => (unescape(&q[1..q.len() - 1]), &text[q.len()..]),
            Err(_) => (text.to_owned(), ""),
        }
    } else {
        match label_len(text) {
            0 => (text.to_owned(), ""),
            n => (text[..n].to_owned(), &text[n..]),
        }
    }
}
