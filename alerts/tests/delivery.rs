//! Delivery over real HTTP to receivers in this process that misbehave, with restarts in every state.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alerts::delivery::{ReceiverConfig, RouteConfig, Secret};
use alerts::silence::PostableSilence;
use alerts::{DeliveryConfig, Dispatcher, Notification, Status};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use model::Labels;
use serde_json::{Value, json};

/// How a receiver answers.
#[derive(Clone, Copy)]
enum Answer {
    Ok,
    Status(u16),
    Wait(u16, &'static str),
    Hang,
}

/// A receiver: answers as scripted (then 202), keeps what it got.
#[derive(Clone, Default)]
struct Sink {
    script: Arc<Mutex<VecDeque<Answer>>>,
    got: Arc<Mutex<Vec<(Instant, Value)>>>,
    url: String,
}

impl Sink {
    async fn start(script: &[Answer]) -> Sink {
        let mut sink = Sink::default();
        *sink.script.lock().unwrap() = script.iter().copied().collect();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        sink.url = format!("http://{}/", listener.local_addr().unwrap());
        let state = sink.clone();
        let handler = move |Json(body): Json<Value>| {
            let state = state.clone();
            async move {
                state.got.lock().unwrap().push((Instant::now(), body));
                let answer = state
                    .script
                    .lock()
                    .unwrap()
                    .pop_front()
                    .unwrap_or(Answer::Ok);
                let mut headers = HeaderMap::new();
                let status = match answer {
                    Answer::Ok => 202,
                    Answer::Status(s) => s,
                    Answer::Wait(s, after) => {
                        headers.insert("retry-after", after.parse().unwrap());
                        s
                    }
                    Answer::Hang => std::future::pending().await,
                };
                (StatusCode::from_u16(status).unwrap(), headers, "told")
            }
        };
        let app = Router::new().route("/", post(handler));
        tokio::spawn(async move { axum::serve(listener, app).await });
        sink
    }

    fn bodies(&self) -> Vec<Value> {
        self.got
            .lock()
            .unwrap()
            .iter()
            .map(|(_, b)| b.clone())
            .collect()
    }

    async fn wait_for(&self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.bodies().len() < count {
            assert!(
                Instant::now() < deadline,
                "only {} of {count} arrived",
                self.bodies().len()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.bodies()
    }

    fn actions(&self) -> Vec<String> {
        let word = |b: &Value| {
            b["event_action"]
                .as_str()
                .or(b["status"].as_str())
                .unwrap_or("?")
                .to_owned()
        };
        self.bodies().iter().map(word).collect()
    }
}

fn alert(name: &str, severity: &str, status: Status) -> Notification {
    Notification {
        status,
        labels: Labels::from_pairs([
            ("alertname", name),
            ("severity", severity),
            ("incident", name),
        ]),
        annotations: BTreeMap::from([
            ("summary".into(), format!("{name} is bad")),
            (
                "runbook".into(),
                "https://example.invalid/runbooks#x".into(),
            ),
        ]),
        starts_at_ms: 1_795_206_986_000,
        ends_at_ms: (status == Status::Resolved).then_some(1_795_207_000_000),
        value: "0.06".into(),
        generator_url: "http://127.0.0.1:9909/graph".into(),
    }
}

fn fast(receivers: Vec<ReceiverConfig>) -> DeliveryConfig {
    DeliveryConfig {
        receivers,
        retry_min: 5,
        retry_max: 20,
        timeout: 300,
        ..DeliveryConfig::default()
    }
}

fn pagerduty(name: &str, sink: &Sink) -> ReceiverConfig {
    ReceiverConfig::pagerduty(name, &sink.url, Secret::new("r".repeat(32).as_str()))
}

fn start(config: DeliveryConfig, dir: &Path) -> Dispatcher {
    Dispatcher::start(config, Some(dir.to_owned())).unwrap()
}

async fn settle(dispatcher: &Dispatcher) {
    assert!(
        dispatcher.flush(Duration::from_secs(10)).await,
        "still pending"
    );
}

#[tokio::test]
async fn critical_pages_and_resolves_warning_chats_info_is_only_logged() {
    let (page, chat, hook) = (
        Sink::start(&[]).await,
        Sink::start(&[]).await,
        Sink::start(&[]).await,
    );
    let dir = tempfile::tempdir().unwrap();
    let config = fast(vec![
        pagerduty("oncall", &page),
        ReceiverConfig::slack("chat", &chat.url),
        ReceiverConfig::webhook("hook", &hook.url),
    ]);
    let d = start(config, dir.path());
    d.submit(&[
        alert("HighErrorRate", "critical", Status::Firing),
        alert("P95Warn", "warning", Status::Firing),
        alert("Deploy", "info", Status::Firing),
    ])
    .unwrap();
    settle(&d).await;
    d.submit(&[alert("HighErrorRate", "critical", Status::Resolved)])
        .unwrap();
    settle(&d).await;
    let pages = page.bodies();
    assert_eq!(page.actions(), ["trigger", "resolve"]);
    assert_eq!(pages[0]["dedup_key"], pages[1]["dedup_key"]);
    assert_eq!(pages[0]["payload"]["severity"], "critical");
    assert_eq!(
        pages[0]["payload"]["summary"],
        "HighErrorRate: HighErrorRate is bad"
    );
    assert_eq!(pages[0]["links"][0]["text"], "Runbook: HighErrorRate");
    assert_eq!(hook.actions(), ["firing", "resolved"]);
    let body = &hook.bodies()[0];
    assert_eq!(
        (&body["version"], &body["alerts"][0]["endsAt"]),
        (&json!("4"), &json!("0001-01-01T00:00:00Z"))
    );
    assert_eq!(chat.bodies().len(), 1);
    assert!(
        chat.bodies()[0]["text"]
            .as_str()
            .unwrap()
            .contains("WARNING P95Warn")
    );
    let kinds: Vec<String> = d.take_events().into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds.iter().filter(|k| *k == "delivered").count(), 5);
    assert_eq!(d.stats().delivered, 5);
    d.shutdown().await;
}

#[tokio::test]
async fn retries_500_429_and_hangs_in_order() {
    let page = Sink::start(&[Answer::Status(500), Answer::Wait(429, "1"), Answer::Hang]).await;
    let dir = tempfile::tempdir().unwrap();
    let d = start(fast(vec![pagerduty("oncall", &page)]), dir.path());
    d.submit(&[alert("A", "critical", Status::Firing)]).unwrap();
    page.wait_for(1).await;
    d.submit(&[alert("A", "critical", Status::Resolved)])
        .unwrap();
    settle(&d).await;
    assert_eq!(
        page.actions(),
        ["trigger", "trigger", "trigger", "trigger", "resolve"]
    );
    let times: Vec<Instant> = page.got.lock().unwrap().iter().map(|(t, _)| *t).collect();
    let waited = times[2] - times[1];
    assert!(
        waited >= Duration::from_millis(990) && waited < Duration::from_millis(1_900),
        "{waited:?}"
    );
    assert_eq!(d.stats().retries, 3);
    d.shutdown().await;
}

#[tokio::test]
async fn a_refusal_is_a_dead_letter_with_a_self_alert_and_a_fallback() {
    let (page, other) = (
        Sink::start(&[Answer::Status(400)]).await,
        Sink::start(&[]).await,
    );
    let dir = tempfile::tempdir().unwrap();
    let mut config = fast(vec![
        pagerduty("oncall", &page),
        ReceiverConfig::webhook("other", &other.url),
    ]);
    config.fallback = Some("other".into());
    config.routes = vec![
        RouteConfig {
            matchers: vec!["alertname=AlertDeliveryFailed".into()],
            receivers: vec!["oncall".into(), "other".into()],
            ..RouteConfig::default()
        },
        RouteConfig {
            severity: vec!["critical".into()],
            receivers: vec!["oncall".into()],
            ..RouteConfig::default()
        },
    ];
    let d = start(config, dir.path());
    d.submit(&[alert("A", "critical", Status::Firing)]).unwrap();
    let bodies = other.wait_for(2).await;
    let names: Vec<&str> = bodies
        .iter()
        .map(|b| b["commonLabels"]["alertname"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"A") && names.contains(&"AlertDeliveryFailed"),
        "{names:?}"
    );
    let stood_in = bodies
        .iter()
        .find(|b| b["commonLabels"]["alertname"] == "A")
        .unwrap();
    assert!(
        stood_in["note"]
            .as_str()
            .unwrap()
            .contains("status 400: told")
    );
    assert_eq!(d.dead_letters().len(), 1);
    assert_eq!(page.bodies().len(), 1, "a refused page is not sent again");
    // The incident is closed where it was opened; the next page goes through and ends the self alert.
    d.submit(&[alert("A", "critical", Status::Resolved)])
        .unwrap();
    d.submit(&[alert("B", "critical", Status::Firing)]).unwrap();
    let bodies = other.wait_for(4).await;
    assert_eq!(
        bodies.iter().filter(|b| b["status"] == "resolved").count(),
        2
    );
    d.shutdown().await;
}

#[tokio::test]
async fn nothing_is_lost_or_stuck_over_restarts_in_every_state() {
    let dir = tempfile::tempdir().unwrap();
    let page = Sink::start(&[]).await;
    let config = || fast(vec![pagerduty("oncall", &page)]);
    let down = || {
        fast(vec![ReceiverConfig::pagerduty(
            "oncall",
            "http://127.0.0.1:1/",
            Secret::new("k"),
        )])
    };
    // Queued while the receiver is down, then a restart.
    let d = start(down(), dir.path());
    d.submit(&[alert("A", "critical", Status::Firing)]).unwrap();
    d.shutdown().await;
    let d = start(config(), dir.path());
    settle(&d).await;
    assert_eq!(page.actions(), ["trigger"]);
    // The rule engine tells again what fires: the receiver knows.
    d.submit(&[alert("A", "critical", Status::Firing)]).unwrap();
    settle(&d).await;
    d.shutdown().await;
    assert_eq!(page.actions(), ["trigger"]);
    // It ends while we are down; the resolve is told after the restart.
    let d = start(down(), dir.path());
    d.submit(&[alert("A", "critical", Status::Resolved)])
        .unwrap();
    d.shutdown().await;
    let d = start(config(), dir.path());
    settle(&d).await;
    assert_eq!(page.actions(), ["trigger", "resolve"]);
    d.submit(&[alert("A", "critical", Status::Resolved)])
        .unwrap();
    settle(&d).await;
    assert_eq!(page.actions(), ["trigger", "resolve"]);
    // Alert state was lost: what is open but does not fire is closed.
    d.submit(&[alert("B", "critical", Status::Firing)]).unwrap();
    settle(&d).await;
    d.shutdown().await;
    let d = start(config(), dir.path());
    assert_eq!(
        d.reconcile(&[alert("B", "critical", Status::Firing)])
            .unwrap(),
        0
    );
    assert_eq!(d.reconcile(&[]).unwrap(), 1);
    settle(&d).await;
    assert_eq!(page.actions(), ["trigger", "resolve", "trigger", "resolve"]);
    d.shutdown().await;
}

#[tokio::test]
async fn alerts_of_one_incident_make_one_page() {
    let page = Sink::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let d = start(fast(vec![pagerduty("oncall", &page)]), dir.path());
    let in_incident = |name: &str, status| {
        let mut a = alert(name, "critical", status);
        a.labels = a.labels.with("incident", "availability");
        a
    };
    let both = |s| {
        [
            in_incident("HighErrorRate", s),
            in_incident("SloBurnPage", s),
        ]
    };
    d.submit(&both(Status::Firing)).unwrap();
    settle(&d).await;
    d.submit(&both(Status::Resolved)[..1]).unwrap();
    settle(&d).await;
    assert_eq!(page.actions(), ["trigger"]);
    assert!(
        page.bodies()[0]["payload"]["summary"]
            .as_str()
            .unwrap()
            .ends_with("(+1 more)")
    );
    d.submit(&both(Status::Resolved)[1..]).unwrap();
    settle(&d).await;
    assert_eq!(page.actions(), ["trigger", "resolve"]);
    d.shutdown().await;
}

#[tokio::test]
async fn silences_hold_back_until_they_end() {
    let page = Sink::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let d = start(fast(vec![pagerduty("oncall", &page)]), dir.path());
    let wanted: PostableSilence = serde_json::from_value(json!({
        "matchers": [{"name": "alertname", "value": "A", "isRegex": false}],
        "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2999-01-01T00:00:00Z", "createdBy": "me", "comment": "drill",
    }))
    .unwrap();
    let id = d.post_silence(wanted).unwrap();
    let firing = alert("A", "critical", Status::Firing);
    d.submit(std::slice::from_ref(&firing)).unwrap();
    settle(&d).await;
    assert!(page.bodies().is_empty());
    let shown = d.am_alerts(&[firing]);
    assert_eq!(shown[0]["status"]["state"], "suppressed");
    assert_eq!(shown[0]["status"]["silencedBy"][0], id.as_str());
    assert_eq!(shown[0]["receivers"][0]["name"], "oncall");
    d.expire_silence(&id).unwrap();
    page.wait_for(1).await;
    assert_eq!(page.actions(), ["trigger"]);
    d.shutdown().await;
}

#[tokio::test]
async fn configurations_that_contradict_themselves_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = fast(vec![ReceiverConfig::webhook(
        "oncall",
        "http://127.0.0.1:1/",
    )]);
    config.routes = vec![RouteConfig {
        receivers: vec!["oncal".into()],
        ..RouteConfig::default()
    }];
    let error = Dispatcher::start(config, Some(dir.path().to_owned()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("did you mean \"oncall\"?"), "{error}");
}
