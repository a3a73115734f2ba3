//! Owns the fast engine: HTTP/1.1 over epoll or io_uring, on threads of its own. Which engine carries a plan is decided
//! in [`choose`]; what is recorded, and the report, are the same for all.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::LoadError;
use crate::conn::{Connector, Target};
use crate::engine::{Progress, Ticker, conclude, lock, wall_clock};
use crate::pacer::Paced;
use crate::plan::{Engine, Model, Plan, Requests};
use crate::report::{Own, Report};
use crate::schedule::Schedule;
use crate::stats::{Stats, growing};

pub(crate) mod batching;
mod deadlines;
mod driver;
mod early;
mod epoll;
mod lazy;
mod memory;
mod naps;
mod pipeline;
pub(crate) mod reactor;
mod request;
mod resolve;
mod shard;
pub(crate) mod timer;
mod tls;
mod uring;
mod work;

use driver::{Driver, Waker};
use epoll::Epoll;
use request::Templates;
use shard::Shard;
use uring::Uring;
use work::{Counter, Queue};

/// The longest body read, in bytes; it is not kept.
const MAX_BODY: u64 = 1 << 30;
/// Arrivals a second that one thread surely keeps up with.
const ONE_THREAD_RATE: f64 = 50_000.0;
/// Fewer connections than this are not worth a thread.
const THREAD_CONNECTIONS: usize = 16;

/// How this plan is to be carried: `None` by hyper, else by the fast engine. The rule: of HTTP/1.1, with or without TLS,
/// a closed load goes over io_uring where the kernel has what it takes, since it may wait for many responses at once, and
/// an open one, which must not, over epoll, which costs less at every rate; what the fast engine does not know (see
/// [`request::refusal`]) goes over hyper. A plan may name its engine.
///
/// # Errors
/// When the engine that the plan names cannot carry it.
pub(crate) fn choose(
    plan: &Plan,
    requests: &Requests,
) -> Result<Option<&'static [Engine]>, LoadError> {
    // Named one by one, so that whoever adds a field decides here whether the fast engine honours it.
    let Plan {
        target: _,
        requests: _,
        model,
        duration: _,
        warm_up: _,
        connections: _,
        timeout: _,
        drain: _,
        seed: _,
        run_id: _,
        scenario: _,
        insecure: _,
        own_target: _,
        shard: _,
        in_turn: _,
        recorded: _,
        keep_seconds: _,
        beside: _,
        keep_awake: _,
        tick: _,
        threads: _,
        engine,
        transport,
        think,
    } = plan;
    let paused = (!think.is_zero()).then(|| "with pauses to think".to_owned());
    let detour = transport.detour().map(str::to_owned).or(paused);
    let refusal = detour.or_else(|| request::refusal(requests));
    if transport.pipeline > 1 {
        if *engine == Engine::Hyper {
            return Err(LoadError::Plan(
                "hyper does not pipeline requests: leave the choice of the engine open".to_owned(),
            ));
        }
        if let Some(why) = &refusal {
            return Err(LoadError::Plan(format!(
                "the engines that pipeline requests, io_uring and epoll, do not send {why}: leave one of both out"
            )));
        }
    }
    match (*engine, refusal) {
        (Engine::Hyper, _) | (Engine::Auto, Some(_)) => Ok(None),
        (_, Some(why)) => Err(LoadError::Plan(format!(
            "the engines io_uring and epoll do not send {why}; use hyper, or leave the choice open"
        ))),
        (Engine::Auto, None) => Ok(Some(match model {
            Model::Closed { .. } => &[Engine::IoUring, Engine::Epoll],
            _ => &[Engine::Epoll],
        })),
        (Engine::IoUring, None) => Ok(Some(&[Engine::IoUring])),
        (Engine::Epoll, None) => Ok(Some(&[Engine::Epoll])),
    }
}

/// What the threads of a run share.
struct Run {
    plan: Plan,
    requests: Requests,
    templates: Templates,
    /// The host to connect to, and its addresses when they are known.
    place: (String, u16),
    addrs: Option<Vec<SocketAddr>>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    start: Instant,
    stats: Arc<Mutex<Stats>>,
    counter: Counter,
    /// Ends the run in good order.
    stop: AtomicBool,
    /// Ends all traffic at once.
    abort: AtomicBool,
}

impl Run {
    fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.stats)
    }
}

/// What a thread leaves.
struct Ended {
    queue: Option<Queue>,
    cpu: Duration,
    engine: &'static str,
}

/// CPU time of this thread so far, user and system.
fn cpu_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

/// Threads for a plan: one, unless more is asked for than one can do and there are cores to spare (a target on this
/// machine needs some, too).
fn threads(plan: &Plan, target: &Target, schedule: Option<&Schedule>) -> usize {
    let spare = spare_cores(target.is_loopback());
    let wanted = match schedule {
        Some(schedule) => (schedule.peak_rate() / ONE_THREAD_RATE).ceil() as usize,
        None => plan.connections / THREAD_CONNECTIONS,
    };
    let chosen = plan.threads.unwrap_or_else(|| wanted.min(spare));
    chosen.clamp(1, plan.connections)
}

/// Cores for threads that send: all, or half of them when the target is on this machine and needs some, too.
pub(crate) fn spare_cores(loopback: bool) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if loopback { cores / 2 } else { cores }
}

/// Wakes and ends the threads when the run's future is dropped.
struct Abort {
    run: Arc<Run>,
    wakers: Vec<Waker>,
}

impl Abort {
    fn wake(&self) {
        self.wakers.iter().for_each(Waker::wake);
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        self.run.abort.store(true, Ordering::Relaxed);
        self.wake();
    }
}

/// Runs the plan; see [`crate::run`].
pub(crate) async fn run(
    plan: Plan,
    requests: Requests,
    connector: Connector,
    engines: &'static [Engine],
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
) -> Result<Report, LoadError> {
    let schedule = Schedule::of(&plan);
    let target = connector.target().clone();
    let threads = threads(&plan, &target, schedule.as_ref());
    let files = enough_files(&plan)?;
    let stats = Stats::new(plan.warm_up, requests.names.len()).keep_seconds(plan.keep_seconds);
    let (place, addrs) = connector.place();
    let run = Arc::new(Run {
        templates: Templates::new(&requests, &target.authority),
        place,
        addrs,
        tls: connector.tls(),
        start: plan.begin().await,
        stats: Arc::new(Mutex::new(stats)),
        counter: Counter::default(),
        stop: AtomicBool::new(false),
        abort: AtomicBool::new(false),
        requests,
        plan,
    });
    let wall = wall_clock(run.start);
    let mut all = Abort {
        run: Arc::clone(&run),
        wakers: Vec::new(),
    };
    let mut ends = Vec::new();
    for number in 0..threads {
        let waker = Waker::new().map_err(|e| no_thread(&e))?;
        all.wakers.push(waker.clone());
        let (done, end) = oneshot::channel();
        ends.push(end);
        let run = Arc::clone(&run);
        let queue = schedule
            .as_ref()
            .map(|s| Queue::new(&s.part(number, threads), &run.plan));
        let limit =
            run.plan.connections / threads + usize::from(number < run.plan.connections % threads);
        let body = move || {
            let _ = done.send(thread(run, engines, queue, limit, waker));
        };
        std::thread::Builder::new()
            .name("nines-load".to_owned())
            .spawn(body)
            .map_err(|e| no_thread(&e))?;
    }
    let names = &run.requests.names;
    let mut ticker = Ticker::new(&run.plan, Arc::clone(&run.stats), run.start, schedule, wall);
    let each = run.plan.tick;
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + each, each);
    let mut stopping = false;
    let ended = async {
        let mut ended = Vec::new();
        for end in ends {
            let end = end.await.map_err(|_| lost_thread())?;
            ended.push(end?);
        }
        Ok::<_, LoadError>(ended)
    };
    tokio::pin!(ended);
    let ended = loop {
        tokio::select! {
            ended = &mut ended => break ended?,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                run.stop.store(true, Ordering::Relaxed);
                all.wake();
            }
            _ = tick.tick() => { progress.send_replace(ticker.tick()); }
        }
    };
    let over = run.start.elapsed();
    progress.send_replace(ticker.tick());
    let cpu: Vec<Duration> = ended.iter().map(|e| e.cpu).collect();
    let engine = ended.first().map_or("", |e| e.engine);
    let own = Own::of_threads(engine, &cpu, over, run.plan.keep_awake);
    let stats = std::mem::replace(&mut *run.stats(), Stats::new(run.plan.warm_up, 0));
    let stopped = stopping && matches!(run.plan.model, Model::Closed { .. });
    let (paced, rest) = joined(ended);
    let mut report = conclude(
        &run.plan,
        names,
        stats,
        paced.map(|p| (p, rest)),
        over,
        wall,
        stopped,
        own,
    );
    crate::little::add_notes(&mut report, &run.plan);
    report.reasons.extend(files);
    Ok(report)
}

/// The work of the pacers as one's, and what was released and not taken.
fn joined(ended: Vec<Ended>) -> (Option<Paced>, Vec<Duration>) {
    let mut whole: Option<Paced> = None;
    let mut rest = Vec::new();
    for mut queue in ended.into_iter().filter_map(|e| e.queue) {
        rest.extend(queue.rest());
        let part = queue.paced();
        let whole = whole.get_or_insert_with(|| Paced {
            released: 0,
            measured: 0,
            late: growing(),
            stopped: false,
        });
        whole.released += part.released;
        whole.measured += part.measured;
        whole.stopped |= part.stopped;
        // All have the same bounds.
        let _ = whole.late.add(&part.late);
    }
    (whole, rest)
}

pub(crate) fn no_thread(error: &std::io::Error) -> LoadError {
    LoadError::Plan(format!("no thread for the load: {error}"))
}

pub(crate) fn lost_thread() -> LoadError {
    LoadError::Plan("a thread of the load ended before the run".to_owned())
}

/// One thread: the first of these engines that this machine has.
fn thread(
    run: Arc<Run>,
    engines: &[Engine],
    queue: Option<Queue>,
    limit: usize,
    waker: Waker,
) -> Result<Ended, LoadError> {
    // By default the kernel may deliver a timer 50 us late.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let wrong = |what: &str, e: std::io::Error| LoadError::Plan(format!("the engine {what}: {e}"));
    let mut refused = LoadError::Plan("no engine is left to choose from".to_owned());
    for engine in engines {
        if *engine == Engine::IoUring {
            match Uring::new(&waker, queue.is_some()) {
                Ok(driver) => {
                    let shard = Shard::new(run, driver, queue, limit, waker);
                    return shard.run().map_err(|e| wrong(Uring::NAME, e));
                }
                Err(error) => refused = wrong(Uring::NAME, error),
            }
        } else {
            match Epoll::new(&waker, queue.is_some()) {
                Ok(driver) => {
                    let shard = Shard::new(run, driver, queue, limit, waker);
                    return shard.run().map_err(|e| wrong(Epoll::NAME, e));
                }
                Err(error) => refused = wrong(Epoll::NAME, error),
            }
        }
    }
    Err(refused)
}

/// Raises the limit of open files as far as this process may; a note when it is below the connections all the same.
///
/// # Errors
/// When the closed model, which opens them all, cannot have them.
pub(crate) fn enough_files(plan: &Plan) -> Result<Option<String>, LoadError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Standard streams, the event loop, the report.
    let needed = plan.connections as u64 + 64;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|n| n < needed) {
        let raised = Rlimit {
            current: Some(limit.maximum.map_or(needed, |most| most.min(needed))),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    let Some(allowed) = limit.current.filter(|n| *n < needed) else {
        return Ok(None);
    };
    let connections = plan.connections;
    if matches!(plan.model, Model::Closed { .. }) {
        return Err(LoadError::Plan(format!(
            "{connections} connections need {needed} open files, and this process may have {allowed}: ask for fewer connections, or raise the limit (ulimit -n)"
        )));
    }
    Ok(Some(format!(
        "this process may have {allowed} open files, too few for all of {connections} connections"
    )))
}
