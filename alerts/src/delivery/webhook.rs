//! Alertmanager's webhook body, version 4.
//!
//! Owns the body. Pure. Must not know HTTP. Source: <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>

use model::timestamp::format_rfc3339;
use serde_json::{Value as Json, json};

use super::message::Message;
use crate::notification::Notification;

/// The body for a message.
#[must_use]
pub fn body(message: &Message, receiver: &str) -> Json {
    let alerts: Vec<Json> = message.alerts.iter().map(alert).collect();
    let mut body = json!({
        "version": "4",
        "groupKey": message.dedup_key,
        "truncatedAlerts": 0,
        "status": message.status,
        "receiver": receiver,
        "groupLabels": message.group_labels,
        "commonLabels": message.common_labels(),
        "commonAnnotations": message.common_annotations(),
        "externalURL": message.external_url,
        "alerts": alerts,
    });
    if let Some(note) = &message.note {
        body["note"] = json!(note);
    }
    body
}

fn alert(alert: &Notification) -> Json {
    json!({
        "status": alert.status,
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": format_rfc3339(alert.starts_at_ms),
        "endsAt": alert.ends_at_ms.map_or_else(|| "0001-01-01T00:00:00Z".into(), format_rfc3339),
        "generatorURL": alert.generator_url,
        "fingerprint": alert.fingerprint(),
    })
}
