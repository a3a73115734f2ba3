//! PagerDuty Events API v2.
//!
//! Owns the event's body and its limits. Pure. Must not know HTTP. Source:
//! <https://developer.pagerduty.com/docs/events-api-v2-overview> (summary 1024 characters, dedup_key 255, body 512 KB,
//! severity critical|error|warning|info, images need https).

use model::timestamp::format_rfc3339;
use serde_json::{Value as Json, json};

use super::message::Message;
use crate::notification::{Notification, Status};

/// The longest summary, characters.
const SUMMARY: usize = 1024;
/// The longest body, bytes.
const BODY: usize = 512 * 1024;

/// The event for a message. The body never exceeds 512 KB: details are left out first.
#[must_use]
pub fn body(message: &Message, routing_key: &str) -> Json {
    let key: String = message.dedup_key.chars().take(255).collect();
    if message.status == Status::Resolved {
        return json!({"routing_key": routing_key, "event_action": "resolve", "dedup_key": key});
    }
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": key,
        "client": "nines",
        "payload": payload(message),
        "links": links(message),
    });
    if !message.external_url.is_empty() {
        event["client_url"] = json!(message.external_url);
    }
    let images = images(message);
    if !images.is_empty() {
        event["images"] = Json::Array(images);
    }
    if event.to_string().len() > BODY {
        event["payload"]["custom_details"] = json!({"truncated": "details exceeded 512 KB"});
        event["links"] = json!([]);
        event["images"] = json!([]);
    }
    event
}

fn payload(message: &Message) -> Json {
    let first = message.alerts.first();
    let label = |names: &[&str]| {
        let found = names
            .iter()
            .find_map(|n| first.and_then(|a| a.labels.get(n)));
        found.map_or(Json::Null, |v| json!(v))
    };
    let source = match label(&["instance", "service", "dependency", "job"]) {
        Json::Null => json!("nines"),
        found => found,
    };
    let alerts: Vec<Json> = message.alerts.iter().map(detail).collect();
    let mut payload = json!({
        "summary": cut(&message.summary(), SUMMARY),
        "source": source,
        "severity": severity(message.severity()),
        "component": label(&["dependency", "service", "pool", "queue"]),
        "class": label(&["alertname"]),
        "group": label(&["incident"]),
        "custom_details": {
            "firing": message.firing().count(),
            "alerts": alerts,
        },
    });
    if let Some(first) = first {
        payload["timestamp"] = json!(format_rfc3339(first.starts_at_ms));
    }
    if let Some(note) = &message.note {
        payload["custom_details"]["note"] = json!(note);
    }
    if let Some(map) = payload.as_object_mut() {
        map.retain(|_, v| !v.is_null());
    }
    payload
}

fn detail(alert: &Notification) -> Json {
    json!({
        "status": alert.status,
        "labels": alert.labels,
        "annotations": alert.annotations,
        "value": alert.value,
        "since": format_rfc3339(alert.starts_at_ms),
    })
}

fn links(message: &Message) -> Vec<Json> {
    let mut out: Vec<Json> = Vec::new();
    for alert in &message.alerts {
        let named = [
            (alert.annotation("runbook"), "Runbook"),
            (alert.annotation("dashboard"), "Dashboard"),
            (alert.generator_url.as_str(), "Expression"),
        ];
        for (href, what) in named {
            let link = json!({"href": href, "text": format!("{what}: {}", alert.name())});
            if href.starts_with("http") && !out.contains(&link) && out.len() < 20 {
                out.push(link);
            }
        }
    }
    out
}

fn images(message: &Message) -> Vec<Json> {
    let sources = message
        .alerts
        .iter()
        .map(|a| (a.annotation("image"), a.name()));
    let https = sources.filter(|(src, _)| src.starts_with("https://"));
    https
        .take(10)
        .map(|(src, name)| json!({"src": src, "alt": name}))
        .collect()
}

fn severity(ours: &str) -> &'static str {
    match ours {
        "critical" | "page" => "critical",
        "warning" => "warning",
        "info" => "info",
        _ => "error",
    }
}

/// The first `max` characters, the last one an ellipsis when something was cut.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}
