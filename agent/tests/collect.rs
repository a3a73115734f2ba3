//! Collectors against the real servers of `backend/stack`; `NINES_STACK_ENV` names the env file that it wrote.
//!
//! Each test is ignored unless asked for: `backend/stack up --dir D`, then
//! `NINES_STACK_ENV=D/env cargo test -p agent --test collect -- --include-ignored`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic where it stands"
)]

use std::collections::HashMap;
use std::time::Duration;

use agent::collect::config::{
    Every, HaproxyConfig, Hidden, NginxConfig, PostgresConfig, ProbeConfig, RabbitConfig,
    RedisConfig, ScrapeJob,
};
use agent::collect::{CollectConfig, spawn_all};
use agent::ingest::Ingest;
use model::{Matcher, SelectRequest, SeriesData};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

const FAST: Every = Every(250);

fn env() -> HashMap<String, String> {
    let path =
        std::env::var("NINES_STACK_ENV").expect("NINES_STACK_ENV names backend/stack's env file");
    let text = std::fs::read_to_string(path).expect("the env file is readable");
    text.lines()
        .filter_map(|l| l.split_once('='))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect()
}

struct Running {
    ingest: Ingest,
    shutdown: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn start(mut config: CollectConfig) -> Running {
    config.host.enabled = false;
    let (ingest, shutdown) = (Ingest::in_memory(1_000_000), CancellationToken::new());
    spawn_all(&config, ingest.clone(), shutdown.clone());
    Running { ingest, shutdown }
}

impl Running {
    fn series(&self, name: &str, labels: &[(&str, &str)]) -> Vec<SeriesData> {
        let mut matchers = vec![Matcher::equal("__name__", name)];
        matchers.extend(labels.iter().map(|(n, v)| Matcher::equal(*n, *v)));
        let request = SelectRequest {
            matchers: &matchers,
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            max_points: usize::MAX,
        };
        self.ingest.source().select(&request).unwrap()
    }

    fn last(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let series = self.series(name, labels);
        series
            .first()?
            .points
            .values
            .last()
            .copied()
            .filter(|v| !v.is_nan())
    }

    async fn until(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        wanted: impl Fn(f64) -> bool,
    ) -> f64 {
        for _ in 0..150 {
            if let Some(v) = self.last(name, labels).filter(|v| wanted(*v)) {
                return v;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!(
            "{name}{labels:?} is {:?}; targets: {:?}",
            self.last(name, labels),
            self.ingest.targets()
        );
    }
}

async fn redis(url: &str, commands: &str) {
    let mut stream = tokio::net::TcpStream::connect(url.trim_start_matches("redis://"))
        .await
        .unwrap();
    stream.write_all(commands.as_bytes()).await.unwrap();
    stream.write_all(b"QUIT\r\n").await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
}

/// `backend/stack fault ...` on the stack under test.
fn fault(env: &HashMap<String, String>, words: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../backend/stack");
    let mut command = std::process::Command::new(script);
    command
        .arg("fault")
        .args(words)
        .arg("--dir")
        .arg(&env["NINES_STACK_DIR"]);
    assert!(command.status().unwrap().success(), "{words:?}");
}

async fn sql(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
#[ignore = "needs backend/stack"]
async fn redis_hit_rate_matches_the_reads_done() {
    let env = env();
    let of = |url: &str| RedisConfig {
        url: Hidden(env[url].clone()),
        interval: FAST,
        ..RedisConfig::default()
    };
    let running = start(CollectConfig {
        redis: vec![of("NINES_REDIS_URL"), of("NINES_REDIS_REPLICA_URL")],
        ..CollectConfig::default()
    });
    let primary = env["NINES_REDIS_URL"]
        .trim_start_matches("redis://")
        .to_owned();
    let replica = env["NINES_REDIS_REPLICA_URL"]
        .trim_start_matches("redis://")
        .to_owned();
    let here = [("instance", primary.as_str())];
    let hits = running
        .until("redis_keyspace_hits_total", &here, |_| true)
        .await;
    let misses = running
        .until("redis_keyspace_misses_total", &here, |_| true)
        .await;
    let commands = format!(
        "SET nines:a 1\r\n{}{}",
        "GET nines:a\r\n".repeat(90),
        "GET nines:none\r\n".repeat(10)
    );
    redis(&env["NINES_REDIS_URL"], &commands).await;
    running
        .until("redis_keyspace_hits_total", &here, |v| v == hits + 90.0)
        .await;
    running
        .until("redis_keyspace_misses_total", &here, |v| v == misses + 10.0)
        .await;
    let app = [("source", "redis"), ("instance", primary.as_str())];
    running
        .until("nines_cache_hits_total", &app, |v| v == hits + 90.0)
        .await;
    running
        .until(
            "nines_use_utilization_ratio",
            &[("kind", "redis"), ("resource", "memory")],
            |v| v > 0.0 && v < 1.0,
        )
        .await;
    running
        .until(
            "redis_replica_link_up",
            &[("instance", replica.as_str())],
            |v| v == 1.0,
        )
        .await;
    running
        .until("redis_replica_lag_bytes", &here, |v| v == 0.0)
        .await;
    running
        .until("redis_cmd_calls_total", &[("cmd", "get"), here[0]], |v| {
            v >= 100.0
        })
        .await;

    // Frozen: the round is given up, what was read before is not repeated, and it comes back.
    fault(&env, &["redis-freeze"]);
    running.until("redis_up", &here, |v| v == 0.0).await;
    let ended = running.last("redis_keyspace_hits_total", &here).is_none();
    fault(&env, &["redis-thaw"]);
    assert!(ended, "an old value lives on");
    running.until("redis_up", &here, |v| v == 1.0).await;
}

#[tokio::test]
#[ignore = "needs backend/stack"]
async fn postgres_lag_is_zero_when_idle_and_true_when_delayed() {
    let env = env();
    let of = |url: &str| PostgresConfig {
        url: Hidden(env[url].clone()),
        interval: FAST,
        ..PostgresConfig::default()
    };
    let running = start(CollectConfig {
        postgres: vec![of("NINES_PG_PRIMARY"), of("NINES_PG_REPLICA")],
        ..CollectConfig::default()
    });
    let lag = "postgresql_replication_lag_seconds";
    running.until(lag, &[], |v| v == 0.0).await;
    running
        .until("postgresql_connection_max", &[], |v| v == 120.0)
        .await;
    running
        .until("postgresql_commits_total", &[("db", "app")], |v| v > 0.0)
        .await;
    running
        .until("postgresql_replica_streaming", &[], |v| v == 1.0)
        .await;
    running
        .until(
            "nines_use_utilization_ratio",
            &[("kind", "postgresql")],
            |v| v > 0.0,
        )
        .await;
    // Idle: the naive expression would grow, ours stays.
    tokio::time::sleep(Duration::from_secs(3)).await;
    running.until(lag, &[], |v| v == 0.0).await;

    let (primary, replica) = (
        sql(&env["NINES_PG_PRIMARY"]).await,
        sql(&env["NINES_PG_REPLICA"]).await,
    );
    replica
        .batch_execute("alter system set recovery_min_apply_delay = '3s'")
        .await
        .unwrap();
    replica
        .batch_execute("select pg_reload_conf()")
        .await
        .unwrap();
    primary
        .batch_execute("create table if not exists nines_lag(n int)")
        .await
        .unwrap();
    for n in 0..60 {
        primary
            .execute("insert into nines_lag values ($1)", &[&n])
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seen = running.until(lag, &[], |v| v > 2.0).await;
    println!("asked for 3 s, the collector reads {seen:.2} s");
    assert!((2.7..=3.8).contains(&seen), "{seen}");
    running
        .until("postgresql_replication_lag_bytes", &[], |v| v > 0.0)
        .await;
    running
        .until(
            "postgresql_replication_data_delay_bytes",
            &[("stage", "replayed")],
            |v| v > 0.0,
        )
        .await;
    // It drains, then reads 0 again.
    running.until(lag, &[], |v| v == 0.0).await;
    replica
        .batch_execute("alter system reset recovery_min_apply_delay")
        .await
        .unwrap();
    replica
        .batch_execute("select pg_reload_conf()")
        .await
        .unwrap();

    // Paused: it grows with time.
    fault(&env, &["replica-pause"]);
    primary
        .execute("insert into nines_lag values (0)", &[])
        .await
        .unwrap();
    running.until(lag, &[], |v| v > 2.0).await;
    running
        .until("postgresql_replication_paused", &[], |v| v == 1.0)
        .await;
    fault(&env, &["replica-resume"]);
    running.until(lag, &[], |v| v == 0.0).await;

    // No primary: everything received is applied, and yet it is not current.
    fault(&env, &["pg-stop"]);
    running.until(lag, &[], |v| v > 1.0).await;
    fault(&env, &["pg-start"]);
    running.until(lag, &[], |v| v == 0.0).await;
}

#[tokio::test]
#[ignore = "needs backend/stack"]
async fn rabbitmq_nodes_and_queues_are_read() {
    let env = env();
    let api = env["NINES_RABBIT_API"].clone();
    let client = {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::new()
    };
    let put = |path: &str, body: &str| {
        client
            .put(format!("{api}/api/{path}"))
            .body(body.to_owned())
            .send()
    };
    assert!(
        put("queues/%2F/nines.test", r#"{"durable":false}"#)
            .await
            .unwrap()
            .status()
            .is_success()
    );
    let message =
        r#"{"properties":{},"routing_key":"nines.test","payload":"x","payload_encoding":"string"}"#;
    for _ in 0..3 {
        let url = format!("{api}/api/exchanges/%2F/amq.default/publish");
        client.post(url).body(message).send().await.unwrap();
    }
    let rabbitmq = vec![RabbitConfig {
        url: Hidden(api.clone()),
        interval: FAST,
        ..RabbitConfig::default()
    }];
    let running = start(CollectConfig {
        rabbitmq,
        ..CollectConfig::default()
    });
    let queue = [("queue", "nines.test"), ("state", "ready")];
    running
        .until("rabbitmq_message_current", &queue, |v| v == 3.0)
        .await;
    running
        .until("rabbitmq_node_memory_used_bytes", &[], |v| v > 1e6)
        .await;
    running
        .until("rabbitmq_node_memory_alarm", &[], |v| v == 0.0)
        .await;
    running
        .until("nines_use_saturation", &[("resource", "nines.test")], |v| {
            v == 3.0
        })
        .await;
    assert!(
        running
            .ingest
            .targets()
            .iter()
            .all(|t| !t.url.contains("guest"))
    );
    client
        .delete(format!("{api}/api/queues/%2F/nines.test"))
        .send()
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs backend/stack"]
async fn nginx_status_and_log_agree_with_the_requests_sent() {
    let env = env();
    let nginx = vec![NginxConfig {
        status_url: Some(env["NINES_NGINX_STATUS"].clone()),
        access_log: Some(env["NINES_NGINX_LOG"].clone().into()),
        max_connections: Some(4096),
        interval: FAST,
        ..NginxConfig::default()
    }];
    let running = start(CollectConfig {
        nginx,
        ..CollectConfig::default()
    });
    running.until("nginx_up", &[], |v| v == 1.0).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    // Whether applications are behind it or not (then 502), every answer is counted with its own status.
    let mut by_status: HashMap<u16, f64> = HashMap::new();
    for _ in 0..25 {
        let status = client
            .get(format!("{}/nines-test", env["NINES_NGINX_URL"]))
            .send()
            .await
            .unwrap()
            .status();
        *by_status.entry(status.as_u16()).or_default() += 1.0;
    }
    for (status, n) in by_status {
        let status = status.to_string();
        let labels = [("status", status.as_str()), ("method", "GET")];
        running
            .until("nginx_http_requests_total", &labels, |v| v == n)
            .await;
        let all = [labels[0], labels[1], ("le", "+Inf")];
        running
            .until("nginx_http_request_duration_seconds_bucket", &all, |v| {
                v == n
            })
            .await;
    }
    running
        .until("nginx_requests_total", &[], |v| v >= 25.0)
        .await;
    running
        .until("nines_use_utilization_ratio", &[("kind", "nginx")], |v| {
            v > 0.0
        })
        .await;
}

#[tokio::test]
#[ignore = "needs backend/stack"]
async fn haproxy_prometheus_and_probes() {
    let env = env();
    let metrics = env["NINES_HAPROXY_METRICS"].clone();
    let address = metrics
        .trim_start_matches("http://")
        .trim_end_matches("/metrics")
        .to_owned();
    let redis_port = env["NINES_REDIS_URL"]
        .trim_start_matches("redis://")
        .to_owned();
    let probe = |url: String| ProbeConfig {
        url,
        interval: FAST,
        ..ProbeConfig::default()
    };
    let running = start(CollectConfig {
        haproxy: vec![HaproxyConfig {
            url: metrics.clone(),
            interval: FAST,
            ..HaproxyConfig::default()
        }],
        scrape: vec![ScrapeJob {
            job: "haproxy-scrape".into(),
            targets: vec![address],
            interval: FAST,
            ..ScrapeJob::default()
        }],
        probes: vec![
            probe(metrics),
            probe(format!("tcp://{redis_port}")),
            probe("tcp://127.0.0.1:1".into()),
        ],
        ..CollectConfig::default()
    });
    running.until("haproxy_up", &[], |v| v == 1.0).await;
    running
        .until("haproxy_server_up", &[("server", "app1")], |v| {
            v == 0.0 || v == 1.0
        })
        .await;
    running
        .until(
            "nines_use_utilization_ratio",
            &[("kind", "haproxy"), ("resource", "api")],
            |v| v >= 0.0,
        )
        .await;
    running
        .until("up", &[("job", "haproxy-scrape")], |v| v == 1.0)
        .await;
    running
        .until(
            "scrape_samples_scraped",
            &[("job", "haproxy-scrape")],
            |v| v > 100.0,
        )
        .await;
    running
        .until("probe_up", &[("instance", &redis_port)], |v| v == 1.0)
        .await;
    running
        .until("probe_success", &[("instance", "127.0.0.1:1")], |v| {
            v == 0.0
        })
        .await;
}
