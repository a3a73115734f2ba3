//! A rule fires, is delivered, listed, silenced; SLOs are judged; wrong files stop the start with their place.

use std::time::Duration;

use agent::config::Millis;
use alerts::delivery::ReceiverConfig;
use prost::Message;
use serde_json::{Value as Json, json};

use crate::harness::{Started, config, server_span, start_in, start_with, traces};

const RULES: &str = r#"
groups:
  - name: test
    rules:
      - record: calls:sum
        expr: sum(traces_span_metrics_calls_total)
      - alert: Calls
        expr: calls:sum >= 3
        labels: {severity: critical, team: core}
        annotations: {summary: "there are {{ $value }} calls"}
"#;

const SLOS: &str = r#"
slos:
  - name: availability
    objective: 99.9
    period: 30d
    bad: sum(increase(traces_span_metrics_calls_total{http_response_status_code=~"5.."}[$window]))
    total: sum(increase(traces_span_metrics_calls_total[$window]))
"#;

/// A webhook that hands over what it gets.
async fn sink() -> (String, tokio::sync::mpsc::Receiver<Json>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let take = async move |body: axum::Json<Json>| {
        let _ = sender.send(body.0).await;
    };
    let router = axum::Router::new().route("/", axum::routing::post(take));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, receiver)
}

async fn until(what: &str, mut good: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if good().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not happen within 10 s");
}

async fn send_spans(started: &Started, n: u8) {
    let spans = (1..=n).map(|i| server_span(i, 1, "/", 200)).collect();
    let body = traces("web", spans).encode_to_vec();
    let request = started.http.post(started.otlp("/v1/traces"));
    let request = request
        .header("content-type", "application/x-protobuf")
        .body(body);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_spans_to_the_page() {
    let files = tempfile::tempdir().unwrap();
    let (rules, slos) = (files.path().join("r.yaml"), files.path().join("s.yaml"));
    std::fs::write(&rules, RULES).unwrap();
    std::fs::write(&slos, SLOS).unwrap();
    let (url, mut pages) = sink().await;
    let started = start_with(|c| {
        c.alerts.pack = false;
        c.alerts.rules = vec![rules];
        c.alerts.slos = vec![slos];
        c.alerts.time_scale = 60.0;
        c.alerts.evaluation_interval = Millis(12_000);
        c.alerts.delivery.receivers = vec![ReceiverConfig::webhook("sink", &url)];
    })
    .await;
    send_spans(&started, 5).await;
    let page = tokio::time::timeout(Duration::from_secs(10), pages.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(page["status"], "firing", "{page}");
    assert_eq!(
        page["alerts"][0]["annotations"]["summary"],
        "there are 5 calls"
    );

    let alerts = started.get("/api/v1/alerts").await;
    assert_eq!(alerts["data"]["alerts"][0]["state"], "firing", "{alerts}");
    let rules = started
        .get("/api/v1/rules?type=record&rule_group[]=test")
        .await;
    assert_eq!(
        rules["data"]["groups"][0]["rules"][0]["name"], "calls:sum",
        "{rules}"
    );
    assert_eq!(
        rules["data"]["groups"][0]["rules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let stored = started
        .get("/api/v1/query?query=ALERTS{alertname=\"Calls\"}")
        .await;
    assert_eq!(
        stored["data"]["result"][0]["metric"]["alertstate"], "firing",
        "{stored}"
    );
    until("delivery in the log", async || {
        let events = started.get("/api/nines/v1/alert-events").await;
        let kinds: Vec<&str> = events["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|e| e["kind"].as_str())
            .collect();
        kinds.contains(&"firing") && kinds.contains(&"delivered")
    })
    .await;
    until("an SLO status", async || {
        let slos = started.get("/api/nines/v1/slos").await;
        slos["data"][0]["name"] == "availability" && slos["data"][0]["sli"] == json!(1.0)
    })
    .await;
    silences(&started).await;
    let again = start_in(started.stop().await, |_| {}).await;
    let events = again.get("/api/nines/v1/alert-events").await;
    let fired = |e: &Json| e["kind"] == "firing" && e["alert"] == "Calls";
    assert!(
        events["data"].as_array().unwrap().iter().any(fired),
        "{events}"
    );
    again.stop().await;
}

async fn silences(started: &Started) {
    let am = started.get("/api/v2/alerts?filter=team%3D%22core%22").await;
    assert_eq!(am[0]["labels"]["alertname"], "Calls", "{am}");
    assert_eq!(
        started
            .get("/api/v2/alerts?filter=team%3D%22other%22")
            .await,
        json!([])
    );
    assert!(started.get("/api/v2/status").await["versionInfo"]["version"].is_string());
    assert_eq!(
        started.get("/api/v2/receivers").await,
        json!([{"name": "sink"}])
    );
    let silence = json!({
        "matchers": [{"name": "alertname", "value": "Calls", "isRegex": false, "isEqual": true}],
        "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z", "createdBy": "me", "comment": "test",
    });
    let posted = started
        .http
        .post(started.api("/api/v2/silences"))
        .json(&silence)
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status(), 200);
    let id = posted.json::<Json>().await.unwrap()["silenceID"]
        .as_str()
        .unwrap()
        .to_owned();
    let am = started.get("/api/v2/alerts").await;
    assert_eq!(am[0]["status"]["state"], "suppressed", "{am}");
    assert_eq!(
        started.get("/api/v2/alerts?silenced=false").await,
        json!([])
    );
    let url = started.api(&format!("/api/v2/silence/{id}"));
    assert_eq!(
        started.http.delete(&url).send().await.unwrap().status(),
        200
    );
    let one: Json = started
        .http
        .get(&url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(one["status"]["state"], "expired", "{one}");
    let bad = started
        .http
        .post(started.api("/api/v2/silences"))
        .json(&json!({"matchers": []}));
    assert_eq!(bad.send().await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_pack_is_evaluated_without_errors() {
    let started = start_with(|c| c.alerts.time_scale = 60.0).await;
    until("an evaluation of every rule", async || {
        let rules = started.get("/api/v1/rules").await;
        let groups = rules["data"]["groups"].as_array().unwrap();
        let all: Vec<&Json> = groups
            .iter()
            .flat_map(|g| g["rules"].as_array().unwrap())
            .collect();
        assert!(all.len() > 10, "{rules}");
        assert!(all.iter().all(|r| r["health"] != "err"), "{rules}");
        all.iter().all(|r| r["health"] == "ok")
    })
    .await;
    assert!(
        !started.get("/api/nines/v1/slos").await["data"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_rule_stops_the_start_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.yaml");
    let text =
        "groups:\n  - name: a\n    rules:\n      - alert: X\n        expr: sum(rate(up[5m])\n";
    std::fs::write(&path, text).unwrap();
    let mut config = config(dir.path());
    config.alerts.rules = vec![path];
    let Err(error) = agent::start(config.clone()).await else {
        panic!("started with a wrong rule")
    };
    assert!(error.to_string().contains("bad.yaml:5:"), "{error}");
    config.alerts.rules = vec!["/nowhere/rules.yaml".into()];
    let Err(error) = agent::start(config).await else {
        panic!("started without its rules")
    };
    assert!(
        error
            .to_string()
            .contains("cannot read /nowhere/rules.yaml"),
        "{error}"
    );
}
