//! Slack incoming webhooks.
//!
//! Owns the blocks and their limits. Pure. Must not know HTTP. Source: <https://docs.slack.dev/reference/block-kit/blocks>
//! (header 150 characters, section text 3000, at most 50 blocks).

use serde_json::{Value as Json, json};

use super::message::Message;
use super::pagerduty::cut;
use crate::notification::{Notification, Status};

const HEADER: usize = 150;
const SECTION: usize = 3000;
/// Alerts that are listed one by one; the rest are counted.
const LISTED: usize = 10;

/// The body for a message.
#[must_use]
pub fn body(message: &Message) -> Json {
    let word = match (message.status, message.severity()) {
        (Status::Resolved, _) => "RESOLVED",
        (Status::Firing, "critical") => "CRITICAL",
        (Status::Firing, "warning") => "WARNING",
        (Status::Firing, _) => "FIRING",
    };
    let title = format!("{word} {}", message.summary());
    let mut blocks = vec![json!({
        "type": "header",
        "text": {"type": "plain_text", "text": cut(&title, HEADER)},
    })];
    for alert in message.alerts.iter().take(LISTED) {
        blocks.push(section(&text(alert)));
    }
    let mut footer = Vec::new();
    if message.alerts.len() > LISTED {
        footer.push(format!("and {} more", message.alerts.len() - LISTED));
    }
    footer.extend(message.note.iter().map(|n| escape(n)));
    footer.push(format!("`{}`", escape(&message.dedup_key)));
    blocks.push(json!({
        "type": "context",
        "elements": [{"type": "mrkdwn", "text": cut(&footer.join("  "), SECTION)}],
    }));
    json!({"text": cut(&escape(&title), SECTION), "blocks": blocks})
}

fn section(text: &str) -> Json {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(text, SECTION)}})
}

fn text(alert: &Notification) -> String {
    let mut lines = vec![match alert.annotation("summary") {
        "" => format!("*{}*", escape(alert.name())),
        summary => format!("*{}*: {}", escape(alert.name()), escape(summary)),
    }];
    if !alert.annotation("description").is_empty() {
        lines.push(escape(alert.annotation("description")));
    }
    let hidden = ["alertname", "incident"];
    let shown = alert.labels.iter().filter(|(n, _)| !hidden.contains(n));
    let labels: Vec<String> = shown.map(|(n, v)| format!("{n}={v}")).collect();
    lines.push(format!("`{}`", escape(&labels.join(" ")).replace('`', "'")));
    let mut links = Vec::new();
    for (href, what) in [
        (alert.annotation("runbook"), "runbook"),
        (alert.annotation("dashboard"), "dashboard"),
        (alert.generator_url.as_str(), "expression"),
    ] {
        if href.starts_with("http") {
            links.push(format!("<{}|{what}>", escape(href).replace('|', "%7C")));
        } else if !href.is_empty() {
            links.push(format!("{what}: {}", escape(href)));
        }
    }
    if !links.is_empty() {
        lines.push(links.join(" · "));
    }
    lines.join("\n")
}

/// Slack's three control characters.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
