//! Blocks over time: merging, retention, eviction, damage.

use std::fs;
use std::path::PathBuf;

use model::{Labels, Matcher, SelectRequest, Source, SourceError};
use store::{SampleRef, Store, StoreOptions, WriteBudget};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn labels(name: &str, id: usize) -> Labels {
    Labels::from_pairs([("__name__", name), ("id", format!("{id:03}").as_str())])
}

/// A scrape of `count` series each minute of `from..to`.
fn fill(store: &Store, name: &str, count: usize, from: i64, to: i64) {
    let all: Vec<Labels> = (0..count).map(|i| labels(name, i)).collect();
    for t in (from..to).step_by(MINUTE as usize) {
        let samples: Vec<SampleRef<'_>> = all
            .iter()
            .enumerate()
            .map(|(i, l)| SampleRef::float(l, t, value(i, t)))
            .collect();
        store.append(&samples).expect("appends");
    }
}

fn value(i: usize, t: i64) -> f64 {
    ((t / MINUTE) as f64 * (i as f64 + 0.3)).sqrt()
}

type Read = Vec<(Labels, Vec<(i64, f64)>)>;

fn read(store: &Store, name: &str) -> Result<Read, SourceError> {
    let matchers = [Matcher::equal("__name__", name)];
    let request = SelectRequest {
        matchers: &matchers,
        start_ms: i64::MIN,
        end_ms: i64::MAX,
        max_points: usize::MAX,
    };
    let found = store.select(&request)?;
    Ok(found
        .into_iter()
        .map(|s| {
            (
                s.labels,
                s.points.t_ms.into_iter().zip(s.points.values).collect(),
            )
        })
        .collect())
}

fn files(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = ["log", "blocks"]
        .iter()
        .flat_map(|sub| fs::read_dir(dir.join(sub)).expect("a folder"))
        .map(|e| e.expect("an entry").path())
        .collect();
    all.sort();
    all
}

#[test]
fn blocks_are_cut_merged_and_expire() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.retention_ms = Some(80 * HOUR);
    let store = Store::open(options).unwrap();
    let start = 1_000 * HOUR;
    for k in 0..48 {
        let from = start + 2 * k * HOUR;
        fill(&store, "m", 3, from, from + 2 * HOUR);
        store.maintain(from).unwrap();
        store.maintain(from + 2 * HOUR).unwrap();
    }
    let stats = store.stats();
    assert!(stats.compactions > 5 && stats.blocks < 24, "{stats:?}");
    assert!(stats.expired_blocks > 0 && stats.expired_samples > 0);
    let oldest = stats.oldest_ms.unwrap();
    let now = start + 96 * HOUR;
    assert!(
        oldest >= now - 92 * HOUR && oldest <= now - 78 * HOUR,
        "{}",
        (now - oldest) / HOUR
    );
    let (_, points) = &read(&store, "m").unwrap()[1];
    assert_eq!(points.len() as i64, (now - oldest) / MINUTE);
    assert!(points.iter().all(|(t, v)| *v == value(1, *t)));
    let late = labels("m", 1);
    let report = store
        .append(&[SampleRef::float(&late, now - 81 * HOUR, 1.0)])
        .unwrap();
    assert_eq!(report.out_of_order, 1);
}

#[test]
fn the_oldest_bytes_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.retention_ms = None;
    options.retention_bytes = Some(90_000);
    let store = Store::open(options).unwrap();
    for k in 0..12 {
        fill(&store, "m", 20, k * 2 * HOUR, (k + 1) * 2 * HOUR);
        store.compact(0).unwrap();
        let stats = store.stats();
        assert!(stats.block_bytes + stats.log_bytes <= 90_000, "{stats:?}");
    }
    assert!(store.stats().expired_blocks > 0);
    let (_, points) = &read(&store, "m").unwrap()[0];
    assert_eq!(points.last().unwrap().0, 24 * HOUR - MINUTE);
}

#[test]
fn idle_series_leave_memory_and_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    fill(&store, "old", 50, 0, HOUR);
    let id = store.series_id(&labels("old", 0));
    store.compact(HOUR).unwrap();
    assert_eq!(store.stats().series, 50);
    fill(&store, "new", 10, HOUR, 2 * HOUR);
    store.compact(2 * HOUR).unwrap();
    assert_eq!(store.stats().series, 10);
    assert_eq!(read(&store, "old").unwrap().len(), 50);
    let sample = store::IdSample {
        id,
        t_ms: 3 * HOUR,
        value: 1.0,
    };
    assert_eq!(store.append_ids(&[sample]).unwrap().stale_ids, [0]);
    fill(&store, "old", 1, 3 * HOUR, 4 * HOUR);
    drop(store);
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    assert_eq!(read(&store, "old").unwrap().len(), 50);
    assert_eq!(store.stats().recovery.orphans, 0);
    let zero = read(&store, "old")
        .unwrap()
        .into_iter()
        .find(|s| s.0 == labels("old", 0))
        .unwrap();
    assert_eq!(zero.1.len(), 120);
}

#[test]
fn a_disk_that_fills_during_a_cut_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    let budget = WriteBudget::default();
    options.write_budget = budget.clone();
    let store = Store::open(options.clone()).unwrap();
    fill(&store, "m", 20, 0, 2 * HOUR);
    let truth = read(&store, "m").unwrap();
    for room in [0, 28, 100, 1_000, 5_000] {
        budget.set(room);
        assert!(store.compact(0).unwrap_err().is_full(), "{room}");
        assert_eq!(read(&store, "m").unwrap(), truth);
    }
    budget.set(u64::MAX);
    store.compact(0).unwrap();
    assert_eq!((store.stats().blocks, store.stats().head_samples), (1, 0));
    assert_eq!(read(&store, "m").unwrap().len(), truth.len());
    drop(store);
    let store = Store::open(options).unwrap();
    let mut again = read(&store, "m").unwrap();
    again.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(again, {
        let mut t = truth;
        t.sort_by(|a, b| a.0.cmp(&b.0));
        t
    });
}

/// Any byte of any file, flipped: nothing that was not written is ever read.
#[test]
fn a_flipped_byte_anywhere_is_contained() {
    let rounds: u64 = std::env::var("NINES_FLIP_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(300);
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.retention_ms = None;
    {
        let store = Store::open(options.clone()).unwrap();
        fill(&store, "a", 8, 0, HOUR);
        store.compact(0).unwrap();
        fill(&store, "a", 8, HOUR, 2 * HOUR);
        fill(&store, "b", 3, HOUR, 2 * HOUR);
        store.compact(0).unwrap();
        fill(&store, "a", 9, 2 * HOUR, 3 * HOUR);
    }
    let originals: Vec<(PathBuf, Vec<u8>)> = files(dir.path())
        .into_iter()
        .map(|p| (p.clone(), fs::read(p).unwrap()))
        .collect();
    let mut seed = 42u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut noticed = 0;
    for round in 0..rounds {
        for path in files(dir.path()) {
            fs::remove_file(path).unwrap();
        }
        let victim = random(originals.len());
        for (k, (path, bytes)) in originals.iter().enumerate() {
            let mut bytes = bytes.clone();
            if k == victim && !bytes.is_empty() {
                let at = random(bytes.len());
                bytes[at] ^= 1 << random(8);
            }
            fs::write(path, bytes).unwrap();
        }
        let store = Store::open(options.clone())
            .expect("a flipped byte does not keep the store from opening");
        let mut refused = false;
        for name in ["a", "b"] {
            match read(&store, name) {
                Ok(all) => {
                    for (labels, points) in all {
                        let i: usize = labels.get("id").unwrap().parse().unwrap();
                        assert!(
                            points.iter().all(|(t, v)| *v == value(i, *t)),
                            "round {round}"
                        );
                    }
                }
                Err(SourceError::Corrupt(_)) => refused = true,
                Err(other) => panic!("{other}"),
            }
        }
        let stats = store.stats();
        let r = stats.recovery;
        let counted = r.damaged + r.torn_bytes + r.orphans + stats.damaged_blocks > 0;
        noticed += u64::from(refused || counted);
    }
    assert!(noticed * 10 >= rounds * 8, "{noticed} of {rounds}");
}

/// Histograms, long labels and odd floats go through log, memory, blocks and merged blocks unchanged.
#[test]
fn every_kind_of_sample_survives_every_stage() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.retention_ms = None;
    options.fsync = store::Fsync::EveryAppend;
    let mut store = Store::open(options.clone()).unwrap();
    let long = "é".repeat(100_000);
    let series = Labels::from_pairs([("__name__", "h"), ("path", long.as_str())]);
    let odd = [
        f64::NAN,
        model::stale_nan(),
        f64::NEG_INFINITY,
        -0.0,
        5e-324,
        1e308,
        0.1 + 0.2,
    ];
    let histogram = |t: i64| {
        std::sync::Arc::new(model::NativeHistogram {
            schema: 3,
            zero_threshold: 1e-128,
            count: t as f64 * 2.0,
            sum: t as f64 / 3.0,
            positive_spans: vec![model::histogram::Span {
                offset: -2,
                length: 2,
            }],
            positive_buckets: vec![t as f64, t as f64],
            ..model::NativeHistogram::default()
        })
    };
    let mut expected = model::Points::default();
    for round in 0..6 {
        for k in 0..40 {
            let t = round * 1_000 + k;
            let sample = if k % 7 == 3 {
                expected.push_histogram(t, histogram(t));
                expected.set_last_start(round * 900 + 1);
                SampleRef::histogram(&series, t, histogram(t)).started(round * 900 + 1)
            } else {
                let v = odd[(k % 11) as usize % odd.len()];
                expected.push_float(t, v);
                SampleRef::float(&series, t, v)
            };
            assert_eq!(store.append(&[sample]).unwrap().appended, 1);
        }
        match round {
            0 => {}
            1 | 4 => {
                drop(store);
                store = Store::open(options.clone()).unwrap();
            }
            _ => store.compact(0).unwrap(),
        }
        let request = SelectRequest {
            matchers: &[Matcher::equal("path", long.as_str())],
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            max_points: usize::MAX,
        };
        let found = store.select(&request).unwrap();
        let points = &found[0].points;
        assert_eq!(points.t_ms, expected.t_ms);
        assert_eq!(points.histograms, expected.histograms);
        assert_eq!(points.start_ms, expected.start_ms);
        let bits = |p: &model::Points| -> Vec<u64> {
            (0..p.len())
                .filter(|i| p.histogram(*i).is_none())
                .map(|i| p.values[i].to_bits())
                .collect()
        };
        assert_eq!(bits(points), bits(&expected));
        assert_eq!(
            store.label_values("path", &request).unwrap(),
            [long.as_str()]
        );
    }
}
