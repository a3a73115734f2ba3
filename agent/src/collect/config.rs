//! What is collected: the `collect` part of the agent's configuration.
//!
//! Owns keys and defaults; docs/resources.md lists them. Must not know how anything is collected.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds, written as a duration: `10s`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every(pub i64);

// === impl Every ===

impl Every {
    /// From whole seconds.
    #[must_use]
    pub const fn seconds(n: i64) -> Self {
        Every(n * 1000)
    }

    /// As the standard library's duration; at least 1 ms.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.max(1)).unwrap_or(1))
    }
}

impl Serialize for Every {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&model::duration::format_ms(self.0))
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match model::duration::parse_ms(&text) {
            Ok(ms) if ms > 0 => Ok(Every(ms)),
            Ok(_) => Err(serde::de::Error::custom(
                "the duration must be longer than 0",
            )),
            Err(e) => Err(serde::de::Error::custom(e)),
        }
    }
}

/// Text that is never printed: a URL with a password in it, or a token.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("\"***\"")
    }
}

/// What is collected.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectConfig {
    /// Prometheus scrape jobs.
    pub scrape: Vec<ScrapeJob>,
    /// Health probes.
    pub probes: Vec<ProbeConfig>,
    /// The host that the agent runs on.
    pub host: HostConfig,
    /// Redis servers.
    pub redis: Vec<RedisConfig>,
    /// PostgreSQL servers, primaries and replicas alike.
    pub postgres: Vec<PostgresConfig>,
    /// RabbitMQ management APIs.
    pub rabbitmq: Vec<RabbitConfig>,
    /// nginx servers.
    pub nginx: Vec<NginxConfig>,
    /// HAProxy servers.
    pub haproxy: Vec<HaproxyConfig>,
    /// JSON log files that are followed.
    pub logs: Vec<LogFileConfig>,
}

/// One scrape job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrapeJob {
    /// The `job` label.
    pub job: String,
    /// `host:port`, each a target.
    pub targets: Vec<String>,
    /// Labels of the static targets.
    pub labels: BTreeMap<String, String>,
    /// Files with target groups (Prometheus `file_sd`, JSON or YAML), read again when they change.
    pub files: Vec<PathBuf>,
    /// `http` or `https`. Default `http`.
    pub scheme: String,
    /// Default `/metrics`.
    pub path: String,
    /// Default `5s`.
    pub interval: Every,
    /// Default `4s`; never longer than the interval.
    pub timeout: Every,
    /// Whether labels in the body win over the target's. Default no: they become `exported_...`.
    pub honor_labels: bool,
    /// Whether timestamps in the body count. Default yes.
    pub honor_timestamps: bool,
    /// Bodies longer than this (decompressed) fail the scrape. Default 16 MiB.
    pub body_limit_bytes: usize,
    /// Scrapes with more samples than this fail. Default 250 000.
    pub sample_limit: usize,
    /// A file with a bearer token, read at every scrape.
    pub bearer_token_file: Option<PathBuf>,
}

impl Default for ScrapeJob {
    fn default() -> Self {
        ScrapeJob {
            job: String::new(),
            targets: Vec::new(),
            labels: BTreeMap::new(),
            files: Vec::new(),
            scheme: "http".into(),
            path: "/metrics".into(),
            interval: Every::seconds(5),
            timeout: Every::seconds(4),
            honor_labels: false,
            honor_timestamps: true,
            body_limit_bytes: 16 << 20,
            sample_limit: 250_000,
            bearer_token_file: None,
        }
    }
}

/// One health probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// `http://...`, `https://...` or `tcp://host:port`.
    pub url: String,
    /// The `target` label. Default the URL's `host:port`.
    pub name: Option<String>,
    /// Default `10s`.
    pub interval: Every,
    /// Default `5s`; never longer than the interval.
    pub timeout: Every,
    /// Failures in a row after which `probe_up` is 0. Default 2.
    pub fall: u32,
    /// Successes in a row after which `probe_up` is 1 again. Default 3.
    pub rise: u32,
    /// Wanted HTTP status; default any of 200 to 299.
    pub status: Option<u16>,
    /// What the JSON body must say.
    pub json: Option<JsonAssertion>,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        ProbeConfig {
            url: String::new(),
            name: None,
            interval: Every::seconds(10),
            timeout: Every::seconds(5),
            fall: 2,
            rise: 3,
            status: None,
            json: None,
        }
    }
}

/// A value that a JSON body must have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonAssertion {
    /// A JSON pointer (RFC 6901), such as `/status`.
    pub pointer: String,
    /// What must be there.
    pub equals: serde_json::Value,
}

/// The host collector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Default yes, on Linux.
    pub enabled: bool,
    /// Default `1s`.
    pub interval: Every,
    /// How many processes, by CPU time since the round before, are reported. Default 10.
    pub top_processes: usize,
    /// Executable names whose processes are always reported.
    pub processes: Vec<String>,
    /// Whether cgroups (containers, services) are reported. Default yes.
    pub cgroups: bool,
    /// Where proc is mounted. Default `/proc`.
    pub proc_dir: PathBuf,
    /// Where sys is mounted. Default `/sys`.
    pub sys_dir: PathBuf,
}

impl Default for HostConfig {
    fn default() -> Self {
        HostConfig {
            enabled: cfg!(target_os = "linux"),
            interval: Every::seconds(1),
            top_processes: 10,
            processes: Vec::new(),
            cgroups: true,
            proc_dir: "/proc".into(),
            sys_dir: "/sys".into(),
        }
    }
}

macro_rules! resource_config {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $type:ty = $default:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
            /// The `instance` label. Default the address' `host:port`.
            pub instance: Option<String>,
            /// Default `5s`.
            pub interval: Every,
            /// A round that takes longer fails. Default `3s`.
            pub timeout: Every,
        }
        impl Default for $name {
            fn default() -> Self {
                $name {
                    $($field: $default,)*
                    instance: None,
                    interval: Every::seconds(5),
                    timeout: Every::seconds(3),
                }
            }
        }
    };
}

resource_config! {
    /// One Redis server.
    RedisConfig {
        /// `redis://[user:password@]host:port`.
        url: Hidden = Hidden::default(),
    }
}
resource_config! {
    /// One PostgreSQL server.
    PostgresConfig {
        /// `postgres://user:password@host:port/database`, or key=value form.
        url: Hidden = Hidden::default(),
    }
}
resource_config! {
    /// One RabbitMQ node with the management plugin.
    RabbitConfig {
        /// The management API: `http://user:password@host:port`.
        url: Hidden = Hidden::default(),
        /// At most so many queues are reported, the fullest first. Default 200.
        max_queues: usize = 200,
    }
}
resource_config! {
    /// One nginx.
    NginxConfig {
        /// The URL of `stub_status`.
        status_url: Option<String> = None,
        /// The JSON access log; see docs/resources.md for its fields.
        access_log: Option<PathBuf> = None,
        /// `worker_processes` times `worker_connections`, for utilization. Default unknown.
        max_connections: Option<u64> = None,
    }
}
resource_config! {
    /// One HAProxy.
    HaproxyConfig {
        /// The URL of its Prometheus exporter.
        url: String = String::new(),
    }
}

/// One log file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogFileConfig {
    /// The file, with one JSON object a line.
    pub path: PathBuf,
    /// `service.name` of lines that have no `service` field.
    pub service: String,
    /// Whether what is already in the file is read. Default no.
    pub from_start: bool,
}

impl Default for LogFileConfig {
    fn default() -> Self {
        LogFileConfig {
            path: PathBuf::new(),
            service: String::new(),
            from_start: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_documented_ones_and_secrets_stay_hidden() {
        let text = "{\"redis\":[{\"url\":\"redis://:secret@h:1\"}],\"probes\":[{\"url\":\"tcp://h:1\",\"interval\":\"500ms\"}]}";
        let config: CollectConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.probes[0].interval, Every(500));
        assert_eq!((config.probes[0].fall, config.probes[0].rise), (2, 3));
        assert!(!format!("{config:?}").contains("secret"));
        assert!(serde_json::from_str::<CollectConfig>("{\"redi\":[]}").is_err());
        assert!(serde_json::from_str::<Every>("\"0\"").is_err());
        assert_eq!(serde_json::to_string(&Every(90_000)).unwrap(), "\"1m30s\"");
    }
}
