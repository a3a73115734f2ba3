//! Tokens to tree: a Pratt parser for expressions.
//!
//! Owns precedence, calls, aggregations and matching clauses. Must not know types (that is `check`) nor evaluation.

use model::spelling::nearest;

use super::ast::{
    AGGREGATES, Aggregate, AggregateOp, BINARY_OPS, Binary, BinaryOp, Call, Cardinality, Expr,
    ExprKind, Grouping, Matching, Span, Unary,
};
use super::check;
use super::diagnose::ParseError;
use super::functions::{self, FUNCTIONS};
use super::lexer::{self, Spanned, Token};

/// The deepest tree that parsing accepts.
pub(crate) const MAX_DEPTH: usize = 256;

/// Queries of up to this many tokens are parsed on the caller's stack.
const SHALLOW: usize = 96;

/// The stack of the thread that parses longer ones, bytes.
const DEEP_STACK: usize = 16 << 20;

/// Reads a query and checks its types. Experimental syntax is accepted; the engine refuses it unless told otherwise.
/// Errors name the place, what was expected and, where there is a guess, what was meant.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    let parser = Parser::new(text)?;
    if parser.tokens.len() <= SHALLOW {
        return parser.whole();
    }
    // So many tokens may nest deep; the caller's stack may be small.
    let whole = Span::new(0, text.len());
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(DEEP_STACK)
            .spawn_scoped(scope, || parser.whole())
            .map_err(|e| ParseError::new(text, whole, format!("no thread for a long query: {e}")))?
            .join()
            .unwrap_or_else(|_| Err(ParseError::new(text, whole, "the parser failed")))
    })
}

/// Reads what stands between two evaluations of a metric: `name{label="value"}`, as labels.
pub fn parse_series(text: &str) -> Result<model::Labels, ParseError> {
    let mut parser = Parser::new(text)?;
    let labels = parser.series_labels()?;
    parser.expect_end()?;
    Ok(labels)
}

pub(crate) struct Parser<'a> {
    pub(crate) text: &'a str,
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
}

pub(crate) type Parsed<T> = Result<T, ParseError>;

// === impl Parser ===

impl<'a> Parser<'a> {
    pub(crate) fn new(text: &'a str) -> Parsed<Self> {
        Ok(Parser {
            text,
            tokens: lexer::lex(text)?,
            at: 0,
            depth: 0,
        })
    }

    /// A whole query, checked.
    fn whole(mut self) -> Parsed<Expr> {
        if self.peek() == &Token::End {
            return Err(self.error_here("no expression found in input"));
        }
        let expr = self.expr(0)?;
        self.expect_end()?;
        check::check(self.text, &expr)?;
        Ok(expr)
    }

    pub(crate) fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    pub(crate) fn peek_at(&self, ahead: usize) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + ahead).min(last)].token
    }

    pub(crate) fn span(&self) -> Span {
        self.tokens[self.at].span
    }

    /// The end of the token before this one.
    pub(crate) fn last_end(&self) -> usize {
        self.at
            .checked_sub(1)
            .map_or(0, |i| self.tokens[i].span.end)
    }

    pub(crate) fn advance(&mut self) -> Spanned {
        let token = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub(crate) fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, span, message)
    }

    pub(crate) fn error_here(&self, message: impl Into<String>) -> ParseError {
        self.error(self.span(), message)
    }

    pub(crate) fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let found = self.peek().describe();
        self.error_here(format!(
            "unexpected {found} in {context}, expected {expected}"
        ))
    }

    pub(crate) fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(s) if *s == sign)
    }

    pub(crate) fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.advance();
        }
        found
    }

    pub(crate) fn expect_sign(&mut self, sign: &'static str, context: &str) -> Parsed<Span> {
        if self.is_sign(sign) {
            return Ok(self.advance().span);
        }
        Err(self.unexpected(context, &format!("{sign:?}")))
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Ident(name) if name.eq_ignore_ascii_case(word))
    }

    pub(crate) fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    pub(crate) fn expect_end(&self) -> Parsed<()> {
        match self.peek() {
            Token::End => Ok(()),
            Token::Sign(")") => Err(self
                .error_here("unexpected \")\"")
                .hint("there is no \"(\" it could close")),
            Token::Ident(word) => {
                let words = ["and", "or", "unless", "atan2", "offset", "by", "without"];
                let mut error = self.unexpected("expression", "an operator or the end of input");
                if let Some(guess) = nearest(word, words.into_iter()) {
                    error = error.hint(format!("did you mean {guess:?}?"));
                }
                Err(error)
            }
            _ => Err(self.unexpected("expression", "an operator or the end of input")),
        }
    }

    pub(crate) fn descend(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("expression is nested deeper than {MAX_DEPTH} levels");
            return Err(self.error_here(message));
        }
        Ok(())
    }

    pub(crate) fn ascend(&mut self, levels: usize) {
        self.depth -= levels;
    }

    /// An expression of operators that bind at least as tightly as `min`.
    pub(crate) fn expr(&mut self, min: u8) -> Parsed<Expr> {
        self.descend()?;
        let mut levels = 1;
        let mut left = self.prefix()?;
        while let Some(op) = self.binary_op() {
            if op.precedence() < min {
                break;
            }
            // A chain of operators is as deep a tree as parentheses are.
            self.descend()?;
            levels += 1;
            let op_span = self.advance().span;
            left = self.binary(left, op, op_span)?;
        }
        self.ascend(levels);
        Ok(left)
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        let word = match self.peek() {
            Token::Sign(s) => s,
            Token::Ident(name) => name.as_str(),
            _ => return None,
        };
        BINARY_OPS
            .iter()
            .find(|(_, text, _)| text.eq_ignore_ascii_case(word))
            .map(|(op, ..)| *op)
    }

    fn binary(&mut self, lhs: Expr, op: BinaryOp, op_span: Span) -> Parsed<Expr> {
        let return_bool = self.take_word("bool");
        let matching = self.matching()?;
        let next = if op == BinaryOp::Pow {
            op.precedence()
        } else {
            op.precedence() + 1
        };
        let rhs = self.expr(next)?;
        let span = lhs.span.to(rhs.span);
        let kind = ExprKind::Binary(Box::new(Binary {
            op,
            op_span,
            lhs,
            rhs,
            return_bool,
            matching,
        }));
        Ok(Expr::new(kind, span))
    }

    fn matching(&mut self) -> Parsed<Matching> {
        let mut matching = Matching::default();
        if self.is_word("on") || self.is_word("ignoring") {
            matching.explicit = true;
            matching.on = self.is_word("on");
            self.advance();
            matching.labels = self.label_list()?;
            let left = self.is_word("group_left");
            if left || self.is_word("group_right") {
                self.advance();
                matching.cardinality = if left {
                    Cardinality::ManyToOne
                } else {
                    Cardinality::OneToMany
                };
                if self.is_sign("(") {
                    matching.include = self.label_list()?;
                }
            }
        }
        self.fill(&mut matching)?;
        Ok(matching)
    }

    fn fill(&mut self, matching: &mut Matching) -> Parsed<()> {
        for _ in 0..2 {
            let word = match self.peek() {
                Token::Ident(name) if self.peek_at(1) == &Token::Sign("(") => {
                    name.to_ascii_lowercase()
                }
                _ => return Ok(()),
            };
            let (left, right) = match word.as_str() {
                "fill" if matching.fill_left.is_none() && matching.fill_right.is_none() => {
                    (true, true)
                }
                "fill_left" if matching.fill_left.is_none() => (true, false),
                "fill_right" if matching.fill_right.is_none() => (false, true),
                _ => return Ok(()),
            };
            self.advance();
            self.advance();
            let sign = self.sign();
            let value = self.number_or_duration("fill value")? * sign;
            self.expect_sign(")", "fill value")?;
            if left {
                matching.fill_left = Some(value);
            }
            if right {
                matching.fill_right = Some(value);
            }
        }
        Ok(())
    }

    /// A sign, if there is one, as a factor.
    pub(crate) fn sign(&mut self) -> f64 {
        if self.take_sign("-") {
            -1.0
        } else {
            self.take_sign("+");
            1.0
        }
    }

    pub(crate) fn number_or_duration(&mut self, context: &str) -> Parsed<f64> {
        let value = match self.peek() {
            Token::Number(v) | Token::Duration(v) => *v,
            Token::Ident(word) => {
                constant(word).ok_or_else(|| self.unexpected(context, "a number or duration"))?
            }
            _ => return Err(self.unexpected(context, "a number or duration")),
        };
        self.advance();
        Ok(value)
    }

    /// `(a, b)`: names of labels, quoted or not, keywords too.
    pub(crate) fn label_list(&mut self) -> Parsed<Vec<String>> {
        self.expect_sign("(", "grouping")?;
        let mut labels = Vec::new();
        while !self.take_sign(")") {
            match self.peek() {
                Token::Ident(name) if !name.contains(':') => labels.push(name.clone()),
                Token::Text(name) if lexer::is_label_name(name) => labels.push(name.clone()),
                _ => return Err(self.unexpected("grouping", "a label's name")),
            }
            self.advance();
            if !self.take_sign(",") && !self.is_sign(")") {
                return Err(self.unexpected("grouping", "\",\" or \")\""));
            }
        }
        Ok(labels)
    }

    fn prefix(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if self.is_sign("-") || self.is_sign("+") {
            let negative = self.is_sign("-");
            self.advance();
            let inner = self.expr(BinaryOp::Pow.precedence())?;
            let span = start.to(inner.span);
            return Ok(match inner.kind {
                ExprKind::Number(v) => {
                    Expr::new(ExprKind::Number(if negative { -v } else { v }), span)
                }
                _ => Expr::new(
                    ExprKind::Unary(Box::new(Unary {
                        negative,
                        expr: inner,
                    })),
                    span,
                ),
            });
        }
        let primary = self.primary()?;
        self.postfix(primary)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        match self.peek().clone() {
            Token::Number(v) | Token::Duration(v) => {
                self.advance();
                Ok(Expr::new(ExprKind::Number(v), start))
            }
            Token::Text(text) => {
                self.advance();
                Ok(Expr::new(ExprKind::String(text), start))
            }
            Token::Sign("(") => {
                self.advance();
                let inner = self.expr(0)?;
                let end = self.expect_close(start)?;
                Ok(Expr::new(ExprKind::Paren(Box::new(inner)), start.to(end)))
            }
            Token::Sign("{") => self.selector(None, start),
            Token::Ident(name) => self.named(name),
            _ => Err(self.unexpected("expression", "a metric, a number, a function or \"(\"")),
        }
    }

    fn expect_close(&mut self, open: Span) -> Parsed<Span> {
        if self.is_sign(")") {
            return Ok(self.advance().span);
        }
        if self.peek() == &Token::End {
            return Err(self
                .error(open, "unclosed left parenthesis")
                .hint("add the missing \")\""));
        }
        Err(self.unexpected("parentheses", "an operator or \")\""))
    }

    fn named(&mut self, name: String) -> Parsed<Expr> {
        let span = self.span();
        let next_is_call = self.peek_at(1) == &Token::Sign("(");
        if let Some(op) = AggregateOp::from_name(&name) {
            let grouped = matches!(self.peek_at(1), Token::Ident(w) if w.eq_ignore_ascii_case("by") || w.eq_ignore_ascii_case("without"));
            if next_is_call || grouped {
                self.advance();
                return self.aggregate(op, span);
            }
        }
        if let Some(value) = constant(&name) {
            self.advance();
            return Ok(Expr::new(ExprKind::Number(value), span));
        }
        if is_reserved(&name) {
            return Err(self.unexpected("expression", "a metric, a number, a function or \"(\""));
        }
        self.advance();
        if next_is_call {
            return self.call(&name, span);
        }
        self.selector(Some(name), span)
    }

    fn call(&mut self, name: &str, start: Span) -> Parsed<Expr> {
        let lower = name.to_ascii_lowercase();
        let keyword =
            ["start", "end", "step", "range", "max_of", "min_of"].contains(&lower.as_str());
        let Some(function) = functions::find(if keyword { &lower } else { name }) else {
            return Err(self.unknown_function(name, start));
        };
        let args = self.arguments()?;
        let span = Span::new(start.start, self.last_end());
        Ok(Expr::new(
            ExprKind::Call(Box::new(Call { function, args })),
            span,
        ))
    }

    fn unknown_function(&self, name: &str, span: Span) -> ParseError {
        let error = self.error(span, format!("unknown function {name:?}"));
        let known = FUNCTIONS
            .iter()
            .map(|f| f.name)
            .chain(AGGREGATES.iter().map(|(_, n)| *n));
        match nearest(name, known) {
            Some(guess) => error.hint(format!("did you mean {guess:?}?")),
            None => error,
        }
    }

    /// `(a, b)`: expressions.
    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        let open = self.expect_sign("(", "arguments")?;
        let mut args = Vec::new();
        if self.take_sign(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expr(0)?);
            if self.take_sign(",") {
                if self.is_sign(")") {
                    return Err(
                        self.error_here("trailing commas not allowed in function call args")
                    );
                }
                continue;
            }
            if self.is_sign(")") {
                self.advance();
                return Ok(args);
            }
            if self.peek() == &Token::End {
                return Err(self
                    .error(open, "unclosed left parenthesis")
                    .hint("add the missing \")\""));
            }
            return Err(self.unexpected("arguments", "\",\", an operator or \")\""));
        }
    }

    fn aggregate(&mut self, op: AggregateOp, start: Span) -> Parsed<Expr> {
        let mut grouping = self.grouping()?;
        if !self.is_sign("(") {
            return Err(self.unexpected("aggregation", "\"(\""));
        }
        let mut args = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let span = Span::new(start.start, self.last_end());
        let wanted = 1 + usize::from(op.param().is_some());
        if args.len() != wanted {
            let form = match op.param() {
                None => format!("{}(vector)", op.name()),
                Some(t) => format!("{}({}, vector)", op.name(), t.name()),
            };
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                args.len()
            );
            return Err(self.error(span, message).hint(format!("write {form}")));
        }
        let Some(expr) = args.pop() else {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        };
        let kind = ExprKind::Aggregate(Box::new(Aggregate {
            op,
            param: args.pop(),
            expr,
            grouping,
        }));
        Ok(Expr::new(kind, span))
    }

    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let without = self.is_word("without");
        if !without && !self.is_word("by") {
            return Ok(None);
        }
        self.advance();
        let labels = self.label_list()?;
        Ok(Some(Grouping { without, labels }))
    }
}

/// Whether a word (in any case) is one of the grammar's own, and no metric's name without quotes.
pub(crate) fn is_reserved(word: &str) -> bool {
    let words = [
        "bool",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "atan2",
    ];
    words.iter().any(|w| word.eq_ignore_ascii_case(w))
}

/// The number that a word stands for.
pub(crate) fn constant(word: &str) -> Option<f64> {
    if word.eq_ignore_ascii_case("inf") {
        Some(f64::INFINITY)
    } else if word.eq_ignore_ascii_case("nan") {
        Some(f64::NAN)
    } else {
        None
    }
}
