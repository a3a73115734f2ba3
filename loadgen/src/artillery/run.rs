//! Owns a run of a script: users arrive when the phases say, are counted, and a recorder sums up each second and each
//! ten seconds. Must not know what a user does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::Labels;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::arrivals::{self, Due};
use super::net::{Dialers, Pool};
use super::report::{self, Period, Results};
use super::routes::Routes;
use super::script::{Hooks, Scenario, Script};
use super::template::{self, as_text};
use super::vu::{Shared, Vu, lock, most_requests};
use super::{config, ensure};
use crate::LoadError;
use crate::awake::Awake;
use crate::beside::Beside;
use crate::conn::Target;
use crate::engine::wall_clock;
use crate::fast::reactor::{self, Ended, sleep_until};
use crate::fast::{lost_thread, no_thread, spare_cores};
use crate::plan::{Engine, MAX_RATE_ELSEWHERE, trace_key};
use crate::report::Own;
use crate::schedule::mix;
use crate::stats::{Stats, micros};

/// The most users at work at once, whatever the script says.
const MAX_USERS: u64 = 50_000;
/// The most threads they are on.
const MAX_THREADS: usize = 8;

/// What the command line adds to a script.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Sent in `x-nines-run-id`, put on every sample, and `$testId` in templates.
    pub run_id: String,
    /// Decides Poisson gaps, and which user runs which scenario.
    pub seed: u64,
    /// The statement that a target elsewhere belongs to the user.
    pub own_target: bool,
    /// Keep each second's whole histogram, for a heat map or an HdrHistogram log.
    pub keep_seconds: bool,
    /// Hold [`Awake`] as long as the run lasts.
    pub keep_awake: bool,
    /// Set by [`crate::beside::scripts`]: it is run beside another.
    pub beside: Option<Beside>,
}

/// What happens during a run.
#[derive(Debug)]
pub enum Event {
    /// A phase begins.
    PhaseStarted(PhaseShown),
    /// A phase is over.
    PhaseCompleted(PhaseShown),
    /// Ten seconds are over.
    Period(Box<Period>),
    /// The script, or an expectation, has something to say.
    Log(String),
    /// The script's JavaScript complains, or an error of it.
    Complaint(String),
    /// This moment's samples: labels, and (milliseconds since 1970, value). Once a second.
    Series(Vec<(Labels, Vec<(i64, f64)>)>),
}

/// A phase as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseShown {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// From 0.
    pub index: usize,
    /// How long it lasts.
    pub length: Duration,
}

/// Why a run did not start or did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The run may not start.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `before` failed, so no user was started.
    #[error("run before: {0}")]
    Before(String),
}

/// Runs a script to its end, or until `stop`. Events that nobody takes are dropped and counted.
///
/// # Errors
/// [`RunError`] when no user was started; what goes wrong afterwards is in the results.
pub async fn run(
    mut script: Script,
    options: RunOptions,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) -> Result<Results, RunError> {
    let confined = check_target(&script, options.own_target)?;
    let _awake = options.keep_awake.then(Awake::hold).transpose()?;
    let start = Instant::now();
    let dialers = Arc::new(Dialers::new(script.insecure));
    let pool = script.http.pool.map(|n| Arc::new(Pool::new(n, &dialers)));
    let stop = stop.child_token();
    let _guard = stop.clone().drop_guard();
    let routes = Routes::number(&mut script);
    let stats = Stats::new(Duration::ZERO, routes.names.len());
    let mut shared = Shared {
        target_url: Url::parse(&script.target).ok(),
        http_target: Url::parse(&script.target_url()).ok(),
        trace_key: trace_key(&options.run_id),
        run_field: run_field(&options.run_id),
        pool,
        dialers,
        metrics: Mutex::default(),
        stats: Mutex::new(stats.keep_seconds(options.keep_seconds)),
        routes,
        start,
        wall_ms: wall_clock(start).as_millis() as i64,
        run_id: options.run_id,
        events,
        lost_events: AtomicU64::new(0),
        expectation_failed: AtomicBool::new(false),
        confined,
        script,
    };
    let mut given = Map::new();
    if let Some(before) = shared.script.before.clone() {
        let hook = Arc::new(shared);
        begin(&hook);
        given = run_hook(&hook, &before, &given)
            .await
            .map_err(RunError::Before)?;
        shared = Arc::into_inner(hook)
            .ok_or_else(|| RunError::Before("it is still running".to_owned()))?;
    }
    let beside = options.beside.as_ref();
    shared.start = Beside::begin(beside).await;
    shared.wall_ms = wall_clock(shared.start).as_millis() as i64;
    let gap = arrivals::first_gap(&shared.script.phases, options.seed);
    let later = gap.mul_f64(Beside::phase(beside));
    let shared = Arc::new(shared);
    begin(&shared);
    let weights = Weights::of(&shared, &given)?;
    let mut recorder = Recorder::new(&shared);
    let crowd = Arc::new(Crowd {
        weights,
        given: given.clone(),
        pending: AtomicU64::new(0),
        stop: stop.clone(),
        seed: options.seed,
        threads: threads(&shared),
        later,
        shared: Arc::clone(&shared),
    });
    let mut ends = Vec::new();
    for number in 0..crowd.threads {
        let crowd = Arc::clone(&crowd);
        ends.push(reactor(move || crowd.part(number))?);
    }
    let mut tick = tokio::time::interval_at((shared.start + SECOND).into(), SECOND);
    let ended = futures_util::future::try_join_all(ends.into_iter().map(over));
    tokio::pin!(ended);
    let ended = loop {
        tokio::select! {
            ended = &mut ended => break ended?,
            _ = tick.tick() => recorder.tick(),
        }
    };
    let cpu: Vec<Duration> = ended.iter().map(|e| e.cpu).collect();
    let engine = ended.first().map_or("", |e| e.engine);
    let own = Own::of_threads(engine, &cpu, shared.start.elapsed(), options.keep_awake);
    lock(&shared.metrics).end();
    recorder.tick();
    let stopped = stop.is_cancelled();
    let mut after_failed = false;
    if let (Some(after), false) = (&shared.script.after, stopped)
        && let Err(why) = run_hook(&shared, after, &given).await
    {
        shared.tell(Event::Log(format!("after failed: {why}")));
        after_failed = true;
    }
    let mut results = results(&shared, recorder, stopped, own);
    results.after_failed = after_failed;
    Ok(results)
}

/// What the script's JavaScript says and counts belongs to this run from now on.
fn begin(shared: &Arc<Shared>) {
    let Some(processor) = &shared.script.processor else {
        return;
    };
    let mut rows = Map::new();
    for payload in shared
        .script
        .payloads
        .iter()
        .filter(|p| p.load_all.is_some())
    {
        payload.variables(0, &mut rows);
    }
    processor.begin(shared, &Value::Object(rows));
}

const SECOND: Duration = Duration::from_secs(1);

/// Whether the run must keep to this machine and its target.
pub(crate) fn check_target(script: &Script, own_target: bool) -> Result<bool, LoadError> {
    let most = most_requests(script).filter(|most| *most <= MAX_RATE_ELSEWHERE);
    if own_target || most.is_some() {
        return Ok(false);
    }
    let target = Target::parse(&config::as_http(&script.target))?;
    if target.is_loopback() {
        return Ok(true);
    }
    let rate = most_requests(script);
    Err(LoadError::NotYours {
        host: target.host,
        rate: rate.map_or_else(
            || "as many as its loops make".to_owned(),
            |r| format!("{r}/s"),
        ),
    })
}

/// Runs `before` or `after`; gives the variables it ends with.
async fn run_hook(
    shared: &Arc<Shared>,
    hook: &Scenario,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    let (done, result) = oneshot::channel();
    let vu = Vu::new(shared, given, false, &hook.hooks);
    let hook = hook.clone();
    let end = reactor(move || async move {
        let mut clock = vu.now();
        let ended = vu.scenario(&hook, &mut clock).await;
        let _ = done.send(ended.map(|()| lock(&vu.vars).all().clone()));
    });
    let _ = over(end.map_err(|e| e.to_string())?)
        .await
        .map_err(|e| e.to_string())?;
    result
        .await
        .unwrap_or_else(|_| Err("it ended without a result".to_owned()))
}

/// Which scenario a user gets.
struct Weights {
    /// Upper ends of each scenario's share.
    ends: Vec<u64>,
}

impl Weights {
    fn of(shared: &Arc<Shared>, given: &Map<String, Value>) -> Result<Weights, LoadError> {
        let vu = Vu::new(shared, given, false, &Hooks::default());
        let mut total = 0;
        let mut ends = Vec::new();
        for scenario in &shared.script.scenarios {
            let weight = as_text(template::fill(&scenario.weight, &vu).as_ref());
            total += weight.trim().parse::<f64>().unwrap_or(0.0).clamp(0.0, 1e9) as u64;
            ends.push(total);
        }
        if total == 0 {
            return Err(LoadError::Plan(
                "no scenario has a weight above 0".to_owned(),
            ));
        }
        Ok(Weights { ends })
    }

    /// By a random number.
    fn pick(&self, random: u64) -> usize {
        let total = self.ends.last().copied().unwrap_or(1);
        let draw = random % total;
        self.ends.partition_point(|end| *end <= draw)
    }
}

/// The field that says which run a request belongs to; empty when the run's name cannot stand in a field.
fn run_field(run_id: &str) -> Vec<u8> {
    match http::HeaderValue::from_str(run_id) {
        Ok(_) => format!("x-nines-run-id: {run_id}\r\n").into_bytes(),
        Err(_) => Vec::new(),
    }
}

/// Threads for a script: one, unless there are cores to spare (a target on this machine needs some, too) and users do
/// not share connections.
fn threads(shared: &Shared) -> usize {
    let target = Target::parse(&config::as_http(&shared.script.target));
    let spare = spare_cores(target.is_ok_and(|t| t.is_loopback()));
    let most = if shared.pool.is_some() {
        1
    } else {
        MAX_THREADS
    };
    spare.clamp(1, most)
}

/// A thread of its own for these futures, and its end.
fn reactor<F: Future<Output = ()> + 'static>(
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<oneshot::Receiver<std::io::Result<Ended>>, LoadError> {
    reactor::thread(&[Engine::IoUring, Engine::Epoll], make).map_err(|e| no_thread(&e))
}

/// Waits for a thread's end.
async fn over(end: oneshot::Receiver<std::io::Result<Ended>>) -> Result<Ended, LoadError> {
    let ended = end.await.map_err(|_| lost_thread())?;
    ended.map_err(|e| LoadError::Plan(format!("the engine of the load: {e}")))
}

/// The users of a run, on one or more threads.
struct Crowd {
    shared: Arc<Shared>,
    weights: Weights,
    given: Map<String, Value>,
    /// Users at work.
    pending: AtomicU64,
    stop: CancellationToken,
    /// Decides Poisson gaps, the same on each thread.
    seed: u64,
    threads: usize,
    /// All arrivals are so much later than the phases say.
    later: Duration,
}

impl Crowd {
    /// The share of one thread: every so-many-th user, from its arrival to its end. What is not over when the run is
    /// stopped ends with this.
    async fn part(self: Arc<Crowd>, number: usize) {
        let tracker = TaskTracker::new();
        let stopped = self.stop.cancelled();
        tokio::pin!(stopped);
        let shared = &self.shared;
        let mut user = 0;
        for (at, due) in arrivals::schedule(&shared.script.phases, self.seed) {
            let whose = match due {
                Due::User(_) => {
                    user += 1;
                    user % self.threads
                }
                Due::Begins(_) | Due::Ends(_) => 0,
            };
            if whose != number {
                continue;
            }
            let at = self.later + at;
            tokio::select! {
                biased;
                () = &mut stopped => return,
                () = sleep_until(shared.start + at) => {}
            }
            match due {
                Due::Begins(i) => shared.tell(Event::PhaseStarted(self.shown(i))),
                Due::Ends(i) => shared.tell(Event::PhaseCompleted(self.shown(i))),
                Due::User(i) => self.user(at, i, user as u64, &tracker),
            }
            if user % 64 == 0 {
                // Whoever is late must not keep the users waiting that are there.
                tokio::task::yield_now().await;
            }
        }
        tracker.close();
        tokio::select! {
            () = &mut stopped => {}
            () = tracker.wait() => {}
        }
    }

    fn shown(&self, index: usize) -> PhaseShown {
        let phase = &self.shared.script.phases[index];
        PhaseShown {
            name: phase.name.clone(),
            index,
            length: phase.length,
        }
    }

    fn user(self: &Arc<Crowd>, at: Duration, phase: usize, number: u64, tracker: &TaskTracker) {
        let shared = &self.shared;
        let most = shared.script.phases[phase].max_vusers.unwrap_or(MAX_USERS);
        if self.pending.load(Ordering::Relaxed) >= most.min(MAX_USERS) {
            shared.count("vusers.skipped", 1);
            return;
        }
        self.pending.fetch_add(1, Ordering::Relaxed);
        let index = self.weights.pick(mix(self.seed, number, 13));
        let scenario = &shared.script.scenarios[index];
        let name = &scenario.name;
        shared.count(&format!("vusers.created_by_name.{name}"), 1);
        shared.count("vusers.created", 1);
        let vu = Vu::new(shared, &self.given, true, &scenario.hooks);
        let crowd = Arc::clone(self);
        reactor::spawn(tracker.track_future(async move {
            live(&vu, index, at).await;
            drop(vu);
            crowd.pending.fetch_sub(1, Ordering::Relaxed);
        }));
    }
}

/// A user's life, from its arrival.
async fn live(vu: &Vu, index: usize, arrival: Duration) {
    let shared = &vu.shared;
    let began = vu.now();
    let mut clock = arrival;
    let scenario = &shared.script.scenarios[index];
    let outcome = vu.scenario(scenario, &mut clock).await;
    let now = shared.now_ms();
    let mut metrics = lock(&shared.metrics);
    match outcome {
        Ok(()) => {
            metrics.count("vusers.failed", 0, now);
            metrics.count("vusers.completed", 1, now);
            let length = micros(vu.now().saturating_sub(began));
            metrics.time("vusers.session_length", length, now);
        }
        Err(code) => {
            metrics.count(&format!("errors.{code}"), 1, now);
            metrics.count("vusers.failed", 1, now);
        }
    }
}

/// Closes seconds and periods.
struct Recorder {
    shared: Arc<Shared>,
    base: Labels,
    last: Duration,
    periods: Vec<Value>,
}

impl Recorder {
    fn new(shared: &Arc<Shared>) -> Recorder {
        let script = &shared.script;
        let base = Labels::from_pairs([
            ("run_id", shared.run_id.as_str()),
            ("scenario", scenario_label(&script.name)),
            ("target", script.target.as_str()),
        ]);
        Recorder {
            shared: Arc::clone(shared),
            base,
            last: Duration::ZERO,
            periods: Vec::new(),
        }
    }

    fn tick(&mut self) {
        let now = self.shared.start.elapsed();
        let (from, length) = (self.last, now.saturating_sub(self.last));
        self.last = now;
        let now_ms = self.shared.now_ms();
        for (start_ms, figures) in lock(&self.shared.metrics).take_ended(now_ms) {
            let period = Period::of(start_ms, &figures, &self.shared.script);
            self.periods.push(period.json.clone());
            self.shared.tell(Event::Period(Box::new(period)));
        }
        let mut stats = lock(&self.shared.stats);
        let second = stats.close_second(from, length, 0.0);
        let (sent, done, failed) = stats.totals();
        let mut values = stats.series(&self.base);
        let late = [0.5, 0.99].map(|q| (q, stats.phases.generator.value_at_quantile(q)));
        drop(stats);
        let seconds = length.as_secs_f64().max(1e-9);
        for (name, value) in [
            ("nines_load_offered_rate", second.sent as f64 / seconds),
            (
                "nines_load_achieved_rate",
                second.responses as f64 / seconds,
            ),
            (
                "nines_load_in_flight",
                sent.saturating_sub(done + failed) as f64,
            ),
        ] {
            values.push((self.base.with("__name__", name), value));
        }
        for (quantile, us) in late {
            let labels = self.base.with("__name__", "nines_load_late_seconds");
            values.push((
                labels.with("quantile", &quantile.to_string()),
                us as f64 / 1e6,
            ));
        }
        let series = values
            .into_iter()
            .map(|(labels, v)| (labels, vec![(now_ms, v)]));
        self.shared.tell(Event::Series(series.collect()));
    }
}

/// The script's file name without directory and extension.
fn scenario_label(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

fn results(shared: &Shared, recorder: Recorder, stopped: bool, own: Own) -> Results {
    let mut metrics = lock(&shared.metrics);
    // Who is late still finds its route.
    let stats = Stats::new(Duration::ZERO, shared.routes.names.len());
    let stats = std::mem::replace(&mut *lock(&shared.stats), stats);
    let checks = match stopped {
        true => Vec::new(),
        false => ensure::judge(&shared.script.checks, &report::figures(metrics.total())),
    };
    Results {
        aggregate: Period::of(shared.wall_ms, metrics.total(), &shared.script),
        intermediate: recorder.periods,
        checks,
        expectation_failed: shared.expectation_failed.load(Ordering::Relaxed),
        after_failed: false,
        suggested: shared.script.processor.as_ref().and_then(|p| p.exit_code()),
        elapsed: shared.start.elapsed(),
        stopped,
        lost_events: shared.lost_events.load(Ordering::Relaxed),
        run: report::whole(shared, stats, stopped, own),
    }
}
