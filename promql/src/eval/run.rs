//! The evaluator: walks the tree and hands each node to the module that knows it.
//!
//! Owns the grid of steps, the budget of samples and the dispatch. Must not know any operator's arithmetic.

use std::cell::Cell as StdCell;

use model::Source;

use super::block::{Block, Meta};
use super::engine::{Options, QueryError};
use super::notes::Notes;
use super::row::{Row, Sink};
use super::stop::Watch;
use super::version2;
use super::window::Samples;
use super::{aggregate, binary, call, plan};
use crate::syntax::ast::{At, Expr, ExprKind, Extension, Modifiers, Span, Subquery};

/// The instants of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    /// The last instant asked for; the last step may lie before it.
    pub(crate) end: i64,
    pub(crate) step: i64,
    pub(crate) steps: usize,
}

// === impl Grid ===

impl Grid {
    pub(crate) fn instant(t_ms: i64) -> Self {
        Grid {
            start: t_ms,
            end: t_ms,
            step: 1,
            steps: 1,
        }
    }

    pub(crate) fn at(&self, step: usize) -> i64 {
        self.start + step as i64 * self.step
    }

    pub(crate) fn last(&self) -> i64 {
        self.at(self.steps.saturating_sub(1))
    }

    pub(crate) fn times(&self) -> impl Iterator<Item = i64> + Clone + use<> {
        let grid = *self;
        (0..grid.steps).map(move |s| grid.at(s))
    }
}

/// The value of an expression over a grid.
#[derive(Debug)]
pub(crate) enum Out {
    /// One number for each step.
    Scalar(Vec<f64>),
    Text(String),
    Vector(Block),
    /// A range vector at one instant.
    Matrix(Vec<Samples>),
}

/// Walks a prepared tree.
pub(crate) struct Evaluator<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) options: &'a Options,
    pub(crate) notes: &'a Notes,
    /// Selectors whose histograms get reset hints while they are read.
    watch: Watch<'a>,
    hinted: Vec<Span>,
    read: StdCell<usize>,
}

pub(crate) type Evaluated<T> = Result<T, QueryError>;

// === impl Evaluator ===

impl<'a> Evaluator<'a> {
    pub(crate) fn new(
        source: &'a dyn Source,
        options: &'a Options,
        notes: &'a Notes,
        watch: Watch<'a>,
        hinted: Vec<Span>,
    ) -> Self {
        Evaluator {
            source,
            options,
            notes,
            watch,
            hinted,
            read: StdCell::new(0),
        }
    }

    /// Errors when the query is to stop.
    pub(crate) fn look(&self) -> Evaluated<()> {
        self.watch.look()
    }

    /// Counts work (cells, samples) and errors when the query is to stop.
    #[inline]
    pub(crate) fn tick(&self, work: usize) -> Evaluated<()> {
        self.watch.tick(work)
    }

    /// [`Evaluator::tick`] for loops that return no error: they break, and the node they belong to fails.
    #[inline]
    pub(crate) fn is_over(&self, work: usize) -> bool {
        self.watch.tick(work).is_err()
    }

    pub(crate) fn is_hinted(&self, selector: Span) -> bool {
        self.hinted.contains(&selector)
    }

    /// Counts samples read from the source. Errors past the limit.
    pub(crate) fn charge(&self, samples: usize) -> Evaluated<()> {
        let total = self.read.get().saturating_add(samples);
        self.read.set(total);
        self.check_size(total)
    }

    /// How many more samples may be read.
    pub(crate) fn budget(&self) -> usize {
        self.options.max_samples.saturating_sub(self.read.get())
    }

    /// Errors when an intermediate result would be too large.
    pub(crate) fn check_size(&self, cells: usize) -> Evaluated<()> {
        let limit = self.options.max_samples;
        if cells > limit {
            return Err(QueryError::TooManySamples { limit });
        }
        Ok(())
    }

    /// Evaluates a node. A query that is to stop does so before it, in it, or at the latest after it.
    pub(crate) fn eval(&self, expr: &Expr, grid: Grid) -> Evaluated<Out> {
        self.look()?;
        let out = self.eval_once(expr, grid)?;
        self.look()?;
        Ok(out)
    }

    fn eval_once(&self, expr: &Expr, grid: Grid) -> Evaluated<Out> {
        let whole = matches!(
            expr.kind,
            ExprKind::Selector(_)
                | ExprKind::Call(_)
                | ExprKind::Aggregate(_)
                | ExprKind::Binary(_)
        );
        if whole && grid.steps > 1 && plan::is_invariant(expr) {
            let once = Grid {
                end: grid.start,
                steps: 1,
                ..grid
            };
            return self.eval_node(expr, once).map(|out| match out {
                Out::Scalar(v) => {
                    Out::Scalar(vec![v.first().copied().unwrap_or(f64::NAN); grid.steps])
                }
                Out::Vector(block) => Out::Vector(block.repeat(grid.steps)),
                other => other,
            });
        }
        self.eval_node(expr, grid)
    }

    fn eval_node(&self, expr: &Expr, grid: Grid) -> Evaluated<Out> {
        match &expr.kind {
            ExprKind::Number(v) => Ok(Out::Scalar(vec![*v; grid.steps])),
            ExprKind::String(s) => Ok(Out::Text(s.clone())),
            ExprKind::Selector(s) => self.selector(s, expr.span, grid).map(Out::Vector),
            ExprKind::Matrix(m) => self.matrix(m, grid).map(Out::Matrix),
            ExprKind::Subquery(s) => {
                let (mut samples, _) = self.subquery(s, grid)?;
                let (from, to) =
                    self.window_of(&s.modifiers, s.range.literal_ms().unwrap_or(0), grid.start);
                samples.iter_mut().for_each(|s| s.clip(from, to));
                Ok(Out::Matrix(samples))
            }
            ExprKind::Call(c) => call::call(self, c, expr.span, grid),
            ExprKind::Aggregate(a) => {
                aggregate::aggregate(self, a, expr.span, grid).map(Out::Vector)
            }
            ExprKind::Binary(b) => binary::binary(self, b, expr.span, grid),
            ExprKind::Unary(u) => {
                let out = self.eval(&u.expr, grid)?;
                Ok(if u.negative {
                    super::math::negate(out)
                } else {
                    out
                })
            }
            ExprKind::Paren(inner) => self.eval(inner, grid),
        }
    }

    /// The vector that an expression evaluates to; a scalar becomes a series without labels.
    pub(crate) fn vector(&self, expr: &Expr, grid: Grid) -> Evaluated<Block> {
        match self.eval(expr, grid)? {
            Out::Vector(block) => Ok(block),
            Out::Scalar(values) => {
                let mut block = Block::new(grid.steps);
                block.push_series(Meta {
                    labels: model::Labels::empty(),
                    drop_name: false,
                });
                block.floats = values;
                Ok(block)
            }
            Out::Text(_) | Out::Matrix(_) => {
                Err(QueryError::execution("expected an instant vector"))
            }
        }
    }

    /// The vector that an expression evaluates to, row by row: what is computed series by series never lies in one table.
    pub(crate) fn rows(&self, expr: &Expr, grid: Grid, sink: &mut Sink<'_>) -> Evaluated<()> {
        let inner = expr.unparen();
        if grid.steps > 1 && plan::is_invariant(inner) {
            return Row::of_block(self.vector(inner, grid)?, sink);
        }
        self.look()?;
        match &inner.kind {
            ExprKind::Selector(s) if s.extension != Extension::Smoothed => {
                self.instants(s, inner.span, grid, sink)?;
            }
            ExprKind::Call(c) if call::is_sweep(c) => call::sweep_rows(self, c, grid, sink)?,
            _ => Row::of_block(self.vector(inner, grid)?, sink)?,
        }
        self.look()
    }

    /// The numbers that an expression evaluates to.
    pub(crate) fn scalar(&self, expr: &Expr, grid: Grid) -> Evaluated<Vec<f64>> {
        match self.eval(expr, grid)? {
            Out::Scalar(values) => Ok(values),
            _ => Err(QueryError::execution("expected a scalar")),
        }
    }

    /// The window `(from, to]` that modifiers and a range give at an instant.
    pub(crate) fn window_of(&self, modifiers: &Modifiers, range_ms: i64, t_ms: i64) -> (i64, i64) {
        let to = reference(modifiers, t_ms);
        (to.saturating_sub(range_ms), to)
    }

    /// A subquery's inner series over all windows that the grid needs.
    pub(crate) fn subquery(&self, s: &Subquery, grid: Grid) -> Evaluated<(Vec<Samples>, Grid)> {
        let range = s.range.literal_ms().unwrap_or(0);
        let step = s
            .step
            .as_ref()
            .and_then(|d| d.literal_ms())
            .unwrap_or(self.options.default_step_ms);
        let step = step.max(1);
        let range = range.saturating_add(version2::earlier_ms());
        let after = reference(&s.modifiers, grid.start).saturating_sub(range);
        let end = reference(&s.modifiers, grid.last());
        let start = after
            .div_euclid(step)
            .saturating_add(1)
            .saturating_mul(step);
        if end < start {
            return Ok((Vec::new(), grid));
        }
        let steps = (end as i128 - start as i128) / i128::from(step) + 1;
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        self.check_size(steps)?;
        let inner = Grid {
            start,
            end,
            step,
            steps,
        };
        let block = self.vector(&s.expr, inner)?;
        self.tick(block.floats.len())?;
        Ok((Samples::from_block(block, inner), inner))
    }

    /// Takes away names that are due to go from a range vector.
    pub(crate) fn finish_matrix(&self, samples: &mut [Samples]) {
        for s in samples.iter_mut().filter(|s| s.drop_name) {
            s.labels = super::block::without_metadata(&s.labels);
            s.drop_name = false;
        }
    }
}

/// The instant that modifiers make of the evaluation's.
pub(crate) fn reference(modifiers: &Modifiers, t_ms: i64) -> i64 {
    let t = match modifiers.at {
        Some(At::Time(at)) => at,
        _ => t_ms,
    };
    let offset = modifiers
        .offset
        .as_ref()
        .and_then(|d| d.literal_ms())
        .unwrap_or(0);
    t.saturating_sub(offset)
}
