//! What happened: the truth channel (plain counters) and `/metrics` (prometheus crate), fed at the same places.
//! Must not know HTTP handlers; the two sides never read each other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec,
    Opts, Registry,
};
use serde::Serialize;

const BOUNDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0, 30.0, 60.0,
];

/// Metrics of `/metrics`. Names are the project's contract.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// The registry that `/metrics` prints.
    pub registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) durations: HistogramVec,
    pub(crate) cache: IntCounterVec,
    pub(crate) cache_seconds: HistogramVec,
    pub(crate) pool_in_use: IntGaugeVec,
    pub(crate) pool_idle: IntGaugeVec,
    pub(crate) pool_max: IntGaugeVec,
    pub(crate) pool_waiters: IntGaugeVec,
    pub(crate) query_seconds: HistogramVec,
    pub(crate) replica_lag: GaugeVec,
    pub(crate) queue_depth: IntGaugeVec,
    pub(crate) queue_age: GaugeVec,
    pub(crate) jobs: IntCounterVec,
    pub(crate) job_seconds: HistogramVec,
    pub(crate) dlq_depth: IntGaugeVec,
    pub(crate) circuit_state: IntGaugeVec,
    pub(crate) fault_active: IntGaugeVec,
    pub(crate) circuit_transitions: IntCounterVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) limits: IntCounterVec,
    pub(crate) stale: IntCounter,
    pub(crate) degraded: IntCounterVec,
    pub(crate) backend_up: IntGaugeVec,
    pub(crate) lb: IntCounterVec,
    pub(crate) auth_failures: IntCounterVec,
    pub(crate) orders: IntCounterVec,
    pub(crate) outbox_pending: prometheus::IntGauge,
    pub(crate) build: IntGaugeVec,
    pub(crate) process_cpu: CounterVec,
    pub(crate) process_memory: IntGaugeVec,
}

/// Exact counts, kept apart from every metrics library.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    by_route: Mutex<BTreeMap<(&'static str, String, u16), u64>>,
    seconds: Mutex<VecDeque<Second>>,
    events: Mutex<VecDeque<Event>>,
    total: AtomicU64,
    errors: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) cache_errors: AtomicU64,
    pub(crate) bypass: AtomicU64,
    pub(crate) queries: AtomicU64,
    pub(crate) published: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) orders: AtomicU64,
}

/// One second of the last ten minutes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Second {
    /// Unix second.
    pub t: u64,
    /// Requests that ended in it.
    pub requests: u64,
    /// Those with a 5xx status.
    pub errors: u64,
    /// Cache hits.
    pub hits: u64,
    /// Cache misses.
    pub misses: u64,
}

/// A breaker transition, a fault that began or ended, an instance that went out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Event {
    /// Unix ms.
    pub at_ms: u64,
    /// `breaker`, `fault`, `backend`.
    pub kind: &'static str,
    /// Of what.
    pub name: String,
    /// The new state.
    pub to: String,
}

const SECONDS_KEPT: usize = 600;
const EVENTS_KEPT: usize = 1000;

// === impl Truth ===

impl Truth {
    /// One ended request.
    pub(crate) fn request(&self, route: &'static str, method: &str, status: u16, now_ms: u64) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let error = u64::from(status >= 500);
        self.errors.fetch_add(error, Ordering::Relaxed);
        *lock(&self.by_route)
            .entry((route, method.to_owned(), status))
            .or_default() += 1;
        self.second(now_ms, |s| {
            s.requests += 1;
            s.errors += error;
        });
    }

    /// One cache lookup: `hit`, `miss`, `error` or `bypass`.
    pub(crate) fn cache(&self, result: &str, now_ms: u64) {
        let counter = match result {
            "hit" => &self.hits,
            "miss" => &self.misses,
            "error" => &self.cache_errors,
            _ => &self.bypass,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.second(now_ms, |s| {
            s.hits += u64::from(result == "hit");
            s.misses += u64::from(result == "miss");
        });
    }

    /// Something that changed state.
    pub(crate) fn event(&self, event: Event) {
        let mut events = lock(&self.events);
        if events.len() == EVENTS_KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Everything as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        let n = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let by: Vec<_> = lock(&self.by_route)
            .iter()
            .map(|((route, method, status), count)| serde_json::json!({"route": route, "method": method, "status": status, "count": count}))
            .collect();
        let events: Vec<Event> = lock(&self.events).iter().cloned().collect();
        let seconds: Vec<Second> = lock(&self.seconds).iter().cloned().collect();
        serde_json::json!({
            "requests": {"total": n(&self.total), "errors_5xx": n(&self.errors), "by_route": by},
            "cache": {"hits": n(&self.hits), "misses": n(&self.misses), "errors": n(&self.cache_errors), "bypass": n(&self.bypass)},
            "db_queries": n(&self.queries),
            "queue": {"published": n(&self.published), "acked": n(&self.acked), "retried": n(&self.retried), "dead": n(&self.dead)},
            "stale_served": n(&self.stale),
            "orders_created": n(&self.orders),
            "events": events,
            "seconds": seconds,
        })
    }

    fn second(&self, now_ms: u64, change: impl FnOnce(&mut Second)) {
        let t = now_ms / 1000;
        let mut seconds = lock(&self.seconds);
        if seconds.back().is_none_or(|s| s.t < t) {
            if seconds.len() == SECONDS_KEPT {
                seconds.pop_front();
            }
            seconds.push_back(Second {
                t,
                ..Second::default()
            });
        }
        if let Some(s) = seconds.back_mut() {
            change(s);
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Registers every family.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let r = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&r, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            register(&r, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let float = |name: &str, help: &str, labels: &[&str]| {
            register(&r, GaugeVec::new(Opts::new(name, help), labels)?)
        };
        let seconds = |name: &str, help: &str, labels: &[&str]| {
            register(
                &r,
                HistogramVec::new(
                    HistogramOpts::new(name, help).buckets(BOUNDS.to_vec()),
                    labels,
                )?,
            )
        };
        let http = ["service", "route", "method", "status"];
        Ok(Metrics {
            requests: counter(
                "http_server_requests_total",
                "Requests by route and status.",
                &http,
            )?,
            durations: seconds(
                "http_server_request_duration_seconds",
                "Time from the first byte in to the answer.",
                &http,
            )?,
            cache: counter(
                "cache_requests_total",
                "Cache lookups by result.",
                &["tier", "result"],
            )?,
            cache_seconds: seconds(
                "cache_operation_duration_seconds",
                "Cache calls.",
                &["tier", "op", "result"],
            )?,
            pool_in_use: gauge("db_pool_in_use", "Connections in use.", &["pool"])?,
            pool_idle: gauge("db_pool_idle", "Connections idle.", &["pool"])?,
            pool_max: gauge("db_pool_max", "Connections at most.", &["pool"])?,
            pool_waiters: gauge(
                "db_pool_waiters",
                "Requests waiting for a connection.",
                &["pool"],
            )?,
            query_seconds: seconds(
                "db_query_duration_seconds",
                "Queries, without the wait for a connection.",
                &["role", "op"],
            )?,
            replica_lag: float(
                "db_replication_lag_seconds",
                "Age of the oldest write the replica lacks.",
                &["replica"],
            )?,
            queue_depth: gauge("queue_depth", "Messages waiting.", &["queue"])?,
            queue_age: float(
                "queue_oldest_age_seconds",
                "Age of the oldest waiting message.",
                &["queue"],
            )?,
            jobs: counter(
                "worker_jobs_total",
                "Deliveries by outcome.",
                &["queue", "result"],
            )?,
            job_seconds: seconds(
                "worker_job_duration_seconds",
                "Time of one delivery.",
                &["queue"],
            )?,
            dlq_depth: gauge("dlq_depth", "Dead letters.", &["queue"])?,
            fault_active: gauge(
                "fault_active",
                "1 while an injected fault is in force",
                &["knob", "target"],
            )?,
            circuit_state: gauge(
                "circuit_state",
                "0 closed, 1 half-open, 2 open.",
                &["dependency"],
            )?,
            circuit_transitions: counter(
                "circuit_transitions_total",
                "Breaker transitions.",
                &["dependency", "to"],
            )?,
            retries: counter("retries_total", "Second and later tries.", &["dependency"])?,
            limits: counter(
                "ratelimit_decisions_total",
                "Limiter decisions.",
                &["scope", "tier", "result"],
            )?,
            stale: register(
                &r,
                IntCounter::new("stale_reads_total", "Reads that served an older version.")?,
            )?,
            degraded: counter(
                "degraded_responses_total",
                "Good answers given without a failed part.",
                &["reason"],
            )?,
            backend_up: gauge(
                "backend_up",
                "1 while the balancer sends requests to it.",
                &["backend"],
            )?,
            lb: counter(
                "lb_requests_total",
                "Requests by backend and status.",
                &["backend", "status"],
            )?,
            auth_failures: counter("auth_failures_total", "Refused credentials.", &["reason"])?,
            orders: counter("orders_total", "Orders by outcome.", &["status"])?,
            outbox_pending: register(
                &r,
                prometheus::IntGauge::new(
                    "outbox_pending",
                    "Events committed but not yet published.",
                )?,
            )?,
            build: gauge("build_info", "Always 1.", &["version", "service"])?,
            process_cpu: register(
                &r,
                CounterVec::new(
                    Opts::new("process_cpu_seconds_total", "Processor time."),
                    &["state"],
                )?,
            )?,
            process_memory: gauge("process_resident_memory_bytes", "Resident memory.", &[])?,
            registry: r,
        })
    }

    /// The text of `/metrics`.
    pub(crate) fn text(&self) -> String {
        self.process();
        prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }

    /// Reads `/proc/self` (nothing elsewhere than on Linux).
    fn process(&self) {
        let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
            return;
        };
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        let number = |i: usize| {
            fields
                .get(i)
                .and_then(|f| f.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        for (state, ticks) in [("user", number(11)), ("system", number(12))] {
            let counter = self.process_cpu.with_label_values(&[state]);
            counter.inc_by((ticks / 100.0 - counter.get()).max(0.0));
        }
        self.process_memory
            .with_label_values(&[] as &[&str])
            .set(number(21) as i64 * 4096);
    }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    r: &Registry,
    c: C,
) -> Result<C, prometheus::Error> {
    r.register(Box::new(c.clone()))?;
    Ok(c)
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}
