//! Tests of the whole explanation on made-up runs: each fault leaves the marks that it leaves on a real system.

use std::collections::BTreeMap;

use model::Labels;
use model::span::{Span, SpanId, SpanKind, SpanStatus, TraceId, TraceSummary};

use super::tail::choose;
use super::{Kind, Line, Observed, What, explain};
use crate::report::{Quantiles, Report, Second, sample};
use crate::stats::histogram;

const MS: u64 = 1_000_000;
/// Seconds 4 to 7 of 12 are bad.
const BAD: std::ops::Range<u32> = 4..8;

/// 12 seconds of 100 requests, slow or not, with or without failures.
fn run(p95: impl Fn(bool) -> u64, failed: impl Fn(bool) -> u64) -> Report {
    let mut report = sample();
    report.errors.clear();
    report.status = BTreeMap::from([(200, 1200)]);
    (report.planned, report.requests, report.responses) = (1200, 1200, 1200);
    report.duration_s = 12.0;
    report.started_ms = 0;
    for h in [
        &mut report.latency,
        &mut report.service_time,
        &mut report.failure_time,
    ] {
        *h = histogram();
    }
    report.per_second = (0..12)
        .map(|i| {
            let bad = BAD.contains(&i);
            let us = p95(bad);
            let q = Quantiles {
                count: 100,
                min: us / 2,
                max: us * 2,
                mean: us as f64,
                p25: us / 2,
                p50: us / 2,
                p75: us / 2,
                p90: us,
                p95: us,
                p99: us,
                p999: us,
            };
            let status = BTreeMap::from([(200, 100 - failed(bad)), (500, failed(bad))]);
            Second {
                at_s: f64::from(i),
                length_s: 1.0,
                offered: 100.0,
                sent: 100,
                responses: 100,
                latency: q,
                first_byte: q,
                status,
                ..Second::default()
            }
        })
        .collect();
    for s in &report.per_second {
        report.latency.record_n(s.latency.p95, 100).unwrap();
        report.service_time.record_n(s.latency.p95, 100).unwrap();
        report
            .phases
            .first_byte
            .record_n(s.latency.p95, 100)
            .unwrap();
    }
    report
}

fn slow_run() -> Report {
    run(|bad| if bad { 400_000 } else { 20_000 }, |_| 0)
}

fn line(what: What, labels: &[(&str, &str)], good: f64, bad: f64) -> Line {
    let values = (0..12)
        .map(|i| if BAD.contains(&i) { bad } else { good })
        .collect();
    Line {
        what,
        labels: Labels::from_pairs(labels.iter().copied()),
        values,
    }
}

/// gateway -> product -> the last span, which takes this long; the product's own time is 2 ms and the gateway's 1.
fn trace(id: u8, start: u64, last: SpanKind, attributes: &[(&str, &str)], takes: u64) -> Vec<Span> {
    let span = |n: u8, parent: u8, service: &str, name: &str, kind, from: u64, to: u64| Span {
        trace_id: TraceId([id; 16]),
        span_id: SpanId([n; 8]),
        parent_id: SpanId([parent; 8]),
        service: service.into(),
        name: name.into(),
        kind,
        start_ns: start + from,
        end_ns: start + to,
        ..Span::default()
    };
    let mut leaf = span(
        4,
        3,
        "product",
        "SELECT items",
        last,
        2 * MS,
        2 * MS + takes,
    );
    leaf.attributes = attributes
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    vec![
        span(
            1,
            9,
            "gateway",
            "GET /items",
            SpanKind::Server,
            0,
            takes + 4 * MS,
        ),
        span(
            2,
            1,
            "gateway",
            "GET /items",
            SpanKind::Client,
            MS / 2,
            takes + 3 * MS + MS / 2,
        ),
        span(
            3,
            2,
            "product",
            "GET /items",
            SpanKind::Server,
            MS,
            takes + 3 * MS,
        ),
        leaf,
    ]
}

fn summary(spans: &[Span]) -> TraceSummary {
    TraceSummary {
        trace_id: spans[0].trace_id,
        root_service: spans[0].service.clone(),
        root_name: spans[0].name.clone(),
        start_ns: spans[0].start_ns,
        duration_ns: spans[0].duration_ns(),
        status_code: 200,
        ..TraceSummary::default()
    }
}

/// What an agent saw when the last span took 5 ms, and in the bad seconds as long as `slow` says for each of ten.
fn seen(
    kind: SpanKind,
    attributes: &[(&str, &str)],
    slow: impl Fn(u64) -> (u64, u64),
    lines: Vec<Line>,
) -> Observed {
    let good = (0..40).map(|i| {
        trace(
            i,
            u64::from(i) * 50 * MS,
            kind,
            attributes,
            5 * MS + u64::from(i),
        )
    });
    let bad = (0..20).map(|i| {
        let (start, takes) = slow(u64::from(i));
        trace(100 + i, start, kind, attributes, takes)
    });
    let traces: Vec<Vec<Span>> = good.chain(bad).collect();
    let sample: Vec<TraceSummary> = traces.iter().map(|t| summary(t)).collect();
    let chosen = choose(&sample, &[], &[], |start| start < 4_000 * MS);
    Observed {
        url: "http://agent".into(),
        step_s: 1.0,
        lines,
        sample,
        traces,
        chosen,
        ..Observed::default()
    }
}

const DB: [(&str, &str); 1] = [("db.system.name", "postgresql")];

fn slow_in_bad(i: u64) -> (u64, u64) {
    (4_000 * MS + i * 150 * MS, 380 * MS + i * MS)
}

#[test]
fn slow_statements_are_named_with_their_numbers_and_a_trace() {
    let pool =
        |label: (&'static str, &'static str), what, good, bad| line(what, &[label], good, bad);
    let lines = vec![
        line(
            What::Saturation,
            &[
                ("kind", "db_pool"),
                ("resource", "main"),
                ("unit", "waiters"),
            ],
            0.0,
            9.0,
        ),
        pool(("pool", "main"), What::PoolMax, 10.0, 10.0),
        pool(("pool", "main"), What::PoolInUse, 0.5, 10.0),
        line(
            What::EdgeRate,
            &[
                ("client", "product"),
                ("server", "postgresql"),
                ("connection_type", "database"),
            ],
            100.0,
            25.0,
        ),
    ];
    let seen = seen(SpanKind::Client, &DB, slow_in_bad, lines);
    let why = explain(&slow_run(), Some(&seen));
    let first = &why.causes[0];
    assert_eq!(
        (first.kind, first.subject.as_str()),
        (Kind::Database, "postgresql"),
        "{}",
        why.text()
    );
    assert!(
        first.headline.contains("5.0 ms typically"),
        "{}",
        first.headline
    );
    // 10 connections for 25 calls a second: 400 ms each, not 5.
    assert!(
        first
            .evidence
            .iter()
            .any(|e| e.contains("9.0 requests wait")),
        "{:?}",
        first.evidence
    );
    assert!(
        first
            .open(Some("http://agent"))
            .unwrap()
            .starts_with("nines traces ")
    );
    assert_eq!(why.symptom.stretch, Some((4.0, 8.0)));
    assert!(
        why.text()
            .contains("from second 4 to 8: p95 400 ms, 20.0 ms otherwise"),
        "{}",
        why.text()
    );
}

#[test]
fn a_pool_that_is_too_small_is_told_from_slow_statements() {
    let lines = vec![
        line(
            What::Saturation,
            &[
                ("kind", "db_pool"),
                ("resource", "main"),
                ("unit", "waiters"),
            ],
            0.0,
            30.0,
        ),
        line(What::PoolMax, &[("pool", "main")], 10.0, 1.0),
        line(What::PoolInUse, &[("pool", "main")], 0.5, 1.0),
        line(
            What::EdgeRate,
            &[
                ("client", "product"),
                ("server", "postgresql"),
                ("connection_type", "database"),
            ],
            100.0,
            95.0,
        ),
    ];
    let why = explain(
        &slow_run(),
        Some(&seen(SpanKind::Client, &DB, slow_in_bad, lines)),
    );
    assert_eq!(
        (why.causes[0].kind, why.causes[0].subject.as_str()),
        (Kind::Pool, "main"),
        "{}",
        why.text()
    );
    assert!(
        why.text().contains("at most 1 of its 10 connections"),
        "{}",
        why.text()
    );
}

#[test]
fn waits_that_end_together_are_a_pause() {
    // Twenty requests that began over 380 ms all went on at 4.5 s.
    let together = |i: u64| (4_000 * MS + i * 20 * MS, 500 * MS - i * 20 * MS);
    let why = explain(
        &slow_run(),
        Some(&seen(SpanKind::Internal, &[], together, Vec::new())),
    );
    assert_eq!(
        (why.causes[0].kind, why.causes[0].subject.as_str()),
        (Kind::Pause, "product"),
        "{}",
        why.text()
    );
    let apart = explain(
        &slow_run(),
        Some(&seen(SpanKind::Internal, &[], slow_in_bad, Vec::new())),
    );
    assert_eq!(apart.causes[0].kind, Kind::Service, "{}", apart.text());
}

#[test]
fn a_process_that_burns_is_named_before_the_service_that_waits() {
    let lines = vec![
        line(What::ProcessCpu, &[("job", "shop")], 0.2, 1.6),
        line(
            What::Utilization,
            &[("kind", "cpu"), ("resource", "cpu"), ("instance", "h")],
            0.3,
            0.98,
        ),
    ];
    let why = explain(
        &slow_run(),
        Some(&seen(SpanKind::Internal, &[], slow_in_bad, lines.clone())),
    );
    assert_eq!(
        (why.causes[0].kind, why.causes[0].subject.as_str()),
        (Kind::Cpu, "shop"),
        "{}",
        why.text()
    );
    assert!(
        why.causes[0]
            .headline
            .contains("1.60 cores in the bad seconds (0.20 otherwise), from second 4"),
        "{}",
        why.text()
    );
    // A busy machine does not take the blame for a slow third party.
    let third = seen(
        SpanKind::Client,
        &[("peer.service", "bank")],
        slow_in_bad,
        lines,
    );
    let why = explain(&slow_run(), Some(&third));
    assert_eq!(
        (why.causes[0].kind, why.causes[0].subject.as_str()),
        (Kind::Dependency, "bank"),
        "{}",
        why.text()
    );
}

#[test]
fn waits_for_a_disk_do_not_come_before_what_is_used_up() {
    let of = |kind: &'static str, resource: &'static str, unit: &'static str| {
        let labels = [("kind", kind), ("resource", resource), ("unit", unit)];
        move |good, bad| line(What::Saturation, &labels, good, bad)
    };
    let (io, queue) = (
        of("io", "io", "psi_some_ratio"),
        of("queue", "emails", "messages"),
    );
    let cpu = |good, bad| {
        let labels = [("kind", "cpu"), ("resource", "cpu"), ("instance", "h")];
        line(What::Utilization, &labels, good, bad)
    };
    let bank = [("peer.service", "bank")];
    let kinds = |lines: Vec<Line>| -> Vec<Kind> {
        let seen = seen(SpanKind::Client, &bank, slow_in_bad, lines);
        let causes = explain(&slow_run(), Some(&seen)).causes;
        let resources = [Kind::Io, Kind::Cpu, Kind::Queue];
        let kinds = causes.iter().map(|c| c.kind);
        kinds.filter(|k| resources.contains(k)).collect()
    };
    assert_eq!(
        kinds(vec![io(0.02, 0.45), cpu(0.3, 0.98)]),
        [Kind::Cpu, Kind::Io]
    );
    assert_eq!(
        kinds(vec![io(0.02, 0.45), queue(0.0, 900.0)]),
        [Kind::Queue, Kind::Io]
    );
    // No more than before: not named. All the time, and not before: the disk may be the cause.
    assert_eq!(kinds(vec![io(0.4, 0.45), cpu(0.3, 0.98)]), [Kind::Cpu]);
    assert_eq!(
        kinds(vec![io(0.02, 0.95), queue(0.0, 900.0)]),
        [Kind::Io, Kind::Queue]
    );
}

#[test]
fn parts_that_slow_down_all_at_once_point_to_the_processor() {
    let lines = vec![line(
        What::Utilization,
        &[("kind", "cpu"), ("resource", "cpu"), ("instance", "h")],
        0.97,
        0.99,
    )];
    let mut seen = seen(SpanKind::Client, &DB, slow_in_bad, lines);
    for spans in &mut seen.traces {
        // A third of the time each: the database, a cache beside it, the product's own.
        let (from, to) = (spans[3].start_ns, spans[3].end_ns);
        let third = (to - from) / 3;
        let mut cache = spans[3].clone();
        cache.span_id = SpanId([5; 8]);
        cache.attributes = vec![("db.system.name".into(), "redis".into())];
        (cache.start_ns, cache.end_ns) = (from + third, from + 2 * third);
        spans[3].end_ns = from + third;
        spans.push(cache);
    }
    let why = explain(&slow_run(), Some(&seen));
    assert_eq!(why.causes[0].kind, Kind::Cpu, "{}", why.text());
    assert!(
        why.text().contains("unrelated parts slow down at once"),
        "{}",
        why.text()
    );
}

#[test]
fn time_between_caller_and_callee_is_the_hop() {
    let mut seen = seen(SpanKind::Internal, &[], slow_in_bad, Vec::new());
    for spans in seen
        .traces
        .iter_mut()
        .filter(|t| t[0].duration_ns() > 100 * MS)
    {
        // The callee begins late and has little to do.
        spans[2].start_ns = spans[2].end_ns - 3 * MS;
        spans[3].start_ns = spans[2].start_ns;
        spans[3].end_ns = spans[2].start_ns + MS;
    }
    let why = explain(&slow_run(), Some(&seen));
    assert_eq!(
        (why.causes[0].kind, why.causes[0].subject.as_str()),
        (Kind::Hop, "gateway -> product"),
        "{}",
        why.text()
    );
}

#[test]
fn errors_are_traced_to_the_service_that_failed_first() {
    let mut report = run(|_| 20_000, |bad| if bad { 40 } else { 0 });
    report.status = BTreeMap::from([(200, 1040), (500, 160)]);
    let mut seen = seen(
        SpanKind::Internal,
        &[],
        |i| (i * 10 * MS, 5 * MS),
        Vec::new(),
    );
    let mut failed = trace(250, 4_100 * MS, SpanKind::Internal, &[], 5 * MS);
    failed[..3]
        .iter_mut()
        .for_each(|s| s.status = SpanStatus::Error);
    failed[2].attributes = vec![("error.type".into(), "Boom".into())];
    seen.chosen.failed = vec![failed[0].trace_id];
    seen.traces.push(failed);
    let why = explain(&report, Some(&seen));
    let first = &why.causes[0];
    assert_eq!(
        (first.kind, first.subject.as_str()),
        (Kind::Errors, "product"),
        "{}",
        why.text()
    );
    assert!(first.evidence[0].contains("Boom"), "{:?}", first.evidence);
    assert_eq!(
        why.causes.iter().filter(|c| c.kind == Kind::Errors).count(),
        1
    );
}

#[test]
fn a_cache_that_is_gone_is_named_though_the_answers_are_good() {
    let edge = [
        ("client", "product"),
        ("server", "redis"),
        ("connection_type", "database"),
    ];
    let lines = vec![
        line(What::EdgeRate, &edge, 90.0, 90.0),
        line(What::EdgeFailed, &edge, 0.0, 90.0),
        line(What::Circuit, &[("dependency", "cache")], 0.0, 2.0),
    ];
    let report = run(|bad| if bad { 50_000 } else { 20_000 }, |_| 0);
    let why = explain(
        &report,
        Some(&seen(
            SpanKind::Client,
            &DB,
            |i| (4_000 * MS + i * 100 * MS, 40 * MS),
            lines,
        )),
    );
    assert_eq!(why.causes[0].kind, Kind::Cache, "{}", why.text());
    assert!(
        why.text()
            .contains("circuit breaker of cache is open from second 4"),
        "{}",
        why.text()
    );
}

#[test]
fn the_report_alone_tells_the_client_the_limit_and_the_server_apart() {
    let first = |report: &Report| explain(report, None).causes.first().map(|c| c.kind);
    assert_eq!(first(&slow_run()), Some(Kind::Server));
    let steady = run(|_| 20_000, |_| 0);
    assert_eq!(first(&steady), None, "{}", explain(&steady, None).text());
    assert!(
        explain(&steady, None)
            .text()
            .contains("no cause stands out")
    );
    let mut late = run(|_| 20_000, |_| 0);
    late.late_p99_us = 500_000;
    late.latency.record_n(520_000, 30).unwrap();
    assert_eq!(first(&late), Some(Kind::Generator));
    let mut full = run(|_| 20_000, |_| 0);
    full.latency = histogram();
    full.latency.record_n(900_000, 1200).unwrap();
    full.phases.connection.record_n(880_000, 1200).unwrap();
    assert_eq!(first(&full), Some(Kind::Connections));
    // The same wait behind a server that became slower is a consequence.
    let mut behind = slow_run();
    behind.latency = histogram();
    behind.latency.record_n(900_000, 1200).unwrap();
    behind.phases.connection.record_n(500_000, 1200).unwrap();
    assert_ne!(first(&behind), Some(Kind::Connections));
    let mut limited = run(|_| 20_000, |_| 0);
    limited.status = BTreeMap::from([(200, 900), (429, 300)]);
    assert_eq!(first(&limited), Some(Kind::RateLimit));
    let mut gone = run(|_| 20_000, |_| 0);
    gone.errors = BTreeMap::from([("refused".into(), 600)]);
    assert_eq!(first(&gone), Some(Kind::Unreachable));
    let mut ports = run(|_| 20_000, |_| 0);
    ports.errors = BTreeMap::from([("local".into(), 3)]);
    assert_eq!(first(&ports), Some(Kind::Generator));
}

#[test]
fn time_that_no_span_holds_lies_before_the_server() {
    let p99 = |bad: f64| {
        vec![line(
            What::ServiceP99,
            &[("service_name", "gateway")],
            0.015,
            bad,
        )]
    };
    let quick = |i: u64| (4_000 * MS + i * 100 * MS, 5 * MS);
    let seen = |bad| seen(SpanKind::Client, &DB, quick, p99(bad));
    let why = explain(&slow_run(), Some(&seen(0.39)));
    assert!(
        why.causes.iter().all(|c| c.kind != Kind::Outside),
        "{}",
        why.text()
    );
    let seen = seen(0.016);
    let why = explain(&slow_run(), Some(&seen));
    assert_eq!(why.causes[0].kind, Kind::Outside, "{}", why.text());
}

#[test]
fn names_cannot_steer_the_terminal_and_json_has_the_same() {
    let evil = [("peer.service", "bank\x1b[2J")];
    let why = explain(
        &slow_run(),
        Some(&seen(SpanKind::Client, &evil, slow_in_bad, Vec::new())),
    );
    assert!(!why.text().contains('\x1b'));
    let json = why.to_json();
    assert_eq!(json["causes"][0]["kind"], "dependency");
    assert_eq!(json["when"]["from_s"], 4.0);
    assert!(json["growth"][0]["slow_ms"].as_f64().unwrap() > 300.0);
}
