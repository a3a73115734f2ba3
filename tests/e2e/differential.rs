//! The same samples by remote write to an agent and to a real Prometheus, the same random queries to both over HTTP: the
//! answers must agree.
//!
//! Owns samples and queries in which versions 2 and 3 of Prometheus mean the same (docs/promql.md lists where they do
//! not, and `promql`'s own differential test holds those against it). Must not know how queries are evaluated.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
use client::{Client, ClientError};
use model::{Labels, QueryData};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::remote::{Prometheus, now_ms};
use super::running::Agent;

const MINUTES: i64 = 40;

/// Gauges, counters that restart but never near zero, and classic histograms, with gaps. Samples lie 3 s past the
/// minute, so that no window's edge meets one.
fn samples(begin_ms: i64) -> Vec<(Labels, Vec<(i64, f64)>)> {
    let mut state = 42u64;
    let mut random = move |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut all = Vec::new();
    let mut add = |pairs: Vec<(&str, &str)>, counter: bool| {
        let mut points = Vec::new();
        let mut value = 1e6;
        for minute in 0..MINUTES {
            value = match counter {
                true if random(25) == 0 => 5e5,
                true => value + random(20) as f64,
                false => random(1_000) as f64 / 8.0 - 20.0,
            };
            if random(9) > 0 {
                points.push((begin_ms + minute * 60_000 + 3_000, value));
            }
        }
        all.push((Labels::from_pairs(pairs), points));
    };
    for (job, i) in [("0", "0"), ("0", "1"), ("1", "0"), ("1", "2"), ("2", "1")] {
        for (name, counter) in [("m", false), ("n", false), ("a_total", true)] {
            add(vec![("__name__", name), ("job", job), ("i", i)], counter);
        }
    }
    // Buckets hold what those below them do: no gaps, no restarts.
    for (job, i) in [("0", 3.0), ("1", 5.0), ("2", 7.0)] {
        for (scale, le) in [(1.0, "0.1"), (2.0, "0.5"), (4.0, "2.5"), (8.0, "+Inf")] {
            let labels = [("__name__", "h_bucket"), ("job", job), ("le", le)];
            let value = |minute: i64| 1e6 * scale + (minute * minute) as f64 * scale * i;
            let points = (0..MINUTES).map(|m| (begin_ms + m * 60_000 + 3_000, value(m)));
            all.push((Labels::from_pairs(labels), points.collect()));
        }
    }
    all
}

fn pick(all: &'static [&'static str]) -> BoxedStrategy<String> {
    proptest::sample::select(all)
        .prop_map(str::to_owned)
        .boxed()
}

fn matchers() -> BoxedStrategy<String> {
    pick(&[
        "",
        "{job=\"0\"}",
        "{i!=\"1\"}",
        "{job=~\"0|2\"}",
        "{i!~\"[01]\"}",
    ])
}

fn selector() -> BoxedStrategy<String> {
    (pick(&["m", "n", "a_total"]), matchers())
        .prop_map(|(name, matchers)| name + &matchers)
        .boxed()
}

/// Instant vectors of which both versions think the same.
fn query() -> BoxedStrategy<String> {
    let ranges = || pick(&["90s", "3m", "7m", "19m"]);
    let offset = pick(&["", "", " offset 2m", " offset -90s"]);
    let over = pick(&[
        "delta",
        "irate",
        "idelta",
        "deriv",
        "resets",
        "changes",
        "avg_over_time",
        "sum_over_time",
        "min_over_time",
        "max_over_time",
        "count_over_time",
        "stddev_over_time",
        "stdvar_over_time",
        "last_over_time",
        "present_over_time",
    ]);
    let leaf = prop_oneof![
        (selector(), offset.clone()).prop_map(|(s, o)| s + &o),
        // Only of counters: near zero the versions differ.
        (
            pick(&["rate", "increase"]),
            matchers(),
            ranges(),
            offset.clone()
        )
            .prop_map(|(f, m, r, o)| format!("{f}(a_total{m}[{r}]{o})")),
        (over, selector(), ranges(), offset).prop_map(|(f, s, r, o)| format!("{f}({s}[{r}]{o})")),
        (0.0f64..1.0, selector(), ranges())
            .prop_map(|(q, s, r)| format!("quantile_over_time({q:.2}, {s}[{r}])")),
        (0.0f64..1.0, pick(&["le", "le, job"]), ranges()).prop_map(|(q, by, r)| format!(
            "histogram_quantile({q:.2}, sum by ({by}) (rate(h_bucket[{r}])))"
        )),
        (
            selector(),
            pick(&["max_over_time", "sum_over_time", "delta"]),
            ranges()
        )
            .prop_map(|(s, f, r)| format!("{f}(({s})[{r}:1m])")),
    ];
    leaf.boxed()
        .prop_recursive(4, 24, 2, |inner| {
            let plain = pick(&[
                "abs", "ceil", "floor", "sqrt", "exp", "ln", "log2", "sgn", "deg",
            ]);
            let fold = pick(&["sum", "avg", "min", "max", "count", "group"]);
            let by = pick(&["", "by (job)", "without (i)", "by (i, job)", "without (le)"]);
            let between = pick(&[
                "+", "-", "*", "/", "%", "> bool", "== bool", ">=", "and", "or", "unless",
            ]);
            let matching = pick(&["", "on (job, i)", "ignoring (le)"]);
            prop_oneof![
                (plain, inner.clone()).prop_map(|(f, x)| format!("{f}({x})")),
                (fold, by, inner.clone()).prop_map(|(f, by, x)| format!("{f} {by} ({x})")),
                (inner.clone(), between, matching, inner.clone())
                    .prop_map(|(a, op, on, b)| format!("({a}) {op} {on} ({b})")),
                (inner.clone(), -5i32..5).prop_map(|(x, n)| format!("({x}) * {n} + 2 ^ 3")),
                (inner.clone(), -3.0f64..3.0).prop_map(|(x, n)| format!("clamp_min({x}, {n:.1})")),
                inner.prop_map(|x| format!("-({x})")),
            ]
        })
        .boxed()
}

fn same(ours: &QueryData, theirs: &QueryData) -> bool {
    let (QueryData::Matrix(a), QueryData::Matrix(b)) = (ours, theirs) else {
        return false;
    };
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * (a.abs() + b.abs()) + 1e-9
    };
    let equal = |(a, b): (&model::RangeSeries, &model::RangeSeries)| {
        let mut values = a.points.values.iter().zip(&b.points.values);
        a.labels == b.labels && a.points.t_ms == b.points.t_ms && values.all(|(a, b)| close(*a, *b))
    };
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

#[test]
#[ignore = "needs prometheus"]
fn remote_write_to_both_and_the_same_queries_agree() {
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), "global: {}\n");
    let agent = Agent::start(dir.path(), &[]);
    let begin_ms = now_ms() / 60_000 * 60_000 - MINUTES * 60_000;
    let all = samples(begin_ms);
    prometheus.write(&all);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (ours, theirs) = (
        Client::new(agent.url.clone()),
        Client::new(prometheus.url.clone()),
    );
    runtime.block_on(ours.remote_write(&all)).unwrap();
    let (start, end, step) = (
        begin_ms + 7_000,
        begin_ms + MINUTES * 60_000 + 7_000,
        90_000,
    );

    let config = Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let counts = std::cell::RefCell::new((0, 0, 0));
    let outcome = TestRunner::new_with_rng(config, rng).run(&query(), |text| {
        let (a, b) = runtime.block_on(async {
            tokio::join!(
                ours.query_range(&text, start, end, step),
                theirs.query_range(&text, start, end, step)
            )
        });
        let mut counts = counts.borrow_mut();
        let agree = match (&a, &b) {
            (Ok(a), Ok(b)) => {
                counts.0 += 1;
                counts.1 += usize::from(matches!(b, QueryData::Matrix(all) if all.is_empty()));
                same(a, b)
            }
            (
                Err(ClientError::Refused { kind: a, .. }),
                Err(ClientError::Refused { kind: b, .. }),
            ) => {
                counts.2 += 1;
                a == b
            }
            _ => false,
        };
        if agree {
            return Ok(());
        }
        Err(TestCaseError::fail(format!(
            "{text}\nours   {a:?}\ntheirs {b:?}"
        )))
    });
    let (answered, empty, refused) = counts.into_inner();
    println!("{answered} answers agree ({empty} of them empty), {refused} refusals agree");
    outcome.unwrap();
    assert!(answered - empty > 200, "too few queries have an answer");
}
