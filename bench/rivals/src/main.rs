//! We and the rivals side by side: every row runs nines, Prometheus and VictoriaMetrics one after another on the same
//! samples over loopback, several rounds, and prints the best of each. CPU seconds are those of the server's process,
//! user and system, from /proc (10 ms ticks). See `bench/rivals/run` and docs/benchmarks.md.

mod http;
mod inside;
mod server;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use server::{Scrape, Server, Which, bytes_below};
use workload::Scrapes;

/// A bench stops at its first error.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Samples of one remote write body: what a Prometheus sends.
const PER_BODY: usize = 2_000;

struct Bench {
    nines: PathBuf,
    rounds: usize,
    servers: Vec<Which>,
}

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let nines = PathBuf::from(
        args.next()
            .ok_or("usage: nines-bench-rivals NINES [ROW...]")?,
    );
    let rows: Vec<String> = args.collect();
    let named = std::env::var("BENCH_SERVERS").unwrap_or_default();
    let servers = Which::ALL.into_iter();
    let servers = servers.filter(|w| named.is_empty() || named.split(' ').any(|n| n == w.name()));
    let bench = Bench {
        nines,
        rounds: number("BENCH_ROUNDS", 3),
        servers: servers.collect(),
    };
    let wants = |row: &str| rows.is_empty() || rows.iter().any(|r| r == row);
    if wants("write") {
        bench.write()?;
    }
    if wants("memory") {
        bench.memory()?;
    }
    if wants("disk") {
        bench.disk()?;
    }
    if wants("query") {
        bench.query()?;
    }
    if wants("scrape") {
        bench.scrape()?;
    }
    if wants("inside") {
        inside::run(bench.rounds)?;
    }
    Ok(())
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as i64)
}

/// What a row found for one server: all rounds, the best first.
struct Found {
    which: Which,
    rounds: Vec<f64>,
}

/// Prints a row: the best round of each server, and ours over theirs (how many times better we are).
fn print(what: &str, unit: &str, higher: bool, mut found: Vec<Found>) {
    println!(
        "\n{what} ({unit}; {} is better)",
        if higher { "more" } else { "less" }
    );
    for f in &mut found {
        f.rounds.sort_by(f64::total_cmp);
        if higher {
            f.rounds.reverse();
        }
    }
    let ours = found
        .iter()
        .find(|f| f.which == Which::Nines)
        .map(|f| f.rounds[0]);
    for f in &found {
        let ratio = match ours {
            Some(ours) if f.which != Which::Nines => {
                let times = if higher {
                    ours / f.rounds[0]
                } else {
                    f.rounds[0] / ours
                };
                format!("  we: {times:.2}x")
            }
            _ => String::new(),
        };
        let all: Vec<String> = f.rounds.iter().map(|v| format!("{v:.3}")).collect();
        println!(
            "  {:<17} {:>10.3}{ratio:<14}  rounds: {}",
            f.which.name(),
            f.rounds[0],
            all.join(" ")
        );
    }
}

impl Bench {
    /// Runs `measure` for every server in every round.
    fn each(
        &self,
        rounds: usize,
        mut measure: impl FnMut(Which) -> Outcome<f64>,
    ) -> Outcome<Vec<Found>> {
        let mut found: Vec<Found> = self
            .servers
            .iter()
            .map(|w| Found {
                which: *w,
                rounds: Vec::new(),
            })
            .collect();
        for _ in 0..rounds {
            for f in &mut found {
                f.rounds.push(measure(f.which)?);
            }
        }
        Ok(found)
    }

    fn start(&self, which: Which) -> Outcome<Server> {
        Server::start(which, &self.nines, None)
    }

    fn write(&self) -> Outcome<()> {
        let (series, steps) = (10_000, number("BENCH_STEPS", 360));
        let found = self.each(self.rounds, |which| {
            let server = self.start(which)?;
            let (begun, _) = fill(
                &server,
                Scrapes::mixed(series, PER_BODY),
                steps,
                10_000,
                now_ms(),
            )?;
            Ok((series * steps) as f64 / (server.cpu()? - begun) / 1e6)
        })?;
        let what =
            format!("remote write in, {series} series x {steps}, {PER_BODY} samples a request");
        print(&what, "M samples a CPU second", true, found);
        Ok(())
    }

    fn memory(&self) -> Outcome<()> {
        let (series, steps) = (100_000, 40);
        let found = self.each(1, |which| {
            let server = self.start(which)?;
            let before = server.resident()?;
            fill(
                &server,
                Scrapes::mixed(series, PER_BODY),
                steps,
                10_000,
                now_ms(),
            )?;
            Ok((server.resident()? - before) / series as f64)
        })?;
        print(
            &format!("memory, {series} series x {steps}"),
            "resident bytes a series, growth of the process",
            false,
            found,
        );
        Ok(())
    }

    fn disk(&self) -> Outcome<()> {
        let (series, steps) = (10_000, 720);
        let found = self.each(1, |which| {
            let mut server = self.start(which)?;
            fill(
                &server,
                Scrapes::mixed(series, PER_BODY),
                steps,
                10_000,
                now_ms(),
            )?;
            let bytes = compacted_bytes(&mut server, which)?;
            Ok(bytes as f64 / (series * steps) as f64)
        })?;
        print(
            &format!("disk after compaction, {series} series x {steps}, index included"),
            "bytes a sample",
            false,
            found,
        );
        Ok(())
    }

    fn query(&self) -> Outcome<()> {
        let series = 10_000;
        let end = now_ms() / 15_000 * 15_000;
        let mut servers = Vec::new();
        for which in &self.servers {
            let server = self.start(*which)?;
            fill(
                &server,
                Scrapes::buckets(series, PER_BODY),
                270,
                15_000,
                end,
            )?;
            server.settle()?;
            servers.push((*which, server));
        }
        let q99 = "histogram_quantile(0.99,sum%20by%20(le,route)(rate(http_request_duration_seconds_bucket%5B5m%5D)))";
        let rate = "rate(http_request_duration_seconds_bucket%5B5m%5D)";
        let by_route = format!("sum%20by%20(route)({rate})");
        let range = |q: &str| {
            format!(
                "/api/v1/query_range?query={q}&start={}&end={}&step=15&nocache=1",
                end / 1000 - 3600,
                end / 1000
            )
        };
        let rows = [
            (
                "q99 by route over 10,000 bucket series, 5m rate, instant",
                format!("/api/v1/query?query={q99}&time={}&nocache=1", end / 1000),
                40,
            ),
            ("q99 by route, 10,000 series, 1 h at 15 s", range(q99), 4),
            (
                "sum by (route) (rate), 10,000 series, 1 h at 15 s",
                range(&by_route),
                4,
            ),
            (
                "rate, 10,000 series out, 1 h at 15 s (2.4 M points of JSON)",
                range(rate),
                2,
            ),
        ];
        for (what, path, repeat) in rows {
            let mut sizes = Vec::new();
            let found = self.each(self.rounds, |which| {
                let (_, server) = servers
                    .iter()
                    .find(|(w, _)| *w == which)
                    .ok_or("a server is missing")?;
                let mut client = server.client()?;
                let size = client.get(&path)?.len();
                let before = server.cpu()?;
                for _ in 0..repeat {
                    client.get(&path)?;
                }
                sizes.push(size);
                Ok((server.cpu()? - before) / f64::from(repeat) * 1e3)
            })?;
            print(what, "CPU ms a query, HTTP and JSON included", false, found);
            sizes.truncate(self.servers.len());
            println!("  bytes answered: {sizes:?}");
        }
        Ok(())
    }

    fn scrape(&self) -> Outcome<()> {
        let series = 20_000;
        let bodies = workload::exposition(series, 16);
        let bytes = bodies[0].len();
        let found = self.each(self.rounds, |which| {
            let (target, served) = http::serve(bodies.clone())?;
            let server = Server::start(
                which,
                &self.nines,
                Some(Scrape {
                    target,
                    every: "250ms",
                }),
            )?;
            let wait = |n: u64| {
                while served.load(Ordering::Relaxed) < n {
                    std::thread::sleep(Duration::from_millis(5));
                }
                // The last body is taken in.
                std::thread::sleep(Duration::from_millis(120));
            };
            wait(4);
            let (cpu, from) = (server.cpu()?, served.load(Ordering::Relaxed));
            wait(44);
            let scrapes = served.load(Ordering::Relaxed) - from;
            Ok(scrapes as f64 * series as f64 / (server.cpu()? - cpu) / 1e6)
        })?;
        let what =
            format!("scrape text in, {series} series ({bytes} bytes) every 250 ms, known series");
        print(&what, "M samples a CPU second", true, found);
        Ok(())
    }
}

/// Writes `steps` scrapes that end at `end_ms`. CPU seconds before the first, and wall seconds.
fn fill(
    server: &Server,
    mut scrapes: Scrapes,
    steps: usize,
    step_ms: i64,
    end_ms: i64,
) -> Outcome<(f64, f64)> {
    let mut client = server.client()?;
    let before = server.cpu()?;
    let begun = std::time::Instant::now();
    for step in 0..steps as i64 {
        let t_ms = end_ms - (steps as i64 - 1 - step) * step_ms;
        for body in scrapes.bodies(t_ms) {
            Server::write(&mut client, &body)?;
        }
    }
    Ok((before, begun.elapsed().as_secs_f64()))
}

/// What the samples take once each server has compacted them its way.
fn compacted_bytes(server: &mut Server, which: Which) -> Outcome<u64> {
    let data = server.dir().join("data");
    match which {
        Which::Nines => {
            server.stop()?;
            let dir = data.join("metrics");
            let store = store::Store::open(store::StoreOptions::new(&dir))?;
            store.compact(now_ms())?;
            drop(store);
            Ok(bytes_below(&dir.join("blocks")))
        }
        Which::Prometheus => {
            server
                .client()?
                .post("/api/v1/admin/tsdb/snapshot", "", &[])?;
            Ok(bytes_below(&data.join("snapshots")))
        }
        Which::VictoriaMetrics => {
            let mut client = server.client()?;
            client.get("/internal/force_flush")?;
            client.get("/internal/force_merge")?;
            std::thread::sleep(Duration::from_secs(5));
            server.stop()?;
            Ok(bytes_below(Path::new(&data)))
        }
    }
}
