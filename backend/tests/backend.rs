//! The embedded backend from outside: flows, limits, faults, dead letters, and truth against `/metrics`.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail its test"
)]

#[path = "backend/real.rs"]
mod real;

use std::net::SocketAddr;
use std::time::Duration;

use backend::settings::{Breaker, Limits, Queue};
use backend::{Backend, Settings};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn settings() -> Settings {
    Settings {
        listen: "127.0.0.1:0".into(),
        admin: "127.0.0.1:0".into(),
        limits: Limits {
            enabled: false,
            ..Limits::default()
        },
        queue: Queue {
            backoff_ms: 1,
            poll_ms: 5,
            ..Queue::default()
        },
        breaker: Breaker {
            open_ms: 300,
            ..Breaker::default()
        },
        ..Settings::default()
    }
}

/// One HTTP/1.1 exchange on its own connection: status and body.
async fn call(
    addr: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
    body: &Value,
) -> (u16, Value) {
    let auth = if token.is_empty() {
        String::new()
    } else {
        format!("authorization: Bearer {token}\r\n")
    };
    call_with(addr, method, path, &auth, body).await
}

/// The same with header lines of one's own.
async fn call_with(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &Value,
) -> (u16, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, b)| b);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn get(addr: SocketAddr, path: &str) -> (u16, Value) {
    call(addr, "GET", path, "", &Value::Null).await
}

async fn login(b: &Backend, user: u32) -> String {
    let who = json!({"email": format!("user{user}@example.com"), "password": "password"});
    let (status, v) = call(b.front_addr, "POST", "/api/v1/auth/login", "", &who).await;
    assert_eq!(status, 200, "{v}");
    v["token"].as_str().unwrap().to_owned()
}

async fn set_faults(b: &Backend, faults: Value) {
    let (status, v) = call(
        b.admin_addr,
        "PUT",
        "/admin/faults",
        "",
        &json!({"faults": faults}),
    )
    .await;
    assert_eq!(status, 200, "{v}");
}

/// Waits until `done` holds of the JSON at an admin path, at most 10 s.
async fn wait_for(b: &Backend, path: &str, done: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..500 {
        let (_, v) = get(b.admin_addr, path).await;
        if done(&v) {
            return v;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!(
        "{path} never came to it: {}",
        get(b.admin_addr, path).await.1
    );
}

#[tokio::test]
async fn read_and_write_flows() {
    let b = backend::start(settings()).await.unwrap();
    let (status, v) = get(b.front_addr, "/api/products/123").await;
    assert_eq!((status, v["id"].as_i64()), (200, Some(123)));
    get(b.front_addr, "/api/products/123").await;
    let truth = b.truth();
    assert_eq!(
        (
            truth["cache"]["hits"].as_u64(),
            truth["cache"]["misses"].as_u64()
        ),
        (Some(1), Some(1))
    );
    let token = login(&b, 2).await;
    let order = json!({"items": [{"productId": 123, "quantity": 2}]});
    let (status, v) = call(b.front_addr, "POST", "/api/orders", &token, &order).await;
    assert_eq!(
        (status, v["status"].as_str()),
        (201, Some("pending")),
        "{v}"
    );
    let (_, product) = get(b.front_addr, "/api/products/123").await;
    assert_eq!(product["quantity"], 998, "the write invalidated the entry");
    let path = format!("/api/orders/{}", v["orderId"]);
    for _ in 0..300 {
        let (_, order) = call(b.front_addr, "GET", &path, &token, &Value::Null).await;
        if order["status"] == "paid" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, order) = call(b.front_addr, "GET", &path, &token, &Value::Null).await;
    assert_eq!(order["status"], "paid");
    let (status, _) = call(b.front_addr, "POST", "/api/orders", "", &json!({})).await;
    assert_eq!(status, 401);
    assert_eq!(get(b.front_addr, "/nothing").await.0, 404);
    assert_eq!(get(b.front_addr, "/api/search?q=%3Cscript%3E").await.0, 403);
    let (status, task) = call(
        b.front_addr,
        "POST",
        "/api/v1/tasks",
        &token,
        &json!({"title": "t"}),
    )
    .await;
    assert_eq!(status, 201);
    let (_, tasks) = get(b.front_addr, "/api/v1/tasks?page=1&limit=3&naive=1").await;
    assert_eq!(
        (
            tasks["items"].as_array().unwrap().len(),
            &tasks["items"][0]["id"]
        ),
        (3, &task["id"])
    );
    b.shutdown().await;
}

#[tokio::test]
async fn stock_never_goes_negative() {
    let mut s = settings();
    s.seed_data.stock = 20;
    let b = backend::start(s).await.unwrap();
    let token = login(&b, 2).await;
    let order = json!({"items": [{"productId": 5, "quantity": 1}]});
    let calls = (0..40).map(|_| call(b.front_addr, "POST", "/api/orders", &token, &order));
    let answers = futures_util::future::join_all(calls).await;
    let count = |s: u16| answers.iter().filter(|(status, _)| *status == s).count();
    assert_eq!((count(201), count(409)), (20, 20));
    assert_eq!(get(b.front_addr, "/api/products/5").await.1["quantity"], 0);
    b.shutdown().await;
}

#[tokio::test]
async fn request_101_of_a_minute_is_429() {
    let mut s = settings();
    s.limits = Limits {
        algorithm: backend::limiter::Algorithm::SlidingWindow,
        window_ms: 3_600_000,
        ..Limits::default()
    };
    let b = backend::start(s).await.unwrap();
    let token = login(&b, 3).await;
    for i in 1..=101 {
        let (status, _) = call(b.front_addr, "GET", "/api/v1/auth/me", &token, &Value::Null).await;
        assert_eq!(status, if i <= 100 { 200 } else { 429 }, "request {i}");
    }
    b.shutdown().await;
}

#[tokio::test]
async fn dead_letters_after_three_retries_and_requeue() {
    let b = backend::start(settings()).await.unwrap();
    set_faults(&b, json!([{"knob": "worker_crash", "target": "email"}])).await;
    let token = login(&b, 2).await;
    let order = json!({"items": [{"productId": 1}]});
    call(b.front_addr, "POST", "/api/orders", &token, &order).await;
    wait_for(&b, "/admin/queue", |q| q["queues"]["email"]["dead"] == 1).await;
    let truth = b.truth();
    assert_eq!(
        (
            truth["queue"]["retried"].as_u64(),
            truth["queue"]["dead"].as_u64()
        ),
        (Some(3), Some(1))
    );
    set_faults(&b, json!([])).await;
    let (_, v) = call(
        b.admin_addr,
        "POST",
        "/admin/dlq/requeue?queue=email",
        "",
        &Value::Null,
    )
    .await;
    assert_eq!(v["requeued"], 1);
    wait_for(&b, "/admin/queue", |q| {
        q["queues"]["email"]["dead"] == 0 && q["queues"]["email"]["depth"] == 0
    })
    .await;
    b.shutdown().await;
}

#[tokio::test]
async fn cache_down_degrades_and_recovers() {
    let b = backend::start(settings()).await.unwrap();
    set_faults(&b, json!([{"knob": "cache_refuse"}])).await;
    for i in 1..=30 {
        assert_eq!(
            get(b.front_addr, &format!("/api/products/{i}")).await.0,
            200
        );
    }
    let (_, state) = get(b.admin_addr, "/admin/state").await;
    assert_ne!(state["breakers"]["cache"], "closed");
    assert!(state["cache"]["bypass"].as_u64().unwrap() > 0 && state["requests"]["errors_5xx"] == 0);
    set_faults(&b, json!([])).await;
    for _ in 0..200 {
        get(b.front_addr, "/api/products/1").await;
        if get(b.admin_addr, "/admin/state").await.1["breakers"]["cache"] == "closed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, state) = get(b.admin_addr, "/admin/state").await;
    assert_eq!(state["breakers"]["cache"], "closed");
    let to: Vec<_> = state["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["kind"] == "breaker")
        .map(|e| e["to"].clone())
        .collect();
    assert_eq!(
        (to.first(), to.last()),
        (Some(&json!("open")), Some(&json!("closed")))
    );
    b.shutdown().await;
}

#[tokio::test]
async fn metrics_equal_the_truth() {
    let b = backend::start(settings()).await.unwrap();
    let token = login(&b, 2).await;
    set_faults(
        &b,
        json!([{"knob": "error", "target": "product", "rate": 0.3, "status": 503, "seed": 4}]),
    )
    .await;
    for i in 0..60 {
        get(b.front_addr, &format!("/api/products/{}", i % 7 + 1)).await;
        if i % 10 == 0 {
            call(
                b.front_addr,
                "POST",
                "/api/orders",
                &token,
                &json!({"items": [{"productId": 3}]}),
            )
            .await;
        }
    }
    let (truth, text) = (b.truth(), b.metrics());
    let sum = |name: &str, needle: &str| -> f64 {
        let lines = text
            .lines()
            .filter(|l| l.starts_with(&format!("{name}{{")) && l.contains(needle));
        lines
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    let n = |v: &Value| v.as_f64().unwrap();
    assert_eq!(
        sum("http_server_requests_total", ""),
        n(&truth["requests"]["total"])
    );
    assert_eq!(
        sum("http_server_requests_total", "status=\"5"),
        n(&truth["requests"]["errors_5xx"])
    );
    assert!(n(&truth["requests"]["errors_5xx"]) > 5.0);
    assert_eq!(
        sum("cache_requests_total", "result=\"hit\""),
        n(&truth["cache"]["hits"])
    );
    assert_eq!(
        sum("cache_requests_total", "result=\"miss\""),
        n(&truth["cache"]["misses"])
    );
    let seconds: f64 = truth["seconds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| n(&s["requests"]))
        .sum();
    assert_eq!(seconds, n(&truth["requests"]["total"]));
    let (status, v) = call(
        b.admin_addr,
        "PUT",
        "/admin/faults",
        "",
        &json!({"faults": [{"knob": "latancy"}]}),
    )
    .await;
    assert_eq!(status, 400);
    assert!(
        v["error"]
            .as_str()
            .unwrap()
            .contains("did you mean `latency`"),
        "{v}"
    );
    b.shutdown().await;
}

#[tokio::test]
async fn a_dead_instance_goes_out_after_two_checks_and_returns_after_three() {
    let mut s = settings();
    s.balancer.check_interval_ms = 30;
    let b = backend::start(s).await.unwrap();
    set_faults(&b, json!([{"knob": "kill_instance", "value": 0}])).await;
    let down = |v: &Value, to: &str| {
        v["events"]
            .as_array()
            .unwrap()
            .iter()
            .any(|e| e["kind"] == "backend" && e["to"] == to)
    };
    wait_for(&b, "/admin/state", |v| down(v, "down")).await;
    for _ in 0..12 {
        assert_eq!(get(b.front_addr, "/version").await.0, 200);
    }
    set_faults(&b, json!([])).await;
    wait_for(&b, "/admin/state", |v| down(v, "up")).await;
    b.shutdown().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let b = backend::start(settings()).await.unwrap();
    let s = Settings {
        listen: b.front_addr.to_string(),
        ..settings()
    };
    let error = backend::start(s).await.unwrap_err().to_string();
    assert!(error.contains(&b.front_addr.to_string()), "{error}");
    b.shutdown().await;
}

#[tokio::test]
async fn a_request_brings_a_fault_for_itself_when_that_is_allowed() {
    let b = backend::start(Settings {
        fault_header: true,
        ..settings()
    })
    .await
    .unwrap();
    let with = |fault: &str| format!("x-fault: {fault}\r\n");
    let product = async |header: String| {
        call_with(
            b.front_addr,
            "GET",
            "/api/products/1",
            &header,
            &Value::Null,
        )
        .await
    };
    let (status, v) = product(with("knob=error,target=product,status=503")).await;
    assert_eq!((status, v["title"].as_str()), (503, Some("injected")));
    assert_eq!(product(with("knob=error,target=order")).await.0, 200);
    assert_eq!(
        product(with("knob=error,target=gateway,status=418"))
            .await
            .0,
        418
    );
    let (status, v) = product(with("knob=eror")).await;
    assert_eq!(status, 400);
    assert!(
        v["detail"]
            .as_str()
            .unwrap()
            .contains("did you mean `error`"),
        "{v}"
    );
    assert_eq!(product(String::new()).await.0, 200);
    b.shutdown().await;
    let b = backend::start(settings()).await.unwrap();
    let header = with("knob=error,target=product");
    let (status, _) = call_with(
        b.front_addr,
        "GET",
        "/api/products/1",
        &header,
        &Value::Null,
    )
    .await;
    assert_eq!(status, 200, "not allowed by default");
    b.shutdown().await;
}

#[tokio::test]
async fn a_task_is_cached_until_it_changes() {
    let b = backend::start(settings()).await.unwrap();
    let token = login(&b, 2).await;
    let title = async || get(b.front_addr, "/api/v1/tasks/5").await.1["title"].clone();
    assert_eq!(
        (title().await, title().await),
        (json!("task 5"), json!("task 5"))
    );
    let change = json!({"title": "changed"});
    let (status, _) = call(b.front_addr, "PATCH", "/api/v1/tasks/5", &token, &change).await;
    assert_eq!((status, title().await), (200, json!("changed")));
    let (_, state) = get(b.admin_addr, "/admin/state").await;
    assert_eq!(
        (&state["cache"]["hits"], &state["cache"]["misses"]),
        (&json!(1), &json!(2))
    );
    call(
        b.front_addr,
        "DELETE",
        "/api/v1/tasks/5",
        &token,
        &Value::Null,
    )
    .await;
    assert_eq!(get(b.front_addr, "/api/v1/tasks/5").await.0, 404);
    b.shutdown().await;
}

#[tokio::test]
async fn a_skewed_clock_and_a_full_disk() {
    let b = backend::start(settings()).await.unwrap();
    set_faults(
        &b,
        json!([{"knob": "clock_skew", "value": -7200}, {"knob": "disk_full"}]),
    )
    .await;
    let token = login(&b, 2).await;
    let me = async || {
        call(b.front_addr, "GET", "/api/v1/auth/me", &token, &Value::Null)
            .await
            .0
    };
    assert_eq!(me().await, 200, "the same clock signs and verifies");
    let blob = async |token: &str| {
        call(b.front_addr, "PUT", "/blobs/a", token, &json!({"x": 1}))
            .await
            .0
    };
    assert_eq!(blob(&token).await, 507);
    assert!(
        b.metrics()
            .contains(r#"fault_active{knob="disk_full",target=""} 1"#)
    );
    set_faults(&b, json!([])).await;
    assert_eq!(me().await, 401, "by the true clock the token has expired");
    let token = login(&b, 2).await;
    assert_eq!(blob(&token).await, 201);
    assert!(
        b.metrics()
            .contains(r#"fault_active{knob="disk_full",target=""} 0"#)
    );
    b.shutdown().await;
}

#[tokio::test]
async fn a_schedule_file_is_in_force_from_the_start_and_its_errors_have_a_place() {
    let dir = std::env::temp_dir().join(format!("refbackend-schedule-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("faults.json");
    let start = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        backend::start(Settings {
            faults_file: Some(file.clone()),
            ..settings()
        })
        .await
    };
    let b = start(r#"{"faults":[{"knob":"error","target":"product","status":503}]}"#)
        .await
        .unwrap();
    assert_eq!(get(b.front_addr, "/api/products/1").await.0, 503);
    b.shutdown().await;
    let error = start("{\"faults\":[\n  {\"knop\":1}]}")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("faults.json:2:9") && error.contains("{\"knop\":1}"),
        "{error}"
    );
    let error = start(r#"{"faults":[{"knob":"eror"}]}"#)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("did you mean `error`"), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// An OTLP receiver that keeps what it gets.
#[derive(Clone, Default)]
struct Receiver(
    std::sync::Arc<std::sync::Mutex<Vec<(String, Span)>>>,
    std::sync::Arc<std::sync::Mutex<Vec<(String, LogRecord)>>>,
);

fn service_of(resource: Option<Resource>) -> String {
    let attributes = resource.unwrap_or_default().attributes;
    let name = attributes.iter().find(|a| a.key == "service.name");
    format!("{:?}", name.and_then(|a| a.value.clone()))
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        for group in request.into_inner().resource_logs {
            let name = service_of(group.resource);
            let records = group.scope_logs.into_iter().flat_map(|s| s.log_records);
            self.1
                .lock()
                .unwrap()
                .extend(records.map(|r| (name.clone(), r)));
        }
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for group in request.into_inner().resource_spans {
            let name = service_of(group.resource);
            let spans = group.scope_spans.into_iter().flat_map(|s| s.spans);
            self.0
                .lock()
                .unwrap()
                .extend(spans.map(|s| (name.clone(), s)));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Serves OTLP into `receiver`; its endpoint.
async fn receive(receiver: Receiver) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(receiver.clone()))
        .add_service(LogsServiceServer::new(receiver))
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    tokio::spawn(server);
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_crosses_every_hop_and_no_span_is_lost() {
    let receiver = Receiver::default();
    let endpoint = receive(receiver.clone()).await;
    let b = backend::start(Settings {
        otlp_endpoint: Some(endpoint),
        ..settings()
    })
    .await
    .unwrap();
    let token = login(&b, 2).await;
    let order = json!({"items": [{"productId": 9}]});
    assert_eq!(
        call(b.front_addr, "POST", "/api/orders", &token, &order)
            .await
            .0,
        201
    );
    for i in 0..500 {
        get(b.front_addr, &format!("/api/products/{i}")).await;
    }
    wait_for(&b, "/admin/state", |s| s["queue"]["acked"] == 5).await;
    let (status, flushed) = call(b.admin_addr, "POST", "/admin/flush", "", &Value::Null).await;
    assert_eq!(
        (status, &flushed["spans"]["failed"]),
        (200, &json!(0)),
        "{flushed}"
    );
    assert_eq!(flushed["spans"]["begun"], flushed["spans"]["exported"]);
    let spans = receiver.0.lock().unwrap().clone();
    let of = |service: &str| {
        spans
            .iter()
            .filter(|(s, _)| s.contains(&format!("\"{service}\"")))
            .map(|(_, s)| s)
            .collect::<Vec<_>>()
    };
    let server = |s: &&&Span| s.kind == SpanKind::Server as i32;
    assert_eq!(of("gateway").iter().filter(server).count(), 502);
    assert_eq!(
        of("product").iter().filter(server).count(),
        501,
        "500 reads and one gRPC check"
    );
    let begin = of("gateway")
        .into_iter()
        .find(|s| s.name == "POST /api/orders")
        .unwrap()
        .clone();
    for service in [
        "gateway",
        "order",
        "product",
        "payment",
        "notification",
        "worker",
    ] {
        assert!(
            of(service).iter().any(|s| s.trace_id == begin.trace_id),
            "{service} is in the order's trace"
        );
    }
    let consumers = spans
        .iter()
        .filter(|(_, s)| s.kind == SpanKind::Consumer as i32);
    assert!(consumers.clone().count() == 5 && consumers.clone().all(|(_, s)| s.links.len() == 1));
    // Each of the 502 requests left one line of the gateway, in its own span's trace.
    let logs = receiver.1.lock().unwrap().clone();
    assert_eq!(flushed["logs"]["emitted"], flushed["logs"]["exported"]);
    let lines: Vec<_> = logs
        .iter()
        .filter(|(s, l)| s.contains("\"gateway\"") && !l.trace_id.is_empty())
        .map(|(_, l)| l)
        .collect();
    assert_eq!(lines.len(), 502);
    let order = lines.iter().find(|l| l.trace_id == begin.trace_id).unwrap();
    assert!(
        of("gateway")
            .iter()
            .any(|s| s.span_id == order.span_id && s.kind == SpanKind::Server as i32),
        "the line belongs to the request's own span"
    );
    assert_eq!(order.severity_text, "INFO");
    assert!(
        format!("{:?}", order.body).contains("POST /api/orders 201"),
        "{order:?}"
    );
    b.shutdown().await;
}
