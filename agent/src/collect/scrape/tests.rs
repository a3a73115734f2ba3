//! Scraping a server in this process: good, garbage, endless and silent bodies; staleness; label conflicts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::get;

use super::*;
use crate::collect::config::Every;
use crate::collect::testing::{last, read};
use crate::collect::{CollectConfig, spawn_all};

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn job(name: &str, address: &str, path: &str) -> ScrapeJob {
    ScrapeJob {
        job: name.into(),
        targets: vec![address.into()],
        path: path.into(),
        interval: Every(100),
        timeout: Every(80),
        body_limit_bytes: 100_000,
        ..ScrapeJob::default()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen within 10 s");
}

#[tokio::test]
async fn bad_targets_fail_with_their_reason_and_stop_nobody() {
    let endless = || async {
        Body::from_stream(futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>("a 1\n".repeat(1000))
        }))
    };
    let router = Router::new()
        .route(
            "/good",
            get(|| async { "# TYPE a counter\na{x=\"1\"} 1\n" }),
        )
        .route("/garbage", get(|| async { "a 1\n<html>no</html>\n" }))
        .route("/endless", get(endless))
        .route(
            "/silent",
            get(|| async { std::future::pending::<&str>().await }),
        )
        .route(
            "/forbidden",
            get(|| async { axum::http::StatusCode::FORBIDDEN }),
        )
        .route(
            "/away",
            get(|| async { axum::response::Redirect::to("http://127.0.0.1:1/x") }),
        );
    let address = serve(router).await;
    let names = ["good", "garbage", "endless", "silent", "forbidden", "away"];
    let scrape = names
        .iter()
        .map(|n| job(n, &address, &format!("/{n}")))
        .collect();
    let mut config = CollectConfig {
        scrape,
        ..CollectConfig::default()
    };
    config.host.enabled = false;
    let (ingest, shutdown) = (Ingest::in_memory(100_000), CancellationToken::new());
    let tasks = spawn_all(&config, ingest.clone(), shutdown.clone());
    let tried = || ingest.targets().iter().filter(|t| t.up.is_some()).count() == names.len();
    until("an attempt at each target", tried).await;
    until("a second good scrape", || {
        read(&ingest, "a")
            .first()
            .is_some_and(|s| s.points.len() > 1)
    })
    .await;
    for (name, reason) in [
        ("good", ""),
        (
            "garbage",
            "line 2, column 1: expected a metric name, found '<'",
        ),
        ("endless", "the body is longer than 100000 bytes"),
        ("silent", "no complete answer within 80ms"),
        ("forbidden", "status 403"),
        ("away", "status 303"),
    ] {
        let target = ingest
            .targets()
            .into_iter()
            .find(|t| t.job == name)
            .unwrap();
        assert!(
            target.last_error.contains(reason),
            "{name}: {}",
            target.last_error
        );
        assert_eq!(
            target.last_error.is_empty(),
            reason.is_empty(),
            "{name}: {}",
            target.last_error
        );
        let up = last(&ingest, "up", &[("job", name)]);
        assert_eq!(up, Some(f64::from(u8::from(name == "good"))), "{name}");
    }
    assert_eq!(read(&ingest, "a").len(), 1);
    assert_eq!(
        last(&ingest, "scrape_samples_scraped", &[("job", "good")]),
        Some(1.0)
    );
    shutdown.cancel();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_vanishes_from_a_target_or_a_file_ends() {
    let count = Arc::new(AtomicUsize::new(0));
    let body = move || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            if n == 0 {
                "stays 1\ngoes 1\n"
            } else {
                "stays 1\n"
            }
        }
    };
    let address = serve(Router::new().route("/metrics", get(body))).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("targets.json");
    std::fs::write(&file, format!("[{{\"targets\":[\"{address}\"]}}]")).unwrap();
    let job = ScrapeJob {
        targets: vec![],
        files: vec![file.clone()],
        ..job("files", "", "/metrics")
    };
    let mut config = CollectConfig {
        scrape: vec![job],
        ..CollectConfig::default()
    };
    config.host.enabled = false;
    let (ingest, shutdown) = (Ingest::in_memory(100_000), CancellationToken::new());
    spawn_all(&config, ingest.clone(), shutdown.clone());
    let ended = |name: &str| last(&ingest, name, &[]).is_some_and(model::is_stale);
    until("the end of goes", || ended("goes")).await;
    assert!(!ended("stays"));
    std::fs::write(&file, "[]").unwrap();
    until("the end of up", || ended("up") && ended("stays")).await;
    until("no target", || ingest.targets().is_empty()).await;
    shutdown.cancel();
}

fn parsed(job: &ScrapeJob, format: Format, bodies: &[&str]) -> Ingest {
    let target = TargetConfig::new(job, "h:1", &[]);
    let ingest = Ingest::in_memory(10_000);
    let mut series = Series::new(&target);
    for (i, body) in bodies.iter().enumerate() {
        let t_ms = 1000 * (i as i64 + 1);
        let outcome = series.parse(&target, t_ms, format, body.as_bytes());
        series.finish(&ingest, t_ms, 0.5, &outcome);
    }
    ingest
}

#[test]
fn labels_conflict_is_resolved_as_configured() {
    let body = "a{job=\"inner\",exported_instance=\"x\",instance=\"y\"} 1\n";
    let job = ScrapeJob {
        job: "outer".into(),
        ..ScrapeJob::default()
    };
    let a = read(&parsed(&job, Format::Text, &[body]), "a")[0]
        .labels
        .to_string();
    assert_eq!(
        a,
        r#"a{exported_exported_instance="y", exported_instance="x", exported_job="inner", instance="h:1", job="outer"}"#
    );
    let honoring = ScrapeJob {
        honor_labels: true,
        ..job
    };
    let a = read(&parsed(&honoring, Format::Text, &[body]), "a")[0]
        .labels
        .to_string();
    assert_eq!(a, r#"a{exported_instance="x", instance="y", job="inner"}"#);
}

#[test]
fn own_timestamps_count_unless_told_otherwise() {
    let job = ScrapeJob {
        job: "j".into(),
        ..ScrapeJob::default()
    };
    let a = read(&parsed(&job, Format::Text, &["a 1 500\n", "b 1\n"]), "a");
    assert_eq!(
        a[0].points.t_ms,
        [500],
        "no end is marked for a series with its own timestamps"
    );
    let ignoring = ScrapeJob {
        honor_timestamps: false,
        ..job
    };
    let a = read(
        &parsed(&ignoring, Format::Text, &["a 1 500\n", "b 1\n"]),
        "a",
    );
    assert_eq!(a[0].points.t_ms, [1000, 2000]);
}

#[test]
fn a_failed_scrape_keeps_nothing_and_ends_everything() {
    let job = ScrapeJob {
        job: "j".into(),
        ..ScrapeJob::default()
    };
    let ingest = parsed(
        &job,
        Format::Text,
        &[
            "a 1\nqueue_depth{queue=\"q\"} 2\n",
            "a 2\nb 1\n!\n",
            "a 3\n",
        ],
    );
    let a = &read(&ingest, "a")[0].points;
    assert_eq!(a.t_ms, [1000, 2000, 3000]);
    assert!(model::is_stale(a.values[1]));
    assert!(read(&ingest, "b").is_empty());
    let derived = &read(&ingest, "nines_use_saturation")[0].points;
    assert!(model::is_stale(derived.values[1]));
    assert_eq!(read(&ingest, "up")[0].points.values, [1.0, 0.0, 1.0]);
    assert_eq!(
        read(&ingest, "scrape_series_added")[0].points.values,
        [2.0, 0.0, 1.0]
    );
    let limited = ScrapeJob {
        sample_limit: 1,
        ..job
    };
    assert_eq!(
        read(&parsed(&limited, Format::Text, &["a 1\nb 1\n"]), "up")[0]
            .points
            .values,
        [0.0]
    );
}

#[test]
fn exemplars_and_metadata_are_handed_on() {
    let body = "# TYPE a counter\n# HELP a Text.\na_total 3 # {trace_id=\"t\"} 0.5 1.5\n# EOF\n";
    let job = ScrapeJob {
        job: "j".into(),
        ..ScrapeJob::default()
    };
    let ingest = parsed(&job, Format::OpenMetrics, &[body]);
    assert_eq!(read(&ingest, "a_total")[0].points.values, [3.0]);
}

#[test]
fn a_store_gets_scrapes_by_id_and_by_labels_alike() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = store::StoreOptions::new(dir.path());
    options.retention_ms = None;
    options.max_series = 9;
    let store = store::Store::open(options).unwrap();
    let ingest = Ingest::to_store(store.clone());
    let job = ScrapeJob {
        job: "j".into(),
        ..ScrapeJob::default()
    };
    let target = TargetConfig::new(&job, "h:1", &[]);
    let mut series = Series::new(&target);
    let mut t_ms = 0;
    let mut scrape = |body: &str| {
        t_ms += 1_000;
        let outcome = series.parse(&target, t_ms, Format::Text, body.as_bytes());
        series.finish(&ingest, t_ms, 0.5, &outcome);
    };
    // Five report series, three of the body and one more: the fifth of the body is refused.
    for body in [
        "a{x=\"1\"} 1\nb 2\n",
        "a{x=\"1\"} 2\nb 3\n",
        "a{x=\"1\"} 3\nc 1\nb 4\nd 1\ne 1\n",
        "a{x=\"1\"} 4\nc 2\nd 2\ne 2\n",
    ] {
        scrape(body);
    }
    // A cut to which they gave no sample: all but one series leave the store's memory, and their ids with them.
    store.compact(0).unwrap();
    let up = target.labels.with("__name__", "up");
    let one = [store::SampleRef::float(&up, 4_500, 1.0)];
    assert_eq!(store.append(&one).unwrap().appended, 1);
    store.compact(0).unwrap();
    assert_eq!(store.stats().series, 1);
    scrape("a{x=\"1\"} 5\nc 3\n");
    scrape("a{x=\"1\"} 6\nc 4\n");
    let values = |name: &str| -> Vec<f64> {
        let found = read(&ingest, name);
        found.into_iter().flat_map(|s| s.points.values).collect()
    };
    assert_eq!(values("a"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(values("b")[..3], [2.0, 3.0, 4.0]);
    assert!(model::is_stale(values("b")[3]));
    assert_eq!(values("c"), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(values("d")[..2], [1.0, 2.0]);
    // Only its end, when there was room for one more.
    assert!(
        values("e").iter().all(|v| model::is_stale(*v)),
        "{:?}",
        values("e")
    );
    assert_eq!(
        values("scrape_samples_scraped"),
        [2.0, 2.0, 5.0, 4.0, 2.0, 2.0]
    );
}
