//! Random appends, cuts, merges and restarts: every read agrees with a map.

use std::collections::BTreeMap;

use model::{Labels, Matcher, SelectRequest, Source};
use proptest::prelude::*;
use store::{IdSample, SampleRef, Store, StoreOptions};

#[derive(Debug, Clone)]
enum Step {
    /// Samples of (series, time, value).
    Append(Vec<(u8, i64, i32)>),
    /// The same, by id.
    AppendIds(Vec<(u8, i64, i32)>),
    Compact,
    Maintain,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let samples = || {
        let time = prop_oneof![4 => 0i64..2_000, 1 => 0i64..100_000_000];
        proptest::collection::vec((0u8..6, time, -50i32..50), 1..60)
    };
    // Times that ascend, as scrapes do.
    let scrape = (0i64..5_000, 1i64..40).prop_map(|(from, count)| {
        (0..count)
            .flat_map(|k| (0..6u8).map(move |s| (s, from + k * 15, (k as i32) * i32::from(s))))
            .collect::<Vec<_>>()
    });
    let step = prop_oneof![
        3 => samples().prop_map(Step::Append),
        3 => scrape.prop_map(Step::AppendIds),
        1 => samples().prop_map(Step::AppendIds),
        2 => Just(Step::Compact),
        1 => Just(Step::Maintain),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..16)
}

fn labels(series: u8) -> Labels {
    let (name, id) = (format!("m{}", series % 2), format!("s{series}"));
    Labels::from_pairs([("__name__", name), ("id", id)])
}

fn value(raw: i32, series: u8) -> f64 {
    match (series, raw) {
        (0, 49) => model::stale_nan(),
        (1, _) => f64::from(raw) / 10.0,
        (2, _) => f64::from(raw).sqrt(),
        _ => f64::from(raw),
    }
}

/// When a sample that is appended by labels says it began to count: never, in runs, now and then.
fn start(t: i64, series: u8) -> i64 {
    match series {
        3 => t / 300 * 300 + 1,
        4 if t % 2 == 0 => t - 1,
        _ => 0,
    }
}

/// Time, then bits and start time.
type Sample = (i64, (u64, i64));

/// Series to time to bits and start time.
type Reference = BTreeMap<u8, BTreeMap<i64, (u64, i64)>>;

fn check(store: &Store, reference: &Reference, start_ms: i64, end_ms: i64) {
    for name in ["m0", "m1"] {
        let matchers = [Matcher::equal("__name__", name)];
        let request = SelectRequest {
            matchers: &matchers,
            start_ms,
            end_ms,
            max_points: usize::MAX,
        };
        let mut read = BTreeMap::new();
        for series in store.select(&request).expect("readable") {
            let p = &series.points;
            let points: Vec<Sample> = (0..p.len())
                .map(|i| (p.t_ms[i], (p.values[i].to_bits(), p.start(i))))
                .collect();
            assert!(
                read.insert(series.labels, points).is_none(),
                "a series came twice"
            );
        }
        let expected: BTreeMap<Labels, Vec<Sample>> = reference
            .iter()
            .filter(|(s, _)| labels(**s).name() == name)
            .map(|(s, all)| {
                let inside = all.range(start_ms..=end_ms).map(|(t, v)| (*t, *v));
                (labels(*s), inside.collect::<Vec<_>>())
            })
            .filter(|(_, points)| !points.is_empty())
            .collect();
        assert_eq!(read, expected, "{name} {start_ms}..={end_ms}");
        let series = store.series(&request).expect("readable");
        assert!(expected.keys().all(|l| series.contains(l)));
    }
}

fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = StoreOptions::new(dir.path());
    options.retention_ms = None;
    let mut store = Store::open(options.clone()).expect("opens");
    let mut reference = Reference::new();
    for step in steps {
        match step {
            Step::Append(samples) => {
                let all: Vec<Labels> = samples.iter().map(|s| labels(s.0)).collect();
                let refs: Vec<SampleRef<'_>> = samples
                    .iter()
                    .zip(&all)
                    .map(|((s, t, v), l)| {
                        SampleRef::float(l, *t, value(*v, *s)).started(start(*t, *s))
                    })
                    .collect();
                store.append(&refs).expect("appends");
                note(&mut reference, &samples, start);
            }
            Step::AppendIds(samples) => {
                let ids: Vec<IdSample> = samples
                    .iter()
                    .map(|(s, t, v)| IdSample {
                        id: store.series_id(&labels(*s)),
                        t_ms: *t,
                        value: value(*v, *s),
                    })
                    .collect();
                let report = store.append_ids(&ids).expect("appends");
                assert!(report.stale_ids.is_empty());
                note(&mut reference, &samples, |_, _| 0);
            }
            Step::Compact => store.compact(0).expect("compacts"),
            Step::Maintain => store.maintain(1).expect("maintains"),
            Step::Reopen => {
                drop(store);
                store = Store::open(options.clone()).expect("reopens");
                let recovery = store.stats().recovery;
                assert_eq!(
                    (recovery.torn_bytes, recovery.damaged, recovery.orphans),
                    (0, 0, 0)
                );
            }
        }
        check(&store, &reference, i64::MIN, i64::MAX);
    }
    for bounds in [(0, 100), (500, 1_500), (1_990, 4_000_000)] {
        check(&store, &reference, bounds.0, bounds.1);
    }
}

fn note(reference: &mut Reference, samples: &[(u8, i64, i32)], start: fn(i64, u8) -> i64) {
    for (s, t, v) in samples {
        let series = reference.entry(*s).or_default();
        series
            .entry(*t)
            .or_insert((value(*v, *s).to_bits(), start(*t, *s)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn reads_agree_with_a_map(steps in steps()) {
        run(steps);
    }
}
