//! Aggregations that keep series of a group: topk, bottomk, limitk, limit_ratio.
//!
//! Owns the choice. Must not know folds.

use model::Labels;

use super::block::{Block, Cell, is_absent};
use super::engine::QueryError;
use super::group::{Groups, members};
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
        check_k(param, (lowest, highest))?;
        if highest < 1.0 {
            return Ok(Block::new(block.steps));
        }
    }
    let members = members(&mut Groups::new(a.grouping.as_ref()), &block.series);
    let ranked = matches!(a.op, AggregateOp::Topk | AggregateOp::Bottomk);
    if ranked && block.hists.iter().any(Option::is_some) {
        ev.notes.add(Note::IgnoredInAggregation(a.op.name()), span);
    }
    let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); block.steps];
    for series in &members {
        for (step, picked) in chosen.iter_mut().enumerate() {
            ev.tick(series.len())?;
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

/// Prometheus' hash of labels, so that the same series are chosen: xxHash64 over names and values, each after its length.
fn hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::new();
    for text in labels.iter().flat_map(|(n, v)| [n, v]) {
        match u8::try_from(text.len()) {
            Ok(short) if short < u8::MAX => bytes.push(short),
            _ => {
                bytes.push(u8::MAX);
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes()[..3]);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxhash64(&bytes)
}

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

fn read(bytes: &[u8], width: usize) -> u64 {
    bytes
        .iter()
        .take(width)
        .rev()
        .fold(0, |v, b| (v << 8) | u64::from(*b))
}

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(PRIMES[1]))
        .rotate_left(31)
        .wrapping_mul(PRIMES[0])
}

/// xxHash64 with seed 0 (specification: xxHash, Yann Collet).
fn xxhash64(data: &[u8]) -> u64 {
    let stripes = data.chunks_exact(32);
    let mut rest = stripes.remainder();
    let mut h = PRIMES[4];
    if data.len() >= 32 {
        let mut lanes = [
            PRIMES[0].wrapping_add(PRIMES[1]),
            PRIMES[1],
            0,
            0u64.wrapping_sub(PRIMES[0]),
        ];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, read(word, 8));
            }
        }
        h = lanes
            .iter()
            .zip([1, 7, 12, 18])
            .fold(0u64, |h, (lane, r)| h.wrapping_add(lane.rotate_left(r)));
        for lane in lanes {
            h = (h ^ round(0, lane))
                .wrapping_mul(PRIMES[0])
                .wrapping_add(PRIMES[3]);
        }
    }
    h = h.wrapping_add(data.len() as u64);
    while rest.len() >= 8 {
        h = (h ^ round(0, read(rest, 8)))
            .rotate_left(27)
            .wrapping_mul(PRIMES[0])
            .wrapping_add(PRIMES[3]);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        h = (h ^ read(rest, 4).wrapping_mul(PRIMES[0]))
            .rotate_left(23)
            .wrapping_mul(PRIMES[1])
            .wrapping_add(PRIMES[2]);
        rest = &rest[4..];
    }
    for b in rest {
        h = (h ^ u64::from(*b).wrapping_mul(PRIMES[4]))
            .rotate_left(11)
            .wrapping_mul(PRIMES[0]);
    }
    h = (h ^ (h >> 33)).wrapping_mul(PRIMES[1]);
    h = (h ^ (h >> 29)).wrapping_mul(PRIMES[2]);
    h ^ (h >> 32)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxhash64_gives_the_published_values() {
        assert_eq!(xxhash64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxhash64(b"abc"), 0x44bc_2cf5_ad77_0999);
        let long = b"Nobody inspects the spammish repetition";
        assert_eq!(xxhash64(long), 0xfbce_a83c_8a37_8bf1);
    }
}
