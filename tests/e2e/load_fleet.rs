//! One load from several processes, its Kubernetes manifest, and its series in the user's own Prometheus.
//!
//! Owns the reading of the manifest. Must not know how a plan is split.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use loadgen::Report;
use loadgen::truth::{Profile, serve};
use model::query::QueryData;
use serde_json::Value as Json;

use super::remote::Prometheus;
use super::running::{nines, stderr, stdout};

const MANIFEST: &str = include_str!("../../loadgen/k8s/job.yaml");

/// The container's arguments with its placeholders filled in, and the number of workers.
fn manifest(target: &str, start: &str) -> (Vec<String>, u64) {
    let text = MANIFEST
        .replace("START_AT", start)
        .replace("TARGET", target);
    let read: Json = serde_saphyr::from_str(&text).expect("the manifest is YAML");
    assert_eq!(read["kind"], "Job");
    let spec = &read["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    assert_eq!(spec["completions"], spec["parallelism"]);
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!(container["command"], serde_json::json!(["nines"]));
    let args = container["args"].as_array().expect("a list of arguments");
    let text = |v: &Json| v.as_str().expect("arguments are texts").to_owned();
    let workers = spec["completions"].as_u64().expect("a number of workers");
    (args.iter().map(text).collect(), workers)
}

#[test]
fn the_manifest_has_flags_that_exist_and_the_number_of_its_workers() {
    let (args, workers) = manifest("http://127.0.0.1:9/", "1");
    assert!(args.contains(&format!("--shard=job/{workers}")), "{args:?}");
    let help: Vec<&str> = args.iter().map(String::as_str).chain(["--help"]).collect();
    let output = nines(&help);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let mut wrong = help.clone();
    wrong.insert(3, "--shards=8");
    assert_eq!(
        nines(&wrong).status.code(),
        Some(2),
        "a wrong flag would be seen"
    );
    // Outside of an Indexed Job the worker has no number.
    let here: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = nines(&here);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("JOB_COMPLETION_INDEX"),
        "{}",
        stderr(&output)
    );
}

fn read(text: &str) -> Report {
    let json: Json = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text:.300}"));
    Report::from_json(&json).expect("a report")
}

fn counts(report: &Report) -> BTreeMap<u64, u64> {
    let mut all = BTreeMap::new();
    for v in report.latency.iter_recorded() {
        *all.entry(v.value_iterated_to()).or_default() += v.count_at_value();
    }
    all
}

#[test]
#[ignore = "takes half a minute"]
fn load_fleet_of_eight_equals_one() {
    const RATE: u64 = 400;
    const SECONDS: u64 = 5;
    let delays = Profile::Lognormal {
        median: Duration::from_millis(20),
        sigma: 0.5,
        requests: RATE * SECONDS,
    };
    let server = || serve(delays, false).unwrap();
    let one = server();
    let target = format!("http://{}/", one.addr);
    let (rate, length) = (format!("--rate={RATE}"), format!("--duration={SECONDS}s"));
    let output = nines(&[
        "load",
        "rate",
        &target,
        &rate,
        &length,
        "--run-id=one",
        "-q",
        "-o",
        "-",
    ]);
    let alone = read(&stdout(&output));
    assert_eq!(one.account().requests, RATE * SECONDS);
    drop(one);

    let many = server();
    let target = format!("http://{}/", many.addr);
    let start = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() + 3.0;
    let (args, workers) = manifest(&target, &start.to_string());
    let fill = |arg: &String| match arg.split_once('=') {
        Some(("--rate", _)) => rate.clone(),
        Some(("--duration", _)) => length.clone(),
        _ => arg.clone(),
    };
    let args: Vec<String> = args.iter().map(fill).collect();
    let started: Vec<_> = (0..workers)
        .map(|index| {
            Command::new(env!("CARGO_BIN_EXE_nines"))
                .args(&args)
                .env("JOB_COMPLETION_INDEX", index.to_string())
                .env_remove("NINES_URL")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut parts = Vec::new();
    for (i, worker) in started.into_iter().enumerate() {
        let output = worker.wait_with_output().unwrap();
        // What a pod's log has: both streams.
        let log = stdout(&output) + &stderr(&output);
        let file = dir.path().join(format!("{i}.json")).display().to_string();
        std::fs::write(&file, &log).unwrap();
        parts.push(read(&log));
        files.push(file);
    }
    let whole = dir.path().join("whole.json").display().to_string();
    let mut merge = vec!["load", "merge", "-o", &whole];
    merge.extend(files.iter().map(String::as_str));
    let output = nines(&merge);
    let text = stdout(&output);
    let merged = read(&std::fs::read_to_string(&whole).unwrap());
    let planned = (RATE * SECONDS, RATE * SECONDS, RATE * SECONDS);
    assert_eq!(
        (merged.planned, merged.requests, merged.responses),
        planned,
        "{text}"
    );
    assert_eq!(many.account().requests, RATE * SECONDS);
    // Without loss: every value of every worker, as often as all of them saw it.
    let mut sum = BTreeMap::new();
    for part in &parts {
        for (value, count) in counts(part) {
            *sum.entry(value).or_default() += count;
        }
    }
    assert_eq!(counts(&merged), sum);
    assert_eq!(
        merged.per_second.iter().map(|s| s.sent).sum::<u64>(),
        RATE * SECONDS
    );
    // The same as one process within the histogram's error (0.1 %) and what two runs on one busy machine differ by.
    for q in [0.5, 0.9, 0.99] {
        let at = |r: &Report| r.latency.value_at_quantile(q) as f64 / 1e3;
        let (alone, merged) = (at(&alone), at(&merged));
        let allowed = 0.02 * alone + 2.0;
        assert!(
            (merged - alone).abs() <= allowed,
            "q {q}: one {alone:.2} ms, eight {merged:.2} ms"
        );
        println!("q {q}: one process {alone:.2} ms, eight {merged:.2} ms");
    }
}

#[test]
#[ignore = "needs Prometheus"]
fn load_fleet_series_reach_the_users_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), "{}\n");
    let service = Duration::from_millis(1);
    let server = serve(Profile::Queue { service }, false).unwrap();
    let target = format!("http://{}/", server.addr);
    let receiver = format!("{}/api/v1/write", prometheus.url);
    let run = |more: &[&str]| {
        let args = [
            "load",
            "rate",
            &target,
            "--rate",
            "50",
            "--duration",
            "3s",
            "--run-id",
            "mine",
        ];
        nines(&[&args[..], more].concat())
    };
    for shard in ["1/2", "2/2"] {
        let header = "X-Scope-OrgID: team";
        let output = run(&[
            "--shard",
            shard,
            "--remote-write",
            &receiver,
            "--remote-write-header",
            header,
        ]);
        assert!(
            !stderr(&output).contains("do not reach"),
            "{}",
            stderr(&output)
        );
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = client::Client::new(prometheus.url.clone());
    let ask = |text: &str| -> Option<f64> {
        let now = super::remote::now_ms();
        let data: QueryData = runtime.block_on(client.query(text, now)).unwrap();
        data.first_float()
    };
    // Both workers wrote their own series: 75 requests each.
    let sent = "sum(max_over_time(nines_load_requests_total{run_id=\"mine\"}[5m]))";
    assert_eq!(ask(sent), Some(150.0));
    let workers =
        "count(count by (shard) (max_over_time(nines_load_offered_rate{run_id=\"mine\"}[5m])))";
    assert_eq!(ask(workers), Some(2.0));
    let counted = "sum(max_over_time(nines_load_latency_seconds_count{run_id=\"mine\"}[5m]))";
    assert_eq!(ask(counted), Some(150.0));
    // A receiver that refuses is named, and the load goes on.
    let wrong = format!("{}/nowhere", prometheus.url);
    let output = run(&["--remote-write", &wrong]);
    let text = stderr(&output);
    assert!(
        text.contains("remote-write receiver") && text.contains("samples did not reach"),
        "{text}"
    );
    assert!(
        stdout(&output).contains("planned 150   sent 150"),
        "{}",
        stdout(&output)
    );
}
