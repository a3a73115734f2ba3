//! `nines slo`: the SLOs' status, and what they compile to.
//!
//! Owns its flags and output. Must not know the maths.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use model::duration;
use model::slo::{SloAlert, SloStatus};

use super::reach::{Format, Reach, clean, json, table};
use crate::console::{CommandResult, Outcome, block_on, print, read_file, usage};

/// Flags of `nines slo`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Objectives, error budgets and burn rates; exit code 3 when one pages
    Status {
        /// Output
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        #[command(flatten)]
        reach: Reach,
    },
    /// Print the Prometheus rules that an SLO file stands for
    Compile {
        /// The SLO file
        file: PathBuf,
    },
}

/// Runs the subcommand.
pub fn run(args: Args) -> CommandResult {
    match args.command {
        Command::Status { format, reach } => status(format, &reach),
        Command::Compile { file } => {
            let (name, text) = read_file(&file)?;
            let slos =
                alerts::slo::SloFile::parse(&name, &text).map_err(|e| usage(e.to_string()))?;
            let rules = alerts::slo::rules(&slos).map_err(|e| usage(e.to_string()))?;
            print(&rules.to_yaml())?;
            Ok(Outcome::Good)
        }
    }
}

fn status(format: Format, reach: &Reach) -> CommandResult {
    let client = reach.client();
    let slos = block_on(async { Ok(client.slos().await?) })?;
    match format {
        Format::Json => print(&json(&slos)?)?,
        Format::Text => print(&text(&slos))?,
    }
    let pages = slos.iter().any(|s| s.alert == SloAlert::Page);
    Ok(if pages { Outcome::Gate } else { Outcome::Good })
}

fn text(slos: &[SloStatus]) -> String {
    let percent = |value: Option<f64>| value.map_or("-".into(), |v| format!("{:.3} %", v * 100.0));
    let row = |s: &SloStatus| {
        let burn = s.burn.iter().map(|b| {
            format!(
                "{}={}",
                b.window,
                b.rate.map_or("-".into(), |r| format!("{r:.1}"))
            )
        });
        vec![
            clean(&s.name),
            format!("{:.3} %", s.objective * 100.0),
            percent(s.sli),
            percent(s.budget_left),
            burn.collect::<Vec<_>>().join(" "),
            s.empty_in_ms.map_or("-".into(), duration::format_ms),
            format!("{:?}", s.alert).to_lowercase(),
        ]
    };
    let rows: Vec<Vec<String>> = slos.iter().map(row).collect();
    table(
        &[
            "SLO",
            "TARGET",
            "SLI",
            "BUDGET LEFT",
            "BURN RATES",
            "EMPTY IN",
            "ALERT",
        ],
        &rows,
    )
}
