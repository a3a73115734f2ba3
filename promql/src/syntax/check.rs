//! The type checker: which expression may stand where.
//!
//! Owns the rules of types and their messages. Must not know evaluation.

use super::ast::{
    Aggregate, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Selector, Span, ValueType,
};
use super::diagnose::ParseError;
use super::parse::Parsed;

/// Checks a whole tree that `text` was read into.
pub(crate) fn check(text: &str, expr: &Expr) -> Parsed<()> {
    let error = |span: Span, message: String| ParseError::new(text, span, message);
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => Ok(()),
        ExprKind::Selector(s) => selector(text, s, expr.span),
        ExprKind::Matrix(m) => selector(text, &m.selector, m.selector_span),
        ExprKind::Subquery(s) => {
            check(text, &s.expr)?;
            let found = s.expr.value_type();
            if found == ValueType::Vector {
                return Ok(());
            }
            let message = format!(
                "subquery is only allowed on instant vector, got {} instead",
                found.name()
            );
            Err(error(expr.span, message))
        }
        ExprKind::Call(c) => call(text, c, expr.span),
        ExprKind::Aggregate(a) => aggregate(text, a),
        ExprKind::Binary(b) => binary(text, b, expr.span),
        ExprKind::Unary(u) => {
            check(text, &u.expr)?;
            match u.expr.value_type() {
                ValueType::Scalar | ValueType::Vector => Ok(()),
                found => {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                        found.name()
                    );
                    Err(error(expr.span, message))
                }
            }
        }
        ExprKind::Paren(inner) => check(text, inner),
    }
}

fn selector(text: &str, selector: &Selector, span: Span) -> Parsed<()> {
    if let Some(name) = &selector.name {
        if let Some(twice) = selector
            .matchers
            .iter()
            .find(|m| m.name == model::METRIC_NAME)
        {
            let message = format!(
                "metric name must not be set twice: {name:?} or {:?}",
                twice.value
            );
            return Err(ParseError::new(text, span, message));
        }
        return Ok(());
    }
    if selector.matchers.iter().any(|m| !m.matches_empty()) {
        return Ok(());
    }
    let message = "vector selector must contain at least one non-empty matcher";
    Err(ParseError::new(text, span, message)
        .hint("it would select every series; name a metric, or match a label with .+"))
}

fn expect(text: &str, expr: &Expr, want: ValueType, context: &str) -> Parsed<()> {
    check(text, expr)?;
    let found = expr.value_type();
    if found == want {
        return Ok(());
    }
    let message = format!(
        "expected type {} in {context}, got {}",
        want.name(),
        found.name()
    );
    let mut error = ParseError::new(text, expr.span, message);
    match (want, found) {
        (ValueType::Matrix, ValueType::Vector) => {
            error = match expr.unparen().kind {
                ExprKind::Selector(_) => error.hint("add a range, as in x[5m]"),
                _ => error.hint("add a range and a step for a subquery, as in (x)[5m:]"),
            };
        }
        (ValueType::Vector, ValueType::Matrix) => {
            error = error.hint("wrap the range in a function such as rate() or avg_over_time()");
        }
        (ValueType::Vector, ValueType::Scalar) => {
            error = error.hint("vector(x) makes a vector of a scalar")
        }
        (ValueType::Scalar, ValueType::Vector) => {
            error = error.hint("scalar(x) makes a scalar of a vector with one series")
        }
        _ => {}
    }
    Err(error)
}

fn aggregate(text: &str, aggregate: &Aggregate) -> Parsed<()> {
    let context = format!("aggregation expression of {}()", aggregate.op.name());
    expect(text, &aggregate.expr, ValueType::Vector, &context)?;
    if let (Some(want), Some(param)) = (aggregate.op.param(), &aggregate.param) {
        let context = format!("aggregation parameter of {}()", aggregate.op.name());
        expect(text, param, want, &context)?;
    }
    Ok(())
}

fn call(text: &str, call: &Call, span: Span) -> Parsed<()> {
    let (least, most) = call.function.arity();
    let name = call.function.name;
    let given = call.args.len();
    let wrong = if given >= least && given <= most {
        None
    } else if least == most {
        Some(format!(
            "expected {least} argument(s) in call to {name:?}, got {given}"
        ))
    } else if given < least {
        Some(format!(
            "expected at least {least} argument(s) in call to {name:?}, got {given}"
        ))
    } else {
        Some(format!(
            "expected at most {most} argument(s) in call to {name:?}, got {given}"
        ))
    };
    if let Some(message) = wrong {
        return Err(ParseError::new(text, span, message).hint(format!("write {}", signature(call))));
    }
    for (i, arg) in call.args.iter().enumerate() {
        if name == "info" && i == 1 {
            info_selector(text, arg)?;
            continue;
        }
        if let Some(want) = call.function.arg_type(i) {
            expect(text, arg, want, &format!("call to function {name:?}"))?;
        }
    }
    Ok(())
}

fn signature(call: &Call) -> String {
    let names: Vec<&str> = call.function.args.iter().map(|t| t.name()).collect();
    let more = if call.function.variadic == 0 {
        ""
    } else {
        ", ..."
    };
    format!("{}({}{more})", call.function.name, names.join(", "))
}

/// The second argument of `info()` is a selector without a name, of any matchers.
fn info_selector(text: &str, arg: &Expr) -> Parsed<()> {
    let message = match &arg.kind {
        ExprKind::Selector(s) if s.name.is_none() => return Ok(()),
        ExprKind::Selector(_) => "expected label selectors only, got vector selector instead",
        _ => "expected label selectors only",
    };
    Err(ParseError::new(text, arg.span, message)
        .hint("write them in braces, as in info(x, {k8s_cluster=~\".+\"})"))
}

fn binary(text: &str, binary: &Binary, span: Span) -> Parsed<()> {
    check(text, &binary.lhs)?;
    check(text, &binary.rhs)?;
    let (lt, rt) = (binary.lhs.value_type(), binary.rhs.value_type());
    let op = binary.op;
    let at_op = |message: String| Err(ParseError::new(text, binary.op_span, message));
    for (side, expr, found) in [("left", &binary.lhs, lt), ("right", &binary.rhs, rt)] {
        if !matches!(found, ValueType::Scalar | ValueType::Vector) {
            let message = format!(
                "binary expression must contain only scalar and instant vector types; the {side} side of {:?} is a {}",
                op.text(),
                found.name()
            );
            return Err(ParseError::new(text, expr.span, message));
        }
    }
    let scalars = lt == ValueType::Scalar && rt == ValueType::Scalar;
    if binary.return_bool && !op.is_comparison() {
        return at_op("bool modifier can only be used on comparison operators".into());
    }
    if op.is_comparison() && !binary.return_bool && scalars {
        let error = ParseError::new(
            text,
            binary.op_span,
            "comparisons between scalars must use BOOL modifier",
        );
        return Err(error.hint(format!("write {} bool", op.text())));
    }
    if scalars && matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
        return at_op(format!(
            "operator {:?} is not defined between scalars",
            op.text()
        ));
    }
    if op.is_set() && (lt == ValueType::Scalar || rt == ValueType::Scalar) {
        return at_op(format!(
            "set operator {:?} not allowed in binary scalar expression: left is {}, right is {}",
            op.text(),
            lt.name(),
            rt.name()
        ));
    }
    matching(
        text,
        binary,
        span,
        lt == ValueType::Vector && rt == ValueType::Vector,
    )
}

fn matching(text: &str, binary: &Binary, span: Span, vectors: bool) -> Parsed<()> {
    let matching = &binary.matching;
    let error = |message: String| Err(ParseError::new(text, span, message));
    let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
    if matching.on
        && let Some(both) = matching
            .labels
            .iter()
            .find(|l| matching.include.contains(l))
    {
        let message = format!("label {both:?} must not occur in ON and GROUP clause at once");
        return Err(ParseError::new(text, binary.op_span, message));
    }
    if !vectors {
        if !matching.labels.is_empty() {
            return error("vector matching only allowed between instant vectors".into());
        }
        if fills {
            return error("filling in missing series only allowed between instant vectors".into());
        }
        return Ok(());
    }
    if binary.op.is_set() {
        if matching.cardinality != Cardinality::OneToOne {
            return error(format!(
                "no grouping allowed for {:?} operation",
                binary.op.text()
            ));
        }
        if fills {
            return error("filling in missing series not allowed for set operators".into());
        }
    }
    Ok(())
}
