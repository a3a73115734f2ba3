//! kill -9 at random points under load: what was acknowledged is there, in order, with nothing in between missing.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use model::{Labels, Matcher, SelectRequest, Source};
use store::spool::{NewBlock, Part, Segments, SegmentsOptions};
use store::{SampleRef, Store, StoreOptions};

const DIR: &str = "NINES_CRASH_DIR";
const SERIES: usize = 5;

fn options(dir: &str) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    options.retention_ms = None;
    options
}

fn labels() -> Vec<Labels> {
    (0..SERIES)
        .map(|i| Labels::from_pairs([("__name__", "seq"), ("id", i.to_string().as_str())]))
        .collect()
}

fn value(t: i64, series: usize) -> f64 {
    match series {
        0 => 1.0,
        1 => t as f64,
        2 => (t % 97) as f64 / 100.0,
        _ => (t as f64).sqrt() * series as f64,
    }
}

/// The child: goes on where the store ends, one batch a number, and prints each number once it is acknowledged. It
/// only does so when the parent says where.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = Store::open(options(&dir)).unwrap();
    let segments = open_segments(&dir);
    let mut in_segments = last_block(&segments);
    let (upkeep, merging) = (store.clone(), segments.clone());
    std::thread::spawn(move || {
        for now in 0.. {
            std::thread::sleep(Duration::from_millis(3));
            let done = if now % 4 == 0 {
                upkeep.compact(now)
            } else {
                upkeep.maintain(now)
            };
            done.unwrap();
            merging.merge_small(4_000, &mut join).unwrap();
        }
    });
    let all = labels();
    let mut out = std::io::stdout().lock();
    let mut t = last(&store);
    loop {
        t += 1;
        if t > in_segments {
            let block = NewBlock {
                bytes: &content(t),
                footer: &t.to_le_bytes(),
                items: 1,
                min_ns: t as u64,
                max_ns: t as u64,
            };
            segments.append(&block).unwrap();
            in_segments = t;
        }
        let samples: Vec<SampleRef<'_>> = all
            .iter()
            .enumerate()
            .map(|(i, l)| SampleRef::float(l, t, value(t, i)))
            .collect();
        assert_eq!(store.append(&samples).unwrap().appended, SERIES as u64);
        writeln!(out, "ack {t}").unwrap();
        out.flush().unwrap();
    }
}

fn open_segments(dir: &str) -> Segments {
    let mut options = SegmentsOptions::new(format!("{dir}/segments"));
    options.segment_bytes = 1 << 18;
    options.compression = store::spool::Compression::None;
    Segments::open(options).expect("opens")
}

fn content(t: i64) -> Vec<u8> {
    format!("block {t} ")
        .repeat(1 + t as usize % 50)
        .into_bytes()
}

/// Footers are the numbers in a block.
fn join(parts: &[Part<'_>]) -> Option<Vec<u8>> {
    Some(parts.iter().flat_map(|p| p.footer).copied().collect())
}

/// The last number of the segments. Checks that every number up to it is there once, in a block of its own or in a
/// merged one.
fn last_block(segments: &Segments) -> i64 {
    let mut last = 0;
    for block in segments.blocks().iter().rev() {
        let footer = segments.footer(block.id).expect("readable");
        let mut expected = Vec::new();
        for number in footer.as_chunks::<8>().0 {
            last += 1;
            assert_eq!(i64::from_le_bytes(*number), last);
            expected.extend(content(last));
        }
        assert_eq!(segments.read(block.id).expect("readable"), expected);
    }
    last
}

/// The last number of the store. Checks that every number up to it is there, once, with its value, in every series.
fn last(store: &Store) -> i64 {
    let matchers = [Matcher::equal("__name__", "seq")];
    let request = SelectRequest {
        matchers: &matchers,
        start_ms: i64::MIN,
        end_ms: i64::MAX,
        max_points: usize::MAX,
    };
    let found = store.select(&request).expect("readable");
    assert!(found.is_empty() || found.len() == SERIES);
    let mut lasts = Vec::new();
    for series in found {
        let i: usize = series
            .labels
            .get("id")
            .expect("an id")
            .parse()
            .expect("a number");
        for (k, (t, v)) in series
            .points
            .t_ms
            .iter()
            .zip(&series.points.values)
            .enumerate()
        {
            assert_eq!((*t, v.to_bits()), (k as i64 + 1, value(*t, i).to_bits()));
        }
        lasts.push(series.points.len() as i64);
    }
    assert!(
        lasts.windows(2).all(|w| w[0] == w[1]),
        "a batch is half there: {lasts:?}"
    );
    lasts.first().copied().unwrap_or(0)
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let rounds: u64 = std::env::var("NINES_CRASH_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(20);
    let mut dir = tempfile::tempdir().unwrap();
    let mut seed = 7u64;
    let mut torn = 0;
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let acks = 1 + (seed >> 33) % 400;
        if round % 25 == 24 {
            dir = tempfile::tempdir().unwrap();
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            if let Some(number) = line.strip_prefix("ack ") {
                acknowledged = number.parse().unwrap();
                seen += 1;
            }
            if seen == acks {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= acks, "round {round}: the child stopped by itself");
        let store = Store::open(options(dir.path().to_str().unwrap())).unwrap();
        let recovered = last(&store);
        assert!(
            recovered >= acknowledged,
            "round {round}: {recovered} < {acknowledged}"
        );
        let segments = open_segments(dir.path().to_str().unwrap());
        let blocks = last_block(&segments);
        assert!(
            blocks >= acknowledged,
            "round {round}: {blocks} < {acknowledged}"
        );
        assert_eq!(segments.stats().damaged, 0);
        let recovery = store.stats().recovery;
        assert_eq!(
            (recovery.damaged, recovery.orphans),
            (0, 0),
            "round {round}"
        );
        torn += recovery.torn_bytes;
    }
    assert!(torn < rounds * 10_000);
}
