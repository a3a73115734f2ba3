//! Owns a virtual user: its variables, its cookies, its connection, and the steps of its scenario one after the other.
//! Must not know phases or reports.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use url::Url;

use super::cookies::Jar;
use super::fields::duration;
use super::flow;
use super::grpc::Channel;
use super::metrics::Metrics;
use super::net::{Dialers, Pool};
use super::routes::Routes;
use super::run::Event;
use super::script::{Engine, Hooks, LoopStep, Scenario, Script, Step, Turns};
use super::template::{self, Segment, Variables, as_text};
use super::vars::Vars;
use super::ws::OpenSocket;
use crate::fast::reactor::sleep_until;
use crate::stats::Stats;

/// What all virtual users of a run share.
pub(crate) struct Shared {
    pub(crate) script: Script,
    pub(crate) routes: Routes,
    /// Connections shared by all users, when `config.http.pool` says so.
    pub(crate) pool: Option<Arc<Pool>>,
    pub(crate) dialers: Arc<Dialers>,
    pub(crate) metrics: Mutex<Metrics>,
    pub(crate) stats: Mutex<Stats>,
    pub(crate) start: Instant,
    /// Milliseconds since 1970 at `start`.
    pub(crate) wall_ms: i64,
    pub(crate) run_id: String,
    /// The high half of its trace ids.
    pub(crate) trace_key: u64,
    /// The field that says which run a request belongs to, with its CR LF.
    pub(crate) run_field: Vec<u8>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) lost_events: AtomicU64,
    pub(crate) expectation_failed: AtomicBool,
    /// Nothing may be sent beyond this machine and the target.
    pub(crate) confined: bool,
    /// The target, and the same as a URL of HTTP.
    pub(crate) target_url: Option<Url>,
    pub(crate) http_target: Option<Url>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Now, milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.wall_ms + self.start.elapsed().as_millis() as i64
    }

    pub(crate) fn count(&self, name: &str, by: u64) {
        lock(&self.metrics).count(name, by, self.now_ms());
    }

    /// Counts an event towards the rate of this name.
    pub(crate) fn rate(&self, name: &str) {
        lock(&self.metrics).event(name, self.now_ms());
    }

    /// Records a value, in milliseconds when it is a time.
    pub(crate) fn time(&self, name: &str, value: f64) {
        let thousandths = (value * 1e3).clamp(0.0, 1e15) as u64;
        lock(&self.metrics).time(name, thousandths, self.now_ms());
    }

    pub(crate) fn tell(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.lost_events.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Why a user gave up: the text counted under `errors.`.
pub(crate) type Failure = String;

/// One virtual user.
pub(crate) struct Vu {
    pub(crate) shared: Arc<Shared>,
    /// What JavaScript knows it by.
    pub(crate) number: u64,
    pub(crate) hooks: Hooks,
    pub(crate) vars: Mutex<Vars>,
    /// Its WebSocket, once it is open.
    pub(crate) ws: tokio::sync::Mutex<Option<OpenSocket>>,
    /// Its gRPC connection, once it is open.
    pub(crate) grpc: tokio::sync::Mutex<Option<Channel>>,
    pub(crate) jar: Mutex<Jar>,
    /// Cookies go with every request: there are default ones, or a response has set one. As in Artillery, until then a
    /// request's own cookies go with it alone.
    pub(crate) keeps_cookies: AtomicBool,
    pub(crate) pool: Arc<Pool>,
    /// What its last request was written into.
    pub(crate) buffer: Mutex<Vec<u8>>,
    /// False in `before` and `after`, whose requests are not in the figures.
    pub(crate) counted: bool,
}

impl Variables for Vu {
    fn find(&self, path: &[Segment]) -> Option<Value> {
        let first = path.first()?;
        let vars = lock(&self.vars);
        if let Some(value) = vars.get(&first.0) {
            return template::descend(value, &path[1..]).cloned();
        }
        match first.0.as_str() {
            "$env" | "$processEnvironment" => {
                let name = &path.get(1)?.0;
                self.shared.script.env.get(name).map(|v| v.as_str().into())
            }
            _ => None,
        }
    }

    fn call(&self, name: &str, args: &[f64]) -> Option<String> {
        if let Some(options) = &self.shared.script.fake
            && let Some(drawn) = super::fake::draw(name, options)
        {
            return Some(drawn);
        }
        let args: Vec<Value> = args.iter().map(|n| (*n).into()).collect();
        self.own_function(name, &args)
    }
}

impl Drop for Vu {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Vu {
    /// A user with the variables of the script, `given` laid under them.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        given: &Map<String, Value>,
        counted: bool,
        hooks: &Hooks,
    ) -> Vu {
        let script = &shared.script;
        let mut vars = given.clone();
        let dirname = script.config_directory.display().to_string();
        let file = std::path::Path::new(&script.name).file_name();
        let file = script.directory.join(file.unwrap_or_default());
        for (name, value) in [
            ("target", script.target.clone()),
            ("$testId", shared.run_id.clone()),
            ("$uuid", template::uuid()),
            ("$dirname", dirname),
            ("$scenarioFile", file.display().to_string()),
        ] {
            vars.insert(name.to_owned(), value.into());
        }
        if let Some(name) = &script.environment {
            vars.insert("$environment".to_owned(), name.clone().into());
        }
        for payload in &script.payloads {
            payload.variables(rand::random_range(0..usize::MAX), &mut vars);
        }
        for (name, values) in &script.variables {
            if let Some(value) = values.get(rand::random_range(0..values.len().max(1))) {
                vars.insert(name.clone(), value.clone());
            }
        }
        let own = || Arc::new(Pool::new(1, &shared.dialers));
        let mut vars = Vars::new(vars, script.processor.is_some());
        for payload in &script.payloads {
            if let Some(name) = &payload.load_all {
                vars.known(name);
            }
        }
        Vu {
            number: script.processor.as_ref().map_or(0, |p| p.number()),
            hooks: hooks.clone(),
            ws: tokio::sync::Mutex::new(None),
            grpc: tokio::sync::Mutex::new(None),
            vars: Mutex::new(vars),
            jar: Mutex::new(Jar::new(script.http.loose_cookies)),
            keeps_cookies: AtomicBool::new(!script.http.cookie.is_empty()),
            pool: shared.pool.clone().unwrap_or_else(own),
            buffer: Mutex::default(),
            shared: Arc::clone(shared),
            counted,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Runs a scenario's flow; a WebSocket is opened before and closed afterwards.
    pub(crate) async fn scenario(
        &self,
        scenario: &Scenario,
        clock: &mut Duration,
    ) -> Result<(), Failure> {
        if scenario.engine != Engine::Ws {
            return self.steps(&scenario.flow, clock).await;
        }
        self.ws_open(scenario, clock).await?;
        let ended = self.steps(&scenario.flow, clock).await;
        self.ws_close().await;
        ended
    }

    /// Runs steps in order. `clock` is when the next thing should happen: the user's arrival, later the end of the last
    /// response, plus the time thought since. What is late against it counts as waiting.
    pub(crate) async fn steps(&self, steps: &[Step], clock: &mut Duration) -> Result<(), Failure> {
        for step in steps {
            match step {
                // By far the most frequent, and without a step within it: no future of its own in the heap.
                Step::Request(request) => self.request(request, clock).await?,
                step => self.step(step, clock).await?,
            }
        }
        Ok(())
    }

    fn step<'a>(
        &'a self,
        step: &'a Step,
        clock: &'a mut Duration,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            match step {
                Step::Request(request) => self.request(request, clock).await,
                Step::Think { time, jitter } => {
                    let filled = template::fill(time, self).unwrap_or(Value::Null);
                    let Some(time) = duration(&filled) else {
                        return Err(format!("Invalid think time: {}", as_text(Some(&filled))));
                    };
                    let jitter = jitter
                        .as_ref()
                        .or(self.shared.script.http.think_jitter.as_ref());
                    let time = jitter.map_or(time, |j| jittered(time, j));
                    *clock += time;
                    let until = self.shared.start + *clock;
                    sleep_until(until).await;
                    Ok(())
                }
                Step::Log(text) => {
                    let text = as_text(template::fill(text, self).as_ref());
                    self.shared.tell(Event::Log(text));
                    Ok(())
                }
                Step::Grpc(step) => self.grpc_step(step, clock).await,
                Step::Ws(step) => self.ws_step(step, clock).await,
                Step::Function(name) => {
                    let began = self.now();
                    let done = self.function(name).await;
                    // Its time is the script's own, like time thought.
                    *clock += self.now().saturating_sub(began);
                    done
                }
                Step::Loop(turns) => self.turns(turns, clock).await,
                Step::Parallel { steps, limit } => self.parallel(steps, *limit, clock).await,
            }
        })
    }

    async fn parallel(
        &self,
        steps: &[Step],
        limit: usize,
        clock: &mut Duration,
    ) -> Result<(), Failure> {
        let begin = *clock;
        let mut branches: Vec<BoxFuture<'_, Result<Duration, Failure>>> = Vec::new();
        for step in steps {
            branches.push(Box::pin(self.branch(step, begin)));
        }
        let mut running = futures_util::stream::iter(branches).buffer_unordered(limit);
        // Every branch ends by itself: a request that was sent is counted, whatever became of its neighbours.
        let mut failed = None;
        while let Some(ended) = running.next().await {
            match ended {
                Ok(at) => *clock = (*clock).max(at),
                Err(failure) => {
                    failed.get_or_insert(failure);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn branch(&self, step: &Step, mut clock: Duration) -> Result<Duration, Failure> {
        self.step(step, &mut clock).await?;
        Ok(clock)
    }

    async fn turns(&self, step: &LoopStep, clock: &mut Duration) -> Result<(), Failure> {
        let mut goes_on = None;
        let (mut index, end, values) = match &step.turns {
            Turns::While(name) => {
                goes_on = Some(name);
                (0, -1, None)
            }
            Turns::Values(values) => (0, values.len() as i64, Some(values.clone())),
            Turns::Variable(name) => {
                let found = self.find(&template::path(name));
                let Some(Value::Array(values)) = found else {
                    return Ok(());
                };
                (0, values.len() as i64, Some(values))
            }
            Turns::Count(count) => {
                let text = as_text(template::fill(count, self).as_ref());
                let (from, to) = flow::range(&text).unwrap_or((0, 0));
                (from, to, None)
            }
        };
        // As Artillery: without values the element is the first index throughout.
        let first = index;
        while index < end || (end == -1 && values.is_none()) {
            let mut turn = (index.into(), first.into());
            if let Some(values) = &values {
                turn.1 = values.get(index as usize).cloned().unwrap_or(Value::Null);
            }
            {
                let mut vars = lock(&self.vars);
                vars.set(&step.index_name, turn.0);
                vars.set(&step.element_name, turn.1);
            }
            let before = self.now();
            self.steps(&step.steps, clock).await?;
            if self.now() == before {
                // A loop of nothing must not hold its thread.
                tokio::task::yield_now().await;
            }
            index += 1;
            if let Some(name) = goes_on {
                lock(&self.vars).set(&step.index_name, index.into());
                let began = self.now();
                let more = self.goes_on(name).await?;
                *clock += self.now().saturating_sub(began);
                if !more {
                    break;
                }
            }
        }
        lock(&self.vars).set(&step.index_name, index.into());
        Ok(())
    }
}

/// A time give or take so many milliseconds, or so many percent: `500`, `"20%"`.
fn jittered(time: Duration, jitter: &str) -> Duration {
    let ms = time.as_secs_f64() * 1e3;
    let number = |s: &str| s.trim().parse::<f64>().unwrap_or(0.0).abs();
    let by = match jitter.strip_suffix('%') {
        Some(percent) => ms * number(percent) / 100.0,
        None => number(jitter.trim_end_matches("ms")),
    };
    let ms = (ms + rand::random_range(-1.0..=1.0) * by).max(0.0);
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or(time)
}

/// The most requests a second that a script can be said to send; none when a loop has no fixed end.
pub(crate) fn most_requests(script: &Script) -> Option<f64> {
    fn of(steps: &[Step]) -> Option<f64> {
        steps.iter().try_fold(0.0, |sum, step| {
            Some(
                sum + match step {
                    Step::Request(_) | Step::Ws(_) | Step::Grpc(_) => 1.0,
                    Step::Think { .. } | Step::Log(_) | Step::Function(_) => 0.0,
                    Step::Parallel { steps, .. } => of(steps)?,
                    Step::Loop(l) => {
                        let turns = match &l.turns {
                            Turns::Values(values) => values.len() as f64,
                            Turns::Variable(_) | Turns::While(_) => return None,
                            Turns::Count(count) => {
                                let (from, to) = flow::range(&as_text(Some(count)))?;
                                (to >= from).then_some((to - from) as f64)?
                            }
                        };
                        turns * of(&l.steps)?
                    }
                },
            )
        })
    }
    let each: Option<Vec<f64>> = script.scenarios.iter().map(|s| of(&s.flow)).collect();
    let most = each?.into_iter().fold(0.0, f64::max);
    Some(most * super::arrivals::peak(&script.phases))
}
