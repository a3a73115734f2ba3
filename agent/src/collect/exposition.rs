//! The Prometheus text format (0.0.4, with quoted UTF-8 names) and OpenMetrics 1.0, read from bytes.
//!
//! Owns both grammars and their diagnostics. Must not know HTTP, targets or where samples go. Nothing is allocated for a
//! sample: an [`Item`] borrows from the body, and its series text is the key that a scrape's cache is looked up by.

mod series;

pub use series::labels_of;

/// Which grammar a body is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Text,
    /// `application/openmetrics-text`: timestamps in seconds, `# EOF` at the end, exemplars.
    OpenMetrics,
}

// === impl Format ===

impl Format {
    /// The grammar that a `Content-Type` names; text when it is missing or another.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Self {
        if content_type
            .trim_start()
            .starts_with("application/openmetrics-text")
        {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }
}

/// One exemplar as written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawExemplar<'a> {
    /// The label set with its braces; read it with [`labels_of`].
    pub labels: &'a str,
    /// The observed value.
    pub value: f64,
    /// When, Unix milliseconds.
    pub t_ms: Option<i64>,
}

/// One line that says something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Item<'a> {
    /// A sample.
    Sample {
        /// Name and labels as written; read it with [`labels_of`].
        series: &'a str,
        /// The value.
        value: f64,
        /// The timestamp, Unix milliseconds.
        t_ms: Option<i64>,
        /// Its exemplar (OpenMetrics only).
        exemplar: Option<RawExemplar<'a>>,
        /// The line's number, from 1.
        line: usize,
    },
    /// `# TYPE`.
    Type {
        /// The family's name.
        name: &'a str,
        /// As written: `counter`, `gauge`, and so on.
        kind: &'a str,
    },
    /// `# HELP`, escapes as written.
    Help {
        /// The family's name.
        name: &'a str,
        /// The text.
        text: &'a str,
    },
    /// `# UNIT` (OpenMetrics only).
    Unit {
        /// The family's name.
        name: &'a str,
        /// The unit.
        unit: &'a str,
    },
}

/// Why a body is not in its format, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What was expected and what was found.
    pub message: String,
}

/// Reads a body line by line. After an error it yields nothing more.
#[derive(Debug)]
pub struct Parser<'a> {
    text: &'a str,
    at: usize,
    line_start: usize,
    line: usize,
    format: Format,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Reading,
    AfterEof,
    Done,
}

type Step<T> = Result<T, (usize, String)>;

// === impl Parser ===

impl<'a> Parser<'a> {
    /// A parser over a body. Errors when the body is not UTF-8.
    pub fn new(body: &'a [u8], format: Format) -> Result<Self, ParseError> {
        let text = std::str::from_utf8(body).map_err(|e| {
            let good = &body[..e.valid_up_to()];
            let start = good.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
            ParseError {
                line: good.iter().filter(|b| **b == b'\n').count() + 1,
                column: String::from_utf8_lossy(&good[start..]).chars().count() + 1,
                message: "the body is not UTF-8".into(),
            }
        })?;
        Ok(Parser {
            text,
            at: 0,
            line_start: 0,
            line: 1,
            format,
            state: State::Reading,
        })
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn spaces(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// The rest of the line, without its end; `at` moves past the end.
    fn rest_of_line(&mut self) -> &'a str {
        let rest = &self.text.as_bytes()[self.at..];
        let len = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        let line = &self.text[self.at..self.at + len];
        self.at += len;
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// What is not white space, possibly nothing.
    fn word(&mut self) -> &'a str {
        let start = self.at;
        while !matches!(self.byte(), None | Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn end_line(&mut self) -> Step<()> {
        self.spaces();
        if self.byte() == Some(b'\r') {
            self.at += 1;
        }
        match self.byte() {
            None if self.format == Format::OpenMetrics => {
                Err((self.at, "the last line has no line end".into()))
            }
            None => Ok(()),
            Some(b'\n') => {
                self.at += 1;
                self.line += 1;
                self.line_start = self.at;
                Ok(())
            }
            Some(_) => Err((
                self.at,
                format!("expected the end of the line, found {}", self.found()),
            )),
        }
    }

    fn found(&self) -> String {
        match self.text[self.at..].chars().next() {
            None => "the end of the body".into(),
            Some('\n') => "the end of the line".into(),
            Some(c) => format!("{c:?}"),
        }
    }

    fn step(&mut self, expected: &str) -> Step<Option<Item<'a>>> {
        loop {
            if self.at >= self.text.len() {
                return match (self.format, &self.state) {
                    (Format::OpenMetrics, State::Reading) => {
                        Err((self.at, "the body ends without \"# EOF\"".into()))
                    }
                    _ => Ok(None),
                };
            }
            if self.state == State::AfterEof {
                return Err((self.at, "there is text after \"# EOF\"".into()));
            }
            if self.format == Format::Text {
                self.spaces();
            }
            match self.byte() {
                Some(b'\n' | b'\r') | None if self.format == Format::Text => self.end_line()?,
                Some(b'#') => {
                    if let Some(item) = self.comment()? {
                        return Ok(Some(item));
                    }
                }
                _ => return self.sample(expected).map(Some),
            }
        }
    }

    fn comment(&mut self) -> Step<Option<Item<'a>>> {
        self.at += 1;
        self.spaces();
        let keyword_at = self.at;
        let item = match self.word() {
            "EOF" if self.format == Format::OpenMetrics => {
                self.state = State::AfterEof;
                if self.byte().is_none() {
                    return Ok(None);
                }
                None
            }
            "TYPE" => {
                let name = self.family_name()?;
                let kind_at = self.at;
                let kind = self.word();
                if !self.knows_type(kind) {
                    return Err((kind_at, format!("{kind:?} is not a metric type")));
                }
                Some(Item::Type { name, kind })
            }
            "HELP" => {
                let name = self.family_name()?;
                let text = self.rest_of_line();
                Some(Item::Help { name, text })
            }
            "UNIT" if self.format == Format::OpenMetrics => {
                let name = self.family_name()?;
                let unit = self.word();
                Some(Item::Unit { name, unit })
            }
            _ if self.format == Format::OpenMetrics => {
                return Err((
                    keyword_at,
                    "expected TYPE, HELP, UNIT or EOF after \"#\"".into(),
                ));
            }
            _ => {
                self.rest_of_line();
                None
            }
        };
        self.end_line()?;
        Ok(item)
    }

    fn knows_type(&self, kind: &str) -> bool {
        matches!(kind, "counter" | "gauge" | "histogram" | "summary")
            || match self.format {
                Format::Text => kind == "untyped" || kind == "unknown",
                Format::OpenMetrics => {
                    matches!(kind, "unknown" | "gaugehistogram" | "stateset" | "info")
                }
            }
    }

    /// A family's name after a keyword, plain or quoted (without quotes, escapes as written).
    fn family_name(&mut self) -> Step<&'a str> {
        self.spaces();
        let name = if self.byte() == Some(b'"') {
            let quoted = series::quoted(self.text, self.at)?;
            self.at += quoted.len();
            &quoted[1..quoted.len() - 1]
        } else {
            let len = series::name_len(&self.text[self.at..]);
            let name = &self.text[self.at..self.at + len];
            self.at += len;
            name
        };
        if name.is_empty() || !matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r') | None) {
            return Err((
                self.at,
                format!("expected a metric name, found {}", self.found()),
            ));
        }
        self.spaces();
        Ok(name)
    }

    /// The next item, as [`Iterator::next`] gives it; quicker when it is a sample of the series `expected`, a text that
    /// an item had before.
    pub fn next_expecting(&mut self, expected: &str) -> Option<Result<Item<'a>, ParseError>> {
        if self.state == State::Done {
            return None;
        }
        match self.step(expected) {
            Ok(Some(item)) => Some(Ok(item)),
            Ok(None) => {
                self.state = State::Done;
                None
            }
            Err((at, message)) => {
                self.state = State::Done;
                Some(Err(self.locate(at, message)))
            }
        }
    }

    /// `expected`, when a scan would find just that: labels could follow after spaces.
    fn as_expected(&self, expected: &str) -> Option<&'a str> {
        let end = self.at + expected.len();
        let here = self.text.as_bytes().get(self.at..end)?;
        let after = self.text.as_bytes().get(end..)?;
        let ends = matches!(after, [b' ', next, ..] if !matches!(next, b' ' | b'\t' | b'{'));
        (ends && !expected.is_empty() && here == expected.as_bytes())
            .then(|| &self.text[self.at..end])
    }

    fn sample(&mut self, expected: &str) -> Step<Item<'a>> {
        let line = self.line;
        let series = match self.as_expected(expected) {
            Some(series) => series,
            None => series::scan(self.text, self.at)?,
        };
        self.at += series.len();
        if !matches!(self.byte(), Some(b' ' | b'\t')) && !series.ends_with('}') {
            return Err((
                self.at,
                format!("expected a space and a value, found {}", self.found()),
            ));
        }
        let value = self.number("a value")?;
        self.spaces();
        let t_ms = match self.byte() {
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') => Some(self.timestamp()?),
            _ => None,
        };
        self.spaces();
        let exemplar = if self.format == Format::OpenMetrics && self.byte() == Some(b'#') {
            Some(self.exemplar()?)
        } else {
            None
        };
        self.end_line()?;
        Ok(Item::Sample {
            series,
            value,
            t_ms,
            exemplar,
            line,
        })
    }

    fn exemplar(&mut self) -> Step<RawExemplar<'a>> {
        self.at += 1;
        self.spaces();
        if self.byte() != Some(b'{') {
            return Err((
                self.at,
                format!("expected the exemplar's labels, found {}", self.found()),
            ));
        }
        let labels = series::scan_labels(self.text, self.at)?;
        self.at += labels.len();
        let value = self.number("the exemplar's value")?;
        self.spaces();
        let t_ms = match self.byte() {
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') => Some(self.timestamp()?),
            _ => None,
        };
        Ok(RawExemplar {
            labels,
            value,
            t_ms,
        })
    }

    fn number(&mut self, what: &str) -> Step<f64> {
        self.spaces();
        let start = self.at;
        let word = self.word();
        parse_float(word).ok_or_else(|| {
            if word.is_empty() {
                (start, format!("expected {what}, found {}", self.found()))
            } else {
                (start, format!("expected {what}, found {:?}", short(word)))
            }
        })
    }

    fn timestamp(&mut self) -> Step<i64> {
        let start = self.at;
        let word = self.word();
        let parsed = match self.format {
            Format::Text => word.parse::<i64>().ok(),
            Format::OpenMetrics => parse_float(word)
                .map(|s| s * 1000.0)
                .filter(|ms| ms.abs() < 9.0e18)
                .map(|ms| ms.round() as i64),
        };
        parsed.ok_or_else(|| (start, format!("{:?} is not a timestamp", short(word))))
    }

    fn locate(&self, at: usize, message: String) -> ParseError {
        let at = at.min(self.text.len());
        ParseError {
            line: self.line,
            column: self
                .text
                .get(self.line_start..at)
                .map_or(0, |s| s.chars().count())
                + 1,
            message,
        }
    }
}

impl<'a> Iterator for Parser<'a> {
    type Item = Result<Item<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_expecting("")
    }
}

/// Go's `ParseFloat` for what exporters write: decimals, `NaN`, `+Inf`, `-Inf`. Numbers of at most 15 digits take a short
/// way: both parts of the fraction are floats exactly, so that one division rounds as it should (Clinger 1990).
fn parse_float(word: &str) -> Option<f64> {
    const TENS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let bytes = word.as_bytes();
    if !(1..=16).contains(&bytes.len()) {
        return word.parse().ok();
    }
    let (mut digits, mut number, mut point) = (0, 0u64, None);
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                number = number * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(bytes.len() - 1 - i),
            _ => return word.parse().ok(),
        }
    }
    match (digits, point) {
        (0 | 16.., _) => word.parse().ok(),
        (_, None) => Some(number as f64),
        (_, Some(places)) => Some(number as f64 / TENS[places]),
    }
}

fn short(word: &str) -> String {
    word.chars().take(40).collect()
}

#[cfg(test)]
mod tests;
