//! Functions and operators from floats to floats.
//!
//! Owns elementary arithmetic as Prometheus (and Go) define it. Must not know series.

use std::sync::Arc;

use super::block::{Block, is_absent};
use super::run::Out;
use crate::hist::arith;
use crate::syntax::ast::BinaryOp;

/// The larger; NaN if either is.
pub(crate) fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// The smaller; NaN if either is.
pub(crate) fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

/// The function of one float by that name.
pub(crate) fn unary(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "rad" => |v| v * std::f64::consts::PI / 180.0,
        "deg" => |v| v * 180.0 / std::f64::consts::PI,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return None,
    })
}

/// To the nearest multiple, halves up.
pub(crate) fn round(v: f64, to: f64) -> f64 {
    let inverse = 1.0 / to;
    (v * inverse + 0.5).floor() / inverse
}

/// A binary operator between floats. Comparisons give 1 or 0.
pub(crate) fn binary(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        _ => f64::from(u8::from(compare(op, a, b))),
    }
}

/// A comparison between floats; false for any other operator.
pub(crate) fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Equal => a == b,
        BinaryOp::NotEqual => a != b,
        BinaryOp::Less => a < b,
        BinaryOp::LessEqual => a <= b,
        BinaryOp::Greater => a > b,
        BinaryOp::GreaterEqual => a >= b,
        _ => false,
    }
}

/// Applies a function to every float; histograms go.
pub(crate) fn map(mut block: Block, f: impl Fn(usize, f64) -> f64) -> Block {
    let steps = block.steps.max(1);
    for (i, v) in block.floats.iter_mut().enumerate() {
        if !is_absent(*v) {
            *v = f(i % steps, *v);
        }
    }
    drop_hists(&mut block);
    block.series.iter_mut().for_each(|m| m.drop_name = true);
    block
}

/// Takes away histograms, and series that had nothing else.
pub(crate) fn drop_hists(block: &mut Block) {
    if block.has_hists() {
        block.hists.clear();
        block.drop_empty();
    }
}

/// `-x`.
pub(crate) fn negate(out: Out) -> Out {
    match out {
        Out::Scalar(mut values) => {
            values.iter_mut().for_each(|v| *v = -*v);
            Out::Scalar(values)
        }
        Out::Vector(mut block) => {
            for v in block.floats.iter_mut().filter(|v| !is_absent(**v)) {
                *v = -*v;
            }
            for h in block.hists.iter_mut().flatten() {
                arith::mul(Arc::make_mut(h), -1.0);
            }
            block.series.iter_mut().for_each(|m| m.drop_name = true);
            Out::Vector(block)
        }
        other => other,
    }
}
