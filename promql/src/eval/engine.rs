//! The engine: a query's text or tree and a source to an answer.
//!
//! Owns limits, options and errors. Must not know how any expression is evaluated.

use std::time::{Duration, Instant};

use model::source::{SourceError, WholeQuery};
use model::{QueryData, RangeSeries, Source, VectorElement};

use super::block::Cell;
use super::notes::Notes;
use super::plan;
use super::run::{Evaluator, Grid, Out};
use super::stop::{Stop, Watch};
use super::table::Table;
use crate::syntax::ast::{Expr, ExprKind, ValueType};
use crate::syntax::diagnose::ParseError;
use crate::syntax::parse::{MAX_DEPTH, parse};
use crate::syntax::rewrite::experimental_feature;

/// What bounds and colours an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How far back an instant selector looks for a sample, milliseconds.
    pub lookback_ms: i64,
    /// The most samples that a query may hold at once (read from the source, or in one intermediate result).
    pub max_samples: usize,
    /// The deepest expression that is evaluated.
    pub max_depth: usize,
    /// The step of a subquery that names none, milliseconds.
    pub default_step_ms: i64,
    /// Whether experimental syntax, functions and semantics are allowed.
    pub experimental: bool,
    /// The most steps of a range query: as in Prometheus, its length may be 11,000 times its step.
    pub max_steps: usize,
    /// How long an evaluation may take, reading the source included; none: as long as it takes.
    pub timeout: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            lookback_ms: 300_000,
            max_samples: 50_000_000,
            max_depth: MAX_DEPTH,
            default_step_ms: 60_000,
            experimental: false,
            max_steps: 11_001,
            timeout: None,
        }
    }
}

/// A query's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The values. Range results are sorted by labels; so are instant results of up to 1,000 series, unless the query
    /// orders them itself.
    pub data: QueryData,
    /// What is probably wrong, each ending in `(line:column)`.
    pub warnings: Vec<String>,
    /// What is worth knowing, each ending in `(line:column)`.
    pub infos: Vec<String>,
}

/// A range query's answer, as it was computed.
#[derive(Debug)]
pub struct RangeOutput {
    /// The values.
    pub data: RangeData,
    /// As in [`Output`].
    pub warnings: Vec<String>,
    /// As in [`Output`].
    pub infos: Vec<String>,
}

/// The values of a range query.
#[derive(Debug)]
pub enum RangeData {
    /// What was evaluated here.
    Table(Table),
    /// What the source answered.
    Data(QueryData),
}

/// What came of an evaluation, before it has the form that was asked for.
enum Answer {
    Ours { out: Out, ordered: bool },
    Theirs(QueryData),
}

struct Annotated {
    answer: Answer,
    warnings: Vec<String>,
    infos: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QueryError {
    /// The text is not a query.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// The request makes no sense.
    #[error("{0}")]
    BadData(String),
    /// The query cannot be evaluated over this data.
    #[error("{0}")]
    Execution(String),
    /// The query is too large.
    #[error("query processing would load too many samples into memory (limit {limit})")]
    TooManySamples {
        /// The limit, samples.
        limit: usize,
    },
    /// The query took longer than it may.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// Whoever asked does not want the answer any more.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// The source failed.
    #[error("{0}")]
    Source(#[from] SourceError),
}

impl QueryError {
    /// The error's type in the HTTP API: `bad_data`, `execution`, `timeout` or `canceled`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            QueryError::Parse(_) | QueryError::BadData(_) => "bad_data",
            QueryError::Execution(_) | QueryError::TooManySamples { .. } => "execution",
            QueryError::Timeout | QueryError::Source(SourceError::Unavailable(_)) => "timeout",
            QueryError::Canceled => "canceled",
            QueryError::Source(_) => "execution",
        }
    }

    pub(crate) fn execution(message: impl Into<String>) -> Self {
        QueryError::Execution(message.into())
    }
}

/// Evaluates queries. Cheap to clone; holds no state between queries.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    /// Bounds and switches.
    pub options: Options,
    stop: Stop,
}

/// Expressions deeper than this are evaluated on a thread of their own, with a stack to match.
const DEEP: usize = 24;

/// The stack of that thread, bytes.
const DEEP_STACK: usize = 64 << 20;

/// Instant results up to this size are sorted.
const SORT_LIMIT: usize = 1_000;

// === impl Engine ===

impl Engine {
    /// An engine with these options.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Engine {
            options,
            stop: Stop::new(),
        }
    }

    /// The same engine, whose queries end when `stop` is turned.
    #[must_use]
    pub fn with_stop(&self, stop: Stop) -> Self {
        Engine {
            options: self.options.clone(),
            stop,
        }
    }

    /// Evaluates at one instant (Unix milliseconds). Errors on text that is no query, on data the query cannot be
    /// evaluated over, on a failing source, and past the limits.
    pub fn instant(
        &self,
        source: &dyn Source,
        text: &str,
        t_ms: i64,
    ) -> Result<Output, QueryError> {
        let expr = parse(text)?;
        let grid = Grid::instant(t_ms);
        let found = self.query(source, Some(text), &expr, grid, true)?;
        Ok(found.into_instant(grid))
    }

    /// Evaluates from `start_ms` to `end_ms` inclusive, every `step_ms` (all Unix milliseconds).
    pub fn range(
        &self,
        source: &dyn Source,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<Output, QueryError> {
        let out = self.range_table(source, text, start_ms, end_ms, step_ms)?;
        Ok(out.into_output())
    }

    /// [`Engine::range`], its answer as it was computed: for answers of millions of points, which need not be copied to
    /// be written somewhere.
    pub fn range_table(
        &self,
        source: &dyn Source,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<RangeOutput, QueryError> {
        let expr = parse(text)?;
        let grid = self.grid(start_ms, end_ms, step_ms)?;
        let found = self.query(source, Some(text), &expr, grid, false)?;
        Ok(found.into_range(grid))
    }

    /// [`Engine::instant`] over a parsed query; positions in annotations are those of its text, taken as one line.
    pub fn instant_expr(
        &self,
        source: &dyn Source,
        expr: &Expr,
        t_ms: i64,
    ) -> Result<Output, QueryError> {
        let grid = Grid::instant(t_ms);
        let found = self.query(source, None, expr, grid, true)?;
        Ok(found.into_instant(grid))
    }

    /// [`Engine::range`] over a parsed query.
    pub fn range_expr(
        &self,
        source: &dyn Source,
        expr: &Expr,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<Output, QueryError> {
        let grid = self.grid(start_ms, end_ms, step_ms)?;
        let found = self.query(source, None, expr, grid, false)?;
        Ok(found.into_range(grid).into_output())
    }

    fn grid(&self, start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Grid, QueryError> {
        let bad = |message: &str| Err(QueryError::BadData(message.to_owned()));
        if step_ms <= 0 {
            return bad(
                "zero or negative query resolution step widths are not accepted; try a positive step",
            );
        }
        if end_ms < start_ms {
            return bad("end timestamp must not be before start time");
        }
        let steps = (end_ms as i128 - start_ms as i128) / i128::from(step_ms) + 1;
        match usize::try_from(steps) {
            Ok(steps) if steps <= self.options.max_steps => Ok(Grid {
                start: start_ms,
                end: end_ms,
                step: step_ms,
                steps,
            }),
            _ => bad(&format!(
                "exceeded maximum resolution of {} points per series; try a larger step",
                self.options.max_steps
            )),
        }
    }

    fn query(
        &self,
        source: &dyn Source,
        text: Option<&str>,
        expr: &Expr,
        grid: Grid,
        instant: bool,
    ) -> Result<Annotated, QueryError> {
        if !instant && !matches!(expr.value_type(), ValueType::Scalar | ValueType::Vector) {
            let message = format!(
                "invalid expression type {:?} for range query, must be scalar or instant vector",
                expr.value_type().name()
            );
            return Err(QueryError::BadData(message));
        }
        let printed;
        let whole_text = match text {
            Some(text) => text,
            None => {
                printed = expr.to_string();
                &printed
            }
        };
        let whole = WholeQuery {
            text: whole_text,
            start_ms: grid.start,
            end_ms: grid.end,
            step_ms: if instant { 0 } else { grid.step },
        };
        if let Some(answer) = source.evaluate(&whole) {
            return Ok(Annotated {
                answer: Answer::Theirs(answer?),
                warnings: Vec::new(),
                infos: Vec::new(),
            });
        }
        if !self.options.experimental
            && let Some((feature, span)) = experimental_feature(expr)
        {
            let message = format!("{feature} is experimental and not enabled");
            return Err(ParseError::new(whole_text, span, message).into());
        }
        let depth = plan::depth(expr);
        if depth > self.options.max_depth {
            let message = format!(
                "expression is nested deeper than {} levels",
                self.options.max_depth
            );
            return Err(QueryError::BadData(message));
        }
        if depth <= DEEP {
            return self.evaluate(source, text, expr, grid, instant);
        }
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .stack_size(DEEP_STACK)
                .spawn_scoped(scope, || self.evaluate(source, text, expr, grid, instant))
                .map_err(|e| {
                    QueryError::execution(format!("no thread for a deep expression: {e}"))
                })?
                .join()
                .unwrap_or_else(|_| Err(QueryError::execution("evaluation panicked")))
        })
    }

    fn evaluate(
        &self,
        source: &dyn Source,
        text: Option<&str>,
        expr: &Expr,
        grid: Grid,
        instant: bool,
    ) -> Result<Annotated, QueryError> {
        let planned = plan::prepare(expr, grid, instant)?;
        let notes = Notes::default();
        let deadline = (self.options.timeout).and_then(|t| Instant::now().checked_add(t));
        let watch = Watch::new(&self.stop, deadline);
        let hinted = plan::counted_only(&planned);
        let evaluator = Evaluator::new(source, &self.options, &notes, watch, hinted);
        let mut out = evaluator.eval(&planned, grid)?;
        if let Out::Vector(block) = &mut out {
            block.finish()?;
        }
        if let Out::Matrix(block) = &mut out {
            evaluator.finish_matrix(block);
        }
        let ordered = is_ordered(&planned);
        let (warnings, infos) = notes.finish(text);
        Ok(Annotated {
            answer: Answer::Ours { out, ordered },
            warnings,
            infos,
        })
    }
}

// === impl Annotated ===

impl Annotated {
    fn into_instant(self, grid: Grid) -> Output {
        let data = match self.answer {
            Answer::Ours { out, ordered } => instant_data(out, grid.start, ordered),
            Answer::Theirs(data) => data,
        };
        Output {
            data,
            warnings: self.warnings,
            infos: self.infos,
        }
    }

    fn into_range(self, grid: Grid) -> RangeOutput {
        let data = match self.answer {
            Answer::Ours { out, .. } => RangeData::Table(Table::new(out, grid)),
            Answer::Theirs(data) => RangeData::Data(data),
        };
        RangeOutput {
            data,
            warnings: self.warnings,
            infos: self.infos,
        }
    }
}

// === impl RangeOutput ===

impl RangeOutput {
    /// The same, as a matrix.
    #[must_use]
    pub fn into_output(self) -> Output {
        let data = match self.data {
            RangeData::Table(table) => table.into_data(),
            RangeData::Data(data) => data,
        };
        Output {
            data,
            warnings: self.warnings,
            infos: self.infos,
        }
    }
}

/// Whether the order of an instant result is the query's own.
fn is_ordered(expr: &Expr) -> bool {
    use crate::syntax::ast::AggregateOp::{Bottomk, Topk};
    match &expr.unparen().kind {
        ExprKind::Call(c) => c.function.name.starts_with("sort"),
        ExprKind::Aggregate(a) => matches!(a.op, Topk | Bottomk),
        _ => false,
    }
}

fn instant_data(out: Out, t_ms: i64, ordered: bool) -> QueryData {
    match out {
        Out::Scalar(values) => QueryData::Scalar(t_ms, values.first().copied().unwrap_or(f64::NAN)),
        Out::Text(text) => QueryData::String(t_ms, text),
        Out::Matrix(windows) => {
            let mut all: Vec<RangeSeries> = windows
                .into_iter()
                .map(super::window::Samples::into_series)
                .collect();
            all.retain(|s| !s.points.is_empty());
            all.sort_by(|a, b| a.labels.cmp(&b.labels));
            QueryData::Matrix(all)
        }
        Out::Vector(block) => {
            let mut all: Vec<VectorElement> = Vec::with_capacity(block.len());
            for s in 0..block.len() {
                let value = match block.cell(s, 0) {
                    Cell::None => continue,
                    Cell::Float(v) => model::Value::Float(v),
                    Cell::Hist(h) => model::Value::Histogram(h),
                };
                let labels = block.series[s].labels.clone();
                all.push(VectorElement {
                    labels,
                    t_ms,
                    value,
                });
            }
            if !ordered && all.len() <= SORT_LIMIT {
                all.sort_by(|a, b| a.labels.cmp(&b.labels));
            }
            QueryData::Vector(all)
        }
    }
}
