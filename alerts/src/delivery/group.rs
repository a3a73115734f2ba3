//! Groups of alerts that share a page: when to open, extend, repeat and close them.
//!
//! Owns the timing of groups. Pure: time is an argument. Must not know receivers' formats nor disks.

use std::collections::{BTreeMap, BTreeSet};

use model::Labels;

use super::config::RouteConfig;
use super::message::Message;
use crate::notification::{Notification, Status};

/// One group on one route.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) route: RouteConfig,
    labels: Labels,
    members: BTreeMap<String, Notification>,
    /// When the first alert came, Unix milliseconds.
    since_ms: i64,
    /// When it was told last, Unix milliseconds.
    told_ms: Option<i64>,
    /// What fired then: fingerprint and start.
    told: BTreeSet<(String, i64)>,
    /// A receiver has an open incident for it (from the outbox after a restart).
    open: bool,
}

/// What a group has to say.
#[derive(Debug, PartialEq)]
pub(super) struct Say {
    pub(super) message: Message,
    /// Nothing changed: it only reminds.
    pub(super) repeats: bool,
}

// === impl Group ===

impl Group {
    pub(super) fn new(route: RouteConfig, labels: Labels, now_ms: i64, open: bool) -> Self {
        Group {
            route,
            labels,
            members: BTreeMap::new(),
            since_ms: now_ms,
            told_ms: None,
            told: BTreeSet::new(),
            open,
        }
    }

    /// Takes in news of one alert.
    pub(super) fn apply(&mut self, alert: Notification) {
        self.members.insert(alert.fingerprint(), alert);
    }

    fn firing(&self) -> impl Iterator<Item = (String, i64)> + '_ {
        let all = self
            .members
            .iter()
            .filter(|(_, a)| a.status == Status::Firing);
        all.map(|(f, a)| (f.clone(), a.starts_at_ms))
    }

    fn has_news(&self) -> bool {
        self.firing().any(|f| !self.told.contains(&f))
    }

    /// When the group has something to say, Unix milliseconds.
    pub(super) fn due_ms(&self) -> Option<i64> {
        if self.members.is_empty() {
            return None;
        }
        if self.firing().next().is_none() {
            return Some(i64::MIN);
        }
        match self.told_ms {
            None => Some(self.since_ms + self.route.group_wait),
            Some(told) if self.has_news() => Some(told + self.route.group_interval),
            Some(told) => {
                (self.route.repeat_interval > 0).then(|| told + self.route.repeat_interval)
            }
        }
    }

    /// What is due at `now_ms`.
    pub(super) fn flush(&mut self, key: &str, external_url: &str, now_ms: i64) -> Option<Say> {
        if self.due_ms().is_none_or(|due| due > now_ms) {
            return None;
        }
        let fires = self.firing().next().is_some();
        let mut message = Message {
            status: if fires {
                Status::Firing
            } else {
                Status::Resolved
            },
            dedup_key: key.to_owned(),
            group_labels: self.labels.clone(),
            alerts: self.members.values().cloned().collect(),
            external_url: external_url.to_owned(),
            note: None,
        };
        message.sort();
        if !fires {
            // Fired and ended before anything was said: then nothing is.
            let was_open = std::mem::take(&mut self.open);
            self.members.clear();
            return was_open.then_some(Say {
                message,
                repeats: false,
            });
        }
        let repeats = self.told_ms.is_some() && !self.has_news();
        self.told = self.firing().collect();
        self.told_ms = Some(now_ms);
        self.open = true;
        self.members.retain(|_, a| a.status == Status::Firing);
        Some(Say { message, repeats })
    }

    /// Nothing left to tell or to close.
    pub(super) fn is_done(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: &str, status: Status, starts_at_ms: i64) -> Notification {
        Notification {
            status,
            labels: Labels::from_pairs([("alertname", name), ("severity", "critical")]),
            annotations: BTreeMap::new(),
            starts_at_ms,
            ends_at_ms: None,
            value: "1".into(),
            generator_url: String::new(),
        }
    }

    fn group(wait: i64) -> Group {
        let route = RouteConfig {
            group_wait: wait,
            group_interval: 100,
            repeat_interval: 1_000,
            ..RouteConfig::default()
        };
        Group::new(route, Labels::empty(), 0, false)
    }

    fn say(group: &mut Group, now_ms: i64) -> Option<(Status, usize, bool)> {
        group
            .flush("k", "", now_ms)
            .map(|s| (s.message.status, s.message.alerts.len(), s.repeats))
    }

    #[test]
    fn waits_extends_repeats_and_closes() {
        let mut g = group(30);
        g.apply(alert("A", Status::Firing, 0));
        assert_eq!(say(&mut g, 29), None);
        g.apply(alert("B", Status::Firing, 10));
        assert_eq!(say(&mut g, 30), Some((Status::Firing, 2, false)));
        assert_eq!(say(&mut g, 31), None);
        g.apply(alert("C", Status::Firing, 40));
        assert_eq!(say(&mut g, 129), None);
        assert_eq!(say(&mut g, 130), Some((Status::Firing, 3, false)));
        g.apply(alert("A", Status::Resolved, 0));
        assert_eq!(say(&mut g, 1_129), None);
        assert_eq!(say(&mut g, 1_130), Some((Status::Firing, 3, true)));
        g.apply(alert("B", Status::Resolved, 10));
        g.apply(alert("C", Status::Resolved, 40));
        assert_eq!(say(&mut g, 1_131), Some((Status::Resolved, 2, false)));
        assert!(g.is_done());
    }

    #[test]
    fn what_ends_within_the_wait_is_never_told() {
        let mut g = group(30);
        g.apply(alert("A", Status::Firing, 0));
        g.apply(alert("A", Status::Resolved, 0));
        assert_eq!(say(&mut g, 1), None);
        assert!(g.is_done());
    }

    #[test]
    fn an_incident_open_since_before_a_restart_is_closed() {
        let mut g = Group::new(RouteConfig::default(), Labels::empty(), 0, true);
        g.apply(alert("A", Status::Resolved, 0));
        assert_eq!(say(&mut g, 0), Some((Status::Resolved, 1, false)));
    }
}
