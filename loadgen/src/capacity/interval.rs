//! Owns how sure the capacity is. Two ways, and the interval holds both: each rate's verdict is drawn again from
//! resampled slices and the boundary between met and not met placed anew; and, where a time rule binds, a line through
//! all rates' bound / time against the rate, which a queue near saturation follows. Pure, with a fixed seed.

use super::judge::{
    Judged, LEAST_GROWTH, Observed, RESAMPLES, Resampler, Slice, Verdict, Why, noise, steady,
};
use crate::gate::Rule;

/// The backlog grows when it does so by more than so many times its scatter; the growth's own error is about so many.
const GROWS: (f64, f64) = (3.0, 1.5);

/// How much further down the interval goes than its draws say: of several rates that are about as good a search keeps the
/// luckiest, and a step that begins with an empty queue shows less of it than there is. Answers lean upwards for both.
/// From simulated searches of seeds 1 to 40, checked on others (`bench/capacity simulate`).
const LEANS: f64 = 2.0;

/// All trials of one rate.
pub(super) struct Level<'a> {
    pub(super) rate: f64,
    pub(super) trials: &'a [Observed],
    pub(super) judged: &'a Judged,
}

/// The 95 % interval of the highest rate that meets the rules; its ends are rates that were tried, moved apart by what
/// a step of that length cannot resolve. The upper end is infinite when no rate was too high.
pub(super) fn interval(rules: &[Rule], levels: &[Level<'_>]) -> (f64, f64) {
    let (mut low, mut high) = (Vec::new(), Vec::new());
    let mut drawn: Vec<Draw<'_>> = levels.iter().map(|l| Draw::new(rules, l)).collect();
    for resample in 0..RESAMPLES {
        let met: Vec<bool> = drawn.iter_mut().map(|d| d.met(resample)).collect();
        let (lo, hi) = boundary(&met, levels);
        low.push(lo);
        high.push(hi);
    }
    low.sort_by(f64::total_cmp);
    high.sort_by(f64::total_cmp);
    let drawn = (at(&low, 0.025), at(&high, 0.975));
    let (low, high) = match line(rules, levels) {
        Some((low, high)) => (drawn.0.min(low), drawn.1.max(high)),
        None => drawn,
    };
    match levels.iter().rfind(|l| l.judged.verdict == Verdict::Under) {
        Some(met) => ((met.rate - LEANS * (met.rate - low)).max(0.0), high),
        None => (low, high),
    }
}

fn at(sorted: &[f64], q: f64) -> f64 {
    let i = (q * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(i).copied().unwrap_or_default()
}

/// A rate, bound / time there, and the error of that.
type Knot = (f64, f64, f64);

/// A line is believed when its slope is so many times its error.
const SLOPED: f64 = 3.0;

/// Where the line through bound / time meets 1: a 95 % interval. None when no time rule binds, when there are fewer
/// than three rates, or when the time does not change with the rate (then only the backlog limits).
fn line(rules: &[Rule], levels: &[Level<'_>]) -> Option<(f64, f64)> {
    let lo = levels
        .iter()
        .rfind(|l| l.judged.verdict == Verdict::Under)?;
    let nearness = |rule: &Rule, level: &Level<'_>| {
        let values = Resampler::new(rules, level.trials).values(slices_of(level));
        let i = rules.iter().position(|r| r == rule)?;
        Some(rule.bound_us()? / values[i].filter(|v| *v > 0.0)?)
    };
    let binding = rules
        .iter()
        .filter(|r| r.latency_quantile().is_some())
        .filter_map(|r| Some((r, nearness(r, lo)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let (rule, _) = binding.filter(|(_, z)| *z < 4.0)?;
    let near = levels.iter().filter(|l| {
        l.rate >= 0.5 * lo.rate && !matches!(l.judged.verdict, Verdict::Over(Why::Backlog))
    });
    let knots: Vec<Knot> = near.filter_map(|l| knot(rules, rule, l)).collect();
    if knots.len() < 3 {
        return None;
    }
    let (alpha, beta, error) = fit(&knots);
    let chi: f64 = knots
        .iter()
        .map(|(r, z, e)| ((z - alpha - beta * r) / e).powi(2))
        .sum();
    // What the points scatter more than their own errors say is error too.
    let wider = (chi / (knots.len() - 2) as f64).sqrt().max(1.0);
    if beta >= 0.0 || -beta < SLOPED * error * wider {
        return None;
    }
    let (least, most) = (lo.rate * 0.5, lo.rate * 2.0);
    let mut crossings: Vec<f64> = (0..RESAMPLES)
        .map(|resample| {
            let moved: Vec<Knot> = knots
                .iter()
                .map(|(r, z, e)| (*r, z + e * wider * noise(r.to_bits(), resample), *e))
                .collect();
            let (alpha, beta, _) = fit(&moved);
            if beta < 0.0 {
                ((1.0 - alpha) / beta).clamp(least, most)
            } else {
                most
            }
        })
        .collect();
    crossings.sort_by(f64::total_cmp);
    Some((at(&crossings, 0.025), at(&crossings, 0.975)))
}

fn slices_of<'a>(level: &Level<'a>) -> impl Iterator<Item = &'a Slice> {
    level.trials.iter().flat_map(|t| steady(&t.slices))
}

fn knot(rules: &[Rule], rule: &Rule, level: &Level<'_>) -> Option<Knot> {
    let i = rules.iter().position(|r| r == rule)?;
    let bound = rule.bound_us()?;
    let all: Vec<&Slice> = slices_of(level).collect();
    let mut resampler = Resampler::new(rules, level.trials);
    let seen = resampler.values(all.iter().copied());
    let error = resampler.errors(&all, &seen)[i]?;
    let z = bound / seen[i].filter(|v| *v > 0.0)?;
    Some((level.rate, z, z * error.max(0.02)))
}

/// Weighted least squares: intercept, slope, the slope's error.
fn fit(knots: &[Knot]) -> (f64, f64, f64) {
    let weight = |e: f64| 1.0 / (e * e).max(1e-18);
    let all: f64 = knots.iter().map(|k| weight(k.2)).sum();
    let mean = |of: fn(&Knot) -> f64| knots.iter().map(|k| weight(k.2) * of(k)).sum::<f64>() / all;
    let (r, z) = (mean(|k| k.0), mean(|k| k.1));
    let spread: f64 = knots.iter().map(|k| weight(k.2) * (k.0 - r).powi(2)).sum();
    let both: f64 = knots
        .iter()
        .map(|k| weight(k.2) * (k.0 - r) * (k.1 - z))
        .sum();
    let slope = both / spread.max(1e-18);
    (z - slope * r, slope, spread.max(1e-18).sqrt().recip())
}

/// Where the rates met end and those not met begin, with the fewest seconds on the wrong side; of equally good places
/// the lowest and the highest.
fn boundary(met: &[bool], levels: &[Level<'_>]) -> (f64, f64) {
    let weight = |l: &Level<'_>| l.judged.steady_s.max(0.1);
    let cost = |cut: usize| -> f64 {
        let sides = met.iter().zip(levels).enumerate();
        sides
            .filter(|(i, (met, _))| **met != (*i < cut))
            .map(|(_, (_, level))| weight(level))
            .sum()
    };
    let costs: Vec<f64> = (0..=levels.len()).map(cost).collect();
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let good = |c: &f64| *c <= least + 1e-9;
    let first = costs.iter().position(good).unwrap_or_default();
    let last = costs.iter().rposition(good).unwrap_or_default();
    let low = first.checked_sub(1).map(|i| &levels[i]);
    let high = levels.get(last);
    (
        low.map_or(0.0, |l| (l.rate - unseen(l)).max(0.0)),
        high.map_or(f64::INFINITY, |l| l.rate + unseen(l)),
    )
}

/// How far a rate may be from another without a step telling them apart, requests per second: two requests over the step,
/// a growth too small to be called one, or what the number answered varies by itself, where arrivals or service are random.
fn unseen(level: &Level<'_>) -> f64 {
    let counts: Vec<f64> = slices_of(level)
        .map(|s| s.responses() as f64 / s.length_s.max(1e-3))
        .collect();
    let n = counts.len() as f64;
    let least = (2.0 / level.judged.steady_s.max(0.5)).max(LEAST_GROWTH * level.rate);
    if n < 3.0 {
        return least;
    }
    let mean = counts.iter().sum::<f64>() / n;
    let spread = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (1.96 * (spread / n).sqrt()).max(least)
}

/// Draws one rate's verdict.
struct Draw<'a> {
    judged: &'a Judged,
    rate: f64,
    rules: &'a [Rule],
    slices: Vec<&'a Slice>,
    seen: Vec<Option<f64>>,
    errors: Vec<Option<f64>>,
    resampler: Resampler<'a>,
}

impl<'a> Draw<'a> {
    fn new(rules: &'a [Rule], level: &Level<'a>) -> Draw<'a> {
        let mut resampler = Resampler::new(rules, level.trials);
        let slices: Vec<&Slice> = slices_of(level).collect();
        let seen = resampler.values(slices.iter().copied());
        Draw {
            judged: level.judged,
            rate: level.rate,
            rules,
            errors: resampler.errors(&slices, &seen),
            seen,
            slices,
            resampler,
        }
    }

    fn met(&mut self, resample: u64) -> bool {
        match self.judged.verdict {
            Verdict::Over(Why::Backlog) | Verdict::Dead(_) => return false,
            _ => {}
        }
        let moved = self.judged.growth_sigma + GROWS.1 * noise(self.rate.to_bits(), resample);
        let grows = self.judged.growth > LEAST_GROWTH * self.rate && moved > GROWS.0;
        if grows {
            return false;
        }
        let values = self
            .resampler
            .drawn(&self.slices, &self.seen, &self.errors, resample);
        let mut all = self.rules.iter().zip(values);
        all.all(|(rule, value)| value.is_some_and(|v| rule.keeps(v)))
    }
}
