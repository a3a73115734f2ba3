//! The agent's configuration: types, defaults, reading from YAML.
//!
//! Owns every setting's name, meaning and default (docs/agent.md lists them). Must not know flags nor the environment.

mod place;
mod remote;
mod values;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::collect::CollectConfig;
use crate::error::AgentError;

pub use remote::RemoteWrite;
pub use values::{Address, Bytes, Millis, OrOff};

/// Everything that can be set. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A name for what is observed, shown in headers. Default empty.
    pub name: String,
    /// Where the API and the UI answer. Default `127.0.0.1:9909`.
    pub listen: String,
    /// Where OTLP over gRPC is received. Default `127.0.0.1:4317`.
    pub otlp_grpc: Address,
    /// Where OTLP over HTTP is received. Default `127.0.0.1:4318`.
    pub otlp_http: Address,
    /// Clients must send `Authorization: Bearer` with this. Required when any address is not loopback.
    pub token: Option<Secret>,
    /// A file with the token (whitespace at its ends is dropped).
    pub token_file: Option<PathBuf>,
    /// Where data is kept. Default `nines-data`.
    pub data_dir: PathBuf,
    /// Samples older than this are deleted. Default `15d`. With `off` nothing is, and samples of any time are accepted.
    pub retention: OrOff<Millis>,
    /// Samples take at most this much of the disk; past it the oldest are deleted. Default `off`.
    pub retention_bytes: OrOff<Bytes>,
    /// How far a sample may be behind the newest one of its series. Default `1h`.
    pub out_of_order: Millis,
    /// When what was acknowledged is forced to the disk. Default `every_second`.
    pub fsync: Fsync,
    /// Limits.
    pub limits: Limits,
    /// Traces and logs on disk.
    pub keep: Keep,
    /// What is derived from spans.
    pub spans: Spans,
    /// Queries.
    pub query: Query,
    /// Rules, SLOs and alert delivery.
    pub alerts: Alerts,
    /// What is collected.
    pub collect: CollectConfig,
    /// Servers that every sample is written to.
    pub remote_write: Vec<RemoteWrite>,
    /// How often the agent writes its own metrics into its store. Default `5s`.
    pub self_interval: OrOff<Millis>,
    /// Where the agent sends spans of its own work, an OTLP/gRPC endpoint such as `http://127.0.0.1:4317`.
    pub own_spans: Option<String>,
}

/// When samples, traces and logs are forced to the disk. `kill -9` loses nothing either way; a power cut does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// Every second: a power cut loses at most the last one.
    #[default]
    EverySecond,
    /// Before anything is acknowledged; requests at the same time share one sync.
    EveryAppend,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Limits that bound the agent's memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of all requests in flight. Default `128MiB`.
    pub in_flight: Bytes,
    /// Largest request body, before and after decompression. Default `20MiB`.
    pub body: Bytes,
    /// Connections of one listener. Default 1024.
    pub connections: usize,
    /// A request's head must arrive within this. Default `30s`.
    pub header_timeout: Millis,
    /// A request's body must arrive within this. Default `30s`.
    pub body_timeout: Millis,
    /// Requests in flight are given this long at shutdown. Default `10s`.
    pub drain: Millis,
    /// Series in the store. Default 1000000.
    pub series: usize,
    /// Series of one metric; more fold into one overflow series. Default 20000.
    pub series_per_metric: usize,
    /// Series of one job; more fold likewise. Default 200000.
    pub series_per_source: usize,
    /// Delta streams that are added up. Default 100000.
    pub delta_streams: usize,
    /// Bytes on disk of samples that wait for remote write; past it the oldest are dropped and counted. Default `1GiB`.
    pub remote_write_queue: Bytes,
}

/// Traces and logs on disk; the oldest go first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// Bytes of traces. Default `2GiB`.
    pub trace_bytes: Bytes,
    /// Age of traces. Default `3d`.
    pub trace_retention: OrOff<Millis>,
    /// Bytes of logs. Default `2GiB`.
    pub log_bytes: Bytes,
    /// Age of logs. Default `3d`.
    pub log_retention: OrOff<Millis>,
}

/// RED and the service graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spans {
    /// How often RED and graph series are written. Default `1s`.
    pub interval: Millis,
    /// Label sets of one service; more spans are counted in an overflow series. Default 2000.
    pub max_series_per_service: usize,
    /// How long a span waits for its other half. Default `10s`.
    pub graph_wait: Millis,
    /// How many spans wait. Default 100000.
    pub graph_pending: usize,
}

/// Rules, SLOs and alert delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// Whether the rules and SLOs that come with the program are evaluated. Default true.
    pub pack: bool,
    /// Prometheus rule files.
    pub rules: Vec<PathBuf>,
    /// SLO files.
    pub slos: Vec<PathBuf>,
    /// Every window and interval of rules and SLOs is divided by this; 1 is real time. Default 1.
    pub time_scale: f64,
    /// Interval of rule groups that do not say, before the time scale. Default `15s`.
    pub evaluation_interval: Millis,
    /// Receivers, routes and retries.
    pub delivery: alerts::delivery::DeliveryConfig,
}

/// PromQL queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    /// A query is given up after this. Default `2m`.
    pub timeout: Millis,
    /// Samples that one query may load. Default 50000000.
    pub max_samples: usize,
    /// Queries at the same time; more wait. Default 8.
    pub concurrency: usize,
    /// How far an instant selector looks back. Default `5m`.
    pub lookback: Millis,
    /// Whether PromQL's experimental part is allowed (start timestamps are used then). Default false.
    pub experimental: bool,
    /// Samples that one remote read may answer with. Default 10000000.
    pub remote_read_samples: usize,
}

// === impl Default ===

impl Default for Config {
    fn default() -> Self {
        Config {
            name: String::new(),
            listen: "127.0.0.1:9909".into(),
            otlp_grpc: OrOff::On("127.0.0.1:4317".into()),
            otlp_http: OrOff::On("127.0.0.1:4318".into()),
            token: None,
            token_file: None,
            data_dir: "nines-data".into(),
            retention: OrOff::On(Millis(15 * 86_400_000)),
            retention_bytes: OrOff::Off,
            out_of_order: Millis(3_600_000),
            fsync: Fsync::EverySecond,
            limits: Limits::default(),
            keep: Keep::default(),
            spans: Spans::default(),
            query: Query::default(),
            alerts: Alerts::default(),
            collect: CollectConfig::default(),
            remote_write: Vec::new(),
            self_interval: OrOff::On(Millis(5_000)),
            own_spans: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            in_flight: Bytes(128 << 20),
            body: Bytes(20 << 20),
            connections: 1024,
            header_timeout: Millis(30_000),
            body_timeout: Millis(30_000),
            drain: Millis(10_000),
            series: 1_000_000,
            series_per_metric: 20_000,
            series_per_source: 200_000,
            delta_streams: 100_000,
            remote_write_queue: Bytes(1 << 30),
        }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Keep {
            trace_bytes: Bytes(2 << 30),
            trace_retention: OrOff::On(Millis(3 * 86_400_000)),
            log_bytes: Bytes(2 << 30),
            log_retention: OrOff::On(Millis(3 * 86_400_000)),
        }
    }
}

impl Default for Spans {
    fn default() -> Self {
        Spans {
            interval: Millis(1_000),
            max_series_per_service: 2_000,
            graph_wait: Millis(10_000),
            graph_pending: 100_000,
        }
    }
}

impl Default for Alerts {
    fn default() -> Self {
        Alerts {
            pack: true,
            rules: Vec::new(),
            slos: Vec::new(),
            time_scale: 1.0,
            evaluation_interval: Millis(15_000),
            delivery: alerts::delivery::DeliveryConfig::default(),
        }
    }
}

impl Default for Query {
    fn default() -> Self {
        Query {
            timeout: Millis(120_000),
            max_samples: 50_000_000,
            concurrency: 8,
            lookback: Millis(300_000),
            experimental: false,
            remote_read_samples: 10_000_000,
        }
    }
}

// === impl Config ===

impl Config {
    /// Reads YAML. Errors name file, line and column, what was found, what is expected and what was probably meant.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, AgentError> {
        if text
            .lines()
            .all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
        {
            return Ok(Config::default());
        }
        serde_saphyr::from_str(text)
            .map_err(|error| AgentError::Config(place::describe(file, text, &error)))
    }

    /// Reads a YAML file.
    pub fn load(path: &std::path::Path) -> Result<Self, AgentError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| AgentError::Read {
            path: file.clone(),
            source,
        })?;
        Config::from_yaml(&file, &text)
    }

    /// The token, from the setting or its file.
    pub(crate) fn read_token(&self) -> Result<Option<String>, AgentError> {
        if let Some(path) = &self.token_file {
            let text = std::fs::read_to_string(path).map_err(|source| AgentError::Read {
                path: path.display().to_string(),
                source,
            })?;
            let token = text.trim().to_owned();
            if token.is_empty() {
                let path = path.display();
                return Err(AgentError::Config(format!(
                    "`token_file` {path} is empty; write the token into it"
                )));
            }
            return Ok(Some(token));
        }
        match &self.token {
            Some(Secret(token)) if token.is_empty() => Err(AgentError::Config(
                "`token` is empty; set a long random text, or leave the setting out".into(),
            )),
            token => Ok(token.as_ref().map(|t| t.0.clone())),
        }
    }

    /// Checks what types cannot.
    pub(crate) fn validate(&self) -> Result<(), AgentError> {
        let scale = self.alerts.time_scale;
        if !(scale.is_finite() && scale >= 1e-3) {
            return Err(AgentError::Config(format!(
                "`alerts.time_scale` is {scale}; give it a number above 0, such as 60 (5m becomes 5s), or 1 for real time"
            )));
        }
        for (name, value) in [
            (
                "alerts.evaluation_interval",
                self.alerts.evaluation_interval.0.max(0).unsigned_abs(),
            ),
            ("limits.in_flight", self.limits.in_flight.0),
            ("limits.body", self.limits.body.0),
            ("limits.connections", self.limits.connections as u64),
            ("limits.series", self.limits.series as u64),
            (
                "limits.series_per_metric",
                self.limits.series_per_metric as u64,
            ),
            (
                "limits.series_per_source",
                self.limits.series_per_source as u64,
            ),
            ("query.concurrency", self.query.concurrency as u64),
            ("query.max_samples", self.query.max_samples as u64),
            (
                "spans.interval",
                self.spans.interval.0.max(0).unsigned_abs(),
            ),
            ("query.timeout", self.query.timeout.0.max(0).unsigned_abs()),
        ] {
            if value == 0 {
                return Err(AgentError::Config(format!(
                    "`{name}` is 0; give it a value above 0, or leave it out for the default"
                )));
            }
        }
        remote::check(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_values_are_read() {
        assert_eq!(
            Config::from_yaml("n.yaml", "# nothing\n").unwrap(),
            Config::default()
        );
        let text = "listen: 127.0.0.1:1\notlp_grpc: off\nretention: off\nretention_bytes: 5GiB\nfsync: every_append\nlimits:\n  body: 1MiB\nspans: {interval: 250ms}\n";
        let config = Config::from_yaml("n.yaml", text).unwrap();
        assert_eq!(config.otlp_grpc, OrOff::Off);
        assert_eq!(config.retention, OrOff::Off);
        assert_eq!(config.retention_bytes, OrOff::On(Bytes(5 << 30)));
        assert_eq!(config.fsync, Fsync::EveryAppend);
        assert_eq!(config.limits.body, Bytes(1 << 20));
        assert_eq!(config.spans.interval, Millis(250));
        let yaml = serde_json::to_string(&config).unwrap();
        assert_eq!(Config::from_yaml("n.yaml", &yaml).unwrap(), config);
    }

    #[test]
    fn errors_say_where_and_what_was_meant() {
        let error = Config::from_yaml("n.yaml", "name: a\nlisten_on: x\n").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("n.yaml:2:1: "), "{text}");
        assert!(text.contains("unknown setting `listen_on`"), "{text}");
        assert!(text.contains("did you mean `listen`?"), "{text}");
        let text = Config::from_yaml("n.yaml", "spans:\n  interval: 5 parsecs\n")
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("n.yaml:2:") && text.contains("5 parsecs") && text.contains("5m"),
            "{text}"
        );
        let text = Config::from_yaml("n.yaml", "limits:\n  body: lots\n")
            .unwrap_err()
            .to_string();
        assert!(text.contains("lots") && text.contains("20MiB"), "{text}");
    }
}
