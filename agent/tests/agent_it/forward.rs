//! Remote write out against servers in this process that are down, refuse, stumble, or want us to wait.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::config::{Millis, RemoteWrite};
use agent::ingest::{Ingest, Sample, Value};
use agent::receive::remote_write::{decompress, walk};
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use model::Labels;

use crate::harness::{start, start_in, start_with};

type Samples = BTreeMap<String, Vec<(i64, f64)>>;

/// What a server does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Take,
    /// Answers with this status, and `Retry-After` of a second.
    Answer(u16),
    /// Refuses a request with a series called `bad` as a whole, as Prometheus does.
    Picky,
    /// Takes, but says 500.
    TakeAndStumble,
}

/// A server that keeps what it takes.
#[derive(Clone)]
struct Peer {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    taken: Arc<Mutex<Samples>>,
    requests: Arc<Mutex<Vec<(Instant, HeaderMap)>>>,
}

impl Peer {
    async fn start(mood: Mood) -> Peer {
        Peer::start_at("127.0.0.1:0".parse().unwrap(), mood).await
    }

    async fn start_at(address: SocketAddr, mood: Mood) -> Peer {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let peer = Peer {
            address: listener.local_addr().unwrap(),
            mood: Arc::new(Mutex::new(mood)),
            taken: Arc::default(),
            requests: Arc::default(),
        };
        let answering = peer.clone();
        let handler = move |headers: HeaderMap, body: Bytes| {
            let peer = answering.clone();
            async move { peer.answer(headers, &body) }
        };
        let router = axum::Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        peer
    }

    fn answer(&self, headers: HeaderMap, body: &[u8]) -> Response {
        self.requests
            .lock()
            .unwrap()
            .push((Instant::now(), headers));
        let write = walk(&decompress(body, 1 << 24).unwrap()).unwrap();
        let mood = *self.mood.lock().unwrap();
        if let Mood::Answer(status) = mood {
            let status = StatusCode::from_u16(status).unwrap();
            return (status, [("retry-after", "1")], "not now").into_response();
        }
        let bad = |s: &Sample| s.labels.name() == "bad";
        if mood == Mood::Picky && write.samples.iter().any(bad) {
            return (StatusCode::BAD_REQUEST, "out of order sample").into_response();
        }
        let mut taken = self.taken.lock().unwrap();
        for sample in write.samples {
            let Value::Float(value) = sample.value else {
                panic!("a histogram")
            };
            let series = taken.entry(sample.labels.to_string()).or_default();
            series.push((sample.t_ms, value));
        }
        match mood {
            Mood::TakeAndStumble => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            _ => StatusCode::NO_CONTENT.into_response(),
        }
    }

    fn setting(&self) -> RemoteWrite {
        RemoteWrite {
            url: format!("http://{}/api/v1/write", self.address),
            name: "peer".into(),
            wait: Millis(20),
            retry_min: Millis(5),
            retry_max: Millis(50),
            ..RemoteWrite::default()
        }
    }

    fn count(&self) -> usize {
        self.taken.lock().unwrap().values().map(Vec::len).sum()
    }

    async fn wait_for(&self, samples: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.count() < samples {
            assert!(Instant::now() < deadline, "{} of {samples}", self.count());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn now_ms() -> i64 {
    i64::try_from(crate::harness::now_ns() / 1_000_000).unwrap()
}

/// One sample of each of `series` series at each of `times`.
fn append(ingest: &Ingest, series: usize, times: std::ops::Range<i64>) {
    for t_ms in times {
        let samples: Vec<Sample> = (0..series)
            .map(|i| Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]))
            .map(|labels| Sample::float(labels, t_ms, t_ms as f64))
            .collect();
        assert_eq!(ingest.append(&samples).refused(), 0);
    }
}

/// Every series has every time once, in order.
fn check(taken: &Samples, series: usize, times: std::ops::Range<i64>) {
    let ours: Vec<&Vec<(i64, f64)>> = taken
        .iter()
        .filter(|(labels, _)| labels.starts_with("m{"))
        .map(|(_, points)| points)
        .collect();
    assert_eq!(ours.len(), series);
    let wanted: Vec<(i64, f64)> = times.map(|t| (t, t as f64)).collect();
    for points in ours {
        assert_eq!(*points, wanted);
    }
}

fn quiet(c: &mut agent::config::Config) {
    c.alerts.pack = false;
    c.collect.host.enabled = false;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_wait_on_disk_for_a_server_that_is_down() {
    let down = Peer::start(Mood::Answer(503)).await;
    let setting = down.setting();
    let started = start_with(|c| {
        quiet(c);
        c.remote_write = vec![setting.clone()];
    })
    .await;
    let now = now_ms();
    append(&started.agent.ingest, 30, now - 50..now);
    let dir = started.stop().await;
    assert_eq!(down.count(), 0);

    // Another number of shards: what is there is still sent in order.
    *down.mood.lock().unwrap() = Mood::Take;
    let more = RemoteWrite {
        shards: 7,
        max_samples: 100,
        ..setting
    };
    let started = start_in(dir, |c| {
        quiet(c);
        c.remote_write = vec![more];
    })
    .await;
    append(&started.agent.ingest, 30, now..now + 20);
    down.wait_for(30 * 70).await;
    append(&started.agent.ingest, 30, now + 20..now + 25);
    started.stop().await;
    check(&down.taken.lock().unwrap(), 30, now - 50..now + 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_position_costs_no_sample() {
    let peer = Peer::start(Mood::Answer(503)).await;
    let setting = || vec![peer.setting()];
    let started = start_with(|c| {
        quiet(c);
        c.remote_write = setting();
    })
    .await;
    let now = now_ms();
    append(&started.agent.ingest, 5, now - 10..now);
    let dir = started.stop().await;
    let file = dir.path().join("remote-write/peer.json");
    assert!(file.exists());
    std::fs::write(&file, b"").unwrap();
    *peer.mood.lock().unwrap() = Mood::Take;
    let started = start_in(dir, |c| {
        quiet(c);
        c.remote_write = setting();
    })
    .await;
    peer.wait_for(50).await;
    started.stop().await;
    check(&peer.taken.lock().unwrap(), 5, now - 10..now);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_final_and_take_no_other_series_with_them() {
    let peer = Peer::start(Mood::Picky).await;
    let started = start_with(|c| {
        quiet(c);
        c.remote_write = vec![RemoteWrite {
            shards: 1,
            ..peer.setting()
        }];
    })
    .await;
    let now = now_ms();
    let bad = Labels::from_pairs([("__name__", "bad")]);
    started.agent.ingest.append(&[Sample::float(bad, now, 1.0)]);
    append(&started.agent.ingest, 20, now..now + 3);
    peer.wait_for(60).await;
    check(&peer.taken.lock().unwrap(), 20, now..now + 3);
    let samples = |result: &str| {
        format!("nines_agent_remote_write_samples_total{{peer=\"peer\",result=\"{result}\"}} ")
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while started.metric(&samples("sent")).await < 60.0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(started.metric(&samples("refused")).await, 1.0);

    *peer.mood.lock().unwrap() = Mood::Answer(404);
    append(&started.agent.ingest, 1, now + 3..now + 4);
    let deadline = Instant::now() + Duration::from_secs(10);
    while started.metric(&samples("refused")).await < 2.0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_ask_us_to_wait_and_may_stumble() {
    let peer = Peer::start(Mood::Answer(429)).await;
    let secret = agent::config::Secret("tenant".into());
    let started = start_with(|c| {
        quiet(c);
        c.remote_write = vec![RemoteWrite {
            shards: 1,
            token: Some(agent::config::Secret("t0ken".into())),
            headers: [("x-scope-orgid".to_owned(), secret)].into(),
            ..peer.setting()
        }];
    })
    .await;
    let now = now_ms();
    append(&started.agent.ingest, 3, now..now + 1);
    let deadline = Instant::now() + Duration::from_secs(10);
    while peer.requests.lock().unwrap().len() < 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    {
        let requests = peer.requests.lock().unwrap();
        let waited = requests[1].0 - requests[0].0;
        assert!(waited >= Duration::from_secs(1), "Retry-After: {waited:?}");
        let headers = &requests[0].1;
        assert_eq!(headers["authorization"], "Bearer t0ken");
        assert_eq!(headers["x-scope-orgid"], "tenant");
        assert_eq!(headers["x-prometheus-remote-write-version"], "0.1.0");
    }
    *peer.mood.lock().unwrap() = Mood::TakeAndStumble;
    peer.wait_for(6).await;
    *peer.mood.lock().unwrap() = Mood::Take;
    append(&started.agent.ingest, 3, now + 1..now + 2);
    started.stop().await;
    for points in peer.taken.lock().unwrap().values() {
        let mut times: Vec<i64> = points.iter().map(|p| p.0).collect();
        assert!(times.is_sorted(), "{times:?}");
        times.dedup();
        assert_eq!(times, [now, now + 1], "repeated, in order, nothing else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_nowhere_keeps_no_queue() {
    let started = start().await;
    let now = now_ms();
    append(&started.agent.ingest, 1, now..now + 1);
    let dir = started.stop().await;
    assert!(!dir.path().join("remote-write").exists());
}
