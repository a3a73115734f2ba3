//! The whole loop through the real binary: `nines demo` without a terminal, with and without a fault.
//!
//! Owns what the demo promises. Must not know how its parts are wired.

use serde_json::Value;

use super::running::{nines, stderr, stdout};

fn demo(args: &[&str]) -> (Option<i32>, Value, String) {
    let mut all = vec!["demo", "--headless", "--format", "json", "--quiet"];
    all.extend(args);
    let output = nines(&all);
    let text = stdout(&output);
    let summary = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("the summary is not JSON: {e}\n{text}\n{}", stderr(&output)));
    (output.status.code(), summary, stderr(&output))
}

fn arrivals<'a>(summary: &'a Value, channel: &str, action: &str) -> Vec<&'a Value> {
    let all = summary["arrivals"].as_array().expect("arrivals");
    all.iter()
        .filter(|a| a["channel"] == channel && a["action"] == action)
        .collect()
}

#[test]
#[ignore = "takes a quarter of a minute of load; tests/run runs it"]
fn demo_reports_exactly_what_happened() {
    let (code, summary, errors) = demo(&["--for", "15s"]);
    assert_eq!(code, Some(0), "{:#}\n{errors}", summary["problems"]);
    assert!(
        summary["requests_per_second"].as_f64().unwrap() >= 100.0,
        "{:#}",
        summary["load"]
    );
    let counts = summary["counts"].as_array().unwrap();
    assert_eq!(counts.len(), 5);
    for count in counts {
        assert_eq!(
            count["agent"].as_f64(),
            count["truth"].as_f64(),
            "{count:#}"
        );
    }
    assert!(counts[0]["truth"].as_u64().unwrap() >= 1_500, "{counts:#?}");
    assert!(summary["server_quantiles"][2].as_f64().unwrap() > 0.0);
    assert!(
        summary["hit_rate"][0].as_f64().unwrap() > 0.5,
        "{:#}",
        summary["hit_rate"]
    );
}

const DRILL: [&str; 6] = [
    "--for",
    "90s",
    "--time-scale",
    "60",
    "--break",
    "redis-down",
];

#[test]
#[ignore = "takes a minute and a half; tests/run runs it"]
fn demo_redis_down_pages_once_and_resolves() {
    let (code, summary, errors) = demo(&DRILL);
    assert_eq!(code, Some(0), "{:#}\n{errors}", summary["problems"]);
    assert_drill(&summary);
}

/// The folder of a running `backend/stack`, which tests/run starts.
fn stack() -> String {
    let env = std::env::var("NINES_STACK_ENV").expect("NINES_STACK_ENV: tests/run sets it");
    env.strip_suffix("/env")
        .expect("the stack's file env")
        .to_owned()
}

#[test]
#[ignore = "needs nginx, haproxy, redis, postgresql, rabbitmq"]
fn stack_counts_are_exact_through_nginx() {
    let (code, summary, errors) = demo(&["--for", "15s", "--stack", &stack()]);
    assert_eq!(code, Some(0), "{:#}\n{errors}", summary["problems"]);
    let counts = summary["counts"].as_array().unwrap();
    assert!(
        counts.len() == 5 && counts.iter().all(|c| c["equal"] == true),
        "{counts:#?}"
    );
    assert!(counts[0]["truth"].as_u64().unwrap() >= 1_500, "{counts:#?}");
}

#[test]
#[ignore = "needs nginx, haproxy, redis, postgresql, rabbitmq"]
fn stack_drill_stops_the_real_redis() {
    let stack = stack();
    let (code, summary, errors) = demo(&[&DRILL[..], &["--stack", &stack]].concat());
    assert_eq!(code, Some(0), "{:#}\n{errors}", summary["problems"]);
    assert_drill(&summary);
    let errors_5xx = &summary["counts"][1];
    assert_eq!(
        (errors_5xx["name"].as_str(), errors_5xx["truth"].as_u64()),
        (Some("errors"), Some(0)),
        "reads go on"
    );
}

#[expect(
    clippy::unwrap_used,
    reason = "a check of a test that fails should fail its test"
)]
fn assert_drill(summary: &Value) {
    let (triggers, resolves) = (
        arrivals(summary, "pagerduty", "trigger"),
        arrivals(summary, "pagerduty", "resolve"),
    );
    assert_eq!(
        (triggers.len(), resolves.len()),
        (1, 1),
        "{:#}",
        summary["arrivals"]
    );
    assert_eq!(triggers[0]["dedup_key"], resolves[0]["dedup_key"]);
    let injected = &summary["injected"];
    assert!(triggers[0]["t_ms"].as_i64() > injected["from_ms"].as_i64());
    assert!(resolves[0]["t_ms"].as_i64() > injected["until_ms"].as_i64());
    assert_eq!(summary["breaker_opened"], true);
    let rates: Vec<f64> = summary["hit_rate"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r.as_f64().unwrap())
        .collect();
    assert!(
        rates[1] < rates[0] / 2.0,
        "the hit rate did not fall: {rates:?}"
    );
    let kinds: Vec<&str> = summary["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["alert"] == "CircuitOpen")
        .filter_map(|e| e["kind"].as_str())
        .collect();
    let at = |kind: &str| {
        kinds
            .iter()
            .position(|k| *k == kind)
            .unwrap_or_else(|| panic!("no {kind} in {kinds:?}"))
    };
    assert!(
        at("pending") < at("firing") && at("firing") < at("resolved"),
        "{kinds:?}"
    );
}

#[test]
fn demo_needs_a_terminal_or_headless() {
    let output = nines(&["demo"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("--headless"),
        "{}",
        stderr(&output)
    );
    let output = nines(&["demo", "--headless", "--for", "1s"]);
    assert_eq!(output.status.code(), Some(2));
    let output = nines(&["demo", "--headless", "--break", "redis-dwon"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("redis-down"),
        "{}",
        stderr(&output)
    );
}
