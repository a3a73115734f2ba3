//! OTLP over gRPC with tonic's client and the published messages.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::harness::{resource, server_span, start, start_with, traces};

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_kept_and_found() {
    let started = start().await;
    let client = TraceServiceClient::connect(started.grpc()).await.unwrap();
    let mut plain = client.clone();
    let mut zipped = client.send_compressed(CompressionEncoding::Gzip);
    let answer = plain
        .export(traces(
            "gateway",
            vec![server_span(1, 1, "/users/{id}", 200)],
        ))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().partial_success, None);
    zipped
        .export(traces("gateway", vec![server_span(2, 1, "/orders", 503)]))
        .await
        .unwrap();

    let all = started.get("/api/nines/v1/traces").await;
    assert_eq!(all["data"].as_array().unwrap().len(), 2, "{all}");
    let failed = started
        .get("/api/nines/v1/traces?status=5xx&error=true&service=gateway")
        .await;
    assert_eq!(failed["data"][0]["route"], "/orders", "{failed}");
    assert_eq!(failed["data"].as_array().unwrap().len(), 1);
    let none = started.get("/api/nines/v1/traces?min_duration=1s").await;
    assert!(none["data"].as_array().unwrap().is_empty());

    let id = "01".repeat(16);
    let trace = started.get(&format!("/api/nines/v1/traces/{id}")).await;
    let span = &trace["data"][0];
    assert_eq!(span["service"], "gateway", "{trace}");
    assert_eq!(span["kind"], "server");
    assert!(span["attributes"].to_string().contains("/users/{id}"));
    let missing = started
        .get(&format!("/api/nines/v1/traces/{}", "0f".repeat(16)))
        .await;
    assert_eq!(missing["errorType"], "not_found");
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_spans_are_a_partial_success() {
    let started = start().await;
    let mut client = TraceServiceClient::connect(started.grpc()).await.unwrap();
    let mut bad = server_span(1, 1, "/", 200);
    bad.trace_id = vec![1, 2, 3];
    let request = traces("gateway", vec![bad, server_span(1, 2, "/", 200)]);
    let partial = client
        .export(request)
        .await
        .unwrap()
        .into_inner()
        .partial_success
        .unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert!(
        partial.error_message.contains("trace id"),
        "{}",
        partial.error_message
    );
    let dropped =
        started.metric(r#"nines_agent_dropped_total{reason="invalid_id",signal="traces"}"#);
    assert_eq!(dropped.await, 1.0);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_kept_and_found() {
    let started = start().await;
    let mut client = LogsServiceClient::connect(started.grpc()).await.unwrap();
    let record = |severity: i32, body: &str| LogRecord {
        severity_number: severity,
        body: Some(AnyValue {
            value: Some(any_value::Value::StringValue(body.into())),
        }),
        trace_id: vec![7; 16],
        ..LogRecord::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource("order")),
            scope_logs: vec![ScopeLogs {
                log_records: vec![record(9, "fine"), record(17, "payment failed")],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    client.export(request).await.unwrap();
    let found = started
        .get("/api/nines/v1/logs?severity=error&service=order&text=PAYMENT")
        .await;
    assert_eq!(found["data"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found["data"][0]["body"], "payment failed");
    let by_trace = started
        .get(&format!("/api/nines/v1/logs?trace_id={}", "07".repeat(16)))
        .await;
    assert_eq!(by_trace["data"].as_array().unwrap().len(), 2);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_are_refused_and_the_connection_goes_on() {
    let started = start_with(|c| c.limits.body = agent::config::Bytes(10_000)).await;
    let client = TraceServiceClient::connect(started.grpc()).await.unwrap();
    let large = traces("g", (1..200).map(|i| server_span(1, i, "/", 200)).collect());
    for mut client in [
        client.clone(),
        client.clone().send_compressed(CompressionEncoding::Gzip),
    ] {
        let status = client.export(large.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains("larger than"), "{status:?}");
    }
    let mut client = client;
    client
        .export(traces("g", vec![server_span(1, 1, "/", 200)]))
        .await
        .unwrap();
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_told_with_retry_info() {
    let started = start_with(|c| c.limits.in_flight = agent::config::Bytes(1_000)).await;
    let mut client = TraceServiceClient::connect(started.grpc()).await.unwrap();
    let large = traces("g", (1..200).map(|i| server_span(1, i, "/", 200)).collect());
    let status = client.export(large).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = String::from_utf8_lossy(status.details()).into_owned();
    assert!(details.contains("google.rpc.RetryInfo"), "{details}");
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for() {
    let started = start_with(|c| c.token = Some(agent::config::Secret("s3cret".into()))).await;
    let mut client = TraceServiceClient::connect(started.grpc()).await.unwrap();
    let status = client.export(traces("g", vec![])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut request = tonic::Request::new(traces("g", vec![]));
    let value = "Bearer s3cret".parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    client.export(request).await.unwrap();
    let open = started
        .http
        .get(started.api("/-/ready"))
        .send()
        .await
        .unwrap();
    assert_eq!(open.status(), 200);
    let closed = started
        .http
        .get(started.api("/metrics"))
        .send()
        .await
        .unwrap();
    assert_eq!(closed.status(), 401);
    started.agent.shutdown().await;
}

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A message in a gRPC frame that announces `announced` bytes.
fn framed(flag: u8, announced: usize, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend_from_slice(&u32::try_from(announced).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// Calls with bytes of our own; the status and message in the answer's headers.
async fn call(url: &str, encoding: &str, body: Vec<u8>) -> (String, String) {
    let http = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let request = http.post(url).header("content-type", "application/grpc");
    let request = request.header("grpc-encoding", encoding).body(body);
    let response = request.send().await.unwrap();
    assert_eq!(
        response.status(),
        200,
        "gRPC's own errors are in its status"
    );
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map_or("", |v| v.to_str().unwrap()).to_owned()
    };
    (header("grpc-status"), header("grpc-message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bent_calls_get_a_grpc_status() {
    use prost::Message;
    let started = start_with(|c| c.limits.body = agent::config::Bytes(1 << 20)).await;
    let export = format!("{}{EXPORT}", started.grpc());
    let good = traces("g", vec![server_span(1, 1, "/", 200)]).encode_to_vec();
    let bomb = crate::harness::gzip(&vec![0; 32 << 20]);
    let early = framed(0, good.len() + 1, &good);
    let cut = framed(0, 3, &good[..3]);
    let bomb = framed(1, bomb.len(), &bomb);
    let packed = framed(1, good.len(), &good);
    for (encoding, body, status, part) in [
        ("identity", early, "3", "ends early"),
        ("identity", cut, "3", "truncated"),
        ("identity", vec![0, 0], "3", "no whole gRPC frame"),
        ("gzip", bomb, "3", "once decompressed"),
        ("gzip", packed.clone(), "3", "not valid gzip"),
        ("snappy", packed, "12", "only gzip"),
    ] {
        let (got, message) = call(&export, encoding, body).await;
        assert_eq!(got, status, "{part}: {message}");
        assert!(message.contains(part), "{part}: {message}");
    }
    let nowhere = format!("{}/nothing/Here", started.grpc());
    let (status, message) = call(&nowhere, "identity", framed(0, 0, b"")).await;
    assert_eq!(status, "12", "{message}");
    let (ok, _) = call(&export, "gzip", framed(0, good.len(), &good)).await;
    assert_eq!(ok, "", "success is told in the trailers");
    assert_eq!(started.get("/api/nines/v1/self").await["data"]["spans"], 1);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grpc_port_speaks_grpc_only() {
    let started = start().await;
    let export = format!("{}{EXPORT}", started.grpc());
    let http = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let wrong = http
        .post(&export)
        .header("content-type", "application/json")
        .body("{}");
    assert_eq!(wrong.send().await.unwrap().status(), 415);
    drop(http);
    let http1 = started.http.post(&export).body("{}").send().await;
    assert!(http1.is_err(), "the gRPC port speaks HTTP/2 only");
    started.stop().await;
}
