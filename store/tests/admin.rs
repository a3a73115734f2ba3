//! Snapshots, inspection and verification.

use std::fs;

use model::source::{Exemplar, Metadata};
use model::{Labels, SelectRequest, SeriesData, Source};
use store::{SampleRef, Store, StoreOptions, admin};

fn labels(id: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("id", format!("{id:02}").as_str())])
}

fn fill(store: &Store, from: i64, to: i64) {
    for t in from..to {
        for id in 0..70 {
            let l = labels(id);
            store
                .append(&[SampleRef::float(
                    &l,
                    t * 1000,
                    (t as f64 + id as f64).sqrt(),
                )])
                .expect("appends");
        }
    }
}

fn read(store: &Store, end_ms: i64) -> Vec<SeriesData> {
    let request = SelectRequest {
        matchers: &[],
        start_ms: i64::MIN,
        end_ms,
        max_points: usize::MAX,
    };
    let mut all = store.select(&request).expect("readable");
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all
}

fn open(dir: &std::path::Path) -> Store {
    let mut options = StoreOptions::new(dir);
    options.retention_ms = None;
    Store::open(options).expect("opens")
}

#[test]
fn a_snapshot_is_the_store_at_that_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    fill(&store, 0, 20);
    store.compact(0).unwrap();
    fill(&store, 20, 40);
    store.compact(0).unwrap();
    fill(&store, 40, 50);
    let metadata = Metadata {
        kind: "gauge".into(),
        ..Metadata::default()
    };
    store.set_metadata(&[("m", metadata)]).unwrap();
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("trace_id", "1")]),
        value: 1.0,
        t_ms: 45_000,
    };
    store.append_exemplars(&[(&labels(3), exemplar)]).unwrap();
    for (k, at_ms) in [-1, 10_000, 30_000, 45_000, i64::MAX]
        .into_iter()
        .enumerate()
    {
        let to = dir.path().join(format!("snapshot-{k}"));
        let report = store.snapshot(&to, at_ms).unwrap();
        let copy = open(&to);
        let expected = read(&store, at_ms);
        assert_eq!(read(&copy, i64::MAX), expected, "at {at_ms}");
        let samples: usize = expected.iter().map(|s| s.points.len()).sum();
        assert_eq!(report.samples, samples as u64);
        assert_eq!(copy.metadata().unwrap()["m"].kind, "gauge");
        let request = SelectRequest {
            matchers: &[],
            start_ms: 0,
            end_ms: i64::MAX,
            max_points: 1,
        };
        assert_eq!(
            copy.exemplars(&request).unwrap().len(),
            usize::from(at_ms >= 45_000)
        );
        fill(&copy, 100, 101);
        drop(copy);
        assert!(admin::verify(&to).unwrap().problems.is_empty());
        assert!(store.snapshot(&to, at_ms).is_err());
    }
    assert_eq!(read(&store, i64::MAX)[0].points.len(), 50);
}

#[test]
fn a_whole_store_verifies_and_damage_is_found_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        fill(&store, 0, 20);
        store.compact(0).unwrap();
        fill(&store, 20, 25);
    }
    let whole = admin::verify(dir.path()).unwrap();
    assert_eq!(whole.problems, []);
    assert_eq!((whole.blocks, whole.series, whole.samples), (1, 70, 1_400));
    assert_eq!(whole.log_samples, 350);
    let inspection = admin::inspect(dir.path()).unwrap();
    let block = &inspection.blocks[0];
    assert_eq!((block.bounds, block.samples), ((0, 19_000), 1_400));
    assert_eq!(inspection.log.iter().map(|l| l.floats).sum::<u64>(), 350);
    let mut files: Vec<_> = inspection.log.iter().map(|l| l.path.clone()).collect();
    files.push(block.path.clone());
    for path in files {
        let bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let found = admin::verify(dir.path()).unwrap().problems;
            assert!(
                found.iter().any(|p| p.path == path),
                "byte {at} of {}",
                path.display()
            );
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(admin::verify(dir.path()).unwrap().problems, []);
}
