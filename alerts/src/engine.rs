//! The rule engine: evaluates groups that are due, keeps the state of their alerts, says what changed.
//!
//! Owns the schedule, recordings, the `ALERTS` series and the restore after a restart. Must not know receivers. Time
//! and PromQL are arguments.
//!
//! ```text
//! tick(now) ─▶ due groups ─▶ rule by rule: query ─▶ recordings ─────────────▶ samples
//!                                            └────▶ state machine (state.rs) ─▶ transitions, notifications
//!                            └─▶ changed? persist.rs writes the state
//! ```

mod body;
mod evaluate;
mod overlay;
mod persist;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use model::api::{AlertEvent, AlertsBody, RulesBody};
use model::{Labels, QueryData, Source};

use crate::notification::{Notification, Status};
use crate::rules::{DEFAULT_INTERVAL_MS, Rule, RuleFile, RuleGroup};
pub(crate) use persist::replace_file;
pub use state::{Active, AlertState, RESOLVED_RETENTION_MS};

/// What colours an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// Interval of groups that do not say, milliseconds.
    pub default_interval_ms: i64,
    /// Labels added to every notification, unless the alert has them.
    pub external_labels: BTreeMap<String, String>,
    /// Where people reach the agent's API, for links.
    pub external_url: String,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            default_interval_ms: DEFAULT_INTERVAL_MS,
            external_labels: BTreeMap::new(),
            external_url: String::new(),
        }
    }
}

/// What one tick made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tick {
    /// Recordings, `ALERTS` and `ALERTS_FOR_STATE`, staleness markers included: (labels, Unix milliseconds, value).
    pub samples: Vec<(Labels, i64, f64)>,
    /// Alerts that became pending, firing or resolved.
    pub transitions: Vec<AlertEvent>,
    /// What to deliver. After a restart everything that fires, and what was resolved lately, is told again: the
    /// outbox knows what it has sent.
    pub notifications: Vec<Notification>,
    /// Rules that failed, and a state file that could not be written.
    pub errors: Vec<String>,
    /// How many groups were evaluated.
    pub groups_evaluated: usize,
}

/// Answers PromQL over a source at an instant: the seam between rules and the language.
pub type Query<'a> = dyn FnMut(&dyn Source, &str, i64) -> Result<QueryData, String> + 'a;

/// Evaluates rules. One owner; `tick` blocks while it queries, so async callers use `spawn_blocking`.
#[derive(Debug)]
pub struct RuleEngine {
    options: EngineOptions,
    groups: Vec<GroupState>,
    state_dir: Option<PathBuf>,
    /// Alerts that fired before a restart and whose rule is gone.
    orphans: Vec<Active>,
    restore_error: Option<String>,
    dirty: bool,
}

#[derive(Debug)]
struct GroupState {
    file: String,
    group: RuleGroup,
    rules: Vec<RuleState>,
    last_ms: Option<i64>,
    seconds: f64,
}

#[derive(Debug)]
struct RuleState {
    key: String,
    rule: Rule,
    alerts: BTreeMap<Labels, Active>,
    /// Series that the last evaluation returned, for staleness.
    returned: BTreeSet<Labels>,
    /// Alerts came from disk and were not yet told again.
    restored_at_ms: Option<i64>,
    last_ms: Option<i64>,
    last_error: Option<String>,
    seconds: f64,
}

// === impl RuleEngine ===

impl RuleEngine {
    /// An engine over these files with default options. With a directory, the state of alerts is kept in
    /// `alert-state.json` there and restored; a damaged file is set aside and reported by
    /// [`RuleEngine::restore_error`].
    #[must_use]
    pub fn new(files: Vec<RuleFile>, state_dir: Option<PathBuf>) -> Self {
        Self::with_options(files, state_dir, EngineOptions::default())
    }

    /// [`RuleEngine::new`] with options.
    #[must_use]
    pub fn with_options(
        files: Vec<RuleFile>,
        state_dir: Option<PathBuf>,
        options: EngineOptions,
    ) -> Self {
        let mut engine = RuleEngine {
            options,
            groups: groups_of(files),
            orphans: Vec::new(),
            restore_error: None,
            dirty: false,
            state_dir,
        };
        let loaded = match &engine.state_dir {
            Some(dir) => persist::load(dir),
            None => Ok(None),
        };
        match loaded {
            Ok(Some(saved)) => engine.restore(saved),
            Ok(None) => {}
            Err(e) => engine.restore_error = Some(e),
        }
        engine
    }

    /// Why the state of a former run could not be restored.
    #[must_use]
    pub fn restore_error(&self) -> Option<&str> {
        self.restore_error.as_deref()
    }

    /// Puts new rules in place of the old ones. Alerts of rules that stay (same group and name) keep their state;
    /// those of rules that are gone are resolved at the next tick.
    pub fn replace_rules(&mut self, files: Vec<RuleFile>) {
        let saved = self.snapshot();
        self.groups = groups_of(files);
        self.restore(saved);
        self.dirty = true;
    }

    /// Evaluates the groups that are due at `now_ms`. Call it at least as often as the shortest interval.
    pub fn tick(&mut self, now_ms: i64, source: &dyn Source, engine: &promql::Engine) -> Tick {
        let mut query =
            |source: &dyn Source, text: &str, t_ms: i64| match engine.instant(source, text, t_ms) {
                Ok(output) => Ok(output.data),
                Err(e) => Err(e.to_string()),
            };
        self.tick_with(now_ms, source, &mut query)
    }

    /// [`RuleEngine::tick`] with PromQL as a closure.
    pub fn tick_with(&mut self, now_ms: i64, source: &dyn Source, query: &mut Query<'_>) -> Tick {
        let mut tick = Tick::default();
        for orphan in std::mem::take(&mut self.orphans) {
            self.dirty = true;
            tick.transitions.push(evaluate::event(
                now_ms,
                "resolved",
                &orphan,
                "its rule is gone",
            ));
            let mut told = evaluate::notification(&orphan, Status::Resolved, &self.options, "");
            told.ends_at_ms = Some(now_ms);
            tick.notifications.push(told);
        }
        for group in &mut self.groups {
            let interval = group
                .group
                .interval_ms
                .unwrap_or(self.options.default_interval_ms);
            // Half a millisecond of scheduling slack would skip whole intervals: due means 98 % of one has passed.
            let due = group
                .last_ms
                .is_none_or(|last| now_ms < last || (now_ms - last) * 50 >= interval * 49);
            if due {
                let run = evaluate::Run {
                    now_ms,
                    interval_ms: interval,
                    options: &self.options,
                };
                self.dirty |= evaluate::group(group, &run, source, query, &mut tick);
                tick.groups_evaluated += 1;
            }
        }
        if self.dirty {
            self.dirty = false;
            self.save(&mut tick);
        }
        tick
    }

    /// When the next group is due, Unix milliseconds; `None` without groups.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<i64> {
        let due = |g: &GroupState| {
            let interval = g
                .group
                .interval_ms
                .unwrap_or(self.options.default_interval_ms);
            g.last_ms.map_or(i64::MIN, |last| last + interval)
        };
        self.groups.iter().map(due).min()
    }

    /// The data of `GET /api/v1/rules`.
    #[must_use]
    pub fn rules_body(&self) -> RulesBody {
        body::rules(&self.groups, self.options.default_interval_ms)
    }

    /// The data of `GET /api/v1/alerts`.
    #[must_use]
    pub fn alerts_body(&self) -> AlertsBody {
        body::alerts(&self.groups)
    }

    /// All alerts that are pending, firing, or resolved within [`RESOLVED_RETENTION_MS`].
    pub fn alerts(&self) -> impl Iterator<Item = &Active> {
        self.groups
            .iter()
            .flat_map(|g| &g.rules)
            .flat_map(|r| r.alerts.values())
    }

    /// Everything that fires now, as notifications: what Alertmanager's `GET /api/v2/alerts` lists.
    #[must_use]
    pub fn firing(&self) -> Vec<Notification> {
        let rules = self.groups.iter().flat_map(|g| &g.rules);
        rules
            .flat_map(|r| r.alerts.values().map(move |a| (r, a)))
            .filter(|(_, a)| a.state == AlertState::Firing)
            .map(|(r, a)| evaluate::notification(a, Status::Firing, &self.options, &r.rule.expr))
            .collect()
    }

    fn save(&self, tick: &mut Tick) {
        if let Some(dir) = &self.state_dir
            && let Err(e) = persist::save(dir, &self.snapshot())
        {
            tick.errors.push(format!("alert state is not saved: {e}"));
        }
    }

    fn snapshot(&self) -> persist::Saved {
        let rules = self.groups.iter().flat_map(|g| &g.rules);
        let saved = rules
            .filter(|r| !r.alerts.is_empty())
            .map(|r| persist::SavedRule {
                key: r.key.clone(),
                last_ms: r.last_ms,
                alerts: r.alerts.values().map(persist::SavedAlert::from).collect(),
            });
        persist::Saved {
            version: persist::VERSION,
            rules: saved.collect(),
        }
    }

    fn restore(&mut self, saved: persist::Saved) {
        for rule in saved.rules {
            let found = self
                .groups
                .iter_mut()
                .flat_map(|g| &mut g.rules)
                .find(|r| r.key == rule.key);
            let alerts = rule.alerts.into_iter().map(Active::from);
            match found {
                Some(state) => {
                    state.restored_at_ms = rule.last_ms;
                    state.alerts = alerts.map(|a| (a.labels.clone(), a)).collect();
                }
                None => self
                    .orphans
                    .extend(alerts.filter(|a| a.state == AlertState::Firing)),
            }
        }
    }
}

fn groups_of(files: Vec<RuleFile>) -> Vec<GroupState> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut groups = Vec::new();
    for file in files {
        for mut group in file.groups {
            let rules = std::mem::take(&mut group.rules);
            let rules = rules.into_iter().map(|rule| {
                let base = format!("{}/{}", group.name, rule.name);
                let count = seen.entry(base.clone()).or_default();
                *count += 1;
                RuleState::new(format!("{base}/{count}"), rule)
            });
            let rules = rules.collect();
            groups.push(GroupState {
                file: file.name.clone(),
                group,
                rules,
                last_ms: None,
                seconds: 0.0,
            });
        }
    }
    groups
}

// === impl RuleState ===

impl RuleState {
    fn new(key: String, rule: Rule) -> Self {
        RuleState {
            key,
            rule,
            alerts: BTreeMap::new(),
            returned: BTreeSet::new(),
            restored_at_ms: None,
            last_ms: None,
            last_error: None,
            seconds: 0.0,
        }
    }
}

#[cfg(test)]
mod tests;
