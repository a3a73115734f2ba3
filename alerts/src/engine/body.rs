//! The bodies of `GET /api/v1/rules` and `GET /api/v1/alerts`.
//!
//! Owns that view of the engine's state. Must not change it.

use model::api::{AlertBody, AlertsBody, RuleBody, RuleGroupBody, RulesBody, format_float};
use model::timestamp::format_rfc3339;

use super::state::{Active, AlertState};
use super::{GroupState, RuleState};
use crate::rules::RuleKind;

pub(super) fn rules(groups: &[GroupState], default_interval_ms: i64) -> RulesBody {
    let group = |g: &GroupState| RuleGroupBody {
        name: g.group.name.clone(),
        file: g.file.clone(),
        rules: g.rules.iter().map(rule).collect(),
        interval: g.group.interval_ms.unwrap_or(default_interval_ms) as f64 / 1000.0,
        limit: g.group.limit,
        evaluation_time: g.seconds,
        last_evaluation: time(g.last_ms),
    };
    RulesBody {
        groups: groups.iter().map(group).collect(),
    }
}

pub(super) fn alerts(groups: &[GroupState]) -> AlertsBody {
    AlertsBody {
        alerts: groups
            .iter()
            .flat_map(|g| &g.rules)
            .flat_map(active)
            .collect(),
    }
}

fn time(t_ms: Option<i64>) -> String {
    // Go's zero time, as Prometheus answers for a rule that was not evaluated yet.
    t_ms.map_or_else(|| "0001-01-01T00:00:00Z".into(), format_rfc3339)
}

fn rule(state: &RuleState) -> RuleBody {
    let rule = &state.rule;
    let is_alert = rule.kind == RuleKind::Alert;
    let in_state = |s| state.alerts.values().any(|a| a.state == s);
    let word = match is_alert {
        false => "",
        true if in_state(AlertState::Firing) => "firing",
        true if in_state(AlertState::Pending) => "pending",
        true => "inactive",
    };
    RuleBody {
        kind: if is_alert { "alerting" } else { "recording" }.into(),
        name: rule.name.clone(),
        query: rule.expr.clone(),
        state: word.into(),
        duration: rule.for_ms as f64 / 1000.0,
        keep_firing_for: rule.keep_firing_for_ms as f64 / 1000.0,
        labels: rule.labels.clone(),
        annotations: rule.annotations.clone(),
        alerts: active(state).collect(),
        health: match (&state.last_error, state.last_ms) {
            (Some(_), _) => "err",
            (None, Some(_)) => "ok",
            (None, None) => "unknown",
        }
        .into(),
        last_error: state.last_error.clone().unwrap_or_default(),
        evaluation_time: state.seconds,
        last_evaluation: time(state.last_ms),
    }
}

fn active(state: &RuleState) -> impl Iterator<Item = AlertBody> + '_ {
    let shown = state
        .alerts
        .values()
        .filter(|a| a.state != AlertState::Resolved);
    shown.map(|a: &Active| AlertBody {
        labels: a.labels.clone(),
        annotations: a.annotations.clone(),
        state: a.state.word().into(),
        active_at: format_rfc3339(a.active_at_ms),
        value: format_float(a.value),
        keep_firing_since: a.keep_firing_since_ms.map(format_rfc3339),
    })
}
