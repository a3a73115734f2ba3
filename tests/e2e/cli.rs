//! The command line as a stranger uses it: right words, wrong words, the agent away.
//!
//! Owns exit codes and the wording of refusals. Must not know how commands work inside.

use super::running::{Agent, nines, stderr, stdout};

#[test]
fn a_wrong_flag_is_usage_and_says_what_is_near() {
    let output = nines(&["query", "--formt", "json", "up"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--format"), "{}", stderr(&output));
    let output = nines(&["agnet"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("agent"), "{}", stderr(&output));
}

#[test]
fn help_and_version_are_good() {
    for args in [&["--help"][..], &["agent", "--help"], &["--version"]] {
        let output = nines(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!stdout(&output).is_empty());
    }
    assert!(
        stdout(&nines(&["--help"])).contains("Exit codes: 0 good, 1 failure of the tool, 2 usage")
    );
}

#[test]
fn a_query_with_a_mistake_points_at_it() {
    let output = nines(&["query", "sum(rate(up[5m])"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains('^') && text.contains("1:"), "{text}");
}

#[test]
fn formatting_needs_no_agent() {
    let output = nines(&["query", "--format-expr", "sum  by(a) (rate(x[5m]))"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "sum by (a) (rate(x[5m]))\n");
}

#[test]
fn an_agent_that_is_away_is_named_with_what_to_do() {
    let output = nines(&["query", "up", "--url", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("127.0.0.1:9") && text.contains("nines agent"),
        "{text}"
    );
    let output = nines(&["query", "up", "--source", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("127.0.0.1:9") && !text.contains("nines agent"),
        "{text}"
    );
}

#[test]
fn an_unknown_configuration_key_has_line_column_and_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nines.yaml");
    std::fs::write(&file, "name: x\nlisten: 127.0.0.1:0\nretentoin: 5d\n").unwrap();
    let output = nines(&["agent", "--config", file.to_str().unwrap(), "--check"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("nines.yaml:3:1") && text.contains("retention"),
        "{text}"
    );
}

#[test]
fn a_rule_with_a_bad_expression_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.yaml");
    std::fs::write(
        &file,
        "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: sum(up\n",
    )
    .unwrap();
    let output = nines(&["alerts", "check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("rules.yaml:5:"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn rule_unit_tests_pass_and_fail() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "groups:\n- name: g\n  rules:\n  - alert: Down\n    expr: up == 0\n    for: 1m\n";
    std::fs::write(dir.path().join("rules.yaml"), rules).unwrap();
    let file = dir.path().join("test.yaml");
    let test = |at: &str| {
        format!(
            "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n  - series: up\n    values: '0x10'\n  alert_rule_test:\n  - {{eval_time: {at}, alertname: Down, exp_alerts: [{{exp_labels: {{}}}}]}}\n"
        )
    };
    for (at, code) in [("5m", 0), ("0m", 3)] {
        std::fs::write(&file, test(at)).unwrap();
        let output = nines(&["alerts", "test", file.to_str().unwrap()]);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{}{}",
            stdout(&output),
            stderr(&output)
        );
    }
}

#[test]
fn a_port_in_use_is_named() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let output = nines(&[
        "agent",
        "--listen",
        &taken,
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(&taken) && text.contains("listen"), "{text}");
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &["--retention", "off"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let labels = model::Labels::from_pairs([("__name__", "kept"), ("job", "test")]);
    let points = vec![(1_000, 1.0), (2_000, 2.5)];
    let client = client::Client::new(agent.url.clone());
    runtime
        .block_on(client.remote_write(&[(labels, points)]))
        .unwrap();
    agent.kill();
    let agent = Agent::start(dir.path(), &["--retention", "off"]);
    let output = nines(&[
        "query",
        "kept",
        "--time",
        "1970-01-01T00:00:02Z",
        "--url",
        &agent.url,
    ]);
    assert_eq!(
        stdout(&output),
        "kept{job=\"test\"} 2.5\n",
        "{}",
        stderr(&output)
    );
}

#[test]
fn config_show_says_where_settings_come_from_and_keeps_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("n.yaml");
    let text = "name: shop\ntoken: hush-1\nretention: 1d\nlimits: {body: 1MiB}\nremote_write:\n- url: http://me:hush-2@127.0.0.1:1/w\n  headers: {X-Key: hush-3}\n";
    std::fs::write(&file, text).unwrap();
    let show = |more: &[&str]| {
        let file = file.to_str().unwrap();
        let all = [
            &["config", "show", "--config", file, "--retention", "30d"],
            more,
        ]
        .concat();
        let output = super::running::nines(&all);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            super::running::stderr(&output)
        );
        super::running::stdout(&output)
    };
    let text = show(&["--origin"]);
    let line = |setting: &str| {
        let found = text
            .lines()
            .find(|l| l.split_whitespace().next() == Some(setting));
        let cells: Vec<&str> = found.unwrap().split_whitespace().collect();
        (cells[1].to_owned(), cells[2..].join(" "))
    };
    assert_eq!(line("retention"), ("30d".into(), "flag --retention".into()));
    let from_file = format!("file {}", file.display());
    assert_eq!(line("limits.body"), ("1MiB".into(), from_file.clone()));
    assert_eq!(
        line("limits.connections"),
        ("1024".into(), "default".into())
    );
    assert_eq!(line("token"), ("[secret]".into(), from_file.clone()));
    assert_eq!(
        line("remote_write[0].headers.X-Key"),
        ("[secret]".into(), from_file)
    );
    assert!(!text.contains("hush"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&show(&["--origin", "--format", "json"])).unwrap();
    let body = json
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["setting"] == "name")
        .unwrap();
    assert_eq!(body["value"], "shop");
    assert!(body["origin"].as_str().unwrap().starts_with("file "));
    assert!(!show(&[]).contains("ORIGIN"));
}
