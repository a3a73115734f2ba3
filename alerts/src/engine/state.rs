//! The life of one rule's alerts: inactive → pending → firing → resolved.
//!
//! Owns the transitions, as Prometheus' `AlertingRule.Eval` makes them. Pure: time is an argument.

use std::collections::BTreeMap;

use model::Labels;

/// How long a resolved alert is remembered, milliseconds.
pub const RESOLVED_RETENTION_MS: i64 = 15 * 60_000;

/// Where an alert is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The expression holds, but not yet for as long as `for` asks.
    Pending,
    /// It fires.
    Firing,
    /// It fired and no longer does.
    Resolved,
}

impl AlertState {
    /// The word in labels and in the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
            AlertState::Resolved => "resolved",
        }
    }
}

/// One alert: a series of a rule's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    /// Where it is in its life.
    pub state: AlertState,
    /// Its labels, `alertname` included.
    pub labels: Labels,
    /// Its annotations, expanded at the last evaluation in which the expression held.
    pub annotations: BTreeMap<String, String>,
    /// The expression's value then.
    pub value: f64,
    /// Since when the expression holds, Unix milliseconds.
    pub active_at_ms: i64,
    /// When it began to fire.
    pub fired_at_ms: Option<i64>,
    /// When it was resolved.
    pub resolved_at_ms: Option<i64>,
    /// Since when it fires only because of `keep_firing_for`.
    pub keep_firing_since_ms: Option<i64>,
}

/// One series of a rule's result, its labels and annotations expanded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hit {
    pub(super) labels: Labels,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// `for` and `keep_firing_for`, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holds {
    pub(super) hold_ms: i64,
    pub(super) keep_ms: i64,
}

/// What one evaluation changed.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Alerts that entered their present state, in order of labels.
    pub(super) entered: Vec<Active>,
    /// Anything that a restart must not forget changed.
    pub(super) changed: bool,
}

/// Moves a rule's alerts to `now_ms`, given the series for which the expression holds.
pub(super) fn step(
    alerts: &mut BTreeMap<Labels, Active>,
    holds: Holds,
    now_ms: i64,
    hits: Vec<Hit>,
) -> Step {
    let mut out = Step::default();
    let mut hits: BTreeMap<Labels, Hit> = hits.into_iter().map(|h| (h.labels.clone(), h)).collect();
    alerts.retain(|labels, alert| {
        match hits.remove(labels) {
            Some(hit) => refresh(alert, hit, now_ms, &mut out),
            None if !miss(alert, holds.keep_ms, now_ms, &mut out) => return false,
            None => {}
        }
        mature(alert, holds.hold_ms, now_ms, &mut out);
        true
    });
    for (labels, hit) in hits {
        let mut alert = Active {
            state: AlertState::Pending,
            labels: hit.labels,
            annotations: hit.annotations,
            value: hit.value,
            active_at_ms: now_ms,
            fired_at_ms: None,
            resolved_at_ms: None,
            keep_firing_since_ms: None,
        };
        out.changed = true;
        if holds.hold_ms > 0 {
            out.entered.push(alert.clone());
        }
        mature(&mut alert, holds.hold_ms, now_ms, &mut out);
        alerts.insert(labels, alert);
    }
    out
}

/// The expression holds for an alert that is known.
fn refresh(alert: &mut Active, hit: Hit, now_ms: i64, out: &mut Step) {
    if alert.state == AlertState::Resolved {
        alert.state = AlertState::Pending;
        alert.active_at_ms = now_ms;
        alert.fired_at_ms = None;
        alert.resolved_at_ms = None;
        out.changed = true;
        out.entered.push(Active {
            annotations: hit.annotations.clone(),
            value: hit.value,
            ..alert.clone()
        });
    }
    out.changed |= alert.keep_firing_since_ms.take().is_some();
    alert.value = hit.value;
    alert.annotations = hit.annotations;
}

/// The expression does not hold for a known alert. False when it can be forgotten.
fn miss(alert: &mut Active, keep_ms: i64, now_ms: i64, out: &mut Step) -> bool {
    match alert.state {
        AlertState::Pending => {
            out.changed = true;
            false
        }
        AlertState::Resolved => {
            let kept = alert
                .resolved_at_ms
                .is_some_and(|at| now_ms - at <= RESOLVED_RETENTION_MS);
            out.changed |= !kept;
            kept
        }
        AlertState::Firing => {
            if keep_ms > 0 {
                if alert.keep_firing_since_ms.is_none() {
                    out.changed = true;
                }
                let since = *alert.keep_firing_since_ms.get_or_insert(now_ms);
                if now_ms - since < keep_ms {
                    return true;
                }
            }
            alert.state = AlertState::Resolved;
            alert.resolved_at_ms = Some(now_ms);
            alert.keep_firing_since_ms = None;
            out.changed = true;
            out.entered.push(alert.clone());
            true
        }
    }
}

/// A pending alert fires when it is old enough.
fn mature(alert: &mut Active, hold_ms: i64, now_ms: i64, out: &mut Step) {
    if alert.state == AlertState::Pending && now_ms - alert.active_at_ms >= hold_ms {
        alert.state = AlertState::Firing;
        alert.fired_at_ms = Some(now_ms);
        out.changed = true;
        // An alert that was just re-entered as pending and fires at once is told only as firing.
        out.entered.retain(|e| {
            !(e.state == AlertState::Pending && hold_ms == 0 && e.labels == alert.labels)
        });
        out.entered.push(alert.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hit(value: f64) -> Vec<Hit> {
        vec![Hit {
            labels: Labels::from_pairs([("alertname", "A")]),
            annotations: BTreeMap::new(),
            value,
        }]
    }

    /// Runs one alert over the minutes; the expression holds where `pattern` has an `x`. One letter a minute:
    /// `.` inactive, `p`, `f`, `k` (kept firing), `r`.
    fn life(pattern: &str, hold_min: i64, keep_min: i64) -> String {
        let mut alerts = BTreeMap::new();
        let holds = Holds {
            hold_ms: hold_min * 60_000,
            keep_ms: keep_min * 60_000,
        };
        let mut out = String::new();
        for (minute, c) in pattern.chars().enumerate() {
            let hits = if c == 'x' { hit(1.0) } else { Vec::new() };
            step(&mut alerts, holds, minute as i64 * 60_000, hits);
            out.push(match alerts.values().next() {
                None => '.',
                Some(a) if a.keep_firing_since_ms.is_some() => 'k',
                Some(a) => a.state.word().chars().next().unwrap(),
            });
        }
        out
    }

    #[test]
    fn lives() {
        for (pattern, hold, keep, want) in [
            ("-xxx-", 0, 0, ".fffr"),
            ("-xxxx-", 2, 0, ".ppffr"),
            ("-xx-xx", 2, 0, ".pp.pp"),
            ("xx--x---", 0, 2, "ffkkfkkr"),
            ("x-x", 0, 0, "frf"),
            ("x-xxx", 1, 0, "p.pff"),
            ("xx-xx", 1, 0, "pfrpf"),
            ("x-------------------", 0, 0, "frrrrrrrrrrrrrrrr..."),
        ] {
            assert_eq!(
                life(pattern, hold, keep),
                want,
                "{pattern} for {hold} keep {keep}"
            );
        }
    }

    #[test]
    fn says_each_transition_once() {
        let mut alerts = BTreeMap::new();
        let holds = Holds {
            hold_ms: 0,
            keep_ms: 0,
        };
        let words = |s: Step| s.entered.iter().map(|a| a.state.word()).collect::<Vec<_>>();
        assert_eq!(words(step(&mut alerts, holds, 0, hit(1.0))), ["firing"]);
        let again = step(&mut alerts, holds, 1, hit(2.0));
        assert!(!again.changed);
        assert!(words(again).is_empty());
        assert_eq!(words(step(&mut alerts, holds, 2, vec![])), ["resolved"]);
        assert_eq!(words(step(&mut alerts, holds, 3, hit(1.0))), ["firing"]);
    }

    proptest! {
        /// Whatever happens: firing and resolved alternate, and nothing fires before `for` has passed.
        #[test]
        fn alternates(pattern in "[x-]{1,60}", hold in 0i64..4, keep in 0i64..4) {
            let mut alerts = BTreeMap::new();
            let holds = Holds { hold_ms: hold * 60_000, keep_ms: keep * 60_000 };
            let mut firing = false;
            let mut run = 0;
            for (minute, c) in pattern.chars().enumerate() {
                run = if c == 'x' { run + 1 } else { 0 };
                let hits = if c == 'x' { hit(1.0) } else { Vec::new() };
                for entered in step(&mut alerts, holds, minute as i64 * 60_000, hits).entered {
                    match entered.state {
                        AlertState::Firing => { prop_assert!(!firing); prop_assert!(run > hold); firing = true; }
                        AlertState::Resolved => { prop_assert!(firing); firing = false; }
                        AlertState::Pending => prop_assert!(!firing),
                    }
                }
            }
        }
    }
}
