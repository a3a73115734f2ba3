//! Prints how far the generator's percentiles are from the truth of servers whose delays are known, and what each
//! request cost it. Run by `bench/accuracy`; the server is a process of its own.
//!
//! Arguments: seconds of each run (20), then connection limits (64 and `unlimited`).

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loadgen::schedule::Schedule;
use loadgen::truth::{Profile, quantile, serve};
use loadgen::{Model, Plan, Progress, Report};

const RATE: u64 = 500;
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "serve") {
        return server(&args[1], args[2].parse()?);
    }
    let seconds: u64 = args.first().map_or(Ok(20), |a| a.parse())?;
    let limits: Vec<usize> = match args.get(1..) {
        Some(given) if !given.is_empty() => given
            .iter()
            .map(|a| {
                if a == "unlimited" {
                    Ok(65_536)
                } else {
                    a.parse()
                }
            })
            .collect::<Result<_, _>>()?,
        _ => vec![64, 65_536],
    };
    println!(
        "{RATE} requests a second for {seconds} s; served = truth and the server's own lateness; passed = got is within 1 % or 0.1 ms of served\n"
    );
    let mut passed = 0;
    for limit in &limits {
        for (name, profile) in Profile::table(RATE * seconds) {
            passed += one(name, profile, *limit, seconds)?;
        }
    }
    println!("\npassed {passed} of {}", limits.len() * 12);
    Ok(())
}

/// Serves until standard input ends, then prints its account of itself.
fn server(name: &str, requests: u64) -> Result<(), Box<dyn Error>> {
    let profile = Profile::table(requests)
        .into_iter()
        .find(|(n, _)| *n == name)
        .ok_or("no such server")?
        .1;
    // A server that spins wakes at once; where it must share its core, it had better sleep.
    let spin = std::env::var_os("SERVER_SLEEPS").is_none();
    let server = serve(profile, spin)?;
    println!("{}", server.addr);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let account = server.account();
    let at = |h: &hdrhistogram::Histogram<u64>, q| h.value_at_quantile(q);
    println!(
        "server late p50 {} us, p99 {} us, p99.9 {} us; arrival gaps p50 {} us, p99 {} us",
        at(&account.late, 0.5),
        at(&account.late, 0.99),
        at(&account.late, 0.999),
        at(&account.gaps, 0.5),
        at(&account.gaps, 0.99)
    );
    println!("{}", account.turnaround.mean());
    let each: Vec<String> = account.each_late_us.iter().map(u32::to_string).collect();
    println!("{}", each.join(" "));
    Ok(())
}

struct Remote {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    addr: String,
}

fn start(name: &str, requests: u64) -> Result<Remote, Box<dyn Error>> {
    let pin = std::env::var("SERVER_CPU").ok();
    let me = std::env::current_exe()?;
    let mut command = match &pin {
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cpu]).arg(me);
            command
        }
        None => Command::new(me),
    };
    let mut child = command
        .args(["serve", name, &requests.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().ok_or("no output")?);
    let mut addr = String::new();
    out.read_line(&mut addr)?;
    let addr = addr.trim().to_owned();
    Ok(Remote { child, out, addr })
}

impl Remote {
    fn end(mut self) -> Result<(String, f64, Vec<u32>), Box<dyn Error>> {
        drop(self.child.stdin.take());
        let (mut account, mut turnaround, mut each) = (String::new(), String::new(), String::new());
        self.out.read_line(&mut account)?;
        self.out.read_line(&mut turnaround)?;
        self.out.read_line(&mut each)?;
        self.child.wait()?;
        let each = each.split_whitespace().map(str::parse);
        let each = each.collect::<Result<_, _>>()?;
        Ok((account.trim().to_owned(), turnaround.trim().parse()?, each))
    }
}

fn one(
    name: &str,
    profile: Profile,
    connections: usize,
    seconds: u64,
) -> Result<usize, Box<dyn Error>> {
    let remote = start(name, RATE * seconds)?;
    let plan = Plan {
        model: Model::Rate {
            per_second: RATE as f64,
            poisson: false,
        },
        duration: Duration::from_secs(seconds),
        connections,
        drain: Some(Duration::from_secs(600)),
        ..Plan::new(&format!("http://{}", remote.addr))?
    };
    let due: Vec<Duration> = Schedule::of(&plan)
        .ok_or("no schedule")?
        .arrivals()
        .collect();
    let drain = plan.drain();
    let before = cpu_seconds()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (progress, _seen) = tokio::sync::watch::channel(Progress::default());
    let report = runtime.block_on(loadgen::run(plan, progress, Default::default()))?;
    let cpu = cpu_seconds()? - before;
    let (account, turnaround, each) = remote.end()?;
    // With so few connections that one is never idle, what it needs between a response and the next request is part of
    // the truth; the server measured it.
    let turnaround = if connections == 1 {
        Duration::from_secs_f64(turnaround / 1e6)
    } else {
        Duration::ZERO
    };
    let all = due.iter().copied();
    let truth = profile.latencies(all.clone(), connections, turnaround, drain);
    let served = profile.served(all, connections, turnaround, drain, &each);
    let truths = (truth.as_slice(), served.as_slice());
    Ok(row(name, connections, &report, truths, cpu, &account))
}

fn row(
    name: &str,
    connections: usize,
    report: &Report,
    (truth, served): (&[Duration], &[Duration]),
    cpu: f64,
    account: &str,
) -> usize {
    let limit = if connections >= 65_536 {
        "unlimited".to_owned()
    } else {
        connections.to_string()
    };
    let mut passed = 0;
    for (label, q) in QUANTILES {
        let truth = quantile(truth, q).as_secs_f64() * 1e3;
        let got = report.latency.value_at_quantile(q) as f64 / 1e3;
        let served = quantile(served, q).as_secs_f64() * 1e3;
        let off = got - served;
        let good = off.abs() <= f64::max(served * 0.01, 0.1);
        passed += usize::from(good);
        println!(
            "{name:10} {limit:>9} {label:6} truth {truth:>10.3} ms  served {served:>10.3} ms  got {got:>10.3} ms  {:>+6.2} %  {off:>+7.3} ms  {}",
            off / served * 100.0,
            if good { "ok" } else { "WRONG" }
        );
    }
    println!(
        "{:10} {limit:>9} {} responses, {:.2} CPU s per 10,000, generator late p50 {} us, p99 {} us, {}; {account}",
        "",
        report.responses,
        cpu / report.requests.max(1) as f64 * 1e4,
        report.late_p50_us,
        report.late_p99_us,
        if report.valid { "valid" } else { "INVALID" }
    );
    passed
}

/// User and system time of this process so far.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').ok_or("no stat")?.1;
    let field = |n: usize| -> Result<f64, Box<dyn Error>> {
        Ok(after.split_whitespace().nth(n).ok_or("no field")?.parse()?)
    };
    Ok((field(11)? + field(12)?) / 100.0)
}
