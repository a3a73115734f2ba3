//! A query's syntax tree as JSON, in the shape that Prometheus' `parse_query` answers with.
//!
//! Owns that shape. Must not know the grammar.

use model::Matcher;
use promql::ast::{At, Binary, Cardinality, Duration, Modifiers, Selector, ValueType};
use promql::{Expr, ExprKind};
use serde_json::{Value as Json, json};

/// The tree of an expression.
pub(super) fn of(expr: &Expr) -> Json {
    match &expr.kind {
        ExprKind::Number(v) => {
            json!({"type": "numberLiteral", "val": model::api::format_float(*v)})
        }
        ExprKind::String(text) => json!({"type": "stringLiteral", "val": text}),
        ExprKind::Selector(selector) => vector(selector, "vectorSelector"),
        ExprKind::Matrix(matrix) => {
            let mut body = vector(&matrix.selector, "matrixSelector");
            body["range"] = ms(Some(&matrix.range));
            body
        }
        ExprKind::Subquery(subquery) => {
            let mut body = json!({
                "type": "subquery",
                "expr": of(&subquery.expr),
                "range": ms(Some(&subquery.range)),
                "step": ms(subquery.step.as_ref()),
            });
            modifiers(&subquery.modifiers, &mut body);
            body
        }
        ExprKind::Call(call) => json!({
            "type": "call",
            "func": {
                "name": call.function.name,
                "argTypes": call.function.args.iter().map(|t| type_name(*t)).collect::<Vec<_>>(),
                "variadic": call.function.variadic,
                "returnType": type_name(call.function.result),
            },
            "args": call.args.iter().map(of).collect::<Vec<_>>(),
        }),
        ExprKind::Aggregate(aggregate) => {
            let grouping = aggregate.grouping.clone().unwrap_or_default();
            json!({
                "type": "aggregation",
                "op": aggregate.op.name(),
                "expr": of(&aggregate.expr),
                "param": aggregate.param.as_ref().map(of),
                "grouping": grouping.labels,
                "without": grouping.without,
            })
        }
        ExprKind::Binary(binary) => json!({
            "type": "binaryExpr",
            "op": binary.op.text(),
            "lhs": of(&binary.lhs),
            "rhs": of(&binary.rhs),
            "matching": matching(binary),
            "bool": binary.return_bool,
        }),
        ExprKind::Unary(unary) => json!({
            "type": "unaryExpr",
            "op": if unary.negative { "-" } else { "+" },
            "expr": of(&unary.expr),
        }),
        ExprKind::Paren(inner) => json!({"type": "parenExpr", "expr": of(inner)}),
    }
}

fn vector(selector: &Selector, kind: &str) -> Json {
    let matchers: Vec<Json> = selector.all_matchers().iter().map(matcher).collect();
    let mut body = json!({"type": kind, "name": selector.name, "matchers": matchers});
    modifiers(&selector.modifiers, &mut body);
    body
}

fn matcher(matcher: &Matcher) -> Json {
    json!({"name": matcher.name, "value": matcher.value, "type": matcher.op.to_string()})
}

fn modifiers(modifiers: &Modifiers, body: &mut Json) {
    body["offset"] = ms(modifiers.offset.as_ref());
    body["timestamp"] = match modifiers.at {
        Some(At::Time(t_ms)) => json!(t_ms),
        _ => Json::Null,
    };
    body["startOrEnd"] = match modifiers.at {
        Some(At::Start) => json!("start"),
        Some(At::End) => json!("end"),
        _ => Json::Null,
    };
}

fn matching(binary: &Binary) -> Json {
    let scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
    if scalar(&binary.lhs) || scalar(&binary.rhs) {
        return Json::Null;
    }
    let matching = &binary.matching;
    let card = match matching.cardinality {
        _ if binary.op.is_set() => "many-to-many",
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
    };
    json!({
        "card": card,
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
    })
}

/// Milliseconds; 0 for none, null for a length that only evaluation knows.
fn ms(duration: Option<&Duration>) -> Json {
    match duration {
        None => json!(0),
        Some(duration) => json!(duration.literal_ms()),
    }
}

fn type_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_prometheus_shapes_it() {
        let tree =
            of(&promql::parse(r#"sum by (job) (rate(up{a!="b"}[5m] offset 1m)) > 2"#).unwrap());
        assert_eq!(tree["type"], "binaryExpr");
        assert_eq!(tree["matching"], Json::Null);
        let sum = &tree["lhs"];
        assert_eq!(
            (&sum["op"], &sum["grouping"][0]),
            (&json!("sum"), &json!("job"))
        );
        let range = &sum["expr"]["args"][0];
        assert_eq!(
            (&range["range"], &range["offset"]),
            (&json!(300_000), &json!(60_000))
        );
        assert_eq!(
            range["matchers"][0],
            json!({"name": "a", "value": "b", "type": "!="})
        );
        assert_eq!(tree["rhs"]["val"], "2");
    }
}
