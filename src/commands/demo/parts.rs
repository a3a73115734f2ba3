//! The demo's parts: sink, backend, agent, load; how they are started, wired and stopped.
//!
//! Owns addresses and folders. Must not know what is made of the results.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent::collect::config::{Every, ScrapeJob};
use agent::config::{Config, Millis, OrOff};
use alerts::delivery::{DeliveryConfig, ReceiverConfig, Secret};
use anyhow::Context;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::sink::Sink;
use super::stack::Stack;
use crate::console::now_ms;

/// A user of the seed data, for the load's orders.
const EMAIL: &str = "user2@example.com";
const PASSWORD: &str = "password";

/// Everything that runs.
pub struct Parts {
    agent: agent::Agent,
    backend: backend::Backend,
    /// The local on-call.
    pub sink: Sink,
    /// The real servers, when the demo runs on them.
    pub stack: Option<Stack>,
    http: reqwest::Client,
    dir: PathBuf,
}

type Load = JoinHandle<anyhow::Result<loadgen::Report>>;

impl Parts {
    /// Starts sink, agent and backend, wired to each other, on free ports of loopback and in a private folder.
    pub async fn start(scale: f64, stack: Option<Stack>) -> anyhow::Result<Parts> {
        let dir = std::env::temp_dir().join(format!("nines-demo-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let sink = Sink::start().await?;
        // The agent must know where to scrape before the backend runs, and the backend where to send spans: the
        // backend's port is chosen first.
        let front = match stack.as_ref().and_then(|s| s.real.fronts.first()) {
            Some(front) => front.clone(),
            None => free_port()?.to_string(),
        };
        let mut config = agent_config(&dir, &front, &sink, scale);
        // With a time scale one round that comes late would be a server that is down for 20 s, so nothing but the
        // backend tells then.
        if let Some(stack) = stack.as_ref().filter(|_| scale <= 1.0) {
            stack.collect(&mut config.collect, Every(1_000));
        }
        let agent = agent::start(config).await?;
        let spans = agent
            .otlp_grpc_addr
            .context("the agent has no OTLP address")?;
        let mut settings = backend::Settings::demo();
        settings.listen = front;
        if let Some(stack) = &stack {
            // Real servers have latencies of their own.
            settings.realism.enabled = false;
            settings.real = Some(stack.real.clone());
        }
        settings.data_dir = Some(dir.join("backend"));
        settings.otlp_endpoint = Some(format!("http://{spans}"));
        settings.balancer.check_interval_ms = 1_000;
        if scale > 1.0 {
            settings.breaker.open_ms = 1_000;
        }
        let backend = backend::start(settings).await?;
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .build()?;
        Ok(Parts {
            agent,
            backend,
            sink,
            stack,
            http,
            dir,
        })
    }

    /// Where clients connect.
    pub fn front(&self) -> String {
        let own = || format!("http://{}", self.backend.front_addr);
        self.stack.as_ref().map_or_else(own, Stack::front)
    }

    /// The agent's base URL.
    pub fn agent_url(&self) -> String {
        self.agent.url()
    }

    /// Begins the seed's mix, nine reads to one write, in the open model.
    pub async fn load(
        &self,
        rate: f64,
        length: Duration,
        stop: CancellationToken,
    ) -> anyhow::Result<Load> {
        let token = self.login().await?;
        let mut plan = loadgen::Plan::new(&self.front())?;
        let request = |name: &str, method: &str, path: &str, weight: u32| loadgen::RequestSpec {
            name: name.into(),
            method: method.into(),
            path: path.into(),
            range: 100,
            headers: vec![("authorization".into(), format!("Bearer {token}"))],
            body: None,
            weight,
        };
        let mut order = request("create order", "POST", "/api/orders", 10);
        order.body = Some(r#"{"items":[{"productId":{n},"quantity":1}]}"#.into());
        order
            .headers
            .push(("content-type".into(), "application/json".into()));
        plan.requests = vec![
            request("product", "GET", "/api/products/{n}", 70),
            request("products", "GET", "/api/products?page={n}", 10),
            request("my orders", "GET", "/api/users/2/orders", 10),
            order,
        ];
        plan.model = loadgen::Model::Rate {
            per_second: rate,
            poisson: false,
        };
        plan.seed = now_ms().unsigned_abs();
        plan.duration = length;
        plan.warm_up = Duration::ZERO;
        plan.connections = 128;
        plan.scenario = "demo".into();
        let (progress, mut seen) = tokio::sync::watch::channel(loadgen::Progress::default());
        let client = client::Client::new(self.agent.url());
        tokio::spawn(async move {
            while seen.changed().await.is_ok() {
                let series = seen.borrow_and_update().series.clone();
                // The agent may be stopping; a lost second of the run's own series is shown by its absence.
                let _ = client.remote_write(&series).await;
            }
        });
        Ok(tokio::spawn(async move {
            Ok(loadgen::run(plan, progress, stop).await?)
        }))
    }

    /// Sets the backend's faults.
    pub async fn inject(&self, faults: &Value) -> anyhow::Result<()> {
        let url = format!("http://{}/admin/faults", self.backend.admin_addr);
        let answer = self.http.put(url).json(faults).send().await?;
        let status = answer.status();
        anyhow::ensure!(
            status.is_success(),
            "the backend refused the fault: {status} {}",
            answer.text().await?
        );
        Ok(())
    }

    /// Breaks or mends a real server.
    pub async fn break_server(&self, fault: &str) -> anyhow::Result<()> {
        match &self.stack {
            Some(stack) => stack.fault(fault).await,
            None => Ok(()),
        }
    }

    /// Makes everything that happened visible: the backend's spans are sent, the agent's counters written.
    pub async fn flush(&self) -> anyhow::Result<()> {
        let url = format!("http://{}/admin/flush", self.backend.admin_addr);
        self.http.post(url).send().await?.error_for_status()?;
        Ok(client::Client::new(self.agent.url()).flush().await?)
    }

    /// The backend's exact counts.
    pub fn truth(&self) -> Value {
        self.backend.truth()
    }

    /// Stops everything and removes the folder; returns what went wrong.
    pub async fn stop(self) -> Vec<String> {
        self.backend.shutdown().await;
        let report = self.agent.shutdown().await;
        self.sink.stop();
        let mut problems = report.problems;
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            problems.push(format!("cannot remove {}: {error}", self.dir.display()));
        }
        problems
    }

    async fn login(&self) -> anyhow::Result<String> {
        let url = format!("{}/api/v1/auth/login", self.front());
        let body = HashMap::from([("email", EMAIL), ("password", PASSWORD)]);
        let answer = self
            .http
            .post(url)
            .json(&body)
            .send()
            .await?
            .error_for_status()?;
        let answer: Value = answer.json().await?;
        let token = answer["token"]
            .as_str()
            .context("the login answered without a token")?;
        Ok(token.to_owned())
    }
}

fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn agent_config(dir: &std::path::Path, front: &str, sink: &Sink, scale: f64) -> Config {
    let every = Every(if scale > 1.0 { 500 } else { 1_000 });
    let mut config = Config {
        name: "demo".into(),
        listen: "127.0.0.1:0".into(),
        otlp_grpc: OrOff::On("127.0.0.1:0".into()),
        otlp_http: OrOff::Off,
        data_dir: dir.join("agent"),
        retention: OrOff::On(Millis(86_400_000)),
        ..Config::default()
    };
    config.collect.scrape.push(ScrapeJob {
        job: "refbackend".into(),
        targets: vec![front.to_owned()],
        interval: every,
        timeout: every,
        ..ScrapeJob::default()
    });
    config.alerts.time_scale = scale;
    config.alerts.delivery = DeliveryConfig {
        receivers: vec![
            ReceiverConfig::pagerduty(
                "page",
                &format!("http://{}/v2/enqueue", sink.addr),
                Secret::new("00000000000000000000000000000000"),
            ),
            ReceiverConfig::slack("slack", &format!("http://{}/slack", sink.addr)),
        ],
        ..DeliveryConfig::default()
    };
    config
}
