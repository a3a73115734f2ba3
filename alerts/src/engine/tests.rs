//! Tests of the engine over a closure that stands for PromQL.

use super::*;
use model::{SelectRequest, SeriesData, SourceError, Value, VectorElement, is_stale};

struct Nothing;

impl Source for Nothing {
    fn select(&self, _: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        Ok(Vec::new())
    }
}

const RULES: &str = r#"
groups:
  - name: g
    interval: 1m
    rules:
      - record: job:x
        expr: x
        labels: {team: core}
      - alert: High
        expr: x > 1
        for: 2m
        labels: {severity: critical, where: '{{ $labels.instance }}'}
        annotations: {summary: 'is {{ $value }}'}
"#;

fn files() -> Vec<RuleFile> {
    vec![RuleFile::parse("r.yaml", RULES).unwrap()]
}

fn element(instance: &str, v: f64) -> VectorElement {
    VectorElement {
        labels: Labels::from_pairs([("__name__", "x"), ("instance", instance)]),
        t_ms: 0,
        value: Value::Float(v),
    }
}

/// Ticks with `x` at this value.
fn tick(engine: &mut RuleEngine, minute: i64, x: f64) -> Tick {
    let mut query = |_: &dyn Source, text: &str, _: i64| {
        let holds = text == "x" || x > 1.0;
        Ok(QueryData::Vector(if holds {
            vec![element("a", x)]
        } else {
            vec![]
        }))
    };
    engine.tick_with(minute * 60_000, &Nothing, &mut query)
}

fn kinds(tick: &Tick) -> Vec<&str> {
    tick.transitions.iter().map(|e| e.kind.as_str()).collect()
}

#[test]
fn records_alerts_and_marks_stale() {
    let mut engine = RuleEngine::new(files(), None);
    let first = tick(&mut engine, 0, 2.0);
    let texts: Vec<String> = first
        .samples
        .iter()
        .map(|(l, _, v)| format!("{l} {v}"))
        .collect();
    assert_eq!(
        texts,
        [
            r#"job:x{instance="a", team="core"} 2"#,
            r#"ALERTS{alertname="High", alertstate="pending", instance="a", severity="critical", where="a"} 1"#,
            r#"ALERTS_FOR_STATE{alertname="High", instance="a", severity="critical", where="a"} 0"#,
        ]
    );
    assert_eq!(kinds(&first), ["pending"]);
    assert!(tick(&mut engine, 1, 2.0).notifications.is_empty());
    let third = tick(&mut engine, 2, 3.0);
    assert_eq!(kinds(&third), ["firing"]);
    assert_eq!(third.notifications[0].annotation("summary"), "is 3");
    assert_eq!(third.notifications[0].severity(), "critical");
    let stale: Vec<&str> = third
        .samples
        .iter()
        .filter(|(_, _, v)| is_stale(*v))
        .map(|(l, _, _)| l.get("alertstate").unwrap())
        .collect();
    assert_eq!(stale, ["pending"]);
    let body = engine.rules_body();
    assert_eq!(body.groups[0].rules[1].state, "firing");
    assert_eq!(body.groups[0].rules[1].health, "ok");
    assert_eq!(engine.alerts_body().alerts[0].value, "3");
    let last = tick(&mut engine, 3, 0.0);
    assert_eq!(kinds(&last), ["resolved"]);
    assert_eq!(last.notifications[0].ends_at_ms, Some(180_000));
    assert!(engine.alerts_body().alerts.is_empty());
}

#[test]
fn only_due_groups_are_evaluated() {
    let mut engine = RuleEngine::new(files(), None);
    assert_eq!(tick(&mut engine, 0, 0.0).groups_evaluated, 1);
    let mut none = |_: &dyn Source, _: &str, _: i64| Ok(QueryData::Vector(vec![]));
    assert_eq!(
        engine
            .tick_with(30_000, &Nothing, &mut none)
            .groups_evaluated,
        0
    );
    assert_eq!(engine.next_due_ms(), Some(60_000));
    assert_eq!(
        engine
            .tick_with(59_900, &Nothing, &mut none)
            .groups_evaluated,
        1
    );
    // The clock was set back: evaluate rather than wait for it to catch up.
    assert_eq!(
        engine
            .tick_with(10_000, &Nothing, &mut none)
            .groups_evaluated,
        1
    );
}

#[test]
fn state_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || RuleEngine::new(files(), Some(dir.path().to_owned()));
    let mut engine = open();
    tick(&mut engine, 0, 2.0);
    tick(&mut engine, 1, 2.0);
    // `for` goes on where it was.
    let mut engine = open();
    let fired = tick(&mut engine, 2, 2.0);
    assert_eq!(kinds(&fired), ["firing"]);
    // What fires is told again, but is no transition.
    let mut engine = open();
    let again = tick(&mut engine, 3, 2.0);
    assert!(kinds(&again).is_empty());
    assert_eq!(again.notifications.len(), 1);
    assert_eq!(again.notifications[0].starts_at_ms, 0);
    assert!(tick(&mut engine, 4, 2.0).notifications.is_empty());
    // It is resolved while the engine is down.
    let mut engine = open();
    assert_eq!(kinds(&tick(&mut engine, 10, 0.0)), ["resolved"]);
    // A resolve that may not have been handed over is told again.
    let mut engine = open();
    let told = tick(&mut engine, 11, 0.0);
    assert_eq!(told.notifications[0].status, Status::Resolved);
}

#[test]
fn downtime_does_not_count_towards_for() {
    let dir = tempfile::tempdir().unwrap();
    let open = || RuleEngine::new(files(), Some(dir.path().to_owned()));
    tick(&mut open(), 0, 2.0);
    let mut engine = open();
    assert!(kinds(&tick(&mut engine, 60, 2.0)).is_empty());
    assert_eq!(kinds(&tick(&mut engine, 61, 2.0)), ["firing"]);
}

#[test]
fn alerts_of_a_rule_that_is_gone_are_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = RuleEngine::new(files(), Some(dir.path().to_owned()));
    (0..3).for_each(|m| drop(tick(&mut engine, m, 2.0)));
    let mut engine = RuleEngine::new(Vec::new(), Some(dir.path().to_owned()));
    let told = tick(&mut engine, 4, 2.0);
    assert_eq!(kinds(&told), ["resolved"]);
    assert_eq!(told.notifications[0].status, Status::Resolved);
    assert!(tick(&mut engine, 5, 2.0).notifications.is_empty());
}

#[test]
fn damaged_state_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = RuleEngine::new(files(), Some(dir.path().to_owned()));
    tick(&mut engine, 0, 2.0);
    let path = dir.path().join("alert-state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("pending", "firing_")).unwrap();
    let engine = RuleEngine::new(files(), Some(dir.path().to_owned()));
    assert!(engine.restore_error().unwrap().contains("checksum"));
    assert!(dir.path().join("alert-state.json.damaged").exists());
}

#[test]
fn a_failing_rule_is_reported_and_keeps_its_alerts() {
    let mut engine = RuleEngine::new(files(), None);
    (0..3).for_each(|m| drop(tick(&mut engine, m, 2.0)));
    let mut fails = |_: &dyn Source, _: &str, _: i64| Err("source unavailable".to_owned());
    let failed = engine.tick_with(180_000, &Nothing, &mut fails);
    assert_eq!(failed.errors.len(), 2);
    assert_eq!(engine.rules_body().groups[0].rules[1].health, "err");
    assert_eq!(engine.alerts_body().alerts.len(), 1);
}

#[test]
fn limits_and_duplicates_are_errors() {
    let text = RULES.replace("interval: 1m", "limit: 1");
    let mut engine = RuleEngine::new(vec![RuleFile::parse("r.yaml", &text).unwrap()], None);
    let mut two = |_: &dyn Source, _: &str, _: i64| {
        Ok(QueryData::Vector(vec![
            element("a", 2.0),
            element("b", 2.0),
        ]))
    };
    let errors = engine.tick_with(0, &Nothing, &mut two).errors;
    assert!(
        errors[0].contains("exceeded limit of 1 with 2 series"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("exceeded limit of 1 with 2 alerts"),
        "{errors:?}"
    );
    let mut same = |_: &dyn Source, _: &str, _: i64| {
        Ok(QueryData::Vector(vec![
            element("a", 2.0),
            element("a", 2.0),
        ]))
    };
    let errors = engine.tick_with(60_000, &Nothing, &mut same).errors;
    assert!(errors[0].contains("same labelset"), "{errors:?}");
}

#[test]
fn later_rules_see_earlier_recordings() {
    let mut engine = RuleEngine::new(files(), None);
    let mut seen = Vec::new();
    let mut query = |source: &dyn Source, text: &str, t_ms: i64| {
        let matchers = [model::Matcher::equal("__name__", "job:x")];
        let request = SelectRequest {
            matchers: &matchers,
            start_ms: t_ms,
            end_ms: t_ms,
            max_points: usize::MAX,
        };
        seen.push((text.to_owned(), source.select(&request).unwrap().len()));
        Ok(QueryData::Vector(vec![element("a", 0.0)]))
    };
    engine.tick_with(0, &Nothing, &mut query);
    assert_eq!(seen, [("x".to_owned(), 0), ("x > 1".to_owned(), 1)]);
}
