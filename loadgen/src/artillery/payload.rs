//! Owns CSV payloads: reading a file into rows, and which row a virtual user gets. Must not know scripts or HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};

/// The rows of a CSV file and how they are dealt out.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) fields: Vec<String>,
    pub(crate) rows: Arc<Vec<Vec<Value>>>,
    pub(crate) sequence: bool,
    /// All rows at once, as a variable of this name.
    pub(crate) load_all: Option<String>,
    pub(crate) next: Arc<AtomicUsize>,
}

/// How to read a file.
pub(crate) struct Options {
    pub(crate) delimiter: char,
    pub(crate) skip_header: bool,
    pub(crate) skip_empty: bool,
    /// Numbers and booleans become such.
    pub(crate) cast: bool,
}

impl Payload {
    /// This user's variables. `draw` picks a row when the order is random.
    pub(crate) fn variables(&self, draw: usize, into: &mut Map<String, Value>) {
        if let Some(name) = &self.load_all {
            let row = |row: &Vec<Value>| {
                if self.fields.is_empty() {
                    return Value::Array(row.clone());
                }
                let pairs = self.fields.iter().cloned().zip(row.iter().cloned());
                Value::Object(pairs.collect())
            };
            into.insert(name.clone(), self.rows.iter().map(row).collect());
            return;
        }
        let count = self.rows.len().max(1);
        let at = if self.sequence {
            self.next.fetch_add(1, Ordering::Relaxed) % count
        } else {
            draw % count
        };
        let row = self.rows.get(at);
        for (i, field) in self.fields.iter().enumerate() {
            if let Some(value) = row.and_then(|r| r.get(i)) {
                into.insert(field.clone(), value.clone());
            }
        }
    }
}

/// Reads CSV: fields quoted by ", a doubled quote inside for one.
///
/// # Errors
/// The line on which a quote opens that is never closed.
pub(crate) fn parse(text: &str, options: &Options) -> Result<Vec<Vec<Value>>, usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows = Vec::new();
    let mut row: Vec<Value> = Vec::new();
    let mut field = String::new();
    let (mut quoted, mut was_quoted) = (false, false);
    let (mut line, mut opened) = (1, 0);
    let mut chars = text.chars().peekable();
    let end = |field: &mut String, was_quoted: &mut bool| {
        let text = std::mem::take(field);
        *was_quoted = false;
        if options.cast {
            cast(text)
        } else {
            Value::String(text)
        }
    };
    let mut finish = |mut row: Vec<Value>, last: Value| {
        let empty = row.is_empty() && last == Value::String(String::new());
        row.push(last);
        if !(empty && options.skip_empty) {
            rows.push(row);
        }
    };
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        if quoted {
            if c != '"' {
                field.push(c);
            } else if chars.next_if_eq(&'"').is_some() {
                field.push('"');
            } else {
                quoted = false;
            }
        } else if c == '"' && field.is_empty() {
            (quoted, was_quoted, opened) = (true, true, line);
        } else if c == options.delimiter {
            row.push(end(&mut field, &mut was_quoted));
        } else if c == '\n' {
            let last = end(&mut field, &mut was_quoted);
            finish(std::mem::take(&mut row), last);
        } else if !(c == '\r' && chars.peek() == Some(&'\n')) {
            field.push(c);
        }
    }
    if quoted {
        return Err(opened);
    }
    if !field.is_empty() || !row.is_empty() || was_quoted {
        let last = end(&mut field, &mut was_quoted);
        finish(row, last);
    }
    if options.skip_header && !rows.is_empty() {
        rows.remove(0);
    }
    Ok(rows)
}

fn cast(text: String) -> Value {
    let number = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(n), _) if number => n.into(),
        (_, Ok(n)) if number && n.is_finite() => n.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn csv_is_read() {
        let options = Options {
            delimiter: ',',
            skip_header: true,
            skip_empty: true,
            cast: true,
        };
        let rows = parse(
            "name,n\r\nann,3\n\n\"b, \"\"c\"\"\",\"4\"\nd,true",
            &options,
        )
        .unwrap();
        let want = json!([["ann", 3], ["b, \"c\"", 4], ["d", "true"]]);
        assert_eq!(
            Value::from(rows.into_iter().map(Value::from).collect::<Vec<_>>()),
            want
        );
        assert_eq!(parse("a\n\"b", &options), Err(2));
    }

    #[test]
    fn rows_are_dealt_in_sequence_or_drawn() {
        let rows = vec![vec![json!(1)], vec![json!(2)]];
        let mut payload = Payload {
            fields: vec!["n".into()],
            rows: Arc::new(rows),
            sequence: true,
            load_all: None,
            next: Arc::default(),
        };
        let take = |p: &Payload, draw| {
            let mut vars = Map::new();
            p.variables(draw, &mut vars);
            vars["n"].clone()
        };
        let dealt: Vec<Value> = (0..3).map(|_| take(&payload, 9)).collect();
        assert_eq!(dealt, [json!(1), json!(2), json!(1)]);
        payload.sequence = false;
        assert_eq!(take(&payload, 3), json!(2));
    }
}
