//! Proves two claims by runs against servers of known behaviour, each a process of its own: that the capacity search
//! finds what a server can do, and that the comparison of runs tells equal servers from one that is 2 % slower. Run by
//! `bench/capacity` and `bench/compare`.
//!
//! Arguments: `capacity REPEATS [SECONDS [STEP]]`, `compare RUNS SECONDS RATE AT_ONCE`, `beside PAIRS SECONDS RATE AT_ONCE`,
//! or `serve ...` for the servers.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loadgen::capacity::{Options, Settings};
use loadgen::compare::{Change, Verdict, compare};
use loadgen::gate::Rule;
use loadgen::truth::{Profile, serve};
use loadgen::{Model, Plan, Progress, Report};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Answer<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Answer<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).map_or(Ok(default), |a| a.parse());
    let runtime = tokio::runtime::Runtime::new()?;
    match args.first().map(String::as_str) {
        Some("serve") => server(&args[1], number(2, 0)?, number(3, 0)?),
        Some("capacity") => {
            let (repeats, seconds, step) = (number(1, 10)?, number(2, 60)?, number(3, 4)?);
            runtime.block_on(capacity(repeats, seconds, step))
        }
        Some("compare") => {
            let (runs, seconds) = (number(1, 10)?, number(2, 60)?);
            runtime.block_on(compared(runs, seconds, number(3, 1000)?, number(4, 1)?))
        }
        Some("beside") => {
            let (pairs, seconds) = (number(1, 10)?, number(2, 60)?);
            runtime.block_on(beside(pairs, seconds, number(3, 1000)?, number(4, 1)?))
        }
        _ => Err("expected capacity, compare, beside or serve".into()),
    }
}

/// Serves until standard input ends.
fn server(kind: &str, us: u64, seed: u64) -> Answer<()> {
    let time = Duration::from_micros(us);
    let profile = match kind {
        "queue" => Profile::Queue { service: time },
        _ => Profile::Random {
            median: time,
            sigma: 0.5,
            seed,
        },
    };
    let server = serve(profile, false)?;
    println!("http://{}", server.addr);
    let _ = std::io::stdin().read(&mut [0])?;
    Ok(())
}

/// A server process; it ends with this value.
struct Started(Child, String);

impl Started {
    fn new(kind: &str, us: u64, seed: u64) -> Answer<Started> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", kind, &us.to_string(), &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().ok_or("no standard output")?;
        BufReader::new(out).read_line(&mut line)?;
        Ok(Started(child, line.trim().to_owned()))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

async fn capacity(repeats: u64, seconds: u64, step: u64) -> Answer<()> {
    println!("one worker; p99<50ms and error_rate<1%; at most {seconds} s, steps of {step} s\n");
    println!(
        "{:>9} {:>9} {:>7}   {:19} {:>6} {:>5}  ended",
        "truth/s", "found/s", "error", "interval/s", "covers", "s"
    );
    let (mut covered, mut within, mut worst, mut longest, mut known) = (0, 0, 0.0_f64, 0.0_f64, 0);
    for repeat in 0..repeats {
        // Not always the same server: 2.5 ms and its neighbours.
        let us = 2500 + 37 * (repeat % 3);
        let truth = 1e6 / us as f64;
        let server = Started::new("queue", us, 0)?;
        let mut plan = Plan::new(&server.1)?;
        plan.seed = repeat + 1;
        let rules = ["p99<50ms", "error_rate<1%"].map(Rule::parse);
        let options = Options {
            plan,
            rules: rules.into_iter().collect::<Result<_, _>>()?,
            settings: Settings {
                from: 10.0,
                max_rate: 1e6,
                tolerance: 0.02,
                step: Duration::from_secs(step),
                cool_down: Duration::from_secs(1),
                budget: Duration::from_secs(seconds),
                connections: 1024,
            },
            poisson: false,
        };
        let (progress, _seen) = watch::channel(Progress::default());
        let stop = CancellationToken::new();
        let show = std::env::var_os("SHOW").is_some();
        let told = |row: &loadgen::capacity::StepRow| {
            if show {
                println!("    {}", row.line());
            }
        };
        let found = loadgen::capacity::run(options, told, progress, stop).await?;
        let (low, high) = found.interval;
        let rate = found.capacity.unwrap_or_default();
        let error = rate / truth - 1.0;
        let covers = low <= truth && truth <= high;
        let answered = matches!(found.end, loadgen::capacity::End::Found(_));
        println!(
            "{truth:>9.1} {rate:>9.1} {:>6.2}%   {:19} {:>6} {:>5.1}  {:?}",
            error * 100.0,
            format!("{low:.1} to {high:.1}"),
            covers,
            found.elapsed_s,
            found.end
        );
        longest = longest.max(found.elapsed_s);
        if answered {
            known += 1;
            covered += u64::from(covers);
            within += u64::from(error.abs() <= 0.03);
            worst = worst.max(error.abs());
        }
    }
    println!(
        "\n{known} of {repeats} answered; {within} within 3 %, {covered} intervals cover the truth; worst error {:.2} %, longest {longest:.1} s",
        worst * 100.0
    );
    Ok(())
}

fn plan(server: &Started, seed: u64, seconds: u64, rate: u64) -> Answer<Plan> {
    Ok(Plan {
        model: Model::Rate {
            per_second: rate as f64,
            poisson: false,
        },
        duration: Duration::from_secs(seconds),
        warm_up: Duration::from_secs(1),
        seed,
        ..Plan::new(&server.1)?
    })
}

async fn one(us: u64, seed: u64, seconds: u64, rate: u64) -> Answer<Report> {
    // A run that the generator spoilt is not one that a gate would compare.
    for again in 0..5 {
        let server = Started::new("random", us, seed + 1000 * again)?;
        let plan = plan(&server, seed, seconds, rate)?;
        let (progress, _seen) = watch::channel(Progress::default());
        let report = loadgen::run(plan, progress, CancellationToken::new()).await?;
        println!(
            "  run {seed}: median {us} us; p50 {:.2} p95 {:.2} p99 {:.2} ms; late p99 {:.2} ms{}",
            report.latency.value_at_quantile(0.5) as f64 / 1e3,
            report.latency.value_at_quantile(0.95) as f64 / 1e3,
            report.latency.value_at_quantile(0.99) as f64 / 1e3,
            report.late_p99_us as f64 / 1e3,
            if report.valid { "" } else { "; invalid" }
        );
        if report.valid {
            return Ok(report);
        }
    }
    Err("five runs in a row were invalid: this machine is too busy".into())
}

fn alarm(changes: &[Change]) -> bool {
    changes.iter().any(|c| c.verdict != Verdict::NoEvidence)
}

fn found(changes: &[Change]) -> bool {
    changes.iter().any(|c| c.verdict == Verdict::Worse)
}

/// A server of this median, and one of 5 ms beside it: what differs, and how late the generator was. None when either run
/// is one that the gate would not compare.
async fn pair(us: u64, seed: u64, seconds: u64, rate: u64) -> Answer<Option<Vec<Change>>> {
    let servers = [(us, 2 * seed), (5000, 2 * seed + 1)];
    let [new, old] = servers.map(|(us, seed)| Started::new("random", us, seed));
    let (new, old) = (new?, old?);
    let plan = plan(&new, seed, seconds, rate)?;
    let theirs = plan.beside(&old.1);
    let progress = [(); 2].map(|()| watch::channel(Progress::default()).0);
    let stop = CancellationToken::new();
    let (run, beside) = loadgen::beside::run(plan, theirs, progress, stop).await?;
    let may = run.valid && loadgen::beside::comparable(&run, &beside).passed;
    let changes = compare(&[&beside], &run)?;
    let late = run.late_p99_us.max(beside.late_p99_us) as f64 / 1e3;
    println!(
        "  pair {seed}: {us} us beside 5000; late p99 {late:.2} ms{}; {}",
        if may { "" } else { "; invalid" },
        changes[0].line()
    );
    Ok(may.then_some(changes))
}

/// So many jobs for a server of 5 ms and as many for one that is 2 % slower, in turn and so many at once: the median each
/// had, in microseconds, and what came of it.
async fn in_turn<T, F>(
    each: u64,
    at_once: u64,
    job: impl Fn(u64, u64) -> F,
) -> Answer<Vec<(u64, T)>>
where
    T: Send + 'static,
    F: Future<Output = Answer<T>> + Send + 'static,
{
    let mut jobs = (0..each).flat_map(|i| [(5000, 2 * i), (5100, 2 * i + 1)]);
    let mut out = Vec::new();
    loop {
        let mut together = tokio::task::JoinSet::new();
        for (us, seed) in jobs.by_ref().take(at_once.max(1) as usize) {
            let job = job(us, seed);
            together.spawn(async move { job.await.map(|done| (us, done)) });
        }
        if together.is_empty() {
            return Ok(out);
        }
        while let Some(done) = together.join_next().await {
            out.push(done??);
        }
    }
}

/// `pairs` of equal servers, and as many of one 2 % slower beside another, in turn.
async fn beside(pairs: u64, seconds: u64, rate: u64, at_once: u64) -> Answer<()> {
    println!(
        "{rate}/s for {seconds} s; lognormal delays, median 5 ms beside 5 ms, and 5.1 ms beside 5 ms\n"
    );
    let (mut equal, mut alarms, mut slower, mut seen, mut invalid) = (0, 0, 0, 0, 0);
    for done in in_turn(pairs, at_once, |us, seed| pair(us, seed, seconds, rate)).await? {
        match done {
            (_, None) => invalid += 1,
            (5000, Some(changes)) => {
                equal += 1;
                alarms += u64::from(alarm(&changes));
            }
            (_, Some(changes)) => {
                slower += 1;
                seen += u64::from(found(&changes));
            }
        }
    }
    println!(
        "\nequal servers: {alarms} of {equal} pairs raise an alarm\n2 % slower: found in {seen} of {slower} pairs\n{invalid} invalid"
    );
    Ok(())
}

/// `runs` of a server, and as many of one that is 2 % slower, in turn.
async fn compared(runs: u64, seconds: u64, rate: u64, at_once: u64) -> Answer<()> {
    println!("{rate}/s for {seconds} s; lognormal delays, median 5 ms and 5.1 ms, sigma 0.5\n");
    let (mut equal, mut slower) = (Vec::new(), Vec::new());
    for (us, report) in in_turn(runs, at_once, |us, seed| one(us, seed, seconds, rate)).await? {
        if us == 5000 { &mut equal } else { &mut slower }.push(report);
    }
    let (mut pairs, mut alarms) = (0, 0);
    for group in [&equal, &slower] {
        for (i, a) in group.iter().enumerate() {
            for b in &group[i + 1..] {
                pairs += 1;
                alarms += u64::from(alarm(&compare(&[a], b)?));
            }
        }
    }
    let (mut shifts, mut seen) = (0, 0);
    for a in &equal {
        for b in &slower {
            shifts += 1;
            seen += u64::from(found(&compare(&[a], b)?));
        }
    }
    println!(
        "\nequal servers: {alarms} of {pairs} pairs raise an alarm ({:.1} %)\n2 % slower: found in {seen} of {shifts} pairs ({:.1} %)",
        100.0 * alarms as f64 / f64::from(pairs),
        100.0 * seen as f64 / f64::from(shifts)
    );
    for baselines in [3, 5, 8] {
        several(&equal, &slower, baselines)?;
    }
    Ok(())
}

/// Each run against the next few of the equal server, in a circle; not where there are too few.
fn several(equal: &[Report], slower: &[Report], baselines: usize) -> Answer<()> {
    if equal.len() <= baselines {
        return Ok(());
    }
    let (mut alarms, mut seen) = (0, 0);
    for (i, (same, slow)) in equal.iter().zip(slower).enumerate() {
        let next = (1..=baselines).map(|j| &equal[(i + j) % equal.len()]);
        let before: Vec<&Report> = next.collect();
        alarms += u64::from(alarm(&compare(&before, same)?));
        seen += u64::from(found(&compare(&before, slow)?));
    }
    let runs = equal.len().min(slower.len());
    println!(
        "{baselines} baselines: {alarms} of {runs} equal runs raise an alarm; 2 % slower: found in {seen} of {runs}"
    );
    Ok(())
}
