//! Both formats against fixtures, damaged bodies and random bytes.

use super::*;
use proptest::prelude::*;

fn samples(body: &str, format: Format) -> Vec<(String, f64, Option<i64>)> {
    Parser::new(body.as_bytes(), format)
        .unwrap()
        .filter_map(|item| match item.unwrap() {
            Item::Sample {
                series,
                value,
                t_ms,
                ..
            } => Some((series.to_owned(), value, t_ms)),
            _ => None,
        })
        .collect()
}

fn error(body: &[u8], format: Format) -> String {
    match Parser::new(body, format) {
        Err(e) => e.to_string(),
        Ok(parser) => parser
            .filter_map(Result::err)
            .next()
            .expect("an error")
            .to_string(),
    }
}

#[test]
fn text_format_with_comments_timestamps_and_special_values() {
    let body = "# just a comment\n# HELP http_requests_total The total\\n number.\n# TYPE http_requests_total counter\n\
        http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\n  spaced { a = \"b\" , } 3\r\n\
        metric_without_timestamp 12.47\nweird{problem=\"division \\\"by\\\" zero\\\\\"} +Inf -3982045\nn NaN";
    let got = samples(body, Format::Text);
    assert_eq!(
        got[0],
        (
            "http_requests_total{method=\"post\",code=\"200\"}".into(),
            1027.0,
            Some(1_395_066_363_000)
        )
    );
    assert_eq!(got[1].1, 3.0);
    assert_eq!(got[2], ("metric_without_timestamp".into(), 12.47, None));
    assert_eq!((got[3].1, got[3].2), (f64::INFINITY, Some(-3_982_045)));
    assert!(got[4].1.is_nan());
    assert_eq!(labels_of(&got[3].0).unwrap()[1].1, "division \"by\" zero\\");
}

#[test]
fn utf8_names_are_quoted_inside_the_braces() {
    let got = samples(
        "{\"http.requests\", \"dotted.label\"=\"ü\\n\", plain=\"x\"} 1\n",
        Format::Text,
    );
    let pairs = labels_of(&got[0].0).unwrap();
    assert_eq!(pairs[0], ("__name__".into(), "http.requests".into()));
    assert_eq!(pairs[1], ("dotted.label".into(), "ü\n".into()));
    assert_eq!(pairs[2].0, "plain");
}

#[test]
fn openmetrics_with_exemplar_unit_and_end() {
    let body = "# TYPE foo_seconds histogram\n# UNIT foo_seconds seconds\n# HELP foo_seconds Time.\n\
        foo_seconds_bucket{le=\"0.1\"} 8 # {trace_id=\"abc\"} 0.067 1520879607.789\nfoo_seconds_count 17 1520879607.5\n# EOF\n";
    let items: Vec<_> = Parser::new(body.as_bytes(), Format::OpenMetrics)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        items[1],
        Item::Unit {
            name: "foo_seconds",
            unit: "seconds"
        }
    );
    let Item::Sample {
        exemplar: Some(e),
        line,
        ..
    } = items[3]
    else {
        panic!("{items:?}")
    };
    assert_eq!((e.value, e.t_ms, line), (0.067, Some(1_520_879_607_789), 4));
    assert_eq!(
        labels_of(e.labels).unwrap(),
        [("trace_id".to_owned(), "abc".to_owned())]
    );
    assert!(matches!(
        items[4],
        Item::Sample {
            t_ms: Some(1_520_879_607_500),
            ..
        }
    ));
    assert_eq!(items.len(), 5);
}

#[test]
fn errors_name_line_and_column() {
    for (body, wanted) in [
        (
            "ok 1\nbad{a=\"1\" b=\"2\"} 1\n",
            "line 2, column 11: expected \",\" or \"}\" after a label",
        ),
        (
            "ok 1\n<html>",
            "line 2, column 1: expected a metric name, found '<'",
        ),
        (
            "a{é=\"1\"} 1",
            "line 1, column 3: expected a label name or \"}\"",
        ),
        (
            "a{b=\"é\\x\"} 1",
            "line 1, column 7: expected \\\\, \\\" or \\n after a backslash",
        ),
        ("a one", "line 1, column 3: expected a value, found \"one\""),
        (
            "a",
            "line 1, column 2: expected a space and a value, found the end of the body",
        ),
        (
            "a 1 2 3",
            "line 1, column 7: expected the end of the line, found '3'",
        ),
        ("a 1 2.5", "line 1, column 5: \"2.5\" is not a timestamp"),
        (
            "a{b=\"c",
            "line 1, column 7: the quoted text does not end on its line",
        ),
        (
            "{a=\"b\"} 1",
            "line 1, column 1: the series has no metric name",
        ),
        (
            "# TYPE a dial\n",
            "line 1, column 10: \"dial\" is not a metric type",
        ),
    ] {
        assert_eq!(error(body.as_bytes(), Format::Text), wanted, "{body}");
    }
    assert_eq!(
        error(b"ab\na\xff 1", Format::Text),
        "line 2, column 2: the body is not UTF-8"
    );
    assert_eq!(
        error(b"a 1\n", Format::OpenMetrics),
        "line 2, column 1: the body ends without \"# EOF\""
    );
    assert_eq!(
        error(b"# EOF\na 1\n", Format::OpenMetrics),
        "line 2, column 1: there is text after \"# EOF\""
    );
    assert!(error(b"\n# EOF\n", Format::OpenMetrics).contains("expected a metric name"));
    assert!(labels_of("a{b=\"1\",b=\"2\"}").is_err());
}

proptest! {
    #[test]
    fn short_numbers_are_read_as_the_library_reads_them(word in "[-+]?[0-9]{0,17}(\\.[0-9]{0,17})?(e-?[0-9]{1,2})?") {
        let (quick, slow) = (parse_float(&word), word.parse::<f64>().ok());
        prop_assert_eq!(quick.map(f64::to_bits), slow.map(f64::to_bits), "{}", word);
    }

    #[test]
    fn a_guess_changes_nothing(
        body in "([ab]{1,2}[ \t]{0,2}(\\{[ab]=\"[ab}\\\\\" {]{0,2}\"\\})?[ \t]{0,2}[0-9{]{0,2}\n){0,4}",
    ) {
        let all: Vec<_> = Parser::new(body.as_bytes(), Format::Text).unwrap().collect();
        let texts: Vec<&str> = all.iter().filter_map(|item| match item {
            Ok(Item::Sample { series, .. }) => Some(*series),
            _ => None,
        }).collect();
        for guess in texts {
            let mut parser = Parser::new(body.as_bytes(), Format::Text).unwrap();
            let guessed: Vec<_> = std::iter::from_fn(|| parser.next_expecting(guess)).collect();
            prop_assert_eq!(&guessed, &all);
        }
    }

    #[test]
    fn random_bytes_never_panic_nor_hang(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Text, Format::OpenMetrics] {
            if let Ok(parser) = Parser::new(&body, format) {
                prop_assert!(parser.count() <= body.len() + 1);
            }
        }
    }

    #[test]
    fn almost_right_bodies_never_panic(body in "([a-c]{1,2}(\\{[a-c\"=,\\\\n ]{0,12}\\})? [0-9NI+-.e]{0,5}( # \\{[a\"=]*\\} 1)?\n|# (TYPE|HELP|UNIT|EOF) ?[a\"]?( counter)?\n){0,6}") {
        for format in [Format::Text, Format::OpenMetrics] {
            for item in Parser::new(body.as_bytes(), format).unwrap() {
                if let Ok(Item::Sample { series, .. }) = item {
                    let _ = labels_of(series);
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_read(name in "[a-z_:][a-z0-9_:]{0,8}", label in "\\PC{1,8}", value in "\\PC{0,12}", number in any::<f64>()) {
        let escape = |s: &str| s.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let body = format!("{{\"{name}\",\"{}\"=\"{}\"}} {number:?}\n", escape(&label), escape(&value));
        let mut parser = Parser::new(body.as_bytes(), Format::Text).unwrap();
        let Some(Ok(Item::Sample { series, value: read, .. })) = parser.next() else { panic!("{body}") };
        prop_assert!(read == number || number.is_nan());
        prop_assert_eq!(labels_of(series).unwrap(), [("__name__".to_owned(), name), (label, value)]);
    }
}
