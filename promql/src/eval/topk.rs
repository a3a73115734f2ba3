//! Aggregations that keep series of a group: topk, bottomk, limitk, limit_ratio.
//!
//! Owns the choice. Must not know folds.

use model::Labels;

use super::aggregate::Groups;
use super::block::{Block, Cell, is_absent};
use super::engine::QueryError;
use super::notes::Note;
use super::run::{Evaluated, Evaluator};
use crate::syntax::ast::{Aggregate, AggregateOp, Span};

pub(crate) fn keep(
    ev: &Evaluator<'_>,
    a: &Aggregate,
    param: &[f64],
    block: Block,
    span: Span,
) -> Evaluated<Block> {
    let ratio = a.op == AggregateOp::LimitRatio;
    let highest = param.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lowest = param.iter().copied().fold(f64::INFINITY, f64::min);
    if ratio {
        check_ratio(ev, a, param, (lowest, highest), span)?;
    } else {
        if highest < 1.0 {
            return Ok(Block::new(block.steps));
        }
        check_k(param, (lowest, highest))?;
    }
    let groups = Groups::new(&block.series, a.grouping.as_ref());
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); groups.labels.len()];
    for (s, id) in groups.ids.iter().enumerate() {
        members[*id].push(s);
    }
    let ranked = matches!(a.op, AggregateOp::Topk | AggregateOp::Bottomk);
    if ranked && block.hists.iter().any(Option::is_some) {
        ev.notes.add(Note::IgnoredInAggregation(a.op.name()), span);
    }
    let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); block.steps];
    for series in &members {
        for (step, picked) in chosen.iter_mut().enumerate() {
            let mut here: Vec<usize> = series
                .iter()
                .copied()
                .filter(|s| block.present(*s, step))
                .collect();
            match a.op {
                AggregateOp::LimitRatio => {
                    here.retain(|s| in_ratio(param[step], &block.series[*s].labels));
                }
                AggregateOp::Limitk => here.truncate(as_count(param[step])),
                op => {
                    let value = |s: &usize| block.floats[s * block.steps + step];
                    here.retain(|s| !is_absent(value(s)));
                    here.sort_by(|x, y| rank(op, value(x), value(y)));
                    here.truncate(as_count(param[step]));
                }
            }
            picked.append(&mut here);
        }
    }
    Ok(select(&block, &chosen))
}

/// Numbers by rank, NaN last.
fn rank(op: AggregateOp, x: f64, y: f64) -> std::cmp::Ordering {
    match (x.is_nan(), y.is_nan()) {
        (false, false) if op == AggregateOp::Topk => {
            y.partial_cmp(&x).unwrap_or(std::cmp::Ordering::Equal)
        }
        (false, false) => x.partial_cmp(&y).unwrap_or(std::cmp::Ordering::Equal),
        (a, b) => a.cmp(&b),
    }
}

fn as_count(k: f64) -> usize {
    if k >= 1.0 { k as usize } else { 0 }
}

fn check_k(param: &[f64], (lowest, highest): (f64, f64)) -> Evaluated<()> {
    if param.iter().any(|k| k.is_nan()) {
        return Err(QueryError::execution("Parameter value is NaN"));
    }
    if lowest <= i64::MIN as f64 {
        let text = crate::hist::bucket::go_float(lowest);
        return Err(QueryError::Execution(format!(
            "Scalar value {text} underflows int64"
        )));
    }
    if highest >= i64::MAX as f64 {
        let text = crate::hist::bucket::go_float(highest);
        return Err(QueryError::Execution(format!(
            "Scalar value {text} overflows int64"
        )));
    }
    Ok(())
}

fn check_ratio(
    ev: &Evaluator<'_>,
    a: &Aggregate,
    param: &[f64],
    (lowest, highest): (f64, f64),
    span: Span,
) -> Evaluated<()> {
    if param.iter().any(|r| r.is_nan()) {
        return Err(QueryError::execution("Ratio value is NaN"));
    }
    let at = a.param.as_ref().map_or(span, |p| p.span);
    if highest > 1.0 {
        ev.notes.add(Note::InvalidRatio(highest, 1.0), at);
    }
    if lowest < -1.0 {
        ev.notes.add(Note::InvalidRatio(lowest, -1.0), at);
    }
    Ok(())
}

/// Whether a series falls into a share of all: the first `r` for a positive one, the last for a negative one, so that
/// `r` and `r - 1` together are everything.
fn in_ratio(r: f64, labels: &Labels) -> bool {
    let place = hash(labels) as f64 / u64::MAX as f64;
    let r = r.clamp(-1.0, 1.0);
    if r == 0.0 {
        return false;
    }
    if r > 0.0 { place < r } else { place >= 1.0 + r }
}

/// A hash of labels that is the same on every machine (FNV-1a, then mixed).
fn hash(labels: &Labels) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for b in labels.as_packed().bytes() {
        h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    }
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 33)
}

/// The chosen cells; of one step, in the order chosen.
fn select(block: &Block, chosen: &[Vec<usize>]) -> Block {
    let mut out = Block::new(block.steps);
    let mut rows: Vec<Option<usize>> = vec![None; block.len()];
    for (step, series) in chosen.iter().enumerate() {
        for s in series {
            let row = match rows[*s] {
                Some(row) => row,
                None => out.push_series(block.series[*s].clone()),
            };
            rows[*s] = Some(row);
            if let cell @ (Cell::Float(_) | Cell::Hist(_)) = block.cell(*s, step) {
                out.set(row, step, cell);
            }
        }
    }
    out
}
