//! Starts agents and builds requests. Owns no test.

use std::io::Write;

use agent::config::{Config, OrOff};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde_json::Value as Json;

/// An agent and its folder.
pub(crate) struct Started {
    pub(crate) agent: agent::Agent,
    pub(crate) http: reqwest::Client,
    dir: tempfile::TempDir,
}

/// A configuration on free ports in `dir`.
pub(crate) fn config(dir: &std::path::Path) -> Config {
    Config {
        listen: "127.0.0.1:0".into(),
        otlp_grpc: OrOff::On("127.0.0.1:0".into()),
        otlp_http: OrOff::On("127.0.0.1:0".into()),
        data_dir: dir.to_owned(),
        self_interval: OrOff::Off,
        ..Config::default()
    }
}

pub(crate) async fn start() -> Started {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Started {
    start_in(tempfile::tempdir().unwrap(), change).await
}

pub(crate) async fn start_in(dir: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Started {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = config(dir.path());
    change(&mut config);
    let agent = agent::start(config).await.unwrap();
    Started {
        agent,
        http: reqwest::Client::new(),
        dir,
    }
}

impl Started {
    pub(crate) fn api(&self, path: &str) -> String {
        format!("http://{}{path}", self.agent.api_addr)
    }

    pub(crate) fn otlp(&self, path: &str) -> String {
        format!("http://{}{path}", self.agent.otlp_http_addr.unwrap())
    }

    pub(crate) fn grpc(&self) -> String {
        format!("http://{}", self.agent.otlp_grpc_addr.unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> Json {
        let response = self.http.get(self.api(path)).send().await.unwrap();
        response.json().await.unwrap()
    }

    pub(crate) async fn flush(&self) {
        let url = self.api("/api/nines/v1/flush");
        let response = self.http.post(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }

    /// The `/metrics` line that begins with `prefix`, its value.
    pub(crate) async fn metric(&self, prefix: &str) -> f64 {
        let url = self.api("/metrics");
        let text = self
            .http
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(prefix));
        line.map_or(0.0, |l| l.trim().parse().unwrap())
    }

    /// Stops the agent and hands back its folder.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        drop(self.http);
        let report = self.agent.shutdown().await;
        assert!(report.clean(), "{report:?}");
        self.dir
    }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

pub(crate) fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub(crate) fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap().as_nanos()).unwrap()
}

/// A server span of 3 ms that ended just now.
pub(crate) fn server_span(trace: u8, id: u8, route: &str, status: i64) -> Span {
    let end = now_ns();
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        name: format!("GET {route}"),
        kind: 2,
        start_time_unix_nano: end - 3_000_000,
        end_time_unix_nano: end,
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", route),
            attribute(
                "http.response.status_code",
                any_value::Value::IntValue(status),
            ),
        ],
        status: Some(Status {
            code: if status >= 500 { 2 } else { 0 },
            ..Status::default()
        }),
        ..Span::default()
    }
}

pub(crate) fn traces(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource(service)),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

pub(crate) fn resource(service: &str) -> Resource {
    Resource {
        attributes: vec![text("service.name", service), text("host.name", "h1")],
        ..Resource::default()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
