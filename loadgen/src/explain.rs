//! Owns the answer to "why was it slow, why did it fail": causes of a run, ranked, each with its evidence in numbers.
//! Pure over the report and over what an agent said of the same seconds; only [`fetch`] asks an agent.

mod errors;
pub mod fetch;
mod from_report;
mod outside;
mod resources;
mod symptom;
mod tail;
#[cfg(test)]
mod tests;
mod text;

use model::span::{Span, TraceId, TraceSummary};

use crate::report::Report;
pub use symptom::Symptom;
pub use tail::{Chosen, Growth, Part};

/// What kind of thing a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// This generator did not keep its schedule.
    Generator,
    /// The run's own limit of connections.
    Connections,
    /// The target did not take connections or broke them.
    Unreachable,
    /// The server refused what was too much (429).
    RateLimit,
    /// A service answers with errors.
    Errors,
    /// A part stood still, then went on with everything at once.
    Pause,
    /// Processor time.
    Cpu,
    /// Memory pressure.
    Memory,
    /// Disks.
    Io,
    /// A pool of connections is used up.
    Pool,
    /// Statements of a database.
    Database,
    /// A cache.
    Cache,
    /// Messages pile up, or the broker is slow.
    Queue,
    /// Something that is called and sends no spans of its own.
    Dependency,
    /// Between a caller's span and the callee's.
    Hop,
    /// Between this generator and the first span.
    Outside,
    /// A service's own code.
    Service,
    /// The server, without anything that says more.
    Server,
}

impl Kind {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Generator => "generator",
            Kind::Connections => "connections",
            Kind::Unreachable => "target unreachable",
            Kind::RateLimit => "rate limit",
            Kind::Errors => "errors",
            Kind::Pause => "pause",
            Kind::Cpu => "cpu",
            Kind::Memory => "memory",
            Kind::Io => "disk",
            Kind::Pool => "pool",
            Kind::Database => "database",
            Kind::Cache => "cache",
            Kind::Queue => "queue",
            Kind::Dependency => "dependency",
            Kind::Hop => "hop",
            Kind::Outside => "before the first span",
            Kind::Service => "service",
            Kind::Server => "server",
        }
    }
}

/// One cause, with what speaks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// What kind of thing.
    pub kind: Kind,
    /// Which one: a service, a pool, a host.
    pub subject: String,
    /// One sentence with its number.
    pub headline: String,
    /// Further numbers, a sentence each.
    pub evidence: Vec<String>,
    /// From 0 to 1: the share of the symptom that it accounts for, lessened where the evidence is indirect. Orders causes.
    pub weight: f64,
    /// A trace that shows it.
    pub trace: Option<TraceId>,
}

impl Cause {
    /// One without evidence or a trace so far.
    fn new(kind: Kind, subject: &str, headline: String, weight: f64) -> Cause {
        Cause {
            kind,
            subject: subject.to_owned(),
            headline,
            evidence: Vec::new(),
            weight,
            trace: None,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// When it was bad, and how bad.
    pub symptom: Symptom,
    /// Causes, the weightiest first; at most five.
    pub causes: Vec<Cause>,
    /// What grows between typical and slow requests, by operation, most first; at most ten.
    pub growth: Vec<Growth>,
    /// What could not be asked, or is missing.
    pub notes: Vec<String>,
    /// The agent that was asked.
    pub agent: Option<String>,
}

/// What one line of numbers is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// Share of a resource in use, 0 to 1.
    Utilization,
    /// Waiting or refused work of a resource, in the unit of its label.
    Saturation,
    /// Server spans a second, by service.
    ServiceRate,
    /// Failed server spans a second, by service.
    ServiceErrors,
    /// 99th percentile of server spans, seconds, by service.
    ServiceP99,
    /// Calls a second from `client` to `server`.
    EdgeRate,
    /// Failed calls a second from `client` to `server`.
    EdgeFailed,
    /// Cores in use by a scraped process.
    ProcessCpu,
    /// Most connections of a pool.
    PoolMax,
    /// Connections of a pool in use.
    PoolInUse,
    /// Cache hits a second.
    CacheHits,
    /// Circuit breaker: 0 closed, 1 half open, 2 open.
    Circuit,
    /// Requests refused a second by a limiter, by service.
    Limited,
}

/// A series on the run's own axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it is about.
    pub what: What,
    /// Its labels.
    pub labels: model::Labels,
    /// One value a step; NaN where there is none.
    pub values: Vec<f64>,
}

impl Line {
    /// A label, or nothing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).unwrap_or("")
    }
}

/// What an agent said of a run's time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The agent.
    pub url: String,
    /// Length of a step in seconds; step `i` ends `(i + 1) * step_s` after the start of the measured part.
    pub step_s: f64,
    /// Series over the run.
    pub lines: Vec<Line>,
    /// Traces that began in the run, an even sample over its time.
    pub sample: Vec<TraceSummary>,
    /// The slowest traces of each part of the run.
    pub slowest: Vec<TraceSummary>,
    /// Spans of the traces that were chosen.
    pub traces: Vec<Vec<Span>>,
    /// Which of them are what.
    pub chosen: Chosen,
    /// What could not be had.
    pub problems: Vec<String>,
}

/// Most causes that are told.
const CAUSES: usize = 5;
/// Causes below this weight are not told: they are noise.
const LEAST_WEIGHT: f64 = 0.15;

/// Explains a run, from its report alone or with what an agent saw.
pub fn explain(report: &Report, seen: Option<&Observed>) -> Explanation {
    let symptom = Symptom::of(report);
    let mut notes = Vec::new();
    let mut causes = from_report::causes(report, &symptom);
    let mut growth = Vec::new();
    if let Some(seen) = seen {
        notes.extend(seen.problems.iter().cloned());
        let tail = tail::Tail::of(seen);
        let found = tail.causes(&symptom);
        growth = tail.growth.clone();
        let mut failing = errors::causes(report, seen, &symptom, &tail);
        let outside = outside::cause(report, seen, &symptom);
        if let Some(origin) = failing.iter().position(|c| c.trace.is_some()) {
            // Which service fails first says more than that the target answers with errors.
            let known = causes.iter().position(|c| c.kind == Kind::Errors);
            if let Some(known) = known.map(|i| causes.remove(i)) {
                failing[origin].evidence.push(known.headline);
                failing[origin].evidence.extend(known.evidence);
            }
        }
        causes = merge(causes, found);
        causes = merge(causes, failing);
        causes = merge(causes, outside.into_iter().collect());
        if symptom.stands_out() {
            resources::weigh(&mut causes, seen, &symptom, &tail);
        } else {
            // Nothing to compare with: a resource may be full, and requests may differ, in a run that is as it should be.
            resources::waiting(&mut causes, seen, &symptom, &tail);
            notes.extend(resources::full(seen));
            notes.extend(tail.note());
        }
        if seen.sample.is_empty() {
            notes.push("the agent has no traces of this run".to_owned());
        }
    }
    causes.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    causes.retain(|c| c.weight >= LEAST_WEIGHT);
    causes.truncate(CAUSES);
    growth.truncate(10);
    Explanation {
        symptom,
        causes,
        growth,
        notes,
        agent: seen.map(|s| s.url.clone()),
    }
}

/// Joins causes of one kind and subject: the higher weight, all evidence.
fn merge(mut all: Vec<Cause>, more: Vec<Cause>) -> Vec<Cause> {
    for cause in more {
        let same = |c: &&mut Cause| {
            c.kind == cause.kind && (c.subject == cause.subject || c.kind == Kind::Cache)
        };
        match all.iter_mut().find(same) {
            None => all.push(cause),
            Some(known) => {
                let (mut high, low) = if cause.weight > known.weight {
                    (cause, known.clone())
                } else {
                    (known.clone(), cause)
                };
                high.evidence.push(low.headline);
                high.evidence.extend(low.evidence);
                high.trace = high.trace.or(low.trace);
                *known = high;
            }
        }
    }
    all
}

/// Mean of the values that are there.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for v in values.filter(|v| v.is_finite()) {
        (sum, count) = (sum + v, count + 1);
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// Nanoseconds as milliseconds.
fn ms(ns: f64) -> String {
    let ms = ns / 1e6;
    match ms {
        _ if ms >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        _ if ms >= 1_000.0 => format!("{:.2} s", ms / 1e3),
        _ if ms >= 100.0 => format!("{ms:.0} ms"),
        _ if ms >= 1.0 => format!("{ms:.1} ms"),
        _ => format!("{ms:.2} ms"),
    }
}

/// A share as per cent.
fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p >= 10.0 || p == 0.0 => format!("{p:.0} %"),
        p => format!("{p:.1} %"),
    }
}
