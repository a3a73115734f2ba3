//! `nines logs`: search log records.
//!
//! Owns its flags and output. Must not know how records are kept.

use clap::Args as ClapArgs;
use client::LogSearch;
use model::log::Severity;
use model::timestamp;

use super::reach::{Format, Reach, clean, json};
use crate::console::{CommandResult, Outcome, block_on, duration_ms, now_ms, print, usage};

/// Flags of `nines logs`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only records whose text contains this
    text: Option<String>,

    /// Only this service
    #[arg(long)]
    service: Option<String>,

    /// At least this severity: trace, debug, info, warn, error, fatal
    #[arg(long)]
    severity: Option<String>,

    /// Only records of this trace
    #[arg(long, value_name = "TRACE")]
    trace: Option<String>,

    /// How far back
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    since: String,

    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,

    /// Output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    #[command(flatten)]
    reach: Reach,
}

/// Searches and prints.
pub fn run(args: Args) -> CommandResult {
    let severity = args.severity.as_deref().map(read_severity).transpose()?;
    let since = duration_ms(&args.since)?;
    let search = LogSearch {
        service: args.service,
        severity,
        text: args.text,
        trace_id: args.trace,
        start_ms: Some(now_ms() - since),
        limit: Some(args.limit),
        ..LogSearch::default()
    };
    let client = args.reach.client();
    let found = block_on(async { Ok(client.logs(&search).await?) })?;
    if args.format == Format::Json {
        print(&json(&found)?)?;
        return Ok(Outcome::Good);
    }
    let mut out = String::new();
    for record in &found {
        let t = timestamp::format_rfc3339(i64::try_from(record.time_ns / 1_000_000).unwrap_or(0));
        let severity = format!("{:?}", record.severity).to_uppercase();
        let (service, body) = (clean(&record.service), clean(&record.body));
        out += &format!("{t}  {severity:<5}  {service}  {body}\n");
    }
    print(&out)?;
    Ok(Outcome::Good)
}

fn read_severity(text: &str) -> anyhow::Result<Severity> {
    serde_json::from_value(serde_json::Value::String(text.to_lowercase())).map_err(|_| {
        usage(format!(
            "--severity {text:?} is none of trace, debug, info, warn, error, fatal"
        ))
    })
}
