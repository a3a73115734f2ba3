//! Changes to a whole tree: scaling its windows, finding what is experimental in it.
//!
//! Owns no semantics. Must not know evaluation.

use super::ast::{Duration, DurationKind, Expr, ExprKind, Extension, Modifiers, Span};

/// The same query with every range, subquery range and step, and offset divided by `factor` (at least 1 ms each). For
/// replaying rules at a faster pace than real time. A factor that is not a positive number changes nothing.
#[must_use]
pub fn scale_windows(expr: &Expr, factor: f64) -> Expr {
    let mut scaled = expr.clone();
    if factor.is_finite() && factor > 0.0 {
        scaled.walk_mut(&mut |node| match &mut node.kind {
            ExprKind::Selector(s) => scale_modifiers(&mut s.modifiers, factor),
            ExprKind::Matrix(m) => {
                scale(&mut m.range, factor);
                scale_modifiers(&mut m.selector.modifiers, factor);
            }
            ExprKind::Subquery(s) => {
                scale(&mut s.range, factor);
                if let Some(step) = &mut s.step {
                    scale(step, factor);
                }
                scale_modifiers(&mut s.modifiers, factor);
            }
            _ => {}
        });
    }
    scaled
}

fn scale_modifiers(modifiers: &mut Modifiers, factor: f64) {
    if let Some(offset) = &mut modifiers.offset {
        scale(offset, factor);
    }
}

fn scale(duration: &mut Duration, factor: f64) {
    match &mut duration.kind {
        DurationKind::Seconds(s) => {
            let ms = (*s * 1000.0 / factor).round();
            let ms = if ms == 0.0 && *s != 0.0 {
                s.signum()
            } else {
                ms
            };
            *s = ms / 1000.0;
        }
        DurationKind::Step | DurationKind::Range => {}
        DurationKind::MinOf(a, b) | DurationKind::MaxOf(a, b) => {
            scale(a, factor);
            scale(b, factor);
        }
        DurationKind::Negative(a) | DurationKind::Positive(a) | DurationKind::Paren(a) => {
            scale(a, factor)
        }
        DurationKind::Binary(op, a, b) => {
            scale(a, factor);
            // Sums have lengths on both sides; of a product one side is a count.
            if op.precedence() == 4 {
                scale(b, factor);
            }
        }
    }
}

/// The first experimental feature that the query uses, and where; `None` when it is stable throughout.
#[must_use]
pub fn experimental_feature(expr: &Expr) -> Option<(&'static str, Span)> {
    let mut found: Option<(&'static str, Span)> = None;
    expr.walk(&mut |node| {
        if found.is_some() {
            return;
        }
        let name = match &node.kind {
            ExprKind::Call(c) if c.function.experimental => Some(c.function.name),
            ExprKind::Aggregate(a) if a.op.is_experimental() => Some(a.op.name()),
            ExprKind::Selector(s) => selector_feature(s.extension, &s.modifiers),
            ExprKind::Matrix(m) => selector_feature(m.selector.extension, &m.selector.modifiers)
                .or_else(|| duration_feature(&m.range)),
            ExprKind::Subquery(s) => selector_feature(Extension::None, &s.modifiers)
                .or_else(|| duration_feature(&s.range))
                .or_else(|| s.step.as_ref().and_then(duration_feature)),
            ExprKind::Binary(b)
                if b.matching.fill_left.is_some() || b.matching.fill_right.is_some() =>
            {
                Some("fill")
            }
            _ => None,
        };
        found = name.map(|n| (n, node.span));
    });
    found
}

fn selector_feature(extension: Extension, modifiers: &Modifiers) -> Option<&'static str> {
    match extension {
        Extension::Anchored => Some("anchored"),
        Extension::Smoothed => Some("smoothed"),
        Extension::None => modifiers.offset.as_ref().and_then(duration_feature),
    }
}

fn duration_feature(duration: &Duration) -> Option<&'static str> {
    match duration.kind {
        DurationKind::Seconds(_) => None,
        _ => Some("duration expression"),
    }
}
