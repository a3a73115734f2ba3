//! Where a byte of a YAML scalar's value stands in the file.
//!
//! Owns that mapping for plain, quoted and block scalars. Folding and indentation only change white space, so the
//! n-th other character of the value is the n-th other character of the source. Must not know PromQL.

use crate::file_error::Place;

/// The place in `text` of byte `at` of `value`, whose scalar begins at `start`.
pub(crate) fn inside(text: &str, start: Place, value: &str, at: usize) -> Place {
    let Some(begin) = offset_of(text, start) else {
        return start;
    };
    let source = &text[begin..];
    let (skip, quote) = match source.chars().next() {
        Some('|' | '>') => (source.find('\n').map_or(0, |i| i + 1), None),
        Some(q @ ('"' | '\'')) => (1, Some(q)),
        _ => (0, None),
    };
    let before = value.get(..at.min(value.len())).unwrap_or(value);
    let wanted = before.chars().filter(|c| !c.is_whitespace()).count();
    let mut seen = 0;
    let mut chars = source[skip..].char_indices().peekable();
    let mut last = begin + skip;
    while let Some((i, c)) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        if quote == Some(c) && chars.peek().is_none_or(|(_, next)| *next != c) {
            break;
        }
        let place = begin + skip + i;
        if seen == wanted {
            return place_of(text, place);
        }
        let escaped = (quote == Some('"') && c == '\\') || quote == Some(c);
        if escaped {
            chars.next();
        }
        last = place + c.len_utf8();
        seen += 1;
    }
    place_of(text, last)
}

fn offset_of(text: &str, place: Place) -> Option<usize> {
    let mut begin = 0;
    for _ in 1..place.line {
        begin += text[begin..].find('\n')? + 1;
    }
    let line = &text[begin..];
    let column = place.column.checked_sub(1)?;
    Some(
        begin
            + line
                .char_indices()
                .nth(column)
                .map_or(line.len(), |(i, _)| i),
    )
}

fn place_of(text: &str, at: usize) -> Place {
    let before = &text[..at];
    let begin = before.rfind('\n').map_or(0, |i| i + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before[begin..].chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, start: (usize, usize), value: &str, needle: &str) {
        let start = Place {
            line: start.0,
            column: start.1,
        };
        let got = inside(text, start, value, value.find(needle).unwrap());
        let found = text.find(needle).unwrap();
        assert_eq!(got, place_of(text, found), "{text:?} {needle}");
    }

    #[test]
    fn finds_tokens_in_every_style() {
        check("expr: up + bad", (1, 7), "up + bad", "bad");
        check(
            "expr: 'a{b=\"x\"} + bad'",
            (1, 7),
            "a{b=\"x\"} + bad",
            "bad",
        );
        check(
            "expr: \"a{b=\\\"x\\\"} + bad\"",
            (1, 7),
            "a{b=\"x\"} + bad",
            "bad",
        );
        check(
            "expr: |\n    up\n      + bad\nfor: 5m",
            (1, 7),
            "up\n  + bad\n",
            "bad",
        );
        check("expr: >-\n  up\n\n  + bad", (1, 7), "up\n+ bad", "bad");
    }

    #[test]
    fn past_the_end_is_the_end() {
        let text = "expr: sum(up\nfor: 5m";
        let start = Place { line: 1, column: 7 };
        assert_eq!(inside(text, start, "sum(up", 6).line, 2);
        let quoted = "expr: 'sum(up'\nfor: 5m";
        assert_eq!(
            inside(quoted, start, "sum(up", 6),
            Place {
                line: 1,
                column: 14
            }
        );
    }
}
