//! The grammar of selectors: matchers, ranges, subqueries, `@`, `offset`, `anchored`, `smoothed`.
//!
//! Owns what may follow what on a selector. Must not know operators or calls.

use model::{METRIC_NAME, MatchOp, Matcher};

use super::ast::{
    At, Expr, ExprKind, Extension, MatrixSelector, Modifiers, Selector, Span, Subquery,
};
use super::lexer::Token;
use super::parse::{Parsed, Parser};

// === impl Parser ===

impl Parser<'_> {
    /// A selector whose name, if it has one, has just been read.
    pub(crate) fn selector(&mut self, name: Option<String>, start: Span) -> Parsed<Expr> {
        let mut end = start;
        let matchers = if self.is_sign("{") {
            let (matchers, close) = self.matchers()?;
            end = close;
            matchers
        } else {
            Vec::new()
        };
        let selector = Selector {
            name,
            matchers,
            modifiers: Modifiers::default(),
            extension: Extension::None,
        };
        Ok(Expr::new(
            ExprKind::Selector(Box::new(selector)),
            start.to(end),
        ))
    }

    fn matchers(&mut self) -> Parsed<(Vec<Matcher>, Span)> {
        let open = self.expect_sign("{", "label matching")?;
        let mut matchers = Vec::new();
        loop {
            if self.is_sign("}") {
                return Ok((matchers, self.advance().span));
            }
            if self.peek() == &Token::End {
                return Err(self
                    .error(open, "unclosed left brace")
                    .hint("add the missing \"}\""));
            }
            matchers.push(self.matcher()?);
            if !self.take_sign(",") && !self.is_sign("}") {
                if self.peek() == &Token::End {
                    continue;
                }
                return Err(self.unexpected("label matching", "\",\" or \"}\""));
            }
        }
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let start = self.span();
        let (name, quoted) = match self.peek() {
            Token::Ident(name) => (name.clone(), false),
            Token::Text(name) => (name.clone(), true),
            _ => return Err(self.unexpected("label matching", "a label's name or \"}\"")),
        };
        self.advance();
        let op = match self.peek() {
            Token::Sign("=") => MatchOp::Equal,
            Token::Sign("!=") => MatchOp::NotEqual,
            Token::Sign("=~") => MatchOp::Regex,
            Token::Sign("!~") => MatchOp::NotRegex,
            _ if quoted => return Ok(Matcher::equal(METRIC_NAME, name)),
            Token::Sign("==") => {
                let error = self.unexpected("label matching", "\"=\", \"!=\", \"=~\" or \"!~\"");
                return Err(error.hint("equality of labels is written with one \"=\""));
            }
            _ => return Err(self.unexpected("label matching", "\"=\", \"!=\", \"=~\" or \"!~\"")),
        };
        self.advance();
        let value_span = self.span();
        let Token::Text(value) = self.peek().clone() else {
            return Err(self.unexpected("label matching", "a text in quotes"));
        };
        self.advance();
        Matcher::new(name, op, value).map_err(|e| self.error(start.to(value_span), e.to_string()))
    }

    /// Whatever may follow a primary expression.
    pub(crate) fn postfix(&mut self, mut expr: Expr) -> Parsed<Expr> {
        let mut levels = 0;
        loop {
            if self.is_sign("[") {
                self.descend()?;
                levels += 1;
                expr = self.brackets(expr)?;
            } else if self.is_word("offset") {
                self.advance();
                let offset = self.offset_duration()?;
                let span = expr.span;
                match self.modifiers(&mut expr, "offset modifier")? {
                    m if m.offset.is_some() => {
                        return Err(self.error(span, "offset may not be set multiple times"));
                    }
                    m => m.offset = Some(offset),
                }
                expr.span.end = self.last_end();
            } else if self.is_sign("@") {
                self.advance();
                let at = self.at_time()?;
                let span = expr.span;
                match self.modifiers(&mut expr, "@ modifier")? {
                    m if m.at.is_some() => {
                        return Err(self.error(span, "@ <timestamp> may not be set multiple times"));
                    }
                    m => m.at = Some(at),
                }
                expr.span.end = self.last_end();
            } else if self.is_word("anchored") {
                self.advance();
                self.extend(&mut expr, Extension::Anchored, "anchored")?;
            } else if self.is_word("smoothed") {
                self.advance();
                self.extend(&mut expr, Extension::Smoothed, "smoothed")?;
            } else {
                self.ascend(levels);
                return Ok(expr);
            }
        }
    }

    fn modifiers<'e>(&self, expr: &'e mut Expr, what: &str) -> Parsed<&'e mut Modifiers> {
        let span = expr.span;
        match &mut expr.kind {
            ExprKind::Selector(s) => Ok(&mut s.modifiers),
            ExprKind::Matrix(m) => Ok(&mut m.selector.modifiers),
            ExprKind::Subquery(s) => Ok(&mut s.modifiers),
            _ => {
                let message = format!(
                    "{what} must be preceded by an instant vector selector or range vector selector or a subquery"
                );
                Err(self.error(span, message))
            }
        }
    }

    fn extend(&self, expr: &mut Expr, extension: Extension, word: &str) -> Parsed<()> {
        let span = expr.span;
        let slot = match &mut expr.kind {
            ExprKind::Selector(s) => &mut s.extension,
            ExprKind::Matrix(m) => &mut m.selector.extension,
            ExprKind::Subquery(_) => {
                return Err(self.error(
                    span,
                    format!("{word} modifier is not supported for subqueries"),
                ));
            }
            _ => return Err(self.error(span, format!("{word} modifier not implemented"))),
        };
        if *slot != Extension::None && *slot != extension {
            return Err(self.error(
                span,
                "anchored and smoothed modifiers cannot be used together",
            ));
        }
        *slot = extension;
        Ok(())
    }

    fn at_time(&mut self) -> Parsed<At> {
        let span = self.span();
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.take_word(word) {
                self.expect_sign("(", "@")?;
                self.expect_sign(")", "@")?;
                return Ok(at);
            }
        }
        let sign = self.sign();
        let seconds = match self.peek() {
            Token::Number(v) | Token::Duration(v) => *v * sign,
            Token::Ident(w) if super::parse::constant(w).is_some() => f64::NAN,
            _ => return Err(self.unexpected("@", "a Unix time in seconds, start() or end()")),
        };
        self.advance();
        if !seconds.is_finite() || seconds.abs() >= i64::MAX as f64 {
            let message = format!("timestamp out of bounds for @ modifier: {seconds}");
            return Err(self.error(span, message));
        }
        Ok(At::Time((seconds * 1000.0).round() as i64))
    }

    /// `[range]` or `[range:step]` after an expression.
    fn brackets(&mut self, expr: Expr) -> Parsed<Expr> {
        let open = self.expect_sign("[", "range")?;
        let range = self.positive_duration("range")?;
        if self.take_sign(":") {
            let step = if self.is_sign("]") {
                None
            } else {
                Some(self.positive_duration("subquery step")?)
            };
            let close = self.expect_sign("]", "subquery selector")?;
            let span = expr.span.to(close);
            let subquery = Subquery {
                expr,
                range,
                step,
                modifiers: Modifiers::default(),
            };
            return Ok(Expr::new(ExprKind::Subquery(Box::new(subquery)), span));
        }
        if !self.is_sign("]") {
            return Err(self.unexpected("subquery or range", "\":\" or \"]\""));
        }
        let brackets = open.to(self.advance().span);
        let span = expr.span.to(brackets);
        let ExprKind::Selector(selector) = expr.kind else {
            return Err(self
                .error(brackets, "ranges only allowed for vector selectors")
                .hint("write [range:step] for a subquery over an expression"));
        };
        if selector.modifiers.offset.is_some() {
            return Err(self
                .error(brackets, "no offset modifiers allowed before range")
                .hint("write the offset after the range: x[5m] offset 1h"));
        }
        if selector.modifiers.at.is_some() {
            return Err(self
                .error(brackets, "no @ modifiers allowed before range")
                .hint("write the @ after the range: x[5m] @ 1609746000"));
        }
        let matrix = MatrixSelector {
            selector: *selector,
            selector_span: expr.span,
            range,
        };
        Ok(Expr::new(ExprKind::Matrix(Box::new(matrix)), span))
    }
}
