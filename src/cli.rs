//! The command line: the list of commands, the flags that all of them take, errors to exit codes.
//!
//! Owns the command tree. Must not know what a command does.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::commands;
use crate::console::{self, CommandResult, Outcome, UsageError, note};

const AFTER: &str = "Exit codes: 0 good, 1 failure of the tool, 2 usage, 3 a gate or SLO failed.\n\
Start with `nines demo`: backend, agent, load, rules and a page in one command.";

/// Observe a backend, drive it with load, judge its SLOs, page the right person, and show why.
#[derive(Debug, Parser)]
#[command(name = "nines", version, after_help = AFTER, propagate_version = true)]
struct Cli {
    /// Say less: only results and errors
    #[arg(long, short, global = true)]
    quiet: bool,

    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,

    #[command(subcommand)]
    command: Command,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Whether to colour what goes to standard error.
    pub fn on(self) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::env::var_os("NO_COLOR").is_none() && console::is_terminal(),
        }
    }
}

/// The flags that every command takes.
#[derive(Debug, Clone, Copy)]
pub struct Shared {
    /// `--quiet`.
    pub quiet: bool,
    /// `--color`.
    pub color: Color,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole loop in one process: backend, agent, load, rules and a page
    Demo(commands::demo::Args),
    /// Collect metrics, traces and logs; evaluate rules; answer PromQL
    Agent(commands::agent::Args),
    /// Show the agent's settings, and where each comes from
    Config(commands::config::Args),
    /// Ask a PromQL question
    Query(commands::query::Args),
    /// List traces, or show one
    Traces(commands::traces::Args),
    /// List log records
    Logs(commands::logs::Args),
    /// Show SLOs, budgets and burn rates
    Slo(commands::slo::Args),
    /// Show and check alert rules
    Alerts(commands::alerts::Args),
    /// The terminal: latency, traffic, errors, cache, saturation, SLOs, alerts
    Top(commands::top::Args),
    /// Drive a server and measure honestly
    Load(Box<commands::load::Args>),
    /// Judge a stored load run: thresholds, SLOs, PromQL, a baseline; exit code 3 when one is broken
    Gate(commands::gate::Args),
    /// List the dashboards, or write them for Grafana
    Dashboards(commands::dashboards::Args),
    /// Run the reference backend
    Backend(commands::backend::Args),
    /// Look into an agent's data folder
    Store(commands::store::Args),
}

/// Parses, runs, reports.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() {
                Outcome::Usage
            } else {
                Outcome::Good
            };
            // Nobody is left to be told when even this cannot be written.
            let _ = error.print();
            return code.into();
        }
    };
    let shared = Shared {
        quiet: cli.quiet,
        color: cli.color,
    };
    match dispatch(cli.command, shared) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            let name = if shared.color.on() {
                "\x1b[31mnines:\x1b[0m"
            } else {
                "nines:"
            };
            note(&format!("{name} {error:#}"));
            let usage = error.chain().any(|cause| cause.is::<UsageError>());
            if usage {
                Outcome::Usage.into()
            } else {
                Outcome::Failed.into()
            }
        }
    }
}

fn dispatch(command: Command, shared: Shared) -> CommandResult {
    match command {
        Command::Agent(args) => commands::agent::run(args, shared),
        Command::Config(args) => commands::config::run(args),
        Command::Query(args) => commands::query::run(args),
        Command::Traces(args) => commands::traces::run(args),
        Command::Logs(args) => commands::logs::run(args),
        Command::Slo(args) => commands::slo::run(args),
        Command::Alerts(args) => commands::alerts::run(args),
        Command::Demo(args) => commands::demo::run(args, shared),
        Command::Top(args) => commands::top::run(args),
        Command::Load(args) => commands::load::run(*args, shared),
        Command::Gate(args) => commands::gate::run(args, shared),
        Command::Dashboards(args) => commands::dashboards::run(args),
        Command::Backend(args) => commands::backend::run(args, shared),
        Command::Store(args) => commands::store::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
