//! `nines agent`: run the agent until Ctrl-C.
//!
//! Owns its flags and how they override the configuration file. Must not know what the agent does.

use std::path::PathBuf;

use agent::config::{Config, Millis, OrOff};
use clap::Args as ClapArgs;
use model::duration;

use crate::cli::Shared;
use crate::console::{CommandResult, Outcome, block_on, note, stop_token, usage};

/// Flags of `nines agent`; each overrides its environment variable, which overrides the file.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The configuration file (default: nines.yaml when there is one)
    #[arg(long, env = "NINES_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where the API answers [default: 127.0.0.1:9909]
    #[arg(long, env = "NINES_LISTEN", value_name = "ADDR")]
    listen: Option<String>,

    /// Where OTLP over gRPC is received, or off [default: 127.0.0.1:4317]
    #[arg(long, env = "NINES_OTLP_GRPC", value_name = "ADDR|off")]
    otlp_grpc: Option<String>,

    /// Where OTLP over HTTP is received, or off [default: 127.0.0.1:4318]
    #[arg(long, env = "NINES_OTLP_HTTP", value_name = "ADDR|off")]
    otlp_http: Option<String>,

    /// Where data is kept [default: nines-data]
    #[arg(long, env = "NINES_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// How long samples are kept, or off for ever [default: 15d]
    #[arg(long, env = "NINES_RETENTION", value_name = "DURATION|off")]
    retention: Option<String>,

    /// Prometheus rule files to evaluate, beside those of the file
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,

    /// Divide every window of rules and SLOs by this [default: 1]
    #[arg(long, value_name = "N")]
    time_scale: Option<f64>,

    /// A name for what is observed, shown in headers
    #[arg(long, env = "NINES_NAME")]
    name: Option<String>,

    /// Check the configuration, print it with every default but without secrets, and stop
    #[arg(long)]
    check: bool,
}

/// Runs until told to stop.
pub fn run(args: Args, shared: Shared) -> CommandResult {
    let check = args.check;
    let config = configure(args)?;
    if check {
        let shown = super::config::masked("", serde_json::to_value(&config)?);
        crate::console::print(&super::reach::json(&shown)?)?;
        return Ok(Outcome::Good);
    }
    block_on(async {
        let spans = super::agent_log::start(config.own_spans.as_deref(), shared.quiet)?;
        let stop = stop_token();
        let running = agent::start(config).await?;
        if !shared.quiet {
            note(&format!("agent: API and PromQL on {}", running.url()));
            let address =
                |a: Option<std::net::SocketAddr>| a.map_or("off".to_owned(), |a| a.to_string());
            note(&format!(
                "agent: OTLP gRPC {}, OTLP HTTP {}; Ctrl-C stops",
                address(running.otlp_grpc_addr),
                address(running.otlp_http_addr)
            ));
        }
        stop.cancelled().await;
        let report = running.shutdown().await;
        for problem in &report.problems {
            note(&format!("agent: {problem}"));
        }
        // Blocks until the last spans are sent.
        if let Some(spans) = spans {
            let sent = tokio::task::spawn_blocking(|| spans.shutdown()).await?;
            if !sent {
                note("agent: the last own spans were not sent");
            }
        }
        Ok(if report.clean() {
            Outcome::Good
        } else {
            Outcome::Failed
        })
    })
}

impl Args {
    /// The configuration file that is read, if any.
    pub fn file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| {
            let usual = PathBuf::from("nines.yaml");
            usual.exists().then_some(usual)
        })
    }

    /// The settings that a flag or its environment variable sets: setting, flag, variable.
    pub fn overridden(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let all = [
            (
                self.listen.is_some(),
                ("listen", "--listen", "NINES_LISTEN"),
            ),
            (
                self.otlp_grpc.is_some(),
                ("otlp_grpc", "--otlp-grpc", "NINES_OTLP_GRPC"),
            ),
            (
                self.otlp_http.is_some(),
                ("otlp_http", "--otlp-http", "NINES_OTLP_HTTP"),
            ),
            (
                self.data_dir.is_some(),
                ("data_dir", "--data-dir", "NINES_DATA_DIR"),
            ),
            (
                self.retention.is_some(),
                ("retention", "--retention", "NINES_RETENTION"),
            ),
            (!self.rules.is_empty(), ("alerts.rules", "--rules", "")),
            (
                self.time_scale.is_some(),
                ("alerts.time_scale", "--time-scale", ""),
            ),
            (self.name.is_some(), ("name", "--name", "NINES_NAME")),
        ];
        let set = all.into_iter().filter(|(set, _)| *set);
        set.map(|(_, names)| names).collect()
    }
}

/// The configuration: defaults, then the file, then environment and flags.
pub fn configure(args: Args) -> anyhow::Result<Config> {
    let mut config = match args.file() {
        Some(path) => Config::load(&path).map_err(|e| usage(e.to_string()))?,
        None => Config::default(),
    };
    let address = |text: String| {
        if text == "off" {
            OrOff::Off
        } else {
            OrOff::On(text)
        }
    };
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(text) = args.otlp_grpc {
        config.otlp_grpc = address(text);
    }
    if let Some(text) = args.otlp_http {
        config.otlp_http = address(text);
    }
    if let Some(dir) = args.data_dir {
        config.data_dir = dir;
    }
    if let Some(text) = args.retention {
        config.retention = match text.as_str() {
            "off" => OrOff::Off,
            other => OrOff::On(Millis(
                duration::parse_ms(other).map_err(|e| usage(format!("--retention: {e}")))?,
            )),
        };
    }
    config.alerts.rules.extend(args.rules);
    if let Some(scale) = args.time_scale {
        config.alerts.time_scale = scale;
    }
    if let Some(name) = args.name {
        config.name = name;
    }
    Ok(config)
}
