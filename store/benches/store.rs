//! Speed and size of the store on the workload of the figures in docs/store.md.
//!
//! 25 % constant series, 40 % integer counters, 25 % two-decimal gauges, 10 % noise; five labels each. CPU seconds are
//! those of the thread that does the work (`/proc/thread-self/schedstat`, system time included).
//! `cargo bench -p store` runs it; `-- --small` runs a tenth, to see that it works.

use std::hint::black_box;
use std::time::Instant;

use model::{Labels, Matcher, SelectRequest, Source};
use store::{IdSample, SampleRef, SeriesId, Store, StoreOptions};

const STEP_MS: i64 = 10_000;
const START_MS: i64 = 1_700_000_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let small = std::env::args().any(|a| a == "--small");
    let shrink = if small { 10 } else { 1 };
    if std::env::args().any(|a| a == "--append") {
        return appends(10_000 / shrink, 720);
    }
    memory(100_000 / shrink, 40)?;
    throughput(10_000 / shrink, 720)?;
    Ok(())
}

/// A small random number generator (splitmix64), so that every run has the same samples.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One series' values so far.
enum Kind {
    Constant(f64),
    Counter(u64),
    Gauge(i64),
    Noise,
}

impl Kind {
    fn of(series: usize, random: &mut Random) -> Kind {
        match series % 20 {
            0..5 => Kind::Constant(random.below(1000) as f64),
            5..13 => Kind::Counter(random.below(1_000_000)),
            13..18 => Kind::Gauge(random.below(10_000) as i64),
            _ => Kind::Noise,
        }
    }

    fn next(&mut self, random: &mut Random) -> f64 {
        match self {
            Kind::Constant(v) => *v,
            Kind::Counter(v) => {
                *v += random.below(100);
                *v as f64
            }
            Kind::Gauge(v) => {
                *v += random.below(201) as i64 - 100;
                *v as f64 / 100.0
            }
            Kind::Noise => random.unit(),
        }
    }
}

fn labels(series: usize) -> Labels {
    let name = format!("metric_{:03}_total", series / 20 % 200);
    let instance = format!("10.0.{}.{}:9100", series % 20, series / 4000);
    let pairs = [
        ("__name__", name.as_str()),
        ("instance", instance.as_str()),
        ("job", "node"),
        ("cluster", "eu-west-1a"),
        ("mode", ["system", "user"][series % 2]),
    ];
    Labels::from_pairs(pairs)
}

fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos: f64 = text
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    nanos / 1e9
}

fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0.0);
    kib * 1024.0
}

fn options(dir: &tempfile::TempDir) -> StoreOptions {
    let mut options = StoreOptions::new(dir.path());
    options.retention_ms = None;
    options.max_series_per_metric = usize::MAX;
    options.max_series_per_source = usize::MAX;
    options
}

/// The samples of `steps` scrapes of all series, one batch a scrape.
fn batches(ids: &[SeriesId], steps: usize) -> Vec<Vec<IdSample>> {
    let mut random = Random(1);
    let mut kinds: Vec<Kind> = (0..ids.len()).map(|i| Kind::of(i, &mut random)).collect();
    (0..steps as i64)
        .map(|k| {
            let t_ms = START_MS + k * STEP_MS;
            ids.iter()
                .zip(&mut kinds)
                .map(|(id, kind)| IdSample {
                    id: *id,
                    t_ms,
                    value: kind.next(&mut random),
                })
                .collect()
        })
        .collect()
}

fn memory(series: usize, steps: usize) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(options(&dir))?;
    let before = resident_bytes();
    let ids: Vec<SeriesId> = (0..series).map(|i| store.series_id(&labels(i))).collect();
    let mut random = Random(1);
    let mut kinds: Vec<Kind> = (0..series).map(|i| Kind::of(i, &mut random)).collect();
    for k in 0..steps as i64 {
        let batch: Vec<IdSample> = ids
            .iter()
            .zip(&mut kinds)
            .map(|(id, kind)| IdSample {
                id: *id,
                t_ms: START_MS + k * STEP_MS,
                value: kind.next(&mut random),
            })
            .collect();
        store.append_ids(&batch)?;
    }
    drop((ids, kinds));
    let grown = resident_bytes() - before;
    println!("memory: {series} series x {steps} samples");
    println!(
        "  resident bytes a series     {:8.0}",
        grown / series as f64
    );
    println!(
        "  estimated bytes a series    {:8.0}",
        store.stats().head_bytes as f64 / series as f64
    );
    Ok(())
}

/// Appends alone, three times each: the least CPU time counts. To compare two builds, run both in turn.
fn appends(series: usize, steps: usize) -> Result<(), Box<dyn std::error::Error>> {
    let all: Vec<Labels> = (0..series).map(labels).collect();
    for _ in 0..3 {
        let dir = tempfile::tempdir()?;
        let store = Store::open(options(&dir))?;
        let ids: Vec<SeriesId> = all.iter().map(|l| store.series_id(l)).collect();
        let batches = batches(&ids, steps);
        let cpu = cpu_seconds();
        for batch in &batches {
            store.append_ids(batch)?;
        }
        let cpu = cpu_seconds() - cpu;
        println!(
            "by id, M samples a CPU second {:8.2}",
            (series * steps) as f64 / cpu / 1e6
        );
        by_labels(&all, &batches)?;
    }
    Ok(())
}

fn throughput(series: usize, steps: usize) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(options(&dir))?;
    let all: Vec<Labels> = (0..series).map(labels).collect();
    let ids: Vec<SeriesId> = all.iter().map(|l| store.series_id(l)).collect();
    let batches = batches(&ids, steps);
    let samples = (series * steps) as f64;
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    for batch in &batches {
        store.append_ids(batch)?;
    }
    let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
    println!("append by id, log on: {series} series x {steps} samples");
    println!(
        "  samples a CPU second        {:8.2} M",
        samples / cpu / 1e6
    );
    println!(
        "  samples a second            {:8.2} M",
        samples / wall / 1e6
    );
    println!(
        "  log bytes a sample          {:8.2}",
        store.stats().log_bytes as f64 / samples
    );
    let end_ms = START_MS + (steps as i64 - 1) * STEP_MS;
    read(&store, "memory", end_ms);
    read_lately(&store, "memory", end_ms);
    drop(store);
    let cpu = cpu_seconds();
    let store = Store::open(options(&dir))?;
    println!("reopen, all samples in the log");
    println!(
        "  samples a CPU second        {:8.2} M",
        samples / (cpu_seconds() - cpu) / 1e6
    );
    let cpu = cpu_seconds();
    store.compact(end_ms)?;
    let cpu = cpu_seconds() - cpu;
    let stats = store.stats();
    println!("block: {} samples", stats.block_samples);
    println!(
        "  bytes a sample              {:8.3}",
        stats.block_bytes as f64 / stats.block_samples as f64
    );
    println!(
        "  samples a CPU second        {:8.2} M",
        samples / cpu / 1e6
    );
    parts(&dir, samples)?;
    read(&store, "block, first", end_ms);
    read(&store, "block, again", end_ms);
    read_lately(&store, "block", end_ms);
    by_labels(&all, &batches)?;
    let opened = Instant::now();
    drop(store);
    let store = Store::open(options(&dir))?;
    println!(
        "  reopen after the cut, ms    {:8.1}",
        opened.elapsed().as_secs_f64() * 1e3
    );
    read(&store, "block, cold", end_ms);
    Ok(())
}

/// Where a block's bytes are.
fn parts(dir: &tempfile::TempDir, samples: f64) -> Result<(), Box<dyn std::error::Error>> {
    let inspection = store::admin::inspect(dir.path())?;
    let sum = |of: fn(&store::admin::BlockReport) -> u64| {
        inspection.blocks.iter().map(of).sum::<u64>() as f64 / samples
    };
    println!(
        "  of which chunks             {:8.3}",
        sum(|b| b.data_bytes)
    );
    println!(
        "  list of series, postings    {:8.3}",
        sum(|b| b.series_bytes + b.postings_bytes)
    );
    for (name, e) in store::admin::verify(dir.path())?.encodings {
        let (share, bytes) = (
            e.samples as f64 / samples,
            e.bytes as f64 / e.samples as f64,
        );
        println!(
            "  {name:24} {:5.1} % {bytes:8.3} bytes a sample before compression",
            share * 100.0
        );
    }
    Ok(())
}

fn by_labels(all: &[Labels], batches: &[Vec<IdSample>]) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(options(&dir))?;
    let part = &batches[..batches.len().min(100)];
    let cpu = cpu_seconds();
    for batch in part {
        let refs: Vec<SampleRef<'_>> = batch
            .iter()
            .zip(all)
            .map(|(s, l)| SampleRef::float(l, s.t_ms, s.value))
            .collect();
        store.append(&refs)?;
    }
    let cpu = cpu_seconds() - cpu;
    let samples = (all.len() * part.len()) as f64;
    println!(
        "append by labels, log on: {} series x {} samples",
        all.len(),
        part.len()
    );
    println!(
        "  samples a CPU second        {:8.2} M",
        samples / cpu / 1e6
    );
    Ok(())
}

/// The last five minutes of every series, as rules read them.
fn read_lately(store: &Store, from: &str, end_ms: i64) {
    let request = SelectRequest {
        matchers: &[Matcher::equal("job", "node")],
        start_ms: end_ms - 300_000,
        end_ms,
        max_points: usize::MAX,
    };
    let mut best = f64::MAX;
    let mut series = 0;
    for _ in 0..10 {
        let cpu = cpu_seconds();
        let found = store.select(&request).unwrap_or_default();
        best = best.min(cpu_seconds() - cpu);
        series = found.len();
        black_box(found);
    }
    println!("read the last 5 minutes from {from}: {series} series");
    println!("  CPU milliseconds            {:8.2}", best * 1e3);
}

/// One hour of a thousand series: the first read where that is the point, else the best of ten.
fn read(store: &Store, what: &str, end_ms: i64) {
    let pattern = r"metric_0[0-4][0-9]_total";
    let Ok(matcher) = Matcher::new("__name__", model::MatchOp::Regex, pattern) else {
        return;
    };
    let instance = Matcher::new("instance", model::MatchOp::Regex, r"10\.0\.[0-9]+\.0:9100");
    let matchers: Vec<Matcher> = [Ok(matcher), instance].into_iter().flatten().collect();
    let request = SelectRequest {
        matchers: &matchers,
        start_ms: end_ms - 3_600_000 + STEP_MS,
        end_ms,
        max_points: usize::MAX,
    };
    let rounds = if what.contains(", ") && !what.ends_with("again") {
        1
    } else {
        10
    };
    let mut best = f64::MAX;
    let (mut series, mut points) = (0, 0);
    for _ in 0..rounds {
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        let found = store.select(&request).unwrap_or_default();
        best = best.min(wall.elapsed().as_secs_f64());
        black_box(cpu_seconds() - cpu);
        series = found.len();
        points = found.iter().map(|s| s.points.len()).sum::<usize>();
        black_box(found);
    }
    println!("read from {what}: {series} series, {points} samples");
    println!("  milliseconds                {:8.2}", best * 1e3);
}
