//! Owns two runs of one plan or script at the same time, one against each of two targets, so that their seconds can be
//! compared in pairs ("duet benchmarking": Bulej, Horký, Tůma, Farquet, Prokopec, ICPE 2020). Must not know how pairs are
//! compared.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures_util::TryFutureExt as _;
use tokio::sync::{Barrier, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::LoadError;
use crate::artillery::{self, Event, Results, RunError, RunOptions, Script};
use crate::engine::Progress;
use crate::gate::{self, Bad, Check};
use crate::plan::Plan;
use crate::report::Report;

/// A run beside it with more requests in a hundred that failed is nothing to compare with.
const FAILED: f64 = 0.01;

/// What a plan has that is run beside another.
#[derive(Debug, Clone)]
pub struct Beside {
    start: Arc<Start>,
    /// Its requests fall due between those of the other.
    between: bool,
}

/// An instant that two runs share: when both are ready.
#[derive(Debug)]
struct Start {
    ready: Barrier,
    at: OnceLock<Instant>,
}

impl Beside {
    /// What two runs have that begin together, that of the second `between` the requests of the first.
    fn pair() -> [Beside; 2] {
        let start = Arc::new(Start {
            ready: Barrier::new(2),
            at: OnceLock::new(),
        });
        [false, true].map(|between| Beside {
            start: Arc::clone(&start),
            between,
        })
    }

    /// Waits for the run beside it to be ready, if there is one, and begins.
    pub(crate) async fn begin(beside: Option<&Beside>) -> Instant {
        let Some(Beside { start, .. }) = beside else {
            return Instant::now();
        };
        start.ready.wait().await;
        *start.at.get_or_init(Instant::now)
    }

    /// By which part of a gap what falls due does so later than that of the other.
    pub(crate) fn phase(beside: Option<&Beside>) -> f64 {
        match beside {
            Some(Beside { between: true, .. }) => 0.5,
            _ => 0.0,
        }
    }
}

impl Plan {
    /// Waits for the run beside it to be ready, if there is one, and begins.
    pub(crate) async fn begin(&self) -> Instant {
        Beside::begin(self.beside.as_ref()).await
    }

    /// By which part of a gap its requests fall due later than those of the other.
    pub(crate) fn phase(&self) -> f64 {
        Beside::phase(self.beside.as_ref())
    }

    /// The same plan against another target, to be run beside this one: the same requests in the same order. Its run has
    /// a name of its own.
    pub fn beside(&self, target: &str) -> Plan {
        Plan {
            target: target.to_owned(),
            run_id: format!("{}-beside", self.run_id),
            ..self.clone()
        }
    }
}

/// Runs both plans from the same instant on, each with its own `progress`; see [`crate::run`]. Of open loads the requests
/// of the second fall due in the middle between two of the first; with Poisson arrivals they have gaps of their own. So
/// neither server is always asked just after the other. Both reports say what they ran beside.
///
/// # Errors
/// [`LoadError`] before the first request only, of either.
pub async fn run(
    plan: Plan,
    beside: Plan,
    progress: [watch::Sender<Progress>; 2],
    stop: CancellationToken,
) -> Result<(Report, Report), LoadError> {
    #[cfg(target_os = "linux")]
    let files = crate::fast::enough_files(&Plan {
        connections: plan.connections + beside.connections,
        ..plan.clone()
    })?;
    #[cfg(not(target_os = "linux"))]
    let files: Option<String> = None;
    let with = |plan: Plan, beside| Plan {
        beside: Some(beside),
        ..plan
    };
    let [of_first, of_second] = progress;
    let [one, other] = Beside::pair();
    let first = crate::run(with(plan, one), of_first, stop.clone());
    let second = crate::run(with(beside, other), of_second, stop);
    let (mut first, mut second) = tokio::try_join!(first, second)?;
    note(&mut first, &mut second);
    first.reasons.extend(files);
    Ok((first, second))
}

/// Says in both reports what they ran beside.
fn note(first: &mut Report, second: &mut Report) {
    let beside = |of: &Report| format!("at the same time as run {} of {}", of.run_id, of.target);
    let notes = (beside(second), beside(first));
    first.reasons.push(notes.0);
    second.reasons.push(notes.1);
}

/// A script, how it is run, and who hears what happens.
pub type Scripted = (Script, RunOptions, mpsc::Sender<Event>);

/// Runs a script against two targets from the same instant on, once `before` has run against both; see [`run`]. Users of
/// the second arrive in the middle between two of the first, judged by the first two; the same user runs the same
/// scenario on both.
///
/// # Errors
/// [`RunError`] of either, when no user was started.
pub async fn scripts(
    [first, second]: [Scripted; 2],
    stop: CancellationToken,
) -> Result<(Results, Results), RunError> {
    for (script, options, _) in [&first, &second] {
        artillery::check_target(script, options.own_target)?;
    }
    let target = second.0.target_url();
    let with = |(script, options, events): Scripted, beside, stop| {
        let options = RunOptions {
            beside: Some(beside),
            ..options
        };
        artillery::run(script, options, events, stop)
    };
    let [one, other] = Beside::pair();
    let first = with(first, one, stop.clone());
    let named = |e| match e {
        RunError::Before(why) => RunError::Before(format!("{why}, against {target} beside")),
        other => other,
    };
    let second = with(second, other, stop).map_err(named);
    let (mut first, mut second) = tokio::try_join!(first, second)?;
    note(&mut first.run, &mut second.run);
    Ok((first, second))
}

/// The only baseline of a run, if both began within a second of each other, so that their seconds are pairs: what
/// disturbs a machine disturbs both.
pub fn of<'a>(baselines: &[&'a Report], run: &Report) -> Option<&'a Report> {
    match baselines {
        [one] if one.started_ms.abs_diff(run.started_ms) <= 1000 => Some(*one),
        _ => None,
    }
}

/// Share of what was planned; 0 of nothing.
fn share(run: &Report, bad: Bad) -> f64 {
    gate::share_of(run, bad).unwrap_or(0.0)
}

/// The first kind of answers, redirects or refusals (300 to 399, 400 to 499), of which two runs have shares of what was
/// planned that differ by more than 1 %; its first digit, and the shares.
fn unlike(run: &Report, beside: &Report) -> Option<(u16, f64, f64)> {
    let shares = [3, 4].map(|kind| {
        let of = |run| share(run, Bad::Class(kind));
        (kind, of(run), of(beside))
    });
    let mut unlike = shares.into_iter();
    unlike.find(|(_, ours, theirs)| (ours - theirs).abs() > FAILED)
}

/// What must hold before a run is compared with the one beside it: that one is valid, at most 1 % of its requests had no
/// response, and it answered with a status of 500 and above no more often than this run, or by 1 % at most; and both were
/// redirected and refused equally often, to 1 %: an answer of another kind takes another time.
pub fn comparable(run: &Report, beside: &Report) -> Check {
    let valid = gate::validity(beside);
    let failed = share(beside, Bad::Any);
    let fails = share(beside, Bad::Failed) > FAILED || failed > share(run, Bad::Any) + FAILED;
    let seen = if valid.passed && fails {
        format!("{:.1} % of its requests failed", 100.0 * failed)
    } else {
        valid.seen
    };
    let good = valid.passed && !fails;
    if good && let Some((kind, ours, theirs)) = unlike(run, beside) {
        let seen = format!(
            "{:.1} % of its answers are {kind}xx, {:.1} % of this run's; does --beside name the same path?",
            100.0 * theirs,
            100.0 * ours
        );
        return Check::new("beside: both answer alike", false, seen);
    }
    Check::new(format!("beside: {}", valid.rule), good, seen)
}

/// Whether a run fails no more often than the one beside it: a request in a hundred, at most.
pub fn fails_no_more(run: &Report, beside: &Report) -> Check {
    let (this, other) = (share(run, Bad::Any), share(beside, Bad::Any));
    Check::new(
        "no more failures than the run beside it",
        this <= other + FAILED,
        format!("{:.2} %, beside {:.2} %", 100.0 * this, 100.0 * other),
    )
}

impl Report {
    /// The run in a few lines, for the text of the one that it ran beside.
    pub fn brief(&self) -> String {
        let at = |q| self.latency.value_at_quantile(q) as f64 / 1e3;
        let mut out = format!(
            "beside     run {} against {}\n           p50 {:.2} ms   p95 {:.2} ms   p99 {:.2} ms   {:.1}/s   errors {}\n",
            self.run_id,
            self.target,
            at(0.5),
            at(0.95),
            at(0.99),
            self.achieved_rate(),
            self.error_count()
        );
        let status = self.status.iter().filter(|(s, _)| **s >= 400);
        let kinds = self.errors.iter().map(|(k, n)| format!("{k}: {n}"));
        let more: Vec<String> = status
            .map(|(s, n)| format!("{s}: {n}"))
            .chain(kinds)
            .collect();
        if !more.is_empty() {
            out += &format!("           {}\n", more.join("  "));
        }
        let verdict = if self.valid { "valid" } else { "INVALID" };
        out += &format!("           {verdict}; {:.1} s measured\n", self.duration_s);
        for reason in &self.reasons {
            out += &format!("             {reason}\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// A run of so many requests, of which some had no response and some were answered with 503.
    fn run(planned: u64, lost: u64, server: u64) -> Report {
        let mut run = sample();
        run.planned = planned;
        run.errors = [("timeout".to_owned(), lost)].into();
        run.status = [(200, planned - lost - server), (503, server)].into();
        run
    }

    #[test]
    fn a_run_that_fails_is_nothing_to_compare_with() {
        let good = run(1000, 0, 0);
        for (beside, why) in [
            (run(1000, 10, 0), None),
            (run(1000, 11, 0), Some("1.1 % of its requests failed")),
            (run(1000, 0, 11), Some("1.1 % of its requests failed")),
            (run(1000, 0, 1000), Some("100.0 % of its requests failed")),
            (run(1000, 5, 5), None),
        ] {
            let check = comparable(&good, &beside);
            assert_eq!(check.rule, "beside: the run is valid");
            assert_eq!(check.passed, why.is_none(), "{check:?}");
            assert!(why.is_none_or(|why| check.seen == why), "{check:?}");
        }
        // A path that answers 503 on both sides can be compared; requests without a response cannot.
        assert!(comparable(&run(1000, 0, 1000), &run(1000, 0, 1000)).passed);
        assert!(!comparable(&run(1000, 500, 0), &run(1000, 500, 0)).passed);
        let mut late = run(1000, 0, 0);
        let mut missing = run(1000, 0, 0);
        missing.status = [(200, 989), (404, 11)].into();
        for (one, other) in [(&good, &missing), (&missing, &good)] {
            let check = comparable(one, other);
            assert_eq!(check.rule, "beside: both answer alike");
            assert!(!check.passed && check.seen.contains("1.1 %"), "{check:?}");
        }
        assert!(comparable(&missing, &missing).passed);
        late.valid = false;
        late.reasons = vec!["the generator was late".to_owned()];
        let check = comparable(&good, &late);
        assert_eq!(
            (check.passed, &check.seen[..]),
            (false, "the generator was late")
        );
    }

    #[test]
    fn a_run_that_fails_more_often_breaks_its_rule() {
        for (failing, kept) in [(0, true), (10, true), (11, false), (1000, false)] {
            let check = fails_no_more(&run(1000, 0, failing), &run(1000, 0, 0));
            assert_eq!(check.passed, kept, "{check:?}");
        }
        assert!(fails_no_more(&run(1000, 0, 20), &run(1000, 0, 10)).passed);
    }

    #[test]
    fn the_plan_beside_differs_by_its_target_and_name() {
        let plan = Plan {
            run_id: "r".to_owned(),
            seed: 7,
            ..Plan::new("http://127.0.0.1:1").unwrap()
        };
        let beside = plan.beside("http://127.0.0.1:2");
        assert_eq!(
            (&beside.target[..], &beside.run_id[..]),
            ("http://127.0.0.1:2", "r-beside")
        );
        assert_eq!((beside.seed, &beside.requests), (7, &plan.requests));
        assert!(plan.beside.is_none() && plan.phase() == 0.0);
    }
}
