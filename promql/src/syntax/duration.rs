//! The grammar of lengths of time, which may be expressions (experimental), and their value.
//!
//! Owns duration arithmetic. Must not know selectors.

use super::ast::{BINARY_OPS, BinaryOp, Duration, DurationKind, Span};
use super::lexer::Token;
use super::parse::{Parsed, Parser};

/// The longest length of time, in seconds: what 64 bits of nanoseconds hold.
const LIMIT: f64 = 9_223_372_036.854_776;

// === impl Parser ===

impl Parser<'_> {
    /// The length of a range or of a subquery's step.
    pub(crate) fn positive_duration(&mut self, context: &str) -> Parsed<Duration> {
        let duration = self.duration(0, context)?;
        match duration.kind {
            DurationKind::Seconds(s) if s <= 0.0 || s.is_nan() => {
                Err(self.error(duration.span, "duration must be greater than 0"))
            }
            _ => Ok(duration),
        }
    }

    /// What follows `offset`: one operand, perhaps with a sign. Arithmetic needs parentheses.
    pub(crate) fn offset_duration(&mut self) -> Parsed<Duration> {
        self.duration_prefix("offset")
    }

    fn duration(&mut self, min: u8, context: &str) -> Parsed<Duration> {
        self.descend()?;
        let mut levels = 1;
        let mut left = self.duration_prefix(context)?;
        loop {
            let op = match self.peek() {
                Token::Sign(s) => BINARY_OPS
                    .iter()
                    .find(|(_, t, _)| t == s)
                    .map(|(op, ..)| *op),
                _ => None,
            };
            let Some(op) =
                op.filter(|op| matches!(op.precedence(), 4..=6) && op.precedence() >= min)
            else {
                break;
            };
            self.descend()?;
            levels += 1;
            let op_span = self.advance().span;
            let next = op.precedence() + u8::from(op != BinaryOp::Pow);
            let right = self.duration(next, context)?;
            if right.kind == DurationKind::Seconds(0.0)
                && matches!(op, BinaryOp::Div | BinaryOp::Mod)
            {
                let word = if op == BinaryOp::Div {
                    "division"
                } else {
                    "modulo"
                };
                return Err(self.error(op_span, format!("{word} by zero")));
            }
            let span = left.span.to(right.span);
            let kind = DurationKind::Binary(op, Box::new(left), Box::new(right));
            left = Duration { kind, span };
        }
        self.ascend(levels);
        Ok(left)
    }

    fn duration_prefix(&mut self, context: &str) -> Parsed<Duration> {
        let start = self.span();
        if !self.is_sign("-") && !self.is_sign("+") {
            return self.duration_primary(context);
        }
        let negative = self.is_sign("-");
        self.advance();
        self.descend()?;
        let inner = if context == "offset" {
            self.duration_prefix(context)?
        } else {
            self.duration(BinaryOp::Pow.precedence(), context)?
        };
        self.ascend(1);
        let span = start.to(inner.span);
        let kind = match inner.kind {
            DurationKind::Seconds(s) => DurationKind::Seconds(if negative { -s } else { s }),
            _ if negative => DurationKind::Negative(Box::new(inner)),
            _ => DurationKind::Positive(Box::new(inner)),
        };
        Ok(Duration { kind, span })
    }

    fn duration_primary(&mut self, context: &str) -> Parsed<Duration> {
        let start = self.span();
        let kind = match self.peek().clone() {
            Token::Number(v) | Token::Duration(v) => {
                if v.abs() > LIMIT {
                    return Err(self.error_here("duration out of range"));
                }
                self.advance();
                DurationKind::Seconds(v)
            }
            Token::Sign("(") => {
                self.advance();
                let inner = self.duration(0, "duration")?;
                self.expect_sign(")", "duration")?;
                DurationKind::Paren(Box::new(inner))
            }
            Token::Ident(word) => self.duration_call(&word.to_ascii_lowercase(), context)?,
            _ => {
                return Err(
                    self.unexpected(context, "a duration such as 5m, or a number of seconds")
                );
            }
        };
        Ok(Duration {
            kind,
            span: Span::new(start.start, self.last_end()),
        })
    }

    fn duration_call(&mut self, word: &str, context: &str) -> Parsed<DurationKind> {
        let known = ["step", "range", "min_of", "max_of"].contains(&word);
        if !known {
            return Err(
                self.unexpected(context, "a duration, step(), range(), min_of() or max_of()")
            );
        }
        self.advance();
        self.expect_sign("(", "duration")?;
        let kind = if word == "step" || word == "range" {
            if word == "step" {
                DurationKind::Step
            } else {
                DurationKind::Range
            }
        } else {
            let a = Box::new(self.duration(0, "duration")?);
            self.expect_sign(",", "duration")?;
            let b = Box::new(self.duration(0, "duration")?);
            if word == "min_of" {
                DurationKind::MinOf(a, b)
            } else {
                DurationKind::MaxOf(a, b)
            }
        };
        self.expect_sign(")", "duration")?;
        Ok(kind)
    }
}

/// What a duration may refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DurationContext {
    /// The query's step, seconds; 0 for an instant query.
    pub(crate) step_s: f64,
    /// The query's end minus its start, seconds.
    pub(crate) range_s: f64,
}

impl Duration {
    /// Its length in milliseconds. Errors, as a text, when it is not a number or out of range, or not positive where
    /// it must be.
    pub(crate) fn resolve(
        &self,
        context: DurationContext,
        negative_allowed: bool,
    ) -> Result<i64, String> {
        if let Some(ms) = self.literal_ms() {
            return Ok(ms);
        }
        let seconds = self.seconds(context)?;
        if !seconds.is_finite() {
            return Err("duration is NaN or infinite".into());
        }
        if seconds <= 0.0 && !negative_allowed {
            return Err("duration must be greater than 0".into());
        }
        if seconds.abs() > LIMIT {
            return Err("duration is out of range".into());
        }
        Ok((seconds * 1000.0) as i64)
    }

    fn seconds(&self, context: DurationContext) -> Result<f64, String> {
        Ok(match &self.kind {
            DurationKind::Seconds(s) => *s,
            DurationKind::Step => context.step_s,
            DurationKind::Range => context.range_s,
            DurationKind::MinOf(a, b) => a.seconds(context)?.min(b.seconds(context)?),
            DurationKind::MaxOf(a, b) => a.seconds(context)?.max(b.seconds(context)?),
            DurationKind::Negative(a) => -a.seconds(context)?,
            DurationKind::Positive(a) | DurationKind::Paren(a) => a.seconds(context)?,
            DurationKind::Binary(op, a, b) => {
                let (a, b) = (a.seconds(context)?, b.seconds(context)?);
                match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Div if b == 0.0 => return Err("division by zero".into()),
                    BinaryOp::Div => a / b,
                    BinaryOp::Mod if b == 0.0 => return Err("modulo by zero".into()),
                    BinaryOp::Mod => a % b,
                    _ => a.powf(b),
                }
            }
        })
    }
}
