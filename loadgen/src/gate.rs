//! Owns rules such as `p95<200ms`: their grammar, and whether a run keeps them.
//! Reads reports only; who prints the verdict is not its business.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::report::{Report, RouteReport};

/// One threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    text: String,
    subject: Subject,
    route: Option<String>,
    op: Op,
    bound: f64,
}

/// What a rule looks at, and so the unit of its bound.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Subject {
    /// Microseconds.
    Time(Times, Stat),
    /// 99th percentile of the generator's lateness, microseconds.
    Late,
    /// Share of the planned requests, 0 to 1.
    Share(Bad),
    Count(Counted),
    /// Responses per second.
    Rate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Latency,
    Service,
    FirstByte,
    Connect,
    Tls,
    Transfer,
    Generator,
    Connection,
    Failure,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stat {
    Quantile(f64),
    Min,
    Mean,
    Max,
}

/// What of the planned is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// No response, never sent, or a status of 500 and above.
    Any,
    /// No response or never sent.
    Failed,
    Class(u16),
    Unsent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Requests,
    Responses,
    Errors,
    Unsent,
    Timeouts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Less,
    AtMost,
    More,
    AtLeast,
}

/// Longer first: `<` begins `<=`.
const OPS: [(&str, Op); 4] = [
    ("<=", Op::AtMost),
    (">=", Op::AtLeast),
    ("<", Op::Less),
    (">", Op::More),
];

const TIMES: [(&str, Times); 10] = [
    ("latency", Times::Latency),
    ("service", Times::Service),
    ("first_byte", Times::FirstByte),
    ("http.response_time", Times::FirstByte),
    ("connect", Times::Connect),
    ("tls", Times::Tls),
    ("transfer", Times::Transfer),
    ("generator_wait", Times::Generator),
    ("connection_wait", Times::Connection),
    ("failure_time", Times::Failure),
];

const OTHERS: [(&str, Subject); 12] = [
    ("error_rate", Subject::Share(Bad::Any)),
    ("failure_rate", Subject::Share(Bad::Failed)),
    ("4xx_rate", Subject::Share(Bad::Class(4))),
    ("5xx_rate", Subject::Share(Bad::Class(5))),
    ("unsent_rate", Subject::Share(Bad::Unsent)),
    ("requests", Subject::Count(Counted::Requests)),
    ("responses", Subject::Count(Counted::Responses)),
    ("errors", Subject::Count(Counted::Errors)),
    ("unsent", Subject::Count(Counted::Unsent)),
    ("timeouts", Subject::Count(Counted::Timeouts)),
    ("rate", Subject::Rate),
    ("late_p99", Subject::Late),
];

/// The figures of a part of a run.
pub(crate) struct Part<'a> {
    /// Latency of what ended in it.
    pub(crate) latency: &'a Histogram<u64>,
    /// Requests that ended in it, well or not.
    pub(crate) ended: u64,
    /// Of those, the ones without a response.
    pub(crate) failed: u64,
    /// Responses by status.
    pub(crate) status: &'a BTreeMap<u16, u64>,
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read the rule {text:?}: {why}")]
pub struct RuleError {
    /// The text given.
    pub text: String,
    /// What is wrong, and what to write.
    pub why: String,
}

/// A rule's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The rule as written.
    pub rule: String,
    /// Kept or broken.
    pub passed: bool,
    /// What was seen, as text with its unit.
    pub seen: String,
}

impl Check {
    /// A verdict of some other judge: an SLO, a PromQL expression, a comparison.
    pub fn new(rule: impl Into<String>, passed: bool, seen: impl Into<String>) -> Check {
        Check {
            rule: rule.into(),
            passed,
            seen: seen.into(),
        }
    }

    /// One line: `broken  p95<200ms  (312.40 ms)`.
    pub fn line(&self) -> String {
        let word = if self.passed { "kept  " } else { "broken" };
        format!("{word}  {}  ({})", self.rule, self.seen)
    }
}

/// Whether the run can be judged at all: the first check of every gate.
pub fn validity(report: &Report) -> Check {
    let seen = if report.valid {
        "the generator kept its schedule".to_owned()
    } else {
        report.reasons.first().cloned().unwrap_or_default()
    };
    Check::new("the run is valid", report.valid, seen)
}

impl Rule {
    /// Reads `METRIC[ROUTE] OP BOUND`; the route in brackets is optional. A bound of time without a unit is in
    /// milliseconds; one with `%` is a share.
    ///
    /// # Errors
    /// [`RuleError`] says which part is wrong and what is accepted.
    pub fn parse(text: &str) -> Result<Rule, RuleError> {
        let wrong = |why: String| RuleError {
            text: text.to_owned(),
            why,
        };
        // A route may contain anything; what follows its bracket is the comparison.
        let from = text.rfind(']').map_or(0, |i| i + 1);
        let found = text[from..]
            .find(['<', '>'])
            .map(|i| text.split_at(from + i))
            .and_then(|(left, rest)| {
                let (op, kind) = OPS.iter().find(|(op, _)| rest.starts_with(op))?;
                Some((left.trim(), *kind, rest[op.len()..].trim()))
            });
        let Some((left, op, right)) = found else {
            return Err(wrong(
                "no comparison; write it as 'p95<200ms', with <, <=, > or >=".to_owned(),
            ));
        };
        let (name, route) = match left.split_once('[') {
            None => (left, None),
            Some((name, route)) => {
                let route = route
                    .strip_suffix(']')
                    .ok_or_else(|| wrong("the bracket of the route is not closed".to_owned()))?;
                (name.trim(), Some(route.trim().to_owned()))
            }
        };
        let subject = subject(name).ok_or_else(|| wrong(unknown(name)))?;
        if route.is_some() && !by_route(subject) {
            return Err(wrong(format!("{name} is not kept by route")));
        }
        let bound = bound(right, subject).ok_or_else(|| {
            let expected = match subject {
                Subject::Time(..) | Subject::Late => "a time such as 200ms, 1.5s or 300us",
                Subject::Share(_) => "a share such as 1% or 0.01",
                Subject::Count(_) | Subject::Rate => "a number",
            };
            wrong(format!("the bound {right:?} is not {expected}"))
        })?;
        Ok(Rule {
            text: text.trim().to_owned(),
            subject,
            route,
            op,
            bound,
        })
    }

    /// The verdict on a run. A metric of which nothing was measured breaks its rule.
    pub fn check(&self, report: &Report) -> Check {
        let seen = match &self.route {
            None => Ok(self.of_run(report)),
            Some(name) => match report.routes.get(name) {
                Some(route) => Ok(self.of_route(route)),
                None => Err(no_route(name, report)),
            },
        };
        match seen {
            Ok(Some(value)) => self.judged(value),
            Ok(None) => Check::new(&self.text, false, "nothing was measured"),
            Err(why) => Check::new(&self.text, false, why),
        }
    }

    /// The rule as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its verdict on a value that was found otherwise.
    pub(crate) fn judged(&self, value: f64) -> Check {
        Check::new(&self.text, self.keeps(value), self.shown(value))
    }

    /// The bound in microseconds, of a rule on a time.
    pub(crate) fn bound_us(&self) -> Option<f64> {
        matches!(self.subject, Subject::Time(..) | Subject::Late).then_some(self.bound)
    }

    /// What the rule looks at, in a part of a run; none when a part does not tell, `Some(None)` when nothing was
    /// measured in it.
    pub(crate) fn of_part(&self, part: &Part<'_>) -> Option<Option<f64>> {
        match (&self.route, self.subject) {
            (None, Subject::Time(Times::Latency, stat)) => Some(of(part.latency, stat)),
            (None, Subject::Share(bad)) if bad != Bad::Unsent => {
                Some(share(bad, part.failed, 0, part.status, part.ended))
            }
            _ => None,
        }
    }

    /// Its value over a whole run; none when nothing was measured.
    pub(crate) fn of_whole(&self, report: &Report) -> Option<f64> {
        match &self.route {
            None => self.of_run(report),
            Some(name) => self.of_route(report.routes.get(name)?),
        }
    }

    /// The quantile of the whole run's latency that the rule bounds, when it bounds one.
    pub(crate) fn latency_quantile(&self) -> Option<f64> {
        match (&self.route, self.subject) {
            (None, Subject::Time(Times::Latency, Stat::Quantile(q))) => Some(q),
            _ => None,
        }
    }

    /// Whether a value keeps the rule.
    pub(crate) fn keeps(&self, value: f64) -> bool {
        match self.op {
            Op::Less => value < self.bound,
            Op::AtMost => value <= self.bound,
            Op::More => value > self.bound,
            Op::AtLeast => value >= self.bound,
        }
    }

    fn of_run(&self, r: &Report) -> Option<f64> {
        let p = &r.phases;
        match self.subject {
            Subject::Time(times, stat) => {
                let h = match times {
                    Times::Latency => &r.latency,
                    Times::Service => &r.service_time,
                    Times::FirstByte => &p.first_byte,
                    Times::Connect => &p.connect,
                    Times::Tls => &p.tls,
                    Times::Transfer => &p.transfer,
                    Times::Generator => &p.generator,
                    Times::Connection => &p.connection,
                    Times::Failure => &r.failure_time,
                };
                of(h, stat)
            }
            Subject::Late => Some(r.late_p99_us as f64),
            Subject::Share(bad) => share_of(r, bad),
            Subject::Count(what) => Some(match what {
                Counted::Requests => r.requests,
                Counted::Responses => r.responses,
                Counted::Errors => r.error_count(),
                Counted::Unsent => r.unsent,
                Counted::Timeouts => r.timeouts,
            } as f64),
            Subject::Rate => Some(r.achieved_rate()),
        }
    }

    fn of_route(&self, r: &RouteReport) -> Option<f64> {
        let failed = r.errors.values().sum();
        match self.subject {
            Subject::Time(Times::Latency, stat) => of(&r.latency, stat),
            Subject::Time(Times::Service, stat) => of(&r.service_time, stat),
            Subject::Share(bad) => share(bad, failed, 0, &r.status, r.requests),
            Subject::Count(Counted::Requests) => Some(r.requests as f64),
            Subject::Count(Counted::Responses) => Some(r.responses as f64),
            Subject::Count(Counted::Errors) => Some(failed as f64),
            _ => None,
        }
    }

    fn shown(&self, value: f64) -> String {
        match self.subject {
            Subject::Time(..) | Subject::Late => format!("{:.2} ms", value / 1e3),
            Subject::Share(_) => format!("{:.3} %", value * 100.0),
            Subject::Rate => format!("{value:.1}/s"),
            Subject::Count(_) => format!("{value}"),
        }
    }
}

fn by_route(subject: Subject) -> bool {
    matches!(
        subject,
        Subject::Time(Times::Latency | Times::Service, _)
            | Subject::Share(Bad::Any | Bad::Failed | Bad::Class(_))
            | Subject::Count(Counted::Requests | Counted::Responses | Counted::Errors)
    )
}

fn of(h: &Histogram<u64>, stat: Stat) -> Option<f64> {
    if h.is_empty() {
        return None;
    }
    Some(match stat {
        Stat::Quantile(q) => h.value_at_quantile(q) as f64,
        Stat::Min => h.min() as f64,
        Stat::Mean => h.mean(),
        Stat::Max => h.max() as f64,
    })
}

/// Of what a run planned, that share; none of nothing.
pub(crate) fn share_of(run: &Report, bad: Bad) -> Option<f64> {
    share(bad, run.error_count(), run.unsent, &run.status, run.planned)
}

fn share(bad: Bad, failed: u64, unsent: u64, status: &BTreeMap<u16, u64>, all: u64) -> Option<f64> {
    let class = |c: u16| {
        status
            .range(c * 100..(c + 1) * 100)
            .map(|(_, n)| n)
            .sum::<u64>()
    };
    let count = match bad {
        Bad::Any => failed + unsent + class(5),
        Bad::Failed => failed + unsent,
        Bad::Class(c) => class(c),
        Bad::Unsent => unsent,
    };
    (all > 0).then(|| count as f64 / all as f64)
}

fn no_route(name: &str, report: &Report) -> String {
    let known: Vec<&str> = report.routes.keys().take(8).map(String::as_str).collect();
    format!("no route {name:?}; the run has {}", known.join(", "))
}

fn subject(name: &str) -> Option<Subject> {
    if let Some((_, subject)) = OTHERS.iter().find(|(n, _)| *n == name) {
        return Some(*subject);
    }
    let (times, stat) = match name.rsplit_once('.') {
        // The dot of p99.9 is not one between names.
        Some((left, _)) if left.starts_with('p') && left[1..].parse::<u32>().is_ok() => {
            ("latency", name)
        }
        Some((left, digits)) if digits.chars().all(|c| c.is_ascii_digit()) => {
            let (times, p) = left.rsplit_once('.')?;
            (times, &name[name.len() - digits.len() - p.len() - 1..])
        }
        Some(pair) => pair,
        None => ("latency", name),
    };
    let times = TIMES.iter().find(|(n, _)| *n == times)?.1;
    let stat = match stat {
        "min" => Stat::Min,
        "mean" => Stat::Mean,
        "max" => Stat::Max,
        "median" => Stat::Quantile(0.5),
        "p999" => Stat::Quantile(0.999),
        other => {
            let percent: f64 = other.strip_prefix('p')?.parse().ok()?;
            if !(0.0..=100.0).contains(&percent) {
                return None;
            }
            Stat::Quantile(percent / 100.0)
        }
    };
    Some(Subject::Time(times, stat))
}

fn unknown(name: &str) -> String {
    let others: Vec<&str> = OTHERS.iter().map(|(n, _)| *n).collect();
    let times: Vec<&str> = TIMES.iter().map(|(n, _)| *n).collect();
    format!(
        "no metric {name:?}; there are p50, p99.9 (any percentile), min, mean, median, max, optionally of one of {} (as in service.p95), and {}",
        times.join(", "),
        others.join(", ")
    )
}

fn bound(text: &str, subject: Subject) -> Option<f64> {
    let units: &[(&str, f64)] = match subject {
        Subject::Time(..) | Subject::Late => {
            &[("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7), ("", 1e3)]
        }
        Subject::Share(_) => &[("%", 0.01), ("", 1.0)],
        Subject::Count(_) => &[("", 1.0)],
        Subject::Rate => &[("/s", 1.0), ("", 1.0)],
    };
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), factor)))?;
    let value: f64 = number.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn verdict(rule: &str) -> String {
        Rule::parse(rule).unwrap().check(&sample()).line()
    }

    #[test]
    fn rules_are_kept_or_broken() {
        for (rule, line) in [
            ("p95<200ms", "broken  p95<200ms  (950.27 ms)"),
            ("p50 <= 0.6s", "kept    p50 <= 0.6s  (500.22 ms)"),
            ("p99.9<2000", "kept    p99.9<2000  (1000.45 ms)"),
            (
                "service.p99.9 < 1ms",
                "broken  service.p99.9 < 1ms  (2.00 ms)",
            ),
            (
                "http.response_time.max<1s",
                "broken  http.response_time.max<1s  (nothing was measured)",
            ),
            ("error_rate<1%", "broken  error_rate<1%  (2.000 %)"),
            (
                "failure_rate<=0.01",
                "kept    failure_rate<=0.01  (1.000 %)",
            ),
            ("5xx_rate>0.5%", "kept    5xx_rate>0.5%  (1.000 %)"),
            ("requests>=1000", "kept    requests>=1000  (1000)"),
            ("rate>=99/s", "kept    rate>=99/s  (99.0/s)"),
            (
                "p50[GET /a<b]<600ms",
                "kept    p50[GET /a<b]<600ms  (500.22 ms)",
            ),
            (
                "p50[/x]<1s",
                "broken  p50[/x]<1s  (no route \"/x\"; the run has GET /a<b)",
            ),
        ] {
            assert_eq!(verdict(rule), line);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let why = |rule: &str| Rule::parse(rule).unwrap_err().why;
        assert!(why("p95").contains("no comparison"));
        assert!(why("p95<x").contains("a time such as"));
        assert!(why("p95<-1").contains("a time such as"));
        assert!(why("error_rate<1ms").contains("a share such as"));
        assert!(why("p950<1").contains("any percentile"));
        assert!(why("speed<1").contains("there are p50"));
        assert!(why("p95[a<1").contains("bracket"));
        assert!(why("tls.p95[a]<1").contains("by route"));
    }

    #[test]
    fn any_text_is_read_without_panic() {
        for text in [
            "", "<", "[", "]<1", "p.<1", ".<1", "..<1", "p9.9.9<1", "é<1", "p<", "[]<1",
            "p99.<1ms", "1.5<2",
        ] {
            let _ = Rule::parse(text);
        }
    }
}
