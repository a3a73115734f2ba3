//! What is told of a group of alerts: one message for one receiver.
//!
//! Owns the value and what alerts of a group have in common. Must not know any receiver's format.

use std::collections::BTreeMap;

use model::Labels;
use serde::{Deserialize, Serialize};

use crate::notification::{Fnv, Notification, Status};

/// A group of alerts at an instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Firing while any alert of the group fires.
    pub status: Status,
    /// The same for the life of the group and over restarts: `nines-` and 16 hex digits.
    pub dedup_key: String,
    /// The labels by which the alerts were grouped.
    pub group_labels: Labels,
    /// The alerts, firing ones first, the most severe first.
    pub alerts: Vec<Notification>,
    /// Who sends it, for links.
    pub external_url: String,
    /// Set when this receiver stands in for another: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

// === impl Message ===

impl Message {
    /// The alerts that fire.
    pub fn firing(&self) -> impl Iterator<Item = &Notification> {
        self.alerts.iter().filter(|a| a.status == Status::Firing)
    }

    /// The severest severity of the group.
    #[must_use]
    pub fn severity(&self) -> &str {
        self.alerts
            .iter()
            .map(Notification::severity)
            .min_by_key(|s| rank(s))
            .unwrap_or("")
    }

    /// One line that says what happens.
    #[must_use]
    pub fn summary(&self) -> String {
        let Some(first) = self.alerts.first() else {
            return String::new();
        };
        let text = match first.annotation("summary") {
            "" => first.name(),
            summary => summary,
        };
        let names = if text == first.name() {
            String::new()
        } else {
            format!("{}: ", first.name())
        };
        match self.alerts.len() {
            1 => format!("{names}{text}"),
            n => format!("{names}{text} (+{} more)", n - 1),
        }
    }

    /// Labels that all alerts share.
    #[must_use]
    pub fn common_labels(&self) -> Labels {
        let Some(first) = self.alerts.first() else {
            return Labels::empty();
        };
        first.labels.retain(|n| {
            self.alerts
                .iter()
                .all(|a| a.labels.get(n) == first.labels.get(n))
        })
    }

    /// Annotations that all alerts share.
    #[must_use]
    pub fn common_annotations(&self) -> BTreeMap<String, String> {
        let Some(first) = self.alerts.first() else {
            return BTreeMap::new();
        };
        let shared = |k: &str, v: &str| {
            self.alerts
                .iter()
                .all(|a| a.annotations.get(k).is_some_and(|o| o == v))
        };
        first
            .annotations
            .iter()
            .filter(|(k, v)| shared(k, v))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// Identifies what fires and since when: two messages with the same content need not both be sent.
    #[must_use]
    pub fn content_hash(&self) -> String {
        let mut parts: Vec<String> = self
            .firing()
            .map(|a| format!("{}@{}", a.fingerprint(), a.starts_at_ms))
            .collect();
        parts.sort();
        let mut hash = Fnv::default();
        parts.iter().for_each(|p| hash.write(p.as_bytes()));
        format!("{:016x}", hash.0)
    }

    /// Puts firing alerts first, then the severest, then by name.
    pub(super) fn sort(&mut self) {
        self.alerts.sort_by(|a, b| {
            let key = |n: &Notification| {
                (
                    n.status == Status::Resolved,
                    rank(n.severity()),
                    n.starts_at_ms,
                )
            };
            key(a).cmp(&key(b)).then_with(|| a.labels.cmp(&b.labels))
        });
    }
}

/// The order of severities: the lower the worse.
pub(crate) fn rank(severity: &str) -> u8 {
    match severity {
        "critical" | "page" => 0,
        "error" => 1,
        "warning" => 2,
        "info" => 3,
        _ => 4,
    }
}
