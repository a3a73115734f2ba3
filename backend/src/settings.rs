//! Every setting of the reference backend with its default, as plain data.
//! Must not know how a setting is carried out, nor any command line.

use std::path::PathBuf;

mod real;
mod split;

use serde::{Deserialize, Serialize};

pub use crate::telemetry::Role;
pub use real::Real;
pub use split::Split;

use crate::limiter::Algorithm;

/// All settings. `Settings::default()` carries the seed's own numbers; unknown keys are errors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Front address (balancer), `host:port`; port 0 picks a free one.
    pub listen: String,
    /// Admin address, `host:port`; port 0 picks a free one.
    pub admin: String,
    /// Directory of the SQLite files and blobs. `None`: a private temporary directory, removed at shutdown.
    pub data_dir: Option<PathBuf>,
    /// OTLP/gRPC endpoint such as `http://127.0.0.1:4317`; `None` turns span creation off.
    pub otlp_endpoint: Option<String>,
    /// Send the log lines by OTLP too, when there is an `otlp_endpoint`.
    pub otlp_logs: bool,
    /// JSON log destination: `off`, `stderr`, or a file path.
    pub log: String,
    /// Also log one line for each request (the seed's "log request, log response").
    pub access_log: bool,
    /// Version shown by `/version`, `build_info` and `service.version`.
    pub version: String,
    /// HS256 secret of the tokens. Never printed.
    pub jwt_secret: String,
    /// Life of a token in seconds.
    pub jwt_ttl_s: u64,
    /// File with the body of `PUT /admin/faults`, in force from the start (times count from there).
    pub faults_file: Option<PathBuf>,
    /// Let a request bring a fault for itself in the header `x-fault`.
    pub fault_header: bool,
    /// Real servers in the place of the embedded parts.
    pub real: Option<Real>,
    /// One process of several: its roles and its peers. `None`: all roles are here.
    pub split: Option<Split>,
    /// Balancer and its health checks.
    pub balancer: Balancer,
    /// Request limits.
    pub limits: Limits,
    /// Cache.
    pub cache: Cache,
    /// Database.
    pub database: Database,
    /// Queue and workers.
    pub queue: Queue,
    /// Circuit breakers.
    pub breaker: Breaker,
    /// Retries of calls between parts.
    pub retry: Retry,
    /// Deadlines, each child below its parent.
    pub timeouts: Timeouts,
    /// Latencies that make an in-process backend look like the seed's.
    pub realism: Realism,
    /// Rows that exist at the start.
    pub seed_data: SeedData,
    /// Requests with a longer body are refused with 403, bytes.
    pub waf_max_body_bytes: usize,
}

/// Balancer: least connections over `instances` gateways.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balancer {
    /// Gateway instances, at least 1 (seed: 3).
    pub instances: usize,
    /// Time between health checks, ms (seed: 10 s).
    pub check_interval_ms: u64,
    /// Consecutive failures that take an instance out (seed: 2).
    pub fall: u32,
    /// Consecutive successes that bring it back (seed: 3).
    pub rise: u32,
}

/// Rate limits per user, address and tier. The seeds differ by a factor of 15: see docs/backend.md.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Off: every request is allowed and not counted as a decision.
    pub enabled: bool,
    /// `token_bucket` or `sliding_window`.
    pub algorithm: Algorithm,
    /// Window, ms (60 000; the other seed has 900 000).
    pub window_ms: u64,
    /// Requests per window of one user of tier `standard` (100).
    pub per_user: u64,
    /// Requests per window of one address (1000).
    pub per_ip: u64,
    /// Tier `free` (10).
    pub tier_free: u64,
    /// Tier `premium` (100).
    pub tier_premium: u64,
    /// Role `admin` (1000).
    pub admin: u64,
    /// Keys remembered at most; the oldest half is forgotten beyond it.
    pub max_keys: usize,
}

/// Cache-aside settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Life of a product entry, seconds (3600).
    pub product_ttl_s: u64,
    /// Life of a task, seconds (300, the other seed).
    pub task_ttl_s: u64,
    /// Entries at most.
    pub capacity: u64,
    /// One loader per missing key.
    pub single_flight: bool,
    /// A cache call slower than this is an error, ms.
    pub timeout_ms: u64,
}

/// Database settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Read connections (replica pool). Seed: max 50.
    pub pool_max: usize,
    /// Longest wait for a connection, ms; beyond it the request fails with 503.
    pub pool_wait_ms: u64,
    /// Delay of the replica behind the primary, ms (seed example: 100; default 0).
    pub replica_lag_ms: u64,
}

/// Queue settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Deliveries after the first that fail before a message is a dead letter (seed: 3).
    pub max_retries: u32,
    /// First wait before a retry, ms; doubles each time.
    pub backoff_ms: u64,
    /// Time between looks at the outbox and at delayed messages, ms.
    pub poll_ms: u64,
}

/// Circuit breaker settings (seed: 50 %, 60 s, 3 trials).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Failure ratio that opens, 0..=1.
    pub failure_ratio: f64,
    /// Calls needed in the window before the ratio counts.
    pub min_calls: u32,
    /// Length of the counting window, ms.
    pub window_ms: u64,
    /// Time open before trials, ms.
    pub open_ms: u64,
    /// Successful trials that close it.
    pub half_open_trials: u32,
}

/// Retry settings: exponential backoff with full jitter.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Tries in all, the first included (1 turns retries off).
    pub attempts: u32,
    /// First wait, ms.
    pub base_ms: u64,
    /// Longest wait, ms.
    pub cap_ms: u64,
}

/// Timeout chain (seed: 60 > 55 > 50 > 45 s).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Balancer to gateway, ms.
    pub client_ms: u64,
    /// Gateway to service, ms.
    pub gateway_ms: u64,
    /// Work of one service, ms.
    pub service_a_ms: u64,
    /// A service's call to another, ms.
    pub service_b_ms: u64,
}

/// Added latency; off by default.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Realism {
    /// Off: no wait is added.
    pub enabled: bool,
    /// Median of a cache call, ms (seed: 1-5).
    pub cache_ms: f64,
    /// Median of a database call, ms (seed: 10-50).
    pub db_ms: f64,
    /// Spread: sigma of the lognormal.
    pub sigma: f64,
}

/// Rows at the start.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeedData {
    /// Products 1..=n.
    pub products: u32,
    /// Users 1..=n (`user<n>@example.com`, password `password`); user 1 is admin.
    pub users: u32,
    /// Tasks 1..=n.
    pub tasks: u32,
    /// Stock of each product.
    pub stock: i64,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: "127.0.0.1:8080".into(),
            admin: "127.0.0.1:8081".into(),
            data_dir: None,
            otlp_endpoint: None,
            otlp_logs: true,
            faults_file: None,
            fault_header: false,
            real: None,
            split: None,
            log: "off".into(),
            access_log: true,
            version: env!("CARGO_PKG_VERSION").into(),
            jwt_secret: "reference-backend-development-secret".into(),
            jwt_ttl_s: 3600,
            balancer: Balancer::default(),
            limits: Limits::default(),
            cache: Cache::default(),
            database: Database::default(),
            queue: Queue::default(),
            breaker: Breaker::default(),
            retry: Retry::default(),
            timeouts: Timeouts::default(),
            realism: Realism::default(),
            seed_data: SeedData::default(),
            waf_max_body_bytes: 1 << 20,
        }
    }
}

impl Settings {
    /// Settings of `nines demo`: free ports, limits off, moderate latencies, plenty of stock, and a
    /// breaker that reopens its trials after 5 s so that a recovery fits into a minute.
    pub fn demo() -> Self {
        Settings {
            listen: "127.0.0.1:0".into(),
            admin: "127.0.0.1:0".into(),
            limits: Limits {
                enabled: false,
                ..Limits::default()
            },
            realism: Realism {
                enabled: true,
                ..Realism::default()
            },
            breaker: Breaker {
                open_ms: 5_000,
                ..Breaker::default()
            },
            seed_data: SeedData {
                stock: 1_000_000,
                ..SeedData::default()
            },
            ..Settings::default()
        }
    }

    /// Whether this process has a role.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.split.as_ref().is_none_or(|s| s.has(role))
    }

    /// `service` of this process' own request metrics: the gateway, or the first of its roles.
    pub(crate) fn service(&self) -> &'static str {
        let first = self.split.as_ref().and_then(|s| s.roles.first());
        if self.has(Role::Gateway) {
            Role::Gateway.name()
        } else {
            first.map_or("gateway", |r| r.name())
        }
    }

    /// `embedded` or `real`.
    pub fn mode(&self) -> &'static str {
        if self.real.is_some() {
            "real"
        } else {
            "embedded"
        }
    }

    /// Rejects values that contradict each other; the text names the key and the rule.
    pub fn check(&self) -> Result<(), String> {
        let t = &self.timeouts;
        if !(t.client_ms > t.gateway_ms
            && t.gateway_ms > t.service_a_ms
            && t.service_a_ms > t.service_b_ms)
        {
            return Err(format!(
                "timeouts: client_ms {} > gateway_ms {} > service_a_ms {} > service_b_ms {} must hold: a parent that gives up first hides its child's error",
                t.client_ms, t.gateway_ms, t.service_a_ms, t.service_b_ms
            ));
        }
        if let Some(split) = &self.split {
            split.check()?;
            if self.real.is_none() {
                return Err("split: needs real mode; an embedded database, cache and queue belong to one process".into());
            }
        }
        if self.balancer.instances == 0 || self.balancer.instances > 64 {
            return Err(format!(
                "balancer.instances: {} is outside 1..=64",
                self.balancer.instances
            ));
        }
        if self.database.pool_max == 0 || self.database.pool_max > 256 {
            return Err(format!(
                "database.pool_max: {} is outside 1..=256",
                self.database.pool_max
            ));
        }
        if !(0.0..=1.0).contains(&self.breaker.failure_ratio) {
            return Err(format!(
                "breaker.failure_ratio: {} is outside 0..=1",
                self.breaker.failure_ratio
            ));
        }
        if self.limits.window_ms == 0
            || self.balancer.check_interval_ms == 0
            || self.queue.poll_ms == 0
        {
            return Err(
                "limits.window_ms, balancer.check_interval_ms and queue.poll_ms must be above 0"
                    .into(),
            );
        }
        Ok(())
    }
}

impl Default for Balancer {
    fn default() -> Self {
        Balancer {
            instances: 3,
            check_interval_ms: 10_000,
            fall: 2,
            rise: 3,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            enabled: true,
            algorithm: Algorithm::TokenBucket,
            window_ms: 60_000,
            per_user: 100,
            per_ip: 1000,
            tier_free: 10,
            tier_premium: 100,
            admin: 1000,
            max_keys: 100_000,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Cache {
            product_ttl_s: 3600,
            task_ttl_s: 300,
            capacity: 100_000,
            single_flight: true,
            timeout_ms: 200,
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Database {
            pool_max: 50,
            pool_wait_ms: 2_000,
            replica_lag_ms: 0,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            max_retries: 3,
            backoff_ms: 200,
            poll_ms: 50,
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker {
            failure_ratio: 0.5,
            min_calls: 10,
            window_ms: 10_000,
            open_ms: 60_000,
            half_open_trials: 3,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: 3,
            base_ms: 20,
            cap_ms: 500,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            client_ms: 60_000,
            gateway_ms: 55_000,
            service_a_ms: 50_000,
            service_b_ms: 45_000,
        }
    }
}

impl Default for Realism {
    fn default() -> Self {
        Realism {
            enabled: false,
            cache_ms: 2.0,
            db_ms: 20.0,
            sigma: 0.3,
        }
    }
}

impl Default for SeedData {
    fn default() -> Self {
        SeedData {
            products: 1000,
            users: 500,
            tasks: 200,
            stock: 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_consistent_and_unknown_keys_are_errors() {
        assert_eq!(Settings::default().check(), Ok(()));
        assert_eq!(Settings::demo().check(), Ok(()));
        assert!(serde_json::from_str::<Settings>(r#"{"listn":"x"}"#).is_err());
        let mut s = Settings::default();
        s.timeouts.gateway_ms = 70_000;
        assert!(s.check().is_err());
    }
}
