//! `info()`: labels of info metrics joined to a vector (experimental).
//!
//! Owns which info series belong to which series. Must not know other functions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{Labels, METRIC_NAME, MatchOp, Matcher};

use super::block::{Block, Cell, Meta};
use super::engine::QueryError;
use super::run::{Evaluated, Evaluator, Grid};
use crate::syntax::ast::{Call, Expr, ExprKind, Modifiers};

/// The labels that tie a series to its target.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric that is meant when none is named.
const TARGET_INFO: &str = "target_info";

pub(crate) fn info(ev: &Evaluator<'_>, call: &Call, grid: Grid) -> Evaluated<Block> {
    let base = ev.vector(&call.args[0], grid)?;
    let data: Vec<Matcher> = match call.args.get(1).map(|a| &a.unparen().kind) {
        Some(ExprKind::Selector(s)) => s.matchers.clone(),
        _ => Vec::new(),
    };
    let names = name_matchers(call.args.len() > 1, &data)?;
    let data: Vec<Matcher> = data.into_iter().filter(|m| m.name != METRIC_NAME).collect();
    let is_info = |l: &Labels| names.iter().all(|m| m.matches(l.name()));
    let series = read(ev, &base, &names, &data, &is_info, &call.args[0], grid)?;
    let mut out = Block::new(grid.steps);
    let mut rows: HashMap<Labels, usize> = HashMap::new();
    for step in 0..grid.steps {
        ev.tick(base.len().saturating_add(series.len()))?;
        let current = latest(&series, step)?;
        for s in 0..base.len() {
            let cell = base.cell(s, step);
            if matches!(cell, Cell::None) {
                continue;
            }
            let meta = &base.series[s];
            let labels = if is_info(&meta.labels) {
                Some(meta.labels.clone())
            } else {
                enriched(&meta.labels, &current, &data)?
            };
            let Some(labels) = labels else {
                continue;
            };
            let row = *rows.entry(labels.clone()).or_insert_with(|| {
                out.push_series(Meta {
                    labels,
                    drop_name: meta.drop_name,
                })
            });
            if out.present(row, step) {
                return Err(QueryError::execution(
                    "vector cannot contain metrics with the same labelset",
                ));
            }
            out.set(row, step, cell);
        }
    }
    Ok(out)
}

/// Which names count as info metrics.
fn name_matchers(given: bool, data: &[Matcher]) -> Evaluated<Vec<Matcher>> {
    let named: Vec<Matcher> = data
        .iter()
        .filter(|m| m.name == METRIC_NAME)
        .cloned()
        .collect();
    if !given || named.is_empty() {
        return Ok(vec![Matcher::equal(METRIC_NAME, TARGET_INFO)]);
    }
    if named
        .iter()
        .any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Regex))
    {
        return Ok(named);
    }
    let any = Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info")
        .map_err(|e| QueryError::Execution(e.to_string()))?;
    Ok(std::iter::once(any).chain(named).collect())
}

/// An info series, and when its sample at each step was taken.
struct InfoSeries {
    labels: Labels,
    taken: Vec<Option<i64>>,
}

fn read(
    ev: &Evaluator<'_>,
    base: &Block,
    names: &[Matcher],
    data: &[Matcher],
    is_info: &dyn Fn(&Labels) -> bool,
    arg: &Expr,
    grid: Grid,
) -> Evaluated<Vec<InfoSeries>> {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for meta in base.series.iter().filter(|m| !is_info(&m.labels)) {
        for name in IDENTIFYING {
            if let Some(v) = meta.labels.get(name) {
                values.entry(name).or_default().insert(v);
            }
        }
    }
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let mut matchers: Vec<Matcher> = names.iter().chain(data).cloned().collect();
    for (name, values) in values {
        let pattern: Vec<String> = values.iter().map(|v| regex::escape(v)).collect();
        let matcher = Matcher::new(name, MatchOp::Regex, pattern.join("|"));
        matchers.push(matcher.map_err(|e| QueryError::Execution(e.to_string()))?);
    }
    let modifiers = first_modifiers(arg);
    let mut all = Vec::new();
    for series in ev.read_instants(&matchers, &modifiers, false, grid)? {
        let mut taken = vec![None; grid.steps];
        let mut histogram = false;
        ev.look_back(&series.points, &modifiers, grid, |step, i| {
            histogram |= series.points.histogram(i).is_some();
            taken[step] = Some(series.points.t_ms[i]);
        });
        if histogram {
            return Err(QueryError::Execution(format!(
                "this should be an info metric, with float samples: {}",
                series.labels
            )));
        }
        all.push(InfoSeries {
            labels: series.labels,
            taken,
        });
    }
    Ok(all)
}

/// The `@` and `offset` of the first selector in the argument, those of subqueries around it included.
fn first_modifiers(expr: &Expr) -> Modifiers {
    fn find(expr: &Expr, around: &[&Modifiers]) -> Option<Modifiers> {
        let inner: Vec<&Expr> = match &expr.kind {
            ExprKind::Selector(s) => return Some(join(&s.modifiers, around)),
            ExprKind::Matrix(m) => return Some(join(&m.selector.modifiers, around)),
            ExprKind::Subquery(s) => {
                let deeper: Vec<&Modifiers> =
                    around.iter().copied().chain([&s.modifiers]).collect();
                return find(&s.expr, &deeper);
            }
            ExprKind::Call(c) => c.args.iter().collect(),
            ExprKind::Aggregate(a) => vec![&a.expr],
            ExprKind::Binary(b) => vec![&b.lhs, &b.rhs],
            ExprKind::Unary(u) => vec![&u.expr],
            ExprKind::Paren(p) => vec![p],
            _ => Vec::new(),
        };
        inner.into_iter().find_map(|e| find(e, around))
    }
    find(expr, &[]).unwrap_or_default()
}

fn join(own: &Modifiers, around: &[&Modifiers]) -> Modifiers {
    let ms = |m: &Modifiers| m.offset.as_ref().and_then(|d| d.literal_ms()).unwrap_or(0);
    let (mut at, mut offset) = (own.at, ms(own));
    for m in around.iter().rev() {
        if at.is_some() {
            break;
        }
        offset += ms(m);
        at = m.at;
    }
    Modifiers {
        at,
        offset: Some(crate::syntax::ast::Duration::from_ms(offset)),
    }
}

/// What identifies a target under one info metric.
fn signature(name: &str, labels: &Labels) -> (String, [String; 2]) {
    (
        name.to_owned(),
        IDENTIFYING.map(|n| labels.get(n).unwrap_or("").to_owned()),
    )
}

type Current<'a> = BTreeMap<(String, [String; 2]), (&'a Labels, i64)>;

/// For each target and info metric, the series with the newest sample at a step.
fn latest(series: &[InfoSeries], step: usize) -> Evaluated<Current<'_>> {
    let mut current: Current<'_> = BTreeMap::new();
    for s in series {
        let Some(t) = s.taken[step] else {
            continue;
        };
        let key = signature(s.labels.name(), &s.labels);
        match current.get(&key) {
            Some((_, existing)) if *existing > t => {}
            Some((labels, existing)) if *existing == t => {
                return Err(QueryError::Execution(format!(
                    "found duplicate series for info metric: existing {labels} @ {existing}, new {} @ {t}",
                    s.labels
                )));
            }
            _ => {
                current.insert(key, (&s.labels, t));
            }
        }
    }
    Ok(current)
}

/// The labels with those of its info series; `None` when the data matchers ask for what no info series has.
fn enriched(labels: &Labels, current: &Current<'_>, data: &[Matcher]) -> Evaluated<Option<Labels>> {
    let names: BTreeSet<&String> = current.keys().map(|(n, _)| n).collect();
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    let mut any = false;
    for name in names {
        let Some((info, _)) = current.get(&signature(name, labels)) else {
            continue;
        };
        any = true;
        for (n, v) in info.iter() {
            let wanted = data.is_empty() || data.iter().any(|m| m.name == n);
            if n == METRIC_NAME || !wanted {
                continue;
            }
            if added.get(n).is_some_and(|seen| *seen != v) {
                return Err(QueryError::Execution(format!("conflicting label: {n}")));
            }
            if labels.get(n).is_none() {
                added.insert(n, v);
            }
        }
    }
    if !any && !data.iter().all(Matcher::matches_empty) {
        return Ok(None);
    }
    let mut builder = labels.to_builder();
    for (n, v) in added {
        builder.set(n, v);
    }
    Ok(Some(builder.build()))
}
