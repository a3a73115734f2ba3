//! What is wrong with a query's text: the place, what was found, what was expected, and a guess at what was meant.
//!
//! Owns how an error reads. Must not know the grammar.

use std::fmt;

use model::caret::Excerpt;

use super::ast::Span;

/// A text that is not a query. `Display` gives `line:column: message`, the line, and a caret under the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Where.
    pub span: Span,
    /// Line of the place, from 1.
    pub line: usize,
    /// Column of the place in characters, from 1.
    pub column: usize,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it, in one line.
    pub hint: Option<String>,
    excerpt: Excerpt,
}

impl ParseError {
    pub(crate) fn new(text: &str, span: Span, message: impl Into<String>) -> Self {
        let start = floor_boundary(text, span.start);
        let (line, column) = line_column(text, start);
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let end = floor_boundary(text, span.end).clamp(start, line_end);
        let width = text[start..end].chars().count();
        ParseError {
            span,
            line,
            column,
            message: message.into(),
            hint: None,
            excerpt: Excerpt::new(&text[line_start..line_end], column, width),
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Line and column, both from 1, of byte `at`.
pub(crate) fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..floor_boundary(text, at)];
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (line, before[start..].chars().count() + 1)
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}{}",
            self.line, self.column, self.message, self.excerpt
        )?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caret_stands_under_the_token() {
        let text = "sum(\n  rat(x[5m]))";
        let error = ParseError::new(text, Span::new(7, 10), "unknown function \"rat\"")
            .hint("did you mean \"rate\"?");
        assert_eq!(
            error.to_string(),
            "2:3: unknown function \"rat\"\n    rat(x[5m]))\n    ^^^\n  did you mean \"rate\"?"
        );
    }
}
