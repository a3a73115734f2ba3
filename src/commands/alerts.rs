//! `nines alerts`: active alerts, rules, the log of transitions and deliveries, and a check of rule files.
//!
//! Owns its flags and output. Must not know how rules are evaluated.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use model::timestamp;

use super::reach::{self, Evaluate, Format, Reach, Remote, clean, json, table};
use crate::console::{CommandResult, Outcome, block_on, print, read_file, usage};

/// Flags of `nines alerts`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Alerts that are pending or firing
    List(Ask),
    /// Rules and their state
    Rules(Ask),
    /// What became pending, fired, was delivered, resolved
    Events(Ask),
    /// Run rule unit tests in promtool's format; exit code 3 when an expectation is not met
    Test {
        /// Test files; the rule files they name lie beside them
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Check rule files; exit code 2 when one has a mistake. With --source every rule is evaluated there once
    Check {
        /// Prometheus rule files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Who evaluates PromQL over --source
        #[arg(long, value_enum, default_value = "here", requires = "source")]
        evaluate: Evaluate,
        #[command(flatten)]
        remote: Remote,
    },
    /// Evaluate rules over a Prometheus-compatible server, again and again, and deliver what fires
    Run(Box<super::ruler::Args>),
}

#[derive(Debug, ClapArgs)]
struct Ask {
    /// Output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    reach: Reach,
}

type Rows = Vec<Vec<String>>;
type Events = Vec<model::api::AlertEvent>;

const ALERT_HEADER: [&str; 5] = ["SEVERITY", "STATE", "SINCE", "ALERT", "SUMMARY"];

/// Active alerts as a table.
pub fn listed(body: &model::api::AlertsBody) -> String {
    table(&ALERT_HEADER, &alert_rows(body))
}

/// Runs the subcommand.
pub fn run(args: Args) -> CommandResult {
    match args.command {
        Command::List(ask) => {
            let client = ask.reach.client();
            let body = block_on(async { Ok(client.alerts().await?) })?;
            show(&ask, &body, &ALERT_HEADER, alert_rows)
        }
        Command::Rules(ask) => {
            let client = ask.reach.client();
            let body = block_on(async { Ok(client.rules().await?) })?;
            show(
                &ask,
                &body,
                &["GROUP", "RULE", "TYPE", "STATE", "HEALTH", "ERROR"],
                rule_rows,
            )
        }
        Command::Events(ask) => {
            let client = ask.reach.client();
            let body = block_on(async { Ok(client.alert_events().await?) })?;
            show(
                &ask,
                &body,
                &["TIME", "EVENT", "ALERT", "RECEIVER", "DETAIL"],
                event_rows,
            )
        }
        Command::Check {
            files,
            evaluate,
            remote,
        } => check(&files, evaluate, &remote),
        Command::Run(args) => super::ruler::run(*args),
        Command::Test { files } => test(&files),
    }
}

fn show<T: serde::Serialize>(
    ask: &Ask,
    body: &T,
    header: &[&str],
    rows: fn(&T) -> Rows,
) -> CommandResult {
    match ask.format {
        Format::Json => print(&json(body)?)?,
        Format::Text => print(&table(header, &rows(body)))?,
    }
    Ok(Outcome::Good)
}

fn alert_rows(body: &model::api::AlertsBody) -> Rows {
    let row = |a: &model::api::AlertBody| {
        vec![
            clean(a.labels.get("severity").unwrap_or("-")),
            a.state.clone(),
            a.active_at.clone(),
            clean(a.labels.get("alertname").unwrap_or("-")),
            clean(a.annotations.get("summary").map_or("", String::as_str)),
        ]
    };
    body.alerts.iter().map(row).collect()
}

fn rule_rows(body: &model::api::RulesBody) -> Rows {
    let all = body
        .groups
        .iter()
        .flat_map(|g| g.rules.iter().map(move |r| (g, r)));
    let row = |(group, rule): (&model::api::RuleGroupBody, &model::api::RuleBody)| {
        let state = if rule.state.is_empty() {
            "-"
        } else {
            &rule.state
        };
        vec![
            clean(&group.name),
            clean(&rule.name),
            rule.kind.clone(),
            state.to_owned(),
            rule.health.clone(),
            clean(&rule.last_error),
        ]
    };
    all.map(row).collect()
}

fn event_rows(events: &Events) -> Rows {
    let row = |e: &model::api::AlertEvent| {
        vec![
            timestamp::format_rfc3339(e.t_ms),
            e.kind.clone(),
            clean(&e.alert),
            clean(&e.receiver),
            clean(&e.detail),
        ]
    };
    events.iter().map(row).collect()
}

fn test(files: &[PathBuf]) -> CommandResult {
    let mut failed = false;
    for path in files {
        let (name, text) = read_file(path)?;
        let folder = path.parent().unwrap_or(std::path::Path::new("."));
        let mut load = |rules: &str| {
            let full = folder.join(rules);
            let shown = full.display().to_string();
            let text = std::fs::read_to_string(&full).map_err(|e| {
                alerts::FileError::whole_file(&shown, format!("cannot read it: {e}"))
            })?;
            alerts::rules::RuleFile::parse(&shown, &text)
        };
        let report =
            alerts::unit_test::run(&name, &text, &mut load).map_err(|e| usage(e.to_string()))?;
        for failure in &report.failures {
            print(&format!("{name}: {failure}\n"))?;
        }
        let (checks, failures) = (report.checks, report.failures.len());
        print(&format!("{name}: {checks} checks, {failures} failed\n"))?;
        failed |= failures > 0;
    }
    Ok(if failed { Outcome::Gate } else { Outcome::Good })
}

fn check(files: &[PathBuf], evaluate: Evaluate, remote: &Remote) -> CommandResult {
    let mut mistakes = Vec::new();
    let mut read = Vec::new();
    for path in files {
        let (name, text) = read_file(path)?;
        match alerts::rules::RuleFile::parse(&name, &text) {
            Ok(file) => {
                print(&format!("{name}: {} rules, good\n", file.rules().count()))?;
                read.push(file);
            }
            Err(error) => mistakes.push(error.to_string()),
        }
    }
    if !mistakes.is_empty() {
        return Err(usage(mistakes.join("\n")));
    }
    let Some(client) = remote.client() else {
        return Ok(Outcome::Good);
    };
    let (body, failed) = reach::blocking(move || {
        let source = reach::source(client, evaluate);
        let now = crate::console::now_ms();
        super::ruler::results(&read, &source, now)
    })?;
    print(&table(&["GROUP", "RULE", "TYPE", "SERIES", "ERROR"], &body))?;
    Ok(if failed {
        Outcome::Failed
    } else {
        Outcome::Good
    })
}
