//! Metrics in by every way, out by the Prometheus API.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
    exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
    summary_data_point::ValueAtQuantile,
};
use serde_json::json;

use crate::harness::{Started, now_ns, resource, server_span, start, start_with, text, traces};

/// The single value of an instant query.
async fn value(started: &Started, query: &str) -> String {
    let url =
        reqwest::Url::parse_with_params(&started.api("/api/v1/query"), [("query", query)]).unwrap();
    let body: serde_json::Value = started
        .http
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let result = body["data"]["result"]
        .as_array()
        .unwrap_or_else(|| panic!("{query}: {body}"));
    assert_eq!(result.len(), 1, "{query}: {body}");
    result[0]["value"][1].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_span_is_counted_after_a_flush() {
    let started = start().await;
    let mut client = TraceServiceClient::connect(started.grpc()).await.unwrap();
    for batch in 0..20u8 {
        let spans = (1..=50u8)
            .map(|i| {
                server_span(
                    batch + 1,
                    i,
                    "/users/{id}",
                    if i % 10 == 0 { 500 } else { 200 },
                )
            })
            .collect();
        client.export(traces("gateway", spans)).await.unwrap();
    }
    started.flush().await;
    let calls =
        "sum(traces_span_metrics_calls_total{service_name=\"gateway\",http_route=\"/users/{id}\"})";
    assert_eq!(value(&started, calls).await, "1000");
    let errors = "sum(traces_span_metrics_calls_total{http_response_status_code=~\"5..\"})";
    assert_eq!(value(&started, errors).await, "100");
    assert_eq!(
        value(
            &started,
            "sum(increase(traces_span_metrics_calls_total[1m])) > bool 0"
        )
        .await,
        "1"
    );
    let inf = "sum(traces_span_metrics_duration_seconds_bucket{le=\"+Inf\"})";
    assert_eq!(value(&started, inf).await, "1000");
    let under = "sum(traces_span_metrics_duration_seconds_bucket{le=\"0.0025\"})";
    assert_eq!(value(&started, under).await, "0");
    assert_eq!(
        value(
            &started,
            "histogram_count(sum(traces_span_metrics_duration_seconds))"
        )
        .await,
        "1000"
    );
    let p99: f64 = value(
        &started,
        "histogram_quantile(0.99, sum(traces_span_metrics_duration_seconds))",
    )
    .await
    .parse()
    .unwrap();
    assert!((p99 / 0.003 - 1.0).abs() < 0.01, "{p99}");
    let edge = "traces_service_graph_request_total{client=\"user\",server=\"gateway\"}";
    assert_eq!(value(&started, edge).await, "1000");
    let exemplars = started
        .get("/api/v1/query_exemplars?query=traces_span_metrics_duration_seconds_bucket")
        .await;
    assert!(
        exemplars["data"][0]["exemplars"][0]["labels"]["trace_id"].is_string(),
        "{exemplars}"
    );
    started.stop().await;
}

fn number(value: Value, at: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![text("pool.name", "main")],
        time_unix_nano: at,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.into(),
        unit: unit.into(),
        description: "help".into(),
        data: Some(data),
        ..Metric::default()
    }
}

fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource("shop")),
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

fn sum(temporality: i32, v: i64, at: u64) -> Data {
    Data::Sum(Sum {
        data_points: vec![number(Value::AsInt(v), at)],
        aggregation_temporality: temporality,
        is_monotonic: true,
    })
}

fn histogram(temporality: i32, at: u64) -> Data {
    Data::Histogram(Histogram {
        aggregation_temporality: temporality,
        data_points: vec![HistogramDataPoint {
            time_unix_nano: at,
            count: 6,
            sum: Some(4.5),
            bucket_counts: vec![1, 2, 3],
            explicit_bounds: vec![0.1, 1.0],
            ..HistogramDataPoint::default()
        }],
    })
}

fn exponential(at: u64) -> Data {
    Data::ExponentialHistogram(ExponentialHistogram {
        aggregation_temporality: 2,
        data_points: vec![ExponentialHistogramDataPoint {
            time_unix_nano: at,
            count: 10,
            sum: Some(20.0),
            scale: 0,
            zero_count: 1,
            positive: Some(Buckets {
                offset: -1,
                bucket_counts: vec![2, 3, 4],
            }),
            ..ExponentialHistogramDataPoint::default()
        }],
    })
}

/// One metric of each kind.
fn one_of_each(at: u64) -> ExportMetricsServiceRequest {
    let summary = Data::Summary(Summary {
        data_points: vec![SummaryDataPoint {
            time_unix_nano: at,
            count: 3,
            sum: 6.0,
            quantile_values: vec![ValueAtQuantile {
                quantile: 0.5,
                value: 2.0,
            }],
            ..SummaryDataPoint::default()
        }],
    });
    let gauge = Data::Gauge(Gauge {
        data_points: vec![number(Value::AsDouble(0.75), at)],
    });
    request(vec![
        metric("db.pool.utilization", "1", gauge),
        metric("shop.orders", "{order}", sum(2, 41, at)),
        metric("shop.delta", "", sum(1, 5, at)),
        metric("http.server.request.duration", "s", histogram(2, at)),
        metric("delta.duration", "s", histogram(1, at)),
        metric("exp.duration", "s", exponential(at)),
        metric("old.latency", "ms", summary),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_metrics_become_series_with_prometheus_names() {
    let started = start().await;
    let mut client = MetricsServiceClient::connect(started.grpc()).await.unwrap();
    let at = now_ns();
    let first = one_of_each(at);
    let answer = client.export(first).await.unwrap().into_inner();
    assert_eq!(answer.partial_success, None);
    let later = at + 1_000_000;
    client
        .export(request(vec![
            metric("shop.delta", "", sum(1, 7, later)),
            metric("delta.duration", "s", histogram(1, later)),
        ]))
        .await
        .unwrap();
    for (query, wanted) in [
        (
            "db_pool_utilization_ratio{job=\"shop\",pool_name=\"main\"}",
            "0.75",
        ),
        ("shop_orders_total", "41"),
        ("shop_delta_total", "12"),
        (
            "http_server_request_duration_seconds_bucket{le=\"0.1\"}",
            "1",
        ),
        ("http_server_request_duration_seconds_bucket{le=\"1\"}", "3"),
        (
            "http_server_request_duration_seconds_bucket{le=\"+Inf\"}",
            "6",
        ),
        ("http_server_request_duration_seconds_sum", "4.5"),
        ("delta_duration_seconds_count", "12"),
        ("delta_duration_seconds_bucket{le=\"1\"}", "6"),
        ("histogram_count(exp_duration_seconds)", "10"),
        ("histogram_fraction(0, 0.5, exp_duration_seconds)", "0.1"),
        ("old_latency_milliseconds{quantile=\"0.5\"}", "2"),
        ("target_info{host_name=\"h1\"}", "1"),
    ] {
        assert_eq!(value(&started, query).await, wanted, "{query}");
    }
    let metadata = started
        .get("/api/v1/metadata?metric=shop_orders_total")
        .await;
    assert_eq!(
        metadata["data"]["shop_orders_total"][0],
        json!({"type": "counter", "help": "help", "unit": ""})
    );

    let mut gone = number(Value::AsInt(0), later);
    gone.flags = 1;
    let data = Data::Sum(Sum {
        data_points: vec![gone],
        aggregation_temporality: 2,
        is_monotonic: true,
    });
    client
        .export(request(vec![metric("shop.orders", "", data)]))
        .await
        .unwrap();
    let after = started.get("/api/v1/query?query=shop_orders_total").await;
    assert_eq!(
        after["data"]["result"],
        json!([]),
        "NoRecordedValue ends the series"
    );
    started.stop().await;
}

/// What OTLP says about when counting began goes to the store, and to those queries that know what to do with it.
#[tokio::test(flavor = "multi_thread")]
async fn start_times_travel_from_otlp_to_promql() {
    let started = start_with(|config| config.query.experimental = true).await;
    let mut client = MetricsServiceClient::connect(started.grpc()).await.unwrap();
    let at = now_ns() / 1_000_000_000 * 1_000_000_000;
    let began = at - 7_000_000_000;
    let of = |temporality: i32| {
        let mut point = number(Value::AsInt(5), at);
        point.start_time_unix_nano = began;
        Data::Sum(Sum {
            data_points: vec![point],
            aggregation_temporality: temporality,
            is_monotonic: true,
        })
    };
    client
        .export(request(vec![
            metric("counted", "", of(2)),
            metric("added", "", of(1)),
        ]))
        .await
        .unwrap();
    let seconds = |ns: u64| (ns / 1_000_000_000).to_string();
    assert_eq!(
        value(&started, "start_timestamp(counted_total)").await,
        seconds(began)
    );
    assert_eq!(value(&started, "start_timestamp(added_total)").await, "0");
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_as_prometheus_does() {
    let started = start().await;
    let mut client = TraceServiceClient::connect(started.grpc()).await.unwrap();
    client
        .export(traces("web", vec![server_span(1, 1, "/", 200)]))
        .await
        .unwrap();
    started.flush().await;

    let post = |path: &str, body: &str| {
        let kind = "application/x-www-form-urlencoded";
        let request = started
            .http
            .post(started.api(path))
            .header("content-type", kind);
        request.body(body.to_owned()).send()
    };
    let scalar: serde_json::Value = post("/api/v1/query", "query=1%2B1&time=5")
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        scalar,
        json!({"status": "success", "data": {"resultType": "scalar", "result": [5, "2"]}})
    );
    let now = now_ns() / 1_000_000_000;
    let range = format!("query=vector(3)&start={}&end={now}&step=15", now - 30);
    let matrix: serde_json::Value = post("/api/v1/query_range", &range)
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        matrix["data"]["result"][0]["values"]
            .as_array()
            .unwrap()
            .len(),
        3,
        "{matrix}"
    );

    let names = started.get("/api/v1/label/service_name/values").await;
    assert_eq!(names["data"], json!(["web"]));
    let labels = started
        .get("/api/v1/labels?match[]=traces_span_metrics_calls_total")
        .await;
    assert!(
        labels["data"]
            .as_array()
            .unwrap()
            .contains(&json!("http_route")),
        "{labels}"
    );
    let series = started
        .get("/api/v1/series?match[]=traces_span_metrics_calls_total")
        .await;
    assert_eq!(series["data"][0]["service_name"], "web", "{series}");
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_prometheus_shape() {
    let started = start().await;
    for (path, status, kind, part) in [
        (
            "/api/v1/query?query=sum(",
            400,
            "bad_data",
            "invalid parameter \"query\"",
        ),
        (
            "/api/v1/query?query=up&time=x",
            400,
            "bad_data",
            "cannot parse \"x\" to a valid timestamp",
        ),
        (
            "/api/v1/query_range?query=up&start=0&end=100000&step=1",
            400,
            "bad_data",
            "11,000 points",
        ),
        (
            "/api/v1/query_range?query=up&start=9&end=1&step=1",
            400,
            "bad_data",
            "must not be before start",
        ),
        (
            "/api/v1/query_range?query=up&start=0&end=1&step=0",
            400,
            "bad_data",
            "zero or negative",
        ),
        ("/api/v1/series", 400, "bad_data", "no match[] parameter"),
        (
            "/api/v1/query?query=label_replace(up,\"a\",\"b\",\"c\",\"(\")",
            400,
            "",
            "invalid",
        ),
        ("/api/nines/v1/traces/xyz", 400, "bad_data", "32 hex digits"),
    ] {
        let response = started.http.get(started.api(path)).send().await.unwrap();
        let got = response.status().as_u16();
        let body: serde_json::Value = response.json().await.unwrap();
        if kind.is_empty() {
            assert!(
                got == 400 || got == 422 || body["status"] == "success",
                "{path}: {got} {body}"
            );
            continue;
        }
        assert_eq!(
            (got, &body["status"], &body["errorType"]),
            (status, &json!("error"), &json!(kind)),
            "{path}"
        );
        assert!(
            body["error"].as_str().unwrap().contains(part),
            "{path}: {body}"
        );
    }
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_page_answers_and_gzip_is_offered() {
    let started = start().await;
    for path in [
        "/api/v1/status/buildinfo",
        "/api/v1/status/tsdb",
        "/api/v1/status/flags",
        "/api/v1/status/config",
        "/api/v1/status/runtimeinfo",
        "/api/v1/targets",
        "/api/v1/metadata",
        "/api/v1/format_query?query=sum(up)",
        "/api/v1/parse_query?query=sum(up)",
        "/api/nines/v1/self",
    ] {
        assert_eq!(started.get(path).await["status"], "success", "{path}");
    }
    let plain = reqwest::Client::builder().no_gzip().build().unwrap();
    let zipped = plain
        .get(started.api("/metrics"))
        .header("accept-encoding", "gzip");
    assert_eq!(
        zipped.send().await.unwrap().headers()["content-encoding"],
        "gzip"
    );
    let nothing = started
        .http
        .get(started.api("/api/v1/nothing"))
        .send()
        .await
        .unwrap();
    assert_eq!(nothing.status(), 404);
    started.stop().await;
}

/// A remote write body of one sample.
fn written(v: f64, t_ms: i64) -> Vec<u8> {
    use model::protobuf::{put_bytes, put_fixed64, put_number};
    let mut series = Vec::new();
    for (name, value) in [("__name__", "written_total"), ("job", "load")] {
        let mut label = Vec::new();
        put_bytes(&mut label, 1, name.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(&mut series, 1, &label);
    }
    let mut sample = Vec::new();
    put_fixed64(&mut sample, 1, v.to_bits());
    put_number(&mut sample, 2, t_ms.cast_unsigned());
    put_bytes(&mut series, 2, &sample);
    let mut message = Vec::new();
    put_bytes(&mut message, 1, &series);
    snap::raw::Encoder::new().compress_vec(&message).unwrap()
}

/// Sends a remote write body; the status.
async fn write(started: &Started, body: Vec<u8>) -> u16 {
    let request = started.http.post(started.api("/api/v1/write"));
    let request = request.header("content-encoding", "snappy");
    let request = request.header("content-type", "application/x-protobuf");
    request.body(body).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_write_is_taken_or_refused_for_good() {
    let started = start().await;
    let now = i64::try_from(now_ns() / 1_000_000).unwrap();
    assert_eq!(write(&started, written(7.0, now)).await, 204);
    assert_eq!(value(&started, "written_total").await, "7");
    assert_eq!(
        write(&started, written(8.0, now)).await,
        400,
        "another value for the same instant"
    );
    assert_eq!(write(&started, b"not snappy".to_vec()).await, 400);
    assert_eq!(
        write(&started, vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0]).await,
        413,
        "announces 4 GiB"
    );
    assert_eq!(write(&started, written(9.0, now + 1)).await, 204);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_retention_samples_of_any_time_are_taken() {
    let started = start_with(|c| c.retention = agent::config::OrOff::Off).await;
    for (v, t_ms) in [(3.0, 2_000), (1.0, 0), (2.0, 1_000)] {
        assert_eq!(write(&started, written(v, t_ms)).await, 204, "{t_ms}");
    }
    let range = started
        .get("/api/v1/query_range?query=written_total&start=0&end=2&step=1")
        .await;
    let wanted = json!([[0, "1"], [1, "2"], [2, "3"]]);
    assert_eq!(range["data"]["result"][0]["values"], wanted, "{range}");
    started.stop().await;
}

/// A remote write 2.0 of a float and a native histogram of one series each, with metadata.
fn written_v2(v: f64, t_ms: i64) -> Vec<u8> {
    use model::protobuf::{put_bytes, put_fixed64, put_number};
    let t = t_ms.cast_unsigned();
    let mut message = Vec::new();
    for symbol in [
        "",
        "__name__",
        "second_total",
        "second_seconds",
        "what it is",
    ] {
        put_bytes(&mut message, 4, symbol.as_bytes());
    }
    let mut sample = Vec::new();
    put_fixed64(&mut sample, 1, v.to_bits());
    put_number(&mut sample, 2, t);
    let mut about = Vec::new();
    put_number(&mut about, 1, 1);
    put_number(&mut about, 3, 4);
    let mut series = Vec::new();
    put_bytes(&mut series, 1, &[1, 2]);
    put_bytes(&mut series, 2, &sample);
    put_bytes(&mut series, 5, &about);
    put_bytes(&mut message, 5, &series);
    let mut histogram = Vec::new();
    put_number(&mut histogram, 1, 4);
    put_fixed64(&mut histogram, 3, v.to_bits());
    put_number(&mut histogram, 15, t);
    let mut series = Vec::new();
    put_bytes(&mut series, 1, &[1, 3]);
    put_bytes(&mut series, 3, &histogram);
    put_bytes(&mut message, 5, &series);
    snap::raw::Encoder::new().compress_vec(&message).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_write_2_is_taken_when_the_sender_asks_for_it() {
    let started = start().await;
    let now = i64::try_from(now_ns() / 1_000_000).unwrap();
    let send = async |proto: &str, body: Vec<u8>| {
        let request = started.http.post(started.api("/api/v1/write"));
        let kind = format!("application/x-protobuf;proto={proto}");
        let request = request.header("content-type", kind);
        let request = request.header("content-encoding", "snappy");
        let response = request.body(body).send().await.unwrap();
        let written = ["samples", "histograms", "exemplars"].map(|what| {
            let name = format!("x-prometheus-remote-write-{what}-written");
            let value = response.headers().get(&name);
            value.map(|v| v.to_str().unwrap().to_owned())
        });
        (response.status().as_u16(), written)
    };
    let counts = |n: [&str; 3]| n.map(|n| Some(n.to_owned()));
    let v2 = "io.prometheus.write.v2.Request";
    assert_eq!(
        send(v2, written_v2(7.0, now)).await,
        (204, counts(["1", "1", "0"]))
    );
    assert_eq!(value(&started, "second_total").await, "7");
    assert_eq!(
        value(&started, "histogram_count(second_seconds)").await,
        "4"
    );
    let about = started.get("/api/v1/metadata?metric=second_total").await;
    assert_eq!(about["data"]["second_total"][0]["help"], "what it is");
    assert_eq!(
        send(v2, written_v2(8.0, now)).await,
        (400, counts(["0", "0", "0"])),
        "other values for the same instant"
    );
    assert_eq!(
        send(v2, b"not snappy".to_vec()).await,
        (400, counts(["0", "0", "0"]))
    );
    let (status, _) = send("io.prometheus.write.v3.Request", Vec::new()).await;
    assert_eq!(status, 415);
    let (status, headers) = send("prometheus.WriteRequest", written(1.0, now)).await;
    assert_eq!((status, headers), (204, [None, None, None]));
    started.stop().await;
}
