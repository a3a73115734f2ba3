//! Prometheus' and Alertmanager's own tools against the real binary.
//!
//! Owns what their output must say. Must not know how the API makes it.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::Client;

use super::running::{Agent, stderr, stdout};

/// Runs a tool to its end.
fn output(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Runs a tool that must succeed and returns what it printed.
fn tool(program: &str, args: &[&str]) -> String {
    let output = output(program, args);
    let (out, err) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{program} {args:?}: {out}{err}");
    out
}

#[test]
#[ignore = "needs promtool and amtool"]
fn tools_promtool_queries_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = i64::try_from(now.as_millis()).unwrap();
    let labels =
        |shelf| model::Labels::from_pairs([("__name__", "books"), ("job", "t"), ("shelf", shelf)]);
    let points = |v| vec![(now_ms - 2_000, v), (now_ms - 1_000, v + 1.0)];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(
            Client::new(agent.url.clone())
                .remote_write(&[(labels("a"), points(1.0)), (labels("b"), points(10.0))]),
        )
        .unwrap();

    let url = agent.url.as_str();
    let instant = tool("promtool", &["query", "instant", url, "sum(books)"]);
    assert!(instant.contains("=> 13 @"), "{instant}");
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let (start, end) = (seconds(now_ms - 2_000), seconds(now_ms - 1_000));
    let range = tool(
        "promtool",
        &[
            "query",
            "range",
            &format!("--start={start}"),
            &format!("--end={end}"),
            "--step=1s",
            url,
            "books{shelf=\"b\"}",
        ],
    );
    assert!(range.contains("10 @") && range.contains("11 @"), "{range}");
    let series = tool("promtool", &["query", "series", "--match=books", url]);
    assert_eq!(series.lines().count(), 2, "{series}");
    assert!(series.contains("shelf=\"a\""), "{series}");
    let labels = tool("promtool", &["query", "labels", url, "shelf"]);
    assert_eq!(labels, "a\nb\n");

    let wrong = output("promtool", &["query", "instant", url, "sum(books"]);
    assert!(!wrong.status.success());
    let said = stderr(&wrong);
    assert!(
        said.contains("bad_data") || said.contains("parse"),
        "{said}"
    );
}

#[test]
#[ignore = "needs promtool and amtool"]
fn tools_amtool_sees_alerts_and_silences_them() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.yaml");
    std::fs::write(
        &rules,
        "groups:\n- name: g\n  interval: 1s\n  rules:\n  - alert: Always\n    expr: vector(1)\n    labels: {severity: info}\n",
    )
    .unwrap();
    let agent = Agent::start(dir.path(), &["--rules", rules.to_str().unwrap()]);
    let am = format!("--alertmanager.url={}", agent.url);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let alerts = tool("amtool", &["alert", "query", &am]);
        if alerts.contains("Always") {
            break;
        }
        assert!(Instant::now() < deadline, "no alert: {alerts}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!tool("amtool", &["alert", "query", &am, "alertname=Never"]).contains("Always"));

    let added = tool(
        "amtool",
        &[
            "silence",
            "add",
            &am,
            "--author=me",
            "--comment=test",
            "--duration=10m",
            "alertname=Always",
        ],
    );
    let id = added.trim();
    assert!(!id.is_empty());
    assert!(tool("amtool", &["silence", "query", &am]).contains(id));
    let silenced = tool("amtool", &["alert", "query", &am, "--silenced"]);
    assert!(silenced.contains("Always"), "{silenced}");
    let active = tool("amtool", &["alert", "query", &am]);
    assert!(!active.contains("Always"), "silenced, yet listed: {active}");

    tool("amtool", &["silence", "expire", &am, id]);
    assert!(!tool("amtool", &["silence", "query", &am]).contains(id));
    let expired = tool("amtool", &["silence", "query", &am, "--expired"]);
    assert!(expired.contains(id), "{expired}");
    assert!(tool("amtool", &["alert", "query", &am]).contains("Always"));
}

#[test]
#[ignore = "needs promtool and amtool"]
fn tools_promtool_accepts_the_shipped_rules() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/rules/reference.yaml");
    let said = tool("promtool", &["check", "rules", rules.to_str().unwrap()]);
    assert!(said.contains("SUCCESS"), "{said}");
}
