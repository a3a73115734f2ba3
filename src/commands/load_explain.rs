//! `nines load explain`: why a stored run was slow or failed; and what every run says of that at its end.
//!
//! Owns its flags and where the answer goes. Must not know how causes are found.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use loadgen::Report;
use loadgen::explain::{Observed, explain, fetch};

use super::gate::read_report;
use super::reach::{Format, json};
use crate::console::{CommandResult, Outcome, block_on, note, print};

/// Flags of `nines load explain`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// A run's JSON report, as written by nines load -o
    report: PathBuf,

    /// The agent that saw the run: its traces and resources are asked
    #[arg(long, env = "NINES_URL", value_name = "URL")]
    agent: Option<String>,

    /// The agent's bearer token
    #[arg(
        long,
        env = "NINES_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,

    /// Output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Explains a stored run.
pub fn run(args: Args) -> CommandResult {
    let report = read_report(&args.report)?;
    let seen = match args.agent {
        None => None,
        Some(url) => {
            let client = client::Client::new(url).with_token(args.token);
            Some(block_on(async {
                Ok(fetch::observe(&client, &report).await?)
            })?)
        }
    };
    let found = explain(&report, seen.as_ref());
    match args.format {
        Format::Json => print(&json(&found.to_json())?)?,
        Format::Text => print(&found.text())?,
    }
    Ok(Outcome::Good)
}

/// What the agent saw of a run that has just ended. That it does not answer is told, and is no failure of the run.
pub fn observed(client: &client::Client, report: &Report) -> Option<Observed> {
    match block_on(async { Ok(fetch::observe(client, report).await) }) {
        Ok(Ok(seen)) => Some(seen),
        Ok(Err(error)) => {
            note(&format!("why: the agent cannot be asked: {error}"));
            None
        }
        Err(error) => {
            note(&format!("why: {error}"));
            None
        }
    }
}
