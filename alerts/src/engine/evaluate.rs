//! Evaluates one group: recordings, alerts, their series and staleness.
//!
//! Owns what a rule's result becomes. Must not know the schedule nor files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use model::api::{AlertEvent, format_float};
use model::{Labels, METRIC_NAME, QueryData, Source, Value, VectorElement, stale_nan};

use super::overlay::Overlay;
use super::state::{self, Active, AlertState, Hit, Holds};
use super::{EngineOptions, GroupState, Query, RuleState, Tick};
use crate::notification::{Notification, Status};
use crate::rules::{Rule, RuleKind};
use crate::template::{self, Scope};

/// What an evaluation of a group needs to know.
pub(super) struct Run<'a> {
    pub(super) now_ms: i64,
    pub(super) interval_ms: i64,
    pub(super) options: &'a EngineOptions,
}

/// What a rule made.
#[derive(Default)]
struct Made {
    series: Vec<(Labels, f64)>,
    entered: Vec<Active>,
    replayed: Vec<Active>,
    changed: bool,
}

/// Evaluates a group's rules in order. True when state changed that a restart must not forget.
pub(super) fn group(
    group: &mut GroupState,
    run: &Run<'_>,
    source: &dyn Source,
    query: &mut Query<'_>,
    tick: &mut Tick,
) -> bool {
    let began = Instant::now();
    let t_ms = run.now_ms - group.group.query_offset_ms;
    let overlay = Overlay::new(source, tick.samples.clone());
    let mut changed = false;
    for rule in &mut group.rules {
        let rule_began = Instant::now();
        let made = match rule.rule.kind {
            RuleKind::Record => record(rule, group.group.limit, t_ms, &overlay, query),
            RuleKind::Alert => alert(rule, group.group.limit, t_ms, run, &overlay, query),
        };
        rule.seconds = rule_began.elapsed().as_secs_f64();
        rule.last_ms = Some(run.now_ms);
        match made {
            Ok(made) => {
                rule.last_error = None;
                changed |= made.changed;
                tell(rule, &made, run, tick);
                let samples = with_staleness(rule, made.series, t_ms);
                overlay.push(&samples);
                tick.samples.extend(samples);
            }
            Err(e) => {
                tick.errors.push(format!(
                    "rule {:?} of group {:?}: {e}",
                    rule.rule.name, group.group.name
                ));
                rule.last_error = Some(e);
            }
        }
    }
    group.last_ms = Some(run.now_ms);
    group.seconds = began.elapsed().as_secs_f64();
    changed
}

fn tell(rule: &RuleState, made: &Made, run: &Run<'_>, tick: &mut Tick) {
    for alert in &made.entered {
        let detail = format!("value {}", format_float(alert.value));
        tick.transitions
            .push(event(run.now_ms, alert.state.word(), alert, &detail));
    }
    for alert in made.entered.iter().chain(&made.replayed) {
        let status = match alert.state {
            AlertState::Pending => continue,
            AlertState::Firing => Status::Firing,
            AlertState::Resolved => Status::Resolved,
        };
        tick.notifications
            .push(notification(alert, status, run.options, &rule.rule.expr));
    }
}

pub(super) fn event(now_ms: i64, kind: &str, alert: &Active, detail: &str) -> AlertEvent {
    AlertEvent {
        t_ms: now_ms,
        kind: kind.to_owned(),
        alert: alert.labels.get("alertname").unwrap_or("").to_owned(),
        labels: alert.labels.clone(),
        receiver: String::new(),
        dedup_key: String::new(),
        detail: detail.to_owned(),
    }
}

pub(super) fn notification(
    alert: &Active,
    status: Status,
    options: &EngineOptions,
    expr: &str,
) -> Notification {
    let mut labels = alert.labels.to_builder();
    for (name, value) in &options.external_labels {
        if alert.labels.get(name).is_none() {
            labels.set(name.as_str(), value.as_str());
        }
    }
    Notification {
        status,
        labels: labels.build(),
        annotations: alert.annotations.clone(),
        starts_at_ms: alert.active_at_ms,
        ends_at_ms: (status == Status::Resolved)
            .then_some(alert.resolved_at_ms)
            .flatten(),
        value: format_float(alert.value),
        generator_url: match expr {
            "" => String::new(),
            expr => format!(
                "{}/graph?g0.expr={}&g0.tab=1",
                options.external_url,
                template::escape_query(expr)
            ),
        },
    }
}

/// The series of this evaluation, and a staleness marker for each that the last one had and this one has not.
fn with_staleness(
    rule: &mut RuleState,
    series: Vec<(Labels, f64)>,
    t_ms: i64,
) -> Vec<(Labels, i64, f64)> {
    let now: BTreeSet<Labels> = series.iter().map(|(l, _)| l.clone()).collect();
    let mut samples: Vec<(Labels, i64, f64)> =
        series.into_iter().map(|(l, v)| (l, t_ms, v)).collect();
    let gone = rule.returned.difference(&now);
    samples.extend(gone.map(|l| (l.clone(), t_ms, stale_nan())));
    rule.returned = now;
    samples
}

fn vector(data: QueryData) -> Result<Vec<VectorElement>, String> {
    match data {
        QueryData::Vector(all) => Ok(all),
        QueryData::Scalar(t_ms, v) => Ok(vec![VectorElement {
            labels: Labels::empty(),
            t_ms,
            value: Value::Float(v),
        }]),
        other => Err(format!(
            "rule result is a {}, not a vector or scalar",
            other.type_name()
        )),
    }
}

fn over_limit(limit: usize, count: usize, what: &str) -> Result<(), String> {
    if limit > 0 && count > limit {
        return Err(format!("exceeded limit of {limit} with {count} {what}"));
    }
    Ok(())
}

fn record(
    state: &mut RuleState,
    limit: usize,
    t_ms: i64,
    source: &dyn Source,
    query: &mut Query<'_>,
) -> Result<Made, String> {
    let rule = &state.rule;
    let mut series: BTreeMap<Labels, f64> = BTreeMap::new();
    for element in vector(query(source, &rule.expr, t_ms)?)? {
        let Value::Float(value) = element.value else {
            return Err("recordings of native histograms are not supported".into());
        };
        let mut labels = element.labels.to_builder();
        labels.set(METRIC_NAME, rule.name.as_str());
        for (name, value) in &rule.labels {
            labels.set(name.as_str(), value.as_str());
        }
        if series.insert(labels.build(), value).is_some() {
            return Err(
                "vector contains metrics with the same labelset after applying rule labels".into(),
            );
        }
    }
    over_limit(limit, series.len(), "series")?;
    Ok(Made {
        series: series.into_iter().collect(),
        ..Made::default()
    })
}

fn alert(
    state: &mut RuleState,
    limit: usize,
    t_ms: i64,
    run: &Run<'_>,
    source: &dyn Source,
    query: &mut Query<'_>,
) -> Result<Made, String> {
    let elements = vector(query(source, &state.rule.expr, t_ms)?)?;
    let hits = hits(&state.rule, elements, t_ms, run, source, query)?;
    let replay = state.restored_at_ms.take();
    let mut changed = false;
    if let Some(stopped_ms) = replay {
        changed |= skip_downtime(state, stopped_ms, run);
    }
    let holds = Holds {
        hold_ms: state.rule.for_ms,
        keep_ms: state.rule.keep_firing_for_ms,
    };
    let step = state::step(&mut state.alerts, holds, t_ms, hits);
    let count = state
        .alerts
        .values()
        .filter(|a| a.state != AlertState::Resolved)
        .count();
    if let Err(e) = over_limit(limit, count, "alerts") {
        state.alerts.clear();
        state.returned.clear();
        return Err(e);
    }
    let active = state
        .alerts
        .values()
        .filter(|a| a.state != AlertState::Resolved);
    let series = active
        .flat_map(|a| series_of(&state.rule.name, a))
        .collect();
    let replayed = match replay {
        None => Vec::new(),
        Some(_) => {
            let told: BTreeSet<&Labels> = step.entered.iter().map(|e| &e.labels).collect();
            state
                .alerts
                .values()
                .filter(|a| !told.contains(&a.labels))
                .cloned()
                .collect()
        }
    };
    // While something is pending, the time of the last evaluation is kept too: see `skip_downtime`.
    let pending = state
        .alerts
        .values()
        .any(|a| a.state == AlertState::Pending);
    Ok(Made {
        series,
        entered: step.entered,
        replayed,
        changed: changed || step.changed || pending,
    })
}

/// Time in which nobody looked does not count towards `for`, as in Prometheus.
fn skip_downtime(state: &mut RuleState, stopped_ms: i64, run: &Run<'_>) -> bool {
    let gap = run.now_ms - stopped_ms - run.interval_ms;
    let mut changed = false;
    if gap > run.interval_ms {
        for alert in state
            .alerts
            .values_mut()
            .filter(|a| a.state == AlertState::Pending)
        {
            alert.active_at_ms += gap;
            changed = true;
        }
    }
    changed
}

fn series_of(name: &str, alert: &Active) -> [(Labels, f64); 2] {
    let mut labels = alert.labels.to_builder();
    labels
        .set("alertname", name)
        .set(METRIC_NAME, "ALERTS_FOR_STATE");
    let for_state = labels.build();
    labels
        .set(METRIC_NAME, "ALERTS")
        .set("alertstate", alert.state.word());
    let since = (alert.active_at_ms as f64 / 1000.0).floor();
    [(labels.build(), 1.0), (for_state, since)]
}

fn hits(
    rule: &Rule,
    elements: Vec<VectorElement>,
    t_ms: i64,
    run: &Run<'_>,
    source: &dyn Source,
    query: &mut Query<'_>,
) -> Result<Vec<Hit>, String> {
    let mut seen: BTreeSet<Labels> = BTreeSet::new();
    let mut out = Vec::with_capacity(elements.len());
    for element in elements {
        let value = match &element.value {
            Value::Float(v) => *v,
            Value::Histogram(h) => h.count,
        };
        let base = element.labels.without_name();
        let scope = Scope {
            labels: &base,
            value,
            external_labels: &run.options.external_labels,
            external_url: &run.options.external_url,
            now_ms: t_ms,
        };
        let mut ask = |text: &str| query(source, text, t_ms);
        let mut expand = |text: &str| template::expand_or_error(text, &scope, &mut ask);
        let mut labels = base.to_builder();
        for (name, text) in &rule.labels {
            labels.set(name.as_str(), expand(text));
        }
        labels.set("alertname", rule.name.as_str());
        let annotations = rule
            .annotations
            .iter()
            .map(|(k, text)| (k.clone(), expand(text)))
            .collect();
        let labels = labels.build();
        if !seen.insert(labels.clone()) {
            return Err(
                "vector contains metrics with the same labelset after applying alert labels".into(),
            );
        }
        out.push(Hit {
            labels,
            annotations,
            value,
        });
    }
    Ok(out)
}
