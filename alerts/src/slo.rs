//! Service level objectives: definitions, the maths of error budgets, rules made from them, and their status.
//!
//! Owns the SLO file's format and the windows of burn-rate alerts. Must not know delivery.

mod file;
mod generate;
pub mod math;
mod status;

pub use generate::rules;
pub use status::status;

/// The SLOs of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct SloFile {
    /// Its name as given.
    pub name: String,
    /// The objectives in order.
    pub slos: Vec<Slo>,
}

/// One objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Slo {
    /// Unique in the file.
    pub name: String,
    /// What it promises, in words.
    pub description: String,
    /// The objective as a ratio in (0, 1), such as 0.999.
    pub objective: f64,
    /// The period as written, such as `30d`.
    pub period: String,
    /// The period, milliseconds.
    pub period_ms: i64,
    /// What is counted.
    pub events: Events,
    /// Fewer bad events than this in the long window do not alert: the guard for little traffic.
    pub min_bad_events: f64,
    /// Severity of the fast-burn alert; `None` for no such alert.
    pub page: Option<String>,
    /// Severity of the slow-burn alert; `None` for no such alert.
    pub ticket: Option<String>,
    /// Link to the runbook.
    pub runbook: String,
    /// Labels added to every rule.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// PromQL that counts events in a window; `$window` stands for the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// Good events (`Ok`) or bad events (`Err`) in the window.
    pub part: Part,
    /// All events in the window.
    pub total: String,
}

/// Which part of the events is counted.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Good ones.
    Good(String),
    /// Bad ones.
    Bad(String),
}

// === impl SloFile ===

impl SloFile {
    /// Reads and checks an SLO file. The error names the first mistake with its line and column.
    pub fn parse(file_name: &str, text: &str) -> Result<SloFile, crate::FileError> {
        file::parse(file_name, text)
    }
}
