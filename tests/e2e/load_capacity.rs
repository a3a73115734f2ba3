//! The capacity search over the real binary: a server of known capacity is found; what is not a capacity is said.
//!
//! Owns nothing but its servers. Must not know how the search goes.

use std::time::Duration;

use loadgen::truth::{Profile, serve};

use super::running::{Agent, Backend, nines, stderr, stdout};

/// A server that takes connections and answers nothing.
fn shut() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", port.local_addr().expect("an address"));
    drop(port);
    url
}

#[test]
fn what_cannot_be_searched_is_told_before_anything_is_sent() {
    for (more, part) in [
        (&["--slo", "p99<fast"][..], "--slo"),
        (
            &["--slo", "p99<1s", "--from", "50", "--max-rate", "10"],
            "first rate",
        ),
        (&["--slo", "p99<1s", "--tolerance", "90%"], "0.1% to 50%"),
        (&["--slo", "p99<1s", "--step", "20s"], "four steps"),
        (&["--slo", "p99<1s", "--max-rate", "5/x"], "50/1s"),
        (&[], "--slo"),
    ] {
        let url = ["load", "capacity", "http://127.0.0.1:9"];
        let output = nines(&[&url[..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    let elsewhere = [
        "load",
        "capacity",
        "http://example.com",
        "--slo",
        "p99<1s",
        "--max-rate",
        "500",
    ];
    let output = nines(&elsewhere);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is yours"), "{}", stderr(&output));
}

#[test]
fn a_target_that_is_down_has_no_capacity() {
    let args = ["load", "capacity", "--slo", "p99<1s", "--step", "1s"];
    let output = nines(&[&args[..], &[&shut()]].concat());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(text.contains("nothing answered (refused"), "{text}");
}

#[test]
#[ignore = "takes half a minute"]
fn load_capacity_of_a_known_server_is_found() {
    let service = Duration::from_micros(2500);
    let server = serve(Profile::Queue { service }, false).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (json, md) = (file("c.json"), file("c.md"));
    let url = format!("http://{}", server.addr);
    let search = |more: &[&str]| {
        let args = [
            "load",
            "capacity",
            "--slo",
            "p99<50ms",
            "--slo",
            "error_rate<1%",
        ];
        // Short steps from near by: the whole proof is bench/capacity.
        let short = ["--from", "100", "--step", "3s"];
        nines(&[&args[..], &short, more, &["-o", &json, "--md", &md, &url]].concat())
    };
    let output = search(&["--at-least", "300", "--max-duration", "40s"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let read: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let found = &read["nines_capacity"];
    let number = |v: &serde_json::Value| v.as_f64().unwrap();
    let capacity = number(&found["capacity"]);
    // The server is in this test's own process and wakes late on a busy machine.
    assert!((380.0..=412.0).contains(&capacity), "{text}");
    let (low, high) = (number(&found["interval"][0]), number(&found["interval"][1]));
    assert!(low <= 401.0 && 399.0 <= high && low > 370.0, "{text}");
    assert!(number(&found["elapsed_s"]) <= 42.0, "{text}");
    let limit = number(&found["law"]["limit"]);
    assert!((360.0..=440.0).contains(&limit), "{text}");
    assert!(
        std::fs::read_to_string(&md)
            .unwrap()
            .contains("| confirm |")
    );
    let below = search(&[
        "--at-least",
        "1000",
        "--max-rate",
        "200",
        "--max-duration",
        "12s",
    ]);
    let text = stdout(&below);
    assert_eq!(below.status.code(), Some(3), "{text}{}", stderr(&below));
    assert!(text.contains("capacity at least 200.0/s"), "{text}");
}

/// Four connections of 40 ms a query: the pool is used up long before anything else.
#[test]
#[ignore = "takes half a minute"]
fn load_capacity_names_the_pool_that_limits() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let settings = file(
        "backend.yaml",
        "limits: {enabled: false}\ndatabase: {pool_max: 4}\nrealism: {enabled: true, cache_ms: 1, db_ms: 40, sigma: 0.1}\n",
    );
    let backend = Backend::with(&["--config", &settings]);
    let target = backend.url.trim_start_matches("http://");
    let config = file(
        "agent.yaml",
        &format!(
            "collect:\n  host: {{}}\n  scrape:\n  - {{job: shop, targets: [\"{target}\"], interval: 500ms, timeout: 500ms}}\n"
        ),
    );
    let agent = Agent::start(dir.path(), &["--config", &config]);
    let json = dir.path().join("c.json").display().to_string();
    let url = format!("{}/api/v1/tasks?limit=5", backend.url);
    let args = [
        "load",
        "capacity",
        "--slo",
        "p99<400ms",
        "--slo",
        "error_rate<1%",
    ];
    let short = ["--from", "4", "--step", "3s", "--max-duration", "35s"];
    let more = ["--agent", &agent.url, "-o", &json, &url];
    let output = nines(&[&args[..], &short, &more].concat());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let read = std::fs::read_to_string(&json).unwrap();
    let read: serde_json::Value = serde_json::from_str(&read).unwrap();
    let first = &read["nines_capacity"]["resources"][0];
    let name = first["name"].as_str().unwrap_or_default();
    assert!(name.starts_with("db_pool "), "{text}");
    // The pauses between steps are in the mean, so that a busy machine may leave it below what is called saturated.
    let share = |key: &str| first[key].as_f64().unwrap_or(f64::NAN);
    assert!(share("value") >= 0.6, "{text}");
    assert!(share("value") >= share("light") + 0.2, "{text}");
    assert!(text.contains(name), "{text}");
}
