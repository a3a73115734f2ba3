//! Aggregations that fold a group into one value: sum, avg, count, min, max, group, stddev, stdvar, quantile,
//! count_values. Group ids are computed once for all steps.
//!
//! Owns grouping and the folds. Must not know topk and its kin, which keep series (that is `topk`).

use std::collections::HashMap;
use std::sync::Arc;

use model::{Labels, METRIC_NAME};

use super::block::{Block, Cell, Hist, Meta, is_absent};
use super::engine::QueryError;
use super::notes::Note;
use super::over_time::{HistMean, Mean};
use super::run::{Evaluated, Evaluator, Grid};
use super::topk;
use crate::hist::accumulate::Kahan;
use crate::hist::bucket::to_text;
use crate::hist::{arith, quantile};
use crate::syntax::ast::{Aggregate, AggregateOp, ExprKind, Grouping, Span};
use crate::syntax::lexer::is_label_name;
use crate::syntax::print::quote;

/// Appends what identifies the labels that `keep` accepts.
pub(crate) fn push_key(key: &mut String, labels: &Labels, keep: impl Fn(&str) -> bool) {
    for (n, v) in labels.iter().filter(|(n, _)| keep(n)) {
        key.push_str(n);
        key.push('\u{0}');
        key.push_str(v);
        key.push('\u{1}');
    }
}

/// Which group each series belongs to.
pub(crate) struct Groups {
    /// The group of each series.
    pub(crate) ids: Vec<usize>,
    /// The labels of each group.
    pub(crate) labels: Vec<Labels>,
}

/// Whether a label stays in a group's labels.
fn keeps(grouping: Option<&Grouping>, name: &str) -> bool {
    match grouping {
        None => false,
        Some(g) if g.without => name != METRIC_NAME && !g.labels.iter().any(|l| l == name),
        Some(g) => g.labels.iter().any(|l| l == name),
    }
}

impl Groups {
    pub(crate) fn new(series: &[Meta], grouping: Option<&Grouping>) -> Self {
        let mut ids = Vec::with_capacity(series.len());
        let mut labels: Vec<Labels> = Vec::new();
        let mut by_key: HashMap<String, usize> = HashMap::new();
        let mut key = String::new();
        for meta in series {
            key.clear();
            push_key(&mut key, &meta.labels, |n| keeps(grouping, n));
            let id = match by_key.get(&key) {
                Some(id) => *id,
                None => {
                    labels.push(meta.labels.retain(|n| keeps(grouping, n)));
                    by_key.insert(key.clone(), labels.len() - 1);
                    labels.len() - 1
                }
            };
            ids.push(id);
        }
        Groups { ids, labels }
    }
}

pub(crate) fn aggregate(
    ev: &Evaluator<'_>,
    a: &Aggregate,
    span: Span,
    grid: Grid,
) -> Evaluated<Block> {
    if a.op == AggregateOp::CountValues {
        return count_values(ev, a, grid);
    }
    let param = match &a.param {
        Some(p) => ev.scalar(p, grid)?,
        None => Vec::new(),
    };
    let block = ev.vector(&a.expr, grid)?;
    match a.op {
        AggregateOp::Topk
        | AggregateOp::Bottomk
        | AggregateOp::Limitk
        | AggregateOp::LimitRatio => topk::keep(ev, a, &param, block, span),
        AggregateOp::Quantile => {
            let q_span = a.param.as_ref().map_or(span, |p| p.span);
            for q in &param {
                if !(0.0..=1.0).contains(q) {
                    ev.notes.add(Note::InvalidQuantile(*q), q_span);
                }
            }
            Ok(quantiles(ev, a, &param, &block))
        }
        AggregateOp::Sum | AggregateOp::Avg => Ok(sums(ev, a, &block)),
        _ => Ok(simple(ev, a, &block)),
    }
}

/// A block with a series for each group.
fn grouped(groups: &Groups, block: &Block) -> Block {
    let mut out = Block::new(block.steps);
    for labels in &groups.labels {
        out.push_series(Meta {
            labels: labels.clone(),
            drop_name: false,
        });
    }
    for (meta, id) in block.series.iter().zip(&groups.ids) {
        out.series[*id].drop_name |= meta.drop_name;
    }
    out
}

/// What a group has gathered at one step of a sum or mean.
#[derive(Debug, Clone, Default)]
struct Sums {
    floats: Option<Fold>,
    hists: Option<Box<HistMean>>,
    incompatible: bool,
}

#[derive(Debug, Clone, Copy)]
enum Fold {
    Sum(Kahan),
    Mean(Mean),
}

fn sums(ev: &Evaluator<'_>, a: &Aggregate, block: &Block) -> Block {
    let groups = Groups::new(&block.series, a.grouping.as_ref());
    let mut out = grouped(&groups, block);
    let steps = block.steps;
    if !block.has_hists() && a.op == AggregateOp::Sum {
        float_sums(ev, &groups, block, &mut out);
        return out;
    }
    let avg = a.op == AggregateOp::Avg;
    let mut cells = vec![Sums::default(); groups.labels.len() * steps];
    for (s, id) in groups.ids.iter().enumerate() {
        if ev.is_over(steps) {
            break;
        }
        for step in 0..steps {
            let cell = &mut cells[id * steps + step];
            if let Some(h) = block.hist(s, step) {
                add_hist(ev, a, cell, h, block.series[s].labels.name());
                continue;
            }
            let v = block.floats[s * steps + step];
            if is_absent(v) {
                continue;
            }
            match &mut cell.floats {
                Some(Fold::Sum(sum)) => sum.add(v),
                Some(Fold::Mean(mean)) => mean.add(v),
                None if avg => {
                    let mut mean = Mean::default();
                    mean.add(v);
                    cell.floats = Some(Fold::Mean(mean));
                }
                None => cell.floats = Some(Fold::Sum(Kahan::new(v))),
            }
        }
    }
    for (i, cell) in cells.into_iter().enumerate() {
        let value = finish_sum(ev, a, cell);
        out.set(i / steps.max(1), i % steps.max(1), value);
    }
    out.drop_empty();
    out
}

/// Sums of floats alone, column by column.
fn float_sums(ev: &Evaluator<'_>, groups: &Groups, block: &Block, out: &mut Block) {
    let steps = block.steps;
    let mut lost = vec![0.0; out.floats.len()];
    for (s, id) in groups.ids.iter().enumerate() {
        if ev.is_over(steps) {
            break;
        }
        let base = id * steps;
        for (step, v) in block.row(s).iter().enumerate() {
            if is_absent(*v) {
                continue;
            }
            let at = base + step;
            if is_absent(out.floats[at]) {
                out.floats[at] = *v;
                continue;
            }
            let mut sum = Kahan {
                sum: out.floats[at],
                lost: lost[at],
            };
            sum.add(*v);
            (out.floats[at], lost[at]) = (sum.sum, sum.lost);
        }
    }
    for (v, lost) in out.floats.iter_mut().zip(lost) {
        if !is_absent(*v) && !v.is_infinite() {
            *v += lost;
        }
    }
    out.drop_empty();
}

fn add_hist(ev: &Evaluator<'_>, a: &Aggregate, cell: &mut Sums, h: &Hist, name: &str) {
    if cell.incompatible {
        return;
    }
    match &mut cell.hists {
        None => cell.hists = Some(Box::new(HistMean::new(h, a.op == AggregateOp::Avg))),
        Some(sum) => {
            if sum.add(h) == Err(arith::Incompatible) {
                cell.incompatible = true;
                ev.notes
                    .add(Note::MixedSchemas(name.to_owned()), a.expr.span);
            }
        }
    }
}

fn finish_sum(ev: &Evaluator<'_>, a: &Aggregate, cell: Sums) -> Cell {
    match (cell.floats, cell.hists) {
        (None, None) => Cell::None,
        (Some(_), Some(_)) => {
            ev.notes.add(Note::MixedFloatsHistogramsAgg, a.expr.span);
            Cell::None
        }
        (Some(Fold::Sum(sum)), None) => Cell::Float(sum.total()),
        (Some(Fold::Mean(mean)), None) => Cell::Float(mean.value()),
        (None, Some(sum)) => {
            if sum.reconciled {
                ev.notes
                    .add(Note::BoundsReconciled("aggregation"), a.expr.span);
            }
            if cell.incompatible {
                return Cell::None;
            }
            if sum.collides() {
                ev.notes
                    .add(Note::ResetCollision("aggregation"), a.expr.span);
            }
            let mut h = sum.value();
            arith::compact(&mut h);
            Cell::Hist(Arc::new(h))
        }
    }
}

/// A running count, mean and spread.
#[derive(Debug, Clone, Copy, Default)]
struct Stats {
    count: f64,
    value: f64,
    mean: f64,
}

// === impl Stats ===

impl Stats {
    fn add(&mut self, op: AggregateOp, v: f64) {
        self.count += 1.0;
        let first = self.count == 1.0;
        match op {
            AggregateOp::Max if first || self.value < v || self.value.is_nan() => self.value = v,
            AggregateOp::Min if first || self.value > v || self.value.is_nan() => self.value = v,
            AggregateOp::Stddev | AggregateOp::Stdvar if first => {
                self.mean = v;
                self.value = if v.is_finite() { 0.0 } else { f64::NAN };
            }
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                let delta = v - self.mean;
                self.mean += delta / self.count;
                self.value += delta * (v - self.mean);
            }
            _ => {}
        }
    }

    fn result(&self, op: AggregateOp) -> f64 {
        match op {
            AggregateOp::Count => self.count,
            AggregateOp::Group => 1.0,
            AggregateOp::Stdvar => self.value / self.count,
            AggregateOp::Stddev => (self.value / self.count).sqrt(),
            _ => self.value,
        }
    }
}

fn simple(ev: &Evaluator<'_>, a: &Aggregate, block: &Block) -> Block {
    let groups = Groups::new(&block.series, a.grouping.as_ref());
    let mut out = grouped(&groups, block);
    let steps = block.steps;
    let counts_hists = matches!(a.op, AggregateOp::Count | AggregateOp::Group);
    let mut stats = vec![Stats::default(); groups.labels.len() * steps];
    for (s, id) in groups.ids.iter().enumerate() {
        if ev.is_over(steps) {
            break;
        }
        for step in 0..steps {
            let stat = &mut stats[id * steps + step];
            if block.hist(s, step).is_some() {
                if counts_hists {
                    stat.add(a.op, 0.0);
                } else {
                    ev.notes
                        .add(Note::IgnoredInAggregation(a.op.name()), a.expr.span);
                }
                continue;
            }
            let v = block.floats[s * steps + step];
            if !is_absent(v) {
                stat.add(a.op, v);
            }
        }
    }
    for (v, stat) in out.floats.iter_mut().zip(&stats) {
        if stat.count > 0.0 {
            *v = stat.result(a.op);
        }
    }
    out.drop_empty();
    out
}

fn quantiles(ev: &Evaluator<'_>, a: &Aggregate, q: &[f64], block: &Block) -> Block {
    let groups = Groups::new(&block.series, a.grouping.as_ref());
    let mut out = grouped(&groups, block);
    if block.hists.iter().any(Option::is_some) {
        ev.notes
            .add(Note::IgnoredInAggregation(a.op.name()), a.expr.span);
    }
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); groups.labels.len()];
    for (s, id) in groups.ids.iter().enumerate() {
        members[*id].push(s);
    }
    let mut values: Vec<f64> = Vec::new();
    for (id, series) in members.iter().enumerate() {
        for (step, q) in q.iter().enumerate() {
            if ev.is_over(series.len()) {
                break;
            }
            values.clear();
            values.extend(
                series
                    .iter()
                    .map(|s| block.row(*s)[step])
                    .filter(|v| !is_absent(*v)),
            );
            if !values.is_empty() {
                out.set_float(id, step, quantile::of_values(*q, &mut values));
            }
        }
    }
    out.drop_empty();
    out
}

fn count_values(ev: &Evaluator<'_>, a: &Aggregate, grid: Grid) -> Evaluated<Block> {
    let label = match a.param.as_ref().map(|p| &p.unparen().kind) {
        Some(ExprKind::String(s)) => s.clone(),
        _ => String::new(),
    };
    if !is_label_name(&label) {
        return Err(QueryError::Execution(format!(
            "invalid label name {}",
            quote(&label)
        )));
    }
    let block = ev.vector(&a.expr, grid)?;
    let mut grouping = a.grouping.clone().unwrap_or_default();
    if !grouping.without {
        grouping.labels.push(label.clone());
    }
    let mut rows: HashMap<Labels, usize> = HashMap::new();
    let mut out = Block::new(grid.steps);
    for s in 0..block.len() {
        ev.tick(grid.steps)?;
        let mut last: Option<(u64, usize)> = None;
        for step in 0..grid.steps {
            let (text, bits) = match block.cell(s, step) {
                Cell::None => continue,
                Cell::Float(v) => (None, Some((v.to_bits(), v))),
                Cell::Hist(h) => (Some(to_text(&h)), None),
            };
            let row = match (last, bits) {
                (Some((seen, row)), Some((b, _))) if seen == b => row,
                _ => {
                    let value =
                        text.unwrap_or_else(|| bits.map_or(String::new(), |(_, v)| plain_float(v)));
                    let labels = block.series[s].labels.with(&label, &value);
                    let labels = labels.retain(|n| keeps(Some(&grouping), n));
                    let row = *rows.entry(labels.clone()).or_insert_with(|| {
                        out.push_series(Meta {
                            labels,
                            drop_name: false,
                        })
                    });
                    ev.check_size(out.len().saturating_mul(grid.steps))?;
                    last = bits.map(|(b, _)| (b, row));
                    row
                }
            };
            let at = row * grid.steps + step;
            let v = out.floats[at];
            out.floats[at] = if is_absent(v) { 1.0 } else { v + 1.0 };
        }
    }
    Ok(out)
}

/// A number without an exponent.
fn plain_float(v: f64) -> String {
    if v.is_finite() {
        format!("{v}")
    } else {
        crate::hist::bucket::go_float(v)
    }
}
