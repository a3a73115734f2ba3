//! Time scale: the same rules with every window shorter, so that a drill of seconds shows what hours would.
//!
//! Owns which durations of a rule file are windows. Must not know why someone scales.

use super::{Rule, RuleFile, RuleGroup, RuleKind};

/// Milliseconds between evaluations of a group that does not say.
pub const DEFAULT_INTERVAL_MS: i64 = 15_000;

/// The shortest interval that scaling makes, milliseconds.
pub const MIN_INTERVAL_MS: i64 = 200;

/// Divides every window of the expressions, `for`, `keep_firing_for`, `query_offset` and the intervals by `factor`.
/// Intervals do not fall below [`MIN_INTERVAL_MS`]. A factor of 1, or one that is not a positive number, changes
/// nothing.
#[must_use]
pub fn scale(file: &RuleFile, factor: f64) -> RuleFile {
    if !factor.is_finite() || factor <= 0.0 || (factor - 1.0).abs() < f64::EPSILON {
        return file.clone();
    }
    RuleFile {
        name: file.name.clone(),
        groups: file.groups.iter().map(|g| group(g, factor)).collect(),
    }
}

fn group(group: &RuleGroup, factor: f64) -> RuleGroup {
    let interval = divide(group.interval_ms.unwrap_or(DEFAULT_INTERVAL_MS), factor);
    RuleGroup {
        interval_ms: Some(interval.max(MIN_INTERVAL_MS)),
        query_offset_ms: divide(group.query_offset_ms, factor),
        rules: group.rules.iter().map(|r| rule(r, factor)).collect(),
        ..group.clone()
    }
}

fn rule(rule: &Rule, factor: f64) -> Rule {
    let parsed = promql::scale_windows(&rule.parsed, factor);
    Rule {
        expr: promql::format(&parsed),
        parsed,
        for_ms: divide(rule.for_ms, factor),
        keep_firing_for_ms: divide(rule.keep_firing_for_ms, factor),
        ..rule.clone()
    }
}

/// `ms / factor`, at least 1 ms when it was positive.
pub(crate) fn divide(ms: i64, factor: f64) -> i64 {
    if ms <= 0 {
        return ms;
    }
    ((ms as f64 / factor).round() as i64).max(1)
}

/// The file as YAML. Texts are written as JSON strings, which YAML reads.
pub(super) fn to_yaml(file: &RuleFile) -> String {
    let quote = |s: &str| serde_json::Value::from(s).to_string();
    let time = model::duration::format_ms;
    let mut out = String::from("groups:\n");
    for group in &file.groups {
        out.push_str(&format!("  - name: {}\n", quote(&group.name)));
        if let Some(ms) = group.interval_ms {
            out.push_str(&format!("    interval: {}\n", time(ms)));
        }
        if group.limit > 0 {
            out.push_str(&format!("    limit: {}\n", group.limit));
        }
        if group.query_offset_ms > 0 {
            out.push_str(&format!(
                "    query_offset: {}\n",
                time(group.query_offset_ms)
            ));
        }
        out.push_str("    rules:\n");
        for rule in &group.rules {
            let key = match rule.kind {
                RuleKind::Alert => "alert",
                RuleKind::Record => "record",
            };
            out.push_str(&format!("      - {key}: {}\n", quote(&rule.name)));
            out.push_str(&format!("        expr: {}\n", quote(&rule.expr)));
            for (name, ms) in [
                ("for", rule.for_ms),
                ("keep_firing_for", rule.keep_firing_for_ms),
            ] {
                if ms > 0 {
                    out.push_str(&format!("        {name}: {}\n", time(ms)));
                }
            }
            for (name, map) in [("labels", &rule.labels), ("annotations", &rule.annotations)] {
                if !map.is_empty() {
                    out.push_str(&format!("        {name}:\n"));
                }
                for (k, v) in map {
                    out.push_str(&format!("          {}: {}\n", quote(k), quote(v)));
                }
            }
        }
    }
    out
}
