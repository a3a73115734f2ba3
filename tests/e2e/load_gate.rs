//! Load runs and their gate over the real binary: rules, SLOs, PromQL, stored runs, shards, replays, targets.
//!
//! Owns a small HTTP server that counts paths. Must not know how runs are judged inside.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;

use super::running::{Agent, nines, stderr, stdout};

type Seen = Arc<Mutex<BTreeMap<String, u64>>>;

/// Answers every request with 200, `/missing` with 503.
fn server() -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = listener.local_addr().expect("it listens");
    let seen = Seen::default();
    let theirs = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let seen = Arc::clone(&theirs);
            std::thread::spawn(move || connection(stream, &seen));
        }
    });
    (format!("http://{addr}"), seen)
}

fn connection(mut stream: TcpStream, seen: &Seen) {
    let mut head = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
            _ => return,
        }
        let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&head[..end]).into_owned();
        let length = text.lines().find_map(|l| {
            let (name, value) = l.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().expect("a length"))
        });
        if head.len() < end + 4 + length.unwrap_or(0) {
            continue;
        }
        head.drain(..end + 4 + length.unwrap_or(0));
        let first = text.lines().next().unwrap_or_default();
        let key = first.trim_end_matches(" HTTP/1.1").to_owned();
        let status = if key.contains("/missing") {
            "503 Gone"
        } else {
            "200 OK"
        };
        *seen
            .lock()
            .expect("no test panics with it")
            .entry(key)
            .or_default() += 1;
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Runs `nines load`, again when the machine was too busy to keep the schedule.
fn load(args: &[&str]) -> Output {
    let mut output = nines(args);
    for _ in 0..3 {
        if !stdout(&output).contains("the run is valid") {
            break;
        }
        output = nines(args);
    }
    output
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn a_run_is_judged_at_once_and_later() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _) = server();
    let file = |name| path(dir.path(), name);
    let (json, junit, csv, md) = (file("r.json"), file("j.xml"), file("c.csv"), file("m.md"));
    let (hdr, gitlab) = (file("h.hlog"), file("g.txt"));
    let run = [
        "load",
        "rate",
        "--rate",
        "40",
        "--duration",
        "3s",
        "-o",
        &json,
        "--ensure",
        "p50<1s",
        "--ensure",
        "error_rate<1%",
        "--junit",
        &junit,
        "--csv",
        &csv,
        "--md",
        &md,
        "--hdr",
        &hdr,
        "--gitlab",
        &gitlab,
    ];
    let target = format!("{url}/missing");
    let output = load(&[&run[..], &["--github", &target]].concat());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(3), "{text}{}", stderr(&output));
    assert!(
        text.contains("broken  error_rate<1%  (100.000 %)"),
        "{text}"
    );
    assert!(
        text.contains("::error title=nines gate::error_rate<1%25"),
        "{text}"
    );
    let read = |name: &str| std::fs::read_to_string(name).unwrap();
    assert!(read(&junit).contains("<failure message=\"100.000 %\">"));
    assert!(read(&csv).lines().count() >= 4 && read(&md).contains("**broken** | `error_rate"));
    assert!(read(&hdr).contains("HISTF") && read(&gitlab).ends_with("# EOF\n"));
    let later = nines(&["gate", &json, "--ensure", "5xx_rate>=99%"]);
    assert!(
        !stdout(&later).contains("broken  5xx_rate"),
        "{}",
        stdout(&later)
    );
    let later = nines(&["gate", &json, "--ensure", "p99.99 < 1us"]);
    assert_eq!(later.status.code(), Some(3));
    for (args, part) in [
        (&["gate", &json, "--ensure", "speed<1"][..], "no metric"),
        (&["gate", &csv], "not JSON"),
        (&["gate", &json, "--ensure-promql", "up > 0"], "--agent"),
        (
            &["gate", &json, "--ensure-promql", "up >", "--agent", &url],
            "--ensure-promql",
        ),
    ] {
        let output = nines(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn a_baseline_whose_processors_slept_is_named() {
    let (url, _) = server();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let run = nines(&[
        "load",
        "rate",
        "-R",
        "20",
        "-d",
        "1s",
        "-o",
        &path("run.json"),
        &url,
    ]);
    assert!(
        run.status.code().is_some_and(|code| code != 2),
        "{}",
        stderr(&run)
    );
    let run: Json =
        serde_json::from_str(&std::fs::read_to_string(path("run.json")).unwrap()).unwrap();
    assert_eq!(run["nines"]["client"]["kept_awake"], false);
    for (name, awake) in [("a", false), ("b", false), ("awake", true)] {
        let mut run = run.clone();
        run["nines"]["client"]["kept_awake"] = awake.into();
        like(&run, &path(name), name, 12, 1.0);
    }
    let against = |before: &str, after: &str| {
        let output = nines(&["gate", &path(after), "--baseline", &path(before)]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    };
    assert_eq!(against("a", "b"), "");
    for (before, after) in [("awake", "a"), ("a", "awake")] {
        let said = against(before, after);
        assert!(
            said.contains(&format!("in this run or in {before}, not in both")),
            "{said}"
        );
    }
}

/// Stores a run of 12 seconds like the one given, `slower` times as slow, under another name.
fn like(run: &Json, to: &str, id: &str, seconds: usize, slower: f64) {
    let mut run = run.clone();
    let nines = &mut run["nines"];
    nines["run_id"] = id.into();
    nines["valid"] = true.into();
    nines["reasons"] = Json::Array(Vec::new());
    let second = nines["per_second"][0].clone();
    let each = (0..seconds).map(|i| {
        let mut second = second.clone();
        second["at_s"] = i.into();
        second["length_s"] = 1.into();
        second["warm_up"] = false.into();
        // Ups and downs of 1 %.
        let times = slower * (1.0 + 0.01 * ((i * 7 + id.len() * 3) % 5) as f64 / 5.0);
        for name in ["mean", "0.25", "0.5", "0.75", "0.9", "0.95", "0.99"] {
            let us = 5000.0 * times;
            second["latency_us"][name] = (us.round() as u64).into();
        }
        second
    });
    nines["per_second"] = each.collect();
    std::fs::write(to, run.to_string()).expect("it is written");
}

#[test]
fn several_baselines_are_judged_together() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _) = server();
    let file = |name| path(dir.path(), name);
    let (run, slow, junit, md) = (file("r.json"), file("s.json"), file("j.xml"), file("m.md"));
    let names = ["a.json", "bb.json", "ccc.json", "dddd.json"].map(file);
    let made = nines(&[
        "load",
        "rate",
        "--rate",
        "20",
        "--duration",
        "2s",
        "-o",
        &run,
        &url,
    ]);
    assert!(Path::new(&run).exists(), "{}", stderr(&made));
    let made: Json = serde_json::from_str(&std::fs::read_to_string(&run).unwrap()).unwrap();
    // Baselines that differ by half a per cent, a run like them, one 4 % slower.
    for (i, name) in names.iter().enumerate() {
        let id = "x".repeat(i + 1);
        like(&made, name, &id, 12, 1.0 + 0.005 * i as f64);
    }
    like(&made, &run, "run", 12, 1.01);
    like(&made, &slow, "slow", 12, 1.05);
    let against = |report: &str, baselines: &[String], more: &[&str]| {
        let mut args = vec!["gate", report];
        baselines
            .iter()
            .for_each(|b| args.extend(["--baseline", b]));
        nines(&[&args[..], more].concat())
    };
    let output = against(&run, &names, &["--junit", &junit, "--md", &md]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    let text = stdout(&output);
    assert!(
        text.starts_with("against the mean of 4 baselines:\n"),
        "{text}"
    );
    assert!(text.contains("no evidence  all requests level"), "{text}");
    let read = |name: &str| std::fs::read_to_string(name).unwrap();
    assert!(read(&junit).contains("name=\"no worse than the mean of 4 baselines\""));
    assert!(read(&md).contains("| against the mean of 4 baselines | |"));
    // What one baseline calls worse is within what baselines differ by; more than that is not.
    let one = against(&slow, &names[3..], &[]);
    assert_eq!(one.status.code(), Some(3), "{}", stdout(&one));
    let all = against(&slow, &names, &["--junit", &junit]);
    assert_eq!(all.status.code(), Some(3), "{}", stdout(&all));
    assert!(
        read(&junit).contains("<failure message=\"worse"),
        "{}",
        read(&junit)
    );
    let few = against(&slow, &names[..2], &[]);
    assert_eq!(few.status.code(), Some(0), "{}", stdout(&few));
    // What does not fit together is told by name.
    let short = file("short.json");
    like(&made, &short, "short", 3, 1.0);
    for (second, part) in [
        (&names[0], "are the same run"),
        (&short, "short.json has 3 measured seconds"),
    ] {
        let output = against(&run, &[names[0].clone(), second.clone()], &[]);
        assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
#[ignore = "needs Python's hdrhistogram; tests/run installs it"]
fn hdr_log_is_read_by_hdrhistogram_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _) = server();
    let (json, hdr) = (path(dir.path(), "r.json"), path(dir.path(), "h.hlog"));
    let target = format!("{url}/");
    nines(&[
        "load",
        "rate",
        "--rate",
        "50",
        "--duration",
        "3s",
        "-o",
        &json,
        "--hdr",
        &hdr,
        &target,
    ]);
    let program = "import sys\nfrom hdrh.log import HistogramLogReader\nfrom hdrh.histogram import HdrHistogram\n\
        whole = HdrHistogram(1, 600000000, 3)\nreader = HistogramLogReader(sys.argv[1], whole)\n\
        while (part := reader.get_next_interval_histogram()) is not None: whole.add(part)\n\
        print(whole.get_total_count(), *[whole.get_value_at_percentile(p) for p in (50, 99)], whole.get_max_value())";
    let python = std::env::var("NINES_TEST_PYTHON").expect("NINES_TEST_PYTHON: tests/run sets it");
    let output = std::process::Command::new(python)
        .args(["-c", program, &hdr])
        .output()
        .unwrap();
    let read: Vec<u64> = stdout(&output)
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    let stored: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let ours = &stored["nines"]["latency_us"];
    let ours = ["count", "0.5", "0.99", "max"].map(|key| ours[key].as_u64().unwrap());
    assert_eq!(read, ours, "{}", stderr(&output));
}

#[test]
fn series_and_objectives_of_the_run_are_judged_by_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]);
    let (url, _) = server();
    let slos = path(dir.path(), "slos.yaml");
    let events = |status: &str| {
        format!("sum(max_over_time(nines_load_requests_total{{{status}}}[$window]))")
    };
    let text = format!(
        "slos:\n  - name: answers\n    description: x\n    objective: 99.9\n    period: 30d\n    good: {}\n    total: {}\n",
        events("status=\"200\""),
        events("")
    );
    std::fs::write(&slos, text).unwrap();
    let run = |path: &str, promql: &str| {
        let target = format!("{url}{path}");
        let args = [
            "load",
            "rate",
            "--rate",
            "40",
            "--duration",
            "2s",
            "--agent",
            &agent.url,
            "--slo",
            &slos,
            "--ensure-promql",
            promql,
            &target,
        ];
        load(&args)
    };
    let sent = "max_over_time(nines_load_requests_total{run_id=\"$run_id\"}[$duration]) >= 80";
    let output = run("/", sent);
    let text = stdout(&output);
    assert!(text.contains(" kept, "), "{text}{}", stderr(&output));
    assert!(
        !text.contains("broken  max_over") && !text.contains("broken  SLO"),
        "{text}"
    );
    let output = run("/missing", "nines_load_in_flight{run_id=\"$run_id\"} > 1e6");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(3), "{text}{}", stderr(&output));
    assert!(
        text.contains("> 1e6  (no result)") && text.contains("broken  SLO answers"),
        "{text}"
    );
}

#[test]
fn shards_logs_and_targets_send_exactly_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name| path(dir.path(), name);
    let (url, seen) = server();
    let target = format!("{url}/");
    let taken = || std::mem::take(&mut *seen.lock().unwrap());
    let (one, two, whole) = (file("1.json"), file("2.json"), file("w.json"));
    let start = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() + 1.0;
    let start = start.to_string();
    let shard = |i: &'static str, out: &str| {
        let args = [
            "load",
            "rate",
            "--rate",
            "31",
            "--duration",
            "2s",
            "--shard",
            i,
            "--run-id",
            "r",
            "--start-at",
            &start,
            "-o",
            out,
            &target,
        ];
        nines(&args).status.code()
    };
    std::thread::scope(|s| {
        s.spawn(|| shard("1/2", &one));
        s.spawn(|| shard("2/2", &two));
    });
    let output = nines(&["load", "merge", &two, &one, "-o", &whole]);
    assert!(
        stdout(&output).contains("planned 62   sent 62"),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    assert_eq!(taken()["GET /"], 62);
    let half = nines(&["load", "merge", &one]);
    assert_eq!(half.status.code(), Some(2), "{}", stderr(&half));

    let log = file("access.log");
    let line = |second: u32, path: &str| {
        format!("1.2.3.4 - - [31/Jan/2026:12:00:{second:02} +0000] \"GET {path} HTTP/1.1\" 200 1\n")
    };
    let lines = [
        line(0, "/a"),
        line(0, "/b?x=1"),
        line(2, "/a"),
        "noise\n".to_owned(),
    ];
    std::fs::write(&log, lines.concat()).unwrap();
    let began = std::time::Instant::now();
    let output = nines(&["load", "rate", "--replay", &log, "--speed", "2", &target]);
    assert!(began.elapsed().as_secs_f64() > 0.9);
    assert!(
        stdout(&output).contains("planned 3   sent 3"),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("left out 1 lines"),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        taken(),
        BTreeMap::from([("GET /a".into(), 2), ("GET /b?x=1".into(), 1)])
    );

    let targets = file("targets.txt");
    std::fs::write(file("body"), "hello").unwrap();
    std::fs::write(&targets, format!("GET {url}/g\nX-A: b\n\nPOST /p\n@body\n")).unwrap();
    nines(&[
        "load",
        "rate",
        "--rate",
        "20",
        "--steps",
        "20/1s",
        "--duration",
        "2s",
        "--targets",
        &targets,
        &target,
    ]);
    assert_eq!(
        taken(),
        BTreeMap::from([("GET /g".into(), 30), ("POST /p".into(), 30)])
    );
}
