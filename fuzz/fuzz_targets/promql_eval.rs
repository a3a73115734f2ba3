//! Any query over a few series of every kind: answered or refused, without a panic, within the limits; at one step a
//! range query says what an instant query says.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use model::{Points, QueryData, SelectRequest, SeriesData, Source, SourceError};
use promql::{Engine, Options};

/// Series in memory, in the notation of Prometheus' test scripts, a minute apart.
const SERIES: [&str; 7] = [
    r#"x_total{a="1"} 0+3x9 1+2x9"#,
    r#"x_total{a="2",b="y"} 5 _ _ 7 stale _ 9 1 2"#,
    r#"g{a="1"} 1 -2 NaN Inf 1e300 -Inf 0 0.5"#,
    r#"d_bucket{le="0.1"} 0+1x12"#,
    r#"d_bucket{le="1"} 0+2x12"#,
    r#"d_bucket{le="+Inf"} 0+3x12"#,
    r#"h{a="1"} {{schema:1 count:10 sum:15 buckets:[3 2 5]}}x6 {{schema:0 count:1 sum:1 buckets:[1]}} {{schema:-53 sum:1 count:3 custom_values:[5 10] buckets:[1 1 1]}}"#,
];

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
                if (request.start_ms..=request.end_ms).contains(&s.points.t_ms[i]) {
                    points.push(s.points.t_ms[i], s.points.value(i));
                }
            }
            if !points.is_empty() {
                let labels = s.labels.clone();
                out.push(SeriesData { labels, points });
            }
        }
        Ok(out)
    }
}

static DATA: LazyLock<Memory> = LazyLock::new(|| {
    let series = SERIES.iter().map(|line| {
        let (labels, values) = promql::series::parse_line(line).expect("a line of this file");
        let mut points = Points::default();
        for (i, value) in values.into_iter().enumerate() {
            if let Some(value) = value.value {
                points.push(i as i64 * 60_000, value);
            }
        }
        SeriesData { labels, points }
    });
    Memory(series.collect())
});

fuzz_target!(|text: &str| {
    let engine = Engine::new(Options {
        experimental: true,
        max_samples: 100_000,
        ..Options::default()
    });
    let at = 540_000;
    let Ok(expr) = promql::parse(text) else {
        return;
    };
    let instant = engine.instant_expr(&*DATA, &expr, at);
    let _ = engine.range_expr(&*DATA, &expr, 0, 900_000, 45_000);
    if let Ok(QueryData::Vector(now)) = instant.map(|o| o.data) {
        let once = engine.range_expr(&*DATA, &expr, at, at, 60_000);
        let Ok(QueryData::Matrix(once)) = once.map(|o| o.data) else {
            panic!("an instant query succeeds where a range query of one step does not");
        };
        assert_eq!(
            now.len(),
            once.len(),
            "series at an instant and at one step"
        );
    }
});
