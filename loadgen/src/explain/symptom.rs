//! Owns when a run was bad: which seconds stand out by latency, by failures or by silence, and by how much. Pure.

use crate::report::{Report, Second};

/// The seconds that stand out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Symptom {
    /// By measured second: whether it is bad. All false when no second stands out from the others.
    pub bad: Vec<bool>,
    /// Start of each measured second, seconds since the measured part began.
    pub at_s: Vec<f64>,
    /// First and last bad second of the longest bad stretch, seconds since the measured part began.
    pub stretch: Option<(f64, f64)>,
    /// Typical p95 of the bad seconds and of the others, microseconds.
    pub p95_us: (f64, f64),
    /// Share of failures (no answer, 429, 5xx) in the bad seconds and in the others.
    pub failed: (f64, f64),
    /// Bad seconds in which nothing was answered though requests were due.
    pub silent: usize,
}

/// Seconds apart that still belong to one stretch.
const GAP: usize = 2;
/// Seconds for which a series may still show what is over.
const LAG_S: u32 = 4;

impl Symptom {
    /// Finds them.
    pub fn of(report: &Report) -> Symptom {
        let warm_up = report.warm_up_s();
        let seconds: Vec<&Second> = report.per_second.iter().filter(|s| !s.warm_up).collect();
        let level = |get: fn(&Second) -> f64| low(seconds.iter().map(|s| get(s)));
        let answered = |get: fn(&Second) -> f64| {
            let with = seconds.iter().filter(|s| s.latency.count > 0);
            low(with.map(|s| get(s)))
        };
        let [p50, p95, p99] = [
            answered(|s| s.latency.p50 as f64),
            answered(|s| s.latency.p95 as f64),
            answered(|s| s.latency.p99 as f64),
        ];
        let usual = level(failed);
        let silent =
            |s: &Second| s.responses == 0 && s.errors == 0 && s.offered > 0.5 && s.length_s > 0.5;
        let is_bad = |s: &Second| {
            let l = &s.latency;
            let slow = l.count > 0
                && (l.p95 as f64 > (2.0 * p95).max(p95 + 5_000.0)
                    || l.p50 as f64 > (2.0 * p50).max(p50 + 10_000.0)
                    || l.p99 as f64 > (3.0 * p99).max(p99 + 20_000.0));
            slow || failed(s) > usual + 0.04 || silent(s)
        };
        let bad: Vec<bool> = seconds.iter().map(|s| is_bad(s)).collect();
        let at_s: Vec<f64> = seconds.iter().map(|s| s.at_s - warm_up).collect();
        let split = |get: &dyn Fn(&Second) -> Option<f64>| {
            let side = |want: bool| {
                let chosen = seconds.iter().zip(&bad).filter(|(_, b)| **b == want);
                super::mean(chosen.filter_map(|(s, _)| get(s))).unwrap_or(0.0)
            };
            (side(true), side(false))
        };
        Symptom {
            stretch: longest(&bad).map(|(a, b)| (at_s[a], at_s[b] + seconds[b].length_s)),
            p95_us: split(&|s| (s.latency.count > 0).then_some(s.latency.p95 as f64)),
            failed: split(&|s| Some(failed(s))),
            silent: seconds.iter().filter(|s| silent(s)).count(),
            bad,
            at_s,
        }
    }

    /// Whether some seconds stand out and others do not.
    pub fn stands_out(&self) -> bool {
        self.bad.contains(&true) && self.bad.contains(&false)
    }

    /// Whether the second at this offset (seconds since the measured part began) is bad.
    pub fn is_bad_at(&self, at_s: f64) -> bool {
        let after = self.at_s.partition_point(|s| *s <= at_s);
        after.checked_sub(1).is_some_and(|i| self.bad[i])
    }

    /// Means of a line of steps over the bad seconds and over the others; over everything twice when none stands out.
    pub(super) fn split(&self, values: &[f64], step_s: f64) -> (Option<f64>, Option<f64>) {
        if !self.stands_out() {
            let all = super::mean(values.iter().copied());
            return (all, all);
        }
        let at = |i: usize| (i as f64 + 0.5) * step_s;
        let lagging = |i: usize| (1..=LAG_S).any(|back| self.is_bad_at(at(i) - f64::from(back)));
        let side = |want: bool, skip: bool| {
            let chosen = values
                .iter()
                .enumerate()
                .filter(|(i, _)| self.is_bad_at(at(*i)) == want && !(skip && lagging(*i)));
            super::mean(chosen.map(|(_, v)| *v))
        };
        // Rates look back, and spans arrive late: what follows a bad second still shows it.
        let good = side(false, true).or_else(|| side(false, false));
        (side(true, false), good)
    }

    /// The first step in or just before the bad stretch at which `is` holds, seconds since the measured part began.
    pub(super) fn first(
        &self,
        values: &[f64],
        step_s: f64,
        is: impl Fn(f64) -> bool,
    ) -> Option<f64> {
        let from = self.stretch.map_or(0.0, |(from, _)| (from - 2.0).max(0.0));
        let mut steps = values.iter().enumerate();
        let found = steps.find(|(i, v)| (*i as f64 + 1.0) * step_s > from && is(**v));
        found.map(|(i, _)| i as f64 * step_s)
    }
}

/// The share of a second's outcomes that failed: no answer, 429 or 5xx.
pub(super) fn failed(s: &Second) -> f64 {
    let refused = s
        .status
        .iter()
        .filter(|(code, _)| **code == 429 || **code >= 500);
    let count = s.errors + refused.map(|(_, n)| n).sum::<u64>();
    count as f64 / (s.responses + s.errors).max(1) as f64
}

/// The lower quartile: what the run does when nothing is wrong, as long as a quarter of it is well.
fn low(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 4).copied().unwrap_or(0.0)
}

/// First and last index of the longest stretch of bad seconds, small gaps included.
fn longest(bad: &[bool]) -> Option<(usize, usize)> {
    let mut best: Option<(usize, usize, usize)> = None;
    let mut now: Option<(usize, usize, usize)> = None;
    for i in bad.iter().enumerate().filter(|(_, b)| **b).map(|(i, _)| i) {
        now = match now {
            Some((from, last, count)) if i - last <= GAP => Some((from, i, count + 1)),
            _ => Some((i, i, 1)),
        };
        if now.map(|n| n.2) > best.map(|b| b.2) {
            best = now;
        }
    }
    best.map(|(from, last, _)| (from, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stretch_bridges_small_gaps() {
        let of = |text: &str| longest(&text.chars().map(|c| c == 'x').collect::<Vec<_>>());
        assert_eq!(of("....."), None);
        assert_eq!(of("x....xx.x."), Some((5, 8)));
        assert_eq!(of("xx..x"), Some((0, 1)));
        assert_eq!(of("xx......x"), Some((0, 1)));
    }
}
