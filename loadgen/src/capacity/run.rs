//! Owns carrying a search out: it runs each trial as a load of its own, watches it, and hands what was seen to the
//! judge. Must not decide anything.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::interval::{Level, interval};
use super::judge::{Judged, Observed, Slice, Verdict, Why, hopeless, judge};
use super::report::{Answer, StepRow};
use super::search::{End, Next, Search, Settings, Trial};
use super::usl;
use crate::gate::{Part, Rule};
use crate::schedule::Schedule;
use crate::stats::histogram;
use crate::{LoadError, Model, Plan, Progress, Report};

/// How often a step sums up.
const TICK: Duration = Duration::from_millis(250);
/// Above this many requests a second a load is spread over all cores.
const ONE_THREAD_RATE: f64 = 20_000.0;

/// What to search, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Target, requests, timeout and the like; model, length and connections are the search's.
    pub plan: Plan,
    /// What a rate must keep.
    pub rules: Vec<Rule>,
    /// How to search.
    pub settings: Settings,
    /// Random (exponential) gaps instead of even ones.
    pub poisson: bool,
}

impl Options {
    /// Whether the search can be run.
    ///
    /// # Errors
    /// The first bound that is broken, with what to change.
    pub fn check(&self) -> Result<(), LoadError> {
        let settings = &self.settings;
        let bad = |text: String| Err(LoadError::Plan(text));
        if self.rules.is_empty() {
            return bad("no rule says what is too much".to_owned());
        }
        if !(settings.from > 0.0 && settings.from <= settings.max_rate) {
            return bad(format!(
                "the first rate {} is not above 0 and at most the highest, {}",
                settings.from, settings.max_rate
            ));
        }
        if !(0.001..=0.5).contains(&settings.tolerance) {
            return bad(format!(
                "tolerance {} is not 0.1 % to 50 %",
                settings.tolerance
            ));
        }
        if settings.step < Duration::from_secs(1) || settings.step > Duration::from_secs(3600) {
            return bad(format!("steps of {:?} are not 1 s to 1 h", settings.step));
        }
        if settings.budget < settings.step * 4 {
            return bad(format!(
                "{:?} is too short: a search takes at least four steps of {:?}",
                settings.budget, settings.step
            ));
        }
        let highest = Plan {
            model: Model::Rate {
                per_second: settings.max_rate,
                poisson: self.poisson,
            },
            duration: settings.step,
            connections: settings.connections,
            ..self.plan.clone()
        };
        highest.check()
    }
}

/// A rate and all that was seen at it.
struct Tried {
    rate: f64,
    trials: Vec<Observed>,
    judged: Judged,
}

/// Searches the highest rate that keeps the rules. `on_step` is told of each step when it is over; `progress` receives
/// the running step's, several times a second. A stop ends the search with what is known.
///
/// # Errors
/// As [`crate::run`], for the highest rate allowed, before anything is sent.
pub async fn run(
    options: Options,
    mut on_step: impl FnMut(&StepRow),
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
) -> Result<Answer, LoadError> {
    let settings = options.settings;
    options.check()?;
    let mut search = Search::new(settings);
    let mut tried: Vec<Tried> = Vec::new();
    let mut rows = Vec::new();
    let (began, started_ms) = (Instant::now(), now_ms());
    let end = loop {
        let trial = match search.next(began.elapsed()) {
            Next::Done(end) => break end,
            Next::Run(trial) => trial,
        };
        let paused = tokio::time::timeout(trial.pause, stop.cancelled()).await;
        if paused.is_ok() {
            search.stop();
            continue;
        }
        let number = rows.len() as u64;
        let observed = step(
            &options,
            &trial,
            number,
            search.latency_s(),
            &progress,
            &stop,
        )
        .await?;
        if stop.is_cancelled() {
            search.stop();
            continue;
        }
        let waited = observed.connections_ran_out;
        // Of a trial that the generator spoilt nothing is kept once a better one is at hand.
        let at = tried.iter().position(|t| t.rate == trial.rate);
        let at = at.unwrap_or_else(|| {
            tried.push(Tried {
                rate: trial.rate,
                trials: Vec::new(),
                judged: judge(&options.rules, &[]),
            });
            tried.len() - 1
        });
        let level = &mut tried[at];
        if spoilt(&level.judged) {
            level.trials.clear();
        }
        level.trials.push(observed);
        level.judged = judge(&options.rules, &level.trials);
        let judged = &level.judged;
        let latency_s = judged.latency.mean() / 1e6;
        search.record(&judged.verdict, judged.throughput, latency_s, waited);
        let row = StepRow::of(&trial, judged, level.trials.last());
        on_step(&row);
        rows.push(row);
    };
    tried.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    Ok(answer(
        &options,
        &search,
        end,
        &tried,
        rows,
        (started_ms, began.elapsed()),
    ))
}

/// A trial whose figures say nothing of the server, or one over too few connections.
fn spoilt(judged: &Judged) -> bool {
    matches!(
        judged.verdict,
        Verdict::Generator(_) | Verdict::Dead(_) | Verdict::Over(Why::Backlog)
    )
}

async fn step(
    options: &Options,
    trial: &Trial,
    number: u64,
    latency_s: f64,
    progress: &watch::Sender<Progress>,
    stop: &CancellationToken,
) -> Result<Observed, LoadError> {
    let plan = Plan {
        model: Model::Rate {
            per_second: trial.rate,
            poisson: options.poisson,
        },
        duration: trial.length,
        warm_up: Duration::ZERO,
        connections: trial.connections,
        // What still waits at the end of a step would only delay the next.
        drain: Some(Duration::ZERO),
        seed: options
            .plan
            .seed
            .wrapping_add(number.wrapping_mul(0x9e37_79b9)),
        keep_seconds: true,
        tick: TICK,
        shard: None,
        ..options.plan.clone()
    };
    let enough = stop.child_token();
    let (sender, mut seen) = watch::channel(Progress::default());
    let due = Schedule::of(&plan);
    let (cpu, began) = (cpu_s(), Instant::now());
    let running = crate::run(plan, sender, enough.clone());
    let watching = async {
        let (mut ended, mut cut_s) = (Vec::new(), f64::INFINITY);
        while seen.changed().await.is_ok() {
            let now = seen.borrow_and_update().clone();
            ended.push((now.elapsed_s, now.completed + now.errors));
            if cut_s.is_infinite() && hopeless(trial.rate, latency_s, &ended) {
                cut_s = now.elapsed_s;
                enough.cancel();
            }
            progress.send_replace(now);
        }
        cut_s
    };
    let (report, cut_s) = tokio::join!(running, watching);
    let report = report?;
    let threads = if trial.rate <= ONE_THREAD_RATE {
        1.0
    } else {
        std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64)
    };
    let busy = cpu.zip(cpu_s()).map_or(0.0, |(from, to)| {
        (to - from) / began.elapsed().as_secs_f64().max(1e-3) / threads
    });
    let until_s = cut_s.min(trial.length.as_secs_f64());
    let mut observed = observed(options, trial, &report, busy, until_s);
    if let Some(schedule) = due {
        count_due(&schedule, &mut observed.slices);
    }
    Ok(observed)
}

/// Replaces what should have fallen due on average by what did: Poisson arrivals come in clusters.
fn count_due(schedule: &Schedule, slices: &mut [Slice]) {
    let mut arrivals = schedule.arrivals().peekable();
    let mut end = 0.0;
    for slice in slices {
        end += slice.length_s;
        slice.due = 0.0;
        while arrivals.next_if(|due| due.as_secs_f64() < end).is_some() {
            slice.due += 1.0;
        }
    }
}

fn observed(
    options: &Options,
    trial: &Trial,
    report: &Report,
    busy: f64,
    until_s: f64,
) -> Observed {
    let inside = report
        .per_second
        .iter()
        .filter(|s| s.at_s + s.length_s <= until_s + 0.02 && s.length_s > TICK.as_secs_f64() / 2.0);
    let (empty, none) = (histogram(), Default::default());
    let part = Part {
        latency: &empty,
        ended: 0,
        failed: 0,
        status: &none,
    };
    let whole = options.rules.iter().map(|rule| match rule.of_part(&part) {
        Some(_) => None,
        None => rule.of_whole(report),
    });
    let kinds: Vec<String> = report
        .errors
        .iter()
        .map(|(kind, n)| format!("{kind}: {n}"))
        .collect();
    let waited = report.waited_for_connection as f64 / report.requests.max(1) as f64;
    Observed {
        rate: trial.rate,
        slices: inside.map(Slice::of).collect(),
        service_us: report.service_time.mean(),
        late_p99_us: report.late_p99_us,
        busy,
        local_errors: report.errors.get("local").copied().unwrap_or_default(),
        connections_ran_out: waited > 0.01 || report.unsent > 0,
        whole: whole.collect(),
        dead: (report.responses == 0).then(|| {
            if kinds.is_empty() {
                "no request was answered in time".to_owned()
            } else {
                kinds.join(", ")
            }
        }),
        started_ms: report.started_ms,
    }
}

fn answer(
    options: &Options,
    search: &Search,
    end: End,
    tried: &[Tried],
    rows: Vec<StepRow>,
    (started_ms, elapsed): (i64, Duration),
) -> Answer {
    let good: Vec<&Tried> = tried
        .iter()
        .filter(|t| !matches!(t.judged.verdict, Verdict::Generator(_) | Verdict::Dead(_)))
        .collect();
    let levels: Vec<Level<'_>> = good
        .iter()
        .map(|t| Level {
            rate: t.rate,
            trials: &t.trials,
            judged: &t.judged,
        })
        .collect();
    let (capacity, too_much) = search.around();
    let mut found = interval(&options.rules, &levels);
    if let Some(lo) = capacity {
        found.0 = found.0.min(lo);
    }
    found.1 = found.1.max(too_much.unwrap_or(f64::INFINITY));
    let points: Vec<usl::Point> = good
        .iter()
        .map(|t| usl::Point {
            concurrency: t.judged.concurrency,
            throughput: t.judged.throughput,
        })
        .collect();
    let beyond = tried
        .iter()
        .find(|t| Some(t.rate) == too_much)
        .map(|t| t.judged.clone());
    Answer {
        target: options.plan.target.clone(),
        run_id: options.plan.run_id.clone(),
        rules: options.rules.iter().map(|r| r.text().to_owned()).collect(),
        end,
        capacity,
        interval: found,
        beyond: too_much.zip(beyond),
        law: usl::fit(&points),
        rows,
        resources: None,
        started_ms,
        elapsed_s: elapsed.as_secs_f64(),
    }
}

/// CPU time of this process, seconds; none where it cannot be had.
fn cpu_s() -> Option<f64> {
    #[cfg(target_os = "linux")]
    {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(t.tv_sec as f64 + t.tv_nsec as f64 / 1e9)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
