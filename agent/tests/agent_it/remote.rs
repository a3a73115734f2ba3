//! Remote read out: what is written comes back bit for bit, within limits.

use std::sync::Arc;

use agent::ingest::{Sample, Value};
use model::histogram::Span;
use model::prompb::{self, ReadQuery};
use model::{Labels, MatchOp, Matcher, NativeHistogram, SeriesData};

use crate::harness::{Started, now_ns, start, start_with};

fn now_ms() -> i64 {
    i64::try_from(now_ns() / 1_000_000).unwrap()
}

fn labels(name: &str, extra: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("extra", extra)])
}

async fn read(started: &Started, query: &ReadQuery) -> Result<Vec<SeriesData>, (u16, String)> {
    let body = snap::raw::Encoder::new()
        .compress_vec(&prompb::request(query))
        .unwrap();
    let request = started.http.post(started.api("/api/v1/read")).body(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    if status != 200 {
        return Err((status, response.text().await.unwrap()));
    }
    assert_eq!(response.headers()["content-type"], "application/x-protobuf");
    assert_eq!(response.headers()["content-encoding"], "snappy");
    let bytes = response.bytes().await.unwrap();
    let message = snap::raw::Decoder::new().decompress_vec(&bytes).unwrap();
    Ok(prompb::read_response(&message, usize::MAX)
        .unwrap()
        .unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_read_returns_what_was_written() {
    let started = start().await;
    let now = now_ms();
    let histogram = NativeHistogram {
        schema: 2,
        count: 3.0,
        sum: 4.5,
        positive_spans: vec![Span {
            offset: -1,
            length: 2,
        }],
        positive_buckets: vec![1.0, 2.0],
        ..NativeHistogram::default()
    };
    let samples = [
        Sample::float(labels("b", "1"), now - 2, 1.5),
        Sample::float(labels("b", "1"), now - 1, model::stale_nan()),
        Sample::float(labels("a", "2"), now, -0.0),
        Sample {
            labels: labels("h", "1"),
            t_ms: now,
            start_ms: 0,
            value: Value::Histogram(Arc::new(histogram.clone())),
        },
    ];
    assert_eq!(started.agent.ingest.append(&samples).appended, 4);
    let query = ReadQuery {
        start_ms: now - 1,
        end_ms: now,
        matchers: vec![
            Matcher::new("__name__", MatchOp::Regex, "a|b|h").unwrap(),
            Matcher::new("extra", MatchOp::NotEqual, "9").unwrap(),
        ],
    };
    let series = read(&started, &query).await.unwrap();
    let names: Vec<&str> = series.iter().map(|s| s.labels.name()).collect();
    assert_eq!(names, ["a", "b", "h"], "sorted");
    assert!(series[0].points.values[0].is_sign_negative());
    assert_eq!(series[1].points.t_ms, [now - 1]);
    assert!(model::is_stale(series[1].points.values[0]));
    assert_eq!(**series[2].points.histogram(0).unwrap(), histogram);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_reads_are_bounded() {
    let started = start_with(|c| c.query.remote_read_samples = 3).await;
    let now = now_ms();
    let samples: Vec<Sample> = (0..4)
        .map(|i| Sample::float(labels("x", "1"), now - i, 1.0))
        .rev()
        .collect();
    started.agent.ingest.append(&samples);
    let query = |start_ms| ReadQuery {
        start_ms,
        end_ms: now,
        matchers: vec![Matcher::equal("__name__", "x")],
    };
    assert_eq!(
        read(&started, &query(now - 2)).await.unwrap()[0]
            .points
            .len(),
        3
    );
    let (status, text) = read(&started, &query(now - 3)).await.unwrap_err();
    assert_eq!(
        (status, text.trim()),
        (400, "exceeded sample limit (3)"),
        "as Prometheus says it"
    );
    for body in [
        b"not snappy".to_vec(),
        vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0],
        snap::raw::Encoder::new().compress_vec(&[0x0a, 9]).unwrap(),
    ] {
        let request = started.http.post(started.api("/api/v1/read")).body(body);
        assert_eq!(request.send().await.unwrap().status(), 400);
    }
    started.stop().await;
}
