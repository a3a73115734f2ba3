//! `nines load`: drive a server in the open model (rate), in the closed model, or as ab does.
//!
//! Owns its flags, the progress line and where reports go. Must not know how load is made.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use loadgen::ab;
use model::duration;

use super::gate::{Gate, Judge, read_report};
use super::load_beside::{self, BesideFlags, Second};
use super::load_request::{RequestFlags, authorize, owned, owned_host, refused, warn_insecure};
use super::load_schedule::Schedule;
use super::load_series::{RemoteWrite, Writers};
use super::load_transport::{TransportFlags, body_of};
use crate::cli::Shared;
use crate::console::{
    self, CommandResult, Outcome, block_on, note, now_ms, print, read_file_or_stdin, stop_token,
    usage,
};

/// Flags of `nines load`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// So many requests a second, whatever the server does (open model)
    Rate {
        #[command(flatten)]
        schedule: Schedule,
        #[command(flatten)]
        common: Common,
    },
    /// So many connections, each sending when its answer came (closed model)
    Closed {
        /// Stop after so many requests
        #[arg(short = 'n', long, value_name = "N")]
        requests: Option<u64>,
        /// How long each connection pauses between an answer and its next request
        #[arg(long, value_name = "DURATION")]
        think: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// The highest rate that keeps the rules: doubling, bisection, confirmation; with an interval
    Capacity(Box<super::load_capacity::Args>),
    /// An Artillery script: its phases, scenarios, checks and report
    Run(super::load_run::Args),
    /// Make a script of a HAR file, an OpenAPI document or an access log
    Import(super::load_import::Args),
    /// Join the JSON reports of a run's shards into one
    Merge {
        /// The shards' reports
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        /// Write the JSON report of the whole here
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The agent that evaluates --ensure-promql and --slo
        #[arg(long, env = "NINES_URL", value_name = "URL")]
        agent: Option<String>,
        #[command(flatten)]
        judge: Judge,
    },
    /// Why a stored run was slow or failed: what grew, which resource was used up and when, the trace to open
    Explain(super::load_explain::Args),
    /// ApacheBench's flags, report and exit codes: nines load ab -n 1000 -c 10 URL (-h lists them)
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Ab {
        /// This target is mine: it may lie beyond loopback
        #[arg(long)]
        i_own_this_target: bool,
        /// ab's own flags and the URL
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
    /// Artillery's quick: so many users, so many requests each
    Quick {
        /// Do not check the server's certificate
        #[arg(short = 'k', long)]
        insecure: bool,
        /// This target is mine: it may lie beyond loopback
        #[arg(long)]
        i_own_this_target: bool,
        /// Users
        #[arg(short, long, default_value_t = 10)]
        count: usize,
        /// Requests of each user
        #[arg(short, long, default_value_t = 10)]
        num: u64,
        /// Write the JSON report here
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Where to send
        url: String,
    },
}

/// vegeta's formats of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TargetFormat {
    /// METHOD URL, headers, @body-file
    Http,
    /// An object a line: method, url, header, body
    Json,
}

#[derive(Debug, ClapArgs)]
/// Flags of every load but `quick` and `ab`.
pub struct Common {
    /// Where to send
    url: String,

    /// How long, seconds without a unit [default: 10s, or the length of the log with --replay]
    #[arg(short, visible_short_alias = 'z', long, value_name = "DURATION")]
    pub(super) duration: Option<String>,

    /// Send the requests of this file (or - for standard input), in turn: vegeta's targets, HTTP or JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "headers", "body", "body_file", "user"])]
    targets: Option<PathBuf>,

    /// Format of --targets [default: JSON when it begins with a brace]
    #[arg(long, value_name = "FORMAT", requires = "targets")]
    format: Option<TargetFormat>,

    /// Load before it, left out of the report
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    warm_up: String,

    /// Connections at most (1 to 65536)
    #[arg(short, long, default_value_t = 64, value_name = "N")]
    connections: usize,

    /// How long what waits at the end may still start [default: the timeout]
    #[arg(long, value_name = "DURATION")]
    drain: Option<String>,

    /// Send only this worker's share, such as 2/3, or job/3 where $JOB_COMPLETION_INDEX says which (a Kubernetes Indexed
    /// Job); the workers need one --run-id, and one --seed if one is given
    #[arg(long, value_name = "I/N", requires = "run_id")]
    shard: Option<String>,

    /// Begin at this time: 2026-01-31T12:00:00Z or Unix seconds
    #[arg(long, value_name = "TIME")]
    start_at: Option<String>,

    #[command(flatten)]
    request: RequestFlags,

    /// Body of each request, from this file; a long one is read as it is sent
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    body_file: Option<PathBuf>,

    /// Basic credentials
    #[arg(short, long, value_name = "USER:PASSWORD")]
    user: Option<String>,

    /// What sends: auto is the quickest that can carry the plan
    #[arg(long, default_value = "auto", value_name = "ENGINE", value_parser = ["auto", "io_uring", "epoll", "hyper"])]
    engine: String,

    /// Threads that send, each with its share of the connections [default: one, or more when there are cores to spare]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    #[command(flatten)]
    awake: AwakeFlag,

    /// Write the JSON report here; - is standard output, and the text then goes to standard error
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Send the run's own series to this agent
    #[arg(long, env = "NINES_URL", value_name = "URL")]
    agent: Option<String>,

    #[command(flatten)]
    remote: RemoteWrite,

    #[command(flatten)]
    transport: TransportFlags,

    #[command(flatten)]
    beside: BesideFlags,

    #[command(flatten)]
    judge: Judge,
}

/// What `rate`, `closed` and `run` may do to this machine.
#[derive(Debug, ClapArgs)]
pub struct AwakeFlag {
    /// Let none of this machine's processors sleep while the run lasts: requests leave more punctually and cost less.
    /// Takes power and the right to write to /dev/cpu_dma_latency, and hastens a server on the same machine
    #[arg(long)]
    pub(super) keep_awake: bool,
}

/// Runs the subcommand.
pub fn run(args: Args, shared: Shared) -> CommandResult {
    match args.command {
        Command::Rate { schedule, common } => {
            let mut plan = plan(&common)?;
            schedule.apply(&mut plan, &common)?;
            begin(plan, common, shared)
        }
        Command::Closed {
            requests,
            think,
            common,
        } => {
            let mut plan = plan(&common)?;
            plan.model = loadgen::Model::Closed { requests };
            if let Some(text) = &think {
                plan.think = span("--think", text)?;
            }
            begin(plan, common, shared)
        }
        Command::Merge {
            reports,
            output,
            agent,
            judge,
        } => {
            let gate = judge.ready(agent)?.explaining();
            let read = reports.iter().map(|path| read_report(path));
            let parts = read.collect::<anyhow::Result<Vec<_>>>()?;
            let whole = loadgen::merge(parts).map_err(usage)?;
            let gate = gate.aside(is_stdout(output.as_ref()));
            tell(&whole, output, shared)?;
            gate.conclude(&whole, shared)
        }
        Command::Capacity(args) => super::load_capacity::run(*args, shared),
        Command::Run(args) => super::load_run::run(args, shared),
        Command::Explain(args) => super::load_explain::run(args),
        Command::Import(args) => super::load_import::run(args, shared),
        Command::Ab {
            i_own_this_target,
            args,
        } => as_ab(args, i_own_this_target),
        Command::Quick {
            insecure,
            i_own_this_target,
            count,
            num,
            output,
            url,
        } => {
            let mut plan = target(&url)?;
            plan.insecure = insecure;
            warn_insecure(insecure);
            plan.own_target = owned(i_own_this_target, &plan.target);
            authorize(&mut plan, &url);
            plan.connections = count;
            plan.duration = Duration::from_secs(86_400);
            plan.model = loadgen::Model::Closed {
                requests: Some(num.saturating_mul(count as u64)),
            };
            let gate = Judge::default().ready(None)?;
            drive(plan, None, output, gate, Writers::default(), shared)
        }
    }
}

/// Runs as ab does. `--quiet`, `-q` and `-c` here are ab's, whatever they are elsewhere.
fn as_ab(args: Vec<String>, owned: bool) -> CommandResult {
    let code = block_on(async {
        let stop = stop_token();
        let run = tokio::task::spawn_blocking(move || {
            let mut failed = None;
            let owned = |host: &str| owned || owned_host(host);
            let code = ab::run(&args, &owned, &stop, &mut |place, text| match place {
                ab::Say::Out => failed = print(text).err().or(failed.take()),
                ab::Say::Err => console::note_raw(text),
            });
            failed.map_or(Ok(code), Err)
        });
        run.await?
    })?;
    Ok(Outcome::Other(code))
}

/// Splits the URL into the target and one request for its path, without user and password.
pub(super) fn target(url: &str) -> anyhow::Result<loadgen::Plan> {
    let (url, _) = loadgen::transport::take_userinfo(url);
    let (base, path) = url.split_at(path_at(&url));
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let mut plan = loadgen::Plan::new(base).map_err(|e| usage(e.to_string()))?;
    plan.seed = now_ms().unsigned_abs();
    plan.requests = vec![loadgen::RequestSpec {
        name: path.clone(),
        method: "GET".into(),
        path,
        range: 1,
        headers: Vec::new(),
        body: None,
        weight: 1,
    }];
    Ok(plan)
}

/// Where path and query of a URL begin, of one without user and password: at its end when it names none.
pub(super) fn path_at(url: &str) -> usize {
    let after_scheme = url.find("://").map_or(0, |i| i + 3);
    let path = url[after_scheme..].find(['/', '?']);
    path.map_or(url.len(), |i| after_scheme + i)
}

/// A length of time: a duration, or a bare number of seconds as wrk and oha take it.
pub(super) fn span(name: &str, text: &str) -> anyhow::Result<Duration> {
    if let Some(seconds) = text.parse::<f64>().ok().filter(|s| (0.0..=1e9).contains(s)) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    let ms = duration::parse_ms(text).map_err(|e| usage(format!("{name}: {e}")))?;
    Ok(Duration::from_millis(ms.unsigned_abs()))
}

fn plan(common: &Common) -> anyhow::Result<loadgen::Plan> {
    let mut plan = target(&common.url)?;
    plan.duration = span("--duration", common.duration.as_deref().unwrap_or("10s"))?;
    plan.warm_up = span("--warm-up", &common.warm_up)?;
    plan.drain = match &common.drain {
        Some(text) => Some(span("--drain", text)?),
        None => None,
    };
    plan.connections = common.connections;
    plan.keep_awake = common.awake.keep_awake;
    plan.threads = common.threads;
    plan.engine = match common.engine.as_str() {
        "io_uring" => loadgen::Engine::IoUring,
        "epoll" => loadgen::Engine::Epoll,
        "hyper" => loadgen::Engine::Hyper,
        _ => loadgen::Engine::Auto,
    };
    common.request.apply(&mut plan)?;
    if let Some(text) = &common.shard {
        plan.shard = Some(shard(text)?);
        // The workers agree on picks and trace ids without being told: by the run's name.
        plan.seed = common.request.seed.unwrap_or_else(|| {
            let bytes = plan.run_id.bytes();
            bytes.fold(1469, |h: u64, b| {
                h.wrapping_mul(1_099_511_628_211) ^ u64::from(b)
            })
        });
    }
    plan.keep_seconds = plan.shard.is_some() || common.judge.keeps_seconds();
    common.transport.apply(&mut plan)?;
    if let Some(path) = &common.targets {
        let (name, text) = read_file_or_stdin(path)?;
        let folder = path.parent().unwrap_or(std::path::Path::new(""));
        let read =
            |file: &str| std::fs::read_to_string(folder.join(file)).map_err(|e| e.to_string());
        let all = match common.format {
            None => loadgen::targets::any(&text, &plan.target, read),
            Some(TargetFormat::Http) => loadgen::targets::vegeta(&text, &plan.target, read),
            Some(TargetFormat::Json) => loadgen::targets::vegeta_json(&text, &plan.target),
        };
        plan.requests = all.map_err(|e| usage(format!("{name}: {e}")))?;
        plan.in_turn = true;
        return Ok(plan);
    }
    let mut body = common.request.body.clone();
    if let Some(path) = &common.body_file {
        (body, plan.transport.body) = body_of(path)?;
    }
    common.request.set(&mut plan, body.as_ref())?;
    if let Some(user) = &common.user {
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let value = loadgen::transport::basic(user, password);
        for request in &mut plan.requests {
            request
                .headers
                .insert(0, ("Authorization".to_owned(), value.clone()));
        }
    }
    Ok(plan)
}

fn shard(text: &str) -> anyhow::Result<(u32, u32)> {
    let wrong = || {
        usage(format!(
            "--shard {text:?} is not such as 2/3, the second of three workers, or job/3"
        ))
    };
    let (number, of) = text.split_once('/').ok_or_else(wrong)?;
    let of = of.parse().map_err(|_| wrong())?;
    if number == "job" {
        let index = std::env::var("JOB_COMPLETION_INDEX").ok();
        let index: Option<u32> = index.and_then(|text| text.parse().ok());
        let index = index.filter(|i| *i < of).ok_or_else(|| {
            usage(format!(
                "--shard {text}: $JOB_COMPLETION_INDEX must be 0 to {}; is this a worker of an Indexed Job with so many completions?",
                i64::from(of) - 1
            ))
        })?;
        return Ok((index + 1, of));
    }
    Ok((number.parse().map_err(|_| wrong())?, of))
}

/// Waits for the time to begin, then runs.
fn begin(mut plan: loadgen::Plan, common: Common, shared: Shared) -> CommandResult {
    plan.check().map_err(refused)?;
    let beside = common.beside.plan(&plan, &common.request)?;
    authorize(&mut plan, &common.url);
    let at = common.start_at.as_deref().map(start_ms).transpose()?;
    let gate = common.judge.ready(common.agent.clone())?.explaining();
    let writers = Writers::new(common.agent.as_deref(), &common.remote)?;
    if let Some(at) = at {
        let left = at - now_ms();
        if left < -1000 {
            return Err(usage(format!(
                "--start-at is {:.1} s in the past",
                -left as f64 / 1e3
            )));
        }
        std::thread::sleep(Duration::from_millis(left.max(0).unsigned_abs()));
    }
    drive(plan, beside, common.output, gate, writers, shared)
}

fn start_ms(text: &str) -> anyhow::Result<i64> {
    let unix = text.parse::<f64>().ok().map(|s| (s * 1e3) as i64);
    unix.or_else(|| model::timestamp::parse_rfc3339(text))
        .ok_or_else(|| {
            usage(format!(
                "--start-at {text:?} is neither such as 2026-01-31T12:00:00Z nor Unix seconds"
            ))
        })
}

/// Writes the JSON report and prints the text. `-` is standard output, with the text on standard error; `--quiet` leaves
/// it out there, since a container's log has both.
fn tell(report: &loadgen::Report, output: Option<PathBuf>, shared: Shared) -> anyhow::Result<()> {
    if let Some(path) = output {
        if path.as_os_str() == "-" {
            if !shared.quiet {
                note(report.summary().trim_end());
            }
            let mut out = Vec::new();
            report.write_json(&mut out)?;
            out.push(b'\n');
            return print(&String::from_utf8(out)?);
        }
        store(report, &path)?;
    }
    print(&report.summary())
}

fn store(report: &loadgen::Report, path: &std::path::Path) -> anyhow::Result<()> {
    let write = || {
        let mut out = BufWriter::new(std::fs::File::create(path)?);
        report.write_json(&mut out)?;
        out.write_all(b"\n")?;
        out.flush()
    };
    write().map_err(|e: std::io::Error| anyhow::anyhow!("cannot write {}: {e}", path.display()))
}

fn drive(
    plan: loadgen::Plan,
    beside: Option<Second>,
    output: Option<PathBuf>,
    gate: Gate,
    writers: Writers,
    shared: Shared,
) -> CommandResult {
    plan.check().map_err(refused)?;
    for warning in loadgen::little::before(&plan, loadgen::little::local_ports()) {
        note(&format!("note: {warning}"));
    }
    let (beside, beside_output) = beside.unzip();
    let live = !shared.quiet && console::is_terminal();
    let whole = Whole::of(&plan);
    let patience = plan.drain() + plan.timeout;
    let (report, beside) = block_on(async {
        let stop = stop_token();
        let stopped = stop.clone();
        let teller = tokio::spawn(async move {
            stopped.cancelled().await;
            if !shared.quiet {
                let lead = if live { "\n" } else { "" };
                note(&format!(
                    "{lead}stopping: what is under way ends first, {} s at most; Ctrl-C again stops at once",
                    patience.as_secs()
                ));
            }
        });
        let channel = || tokio::sync::watch::channel(loadgen::Progress::default());
        let ((progress, seen), (theirs, seen_beside)) = (channel(), channel());
        let two = beside.is_some();
        let show = move |now: &[loadgen::Progress; 2]| {
            if live {
                eprint_line(&now[0], two.then_some(&now[1]), &whole);
            }
        };
        let watcher = tokio::spawn(load_beside::watch([seen, seen_beside], writers, show));
        let reports = match beside {
            None => {
                drop(theirs);
                (
                    loadgen::run(plan, progress, stop).await.map_err(refused)?,
                    None,
                )
            }
            Some(beside) => {
                let both = loadgen::beside::run(plan, beside, [progress, theirs], stop).await;
                let (report, beside) = both.map_err(refused)?;
                (report, Some(beside))
            }
        };
        teller.abort();
        watcher.await?;
        Ok(reports)
    })?;
    if live {
        note("");
    }
    let aside = is_stdout(output.as_ref());
    let gate = gate.aside(aside);
    tell(&report, output, shared)?;
    let Some(beside) = beside else {
        return gate.conclude(&report, shared);
    };
    if let Some(path) = beside_output.flatten() {
        store(&beside, &path)?;
    }
    let text = format!("\n{}\n", beside.brief());
    match aside {
        true if shared.quiet => {}
        true => note(text.trim_end()),
        false => print(&text)?,
    }
    gate.beside(beside).conclude(&report, shared)
}

fn is_stdout(output: Option<&PathBuf>) -> bool {
    output.is_some_and(|path| path.as_os_str() == "-")
}

/// What a run's end is measured by.
struct Whole {
    seconds: f64,
    requests: Option<u64>,
}

impl Whole {
    fn of(plan: &loadgen::Plan) -> Whole {
        Whole {
            seconds: (plan.warm_up + plan.duration).as_secs_f64(),
            requests: match plan.model {
                loadgen::Model::Closed { requests } => requests,
                _ => None,
            },
        }
    }

    /// A bar of ten places.
    fn bar(&self, now: &loadgen::Progress) -> String {
        let by_time = now.elapsed_s / self.seconds.max(1e-9);
        let by_count = self
            .requests
            .map(|n| now.completed as f64 / n.max(1) as f64);
        let done = by_count.unwrap_or(0.0).max(by_time).clamp(0.0, 1.0);
        let full = (done * 10.0) as usize;
        format!(
            "[{}{}] {:>3.0} %",
            "#".repeat(full),
            "-".repeat(10 - full),
            done * 100.0
        )
    }
}

fn eprint_line(now: &loadgen::Progress, beside: Option<&loadgen::Progress>, whole: &Whole) {
    let ms = |us: u64| us as f64 / 1e3;
    let beside = beside.map_or(String::new(), |b| {
        let (p50, p99) = (ms(b.p50_us), ms(b.p99_us));
        format!(
            "  beside: {} errors  p50 {p50:.1} ms  p99 {p99:.1} ms",
            b.errors
        )
    });
    let line = format!(
        "\r{} {:>6.1}s  {} sent  {} done  {} errors  {:.0}/s of {:.0}/s  p50 {:.1} ms  p99 {:.1} ms{beside}\x1b[K",
        whole.bar(now),
        now.elapsed_s,
        now.sent,
        now.completed,
        now.errors,
        now.achieved_rate,
        now.offered_rate,
        ms(now.p50_us),
        ms(now.p99_us)
    );
    let mut err = std::io::stderr().lock();
    // A terminal that went away ends the run by its signal, not here.
    let _ = err.write_all(line.as_bytes()).and_then(|()| err.flush());
}
