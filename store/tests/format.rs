//! docs/store-format.md against the files: a reader that was written from the document alone (tests/store_format.py) sees
//! the samples that the store has.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use model::histogram::Span;
use model::source::Exemplar;
use model::{Labels, NativeHistogram, SelectRequest, Source};
use store::spool::{Compression, NewBlock, Segments, SegmentsOptions};
use store::{SampleRef, Store, StoreOptions};

const KINDS: usize = 9;

/// Values of every chunk encoding, with what disturbs each.
fn value(kind: usize, i: i64) -> f64 {
    let x = i as f64;
    match kind {
        0 => 4.25,
        1 => (i * 7 + i % 5) as f64,
        2 => (i * i * 1_000) as f64,
        3 => (i % 97) as f64 / 100.0,
        4 => (i * i) as f64 / 1_000.0,
        5 => f64::from_bits(0x4009_21fb_5444_2d18 ^ i as u64),
        6 => (x + 0.5).sqrt().sin() * 10f64.powi((i % 7) as i32),
        7 if i % 50 == 49 => model::stale_nan(),
        7 if i % 50 == 20 => [f64::NAN, -0.0, f64::INFINITY, 1e300][i as usize / 50 % 4],
        _ => x,
    }
}

fn labels(kind: usize) -> Labels {
    let long = "ä".repeat(40 * kind);
    Labels::from_pairs([
        ("__name__", "m".to_owned()),
        ("kind", kind.to_string()),
        ("text", long),
    ])
}

fn histogram(i: i64) -> Arc<NativeHistogram> {
    let buckets = vec![i as f64, 1.0 + (i % 3) as f64];
    Arc::new(NativeHistogram {
        schema: (i / 100 % 9) as i32,
        count: buckets.iter().sum(),
        sum: i as f64 / 3.0,
        positive_spans: vec![Span {
            offset: -1,
            length: 2,
        }],
        positive_buckets: buckets,
        ..NativeHistogram::default()
    })
}

/// Appends steps `from..to`; cuts now and then.
fn fill(store: &Store, from: i64, to: i64) {
    let all: Vec<Labels> = (0..KINDS).map(labels).collect();
    let hist = Labels::from_pairs([("__name__", "h")]);
    for i in from..to {
        // Regular, irregular, late by turns.
        let t_ms = i * 15_000 + if i % 400 > 300 { i % 7 } else { 0 };
        let mut batch: Vec<SampleRef<'_>> = all
            .iter()
            .enumerate()
            .map(|(kind, l)| {
                let start_ms = if kind == 8 { i / 90 * 1_000 } else { 0 };
                SampleRef::float(l, t_ms, value(kind, i)).started(start_ms)
            })
            .collect();
        batch.push(SampleRef::histogram(&hist, t_ms, histogram(i)).started(i / 70));
        if i % 10 == 9 {
            batch.push(SampleRef::float(&all[1], t_ms - 22_500, -1.5));
        }
        let taken = store.append(&batch).expect("appends").appended;
        assert_eq!(taken, batch.len() as u64);
        if i % 333 == 332 {
            store.compact(0).expect("cuts");
        }
    }
}

/// Every float as the reader prints it, and how many histograms there are.
fn expected(store: &Store) -> (BTreeSet<String>, usize) {
    let request = SelectRequest {
        matchers: &[],
        start_ms: i64::MIN,
        end_ms: i64::MAX,
        max_points: usize::MAX,
    };
    let (mut lines, mut histograms) = (BTreeSet::new(), 0);
    for series in store.select(&request).expect("readable") {
        let own = series.labels.iter().filter(|(n, _)| *n != "__name__");
        let own: Vec<String> = own.map(|(n, v)| format!("{n}=\"{v}\"")).collect();
        let name = format!("{}{{{}}}", series.labels.name(), own.join(","));
        let points = &series.points;
        for (i, t_ms) in points.t_ms.iter().enumerate() {
            if points.histogram(i).is_some() {
                histograms += 1;
                continue;
            }
            let bits = points.values[i].to_bits();
            lines.insert(format!("{name}\t{t_ms}\t{bits:016x}\t{}", points.start(i)));
        }
    }
    (lines, histograms)
}

fn read_by_document(dir: &std::path::Path) -> String {
    let python = std::env::var("NINES_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/store_format.py");
    let output = Command::new(python).arg(script).arg(dir).output();
    let output = output.expect("python runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
#[ignore = "needs Python with zstandard (NINES_TEST_PYTHON); tests/run"]
fn the_document_is_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.retention_ms = None;
    let store = Store::open(options).unwrap();
    fill(&store, 1, 2_000);
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("trace_id", "a1")]),
        value: 0.25,
        t_ms: 5,
    };
    store.append_exemplars(&[(&labels(1), exemplar)]).unwrap();
    store
        .set_metadata(&[("m", model::source::Metadata::default())])
        .unwrap();
    fill(&store, 2_000, 2_200);
    let stats = store.stats();
    assert!(
        stats.blocks > 1 && stats.compactions > 0 && stats.head_samples > 0,
        "{stats:?}"
    );
    let (lines, histograms) = expected(&store);
    store.flush().unwrap();
    let text = read_by_document(dir.path());
    let (floats, count) = text.trim_end().rsplit_once('\n').expect("lines");
    assert_eq!(count, format!("histograms {histograms}"));
    let read: BTreeSet<String> = floats.lines().map(str::to_owned).collect();
    let differences: Vec<&String> = read.symmetric_difference(&lines).take(5).collect();
    assert!(differences.is_empty(), "{differences:?}");
    assert!(lines.len() > KINDS * 2_000);

    let dir = tempfile::tempdir().unwrap();
    let mut options = SegmentsOptions::new(dir.path());
    options.segment_bytes = 1;
    for compression in [Compression::Zstd, Compression::None] {
        options.compression = compression;
        let segments = Segments::open(options.clone()).unwrap();
        for i in 0..3_000u64 {
            segments
                .append(&NewBlock {
                    bytes: format!("block {i} ").repeat(20).as_bytes(),
                    footer: &i.to_le_bytes(),
                    items: 2,
                    min_ns: i,
                    max_ns: i + 5,
                })
                .unwrap();
        }
        while segments
            .merge_small(4_000, &mut |parts| Some(vec![0; parts.len()]))
            .unwrap()
            .is_some()
        {}
        let (blocks, items) = (segments.stats().blocks as u64, segments.stats().items);
        let text = read_by_document(dir.path());
        let sums = text.lines().fold((0, 0), |sums, line| {
            let columns: Vec<u64> = line.split('\t').filter_map(|c| c.parse().ok()).collect();
            (sums.0 + columns[1], sums.1 + columns[2])
        });
        assert_eq!(sums, (blocks, items));
    }
}
