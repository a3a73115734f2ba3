//! Tests of the page's text: what must be in it, what must never be, and how large it gets.

use std::collections::BTreeMap;

use super::{Page, page};
use crate::compare::{Change, Verdict};
use crate::explain::{Chosen, Line, Observed, What, explain};
use crate::gate::Check;
use crate::report::{Report, RouteSecond, sample};
use model::Labels;
use model::span::{Span, SpanId, TraceId};

fn render(
    report: &Report,
    checks: &[Check],
    changes: &[Change],
    seen: Option<&Observed>,
) -> String {
    let why = explain(report, seen);
    page(&Page {
        report,
        checks,
        changes,
        seen,
        why: &why,
    })
}

fn seen() -> Observed {
    let line = |what, labels: &[(&str, &str)], v: f64| Line {
        what,
        labels: Labels::from_pairs(labels.iter().copied()),
        values: vec![v; 10],
    };
    let span = |id: u8, parent: u8, name: &str, start: u64, end: u64| Span {
        trace_id: TraceId([7; 16]),
        span_id: SpanId([id; 8]),
        parent_id: SpanId([parent; 8]),
        service: "shop".into(),
        name: name.into(),
        start_ns: start,
        end_ns: end,
        ..Span::default()
    };
    Observed {
        url: "http://127.0.0.1:9909".into(),
        step_s: 1.0,
        lines: vec![
            line(
                What::ServiceRate,
                &[("service_name", "<img src=x onerror=alert(1)>")],
                50.0,
            ),
            line(
                What::Utilization,
                &[("kind", "cpu"), ("resource", "cpu")],
                0.4,
            ),
        ],
        traces: vec![vec![
            span(1, 0, "GET /cart", 0, 100_000_000),
            span(2, 1, "SELECT <b>", 10_000_000, 90_000_000),
        ]],
        chosen: Chosen {
            slow: vec![TraceId([7; 16])],
            ..Chosen::default()
        },
        ..Observed::default()
    }
}

#[test]
fn everything_of_the_run_is_there() {
    let report = sample();
    let checks = [
        Check::new("p95<200ms", false, "950.27 ms"),
        Check::new("error_rate<5%", true, "2 %"),
    ];
    let change = Change {
        route: None,
        baselines: 3,
        paired: false,
        metric: "p95",
        before_us: 2000.0,
        after_us: 2200.0,
        change: 0.1,
        interval: (0.05, 0.15),
        p: 0.001,
        verdict: Verdict::Worse,
    };
    let html = render(&report, &checks, &[change], Some(&seen()));
    for part in [
        "1 of 2 rules broken",
        "950.27 ms",
        "http://127.0.0.1:8080",
        "run-1",
        "<code>503</code> 10",
        "refused",
        "+10.0 %",
        "Against the mean of 3 baselines",
        "GET /a&lt;b",
        "What the server did",
        "SELECT &lt;b&gt;",
        "nines traces 0707",
        "id=\"seconds\"",
        "prefers-color-scheme",
    ] {
        assert!(html.contains(part), "{part} is missing");
    }
    let table = html.split("id=\"seconds\"").nth(1).unwrap();
    let table = table.split("</table>").next().unwrap();
    let rows = table.matches("<tr><td").count();
    assert_eq!(rows, 10);
}

#[test]
fn names_from_outside_cannot_become_markup_or_script() {
    let mut report = sample();
    let evil = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u{202e}";
    let route = report.routes.values().next().unwrap().clone();
    report.routes = BTreeMap::from([(evil.to_owned(), route)]);
    report.run_id = evil.into();
    report.scenario = evil.into();
    report.target = evil.into();
    report.reasons = vec![evil.into()];
    for s in &mut report.per_second {
        s.error_kinds = BTreeMap::from([(evil.to_owned(), 1)]);
    }
    report.errors = BTreeMap::from([(evil.to_owned(), 10)]);
    let checks = [Check::new(evil, false, evil)];
    let mut seen = seen();
    seen.url = evil.into();
    seen.problems = vec![evil.into()];
    seen.traces[0][1].name = evil.into();
    let html = render(&report, &checks, &[], Some(&seen));
    assert_eq!(html.matches("<script").count(), 2, "only our own");
    assert_eq!(html.matches("</script>").count(), 2);
    assert!(!html.contains("<img") && !html.contains('\u{202e}'));
}

#[test]
fn it_asks_for_nothing_from_the_network() {
    let html = render(&sample(), &[], &[], Some(&seen()));
    for part in [
        "src=\"http",
        "href=\"http",
        "url(",
        "@import",
        "fetch(",
        "XMLHttpRequest",
        "<link rel=\"stylesheet",
    ] {
        assert!(!html.contains(part), "{part}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn an_hour_with_many_routes_and_services_stays_below_a_megabyte() {
    let mut report = sample();
    let second = report.per_second[0].clone();
    let route = report.routes.values().next().unwrap().clone();
    report.routes = (0..64)
        .map(|i| {
            (
                format!("GET /some/longer/route/name/{i}/{{id}}"),
                route.clone(),
            )
        })
        .collect();
    report.per_second = (0..3600_u32)
        .map(|i| {
            let mut s = second.clone();
            s.at_s = f64::from(i);
            s.latency.p99 = 900_000 + u64::from(i.wrapping_mul(7919) % 90_000_u32);
            s.latency.p95 = 400_000 + u64::from(i.wrapping_mul(104_729) % 90_000_u32);
            s.routes = vec![
                RouteSecond {
                    count: 3,
                    p50: 1,
                    p95: 1000 + u64::from(i % 977),
                    p99: 3
                };
                64
            ];
            s
        })
        .collect();
    report.duration_s = 3600.0;
    let mut seen = seen();
    seen.step_s = 6.0;
    seen.lines = (0..40)
        .flat_map(|i| {
            let labels = Labels::from_pairs([
                ("service_name", format!("service-{i}")),
                ("kind", "db_pool".to_owned()),
                ("resource", format!("pool-{i}")),
            ]);
            let values: Vec<f64> = (0..600)
                .map(|t| f64::from((t * 31 + i * 17) % 100) / 100.0)
                .collect();
            [
                What::ServiceRate,
                What::ServiceP99,
                What::ServiceErrors,
                What::Utilization,
                What::ProcessCpu,
                What::CacheHits,
            ]
            .map(|what| Line {
                what,
                labels: labels.clone(),
                values: values.clone(),
            })
        })
        .collect();
    let html = render(&report, &[], &[], Some(&seen));
    assert!(html.len() < 1_000_000, "{} bytes", html.len());
    assert!(html.contains("joins 12 seconds"));
    assert!(html.len() > 100_000, "the charts are there");
}

#[test]
fn a_run_without_any_answer_has_a_page() {
    let mut report = sample();
    report.latency.reset();
    report.service_time.reset();
    report.responses = 0;
    report.valid = false;
    report.status.clear();
    report.routes.clear();
    for s in &mut report.per_second {
        s.latency = crate::report::Quantiles::default();
        s.responses = 0;
        s.status.clear();
    }
    let html = render(&report, &[], &[], None);
    assert!(html.contains("Invalid run") && html.contains("no answers"));
    report.per_second.clear();
    assert!(render(&report, &[], &[], None).contains("Invalid run"));
}
