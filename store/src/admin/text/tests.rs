//! Tests of the text: out and in again is the same, errors say where.

use super::read::{parse_line, parse_time};
use super::*;
use crate::{SampleRef, Store, StoreOptions};
use model::NativeHistogram;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint, Span};
use proptest::prelude::*;

fn open(dir: &tempfile::TempDir) -> Store {
    let mut options = StoreOptions::new(dir.path());
    options.retention_ms = None;
    Store::open(options).expect("opens")
}

const ALL: SelectRequest<'static> = SelectRequest {
    matchers: &[],
    start_ms: i64::MIN,
    end_ms: i64::MAX,
    max_points: usize::MAX,
};

fn exported(store: &Store) -> String {
    let mut out = Vec::new();
    export(store, &ALL, Dialect::Whole, &mut out).expect("exports");
    String::from_utf8(out).expect("text")
}

const TEXT: &str = r#"# TYPE http_requests counter
# HELP http_requests Requests\nserved
http_requests_total{code="200",path="a\"b\\c"} 5 1700000000.123
http_requests_total{code="200",path="a\"b\\c"} 7 1700000015
# TYPE latency_seconds histogram
# UNIT latency_seconds seconds
latency_seconds_bucket{le="+Inf"} 3 1700000000
latency_seconds_count 3 1700000000
latency_seconds_sum 0.25 1700000000
temperature -1.5e300 -1.500
temperature NaN 0
temperature +Inf 1
{"utf8.name","a.b"="c"} 1 2
# EOF
"#;

#[test]
fn text_goes_in_and_comes_out_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let report = import(&store, &mut TEXT.as_bytes(), None).unwrap();
    assert_eq!((report.appended, report.metadata), (9, 2));
    let text = exported(&store);
    let sorted = |t: &str| {
        let mut lines: Vec<String> = t.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&text), sorted(TEXT));
    let other = tempfile::tempdir().unwrap();
    let again = open(&other);
    import(&again, &mut text.as_bytes(), None).unwrap();
    assert_eq!(exported(&again), text);
    assert_eq!(
        again.metadata().unwrap()["http_requests_total"].help,
        "Requests\nserved"
    );
}

fn histograms() -> Vec<NativeHistogram> {
    let exponential = NativeHistogram {
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: 2.0,
        count: 17.5,
        sum: -0.25,
        positive_spans: vec![
            Span {
                offset: -3,
                length: 2,
            },
            Span {
                offset: 4,
                length: 1,
            },
        ],
        positive_buckets: vec![1.0, 0.5, 8.0],
        negative_spans: vec![Span {
            offset: 7,
            length: 1,
        }],
        negative_buckets: vec![6.0],
        ..NativeHistogram::default()
    };
    let custom = NativeHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 3.0,
        sum: f64::INFINITY,
        positive_spans: vec![Span {
            offset: 0,
            length: 3,
        }],
        positive_buckets: vec![1.0, 1.0, 1.0],
        custom_values: vec![-0.5, 1e9],
        ..NativeHistogram::default()
    };
    let hints = [
        ResetHint::Unknown,
        ResetHint::Reset,
        ResetHint::NotReset,
        ResetHint::Gauge,
    ];
    let mut all: Vec<NativeHistogram> = hints
        .into_iter()
        .map(|reset_hint| NativeHistogram {
            reset_hint,
            ..exponential.clone()
        })
        .collect();
    all.push(custom);
    all
}

#[test]
fn histograms_stale_markers_and_start_times_survive_the_journey() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let labels = Labels::from_pairs([(METRIC_NAME, "h"), ("a", "{ } , # \"")]);
    let counted = Labels::from_pairs([(METRIC_NAME, "c_total")]);
    let mut samples: Vec<SampleRef<'_>> = histograms()
        .into_iter()
        .zip(1..)
        .map(|(h, k)| SampleRef::histogram(&labels, k * 1_000, h.into()).started(k * 900))
        .collect();
    samples.push(SampleRef::float(&labels, 9_000, model::stale_nan()));
    samples.push(SampleRef::float(&counted, 5_500, 7.0).started(-1_250));
    assert_eq!(store.append(&samples).unwrap().appended, 7);
    let sorted = |store: &Store| {
        let mut all = store.select(&ALL).unwrap();
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        // A stale marker is a NaN, and equals nothing.
        for value in all.iter_mut().flat_map(|s| &mut s.points.values) {
            if model::is_stale(*value) {
                *value = -77.0;
            }
        }
        all
    };
    let text = exported(&store);
    assert!(text.contains("c_total 7 5.500 st@-1.250\n"), "{text}");
    assert!(text.contains(" StaleNaN 9\n"), "{text}");
    assert!(text.contains("{gcount:17.5,gsum:-0.25,schema:3,zero_threshold:1e-128,zero_count:2,negative_spans:[7:1],negative_buckets:[6],positive_spans:[-3:2,4:1],positive_buckets:[1,0.5,8]} 4 st@3.600\n"), "{text}");
    let other = tempfile::tempdir().unwrap();
    let again = open(&other);
    assert_eq!(
        import(&again, &mut text.as_bytes(), None).unwrap().appended,
        7
    );
    assert_eq!(sorted(&again), sorted(&store));
    let mut plain = Vec::new();
    let report = export(&store, &ALL, Dialect::Plain, &mut plain).unwrap();
    assert_eq!(
        (
            report.samples,
            report.histograms,
            report.stale,
            report.starts
        ),
        (1, 5, 1, 1)
    );
    assert_eq!(
        String::from_utf8(plain).unwrap(),
        "c_total 7 5.500\n# EOF\n"
    );
}

#[test]
fn exemplars_and_default_times_are_read() {
    let line = parse_line(r#"a_bucket{le="1"} 3 # {trace_id="x # y"} 0.5 12.5"#).unwrap();
    assert_eq!(line.t_ms, None);
    let exemplar = line.exemplar.unwrap();
    assert_eq!((exemplar.value, exemplar.t_ms), (0.5, 12_500));
    assert_eq!(exemplar.labels.get("trace_id"), Some("x # y"));
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    import(&store, &mut "a 1\n".as_bytes(), Some(77)).unwrap();
    assert_eq!(store.select(&ALL).unwrap()[0].points.t_ms, [77]);
}

#[test]
fn errors_name_the_line_and_the_fault() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for (bad, fault) in [
        ("a 1 1\nb", "line 2: a value is missing"),
        ("a x 1", "\"x\" is not a number"),
        ("a 1", "the sample has no timestamp"),
        ("a{b=\"c} 1 1", "does not end"),
        ("a{b=\"c\" d=\"e\"} 1 1", "expected ',' or '}'"),
        ("a{b=\"c\",b=\"d\"} 1 1", "comes twice"),
        ("{b=\"c\"} 1 1", "no name"),
        ("a 1 1 1", "after the timestamp"),
        ("a 1 1e300", "not a timestamp"),
        ("1a 1 1", "not a metric's name"),
        ("a 1 1 st@2 3", "unexpected \"3\""),
        ("a {count:1,sum:1} 1", "no schema"),
        (
            "a {count:1,sum:1,schema:0,zero_count:1,zero_threshold:0",
            "no '}'",
        ),
        ("a {count:1,sum:1,schema:99} 1", "schema 99"),
        (
            "a {count:1,sum:1,schema:0,positive_spans:[0:4294967295],positive_buckets:[1]} 1",
            "positive spans ask for",
        ),
        ("a {count:1,sum:1,schema:0,mood:good} 1", "unknown field"),
        ("a {count:1,sum:1,bucket:[+Inf:1]} 1", "classic buckets"),
    ] {
        let error = import(&store, &mut bad.as_bytes(), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains(fault), "{bad:?}: {error}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "[a-z{}\"=, #\\\\0-9.é:@\\[\\]]{0,60}") {
        let _ = parse_line(&text);
    }

    #[test]
    fn numbers_and_times_round_trip(value in any::<f64>(), t_ms in -1_000_000_000_000i64..10_000_000_000_000) {
        let read = parse_number(&number_text(value)).unwrap();
        prop_assert!(read.to_bits() == value.to_bits() || value.is_nan());
        prop_assert_eq!(parse_time(&time_text(t_ms)), Ok(t_ms));
    }
}
