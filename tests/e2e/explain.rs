//! Faults injected into a running backend, and the cause that a load run ends with; the HTML page in headless Chromium.
//!
//! Owns a backend, an agent and a load as processes, wired as a user would. Must not know how causes are found.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::running::{Agent, nines, stderr, stdout};

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// A backend with realistic latencies, watched by an agent.
struct System {
    front: String,
    admin: String,
    agent: Agent,
    _backend: Ended,
}

fn curl(args: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "10"])
        .args(args)
        .output()
        .expect("curl starts");
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

impl System {
    fn start(dir: &Path) -> System {
        let (front, admin) = (free_port(), free_port());
        let config = dir.join("agent.yaml");
        let scrape = format!(
            "collect:\n  scrape:\n  - job: shop\n    targets: [\"{front}\"]\n    interval: 1s\n    timeout: 1s\n"
        );
        std::fs::write(&config, scrape).expect("the configuration is written");
        let config = config.display().to_string();
        let agent = Agent::start(dir, &["--config", &config]);
        let otlp = agent.line();
        let at = otlp.find("gRPC ").expect("the OTLP address") + 5;
        let grpc = format!(
            "http://{}",
            otlp[at..].split(',').next().unwrap_or_default()
        );
        let settings = dir.join("backend.yaml");
        let text = json!({"realism": {"enabled": true}, "limits": {"enabled": false}, "breaker": {"open_ms": 2000}, "seed_data": {"stock": 1_000_000}});
        std::fs::write(&settings, text.to_string()).expect("the settings are written");
        let backend = Command::new(env!("CARGO_BIN_EXE_nines"))
            .args([
                "backend", "--listen", &front, "--admin", &admin, "--otlp", &grpc, "--config",
            ])
            .arg(&settings)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let backend = Ended(backend);
        let deadline = Instant::now() + Duration::from_secs(30);
        for port in [&front, &admin] {
            while std::net::TcpStream::connect(port).is_err() {
                assert!(Instant::now() < deadline, "the backend does not listen");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        System {
            front,
            admin,
            agent,
            _backend: backend,
        }
    }

    /// Reads of forty products and of lists.
    fn targets(&self, dir: &Path) -> String {
        let path = dir.join("targets.txt").display().to_string();
        let front = &self.front;
        let each = (1..=40).map(|i| match i % 4 {
            0 => format!("GET http://{front}/api/products?page={i}\n\n"),
            _ => format!("GET http://{front}/api/products/{i}\n\n"),
        });
        std::fs::write(&path, each.collect::<String>()).expect("the targets are written");
        path
    }

    fn inject(&self, faults: &Value) {
        let url = format!("http://{}/admin/faults", self.admin);
        let body = json!({ "faults": faults }).to_string();
        curl(&[
            "-X",
            "PUT",
            "-H",
            "content-type: application/json",
            "-d",
            &body,
            &url,
        ]);
    }

    /// Nine seconds of load with the faults in the middle three; the explanation that `nines load explain` gives.
    fn explained(&self, dir: &Path, faults: &Value) -> Value {
        let report = dir.join("run.json").display().to_string();
        let targets = self.targets(dir);
        self.inject(faults);
        let output = nines(&[
            "load",
            "rate",
            "--rate",
            "40",
            "--duration",
            "9s",
            "--targets",
            &targets,
            "-o",
            &report,
            "--hdr",
            &dir.join("run.hlog").display().to_string(),
            &format!("http://{}/", self.front),
        ]);
        self.inject(&json!([]));
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{}",
            stderr(&output)
        );
        let output = nines(&[
            "load",
            "explain",
            &report,
            "--agent",
            &self.agent.url,
            "--format",
            "json",
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_str(&stdout(&output)).expect("JSON")
    }
}

fn fault(knob: &str, more: &Value) -> Value {
    let mut fault = json!({"knob": knob, "start_s": 3, "end_s": 6, "seed": 7});
    for (key, value) in more.as_object().expect("an object") {
        fault[key] = value.clone();
    }
    fault
}

#[test]
#[ignore = "takes three quarters of a minute of load; tests/run runs it"]
fn explain_names_what_was_injected() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path());
    std::thread::sleep(Duration::from_secs(2));
    let stop = |from: f64| json!({"knob": "latency", "target": "product", "dist": "pause", "ms": 5000, "start_s": from, "end_s": from + 0.9});
    for (faults, kind, subject) in [
        (
            json!([fault("slow_query", &json!({"ms": 300}))]),
            "database",
            "sqlite",
        ),
        (
            json!([fault(
                "error",
                &json!({"target": "product", "rate": 0.4, "status": 500})
            )]),
            "errors",
            "product",
        ),
        (json!([stop(3.0), stop(4.5)]), "pause", "product"),
        (
            json!([fault("cache_slow", &json!({"ms": 150}))]),
            "cache",
            "",
        ),
    ] {
        let why = system.explained(dir.path(), &faults);
        let first = &why["causes"][0];
        assert_eq!(first["kind"], kind, "{faults}: {why:#}");
        assert!(
            first["subject"].as_str().unwrap().contains(subject),
            "{faults}: {why:#}"
        );
        if kind != "cache" {
            let open = first["open"].as_str().unwrap();
            let id = open.split(' ').nth(2).unwrap();
            let shown = nines(&["traces", id, "--url", &system.agent.url]);
            assert!(
                stdout(&shown).contains("gateway"),
                "{open}: {}",
                stderr(&shown)
            );
        }
        // A busy machine makes neighbouring seconds bad too.
        let at = |key: &str| why["when"][key].as_f64().unwrap_or(f64::NAN);
        assert!(
            at("from_s") < 6.0 && at("until_s") > 3.0,
            "{faults}: it lasted from 3 s to 6 s: {why:#}"
        );
    }
}

#[test]
fn explain_without_an_agent_says_what_it_rests_on_and_mistakes_are_usage() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (report, html) = (file("r.json"), file("r.html"));
    let closed = free_port();
    let output = nines(&[
        "load",
        "rate",
        "--rate",
        "20",
        "--duration",
        "1s",
        "-o",
        &report,
        "--html",
        &html,
        &format!("http://{closed}/a&b"),
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let output = nines(&["load", "explain", &report]);
    let text = stdout(&output);
    assert!(
        text.starts_with("why    target unreachable: http://"),
        "{text}"
    );
    assert!(
        text.contains("refused 20") && text.contains("from the report alone"),
        "{text}"
    );
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(
        page.contains("Invalid run")
            && page.contains("target unreachable")
            && page.contains("/a&amp;b")
    );
    let output = nines(&[
        "load",
        "explain",
        &report,
        "--agent",
        &format!("http://{closed}"),
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains(&closed), "{}", stderr(&output));
    let output = nines(&["load", "explain", &html]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not JSON"), "{}", stderr(&output));
}

/// What Chromium made of a page.
struct Seen {
    /// The document after its script ran.
    dom: String,
    /// What it wrote to its log; the console's lines among it.
    log: String,
    /// Requests that the page, not the browser itself, began.
    requests: usize,
}

fn in_chromium(dir: &Path, page: &str) -> Seen {
    let log = dir.join("net.json");
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=2000",
        ])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("--log-net-log={}", log.display()))
        .args(["--dump-dom", &format!("file://{page}")])
        .stdin(Stdio::null())
        .output()
        .expect("chromium starts: Debian's package chromium");
    assert!(output.status.success(), "{}", stderr(&output));
    let net = std::fs::read_to_string(&log).expect("Chromium's network log");
    let begun = net.split("\"initiator\":\"").skip(1);
    Seen {
        dom: stdout(&output),
        log: stderr(&output),
        requests: begun
            .filter(|text| !text.starts_with("not an origin\""))
            .count(),
    }
}

#[test]
#[ignore = "needs Debian's chromium; tests/run installs it"]
fn html_report_works_in_chromium() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path());
    std::thread::sleep(Duration::from_secs(2));
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (html, report, baseline) = (file("run.html"), file("run.json"), file("base.json"));
    let targets = system.targets(dir.path());
    let url = format!("http://{}/", system.front);
    let load = |duration: &str, more: &[&str]| {
        let args = [
            "load",
            "rate",
            "--rate",
            "40",
            "--duration",
            duration,
            "--targets",
            &targets,
            "--agent",
            &system.agent.url,
        ];
        nines(&[&args[..], more, &[url.as_str()]].concat())
    };
    load("11s", &["-o", &baseline, "--quiet"]);
    system.inject(&json!([fault("slow_query", &json!({"ms": 200}))]));
    let output = load(
        "11s",
        &[
            "-o",
            &report,
            "--html",
            &html,
            "--baseline",
            &baseline,
            "--ensure",
            "p99<1us",
            "--ensure",
            "error_rate<50%",
        ],
    );
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("\nwhy    "),
        "the run ends with the cause: {}",
        stdout(&output)
    );
    let seen = in_chromium(dir.path(), &html);
    let dom = &seen.dom;
    assert!(
        dom.contains("data-ready=\"yes\""),
        "the script ran to its end: {}",
        seen.log
    );
    let stored: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let responses = stored["nines"]["responses"].as_u64().unwrap();
    for part in [
        &format!("<b>{responses}</b>")[..],
        "rules broken",
        "p99&lt;1us",
        "Against the baseline",
        "What the server did",
        "class=\"card trace\"",
        "id=\"why\"",
        "database: sqlite",
    ] {
        assert!(dom.contains(part), "{part} is not on the page");
    }
    let charts = dom.matches("tabindex=\"0\"").count();
    assert!(
        charts >= 10,
        "charts can be reached by the keyboard: {charts}"
    );
    assert!(
        !seen.log.contains("CONSOLE"),
        "the console is silent: {}",
        seen.log
    );
    assert_eq!(seen.requests, 0, "the page asks the network for nothing");
    // The check can fail: a page that asks and complains is seen to.
    let other = file("other.html");
    std::fs::write(
        &other,
        "<img src=http://127.0.0.1:9/x><script>console.error('x')</script>",
    )
    .unwrap();
    let seen = in_chromium(dir.path(), &other);
    assert!(
        seen.requests > 0 && seen.log.contains("CONSOLE"),
        "{}",
        seen.log
    );
}
