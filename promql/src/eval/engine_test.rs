//! The engine as a whole: limits, errors, delegation, and that a range query is its instants put together.

use std::collections::BTreeMap;

use model::source::WholeQuery;
use model::{Labels, Points, QueryData, SelectRequest, SeriesData, Source, SourceError, Value};
use proptest::prelude::*;

use super::engine::{Engine, Options, QueryError};
use super::stop::Stop;
use crate::syntax::language_test::known_query;

/// Series in memory.
struct Memory(Vec<SeriesData>);

impl Source for Memory {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        let mut out = Vec::new();
        for s in &self.0 {
            if !request.matchers.iter().all(|m| m.matches_labels(&s.labels)) {
                continue;
            }
            let mut points = Points::default();
            for i in 0..s.points.len() {
                let t = s.points.t_ms[i];
                if t >= request.start_ms && t <= request.end_ms {
                    points.push(t, s.points.value(i));
                }
            }
            if points.len() > request.max_points {
                return Err(SourceError::TooManyPoints {
                    limit: request.max_points,
                });
            }
            if !points.is_empty() {
                out.push(SeriesData {
                    labels: s.labels.clone(),
                    points,
                });
            }
        }
        Ok(out)
    }
}

fn memory(lines: &[&str]) -> Memory {
    let series = lines.iter().map(|line| {
        let (labels, values) = crate::syntax::series::parse_line(line).unwrap();
        let mut points = Points::default();
        for (i, v) in values.into_iter().enumerate() {
            if let Some(value) = v.value {
                points.push(i as i64 * 60_000, value);
            }
        }
        SeriesData { labels, points }
    });
    Memory(series.collect())
}

fn engine() -> Engine {
    Engine::new(Options::default())
}

fn values(data: &QueryData) -> BTreeMap<String, f64> {
    let QueryData::Vector(all) = data else {
        panic!("not a vector: {data:?}");
    };
    let float = |v: &Value| match v {
        Value::Float(v) => *v,
        Value::Histogram(_) => f64::NAN,
    };
    all.iter()
        .map(|e| (e.labels.to_string(), float(&e.value)))
        .collect()
}

#[test]
fn an_error_ratio_by_route() {
    let source = memory(&[
        "http_requests_total{route=\"/a\",status=\"200\"} 0+60x10",
        "http_requests_total{route=\"/a\",status=\"500\"} 0+30x10",
        "http_requests_total{route=\"/b\",status=\"200\"} 0+60x10",
    ]);
    let text = "sum by (route) (rate(http_requests_total{status=~\"5..\"}[5m])) / sum by (route) (rate(http_requests_total[5m]))";
    let output = engine().instant(&source, text, 600_000).unwrap();
    let got = values(&output.data);
    assert_eq!(got.len(), 1);
    assert!((got["{route=\"/a\"}"] - 1.0 / 3.0).abs() < 1e-12, "{got:?}");
    assert_eq!((output.warnings, output.infos), (Vec::new(), Vec::new()));
}

#[test]
fn annotations_end_in_their_place() {
    let source = memory(&["gauge 1 2 3 4"]);
    let output = engine()
        .instant(&source, "sum(\n  rate(gauge[2m]))", 180_000)
        .unwrap();
    assert_eq!(
        output.infos,
        [
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"gauge\" (2:8)"
        ]
    );
}

#[test]
fn a_stale_marker_ends_a_series_at_once() {
    let source = memory(&["up{job=\"a\"} 1 1 stale", "up{job=\"b\"} 1 1"]);
    let at = |t| values(&engine().instant(&source, "up", t).unwrap().data).len();
    assert_eq!(
        (at(60_000), at(120_000), at(359_999), at(360_000)),
        (2, 1, 1, 0)
    );
}

#[test]
fn experimental_syntax_needs_leave() {
    let source = memory(&["x 1 2 3"]);
    let error = engine()
        .instant(&source, "sum(limitk(1, x))", 0)
        .unwrap_err();
    assert_eq!(error.kind(), "bad_data");
    assert_eq!(
        error.to_string(),
        "1:5: limitk is experimental and not enabled\n  sum(limitk(1, x))\n      ^^^^^^^^^^^^"
    );
    let allowed = Engine::new(Options {
        experimental: true,
        ..Options::default()
    });
    assert!(allowed.instant(&source, "sum(limitk(1, x))", 0).is_ok());
}

#[test]
fn limits_hold() {
    let source = memory(&["x 0+1x999", "y 0+1x999"]);
    let small = Engine::new(Options {
        max_samples: 500,
        ..Options::default()
    });
    for text in [
        "x[20h]",
        "sum_over_time(x[20h])",
        "sum_over_time(vector(1)[1h:1s])",
    ] {
        let error = small.instant(&source, text, 60_000_000).unwrap_err();
        assert_eq!(error, QueryError::TooManySamples { limit: 500 }, "{text}");
    }
    assert!(small.instant(&source, "x + y", 60_000).is_ok());
    assert_eq!(
        small.range(&source, "x", 0, 1, 0).unwrap_err().kind(),
        "bad_data"
    );
    assert_eq!(
        small
            .range(&source, "x", 0, i64::MAX, 1)
            .unwrap_err()
            .kind(),
        "bad_data"
    );
    assert_eq!(
        small.range(&source, "x", 10, 0, 1).unwrap_err().kind(),
        "bad_data"
    );
    assert_eq!(
        small.range(&source, "x[5m]", 0, 10, 1).unwrap_err().kind(),
        "bad_data"
    );
}

#[test]
fn deep_trees_do_not_overflow() {
    let source = memory(&["x 1 2 3"]);
    let deep = format!("x{}", " + x".repeat(200));
    let output = engine().instant(&source, &deep, 60_000).unwrap();
    assert_eq!(values(&output.data)["{}"], 402.0);
    let nested = format!("{}x{}", "abs(".repeat(120), ")".repeat(120));
    assert!(engine().range(&source, &nested, 0, 120_000, 60_000).is_ok());
    let shallow = Engine::new(Options {
        max_depth: 10,
        ..Options::default()
    });
    assert_eq!(
        shallow.instant(&source, &deep, 0).unwrap_err().kind(),
        "bad_data"
    );
}

#[test]
fn a_source_may_answer_itself() {
    struct Remote;
    impl Source for Remote {
        fn select(&self, _: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
            Err(SourceError::Unavailable("down".into()))
        }
        fn evaluate(&self, query: &WholeQuery<'_>) -> Option<Result<QueryData, SourceError>> {
            (query.text == "remote")
                .then_some(Ok(QueryData::Scalar(query.end_ms, query.step_ms as f64)))
        }
    }
    let output = engine().instant(&Remote, "remote", 7).unwrap();
    assert_eq!(output.data, QueryData::Scalar(7, 0.0));
    assert_eq!(
        engine().range(&Remote, "remote", 0, 9, 3).unwrap().data,
        QueryData::Scalar(9, 3.0)
    );
    assert_eq!(
        engine().instant(&Remote, "local", 7).unwrap_err().kind(),
        "timeout"
    );
}

/// What a query gives at each step, by labels.
fn by_step(data: &QueryData) -> BTreeMap<(i64, Labels), Value> {
    match data {
        QueryData::Vector(all) => all
            .iter()
            .map(|e| ((e.t_ms, e.labels.clone()), e.value.clone()))
            .collect(),
        QueryData::Matrix(all) => all
            .iter()
            .flat_map(|s| {
                (0..s.points.len())
                    .map(|i| ((s.points.t_ms[i], s.labels.clone()), s.points.value(i)))
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

fn close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => {
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * (a.abs() + b.abs())
        }
        (Value::Histogram(_), Value::Histogram(_)) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// At every step a range query gives what an instant query gives there.
    #[test]
    fn a_range_query_is_its_instants(
        text in known_query(),
        rows in proptest::collection::vec((0usize..3, 0usize..3, "[0-9]{1,2}[+-][0-9]x[1-9] (_x[1-6] |stale )?[0-9]{1,3}x8"), 1..6),
    ) {
        let names = ["m", "a_total", "sum"];
        let lines: Vec<String> = rows
            .iter()
            .enumerate()
            .map(|(i, (n, job, values))| format!("{}{{job=\"{job}\", i=\"{i}\"}} {values} {{{{schema:0 count:3 sum:2 buckets:[1 2]}}}}", names[*n]))
            .collect();
        let source = memory(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let engine = Engine::new(Options { experimental: true, ..Options::default() });
        let (start, end, step) = (0, 1_500_000, 90_000);
        let ranged = engine.range(&source, &text, start, end, step);
        let mut wanted = BTreeMap::new();
        for t in (start..=end).step_by(90_000) {
            match engine.instant(&source, &text, t) {
                Ok(output) => wanted.extend(by_step(&output.data)),
                // What cannot be evaluated at one step makes the whole fail.
                Err(_) => {
                    prop_assert!(ranged.is_err(), "{} at {}", text, t);
                    return Ok(());
                }
            }
        }
        let Ok(ranged) = ranged else {
            // Steps may disagree over what is the same series; an instant cannot tell.
            return Ok(());
        };
        let got = by_step(&ranged.data);
        prop_assert_eq!(got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{}", text);
        for (key, want) in &wanted {
            prop_assert!(close(want, &got[key]), "{} at {:?}: {:?} instead of {:?}", text, key, got[key], want);
        }
    }
}

/// One series, and somebody who turns the switch as soon as it has been read.
struct TurnedOnRead(Memory, Stop, fn(&Stop));

impl Source for TurnedOnRead {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        (self.2)(&self.1);
        self.0.select(request)
    }
}

#[test]
fn a_turned_switch_ends_a_query_with_its_reason() {
    for (turn, want) in [
        (
            Stop::cancel as fn(&Stop),
            "query was canceled in expression evaluation",
        ),
        (Stop::expire, "query timed out in expression evaluation"),
    ] {
        let source = TurnedOnRead(memory(&["x 0+1x9"]), Stop::new(), turn);
        let engine = engine().with_stop(source.1.clone());
        let error = engine.instant(&source, "sum(x) + 1", 60_000).unwrap_err();
        assert_eq!(error.to_string(), want);
        assert_eq!(
            error.kind(),
            if want.contains("timed") {
                "timeout"
            } else {
                "canceled"
            }
        );
        let untouched = Engine::default().instant(&source, "x", 60_000);
        assert!(untouched.is_ok(), "engines of other queries go on");
    }
}

/// One node of each family has enough work to be stopped in its middle: the switch is turned while it runs, and the
/// work that is left would take minutes.
#[test]
fn long_loops_look_at_the_switch() {
    let series: Vec<SeriesData> = (0..200)
        .map(|i| {
            let labels = Labels::from_pairs([
                ("__name__", "x_bucket".to_owned()),
                ("le", i.to_string()),
                ("i", i.to_string()),
            ]);
            let mut points = Points::default();
            (0..4_000).for_each(|k| points.push_float(k * 1_000, (i * k) as f64));
            SeriesData { labels, points }
        })
        .collect();
    let source = Memory(series);
    let queries = [
        "quantile_over_time(0.5, x_bucket[1h])",
        "sum_over_time((x_bucket * 1)[1h:1s])",
        "quantile(0.5, avg_over_time(x_bucket[1h]))",
        "histogram_quantile(0.9, max_over_time(x_bucket[1h]))",
        "stddev_over_time(x_bucket[1h]) and on (i) mad_over_time(x_bucket[1h])",
    ];
    for text in queries {
        let stop = Stop::new();
        let engine = Engine::new(Options {
            experimental: true,
            ..Options::default()
        });
        let engine = engine.with_stop(stop.clone());
        let (begun, error) = std::thread::scope(|scope| {
            let (tx, rx) = std::sync::mpsc::channel();
            let source = &source;
            let worker = scope.spawn(move || {
                let result = engine.range(source, text, 0, 4_000_000, 400);
                tx.send(()).unwrap();
                result
            });
            // Long enough to be past the reading, far too short for the whole.
            let early = rx.recv_timeout(std::time::Duration::from_millis(100));
            assert!(early.is_err(), "{text} was over at once");
            let begun = std::time::Instant::now();
            stop.cancel();
            (begun, worker.join().unwrap().unwrap_err())
        });
        assert_eq!(error, QueryError::Canceled, "{text}");
        assert!(begun.elapsed().as_secs() < 2, "{text}");
    }
}

#[test]
fn a_query_ends_at_its_timeout() {
    let source = memory(&["x 0+1x999"]);
    let mut engine = engine();
    engine.options.timeout = Some(std::time::Duration::ZERO);
    let error = engine.instant(&source, "x", 0).unwrap_err();
    assert_eq!(error, QueryError::Timeout);
    engine.options.timeout = Some(std::time::Duration::from_secs(60));
    assert!(engine.instant(&source, "x", 0).is_ok());
}
