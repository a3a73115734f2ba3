//! Owns what Little's law (requests under way = rate x time each takes) says of a plan and of its result, and whether
//! this machine has ports enough. Plain arithmetic and one reading of the system; sends nothing.

use crate::plan::{Model, Plan};
use crate::report::Report;

/// How long a closed connection keeps its local port (Linux: TIME_WAIT).
const PORT_RESTS: f64 = 60.0;

fn ms(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

/// What is to be known before the run: where the plan contradicts itself or this machine.
pub fn before(plan: &Plan, ports: Option<u64>) -> Vec<String> {
    let mut notes = Vec::new();
    let slots = plan.slots() as f64;
    if let Some(rate) = plan.peak_rate()
        && slots / rate < 0.01
    {
        notes.push(format!(
            "{} {} carry {rate}/s only while answers take at most {} on average; beyond that requests wait (Little's law)",
            plan.slots(),
            names(plan),
            ms(slots / rate)
        ));
    }
    if !plan.think.is_zero() {
        let most = slots / plan.think.as_secs_f64();
        notes.push(format!(
            "{} {} that think for {} send at most {most:.1}/s, and less as answers take time",
            plan.slots(),
            names(plan),
            ms(plan.think.as_secs_f64())
        ));
    }
    let tcp = plan.transport.unix_socket.is_none();
    if let (Some(ports), true) = (ports, tcp) {
        if plan.connections as u64 > ports {
            notes.push(format!(
                "{} connections need as many local ports to one address; this machine has {ports}",
                plan.connections
            ));
        }
        if let (Some(each), Some(rate)) = (plan.transport.requests_per_connection, plan.peak_rate())
        {
            let length = plan.duration.as_secs_f64().min(PORT_RESTS);
            let needed = rate / each as f64 * length;
            if needed > ports as f64 {
                notes.push(format!(
                    "{:.0} new connections a second leave {needed:.0} local ports resting (60 s each); this machine has {ports}",
                    rate / each as f64
                ));
            }
        }
    }
    notes
}

fn names(plan: &Plan) -> &'static str {
    if plan.transport.http2 {
        "streams"
    } else {
        "connections"
    }
}

/// Adds what the result says of the plan.
pub(crate) fn add_notes(report: &mut Report, plan: &Plan) {
    if let Some(note) = after(report, plan) {
        report.reasons.push(note);
    }
    let streams = report.counts.get("server_max_streams").copied();
    if let Some(most) = streams.filter(|m| *m < plan.transport.streams as u64) {
        report.reasons.push(format!(
            "the server takes {most} streams on a connection; of the {} asked for, the rest waited",
            plan.transport.streams
        ));
    }
}

fn after(report: &Report, plan: &Plan) -> Option<String> {
    if report.responses == 0 || report.duration_s <= 0.0 {
        return None;
    }
    let slots = plan.slots() as f64;
    let (named, count) = (names(plan), plan.slots());
    if let Model::Closed { requests } = plan.model {
        // A run of few requests ends before all connections had one.
        if requests.is_some_and(|r| r < 20 * count as u64) {
            return None;
        }
        let think = plan.think.as_secs_f64();
        // From when a connection took the request, opening it included.
        let mean = report.latency.mean() / 1e6;
        let possible = slots / (mean + think);
        let achieved = report.achieved_rate();
        let unfailed = report.error_count() * 20 < report.requests;
        return (achieved < 0.8 * possible && unfailed).then(|| {
            let cycle = match plan.think.is_zero() {
                true => format!("answers of {}", ms(mean)),
                false => format!("answers of {} and {} to think", ms(mean), ms(think)),
            };
            format!(
                "{count} {named} with {cycle} could do {possible:.1}/s and did {achieved:.1}/s: this machine, not the server, set the pace (Little's law)"
            )
        });
    }
    let mean = report.service_time.mean() / 1e6;
    let measured = plan.duration.as_secs_f64();
    let rate = report.planned as f64
        / if report.stopped {
            report.duration_s
        } else {
            measured
        };
    let needed = rate * mean;
    (needed > 0.9 * slots).then(|| {
        format!(
            "{rate:.1}/s planned x {} (mean time from the actual send) keep {needed:.1} {named} busy, and there are {count}: requests waited (Little's law)",
            ms(mean)
        )
    })
}

/// How many local ports outgoing connections may use; none where it cannot be read.
pub fn local_ports() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = text.split_whitespace().map(|n| n.parse::<u64>().ok());
    let (first, last) = (ends.next()??, ends.next()??);
    Some((last + 1).saturating_sub(first))
}
