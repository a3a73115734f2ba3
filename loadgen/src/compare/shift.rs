//! Owns by how much one series of seconds lies above another, and how sure that is: a robust location of the paired
//! differences, and an error that holds for seconds that resemble their neighbours. Pure.

use std::f64::consts::PI;

use super::student::{critical, two_sided};

/// Relative error of a value that a histogram keeps with three digits: uniform, 0.1 % wide.
const ROUNDED: f64 = 1e-3 * 0.289;
/// Where a weight of [`Robust::Redescending`] ends, in standard deviations (Tukey's biweight at 95 % efficiency).
const REJECTED: f64 = 4.685;
/// Where an influence of [`Robust::Bounded`] ends (Huber).
const BOUND: f64 = 2.5;
/// Chance that two runs without a trend seem to drift apart.
const TREND: f64 = 0.01;

/// What a second far from the others counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Robust {
    /// Nothing: the level between pauses.
    Redescending,
    /// A little, on the side it is on: many such seconds in one run only are a change.
    Bounded,
}

/// The weight of a value, and the slope of its influence, at a distance in units of where its weight ends.
type Weigh = fn(f64) -> (f64, f64);

/// How far one run lies above the other, in logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shift {
    pub(super) by: f64,
    /// Half the length of its 95 % interval.
    pub(super) wide: f64,
    /// Chance of such a shift between runs that do not differ.
    pub(super) p: f64,
    /// By how much the runs drift apart while they last; 0 when they do not.
    pub(super) apart: f64,
}

/// Compares two series of logarithms second by second: what both have, such as a cold start, cancels.
///
/// The error is that of a mean whose neighbours resemble each other: the power of the differences at their lowest
/// frequencies (Lazarus, Lewis, Stock, Watson, "HAR Inference", Journal of Business & Economic Statistics 36, 2018),
/// with as many degrees of freedom: 0.4 n^(2/3) of them for the level, twice as many where many questions ask for a
/// stricter test. See [`Shift::against`] for runs that drift.
pub(super) fn shift(differences: &[f64], robust: Robust) -> Shift {
    let n = differences.len() as f64;
    let (by, influence) = location(differences, robust);
    let share = match robust {
        Robust::Redescending => 0.5,
        Robust::Bounded => 0.8,
    };
    let frequencies = (share * n.powf(2.0 / 3.0)).round().max(2.0).min(n - 1.0);
    let power: f64 = (1..=frequencies as usize)
        .map(|k| power(&influence, k))
        .sum();
    let error = ((power / frequencies).max(2.0 * ROUNDED * ROUNDED) / n).sqrt();
    let wide = critical(frequencies) * error;
    Shift {
        by,
        wide,
        p: two_sided(by / error, frequencies),
        apart: drift(&influence).unwrap_or(0.0),
    }
}

impl Shift {
    /// The same where the runs drift apart by so much: a shift that is smaller is none.
    pub(super) fn against(self, apart: f64) -> Shift {
        if self.by.abs() >= apart {
            return self;
        }
        Shift {
            wide: self.wide.max(apart),
            p: 1.0,
            ..self
        }
    }
}

/// After less before, second by second; of the longer run several seconds stand for one of the shorter's.
pub(super) fn differences(before: &[f64], after: &[f64]) -> Vec<f64> {
    let n = before.len().min(after.len());
    let mean = |of: &[f64], i: usize| {
        let part = &of[i * of.len() / n..(i + 1) * of.len() / n];
        part.iter().sum::<f64>() / part.len() as f64
    };
    (0..n).map(|i| mean(after, i) - mean(before, i)).collect()
}

/// How much each of several measures of one thing should count so that their mean varies least: the inverse of their
/// covariance (the off-diagonal shrunk by a tenth), none below zero. They sum to 1.
pub(super) fn weights(differences: &[Vec<f64>]) -> Vec<f64> {
    let k = differences.len();
    let each: Vec<Vec<f64>> = differences
        .iter()
        .map(|d| location(d, Robust::Redescending).1)
        .collect();
    let covariance = |i: usize, j: usize| {
        let n = each[i].len().min(each[j].len()).max(1) as f64;
        let sum: f64 = each[i].iter().zip(&each[j]).map(|(a, b)| a * b).sum();
        sum / n * if i == j { 1.05 } else { 0.95 }
    };
    let mut rows: Vec<Vec<f64>> = (0..k)
        .map(|i| {
            let mut row: Vec<f64> = (0..k).map(|j| covariance(i, j)).collect();
            row[i] += ROUNDED * ROUNDED;
            row.push(1.0);
            row
        })
        .collect();
    // Gauss and Jordan; the diagonal of a covariance is never zero here.
    for i in 0..k {
        let pivot = rows[i][i].max(1e-18);
        rows[i].iter_mut().for_each(|v| *v /= pivot);
        let row = rows[i].clone();
        for (_, other) in rows.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let times = other[i];
            other
                .iter_mut()
                .zip(&row)
                .for_each(|(v, r)| *v -= times * r);
        }
    }
    let raw: Vec<f64> = rows.iter().map(|row| row[k].max(0.0)).collect();
    let all: f64 = raw.iter().sum();
    if all > 0.0 && all.is_finite() {
        raw.iter().map(|w| w / all).collect()
    } else {
        vec![1.0 / k as f64; k]
    }
}

/// Robust location (an M-estimate from the median on), and what each value adds to it: values whose mean has the
/// location's own error.
pub(super) fn location(values: &[f64], robust: Robust) -> (f64, Vec<f64>) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    if n == 0 {
        return (0.0, Vec::new());
    }
    let mut at = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
    let scale = half(&sorted).max(ROUNDED);
    let count = n as f64;
    let (end, weigh): (f64, Weigh) = match robust {
        Robust::Redescending => (REJECTED * scale, |x| {
            let inside = (1.0 - x * x).max(0.0);
            (inside * inside, inside * (1.0 - 5.0 * x * x))
        }),
        Robust::Bounded => (BOUND * scale, |x| {
            (1.0 / x.abs().max(1.0), f64::from(u8::from(x.abs() < 1.0)))
        }),
    };
    for _ in 0..50 {
        let (mut sum, mut all) = (0.0, 0.0);
        for v in values {
            let (w, _) = weigh((v - at) / end);
            sum += w * (v - at);
            all += w;
        }
        let step = sum / all.max(1e-9);
        at += step;
        if step.abs() < 1e-9 {
            break;
        }
    }
    let slope: f64 = values.iter().map(|v| weigh((v - at) / end).1).sum::<f64>() / count;
    let influence = values
        .iter()
        .map(|v| weigh((v - at) / end).0 * (v - at) / slope.max(0.2));
    (at, influence.collect())
}

/// The standard deviation as the shortest half of the values has it: pauses in up to half of the seconds do not widen it.
fn half(sorted: &[f64]) -> f64 {
    let h = sorted.len() / 2;
    let shortest = sorted.iter().zip(&sorted[h..]).map(|(a, b)| b - a);
    shortest.fold(f64::INFINITY, f64::min) / 1.349
}

/// The power at the k-th frequency of the cosine transform (type II).
fn power(values: &[f64], k: usize) -> f64 {
    let n = values.len() as f64;
    let each = values.iter().enumerate();
    let sum: f64 = each
        .map(|(t, v)| v * (PI * k as f64 * (t as f64 + 0.5) / n).cos())
        .sum();
    2.0 * sum * sum / n
}

/// By how much the differences grow from the first second to the last, when they do.
fn drift(influence: &[f64]) -> Option<f64> {
    let n = influence.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let spread = n * (n * n - 1.0) / 12.0;
    let mean = influence.iter().sum::<f64>() / n;
    let slope = influence
        .iter()
        .enumerate()
        .map(|(t, v)| (t as f64 - middle) * (v - mean))
        .sum::<f64>()
        / spread.max(1e-12);
    let rest: f64 = influence
        .iter()
        .enumerate()
        .map(|(t, v)| (v - mean - slope * (t as f64 - middle)).powi(2))
        .sum();
    let error = (rest / (n - 2.0).max(1.0) / spread)
        .sqrt()
        .max(ROUNDED / spread.sqrt());
    (two_sided(slope / error, (n - 2.0).max(1.0)) < TREND).then_some((slope * n).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_between_pauses_is_found_and_weights_prefer_what_varies_least() {
        let quiet = |i: usize| f64::from((i * 7 % 11) as u8) / 1000.0;
        let paused: Vec<f64> = (0..60)
            .map(|i| quiet(i) + if i % 3 == 0 { 1.0 } else { 0.0 })
            .collect();
        let (level, _) = location(&paused, Robust::Redescending);
        assert!((level - 0.005).abs() < 0.002, "{level}");
        let (pulled, _) = location(&paused, Robust::Bounded);
        assert!(
            pulled > level + 0.001,
            "a third of the seconds is a change: {pulled}"
        );
        let noisy: Vec<f64> = (0..60).map(|i| 20.0 * quiet(i * i)).collect();
        let calm: Vec<f64> = (0..60).map(quiet).collect();
        let w = weights(&[noisy, calm]);
        assert!(w[1] > 0.9 && (w[0] + w[1] - 1.0).abs() < 1e-9, "{w:?}");
    }

    #[test]
    fn a_difference_that_grows_while_the_runs_last_is_no_shift() {
        let noise = |i: usize| f64::from((i * 31 % 17) as u8) / 2000.0 - 0.004;
        let grows: Vec<f64> = (0..60).map(|i| i as f64 * 0.001 + noise(i)).collect();
        let found = shift(&grows, Robust::Bounded);
        let found = found.against(found.apart);
        assert!(found.p == 1.0 && found.wide > found.by, "{found:?}");
        let steady: Vec<f64> = (0..60).map(|i| 0.03 + noise(i)).collect();
        let found = shift(&steady, Robust::Bounded);
        assert!(
            found.p < 0.001 && (found.by - 0.03).abs() < 0.002,
            "{found:?}"
        );
    }

    #[test]
    fn runs_of_different_lengths_are_compared_by_their_course() {
        let before: Vec<f64> = (0..10).map(f64::from).collect();
        let after: Vec<f64> = (0..25).map(|i| f64::from(i) * 0.4 + 1.0).collect();
        let found = differences(&before, &after);
        assert_eq!(found.len(), 10);
        assert!(found.iter().all(|d| (d - 1.2).abs() < 0.31), "{found:?}");
    }
}
