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
    /// Numbers become such.
    pub(crate) cast: bool,
    pub(crate) quote: Option<char>,
    /// What makes the next quote part of a field; the quote itself when not given.
    pub(crate) escape: Option<char>,
    /// What begins a line that is no row.
    pub(crate) comment: Option<String>,
    pub(crate) trim_start: bool,
    pub(crate) trim_end: bool,
    /// First and last line read, from 1.
    pub(crate) from_line: usize,
    pub(crate) to_line: Option<usize>,
    /// The most rows.
    pub(crate) to: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            delimiter: ',',
            skip_header: false,
            skip_empty: true,
            cast: true,
            quote: Some('"'),
            escape: None,
            comment: None,
            trim_start: false,
            trim_end: false,
            from_line: 1,
            to_line: None,
            to: None,
        }
    }
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

/// Reads CSV: fields in quotes, a quote inside them escaped, by default by another one.
///
/// # Errors
/// The line on which a quote opens that is never closed.
pub(crate) fn parse(text: &str, options: &Options) -> Result<Vec<Vec<Value>>, usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.lines().take(options.from_line.saturating_sub(1));
    let skipped: usize = first.map(|line| line.len() + 1).sum();
    let text = text.get(skipped..).unwrap_or_default();
    let wanted = options
        .to_line
        .map(|to| (to + 1).saturating_sub(options.from_line));
    let end_at = wanted.map(|n| text.split_inclusive('\n').take(n).map(str::len).sum());
    let text = &text[..end_at.unwrap_or(text.len())];
    let mut rows = Vec::new();
    let mut row: Vec<Value> = Vec::new();
    let mut field = String::new();
    let (mut quoted, mut was_quoted) = (false, false);
    let (mut line, mut opened) = (options.from_line.max(1), 0);
    let escape = options.escape.or(options.quote);
    let mut chars = text.chars().peekable();
    let end = |field: &mut String, was_quoted: &mut bool| {
        let mut text = std::mem::take(field);
        if options.trim_end && !*was_quoted {
            text.truncate(text.trim_end().len());
        }
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
    let mut comment = options
        .comment
        .as_deref()
        .map(|mark| (mark, mark.chars().count()));
    if comment.is_some_and(|(mark, _)| mark.is_empty()) {
        comment = None;
    }
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        let mark = comment.filter(|_| !quoted && row.is_empty() && field.is_empty() && !was_quoted);
        if let Some((mark, length)) = mark
            && mark.starts_with(c)
            && mark.chars().skip(1).eq(chars.clone().take(length - 1))
        {
            while chars.next().is_some_and(|c| c != '\n') {}
            line += 1;
            continue;
        }
        if quoted {
            let next = chars.peek().copied();
            if Some(c) == escape
                && next.is_some()
                && (next == options.quote || (next == escape && escape != options.quote))
            {
                field.extend(chars.next());
            } else if Some(c) == options.quote {
                quoted = false;
            } else {
                field.push(c);
            }
        } else if Some(c) == options.quote && field.is_empty() {
            (quoted, was_quoted, opened) = (true, true, line);
        } else if options.trim_start
            && field.is_empty()
            && c.is_whitespace()
            && c != '\n'
            && c != options.delimiter
        {
            // Before a field.
        } else if options.trim_end
            && was_quoted
            && c.is_whitespace()
            && c != '\n'
            && c != options.delimiter
        {
            // After one in quotes.
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
    rows.truncate(options.to.unwrap_or(usize::MAX));
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
            skip_header: true,
            ..Options::default()
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
        let options = Options {
            delimiter: ';',
            quote: Some('\''),
            escape: Some('\\'),
            comment: Some("#".into()),
            trim_start: true,
            trim_end: true,
            from_line: 2,
            to: Some(2),
            ..Options::default()
        };
        let rows = parse(
            "junk\n# note\n 'it\\'s' ; x \n#\n\"q\";5\nmore;1\n",
            &options,
        );
        assert_eq!(
            rows,
            Ok(vec![
                vec![json!("it's"), json!("x")],
                vec![json!("\"q\""), json!(5)]
            ])
        );
        let options = Options {
            to_line: Some(2),
            quote: None,
            ..Options::default()
        };
        let rows = parse("a,\"b\nc\nd", &options);
        assert_eq!(
            rows,
            Ok(vec![vec![json!("a"), json!("\"b")], vec![json!("c")]])
        );
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
