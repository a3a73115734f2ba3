//! Starting and stopping: opens what is on disk, binds every socket, starts the tasks, and takes them down in order.
//!
//! Owns the lifecycle. Must not know what tasks do.
//!
//! ```text
//! start:  config ─▶ store, traces, logs ─▶ sockets bound ─▶ receivers, API, flusher, collectors, rules
//! stop:   accept no more ─▶ drain (deadline) ─▶ collectors, rules end ─▶ last flush ─▶ fsync ─▶ report
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::spool::SegmentsOptions;
use store::{Store, StoreOptions};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::api::{self, Api};
use crate::budget::Budget;
use crate::clock;
use crate::collect;
use crate::config::{Address, Config, Fsync, OrOff};
use crate::error::AgentError;
use crate::forward::Forward;
use crate::ingest::Ingest;
use crate::judge::{self, Judge};
use crate::keep::logs::Logs;
use crate::keep::traces::Traces;
use crate::observe;
use crate::own_spans::TARGET;
use crate::pipeline::Pipeline;
use crate::receive::body::BodyLimits;
use crate::receive::otlp::Receiver;
use crate::receive::{grpc, otlp_http};
use crate::serve::{Server, Versions};
use crate::telemetry::Telemetry;

/// How often retention is applied and blocks are written.
const MAINTAIN_EVERY: Duration = Duration::from_secs(5);

/// How long remote write may take at shutdown; what is left is on disk and sent after the next start.
const FORWARD_DEADLINE: Duration = Duration::from_secs(3);

/// A running agent. Dropping it leaves its tasks running; call [`Agent::shutdown`].
pub struct Agent {
    /// Where the API answers.
    pub api_addr: SocketAddr,
    /// Where OTLP over gRPC is received, unless it is off.
    pub otlp_grpc_addr: Option<SocketAddr>,
    /// Where OTLP over HTTP is received, unless it is off.
    pub otlp_http_addr: Option<SocketAddr>,
    /// The door for samples, for collectors in the same process.
    pub ingest: Ingest,
    api: Api,
    forward: Option<Forward>,
    accepting: CancellationToken,
    working: CancellationToken,
    /// An agent that is dropped without a shutdown still ends its threads: a runtime waits for them.
    _ends_with_it: [DropGuard; 2],
    connections: TaskTracker,
    tasks: Vec<JoinHandle<()>>,
}

/// What was left when the agent stopped.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ShutdownReport {
    /// Whether every request in flight was answered before the deadline.
    pub drained: bool,
    /// Whether everything acknowledged is on disk.
    pub synced: bool,
    /// Seconds that it took.
    pub seconds: f64,
    /// What went wrong, in words.
    pub problems: Vec<String>,
}

impl ShutdownReport {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.drained && self.synced && self.problems.is_empty()
    }
}

struct Sockets {
    api: Server,
    grpc: Option<Server>,
    http: Option<Server>,
}

/// Opens the data folder, binds every socket and starts every task. Must be called within a tokio runtime.
pub async fn start(config: Config) -> Result<Agent, AgentError> {
    config.validate()?;
    let token: Option<Arc<str>> = config.read_token()?.map(Arc::from);
    let telemetry = Telemetry::new(clock::now_ms())
        .map_err(|e| AgentError::Config(format!("cannot make the metrics registry: {e}")))?;
    let telemetry = Arc::new(telemetry);
    let sockets = bind(&config, token.is_some(), &telemetry).await?;
    let api_addr = address_of(&sockets.api)?;
    let otlp_grpc_addr = sockets.grpc.as_ref().map(address_of).transpose()?;
    let otlp_http_addr = sockets.http.as_ref().map(address_of).transpose()?;

    let (store, traces, logs) = open(&config).await?;
    let ingest = Ingest::to_store(store.clone());
    let forward = forward(&config, &ingest, &telemetry).await?;
    let pipeline = Pipeline::new(
        &config,
        ingest.clone(),
        traces,
        logs,
        Arc::clone(&telemetry),
    );
    let pipeline = Arc::new(pipeline);
    let weak = Arc::downgrade(&pipeline);
    ingest.set_log_sink(move |records| weak.upgrade().map_or(0, |p| p.collected_logs(records)));
    let limits = BodyLimits {
        bytes: usize::try_from(config.limits.body.0).unwrap_or(usize::MAX),
        timeout: config.limits.body_timeout.duration(),
        budget: Budget::new(usize::try_from(config.limits.in_flight.0).unwrap_or(usize::MAX)),
    };
    let engine = promql::Engine::new(promql::Options {
        lookback_ms: config.query.lookback.0,
        max_samples: config.query.max_samples,
        experimental: config.query.experimental,
        ..promql::Options::default()
    });
    let judge = Judge::start(
        &config.alerts,
        &config.data_dir.join("alerts"),
        &format!("http://{api_addr}"),
    )?;
    let api = Api {
        engine,
        judge: Arc::new(judge),
        turns: Arc::new(Semaphore::new(config.query.concurrency)),
        pipeline: Arc::clone(&pipeline),
        store,
        telemetry,
        config: Arc::new(config),
        limits: limits.clone(),
        token: token.clone(),
        instance: Arc::from(api_addr.to_string()),
    };
    let receiver = Receiver {
        pipeline,
        limits,
        token,
    };
    let (accepting, working) = (CancellationToken::new(), CancellationToken::new());
    let mut agent = Agent {
        _ends_with_it: [accepting.clone().drop_guard(), working.clone().drop_guard()],
        api_addr,
        otlp_grpc_addr,
        otlp_http_addr,
        ingest,
        api,
        forward,
        accepting,
        working,
        connections: TaskTracker::new(),
        tasks: Vec::new(),
    };
    agent.serve(sockets, receiver);
    agent.work();
    Ok(agent)
}

// === impl Agent ===

impl Agent {
    /// The agent's base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.api_addr)
    }

    /// Writes RED and graph series of everything received so far.
    pub async fn flush(&self) {
        let flushes = self.api.pipeline.ingest.flushes().clone();
        flushes.flush(Duration::from_secs(10)).await;
        let pipeline = Arc::clone(&self.api.pipeline);
        // A panic in it was reported by the panic hook; there is nothing to add.
        let _ = tokio::task::spawn_blocking(move || pipeline.flush_spans(clock::now_ms())).await;
    }

    /// Stops accepting, lets requests in flight finish (at most `limits.drain`), ends every task, writes what is
    /// derived, and forces everything to the disk.
    pub async fn shutdown(self) -> ShutdownReport {
        let begun = Instant::now();
        let mut report = ShutdownReport::default();
        self.accepting.cancel();
        self.connections.close();
        let drain = self.api.config.limits.drain.duration();
        report.drained = tokio::time::timeout(drain, self.connections.wait())
            .await
            .is_ok();
        if !report.drained {
            let open = self.connections.len();
            report.problems.push(format!(
                "{open} connections were still busy after {drain:?}"
            ));
        }
        self.working.cancel();
        for task in self.tasks {
            let abort = task.abort_handle();
            if tokio::time::timeout(drain, task).await.is_err() {
                abort.abort();
                report
                    .problems
                    .push("a task did not end and was aborted".to_owned());
            }
        }
        let api = self.api;
        let last = tokio::task::spawn_blocking(move || {
            api.pipeline.flush_spans(clock::now_ms());
            let synced = [
                api.store.flush(),
                api.pipeline.traces.flush(),
                api.pipeline.logs.flush(),
            ];
            synced
                .into_iter()
                .filter_map(Result::err)
                .collect::<Vec<_>>()
        });
        match last.await {
            Ok(errors) => {
                report.synced = errors.is_empty();
                report
                    .problems
                    .extend(errors.iter().map(ToString::to_string));
            }
            Err(_) => report.problems.push("the last flush failed".to_owned()),
        }
        if let Some(forward) = self.forward
            && let Err(error) = forward.shutdown(FORWARD_DEADLINE).await
        {
            report.synced = false;
            report.problems.push(error.to_string());
        }
        report.seconds = begun.elapsed().as_secs_f64();
        report
    }

    fn serve(&mut self, sockets: Sockets, receiver: Receiver) {
        let router = api::router(self.api.clone());
        let answer = move |request: http::Request<hyper::body::Incoming>| {
            let router = router.clone();
            async move {
                let request = request.map(axum::body::Body::new);
                match tower::ServiceExt::oneshot(router, request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        };
        let (accepting, connections) = (self.accepting.clone(), self.connections.clone());
        self.tasks.push(tokio::spawn(sockets.api.run(
            answer,
            accepting,
            connections,
        )));
        if let Some(server) = sockets.grpc {
            let receiver = receiver.clone();
            let handler = move |request| grpc::handle(receiver.clone(), request);
            let (accepting, connections) = (self.accepting.clone(), self.connections.clone());
            self.tasks
                .push(tokio::spawn(server.run(handler, accepting, connections)));
        }
        if let Some(server) = sockets.http {
            let handler = move |request| otlp_http::handle(receiver.clone(), request);
            let (accepting, connections) = (self.accepting.clone(), self.connections.clone());
            self.tasks
                .push(tokio::spawn(server.run(handler, accepting, connections)));
        }
    }

    fn work(&mut self) {
        let config = Arc::clone(&self.api.config);
        self.every(config.spans.interval.duration(), |api| {
            api.pipeline.flush_spans(clock::now_ms());
        });
        self.every(MAINTAIN_EVERY, maintain);
        if let Some(interval) = config.self_interval.as_option() {
            self.every(interval.duration(), observe::append_own);
        }
        let collectors =
            collect::spawn_all(&config.collect, self.ingest.clone(), self.working.clone());
        self.tasks.extend(collectors);
        let judge = Arc::clone(&self.api.judge);
        let rules = judge::run(judge, self.api.clone(), self.working.clone());
        self.tasks.push(tokio::spawn(rules));
    }

    /// Runs `job` off the async threads, again and again.
    fn every(&mut self, interval: Duration, job: fn(&Api)) {
        let (api, working) = (self.api.clone(), self.working.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(10)));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    () = working.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                let api = api.clone();
                if tokio::task::spawn_blocking(move || job(&api))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }));
    }
}

fn maintain(api: &Api) {
    let _span = tracing::info_span!(target: TARGET, "maintain").entered();
    let now_ns = clock::now_ns();
    let results = [
        ("store", api.store.maintain(clock::now_ms())),
        ("traces", api.pipeline.traces.maintain(now_ns)),
        ("logs", api.pipeline.logs.maintain(now_ns)),
    ];
    for (what, result) in results {
        if let Err(error) = result {
            api.telemetry.reject(what, "maintenance_failed");
            tracing::warn!(what, %error, "maintenance failed");
        }
    }
}

async fn open(config: &Config) -> Result<(Store, Traces, Logs), AgentError> {
    let (dir, keep) = (config.data_dir.clone(), config.keep.clone());
    let mut options = StoreOptions::new(dir.join("metrics"));
    options.retention_ms = config.retention.as_option().map(|r| r.0);
    options.retention_bytes = config.retention_bytes.as_option().map(|b| b.0);
    options.out_of_order_ms = config.out_of_order.0.max(0);
    options.max_series = config.limits.series;
    options.max_series_per_metric = config.limits.series_per_metric;
    options.max_series_per_source = config.limits.series_per_source;
    let fsync = match config.fsync {
        Fsync::EverySecond => store::Fsync::EverySecond,
        Fsync::EveryAppend => store::Fsync::EveryAppend,
    };
    options.fsync = fsync;
    let segments = move |name: &str, bytes: u64, age: &OrOff<crate::config::Millis>| {
        let mut options = SegmentsOptions::new(dir.join(name));
        options.retention_bytes = Some(bytes);
        options.retention_ms = age.as_option().map(|r| r.0);
        options.fsync = fsync;
        options
    };
    let traces = segments("traces", keep.trace_bytes.0, &keep.trace_retention);
    let logs = segments("logs", keep.log_bytes.0, &keep.log_retention);
    let opened = tokio::task::spawn_blocking(move || {
        Ok::<_, store::StoreError>((
            Store::open(options)?,
            Traces::open(traces)?,
            Logs::open(logs)?,
        ))
    });
    match opened.await {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(AgentError::Config(
            "the data folder could not be opened".into(),
        )),
    }
}

/// Starts remote write out, when there is somewhere to write.
async fn forward(
    config: &Config,
    ingest: &Ingest,
    telemetry: &Arc<Telemetry>,
) -> Result<Option<Forward>, AgentError> {
    if config.remote_write.is_empty() {
        return Ok(None);
    }
    let dir = config.data_dir.join("remote-write");
    let (peers, bytes) = (
        config.remote_write.clone(),
        config.limits.remote_write_queue,
    );
    let telemetry = Arc::clone(telemetry);
    let work = move || Forward::start(&dir, bytes, &peers, telemetry);
    let started = tokio::task::spawn_blocking(work).await;
    let forward = started.unwrap_or_else(|_| {
        Err(AgentError::Config(
            "remote write could not be started".into(),
        ))
    })?;
    ingest.set_forward(forward.sink());
    Ok(Some(forward))
}

async fn bind(
    config: &Config,
    protected: bool,
    telemetry: &Arc<Telemetry>,
) -> Result<Sockets, AgentError> {
    let api = Socket {
        what: "the API",
        setting: "listen",
        flag: "--listen",
        name: "api",
        versions: Versions::Both,
        off: "",
    };
    let grpc = Socket {
        what: "OTLP over gRPC",
        setting: "otlp_grpc",
        flag: "--otlp-grpc",
        name: "otlp_grpc",
        versions: Versions::Http2,
        off: ", or turn it off with `off`",
    };
    let http = Socket {
        what: "OTLP over HTTP",
        setting: "otlp_http",
        flag: "--otlp-http",
        name: "otlp_http",
        versions: Versions::Both,
        ..grpc
    };
    let optional = async |socket: Socket, address: &Address| match address {
        OrOff::Off => Ok(None),
        OrOff::On(address) => socket
            .bind(address, config, protected, telemetry)
            .await
            .map(Some),
    };
    Ok(Sockets {
        api: api
            .bind(&config.listen, config, protected, telemetry)
            .await?,
        grpc: optional(grpc, &config.otlp_grpc).await?,
        http: optional(http, &config.otlp_http).await?,
    })
}

/// A socket to be, and the words for it.
#[derive(Clone, Copy)]
struct Socket {
    what: &'static str,
    setting: &'static str,
    flag: &'static str,
    name: &'static str,
    versions: Versions,
    off: &'static str,
}

impl Socket {
    async fn bind(
        self,
        address: &str,
        config: &Config,
        protected: bool,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Server, AgentError> {
        let failed = |reason: String| AgentError::Listen {
            address: address.to_owned(),
            what: self.what,
            reason,
            setting: self.setting,
            flag: self.flag,
            off: self.off,
        };
        let resolved: Vec<SocketAddr> = tokio::net::lookup_host(address)
            .await
            .map_err(|_| {
                failed("it is not an address; write HOST:PORT, as in 127.0.0.1:9909".into())
            })?
            .collect();
        if !protected && resolved.iter().any(|a| !a.ip().is_loopback()) {
            return Err(AgentError::Unprotected {
                address: address.to_owned(),
                setting: self.setting,
            });
        }
        let listener = TcpListener::bind(&resolved[..]).await.map_err(|e| {
            failed(match e.kind() {
                std::io::ErrorKind::AddrInUse => "the port is in use by another process".to_owned(),
                _ => e.to_string(),
            })
        })?;
        Ok(Server {
            name: self.name,
            listener,
            versions: self.versions,
            limits: config.limits.clone(),
            telemetry: Arc::clone(telemetry),
        })
    }
}

fn address_of(server: &Server) -> Result<SocketAddr, AgentError> {
    server
        .address()
        .map_err(|e| AgentError::Config(format!("a bound socket has no address: {e}")))
}
