//! Owns the comparison of a run with earlier ones: better, worse or no evidence, per route and percentile, with how
//! much and how sure. Pure: same reports, same answer.

#[cfg(test)]
mod at_once;
mod pairs;
mod shift;
#[cfg(test)]
mod simulated;
mod student;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod ways;

use crate::report::{Quantiles, Report, RouteSecond, Second};
use pairs::{Seconds, measured};
use shift::{Course, DISTURBED, Robust, SWINGS, Shift, aligned, course, location, shift, weights};

/// The chance of a false alarm accepted in a whole comparison.
pub const ALPHA: f64 = 0.05;
/// The share of it that the level of the whole run has; the rest is for its percentiles and the routes.
const OF_LEVEL: f64 = 0.85;
/// Changes smaller than this are not reported as such: 1.2 %. A level that wanders from run to run moves by so much.
pub const LEAST: f64 = 0.012;
/// Fewest seconds of each run.
pub const SECONDS: usize = 10;
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

/// One percentile of one route, or of the whole run, against the baselines.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The route; none for the whole run.
    pub route: Option<String>,
    /// With so many baselines; of a route, those that have it.
    pub baselines: usize,
    /// The two runs took place at the same time, and their seconds were compared in pairs.
    pub paired: bool,
    /// `p50`, `p95`, `p99`, or [`LEVEL`]: mean and percentiles together, each weighed by how little it varies.
    pub metric: &'static str,
    /// The baselines' typical second, microseconds.
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

/// What a run is compared with, in words: `the baseline`, `the mean of 3 baselines`, `the run beside it`.
pub fn against(changes: &[Change]) -> String {
    changes.first().map_or_else(
        || named(1, false),
        |change| named(change.baselines, change.paired),
    )
}

/// So many baselines, in words; one that took place at the same time is a run beside it.
pub fn named(baselines: usize, paired: bool) -> String {
    match baselines {
        0 | 1 if paired => "the run beside it".to_owned(),
        0 | 1 => "the baseline".to_owned(),
        several => format!("the mean of {several} baselines"),
    }
}

/// A measure of the whole run or of a route: its seconds in each baseline and in the run, as logarithms of microseconds.
#[derive(Debug, Clone)]
struct Measure {
    name: &'static str,
    before: Vec<Vec<f64>>,
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

/// Whether runs can be baselines together; each with the name it has for the user.
///
/// # Errors
/// Names the baseline with fewer than 10 measured seconds in which something was answered, and those that are one run.
pub fn fit(baselines: &[(String, &Report)]) -> Result<(), String> {
    for (i, (name, run)) in baselines.iter().enumerate() {
        enough(run, name)?;
        let same = |other: &&(String, &Report)| {
            (&other.1.run_id, other.1.started_ms) == (&run.run_id, run.started_ms)
        };
        if let Some((other, _)) = baselines[..i].iter().find(same) {
            return Err(format!(
                "{other} and {name} are the same run ({}); give each baseline once",
                run.run_id
            ));
        }
    }
    Ok(())
}

fn enough(run: &Report, name: &str) -> Result<(), String> {
    let seconds = measured(run).filter(|s| s.latency.count > 0).count();
    if seconds < SECONDS {
        return Err(format!(
            "{name} has {seconds} measured seconds with percentiles; a comparison needs {SECONDS}"
        ));
    }
    Ok(())
}

/// Compares a run with its baselines: the whole, and each route that it and a baseline have, at their level, p50, p95 and
/// p99. With one baseline the error is what the two runs say of themselves; with several, what they differ by from each
/// other counts, too. The order of the baselines does not matter. A run and one baseline that took place at the same time
/// are compared in pairs of seconds of one time.
///
/// # Errors
/// When there is no baseline, or a run has fewer than 10 measured seconds in which something was answered; when runs at the
/// same time share fewer than 10.
pub fn compare(baselines: &[&Report], after: &Report) -> Result<Vec<Change>, String> {
    if baselines.is_empty() {
        return Err("there is no baseline".to_owned());
    }
    let all = Seconds::of(baselines, after);
    for run in baselines {
        enough(run, &named(1, all.paired))?;
    }
    enough(after, "this run")?;
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
        let answered = |_, s: &Second| (s.latency.count > 0).then(|| log(get(&s.latency)));
        let (after, before) = all.series(answered);
        Measure {
            name,
            before,
            after,
        }
    });
    if all.paired && whole[0].after.len() < SECONDS {
        return Err(format!(
            "this run and the run beside it share {} measured seconds with percentiles; a comparison needs {SECONDS}",
            whole[0].after.len()
        ));
    }
    let known = |m: &Measure| {
        let mut runs = m.before.iter().chain([&m.after]);
        runs.all(|v| v.iter().any(|log| *log > 0.0))
    };
    let mut groups = vec![Group {
        route: None,
        // A run stored by an earlier version has no p25.
        measures: whole.into_iter().filter(known).collect(),
    }];
    groups.extend(
        after
            .routes
            .keys()
            .filter_map(|name| route(&all, baselines, after, name)),
    );
    let mut changes = judge(&groups);
    changes.iter_mut().for_each(|c| c.paired = all.paired);
    Ok(changes)
}

/// A route, with the baselines that have it. None when the run or every baseline has too few seconds in which it was
/// answered.
fn route(all: &Seconds, baselines: &[&Report], after: &Report, name: &str) -> Option<Group> {
    type Of = fn(&RouteSecond) -> u64;
    let of_route: [(&'static str, Of); 3] =
        [("p50", |q| q.p50), ("p95", |q| q.p95), ("p99", |q| q.p99)];
    let place = |r: &Report| r.routes.keys().position(|n| n == name);
    let places: Vec<Option<usize>> = std::iter::once(place(after))
        .chain(baselines.iter().map(|r| place(r)))
        .collect();
    let measures = of_route.map(|(name, get)| {
        let (after, mut before) = all.series(|run, s| {
            let of = s.routes.get(places[run]?)?;
            (of.count > 0).then(|| log(get(of) as f64))
        });
        before.retain(|seconds| seconds.len() >= SECONDS);
        (after.len() >= SECONDS && !before.is_empty()).then_some(Measure {
            name,
            before,
            after,
        })
    });
    Some(Group {
        route: Some(name.to_owned()),
        measures: measures.into_iter().collect::<Option<_>>()?,
    })
}

fn log(us: f64) -> f64 {
    us.max(1.0).ln()
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
    // By measure, the run and its baselines.
    let all: Vec<Vec<Vec<f64>>> = group
        .measures
        .iter()
        .map(|m| {
            let runs = std::iter::once(&m.after).chain(&m.before);
            aligned(&runs.map(Vec::as_slice).collect::<Vec<_>>())
        })
        .collect();
    let courses: Vec<Course> = all.iter().map(|runs| course(runs)).collect();
    let mut swings: Vec<f64> = courses.iter().map(|c| c.swings).collect();
    swings.sort_by(f64::total_cmp);
    let disturbed = courses.iter().map(|c| c.disturbed).sum::<f64>() / courses.len() as f64;
    let smooth = disturbed > DISTURBED && swings.get(swings.len() / 2).is_some_and(|s| *s < SWINGS);
    let apart: Vec<Vec<Vec<f64>>> = all
        .iter()
        .zip(&courses)
        .map(|(runs, c)| c.less(runs, smooth))
        .collect();
    let influences = |runs: &Vec<Vec<f64>>| -> Vec<f64> {
        runs.iter()
            .flat_map(|r| location(r, Robust::Redescending).1)
            .collect()
    };
    let weights = weights(&apart.iter().map(influences).collect::<Vec<_>>());
    let together = |of: &[Vec<Vec<f64>>], run: usize| -> Vec<f64> {
        let n = of.iter().map(|m| m[run].len()).min().unwrap_or_default();
        (0..n)
            .map(|t| of.iter().zip(&weights).map(|(m, w)| w * m[run][t]).sum())
            .collect()
    };
    let runs = 0..all.first().map_or(0, Vec::len);
    let level = Measure {
        name: LEVEL,
        after: together(&all, 0),
        before: runs.clone().skip(1).map(|i| together(&all, i)).collect(),
    };
    let joined: Vec<Vec<f64>> = runs.map(|i| together(&apart, i)).collect();
    let found = shift(&joined, Robust::Redescending);
    let drifts = found.apart;
    let mut out = vec![change(group, &level, found.against(drifts))];
    for (measure, apart) in group.measures.iter().zip(&apart) {
        if TOLD.contains(&measure.name) {
            let found = shift(apart, Robust::Bounded);
            out.push(change(
                group,
                measure,
                found.against(found.apart.max(drifts)),
            ));
        }
    }
    out
}

fn change(group: &Group, measure: &Measure, found: Shift) -> Change {
    let typical = |v: &Vec<f64>| location(v, Robust::Bounded).0;
    let before = measure.before.iter().map(typical).sum::<f64>() / measure.before.len() as f64;
    let middle = (before + typical(&measure.after)) / 2.0;
    let Shift { by, wide, p, .. } = found;
    Change {
        route: group.route.clone(),
        baselines: measure.before.len(),
        paired: false,
        metric: measure.name,
        before_us: (middle - by / 2.0).exp(),
        after_us: (middle + by / 2.0).exp(),
        change: by.exp_m1(),
        interval: ((by - wide).exp_m1(), (by + wide).exp_m1()),
        p,
        verdict: Verdict::NoEvidence,
    }
}
