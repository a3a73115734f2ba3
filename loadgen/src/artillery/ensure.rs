//! Owns `ensure`: reading its thresholds and conditions, and judging them at the end. Must not know how figures arise.

use serde_json::Value;

use super::expr;
use super::fields::{Fields, Read, list, number, text, truth};
use super::mistake::Mistake;
use super::script::Check;
use super::tree::{Kind, Node};

const LEGACY: [&str; 5] = ["min", "max", "median", "p95", "p99"];

/// Reads an `ensure` section.
pub(crate) fn read(node: &Node) -> Read<Vec<Check>> {
    let fields = Fields::of(node, "ensure")?;
    let known = [
        "thresholds",
        "conditions",
        "maxErrorRate",
        "min",
        "max",
        "median",
        "p95",
        "p99",
    ];
    fields.allow(&known, &[])?;
    let mut all = Vec::new();
    if let Some(node) = fields.get("thresholds") {
        for item in list(node, "thresholds")? {
            let entries = Fields::of(item, "a threshold")?.entries();
            let [(metric, limit)] = entries else {
                return Err(
                    Mistake::at(&item.place, "a threshold is one metric and its limit")
                        .hint("such as: - http.response_time.p99: 250"),
                );
            };
            let limit = number(limit, &metric.text)?;
            let shown = format!("{} < {limit}", metric.text);
            all.push(strict(shown.clone(), shown));
        }
    }
    if let Some(node) = fields.get("conditions") {
        for item in list(node, "conditions")? {
            all.push(condition(item)?);
        }
    }
    for key in LEGACY {
        if let Some(node) = fields.get(key) {
            let limit = number(node, key)?.trunc();
            let expression = format!("http.response_time.{key} < {limit}");
            all.push(strict(format!("{key} < {limit}"), expression));
        }
    }
    if let Some(node) = fields.get("maxErrorRate") {
        let limit = number(node, "maxErrorRate")?;
        let rate = "((vusers.created - vusers.completed)/vusers.created * 100)";
        all.push(strict(
            format!("maxErrorRate < {limit}"),
            format!("{rate} <= {limit}"),
        ));
    }
    Ok(all)
}

fn strict(shown: String, expression: String) -> Check {
    Check {
        shown,
        expression,
        strict: true,
    }
}

fn condition(node: &Node) -> Read<Check> {
    let fields = match &node.kind {
        Kind::Map(_) => Fields::of(node, "a condition")?,
        _ => {
            return Err(Mistake::at(&node.place, format!("a condition is {}", node.what()))
                .hint("such as: - expression: \"http.response_time.p95 < 100 and vusers.failed == 0\""));
        }
    };
    fields.allow(&["expression", "strict"], &[])?;
    let written = fields.need("expression")?;
    let shown = text(written, "expression")?;
    // Names of endpoints may hold any character: they are known only at the end.
    if !shown.contains("plugins.") {
        super::config::expression(written, "expression")?;
    }
    let must = fields
        .get("strict")
        .map(|n| truth(n, "strict"))
        .transpose()?;
    Ok(Check {
        expression: shown.clone(),
        shown,
        strict: must.unwrap_or(true),
    })
}

/// How a check came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The check as printed.
    pub check: String,
    /// It held.
    pub ok: bool,
    /// Not holding fails the run.
    pub strict: bool,
    /// Why it could not be computed.
    pub problem: Option<String>,
}

/// Judges all checks by the figures, those that hold first.
pub(crate) fn judge(checks: &[Check], figures: &[(String, f64)]) -> Vec<Verdict> {
    let names: Vec<String> = figures.iter().map(|(name, _)| name.clone()).collect();
    let find = |name: &str| {
        let found = figures.iter().find(|(n, _)| n == name);
        // A counter that nothing has counted is 0: no error, no response of that code.
        let zero = || {
            let counted = [
                "vusers.",
                "errors.",
                "http.codes.",
                "http.requests",
                "http.responses",
            ];
            counted.iter().any(|p| name.starts_with(p))
                && !name.starts_with("vusers.session_length")
        };
        match found {
            Some((_, value)) => Some(Value::from(*value)),
            None if zero() => Some(Value::from(0)),
            None => None,
        }
    };
    let mut all: Vec<Verdict> = checks
        .iter()
        .map(|check| {
            let value = expr::parse(&check.expression, &names)
                .map_err(|w| w.why)
                .and_then(|e| e.value(&find));
            Verdict {
                check: check.shown.clone(),
                ok: value.as_ref().is_ok_and(expr::truthy),
                strict: check.strict,
                problem: value.err(),
            }
        })
        .collect();
    all.sort_by_key(|v| !v.ok);
    all
}
