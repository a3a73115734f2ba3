//! The expression tree. Every node knows where it stands in the text.
//!
//! Owns the shape of a parsed query and the types of its nodes. Must not know evaluation.

use model::Matcher;

use super::functions::Function;

/// A range of bytes in the query's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// From `start` up to, not including, `end`.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Span { start, end }
    }

    /// The smallest span that holds both.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span::new(self.start.min(other.start), self.end.max(other.end))
    }
}

/// The type of an expression's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// One number for each evaluation.
    Scalar,
    /// A text.
    String,
    /// One value for each series.
    Vector,
    /// A window of values for each series.
    Matrix,
}

impl ValueType {
    /// How the documentation calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
        }
    }
}

/// An expression and its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// What an expression is.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// A number.
    Number(f64),
    /// A text.
    String(String),
    /// An instant vector selector.
    Selector(Box<Selector>),
    /// A range vector selector: `x[5m]`.
    Matrix(Box<MatrixSelector>),
    /// A subquery: `expr[1h:5m]`.
    Subquery(Box<Subquery>),
    /// A function call.
    Call(Box<Call>),
    /// An aggregation.
    Aggregate(Box<Aggregate>),
    /// A binary operation.
    Binary(Box<Binary>),
    /// `-expr` or `+expr`.
    Unary(Box<Unary>),
    /// `(expr)`.
    Paren(Box<Expr>),
}

/// How a selector reads beyond its window (experimental).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extension {
    /// It does not.
    #[default]
    None,
    /// `anchored`: the sample before the window counts as its first.
    Anchored,
    /// `smoothed`: values at the window's edges are interpolated.
    Smoothed,
}

/// The instant that an `@` pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Unix milliseconds.
    Time(i64),
    /// `start()` of the query.
    Start,
    /// `end()` of the query.
    End,
}

/// `@` and `offset`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Modifiers {
    /// `@`.
    pub at: Option<At>,
    /// `offset`; negative looks ahead.
    pub offset: Option<Duration>,
}

/// An instant vector selector.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// The name written before the braces.
    pub name: Option<String>,
    /// What stands in the braces.
    pub matchers: Vec<Matcher>,
    /// `@` and `offset`.
    pub modifiers: Modifiers,
    /// `anchored` or `smoothed`.
    pub extension: Extension,
}

impl Selector {
    /// The matchers, with one for the name.
    #[must_use]
    pub fn all_matchers(&self) -> Vec<Matcher> {
        let mut all = self.matchers.clone();
        if let Some(name) = &self.name {
            all.push(Matcher::equal(model::METRIC_NAME, name.clone()));
        }
        all
    }
}

/// A range vector selector. `@`, `offset` and the extension are the inner selector's.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// Which series.
    pub selector: Selector,
    /// Where the inner selector stands.
    pub selector_span: Span,
    /// How long the window is.
    pub range: Duration,
}

/// A subquery.
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// What is evaluated at each inner step.
    pub expr: Expr,
    /// How long the window is.
    pub range: Duration,
    /// The inner step; `None` for the engine's default.
    pub step: Option<Duration>,
    /// `@` and `offset`.
    pub modifiers: Modifiers,
}

/// A function call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Which function.
    pub function: &'static Function,
    /// Its arguments.
    pub args: Vec<Expr>,
}

/// An aggregation operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AggregateOp {
    Avg,
    Bottomk,
    Count,
    CountValues,
    Group,
    Max,
    Min,
    Quantile,
    Stddev,
    Stdvar,
    Sum,
    Topk,
    Limitk,
    LimitRatio,
}

/// Every aggregation operator and its name.
pub const AGGREGATES: [(AggregateOp, &str); 14] = [
    (AggregateOp::Avg, "avg"),
    (AggregateOp::Bottomk, "bottomk"),
    (AggregateOp::Count, "count"),
    (AggregateOp::CountValues, "count_values"),
    (AggregateOp::Group, "group"),
    (AggregateOp::Max, "max"),
    (AggregateOp::Min, "min"),
    (AggregateOp::Quantile, "quantile"),
    (AggregateOp::Stddev, "stddev"),
    (AggregateOp::Stdvar, "stdvar"),
    (AggregateOp::Sum, "sum"),
    (AggregateOp::Topk, "topk"),
    (AggregateOp::Limitk, "limitk"),
    (AggregateOp::LimitRatio, "limit_ratio"),
];

impl AggregateOp {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        AGGREGATES
            .iter()
            .find(|(op, _)| *op == self)
            .map_or("", |(_, n)| n)
    }

    /// The operator of that name, in any case of letters.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        AGGREGATES
            .iter()
            .find(|(_, n)| n.eq_ignore_ascii_case(name))
            .map(|(op, _)| *op)
    }

    /// The type of the parameter that stands before the vector, if it takes one.
    #[must_use]
    pub fn param(self) -> Option<ValueType> {
        match self {
            AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Quantile
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => Some(ValueType::Scalar),
            AggregateOp::CountValues => Some(ValueType::String),
            _ => None,
        }
    }

    /// Whether it is experimental in Prometheus.
    #[must_use]
    pub fn is_experimental(self) -> bool {
        matches!(self, AggregateOp::Limitk | AggregateOp::LimitRatio)
    }
}

/// `by (...)` or `without (...)`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grouping {
    /// `without` rather than `by`.
    pub without: bool,
    /// The labels.
    pub labels: Vec<String>,
}

/// An aggregation.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// The parameter, as `op` asks for.
    pub param: Option<Expr>,
    /// What is aggregated.
    pub expr: Expr,
    /// The groups; `None` is one group of all.
    pub grouping: Option<Grouping>,
}

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// `</`: keeps the observations below.
    TrimUpper,
    /// `>/`: keeps the observations above.
    TrimLower,
    And,
    Or,
    Unless,
}

/// Every binary operator, how it is written, and how tightly it binds.
pub const BINARY_OPS: [(BinaryOp, &str, u8); 18] = [
    (BinaryOp::Or, "or", 1),
    (BinaryOp::And, "and", 2),
    (BinaryOp::Unless, "unless", 2),
    (BinaryOp::Equal, "==", 3),
    (BinaryOp::NotEqual, "!=", 3),
    (BinaryOp::Less, "<", 3),
    (BinaryOp::LessEqual, "<=", 3),
    (BinaryOp::Greater, ">", 3),
    (BinaryOp::GreaterEqual, ">=", 3),
    (BinaryOp::TrimUpper, "</", 3),
    (BinaryOp::TrimLower, ">/", 3),
    (BinaryOp::Add, "+", 4),
    (BinaryOp::Sub, "-", 4),
    (BinaryOp::Mul, "*", 5),
    (BinaryOp::Div, "/", 5),
    (BinaryOp::Mod, "%", 5),
    (BinaryOp::Atan2, "atan2", 5),
    (BinaryOp::Pow, "^", 6),
];

impl BinaryOp {
    /// As it is written.
    #[must_use]
    pub fn text(self) -> &'static str {
        BINARY_OPS
            .iter()
            .find(|(op, ..)| *op == self)
            .map_or("", |(_, t, _)| t)
    }

    /// How tightly it binds, 1 to 6.
    #[must_use]
    pub fn precedence(self) -> u8 {
        BINARY_OPS
            .iter()
            .find(|(op, ..)| *op == self)
            .map_or(0, |(.., p)| *p)
    }

    /// Whether it compares.
    #[must_use]
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            BinaryOp::Equal
                | BinaryOp::NotEqual
                | BinaryOp::Less
                | BinaryOp::LessEqual
                | BinaryOp::Greater
                | BinaryOp::GreaterEqual
        )
    }

    /// Whether it combines sets of series.
    #[must_use]
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }

    /// Whether its result is another metric than its operands.
    #[must_use]
    pub fn drops_name(self) -> bool {
        matches!(
            self,
            BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Mul
                | BinaryOp::Div
                | BinaryOp::Mod
                | BinaryOp::Pow
                | BinaryOp::Atan2
        )
    }
}

/// Which side of a vector match has more series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cardinality {
    /// Each series has at most one partner.
    #[default]
    OneToOne,
    /// `group_left`.
    ManyToOne,
    /// `group_right`.
    OneToMany,
}

/// How the series of both sides find each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matching {
    /// `on` rather than `ignoring`.
    pub on: bool,
    /// Whether `on` or `ignoring` was written at all.
    pub explicit: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// `group_left` or `group_right`.
    pub cardinality: Cardinality,
    /// The labels taken over from the one side.
    pub include: Vec<String>,
    /// `fill_left`: stands for a missing series on the left.
    pub fill_left: Option<f64>,
    /// `fill_right`: stands for a missing series on the right.
    pub fill_right: Option<f64>,
}

/// A binary operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Where the operator stands.
    pub op_span: Span,
    /// The left side.
    pub lhs: Expr,
    /// The right side.
    pub rhs: Expr,
    /// `bool`.
    pub return_bool: bool,
    /// How series match.
    pub matching: Matching,
}

/// A sign before an expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Unary {
    /// `-` rather than `+`.
    pub negative: bool,
    /// The expression.
    pub expr: Expr,
}

/// A length of time, which may be an expression (experimental).
#[derive(Debug, Clone, PartialEq)]
pub struct Duration {
    /// What it is.
    pub kind: DurationKind,
    /// Where it stands.
    pub span: Span,
}

/// What a length of time is.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationKind {
    /// Seconds.
    Seconds(f64),
    /// `step()`.
    Step,
    /// `range()`: end minus start of the query.
    Range,
    /// `min_of(a, b)`.
    MinOf(Box<Duration>, Box<Duration>),
    /// `max_of(a, b)`.
    MaxOf(Box<Duration>, Box<Duration>),
    /// `-a`.
    Negative(Box<Duration>),
    /// `+a`.
    Positive(Box<Duration>),
    /// `(a)`.
    Paren(Box<Duration>),
    /// Arithmetic.
    Binary(BinaryOp, Box<Duration>, Box<Duration>),
}

impl Duration {
    /// A plain length of time, in milliseconds, that stands nowhere.
    #[must_use]
    pub fn from_ms(ms: i64) -> Self {
        Duration {
            kind: DurationKind::Seconds(ms as f64 / 1000.0),
            span: Span::default(),
        }
    }

    /// The milliseconds of a plain length of time.
    #[must_use]
    pub fn literal_ms(&self) -> Option<i64> {
        match self.kind {
            DurationKind::Seconds(s) => Some((s * 1000.0).round() as i64),
            _ => None,
        }
    }
}

impl Expr {
    /// A node at a place.
    #[must_use]
    pub fn new(kind: ExprKind, span: Span) -> Self {
        Expr { kind, span }
    }

    /// The type of its value.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Selector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Call(call) => call.function.result,
            ExprKind::Binary(b) => {
                let scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
                if scalar(&b.lhs) && scalar(&b.rhs) {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
            ExprKind::Unary(u) => u.expr.value_type(),
            ExprKind::Paren(inner) => inner.value_type(),
        }
    }

    /// The expression inside any parentheses.
    #[must_use]
    pub fn unparen(&self) -> &Expr {
        let mut at = self;
        while let ExprKind::Paren(inner) = &at.kind {
            at = inner;
        }
        at
    }

    /// Calls `visit` on this node and every node below it, parents first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        visit(self);
        match &self.kind {
            ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Selector(_)
            | ExprKind::Matrix(_) => {}
            ExprKind::Subquery(s) => s.expr.walk(visit),
            ExprKind::Call(c) => c.args.iter().for_each(|a| a.walk(visit)),
            ExprKind::Aggregate(a) => {
                if let Some(param) = &a.param {
                    param.walk(visit);
                }
                a.expr.walk(visit);
            }
            ExprKind::Binary(b) => {
                b.lhs.walk(visit);
                b.rhs.walk(visit);
            }
            ExprKind::Unary(u) => u.expr.walk(visit),
            ExprKind::Paren(inner) => inner.walk(visit),
        }
    }

    /// Calls `visit` on this node and every node below it, children first.
    pub fn walk_mut(&mut self, visit: &mut dyn FnMut(&mut Expr)) {
        match &mut self.kind {
            ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Selector(_)
            | ExprKind::Matrix(_) => {}
            ExprKind::Subquery(s) => s.expr.walk_mut(visit),
            ExprKind::Call(c) => c.args.iter_mut().for_each(|a| a.walk_mut(visit)),
            ExprKind::Aggregate(a) => {
                if let Some(param) = &mut a.param {
                    param.walk_mut(visit);
                }
                a.expr.walk_mut(visit);
            }
            ExprKind::Binary(b) => {
                b.lhs.walk_mut(visit);
                b.rhs.walk_mut(visit);
            }
            ExprKind::Unary(u) => u.expr.walk_mut(visit),
            ExprKind::Paren(inner) => inner.walk_mut(visit),
        }
        visit(self);
    }
}
