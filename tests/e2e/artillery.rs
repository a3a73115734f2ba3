//! `nines load run` on the real binary: report file, console layout, checks, exit codes, series at the agent.
//!
//! Owns its scripts. Must not know how they are run inside.

use std::path::Path;

use super::running::{Agent, nines, stderr, stdout};

/// A script against this target, written into the folder.
fn script(dir: &Path, target: &str, limit: u32) -> String {
    let path = dir.join("s.yml");
    let text = format!(
        "config:
  target: {target}
  phases: [{{duration: 2, arrivalRate: 5, name: steady}}]
  plugins: {{ensure: {{maxErrorRate: 0, thresholds: [{{http.response_time.p99: {limit}}}]}}}}
scenarios:
  - name: health
    flow:
      - get: {{url: /api/v1/status/buildinfo, name: info, capture: {{json: $.status, as: s}}}}
      - log: 'status {{{{ s }}}}'
"
    );
    std::fs::write(&path, text).expect("the script is written");
    path.display().to_string()
}

#[test]
fn artillery_script_runs_reports_judges_and_reaches_the_agent() {
    let dir = tempfile::tempdir().expect("a folder");
    let agent = Agent::start(dir.path(), &[]);
    let path = script(dir.path(), &agent.url, 60_000);
    let report = dir.path().join("r.json").display().to_string();
    let output = nines(&["load", "run", &path, "-o", &report, "--agent", &agent.url]);
    let (out, err) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    for wanted in [
        "Phase started: steady (index: 0, duration: 2s)",
        "status success",
        "All VUs finished. Total time: ",
        "http.codes.200: ................................................................ 10\n",
        "vusers.created_by_name.health: ................................................. 10\n",
        "Checks:\nok: http.response_time.p99 < 60000\nok: maxErrorRate < 0\n",
    ] {
        assert!(out.contains(wanted), "{wanted}\n{out}{err}");
    }
    assert!(!out.contains("metrics-by-endpoint"), "{out}");
    let text = std::fs::read_to_string(&report).expect("the report is there");
    let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let counters = &json["aggregate"]["counters"];
    assert_eq!(counters["vusers.completed"], 10);
    let endpoint = "plugins.metrics-by-endpoint./api/v1/status/buildinfo (info).codes.200";
    assert_eq!(counters[endpoint], 10);
    assert_eq!(
        json["aggregate"]["summaries"]["http.response_time.2xx"]["count"],
        10
    );
    assert_eq!(json["nines"]["latency_us"]["count"], 10);
    let asked = nines(&[
        "query",
        "--url",
        &agent.url,
        "sum(nines_load_requests_total{scenario=\"s\"})",
    ]);
    assert!(
        stdout(&asked).contains("10"),
        "{}{}",
        stdout(&asked),
        stderr(&asked)
    );
}

#[test]
fn artillery_checks_that_fail_and_bad_scripts_have_their_exit_codes() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = script(dir.path(), "http://127.0.0.1:9", 60_000);
    let output = nines(&["load", "run", &path, "-q"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let wanted = "\nChecks:\nfail: http.response_time.p99 < 60000 [there is nothing named http.response_time.p99]\nfail: maxErrorRate < 0\n";
    assert_eq!(stdout(&output), wanted);
    let output = nines(&["load", "run", &path, "--check", "-t", "nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("--target:1:1: "),
        "{}",
        stderr(&output)
    );
    std::fs::write(&path, "config:\n  tarpet: x\n").expect("written");
    let output = nines(&["load", "run", &path]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("s.yml:2:3: unknown key \"tarpet\""), "{said}");
    assert!(said.contains("did you mean \"target\"?"), "{said}");
}

#[test]
fn a_script_is_a_gate_like_every_load() {
    let dir = tempfile::tempdir().expect("a folder");
    let agent = Agent::start(dir.path(), &[]);
    let path = script(dir.path(), &agent.url, 60_000);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("it is written");
    let files = ["r.json", "j.xml", "m.md", "c.csv", "h.hdr", "p.html"].map(file);
    let [report, junit, md, csv, hdr, html] = &files;
    let rules = ["--ensure", "p99[info]<60s", "--ensure", "error_rate<1%"];
    let wanted = [
        "-o", report, "--junit", junit, "--md", md, "--csv", csv, "--hdr", hdr, "--html", html,
    ];
    let run = |more: &[&str]| {
        let output = nines(&[&["load", "run", "-q", &path][..], more].concat());
        (output.status.code(), stdout(&output) + &stderr(&output))
    };
    let (code, text) = run(&[&rules[..], &wanted].concat());
    assert_eq!(code, Some(0), "{text}");
    // Valid, two rules, two checks of the script.
    assert!(
        read("j.xml").contains("tests=\"5\" failures=\"0\""),
        "{}",
        read("j.xml")
    );
    assert!(read("j.xml").contains("ensure: http.response_time.p99 &lt; 60000"));
    assert!(
        read("m.md").contains("| kept | `p99[info]<60s` |"),
        "{}",
        read("m.md")
    );
    assert!(read("c.csv").lines().count() >= 3);
    assert!(
        read("h.hdr")
            .lines()
            .filter(|l| !l.starts_with(['#', '"']))
            .count()
            >= 2
    );
    assert!(read("p.html").contains("p99[info]&lt;60s"));
    // The stored run is read by whatever reads one.
    let gate = |rule: &str| nines(&["gate", report, "--ensure", rule]).status.code();
    assert_eq!(
        (gate("p50[info]<60s"), gate("p50[info]<1us")),
        (Some(0), Some(3))
    );
    let explained = nines(&["load", "explain", report]);
    assert!(
        stdout(&explained).starts_with("why "),
        "{}",
        stdout(&explained)
    );
    let (code, text) = run(&["--ensure", "p50[info]<1us"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("broken  p50[info]<1us"), "{text}");
    // Artillery's own verdict comes first, and what it lets pass passes where no gate is asked for.
    let failing = script(dir.path(), &agent.url, 0);
    let output = nines(&["load", "run", "-q", &failing, "--ensure", "p50<1us"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let dead = script(dir.path(), "http://127.0.0.1:9", 60_000);
    let passes = "{\"config\": {\"ensure\": {}, \"plugins\": {\"ensure\": {\"maxErrorRate\": 100, \"thresholds\": []}}}}";
    let dead = ["load", "run", "-q", &dead, "--overrides", passes];
    let of = |more: &[&str]| nines(&[&dead[..], more].concat());
    let (plain, judged) = (of(&["--html", html]), of(&["--junit", junit]));
    assert_eq!(
        plain.status.code(),
        Some(0),
        "{}{}",
        stdout(&plain),
        stderr(&plain)
    );
    assert_eq!(judged.status.code(), Some(3), "{}", stdout(&judged));
    assert!(
        stdout(&judged).contains("broken  the run is valid  (no response arrived)"),
        "{}",
        stdout(&judged)
    );
    let unread = nines(&["load", "run", "--check", &path, "--ensure", "p99<x"]);
    assert_eq!(unread.status.code(), Some(2));
}
