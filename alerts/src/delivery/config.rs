//! Where notifications go: receivers, routes, and their timing.
//!
//! Owns the configuration's shape, defaults and secrets. Must not know how anything is sent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The whole of delivery's configuration. Without receivers, alerts only show in the log of events.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryConfig {
    /// Receivers, each with a unique name.
    pub receivers: Vec<ReceiverConfig>,
    /// Routes, tried in order. Empty: critical goes to every pagerduty and webhook receiver, warning to every slack
    /// receiver, everything else to nobody.
    pub routes: Vec<RouteConfig>,
    /// The receiver that gets what another cannot deliver.
    pub fallback: Option<String>,
    /// How many failed attempts bring in the fallback while retries go on.
    pub fallback_after_attempts: u32,
    /// After how long retries end in a dead letter, as a duration.
    #[serde(with = "duration_text")]
    pub give_up_after: i64,
    /// First wait between attempts; it doubles up to `retry_max`, with full jitter.
    #[serde(with = "duration_text")]
    pub retry_min: i64,
    /// Longest wait between attempts.
    #[serde(with = "duration_text")]
    pub retry_max: i64,
    /// How long one request may take.
    #[serde(with = "duration_text")]
    pub timeout: i64,
    /// Where people reach the agent, for links.
    pub external_url: String,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        DeliveryConfig {
            receivers: Vec::new(),
            routes: Vec::new(),
            fallback: None,
            fallback_after_attempts: 5,
            give_up_after: 86_400_000,
            retry_min: 1_000,
            retry_max: 300_000,
            timeout: 10_000,
            external_url: String::new(),
        }
    }
}

/// A receiver: a name and exactly one of the kinds.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverConfig {
    /// Its name, unique.
    pub name: String,
    /// PagerDuty Events v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pagerduty: Option<PagerDutyConfig>,
    /// A Slack incoming webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackConfig>,
    /// Alertmanager's webhook body, version 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookConfig>,
}

/// PagerDuty Events v2.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PagerDutyConfig {
    /// The integration's key.
    pub routing_key: Secret,
    /// Where events go.
    #[serde(default = "pagerduty_url")]
    pub url: String,
}

fn pagerduty_url() -> String {
    "https://events.pagerduty.com/v2/enqueue".into()
}

/// A Slack incoming webhook. Its URL is a secret.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SlackConfig {
    /// The webhook's URL.
    pub url: Secret,
}

/// A generic webhook.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where bodies are posted.
    pub url: Secret,
    /// A bearer token for the Authorization header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<Secret>,
}

/// Which alerts go where. All given conditions must hold.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Severities; empty for any.
    pub severity: Vec<String>,
    /// Matchers such as `team="core"` or `service=~"a|b"`.
    pub matchers: Vec<String>,
    /// Names of receivers; empty to drop.
    pub receivers: Vec<String>,
    /// Labels by which alerts share one page. An alert that has none of them stands alone.
    pub group_by: Vec<String>,
    /// How long a new group waits for more alerts.
    #[serde(with = "duration_text")]
    pub group_wait: i64,
    /// How long an open group waits before it tells of further alerts.
    #[serde(with = "duration_text")]
    pub group_interval: i64,
    /// After how long an open group is told again; 0 for never.
    #[serde(with = "duration_text")]
    pub repeat_interval: i64,
    /// Whether later routes are tried too.
    #[serde(rename = "continue")]
    pub go_on: bool,
}

impl Default for RouteConfig {
    fn default() -> Self {
        RouteConfig {
            severity: Vec::new(),
            matchers: Vec::new(),
            receivers: Vec::new(),
            group_by: vec!["incident".into()],
            group_wait: 0,
            group_interval: 300_000,
            repeat_interval: 4 * 3_600_000,
            go_on: false,
        }
    }
}

/// The kind of a receiver.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReceiverKind<'a> {
    /// PagerDuty Events v2.
    PagerDuty(&'a PagerDutyConfig),
    /// Slack.
    Slack(&'a SlackConfig),
    /// Webhook.
    Webhook(&'a WebhookConfig),
}

// === impl ReceiverConfig ===

impl ReceiverConfig {
    /// A PagerDuty receiver.
    #[must_use]
    pub fn pagerduty(name: &str, url: &str, routing_key: Secret) -> Self {
        ReceiverConfig {
            name: name.to_owned(),
            pagerduty: Some(PagerDutyConfig {
                routing_key,
                url: url.to_owned(),
            }),
            ..Self::default()
        }
    }

    /// A Slack receiver.
    #[must_use]
    pub fn slack(name: &str, url: &str) -> Self {
        ReceiverConfig {
            name: name.to_owned(),
            slack: Some(SlackConfig {
                url: Secret::new(url),
            }),
            ..Self::default()
        }
    }

    /// A webhook receiver.
    #[must_use]
    pub fn webhook(name: &str, url: &str) -> Self {
        ReceiverConfig {
            name: name.to_owned(),
            webhook: Some(WebhookConfig {
                url: Secret::new(url),
                bearer_token: None,
            }),
            ..Self::default()
        }
    }

    /// Its kind. Errors unless exactly one is given.
    pub fn kind(&self) -> Result<ReceiverKind<'_>, String> {
        match (&self.pagerduty, &self.slack, &self.webhook) {
            (Some(p), None, None) => Ok(ReceiverKind::PagerDuty(p)),
            (None, Some(s), None) => Ok(ReceiverKind::Slack(s)),
            (None, None, Some(w)) => Ok(ReceiverKind::Webhook(w)),
            _ => Err(format!(
                "receiver {:?} needs exactly one of pagerduty, slack, webhook",
                self.name
            )),
        }
    }
}

/// A text that is never shown: a literal, `env:NAME`, or `file:/path`, read when it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

// === impl Secret ===

impl Secret {
    /// A secret from its spelling: a literal, `env:NAME` or `file:/path`.
    #[must_use]
    pub fn new(spelling: &str) -> Self {
        Secret(spelling.to_owned())
    }

    /// The value. Errors name the variable or file, never a value.
    pub fn reveal(&self) -> Result<String, String> {
        if let Some(name) = self.0.strip_prefix("env:") {
            return std::env::var(name)
                .map_err(|_| format!("environment variable {name} is not set"));
        }
        if let Some(path) = self.0.strip_prefix("file:") {
            return std::fs::read_to_string(path)
                .map(|s| s.trim().to_owned())
                .map_err(|e| format!("secret file {path}: {e}"));
        }
        Ok(self.0.clone())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<secret>")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret)
    }
}

/// Durations as text in files, milliseconds in memory.
mod duration_text {
    use serde::{Deserialize, Deserializer, Serializer};

    // serde's `with` asks for a reference.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde's `with` passes a reference"
    )]
    pub(super) fn serialize<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&model::duration::format_ms(*ms))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        model::duration::parse_ms(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_yaml_and_hides_secrets() {
        let text = "receivers:\n  - name: oncall\n    pagerduty: {routing_key: abc123}\n  - name: chat\n    slack: {url: 'env:NINES_NO_SUCH_VARIABLE'}\nroutes:\n  - severity: [critical]\n    receivers: [oncall]\n    group_wait: 10s\n";
        let config: DeliveryConfig = serde_saphyr::from_str(text).unwrap();
        assert_eq!(config.routes[0].group_wait, 10_000);
        assert!(!format!("{config:?}").contains("abc123"));
        assert!(!serde_json::to_string(&config).unwrap().contains("abc123"));
        let slack = config.receivers[1].slack.as_ref().unwrap();
        assert!(
            slack
                .url
                .reveal()
                .unwrap_err()
                .contains("NINES_NO_SUCH_VARIABLE")
        );
        assert!(ReceiverConfig::default().kind().is_err());
    }
}
