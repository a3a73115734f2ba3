//! Owns the comparison of a run with an earlier one: better, worse or no evidence, per route and percentile, with how
//! much and how sure. Pure: same reports, same answer.

mod shift;
#[cfg(test)]
mod simulated;
mod student;
#[cfg(test)]
mod tests;

use crate::report::{Quantiles, Report, RouteSecond, Second};
use shift::{Robust, Shift, differences, location, shift, weights};

/// The chance of a false alarm accepted in a whole comparison.
pub const ALPHA: f64 = 0.05;
/// The share of it that the level of the whole run has; the rest is for its percentiles and the routes.
const OF_LEVEL: f64 = 0.85;
/// Changes smaller than this are not reported as such: 1.2 %. A level that wanders from run to run moves by so much.
pub const LEAST: f64 = 0.012;
/// Fewest seconds of each run.
const SECONDS: usize = 10;
/// The name of what all percentiles say together.
pub const LEVEL: &str = "level";

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Faster than the baseline.
    Better,
    /// Slower than the baseline.
    Worse,
    /// Neither was shown.
    NoEvidence,
}

impl Verdict {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::NoEvidence => "no evidence",
        }
    }
}

/// One percentile of one route, or of the whole run, against the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The route; none for the whole run.
    pub route: Option<String>,
    /// `p50`, `p95`, `p99`, or [`LEVEL`]: mean and percentiles together, each weighed by how little it varies.
    pub metric: &'static str,
    /// The baseline's typical second, microseconds.
    pub before_us: f64,
    /// This run's typical second, microseconds.
    pub after_us: f64,
    /// Relative change: 0.02 is 2 % slower.
    pub change: f64,
    /// 95 % interval of the change.
    pub interval: (f64, f64),
    /// Chance of such a change between runs that do not differ, corrected for the number of comparisons.
    pub p: f64,
    /// What follows.
    pub verdict: Verdict,
}

impl Change {
    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{:11}  {} {}  {:+.1} % ({:+.1} to {:+.1} %)  {:.2} ms, was {:.2} ms",
            self.verdict.as_str(),
            self.route.as_deref().unwrap_or("all requests"),
            self.metric,
            self.change * 100.0,
            self.interval.0 * 100.0,
            self.interval.1 * 100.0,
            self.after_us / 1e3,
            self.before_us / 1e3
        )
    }
}

/// A measure of the whole run or of a route: its seconds in both runs, as logarithms of microseconds.
#[derive(Debug, Clone)]
struct Measure {
    name: &'static str,
    before: Vec<f64>,
    after: Vec<f64>,
}

/// What is measured of one route, or of the whole run.
#[derive(Debug, Clone)]
struct Group {
    route: Option<String>,
    measures: Vec<Measure>,
}

/// Those that have a verdict of their own; the others count for the level only.
const TOLD: [&str; 3] = ["p50", "p95", "p99"];

/// Compares a run with its baseline: the whole, and each route that both have, at their level, p50, p95 and p99.
///
/// # Errors
/// When either has fewer than 10 measured seconds in which something was answered.
pub fn compare(before: &Report, after: &Report) -> Result<Vec<Change>, String> {
    for run in [(before, "the baseline"), (after, "this run")] {
        let seconds = measured(run.0).filter(|s| s.latency.count > 0).count();
        if seconds < SECONDS {
            return Err(format!(
                "{} has {seconds} measured seconds with percentiles; a comparison needs {SECONDS}",
                run.1
            ));
        }
    }
    type Of = fn(&Quantiles) -> f64;
    let of_run: [(&'static str, Of); 7] = [
        ("mean", |q| q.mean),
        ("p25", |q| q.p25 as f64),
        ("p50", |q| q.p50 as f64),
        ("p75", |q| q.p75 as f64),
        ("p90", |q| q.p90 as f64),
        ("p95", |q| q.p95 as f64),
        ("p99", |q| q.p99 as f64),
    ];
    let whole = of_run.map(|(name, get)| {
        let seconds = |r: &Report| -> Vec<f64> {
            let answered = measured(r).filter(|s| s.latency.count > 0);
            answered.map(|s| log(get(&s.latency))).collect()
        };
        Measure {
            name,
            before: seconds(before),
            after: seconds(after),
        }
    });
    let known = |m: &Measure| {
        [&m.before, &m.after]
            .iter()
            .all(|v| v.iter().any(|log| *log > 0.0))
    };
    let mut groups = vec![Group {
        route: None,
        // A run stored by an earlier version has no p25.
        measures: whole.into_iter().filter(known).collect(),
    }];
    let both = before.routes.keys();
    for name in both.filter(|n| after.routes.contains_key(*n)) {
        groups.extend(route(before, after, name));
    }
    Ok(judge(&groups))
}

/// None when either run has too few seconds in which the route was answered.
fn route(before: &Report, after: &Report, name: &str) -> Option<Group> {
    type Of = fn(&RouteSecond) -> u64;
    let of_route: [(&'static str, Of); 3] =
        [("p50", |q| q.p50), ("p95", |q| q.p95), ("p99", |q| q.p99)];
    let seconds = |r: &Report, get: Of| -> Vec<f64> {
        let Some(i) = r.routes.keys().position(|n| n == name) else {
            return Vec::new();
        };
        let of = measured(r).filter_map(|s| s.routes.get(i));
        let answered = of.filter(|s| s.count > 0);
        answered.map(|s| log(get(s) as f64)).collect()
    };
    let measures = of_route.map(|(name, get)| Measure {
        name,
        before: seconds(before, get),
        after: seconds(after, get),
    });
    let enough = measures
        .iter()
        .all(|m| m.before.len() >= SECONDS && m.after.len() >= SECONDS);
    enough.then(|| Group {
        route: Some(name.to_owned()),
        measures: measures.into(),
    })
}

fn log(us: f64) -> f64 {
    us.max(1.0).ln()
}

/// Whole seconds of the measured part.
fn measured(r: &Report) -> impl Iterator<Item = &Second> {
    r.per_second
        .iter()
        .filter(|s| !s.warm_up && s.length_s > 0.9)
}

/// The verdicts: of each group its level, then its percentiles. The chance that any of them is a false alarm is at most
/// [`ALPHA`]: the first group's level is tested at a share of it, all others (Holm) at the rest, and at the whole of it
/// once that level has changed (Bretz, Maurer, Brannath, Posch, "A graphical approach to sequentially rejective multiple
/// test procedures", Statistics in Medicine 28, 2009).
fn judge(groups: &[Group]) -> Vec<Change> {
    let mut all: Vec<Change> = groups.iter().flat_map(changes).collect();
    let Some((level, others)) = all.split_first_mut() else {
        return all;
    };
    level.p = (level.p / OF_LEVEL).min(1.0);
    let mut order: Vec<usize> = (0..others.len()).collect();
    order.sort_by(|a, b| others[*a].p.total_cmp(&others[*b].p));
    let mut worst = 0.0_f64;
    for (rank, i) in order.iter().enumerate() {
        let holm = others[*i].p * (order.len() - rank) as f64;
        let alone = holm / (1.0 - OF_LEVEL);
        worst = worst.max(alone.min(holm.max(level.p)).min(1.0));
        others[*i].p = worst;
    }
    for c in &mut all {
        c.verdict = match c.change {
            x if c.p > ALPHA || x.abs() < LEAST => Verdict::NoEvidence,
            x if x > 0.0 => Verdict::Worse,
            _ => Verdict::Better,
        };
    }
    all
}

/// A group's level and percentiles, not yet corrected for their number.
fn changes(group: &Group) -> Vec<Change> {
    let differ: Vec<Vec<f64>> = group
        .measures
        .iter()
        .map(|m| differences(&m.before, &m.after))
        .collect();
    let weights = weights(&differ);
    let together = |of: &[&[f64]]| -> Vec<f64> {
        let n = of.iter().map(|v| v.len()).min().unwrap_or_default();
        (0..n)
            .map(|t| of.iter().zip(&weights).map(|(v, w)| w * v[t]).sum())
            .collect()
    };
    let slices =
        |get: fn(&Measure) -> &[f64]| -> Vec<&[f64]> { group.measures.iter().map(get).collect() };
    let joined: Vec<&[f64]> = differ.iter().map(Vec::as_slice).collect();
    let level = Measure {
        name: LEVEL,
        before: together(&slices(|m| &m.before)),
        after: together(&slices(|m| &m.after)),
    };
    let found = shift(&together(&joined), Robust::Redescending);
    let apart = found.apart;
    let mut out = vec![change(group, &level, found.against(apart))];
    for (measure, differ) in group.measures.iter().zip(&differ) {
        if TOLD.contains(&measure.name) {
            let found = shift(differ, Robust::Bounded);
            out.push(change(
                group,
                measure,
                found.against(found.apart.max(apart)),
            ));
        }
    }
    out
}

fn change(group: &Group, measure: &Measure, found: Shift) -> Change {
    let typical = |v: &[f64]| location(v, Robust::Bounded).0;
    let middle = (typical(&measure.before) + typical(&measure.after)) / 2.0;
    let Shift { by, wide, p, .. } = found;
    Change {
        route: group.route.clone(),
        metric: measure.name,
        before_us: (middle - by / 2.0).exp(),
        after_us: (middle + by / 2.0).exp(),
        change: by.exp_m1(),
        interval: ((by - wide).exp_m1(), (by + wide).exp_m1()),
        p,
        verdict: Verdict::NoEvidence,
    }
}
