//! `nines alerts run`: rules over any Prometheus-compatible server, in this process, without an agent.
//!
//! Owns its flags and the loop. Must not know how rules are evaluated, nor how notifications are delivered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::ingest::{Ingest, Sample};
use alerts::delivery::{DeliveryConfig, Dispatcher};
use alerts::{EngineOptions, RuleEngine, RuleFile, Tick};
use clap::Args as ClapArgs;
use client::{Client, RemoteSource};
use model::Source;
use model::timestamp::format_rfc3339;
use promql::Engine;

use super::reach::{self, Evaluate, Remote, clean};
use crate::console::{
    CommandResult, Outcome, block_on, duration_ms, note, now_ms, print, read_file, stop_token,
    usage,
};

/// Samples that one evaluation may record.
const MAX_RECORDED: usize = 1_000_000;
/// The loop looks at least and at most this often.
const PACE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How long delivery may take at the end.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(5);

/// Flags of `nines alerts run`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Prometheus rule files (default: the rules that come with the program)
    files: Vec<PathBuf>,

    /// SLO files, whose rules are evaluated too
    #[arg(long = "slos", value_name = "FILE")]
    slos: Vec<PathBuf>,

    /// Divide every window and interval by this
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    time_scale: f64,

    /// Interval of groups that do not say
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    interval: String,

    /// Who evaluates PromQL
    #[arg(long, value_enum, default_value = "here")]
    evaluate: Evaluate,

    /// Write recordings, ALERTS and ALERTS_FOR_STATE back to the server by remote write
    #[arg(long)]
    write: bool,

    /// Receivers and routes as under alerts.delivery of the agent's configuration, in YAML
    #[arg(long, value_name = "FILE")]
    delivery: Option<PathBuf>,

    /// Keep the state of alerts and undelivered notifications here
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Evaluate every group once, print what is pending or fires, and stop; exit code 3 when an alert fires
    #[arg(long, conflicts_with_all = ["delivery", "state_dir"])]
    once: bool,

    #[command(flatten)]
    remote: Remote,
}

/// A time scale of the command line.
pub fn time_scale(value: f64) -> anyhow::Result<f64> {
    match value.is_finite() && value >= 1e-3 {
        true => Ok(value),
        false => Err(usage(format!(
            "--time-scale is {value}; give it a number above 0"
        ))),
    }
}

/// Evaluates every group of these files once; what was recorded as a source, and the tick.
pub fn evaluate_once(
    files: Vec<RuleFile>,
    source: &dyn Source,
    now_ms: i64,
) -> (Arc<dyn Source>, Tick) {
    let mut engine = RuleEngine::new(files, None);
    let tick = engine.tick(now_ms, source, &Engine::default());
    let recorded = Ingest::in_memory(MAX_RECORDED);
    recorded.append(&samples(&tick));
    (recorded.source(), tick)
}

/// One row for each rule: how many series its expression has now, or why it fails; and whether one fails. Rules see
/// what earlier rules of the files record.
pub fn results(
    files: &[RuleFile],
    source: &RemoteSource,
    now_ms: i64,
) -> anyhow::Result<(Vec<Vec<String>>, bool)> {
    let mut engine = RuleEngine::new(files.to_vec(), None);
    let tick = engine.tick(now_ms, source, &Engine::default());
    let counted = |rule: &model::api::RuleBody| match rule.kind.as_str() {
        "alerting" => rule.alerts.len(),
        _ => {
            let named = tick
                .samples
                .iter()
                .filter(|(l, ..)| l.name() == rule.name)
                .filter(|(l, ..)| rule.labels.iter().all(|(n, v)| l.get(n) == Some(v)));
            named.count()
        }
    };
    let (mut rows, mut failed) = (Vec::new(), false);
    for group in engine.rules_body().groups {
        for rule in &group.rules {
            failed |= !rule.last_error.is_empty();
            rows.push(vec![
                clean(&group.name),
                clean(&rule.name),
                rule.kind.clone(),
                counted(rule).to_string(),
                clean(&rule.last_error),
            ]);
        }
    }
    Ok((rows, failed))
}

/// Runs until told to stop, or once.
pub fn run(args: Args) -> CommandResult {
    let client = args
        .remote
        .client()
        .ok_or_else(|| usage("name the server: --source http://127.0.0.1:9090"))?;
    let files = read(&args)?;
    let delivery = match &args.delivery {
        None => DeliveryConfig::default(),
        Some(path) => {
            let (name, text) = read_file(path)?;
            serde_saphyr::from_str(&text).map_err(|e| usage(format!("{name}: {e}")))?
        }
    };
    let scale = time_scale(args.time_scale)?;
    let interval = (duration_ms(&args.interval)? as f64 / scale) as i64;
    let options = EngineOptions {
        default_interval_ms: interval.max(200),
        external_url: match delivery.external_url.as_str() {
            "" => client.base_url().to_owned(),
            url => url.to_owned(),
        },
        ..EngineOptions::default()
    };
    let engine = RuleEngine::with_options(files, args.state_dir.clone(), options);
    if let Some(error) = engine.restore_error() {
        note(&format!(
            "the state of alerts could not be restored: {error}"
        ));
    }
    block_on(async {
        let ruler = Ruler {
            engine,
            promql: Engine::default(),
            source: reach::source(client.clone(), args.evaluate),
        };
        if args.once {
            return once(ruler, args.write.then_some(client)).await;
        }
        let dispatcher = Dispatcher::start(delivery, args.state_dir.clone())?;
        follow(ruler, &dispatcher, args.write.then_some(client)).await
    })
}

fn read(args: &Args) -> anyhow::Result<Vec<RuleFile>> {
    let wrong = |e: alerts::FileError| usage(e.to_string());
    let scale = time_scale(args.time_scale)?;
    if args.files.is_empty() && args.slos.is_empty() {
        return alerts::pack::rules(scale).map_err(wrong);
    }
    let mut files = Vec::new();
    // Recordings of SLOs first: rules may use them in the same evaluation.
    for path in &args.slos {
        let (name, text) = read_file(path)?;
        let file = alerts::slo::SloFile::parse(&name, &text).map_err(wrong)?;
        files.push(alerts::slo::rules(&file).map_err(wrong)?);
    }
    for path in &args.files {
        let (name, text) = read_file(path)?;
        files.push(RuleFile::parse(&name, &text).map_err(wrong)?);
    }
    Ok(files.iter().map(|f| alerts::scale(f, scale)).collect())
}

struct Ruler {
    engine: RuleEngine,
    promql: Engine,
    source: RemoteSource,
}

impl Ruler {
    /// Evaluates what is due, off the async threads.
    async fn tick(mut self) -> anyhow::Result<(Self, Tick)> {
        let ticked = tokio::task::spawn_blocking(move || {
            let tick = self.engine.tick(now_ms(), &self.source, &self.promql);
            (self, tick)
        });
        Ok(ticked.await?)
    }
}

fn samples(tick: &Tick) -> Vec<Sample> {
    let all = tick.samples.iter();
    all.map(|(labels, t_ms, value)| Sample::float(labels.clone(), *t_ms, *value))
        .collect()
}

async fn write_back(client: Option<&Client>, tick: &Tick) {
    let Some(client) = client else { return };
    let series = tick.samples.iter().cloned();
    let series: Vec<_> = series.map(|(l, t_ms, v)| (l, vec![(t_ms, v)])).collect();
    if let Err(error) = client.remote_write(&series).await {
        note(&format!("recordings were not written: {error}"));
    }
}

async fn once(ruler: Ruler, write: Option<Client>) -> CommandResult {
    let (ruler, tick) = ruler.tick().await?;
    for error in &tick.errors {
        note(&clean(error));
    }
    write_back(write.as_ref(), &tick).await;
    let body = ruler.engine.alerts_body();
    print(&super::alerts::listed(&body))?;
    Ok(if !tick.errors.is_empty() {
        Outcome::Failed
    } else if body.alerts.iter().any(|a| a.state == "firing") {
        Outcome::Gate
    } else {
        Outcome::Good
    })
}

async fn follow(mut ruler: Ruler, dispatcher: &Dispatcher, write: Option<Client>) -> CommandResult {
    let stop = stop_token();
    let mut said = String::new();
    loop {
        let (back, tick) = ruler.tick().await?;
        ruler = back;
        write_back(write.as_ref(), &tick).await;
        let errors = clean(&tick.errors.join("; "));
        if errors != said && tick.groups_evaluated > 0 {
            if !errors.is_empty() {
                note(&format!("rules failed: {errors}"));
            }
            said = errors;
        }
        if !tick.notifications.is_empty() {
            dispatcher.submit(&tick.notifications)?;
        }
        for event in tick.transitions.into_iter().chain(dispatcher.take_events()) {
            let fields = [&event.kind, &event.alert, &event.receiver, &event.detail];
            let fields: Vec<String> = fields.into_iter().map(|f| clean(f)).collect();
            let time = format_rfc3339(event.t_ms);
            print(&format!("{time}  {}\n", fields.join("  ").trim_end()))?;
        }
        let wait = ruler.engine.next_due_ms().map_or(PACE.1, |next| {
            let ms = next.saturating_sub(now_ms()).max(0).unsigned_abs();
            Duration::from_millis(ms).clamp(PACE.0, PACE.1)
        });
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    dispatcher.flush(DELIVERY_DEADLINE).await;
    dispatcher.shutdown().await;
    Ok(Outcome::Good)
}
