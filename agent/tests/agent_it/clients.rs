//! The agent observes itself, and tools that are not ours understand it.

use std::process::Command;

use tracing_subscriber::layer::SubscriberExt;

use crate::harness::{server_span, start, start_with, traces};

#[tokio::test(flavor = "multi_thread")]
async fn own_spans_and_metrics_arrive_in_the_own_store() {
    let started =
        start_with(|c| c.self_interval = agent::config::OrOff::On(agent::config::Millis(20))).await;
    let spans = agent::own_spans::OwnSpans::start(&started.grpc()).unwrap();
    let subscriber = tracing_subscriber::registry().with(spans.layer());
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!(target: agent::own_spans::TARGET, "query").in_scope(|| {});
        tracing::info_span!(target: "somebody_else", "not sent").in_scope(|| {});
    });
    let sent = tokio::task::spawn_blocking(move || spans.shutdown())
        .await
        .unwrap();
    assert!(sent);
    let found = started
        .get("/api/nines/v1/traces?service=nines-agent")
        .await;
    assert_eq!(found["data"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found["data"][0]["root_name"], "query");
    let query =
        "/api/v1/query?query=nines_agent_received_total{job=\"nines-agent\",signal=\"traces\"}";
    for _ in 0..100 {
        let own = started.get(query).await;
        if own["data"]["result"][0]["value"][1] == "1" {
            started.stop().await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the agent's own metrics did not appear in its store");
}

/// Runs a tool and returns what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {text} {errors}"
    );
    text
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs promtool and amtool"]
async fn promtool_and_amtool_understand_the_api() {
    let started = start().await;
    let body = prost::Message::encode_to_vec(&traces("web", vec![server_span(1, 1, "/", 200)]));
    let request = started.http.post(started.otlp("/v1/traces"));
    let request = request
        .header("content-type", "application/x-protobuf")
        .body(body);
    assert_eq!(request.send().await.unwrap().status(), 200);
    started.flush().await;
    let url = started.api("");
    tokio::task::spawn_blocking(move || {
        let instant = run(
            "promtool",
            &[
                "query",
                "instant",
                &url,
                "sum(traces_span_metrics_calls_total)",
            ],
        );
        assert!(instant.contains("=> 1 @"), "{instant}");
        let range = run(
            "promtool",
            &["query", "range", "--step=1s", &url, "vector(7)"],
        );
        assert!(range.contains("7 @"), "{range}");
        let series = run(
            "promtool",
            &[
                "query",
                "series",
                "--match=traces_span_metrics_calls_total",
                &url,
            ],
        );
        assert!(series.contains("service_name=\"web\""), "{series}");
        let labels = run("promtool", &["query", "labels", &url, "service_name"]);
        assert_eq!(labels.trim(), "web");
        let am = format!("--alertmanager.url={url}");
        let added = run(
            "amtool",
            &[
                "silence",
                "add",
                &am,
                "--author=me",
                "--comment=test",
                "alertname=X",
            ],
        );
        let listed = run("amtool", &["silence", "query", &am]);
        assert!(listed.contains(added.trim()), "{listed}");
        run("amtool", &["silence", "expire", &am, added.trim()]);
        run("amtool", &["alert", "query", &am]);
    })
    .await
    .unwrap();
    started.stop().await;
}
