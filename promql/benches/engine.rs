//! Timings of parsing and of two queries over 10,000 series in memory: `cargo bench -p promql`.
//!
//! Owns its corpus. Must not know the store: the source here only copies.

use std::hint::black_box;
use std::time::{Duration, Instant};

use model::{Labels, Matcher, Points, SelectRequest, SeriesData, Source, SourceError};
use promql::{Engine, Options, parse};

/// Series by name; answers a read by copying the points in its bounds.
struct Memory(Vec<(String, Vec<SeriesData>)>);

impl Source for Memory {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        let name = request
            .matchers
            .iter()
            .find(|m| m.name == model::METRIC_NAME);
        let rest: Vec<&Matcher> = request
            .matchers
            .iter()
            .filter(|m| m.name != model::METRIC_NAME)
            .collect();
        let mut out = Vec::new();
        for (_, series) in self
            .0
            .iter()
            .filter(|(n, _)| name.is_none_or(|m| m.matches(n)))
        {
            for s in series
                .iter()
                .filter(|s| rest.iter().all(|m| m.matches_labels(&s.labels)))
            {
                let lo = s.points.t_ms.partition_point(|t| *t < request.start_ms);
                let hi = s.points.t_ms.partition_point(|t| *t <= request.end_ms);
                let points = Points {
                    t_ms: s.points.t_ms[lo..hi].to_vec(),
                    values: s.points.values[lo..hi].to_vec(),
                    ..Points::default()
                };
                out.push(SeriesData {
                    labels: s.labels.clone(),
                    points,
                });
            }
        }
        Ok(out)
    }
}

const STEP_MS: i64 = 15_000;
const SAMPLES: i64 = 260;

fn counter(labels: Labels, seed: u64) -> SeriesData {
    let mut points = Points::default();
    let (mut state, mut value) = (seed | 1, 0.0);
    for i in 0..SAMPLES {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        value += (state >> 60) as f64;
        points.push_float(i * STEP_MS, value);
    }
    SeriesData { labels, points }
}

fn corpus() -> Memory {
    let bounds = [
        "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf",
    ];
    let mut buckets = Vec::new();
    let mut counters = Vec::new();
    for i in 0..10_000usize {
        let base = |name: &str| {
            vec![
                ("__name__".to_owned(), name.to_owned()),
                (
                    "instance".to_owned(),
                    format!("10.0.0.{}:9090", i / 10 % 10),
                ),
                ("route".to_owned(), format!("/api/v1/resource{}", i / 100)),
                ("job".to_owned(), "backend".to_owned()),
            ]
        };
        let mut labels = base("duration_seconds_bucket");
        labels.push(("le".to_owned(), bounds[i % 10].to_owned()));
        buckets.push(counter(Labels::from_pairs(labels), i as u64));
        let mut labels = base("requests_total");
        labels.push(("pod".to_owned(), format!("pod-{i}")));
        counters.push(counter(Labels::from_pairs(labels), i as u64));
    }
    Memory(vec![
        ("duration_seconds_bucket".into(), buckets),
        ("requests_total".into(), counters),
    ])
}

/// Prints the median and the worst of `rounds` runs.
fn time(what: &str, rounds: usize, mut run: impl FnMut()) {
    run();
    let mut all: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    all.sort();
    println!(
        "{what:58} p50 {:>10.1?}   max {:>10.1?}",
        all[rounds / 2],
        all[rounds - 1]
    );
}

fn main() {
    let source = corpus();
    let engine = Engine::new(Options::default());
    let last = (SAMPLES - 1) * STEP_MS;
    let q99 = "histogram_quantile(0.99, sum by (le, route) (rate(duration_seconds_bucket[5m])))";
    time("parse q99 by route", 200, || {
        black_box(parse(q99)).expect("parses");
    });
    let matchers = [Matcher::equal("__name__", "duration_seconds_bucket")];
    time(
        "copy of 10k series x 20 samples (the source alone)",
        20,
        || {
            let request = SelectRequest {
                matchers: &matchers,
                start_ms: last - 299_999,
                end_ms: last,
                max_points: usize::MAX,
            };
            black_box(source.select(&request)).expect("reads");
        },
    );
    let instant = |what: &str, text: &str, rounds: usize| {
        time(what, rounds, || {
            black_box(engine.instant(&source, text, last)).expect("evaluates");
        });
    };
    instant("q99 by route, 10k buckets x 20 samples, instant", q99, 20);
    instant(
        "sum by (route) (rate([5m])), 10k counters, instant",
        "sum by (route) (rate(requests_total[5m]))",
        20,
    );
    instant("requests_total, 10k series, instant", "requests_total", 20);
    let range = |what: &str, text: &str, rounds: usize| {
        time(what, rounds, || {
            black_box(engine.range(&source, text, last - 3_600_000, last, STEP_MS))
                .expect("evaluates");
        });
    };
    range(
        "requests_total, 10k series, 1 h at 15 s",
        "requests_total",
        5,
    );
    range(
        "rate([5m]), 10k series, 1 h at 15 s",
        "rate(requests_total[5m])",
        5,
    );
    range(
        "sum by (route) (rate([5m])), 10k series, 1 h at 15 s",
        "sum by (route) (rate(requests_total[5m]))",
        5,
    );
    range(
        "x / x, 10k series, 1 h at 15 s",
        "requests_total / requests_total",
        5,
    );
    range("q99 by route, 10k buckets, 1 h at 15 s", q99, 5);
}
