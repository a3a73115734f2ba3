//! Delta streams added up, so that everything kept is cumulative.
//!
//! Owns the running totals, bounded. Must not know OTLP's bytes.

use std::collections::{BTreeMap, HashMap};

use model::Labels;

/// Running totals by series.
#[derive(Debug)]
pub struct Deltas {
    max_streams: usize,
    numbers: HashMap<Labels, f64>,
    classic: HashMap<Labels, Classic>,
    exponential: HashMap<Labels, Exponential>,
}

/// A classic histogram: `counts` has one more element than `bounds`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Classic {
    /// Upper bounds, ascending.
    pub bounds: Vec<f64>,
    /// Observations per bucket, not cumulative.
    pub counts: Vec<u64>,
    /// All observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

/// An exponential histogram with OTLP's bucket indexes (bucket `i` is `(base^i, base^(i+1)]`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exponential {
    /// The resolution.
    pub scale: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Positive buckets that are not empty.
    pub positive: BTreeMap<i32, u64>,
    /// Negative buckets that are not empty.
    pub negative: BTreeMap<i32, u64>,
}

// === impl Deltas ===

impl Deltas {
    /// With room for `max_streams` streams.
    #[must_use]
    pub fn new(max_streams: usize) -> Self {
        Deltas {
            max_streams,
            numbers: HashMap::new(),
            classic: HashMap::new(),
            exponential: HashMap::new(),
        }
    }

    /// Adds to a sum; the total, or `None` when there is no room for a new stream.
    pub fn add_number(&mut self, labels: &Labels, value: f64) -> Option<f64> {
        if !self.numbers.contains_key(labels) && self.full() {
            return None;
        }
        let total = self.numbers.entry(labels.clone()).or_default();
        *total += value;
        Some(*total)
    }

    /// Adds to a classic histogram. Other bounds than before begin a new total.
    pub fn add_classic(&mut self, labels: &Labels, delta: &Classic) -> Option<Classic> {
        if !self.classic.contains_key(labels) && self.full() {
            return None;
        }
        let total = self.classic.entry(labels.clone()).or_default();
        if total.bounds != delta.bounds || total.counts.len() != delta.counts.len() {
            *total = delta.clone();
        } else {
            for (sum, n) in total.counts.iter_mut().zip(&delta.counts) {
                *sum = sum.saturating_add(*n);
            }
            total.count = total.count.saturating_add(delta.count);
            total.sum += delta.sum;
        }
        Some(total.clone())
    }

    /// Adds to an exponential histogram, at the coarser of the two scales.
    pub fn add_exponential(&mut self, labels: &Labels, delta: &Exponential) -> Option<Exponential> {
        if !self.exponential.contains_key(labels) && self.full() {
            return None;
        }
        let Some(total) = self.exponential.get_mut(labels) else {
            self.exponential.insert(labels.clone(), delta.clone());
            return Some(delta.clone());
        };
        let mut delta = delta.clone();
        let scale = total.scale.min(delta.scale);
        total.scale_down(scale);
        delta.scale_down(scale);
        for (sum, add) in [
            (&mut total.positive, &delta.positive),
            (&mut total.negative, &delta.negative),
        ] {
            for (index, n) in add {
                let slot = sum.entry(*index).or_default();
                *slot = slot.saturating_add(*n);
            }
        }
        total.zero_threshold = total.zero_threshold.max(delta.zero_threshold);
        total.zero_count = total.zero_count.saturating_add(delta.zero_count);
        total.count = total.count.saturating_add(delta.count);
        total.sum += delta.sum;
        Some(total.clone())
    }

    fn full(&self) -> bool {
        self.numbers.len() + self.classic.len() + self.exponential.len() >= self.max_streams
    }
}

impl Exponential {
    /// Merges buckets until the scale is at most `scale`.
    pub fn scale_down(&mut self, scale: i32) {
        let steps = self.scale.saturating_sub(scale);
        if steps <= 0 {
            return;
        }
        let steps = steps.unsigned_abs().min(31);
        for side in [&mut self.positive, &mut self.negative] {
            let mut merged = BTreeMap::new();
            for (index, n) in std::mem::take(side) {
                *merged.entry(index >> steps).or_insert(0u64) += n;
            }
            *side = merged;
        }
        self.scale = scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_add_up_until_there_is_no_room() {
        let mut deltas = Deltas::new(1);
        let (a, b) = (
            Labels::from_pairs([("a", "1")]),
            Labels::from_pairs([("a", "2")]),
        );
        assert_eq!(deltas.add_number(&a, 2.0), Some(2.0));
        assert_eq!(deltas.add_number(&a, 3.0), Some(5.0));
        assert_eq!(deltas.add_number(&b, 3.0), None);
    }

    #[test]
    fn exponential_deltas_meet_at_the_coarser_scale() {
        let mut deltas = Deltas::new(1);
        let labels = Labels::empty();
        let of = |scale, positive: &[(i32, u64)]| Exponential {
            scale,
            count: positive.iter().map(|(_, n)| n).sum(),
            positive: positive.iter().copied().collect(),
            ..Exponential::default()
        };
        deltas.add_exponential(&labels, &of(1, &[(-1, 1), (0, 1), (1, 1), (2, 1)]));
        let total = deltas.add_exponential(&labels, &of(0, &[(0, 5)])).unwrap();
        assert_eq!(total, of(0, &[(-1, 1), (0, 7), (1, 1)]));
    }
}
