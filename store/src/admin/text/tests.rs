//! Tests of the text: out and in again is the same, errors say where.

use super::*;
use crate::StoreOptions;
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
    export(store, &ALL, &mut out).expect("exports");
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
    ] {
        let error = import(&store, &mut bad.as_bytes(), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains(fault), "{bad:?}: {error}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "[a-z{}\"=, #\\\\0-9.é]{0,40}") {
        let _ = parse_line(&text);
    }

    #[test]
    fn numbers_and_times_round_trip(value in any::<f64>(), t_ms in -1_000_000_000_000i64..10_000_000_000_000) {
        let read = parse_number(&number_text(value)).unwrap();
        prop_assert!(read.to_bits() == value.to_bits() || value.is_nan());
        prop_assert_eq!(parse_time(&time_text(t_ms)), Ok(t_ms));
    }
}
