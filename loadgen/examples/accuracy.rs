//! Prints how far the generator's percentiles are from the truth of servers whose delays are known, and what each
//! request cost it, beside what a bare loop and sleeping alone cost before and after it, and vegeta where `VEGETA` names
//! its program. Run by `bench/accuracy`; the server is a process of its own.
//!
//! Arguments: seconds of each run (20), then connection limits (64 and `unlimited`). With `KEEP_AWAKE` set it all runs
//! with the processors kept awake.

use std::error::Error;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loadgen::awake::Awake;
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
    let keep_awake = std::env::var_os("KEEP_AWAKE").is_some();
    // For all that runs here: our load, and what it is compared with.
    let _awake = keep_awake.then(Awake::hold).transpose()?;
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
    if keep_awake {
        println!("processors kept awake, for all that runs here\n");
    }
    let rival = std::env::var_os("VEGETA");
    if let Some(program) = &rival {
        println!("beside vegeta: {}\n", version(program)?);
    }
    let mut passed = 0;
    let (mut to_bare, mut to_vegeta, mut to_sleep) = (Vec::new(), Vec::new(), Vec::new());
    let mut costs = Vec::new();
    for limit in &limits {
        for (name, profile) in Profile::table(RATE * seconds) {
            let (bare_before, sleep_before) = (bare()?, asleep()?);
            let (good, ours) = one(name, profile, *limit, seconds)?;
            // The machine's speed changes meanwhile: both before and after.
            let (bare, sleep) = (
                (bare_before + bare()?) / 2.0,
                (sleep_before + asleep()?) / 2.0,
            );
            passed += good;
            costs.push(ours);
            to_bare.push(ours / bare);
            to_sleep.push(sleep / ours);
            print!(
                "{:20} ours {ours:.3} CPU s per 10,000; a bare loop {bare:.3} ({:.2}x), sleeping alone {sleep:.3}",
                "",
                ours / bare
            );
            if let Some(program) = &rival {
                let vegeta = vegeta(program, name, *limit, seconds)?;
                to_vegeta.push(vegeta / ours);
                print!(
                    "; vegeta {vegeta:.3}; ours is {:.2} times cheaper than vegeta",
                    vegeta / ours
                );
            }
            println!();
        }
    }
    println!("\npassed {passed} of {}", limits.len() * 12);
    println!("CPU s per 10,000 requests: {}", spread(costs, ""));
    println!("cost beside a bare loop: {}", spread(to_bare, "x"));
    println!("of our cost, waking alone: {}", spread(to_sleep, "x"));
    if rival.is_some() {
        println!("cheaper than vegeta: {}", spread(to_vegeta, "x"));
    }
    Ok(())
}

/// Median, least and most of some figures in this unit; there is at least one.
fn spread(mut all: Vec<f64>, unit: &str) -> String {
    all.sort_by(f64::total_cmp);
    let (below, above) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
    format!(
        "median {:.2}{unit} ({:.2} to {:.2})",
        (below + above) / 2.0,
        all[0],
        all[all.len() - 1]
    )
}

/// Serves until standard input ends, then prints its account of itself.
fn server(name: &str, requests: u64) -> Result<(), Box<dyn Error>> {
    let at_once = Profile::Stall {
        delay: Duration::ZERO,
        every: Duration::from_secs(3600),
        stall: Duration::ZERO,
    };
    let profile = match name {
        "bare" => at_once,
        _ => {
            let mut all = Profile::table(requests).into_iter();
            all.find(|(n, _)| *n == name).ok_or("no such server")?.1
        }
    };
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

/// How many of the four quantiles are right, and CPU seconds per 10,000 requests.
fn one(
    name: &str,
    profile: Profile,
    connections: usize,
    seconds: u64,
) -> Result<(usize, f64), Box<dyn Error>> {
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
    let cost = cpu / report.requests.max(1) as f64 * 1e4;
    let passed = row(name, connections, &report, truths, &account);
    Ok((passed, cost))
}

/// What vegeta says it is, in one line.
fn version(program: &OsStr) -> Result<String, Box<dyn Error>> {
    let out = Command::new(program)
        .arg("-version")
        .output()
        .map_err(|e| format!("VEGETA={}: {e}", program.display()))?;
    let said = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() || !said.contains("Version") {
        return Err(format!("VEGETA={} is not vegeta", program.display()).into());
    }
    Ok(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// CPU seconds per 10,000 requests of `vegeta attack`, its results encoded and thrown away.
///
/// The same work as the row's: a fresh server of the same name, rate and seconds (the share of requests that meet a
/// stall, and of connections to open, depends on the length), the CPU that this process was given, and where the row has
/// a connection limit vegeta has it, too, as `-max-connections`. Its workers stay unlimited: with fewer it does not keep
/// the rate. It is charged for its process as a whole, of which starting is some 4 ms. Its end is bounded: no request may
/// take longer than a minute and twice the run, more than any wait here.
///
/// # Errors
/// When bash or vegeta cannot be run, vegeta fails, or the server answered another number of requests than were meant to
/// be sent.
fn vegeta(
    program: &OsStr,
    name: &str,
    connections: usize,
    seconds: u64,
) -> Result<f64, Box<dyn Error>> {
    let requests = RATE * seconds;
    let remote = start(name, requests)?;
    let mut command = Command::new("bash");
    // Bash has its child's user and system time from wait4, whole microseconds, and prints it to the millisecond.
    command
        .args(["-c", "TIMEFORMAT='%3U %3S'; time \"$@\"", "bash"])
        .arg(program)
        .args(["attack", "-rate", &RATE.to_string()])
        .args(["-duration", &format!("{seconds}s")])
        .args(["-timeout", &format!("{}s", 60 + 2 * seconds)]);
    if connections < 65_536 {
        command.args(["-max-connections", &connections.to_string()]);
    }
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no input")?;
    writeln!(stdin, "GET http://{}/", remote.addr)?;
    drop(stdin);
    let out = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        return Err(format!("vegeta failed: {}", said.trim()).into());
    }
    let mut used = 0.0;
    let times = said.lines().last().ok_or("bash printed no times")?;
    for time in times.split_whitespace() {
        let seconds: f64 = time.parse().map_err(|_| format!("no times: {said}"))?;
        used += seconds;
    }
    let served = remote.end()?.2.len() as u64;
    if served != requests {
        return Err(format!(
            "the server answered {served} of vegeta's {requests} requests: {said}"
        )
        .into());
    }
    Ok(used / requests as f64 * 1e4)
}

/// CPU seconds per 10,000 requests of the least that can send them in time: sleep until one is due, read the response to
/// the last, send; blocking, nothing recorded.
fn bare() -> Result<f64, Box<dyn Error>> {
    let requests = 3 * RATE as u32;
    let remote = start("bare", u64::from(requests))?;
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {}\r\ntraceparent: 00-0123456789abcdef0123456789abcdef-0123456789abcdef-01\r\nx-nines-run-id: 0123456789ab\r\n\r\n",
        remote.addr
    );
    let mut socket = TcpStream::connect(&remote.addr)?;
    socket.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let before = thread_seconds()?;
    let start = Instant::now();
    for i in 0..requests {
        let due = start + Duration::from_secs(1) * i / RATE as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if i > 0 && socket.read(&mut buffer)? == 0 {
            return Err("the bare loop's server closed".into());
        }
        socket.write_all(request.as_bytes())?;
    }
    let used = thread_seconds()? - before;
    remote.end()?;
    Ok(used / f64::from(requests) * 1e4)
}

/// CPU seconds per 10,000 times of sleeping until an instant, as often as there are requests, and doing nothing.
fn asleep() -> Result<f64, Box<dyn Error>> {
    let times = 3 * RATE as u32;
    let before = thread_seconds()?;
    let start = Instant::now();
    for i in 0..times {
        let due = start + Duration::from_secs(1) * i / RATE as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok((thread_seconds()? - before) / f64::from(times) * 1e4)
}

/// CPU time of this thread so far.
fn thread_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns: f64 = stat.split_whitespace().next().ok_or("no time")?.parse()?;
    Ok(ns / 1e9)
}

fn row(
    name: &str,
    connections: usize,
    report: &Report,
    (truth, served): (&[Duration], &[Duration]),
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
        "{:10} {limit:>9} {} responses, generator late p50 {} us, p99 {} us, {}; {account}",
        "",
        report.responses,
        report.late_p50_us,
        report.late_p99_us,
        if report.valid { "valid" } else { "INVALID" }
    );
    passed
}

/// User and system time of this process so far, its ended threads' too.
#[cfg(target_os = "linux")]
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(t.tv_sec as f64 + t.tv_nsec as f64 / 1e9)
}

#[cfg(not(target_os = "linux"))]
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    Err("CPU time is read on Linux only".into())
}
