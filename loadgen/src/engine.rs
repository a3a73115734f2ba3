//! Owns a run: workers, each with one connection, take requests in the order they fall due, and a recorder sums up.
//! Latency counts from the due instant, so a stall in server, connections or generator cannot hide.

mod gather;
mod saturate;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use model::Labels;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use gather::Gather;

use crate::LoadError;
use crate::awake::Awake;
use crate::dispatch::{Dispatch, Next, Placed, Ticket};
use crate::pacer::{Paced, pace};
use crate::plan::{Model, Plan, Requests};
use crate::report::{Own, Report, Second, named};
use crate::schedule::{Schedule, share};
use crate::stats::{Answer, Sample, Stats, growing, micros, note};
use crate::wire::{Lane, Trip, Wire};

/// How a run is going, about once a second.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Seconds since the run began, warm-up included.
    pub elapsed_s: f64,
    /// Requests started so far.
    pub sent: u64,
    /// Responses so far.
    pub completed: u64,
    /// Failures so far.
    pub errors: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Requests per second due; for the closed model, those sent in the last second.
    pub offered_rate: f64,
    /// Responses per second in the last second.
    pub achieved_rate: f64,
    /// Median latency of the last second, 0 when nothing ended.
    pub p50_us: u64,
    /// 99th percentile latency of the last second.
    pub p99_us: u64,
    /// This moment's samples of the `nines_load_*` metrics, (milliseconds since 1970, value); counters and buckets
    /// count from the start of the run, warm-up included.
    pub series: Vec<(Labels, Vec<(i64, f64)>)>,
}

/// A request that leaves so long after it was due is late, in microseconds.
const LATE_US: u64 = 1000;

/// Above this many requests a second one thread may not be enough, and the load uses the caller's runtime.
const ONE_THREAD_RATE: f64 = 20_000.0;

/// What the closed model has handed out.
#[derive(Default)]
struct Closed {
    next: u64,
    /// Requests taken whose due instant lies in the measured part.
    measured: u64,
}

struct Shared {
    plan: Plan,
    requests: Requests,
    wire: Wire,
    start: Instant,
    /// The open model's queue.
    dispatch: Option<Mutex<Dispatch>>,
    closed: Mutex<Closed>,
    stats: Arc<Mutex<Stats>>,
    /// Nothing is taken after this instant.
    deadline: OnceLock<Instant>,
    /// Ends the run in good order.
    stop: CancellationToken,
    /// Ends all traffic at once.
    abort: CancellationToken,
    workers: TaskTracker,
    gather: Arc<Gather>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs the plan to its end or until `stop`, then lets what is under way and what is already due finish within the
/// plan's drain time. `progress` receives a value each second and one at the end. Dropping the future ends all traffic.
///
/// # Errors
/// [`LoadError`] before the first request only; what goes wrong afterwards is in the report.
pub async fn run(
    plan: Plan,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
) -> Result<Report, LoadError> {
    plan.check()?;
    let requests = Requests::prepare(&plan)?;
    let wire = Wire::new(&plan)?;
    let _awake = plan.keep_awake.then(Awake::hold).transpose()?;
    #[cfg(target_os = "linux")]
    if let Some(engines) = crate::fast::choose(&plan, &requests)? {
        let connector = wire.connector().clone();
        return crate::fast::run(plan, requests, connector, engines, progress, stop).await;
    }
    #[cfg(not(target_os = "linux"))]
    if matches!(plan.engine, Engine::IoUring | Engine::Epoll) {
        return Err(LoadError::Plan("io_uring and epoll are Linux's".to_owned()));
    }
    #[cfg(target_os = "linux")]
    let files = crate::fast::enough_files(&plan)?;
    #[cfg(not(target_os = "linux"))]
    let files: Option<String> = None;
    let noted = move |mut report: Report| {
        report.reasons.extend(files);
        report
    };
    let schedule = Schedule::of(&plan);
    let stop = stop.child_token();
    let abort = CancellationToken::new();
    // Cancelled when this future is dropped.
    let _guard = abort.clone().drop_guard();
    let alone = schedule
        .as_ref()
        .is_some_and(|s| s.peak_rate() <= ONE_THREAD_RATE)
        || plan.transport.http2;
    let limit = plan.slots();
    let saturates = saturate::fits(&plan);
    let gather = Arc::new(Gather::new(limit));
    let theirs = Arc::clone(&gather);
    let start = match &plan.beside {
        Some(_) => Some(plan.begin().await),
        None => None,
    };
    let make = move || Shared {
        stats: Arc::new(Mutex::new(
            Stats::new(plan.warm_up, requests.names.len()).keep_seconds(plan.keep_seconds),
        )),
        dispatch: schedule
            .as_ref()
            .map(|s| Mutex::new(Dispatch::new(s.arrivals(), limit))),
        closed: Mutex::default(),
        deadline: OnceLock::new(),
        start: start.unwrap_or_else(Instant::now),
        workers: TaskTracker::new(),
        gather: theirs,
        requests,
        wire,
        plan,
        stop,
        abort,
    };
    if !alone {
        return Ok(noted(drive(make(), progress).await));
    }
    // One thread for clock, requests and sockets: no hop between them makes a request late, and each costs less.
    let (done, report) = oneshot::channel();
    let body = move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        if saturates {
            gather.before_waits(&mut builder);
        }
        let runtime = builder
            .enable_all()
            .build()
            .map_err(|e| LoadError::Plan(format!("no event loop for the load: {e}")));
        let _ = done.send(runtime.map(|runtime| runtime.block_on(drive(make(), progress))));
    };
    std::thread::Builder::new()
        .name("nines-load".to_owned())
        .spawn(body)
        .map_err(|e| LoadError::Plan(format!("no thread for the load: {e}")))?;
    report
        .await
        .map_err(|_| LoadError::Plan("the load's thread ended before the run".to_owned()))?
        .map(noted)
}

/// The run itself, within the runtime that carries its traffic.
async fn drive(shared: Shared, progress: watch::Sender<Progress>) -> Report {
    let shared = Arc::new(shared);
    let wall = wall_clock(shared.start);
    let cpu_before = process_cpu_s();
    let schedule = Schedule::of(&shared.plan);
    let pacer = match schedule.clone() {
        Some(schedule) => Some(tokio::spawn(open_load(Arc::clone(&shared), schedule))),
        None if saturate::fits(&shared.plan) => {
            for _ in 0..shared.plan.connections {
                let abort = shared.abort.clone();
                let load = saturate::saturate(Arc::clone(&shared));
                let load = async move { abort.run_until_cancelled(load).await };
                shared.workers.spawn(load);
            }
            shared.workers.close();
            None
        }
        None => {
            for _ in 0..shared.plan.slots() {
                spawn(&shared, None);
            }
            shared.workers.close();
            None
        }
    };
    let stats = Arc::clone(&shared.stats);
    let mut ticker = Ticker::new(&shared.plan, stats, shared.start, schedule, wall);
    let each = shared.plan.tick;
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + each, each);
    loop {
        tokio::select! {
            () = shared.workers.wait() => break,
            () = shared.abort.cancelled() => {
                shared.stop.cancel();
                break;
            }
            _ = tick.tick() => { progress.send_replace(ticker.tick()); }
        }
    }
    let paced = match pacer {
        Some(pacer) => pacer.await.ok(),
        None => None,
    };
    let ended = shared.start.elapsed();
    progress.send_replace(ticker.tick());
    let cpu_s = process_cpu_s() - cpu_before;
    let own = Own {
        engine: if shared.plan.transport.http2 {
            "http2".to_owned()
        } else {
            "hyper".to_owned()
        },
        threads: 1,
        cpu_s,
        busy: cpu_s / ended.as_secs_f64().max(1e-9),
        kept_awake: shared.plan.keep_awake,
    };
    let stats = std::mem::replace(
        &mut *lock(&shared.stats),
        Stats::new(shared.plan.warm_up, 0),
    );
    let open = paced.map(|paced| {
        let mut dispatch = shared.dispatch.as_ref().map(lock);
        let taken = dispatch.as_ref().map_or(0, |d| d.taken);
        let waiting = paced.released.saturating_sub(taken) as usize;
        let rest = dispatch.as_mut().map(|d| &mut d.arrivals);
        let rest = rest.into_iter().flatten().take(waiting).collect();
        (paced, rest)
    });
    let (plan, names) = (&shared.plan, &shared.requests.names);
    let mut report = conclude(
        plan,
        names,
        stats,
        open,
        ended,
        wall,
        shared.stop.is_cancelled(),
        own,
    );
    report.counts = shared.wire.counted();
    crate::little::add_notes(&mut report, plan);
    report
}

/// The wall clock, since 1970, at an instant that has passed.
pub(crate) fn wall_clock(at: Instant) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().saturating_sub(at.elapsed())
}

/// User and system time of this process; 0 where it is not known.
fn process_cpu_s() -> f64 {
    #[cfg(target_os = "linux")]
    {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
    }
    #[cfg(not(target_os = "linux"))]
    0.0
}

/// Releases requests as they fall due, then allows the drain time for what waits.
async fn open_load(shared: Arc<Shared>, schedule: Schedule) -> Paced {
    let stop = shared.stop.clone();
    let Some(dispatch) = &shared.dispatch else {
        unreachable!("the open model has a queue")
    };
    let release = |n| {
        for _ in 0..n {
            let placed = lock(dispatch).release();
            if let Placed::Start(ticket) = placed {
                spawn(&shared, Some(ticket));
            }
        }
    };
    let pacing = pace(&schedule, shared.start, shared.plan.warm_up, &stop, release);
    let paced = pacing.await;
    let _ = shared.deadline.set(Instant::now() + shared.plan.drain());
    lock(dispatch).close();
    shared.workers.close();
    paced
}

fn spawn(shared: &Arc<Shared>, first: Option<Ticket>) {
    let abort = shared.abort.clone();
    let worker = work(Arc::clone(shared), first);
    shared
        .workers
        .spawn(async move { abort.run_until_cancelled(worker).await });
}

/// One worker: one connection, one request at a time.
async fn work(shared: Arc<Shared>, first: Option<Ticket>) {
    let mut lane = shared.wire.lane();
    let mut failed_dials = 0_u32;
    let mut next = first;
    loop {
        let ticket = match next.take() {
            Some(ticket) => Some(ticket),
            None => match &shared.dispatch {
                Some(dispatch) => shared.next_due(dispatch).await,
                None => shared.next_closed(shared.start.elapsed()),
            },
        };
        let Some(ticket) = ticket else { return };
        let dialled = shared.one(&mut lane, ticket).await;
        if shared.dispatch.is_none() && !shared.plan.think.is_zero() {
            let _ = tokio::time::timeout(shared.plan.think, shared.stop.cancelled()).await;
        }
        failed_dials = if dialled {
            0
        } else {
            (failed_dials + 1).min(7)
        };
        if failed_dials > 0 && shared.dispatch.is_none() {
            // A target that refuses at once would otherwise be dialled as fast as the machine can.
            let pause = Duration::from_millis(5 << failed_dials);
            let _ = tokio::time::timeout(pause, shared.stop.cancelled()).await;
        }
    }
}

impl Shared {
    /// Waits for the next request to fall due.
    async fn next_due(&self, dispatch: &Mutex<Dispatch>) -> Option<Ticket> {
        let late = self.deadline.get().is_some_and(|d| Instant::now() >= *d);
        let next = lock(dispatch).next(late);
        match next {
            Next::Take(ticket) => Some(ticket),
            Next::Wait(ticket) => ticket.await.ok(),
            Next::End => None,
        }
    }

    fn next_closed(&self, now: Duration) -> Option<Ticket> {
        let Model::Closed { requests } = self.plan.model else {
            return None;
        };
        let mut closed = lock(&self.closed);
        let (first, step) = share(&self.plan);
        let enough =
            requests.is_some_and(|n| closed.measured >= n.saturating_sub(first).div_ceil(step));
        if enough || self.stop.is_cancelled() || now >= self.plan.warm_up + self.plan.duration {
            return None;
        }
        let index = first + closed.next * step;
        closed.next += 1;
        closed.measured += u64::from(now >= self.plan.warm_up);
        Some(Ticket {
            index,
            due: now,
            queued: false,
        })
    }

    /// Sends one request and records it; false when no connection could be opened.
    async fn one(&self, lane: &mut Lane, ticket: Ticket) -> bool {
        let Ticket { index, due, queued } = ticket;
        let picked = self.start.elapsed();
        lock(&self.stats).started(due);
        let (route, _) = self.requests.constant(self.requests.pick(index));
        let make = || self.requests.render(index).1;
        let mut trip = Trip::default();
        let measured = due >= self.plan.warm_up;
        let exchange = self
            .wire
            .exchange(lane, &make, self.plan.timeout, measured, &mut trip);
        let outcome = exchange.await;
        let ended = self.start.elapsed();
        let outcome = match outcome {
            Ok(x) => Ok(Answer {
                status: x.status.as_u16(),
                bytes: x.wire_bytes,
                timings: x.timings,
            }),
            Err(e) => {
                tracing::trace!(index, error = %e, "request failed");
                Err(e.kind)
            }
        };
        let sent = trip.sent.map(|at| at.saturating_duration_since(self.start));
        let sample = Sample {
            route,
            due,
            picked,
            sent: sent.unwrap_or(picked),
            ended,
            queued,
            opened: trip.opened,
            reconnected: trip.reconnected,
            outcome,
        };
        lock(&self.stats).record(&sample);
        !trip.undialled
    }
}

/// Closes seconds and turns them into progress.
pub(crate) struct Ticker {
    stats: Arc<Mutex<Stats>>,
    start: Instant,
    schedule: Option<Schedule>,
    wall: Duration,
    last: Duration,
    base: Labels,
}

impl Ticker {
    pub(crate) fn new(
        plan: &Plan,
        stats: Arc<Mutex<Stats>>,
        start: Instant,
        schedule: Option<Schedule>,
        wall: Duration,
    ) -> Ticker {
        let mut base = Labels::from_pairs([
            ("run_id", &plan.run_id),
            ("scenario", &plan.scenario),
            ("target", &plan.target),
        ]);
        if let Some((number, of)) = plan.shard {
            // Workers that write to one server must not write one series.
            base = base.with("shard", &format!("{number}/{of}"));
        }
        Ticker {
            stats,
            start,
            schedule,
            wall,
            last: Duration::ZERO,
            base,
        }
    }

    pub(crate) fn tick(&mut self) -> Progress {
        let now = self.start.elapsed();
        let (from, length) = (self.last, now.saturating_sub(self.last));
        self.last = now;
        let mut stats = lock(&self.stats);
        let (sent, completed, errors) = stats.totals();
        let due = self.schedule.as_ref().map(|s| s.rate_at(from + length / 2));
        let mut second = stats.close_second(from, length, due.unwrap_or(0.0));
        let per_second = |n: u64| n as f64 / length.as_secs_f64().max(1e-9);
        if due.is_none() {
            second.offered = per_second(second.sent);
            if let Some(Second { offered, .. }) = stats.per_second.last_mut() {
                *offered = second.offered;
            }
        }
        let mut values = stats.series(&self.base);
        let generator = &stats.phases.generator;
        let late = [
            ("0.5", generator.value_at_quantile(0.5)),
            ("0.99", generator.value_at_quantile(0.99)),
        ];
        drop(stats);
        let in_flight = sent.saturating_sub(completed + errors);
        let achieved_rate = per_second(second.responses);
        for (name, value) in [
            ("nines_load_offered_rate", second.offered),
            ("nines_load_achieved_rate", achieved_rate),
            ("nines_load_in_flight", in_flight as f64),
        ] {
            values.push((self.base.with("__name__", name), value));
        }
        for (quantile, us) in late {
            let labels = self
                .base
                .with("__name__", "nines_load_late_seconds")
                .with("quantile", quantile);
            values.push((labels, us as f64 / 1e6));
        }
        let t_ms = (self.wall + now).as_millis() as i64;
        Progress {
            elapsed_s: now.as_secs_f64(),
            sent,
            completed,
            errors,
            in_flight,
            offered_rate: second.offered,
            achieved_rate,
            p50_us: second.latency.p50,
            p99_us: second.latency.p99,
            series: values
                .into_iter()
                .map(|(labels, value)| (labels, vec![(t_ms, value)]))
                .collect(),
        }
    }
}

/// How many of these microseconds are late sends.
pub(crate) fn late(h: &Histogram<u64>) -> u64 {
    h.len().saturating_sub(h.count_between(0, LATE_US))
}

/// Sums a run up. `open`: what the open model's pacer did, and when what it released and nobody took was due.
#[expect(clippy::too_many_arguments, reason = "each is one fact about the run")]
pub(crate) fn conclude(
    plan: &Plan,
    names: &[String],
    stats: Stats,
    open: Option<(Paced, Vec<Duration>)>,
    ended: Duration,
    wall: Duration,
    mut stopped: bool,
    own: Own,
) -> Report {
    let (mut latency, service_time) = stats.whole();
    let mut unsent_wait = growing();
    let mut late_p50_us = stats.phases.generator.value_at_quantile(0.5);
    let mut late_p99_us = stats.phases.generator.value_at_quantile(0.99);
    let (mut planned, mut late_sends) = (stats.requests, 0);
    if let Some((paced, rest)) = open {
        for due in rest.into_iter().filter(|due| *due >= plan.warm_up) {
            let waited = micros(ended.saturating_sub(due));
            note(&mut unsent_wait, waited);
            note(&mut latency, waited);
        }
        planned = paced.measured;
        stopped = paced.stopped;
        late_p50_us = late_p50_us.max(paced.late.value_at_quantile(0.5));
        late_p99_us = late_p99_us.max(paced.late.value_at_quantile(0.99));
        late_sends = late(&paced.late).max(late(&stats.phases.generator));
    }
    let (per_second, routes) = named(names, stats.per_second, stats.routes);
    let mut report = Report {
        run_id: plan.run_id.clone(),
        scenario: plan.scenario.clone(),
        shard: plan.shard,
        target: plan.target.clone(),
        started_ms: (wall + plan.warm_up).as_millis() as i64,
        duration_s: ended.saturating_sub(plan.warm_up).as_secs_f64(),
        planned,
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
        unsent: unsent_wait.len(),
        unsent_wait,
        stopped,
        valid: true,
        reasons: Vec::new(),
        per_second,
        counts: std::collections::BTreeMap::new(),
        routes,
        late_sends,
        own,
    };
    report.judge(plan.slots());
    report
}
