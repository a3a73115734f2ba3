//! Owns joining the reports of workers that shared one run into the report of the whole.
//! Only adds up: no figure is estimated.

use std::collections::{BTreeMap, BTreeSet};

use hdrhistogram::Histogram;

use crate::hdr;
use crate::report::{Quantiles, Report, RouteReport, RouteSecond, Second};

/// Joins the reports of one run's workers. Counts and histograms are added; lateness is the worst worker's. A second's
/// percentiles are known when every worker kept its seconds' histograms, and left out (a count of 0) otherwise, as are
/// those of each route in each second.
///
/// # Errors
/// When there is none, when they are of different runs, or when two are the same shard or one is missing.
pub fn merge(mut parts: Vec<Report>) -> Result<Report, String> {
    let Some(first) = parts.first() else {
        return Err("no report to merge".to_owned());
    };
    let run_id = first.run_id.clone();
    if let Some(other) = parts.iter().find(|p| p.run_id != run_id) {
        return Err(format!(
            "these are two runs: {run_id:?} and {:?}; give the workers one --run-id",
            other.run_id
        ));
    }
    let of = parts.len() as u32;
    if parts.iter().any(|p| p.shard.is_some()) {
        let mut seen: Vec<_> = parts.iter().filter_map(|p| p.shard).collect();
        seen.sort_unstable();
        if seen
            .iter()
            .ne((1..=of).map(|n| (n, of)).collect::<Vec<_>>().iter())
        {
            let shown: Vec<String> = seen.iter().map(|(n, of)| format!("{n}/{of}")).collect();
            return Err(format!(
                "expected each shard of one run once; got {}",
                shown.join(", ")
            ));
        }
        parts.sort_by_key(|p| p.shard);
    }
    let mut rest = parts.into_iter();
    let Some(mut whole) = rest.next() else {
        return Err("no report to merge".to_owned());
    };
    whole.reasons = named_reasons(&whole);
    whole.shard = None;
    for part in rest {
        add(&mut whole, part)?;
    }
    Ok(whole)
}

fn named_reasons(report: &Report) -> Vec<String> {
    let name = report
        .shard
        .map_or_else(String::new, |(n, of)| format!("shard {n}/{of}: "));
    report
        .reasons
        .iter()
        .map(|r| format!("{name}{r}"))
        .collect()
}

fn add_counts<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}

fn join(into: &mut Histogram<u64>, from: &Histogram<u64>) -> Result<(), String> {
    into.add(from)
        .map_err(|e| format!("histograms of different ranges: {e}"))
}

fn add(whole: &mut Report, part: Report) -> Result<(), String> {
    whole.reasons.extend(named_reasons(&part));
    whole.valid &= part.valid;
    whole.stopped |= part.stopped;
    let end = |r: &Report| r.started_ms as f64 / 1e3 + r.duration_s;
    let ended = end(whole).max(end(&part));
    whole.started_ms = whole.started_ms.min(part.started_ms);
    whole.duration_s = ended - whole.started_ms as f64 / 1e3;
    for (into, from) in [
        (&mut whole.planned, part.planned),
        (&mut whole.requests, part.requests),
        (&mut whole.responses, part.responses),
        (&mut whole.bytes, part.bytes),
        (&mut whole.reconnects, part.reconnects),
        (&mut whole.connections_opened, part.connections_opened),
        (&mut whole.waited_for_connection, part.waited_for_connection),
        (&mut whole.timeouts, part.timeouts),
        (&mut whole.unsent, part.unsent),
        (&mut whole.late_sends, part.late_sends),
    ] {
        *into += from;
    }
    let own = &mut whole.own;
    if own.engine != part.own.engine {
        own.engine = format!("{}, {}", own.engine, part.own.engine);
    }
    own.threads += part.own.threads;
    own.cpu_s += part.own.cpu_s;
    own.busy = own.busy.max(part.own.busy);
    own.kept_awake |= part.own.kept_awake;
    whole.late_p50_us = whole.late_p50_us.max(part.late_p50_us);
    whole.late_p99_us = whole.late_p99_us.max(part.late_p99_us);
    add_counts(&mut whole.errors, part.errors);
    add_counts(&mut whole.status, part.status);
    let least = |a: Option<&u64>, b: Option<&u64>| a.into_iter().chain(b).min().copied();
    let streams = "server_max_streams";
    let streams_of_all = least(whole.counts.get(streams), part.counts.get(streams));
    add_counts(&mut whole.counts, part.counts);
    if let Some(most) = streams_of_all {
        whole.counts.insert(streams.to_owned(), most);
    }
    let theirs = &part.phases;
    let ours = &mut whole.phases;
    for (into, from) in [
        (&mut whole.latency, &part.latency),
        (&mut whole.failure_time, &part.failure_time),
        (&mut whole.service_time, &part.service_time),
        (&mut whole.unsent_wait, &part.unsent_wait),
        (&mut ours.generator, &theirs.generator),
        (&mut ours.connection, &theirs.connection),
        (&mut ours.connect, &theirs.connect),
        (&mut ours.tls, &theirs.tls),
        (&mut ours.first_byte, &theirs.first_byte),
        (&mut ours.transfer, &theirs.transfer),
    ] {
        join(into, from)?;
    }
    for (name, route) in part.routes {
        let into = whole.routes.entry(name).or_insert_with(RouteReport::new);
        into.requests += route.requests;
        into.responses += route.responses;
        add_counts(&mut into.errors, route.errors);
        add_counts(&mut into.status, route.status);
        join(&mut into.latency, &route.latency)?;
        join(&mut into.service_time, &route.service_time)?;
    }
    let part_seconds = in_step(&mut whole.per_second, part.per_second)?;
    for (i, second) in part_seconds.into_iter().enumerate() {
        match whole.per_second.get_mut(i) {
            Some(into) => add_second(into, second)?,
            None => whole.per_second.push(second),
        }
    }
    Ok(())
}

/// Brings both lists to common steps: in a long run neighbouring seconds are joined, and not every worker's alike.
fn in_step(whole: &mut Vec<Second>, part: Vec<Second>) -> Result<Vec<Second>, String> {
    let at = |s: &Second| s.at_s.round() as i64;
    if whole.iter().zip(&part).all(|(a, b)| at(a) == at(b)) {
        return Ok(part);
    }
    let starts = |list: &[Second]| list.iter().map(at).collect::<BTreeSet<_>>();
    let (ours, theirs) = (starts(whole), starts(&part));
    let last = |starts: &BTreeSet<i64>| starts.last().copied().unwrap_or(0);
    let both_until = last(&ours).min(last(&theirs));
    let common = |second: &Second| {
        let start = at(second);
        start > both_until || ours.contains(&start) && theirs.contains(&start)
    };
    *whole = coarser(std::mem::take(whole), common)?;
    coarser(part, common)
}

/// Joins each second that `begins` no step to the one before.
fn coarser(seconds: Vec<Second>, begins: impl Fn(&Second) -> bool) -> Result<Vec<Second>, String> {
    let mut out: Vec<Second> = Vec::new();
    for second in seconds {
        match out.last_mut().filter(|_| !begins(&second)) {
            Some(into) => {
                let length = into.length_s + second.length_s;
                let offered = into.offered * into.length_s + second.offered * second.length_s;
                add_second(into, second)?;
                (into.length_s, into.offered) = (length, offered / length.max(1e-9));
            }
            None => out.push(second),
        }
    }
    Ok(out)
}

fn add_second(into: &mut Second, from: Second) -> Result<(), String> {
    into.length_s = into.length_s.max(from.length_s);
    into.offered += from.offered;
    into.sent += from.sent;
    into.responses += from.responses;
    into.errors += from.errors;
    add_counts(&mut into.status, from.status);
    add_counts(&mut into.error_kinds, from.error_kinds);
    into.hdr = match (into.hdr.take(), from.hdr) {
        (Some(a), Some(b)) => {
            let mut joined = hdr::decode(&a)?;
            join(&mut joined, &hdr::decode(&b)?)?;
            into.latency = Quantiles::of(&joined);
            Some(hdr::encode(&joined))
        }
        _ => {
            into.latency = Quantiles::default();
            None
        }
    };
    into.first_byte = Quantiles::default();
    into.routes
        .iter_mut()
        .for_each(|r| *r = RouteSecond::default());
    Ok(())
}
