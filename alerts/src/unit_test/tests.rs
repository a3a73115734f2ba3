//! The shipped pack under promtool's test format, and the runner itself.

use super::*;
use crate::{pack, slo};

const TESTS: &str = include_str!("../../rules/reference_test.yaml");

fn load(name: &str) -> Result<RuleFile, FileError> {
    match name {
        "slos.generated.yaml" => slo::rules(&pack::slos()?),
        name => {
            let (name, text) = pack::shipped()
                .into_iter()
                .find(|(n, _)| *n == name)
                .unwrap();
            RuleFile::parse(name, text)
        }
    }
}

#[test]
fn every_rule_of_the_pack_fires_when_it_should_and_only_then() {
    let report = run("reference_test.yaml", TESTS, &mut load).unwrap();
    assert!(report.failures.is_empty(), "{}", report.failures.join("\n"));
    let files = pack::rules(1.0).unwrap();
    let rules = files.iter().flat_map(RuleFile::rules);
    let alerts = rules.filter(|(_, r)| r.kind == crate::RuleKind::Alert);
    let untested: Vec<&str> = alerts
        .map(|(_, r)| r.name.as_str())
        .filter(|n| !report.fired.contains(*n))
        .collect();
    assert!(untested.is_empty(), "no test fires {untested:?}");
}

#[test]
fn every_alert_says_what_to_do() {
    let runbooks = include_str!("../../../docs/runbooks.md").to_lowercase();
    for file in pack::rules(1.0).unwrap() {
        for (_, rule) in file
            .rules()
            .filter(|(_, r)| r.kind == crate::RuleKind::Alert)
        {
            assert!(
                ["critical", "warning", "info"].contains(&rule.severity()),
                "{}",
                rule.name
            );
            assert!(rule.labels.contains_key("incident"), "{}", rule.name);
            for key in ["summary", "description", "runbook"] {
                assert!(
                    !rule.annotations[key].is_empty(),
                    "{} has no {key}",
                    rule.name
                );
            }
            let anchor = rule.annotations["runbook"]
                .strip_prefix("docs/runbooks.md#")
                .unwrap();
            assert!(
                runbooks.contains(&format!("\n## {anchor}\n")),
                "no runbook {anchor}"
            );
        }
    }
}

#[test]
fn scaling_divides_every_window() {
    let real = RuleFile::parse("r.yaml", pack::shipped()[0].1).unwrap();
    let fast = crate::scale(&real, 60.0);
    let rule =
        |f: &RuleFile, name: &str| f.rules().find(|(_, r)| r.name == name).unwrap().1.clone();
    assert_eq!(rule(&fast, "HighErrorRate").for_ms, 5_000);
    assert_eq!(rule(&fast, "CircuitOpen").for_ms, 500);
    assert_eq!(rule(&fast, "CircuitOpen").keep_firing_for_ms, 500);
    assert!(rule(&fast, "Deployed").expr.contains("offset 5s"));
    assert!(
        rule(&fast, "gateway:http_error:ratio_rate5m")
            .expr
            .contains("[5s]")
    );
    assert!(!rule(&fast, "CacheHitLow").expr.contains("[5m]"));
    assert_eq!(fast.groups[0].interval_ms, Some(250));
    assert_eq!(
        crate::scale(&real, 1_000.0).groups[0].interval_ms,
        Some(200)
    );
    assert_eq!(crate::scale(&real, 1.0), real);
    let again = RuleFile::parse("g.yaml", &fast.to_yaml()).unwrap();
    assert_eq!(again.groups.len(), real.groups.len());
}

#[test]
fn failures_say_what_was_expected() {
    let text = "rule_files: [reference.yaml]\ntests:\n  - name: t\n    input_series:\n      - {series: 'dlq_depth{queue=\"q\"}', values: '0x10'}\n    alert_rule_test:\n      - {eval_time: 5m, alertname: DeadLetters, exp_alerts: [{exp_labels: {queue: q}}]}\n    promql_expr_test:\n      - {expr: dlq_depth + 1, eval_time: 1m, exp_samples: [{labels: '{queue=\"q\"}', value: 2}]}\n";
    let report = run("t.yaml", text, &mut load).unwrap();
    assert_eq!((report.checks, report.failures.len()), (2, 2));
    assert!(
        report.failures[1].contains("got [{queue=\"q\"} 1]"),
        "{}",
        report.failures[1]
    );
    let error = run("t.yaml", "tests:\n  - nme: x\n", &mut load).unwrap_err();
    assert!(
        error.to_string().contains("did you mean \"name\"?"),
        "{error}"
    );
}

/// promtool agrees about the pack, the generated rules and the tests.
#[test]
#[ignore = "needs promtool"]
fn promtool_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("reference.yaml", pack::shipped()[0].1);
    write(
        "slos.generated.yaml",
        &slo::rules(&pack::slos().unwrap()).unwrap().to_yaml(),
    );
    for (i, file) in pack::rules(60.0).unwrap().iter().enumerate() {
        write(&format!("scaled{i}.yaml"), &file.to_yaml());
    }
    write("reference_test.yaml", TESTS);
    let promtool = |arguments: &[&str]| {
        let output = std::process::Command::new("promtool")
            .args(arguments)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{arguments:?}: {text}");
    };
    promtool(&[
        "check",
        "rules",
        "reference.yaml",
        "slos.generated.yaml",
        "scaled0.yaml",
        "scaled1.yaml",
    ]);
    promtool(&["test", "rules", "reference_test.yaml"]);
}

/// The redis-down drill at 60 times the pace: scraped every 500 ms, ticked every 250 ms, the fault from 20 s to 40 s.
#[test]
fn the_scaled_drill_pages_once() {
    let source = MemorySource::default();
    let engine = promql::Engine::default();
    let mut rules = RuleEngine::new(pack::rules(60.0).unwrap(), None);
    let series = |name: &str, labels: &[(&str, &str)]| {
        Labels::from_pairs(labels.iter().copied().chain([("__name__", name)]))
    };
    let mut counts = [0.0f64; 4];
    let mut critical = Vec::new();
    let mut warned = std::collections::BTreeSet::new();
    for now_ms in (0..60_000).step_by(250) {
        let broken = (20_000..40_000).contains(&now_ms);
        if now_ms % 500 == 0 {
            let hit = if broken { 0.0 } else { 45.0 };
            for (count, add) in counts.iter_mut().zip([50.0, hit, 5.0, 45.0 - hit]) {
                *count += add;
            }
            let cache = |result| {
                series(
                    "cache_requests_total",
                    &[("tier", "redis"), ("result", result)],
                )
            };
            let gateway = [("service", "gateway"), ("status", "200"), ("method", "GET")];
            for (labels, value) in [
                (
                    series("up", &[("job", "refbackend"), ("instance", "a:1")]),
                    1.0,
                ),
                (
                    series("circuit_state", &[("dependency", "cache")]),
                    if broken { 2.0 } else { 0.0 },
                ),
                (series("http_server_requests_total", &gateway), counts[0]),
                (cache("hit"), counts[1]),
                (cache("miss"), counts[2]),
                (cache("error"), counts[3]),
            ] {
                source.append(&labels, now_ms, Value::Float(value));
            }
        }
        let tick = rules.tick(now_ms, &source, &engine);
        assert!(tick.errors.is_empty(), "{:?}", tick.errors);
        tick.samples
            .iter()
            .for_each(|(l, t, v)| source.append(l, *t, Value::Float(*v)));
        for told in tick.notifications {
            match told.severity() {
                "critical" => critical.push((told.name().to_owned(), told.status, now_ms)),
                "warning" => drop(warned.insert(told.name().to_owned())),
                _ => {}
            }
        }
    }
    let [(name, fired, fired_ms), (_, resolved, resolved_ms)] = critical.as_slice() else {
        panic!("{critical:?}");
    };
    assert_eq!(
        (name.as_str(), fired, resolved),
        (
            "CircuitOpen",
            &crate::Status::Firing,
            &crate::Status::Resolved
        )
    );
    assert!((20_500..22_000).contains(fired_ms), "{fired_ms}");
    assert!((40_500..42_000).contains(resolved_ms), "{resolved_ms}");
    assert!(warned.contains("CacheHitLow"), "{warned:?}");
    let status = slo::status(&pack::slos().unwrap(), &source, &engine, 59_750, 60.0).unwrap();
    assert_eq!(status[0].budget_left, Some(1.0));
    assert!(
        status[4].sli.is_some_and(|s| (0.3..0.8).contains(&s)),
        "{:?}",
        status[4]
    );
}
