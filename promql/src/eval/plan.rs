//! What is settled before evaluation: durations, `@ start()`, `start()` and the like become plain values.
//!
//! Owns that, and what does not change from step to step. Must not know values.

use super::engine::QueryError;
use super::run::Grid;
use crate::syntax::ast::{At, BinaryOp, Duration, DurationKind, Expr, ExprKind, Modifiers, Span};
use crate::syntax::duration::DurationContext;

/// How deep a tree is.
pub(crate) fn depth(expr: &Expr) -> usize {
    1 + match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Selector(_) | ExprKind::Matrix(_) => {
            0
        }
        ExprKind::Subquery(s) => depth(&s.expr),
        ExprKind::Call(c) => c.args.iter().map(depth).max().unwrap_or(0),
        ExprKind::Aggregate(a) => depth(&a.expr).max(a.param.as_ref().map_or(0, depth)),
        ExprKind::Binary(b) => depth(&b.lhs).max(depth(&b.rhs)),
        ExprKind::Unary(u) => depth(&u.expr),
        ExprKind::Paren(inner) => depth(inner),
    }
}

/// The tree with every duration in plain milliseconds, `@ start()` and `@ end()` pinned, and `start()`, `end()`,
/// `range()`, `step()` replaced by their values.
pub(crate) fn prepare(expr: &Expr, grid: Grid, instant: bool) -> Result<Expr, QueryError> {
    let step_s = if instant {
        0.0
    } else {
        grid.step as f64 / 1000.0
    };
    let context = DurationContext {
        step_s,
        range_s: (grid.end - grid.start) as f64 / 1000.0,
    };
    let mut planned = expr.clone();
    let mut failed: Option<QueryError> = None;
    planned.walk_mut(&mut |node| {
        if let Err(e) = settle(node, grid, context) {
            failed.get_or_insert(e);
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(planned),
    }
}

fn settle(node: &mut Expr, grid: Grid, context: DurationContext) -> Result<(), QueryError> {
    let constant = match &mut node.kind {
        ExprKind::Selector(s) => return modifiers(&mut s.modifiers, grid, context),
        ExprKind::Matrix(m) => {
            resolve(&mut m.range, context, false)?;
            return modifiers(&mut m.selector.modifiers, grid, context);
        }
        ExprKind::Subquery(s) => {
            resolve(&mut s.range, context, false)?;
            if let Some(step) = &mut s.step {
                resolve(step, context, false)?;
            }
            return modifiers(&mut s.modifiers, grid, context);
        }
        ExprKind::Call(c) => match c.function.name {
            "start" => Some(grid.start as f64 / 1000.0),
            "end" => Some(grid.end as f64 / 1000.0),
            "range" => Some(context.range_s),
            "step" => Some(if grid.start == grid.end {
                0.0
            } else {
                context.step_s
            }),
            _ => None,
        },
        _ => None,
    };
    if let Some(value) = constant {
        node.kind = ExprKind::Number(value);
    }
    Ok(())
}

fn modifiers(m: &mut Modifiers, grid: Grid, context: DurationContext) -> Result<(), QueryError> {
    m.at = match m.at {
        Some(At::Start) => Some(At::Time(grid.start)),
        Some(At::End) => Some(At::Time(grid.end)),
        at => at,
    };
    match &mut m.offset {
        Some(offset) => resolve(offset, context, true),
        None => Ok(()),
    }
}

fn resolve(
    duration: &mut Duration,
    context: DurationContext,
    negative: bool,
) -> Result<(), QueryError> {
    let span = duration.span;
    let ms = duration
        .resolve(context, negative)
        .map_err(|e| QueryError::Execution(format!("{}:{}: {e}", span.start, span.end)))?;
    duration.kind = DurationKind::Seconds(ms as f64 / 1000.0);
    Ok(())
}

/// Functions whose value depends on the step even when their arguments do not.
const TIMELY: [&str; 11] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
];

/// Whether an expression has the same value at every step.
pub(crate) fn is_invariant(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => true,
        ExprKind::Selector(s) => s.modifiers.at.is_some(),
        ExprKind::Matrix(m) => m.selector.modifiers.at.is_some(),
        ExprKind::Subquery(s) => s.modifiers.at.is_some(),
        ExprKind::Call(c) => {
            let pinned = |a: &Expr| matches!(a.unparen().kind, ExprKind::Selector(_));
            let timely = TIMELY.contains(&c.function.name)
                && !(c.function.name == "timestamp" && c.args.iter().all(pinned));
            !timely && c.args.iter().all(is_invariant)
        }
        ExprKind::Aggregate(a) => {
            is_invariant(&a.expr) && a.param.as_ref().is_none_or(is_invariant)
        }
        ExprKind::Binary(b) => is_invariant(&b.lhs) && is_invariant(&b.rhs),
        ExprKind::Unary(u) => is_invariant(&u.expr),
        ExprKind::Paren(inner) => is_invariant(inner),
    }
}

/// Where the selectors stand of which only counts and sums of histograms are wanted. Their samples get reset hints that
/// tell of the sample before, as Prometheus does while it reads.
pub(crate) fn counted_only(expr: &Expr) -> Vec<Span> {
    fn visit(expr: &Expr, wanted: bool, out: &mut Vec<Span>) {
        match &expr.kind {
            ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Subquery(_) => {}
            ExprKind::Selector(_) if wanted => out.push(expr.span),
            ExprKind::Matrix(m) if wanted => out.push(m.selector_span),
            ExprKind::Selector(_) | ExprKind::Matrix(_) => {}
            ExprKind::Call(c) => match c.function.name {
                "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => {}
                name => {
                    let counts =
                        matches!(name, "histogram_count" | "histogram_sum" | "histogram_avg");
                    c.args.iter().for_each(|a| visit(a, wanted || counts, out));
                }
            },
            ExprKind::Aggregate(a) => visit(&a.expr, wanted, out),
            ExprKind::Binary(b) if matches!(b.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) => {}
            ExprKind::Binary(b) => {
                visit(&b.lhs, wanted, out);
                visit(&b.rhs, wanted, out);
            }
            ExprKind::Unary(u) => visit(&u.expr, wanted, out),
            ExprKind::Paren(inner) => visit(inner, wanted, out),
        }
    }
    let mut out = Vec::new();
    visit(expr, false, &mut out);
    out
}
