//! `nines demo`: backend, agent, load, rules and a page in one process, with the terminal on top or a summary at the end.
//!
//! Owns the wiring and the drill's timetable. Must not know how any part works.

mod parts;
mod sink;
mod stack;
mod summary;

use std::time::Duration;

use clap::Args as ClapArgs;
use model::duration;
use tokio_util::sync::CancellationToken;

use super::reach::{Format, json};
use crate::cli::Shared;
use crate::console::{CommandResult, Outcome, block_on, note, now_ms, print, stop_token, usage};
use parts::Parts;
use stack::Stack;
use summary::{Injected, Summary};

/// Flags of `nines demo`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// No terminal: run, then print a summary. Exit code 3 when the drill's page or the counts are not as they must be
    #[arg(long)]
    headless: bool,

    /// How long to run; with the terminal, until q
    #[arg(long = "for", value_name = "DURATION", default_value = "60s")]
    duration: String,

    /// Requests a second
    #[arg(long, default_value_t = 120.0)]
    rate: f64,

    /// Divide every window of rules and SLOs by this, so that a minute shows what hours do [default: 60 with --break, else 1]
    #[arg(long, value_name = "N")]
    time_scale: Option<f64>,

    /// Inject this fault in the middle third of the run
    #[arg(long = "break", value_enum, value_name = "FAULT")]
    fault: Option<Drill>,

    /// Run on the real servers in this folder (`backend/stack up --dir DIR`): nginx, Redis, PostgreSQL, RabbitMQ; redis-down
    /// then stops the real Redis
    #[arg(long, value_name = "DIR")]
    stack: Option<std::path::PathBuf>,

    /// Output of --headless
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Drill {
    /// The cache refuses every call
    RedisDown,
    /// Four requests in ten fail with 500
    ErrorBurst,
    /// Every query takes 1.5 s more
    SlowDb,
}

impl Drill {
    fn name(self) -> &'static str {
        match self {
            Drill::RedisDown => "redis-down",
            Drill::ErrorBurst => "error-burst",
            Drill::SlowDb => "slow-db",
        }
    }

    /// The faults of `backend/stack` that begin and end it, when it is a real server that is broken.
    fn real(self) -> Option<[&'static str; 2]> {
        match self {
            Drill::RedisDown => Some(["redis-stop", "redis-start"]),
            Drill::ErrorBurst | Drill::SlowDb => None,
        }
    }

    /// The backend's knob for it, as `PUT /admin/faults` takes it.
    fn knob(self, seconds: f64) -> serde_json::Value {
        let mut knob = match self {
            Drill::RedisDown => serde_json::json!({"knob": "cache_refuse"}),
            Drill::ErrorBurst => {
                serde_json::json!({"knob": "error", "target": "product", "rate": 0.4, "status": 500})
            }
            Drill::SlowDb => serde_json::json!({"knob": "slow_query", "ms": 1_500.0}),
        };
        knob["seed"] = serde_json::json!(7);
        knob["end_s"] = serde_json::json!(seconds);
        serde_json::json!({"faults": [knob]})
    }
}

/// Runs the demo.
pub fn run(args: Args, shared: Shared) -> CommandResult {
    let length = duration::parse_ms(&args.duration).map_err(|e| usage(format!("--for: {e}")))?;
    if length < 5_000 {
        return Err(usage("--for: give it at least 5s"));
    }
    if !(args.rate > 0.0 && args.rate <= 100_000.0) {
        return Err(usage(format!(
            "--rate {} is not between 0 and 100000",
            args.rate
        )));
    }
    let scale = args
        .time_scale
        .unwrap_or(if args.fault.is_some() { 60.0 } else { 1.0 });
    if !(scale.is_finite() && (1.0..=3_600.0).contains(&scale)) {
        return Err(usage(format!(
            "--time-scale {scale} is not between 1 and 3600"
        )));
    }
    let length = Duration::from_millis(length.unsigned_abs());
    let stack = args.stack.as_deref().map(Stack::read).transpose()?;
    if !args.headless && !tui::is_terminal() {
        return Err(usage(
            "not a terminal: run `nines demo --headless --for 60s`",
        ));
    }
    block_on(async {
        let stop = stop_token();
        let parts = Parts::start(scale, stack).await?;
        if args.headless {
            if !shared.quiet {
                note(&format!(
                    "demo: backend {}, agent {}",
                    parts.front(),
                    parts.agent_url()
                ));
            }
            headless(parts, &args, length, scale, stop).await
        } else {
            on_screen(parts, &args, scale, stop).await
        }
    })
}

async fn headless(
    parts: Parts,
    args: &Args,
    length: Duration,
    scale: f64,
    stop: CancellationToken,
) -> CommandResult {
    let begun = tokio::time::Instant::now();
    let load = parts.load(args.rate, length, stop.clone()).await?;
    let mut injected = None;
    if let Some(drill) = args.fault {
        let third = length / 3;
        tokio::select! {
            () = tokio::time::sleep_until(begun + third) => {}
            () = stop.cancelled() => {}
        }
        let from_ms = now_ms();
        let mut until_ms = from_ms + i64::try_from(third.as_millis()).unwrap_or(0);
        if let Some([begin, end]) = drill.real().filter(|_| parts.stack.is_some()) {
            parts.break_server(begin).await?;
            tokio::select! {
                () = tokio::time::sleep_until(begun + 2 * third) => {}
                () = stop.cancelled() => {}
            }
            parts.break_server(end).await?;
            until_ms = now_ms();
        } else {
            parts.inject(&drill.knob(third.as_secs_f64())).await?;
        }
        injected = Some(Injected {
            fault: drill.name().into(),
            from_ms,
            until_ms,
        });
    }
    let report = load.await??;
    let mut summary = Summary::collect(&parts, &report, scale, injected).await?;
    let left_behind = parts.stop().await;
    summary.problems.extend(left_behind);
    match args.format {
        Format::Json => print(&json(&summary)?)?,
        Format::Text => print(&summary.text())?,
    }
    Ok(if summary.good() {
        Outcome::Good
    } else {
        Outcome::Gate
    })
}

async fn on_screen(
    parts: Parts,
    args: &Args,
    scale: f64,
    stop: CancellationToken,
) -> CommandResult {
    let day = Duration::from_secs(86_400);
    let load = parts.load(args.rate, day, stop.clone()).await?;
    let mut notice = format!("demo: {} req/s, 90 % reads", args.rate);
    if scale > 1.0 {
        let five = duration::format_ms((300_000.0 / scale) as i64);
        notice += &format!("; time scale {scale}x: 5m is {five}");
    }
    let mut mend = None;
    if let Some(drill) = args.fault {
        match drill.real().filter(|_| parts.stack.is_some()) {
            Some([begin, end]) => {
                parts.break_server(begin).await?;
                mend = Some(end);
            }
            None => parts.inject(&drill.knob(86_400.0)).await?,
        }
        notice += &format!("; injected: {}", drill.name());
    }
    let options = tui::TuiOptions {
        base_url: parts.agent_url(),
        theme: tui::TuiOptions::default().theme.from_env(),
        notice: Some(notice),
        window: if scale > 1.0 {
            "5s".into()
        } else {
            "15s".into()
        },
        range_ms: 5 * 60_000,
        ..tui::TuiOptions::default()
    };
    let ended = tui::run(options).await;
    stop.cancel();
    let _report = load.await??;
    if let Some(end) = mend {
        parts.break_server(end).await?;
    }
    for problem in parts.stop().await {
        note(&format!("demo: {problem}"));
    }
    ended?;
    Ok(Outcome::Good)
}
