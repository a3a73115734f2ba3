//! What the rule engine tells the delivery: one alert fired, or is resolved.
//!
//! Owns the value and its fingerprint. Must not know receivers nor how an alert came to fire.

use std::collections::BTreeMap;

use model::Labels;
use serde::{Deserialize, Serialize};

/// Whether an alert fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It fires.
    Firing,
    /// It fired and no longer does.
    Resolved,
}

/// One alert that began or ceased to fire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Which of the two.
    pub status: Status,
    /// The alert's labels, `alertname` and external labels included.
    pub labels: Labels,
    /// Its annotations, expanded.
    pub annotations: BTreeMap<String, String>,
    /// When it became active, Unix milliseconds.
    pub starts_at_ms: i64,
    /// When it was resolved, Unix milliseconds; `None` while it fires.
    pub ends_at_ms: Option<i64>,
    /// The expression's value as text (`NaN` survives).
    pub value: String,
    /// A link to the expression.
    pub generator_url: String,
}

// === impl Notification ===

impl Notification {
    /// `alertname`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.labels.get("alertname").unwrap_or("")
    }

    /// The `severity` label, or the empty string.
    #[must_use]
    pub fn severity(&self) -> &str {
        self.labels.get("severity").unwrap_or("")
    }

    /// An annotation, or the empty string.
    #[must_use]
    pub fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }

    /// Alertmanager's fingerprint of the labels: 16 hex digits, the same over restarts and versions.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.labels)
    }
}

/// 64-bit FNV-1a over `name 0xff value 0xff …` in the order of names, as Alertmanager computes it.
#[must_use]
pub fn fingerprint(labels: &Labels) -> String {
    let mut hash = Fnv::default();
    for (name, value) in labels {
        hash.write(name.as_bytes());
        hash.write(&[0xff]);
        hash.write(value.as_bytes());
        hash.write(&[0xff]);
    }
    format!("{:016x}", hash.0)
}

/// 64-bit FNV-1a.
pub(crate) struct Fnv(pub(crate) u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_stable() {
        let labels = Labels::from_pairs([("alertname", "Watchdog")]);
        assert_eq!(fingerprint(&labels), fingerprint(&labels.clone()));
        assert_ne!(fingerprint(&labels), fingerprint(&labels.with("a", "b")));
        // The empty set is FNV's offset basis.
        assert_eq!(fingerprint(&Labels::empty()), "cbf29ce484222325");
    }
}
