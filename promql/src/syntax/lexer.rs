//! Text to tokens.
//!
//! Owns what a token is: names, numbers, durations, texts, signs, comments. Must not know the grammar.

use super::ast::Span;
use super::diagnose::ParseError;

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A name or keyword; may hold `:` outside of braces and brackets.
    Ident(String),
    /// A number.
    Number(f64),
    /// A length of time in seconds, as `5m`.
    Duration(f64),
    /// A text, unquoted.
    Text(String),
    /// An operator or bracket.
    Sign(&'static str),
    /// The end of the input.
    End,
}

impl Token {
    /// As an error message names it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Token::Ident(name) => format!("{name:?}"),
            Token::Number(v) => format!("number {v}"),
            Token::Duration(s) => format!("duration {s}s"),
            Token::Text(t) => format!("string {t:?}"),
            Token::Sign(s) => format!("{s:?}"),
            Token::End => "end of input".into(),
        }
    }
}

/// A token and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) span: Span,
}

/// Signs, longest first.
const SIGNS: [&str; 29] = [
    "==", "=~", "!=", "!~", "<=", "</", ">=", ">/", "+", "-", "*", "/", "%", "^", "=", "<", ">",
    "(", ")", "{", "}", "[", "]", ",", "@", ":", ";", "!", "~",
];

/// Splits `text` into tokens; the last one is [`Token::End`].
pub(crate) fn lex(text: &str) -> Result<Vec<Spanned>, ParseError> {
    let mut lexer = Lexer {
        text,
        at: 0,
        brackets: 0,
        braces: 0,
    };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next()?;
        let last = token.token == Token::End;
        tokens.push(token);
        if last {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    brackets: usize,
    braces: usize,
}

// === impl Lexer ===

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.text
            .as_bytes()
            .get(self.at + ahead)
            .copied()
            .unwrap_or(0)
    }

    fn skip_blank(&mut self) {
        loop {
            let blank = self
                .rest()
                .bytes()
                .take_while(|b| b" \t\r\n".contains(b))
                .count();
            self.at += blank;
            if self.byte(0) != b'#' {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn error(&self, start: usize, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, Span::new(start, self.at.max(start + 1)), message)
    }

    fn next(&mut self) -> Result<Spanned, ParseError> {
        self.skip_blank();
        let start = self.at;
        let token = self.token(start)?;
        Ok(Spanned {
            token,
            span: Span::new(start, self.at),
        })
    }

    fn token(&mut self, start: usize) -> Result<Token, ParseError> {
        let Some(first) = self.rest().chars().next() else {
            return Ok(Token::End);
        };
        if first.is_ascii_digit() || (first == '.' && self.byte(1).is_ascii_digit()) {
            return self.number(start);
        }
        if first == '"' || first == '\'' || first == '`' {
            return self.quoted(start, first);
        }
        let colon = self.braces == 0 && self.brackets == 0;
        if first == '_' || first.is_ascii_alphabetic() || (first == ':' && colon) {
            let length = self
                .rest()
                .bytes()
                .take_while(|b| *b == b'_' || b.is_ascii_alphanumeric() || (*b == b':' && colon))
                .count();
            let name = self.rest()[..length].to_owned();
            self.at += length;
            return Ok(Token::Ident(name));
        }
        let Some(sign) = SIGNS.iter().find(|s| self.rest().starts_with(**s)) else {
            self.at += first.len_utf8();
            return Err(self.error(start, format!("unexpected character {first:?}")));
        };
        self.at += sign.len();
        match *sign {
            "[" => self.brackets += 1,
            "]" => self.brackets = self.brackets.saturating_sub(1),
            "{" => self.braces += 1,
            "}" => self.braces = self.braces.saturating_sub(1),
            _ => {}
        }
        Ok(Token::Sign(sign))
    }

    fn number(&mut self, start: usize) -> Result<Token, ParseError> {
        let length = number_length(self.rest().as_bytes());
        let word = &self.rest()[..length];
        let parsed = parse_number(word)
            .map(Token::Number)
            .or_else(|| parse_duration(word).map(Token::Duration));
        let message = format!("{word:?} is neither a number nor a duration");
        self.at += length;
        parsed.ok_or_else(|| {
            self.error(start, message)
                .hint("durations are whole numbers with units in falling order, as in 1h30m")
        })
    }

    fn quoted(&mut self, start: usize, quote: char) -> Result<Token, ParseError> {
        self.at += 1;
        if quote == '`' {
            let Some(end) = self.rest().find('`') else {
                return Err(self
                    .error(start, "text is not closed")
                    .hint("add a closing `"));
            };
            let text = self.rest()[..end].to_owned();
            self.at += end + 1;
            return Ok(Token::Text(text));
        }
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            match self.rest().chars().next() {
                None | Some('\n') => {
                    let error = ParseError::new(
                        self.text,
                        Span::new(start, start + 1),
                        "text is not closed",
                    );
                    return Err(error.hint(format!("add a closing {quote}")));
                }
                Some(c) if c == quote => {
                    self.at += 1;
                    return Ok(Token::Text(to_text(&bytes)));
                }
                Some('\\') => self.escape(quote, &mut bytes)?,
                Some(c) => {
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    self.at += c.len_utf8();
                }
            }
        }
    }

    fn escape(&mut self, quote: char, out: &mut Vec<u8>) -> Result<(), ParseError> {
        let start = self.at;
        let kind = self.rest()[1..].chars().next().unwrap_or('\0');
        let simple = match kind {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' => Some(b'\\'),
            c if c == quote => u8::try_from(c).ok(),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            self.at += 2;
            return Ok(());
        }
        let (skip, digits, radix) = match kind {
            '0'..='7' => (1, 3, 8),
            'x' => (2, 2, 16),
            'u' => (2, 4, 16),
            'U' => (2, 8, 16),
            _ => (0, 0, 0),
        };
        let code = match radix {
            0 => None,
            _ => self
                .rest()
                .get(skip..skip + digits)
                .filter(|d| !d.starts_with('+'))
                .and_then(|d| u32::from_str_radix(d, radix).ok()),
        };
        self.at += skip + digits;
        match (digits, code) {
            (2 | 3, Some(code)) if code <= 255 => out.push(code as u8),
            (4 | 8, Some(code)) if char::from_u32(code).is_some() => {
                let c = char::from_u32(code).unwrap_or('\u{fffd}');
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => {
                let error = ParseError::new(
                    self.text,
                    Span::new(start, start + 2),
                    "unknown escape in text",
                );
                return Err(error.hint(r"write \\ for a backslash, or quote with backticks"));
            }
        }
        Ok(())
    }
}

/// Where bytes that are not UTF-8 are kept in a text: the private plane's last page but a few.
const RAW: u32 = 0x10_FE00;

/// Bytes as a text; those that are not UTF-8 become private characters that [`raw_byte`] knows.
fn to_text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(
            chunk
                .invalid()
                .iter()
                .filter_map(|b| char::from_u32(RAW + u32::from(*b))),
        );
    }
    out
}

/// The byte that a character of a text stands for, when the text was not UTF-8 there.
pub(crate) fn raw_byte(c: char) -> Option<u8> {
    (c as u32)
        .checked_sub(RAW)
        .and_then(|b| u8::try_from(b).ok())
}

/// Whether a label may have this name: any text that is not empty and is UTF-8.
pub(crate) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| raw_byte(c).is_some())
}

/// How many bytes at the start belong to a number or duration (or to what was meant as one).
fn number_length(bytes: &[u8]) -> usize {
    let hex = bytes.len() > 1 && bytes[0] == b'0' && (bytes[1] | 32) == b'x';
    let mut at = 0;
    while at < bytes.len() {
        let b = bytes[at];
        let exponent_sign = (b == b'+' || b == b'-')
            && !hex
            && at > 0
            && (bytes[at - 1] | 32) == b'e'
            && bytes[..at - 1]
                .iter()
                .all(|c| c.is_ascii_digit() || b"._".contains(c));
        if !(b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || exponent_sign) {
            break;
        }
        at += 1;
    }
    at
}

/// Reads a number as Go does: decimal, hexadecimal, octal with a leading 0, `_` between digits, exponents.
pub(crate) fn parse_number(word: &str) -> Option<f64> {
    if word.starts_with('_') || word.ends_with('_') || word.contains("__") {
        return None;
    }
    let plain: String = word.chars().filter(|c| *c != '_').collect();
    let lower = plain.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(|v| v as f64);
    }
    if lower.len() > 1
        && lower.starts_with('0')
        && lower.bytes().all(|b| (b'0'..=b'7').contains(&b))
    {
        return i64::from_str_radix(&lower, 8).ok().map(|v| v as f64);
    }
    let shape = lower
        .bytes()
        .all(|b| b.is_ascii_digit() || b"e.+-".contains(&b));
    if shape { lower.parse().ok() } else { None }
}

/// Reads a duration into seconds.
pub(crate) fn parse_duration(word: &str) -> Option<f64> {
    let ms = model::duration::parse_ms(word).ok()?;
    // Prometheus' durations are nanoseconds in 64 bits.
    (ms <= i64::MAX / 1_000_000).then_some(ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        lex(text).unwrap().into_iter().map(|t| t.token).collect()
    }

    #[test]
    fn numbers_and_durations() {
        for (text, value) in [
            ("1", 1.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e-3", 1e-3),
            ("0x1F", 31.0),
            ("017", 15.0),
            ("1_000", 1000.0),
            ("1.2e+5", 1.2e5),
        ] {
            assert_eq!(tokens(text)[0], Token::Number(value), "{text}");
        }
        assert_eq!(tokens("1h30m")[0], Token::Duration(5400.0));
        assert_eq!(tokens("100ms")[0], Token::Duration(0.1));
        for bad in ["1__0", "5mm", "0x", "1s1h", "1.5m"] {
            assert!(lex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn colons_belong_to_names_outside_brackets_only() {
        assert_eq!(tokens("a:b"), [Token::Ident("a:b".into()), Token::End]);
        assert_eq!(tokens("[5m:1m]").len(), 6);
    }

    #[test]
    fn texts_are_unquoted() {
        assert_eq!(
            tokens(r#""a\n\x41é\u00e9\101""#)[0],
            Token::Text("a\nAééA".into())
        );
        assert_eq!(tokens(r"`a\n`")[0], Token::Text(r"a\n".into()));
        assert_eq!(tokens("'it\\'s'")[0], Token::Text("it's".into()));
        for bad in ["\"a", "\"a\nb\"", r#""\q""#, r#""\xg0""#, "`a"] {
            assert!(lex(bad).is_err(), "{bad}");
        }
    }
}
