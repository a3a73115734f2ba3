//! Telemetry of a real OpenTelemetry SDK (Python), over gRPC and over HTTP, gzipped, counted exactly.
//!
//! Owns what is expected of `tests/otel/send.py`. Must not know how OTLP is read.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use client::Client;
use model::span::{SpanId, SpanStatus, TraceId};
use tokio::runtime::Runtime;

use super::running::{Agent, nines, stderr, stdout};

/// Traces that the script sends over each transport.
const TRACES: u32 = 100;

/// Where a started agent takes OTLP, gRPC and HTTP, as `host:port`. Reads its next line.
pub fn otlp_addresses(agent: &Agent) -> (String, String) {
    let line = agent.line();
    let after = |name: &str| {
        let at = line
            .find(name)
            .unwrap_or_else(|| panic!("no {name:?} in {line:?}"));
        let rest = &line[at + name.len()..];
        rest.split([',', ';'])
            .next()
            .unwrap_or(rest)
            .trim()
            .to_owned()
    };
    (after("gRPC "), after("HTTP "))
}

/// Runs the script and returns what it says it has sent.
fn send(transport: &str, address: &str) -> serde_json::Value {
    let python = std::env::var("NINES_TEST_PYTHON").expect("NINES_TEST_PYTHON names a python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otel/send.py");
    let output = Command::new(python)
        .arg(script)
        .args([transport, &format!("http://{address}"), &TRACES.to_string()])
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{transport}: {}", stderr(&output));
    // The SDK logs what it retries or drops; a good run is silent.
    assert_eq!(stderr(&output), "", "{transport}");
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// The one number that a query gives now.
fn number(runtime: &Runtime, client: &Client, query: &str) -> f64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970");
    let data = runtime
        .block_on(client.query(
            query,
            i64::try_from(now.as_millis()).expect("the time fits"),
        ))
        .unwrap_or_else(|e| panic!("{query}: {e}"));
    data.first_float()
        .unwrap_or_else(|| panic!("{query}: {data:?}"))
}

fn metrics_are_exact(runtime: &Runtime, client: &Client, transport: &str) {
    let n = f64::from(TRACES);
    let calls = format!("traces_span_metrics_calls_total{{service_name=\"shop-{transport}\"");
    let stock = calls.replace("shop-", "stock-");
    let job = format!("{{job=\"shop-{transport}\",kind=\"book\"}}");
    let sum_of_ramp = n * (n + 1.0) / 2.0;
    let expected = [
        (format!("sum({calls}}})"), 2.0 * n),
        (
            format!(
                "sum({calls},span_kind=\"SPAN_KIND_SERVER\",http_response_status_code=\"200\"}})"
            ),
            n - 1.0,
        ),
        (format!("sum({stock}}})"), n),
        (
            format!("sum({stock},status_code=\"STATUS_CODE_ERROR\"}})"),
            1.0,
        ),
        (
            format!(
                "sum(traces_service_graph_request_total{{client=\"shop-{transport}\",server=\"stock-{transport}\"}})"
            ),
            n,
        ),
        (format!("shop_orders_total{job}"), 2.0 * n),
        (format!("shop_took_seconds_count{job}"), n),
        (
            format!(
                "shop_took_seconds_bucket{{job=\"shop-{transport}\",kind=\"book\",le=\"+Inf\"}}"
            ),
            n,
        ),
        (format!("shop_took_seconds_sum{job}"), 0.01 * sum_of_ramp),
        (format!("histogram_count(stock_wait_seconds{job})"), n),
        (
            format!("histogram_sum(stock_wait_seconds{job})"),
            0.001 * sum_of_ramp,
        ),
    ];
    for (query, value) in expected {
        let got = number(runtime, client, &query);
        assert!((got - value).abs() < 1e-9 * value, "{query}: {got}");
    }
}

fn traces_are_found(
    runtime: &Runtime,
    client: &Client,
    url: &str,
    transport: &str,
    sent: &serde_json::Value,
) {
    let ids: Vec<&str> = sent["traces"]
        .as_array()
        .expect("ids")
        .iter()
        .filter_map(|id| id.as_str())
        .collect();
    assert_eq!(ids.len(), TRACES as usize);
    for id in &ids {
        let trace = TraceId::from_hex(id).expect("a trace id");
        let spans = runtime
            .block_on(client.trace(trace))
            .expect("the trace is kept");
        assert_eq!(spans.len(), 3, "{id}: {spans:?}");
        let by_name = |name: &str| {
            spans
                .iter()
                .find(|s| s.name == name)
                .expect("a span of that name")
        };
        let root = by_name("POST /orders");
        let (call, last) = (by_name("POST"), by_name("POST /reserve"));
        assert_eq!(root.parent_id, SpanId([0; 8]));
        assert_eq!(call.parent_id, root.span_id);
        assert_eq!(last.parent_id, call.span_id);
        assert_eq!(root.service, format!("shop-{transport}"));
        assert_eq!(last.service, format!("stock-{transport}"));
        let failed = sent["failed"] == **id;
        assert_eq!(last.status == SpanStatus::Error, failed, "{id}");
        assert_eq!(last.status_message, if failed { "no stock" } else { "" });
    }
    let failed = sent["failed"].as_str().expect("the id that failed");
    let shown = nines(&["traces", failed, "--url", url]);
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    for name in ["POST /orders", "POST /reserve", "error"] {
        assert!(stdout(&shown).contains(name), "{}", stdout(&shown));
    }
    let service = format!("stock-{transport}");
    let listed = nines(&["traces", "--errors", "--service", &service, "--url", url]);
    let text = stdout(&listed);
    assert!(text.contains(failed), "{text}{}", stderr(&listed));
    let others = ids.iter().filter(|id| text.contains(**id)).count();
    assert_eq!(others, 1, "only one trace failed: {text}");
}

#[test]
#[ignore = "needs the OpenTelemetry SDK for Python"]
fn otel_sdk_over_grpc_and_http_is_counted_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]);
    let (grpc, http) = otlp_addresses(&agent);
    let runtime = Runtime::new().unwrap();
    let client = Client::new(agent.url.clone());
    for (transport, address) in [("grpc", grpc), ("http", http)] {
        let sent = send(transport, &address);
        runtime.block_on(client.flush()).unwrap();

        metrics_are_exact(&runtime, &client, transport);
        traces_are_found(&runtime, &client, &agent.url, transport, &sent);
    }
}

#[test]
fn own_spans_of_an_agent_are_found_where_it_sends_them() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let receiver = Agent::start(there.path(), &[]);
    let (grpc, _) = otlp_addresses(&receiver);
    let config = here.path().join("agent.yaml");
    std::fs::write(&config, format!("own_spans: http://{grpc}\n")).unwrap();
    let agent = Agent::start(here.path(), &["--config", config.to_str().unwrap()]);
    let asked = nines(&["query", "vector(1)", "--url", &agent.url]);
    assert_eq!(asked.status.code(), Some(0), "{}", stderr(&asked));
    agent.stop();
    let client = Client::new(receiver.url.clone());
    Runtime::new().unwrap().block_on(client.flush()).unwrap();
    let url = receiver.url.as_str();
    let found = nines(&["traces", "--service", "nines-agent", "--url", url]);
    let text = stdout(&found);
    assert!(
        text.lines()
            .any(|l| l.contains("nines-agent") && l.contains("query")),
        "{text}{}",
        stderr(&found)
    );
}
