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
