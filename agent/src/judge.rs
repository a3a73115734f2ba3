//! Judging: rules are evaluated over the store, what they record goes back, what fires is handed to delivery.
//!
//! Owns the loop, the log of alert events and the SLO status. Must not know how rules or SLOs are computed (that is
//! `alerts`), nor HTTP.

mod events;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alerts::delivery::Dispatcher;
use alerts::slo::SloFile;
use alerts::{EngineOptions, RuleEngine, RuleFile};
use model::Source;
use model::api::{AlertEvent, AlertsBody, RulesBody};
use model::slo::SloStatus;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::clock;
use crate::config::Alerts;
use crate::error::AgentError;
use crate::ingest::Sample;
use crate::own_spans::TARGET;
use events::EventLog;

/// The loop looks at least and at most this often.
const PACE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// By then every rule was evaluated over data that came in since the start, before the time scale.
const RECONCILE_AFTER_MS: i64 = 120_000;
/// How long the first evaluation waits for the first scrapes, which begin within a second.
const FIRST_ROUND: Duration = Duration::from_secs(3);
/// How long delivery may take at shutdown.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(3);

/// Rules, SLOs, delivery, and the log of what happened.
pub(crate) struct Judge {
    engine: Mutex<RuleEngine>,
    slos: Vec<SloFile>,
    events: Mutex<EventLog>,
    /// Delivery; it also keeps silences.
    pub dispatcher: Dispatcher,
    time_scale: f64,
}

// === impl Judge ===

impl Judge {
    /// Reads every file and starts delivery. State is kept in `dir`. Must be called within a tokio runtime.
    pub(crate) fn start(config: &Alerts, dir: &Path, url: &str) -> Result<Self, AgentError> {
        let (files, slos) = read_files(config)?;
        let dispatcher = Dispatcher::start(config.delivery.clone(), Some(dir.to_owned()))
            .map_err(|e| AgentError::Config(format!("alert delivery: {e}")))?;
        let options = EngineOptions {
            default_interval_ms: scaled(config.evaluation_interval.0, config.time_scale),
            external_url: match config.delivery.external_url.as_str() {
                "" => url.to_owned(),
                set => set.to_owned(),
            },
            ..EngineOptions::default()
        };
        let engine = RuleEngine::with_options(files, Some(dir.to_owned()), options);
        if let Some(error) = engine.restore_error() {
            tracing::warn!(error, "the state of alerts could not be restored");
        }
        Ok(Judge {
            engine: Mutex::new(engine),
            slos,
            events: Mutex::new(EventLog::open(dir)),
            dispatcher,
            time_scale: config.time_scale,
        })
    }

    /// The data of `GET /api/v1/rules`.
    pub(crate) fn rules(&self) -> RulesBody {
        lock(&self.engine).rules_body()
    }

    /// The data of `GET /api/v1/alerts`.
    pub(crate) fn alerts(&self) -> AlertsBody {
        lock(&self.engine).alerts_body()
    }

    /// Alerts that fire, as Alertmanager's API shows them.
    pub(crate) fn am_alerts(&self) -> serde_json::Value {
        let firing = lock(&self.engine).firing();
        self.dispatcher.am_alerts(&firing)
    }

    /// The status of every SLO.
    pub(crate) fn slos(
        &self,
        source: &dyn Source,
        engine: &promql::Engine,
    ) -> Result<Vec<SloStatus>, String> {
        let now_ms = clock::now_ms();
        let mut all = Vec::new();
        for file in &self.slos {
            all.extend(alerts::slo::status(
                file,
                source,
                engine,
                now_ms,
                self.time_scale,
            )?);
        }
        Ok(all)
    }

    /// The log of transitions and deliveries since `since_ms`, oldest first, the newest `limit` of them.
    pub(crate) fn events(&self, since_ms: i64, limit: usize) -> Vec<AlertEvent> {
        self.note(Vec::new());
        lock(&self.events).since(since_ms, limit)
    }

    /// Evaluates what is due. Returns when the next group is.
    fn tick(&self, api: &Api) -> Option<i64> {
        let now_ms = clock::now_ms();
        let source = api.pipeline.ingest.source();
        let mut engine = lock(&self.engine);
        let due = engine.next_due_ms().is_some_and(|due| due <= now_ms);
        let _span = due.then(|| tracing::info_span!(target: TARGET, "evaluate rules").entered());
        let tick = engine.tick(now_ms, source.as_ref(), &api.engine);
        let next_ms = engine.next_due_ms();
        drop(engine);
        let samples: Vec<Sample> = tick
            .samples
            .into_iter()
            .map(|(labels, t_ms, value)| Sample::float(labels, t_ms, value))
            .collect();
        api.pipeline.ingest.append(&samples);
        for error in &tick.errors {
            tracing::warn!(error, "a rule failed");
        }
        if tick.groups_evaluated > 0 {
            let result = if tick.errors.is_empty() {
                "ok"
            } else {
                "error"
            };
            api.telemetry.rules.with_label_values(&[result]).inc();
        }
        self.note(tick.transitions);
        if !tick.notifications.is_empty()
            && let Err(error) = self.dispatcher.submit(&tick.notifications)
        {
            api.telemetry.reject("alerts", "outbox");
            tracing::error!(%error, "notifications could not be kept; they are told again while they fire");
        }
        self.note(Vec::new());
        next_ms
    }

    /// Closes incidents of a former run that nothing explains any more.
    fn reconcile(&self) {
        let firing = lock(&self.engine).firing();
        if let Err(error) = self.dispatcher.reconcile(&firing) {
            tracing::warn!(%error, "incidents of a former run could not be closed");
        }
    }

    /// Adds transitions, and what delivery did meanwhile, to the log.
    fn note(&self, transitions: Vec<AlertEvent>) {
        let mut new = transitions;
        let mut events = lock(&self.events);
        new.extend(self.dispatcher.take_events());
        events.add(new);
    }
}

/// Waits until every target was scraped or probed once (or has had its time): before that, rules about what is missing
/// would see nothing but the start.
async fn first_round(api: &Api, stop: &CancellationToken) {
    let collect = &api.config.collect;
    if collect.scrape.is_empty() && collect.probes.is_empty() {
        return;
    }
    let deadline = tokio::time::Instant::now() + FIRST_ROUND;
    loop {
        let targets = api.pipeline.ingest.targets();
        let tried = !targets.is_empty() && targets.iter().all(|t| t.up.is_some());
        if tried || tokio::time::Instant::now() >= deadline {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PACE.0) => {}
        }
    }
}

/// Evaluates rules until `stop`, then ends delivery.
pub(crate) async fn run(judge: Arc<Judge>, api: Api, stop: CancellationToken) {
    first_round(&api, &stop).await;
    let settled_ms = clock::now_ms() + scaled(RECONCILE_AFTER_MS, judge.time_scale);
    let mut reconciled = false;
    loop {
        let (worker, state) = (Arc::clone(&judge), api.clone());
        let ticked = tokio::task::spawn_blocking(move || worker.tick(&state)).await;
        let next_ms = ticked.ok().flatten();
        if !reconciled && clock::now_ms() >= settled_ms {
            reconciled = true;
            let worker = Arc::clone(&judge);
            // A panic in it was reported by the panic hook.
            let _ = tokio::task::spawn_blocking(move || worker.reconcile()).await;
        }
        let wait = next_ms.map_or(PACE.1, |next| {
            let ms = (next - clock::now_ms()).max(0).unsigned_abs();
            Duration::from_millis(ms).clamp(PACE.0, PACE.1)
        });
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    // What is not delivered by then is on disk, and is sent after the next start.
    judge.dispatcher.flush(DELIVERY_DEADLINE).await;
    judge.dispatcher.shutdown().await;
}

fn read_files(config: &Alerts) -> Result<(Vec<RuleFile>, Vec<SloFile>), AgentError> {
    let wrong = |e: alerts::FileError| AgentError::Rules(e.to_string());
    let mut files = Vec::new();
    let mut slos = Vec::new();
    if config.pack {
        slos.push(alerts::pack::slos().map_err(wrong)?);
    }
    for path in &config.slos {
        let (name, text) = read(path)?;
        slos.push(SloFile::parse(&name, &text).map_err(wrong)?);
    }
    // Recordings of SLOs first: rules may use them in the same tick.
    for file in &slos {
        files.push(alerts::slo::rules(file).map_err(wrong)?);
    }
    if config.pack {
        for (name, text) in alerts::pack::shipped() {
            files.push(RuleFile::parse(name, text).map_err(wrong)?);
        }
    }
    for path in &config.rules {
        let (name, text) = read(path)?;
        files.push(RuleFile::parse(&name, &text).map_err(wrong)?);
    }
    let files = files
        .iter()
        .map(|f| alerts::scale(f, config.time_scale))
        .collect();
    Ok((files, slos))
}

fn read(path: &Path) -> Result<(String, String), AgentError> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(source) => Err(AgentError::Read { path: name, source }),
    }
}

fn scaled(ms: i64, factor: f64) -> i64 {
    ((ms as f64 / factor) as i64).max(200)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
