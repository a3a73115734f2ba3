//! Owns the results of a run: Artillery's JSON and console layout, our own object beside them, and the exit code.
//! Sends nothing and reads no clock.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::ensure::Verdict;
use super::exchange::APDEX;
use super::metrics::Figures;
use super::script::Script;
use super::vu::Shared;
use crate::report::{Own, Report, named};
use crate::stats::Stats;
use crate::{engine, gate};

/// The figures of ten seconds, or of the whole run.
#[derive(Debug, Clone)]
pub struct Period {
    /// Its start, milliseconds since 1970.
    pub start_ms: i64,
    /// From its first figure to its last, seconds.
    pub width_s: f64,
    /// As Artillery writes it.
    pub json: Value,
    /// As Artillery prints it, without a heading.
    pub text: String,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Results {
    /// The whole run.
    pub aggregate: Period,
    pub(crate) intermediate: Vec<Value>,
    /// The checks of `ensure`, those that hold first; none when the run was stopped.
    pub checks: Vec<Verdict>,
    pub(crate) expectation_failed: bool,
    pub(crate) after_failed: bool,
    /// What the script's JavaScript wants the exit code to be.
    pub(crate) suggested: Option<i32>,
    /// From the first phase until the last user was done.
    pub elapsed: Duration,
    /// True when it was stopped before its end.
    pub stopped: bool,
    /// Events that nobody took.
    pub(crate) lost_events: u64,
    /// The same run as every other load reports it.
    pub run: Report,
}

impl Results {
    /// Artillery's JSON report with the `nines` object that every load has ([`Report::from_json`] reads it), and in it what
    /// only scripts have.
    pub fn to_json(&self) -> Value {
        let verdict = |c: &Verdict| json!({ "check": c.check, "ok": c.ok, "strict": c.strict, "problem": c.problem });
        let mut nines = self.run.to_json()["nines"].take();
        nines["script"] = self.run.scenario.as_str().into();
        nines["lost_events"] = self.lost_events.into();
        nines["checks"] = self.checks.iter().map(verdict).collect();
        json!({ "aggregate": self.aggregate.json, "intermediate": self.intermediate, "nines": nines })
    }

    /// The checks of `ensure` as every gate has them; what is optional is kept whatever it says.
    pub fn held(&self) -> Vec<gate::Check> {
        let seen = |v: &Verdict| match (&v.problem, v.ok, v.strict) {
            (Some(why), ..) => why.clone(),
            (None, true, _) => "it holds".to_owned(),
            (None, false, true) => "it does not hold".to_owned(),
            (None, false, false) => "it does not hold, and is optional".to_owned(),
        };
        let check = |v: &Verdict| {
            gate::Check::new(format!("ensure: {}", v.check), v.ok || !v.strict, seen(v))
        };
        let mut all: Vec<gate::Check> = self.checks.iter().map(check).collect();
        if self.expectation_failed {
            all.push(gate::Check::new("expectations", false, "one failed"));
        }
        if self.after_failed {
            all.push(gate::Check::new("after", false, "it failed"));
        }
        all
    }

    /// 130 when stopped, 1 when a strict check of `ensure` or `after` failed, 21 when an expectation failed, else 0.
    pub fn exit_code(&self) -> u8 {
        if self.stopped {
            130
        } else if self.after_failed || self.checks.iter().any(|c| c.strict && !c.ok) {
            1
        } else if self.expectation_failed {
            21
        } else {
            self.suggested.map_or(0, |code| (code & 255) as u8)
        }
    }

    /// What Artillery prints at the end, and what it cannot know.
    pub fn summary(&self) -> String {
        let mut out = self.aggregate.text.clone();
        out.push('\n');
        if let Some(score) = apdex(&self.aggregate.json["counters"]) {
            let rank = match score {
                s if s >= 0.94 => "excellent",
                s if s >= 0.85 => "good",
                s if s >= 0.7 => "fair",
                s if s >= 0.49 => "poor",
                _ => "unacceptable",
            };
            out.push_str(&format!("Apdex score: {score} ({rank})\n\n"));
        }
        out.push_str(&footer(&self.run));
        out.push_str(&self.verdicts());
        out
    }

    /// How the checks of `ensure` came out; empty without any.
    pub fn verdicts(&self) -> String {
        let mut out = String::new();
        if !self.checks.is_empty() {
            out.push_str("\nChecks:\n");
        }
        for check in &self.checks {
            let (word, optional) = match (check.ok, check.strict) {
                (true, _) => ("ok", ""),
                (false, true) => ("fail", ""),
                (false, false) => ("fail", " (optional)"),
            };
            let why = check.problem.as_ref().map(|p| format!(" [{p}]"));
            let why = why.unwrap_or_default();
            out.push_str(&format!("{word}: {}{optional}{why}\n", check.check));
        }
        out
    }
}

/// The Apdex score, when responses were judged by it.
fn apdex(counters: &Value) -> Option<f64> {
    let [satisfied, tolerated, frustrated] =
        APDEX.map(|name| counters[name].as_f64().unwrap_or(0.0));
    let all = satisfied + tolerated + frustrated;
    (all > 0.0).then(|| (satisfied + tolerated / 2.0) / all)
}

impl Period {
    pub(crate) fn of(start_ms: i64, figures: &Figures, script: &Script) -> Period {
        let all = [figures.counted, figures.timed];
        let first = all.iter().flatten().map(|(first, _)| *first).min();
        let last = all.iter().flatten().map(|(_, last)| *last).max();
        let mut rates = Map::new();
        for (name, rate) in figures.rates() {
            rates.insert(name.to_owned(), rate.into());
        }
        let times = figures.summaries.iter();
        let summaries: Map<String, Value> =
            times.map(|(name, h)| (name.clone(), summary(h))).collect();
        let json = json!({
            "counters": figures.counters,
            "rates": rates,
            "firstCounterAt": figures.counted.map(|r| r.0),
            "firstHistogramAt": figures.timed.map(|r| r.0),
            "lastCounterAt": figures.counted.map(|r| r.1),
            "lastHistogramAt": figures.timed.map(|r| r.1),
            "firstMetricAt": first,
            "lastMetricAt": last,
            "period": start_ms,
            "summaries": summaries,
            "histograms": summaries,
        });
        let width_ms = last.unwrap_or(0) - first.unwrap_or(0);
        Period {
            start_ms,
            width_s: width_ms as f64 / 1e3,
            text: text(figures, script),
            json,
        }
    }
}

/// A histogram's summary in milliseconds.
fn summary(h: &Histogram<u64>) -> Value {
    let values: Map<String, Value> = parts(h)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Value::Object(values)
}

fn parts(h: &Histogram<u64>) -> [(&'static str, Value); 11] {
    let ms = |us: u64| Value::from(us as f64 / 1e3);
    let at = |q: f64| ms(h.value_at_quantile(q));
    [
        ("min", ms(h.min())),
        ("max", ms(h.max())),
        ("count", h.len().into()),
        ("mean", (h.mean().round() / 1e3).into()),
        ("p50", at(0.5)),
        ("median", at(0.5)),
        ("p75", at(0.75)),
        ("p90", at(0.9)),
        ("p95", at(0.95)),
        ("p99", at(0.99)),
        ("p999", at(0.999)),
    ]
}

/// Every figure by name, for `ensure`.
pub(crate) fn figures(total: &Figures) -> Vec<(String, f64)> {
    let mut all: Vec<(String, f64)> = total
        .counters
        .iter()
        .map(|(name, n)| (name.clone(), *n as f64))
        .collect();
    for (name, rate) in total.rates() {
        all.push((name.to_owned(), rate as f64));
    }
    for (name, h) in &total.summaries {
        for (part, value) in parts(h) {
            let value = value.as_f64().unwrap_or(0.0);
            all.push((format!("{name}.{part}"), value));
        }
    }
    all
}

/// `name: ....... value`, dots to column 80.
fn padded(name: &str, value: &str) -> String {
    const WIDTH: usize = 79;
    let length = name.chars().count();
    let name = if length > WIDTH {
        let kept: String = name.chars().take(WIDTH - 3).collect();
        format!("{kept}...")
    } else {
        name.to_owned()
    };
    let dots = ".".repeat(WIDTH - name.chars().count());
    format!("{name} {dots} {value}\n")
}

fn shown(value: &Value) -> String {
    let n = value.as_f64().unwrap_or(0.0);
    let text = if n < 10.0 {
        format!("{n:.2}")
    } else {
        format!("{n:.1}")
    };
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

fn text(figures: &Figures, script: &Script) -> String {
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    for (name, n) in &figures.counters {
        lines.insert(name.clone(), padded(&format!("{name}:"), &n.to_string()));
    }
    for (name, h) in &figures.summaries {
        let mut block = format!("{name}:\n");
        for (part, value) in parts(h) {
            if matches!(part, "min" | "max" | "mean" | "median" | "p95" | "p99") {
                block.push_str(&padded(&format!("  {part}:"), &shown(&value)));
            }
        }
        lines.insert(name.clone(), block);
    }
    for (name, rate) in figures.rates() {
        lines.insert(
            name.to_owned(),
            padded(&format!("{name}:"), &format!("{rate}/sec")),
        );
    }
    let hidden = |name: &str| {
        !script.endpoints.show && name.starts_with(script.endpoints.namespace.as_str())
    };
    let wanted = lines.iter().filter(|(name, _)| !hidden(name));
    let out: String = wanted.map(|(_, line)| line.as_str()).collect();
    if out.is_empty() {
        return "No measurements recorded during this period\n".to_owned();
    }
    out
}

/// The generator is late when 1 % of what it should have sent left later than this, in microseconds.
const LATE_US: u64 = 10_000;

/// The run as every other load reports it. Its users' requests fall due as their flows come to them, so what is due and
/// what is sent are one.
pub(crate) fn whole(shared: &Shared, stats: Stats, stopped: bool, own: Own) -> Report {
    let late = |q| stats.phases.generator.value_at_quantile(q);
    let (late_p50_us, late_p99_us) = (late(0.5), late(0.99));
    let mut reasons = Vec::new();
    if late_p99_us > LATE_US {
        reasons.push(format!(
            "the generator was late: 1 % of the requests left {:.2} ms or more after they were due",
            late_p99_us as f64 / 1e3
        ));
    }
    if stats.responses == 0 {
        reasons.push("no response arrived".to_owned());
    }
    let valid = reasons.is_empty();
    if stopped {
        reasons.push("stopped before its end".to_owned());
    }
    let (latency, service_time) = stats.whole();
    let late_sends = engine::late(&stats.phases.generator);
    let (mut per_second, routes) = named(&shared.routes.names, stats.per_second, stats.routes);
    for second in &mut per_second {
        second.offered = second.sent as f64 / second.length_s.max(1e-9);
    }
    Report {
        run_id: shared.run_id.clone(),
        scenario: shared.script.name.clone(),
        shard: None,
        target: shared.script.target.clone(),
        started_ms: shared.wall_ms,
        duration_s: shared.start.elapsed().as_secs_f64(),
        planned: stats.requests,
        requests: stats.requests,
        responses: stats.responses,
        errors: stats.errors,
        status: stats.status,
        bytes: stats.bytes,
        reconnects: stats.reconnects,
        connections_opened: stats.connections_opened,
        waited_for_connection: stats.waited_for_connection,
        latency,
        failure_time: stats.failure_time,
        service_time,
        phases: stats.phases,
        late_p50_us,
        late_p99_us,
        timeouts: stats.timeouts,
        unsent: 0,
        unsent_wait: crate::stats::histogram(),
        stopped,
        valid,
        reasons,
        per_second,
        routes,
        late_sends,
        own,
        counts: BTreeMap::new(),
    }
}

/// What stands below Artillery's figures.
fn footer(run: &Report) -> String {
    let ms = |us: u64| shown(&Value::from(us as f64 / 1e3));
    let line = |name: &str, h: &Histogram<u64>| {
        if h.is_empty() {
            return format!("{name}: nothing measured\n");
        }
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|q| ms(h.value_at_quantile(q)));
        format!(
            "{name}: p50 {p50} ms, p95 {p95} ms, p99 {p99} ms, max {} ms\n",
            ms(h.max())
        )
    };
    let mut out = line("latency from the intended instant", &run.latency);
    out.push_str(&line("from the actual send", &run.service_time));
    let late = run.late_p99_us;
    if late > LATE_US {
        let _ = writeln!(
            out,
            "warning: the generator itself was late by {} ms (p99): this machine could not keep the schedule",
            ms(late)
        );
    }
    out
}
