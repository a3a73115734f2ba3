//! `nines load run`: run an Artillery script.
//!
//! Owns its flags, what is printed while it runs, and where reports go. Must not know scripts or how load is made.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use loadgen::artillery::{
    self, Event, PhaseShown, ReadOptions, Results, RunError, RunOptions, Script,
};
use tokio::sync::mpsc;

use super::gate::Judge;
use super::load::AwakeFlag;
use super::load_beside::long_enough;
use super::load_request::{owned, refused};
use super::reach::json;
use crate::cli::Shared;
use crate::console::{CommandResult, Outcome, block_on, note, now_ms, print, stop_token, usage};

/// Flags of `nines load run`: Artillery's names and letters.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The script (YAML or JSON)
    script: PathBuf,

    /// Target instead of config.target
    #[arg(short, long, value_name = "URL")]
    target: Option<String>,

    /// Use this one of config.environments
    #[arg(short, long, value_name = "NAME")]
    environment: Option<String>,

    /// Read the configuration from this file too; it lies over the script's own
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Write the JSON report here
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Values laid over the script: a JSON object
    #[arg(long, value_name = "JSON")]
    overrides: Option<String>,

    /// Variables of the virtual users: a JSON object
    #[arg(short, long, value_name = "JSON")]
    variables: Option<String>,

    /// CSV file of a config.payload without a path
    #[arg(short, long, value_name = "FILE")]
    payload: Option<PathBuf>,

    /// Run only the scenario of this name
    #[arg(short = 'n', long, value_name = "NAME")]
    scenario_name: Option<String>,

    /// Environment variables from this file (NAME=value lines), over those of the shell
    #[arg(long, alias = "env-file", value_name = "FILE")]
    dotenv: Option<PathBuf>,

    /// Name of the run, for the report
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,

    /// Tags of the run, for the report: team:web,build:17
    #[arg(long, value_name = "NAME:VALUE,...")]
    tags: Option<String>,

    /// A note on the run, for the report
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    /// One process, which it always is
    #[arg(short, long, hide = true)]
    solo: bool,

    /// Do not check the server's certificate
    #[arg(short = 'k', long)]
    insecure: bool,

    /// This target is mine: more than 100 requests a second beyond loopback are fine
    #[arg(long)]
    i_own_this_target: bool,

    #[command(flatten)]
    awake: AwakeFlag,

    /// Send the run's own series to this agent
    #[arg(long, env = "NINES_URL", value_name = "URL")]
    agent: Option<String>,

    /// Read the script, say what is wrong with it, send nothing
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    second: Second,

    #[command(flatten)]
    judge: Judge,
}

/// A second target.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Beside each other")]
struct Second {
    /// Run the script against this target, too, at the same time, such as the old build, and compare with it in pairs of
    /// seconds: what disturbs this machine disturbs both and cancels. What is worse than there breaks the gate
    #[arg(long, value_name = "URL", conflicts_with = "baseline")]
    beside: Option<String>,

    /// Write the JSON report of the run beside it here
    #[arg(long, value_name = "FILE", requires = "beside")]
    beside_output: Option<PathBuf>,
}

/// Runs the script. Exit codes are Artillery's: 1 when `ensure` fails, 21 when an expectation does. Where it says 0, a
/// broken rule of the gate says 3.
pub fn run(args: Args, shared: Shared) -> CommandResult {
    let options = ReadOptions {
        script: args.script,
        config: args.config,
        environment: args.environment,
        target: args.target,
        overrides: args.overrides,
        variables: args.variables,
        payload: args.payload,
        insecure: args.insecure,
        scenario_name: args.scenario_name,
        dotenv: args.dotenv,
    };
    let script = artillery::read(&options).map_err(|e| usage(e.to_string()))?;
    for text in script.notes() {
        note(&format!("warning: {text}"));
    }
    let theirs = args.second.beside.map(|url| beside(&options, &script, url));
    let theirs = theirs.transpose()?;
    let about = about(args.name, args.tags.as_deref(), args.note)?;
    let _ = args.solo;
    let keep_seconds = args.judge.keeps_seconds();
    let gate = args.judge.ready(args.agent.clone())?.explaining();
    if args.check {
        print(&format!("{}: fine\n", options.script.display()))?;
        return Ok(Outcome::Good);
    }
    let run = RunOptions {
        keep_seconds,
        keep_awake: args.awake.keep_awake,
        run_id: format!("t{:012x}", now_ms()),
        seed: now_ms().unsigned_abs(),
        own_target: owned(args.i_own_this_target, &script.target_url()),
        beside: None,
    };
    let show = !shared.quiet;
    if show {
        print(&format!("Test run id: {}\n", run.run_id))?;
    }
    let failed = |e| match e {
        RunError::Load(e) => refused(e),
        e @ RunError::Before(_) => e.into(),
    };
    let (results, theirs) = block_on(async {
        let client = args.agent.clone().map(client::Client::new);
        let (events, seen) = mpsc::channel(1024);
        let printer = tokio::spawn(watch(seen, client.clone(), show, ""));
        let Some(theirs) = theirs else {
            let results = artillery::run(script, run, events, stop_token()).await;
            printer.await??;
            return Ok((results.map_err(failed)?, None));
        };
        let options = RunOptions {
            run_id: format!("{}-beside", run.run_id),
            own_target: owned(args.i_own_this_target, &theirs.target_url()),
            ..run.clone()
        };
        let (of_theirs, seen) = mpsc::channel(1024);
        let other = tokio::spawn(watch(seen, client, false, "beside: "));
        let both = [(script, run, events), (theirs, options, of_theirs)];
        let both = loadgen::beside::scripts(both, stop_token()).await;
        printer.await??;
        other.await??;
        let (results, theirs) = both.map_err(failed)?;
        Ok((results, Some(theirs)))
    })?;
    let words = match show {
        true => last_words(&results),
        false => results.verdicts(),
    };
    print(&words)?;
    if let Some(path) = args.output {
        store(&results, about.clone(), &path)?;
        if show {
            print(&format!("Log file: {}\n", path.display()))?;
        }
    }
    let mut gate = gate.script(results.held());
    if let Some(theirs) = theirs {
        if let Some(path) = args.second.beside_output {
            store(&theirs, about, &path)?;
        }
        print(&format!("\n{}\n", theirs.run.brief()))?;
        gate = gate.beside(theirs.run);
    }
    let judged = gate.conclude(&results.run, shared)?;
    Ok(match results.exit_code() {
        0 => judged,
        code => Outcome::Other(code),
    })
}

/// The same script for a second target.
fn beside(options: &ReadOptions, script: &Script, url: String) -> anyhow::Result<Script> {
    let what = format!("the phases of {} last", options.script.display());
    long_enough(script.length(), &what)?;
    let options = ReadOptions {
        target: Some(url),
        ..options.clone()
    };
    artillery::read(&options).map_err(|e| usage(format!("--beside: {e}")))
}

/// Writes the JSON report.
fn store(
    results: &Results,
    about: Option<serde_json::Value>,
    path: &std::path::Path,
) -> anyhow::Result<()> {
    let mut report = results.to_json();
    if let Some(about) = about {
        report["nines"]["about"] = about;
    }
    std::fs::write(path, json(&report)?)
        .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))
}

/// What `--name`, `--tags` and `--note` say, for the report.
fn about(
    name: Option<String>,
    tags: Option<&str>,
    note: Option<String>,
) -> anyhow::Result<Option<serde_json::Value>> {
    let mut all = serde_json::Map::new();
    let texts = [("name", name), ("note", note)];
    for (key, value) in texts.into_iter().filter_map(|(k, v)| Some((k, v?))) {
        all.insert(key.to_owned(), value.into());
    }
    if let Some(tags) = tags {
        let mut pairs = serde_json::Map::new();
        for tag in tags.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            let Some((name, value)) = tag.split_once(':') else {
                return Err(usage(format!("--tags: {tag:?} is not name:value")));
            };
            pairs.insert(name.trim().to_owned(), value.trim().into());
        }
        all.insert("tags".to_owned(), pairs.into());
    }
    Ok((!all.is_empty()).then(|| all.into()))
}

/// Prints what happens, what is said with `whose` before it, and sends samples to the agent, until the run is over.
async fn watch(
    mut seen: mpsc::Receiver<Event>,
    client: Option<client::Client>,
    show: bool,
    whose: &str,
) -> anyhow::Result<()> {
    let mut told = false;
    while let Some(event) = seen.recv().await {
        match event {
            Event::Series(series) => {
                if let Some(client) = &client
                    && let Err(error) = client.remote_write(&series).await
                    && !std::mem::replace(&mut told, true)
                {
                    note(&format!("the run's series do not reach the agent: {error}"));
                }
            }
            Event::Log(text) => print(&format!("{whose}{text}\n"))?,
            Event::Complaint(text) => note(&format!("{whose}{text}")),
            _ if !show => {}
            Event::PhaseStarted(phase) => print(&phase_line("started", &phase))?,
            Event::PhaseCompleted(phase) => print(&phase_line("completed", &phase))?,
            Event::Period(period) => {
                let end = period.start_ms + 10_000;
                let title = format!("Metrics for period to: {}", clock(end));
                let line = "-".repeat(title.len());
                let width = period.width_s;
                print(&format!(
                    "{line}\n{title} (width: {width}s)\n{line}\n\n{}\n\n",
                    period.text
                ))?;
            }
        }
    }
    Ok(())
}

fn phase_line(word: &str, phase: &PhaseShown) -> String {
    let name = phase.name.as_deref().unwrap_or("unnamed");
    let (index, seconds) = (phase.index, phase.length.as_secs_f64());
    let now = clock(now_ms());
    format!("Phase {word}: {name} (index: {index}, duration: {seconds}s) {now}\n\n")
}

/// `hh:mm:ss(+0000)`: the time of day in UTC.
fn clock(ms: i64) -> String {
    let day = ms.div_euclid(1_000).rem_euclid(86_400);
    let (hour, minute, second) = (day / 3_600, day / 60 % 60, day % 60);
    format!("{hour:02}:{minute:02}:{second:02}(+0000)")
}

fn last_words(results: &Results) -> String {
    let total = elapsed(results.elapsed);
    let title = format!("Summary report @ {}", clock(now_ms()));
    let line = "-".repeat(title.len());
    let stopped = if results.stopped {
        "Stopped before its end.\n"
    } else {
        ""
    };
    format!(
        "{stopped}All VUs finished. Total time: {total}\n\n{line}\n{title}\n{line}\n\n{}",
        results.summary()
    )
}

/// `1 minute, 3 seconds`
fn elapsed(length: Duration) -> String {
    let seconds = length.as_secs();
    let mut parts = Vec::new();
    for (count, word) in [
        (seconds / 3_600, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ] {
        if count > 0 || !parts.is_empty() || word == "second" {
            let s = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} {word}{s}"));
        }
    }
    parts.join(", ")
}
