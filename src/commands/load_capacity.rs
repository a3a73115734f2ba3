//! `nines load capacity`: the highest rate at which a server keeps its objectives.
//!
//! Owns its flags, the lines while it searches, and where the answer goes. Must not know how it is searched.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use loadgen::capacity::{Answer, End, Options, QUERIES, Reading, Settings, StepRow, saturated};
use loadgen::gate::Rule;
use model::query::QueryData;

use super::load::{span, target};
use super::load_request::{RequestFlags, authorize, refused};
use super::load_schedule::per_second;
use super::load_series::{RemoteWrite, Writers};
use super::reach::json;
use crate::cli::Shared;
use crate::console::{CommandResult, Outcome, block_on, note, print, stop_token, usage};

const AFTER: &str = "Exit codes: 0 found (or --at-least shown), 1 not found: the target is down, or the generator was the limit;\n\
2 usage, 3 below --at-least, or the rules are not met at any rate.";

/// Flags of `nines load capacity`.
#[derive(Debug, ClapArgs)]
#[command(after_help = AFTER)]
pub struct Args {
    /// Where to send
    url: String,

    /// What every rate must keep, such as 'p99<50ms' or 'error_rate<1%'; may be repeated
    #[arg(long, alias = "ensure", value_name = "RULE", required = true)]
    slo: Vec<String>,

    /// Exit with 3 when the capacity is below this
    #[arg(long, value_name = "RATE", value_parser = per_second)]
    at_least: Option<f64>,

    /// The first rate
    #[arg(long, value_name = "RATE", default_value = "10", value_parser = per_second)]
    from: f64,

    /// The highest rate tried [default: 1000000; beyond loopback 100 without --i-own-this-target]
    #[arg(long, value_name = "RATE", value_parser = per_second)]
    max_rate: Option<f64>,

    /// The search's whole length
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    max_duration: String,

    /// Length of a step; half of it while climbing, twice to confirm
    #[arg(long, value_name = "DURATION", default_value = "4s")]
    step: String,

    /// Pause after a step that was too much; a quarter after others
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    cool_down: String,

    /// How far apart the rates around the capacity may be
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = percent)]
    tolerance: f64,

    /// Poisson arrivals instead of even spacing
    #[arg(long)]
    poisson: bool,

    /// Connections to begin with; more are tried where they are the limit
    #[arg(short, long, default_value_t = 1024, value_name = "N")]
    connections: usize,

    #[command(flatten)]
    request: RequestFlags,

    /// Write the answer as JSON
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write the answer as Markdown
    #[arg(long, value_name = "FILE")]
    md: Option<PathBuf>,

    /// Send the run's own series to this agent, and ask it which resource saturates
    #[arg(long, env = "NINES_URL", value_name = "URL")]
    agent: Option<String>,

    #[command(flatten)]
    remote: RemoteWrite,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.trim().parse::<f64>() {
        Ok(p) if (0.1..=50.0).contains(&p) => Ok(p / 100.0),
        _ => Err(format!("{text:?} is not 0.1% to 50%")),
    }
}

impl Args {
    fn options(&self) -> anyhow::Result<Options> {
        let parsed = self.slo.iter().map(|text| Rule::parse(text));
        let rules = parsed
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| usage(format!("--slo: cannot {e}")))?;
        let mut plan = target(&self.url)?;
        self.request.apply(&mut plan)?;
        self.request.set(&mut plan, self.request.body.as_ref())?;
        authorize(&mut plan, &self.url);
        "capacity".clone_into(&mut plan.scenario);
        let free = plan.own_target || loadgen::conn::Target::parse(&plan.target)?.is_loopback();
        let most = if free {
            1e6
        } else {
            loadgen::plan::MAX_RATE_ELSEWHERE
        };
        Ok(Options {
            rules,
            settings: Settings {
                from: self.from,
                max_rate: self.max_rate.unwrap_or(most),
                tolerance: self.tolerance,
                step: span("--step", &self.step)?,
                cool_down: span("--cool-down", &self.cool_down)?,
                budget: span("--max-duration", &self.max_duration)?,
                connections: self.connections,
            },
            poisson: self.poisson,
            plan,
        })
    }
}

/// Runs the subcommand.
pub fn run(args: Args, shared: Shared) -> CommandResult {
    let options = args.options()?;
    options.check().map_err(refused)?;
    let mut writers = Writers::new(args.agent.as_deref(), &args.remote)?;
    let agent = args.agent.as_deref().map(client::Client::new);
    let answer = block_on(async {
        let (progress, mut seen) = tokio::sync::watch::channel(loadgen::Progress::default());
        let watcher = tokio::spawn(async move {
            let mut last = tokio::time::Instant::now();
            while seen.changed().await.is_ok() {
                let now = seen.borrow_and_update().clone();
                // A step sums up several times a second; its series need not be as fine.
                if last.elapsed().as_millis() >= 900 {
                    last = tokio::time::Instant::now();
                    writers.send(now.series).await;
                }
            }
            writers.finish().await;
        });
        if !shared.quiet {
            note(&StepRow::head());
        }
        let on_step = |row: &StepRow| {
            if !shared.quiet {
                note(&row.line());
            }
        };
        let mut answer = loadgen::capacity::run(options, on_step, progress, stop_token()).await?;
        watcher.await?;
        if let Some(agent) = &agent {
            answer.resources = Some(readings(agent, &answer).await);
        }
        Ok(answer)
    })?;
    save(args.output.as_ref(), || json(&answer.to_json()))?;
    save(args.md.as_ref(), || Ok(answer.markdown()))?;
    print(&answer.summary())?;
    Ok(outcome(&answer, args.at_least))
}

fn save(path: Option<&PathBuf>, text: impl Fn() -> anyhow::Result<String>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text()?)
        .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))
}

fn outcome(answer: &Answer, at_least: Option<f64>) -> Outcome {
    let shown = answer.capacity.unwrap_or_default();
    let enough = at_least.is_some_and(|least| shown >= least);
    match &answer.end {
        _ if enough => Outcome::Good,
        End::Found(_) | End::AtLeast if at_least.is_none() => Outcome::Good,
        End::Found(_) | End::AtLeast => Outcome::Gate,
        End::Nothing => Outcome::Gate,
        End::Generator(..) | End::Dead(_) | End::Stopped => Outcome::Failed,
    }
}

/// What was full near the capacity, beside what it was under light load.
async fn readings(agent: &client::Client, answer: &Answer) -> Vec<loadgen::capacity::Resource> {
    let Some((near, light)) = answer.windows() else {
        return Vec::new();
    };
    match (asked(agent, near).await, asked(agent, light).await) {
        (Ok(near), Ok(light)) => saturated(&near, &light),
        (Err(error), _) | (_, Err(error)) => {
            note(&format!("the agent does not say what saturates: {error}"));
            Vec::new()
        }
    }
}

/// The answers over a window: its length in seconds, and its end.
async fn asked(
    agent: &client::Client,
    (length_s, end_ms): (f64, i64),
) -> Result<Vec<Reading>, client::ClientError> {
    let window = format!("{}s", length_s.ceil());
    let mut all = Vec::new();
    for (what, text) in QUERIES {
        let answer = agent
            .query(&text.replace("$window", &window), end_ms)
            .await?;
        if let QueryData::Vector(elements) = answer {
            all.extend(elements.iter().filter_map(|e| reading(what, e)));
        }
    }
    Ok(all)
}

fn reading(what: &'static str, element: &model::query::VectorElement) -> Option<Reading> {
    let model::sample::Value::Float(value) = element.value else {
        return None;
    };
    let labels = element.labels.iter();
    Some(Reading {
        what,
        labels: labels.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        value,
    })
}
