//! `nines gate`: judge a stored run; and the flags and verdicts that every `nines load` shares with it.
//!
//! Owns the gate's flags, files and lines. Must not know what a rule means or how runs are compared.

use std::path::{Path, PathBuf};

use alerts::slo::{Part, Slo, SloFile};
use clap::Args as ClapArgs;
use loadgen::Report;
use loadgen::beside;
use loadgen::compare::{self, Change, Verdict};
use loadgen::explain::explain;
use loadgen::gate::{Check, Rule, validity};
use loadgen::{export, gate};
use model::query::QueryData;

use super::load_explain::observed;
use super::reach::Remote;
use crate::cli::Shared;
use crate::console::{CommandResult, Outcome, block_on, note, print, read_file, usage};

/// Flags of `nines gate`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// A run's JSON report, as written by nines load -o
    report: PathBuf,

    /// The agent that evaluates --ensure-promql and --slo
    #[arg(long, env = "NINES_URL", value_name = "URL")]
    agent: Option<String>,

    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    judge: Judge,
}

/// What a run is held against, and where the verdict goes.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "Gate")]
pub struct Judge {
    /// A rule such as 'p95<200ms' or 'error_rate<1%'; may be repeated. A broken one exits with 3
    #[arg(long, value_name = "RULE")]
    ensure: Vec<String>,

    /// PromQL that must have a result (a comparison that holds); $run_id and $duration are the run's. Needs --agent
    #[arg(long, value_name = "EXPR")]
    ensure_promql: Vec<String>,

    /// Hold the run against the objectives of this SLO file, counted over the run. Needs --agent
    #[arg(long, value_name = "FILE")]
    slo: Option<PathBuf>,

    /// Compare with this run's JSON report; what is worse breaks the gate. Several, best five and more: how much runs
    /// differ from each other counts, too
    #[arg(long, value_name = "FILE")]
    baseline: Vec<PathBuf>,

    /// Write JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write the seconds as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Write Markdown
    #[arg(long, value_name = "FILE")]
    md: Option<PathBuf>,

    /// Write the report as one HTML page that needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write an HdrHistogram V2 log
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,

    /// Write a metrics report for GitLab (artifacts:reports:metrics)
    #[arg(long, value_name = "FILE")]
    gitlab: Option<PathBuf>,

    /// Print GitHub annotations and append to $GITHUB_STEP_SUMMARY
    #[arg(long)]
    github: bool,
}

/// The flags, read and checked: mistakes are told before the run.
pub struct Gate {
    flags: Judge,
    rules: Vec<Rule>,
    slos: Vec<Slo>,
    baselines: Vec<Report>,
    client: Option<client::Client>,
    explains: bool,
    /// Standard output belongs to the report: verdicts go to standard error.
    aside: bool,
    /// The run is a script's, whose own checks these are.
    script: Option<Vec<Check>>,
}

/// Runs the subcommand.
pub fn run(args: Args, shared: Shared) -> CommandResult {
    let report = read_report(&args.report)?;
    let client = (args.remote.client()).or_else(|| args.agent.map(client::Client::new));
    args.judge.ready_with(client)?.conclude(&report, shared)
}

/// Reads a stored run.
pub fn read_report(path: &Path) -> anyhow::Result<Report> {
    let (name, text) = read_file(path)?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| usage(format!("{name}: not JSON: {e}")))?;
    Report::from_json(&json).map_err(|e| usage(format!("{name}: cannot {e}")))
}

impl Judge {
    /// Whether the run must keep each second's histogram.
    pub fn keeps_seconds(&self) -> bool {
        self.hdr.is_some() || self.html.is_some()
    }

    /// Reads the files and rules.
    pub fn ready(self, agent: Option<String>) -> anyhow::Result<Gate> {
        self.ready_with(agent.map(client::Client::new))
    }

    /// The same, with whoever evaluates PromQL.
    fn ready_with(self, client: Option<client::Client>) -> anyhow::Result<Gate> {
        let parsed = self.ensure.iter().map(|text| Rule::parse(text));
        let rules = parsed
            .collect::<Result<_, gate::RuleError>>()
            .map_err(|e| usage(format!("--ensure: cannot {e}")))?;
        let slos = match &self.slo {
            None => Vec::new(),
            Some(path) => {
                let (name, text) = read_file(path)?;
                let file = SloFile::parse(&name, &text).map_err(|e| usage(e.to_string()))?;
                file.slos
            }
        };
        for text in &self.ensure_promql {
            let text = text.replace("$run_id", "x").replace("$duration", "1m");
            promql::parse(&text).map_err(|e| usage(format!("--ensure-promql: {e}")))?;
        }
        if client.is_none() && (!slos.is_empty() || !self.ensure_promql.is_empty()) {
            return Err(usage(
                "--ensure-promql and --slo ask an agent: name it with --agent URL (or NINES_URL), or another server with nines gate --source URL",
            ));
        }
        let baselines = self.baseline.iter().map(|path| read_report(path));
        let baselines = baselines.collect::<anyhow::Result<Vec<_>>>()?;
        if baselines.len() > 1 {
            let names = self.baseline.iter().map(|path| path.display().to_string());
            let named: Vec<_> = names.zip(&baselines).collect();
            compare::fit(&named).map_err(|e| usage(format!("--baseline: {e}")))?;
        }
        Ok(Gate {
            rules,
            slos,
            baselines,
            client,
            explains: false,
            aside: false,
            script: None,
            flags: self,
        })
    }
}

impl Gate {
    /// Ends with the cause when an agent is near.
    pub fn explaining(mut self) -> Gate {
        self.explains = true;
        self
    }

    /// Says its verdicts on standard error, or not.
    pub fn aside(mut self, aside: bool) -> Gate {
        self.aside = aside;
        self
    }

    /// The run is a script's, with verdicts of its own. It is judged by more than those only where that was asked for:
    /// what Artillery would let pass, passes.
    pub fn script(mut self, checks: Vec<Check>) -> Gate {
        self.script = Some(checks);
        self
    }

    /// Whether the flags ask for more than files to look at.
    fn judges(&self) -> bool {
        let Judge {
            ensure,
            ensure_promql,
            slo,
            baseline: _,
            junit,
            csv: _,
            md,
            html: _,
            hdr: _,
            gitlab,
            github,
        } = &self.flags;
        let files = [slo, junit, md, gitlab];
        let rules = [ensure, ensure_promql];
        *github
            || !self.baselines.is_empty()
            || rules.iter().any(|texts| !texts.is_empty())
            || files.iter().any(|path| path.is_some())
    }

    /// Compares with the run that took place beside.
    pub fn beside(mut self, run: Report) -> Gate {
        self.baselines = vec![run];
        self
    }

    /// Judges the run, writes what was asked for, prints one line a broken rule.
    pub fn conclude(&self, report: &Report, shared: Shared) -> CommandResult {
        let asks = self
            .client
            .as_ref()
            .filter(|_| self.explains || self.flags.html.is_some());
        let seen = asks.and_then(|client| observed(client, report));
        let why = explain(report, seen.as_ref());
        if seen.is_some() && self.explains && !shared.quiet {
            print(&format!("\n{}\n", why.text()))?;
        }
        // Of a script that nothing judges its own summary has said all.
        let silent = self.script.is_some() && !self.judges();
        let mut checks = match silent {
            true => Vec::new(),
            false => vec![validity(report)],
        };
        checks.extend(self.script.iter().flatten().cloned());
        checks.extend(self.rules.iter().map(|rule| rule.check(report)));
        if let Some(client) = &self.client {
            checks.extend(block_on(async { Ok(self.ask(client, report).await) })?);
        }
        let mut changes = Vec::new();
        if !self.baselines.is_empty() {
            let other = |b: &&Report| b.own.kept_awake != report.own.kept_awake;
            if let Some(other) = self.baselines.iter().find(other) {
                note(&format!(
                    "warning: the processors were kept awake in this run or in {}, not in both: what changed may be that",
                    other.run_id
                ));
            }
            let (held, found) = against_baselines(&self.baselines, report);
            checks.extend(held);
            changes = found;
        }
        let cause = seen.as_ref().map_or(String::new(), |_| why.markdown());
        self.write(report, &checks, &changes, &cause)?;
        if let Some(path) = &self.flags.html {
            let page = loadgen::html::Page {
                report,
                checks: &checks,
                changes: &changes,
                seen: seen.as_ref(),
                why: &why,
            };
            std::fs::write(path, loadgen::html::page(&page))
                .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?;
        }
        if silent {
            return Ok(Outcome::Good);
        }
        let mut text = String::new();
        if self.baselines.len() > 1 && !changes.is_empty() {
            text += &format!("against {}:\n", compare::against(&changes));
        }
        if changes.first().is_some_and(|c| c.paired) {
            let against = compare::against(&changes);
            text += &format!("against {against} (at the same time, compared in pairs):\n");
        }
        for change in &changes {
            text += &format!("{}\n", change.line());
        }
        let broken: Vec<&Check> = checks.iter().filter(|c| !c.passed).collect();
        for check in &broken {
            text += &format!("{}\n", check.line());
        }
        if !shared.quiet && (checks.len() > 1 || !changes.is_empty()) {
            let kept = checks.len() - broken.len();
            text += &format!("gate: {kept} kept, {} broken\n", broken.len());
        }
        if self.flags.github {
            text += &export::github(&checks);
        }
        match self.aside {
            true if text.is_empty() || shared.quiet => {}
            true => note(text.trim_end()),
            false => print(&text)?,
        }
        Ok(if broken.is_empty() {
            Outcome::Good
        } else {
            Outcome::Gate
        })
    }

    /// What the agent says of the run's end.
    async fn ask(&self, client: &client::Client, report: &Report) -> Vec<Check> {
        let end = report.started_ms + (report.duration_s * 1e3).ceil() as i64;
        let window = format!("{}s", report.duration_s.ceil().max(1.0));
        let mut checks = Vec::new();
        for text in &self.flags.ensure_promql {
            let query = text
                .replace("$run_id", &report.run_id)
                .replace("$duration", &window);
            checks.push(match client.query(&query, end).await {
                Ok(data) => {
                    let (passed, seen) = holds(&data);
                    Check::new(text, passed, seen)
                }
                Err(error) => Check::new(text, false, no_answer(&error)),
            });
        }
        for slo in &self.slos {
            checks.push(objective(client, slo, &window, end).await);
        }
        checks
    }

    fn write(
        &self,
        report: &Report,
        checks: &[Check],
        changes: &[Change],
        cause: &str,
    ) -> anyhow::Result<()> {
        let markdown = || export::markdown(report, checks, changes) + cause;
        let flags = &self.flags;
        let save = |path: &Option<PathBuf>, text: &dyn Fn() -> anyhow::Result<String>| {
            let Some(path) = path else { return Ok(()) };
            std::fs::write(path, text()?)
                .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))
        };
        save(&flags.junit, &|| Ok(export::junit(report, checks)))?;
        save(&flags.csv, &|| Ok(export::csv(report)))?;
        save(&flags.md, &|| Ok(markdown()))?;
        save(&flags.hdr, &|| {
            export::hdr_log(report).map_err(anyhow::Error::msg)
        })?;
        save(&flags.gitlab, &|| Ok(export::gitlab(report, checks)))?;
        if flags.github
            && let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|p| !p.is_empty())
        {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)?;
            writeln!(file, "{}", markdown())?;
        }
        Ok(())
    }
}

/// What is worse than the baselines, a check each; of several, and of a run beside it, one that says so when nothing is.
/// And all that was compared. What is wrong with a run beside it is a check, too, and then nothing is compared.
fn against_baselines(baselines: &[Report], report: &Report) -> (Vec<Check>, Vec<Change>) {
    let baselines: Vec<&Report> = baselines.iter().collect();
    let paired = beside::of(&baselines, report);
    let rule = format!(
        "no worse than {}",
        compare::named(baselines.len(), paired.is_some())
    );
    let mut checks = Vec::new();
    if let Some(one) = paired {
        checks.push(beside::comparable(report, one));
        if !checks[0].passed {
            return (checks, Vec::new());
        }
        checks.push(beside::fails_no_more(report, one));
    }
    let changes = match compare::compare(&baselines, report) {
        Ok(changes) => changes,
        Err(why) => {
            checks.push(Check::new(rule, false, why));
            return (checks, Vec::new());
        }
    };
    let worse = changes.iter().filter(|c| c.verdict == Verdict::Worse);
    let worse: Vec<Check> = worse
        .map(|c| {
            let of = c.route.as_deref().unwrap_or("all requests");
            Check::new(format!("{rule}: {of} {}", c.metric), false, c.line().trim())
        })
        .collect();
    if worse.is_empty() && (baselines.len() > 1 || paired.is_some()) {
        let seen = format!("nothing worse in {} comparisons", changes.len());
        checks.push(Check::new(rule, true, seen));
    }
    checks.extend(worse);
    (checks, changes)
}

/// A comparison that holds has a result; one with `bool`, or a scalar, has one that is not 0.
fn holds(data: &QueryData) -> (bool, String) {
    match data {
        QueryData::Scalar(_, v) => (*v != 0.0, v.to_string()),
        QueryData::Vector(elements) if elements.is_empty() => (false, "no result".to_owned()),
        QueryData::Vector(elements) => {
            let seen = data
                .first_float()
                .map_or("a result".to_owned(), |v| v.to_string());
            (true, format!("{} series, first {seen}", elements.len()))
        }
        other => (false, format!("a {} is no verdict", other.type_name())),
    }
}

/// The error names the server and what to do.
fn no_answer(error: &client::ClientError) -> String {
    format!("no answer: {error}")
}

async fn objective(client: &client::Client, slo: &Slo, window: &str, end: i64) -> Check {
    let rule = format!("SLO {}: {} %", slo.name, slo.objective * 100.0);
    let (part, good) = match &slo.events.part {
        Part::Good(text) => (text, true),
        Part::Bad(text) => (text, false),
    };
    let mut numbers = [0.0; 2];
    for (number, text) in numbers.iter_mut().zip([part, &slo.events.total]) {
        match client.query(&text.replace("$window", window), end).await {
            Ok(data) => *number = data.first_float().filter(|v| v.is_finite()).unwrap_or(0.0),
            Err(e) => return Check::new(rule, false, no_answer(&e)),
        }
    }
    let [part, total] = numbers;
    if total <= 0.0 {
        return Check::new(rule, false, "no events during the run");
    }
    let ratio = if good {
        part / total
    } else {
        1.0 - part / total
    };
    let seen = format!("{:.4} % good of {total:.0}", ratio * 100.0);
    Check::new(rule, ratio >= slo.objective, seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_holds_when_it_has_a_result() {
        assert!(!holds(&QueryData::Vector(Vec::new())).0);
        assert!(!holds(&QueryData::Scalar(0, 0.0)).0);
        assert!(holds(&QueryData::Scalar(0, 1.0)).0);
    }
}
