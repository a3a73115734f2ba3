//! From text to tokens: literal text, and the words of each `{{ action }}`.
//!
//! Owns delimiters, trimming, comments and literals. Must not know structure.

use super::TemplateError;

/// A part of the template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Text to copy.
    Text(String),
    /// The tokens of one action.
    Action(Vec<Token>),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A function, keyword, `true`, `false` or `nil`.
    Word(String),
    /// `$` or `$name`.
    Variable(String),
    /// `.name`; `adjacent` when no space stands before it.
    Field { name: String, adjacent: bool },
    /// `.` alone.
    Dot,
    /// A text.
    Str(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

pub(super) fn lex(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some(open) = rest.find("{{") {
        let mut literal = &rest[..open];
        if trim_next {
            literal = literal.trim_start();
        }
        rest = &rest[open + 2..];
        if let Some(after) = rest
            .strip_prefix('-')
            .filter(|r| r.starts_with(char::is_whitespace))
        {
            literal = literal.trim_end();
            rest = after;
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.to_owned()));
        }
        let inside = rest.trim_start();
        if let Some(comment) = inside.strip_prefix("/*") {
            let end = comment
                .find("*/")
                .ok_or_else(|| TemplateError("unclosed comment".into()))?;
            (rest, trim_next) = close(comment[end + 2..].trim_start(), &comment[end + 2..])
                .ok_or_else(|| TemplateError("comment ends before closing delimiter".into()))?;
            continue;
        }
        let (tokens, after, trim) = action(rest)?;
        pieces.push(Piece::Action(tokens));
        (rest, trim_next) = (after, trim);
    }
    let tail = if trim_next { rest.trim_start() } else { rest };
    if !tail.is_empty() {
        pieces.push(Piece::Text(tail.to_owned()));
    }
    Ok(pieces)
}

/// The rest after `}}` or ` -}}`, and whether it trims.
fn close<'a>(trimmed: &'a str, untrimmed: &'a str) -> Option<(&'a str, bool)> {
    if let Some(rest) = trimmed.strip_prefix("}}") {
        return Some((rest, false));
    }
    if trimmed.len() < untrimmed.len() {
        return trimmed.strip_prefix("-}}").map(|rest| (rest, true));
    }
    None
}

fn action(text: &str) -> Result<(Vec<Token>, &str, bool), TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        if let Some((after, trim)) = close(trimmed, rest) {
            return Ok((tokens, after, trim));
        }
        let spaced = trimmed.len() < rest.len() || tokens.is_empty();
        let Some(first) = trimmed.chars().next() else {
            return Err(TemplateError("unclosed action".into()));
        };
        let (token, length) = match first {
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '=' => (Token::Assign, 1),
            ':' if trimmed.starts_with(":=") => (Token::Declare, 2),
            '"' => quoted(trimmed)?,
            '`' => {
                let end = trimmed[1..]
                    .find('`')
                    .ok_or_else(|| TemplateError("unterminated raw quoted string".into()))?;
                (Token::Str(trimmed[1..=end].to_owned()), end + 2)
            }
            '$' => {
                let length = 1 + word_length(&trimmed[1..]);
                (Token::Variable(trimmed[..length].to_owned()), length)
            }
            '.' if !trimmed[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                match word_length(&trimmed[1..]) {
                    0 => (Token::Dot, 1),
                    n => {
                        let name = trimmed[1..=n].to_owned();
                        let adjacent = !spaced;
                        (Token::Field { name, adjacent }, n + 1)
                    }
                }
            }
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => number(trimmed)?,
            c if c == '_' || c.is_alphabetic() => {
                let n = word_length(trimmed);
                (Token::Word(trimmed[..n].to_owned()), n)
            }
            other => {
                return Err(TemplateError(format!("unexpected {other:?} in an action")));
            }
        };
        tokens.push(token);
        rest = &trimmed[length..];
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| c != '_' && !c.is_alphanumeric())
        .unwrap_or(text.len())
}

fn quoted(text: &str) -> Result<(Token, usize), TemplateError> {
    let unterminated = || TemplateError("unterminated quoted string".into());
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Str(out), i + 1)),
            '\n' => return Err(unterminated()),
            '\\' => match chars.next().ok_or_else(unterminated)?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                c @ ('"' | '\\' | '\'') => out.push(c),
                c => return Err(TemplateError(format!("unknown escape \\{c} in a string"))),
            },
            c => out.push(c),
        }
    }
    Err(unterminated())
}

fn number(text: &str) -> Result<(Token, usize), TemplateError> {
    let mut length = 0;
    let mut last = ' ';
    for c in text.chars() {
        let sign = matches!(c, '+' | '-') && (length == 0 || matches!(last, 'e' | 'E'));
        if !(sign || c.is_ascii_alphanumeric() || matches!(c, '.' | '_')) {
            break;
        }
        length += c.len_utf8();
        last = c;
    }
    let word = &text[..length];
    if let Ok(i) = word.parse::<i64>() {
        return Ok((Token::Int(i), length));
    }
    if let Some(Ok(i)) = word.strip_prefix("0x").map(|h| i64::from_str_radix(h, 16)) {
        return Ok((Token::Int(i), length));
    }
    match word.parse::<f64>() {
        Ok(f) if word.bytes().any(|b| b.is_ascii_digit()) => Ok((Token::Float(f), length)),
        _ => Err(TemplateError(format!("bad number syntax: {word:?}"))),
    }
}
