//! Requests against the queue that they come from.

use super::*;
use crate::forward::queue::Tail;
use crate::ingest::Sample;
use model::{Labels, Value};
use std::sync::Arc;

fn share(shard: usize, shards: usize, max_samples: usize) -> Share {
    Share {
        shard,
        shards,
        max_samples,
        native_histograms: false,
        external_labels: BTreeMap::new(),
    }
}

fn queue(dir: &std::path::Path, blocks: i64) -> Queue {
    let queue = Queue::open(dir.join("q"), 64 << 20, Tail::default()).unwrap();
    for block in 0..blocks {
        let sample = |i: u32| {
            let labels = Labels::from_pairs([("__name__", format!("n{i}"))]);
            Sample::float(labels, block, f64::from(i))
        };
        let samples: Vec<Sample> = (0..10).map(sample).collect();
        queue.append(&samples, block * 100).unwrap();
    }
    queue
}

fn start() -> Position {
    Position {
        block: 1,
        ..Position::default()
    }
}

/// (labels, time) of every sample.
fn content(batch: &Batch) -> Vec<(Vec<u8>, i64)> {
    let all = batch.series.iter();
    all.flat_map(|s| s.points.iter().map(|(t, _)| (s.labels.clone(), *t)))
        .collect()
}

#[test]
fn every_sample_is_in_one_shard_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path(), 20);
    let mut all = Vec::new();
    for shard in 0..3 {
        let mut at = start();
        let mut newest: HashMap<Vec<u8>, i64> = HashMap::new();
        loop {
            let batch = collect(&queue, &share(shard, 3, 7), at, None, None);
            assert_eq!(batch.lost, 0);
            let repeated = collect(&queue, &share(shard, 3, 1_000), at, Some(batch.to), None);
            assert_eq!(
                content(&repeated),
                content(&batch),
                "a request repeats exactly"
            );
            assert_eq!(repeated.to, batch.to);
            for (labels, t) in content(&batch) {
                let last = newest.insert(labels.clone(), t);
                assert!(last.is_none_or(|last| last < t), "order within a series");
                all.push((labels, t));
            }
            at = batch.to;
            if !batch.full {
                break;
            }
            assert!((7..=8).contains(&batch.samples), "{}", batch.samples);
        }
        assert_eq!((at.block, at.entry, at.before), (21, 0, 200));
    }
    assert_eq!(all.len(), 200);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 200);
}

#[test]
fn what_was_deleted_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path(), 5);
    queue.release(6).unwrap();
    let tail = queue.tail();
    drop(queue);
    let queue = Queue::open(dir.path().join("q"), 64 << 20, tail).unwrap();
    let batch = collect(&queue, &share(0, 1, 100), start(), None, None);
    assert_eq!((batch.lost, batch.samples, batch.full), (50, 0, false));
    queue
        .append(
            &[Sample::float(Labels::from_pairs([("a", "b")]), 0, 0.0)],
            0,
        )
        .unwrap();
    let batch = collect(&queue, &share(0, 1, 100), start(), None, None);
    assert_eq!((batch.lost, batch.samples), (50, 1));
    let next = collect(&queue, &share(0, 1, 100), batch.to, None, None);
    assert_eq!((next.lost, next.samples), (0, 0));
}

#[test]
fn histograms_are_left_out_unless_wanted_and_labels_added() {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::open(dir.path().join("q"), 64 << 20, Tail::default()).unwrap();
    let labels = Labels::from_pairs([("__name__", "h"), ("site", "a")]);
    let histogram = Sample {
        labels: labels.clone(),
        t_ms: 5,
        start_ms: 0,
        value: Value::Histogram(Arc::default()),
    };
    let late = Sample::float(labels.clone(), 3, 1.0);
    queue.append(&[histogram, late], 0).unwrap();
    let batch = collect(&queue, &share(0, 1, 100), start(), None, None);
    assert_eq!((batch.samples, batch.skipped), (1, 1));
    let with = Share {
        native_histograms: true,
        external_labels: BTreeMap::from([
            ("site".to_owned(), "b".to_owned()),
            ("cluster".to_owned(), "c".to_owned()),
        ]),
        ..share(0, 1, 100)
    };
    let batch = collect(&queue, &with, start(), None, None);
    assert_eq!((batch.samples, batch.skipped), (2, 0));
    let times: Vec<i64> = batch.series[0].points.iter().map(|p| p.0).collect();
    assert_eq!(times, [3, 5], "in order of time");
    let mut wanted = Vec::new();
    let full = [("__name__", "h"), ("site", "a"), ("cluster", "c")];
    prompb::put_labels(&mut wanted, &Labels::from_pairs(full));
    assert_eq!(batch.series[0].labels, wanted);
    let (message, samples) = batch.message(0..1);
    assert_eq!(samples, 2);
    let write = crate::receive::remote_write::walk(&message).unwrap();
    assert_eq!(write.samples.len(), 2);
}
