//! Owns what the report alone says of the cause: the generator, its connections, a target that is gone, refusals, and
//! otherwise the phase in which the time went. Pure.

use super::{Cause, Kind, Symptom, percent};
use crate::report::Report;

/// Causes that need no agent.
pub(super) fn causes(report: &Report, symptom: &Symptom) -> Vec<Cause> {
    let mut out = Vec::new();
    out.extend(generator(report));
    out.extend(connections(report, symptom));
    out.extend(unreachable(report));
    out.extend(rate_limit(report));
    out.extend(server_errors(report));
    out.extend(phase(report, symptom));
    out
}

fn us(us: f64) -> String {
    super::ms(us * 1e3)
}

fn generator(report: &Report) -> Option<Cause> {
    if let Some(n) = report.errors.get("local") {
        let text = format!("this machine ran out of file descriptors or ports {n} times");
        return Some(Cause::new(Kind::Generator, "this machine", text, 1.0));
    }
    (report.late_p99_us > 10_000).then(|| {
        let text = format!(
            "the generator itself sent late: 1 % of the requests left {} or more after they were due with a connection free",
            us(report.late_p99_us as f64)
        );
        // Late by a little, in a run that is slow by much: the figures are not valid, but that is not why.
        let share = report.late_p99_us as f64 / quantile(&report.latency, 0.99).max(1.0);
        // Nor does a late request make the server answer with an error.
        let refused = report.status.iter().filter(|(c, _)| **c == 429 || **c >= 500);
        let failed = refused.map(|(_, n)| n).sum::<u64>() as f64 / report.responses.max(1) as f64;
        let most = if failed >= 0.01 { 0.5 } else { 0.99 };
        let weight = (0.15 + share).min(most);
        let mut found = Cause::new(Kind::Generator, "this machine", text, weight);
        let wait = &report.phases.generator;
        if !wait.is_empty() {
            found.evidence.push(format!(
                "waiting for the generator: p99 {} of a latency p99 of {}",
                us(wait.value_at_quantile(0.99) as f64),
                us(quantile(&report.latency, 0.99))
            ));
        }
        found.evidence.push("run it on a machine, or on cores, that nothing else keeps busy".to_owned());
        found
    })
}

fn quantile(h: &hdrhistogram::Histogram<u64>, q: f64) -> f64 {
    if h.is_empty() {
        0.0
    } else {
        h.value_at_quantile(q) as f64
    }
}

/// Whether the server's own time to the first byte grew in the bad seconds, and how much.
fn first_byte_grew(report: &Report, symptom: &Symptom) -> Option<(f64, f64)> {
    let measured = report.per_second.iter().filter(|s| !s.warm_up);
    let side = |want: bool| {
        let chosen = measured
            .clone()
            .zip(&symptom.bad)
            .filter(|(s, b)| **b == want && s.first_byte.count > 0);
        super::mean(chosen.map(|(s, _)| s.first_byte.p95 as f64))
    };
    side(true).zip(side(false))
}

fn connections(report: &Report, symptom: &Symptom) -> Option<Cause> {
    let waited = quantile(&report.phases.connection, 0.99);
    let latency = quantile(&report.latency, 0.99);
    let share = waited / latency.max(1.0);
    if waited < 10_000.0 || share < 0.3 {
        return None;
    }
    let service = report.service_time.mean();
    let offered = report.planned as f64 / report.duration_s.max(1e-9);
    let needed = offered * service / 1e6;
    let grew = first_byte_grew(report, symptom);
    let [slow, usual] = [0.99, 0.5].map(|q| quantile(&report.service_time, q));
    let server_slowed = match grew {
        Some((bad, good)) if symptom.stands_out() => bad > (1.5 * good).max(good + 3_000.0),
        _ => slow > (4.0 * usual).max(usual + 20_000.0),
    };
    let text = format!(
        "{} of the p99 of {} is waiting for a free connection",
        percent(share.min(1.0)),
        us(latency)
    );
    let mut found = Cause::new(
        Kind::Connections,
        "this run",
        text,
        if server_slowed {
            0.25
        } else {
            0.9 * share.min(1.0)
        },
    );
    found.evidence.push(format!(
        "{offered:.1} requests/s of {} each keep {needed:.1} connections busy; {} were opened",
        us(service),
        report.connections_opened
    ));
    found.evidence.push(if server_slowed {
        "a consequence: the answers themselves became slower".to_owned()
    } else {
        format!(
            "the answers did not become slower (service time p50 {}, p99 {}): give the run more --connections",
            us(usual),
            us(slow)
        )
    });
    Some(found)
}

fn unreachable(report: &Report) -> Option<Cause> {
    let gone = ["refused", "reset", "closed", "dns", "unreachable", "tls"];
    let kinds: Vec<(&str, u64)> = gone
        .iter()
        .filter_map(|k| report.errors.get(*k).map(|n| (*k, *n)))
        .collect();
    let count: u64 = kinds.iter().map(|(_, n)| n).sum();
    let share = count as f64 / report.planned.max(1) as f64;
    if share < 0.01 {
        return None;
    }
    let list: Vec<String> = kinds.iter().map(|(k, n)| format!("{k} {n}")).collect();
    let text = format!(
        "{} of the requests got no answer: {}",
        percent(share),
        list.join(", ")
    );
    let mut found = Cause::new(
        Kind::Unreachable,
        &report.target,
        text,
        0.7 + 0.3 * share.min(1.0),
    );
    found.evidence.extend(seconds_of(report, |s| {
        s.error_kinds.keys().any(|k| gone.contains(&k.as_str()))
    }));
    Some(found)
}

fn rate_limit(report: &Report) -> Option<Cause> {
    let n = report.status.get(&429).copied().unwrap_or(0);
    let share = n as f64 / report.responses.max(1) as f64;
    if share < 0.005 {
        return None;
    }
    let text = format!(
        "{n} of {} answers ({}) are 429: the server refuses what is too much",
        report.responses,
        percent(share)
    );
    let mut found = Cause::new(
        Kind::RateLimit,
        &report.target,
        text,
        0.75 + 0.25 * (share * 4.0).min(1.0),
    );
    found
        .evidence
        .extend(seconds_of(report, |s| s.status.contains_key(&429)));
    let allowed = (report.responses - n) as f64 / report.duration_s.max(1e-9);
    found
        .evidence
        .push(format!("{allowed:.1} requests/s were let through"));
    Some(found)
}

fn server_errors(report: &Report) -> Option<Cause> {
    let codes: Vec<(u16, u64)> = report
        .status
        .iter()
        .filter(|(c, _)| **c >= 500)
        .map(|(c, n)| (*c, *n))
        .collect();
    let n: u64 = codes.iter().map(|(_, n)| n).sum();
    let share = n as f64 / report.responses.max(1) as f64;
    if share < 0.005 {
        return None;
    }
    let list: Vec<String> = codes.iter().map(|(c, n)| format!("{c}: {n}")).collect();
    let text = format!(
        "{} of the answers are errors ({})",
        percent(share),
        list.join(", ")
    );
    let mut found = Cause::new(
        Kind::Errors,
        &report.target,
        text,
        0.5 + 0.5 * (share * 4.0).min(1.0),
    );
    found
        .evidence
        .extend(seconds_of(report, |s| s.status.keys().any(|c| *c >= 500)));
    let worst = report.routes.iter().max_by_key(|(_, r)| {
        r.status
            .iter()
            .filter(|(c, _)| **c >= 500)
            .map(|(_, n)| *n)
            .sum::<u64>()
    });
    if let Some((name, route)) = worst.filter(|_| report.routes.len() > 1) {
        let of: u64 = route
            .status
            .iter()
            .filter(|(c, _)| **c >= 500)
            .map(|(_, n)| *n)
            .sum();
        found.evidence.push(format!("{of} of them on {name}"));
    }
    Some(found)
}

/// "from second 3 to second 9 (7 seconds)".
fn seconds_of(report: &Report, has: impl Fn(&crate::report::Second) -> bool) -> Option<String> {
    let warm_up = report.warm_up_s();
    let with: Vec<f64> = report
        .per_second
        .iter()
        .filter(|s| !s.warm_up && has(s))
        .map(|s| s.at_s - warm_up)
        .collect();
    let (first, last) = (with.first()?, with.last()?);
    // The seconds of a long run are joined.
    let parts = match report.step_s() {
        1 => "seconds".to_owned(),
        step => format!("parts of up to {step} s"),
    };
    Some(format!(
        "first in second {first:.0}, last in second {last:.0}, in {} {parts}",
        with.len()
    ))
}

/// The phase of which the tail is made, when nothing says more, in a run with bad seconds.
fn phase(report: &Report, symptom: &Symptom) -> Option<Cause> {
    let latency = quantile(&report.latency, 0.99);
    if !symptom.stands_out() {
        return None;
    }
    let phases = report.phases.named();
    // What is spent waiting on this side is told by the generator's and the connections' own causes.
    let (name, worst) = phases
        .iter()
        .skip(2)
        .filter(|(_, h)| !h.is_empty())
        .map(|(name, h)| (*name, quantile(h, 0.99)))
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let (kind, subject, words) = match name {
        "connect" | "tls" => (Kind::Server, "connecting", "opening a connection"),
        "transfer" => (Kind::Server, "the body", "receiving the body"),
        _ => (
            Kind::Server,
            "the server",
            "waiting for the server's first byte",
        ),
    };
    // What is spent in a queue before the server is a consequence of it, or told as a cause of its own.
    let queued = quantile(&report.phases.connection, 0.99);
    let share = (worst / (latency - queued).max(worst).max(1.0)).min(1.0);
    let text = format!(
        "the slowest 1 % of the requests spend {} of their {} {words} (p99 {})",
        percent(share),
        us(latency),
        us(worst)
    );
    Some(Cause::new(kind, subject, text, 0.3 * share))
}
