//! What the store promises its callers: appends, reads, limits, restarts.

use std::sync::Arc;

use model::source::{Exemplar, Metadata};
use model::{Labels, MatchOp, Matcher, NativeHistogram, SelectRequest, Source, SourceError};
use store::{AppendReport, IdSample, SampleRef, Scope, Store, StoreOptions, WriteBudget};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().map(|(n, v)| (*n, *v)))
}

fn options(dir: &tempfile::TempDir) -> StoreOptions {
    StoreOptions::new(dir.path())
}

fn request(matchers: &[Matcher], start_ms: i64, end_ms: i64) -> SelectRequest<'_> {
    SelectRequest {
        matchers,
        start_ms,
        end_ms,
        max_points: usize::MAX,
    }
}

fn floats(store: &Store, name: &str) -> Vec<(i64, f64)> {
    let matchers = [Matcher::equal("__name__", name)];
    let found = store
        .select(&request(&matchers, i64::MIN, i64::MAX))
        .expect("readable");
    found
        .into_iter()
        .flat_map(|s| s.points.t_ms.into_iter().zip(s.points.values))
        .collect()
}

#[test]
fn what_was_appended_is_read_and_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let up = labels(&[("__name__", "up"), ("job", "a")]);
    let latency = labels(&[("__name__", "latency"), ("job", "a")]);
    let histogram = Arc::new(NativeHistogram {
        count: 3.0,
        sum: 1.5,
        zero_count: 3.0,
        ..NativeHistogram::default()
    });
    {
        let store = Store::open(options(&dir)).unwrap();
        let report = store
            .append(&[
                SampleRef::float(&up, 1_000, 1.0),
                SampleRef::float(&up, 2_000, model::stale_nan()),
                SampleRef::float(&up, 2_000, 5.0),
                SampleRef::histogram(&latency, 1_500, Arc::clone(&histogram)),
            ])
            .unwrap();
        let expected = AppendReport {
            appended: 3,
            duplicate: 1,
            ..AppendReport::default()
        };
        assert_eq!(report, expected);
        let exemplar = Exemplar {
            labels: labels(&[("trace_id", "abc")]),
            value: 0.5,
            t_ms: 1_500,
        };
        store.append_exemplars(&[(&latency, exemplar)]).unwrap();
        let metadata = Metadata {
            kind: "gauge".into(),
            help: "Is it up".into(),
            unit: String::new(),
        };
        store.set_metadata(&[("up", metadata)]).unwrap();
        store.flush().unwrap();
    }
    let store = Store::open(options(&dir)).unwrap();
    let read = floats(&store, "up");
    assert_eq!(read[0], (1_000, 1.0));
    assert!(read[1].0 == 2_000 && model::is_stale(read[1].1));
    let all = store.select(&request(&[], 0, 1_500)).unwrap();
    assert_eq!(all.len(), 2);
    let found = all.iter().find(|s| s.labels == latency).unwrap();
    assert_eq!(found.points.histogram(0), Some(&histogram));
    assert_eq!(
        store.label_names(&request(&[], 0, 9_999)).unwrap(),
        ["__name__", "job"]
    );
    assert_eq!(
        store
            .label_values("__name__", &request(&[], 0, 9_999))
            .unwrap(),
        ["latency", "up"]
    );
    let exemplars = store.exemplars(&request(&[], 0, 9_999)).unwrap();
    assert_eq!(exemplars[0].1[0].value, 0.5);
    assert_eq!(store.metadata().unwrap()["up"].help, "Is it up");
    assert_eq!(store.stats().recovery.samples, 3);
    assert_eq!(store.stats().recovery.torn_bytes, 0);
}

#[test]
fn matchers_select_series() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    for code in ["200", "404", "500", "503"] {
        let series = labels(&[("__name__", "requests_total"), ("code", code)]);
        store.append(&[SampleRef::float(&series, 10, 1.0)]).unwrap();
    }
    let count = |name: &str, op, value: &str| {
        let matchers = [
            Matcher::equal("__name__", "requests_total"),
            Matcher::new(name, op, value).unwrap(),
        ];
        store.select(&request(&matchers, 0, 100)).unwrap().len()
    };
    assert_eq!(count("code", MatchOp::Regex, "5.."), 2);
    assert_eq!(count("code", MatchOp::NotRegex, "5.."), 2);
    assert_eq!(count("code", MatchOp::NotEqual, "200"), 3);
    assert_eq!(count("nope", MatchOp::Equal, ""), 4);
    let matchers = [Matcher::equal("__name__", "requests_total")];
    let limited = SelectRequest {
        max_points: 3,
        ..request(&matchers, 0, 100)
    };
    assert_eq!(
        store.select(&limited),
        Err(SourceError::TooManyPoints { limit: 3 })
    );
}

#[test]
fn ids_are_the_fast_way_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    let id = store.series_id(&labels(&[("__name__", "a")]));
    assert_eq!(id, store.series_id(&labels(&[("__name__", "a")])));
    let samples: Vec<IdSample> = (0..50)
        .map(|i| IdSample {
            id,
            t_ms: i * 10,
            value: i as f64,
        })
        .collect();
    assert_eq!(store.append_ids(&samples).unwrap().appended, 50);
    drop(store);
    let store = Store::open(options(&dir)).unwrap();
    assert_eq!(floats(&store, "a").len(), 50);
}

#[test]
fn late_samples_have_a_window_unless_nothing_is_ever_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    let a = labels(&[("__name__", "a")]);
    let hour = 3_600_000;
    let sample = |t| [SampleRef::float(&a, t, 1.0)];
    store.append(&sample(10 * hour)).unwrap();
    assert_eq!(store.append(&sample(9 * hour)).unwrap().appended, 1);
    assert_eq!(store.append(&sample(9 * hour - 1)).unwrap().out_of_order, 1);
    let dir = tempfile::tempdir().unwrap();
    let mut keep = options(&dir);
    keep.retention_ms = None;
    let store = Store::open(keep).unwrap();
    store.append(&sample(1_000_000 * hour)).unwrap();
    assert_eq!(store.append(&sample(0)).unwrap().appended, 1);
    assert_eq!(floats(&store, "a").len(), 2);
}

#[test]
fn too_many_series_fold_and_the_label_to_blame_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = options(&dir);
    limited.max_series_per_metric = 10;
    limited.max_series = 20;
    let store = Store::open(limited.clone()).unwrap();
    let all: Vec<Labels> = (0..30)
        .map(|i| {
            let user = format!("u{i}");
            labels(&[
                ("__name__", "hits_total"),
                ("job", "web"),
                ("method", "GET"),
                ("user", &user),
            ])
        })
        .collect();
    for t in [1_000, 2_000] {
        let samples: Vec<SampleRef<'_>> = all.iter().map(|l| SampleRef::float(l, t, 2.0)).collect();
        let report = store.append(&samples).unwrap();
        assert_eq!((report.appended, report.rejected_cardinality), (10, 20));
    }
    let folded = [Matcher::equal("otel_metric_overflow", "true")];
    let check = |store: &Store| {
        let found = store.select(&request(&folded, 0, 9_999)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].labels.get("job"), Some("web"));
        assert_eq!(found[0].points.values, [40.0, 40.0]);
    };
    check(&store);
    let stats = store.stats();
    let offender = &stats.offenders[0];
    assert_eq!(
        (offender.scope, offender.label.as_str()),
        (Scope::Metric, "user")
    );
    assert_eq!(stats.rejected_cardinality, 40);
    drop(store);
    let store = Store::open(limited).unwrap();
    check(&store);
    for i in 0..20 {
        let name = format!("m{i}");
        let other = labels(&[("__name__", &name)]);
        store.append(&[SampleRef::float(&other, 1, 1.0)]).unwrap();
    }
    assert_eq!(store.stats().series, 20);
    assert!(
        store
            .stats()
            .offenders
            .iter()
            .any(|o| o.scope == Scope::Store)
    );
}

#[test]
fn a_full_disk_is_refused_said_and_recovered_from() {
    let dir = tempfile::tempdir().unwrap();
    let budget = WriteBudget::new(300);
    let mut small = options(&dir);
    small.write_budget = budget.clone();
    let store = Store::open(small).unwrap();
    let a = labels(&[("__name__", "a")]);
    let mut accepted = Vec::new();
    let mut t = 0;
    let error = loop {
        t += 1;
        match store.append(&[SampleRef::float(&a, t, 0.5)]) {
            Ok(_) => accepted.push((t, 0.5)),
            Err(error) => break error,
        }
    };
    assert!(error.is_full() && store.stats().full);
    assert_eq!(floats(&store, "a"), accepted);
    budget.set(u64::MAX);
    store.append(&[SampleRef::float(&a, 1_000, 0.5)]).unwrap();
    accepted.push((1_000, 0.5));
    assert!(!store.stats().full);
    drop(store);
    let store = Store::open(options(&dir)).unwrap();
    assert_eq!(floats(&store, "a"), accepted);
    assert_eq!(store.stats().recovery.torn_bytes, 0);
}

/// While one thread appends and another cuts and merges, every read sees a whole prefix, never less than before.
#[test]
fn reads_are_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut keep = options(&dir);
    keep.retention_ms = None;
    let store = Store::open(keep).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let all: Vec<Labels> = (0..4)
        .map(|i| labels(&[("__name__", "n"), ("i", &i.to_string())]))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut t = 0;
            while t < 1_000 || (t < 100_000 && store.stats().compactions < 3) {
                t += 1;
                let samples: Vec<SampleRef<'_>> = all
                    .iter()
                    .map(|l| SampleRef::float(l, t, t as f64))
                    .collect();
                assert_eq!(store.append(&samples).unwrap().appended, 4);
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                store.compact(0).unwrap();
            }
        });
        let mut seen = 0;
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let found = store.select(&request(&[], 0, i64::MAX)).unwrap();
            let lengths: Vec<usize> = found.iter().map(|s| s.points.len()).collect();
            assert!(lengths.windows(2).all(|w| w[0] == w[1]), "{lengths:?}");
            for series in &found {
                assert!(
                    series
                        .points
                        .t_ms
                        .iter()
                        .enumerate()
                        .all(|(k, t)| *t == k as i64 + 1)
                );
            }
            let length = lengths.first().copied().unwrap_or(0);
            assert!(length >= seen);
            seen = length;
        }
    });
    let stats = store.stats();
    assert_eq!(floats(&store, "n").len() as u64, stats.appended);
    assert!(stats.compactions > 0, "{stats:?}");
}

#[test]
fn a_store_belongs_to_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    assert!(Store::open(options(&dir)).is_err());
    drop(store);
    assert!(Store::open(options(&dir)).is_ok());
}

#[test]
fn packed_batches_are_appended_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = options(&dir);
    limited.max_series = 2;
    let store = Store::open(limited).unwrap();
    let up = labels(&[("__name__", "up"), ("job", "a")]);
    store.append(&[SampleRef::float(&up, 1_000, 1.0)]).unwrap();
    let mut series = model::AscendingLabels::default();
    let mut batch = store::PackedBatch::default();
    for (name, job) in [("up", "a"), ("up", "b"), ("down", "a")] {
        series.clear();
        assert!(series.push("__name__", name) && series.push("job", job));
        assert!(batch.begin(&series));
        batch.push(1_000, 2.0);
        batch.push(2_000, 3.0);
    }
    let report = store.append_packed(&batch).unwrap();
    let expected = AppendReport {
        appended: 3,
        duplicate: 1,
        rejected_cardinality: 2,
        ..AppendReport::default()
    };
    assert_eq!(report, expected);
    batch.clear();
    assert!(batch.is_empty());
    let known = store.find_id(&up).unwrap();
    batch.begin_id(known);
    batch.push(3_000, 4.0);
    assert!(batch.begin_labels(&labels(&[("__name__", "up"), ("job", "b")])));
    batch.push(3_000, 5.0);
    let report = store.append_packed(&batch).unwrap();
    assert_eq!((report.appended, report.stale_ids.len()), (2, 0));
    assert_eq!(
        store.find_id(&labels(&[("__name__", "down"), ("job", "a")])),
        None
    );
    let mut unchecked = model::UncheckedLabels::default();
    unchecked.push(b"__name__", b"up");
    unchecked.push(b"gone", b"");
    unchecked.push(b"job", b"a");
    assert_eq!(store.finder().find(&unchecked), Some(known));
    unchecked.push(b"x", b"\xff");
    assert_eq!(store.finder().find(&unchecked), None);
    store.compact(0).unwrap();
    batch.clear();
    batch.begin_id(
        store
            .find_id(&labels(&[("__name__", "up"), ("job", "b")]))
            .unwrap(),
    );
    batch.push(4_000, 6.0);
    assert_eq!(store.append_packed(&batch).unwrap().appended, 1);
    // The other series gets no sample until the next cut, and leaves memory: its id is no longer good, and the whole
    // batch is handed back.
    store.compact(0).unwrap();
    batch.push(5_000, 7.0);
    batch.begin_id(known);
    batch.push(5_000, 8.0);
    let report = store.append_packed(&batch).unwrap();
    assert_eq!((report.appended, report.stale_ids), (0, vec![2]));
    batch.clear();
    let mut found = floats(&store, "up");
    found.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(
        found,
        [
            (1_000, 1.0),
            (1_000, 2.0),
            (2_000, 3.0),
            (2_000, 3.0),
            (3_000, 4.0),
            (3_000, 5.0),
            (4_000, 6.0),
        ]
    );
    assert_eq!(floats(&store, "down"), []);
}
