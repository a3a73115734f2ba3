//! Whether the engine's answer is the expected one.
//!
//! Owns comparison with tolerance, and the variants of a query that must give the same answer. Must not know scripts.

use model::{Labels, NativeHistogram, QueryData, Value};
use promql::ast::{At, Expr, ExprKind};
use promql::series::SequenceValue;
use promql::{Engine, Options, Output, QueryError};

use crate::script::{Eval, Match};
use crate::storage::Storage;

fn engine() -> Engine {
    Engine::new(Options {
        experimental: true,
        ..Options::default()
    })
}

pub(crate) fn judge(eval: &Eval, storage: &Storage) -> Result<(), String> {
    if !eval.instant {
        let answer = engine().range(storage, &eval.expr, eval.start, eval.end, eval.step);
        return check(eval, answer, true);
    }
    let mut queries = vec![(eval.expr.clone(), eval.start_of_eval())];
    queries.extend(pinned(eval));
    for (text, t) in queries {
        one(eval, storage, &text, t).map_err(|e| format!("{text} at {t}: {e}"))?;
    }
    Ok(())
}

impl Eval {
    fn start_of_eval(&self) -> i64 {
        if self.matrix { self.end } else { self.start }
    }
}

fn one(eval: &Eval, storage: &Storage, text: &str, t: i64) -> Result<(), String> {
    let answer = engine().instant(storage, text, t);
    let failed = answer.is_err();
    check(eval, answer, false)?;
    let query_context = ["start()", "end()", "range()", "step()"]
        .iter()
        .any(|f| text.contains(f));
    if failed || eval.matrix || eval.text.is_some() || query_context {
        return Ok(());
    }
    let ranged = engine()
        .range(storage, text, t - 60_000, t + 60_000, 60_000)
        .map_err(|e| format!("as a range query: {e}"))?;
    if eval.ordered {
        return Ok(());
    }
    let QueryData::Matrix(series) = ranged.data else {
        return Err("a range query gave no matrix".into());
    };
    let at: Vec<(Labels, Value)> = series
        .into_iter()
        .filter_map(|s| {
            let i = s.points.t_ms.iter().position(|x| *x == t)?;
            Some((s.labels, s.points.value(i)))
        })
        .collect();
    let compared = match eval.scalar {
        Some(want) => match at.first() {
            Some((_, Value::Float(v))) => close(want, *v)
                .then_some(())
                .ok_or(format!("got {v}, expected {want}")),
            _ => Err("no scalar".into()),
        },
        None => vector(eval, &at),
    };
    compared.map_err(|e| format!("as a range query: {e}"))
}

fn check(eval: &Eval, answer: Result<Output, QueryError>, range: bool) -> Result<(), String> {
    match (answer, &eval.fail) {
        (Err(e), None) => Err(format!("failed: {e}")),
        (Err(e), Some(wanted)) => {
            let text = e.to_string();
            let fits = wanted
                .iter()
                .all(|m| m.accepts(&text) || plain(&e).is_some_and(|t| m.accepts(&t)));
            if fits {
                Ok(())
            } else {
                Err(format!("failed otherwise: {text}; expected {wanted:?}"))
            }
        }
        (Ok(_), Some(_)) => Err("should have failed".into()),
        (Ok(output), None) => {
            notes("warn", &eval.warn, eval.no_warn, &output.warnings)?;
            notes("info", &eval.info, eval.no_info, &output.infos)?;
            data(eval, &output.data, range)
        }
    }
}

/// A parse error as Prometheus words it: without the picture.
fn plain(e: &QueryError) -> Option<String> {
    match e {
        QueryError::Parse(p) => Some(format!(
            "{}:{}: parse error: {}",
            p.line, p.column, p.message
        )),
        _ => None,
    }
}

fn notes(
    kind: &str,
    wanted: &Option<Vec<Match>>,
    none: bool,
    got: &[String],
) -> Result<(), String> {
    if none && !got.is_empty() {
        return Err(format!("unexpected {kind}: {got:?}"));
    }
    let Some(wanted) = wanted else {
        return Ok(());
    };
    if got.is_empty() {
        return Err(format!("no {kind}, expected {wanted:?}"));
    }
    if let Some(missing) = wanted.iter().find(|m| !got.iter().any(|g| m.accepts(g))) {
        return Err(format!("{kind} {missing:?} not among {got:?}"));
    }
    match got.iter().find(|g| !wanted.iter().any(|m| m.accepts(g))) {
        Some(extra) => Err(format!("unexpected {kind} {extra:?}")),
        None => Ok(()),
    }
}

fn data(eval: &Eval, got: &QueryData, range: bool) -> Result<(), String> {
    match got {
        QueryData::Scalar(_, v) => match eval.scalar {
            Some(want) if close(want, *v) => Ok(()),
            want => Err(format!("got scalar {v}, expected {want:?}")),
        },
        QueryData::String(_, s) => {
            if eval.text.as_deref().unwrap_or("") == s {
                Ok(())
            } else {
                Err(format!("got {s:?}, expected {:?}", eval.text))
            }
        }
        QueryData::Vector(all) => {
            if eval.scalar.is_some() {
                return Err("expected a scalar, got a vector".into());
            }
            let pairs: Vec<(Labels, Value)> = all
                .iter()
                .map(|e| (e.labels.clone(), e.value.clone()))
                .collect();
            vector(eval, &pairs)
        }
        QueryData::Matrix(all) => {
            if all.windows(2).any(|w| w[0].labels > w[1].labels) {
                return Err("matrix is not sorted".into());
            }
            let _ = range;
            for s in all {
                let Some((_, want)) = eval.series.iter().find(|(l, _)| *l == s.labels) else {
                    return Err(format!("unexpected series {}", s.labels));
                };
                let expected: Vec<(i64, &SequenceValue)> = want
                    .iter()
                    .enumerate()
                    .filter(|(_, v)| v.value.is_some())
                    .map(|(i, v)| (eval.start + i as i64 * eval.step, v))
                    .collect();
                let times: Vec<i64> = expected.iter().map(|e| e.0).collect();
                if times != s.points.t_ms {
                    return Err(format!(
                        "{} has points at {:?}, expected {times:?}",
                        s.labels, s.points.t_ms
                    ));
                }
                for (i, (t, want)) in expected.iter().enumerate() {
                    same(want, &s.points.value(i))
                        .map_err(|e| format!("{} at {t}: {e}", s.labels))?;
                }
            }
            match eval
                .series
                .iter()
                .find(|(l, _)| !all.iter().any(|s| s.labels == *l))
            {
                Some((missing, _)) => Err(format!("series {missing} is missing")),
                None => Ok(()),
            }
        }
    }
}

fn vector(eval: &Eval, got: &[(Labels, Value)]) -> Result<(), String> {
    for (i, (labels, value)) in got.iter().enumerate() {
        let Some(at) = eval.series.iter().rposition(|(l, _)| l == labels) else {
            return Err(format!("unexpected series {labels} with {}", show(value)));
        };
        if eval.ordered && at != i {
            return Err(format!("{labels} is at position {i}, expected {at}"));
        }
        match eval.series[at].1.first() {
            Some(want) => same(want, value).map_err(|e| format!("{labels}: {e}"))?,
            None => return Err(format!("{labels}: no value expected")),
        }
    }
    match eval
        .series
        .iter()
        .find(|(l, _)| !got.iter().any(|(g, _)| g == l))
    {
        Some((missing, _)) => Err(format!(
            "series {missing} is missing, got {:?}",
            got.iter().map(|g| g.0.to_string()).collect::<Vec<_>>()
        )),
        None => Ok(()),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Float(v) => v.to_string(),
        Value::Histogram(h) => format!("{h:?}"),
    }
}

fn same(want: &SequenceValue, got: &Value) -> Result<(), String> {
    let fits = match (&want.value, got) {
        (Some(Value::Float(a)), Value::Float(b)) => close(*a, *b),
        (Some(Value::Histogram(a)), Value::Histogram(b)) => {
            let (x, y) = (compacted(a), compacted(b));
            if !histograms_close(&x, &y, want.hint_given) {
                return Err(format!("\n      got      {y:?}\n      expected {x:?}"));
            }
            true
        }
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(format!("got {}, expected {:?}", show(got), want.value))
    }
}

type Side = Vec<(i32, f64)>;

#[derive(Debug)]
#[allow(dead_code)]
struct Flat {
    h: NativeHistogram,
    positive: Side,
    negative: Side,
}

fn compacted(h: &NativeHistogram) -> Flat {
    let full = |side: Side| side.into_iter().filter(|(_, c)| *c != 0.0).collect();
    Flat {
        h: h.clone(),
        positive: full(h.positive().collect()),
        negative: full(h.negative().collect()),
    }
}

fn histograms_close(a: &Flat, b: &Flat, hints: bool) -> bool {
    let side = |x: &Side, y: &Side| {
        x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.0 == y.0 && close(x.1, y.1))
    };
    a.h.schema == b.h.schema
        && close(a.h.count, b.h.count)
        && close(a.h.sum, b.h.sum)
        && (!a.h.has_custom_buckets() || a.h.custom_values == b.h.custom_values)
        && a.h.zero_threshold == b.h.zero_threshold
        && close(a.h.zero_count, b.h.zero_count)
        && side(&a.positive, &b.positive)
        && side(&a.negative, &b.negative)
        && (!hints || a.h.reset_hint == b.h.reset_hint)
}

fn close(a: f64, b: f64) -> bool {
    const EPSILON: f64 = 1e-6;
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

const TIMELY: [&str; 15] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
];

/// The query with every selector pinned to its instant, at other instants: the answer must be the same.
fn pinned(eval: &Eval) -> Vec<(String, i64)> {
    let Ok(mut expr) = promql::parse(&eval.expr) else {
        return Vec::new();
    };
    let t = eval.start_of_eval();
    if !pin(&mut expr, t) {
        return Vec::new();
    }
    let text = expr.to_string();
    let times = if t == 0 {
        vec![-1000, 0, 1000]
    } else {
        vec![-10 * t, 0, t / 5, t, 10 * t]
    };
    times.into_iter().map(|t| (text.clone(), t)).collect()
}

/// False when the query's value depends on the instant anyway.
fn pin(expr: &mut Expr, t: i64) -> bool {
    match &mut expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => true,
        ExprKind::Selector(s) => {
            s.modifiers.at.get_or_insert(At::Time(t));
            true
        }
        ExprKind::Matrix(m) => {
            m.selector.modifiers.at.get_or_insert(At::Time(t));
            true
        }
        ExprKind::Subquery(s) => {
            s.modifiers.at.get_or_insert(At::Time(t));
            true
        }
        ExprKind::Call(c) => {
            let steady = !TIMELY.contains(&c.function.name);
            c.args.iter_mut().fold(steady, |all, a| pin(a, t) && all)
        }
        ExprKind::Aggregate(a) => {
            let param = a.param.as_mut().is_none_or(|p| pin(p, t));
            pin(&mut a.expr, t) && param
        }
        ExprKind::Binary(b) => {
            let left = pin(&mut b.lhs, t);
            pin(&mut b.rhs, t) && left
        }
        ExprKind::Unary(u) => pin(&mut u.expr, t),
        ExprKind::Paren(inner) => pin(inner, t),
    }
}
