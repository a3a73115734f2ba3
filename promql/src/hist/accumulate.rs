//! Compensated (Kahan-Neumaier) sums of floats and of native histograms.
//!
//! Owns the running sum. Must not know queries.

use model::NativeHistogram;
use model::histogram::{ResetHint, from_indexed};

use super::arith::{
    Incompatible, Notes, above_threshold, adjust_hint, reconcile_zero, shared_bounds, sides,
    to_bounds,
};

/// A float sum and what rounding took from it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Kahan {
    pub(crate) sum: f64,
    pub(crate) lost: f64,
}

// === impl Kahan ===

impl Kahan {
    pub(crate) fn new(sum: f64) -> Self {
        Kahan { sum, lost: 0.0 }
    }

    pub(crate) fn add(&mut self, v: f64) {
        let t = self.sum + v;
        if t.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= v.abs() {
            self.lost += (self.sum - t) + v;
        } else {
            self.lost += (v - t) + self.sum;
        }
        self.sum = t;
    }

    pub(crate) fn total(self) -> f64 {
        if self.sum.is_infinite() {
            self.sum
        } else {
            self.sum + self.lost
        }
    }

    fn scale(&mut self, factor: f64) {
        self.sum *= factor;
        self.lost *= factor;
    }
}

/// A running sum of histograms.
#[derive(Debug, Clone)]
pub(crate) struct Sum {
    schema: i32,
    zero_threshold: f64,
    custom_values: Vec<f64>,
    hint: ResetHint,
    zero: Kahan,
    count: Kahan,
    sum: Kahan,
    positive: Vec<(i32, Kahan)>,
    negative: Vec<(i32, Kahan)>,
}

type KahanSide = Vec<(i32, Kahan)>;

// === impl Sum ===

impl Sum {
    pub(crate) fn new(h: &NativeHistogram) -> Self {
        let start =
            |side: Vec<(i32, f64)>| side.into_iter().map(|(i, c)| (i, Kahan::new(c))).collect();
        let (p, n) = sides(h, h.schema);
        Sum {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: h.custom_values.clone(),
            hint: h.reset_hint,
            zero: Kahan::new(h.zero_count),
            count: Kahan::new(h.count),
            sum: Kahan::new(h.sum),
            positive: start(p),
            negative: start(n),
        }
    }

    pub(crate) fn add(&mut self, other: &NativeHistogram) -> Result<Notes, Incompatible> {
        let custom = self.schema == model::histogram::CUSTOM_BUCKETS_SCHEMA;
        if custom != other.has_custom_buckets() {
            return Err(Incompatible);
        }
        let mut notes = Notes {
            reset_collision: adjust_hint(&mut self.hint, other.reset_hint),
            bounds_reconciled: false,
        };
        if custom {
            let (mine, mut theirs) = (&self.custom_values, other.positive().collect());
            if *mine != other.custom_values {
                notes.bounds_reconciled = true;
                let shared = shared_bounds(mine, &other.custom_values);
                theirs = to_bounds(other.positive(), &other.custom_values, &shared);
                self.positive = rebound(&self.positive, mine, &shared);
                self.custom_values = shared;
            }
            merge(&mut self.positive, &theirs);
        } else {
            self.add_exponential(other);
        }
        self.count.add(other.count);
        self.sum.add(other.sum);
        Ok(notes)
    }

    fn add_exponential(&mut self, other: &NativeHistogram) {
        if self.zero_threshold == other.zero_threshold {
            self.zero.add(other.zero_count);
        } else {
            // Rare: fall back to plain sums while the zero buckets are brought together.
            let mut plain = self.total();
            let zero = reconcile_zero(&mut plain, other);
            *self = Sum::new(&plain);
            self.zero.add(zero);
        }
        let schema = self.schema.min(other.schema);
        if schema < self.schema {
            for side in [&mut self.positive, &mut self.negative] {
                *side = coarsen(side, self.schema, schema);
            }
            self.schema = schema;
        }
        let (p, n) = sides(other, schema);
        merge(
            &mut self.positive,
            &above_threshold(p, schema, self.zero_threshold),
        );
        merge(
            &mut self.negative,
            &above_threshold(n, schema, self.zero_threshold),
        );
    }

    pub(crate) fn scale(&mut self, factor: f64) {
        let own = [&mut self.zero, &mut self.count, &mut self.sum];
        let buckets = self
            .positive
            .iter_mut()
            .chain(&mut self.negative)
            .map(|(_, k)| k);
        own.into_iter().chain(buckets).for_each(|k| k.scale(factor));
    }

    pub(crate) fn divide(&mut self, divisor: f64) {
        let own = [&mut self.zero, &mut self.count, &mut self.sum];
        let buckets = self
            .positive
            .iter_mut()
            .chain(&mut self.negative)
            .map(|(_, k)| k);
        own.into_iter().chain(buckets).for_each(|k| {
            k.sum /= divisor;
            k.lost /= divisor;
        });
    }

    pub(crate) fn overflows(&self) -> bool {
        let buckets = self.positive.iter().chain(&self.negative).map(|(_, k)| k);
        [&self.zero, &self.count, &self.sum]
            .into_iter()
            .chain(buckets)
            .any(|k| k.sum.is_infinite())
    }

    pub(crate) fn total(&self) -> NativeHistogram {
        let side = |side: &KahanSide| from_indexed(side.iter().map(|(i, k)| (*i, k.total())));
        let (positive_spans, positive_buckets) = side(&self.positive);
        let (negative_spans, negative_buckets) = side(&self.negative);
        NativeHistogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero.total(),
            count: self.count.total(),
            sum: self.sum.total(),
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: self.custom_values.clone(),
            reset_hint: self.hint,
        }
    }
}

fn merge(mine: &mut KahanSide, theirs: &[(i32, f64)]) {
    let mut at = 0;
    for (index, count) in theirs {
        while at < mine.len() && mine[at].0 < *index {
            at += 1;
        }
        match mine.get_mut(at) {
            Some((i, k)) if i == index => k.add(*count),
            _ => mine.insert(at, (*index, Kahan::new(*count))),
        }
    }
}

fn fold(out: &mut KahanSide, index: i32, k: Kahan) {
    match out.last_mut() {
        Some((i, last)) if *i == index => {
            last.add(k.sum);
            last.add(k.lost);
        }
        _ => out.push((index, k)),
    }
}

fn coarsen(side: &KahanSide, from: i32, to: i32) -> KahanSide {
    let mut out = Vec::with_capacity(side.len());
    for (i, k) in side {
        fold(&mut out, super::bucket::coarser(*i, from, to), *k);
    }
    out
}

fn rebound(side: &KahanSide, from: &[f64], to: &[f64]) -> KahanSide {
    let mut out = Vec::with_capacity(side.len());
    for (i, k) in side {
        let target = to_bounds(std::iter::once((*i, 0.0)), from, to);
        if let Some((index, _)) = target.first() {
            fold(&mut out, *index, *k);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_addends_are_not_lost() {
        let mut k = Kahan::new(1e100);
        k.add(1.0);
        k.add(-1e100);
        assert_eq!(k.total(), 1.0);
    }
}
