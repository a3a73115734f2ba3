//! `nines slo`: the SLOs' status, and what they compile to.
//!
//! Owns its flags and output. Must not know the maths.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use model::duration;
use model::slo::{SloAlert, SloStatus};

use super::reach::{self, Evaluate, Format, Reach, Remote, clean, json, table};
use crate::console::{CommandResult, Outcome, block_on, now_ms, print, read_file, usage};

/// Flags of `nines slo`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Objectives, error budgets and burn rates; exit code 3 when one pages
    Status(Box<Status>),
    /// Print the Prometheus rules that an SLO file stands for
    Compile {
        /// The SLO file
        file: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
struct Status {
    /// Output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// SLO files to judge over --source (default: the SLOs that come with the program)
    #[arg(long = "slos", value_name = "FILE", requires = "source")]
    files: Vec<PathBuf>,

    /// Divide every window of the SLOs by this
    #[arg(long, value_name = "N", default_value_t = 1.0, requires = "source")]
    time_scale: f64,

    /// Who evaluates PromQL over --source
    #[arg(long, value_enum, default_value = "here", requires = "source")]
    evaluate: Evaluate,

    #[command(flatten)]
    reach: Reach,

    #[command(flatten)]
    remote: Remote,
}

/// Runs the subcommand.
pub fn run(args: Args) -> CommandResult {
    match args.command {
        Command::Status(args) => status(&args),
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

fn status(args: &Status) -> CommandResult {
    let slos = match args.remote.client() {
        Some(client) => judged(args, client)?,
        None => {
            let client = args.reach.client();
            block_on(async { Ok(client.slos().await?) })?
        }
    };
    match args.format {
        Format::Json => print(&json(&slos)?)?,
        Format::Text => print(&text(&slos))?,
    }
    let pages = slos.iter().any(|s| s.alert == SloAlert::Page);
    Ok(if pages { Outcome::Gate } else { Outcome::Good })
}

/// The status over a server that need not know the SLOs: their rules are evaluated once, now, and read back.
fn judged(args: &Status, client: client::Client) -> anyhow::Result<Vec<SloStatus>> {
    let wrong = |e: alerts::FileError| usage(e.to_string());
    let scale = super::ruler::time_scale(args.time_scale)?;
    let mut files = Vec::new();
    for path in &args.files {
        let (name, text) = read_file(path)?;
        files.push(alerts::slo::SloFile::parse(&name, &text).map_err(wrong)?);
    }
    if files.is_empty() {
        files.push(alerts::pack::slos().map_err(wrong)?);
    }
    let mut rules = Vec::new();
    for file in &files {
        let generated = alerts::slo::rules(file).map_err(wrong)?;
        rules.push(alerts::scale(&generated, scale));
    }
    let evaluate = args.evaluate;
    reach::blocking(move || {
        let source = reach::source(client, evaluate);
        let now = now_ms();
        let (recorded, tick) = super::ruler::evaluate_once(rules, &source, now);
        if let Some(error) = tick.errors.first() {
            anyhow::bail!("{} rules failed; the first: {error}", tick.errors.len());
        }
        let engine = promql::Engine::default();
        let mut all = Vec::new();
        for file in &files {
            let status = alerts::slo::status(file, recorded.as_ref(), &engine, now, scale);
            all.extend(status.map_err(anyhow::Error::msg)?);
        }
        Ok(all)
    })
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
