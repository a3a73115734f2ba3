//! The query rows without a server: our store and engine in this process, each stage on its own. What a profiler is
//! pointed at.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;

use model::api::AnswerText;
use model::{Labels, Matcher, SelectRequest, Source};
use promql::{Engine, Options, RangeData};
use store::{SampleRef, Store, StoreOptions};

use crate::Outcome;
use crate::workload::{bucket_labels, bucket_values};

const SERIES: usize = 10_000;
const STEPS: i64 = 270;
const STEP_MS: i64 = 15_000;
const END_MS: i64 = 1_700_000_100_000;

/// CPU seconds of this thread, system time included.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos: f64 = text
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    nanos / 1e9
}

fn time(what: &str, rounds: usize, mut work: impl FnMut() -> usize) {
    let mut all = Vec::new();
    let mut size = 0;
    for _ in 0..rounds {
        let before = cpu_seconds();
        size = work();
        all.push((cpu_seconds() - before) * 1e3);
    }
    all.sort_by(f64::total_cmp);
    println!(
        "  {what:<58} {:>9.2} ms  (median {:.2}; {size})",
        all[0],
        all[all.len() / 2]
    );
}

pub fn run(rounds: usize) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let mut options = StoreOptions::new(dir.path());
    options.retention_ms = None;
    options.max_series_per_metric = usize::MAX;
    let store = Store::open(options)?;
    let labels: Vec<Labels> = (0..SERIES)
        .map(|i| Labels::from_pairs(bucket_labels(i)))
        .collect();
    let mut counts = bucket_values(SERIES);
    for step in 0..STEPS {
        let t_ms = END_MS - (STEPS - 1 - step) * STEP_MS;
        let values = counts();
        let all = labels.iter().zip(values);
        let samples: Vec<SampleRef<'_>> = all.map(|(l, v)| SampleRef::float(l, t_ms, v)).collect();
        store.append(&samples)?;
    }
    println!(
        "\nin this process, {SERIES} bucket series x {STEPS}, CPU of the thread, best of the rounds"
    );
    queries(&store, rounds, "memory")?;
    store.compact(END_MS + STEP_MS)?;
    queries(&store, rounds, "block")
}

fn queries(store: &Store, rounds: usize, place: &str) -> Outcome<()> {
    println!(" from {place}");
    let engine = Engine::new(Options::default());
    let metric = "http_request_duration_seconds_bucket";
    let rate = format!("rate({metric}[5m])");
    let q99 = format!("histogram_quantile(0.99,sum by (le,route)({rate}))");
    let by_route = format!("sum by (route)({rate})");
    let matchers = [Matcher::equal("__name__", metric)];
    let request = |ms: i64| SelectRequest {
        matchers: &matchers,
        start_ms: END_MS - ms + 1,
        end_ms: END_MS,
        max_points: usize::MAX,
    };
    for (what, ms) in [("read 5 m", 300_000), ("read 65 m", 3_900_000)] {
        time(what, rounds * 4, || {
            let mut points = 0;
            let read = store.visit(&request(ms), &mut |_, p| {
                points += black_box(p).len();
                ControlFlow::Continue(())
            });
            read.map_or(0, |()| points)
        });
    }
    let failed = |e: promql::QueryError| -> usize { panic!("{e}") };
    time("q99 by route, instant", rounds * 8, || {
        engine
            .instant(store, &q99, END_MS)
            .map_or_else(failed, |o| usize::from(black_box(o).warnings.is_empty()))
    });
    let range = |query: &str| {
        let out = engine.range_table(store, query, END_MS - 3_600_000, END_MS, STEP_MS);
        match out.map(|o| o.data) {
            Ok(RangeData::Table(table)) => table,
            _ => panic!("no table"),
        }
    };
    for (what, query) in [
        ("q99 by route, 1 h at 15 s", q99.as_str()),
        ("sum by route of rate, 1 h at 15 s", &by_route),
        ("rate, 1 h at 15 s", &rate),
        ("the samples themselves, 1 h at 15 s", metric),
    ] {
        time(what, rounds, || black_box(range(query)).len());
    }
    let table = range(&rate);
    time("rate, 1 h at 15 s: JSON alone", rounds, || {
        write(&table, |piece| black_box(piece).len())
    });
    let mut sink = sink()?;
    time(
        "rate, 1 h at 15 s: evaluation, JSON, socket",
        rounds,
        || {
            write(&range(&rate), |piece| {
                sink.write_all(piece).map_or(0, |()| piece.len())
            })
        },
    );
    let mut sink = self::sink()?;
    time(
        "q99 by route, instant: evaluation, JSON, socket",
        rounds * 8,
        || {
            let out = engine.instant(store, &q99, END_MS);
            let mut text = AnswerText::default();
            out.map_or_else(failed, |o| {
                text.data(&o.data);
                sink.write_all(&text.take()).map_or(0, |()| 1)
            })
        },
    );
    Ok(())
}

/// Writes a matrix in pieces, as the API does. Bytes.
fn write(table: &promql::Table, mut put: impl FnMut(&[u8]) -> usize) -> usize {
    let (mut text, mut bytes) = (AnswerText::default(), 0);
    for s in 0..table.len() {
        text.row(
            table.labels(s),
            table.times(),
            table.floats(s),
            table.histograms(s),
        );
        if text.len() >= 64 << 10 {
            bytes += put(&text.take());
        }
    }
    bytes + put(&text.take())
}

/// A loopback connection whose other end is read by a thread of its own, which no figure counts.
fn sink() -> Outcome<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 18];
        while far.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    Ok(near)
}
