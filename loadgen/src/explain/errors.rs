//! Owns where failures come from: the span in which a failed request failed first, and the calls between services that
//! fail though the request is answered. Pure.

use std::collections::BTreeMap;

use model::span::{SpanKind, TraceId};

use super::tail::{Tail, is_cache, names_a_cache, origin, peer};
use super::{Cause, Kind, Observed, Symptom, What, percent};
use crate::report::Report;

/// Causes that are failures.
pub(super) fn causes(
    report: &Report,
    seen: &Observed,
    symptom: &Symptom,
    tail: &Tail<'_>,
) -> Vec<Cause> {
    let mut out = origins(report, tail);
    out.extend(edges(seen, symptom));
    out.extend(breakers(seen, symptom));
    out.extend(limiter(seen, symptom, report));
    out
}

/// Where failed requests failed, when the client saw failures.
fn origins(report: &Report, tail: &Tail<'_>) -> Vec<Cause> {
    let errors: u64 = report
        .status
        .iter()
        .filter(|(c, _)| **c >= 500)
        .map(|(_, n)| n)
        .sum();
    let share = errors as f64 / report.responses.max(1) as f64;
    if share < 0.005 {
        return Vec::new();
    }
    type Seen = (usize, TraceId, String);
    let mut found: BTreeMap<(Kind, String), Seen> = BTreeMap::new();
    let mut all = 0;
    for trace in &tail.failed {
        // A failed span that did not fail the request is told elsewhere.
        let root_failed = trace
            .path
            .root
            .is_some_and(|i| trace.spans[i].status == model::span::SpanStatus::Error);
        let Some(span) = origin(trace).filter(|_| root_failed) else {
            continue;
        };
        all += 1;
        let (kind, subject) = match span.kind {
            SpanKind::Client if is_cache(span) => (Kind::Cache, peer(span)),
            SpanKind::Client if span.attribute("db.system.name").is_some() => {
                (Kind::Database, peer(span))
            }
            SpanKind::Client => (Kind::Dependency, peer(span)),
            _ => (Kind::Errors, span.service.as_str()),
        };
        let says = [
            span.attribute("error.type"),
            span.attribute("http.response.status_code"),
            Some(span.status_message.as_str()),
        ];
        let says = says
            .into_iter()
            .flatten()
            .find(|s| !s.is_empty())
            .unwrap_or("no reason given");
        let entry = found.entry((kind, subject.to_owned())).or_insert_with(|| {
            (
                0,
                span.trace_id,
                format!("{} {}: {says}", span.service, span.name),
            )
        });
        entry.0 += 1;
    }
    let most = found.into_iter().map(|((kind, subject), (n, trace, example))| {
        let part = n as f64 / f64::from(all).max(1.0);
        let headline = format!(
            "{} of the answers are errors, and {n} of {all} failed requests looked at failed first in {subject}",
            percent(share)
        );
        Cause {
            kind,
            subject,
            headline,
            evidence: vec![format!("for example in {example}")],
            weight: part * (0.55 + 0.45 * (share * 4.0).min(1.0)) + 0.01,
            trace: Some(trace),
        }
    });
    most.collect()
}

/// Calls that fail in the bad seconds although they do not otherwise.
fn edges(seen: &Observed, symptom: &Symptom) -> Vec<Cause> {
    let lines = |what: What| seen.lines.iter().filter(move |l| l.what == what);
    let mut out = Vec::new();
    for failed in lines(What::EdgeFailed) {
        let (client, server) = (failed.label("client"), failed.label("server"));
        let Some(rate) = lines(What::EdgeRate)
            .find(|l| (l.label("client"), l.label("server")) == (client, server))
        else {
            continue;
        };
        // The call further down is the nearer cause.
        let deeper = lines(What::EdgeFailed)
            .any(|l| l.label("client") == server && l.values.iter().any(|v| *v > 0.0));
        let of = |values: &[f64]| symptom.split(values, seen.step_s);
        let (f, r) = (of(&failed.values), of(&rate.values));
        let share = |f: Option<f64>, r: Option<f64>| f.unwrap_or(0.0) / r.unwrap_or(0.0).max(1e-9);
        let (bad, good) = (share(f.0, r.0).min(1.0), share(f.1, r.1).min(1.0));
        let peak = failed
            .values
            .iter()
            .copied()
            .filter(|v| v.is_finite())
            .fold(0.0, f64::max);
        if peak < 0.5 || bad < 0.05 || symptom.stands_out() && bad < good * 1.5 {
            continue;
        }
        let kind = match failed.label("connection_type") {
            _ if names_a_cache(server) => Kind::Cache,
            "database" => Kind::Database,
            "messaging_system" => Kind::Queue,
            _ if deeper => continue,
            "virtual_node" => Kind::Dependency,
            _ => Kind::Errors,
        };
        let at = symptom.first(&failed.values, seen.step_s, |v| v > 0.2);
        let since = at.map_or(String::new(), |s| format!(", from second {s:.0}"));
        out.push(Cause {
            kind,
            subject: server.to_owned(),
            headline: format!(
                "{} of the calls from {client} to {server} fail in the bad seconds ({} otherwise){since}",
                percent(bad),
                percent(if symptom.stands_out() { good } else { bad })
            ),
            evidence: Vec::new(),
            weight: 0.75 * bad.sqrt(),
            trace: None,
        });
    }
    out
}

/// Circuit breakers that opened.
fn breakers(seen: &Observed, symptom: &Symptom) -> Vec<Cause> {
    let lines = seen.lines.iter().filter(|l| l.what == What::Circuit);
    let opened = lines.filter_map(|line| {
        let open = line.values.iter().filter(|v| **v >= 2.0).count();
        if open == 0 {
            return None;
        }
        let name = line.label("dependency");
        let kind = if names_a_cache(name) {
            Kind::Cache
        } else {
            Kind::Dependency
        };
        let at = symptom.first(&line.values, seen.step_s, |v| v >= 2.0);
        let since = at.map_or(String::new(), |s| format!(" from second {s:.0}"));
        Some(Cause {
            kind,
            subject: name.to_owned(),
            headline: format!(
                "the circuit breaker of {name} is open{since}, for {:.0} s of the run",
                open as f64 * seen.step_s
            ),
            evidence: Vec::new(),
            weight: 0.8,
            trace: None,
        })
    });
    opened.collect()
}

/// Which service refuses, when a limiter does.
fn limiter(seen: &Observed, symptom: &Symptom, report: &Report) -> Option<Cause> {
    report.status.get(&429)?;
    let lines = seen.lines.iter().filter(|l| l.what == What::Limited);
    let worst = lines.max_by(|a, b| total(&a.values).total_cmp(&total(&b.values)))?;
    let refused = symptom.split(&worst.values, seen.step_s).0.unwrap_or(0.0);
    (refused > 0.0).then(|| Cause {
        kind: Kind::RateLimit,
        subject: report.target.clone(),
        headline: format!(
            "{} answers 429 {refused:.1} times a second",
            worst.label("service_name")
        ),
        evidence: Vec::new(),
        weight: 0.0,
        trace: None,
    })
}

fn total(values: &[f64]) -> f64 {
    values.iter().filter(|v| v.is_finite()).sum()
}
