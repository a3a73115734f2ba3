//! What every handler needs: cache, database, breakers, limiter, faults, records. The calls here are the ones
//! that are measured, traced and broken. Must not know routes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng as _;
use tonic::transport::Channel;

use crate::breaker::{Breaker, State};
use crate::cache::Cache;
use crate::clock;
use crate::data::{Cell, Data, DbError, Row, Tx, Work};
use crate::faults::{Change, Faults, lognormal};
use crate::inventory::StockReply;
use crate::limiter::Limiter;
use crate::peer::Peers;
use crate::queue::Queue;
use crate::record::{Event, Metrics, Truth};
use crate::settings::Settings;
use crate::telemetry::{Cx, Kind, Role, Telemetry, attr, fail};

/// Dependencies behind a breaker.
pub(crate) const DEPENDENCIES: [&str; 3] = ["cache", "inventory", "payment"];

/// The state of one backend.
#[derive(Debug)]
pub(crate) struct App {
    /// Settings as started.
    pub settings: Settings,
    /// Spans and logs.
    pub telemetry: Telemetry,
    /// `/metrics`.
    pub metrics: Metrics,
    /// Truth channel.
    pub truth: Truth,
    /// Faults in force.
    pub faults: Faults,
    pub(crate) data: Data,
    pub(crate) blobs: std::path::PathBuf,
    pub(crate) peers: Peers,
    pub(crate) cache: Cache,
    pub(crate) queue: Queue,
    pub(crate) limiter: Mutex<Limiter>,
    pub(crate) inventory: Mutex<Option<Channel>>,
    pub(crate) versions: Mutex<HashMap<i64, i64>>,
    pub(crate) flights: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    breakers: Mutex<HashMap<&'static str, Breaker>>,
    pub(crate) started: Instant,
    pub(crate) ids: AtomicU64,
}

/// The parts that are embedded or real.
#[derive(Debug)]
pub(crate) struct Parts {
    pub data: Data,
    pub cache: Cache,
    pub queue: Queue,
}

/// The cache did not answer.
#[derive(Debug)]
pub(crate) struct CacheDown(pub &'static str);

// === impl App ===

impl App {
    /// Monotonic ms since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Waits what the `latency` fault of `target` asks for.
    pub(crate) async fn delay(&self, target: &str) {
        if let Some(hit) = self.faults.hit("latency", target, clock::unix_ms()) {
            let end = hit.fault.dist == "pause";
            let begin = Instant::now();
            let limit = hit.wait_ms();
            if !end {
                return clock::wait_ms(limit).await;
            }
            // A paused part comes back as soon as its fault ends.
            while begin.elapsed().as_secs_f64() * 1000.0 < limit && self.struck("latency", target) {
                clock::wait_ms(20.0).await;
            }
        }
    }

    /// Whether a knob without further numbers strikes now.
    pub(crate) fn struck(&self, knob: &str, target: &str) -> bool {
        self.faults.hit(knob, target, clock::unix_ms()).is_some()
    }

    /// Unix ms by the clock that the services read, which `clock_skew` moves.
    pub(crate) fn wall_ms(&self) -> u64 {
        let now = clock::unix_ms();
        let skew = self.faults.hit("clock_skew", "", now);
        let ms = skew.map_or(0.0, |h| h.fault.value * 1000.0) as i64;
        now.saturating_add_signed(ms)
    }

    /// Milliseconds of a knob, 0 when it is not set.
    pub(crate) fn knob_ms(&self, knob: &str, target: &str) -> f64 {
        self.faults
            .hit(knob, target, clock::unix_ms())
            .map_or(0.0, |h| h.fault.ms)
    }

    fn realistic_ms(&self, median: f64) -> f64 {
        let r = &self.settings.realism;
        if r.enabled {
            lognormal(median, r.sigma, rand::rng().random())
        } else {
            0.0
        }
    }

    // --- breakers ---

    /// Whether a call to `dependency` may be made.
    pub(crate) fn admit(&self, dependency: &'static str) -> bool {
        if self.struck("breaker_off", dependency) {
            return true;
        }
        self.with_breaker(dependency, |b, now| b.admit(now))
    }

    /// Outcome of an admitted call.
    pub(crate) fn outcome(&self, dependency: &'static str, ok: bool) {
        self.with_breaker(dependency, |b, now| b.report(now, ok));
    }

    /// State of each breaker.
    pub(crate) fn breaker_states(&self) -> Vec<(&'static str, State)> {
        let breakers = self.breakers.lock().unwrap_or_else(|e| e.into_inner());
        DEPENDENCIES
            .iter()
            .filter_map(|d| breakers.get(d).map(|b| (*d, b.state())))
            .collect()
    }

    fn with_breaker<T>(
        &self,
        dependency: &'static str,
        step: impl FnOnce(&mut Breaker, u64) -> T,
    ) -> T {
        let now = self.now_ms();
        let (value, before, after) = {
            let mut breakers = self.breakers.lock().unwrap_or_else(|e| e.into_inner());
            let b = breakers
                .entry(dependency)
                .or_insert_with(|| Breaker::new(self.settings.breaker));
            let before = b.state();
            let value = step(b, now);
            (value, before, b.state())
        };
        if before != after {
            self.metrics
                .circuit_state
                .with_label_values(&[dependency])
                .set(after.number());
            self.metrics
                .circuit_transitions
                .with_label_values(&[dependency, after.name()])
                .inc();
            let event = Event {
                at_ms: clock::unix_ms(),
                kind: "breaker",
                name: dependency.into(),
                to: after.name().into(),
            };
            self.truth.event(event);
            self.note(
                "WARN",
                &format!("circuit breaker of {dependency} is now {}", after.name()),
            );
        }
        value
    }

    // --- cache ---

    /// One lookup through the breaker: value, nothing, or the cache did not answer.
    pub(crate) async fn cache_get(
        &self,
        cx: &Cx,
        role: Role,
        key: &str,
    ) -> Result<Option<Bytes>, CacheDown> {
        let result = self.cache_call(cx, role, "GET", key, self.cache.get(key));
        let result = result.await;
        let label = match &result {
            Ok(Some(_)) => "hit",
            Ok(None) => "miss",
            Err(CacheDown("bypass")) => "bypass",
            Err(_) => "error",
        };
        self.truth.cache(label, clock::unix_ms());
        self.metrics
            .cache
            .with_label_values(&["cache", label])
            .inc();
        result
    }

    /// Stores a value for `ttl_s`; a cache that is down is no error.
    pub(crate) async fn cache_set(&self, cx: &Cx, role: Role, key: &str, bytes: Bytes, ttl_s: u64) {
        let work = async { self.cache.set(key, bytes, ttl_s).await.map(Some) };
        // Best effort: the next reader loads it again.
        let _ = self.cache_call(cx, role, "SET", key, work).await;
    }

    /// Deletes a key; a cache that is down keeps it until its TTL.
    pub(crate) async fn cache_del(&self, cx: &Cx, role: Role, key: &str) {
        if self.struck("skip_invalidation", key) || self.struck("cache_stale", key) {
            return;
        }
        let work = async { self.cache.del(key).await.map(Some) };
        if self.cache_call(cx, role, "DEL", key, work).await.is_err() {
            self.metrics
                .degraded
                .with_label_values(&["cache_invalidation"])
                .inc();
        }
    }

    async fn cache_call<T>(
        &self,
        cx: &Cx,
        role: Role,
        op: &'static str,
        key: &str,
        work: impl Future<Output = Result<Option<T>, String>>,
    ) -> Result<Option<T>, CacheDown> {
        if self.struck("cache_off", "") || !self.admit("cache") {
            return Err(CacheDown("bypass"));
        }
        let span = self.telemetry.span(cx, role, Kind::Client, op, None);
        attr(&span, "db.system.name", self.cache.system());
        attr(&span, "db.operation.name", op);
        attr(&span, "peer.service", "cache");
        attr(
            &span,
            "cache.key.prefix",
            key.split(':').next().unwrap_or("").to_owned(),
        );
        let begin = Instant::now();
        let limit = Duration::from_millis(self.settings.cache.timeout_ms);
        let call = async {
            if self.struck("cache_refuse", "") || self.struck("error", "cache") {
                return Err(CacheDown("refused"));
            }
            clock::wait_ms(
                self.realistic_ms(self.settings.realism.cache_ms) + self.knob_ms("cache_slow", ""),
            )
            .await;
            self.delay("cache").await;
            work.await.map_err(|why| {
                if why.contains("timed out") {
                    CacheDown("timeout")
                } else {
                    CacheDown("refused")
                }
            })
        };
        let result = tokio::time::timeout(limit, call)
            .await
            .unwrap_or(Err(CacheDown("timeout")));
        self.outcome("cache", result.is_ok());
        let label = match &result {
            Ok(Some(_)) => "hit",
            Ok(None) => "miss",
            Err(CacheDown(why)) => {
                fail(&span, why);
                "error"
            }
        };
        if op == "GET" {
            attr(&span, "cache.hit", label == "hit");
        }
        let seconds = begin.elapsed().as_secs_f64();
        self.metrics
            .cache_seconds
            .with_label_values(&["cache", op, label])
            .observe(seconds);
        result
    }

    // --- database ---

    /// A query on the replica or the primary, through its pool.
    pub(crate) async fn read(
        &self,
        cx: &Cx,
        role: Role,
        replica: bool,
        table: &'static str,
        sql: &'static str,
        values: Vec<Cell>,
    ) -> Result<Vec<Row>, DbError> {
        let name = if replica { "replica" } else { "primary" };
        let span = self.db_span(cx, role, "SELECT", table, name);
        let hold =
            self.realistic_ms(self.settings.realism.db_ms) + self.knob_ms("slow_query", table);
        let result = async {
            self.delay("db").await;
            if self.struck("error", "db") {
                return Err(DbError::Injected);
            }
            self.data.rows(replica, hold, sql, values).await
        };
        let result = result.await;
        self.truth.queries.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok((value, ms)) => {
                self.metrics
                    .query_seconds
                    .with_label_values(&[name, "select"])
                    .observe(ms / 1000.0);
                Ok(value)
            }
            Err(e) => {
                fail(&span, "db_error");
                Err(e)
            }
        }
    }

    /// A transaction on the primary.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        cx: &Cx,
        role: Role,
        table: &'static str,
        work: impl for<'a> FnOnce(&'a mut Tx) -> Work<'a, T> + Send + 'static,
    ) -> Result<T, DbError> {
        let span = self.db_span(cx, role, "TRANSACTION", table, "primary");
        let begin = Instant::now();
        let result = async {
            clock::wait_ms(self.realistic_ms(self.settings.realism.db_ms)).await;
            self.delay("db").await;
            if self.struck("error", "db") {
                return Err(DbError::Injected);
            }
            self.data.write(self.knob_ms("lock", table), work).await
        };
        let result = result.await;
        self.truth.queries.fetch_add(1, Ordering::Relaxed);
        self.metrics
            .query_seconds
            .with_label_values(&["primary", "write"])
            .observe(begin.elapsed().as_secs_f64());
        if let Err(e) = &result
            && !matches!(e, DbError::Refused(_))
        {
            fail(&span, "db_error");
        }
        result
    }

    fn db_span(
        &self,
        cx: &Cx,
        role: Role,
        op: &'static str,
        table: &str,
        pool: &'static str,
    ) -> tracing::Span {
        if !self.telemetry.on() {
            return tracing::Span::none();
        }
        let span = self
            .telemetry
            .span(cx, role, Kind::Client, &format!("{op} {table}"), None);
        attr(&span, "db.system.name", self.data.system());
        attr(&span, "db.operation.name", op);
        attr(&span, "db.collection.name", table.to_owned());
        attr(&span, "db.namespace", pool);
        attr(&span, "peer.service", self.data.system());
        span
    }

    /// Stock of a product, or (with `reserve`) takes it.
    pub(crate) async fn stock(
        &self,
        cx: &Cx,
        product_id: i64,
        quantity: i64,
        reserve: bool,
    ) -> Result<StockReply, DbError> {
        self.delay("inventory").await;
        if self.struck("error", "inventory") {
            return Err(DbError::Injected);
        }
        if reserve {
            let taken = self.write(cx, Role::Product, "inventory", move |tx| {
                Box::pin(tx.exec(
                    "UPDATE inventory SET quantity = quantity - ?2 WHERE product_id = ?1 AND quantity >= ?2 AND ?2 > 0",
                    vec![product_id.into(), quantity.into()],
                ))
            });
            let taken = taken.await? == 1;
            let now = self.stock_now(cx, product_id).await?;
            return Ok(StockReply {
                available: taken,
                ..now
            });
        }
        let now = self.stock_now(cx, product_id).await?;
        Ok(StockReply {
            available: now.stock >= quantity && now.price_cents >= 0,
            ..now
        })
    }

    async fn stock_now(&self, cx: &Cx, product_id: i64) -> Result<StockReply, DbError> {
        let rows = self.read(
            cx,
            Role::Product,
            false,
            "inventory",
            "SELECT i.quantity, p.price_cents FROM inventory i JOIN products p ON p.id = i.product_id WHERE i.product_id = ?1",
            vec![product_id.into()],
        );
        let rows = rows.await?;
        let (stock, price_cents) = rows.first().map_or((-1, -1), |r| (r.int(0), r.int(1)));
        Ok(StockReply {
            available: false,
            stock,
            price_cents,
        })
    }

    // --- events ---

    /// Tells of faults that began or ended since the last call.
    pub(crate) fn tell(&self, changes: Vec<Change>) {
        for c in changes {
            let (name, to) = (
                format!("{}:{}", c.knob, c.target),
                if c.on { "on" } else { "off" },
            );
            self.metrics
                .fault_active
                .with_label_values(&[&c.knob, &c.target])
                .set(i64::from(c.on));
            self.note("WARN", &format!("fault {name} is {to}"));
            self.truth.event(Event {
                at_ms: c.at_ms,
                kind: "fault",
                name,
                to: to.into(),
            });
        }
    }

    /// One log line outside any request.
    pub(crate) fn note(&self, level: &'static str, message: &str) {
        self.telemetry.log(
            level,
            Role::Gateway,
            &Cx::root(String::new()),
            message,
            None,
            None,
        );
    }

    /// Starts with every breaker closed and its gauge at 0.
    pub(crate) fn init_breakers(&self) {
        for d in DEPENDENCIES {
            self.with_breaker(d, |_, _| ());
            self.metrics.circuit_state.with_label_values(&[d]).set(0);
        }
    }

    pub(crate) fn new(
        settings: Settings,
        telemetry: Telemetry,
        metrics: Metrics,
        parts: Parts,
        blobs: std::path::PathBuf,
    ) -> Self {
        let l = &settings.limits;
        let limiter = Mutex::new(Limiter::new(l.algorithm, l.window_ms, l.max_keys));
        let app = App {
            limiter,
            cache: parts.cache,
            queue: parts.queue,
            settings,
            telemetry,
            metrics,
            truth: Truth::default(),
            faults: Faults::default(),
            data: parts.data,
            blobs,
            peers: Peers::new(),
            inventory: Mutex::new(None),
            versions: Mutex::default(),
            flights: Mutex::default(),
            breakers: Mutex::default(),
            started: Instant::now(),
            ids: AtomicU64::new(0),
        };
        app.init_breakers();
        app
    }
}
