//! Aggregations that fold a group into one value: sum, avg, count, min, max, group, stddev, stdvar, quantile,
//! count_values.
//!
//! Owns the folds, each over rows as they come. Must not know topk and its kin, which keep series (that is `topk`).

use std::collections::HashMap;
use std::sync::Arc;

use model::Labels;

use super::block::{ABSENT, Block, Cell, Hist, Meta, is_absent};
use super::engine::QueryError;
use super::group::{Groups, keeps, members};
use super::notes::Note;
use super::over_time::{HistMean, Mean};
use super::row::Row;
use super::run::{Evaluated, Evaluator, Grid};
use super::topk;
use crate::hist::accumulate::Kahan;
use crate::hist::bucket::to_text;
use crate::hist::{arith, quantile};
use crate::syntax::ast::{Aggregate, AggregateOp, ExprKind, Span};
use crate::syntax::lexer::is_label_name;
use crate::syntax::print::quote;

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
    match a.op {
        AggregateOp::Topk
        | AggregateOp::Bottomk
        | AggregateOp::Limitk
        | AggregateOp::LimitRatio => {
            let block = ev.vector(&a.expr, grid)?;
            topk::keep(ev, a, &param, block, span)
        }
        AggregateOp::Quantile => {
            let block = ev.vector(&a.expr, grid)?;
            let q_span = a.param.as_ref().map_or(span, |p| p.span);
            for q in &param {
                if !(0.0..=1.0).contains(q) {
                    ev.notes.add(Note::InvalidQuantile(*q), q_span);
                }
            }
            Ok(quantiles(ev, a, &param, &block))
        }
        AggregateOp::Sum | AggregateOp::Avg => sums(ev, a, grid),
        _ => simple(ev, a, grid),
    }
}

/// What the groups have gathered at each step of a sum or mean: columns, group by group.
struct Sums {
    steps: usize,
    avg: bool,
    /// Of sums: so far, and what rounding took from it. Absent until there is a float.
    floats: Vec<f64>,
    lost: Vec<f64>,
    means: Vec<Option<Mean>>,
    /// Empty until there is a histogram.
    hists: Vec<Hists>,
}

/// The histograms of one group at one step.
#[derive(Debug, Clone, Default)]
struct Hists {
    sum: Option<Box<HistMean>>,
    incompatible: bool,
}

// === impl Sums ===

impl Sums {
    /// Makes room for a group.
    fn grow(&mut self, groups: usize) {
        let cells = groups * self.steps;
        if self.avg {
            self.means.resize(cells, None);
        } else if self.floats.len() < cells {
            self.floats.resize(cells, ABSENT);
            self.lost.resize(cells, 0.0);
        }
        if !self.hists.is_empty() {
            self.hists.resize(cells, Hists::default());
        }
    }

    fn add_floats(&mut self, id: usize, row: &[f64]) {
        let cells = id * self.steps..(id + 1) * self.steps;
        if self.avg {
            for (mean, v) in self.means[cells].iter_mut().zip(row) {
                if !is_absent(*v) {
                    mean.get_or_insert_default().add(*v);
                }
            }
            return;
        }
        let (sums, lost) = (&mut self.floats[cells.clone()], &mut self.lost[cells]);
        let gaps = |values: &[f64]| values.iter().fold(false, |any, v| any | is_absent(*v));
        if gaps(sums) || gaps(row) {
            for ((sum, lost), v) in sums.iter_mut().zip(lost).zip(row) {
                if is_absent(*v) {
                    continue;
                }
                if is_absent(*sum) {
                    *sum = *v;
                    continue;
                }
                add(sum, lost, *v);
            }
        } else {
            for ((sum, lost), v) in sums.iter_mut().zip(lost).zip(row) {
                add(sum, lost, *v);
            }
        }
    }

    fn hists(&mut self, id: usize, step: usize, groups: usize) -> &mut Hists {
        self.hists.resize(groups * self.steps, Hists::default());
        &mut self.hists[id * self.steps + step]
    }

    /// The float of a cell.
    fn float(&self, cell: usize) -> Option<f64> {
        if self.avg {
            return self.means[cell].map(|mean| mean.value());
        }
        let (sum, lost) = (self.floats[cell], self.lost[cell]);
        (!is_absent(sum)).then(|| Kahan { sum, lost }.total())
    }
}

/// [`Kahan::add`] without a branch that depends on the values.
#[inline]
fn add(sum: &mut f64, lost: &mut f64, v: f64) {
    let t = *sum + v;
    let larger = if sum.abs() >= v.abs() { *sum } else { v };
    let smaller = if sum.abs() >= v.abs() { v } else { *sum };
    let next = *lost + ((larger - t) + smaller);
    *lost = if t.is_infinite() { 0.0 } else { next };
    *sum = t;
}

fn sums(ev: &Evaluator<'_>, a: &Aggregate, grid: Grid) -> Evaluated<Block> {
    let steps = grid.steps;
    let mut groups = Groups::new(a.grouping.as_ref());
    let mut sums = Sums {
        steps,
        avg: a.op == AggregateOp::Avg,
        floats: Vec::new(),
        lost: Vec::new(),
        means: Vec::new(),
        hists: Vec::new(),
    };
    ev.rows(&a.expr, grid, &mut |labels, drop_name, row| {
        let id = groups.id(labels, drop_name);
        ev.check_size(groups.len().saturating_mul(steps))?;
        ev.tick(steps)?;
        sums.grow(groups.len());
        sums.add_floats(id, &row.floats);
        for (step, h) in row.hists.iter().enumerate() {
            if let Some(h) = h {
                let hists = sums.hists(id, step, groups.len());
                add_hist(ev, a, hists, h, labels.name());
            }
        }
        Ok(())
    })?;
    let cells = groups.len() * steps;
    let mut out = groups.into_block(steps);
    let mut hists = std::mem::take(&mut sums.hists).into_iter();
    for cell in 0..cells {
        let hists = hists.next().unwrap_or_default();
        match (sums.float(cell), hists.sum) {
            (Some(v), None) => out.floats[cell] = v,
            (None, None) => {}
            (float, Some(sum)) => {
                let value = finish_hists(ev, a, float.is_some(), *sum, hists.incompatible);
                out.set(cell / steps, cell % steps, value);
            }
        }
    }
    out.drop_empty();
    Ok(out)
}

fn add_hist(ev: &Evaluator<'_>, a: &Aggregate, cell: &mut Hists, h: &Hist, name: &str) {
    if cell.incompatible {
        return;
    }
    match &mut cell.sum {
        None => cell.sum = Some(Box::new(HistMean::new(h, a.op == AggregateOp::Avg))),
        Some(sum) => {
            if sum.add(h) == Err(arith::Incompatible) {
                cell.incompatible = true;
                ev.notes
                    .add(Note::MixedSchemas(name.to_owned()), a.expr.span);
            }
        }
    }
}

/// The sum or mean of histograms; nothing when there were floats too, or when they did not fit together.
fn finish_hists(
    ev: &Evaluator<'_>,
    a: &Aggregate,
    floats: bool,
    sum: HistMean,
    incompatible: bool,
) -> Cell {
    if floats {
        ev.notes.add(Note::MixedFloatsHistogramsAgg, a.expr.span);
        return Cell::None;
    }
    if sum.reconciled {
        ev.notes
            .add(Note::BoundsReconciled("aggregation"), a.expr.span);
    }
    if incompatible {
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

fn simple(ev: &Evaluator<'_>, a: &Aggregate, grid: Grid) -> Evaluated<Block> {
    let steps = grid.steps;
    let counts_hists = matches!(a.op, AggregateOp::Count | AggregateOp::Group);
    let mut groups = Groups::new(a.grouping.as_ref());
    let mut stats: Vec<Stats> = Vec::new();
    let mut add = |labels: &Labels, drop_name: bool, row: &mut Row| {
        let id = groups.id(labels, drop_name);
        ev.check_size(groups.len().saturating_mul(steps))?;
        ev.tick(steps)?;
        stats.resize(groups.len() * steps, Stats::default());
        let cells = &mut stats[id * steps..(id + 1) * steps];
        for (stat, v) in cells.iter_mut().zip(&row.floats) {
            if !is_absent(*v) {
                stat.add(a.op, *v);
            }
        }
        for (step, _) in row.hists.iter().enumerate().filter(|(_, h)| h.is_some()) {
            if counts_hists {
                cells[step].add(a.op, 0.0);
            } else {
                ev.notes
                    .add(Note::IgnoredInAggregation(a.op.name()), a.expr.span);
            }
        }
        Ok(())
    };
    ev.rows(&a.expr, grid, &mut add)?;
    let mut out = groups.into_block(steps);
    for (v, stat) in out.floats.iter_mut().zip(&stats) {
        if stat.count > 0.0 {
            *v = stat.result(a.op);
        }
    }
    out.drop_empty();
    Ok(out)
}

fn quantiles(ev: &Evaluator<'_>, a: &Aggregate, q: &[f64], block: &Block) -> Block {
    let mut groups = Groups::new(a.grouping.as_ref());
    let members = members(&mut groups, &block.series);
    let mut out = groups.into_block(block.steps);
    if block.hists.iter().any(Option::is_some) {
        ev.notes
            .add(Note::IgnoredInAggregation(a.op.name()), a.expr.span);
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
