//! HTTP/1.1 pipelining against servers that answer by a script: order, counts, and what a lost connection costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loadgen::{Engine, Model, Plan, RequestSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{MS, raw, run};

const ENGINES: [Engine; 2] = [Engine::Epoll, Engine::IoUring];

fn plan(engine: Engine, target: &str, pipeline: usize, requests: u64) -> Plan {
    let mut plan = super::plan(engine, target, 1.0, Duration::from_secs(20));
    plan.model = Model::Closed {
        requests: Some(requests),
    };
    plan.connections = 2;
    plan.timeout = Duration::from_secs(20);
    plan.transport.pipeline = pipeline;
    plan
}

/// Request heads that are whole in what came, taken out.
fn heads(bytes: &mut Vec<u8>) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
        let head: Vec<u8> = bytes.drain(..end + 4).collect();
        all.push(String::from_utf8_lossy(&head).into_owned());
    }
    all
}

/// Reads until `enough` requests are there; none when the client went.
async fn gather(stream: &mut TcpStream, enough: usize) -> Option<Vec<String>> {
    let (mut bytes, mut all) = (Vec::new(), Vec::new());
    while all.len() < enough {
        let n = stream.read_buf(&mut bytes).await.ok()?;
        all.extend(heads(&mut bytes));
        if n == 0 {
            return None;
        }
    }
    Some(all)
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_is_kept_full_and_each_answer_is_its_requests() {
    for engine in ENGINES {
        let most = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        // Answers in pieces that end within answers, bodies of the length that the path asks for.
        let server = raw(move |mut stream: TcpStream| {
            let seen = Arc::clone(&seen);
            async move {
                let mut bytes = Vec::with_capacity(1 << 16);
                loop {
                    bytes.reserve(1 << 15);
                    let n = stream.read_buf(&mut bytes).await.unwrap_or(0);
                    let all = heads(&mut bytes);
                    seen.fetch_max(all.len(), Ordering::Relaxed);
                    let answer = |head: &String| {
                        let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
                        match head.starts_with("HEAD") {
                            true => {
                                "HTTP/1.1 204 No Content\r\ncontent-length: 9\r\n\r\n".to_owned()
                            }
                            false => ok(&"x".repeat(path.parse::<usize>().unwrap())),
                        }
                    };
                    let text: String = all.iter().map(answer).collect();
                    for piece in text.as_bytes().chunks(700) {
                        let _ = stream.write_all(piece).await;
                    }
                    if n == 0 {
                        return;
                    }
                }
            }
        })
        .await;
        let mut plan = plan(engine, &server, 8, 4000);
        let head = RequestSpec {
            method: "HEAD".to_owned(),
            name: "HEAD".to_owned(),
            ..RequestSpec::get("/9")
        };
        plan.requests = vec![RequestSpec::get("/0"), RequestSpec::get("/900"), head];
        let (report, _) = run(plan).await;
        assert_eq!(report.error_count(), 0, "{engine:?} {:?}", report.errors);
        assert_eq!((report.requests, report.responses), (4000, 4000));
        for (name, route) in &report.routes {
            let expected = if name.starts_with("HEAD") { 204 } else { 200 };
            assert_eq!(
                route.status.get(&expected),
                Some(&route.requests),
                "{name}: each answer went to its own request"
            );
        }
        let total: u64 = report.routes.values().map(|r| r.requests).sum();
        assert_eq!(total, 4000);
        assert_eq!(report.connections_opened, 2);
        let most = most.load(Ordering::Relaxed);
        assert!((2..=8).contains(&most), "{engine:?}: {most} at once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_line_on_a_lost_connection_is_counted_by_kind() {
    for engine in ENGINES {
        // One request is answered, and the connection ends.
        let ends = raw(async |mut stream: TcpStream| {
            if gather(&mut stream, 1).await.is_some() {
                let _ = stream.write_all(ok("a").as_bytes()).await;
                let _ = stream.shutdown().await;
                while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
            }
        })
        .await;
        let (report, _) = run(plan(engine, &ends, 4, 40)).await;
        assert_eq!(report.requests, 40, "{engine:?}");
        assert_eq!(report.responses + report.error_count(), 40, "{engine:?}");
        let kinds: Vec<_> = report.errors.keys().map(String::as_str).collect();
        assert_eq!(kinds, ["closed"], "{engine:?}");
        assert_eq!(report.responses, report.connections_opened, "{engine:?}");
        assert!(
            report.error_count() >= 20,
            "{} in line",
            report.error_count()
        );
        assert_eq!(report.reconnects, 0, "nothing in a pipeline is repeated");

        // The second answer says that it is the last.
        let last = raw(async |mut stream: TcpStream| {
            if gather(&mut stream, 4).await.is_some() {
                let close = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nb";
                let _ = stream.write_all((ok("a") + close).as_bytes()).await;
                while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
            }
        })
        .await;
        // One connection after the other: two that open at once may share the last four requests, and their server waits for
        // four each.
        let mut alone = plan(engine, &last, 4, 40);
        alone.connections = 1;
        let (report, _) = run(alone).await;
        assert_eq!(
            (report.responses, report.errors.get("closed")),
            (20, Some(&20)),
            "{engine:?} {:?}",
            report.errors
        );

        // One answer, then silence: those in line run out of time together.
        let silent = raw(async |mut stream: TcpStream| {
            if gather(&mut stream, 4).await.is_some() {
                let _ = stream.write_all(ok("a").as_bytes()).await;
                while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
            }
        })
        .await;
        let mut short = plan(engine, &silent, 4, 1000);
        short.duration = 400 * MS;
        short.timeout = 500 * MS;
        let (report, _) = run(short).await;
        // Two connections: four each, one answered and replaced, four left.
        assert_eq!(
            (report.responses, report.errors.get("timeout")),
            (2, Some(&8)),
            "{engine:?} {:?}",
            report.errors
        );
        assert_eq!(report.timeouts, 8);
        assert_eq!(report.latency.len(), 10, "with the time they had waited");
    }
}

#[tokio::test]
async fn where_it_makes_no_sense_it_is_refused_by_name() {
    let refused = async |change: fn(&mut Plan)| {
        let mut plan = plan(Engine::Auto, "http://127.0.0.1:9", 4, 1);
        change(&mut plan);
        let (progress, _last) = tokio::sync::watch::channel(Default::default());
        let run = loadgen::run(plan, progress, Default::default());
        run.await.unwrap_err().to_string()
    };
    let open = refused(|p| {
        p.model = Model::Rate {
            per_second: 1.0,
            poisson: false,
        };
    });
    assert!(open.await.contains("pipelining is for the closed model"));
    let http2 = refused(|p| p.transport.http2 = true).await;
    assert!(http2.contains("HTTP/2 has streams"), "{http2}");
    let cookies = refused(|p| p.transport.cookies = true).await;
    assert!(cookies.contains("do not send cookies"), "{cookies}");
    let hyper = refused(|p| p.engine = Engine::Hyper).await;
    assert!(hyper.contains("hyper does not pipeline"), "{hyper}");
}
