//! Functions over histograms, classic and native.
//!
//! Owns the grouping of classic buckets. Must not know interpolation (that is `hist::quantile`).

use std::collections::HashMap;

use model::hashing::FoldState;
use model::{Labels, NativeHistogram};

use super::block::{Block, Meta, is_absent};
use super::labelfn::text;
use super::notes::Note;
use super::run::{Evaluated, Evaluator, Grid};
use crate::hist::accumulate::Kahan;
use crate::hist::bucket;
use crate::hist::quantile::{self, Classic, NanEffect};
use crate::syntax::ast::{Call, Expr, Span};

pub(crate) fn call(ev: &Evaluator<'_>, call: &Call, grid: Grid) -> Evaluated<Block> {
    match call.function.name {
        "histogram_quantile" => {
            let q = quantiles(ev, &call.args[0], grid)?;
            let input = Input::new(ev, &call.args[1], grid)?;
            Ok(input.quantile(ev, &q, None))
        }
        "histogram_quantiles" => {
            let input = Input::new(ev, &call.args[0], grid)?;
            let label = text(call, 1).to_owned();
            let mut out = Block::new(grid.steps);
            for arg in &call.args[2..] {
                let q = quantiles(ev, arg, grid)?;
                let name = open_metrics_float(q.first().copied().unwrap_or(f64::NAN));
                append(&mut out, input.quantile(ev, &q, Some((&label, &name))));
            }
            Ok(out)
        }
        "histogram_fraction" => {
            let lower = ev.scalar(&call.args[0], grid)?;
            let upper = ev.scalar(&call.args[1], grid)?;
            let input = Input::new(ev, &call.args[2], grid)?;
            Ok(input.fraction(ev, &lower, &upper))
        }
        name => {
            let block = ev.vector(&call.args[0], grid)?;
            let f: fn(&NativeHistogram) -> f64 = match name {
                "histogram_count" => |h| h.count,
                "histogram_sum" => |h| h.sum,
                "histogram_avg" => |h| h.sum / h.count,
                "histogram_stddev" => |h| variance(h).sqrt(),
                _ => variance,
            };
            Ok(map_hists(block, f))
        }
    }
}

fn quantiles(ev: &Evaluator<'_>, arg: &Expr, grid: Grid) -> Evaluated<Vec<f64>> {
    let all = ev.scalar(arg, grid)?;
    for q in &all {
        if !(0.0..=1.0).contains(q) {
            ev.notes.add(Note::InvalidQuantile(*q), arg.span);
        }
    }
    Ok(all)
}

/// A number as OpenMetrics writes a label of it.
fn open_metrics_float(v: f64) -> String {
    let text = bucket::go_float(v);
    if v.is_finite() && !text.contains(['.', 'e']) {
        format!("{text}.0")
    } else {
        text
    }
}

fn append(out: &mut Block, more: Block) {
    for s in 0..more.len() {
        let at = out.push_series(more.series[s].clone());
        for step in 0..more.steps {
            out.set(at, step, more.cell(s, step));
        }
    }
}

fn map_hists(mut block: Block, f: fn(&NativeHistogram) -> f64) -> Block {
    if !block.has_hists() {
        return Block::new(block.steps);
    }
    for (v, h) in block.floats.iter_mut().zip(&block.hists) {
        *v = h.as_ref().map_or(super::block::ABSENT, |h| f(h));
    }
    block.hists.clear();
    block.drop_empty();
    block.series.iter_mut().for_each(|m| m.drop_name = true);
    block
}

/// The variance, each bucket standing for its middle.
fn variance(h: &NativeHistogram) -> f64 {
    let mean = h.sum / h.count;
    let mut sum = Kahan::default();
    for b in bucket::all(h).iter().filter(|b| b.count != 0.0) {
        let middle = if h.has_custom_buckets() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            let mean = (b.upper * b.lower).sqrt();
            if b.upper < 0.0 { -mean } else { mean }
        };
        let delta = middle - mean;
        sum.add(b.count * delta * delta);
    }
    (sum.sum + sum.lost) / h.count
}

/// The series of one classic histogram.
struct Group {
    labels: Labels,
    drop_name: bool,
    /// Upper bound and row, in ascending order of the bound.
    buckets: Vec<(f64, usize)>,
}

/// An argument, its classic buckets grouped.
struct Input {
    block: Block,
    grid: Grid,
    span: Span,
    groups: Vec<Group>,
    /// For each row that holds native histograms: the classic group of the same labels.
    native: Vec<(usize, Option<usize>)>,
}

// === impl Input ===

impl Input {
    fn new(ev: &Evaluator<'_>, arg: &Expr, grid: Grid) -> Evaluated<Self> {
        let block = ev.vector(arg, grid)?;
        let mut groups: Vec<Group> = Vec::new();
        let mut by_key: HashMap<String, usize, FoldState> = HashMap::default();
        let mut native = Vec::new();
        let mut key = String::new();
        for (s, meta) in block.series.iter().enumerate() {
            let row = block.row(s);
            if block.has_hists() && (0..grid.steps).any(|step| block.hist(s, step).is_some()) {
                native.push((s, None));
            }
            if row.iter().all(|v| is_absent(*v)) {
                continue;
            }
            let le = meta.labels.get("le").unwrap_or("");
            let Ok(upper) = le.parse::<f64>() else {
                let note = Note::BadBucket(meta.labels.name().to_owned(), le.to_owned());
                ev.notes.add(note, arg.span);
                continue;
            };
            key.clear();
            meta.labels.pack_retained(&mut key, |n| n != "le");
            let group = match by_key.get(&key) {
                Some(g) => *g,
                None => {
                    groups.push(Group {
                        labels: meta.labels.retain(|n| n != "le"),
                        drop_name: true,
                        buckets: Vec::new(),
                    });
                    by_key.insert(key.clone(), groups.len() - 1);
                    groups.len() - 1
                }
            };
            groups[group].buckets.push((upper, s));
        }
        for g in &mut groups {
            g.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        for (s, group) in &mut native {
            key.clear();
            key.push_str(block.series[*s].labels.as_packed());
            *group = by_key.get(&key).copied();
        }
        Ok(Input {
            block,
            grid,
            span: arg.span,
            groups,
            native,
        })
    }

    /// Calls back for each native histogram and each classic one, at each step. Where both have the same labels,
    /// neither counts.
    fn each(
        &self,
        ev: &Evaluator<'_>,
        mut native: impl FnMut(&NativeHistogram, &str, usize) -> f64,
        mut classic: impl FnMut(&mut Vec<Classic>, &str, usize) -> f64,
    ) -> Block {
        let steps = self.block.steps;
        let mut out = Block::new(steps);
        let mut mixed: Vec<(usize, usize)> = Vec::new();
        for (s, group) in &self.native {
            let meta = &self.block.series[*s];
            let at = out.push_series(Meta {
                labels: meta.labels.clone(),
                drop_name: true,
            });
            for step in 0..steps {
                let Some(h) = self.block.hist(*s, step) else {
                    continue;
                };
                if ev.is_over(h.positive_buckets.len() + h.negative_buckets.len()) {
                    break;
                }
                if let Some(g) = group
                    && self.groups[*g]
                        .buckets
                        .iter()
                        .any(|(_, s)| !is_absent(self.block.row(*s)[step]))
                {
                    ev.notes.add(
                        Note::MixedClassicNative(meta.labels.name().to_owned()),
                        self.span,
                    );
                    mixed.push((*g, step));
                    continue;
                }
                out.set_float(at, step, native(h, meta.labels.name(), step));
            }
            out.pop_if_empty();
        }
        let mut buckets: Vec<Classic> = Vec::new();
        for (g, group) in self.groups.iter().enumerate() {
            let at = out.push_series(Meta {
                labels: group.labels.clone(),
                drop_name: group.drop_name,
            });
            for step in 0..steps {
                if ev.is_over(group.buckets.len()) {
                    break;
                }
                buckets.clear();
                for (upper, s) in &group.buckets {
                    let count = self.block.floats[s * steps + step];
                    if !is_absent(count) {
                        buckets.push(Classic {
                            upper: *upper,
                            count,
                        });
                    }
                }
                if !buckets.is_empty() && !mixed.contains(&(g, step)) {
                    out.set_float(at, step, classic(&mut buckets, group.labels.name(), step));
                }
            }
            out.pop_if_empty();
        }
        out
    }

    fn quantile(&self, ev: &Evaluator<'_>, q: &[f64], label: Option<(&str, &str)>) -> Block {
        let native = |h: &NativeHistogram, name: &str, step: usize| {
            let (value, effect) = quantile::native(q[step], h);
            match effect {
                NanEffect::None => {}
                NanEffect::Result => ev.notes.add(Note::QuantileNan(name.to_owned()), self.span),
                NanEffect::Skew => ev.notes.add(Note::QuantileSkew(name.to_owned()), self.span),
            }
            value
        };
        let classic = |buckets: &mut Vec<Classic>, name: &str, step: usize| {
            let (value, lifted) = quantile::classic(q[step], buckets);
            if let Some(lifted) = lifted {
                ev.notes
                    .forced_monotonic(name, self.span, self.grid.at(step), lifted);
            }
            value
        };
        let mut out = self.each(ev, native, classic);
        if let Some((label, value)) = label {
            for meta in &mut out.series {
                meta.labels = meta.labels.with(label, value);
            }
        }
        out
    }

    fn fraction(&self, ev: &Evaluator<'_>, lower: &[f64], upper: &[f64]) -> Block {
        let native = |h: &NativeHistogram, name: &str, step: usize| {
            let (value, left_out) = quantile::native_fraction(lower[step], upper[step], h);
            if left_out {
                ev.notes.add(Note::FractionNan(name.to_owned()), self.span);
            }
            value
        };
        let classic = |buckets: &mut Vec<Classic>, _: &str, step: usize| {
            quantile::classic_fraction(lower[step], upper[step], buckets)
        };
        self.each(ev, native, classic)
    }
}
