//! OTLP over HTTP: protobuf, JSON, gzip, and every way to get it wrong.

use prost::Message;
use serde_json::{Value as Json, json};

use crate::harness::{Started, gzip, now_ns, server_span, start, start_with, traces};

async fn post(
    started: &Started,
    path: &str,
    kind: &str,
    body: Vec<u8>,
    encoding: &str,
) -> (u16, Vec<u8>) {
    let mut request = started
        .http
        .post(started.otlp(path))
        .header("content-type", kind);
    if !encoding.is_empty() {
        request = request.header("content-encoding", encoding);
    }
    let response = request.body(body).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.bytes().await.unwrap().to_vec())
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_and_gzip_are_taken() {
    let started = start().await;
    let body = traces("order", vec![server_span(1, 1, "/orders", 201)]).encode_to_vec();
    assert_eq!(
        post(&started, "/v1/traces", PROTOBUF, body.clone(), "").await,
        (200, vec![])
    );
    assert_eq!(
        post(&started, "/v1/traces", PROTOBUF, gzip(&body), "gzip").await,
        (200, vec![])
    );
    let found = started.get("/api/nines/v1/traces?service=order").await;
    assert_eq!(found["data"][0]["spans"], 2, "{found}");
    let received =
        started.metric(r#"nines_agent_received_total{signal="traces",transport="http"}"#);
    assert_eq!(received.await, 2.0);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_taken() {
    let started = start().await;
    let now = now_ns();
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "web"}}]},
        "scopeSpans": [{"spans": [{
            "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "GET /",
            "kind": 2, "startTimeUnixNano": (now - 5_000_000).to_string(), "endTimeUnixNano": now.to_string(),
            "attributes": [{"key": "http.response.status_code", "value": {"intValue": "200"}},
                           {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": true}, {"doubleValue": 1.5}]}}}],
            "status": {}, "unknownField": {"a": [1, 2]},
        }]}],
    }]});
    let (status, answer) = post(&started, "/v1/traces", JSON, body.to_string().into(), "").await;
    assert_eq!((status, answer.as_slice()), (200, &b"{}"[..]));
    let trace = started
        .get("/api/nines/v1/traces/5b8efff798038103d269b633813fc60c")
        .await;
    assert_eq!(trace["data"][0]["service"], "web", "{trace}");
    assert_eq!(
        trace["data"][0]["attributes"][1],
        json!(["list", "[true,1.5]"])
    );

    let bad = r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}"#;
    let (status, answer) = post(&started, "/v1/traces", JSON, bad.into(), "").await;
    let answer: Json = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, &answer["code"]), (400, &json!(3)));
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("\"xyz\" is not hex"),
        "{answer}"
    );
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_are_refused_and_counted() {
    let started = start_with(|c| c.limits.body = agent::config::Bytes(1 << 20)).await;
    let good = traces("order", vec![server_span(1, 1, "/orders", 201)]).encode_to_vec();
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000);
    for (body, encoding, status, reason) in [
        (good[..good.len() - 3].to_vec(), "", 400, "malformed"),
        (vec![0xff; 20], "", 400, "malformed"),
        (bomb, "gzip", 413, "decompressed_too_large"),
        (vec![0; (1 << 20) + 1], "", 413, "body_too_large"),
        (gzip(&good)[..20].to_vec(), "gzip", 400, "bad_gzip"),
        (good.clone(), "gzip", 400, "bad_gzip"),
        (good.clone(), "br", 415, "content_encoding"),
    ] {
        assert_eq!(
            post(&started, "/v1/traces", PROTOBUF, body, encoding)
                .await
                .0,
            status,
            "{reason}"
        );
        let name = format!(r#"nines_agent_rejected_total{{reason="{reason}",signal="traces"}}"#);
        assert!(started.metric(&name).await >= 1.0, "{reason}");
    }
    assert_eq!(
        post(&started, "/v1/traces", "text/plain", vec![], "")
            .await
            .0,
        415
    );
    assert_eq!(
        post(&started, "/v2/traces", PROTOBUF, vec![], "").await.0,
        404
    );
    let wrong_method = started
        .http
        .get(started.otlp("/v1/traces"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            wrong_method.status().as_u16(),
            &wrong_method.headers()["allow"]
        ),
        (405, &"POST".parse().unwrap())
    );
    let grpc_here = post(&started, "/v1/traces", "application/grpc", vec![0; 5], "").await;
    assert_eq!(grpc_here.0, 415, "each port serves what its name says");
    let none = started.get("/api/nines/v1/traces").await;
    assert_eq!(
        none["data"],
        json!([]),
        "nothing of a refused request is kept"
    );
    assert_eq!(
        post(&started, "/v1/traces", PROTOBUF, good, "").await.0,
        200,
        "nothing stopped"
    );
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_times_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let started = start_with(|c| c.limits.body_timeout = agent::config::Millis(200)).await;
    let mut stream = tokio::net::TcpStream::connect(started.agent.otlp_http_addr.unwrap())
        .await
        .unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100\r\n\r\nabc";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    drop(stream);
    started.stop().await;
}
