//! Owns by how much one series of seconds lies above others, and how sure that is: robust locations of what each run adds
//! to their common course, and an error that holds for seconds that resemble their neighbours and for runs that differ
//! anyway. Pure. Must not know what the series measure.

use std::f64::consts::PI;

use super::student::{critical, two_sided};

/// Relative error of a value that a histogram keeps with three digits: uniform, 0.1 % wide.
const ROUNDED: f64 = 1e-3 * 0.289;
/// Where a weight of [`Robust::Redescending`] ends, in standard deviations (Tukey's biweight at 95 % efficiency).
const REJECTED: f64 = 4.685;
/// Where an influence of [`Robust::Bounded`] ends (Huber).
const BOUND: f64 = 2.5;
/// So many seconds on either side tell the course where it is smooth.
const AROUND: usize = 3;
/// Ups and downs so many times as large as the noise makes them are not smooth.
pub(super) const SWINGS: f64 = 2.0;
/// A second is disturbed that lies so many standard deviations off.
const FAR: f64 = 3.0;
/// The neighbours are asked where more than this share of the seconds is disturbed.
pub(super) const DISTURBED: f64 = 0.1;
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

/// A location, and what each value adds to it.
type Located = (f64, Vec<f64>);

/// How far a run lies above its baselines, in logarithms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Shift {
    pub(super) by: f64,
    /// Half the length of its 95 % interval.
    pub(super) wide: f64,
    /// Chance of such a shift between runs that do not differ.
    pub(super) p: f64,
    /// By how much the runs drift apart while they last; 0 when they do not.
    pub(super) apart: f64,
}

/// How far the first of several runs lies above the mean of the others, its baselines. Each is a series of logarithms
/// of one length, less [`course`], so that what all have, such as a cold start, cancels.
///
/// The error within the runs is that of a mean whose neighbours resemble each other: the power of the differences at
/// their lowest frequencies (Lazarus, Lewis, Stock, Watson, "HAR Inference", Journal of Business & Economic Statistics
/// 36, 2018), with as many degrees of freedom: 0.5 n^(2/3) of them for the level, 0.8 n^(2/3) where many questions ask for
/// a stricter test. One baseline tells no more than that, and by how much the runs drift apart: see [`Shift::against`].
/// Several tell how much runs differ besides; the larger of both errors holds, which no variation between runs, however
/// large, makes cry wolf: see [`between`].
pub(super) fn shift(runs: &[Vec<f64>], robust: Robust) -> Shift {
    let each: Vec<Located> = runs.iter().map(|r| location(r, robust)).collect();
    let Some(((level, own), baselines)) = each.split_first() else {
        return Shift::default();
    };
    let k = baselines.len() as f64;
    let mean = |of: &dyn Fn(&Located) -> f64| baselines.iter().map(of).sum::<f64>() / k;
    let by = level - mean(&|b| b.0);
    let influence: Vec<f64> = (0..own.len()).map(|t| own[t] - mean(&|b| b.1[t])).collect();
    let n = influence.len() as f64;
    let share = match robust {
        Robust::Redescending => 0.5,
        Robust::Bounded => 0.8,
    };
    let frequencies = (share * n.powf(2.0 / 3.0)).round().max(2.0).min(n - 1.0);
    let power: f64 = (1..=frequencies as usize)
        .map(|k| power(&influence, k))
        .sum();
    let rounded = (1.0 + 1.0 / k) * ROUNDED * ROUNDED;
    let error = ((power / frequencies).max(rounded) / n).sqrt();
    let within = Shift {
        by,
        wide: critical(frequencies) * error,
        p: two_sided(by / error, frequencies),
        apart: 0.0,
    };
    let levels: Vec<f64> = baselines.iter().map(|b| b.0).collect();
    match between(&levels, by) {
        Some(runs) => Shift {
            by,
            wide: within.wide.max(runs.wide),
            p: within.p.max(runs.p),
            apart: 0.0,
        },
        None => Shift {
            apart: drift(&influence).unwrap_or(0.0),
            ..within
        },
    }
}

/// What the levels of the baselines say of a run that lies so far above their mean: Student's t for one more run of the
/// same kind, with one degree of freedom less than there are baselines. None of fewer than two.
fn between(levels: &[f64], by: f64) -> Option<Shift> {
    let k = levels.len() as f64;
    let freedom = k - 1.0;
    if levels.len() < 2 {
        return None;
    }
    let mean = levels.iter().sum::<f64>() / k;
    let spread = levels.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / freedom;
    let error = (spread * (1.0 + 1.0 / k)).sqrt().max(1e-12);
    Some(Shift {
        by,
        wide: critical(freedom) * error,
        p: two_sided(by / error, freedom),
        apart: 0.0,
    })
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

/// The series cut to the length of the shortest: of a longer one several seconds stand for one.
pub(super) fn aligned(runs: &[&[f64]]) -> Vec<Vec<f64>> {
    let n = runs.iter().map(|r| r.len()).min().unwrap_or_default();
    let mean = |of: &[f64], i: usize| {
        let part = &of[i * of.len() / n..(i + 1) * of.len() / n];
        part.iter().sum::<f64>() / part.len() as f64
    };
    runs.iter()
        .map(|r| (0..n).map(|i| mean(r, i)).collect())
        .collect()
}

/// What runs go through together, second by second.
#[derive(Debug, Clone)]
pub(super) struct Course {
    /// From each second alone.
    each: Vec<f64>,
    /// From the neighbouring seconds, too.
    smooth: Vec<f64>,
    /// How much larger the ups and downs of `each` are than the runs' own noise makes them: about 1 where it is smooth.
    pub(super) swings: f64,
    /// Share of the seconds in which a run lies further from `each` than its noise explains.
    pub(super) disturbed: f64,
}

/// The course of runs of one length.
pub(super) fn course(runs: &[Vec<f64>]) -> Course {
    let n = runs.first().map_or(0, Vec::len);
    let middle = |t: usize, around: usize, robust, deviation| {
        let near = t.saturating_sub(around)..(t + around + 1).min(n);
        let values: Vec<f64> = runs
            .iter()
            .flat_map(|r| &r[near.clone()])
            .copied()
            .collect();
        located(&values, robust, deviation).0
    };
    let scale = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        half(&values).max(ROUNDED)
    };
    let each: Vec<f64> = (0..n)
        .map(|t| middle(t, 0, Robust::Bounded, None))
        .collect();
    let less =
        |values: &[f64]| -> Vec<f64> { values.iter().zip(&each).map(|(v, e)| v - e).collect() };
    let around: Vec<f64> = runs.iter().flat_map(|r| less(r)).collect();
    let noise = scale(around.clone());
    let far = around.iter().filter(|v| v.abs() > FAR * noise).count();
    let others = runs.len() as f64 - 1.0;
    let own = noise * ((others + 1.0) / others).sqrt();
    let smooth: Vec<f64> = (0..n)
        .map(|t| middle(t, AROUND, Robust::Redescending, Some(own)))
        .collect();
    let swings = scale(less(&smooth));
    Course {
        swings: swings / noise * others.sqrt(),
        disturbed: far as f64 / around.len().max(1) as f64,
        each,
        smooth,
    }
}

impl Course {
    /// The runs less their course. Taken from the neighbours it is not moved by a pause in one run, which then hides that
    /// second of that run only; where the load jumps or swings each second must tell for itself.
    pub(super) fn less(&self, runs: &[Vec<f64>], smooth: bool) -> Vec<Vec<f64>> {
        let course = if smooth { &self.smooth } else { &self.each };
        let less = |r: &Vec<f64>| r.iter().zip(course).map(|(v, c)| v - c).collect();
        runs.iter().map(less).collect()
    }
}

/// How much each of several measures of one thing should count so that their mean varies least, from what each second
/// adds to their [`location`]: the inverse of their covariance (the off-diagonal shrunk by a tenth), none below zero. They
/// sum to 1.
pub(super) fn weights(each: &[Vec<f64>]) -> Vec<f64> {
    let k = each.len();
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
pub(super) fn location(values: &[f64], robust: Robust) -> Located {
    located(values, robust, None)
}

/// The same, of values whose standard deviation is known; otherwise it is that of [`half`].
fn located(values: &[f64], robust: Robust, deviation: Option<f64>) -> Located {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    if n == 0 {
        return (0.0, Vec::new());
    }
    let mut at = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
    let scale = deviation.unwrap_or_else(|| half(&sorted)).max(ROUNDED);
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
        let influence = |v: &[f64]| location(v, Robust::Redescending).1;
        let w = weights(&[influence(&noisy), influence(&calm)]);
        assert!(w[1] > 0.9 && (w[0] + w[1] - 1.0).abs() < 1e-9, "{w:?}");
    }

    /// A run and one baseline that differ by these.
    fn pair(differences: &[f64]) -> Vec<Vec<f64>> {
        vec![differences.to_vec(), vec![0.0; differences.len()]]
    }

    /// A minute of a run at this level: noise of 0.2 %, the level exact.
    fn minute(level: f64, run: usize) -> Vec<f64> {
        let noise = |t: u64| {
            let drawn = crate::schedule::mix(run as u64, t, 9) >> 11;
            0.002 * crate::truth::normal_quantile((drawn as f64 + 0.5) / (1_u64 << 53) as f64)
        };
        let mut values: Vec<f64> = (0..60).map(noise).collect();
        let off = location(&values, Robust::Redescending).0;
        values.iter_mut().for_each(|v| *v += level - off);
        values
    }

    #[test]
    fn a_difference_that_grows_while_the_runs_last_is_no_shift() {
        let noise = |i: usize| f64::from((i * 31 % 17) as u8) / 2000.0 - 0.004;
        let grows: Vec<f64> = (0..60).map(|i| i as f64 * 0.001 + noise(i)).collect();
        let found = shift(&pair(&grows), Robust::Bounded);
        let found = found.against(found.apart);
        assert!(found.p == 1.0 && found.wide > found.by, "{found:?}");
        let steady: Vec<f64> = (0..60).map(|i| 0.03 + noise(i)).collect();
        let found = shift(&pair(&steady), Robust::Bounded);
        assert!(
            found.p < 0.001 && (found.by - 0.03).abs() < 0.002,
            "{found:?}"
        );
    }

    #[test]
    fn runs_of_different_lengths_are_compared_by_their_course() {
        let before: Vec<f64> = (0..10).map(f64::from).collect();
        let after: Vec<f64> = (0..25).map(|i| f64::from(i) * 0.4 + 1.0).collect();
        let found = aligned(&[&after, &before]);
        assert!(found.iter().all(|r| r.len() == 10));
        let apart = |t: usize| found[0][t] - found[1][t];
        assert!((0..10).all(|t| (apart(t) - 1.2).abs() < 0.31), "{found:?}");
    }

    #[test]
    fn a_course_is_smooth_unless_the_load_swings() {
        let runs = |shape: &dyn Fn(f64) -> f64| -> Vec<Vec<f64>> {
            let shaped = |run| -> Vec<f64> {
                let seconds = minute(0.0, run).into_iter().enumerate();
                seconds.map(|(t, v)| shape(t as f64) + v).collect()
            };
            (0..3).map(shaped).collect()
        };
        for (smooth, shape) in [
            (true, &(|_| 0.0) as &dyn Fn(f64) -> f64),
            (true, &|t| t / 50.0),
            (true, &|t| f64::from(u8::from(t >= 30.0))),
            (false, &|t| (t * 1.3).sin()),
            (false, &|t| t % 5.0),
        ] {
            let course = course(&runs(shape));
            assert_eq!(course.swings < SWINGS, smooth, "{}", course.swings);
        }
        // A pause in one run moves the course of that second only when it is told by that second alone.
        let mut runs = runs(&|_| 0.0);
        runs.truncate(2);
        runs[0][20] += 2.0;
        let course = course(&runs);
        assert!((course.disturbed - 1.0 / 60.0).abs() < 0.03, "{course:?}");
        assert!(course.less(&runs, true)[1][20].abs() < 0.01);
        assert!(course.less(&runs, false)[1][20] < -0.5);
    }

    #[test]
    fn baselines_that_are_alike_leave_the_error_within_the_runs() {
        let mut runs = vec![minute(0.0, 1); 4];
        runs[0] = minute(0.001, 2);
        let found = shift(&runs, Robust::Redescending);
        let single = shift(&runs[..2], Robust::Redescending);
        assert!(found.wide > 1e-4, "{found:?}");
        assert!(
            (found.wide / single.wide - 1.0).abs() < 1e-9,
            "{found:?} {single:?}"
        );
        let flat = shift(&vec![vec![1.0; 12]; 4], Robust::Redescending);
        assert!(flat.wide > 0.0 && flat.p == 1.0, "{flat:?}");
    }

    #[test]
    fn what_baselines_differ_by_is_students_t() {
        // Levels 0, 1 and 2 %: standard deviation 1 %, t with 2 degrees of freedom, one run against the mean of three.
        let found = between(&[0.0, 0.01, 0.02], 0.05).unwrap();
        let error = 0.01 * (4.0_f64 / 3.0).sqrt();
        assert!((found.wide - 4.302_65 * error).abs() < 1e-6, "{found:?}");
        assert!((found.p - two_sided(0.05 / error, 2.0)).abs() < 1e-12);
        assert_eq!(between(&[0.0], 0.05), None);
    }

    /// A run `by` above the mean of baselines at these levels.
    fn set(levels: &[f64], by: f64) -> Vec<Vec<f64>> {
        let mean = levels.iter().sum::<f64>() / levels.len() as f64;
        let run = std::iter::once(mean + by);
        let all = run.chain(levels.iter().copied()).enumerate();
        all.map(|(run, level)| minute(level, run)).collect()
    }

    fn several_baselines_obey_their_laws(levels: &[f64], by: f64, turn: usize, factor: f64) {
        let near = |a: Shift, b: Shift| {
            let apart = [a.by - b.by, a.wide - b.wide, a.p - b.p];
            assert!(apart.iter().all(|d| d.abs() < 1e-6), "{a:?} {b:?}");
        };
        let runs = set(levels, by);
        let found = shift(&runs, Robust::Redescending);
        assert!((found.by - by).abs() < 1e-6, "{found:?}");
        assert!((0.0..=1.0).contains(&found.p) && found.wide > 0.0 && found.apart == 0.0);
        // The order of the baselines does not matter.
        let mut turned = runs.clone();
        turned[1..].rotate_left(turn % levels.len());
        near(found, shift(&turned, Robust::Redescending));
        // Nor does the unit: all times so many times as long.
        let longer = |r: &Vec<f64>| r.iter().map(|v| v + factor).collect();
        let moved: Vec<Vec<f64>> = runs.iter().map(longer).collect();
        near(found, shift(&moved, Robust::Redescending));
        // Baselines that lie further apart make it less sure, never more.
        let mean = levels.iter().sum::<f64>() / levels.len() as f64;
        let wider: Vec<f64> = levels.iter().map(|l| mean + factor * (l - mean)).collect();
        let wide = shift(&set(&wider, by), Robust::Redescending);
        assert!(
            wide.wide >= found.wide - 1e-6 && wide.p >= found.p - 1e-6,
            "{found:?} {wide:?}"
        );
        // It is never surer than the baselines' own levels allow.
        let allowed = between(levels, by).unwrap();
        assert!(
            found.wide >= allowed.wide - 1e-6 && found.p >= allowed.p - 1e-4,
            "{found:?} {allowed:?}"
        );
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn laws_of_several_baselines(
            levels in proptest::collection::vec(-0.05..0.05_f64, 2..8),
            by in -0.1..0.1_f64,
            turn in 0..8_usize,
            factor in 1.5..4.0_f64,
        ) {
            several_baselines_obey_their_laws(&levels, by, turn, factor);
        }
    }
}
