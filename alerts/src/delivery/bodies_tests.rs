//! The bodies that receivers get, and their limits.

use std::collections::BTreeMap;

use model::Labels;
use serde_json::json;

use super::{Message, pagerduty, slack, webhook};
use crate::notification::{Notification, Status};

fn message(alerts: usize, summary: &str) -> Message {
    let one = |i: usize| Notification {
        status: Status::Firing,
        labels: Labels::from_pairs([
            ("alertname", "CircuitOpen".to_owned()),
            ("severity", "critical".to_owned()),
            ("dependency", "cache".to_owned()),
            ("n", i.to_string()),
        ]),
        annotations: BTreeMap::from([
            ("summary".to_owned(), summary.to_owned()),
            (
                "image".to_owned(),
                "https://example.invalid/graph.png".to_owned(),
            ),
        ]),
        starts_at_ms: 0,
        ends_at_ms: None,
        value: "2".into(),
        generator_url: "http://127.0.0.1/graph".into(),
    };
    Message {
        status: Status::Firing,
        dedup_key: "nines-0".into(),
        group_labels: Labels::empty(),
        alerts: (0..alerts).map(one).collect(),
        external_url: "http://127.0.0.1".into(),
        note: None,
    }
}

#[test]
fn pagerduty_keeps_its_limits() {
    let body = pagerduty::body(&message(1, "é".repeat(3_000).as_str()), "key");
    let summary = body["payload"]["summary"].as_str().unwrap();
    assert_eq!(summary.chars().count(), 1024);
    assert_eq!(
        (&body["payload"]["source"], &body["images"][0]["alt"]),
        (&json!("cache"), &json!("CircuitOpen"))
    );
    let huge = pagerduty::body(&message(3_000, "x".repeat(500).as_str()), "key");
    assert!(huge.to_string().len() <= 512 * 1024);
    assert!(huge["payload"]["custom_details"]["truncated"].is_string());
    assert_eq!(huge["event_action"], "trigger");
    let mut resolved = message(1, "x");
    resolved.status = Status::Resolved;
    let body = pagerduty::body(&resolved, "key");
    assert_eq!(
        body,
        json!({"routing_key": "key", "event_action": "resolve", "dedup_key": "nines-0"})
    );
}

#[test]
fn slack_keeps_its_limits_and_escapes() {
    let body = slack::body(&message(60, &"<a&b>".repeat(2_000)));
    let blocks = body["blocks"].as_array().unwrap();
    assert!(blocks.len() <= 50);
    for block in blocks {
        let text = block["text"]["text"].as_str().unwrap_or("");
        assert!(text.chars().count() <= 3_000);
    }
    assert!(blocks[0]["text"]["text"].as_str().unwrap().chars().count() <= 150);
    assert!(
        blocks[1]["text"]["text"]
            .as_str()
            .unwrap()
            .contains("&lt;a&amp;b&gt;")
    );
    assert!(
        blocks.last().unwrap()["elements"][0]["text"]
            .as_str()
            .unwrap()
            .contains("and 50 more")
    );
}

#[test]
fn webhook_tells_what_alerts_share() {
    let body = webhook::body(&message(2, "x"), "hook");
    assert_eq!(
        body["commonLabels"],
        json!({"alertname": "CircuitOpen", "dependency": "cache", "severity": "critical"})
    );
    assert_eq!(
        (&body["receiver"], &body["status"]),
        (&json!("hook"), &json!("firing"))
    );
    assert_eq!(body["alerts"][0]["fingerprint"].as_str().unwrap().len(), 16);
}
