//! One dataset, made by arithmetic, on which screens are tested and measured.
//!
//! Owns that data; it looks like a backend with a failing payment path. Must not be shown to users.

mod extra;

use std::collections::BTreeMap;

use model::api::{AlertBody, AlertEvent, SelfStatus};
use model::labels::Labels;
use model::slo::{BurnRate, SloAlert, SloStatus};
use model::span::{Span, SpanEvent, SpanId, SpanStatus, TraceId, TraceSummary};

use crate::app::{App, Event, Link, update};
use crate::data::{Data, Line, LoadRun, Red, Use};
use crate::options::TuiOptions;

/// The instant of the data: 2026-11-20T20:36:26Z.
pub const NOW_MS: i64 = 1_795_206_986_000;
const POINTS: u32 = 120;

fn line(f: impl Fn(f64) -> f64) -> Line {
    (0..POINTS)
        .map(|i| Some(f(f64::from(i) / f64::from(POINTS - 1))))
        .collect()
}

fn red(service: &str, route: &str, v: [f64; 5]) -> Red {
    Red {
        service: service.into(),
        route: route.into(),
        rate: Some(v[0]),
        error_ratio: Some(v[1]),
        p50: Some(v[2] / 1e3),
        p95: Some(v[3] / 1e3),
        p99: Some(v[4] / 1e3),
    }
}

fn resource(
    kind: &str,
    name: &str,
    util: Option<f64>,
    waits: &[(&str, f64)],
    errors: Option<f64>,
) -> Use {
    Use {
        kind: kind.into(),
        resource: name.into(),
        instance: "127.0.0.1:8080".into(),
        utilization: util,
        saturation: waits.iter().map(|(u, v)| ((*u).into(), *v)).collect(),
        errors,
    }
}

fn slo(
    name: &str,
    objective: f64,
    v: [f64; 2],
    burns: [f64; 4],
    empty_in_ms: Option<i64>,
    alert: SloAlert,
) -> SloStatus {
    let burn = ["5m", "1h", "6h", "3d"].into_iter().zip(burns);
    SloStatus {
        name: name.into(),
        description: String::new(),
        objective,
        period: "30d".into(),
        sli: Some(v[0]),
        good: Some(v[0] * 1e6),
        total: Some(1e6),
        budget_left: Some(v[1]),
        burn: burn
            .map(|(w, r)| BurnRate {
                window: w.into(),
                rate: Some(r),
            })
            .collect(),
        empty_in_ms,
        alert,
    }
}

fn alert(
    name: &str,
    severity: &str,
    state: &str,
    since_s: i64,
    value: &str,
    summary: &str,
) -> AlertBody {
    AlertBody {
        labels: Labels::from_pairs([("alertname", name), ("severity", severity)]),
        annotations: BTreeMap::from([("summary".into(), summary.into())]),
        state: state.into(),
        active_at: model::timestamp::format_rfc3339(NOW_MS - since_s * 1000),
        value: value.into(),
        keep_firing_since: None,
    }
}

fn traces() -> Vec<TraceSummary> {
    let roots = [
        ("POST /orders", 412u64, 201u16, 0u32),
        ("GET /products/{id}", 398, 503, 2),
        ("GET /users/{id}/orders", 37, 200, 0),
    ];
    (0u8..12)
        .zip(roots.into_iter().cycle())
        .map(|(i, (name, ms, status, errors))| TraceSummary {
            trace_id: TraceId([i + 1; 16]),
            root_service: "gateway".into(),
            root_name: name.into(),
            start_ns: (NOW_MS as u64 - u64::from(i) * 2_000) * 1_000_000,
            duration_ns: ms * 1_000_000 + u64::from(i) * 137_000,
            spans: 6,
            errors,
            services: vec!["gateway".into(), "order".into()],
            status_code: status,
            route: name.into(),
        })
        .collect()
}

fn spans() -> Vec<Span> {
    let base = NOW_MS as u64 * 1_000_000;
    let rows = [
        (
            1u8,
            0u8,
            "gateway",
            "POST /orders",
            0,
            412,
            SpanStatus::Unset,
        ),
        (2, 1, "gateway", "auth.verify", 2, 20, SpanStatus::Unset),
        (3, 1, "order", "POST /orders", 22, 408, SpanStatus::Unset),
        (
            4,
            3,
            "product",
            "product.Inventory/Reserve",
            24,
            58,
            SpanStatus::Unset,
        ),
        (5, 3, "payment", "POST /charges", 60, 371, SpanStatus::Error),
        (6, 3, "order", "INSERT orders", 372, 406, SpanStatus::Unset),
    ];
    rows.into_iter()
        .map(|(id, parent, service, name, from, to, status)| Span {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([id; 8]),
            parent_id: SpanId([parent; 8]),
            service: service.into(),
            name: name.into(),
            start_ns: base + from * 1_000_000,
            end_ns: base + to * 1_000_000,
            status,
            status_message: match status {
                SpanStatus::Error => "upstream answered 503".into(),
                _ => String::new(),
            },
            events: match status {
                SpanStatus::Error => vec![SpanEvent {
                    time_ns: base + 370 * 1_000_000,
                    name: "exception".into(),
                    attributes: vec![("exception.type".into(), "Unavailable".into())],
                }],
                _ => Vec::new(),
            },
            ..Span::default()
        })
        .collect()
}

/// The dataset.
#[must_use]
pub fn data() -> Data {
    let wave = |x: f64| (x * 40.0).sin();
    let late = |x: f64| if x > 0.7 { (x - 0.7) / 0.3 } else { 0.0 };
    let p99 = move |x: f64| 0.19 + 0.01 * wave(x) + 0.212 * late(x);
    let mut gap = line(|x| 0.088 + 0.004 * wave(x));
    gap[30..40].fill(None);
    let event = |s: i64, kind: &str, name: &str, receiver: &str, detail: &str| AlertEvent {
        t_ms: NOW_MS - s * 1000,
        kind: kind.into(),
        alert: name.into(),
        labels: Labels::empty(),
        receiver: receiver.into(),
        dedup_key: String::new(),
        detail: detail.into(),
    };
    extra::complete(Data {
        t_ms: NOW_MS,
        range_ms: 900_000,
        own: Some(SelfStatus {
            name: "acme-prod".into(),
            version: "0.1.0".into(),
            started_ms: NOW_MS - 7_500_000,
            now_ms: NOW_MS,
            time_scale: 1.0,
            series: 4_321,
            samples: 9_876_543,
            spans: 1_284_000,
            logs: 52_100,
            dropped: BTreeMap::from([("spans.rate_limited".into(), 0)]),
            lag_ms: 400,
            disk_bytes: 73_400_320,
            wal_bytes: 4_194_304,
            queries: 1_024,
            rss_bytes: 88_080_384,
        }),
        p50: Some(0.0081),
        p95: Some(0.096),
        p99: Some(0.412),
        traffic: Some(1_284.0),
        errors: Some(3.5),
        error_ratio: Some(0.0027),
        cache_hit: Some(0.918),
        pool: Some(0.96),
        cpu: Some(0.41),
        memory: Some(0.63),
        p99_line: line(p99),
        traffic_line: line(|x| 1_250.0 + 40.0 * wave(x)),
        error_line: line(|x| 0.002 + 0.0007 * late(x)),
        cache_line: line(|x| 0.959 - 0.041 * late(x)),
        pool_line: line(|x| 0.5 + 0.46 * late(x)),
        service_lines: vec![
            (
                "order".into(),
                line(move |x| 0.35 + 0.35 * late(x) + 0.02 * wave(x)),
            ),
            ("payment".into(), line(|x| 0.24 + 0.02 * wave(x * 1.7))),
            ("product".into(), gap),
        ],
        services: vec![
            red("gateway", "", [1_284.0, 0.0027, 8.1, 96.0, 412.0]),
            red("product", "", [671.0, 0.0001, 7.4, 62.0, 131.0]),
            red("order", "", [212.0, 0.0161, 11.2, 288.0, 706.0]),
            red("payment", "", [212.0, 0.0031, 148.0, 240.0, 1_388.0]),
            Red {
                service: "worker".into(),
                rate: Some(0.0),
                ..Red::default()
            },
        ],
        routes: vec![
            red(
                "gateway",
                "GET /api/v1/products/{id}",
                [890.0, 0.0, 5.2, 41.0, 88.0],
            ),
            red(
                "gateway",
                "POST /api/v1/orders",
                [212.0, 0.0161, 61.0, 288.0, 706.0],
            ),
            red(
                "payment",
                "POST /charges",
                [212.0, 0.0031, 148.0, 240.0, 1_388.0],
            ),
        ],
        resources: vec![
            resource(
                "db_pool",
                "primary",
                Some(0.96),
                &[("waiters", 37.0)],
                Some(0.0),
            ),
            resource(
                "memory",
                "host",
                Some(0.63),
                &[("psi_some_ratio", 0.02)],
                None,
            ),
            resource("cpu", "all", Some(0.41), &[("runnable_waiting", 0.6)], None),
            resource(
                "disk",
                "nvme0n1",
                Some(0.12),
                &[("queued_operations", 1.0)],
                Some(0.0),
            ),
            resource("network", "eth0", None, &[], Some(3.0)),
            resource(
                "queue",
                "orders",
                None,
                &[("messages", 1_204.0), ("dead_letters", 2.0)],
                None,
            ),
        ],
        slos: vec![
            slo(
                "checkout availability",
                0.999,
                [0.99961, 0.612],
                [16.1, 14.9, 3.2, 0.9],
                Some(106_440_000),
                SloAlert::Page,
            ),
            slo(
                "checkout latency < 300ms",
                0.99,
                [0.9944, 0.44],
                [2.4, 2.1, 1.4, 1.0],
                Some(540_000_000),
                SloAlert::Ticket,
            ),
            slo(
                "search availability",
                0.999,
                [0.99992, 0.921],
                [0.2, 0.3, 0.4, 0.5],
                None,
                SloAlert::Ok,
            ),
        ],
        alerts: vec![
            alert(
                "ErrorBudgetBurn",
                "critical",
                "firing",
                252,
                "14.9",
                "checkout availability burns 14.9x over 1h",
            ),
            alert(
                "DbPoolExhausted",
                "critical",
                "firing",
                700,
                "37",
                "pool primary: all in use, 37 wait",
            ),
            alert(
                "P95Warn",
                "warning",
                "pending",
                45,
                "0.512",
                "p95 is 512 ms",
            ),
        ],
        rules: 18,
        events: vec![
            event(
                250,
                "delivered",
                "ErrorBudgetBurn",
                "pagerduty",
                "attempt 1",
            ),
            event(252, "firing", "ErrorBudgetBurn", "", "value 14.9"),
            event(372, "pending", "ErrorBudgetBurn", "", "value 14.5"),
        ],
        loads: vec![LoadRun {
            run_id: "r-20261120-203100".into(),
            scenario: "read-write 90/10".into(),
            target: "http://127.0.0.1:8080".into(),
            offered: Some(1_300.0),
            achieved: Some(1_284.0),
            in_flight: Some(42.0),
            latency: [0.0083, 0.05, 0.099, 0.42, 1.21].map(Some).to_vec(),
            service_time: [0.0081, 0.04, 0.096, 0.39, 0.8].map(Some).to_vec(),
        }],
        offered_line: line(|_| 1_300.0),
        achieved_line: line(|x| 1_300.0 - 60.0 * late(x)),
        load_status: vec![
            ("200".into(), 1_070.0),
            ("201".into(), 210.0),
            ("503".into(), 3.5),
        ],
        load_errors: vec![("timeout".into(), 0.2)],
        load_late: vec![("0.5".into(), 0.0001), ("0.99".into(), 0.0021)],
        traces: traces(),
        spans: spans(),
        ..Data::default()
    })
}

/// A state that shows the dataset.
#[must_use]
pub fn app(options: TuiOptions) -> App {
    let mut app = App::new(options);
    update(&mut app, Event::Tick(NOW_MS));
    update(
        &mut app,
        Event::Answer {
            number: 1,
            now_ms: NOW_MS,
            result: Ok(Box::new(data())),
        },
    );
    debug_assert_eq!(app.link, Link::Up);
    app
}
