//! Every query of every dashboard against live data: a backend under load, an agent that watches it, all as processes.
//!
//! Owns the wiring by command line alone, as a user would. Must not know how a dashboard is rendered.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::running::{Agent, nines, stderr, stdout};

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("an address")
        .to_string()
}

#[test]
#[ignore = "takes a minute of load; tests/run runs it"]
fn live_dashboards_have_an_answer_for_every_query() {
    let dir = tempfile::tempdir().unwrap();
    let (front, admin) = (free_port(), free_port());
    let config = dir.path().join("agent.yaml");
    let scrape = format!(
        "collect:\n  scrape:\n  - job: refbackend\n    targets: [\"{front}\"]\n    interval: 1s\n    timeout: 1s\n"
    );
    std::fs::write(&config, scrape).unwrap();
    let agent = Agent::start(dir.path(), &["--config", config.to_str().unwrap()]);
    let otlp = agent.line();
    let at = otlp.find("gRPC ").unwrap() + 5;
    let grpc = otlp[at..].split(',').next().unwrap();
    let backend = Command::new(env!("CARGO_BIN_EXE_nines"))
        .args([
            "backend",
            "--demo",
            "--listen",
            &front,
            "--admin",
            &admin,
            "--otlp",
            &format!("http://{grpc}"),
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _backend = Ended(backend);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(&front).is_err() {
        assert!(Instant::now() < deadline, "the backend does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    for path in ["/api/products/1", "/api/products/7"] {
        let url = format!("http://{front}{path}");
        let output = nines(&[
            "load",
            "rate",
            "--rate",
            "50",
            "--duration",
            "20s",
            "--agent",
            &agent.url,
            &url,
        ]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}{}",
            stdout(&output),
            stderr(&output)
        );
    }
    let client = client::Client::new(agent.url.clone());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let now_ms = || i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let mut silent = Vec::new();
    let mut asked = 0;
    for board in dashboards::all() {
        for panel in &board.panels {
            for query in &panel.queries {
                asked += 1;
                let text = query.promql("1m");
                let answer = runtime.block_on(client.query(&text, now_ms()));
                let finite = match &answer {
                    Ok(data) => data.first_float().is_some_and(f64::is_finite),
                    Err(_) => false,
                };
                if !finite {
                    silent.push(format!(
                        "{} / {}: {text}\n    {answer:?}",
                        board.name, panel.title
                    ));
                }
            }
        }
    }
    assert!(asked > 40, "only {asked} queries");
    assert!(
        silent.is_empty(),
        "{} of {asked} queries have no finite answer:\n{}",
        silent.len(),
        silent.join("\n")
    );
}
