//! The language as a whole: what parses, how errors read, that printing loses nothing.

use proptest::prelude::*;

use super::ast::{AGGREGATES, BINARY_OPS, BinaryOp, ExprKind, ValueType};
use super::functions::FUNCTIONS;
use super::parse::{MAX_DEPTH, parse};
use super::print::format;
use super::rewrite::{experimental_feature, scale_windows};

/// Parses, prints, parses, prints: both prints must be the same.
fn fixpoint(text: &str) -> Result<String, String> {
    let first = parse(text).map_err(|e| format!("{text}\n{e}"))?;
    let printed = first.to_string();
    let again = parse(&printed).map_err(|e| format!("{text} printed as {printed}\n{e}"))?;
    if again.to_string() != printed {
        return Err(format!("{text} printed as {printed}, then as {again}"));
    }
    let pretty = format(&first);
    let third = parse(&pretty).map_err(|e| format!("{text} laid out as\n{pretty}\n{e}"))?;
    if third.to_string() != printed {
        return Err(format!("{text} laid out as\n{pretty}\nreads as {third}"));
    }
    Ok(printed)
}

#[test]
fn prints_what_it_reads() {
    for (text, printed) in [
        ("up", "up"),
        ("{__name__=\"a.b\"}", "{\"a.b\"}"),
        ("{\"a.b\", \"c d\"=~'x'}", "{\"a.b\", \"c d\"=~\"x\"}"),
        ("x{a='it\\'s',}", "x{a=\"it's\"}"),
        ("SUM BY (a) (x)", "sum by (a) (x)"),
        ("sum(x) without(a,b)", "sum without (a, b) (x)"),
        ("topk(3, x)", "topk(3, x)"),
        ("x offset -5m @ 10", "x @ 10.000 offset -5m"),
        ("x[300] @ end() offset 1h", "x[5m] @ end() offset 1h"),
        (
            "rate(x[5m])[30m:1m] offset 1w",
            "rate(x[5m])[30m:1m] offset 1w",
        ),
        ("x[1h:]", "x[1h:]"),
        ("a + on(b) group_left(c) d", "a + on (b) group_left (c) d"),
        ("a > bool ignoring() b", "a > bool ignoring () b"),
        ("a and b or c unless d", "a and b or c unless d"),
        ("-2 ^ 2", "-2 ^ 2"),
        ("(-2) ^ 2", "(-2) ^ 2"),
        ("-x", "-x"),
        ("1e3 + 0x10 + Inf + nan", "1000 + 16 + +Inf + NaN"),
        ("O- Inf^ -Ot", "O - Inf ^ -Ot"),
        ("sum + by + offset", "sum + by + offset"),
        (
            "x[5m + step()] offset (1h * 2)",
            "x[5m + step()] offset (1h * 2)",
        ),
        ("x[1m] smoothed offset 1m", "x[1m] smoothed offset 1m"),
        (
            "a * fill_left(-1) fill_right(2) b",
            "a * fill_left (-1) fill_right (2) b",
        ),
        ("\"a\\xffb\"", "\"a\\xffb\""),
        ("# comment\nup # more\n", "up"),
    ] {
        assert_eq!(fixpoint(text).as_deref(), Ok(printed), "{text}");
    }
}

#[test]
fn operators_bind_as_documented() {
    let shape = |text: &str| {
        let expr = parse(text).unwrap();
        match expr.kind {
            ExprKind::Binary(b) => (b.op, b.lhs.to_string(), b.rhs.to_string()),
            ExprKind::Unary(u) => (BinaryOp::Sub, String::new(), u.expr.to_string()),
            _ => panic!("{text}"),
        }
    };
    let of = |op, l: &str, r: &str| (op, l.to_owned(), r.to_owned());
    assert_eq!(shape("a + b * c"), of(BinaryOp::Add, "a", "b * c"));
    assert_eq!(shape("a - b - c"), of(BinaryOp::Sub, "a - b", "c"));
    assert_eq!(shape("a ^ b ^ c"), of(BinaryOp::Pow, "a", "b ^ c"));
    assert_eq!(shape("a or b and c"), of(BinaryOp::Or, "a", "b and c"));
    assert_eq!(shape("a > b + c"), of(BinaryOp::Greater, "a", "b + c"));
    assert_eq!(shape("-a ^ b"), of(BinaryOp::Sub, "", "a ^ b"));
    assert_eq!(shape("-a * b"), of(BinaryOp::Mul, "-a", "b"));
}

/// Text, then the error with its picture and hint.
const ERRORS: [(&str, &str); 22] = [
    ("", "1:1: no expression found in input\n  \n  ^"),
    (
        "sum(up",
        "1:4: unclosed left parenthesis\n  sum(up\n     ^\n  add the missing \")\"",
    ),
    (
        "up)",
        "1:3: unexpected \")\"\n  up)\n    ^\n  there is no \"(\" it could close",
    ),
    (
        "rat(x[5m])",
        "1:1: unknown function \"rat\"\n  rat(x[5m])\n  ^^^\n  did you mean \"rate\"?",
    ),
    (
        "histogram_quantle(0.9, x)",
        "1:1: unknown function \"histogram_quantle\"\n  histogram_quantle(0.9, x)\n  ^^^^^^^^^^^^^^^^^\n  did you mean \"histogram_quantile\"?",
    ),
    (
        "smu(x)",
        "1:1: unknown function \"smu\"\n  smu(x)\n  ^^^\n  did you mean \"sum\"?",
    ),
    (
        "rate(x)",
        "1:6: expected type range vector in call to function \"rate\", got instant vector\n  rate(x)\n       ^\n  add a range, as in x[5m]",
    ),
    (
        "rate(sum(x))",
        "1:6: expected type range vector in call to function \"rate\", got instant vector\n  rate(sum(x))\n       ^^^^^^\n  add a range and a step for a subquery, as in (x)[5m:]",
    ),
    (
        "sum(x[5m])",
        "1:5: expected type instant vector in aggregation expression of sum(), got range vector\n  sum(x[5m])\n      ^^^^^\n  wrap the range in a function such as rate() or avg_over_time()",
    ),
    (
        "x{a==\"b\"}",
        "1:4: unexpected \"==\" in label matching, expected \"=\", \"!=\", \"=~\" or \"!~\"\n  x{a==\"b\"}\n     ^^\n  equality of labels is written with one \"=\"",
    ),
    (
        "x{a=b}",
        "1:5: unexpected \"b\" in label matching, expected a text in quotes\n  x{a=b}\n      ^",
    ),
    (
        "x{a=~\"(\"}",
        "1:3: invalid regular expression \"(\": unclosed group\n  x{a=~\"(\"}\n    ^^^^^^",
    ),
    (
        "x{a=\"b\"",
        "1:2: unclosed left brace\n  x{a=\"b\"\n   ^\n  add the missing \"}\"",
    ),
    (
        "{}",
        "1:1: vector selector must contain at least one non-empty matcher\n  {}\n  ^^\n  it would select every series; name a metric, or match a label with .+",
    ),
    (
        "x[5mm]",
        "1:3: \"5mm\" is neither a number nor a duration\n  x[5mm]\n    ^^^\n  durations are whole numbers with units in falling order, as in 1h30m",
    ),
    (
        "sum(x)[5m]",
        "1:7: ranges only allowed for vector selectors\n  sum(x)[5m]\n        ^^^^\n  write [range:step] for a subquery over an expression",
    ),
    (
        "x offset 5m [5m]",
        "1:13: no offset modifiers allowed before range\n  x offset 5m [5m]\n              ^^^^\n  write the offset after the range: x[5m] offset 1h",
    ),
    (
        "1 == 1",
        "1:3: comparisons between scalars must use BOOL modifier\n  1 == 1\n    ^^\n  write == bool",
    ),
    (
        "1 and x",
        "1:3: set operator \"and\" not allowed in binary scalar expression: left is scalar, right is instant vector\n  1 and x\n    ^^^",
    ),
    (
        "a +\n  b[5m]",
        "2:3: binary expression must contain only scalar and instant vector types; the right side of \"+\" is a range vector\n    b[5m]\n    ^^^^^",
    ),
    (
        "x ofset 5m",
        "1:3: unexpected \"ofset\" in expression, expected an operator or the end of input\n  x ofset 5m\n    ^^^^^\n  did you mean \"offset\"?",
    ),
    (
        "clamp(x)",
        "1:1: expected 3 argument(s) in call to \"clamp\", got 1\n  clamp(x)\n  ^^^^^^^^\n  write clamp(instant vector, scalar, scalar)",
    ),
];

#[test]
fn errors_show_the_place_and_the_way_out() {
    for (text, shown) in ERRORS {
        assert_eq!(parse(text).unwrap_err().to_string(), shown, "{text}");
    }
}

#[test]
fn depth_is_bounded_before_the_stack_is() {
    let mega = "(".repeat(1 << 20);
    assert!(parse(&mega).unwrap_err().message.contains("nested deeper"));
    for deep in [
        format!("{}x{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{}x", "-".repeat(100_000)),
        format!("x{}", "+x".repeat(100_000)),
        format!("x{}", "[5m:1m]".repeat(100_000)),
        format!("x[{}1{}]", "(".repeat(100_000), ")".repeat(100_000)),
        format!("x offset {}1", "-".repeat(100_000)),
        format!("x[1{}]", "+1".repeat(100_000)),
        "sum(".repeat(100_000),
    ] {
        assert!(parse(&deep).is_err());
    }
    let fits = format!("x{}", "+x".repeat(MAX_DEPTH - 4));
    assert!(parse(&fits).is_ok());
}

#[test]
fn scaling_divides_every_window() {
    let scaled = |text: &str, factor| scale_windows(&parse(text).unwrap(), factor).to_string();
    assert_eq!(
        scaled("sum(rate(x[5m] offset 1h)) / avg_over_time(y[1h:1m])", 60.0),
        "sum(rate(x[5s] offset 1m)) / avg_over_time(y[1m:1s])"
    );
    assert_eq!(scaled("rate(x[1s])", 1e9), "rate(x[1ms])");
    assert_eq!(scaled("rate(x[1s])", f64::NAN), "rate(x[1s])");
}

#[test]
fn experimental_parts_are_found() {
    let feature = |text: &str| experimental_feature(&parse(text).unwrap()).map(|f| f.0);
    assert_eq!(feature("sum(rate(x[5m]))"), None);
    assert_eq!(feature("sum(limitk(2, x))"), Some("limitk"));
    assert_eq!(feature("rate(x[5m] anchored)"), Some("anchored"));
    assert_eq!(feature("rate(x[5m+1m])"), Some("duration expression"));
    assert_eq!(feature("a + fill(0) b"), Some("fill"));
    assert_eq!(feature("info(x)"), Some("info"));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_:]{0,6}",
        Just("sum".to_owned()),
        Just("by".to_owned()),
        Just("inf_x".to_owned())
    ]
}

fn duration() -> impl Strategy<Value = String> {
    prop_oneof![
        (
            1u32..5000,
            prop_oneof![Just("ms"), Just("s"), Just("m"), Just("h"), Just("d")]
        )
            .prop_map(|(n, u)| format!("{n}{u}")),
        (1u32..900).prop_map(|n| n.to_string()),
        Just("5m+step()".to_owned()),
        Just("max_of(step(), 1m) * 2".to_owned()),
        Just("(1h-range())".to_owned()),
    ]
}

/// What a random query is made of.
#[derive(Clone)]
struct Parts {
    names: BoxedStrategy<String>,
    labels: BoxedStrategy<String>,
    values: BoxedStrategy<String>,
    durations: BoxedStrategy<String>,
    modifiers: BoxedStrategy<String>,
}

fn selector(parts: &Parts) -> BoxedStrategy<String> {
    let op = prop_oneof![Just("="), Just("!="), Just("=~"), Just("!~")];
    let matcher = (parts.labels.clone(), op, parts.values.clone())
        .prop_map(|(n, op, v)| format!("{n}{op}{}", super::print::quote(&regex::escape(&v))));
    let matchers = proptest::collection::vec(matcher, 0..3);
    let range = proptest::option::of(parts.durations.clone());
    (
        parts.names.clone(),
        matchers,
        parts.modifiers.clone(),
        range,
    )
        .prop_map(|(n, matchers, modifier, range)| {
            let braces = if matchers.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", matchers.join(","))
            };
            match range {
                Some(range) => format!("rate({n}{braces}[{range}]{modifier})"),
                None => format!("{n}{braces}{modifier}"),
            }
        })
        .boxed()
}

fn any_parts() -> Parts {
    Parts {
        names: name().boxed(),
        labels: name().prop_map(|n| n.replace(':', "_")).boxed(),
        values: "[a-z\"\\\\é\n]{1,5}".boxed(),
        durations: duration().boxed(),
        modifiers: prop_oneof![
            3 => Just(String::new()),
            1 => (0u32..900).prop_map(|n| format!(" offset {n}s")),
            1 => (0u32..900).prop_map(|n| format!(" @ -{n}.5 offset -1h")),
            1 => Just(" @ start()".to_owned()),
        ]
        .boxed(),
    }
}

/// Well-typed vectors over series `m`, `a_total` and `sum` with labels `job` and `i` of small numbers, whose value at a
/// step does not depend on the query's bounds.
pub(crate) fn known_query() -> impl Strategy<Value = String> {
    let pick = |all: &[&'static str]| {
        proptest::sample::select(all.to_vec())
            .prop_map(str::to_owned)
            .boxed()
    };
    vector_query(&Parts {
        names: pick(&["m", "a_total", "sum"]),
        labels: pick(&["job", "i"]),
        values: pick(&["0", "1", "2"]),
        durations: pick(&["90s", "2m", "5m", "13m"]),
        modifiers: pick(&[
            "",
            "",
            "",
            " offset 1m",
            " offset -90s",
            " @ 300",
            " @ 400 offset 1m",
        ]),
    })
}

/// Queries that are well-typed vectors.
fn vector_query(parts: &Parts) -> BoxedStrategy<String> {
    let Parts {
        labels, durations, ..
    } = parts.clone();
    let instant: Vec<&'static str> = FUNCTIONS
        .iter()
        .filter(|f| {
            f.args == [ValueType::Vector] && f.variadic == 0 && f.result == ValueType::Vector
        })
        .map(|f| f.name)
        .collect();
    let leaf = selector(parts);
    leaf.prop_recursive(5, 40, 3, move |inner| {
        let aggregates: Vec<&'static str> = AGGREGATES
            .iter()
            .filter(|(op, _)| op.param().is_none())
            .map(|a| a.1)
            .collect();
        let ops: Vec<&'static str> = BINARY_OPS.iter().map(|o| o.1).collect();
        prop_oneof![
            (proptest::sample::select(instant.clone()), inner.clone())
                .prop_map(|(f, x)| format!("{f}({x})")),
            (
                proptest::sample::select(aggregates),
                inner.clone(),
                labels.clone()
            )
                .prop_map(|(f, x, l)| format!("{f} by ({l}) ({x})")),
            (inner.clone(), proptest::sample::select(ops), inner.clone())
                .prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
            (inner.clone(), -5.0f64..5.0).prop_map(|(a, n)| format!("{a} * {n} + 2 ^ 3")),
            inner.clone().prop_map(|x| format!("-({x})")),
            (inner.clone(), durations.clone())
                .prop_map(|(x, d)| format!("max_over_time(({x})[{d}:1m])")),
            inner.prop_map(|x| format!("topk(2, {x})")),
        ]
    })
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn never_panics_on_any_text(text in ".{0,60}") {
        let _ = parse(&text).map_err(|e| e.to_string());
    }

    #[test]
    fn never_panics_on_near_queries(words in proptest::collection::vec(
        prop_oneof![
            Just("("), Just(")"), Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just("x"), Just("sum"), Just("by"),
            Just("5m"), Just("1"), Just("offset"), Just("@"), Just("+"), Just("-"), Just("=~"), Just("\"a\""), Just("rate"),
            Just("on"), Just("group_left"), Just("bool"), Just("=="), Just(":"), Just("start"), Just("step()"), Just("é"),
            Just("\n"), Just("fill"), Just("and"), Just("anchored"), Just("'"), Just("\\"), Just("1e"), Just("0x"),
        ], 0..14)
    ) {
        let text = words.join(" ");
        if let Err(e) = parse(&text) {
            prop_assert!(!e.to_string().is_empty());
        } else if let Err(e) = fixpoint(&text) {
            return Err(TestCaseError::fail(e));
        }
        let _ = parse(&words.concat());
    }

    #[test]
    fn printing_is_a_fixpoint(text in vector_query(&any_parts())) {
        if let Err(e) = fixpoint(&text) {
            return Err(TestCaseError::fail(e));
        }
    }
}
