//! `--source` against a real Prometheus: queries, rules, SLOs and dashboards are read there instead of from an agent.
//!
//! Owns the Prometheus process and its configuration. Must not know how a source is read.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::Client;
use model::Labels;
use serde_json::Value as Json;

use super::running::{Agent, nines, stderr, stdout};

/// A Prometheus on a free port, in its own folder.
pub struct Prometheus {
    child: Child,
    /// Its base URL.
    pub url: String,
}

impl Prometheus {
    /// Starts one that takes remote writes, with more lines of configuration, and waits until it is ready.
    pub fn start(dir: &Path, config: &str) -> Prometheus {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap().to_string();
        drop(port);
        Prometheus::start_at(dir, config, &address)
    }

    /// [`Prometheus::start`] on a given address.
    pub fn start_at(dir: &Path, config: &str, address: &str) -> Prometheus {
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.enable-remote-write-receiver", "--log.level=error"])
            .args(["--enable-feature=native-histograms"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed");
        let url = format!("http://{address}");
        let mut prometheus = Prometheus { child, url };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !prometheus.ready() {
            let ended = prometheus.child.try_wait().unwrap();
            assert!(ended.is_none(), "prometheus ended: {ended:?}");
            assert!(Instant::now() < deadline, "prometheus is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        prometheus
    }

    fn ready(&self) -> bool {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ask = Client::new(self.url.clone());
        runtime.block_on(ask.query("vector(1)", 0)).is_ok()
    }

    /// Writes samples to it.
    pub fn write(&self, series: &[(Labels, Vec<(i64, f64)>)]) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = Client::new(self.url.clone());
        runtime.block_on(client.remote_write(series)).unwrap();
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Now, Unix milliseconds.
pub fn now_ms() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// A counter every second over the last `seconds`, from 0, growing by `step`.
fn counter(name: &str, code: &str, seconds: i64, step: f64) -> (Labels, Vec<(i64, f64)>) {
    let labels = Labels::from_pairs([("__name__", name), ("code", code)]);
    let now = now_ms();
    let points = (0..=seconds).map(|i| (now - (seconds - i) * 1000, i as f64 * step));
    (labels, points.collect())
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = nines(args);
    (output.status.code(), stdout(&output), stderr(&output))
}

const RULES: &str = "groups:
- name: g
  rules:
  - record: job:requests:rate1m
    expr: sum(rate(requests_total[1m]))
  - alert: Errors
    expr: sum(rate(requests_total{code=\"500\"}[1m])) / on () job:requests:rate1m > 0.05
    labels: {severity: critical}
    annotations: {summary: '{{ $value | humanizePercentage }} fail'}
  - alert: Quiet
    expr: job:requests:rate1m < 1
  - record: nothing
    expr: absent_metric
";

const SLOS: &str = "slos:
- name: checkout
  objective: 99
  good: sum(increase(requests_total{code=\"200\"}[$window]))
  total: sum(increase(requests_total[$window]))
";

#[test]
#[ignore = "needs prometheus"]
fn remote_source_answers_queries_rules_and_slos() {
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), "global: {}\n");
    // One of ten requests fails.
    prometheus.write(&[
        counter("requests_total", "200", 300, 9.0),
        counter("requests_total", "500", 300, 1.0),
    ]);
    let url = prometheus.url.as_str();
    for evaluate in ["there", "here"] {
        let query = "sum(increase(requests_total[2m]))";
        let (code, out, err) = run(&[
            "query",
            query,
            "--source",
            url,
            "--evaluate",
            evaluate,
            "--format",
            "json",
        ]);
        assert_eq!(code, Some(0), "{out}{err}");
        let answer: Json = serde_json::from_str(&out).unwrap();
        let value: f64 = answer["result"][0]["value"][1]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((value - 1_200.0).abs() < 15.0, "{evaluate}: {out}");
        let (code, out, err) = run(&[
            "query",
            "sum by (code) (requests_total)",
            "--source",
            url,
            "--evaluate",
            evaluate,
            "--range",
            "1m",
            "--step",
            "10s",
        ]);
        assert_eq!(code, Some(0), "{out}{err}");
        assert_eq!(out.lines().count(), 16, "{out}");
    }
    let (code, _, err) = run(&["query", "up(", "--source", url]);
    assert_eq!(code, Some(2), "{err}");

    let rules = dir.path().join("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let rules = rules.to_str().unwrap();
    let (code, out, err) = run(&["alerts", "check", rules, "--source", url]);
    assert_eq!(code, Some(0), "{out}{err}");
    let row = |name: &str| out.lines().find(|l| l.contains(name)).unwrap().to_owned();
    for (rule, series) in [
        ("job:requests:rate1m", "1"),
        ("Errors", "1"),
        ("Quiet", "0"),
        ("nothing", "0"),
    ] {
        let cells: Vec<String> = row(rule).split_whitespace().map(str::to_owned).collect();
        assert_eq!(cells[3], series, "{out}");
    }

    let (code, out, err) = run(&["alerts", "run", rules, "--source", url, "--once", "--write"]);
    assert_eq!(code, Some(3), "an alert fires: {out}{err}");
    assert!(out.contains("Errors") && out.contains("10% fail"), "{out}");
    assert!(!out.contains("Quiet"), "{out}");
    let (code, out, err) = run(&["query", "ALERTS or job:requests:rate1m", "--source", url]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("alertname=\"Errors\"") && out.contains("job:requests:rate1m"),
        "written back: {out}"
    );

    let slos = dir.path().join("slos.yaml");
    std::fs::write(&slos, SLOS).unwrap();
    let slos = slos.to_str().unwrap();
    let (code, out, err) = run(&[
        "slo", "status", "--source", url, "--slos", slos, "--format", "json",
    ]);
    assert_eq!(code, Some(3), "ten times the rate pages: {out}{err}");
    let all: Json = serde_json::from_str(&out).unwrap();
    let sli = all[0]["sli"].as_f64().unwrap();
    assert!((sli - 0.9).abs() < 0.005, "{out}");
    let burn = all[0]["burn"][0]["rate"].as_f64().unwrap();
    assert!((burn - 10.0).abs() < 0.5, "{out}");

    let (code, out, _) = run(&["dashboards", "--verify", "--source", url]);
    assert_eq!(code, Some(3));
    assert!(out.contains("queries have an answer"), "{out}");
    let (code, out, err) = run(&["top", "--once", "--source", url]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(!out.is_empty());
}

#[test]
#[ignore = "needs prometheus"]
fn remote_source_judges_a_gate() {
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), "global: {}\n");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let report = file("run.json");
    let ready = format!("{}/-/ready", prometheus.url);
    // A closed loop has no schedule that a busy machine could miss.
    let load = ["load", "closed", "--connections", "1", "--duration", "2s"];
    let (code, out, err) = run(&[&load[..], &["-o", &report, &ready]].concat());
    assert_eq!(code, Some(0), "{out}{err}");
    // One of ten requests fails, before the run and while it goes on.
    prometheus.write(&[
        counter("requests_total", "200", 300, 9.0),
        counter("requests_total", "500", 300, 1.0),
    ]);
    let gate = |more: &[&str]| run(&[&["gate", &report], more].concat());
    let url = prometheus.url.as_str();
    let share =
        "sum(increase(requests_total{code=\"500\"}[1m])) / sum(increase(requests_total[1m]))";
    let (holds, broken) = (format!("{share} < 0.2"), format!("{share} < 0.05"));

    let (code, out, err) = gate(&["--source", url, "--ensure-promql", &holds]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("gate: 2 kept, 0 broken"), "{out}");
    let both = ["--ensure-promql", &holds, "--ensure-promql", &broken];
    let (code, out, err) = gate(&[&["--source", url], &both[..]].concat());
    assert_eq!(code, Some(3), "{out}{err}");
    assert!(
        out.lines()
            .any(|l| l.starts_with("broken") && l.contains(&broken) && l.contains("no result")),
        "{out}"
    );
    assert!(out.contains("gate: 2 kept, 1 broken"), "{out}");

    let slos = file("slos.yaml");
    for (objective, expected) in [("85", Some(0)), ("99", Some(3))] {
        std::fs::write(&slos, SLOS.replace("99", objective)).unwrap();
        let (code, out, err) = gate(&["--source", url, "--slo", &slos]);
        assert_eq!(code, expected, "{out}{err}");
        let line = out.lines().find(|l| l.contains("SLO checkout"));
        // Kept rules are counted, not listed.
        assert_eq!(line.is_some(), expected == Some(3), "{out}");
        if let Some(line) = line {
            assert!(line.contains("% good of"), "{line}");
        }
    }

    let url = prometheus.url.clone();
    prometheus.kill();
    let (code, out, err) = gate(&["--source", &url, "--ensure-promql", &holds]);
    assert_eq!(code, Some(3), "{out}{err}");
    assert!(
        out.lines()
            .any(|l| l.starts_with("broken")
                && l.contains(&format!("no answer: cannot reach {url}"))),
        "{out}"
    );
}

#[test]
#[ignore = "needs prometheus"]
fn remote_source_may_be_an_agent() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::new(agent.url.clone());
    let series = [counter("requests_total", "200", 120, 2.0)];
    runtime.block_on(client.remote_write(&series)).unwrap();
    let (code, out, err) = run(&[
        "query",
        "sum(increase(requests_total[1m]))",
        "--source",
        &agent.url,
        "--evaluate",
        "here",
    ]);
    assert_eq!(code, Some(0), "{err}");
    let value: f64 = out.split_whitespace().last().unwrap().parse().unwrap();
    assert!((value - 120.0).abs() < 4.0, "{out}");
}

#[test]
#[ignore = "needs prometheus"]
fn remote_read_lets_a_prometheus_answer_with_our_samples() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ours = Client::new(agent.url.clone());
    let series = [
        counter("requests_total", "200", 120, 2.0),
        counter("requests_total", "500", 120, 0.25),
    ];
    runtime.block_on(ours.remote_write(&series)).unwrap();
    let config = format!(
        "remote_read:\n- url: {}/api/v1/read\n  read_recent: true\n",
        agent.url
    );
    let prometheus = Prometheus::start(dir.path(), &config);
    let theirs = Client::new(prometheus.url.clone());
    let now = now_ms();
    for query in [
        "sum by (code) (requests_total)",
        "count_over_time(requests_total{code=~\"5..\"}[10m])",
        "rate(requests_total{code!=\"500\"}[1m])",
    ] {
        let (ours, theirs) = runtime.block_on(async {
            let (a, b) = tokio::join!(ours.query(query, now), theirs.query(query, now));
            (a.unwrap(), b.unwrap())
        });
        assert!(ours.first_float().is_some(), "{query}: {ours:?}");
        assert_eq!(ours, theirs, "{query}");
    }
    prometheus.kill();
}

/// Writes one sample to each of `series` series and waits for the acknowledgement.
fn write_tick(agent: &Agent, series: usize, t_ms: i64, value: f64) {
    let all: Vec<_> = (0..series)
        .map(|i| Labels::from_pairs([("__name__", "ticks".to_owned()), ("i", i.to_string())]))
        .map(|labels| (labels, vec![(t_ms, value)]))
        .collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::new(agent.url.clone());
    runtime.block_on(client.remote_write(&all)).unwrap();
}

#[test]
#[ignore = "needs prometheus"]
fn remote_write_reaches_a_prometheus_whoever_is_killed() {
    const SERIES: usize = 100;
    const TICKS: i64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let config = dir.path().join("agent.yaml");
    let settings = format!(
        "alerts: {{pack: false}}\nremote_write:\n- url: http://{address}/api/v1/write\n  wait: 10ms\n  retry_max: 200ms\n"
    );
    std::fs::write(&config, settings).unwrap();
    let start_agent = || Agent::start(dir.path(), &["--config", config.to_str().unwrap()]);
    let start_peer = || Prometheus::start_at(dir.path(), "global: {}\n", &address);
    let (mut agent, mut peer) = (start_agent(), Some(start_peer()));
    let base = now_ms() - TICKS * 10;
    for tick in 0..TICKS {
        match tick {
            60 | 220 => peer.take().unwrap().kill(),
            120 | 260 => peer = Some(start_peer()),
            90 | 150 | 200 | 240 | 300 => {
                // Requests are on their way: nobody waits for them.
                agent.kill();
                agent = start_agent();
            }
            // One after the other at once: the repeated request meets a server that replays its log.
            340 => {
                peer.take().unwrap().kill();
                agent.kill();
                peer = Some(start_peer());
                agent = start_agent();
            }
            _ => {}
        }
        write_tick(&agent, SERIES, base + tick * 10, tick as f64);
    }
    let peer = peer.unwrap();
    let theirs = Client::new(peer.url.clone());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let wanted = (SERIES as i64 * TICKS) as f64;
    let count = "sum(count_over_time(ticks[1h]))";
    loop {
        let there = runtime.block_on(theirs.query(count, now_ms())).unwrap();
        if there.first_float() == Some(wanted) {
            break;
        }
        assert!(Instant::now() < deadline, "{there:?} of {wanted}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let all = runtime
        .block_on(theirs.query("ticks[1h]", now_ms()))
        .unwrap();
    let model::QueryData::Matrix(all) = all else {
        panic!("no matrix")
    };
    assert_eq!(all.len(), SERIES);
    for series in all {
        let values: Vec<f64> = (0..TICKS).map(|t| t as f64).collect();
        assert_eq!(series.points.values, values, "{}", series.labels);
        let times: Vec<i64> = (0..TICKS).map(|t| base + t * 10).collect();
        assert_eq!(series.points.t_ms, times, "{}", series.labels);
    }
}

/// A webhook: hands over the body of every request that it gets.
fn webhook() -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (send, bodies) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
            let (mut all, mut part) = (Vec::new(), [0; 4096]);
            while let Ok(n) = stream.read(&mut part)
                && n > 0
            {
                all.extend_from_slice(&part[..n]);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            if send
                .send(String::from_utf8_lossy(&all).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    (url, bodies)
}

/// A process that is killed with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs prometheus"]
fn remote_rules_page_once_even_when_the_ruler_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), "global: {}\n");
    prometheus.write(&[
        counter("requests_total", "200", 300, 9.0),
        counter("requests_total", "500", 300, 1.0),
    ]);
    let (hook, pages) = webhook();
    let rules = dir.path().join("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let delivery = dir.path().join("delivery.yaml");
    let text = format!("receivers:\n- name: hook\n  webhook: {{url: '{hook}'}}\n");
    std::fs::write(&delivery, text).unwrap();
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nines"));
        command
            .args([
                "alerts",
                "run",
                "--interval",
                "1s",
                "--source",
                &prometheus.url,
            ])
            .arg("--delivery")
            .arg(&delivery)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .arg(&rules)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Killed(command.spawn().unwrap())
    };
    let ruler = start();
    let page = pages.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(
        page.contains("\"firing\"") && page.contains("Errors"),
        "{page}"
    );
    // Long enough for the answer to be written down.
    std::thread::sleep(Duration::from_secs(1));
    drop(ruler);
    let _ruler = start();
    let more = pages.recv_timeout(Duration::from_secs(4));
    assert!(more.is_err(), "paged twice: {more:?}");
}
