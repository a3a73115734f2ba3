//! Starts and stops everything: files, sockets, tasks. Must not know what a request does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::{App, Parts};
use crate::cache::Cache;
use crate::clock;
use crate::data::{Data, DbError, postgres, sqlite};
use crate::faults::{Change, FaultList};
use crate::gateway::{Door, Front, front, version};
use crate::inventory::Inventory;
use crate::peer::service_front;
use crate::queue::Queue;
use crate::queue::broker::Broker;
use crate::record::Metrics;
use crate::redis_cache::RedisCache;
use crate::settings::Settings;
use crate::telemetry::{ROLES, Role, Telemetry};
use crate::{admin, queue, schema};

/// Why the backend did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error("check settings: {0}")]
    Settings(String),
    /// An address is in use or not ours.
    #[error("listen on {addr}: {source}")]
    Listen {
        /// Address asked for.
        addr: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory.
    #[error("prepare data directory {}: {source}", .dir.display())]
    Directory {
        /// Directory.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database.
    #[error("open database: {0}")]
    Database(#[from] DbError),
    /// A real server does not answer.
    #[error("{0}")]
    Server(String),
    /// Metrics or exporters.
    #[error("prepare telemetry: {0}")]
    Telemetry(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A running backend.
#[derive(Debug)]
pub struct Backend {
    /// Where clients connect; `/metrics` is here too.
    pub front_addr: SocketAddr,
    /// Faults and truth.
    pub admin_addr: SocketAddr,
    /// Where gRPC (`Inventory`) is answered.
    pub inventory_addr: SocketAddr,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    private_dir: Option<PathBuf>,
}

/// Starts all roles in this process; every socket is bound when it returns.
pub async fn start(settings: Settings) -> Result<Backend> {
    settings.check().map_err(Error::Settings)?;
    let mut fronts = Vec::new();
    let real = settings.real.as_ref();
    for addr in real.map_or(&[][..], |r| &r.fronts[..]) {
        fronts.push(listen(addr).await?);
    }
    // An external balancer finds each instance at an address of its own; else one balancer of ours is the front.
    let own_balancer = fronts.is_empty();
    if own_balancer {
        fronts.push(listen(&settings.listen).await?);
    }
    let admin_listener = listen(&settings.admin).await?;
    let split = settings.split.as_ref();
    let inventory = split.map_or("", |s| s.inventory_listen.as_str());
    let inventory = if inventory.is_empty() {
        "127.0.0.1:0"
    } else {
        inventory
    };
    let grpc_listener = listen(inventory).await?;
    let (dir, private) = directory(&settings)?;
    let parts = Parts::open(&settings, &dir).await?;
    schema::seed(&parts.data, settings.seed_data).await?;
    if let Data::Postgres(db) = &parts.data {
        // A replica that stays behind is a state to be observed, no reason not to start.
        let _follows = db.replica_follows().await?;
    }
    let telemetry = Telemetry::new(&settings).map_err(Error::Telemetry)?;
    let metrics = Metrics::new().map_err(|e| Error::Telemetry(e.to_string()))?;
    let app = Arc::new(App::new(
        settings,
        telemetry,
        metrics,
        parts,
        dir.join("blobs"),
    ));
    if let Some(file) = app.settings.faults_file.clone() {
        let changes = scheduled_faults(&app, &file).map_err(Error::Settings)?;
        app.tell(changes);
    }
    let (stop, stopped) = watch::channel(false);
    let address = |l: &TcpListener| {
        l.local_addr().map_err(|source| Error::Listen {
            addr: "listener".into(),
            source,
        })
    };
    let (front_addr, admin_addr, grpc_addr) = (
        address(&fronts[0])?,
        address(&admin_listener)?,
        address(&grpc_listener)?,
    );
    let balancer = Arc::new(Front::new(Arc::clone(&app)));
    let mut tasks = Vec::new();
    for (i, listener) in fronts.into_iter().enumerate() {
        let instance = (!own_balancer).then_some(i);
        let door = Door {
            front: Arc::clone(&balancer),
            instance,
        };
        tasks.push(serve_front(door, listener, &stopped));
    }
    tasks.extend(servers(&app, admin_listener, grpc_listener, &stopped));
    let split = app.settings.split.as_ref();
    let elsewhere = split.filter(|s| !s.has(Role::Product));
    let inventory = elsewhere.and_then(|s| s.inventory_url.clone());
    let inventory = inventory.unwrap_or_else(|| format!("http://{grpc_addr}"));
    let endpoint = tonic::transport::Endpoint::from_shared(inventory)
        .map_err(|e| Error::Telemetry(e.to_string()))?;
    *app.inventory.lock().unwrap_or_else(|e| e.into_inner()) = Some(endpoint.connect_lazy());
    tasks.extend(workers(&app, &stopped));
    tasks.push(tokio::spawn(until(
        stopped.clone(),
        housekeeping(Arc::clone(&app)),
    )));
    let interval = Duration::from_millis(app.settings.balancer.check_interval_ms);
    if own_balancer {
        tasks.push(tokio::spawn(until(stopped, async move {
            loop {
                tokio::time::sleep(interval).await;
                balancer.check();
            }
        })));
    }
    Ok(Backend {
        front_addr,
        admin_addr,
        inventory_addr: grpc_addr,
        app,
        stop,
        tasks,
        private_dir: private.then_some(dir),
    })
}

/// Reads a schedule of faults and sets it; an error names the file, the line and the column.
fn scheduled_faults(app: &App, file: &std::path::Path) -> std::result::Result<Vec<Change>, String> {
    let name = file.display();
    let text =
        std::fs::read_to_string(file).map_err(|e| format!("read faults_file {name}: {e}"))?;
    let list: FaultList = serde_json::from_str(&text).map_err(|e| {
        let (line, column) = (e.line(), e.column());
        let shown = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
        format!("{name}:{line}:{column}: {e}\n  {shown}\n  expected the body of PUT /admin/faults, such as {{\"faults\":[{{\"knob\":\"cache_refuse\"}}]}}")
    })?;
    app.faults
        .set(list.faults, clock::unix_ms())
        .map_err(|e| format!("{name}: {e}"))
}

async fn listen(addr: &str) -> Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| Error::Listen {
            addr: addr.to_owned(),
            source,
        })
}

// === impl Parts ===

impl Parts {
    /// Opens what the settings ask for; in real mode every server must answer.
    async fn open(settings: &Settings, dir: &Path) -> Result<Self> {
        let d = &settings.database;
        let Some(real) = &settings.real else {
            let (max, wait, lag) = (d.pool_max, d.pool_wait_ms, d.replica_lag_ms);
            return Ok(Parts {
                data: Data::Sqlite(sqlite::Db::open(dir, schema::SCHEMA, max, wait, lag)?),
                cache: Cache::memory(settings.cache.capacity),
                queue: Queue::Table,
            });
        };
        let options = postgres::Options {
            primary: real.pg_primary.clone(),
            replica: real.pg_replica.clone(),
            pool_max: d.pool_max,
            wait_ms: d.pool_wait_ms,
        };
        let data = Data::Postgres(postgres::Db::open(&options, schema::SCHEMA).await?);
        let replica = real.redis_replica_url.as_deref();
        let replica = replica.filter(|_| real.redis_read_replica);
        let limit = settings.cache.timeout_ms;
        let redis = RedisCache::connect(&real.redis_url, replica, limit).await;
        let mut redis = redis.map_err(Error::Server)?;
        redis.read_replica = real.redis_read_replica;
        let broker = Broker::connect(&real.amqp_url, settings.queue.max_retries).await;
        Ok(Parts {
            data,
            cache: Cache::Redis(redis),
            queue: Queue::Broker(Box::new(broker.map_err(Error::Server)?)),
        })
    }
}

/// The data directory, and whether it is ours to remove.
fn directory(settings: &Settings) -> Result<(PathBuf, bool)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (dir, private) = match &settings.data_dir {
        Some(dir) => (dir.clone(), false),
        None => {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            (
                std::env::temp_dir().join(format!(
                    "refbackend-{}-{}-{n}",
                    std::process::id(),
                    clock::unix_ms()
                )),
                true,
            )
        }
    };
    std::fs::create_dir_all(dir.join("blobs")).map_err(|source| Error::Directory {
        dir: dir.clone(),
        source,
    })?;
    Ok((dir, private))
}

async fn until(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|s| *s) => {}
    }
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    // The sender is gone only when the backend is.
    let _ = stopped.wait_for(|s| *s).await;
}

fn serve_front(
    door: Door,
    listener: TcpListener,
    stopped: &watch::Receiver<bool>,
) -> JoinHandle<()> {
    let app = &door.front.app;
    let router = if app.settings.has(Role::Gateway) {
        axum::Router::new().fallback(front).with_state(door)
    } else {
        let app = Arc::clone(app);
        axum::Router::new().fallback(service_front).with_state(app)
    };
    let serve = axum::serve(
        listener,
        router.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(ended(stopped.clone()));
    tokio::spawn(async move { drop(serve.await) })
}

fn servers(
    app: &Arc<App>,
    admin_listener: TcpListener,
    grpc_listener: TcpListener,
    stopped: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let admin = axum::serve(admin_listener, admin::router(Arc::clone(app)))
        .with_graceful_shutdown(ended(stopped.clone()));
    let incoming = tonic::transport::server::TcpIncoming::from(grpc_listener);
    let grpc = tonic::transport::Server::builder()
        .add_service(Inventory(Arc::clone(app)))
        .serve_with_incoming_shutdown(incoming, ended(stopped.clone()));
    vec![
        tokio::spawn(async move { drop(admin.await) }),
        tokio::spawn(async move { drop(grpc.await) }),
    ]
}

fn workers(app: &Arc<App>, stopped: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
    let poll = app.settings.queue.poll_ms as f64;
    let relay = Arc::clone(app);
    let mut tasks = Vec::new();
    if app.settings.has(Role::Worker) {
        tasks.push(tokio::spawn(until(stopped.clone(), async move {
            loop {
                // A failure is tried again at the next look; the event is still in the outbox.
                if !matches!(queue::relay(&relay).await, Ok(n) if n > 0) {
                    clock::wait_ms(poll).await;
                }
            }
        })));
    }
    let mine = |role: &Role| app.settings.has(*role);
    for (name, _, role) in queue::QUEUES.into_iter().filter(|(.., r)| mine(r)) {
        let consumer = queue::consume(Arc::clone(app), name, role);
        tasks.push(tokio::spawn(until(stopped.clone(), consumer)));
    }
    tasks
}

/// Gauges, fault schedule, pool size, replica delay, log burst and memory growth, ten times a second.
async fn housekeeping(app: Arc<App>) {
    let mut ballast: Vec<Vec<u8>> = Vec::new();
    let mut shown = String::new();
    loop {
        let now = clock::unix_ms();
        app.tell(app.faults.tick(now));
        let skew = app.wall_ms() as i64 - clock::unix_ms() as i64;
        let skew = if skew.abs() < 100 { 0 } else { skew };
        app.telemetry.skew_ms.store(skew, Ordering::Relaxed);
        let size = app
            .faults
            .hit("pool_size", "", now)
            .map(|h| h.fault.value as usize);
        app.data.resize(size);
        for (name, [in_use, idle, max, waiters]) in app.data.pools() {
            app.metrics
                .pool_in_use
                .with_label_values(&[name])
                .set(in_use);
            app.metrics.pool_idle.with_label_values(&[name]).set(idle);
            app.metrics.pool_max.with_label_values(&[name]).set(max);
            app.metrics
                .pool_waiters
                .with_label_values(&[name])
                .set(waiters);
        }
        let behind = replica_behind(&app, now).await;
        app.metrics
            .replica_lag
            .with_label_values(&["replica"])
            .set(behind);
        if let Some(hit) = app.faults.hit("log_burst", "", now) {
            (0..(hit.fault.value / 10.0) as usize)
                .for_each(|i| app.note("INFO", &format!("burst {i}")));
        }
        match app.faults.hit("memory_growth", "", now) {
            Some(hit) => ballast.push(vec![1; ((hit.fault.value / 10.0) as usize).min(64 << 20)]),
            None => ballast.clear(),
        }
        let label = version(&app);
        if label != shown {
            app.metrics.build.reset();
            for role in ROLES.into_iter().filter(|r| app.settings.has(*r)) {
                app.metrics
                    .build
                    .with_label_values(&[&label, role.name()])
                    .set(1);
            }
            app.note("INFO", &format!("version {label} is deployed"));
            shown = label;
        }
        if app.settings.has(Role::Worker) {
            queue_gauges(&app).await;
        }
        clock::wait_ms(100.0).await;
    }
}

/// Seconds that the replica is behind; the embedded one is told how much it shall be.
async fn replica_behind(app: &App, now: u64) -> f64 {
    match &app.data {
        Data::Sqlite(db) => {
            let lag = app
                .faults
                .hit("replica_lag", "", now)
                .map_or(app.settings.database.replica_lag_ms, |h| h.fault.ms as u64);
            db.lag_ms.store(lag, Ordering::Relaxed);
            let oldest = db.oldest_pending_ms.load(Ordering::Relaxed);
            if oldest == 0 {
                0.0
            } else {
                now.saturating_sub(oldest) as f64 / 1000.0
            }
        }
        Data::Postgres(db) => db.look_at_lag().await.unwrap_or(f64::NAN),
    }
}

async fn queue_gauges(app: &App) {
    let Ok(numbers) = queue::numbers(app).await else {
        return;
    };
    app.metrics
        .outbox_pending
        .set(numbers["outbox"].as_i64().unwrap_or(0));
    for (name, ..) in queue::QUEUES {
        let q = &numbers["queues"][name];
        if q.is_null() {
            // The broker does not answer: no number is better than an old one, or a 0 that is none. An error here means
            // that there is no series to take away.
            let _ = app.metrics.queue_depth.remove_label_values(&[name]);
            let _ = app.metrics.dlq_depth.remove_label_values(&[name]);
            let _ = app.metrics.queue_age.remove_label_values(&[name]);
            continue;
        }
        app.metrics
            .queue_depth
            .with_label_values(&[name])
            .set(q["depth"].as_i64().unwrap_or(0));
        app.metrics
            .dlq_depth
            .with_label_values(&[name])
            .set(q["dead"].as_i64().unwrap_or(0));
        app.metrics
            .queue_age
            .with_label_values(&[name])
            .set(q["oldest_ms"].as_f64().unwrap_or(0.0) / 1000.0);
    }
}

// === impl Backend ===

impl Backend {
    /// Truth channel, as `GET /admin/state` gives it.
    pub fn truth(&self) -> serde_json::Value {
        self.app.truth.json()
    }

    /// Text of `/metrics`.
    pub fn metrics(&self) -> String {
        self.app.metrics.text()
    }

    /// Ends every task, sends the last spans and removes a private data directory. At most about 10 s.
    pub async fn shutdown(self) {
        // No receiver is left only when every task has ended already.
        let _ = self.stop.send(true);
        for mut task in self.tasks {
            if tokio::time::timeout(Duration::from_secs(2), &mut task)
                .await
                .is_err()
            {
                task.abort();
            }
        }
        let app = Arc::clone(&self.app);
        let ended = tokio::task::spawn_blocking(move || app.telemetry.shutdown());
        // A receiver that does not answer must not hold the shutdown up.
        let _ = tokio::time::timeout(Duration::from_secs(6), ended).await;
        if let Some(dir) = self.private_dir {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
