//! Binary operators: between scalars, between a vector and a scalar, between vectors.
//!
//! Owns vector matching. Must not know the arithmetic of histograms (that is `hist::arith`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::hashing::FoldState;
use model::{Labels, METRIC_NAME};

use super::block::{Block, Cell, Meta, is_absent, without_metadata};
use super::engine::QueryError;
use super::math;
use super::notes::Note;
use super::run::{Evaluated, Evaluator, Grid, Out};
use crate::hist::{arith, trim};
use crate::syntax::ast::{Binary, BinaryOp, Cardinality, Matching, Span, ValueType};

pub(crate) fn binary(ev: &Evaluator<'_>, b: &Binary, span: Span, grid: Grid) -> Evaluated<Out> {
    let scalar = |t: ValueType| t == ValueType::Scalar;
    match (scalar(b.lhs.value_type()), scalar(b.rhs.value_type())) {
        (true, true) => {
            let (l, r) = (ev.scalar(&b.lhs, grid)?, ev.scalar(&b.rhs, grid)?);
            Ok(Out::Scalar(
                l.into_iter()
                    .zip(r)
                    .map(|(l, r)| math::binary(b.op, l, r))
                    .collect(),
            ))
        }
        (false, true) => {
            let block = ev.vector(&b.lhs, grid)?;
            let scalars = ev.scalar(&b.rhs, grid)?;
            Ok(Out::Vector(with_scalar(
                ev, b, span, block, &scalars, false,
            )))
        }
        (true, false) => {
            let scalars = ev.scalar(&b.lhs, grid)?;
            let block = ev.vector(&b.rhs, grid)?;
            Ok(Out::Vector(with_scalar(ev, b, span, block, &scalars, true)))
        }
        (false, false) => {
            let (l, r) = (ev.vector(&b.lhs, grid)?, ev.vector(&b.rhs, grid)?);
            if b.op.is_set() {
                return set(b, l, &r).map(Out::Vector);
            }
            Vectors::new(ev, b, span, l, r).run().map(Out::Vector)
        }
    }
}

/// `swap`: the scalar is the left side.
fn with_scalar(
    ev: &Evaluator<'_>,
    b: &Binary,
    span: Span,
    mut block: Block,
    scalars: &[f64],
    swap: bool,
) -> Block {
    let compares = b.op.is_comparison();
    let steps = block.steps;
    if !block.has_hists() && !matches!(b.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
        for (i, v) in block.floats.iter_mut().enumerate() {
            if is_absent(*v) {
                continue;
            }
            let s = scalars[i % steps];
            let (l, r) = if swap { (s, *v) } else { (*v, s) };
            if !compares || b.return_bool {
                *v = math::binary(b.op, l, r);
            } else if !math::compare(b.op, l, r) {
                *v = super::block::ABSENT;
            }
        }
    } else {
        for s in 0..block.len() {
            for (step, scalar) in scalars.iter().enumerate() {
                let cell = block.cell(s, step);
                if matches!(cell, Cell::None) {
                    continue;
                }
                let (l, r) = if swap {
                    (Cell::Float(*scalar), cell.clone())
                } else {
                    (cell.clone(), Cell::Float(*scalar))
                };
                let (value, keep) = element(ev, b.op, l, r, span);
                let value = if matches!(value, Cell::None) {
                    Cell::None
                } else if b.return_bool {
                    Cell::Float(f64::from(u8::from(keep)))
                } else if !keep {
                    Cell::None
                } else if compares {
                    cell
                } else {
                    value
                };
                block.set(s, step, Cell::None);
                block.set(s, step, value);
            }
        }
    }
    if b.op.drops_name() || b.return_bool {
        block.series.iter_mut().for_each(|m| m.drop_name = true);
    }
    block.drop_empty();
    block
}

/// One operation on two values. `None` when it is not defined on them (which is then noted); else the value, and
/// whether a comparison holds.
fn element(ev: &Evaluator<'_>, op: BinaryOp, l: Cell, r: Cell, span: Span) -> (Cell, bool) {
    let wrong = |left: &'static str, right: &'static str| {
        ev.notes
            .add(Note::IncompatibleTypes(left, op.text(), right), span);
        (Cell::None, false)
    };
    match (l, r) {
        (Cell::None, _) | (_, Cell::None) => (Cell::None, false),
        (Cell::Float(a), Cell::Float(b)) => match op {
            BinaryOp::TrimLower | BinaryOp::TrimUpper => wrong("float", "float"),
            op if op.is_comparison() => (Cell::Float(a), math::compare(op, a, b)),
            op => (Cell::Float(math::binary(op, a, b)), true),
        },
        (Cell::Float(v), Cell::Hist(mut h)) if op == BinaryOp::Mul => {
            let changed = Arc::make_mut(&mut h);
            arith::mul(changed, v);
            arith::compact(changed);
            (Cell::Hist(h), true)
        }
        (Cell::Float(_), Cell::Hist(_)) => wrong("float", "histogram"),
        (Cell::Hist(mut h), Cell::Float(v)) => {
            let changed = Arc::make_mut(&mut h);
            match op {
                BinaryOp::Mul => arith::mul(changed, v),
                BinaryOp::Div => arith::div(changed, v),
                BinaryOp::TrimUpper => trim::trim(changed, v, true),
                BinaryOp::TrimLower => trim::trim(changed, v, false),
                _ => return wrong("histogram", "float"),
            }
            if matches!(op, BinaryOp::Mul | BinaryOp::Div) {
                arith::compact(changed);
            }
            (Cell::Hist(h), true)
        }
        (Cell::Hist(mut a), Cell::Hist(b)) => {
            let (result, what) = match op {
                BinaryOp::Add => (arith::add(Arc::make_mut(&mut a), &b), "addition"),
                BinaryOp::Sub => (arith::sub(Arc::make_mut(&mut a), &b), "subtraction"),
                BinaryOp::Equal => {
                    let same = arith::equal(&a, &b);
                    return (Cell::Hist(a), same);
                }
                BinaryOp::NotEqual => {
                    let same = arith::equal(&a, &b);
                    return (Cell::Hist(a), !same);
                }
                _ => return wrong("histogram", "histogram"),
            };
            let Ok(notes) = result else {
                ev.notes.add(Note::IncompatibleBuckets(op.text()), span);
                return (Cell::None, false);
            };
            if notes.reset_collision {
                ev.notes.add(Note::ResetCollision(what), span);
            }
            if notes.bounds_reconciled {
                ev.notes.add(Note::BoundsReconciled(what), span);
            }
            let sum = Arc::make_mut(&mut a);
            if op == BinaryOp::Sub {
                sum.reset_hint = model::histogram::ResetHint::Gauge;
            }
            arith::compact(sum);
            (Cell::Hist(a), true)
        }
    }
}

/// Whether a label takes part in matching.
fn matches_on(m: &Matching, name: &str) -> bool {
    if m.on {
        m.labels.iter().any(|l| l == name)
    } else {
        name != METRIC_NAME && !m.labels.iter().any(|l| l == name)
    }
}

/// Numbers the distinct matching labels of both sides.
fn signatures(m: &Matching, sides: [&Block; 2]) -> ([Vec<usize>; 2], usize) {
    let mut ids: HashMap<String, usize, FoldState> = HashMap::default();
    let mut key = String::new();
    let out = sides.map(|block| {
        let mut all = Vec::with_capacity(block.len());
        for meta in &block.series {
            key.clear();
            meta.labels.pack_retained(&mut key, |n| matches_on(m, n));
            let next = ids.len();
            let id = match ids.get(&key) {
                Some(id) => *id,
                None => {
                    ids.insert(key.clone(), next);
                    next
                }
            };
            all.push(id);
        }
        all
    });
    (out, ids.len())
}

fn set(b: &Binary, mut l: Block, r: &Block) -> Evaluated<Block> {
    let ([left, right], count) = signatures(&b.matching, [&l, r]);
    let steps = l.steps;
    let presence = |block: &Block, ids: &[usize]| {
        let mut present = vec![false; count * steps];
        for (s, id) in ids.iter().enumerate() {
            for step in 0..steps {
                present[id * steps + step] |= block.present(s, step);
            }
        }
        present
    };
    if b.op == BinaryOp::Or {
        let there = presence(&l, &left);
        for (s, id) in right.iter().enumerate() {
            let at = l.push_series(r.series[s].clone());
            for step in 0..steps {
                if !there[id * steps + step] {
                    l.set(at, step, r.cell(s, step));
                }
            }
            l.pop_if_empty();
        }
        if steps > 1 {
            l.merge_equal()?;
        }
        return Ok(l);
    }
    let there = presence(r, &right);
    for (s, id) in left.iter().enumerate() {
        for step in 0..steps {
            if there[id * steps + step] != (b.op == BinaryOp::And) {
                l.set(s, step, Cell::None);
            }
        }
    }
    l.drop_empty();
    Ok(l)
}

/// Stands for a series that is filled in.
const FILLED: usize = usize::MAX;

/// An operation between two vectors. With `group_right` the sides are swapped, so that `many` has more series.
struct Vectors<'a> {
    ev: &'a Evaluator<'a>,
    b: &'a Binary,
    span: Span,
    many: Block,
    one: Block,
    swapped: bool,
    rows: HashMap<(usize, usize), usize>,
    out: Block,
}

// === impl Vectors ===

impl<'a> Vectors<'a> {
    fn new(ev: &'a Evaluator<'a>, b: &'a Binary, span: Span, l: Block, r: Block) -> Self {
        let swapped = b.matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (r, l) } else { (l, r) };
        Vectors {
            ev,
            b,
            span,
            out: Block::new(many.steps),
            many,
            one,
            swapped,
            rows: HashMap::new(),
        }
    }

    fn run(mut self) -> Evaluated<Block> {
        let ([many_ids, one_ids], count) = signatures(&self.b.matching, [&self.many, &self.one]);
        let collect = |ids: &[usize]| {
            let mut by: Vec<Vec<usize>> = vec![Vec::new(); count];
            for (s, id) in ids.iter().enumerate() {
                by[*id].push(s);
            }
            by
        };
        let (many_by, one_by) = (collect(&many_ids), collect(&one_ids));
        let active = self.active_steps();
        let (fill_many, fill_one) = self.fills();
        for (manys, ones) in many_by.iter().zip(&one_by) {
            if (manys.is_empty() && fill_many.is_none()) || (ones.is_empty() && fill_one.is_none())
            {
                self.check_unique(ones, &active)?;
                continue;
            }
            self.ev.tick(active.len())?;
            if let ([m], [o]) = (manys.as_slice(), ones.as_slice())
                && self.pair(*m, *o)
            {
                continue;
            }
            for (step, active) in active.iter().enumerate() {
                if *active {
                    self.ev.tick(manys.len() + ones.len())?;
                    self.step(manys, ones, step, fill_many, fill_one)?;
                }
            }
        }
        self.out.drop_empty();
        if self.out.steps > 1 {
            self.out.merge_equal()?;
        }
        Ok(self.out)
    }

    /// One series against one, all steps at once; false when that takes more than floats.
    fn pair(&mut self, m: usize, o: usize) -> bool {
        let (op, steps) = (self.b.op, self.out.steps);
        let filled = self.fills() != (None, None);
        let trims = matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
        if filled || trims || self.many.has_hists() || self.one.has_hists() {
            return false;
        }
        let row = self.row(m, o);
        for step in 0..steps {
            let (m, o) = (self.many.row(m)[step], self.one.row(o)[step]);
            if is_absent(m) || is_absent(o) {
                continue;
            }
            let (l, r) = if self.swapped { (o, m) } else { (m, o) };
            if !op.is_comparison() || self.b.return_bool {
                self.out.set_float(row, step, math::binary(op, l, r));
            } else if math::compare(op, l, r) {
                self.out.set_float(row, step, l);
            }
        }
        self.out.pop_if_empty();
        true
    }

    /// What stands for a missing series of the many and of the one side.
    fn fills(&self) -> (Option<f64>, Option<f64>) {
        (self.b.matching.fill_left, self.b.matching.fill_right)
    }

    /// The steps at which there is anything to match.
    fn active_steps(&self) -> Vec<bool> {
        let any = |block: &Block, step: usize| (0..block.len()).any(|s| block.present(s, step));
        let (fill_many, fill_one) = self.fills();
        let filled = fill_many.is_some() || fill_one.is_some();
        (0..self.many.steps)
            .map(|step| {
                let (m, o) = (any(&self.many, step), any(&self.one, step));
                (m && o) || (filled && (m || o))
            })
            .collect()
    }

    /// The one side's series at a step. Errors when there is more than one.
    fn only(&self, ones: &[usize], step: usize) -> Evaluated<Option<usize>> {
        let mut present = ones.iter().copied().filter(|s| self.one.present(*s, step));
        let first = present.next();
        match (first, present.next()) {
            (Some(a), Some(b)) => Err(self.duplicate(a, b)),
            _ => Ok(first),
        }
    }

    fn check_unique(&self, ones: &[usize], active: &[bool]) -> Evaluated<()> {
        if ones.len() < 2 {
            return Ok(());
        }
        for step in (0..active.len()).filter(|s| active[*s]) {
            self.ev.tick(ones.len())?;
            self.only(ones, step)?;
        }
        Ok(())
    }

    fn duplicate(&self, a: usize, b: usize) -> QueryError {
        let matched = self.one.series[a]
            .labels
            .retain(|n| matches_on(&self.b.matching, n));
        let mut both = [a, b].map(|s| all_labels(&self.one.series[s].labels));
        both.sort();
        QueryError::Execution(format!(
            "found duplicate series for the match group {} on the {} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            all_labels(&matched),
            if self.swapped { "left" } else { "right" },
            both[0],
            both[1]
        ))
    }

    fn step(
        &mut self,
        manys: &[usize],
        ones: &[usize],
        step: usize,
        fill_many: Option<f64>,
        fill_one: Option<f64>,
    ) -> Evaluated<()> {
        let one = self.only(ones, step)?;
        let explicit = self.b.matching.cardinality != Cardinality::OneToOne;
        let mut matched = 0;
        let mut seen: HashSet<Labels> = HashSet::new();
        for m in manys
            .iter()
            .copied()
            .filter(|m| self.many.present(*m, step))
            .collect::<Vec<_>>()
        {
            let (o, cell) = match (one, fill_one) {
                (Some(o), _) => (o, self.one.cell(o, step)),
                (None, Some(v)) => (FILLED, Cell::Float(v)),
                (None, None) => continue,
            };
            let Some(row) = self.apply((m, self.many.cell(m, step)), (o, cell), step) else {
                continue;
            };
            matched += 1;
            if !explicit && matched > 1 {
                return Err(QueryError::execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
            if explicit && manys.len() > 1 && !seen.insert(self.out.series[row].labels.clone()) {
                return Err(QueryError::execution(
                    "multiple matches for labels: grouping labels must ensure unique matches",
                ));
            }
        }
        if let (Some(o), 0, Some(v)) = (one, matched, fill_many) {
            let cell = self.one.cell(o, step);
            self.apply((FILLED, Cell::Float(v)), (o, cell), step);
        }
        Ok(())
    }

    /// One pair at one step; its row in the output, or `None` when the operation is not defined on it.
    fn apply(&mut self, m: (usize, Cell), o: (usize, Cell), step: usize) -> Option<usize> {
        let (m_at, o_at) = (m.0, o.0);
        let (l, r) = if self.swapped { (o.1, m.1) } else { (m.1, o.1) };
        let (value, keep) = element(self.ev, self.b.op, l, r, self.span);
        if matches!(value, Cell::None) {
            return None;
        }
        let row = self.row(m_at, o_at);
        if self.b.return_bool {
            self.out.set_float(row, step, f64::from(u8::from(keep)));
        } else if keep {
            self.out.set(row, step, value);
        }
        Some(row)
    }

    fn row(&mut self, m: usize, o: usize) -> usize {
        if let Some(row) = self.rows.get(&(m, o)) {
            return *row;
        }
        let matching = &self.b.matching;
        let filled = |other: &Meta| Meta {
            labels: other.labels.retain(|n| matches_on(matching, n)),
            drop_name: false,
        };
        let (many, one) = match (self.many.series.get(m), self.one.series.get(o)) {
            (Some(m), Some(o)) => (m.clone(), o.clone()),
            (Some(m), None) => (m.clone(), filled(m)),
            (None, Some(o)) => (filled(o), o.clone()),
            (None, None) => {
                return self.out.push_series(Meta {
                    labels: Labels::empty(),
                    drop_name: true,
                });
            }
        };
        let meta = Meta {
            labels: result_labels(self.b, &many.labels, &one.labels),
            drop_name: self.b.return_bool || (many.drop_name && !self.b.op.drops_name()),
        };
        let row = self.out.push_series(meta);
        self.rows.insert((m, o), row);
        row
    }
}

fn result_labels(b: &Binary, many: &Labels, one: &Labels) -> Labels {
    let m = &b.matching;
    let mut labels = many.clone();
    if b.op.drops_name() {
        labels = without_metadata(&labels);
    }
    if m.cardinality == Cardinality::OneToOne {
        labels = labels.retain(|n| m.labels.iter().any(|l| l == n) == m.on);
    }
    for name in &m.include {
        labels = labels.with(name, one.get(name).unwrap_or(""));
    }
    labels
}

/// Labels with the name among them, as Go's library prints them.
fn all_labels(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}
