//! `--beside`: two targets driven at the same time and compared, over the real binary.
//!
//! Owns servers of a known delay. Must not know how pairs are judged.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

use super::running::{nines, stderr, stdout};

/// Answers every request after a while, `/missing` with 503 and `/lost` with 404.
fn server(ms: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = listener.local_addr().expect("it listens");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buffer = [0_u8; 4096];
                while let Ok(n) = stream.read(&mut buffer) {
                    let is = |path: &[u8]| buffer[..n].starts_with(path);
                    let status = match () {
                        () if is(b"GET /missing ") => "503 Gone",
                        () if is(b"GET /lost ") => "404 Not Found",
                        () => "200 OK",
                    };
                    std::thread::sleep(Duration::from_millis(ms));
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
                    if n == 0 || stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("http://{addr}")
}

fn run(args: &[&str]) -> Output {
    let plan = ["load", "rate", "--rate", "50", "--duration", "11s"];
    nines(&[&plan[..], args].concat())
}

fn json(path: &str) -> Json {
    let text = std::fs::read_to_string(path).expect("the report is written");
    serde_json::from_str(&text).expect("it is JSON")
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn equal_servers_are_no_evidence_and_their_reports_are_two() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (server(5), format!("{}/a", server(5)));
    let file = |name| path(dir.path(), name);
    let (ours, theirs, junit, md) = (file("n.json"), file("o.json"), file("j.xml"), file("m.md"));
    let old = format!("{old}/b?c");
    let all = [
        "--run-id",
        "r7",
        "-o",
        &ours,
        "--beside-output",
        &theirs,
        "--junit",
        &junit,
        "--md",
        &md,
        "--beside",
        &old,
        &new,
    ];
    let mut output = run(&all);
    // One alarm in twenty is a comparison's right, and so is a machine too busy to keep the schedule.
    for _ in 0..3 {
        if output.status.code() == Some(0) {
            break;
        }
        output = run(&all);
    }
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for part in [
        "run r7 of default against http://127.0.0.1",
        "at the same time as run r7-beside of http://127.0.0.1",
        "\nbeside     run r7-beside against http://127.0.0.1",
        "against the run beside it (at the same time, compared in pairs):\nno evidence  all requests level",
        "gate: 4 kept, 0 broken",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let read = |name: &str| std::fs::read_to_string(name).unwrap();
    assert!(read(&junit).contains("name=\"no worse than the run beside it\""));
    assert!(read(&md).contains("| against the run beside it | |"));
    let [ours_json, theirs_json] = [&ours, &theirs].map(|p| json(p)["nines"].clone());
    assert_eq!(
        (&ours_json["run_id"], &theirs_json["run_id"]),
        (&"r7".into(), &"r7-beside".into())
    );
    assert!(ours_json["routes"].get("/a").is_some() && theirs_json["routes"].get("/b?c").is_some());
    assert_eq!(
        (&ours_json["planned"], &theirs_json["planned"]),
        (&550.into(), &550.into())
    );
    let started = |of: &Json| of["started_ms"].as_i64().unwrap();
    assert!(started(&ours_json).abs_diff(started(&theirs_json)) <= 2);
    // The stored runs tell the same.
    let later = nines(&["gate", &ours, "--baseline", &theirs]);
    let compared = |text: &str| -> String {
        let from = text
            .find("against the run beside it")
            .unwrap_or_else(|| panic!("{text}"));
        text[from..].to_owned()
    };
    assert_eq!(compared(&stdout(&later)), compared(&text));
}

#[test]
fn a_slower_server_a_failing_one_and_one_that_is_down_are_told() {
    let (quick, slow) = (server(3), server(9));
    let [root, failing, lost] = ["/", "/missing", "/lost"].map(|path| format!("{quick}{path}"));
    let slow = format!("{slow}/missing/not");
    let down = "http://127.0.0.1:9";
    let cases = [
        (
            &quick[..],
            &slow[..],
            "no worse than the run beside it: all requests level  (worse",
        ),
        (
            &root,
            &failing,
            "no more failures than the run beside it  (100.00 %, beside 0.00 %)",
        ),
        (
            &failing,
            &quick,
            "beside: the run is valid  (100.0 % of its requests failed)",
        ),
        (
            &root,
            &lost,
            "beside: both answer alike  (0.0 % of its answers are 4xx, 100.0 % of this run's",
        ),
        (
            down,
            &quick,
            "beside: the run is valid  (no response arrived)",
        ),
    ];
    std::thread::scope(|s| {
        for (beside, url, line) in cases {
            s.spawn(move || {
                let output = run(&["--beside", beside, url]);
                let text = stdout(&output);
                assert_eq!(output.status.code(), Some(3), "{text}{}", stderr(&output));
                assert!(text.contains(&format!("broken  {line}")), "{line}: {text}");
                // No verdict from a run that is no measure.
                assert_eq!(
                    text.contains("all requests level"),
                    !line.starts_with("beside"),
                    "{text}"
                );
            });
        }
    });
}

#[test]
fn a_stop_ends_and_reports_both() {
    let (old, new) = (server(1), server(1));
    let child = Command::new(env!("CARGO_BIN_EXE_nines"))
        .args([
            "load",
            "closed",
            "-c",
            "2",
            "--duration",
            "60s",
            "--beside",
            &old,
            &new,
        ])
        .env_remove("NINES_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    std::thread::sleep(Duration::from_secs(3));
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.is_ok_and(|s| s.success()));
    let output = child.wait_with_output().expect("it ends");
    let text = stdout(&output);
    assert_eq!(
        text.matches("stopped before its end").count(),
        2,
        "{text}{}",
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("measured seconds with percentiles; a comparison needs 10"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_run_beside_is_refused_before_the_run() {
    let url = "http://127.0.0.1:9/";
    for (more, part) in [
        (&["--baseline", "x.json"][..], "cannot be used with"),
        (&["--shard", "1/2", "--run-id", "r"], "cannot be used with"),
        (&["--connect-to", "127.0.0.1:9"], "cannot be used with"),
        (&["--unix-socket", "/x"], "cannot be used with"),
        (
            &["--duration", "9s"],
            "needs 10 of them: --duration is 9.0 s",
        ),
        (&["--beside-output", "-"], "--beside-output is a file"),
    ] {
        let all = ["load", "rate", "--rate", "5", "--beside", url];
        let output = nines(&[&all[..], more, &[url]].concat());
        assert_eq!(
            output.status.code(),
            Some(2),
            "{more:?} {}",
            stdout(&output)
        );
        assert!(
            stderr(&output).contains(part),
            "{more:?} {}",
            stderr(&output)
        );
    }
    let elsewhere = "http://192.0.2.1/";
    for (beside, part) in [
        (elsewhere, "send 200/s to 192.0.2.1"),
        (elsewhere, "give --i-own-this-target"),
        ("ftp://x", "--beside: use target \"ftp://x\""),
    ] {
        let output = nines(&["load", "rate", "--rate", "200", "--beside", beside, url]);
        assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
        let text = stderr(&output);
        assert!(text.contains(part) && text.contains("--beside: "), "{text}");
    }
    for args in [
        &[
            "load",
            "rate",
            "--rate",
            "5",
            "--beside-output",
            "x.json",
            url,
        ][..],
        &["load", "run", "x.yml", "--beside-output", "y.json"],
        &[
            "load", "capacity", "--ensure", "p99<1s", "--beside", url, url,
        ],
    ] {
        assert_eq!(nines(args).status.code(), Some(2), "{args:?}");
    }
}

/// A script of two requests a user, written into the folder; 11 seconds of 20 users each.
fn script(dir: &Path, target: &str, seconds: u32) -> String {
    let file = path(dir, "s.yml");
    let text = format!(
        "config: {{target: '{target}', phases: [{{duration: {seconds}, arrivalRate: 20}}]}}
before: {{flow: [{{log: begin}}]}}
scenarios:
  - {{name: often, weight: 3, flow: [{{get: {{url: /a}}}}, {{get: {{url: /b, name: the b}}}}]}}
  - {{name: seldom, weight: 1, flow: [{{get: {{url: /c}}}}]}}
"
    );
    std::fs::write(&file, text).expect("the script is written");
    file
}

#[test]
fn a_script_runs_beside_itself_user_by_user() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (server(3), server(9));
    let file = |name| path(dir.path(), name);
    let (ours, theirs) = (file("n.json"), file("o.json"));
    let script = script(dir.path(), &new, 11);
    let all = ["load", "run", "-q", &script, "-o", &ours, "--beside", &old];
    let output = nines(&[&all[..], &["--beside-output", &theirs]].concat());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(3), "{text}{}", stderr(&output));
    for part in [
        "begin\n",
        "beside: begin\n",
        "\nbeside     run t",
        "against the run beside it (at the same time, compared in pairs):\nworse        all requests level",
        "worse        the b p50",
        "broken  no worse than the run beside it: GET /a p50",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let [ours, theirs] = [&ours, &theirs].map(|p| json(p)["nines"].clone());
    assert_eq!(
        format!("{}-beside", ours["run_id"].as_str().unwrap()),
        theirs["run_id"].as_str().unwrap()
    );
    // The same users did the same on both sides.
    let asked = |of: &Json, route: &str| of["routes"][route]["requests"].as_u64().unwrap();
    for route in ["GET /a", "the b", "GET /c"] {
        assert!(asked(&ours, route) > 20, "{ours}");
        assert_eq!(asked(&ours, route), asked(&theirs, route), "{route}");
    }
    let started = |of: &Json| of["started_ms"].as_i64().unwrap();
    assert!(started(&ours).abs_diff(started(&theirs)) <= 2);
}

#[test]
fn a_script_that_cannot_run_beside_is_refused_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let target = server(1);
    for (seconds, beside, part) in [
        (9, &target[..], "needs 10 of them: the phases of "),
        (11, "ftp://x", "--beside: "),
        (60, "http://192.0.2.1", "192.0.2.1"),
    ] {
        let script = script(dir.path(), &target, seconds);
        let more = [
            "--overrides",
            "{\"config\": {\"phases\": [{\"duration\": 60, \"arrivalRate\": 200}]}}",
        ];
        let more = if seconds == 60 { &more[..] } else { &[] };
        let output = nines(&[&["load", "run", &script, "--beside", beside][..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
        let text = stderr(&output);
        assert!(text.contains(part), "{text}");
        assert!(!stdout(&output).contains("begin"), "{}", stdout(&output));
    }
}
