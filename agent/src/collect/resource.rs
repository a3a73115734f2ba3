//! Resources: Redis, PostgreSQL, RabbitMQ, nginx, HAProxy.
//!
//! Owns the loop that all of them share: one deadline a round, `<kind>_up`, the row in the target table, and series
//! that end when a round fails. Must not know the store. Errors and labels never contain a user or a password.

mod haproxy;
mod lag;
mod nginx;
mod nginx_log;
mod postgres;
mod rabbitmq;
mod redis;

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::{CollectConfig, Every};
use super::record::Recorder;
use super::rounds::Rounds;
use crate::ingest::{Ingest, Target};

/// One resource's way of being read.
pub(super) trait Collector: Send + 'static {
    /// Reads once into `recorder`. On an error what was read in this round so far is kept out.
    fn read(
        &mut self,
        recorder: &mut Recorder,
        t_ms: i64,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// What the loop needs to know of a resource.
struct Common {
    kind: &'static str,
    up: &'static str,
    instance: String,
    /// Without user and password.
    url: String,
    interval: Every,
    timeout: Every,
}

/// Starts every configured resource collector.
pub(super) fn spawn(
    config: &CollectConfig,
    ingest: &Ingest,
    shutdown: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for c in &config.redis {
        let common = common(
            "redis",
            "redis_up",
            &c.url.0,
            &c.instance,
            c.interval,
            c.timeout,
        );
        tasks.push(start(common, redis::Redis::new(&c.url.0), ingest, shutdown));
    }
    for c in &config.postgres {
        let common = common(
            "postgresql",
            "postgresql_up",
            &c.url.0,
            &c.instance,
            c.interval,
            c.timeout,
        );
        tasks.push(start(
            common,
            postgres::Postgres::new(&c.url.0),
            ingest,
            shutdown,
        ));
    }
    for c in &config.rabbitmq {
        let common = common(
            "rabbitmq",
            "rabbitmq_up",
            &c.url.0,
            &c.instance,
            c.interval,
            c.timeout,
        );
        tasks.push(start(common, rabbitmq::Rabbit::new(c), ingest, shutdown));
    }
    for c in &config.haproxy {
        let common = common(
            "haproxy",
            "haproxy_up",
            &c.url,
            &c.instance,
            c.interval,
            c.timeout,
        );
        tasks.push(start(
            common,
            haproxy::Haproxy::new(&c.url),
            ingest,
            shutdown,
        ));
    }
    for c in &config.nginx {
        let url = c
            .status_url
            .clone()
            .or_else(|| Some(c.access_log.as_ref()?.display().to_string()));
        let common = common(
            "nginx",
            "nginx_up",
            &url.unwrap_or_default(),
            &c.instance,
            c.interval,
            c.timeout,
        );
        tasks.push(start(common, nginx::Nginx::new(c), ingest, shutdown));
    }
    tasks
}

fn common(
    kind: &'static str,
    up: &'static str,
    url: &str,
    instance: &Option<String>,
    interval: Every,
    timeout: Every,
) -> Common {
    let parsed = url::Url::parse(url).ok();
    let address = parsed
        .as_ref()
        .and_then(|u| Some((u.host_str()?.to_owned(), u.port_or_known_default())));
    let address = address.map(|(host, port)| match port.or(default_port(kind)) {
        Some(port) => format!("{host}:{port}"),
        None => host,
    });
    let shown = match (&address, parsed) {
        (Some(address), Some(u)) => format!("{}://{address}{}", u.scheme(), u.path()),
        _ if url.starts_with('/') => url.to_owned(),
        _ => kind.to_owned(),
    };
    Common {
        kind,
        up,
        instance: instance
            .clone()
            .or(address)
            .unwrap_or_else(|| kind.to_owned()),
        url: shown,
        interval,
        timeout,
    }
}

fn default_port(kind: &str) -> Option<u16> {
    match kind {
        "redis" => Some(6379),
        "postgresql" => Some(5432),
        _ => None,
    }
}

fn start(
    common: Common,
    collector: impl Collector,
    ingest: &Ingest,
    shutdown: &CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(run(common, collector, ingest.clone(), shutdown.clone()))
}

async fn run(
    common: Common,
    mut collector: impl Collector,
    ingest: Ingest,
    shutdown: CancellationToken,
) {
    let labels = [("job", common.kind), ("instance", common.instance.as_str())];
    let mut recorder = Recorder::new(&labels);
    let timeout: Duration = common.timeout.duration().min(common.interval.duration());
    let row = Target {
        job: common.kind.into(),
        url: common.url.clone(),
        labels: model::Labels::from_pairs(labels),
        interval_ms: common.interval.0,
        timeout_ms: i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX),
        ..Target::default()
    };
    ingest.report_target(row.clone());
    let mut rounds =
        Rounds::new(&common.url, common.interval.duration(), shutdown.clone()).on_flush(&ingest);
    while let Some(t_ms) = rounds.next().await {
        let begun = Instant::now();
        recorder.begin(t_ms);
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(timeout, collector.read(&mut recorder, t_ms)) => outcome,
            () = shutdown.cancelled() => return,
        };
        let outcome =
            outcome.unwrap_or_else(|_| Err(format!("no complete answer within {timeout:?}")));
        if outcome.is_err() {
            recorder.begin(t_ms);
        }
        recorder.gauge(common.up, &[], f64::from(u8::from(outcome.is_ok())));
        recorder.gauge("up", &[], f64::from(u8::from(outcome.is_ok())));
        recorder.commit(&ingest);
        ingest.report_target(Target {
            up: Some(outcome.is_ok()),
            last_error: outcome.err().unwrap_or_default(),
            last_ms: t_ms,
            duration_seconds: begun.elapsed().as_secs_f64(),
            ..row.clone()
        });
    }
}

/// The uniform view's utilization, 0..1.
fn utilization(r: &mut Recorder, kind: &str, resource: &str, used: f64, limit: f64) {
    if limit > 0.0 && used.is_finite() {
        let labels = [("kind", kind), ("resource", resource)];
        r.gauge(
            "nines_use_utilization_ratio",
            &labels,
            (used / limit).clamp(0.0, 1.0),
        );
    }
}

/// The uniform view's saturation.
fn saturation(r: &mut Recorder, kind: &str, resource: &str, unit: &str, value: f64) {
    let labels = [("kind", kind), ("resource", resource), ("unit", unit)];
    r.gauge("nines_use_saturation", &labels, value);
}

/// The uniform view's error count.
fn errors(r: &mut Recorder, kind: &str, resource: &str, value: f64) {
    let labels = [("kind", kind), ("resource", resource)];
    r.counter("nines_use_errors_total", &labels, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_instance_nor_url_shows_a_password() {
        let every = Every::seconds(1);
        let c = common(
            "redis",
            "redis_up",
            "redis://me:secret@h",
            &None,
            every,
            every,
        );
        assert_eq!(
            (c.instance.as_str(), c.url.as_str()),
            ("h:6379", "redis://h:6379")
        );
        let c = common(
            "postgresql",
            "postgresql_up",
            "host=h password=secret",
            &None,
            every,
            every,
        );
        assert_eq!(
            (c.instance.as_str(), c.url.as_str()),
            ("postgresql", "postgresql")
        );
    }
}
