//! Rule files in Prometheus' format, as checked values.
//!
//! Owns what a rule file says and how windows of one are scaled. Must not know evaluation nor the clock.

mod check;
pub(crate) mod locate;
pub(crate) mod parse;
mod scale;

use std::collections::BTreeMap;

pub use crate::file_error::FileError as RuleError;
pub(crate) use scale::divide;
pub use scale::{DEFAULT_INTERVAL_MS, MIN_INTERVAL_MS, scale};

/// A rule file, every expression and template of it checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleFile {
    /// Its name as given.
    pub name: String,
    /// Its groups in order.
    pub groups: Vec<RuleGroup>,
}

/// Rules that are evaluated together, in order, at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleGroup {
    /// Unique in its file.
    pub name: String,
    /// Milliseconds between evaluations; `None` for the engine's default.
    pub interval_ms: Option<i64>,
    /// The most alerts, or recorded series, that one rule may produce; 0 for no limit.
    pub limit: usize,
    /// How far in the past expressions are evaluated, milliseconds.
    pub query_offset_ms: i64,
    /// Labels added to every rule of the group; a rule's own win.
    pub labels: BTreeMap<String, String>,
    /// The rules in order.
    pub rules: Vec<Rule>,
}

/// What a rule makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// An alert for every series of its result.
    Alert,
    /// A series for every series of its result.
    Record,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What it makes.
    pub kind: RuleKind,
    /// The alert's name, or the recorded metric's.
    pub name: String,
    /// PromQL as written (after scaling: as printed).
    pub expr: String,
    /// The same, parsed.
    pub parsed: promql::Expr,
    /// How long the expression must hold before the alert fires, milliseconds.
    pub for_ms: i64,
    /// How long the alert goes on firing after the expression held last, milliseconds.
    pub keep_firing_for_ms: i64,
    /// Labels that it adds, the group's included; values of an alert's labels are templates.
    pub labels: BTreeMap<String, String>,
    /// Annotations; values are templates.
    pub annotations: BTreeMap<String, String>,
    /// The line in the file where the rule begins, from 1; 0 when it was generated.
    pub line: usize,
}

// === impl RuleFile ===

impl RuleFile {
    /// Reads and checks a rule file: keys, names, durations, PromQL and templates, as `promtool check rules` does.
    /// The error names the first mistake with its line and column.
    pub fn parse(file_name: &str, text: &str) -> Result<RuleFile, RuleError> {
        parse::parse(file_name, text)
    }

    /// All rules with their group.
    pub fn rules(&self) -> impl Iterator<Item = (&RuleGroup, &Rule)> {
        self.groups
            .iter()
            .flat_map(|g| g.rules.iter().map(move |r| (g, r)))
    }

    /// The file as YAML that Prometheus reads, for `promtool` and for people.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        scale::to_yaml(self)
    }
}

// === impl Rule ===

impl Rule {
    /// The rule's `severity` label, or the empty string.
    #[must_use]
    pub fn severity(&self) -> &str {
        self.labels.get("severity").map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests;
