//! The status of a service level objective, as value.
//!
//! Owns what the API, the terminal and reports show of an SLO. Must not know how it is computed (that is `alerts`).

use serde::{Deserialize, Serialize};

/// How fast the error budget goes in one window. 1.0 spends it exactly over the SLO's period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BurnRate {
    /// The window as a Prometheus duration, as in the rule (before any time scale).
    pub window: String,
    /// Burn rate; `None` without traffic in the window.
    pub rate: Option<f64>,
}

/// What an SLO's alerts say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SloAlert {
    /// Nothing fires.
    #[default]
    Ok,
    /// A slow burn: a ticket.
    Ticket,
    /// A fast burn: a page.
    Page,
}

/// One SLO at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SloStatus {
    /// Its name, unique.
    pub name: String,
    /// What it promises, in words.
    pub description: String,
    /// The objective as a ratio, such as 0.999.
    pub objective: f64,
    /// The period as a Prometheus duration, such as `30d`.
    pub period: String,
    /// The measured ratio of good events over the period, or over what history there is; `None` without traffic.
    pub sli: Option<f64>,
    /// Good events seen over the period.
    pub good: Option<f64>,
    /// All events seen over the period.
    pub total: Option<f64>,
    /// Share of the error budget left: 1.0 untouched, 0.0 spent, negative overspent; `None` without traffic.
    pub budget_left: Option<f64>,
    /// Burn rates, shortest window first.
    pub burn: Vec<BurnRate>,
    /// Milliseconds until the budget is empty at the 1 h burn rate; `None` when it does not shrink.
    pub empty_in_ms: Option<i64>,
    /// What its alerts say.
    pub alert: SloAlert,
}
