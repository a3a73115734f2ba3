//! label_replace, label_join, sorting by label, and the labels of absent().
//!
//! Owns what functions do to labels. Must not know values.

use std::cmp::Ordering;

use model::{Labels, METRIC_NAME, MatchOp, Matcher};
use regex::Regex;

use super::block::Block;
use super::engine::QueryError;
use super::run::{Evaluated, Evaluator, Grid, Out};
use crate::syntax::ast::{Call, Expr, ExprKind};
use crate::syntax::lexer::is_label_name;

/// The text that an argument is.
pub(crate) fn text(call: &Call, index: usize) -> &str {
    match call.args.get(index).map(|a| &a.unparen().kind) {
        Some(ExprKind::String(s)) => s,
        _ => "",
    }
}

/// What a match of a pattern counts, in cells.
const REGEX_WORK: usize = 64;

/// The largest compiled size of a pattern, bytes.
const REGEX_LIMIT: usize = 4 << 20;

pub(crate) fn label_replace(ev: &Evaluator<'_>, call: &Call, grid: Grid) -> Evaluated<Out> {
    let (dst, replacement, src, pattern) =
        (text(call, 1), text(call, 2), text(call, 3), text(call, 4));
    let regex: Regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(REGEX_LIMIT)
        .build()
        .map_err(|_| {
            QueryError::Execution(format!(
                "invalid regular expression in label_replace(): {pattern}"
            ))
        })?;
    if !is_label_name(dst) {
        return Err(QueryError::Execution(format!(
            "invalid destination label name in label_replace(): {dst}"
        )));
    }
    let mut block = ev.vector(&call.args[0], grid)?;
    for meta in &mut block.series {
        ev.tick(REGEX_WORK)?;
        let value = meta.labels.get(src).unwrap_or("");
        let Some(found) = regex.captures(value) else {
            continue;
        };
        let mut new = String::new();
        found.expand(replacement, &mut new);
        meta.labels = meta.labels.with(dst, &new);
        if dst == METRIC_NAME {
            meta.drop_name = false;
        }
    }
    block.merge_equal()?;
    Ok(Out::Vector(block))
}

pub(crate) fn label_join(ev: &Evaluator<'_>, call: &Call, grid: Grid) -> Evaluated<Out> {
    let (dst, separator) = (text(call, 1), text(call, 2));
    let sources: Vec<&str> = (3..call.args.len()).map(|i| text(call, i)).collect();
    if let Some(bad) = sources.iter().find(|s| !is_label_name(s)) {
        return Err(QueryError::Execution(format!(
            "invalid source label name in label_join(): {bad}"
        )));
    }
    if !is_label_name(dst) {
        return Err(QueryError::Execution(format!(
            "invalid destination label name in label_join(): {dst}"
        )));
    }
    let mut block = ev.vector(&call.args[0], grid)?;
    for meta in &mut block.series {
        let values: Vec<&str> = sources
            .iter()
            .map(|s| meta.labels.get(s).unwrap_or(""))
            .collect();
        meta.labels = meta.labels.with(dst, &values.join(separator));
        if dst == METRIC_NAME {
            meta.drop_name = false;
        }
    }
    block.merge_equal()?;
    Ok(Out::Vector(block))
}

/// The labels that `absent(expr)` gives its series: those that the selector fixes.
pub(crate) fn absent_labels(expr: &Expr) -> Labels {
    let matchers: &[Matcher] = match &expr.unparen().kind {
        ExprKind::Selector(s) => &s.matchers,
        ExprKind::Matrix(m) => &m.selector.matchers,
        _ => return Labels::empty(),
    };
    let fixed = matchers.iter().filter(|m| {
        let same = matchers.iter().filter(|o| o.name == m.name).count();
        m.name != METRIC_NAME && m.op == MatchOp::Equal && same == 1
    });
    Labels::from_pairs(fixed.map(|m| (m.name.clone(), m.value.clone())))
}

/// Reorders the series of a block of one step.
pub(crate) fn reorder(block: &Block, mut order: impl FnMut(usize, usize) -> Ordering) -> Block {
    let mut indices: Vec<usize> = (0..block.len()).collect();
    indices.sort_by(|a, b| order(*a, *b));
    let mut out = Block::new(block.steps);
    for i in indices {
        let at = out.push_series(block.series[i].clone());
        for step in 0..block.steps {
            out.set(at, step, block.cell(i, step));
        }
    }
    out
}

/// Compares texts so that numbers in them count as numbers.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (na, ra) = digits(a);
            let (nb, rb) = digits(b);
            let strip = |n: &[u8]| {
                n.iter()
                    .position(|d| *d != b'0')
                    .map_or(Vec::new(), |i| n[i..].to_vec())
            };
            let (sa, sb) = (strip(na), strip(nb));
            let by_value = sa
                .len()
                .cmp(&sb.len())
                .then_with(|| sa.cmp(&sb))
                .then(na.len().cmp(&nb.len()));
            if by_value != Ordering::Equal {
                return by_value;
            }
            (a, b) = (ra, rb);
        } else if x == y {
            (a, b) = (&a[1..], &b[1..]);
        } else {
            return x.cmp(y);
        }
    }
    a.len().cmp(&b.len())
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|b| b.is_ascii_digit()).count())
}

/// sort_by_label and sort_by_label_desc.
pub(crate) fn sort_by_label(block: &Block, call: &Call, descending: bool) -> Block {
    let names: Vec<&str> = (1..call.args.len()).map(|i| text(call, i)).collect();
    reorder(block, |a, b| {
        let (a, b) = (&block.series[a].labels, &block.series[b].labels);
        let value = |l: &Labels, n: &str| l.get(n).unwrap_or("").to_owned();
        let order = names
            .iter()
            .map(|n| natural(&value(a, n), &value(b, n)))
            .find(|o| *o != Ordering::Equal)
            .unwrap_or_else(|| a.cmp(b));
        if descending { order.reverse() } else { order }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order_counts() {
        let mut all = ["node10", "node2", "node1", "node", "a"];
        all.sort_by(|a, b| natural(a, b));
        assert_eq!(all, ["a", "node", "node1", "node2", "node10"]);
    }
}
