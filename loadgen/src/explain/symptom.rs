//! Owns when a run was bad: which seconds stand out by latency, by failures or by silence, and by how much. Pure.

use crate::report::{Quantiles, Report, Second};
use crate::schedule::mix;

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
        let limits = [
            (2.0 * p95).max(p95 + 5_000.0),
            (2.0 * p50).max(p50 + 10_000.0),
            (3.0 * p99).max(p99 + 20_000.0),
        ];
        // Slow requests that fall on the seconds as chance would have it make no second bad.
        let clustered = limits.map(|limit| {
            let slower: Vec<(u64, u64)> = seconds
                .iter()
                .map(|s| (slower_than(&s.latency, limit), s.latency.count))
                .collect();
            clusters(&slower)
        });
        let failures: Vec<(u64, u64)> = seconds
            .iter()
            .map(|s| ((failed(s) * ended(s) as f64).round() as u64, ended(s)))
            .collect();
        let failing = clusters(&failures);
        let is_bad = |s: &Second| {
            let l = &s.latency;
            let reached = [l.p95, l.p50, l.p99].map(|us| us as f64);
            let slow = (0..3).any(|i| clustered[i] && reached[i] > limits[i]);
            l.count > 0 && slow || failing && failed(s) > usual + 0.04 || silent(s)
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

/// Chance of such a clustering, when there is none, up to which it is believed.
const CHANCE: f64 = 0.01;
/// Shuffles that tell it.
const SHUFFLES: u64 = 499;
/// Most events that are shuffled; of more, so large a part stands for all.
const EVENTS: u64 = 1_000;

/// At least how many of a second's requests took longer than a limit, as far as its percentiles say.
fn slower_than(l: &Quantiles, limit: f64) -> u64 {
    let ranks = [
        (0.25, l.p25),
        (0.5, l.p50),
        (0.75, l.p75),
        (0.9, l.p90),
        (0.95, l.p95),
        (0.99, l.p99),
        (0.999, l.p999),
        (1.0, l.max),
    ];
    // The value at a quantile is that of rank ceil(q n): all from that rank on are no smaller.
    let beyond = ranks.iter().find(|(_, us)| *us as f64 > limit);
    beyond.map_or(0, |(q, _)| {
        l.count + 1 - ((q * l.count as f64).ceil() as u64).max(1)
    })
}

/// Whether events (how many of how many in each second) lie closer together than chance has it: how uneven they are,
/// against as many dealt out again over the same seconds (a permutation test, with a fixed seed).
fn clusters(seconds: &[(u64, u64)]) -> bool {
    let events: u64 = seconds.iter().map(|s| s.0).sum();
    let all: u64 = seconds.iter().map(|s| s.1).sum();
    if events < 2 || all == 0 {
        return false;
    }
    let part = (EVENTS as f64 / events as f64).min(1.0);
    let kept: Vec<u64> = seconds.iter().map(|s| (s.0 as f64 * part) as u64).collect();
    let ends: Vec<u64> = seconds
        .iter()
        .scan(0, |sum, s| {
            *sum += s.1;
            Some(*sum)
        })
        .collect();
    // By how much each second has more than is due to it, together with the next one: what is bad lasts.
    let dealt: u64 = kept.iter().sum();
    let spread = |counts: &[u64]| -> f64 {
        let each = counts.iter().zip(seconds).filter(|(_, s)| s.1 > 0);
        let more: Vec<f64> = each
            .map(|(k, s)| {
                let due = dealt as f64 * s.1 as f64 / all as f64;
                (*k as f64 - due) / due.sqrt()
            })
            .collect();
        more.windows(2).map(|w| (w[0] + w[1]).powi(2)).sum::<f64>()
            + more.iter().map(|m| m * m).sum::<f64>()
    };
    let seen = spread(&kept) - 1e-9;
    let mut as_far = 1;
    let mut counts = vec![0; seconds.len()];
    for shuffle in 0..SHUFFLES {
        counts.fill(0);
        for event in 0..dealt {
            let at = mix(11, shuffle, event) % all;
            counts[ends.partition_point(|end| *end <= at)] += 1;
        }
        as_far += u64::from(spread(&counts) >= seen);
    }
    as_far as f64 / (SHUFFLES + 1) as f64 <= CHANCE
}

fn ended(s: &Second) -> u64 {
    s.responses + s.errors
}

/// The share of a second's outcomes that failed: no answer, 429 or 5xx.
pub(super) fn failed(s: &Second) -> f64 {
    let refused = s
        .status
        .iter()
        .filter(|(code, _)| **code == 429 || **code >= 500);
    let count = s.errors + refused.map(|(_, n)| n).sum::<u64>();
    count as f64 / ended(s).max(1) as f64
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

    #[test]
    fn percentiles_say_how_many_are_slower() {
        let l = Quantiles {
            count: 100,
            p25: 1,
            p50: 2,
            p75: 3,
            p90: 10,
            p95: 20,
            p99: 30,
            p999: 40,
            max: 40,
            ..Quantiles::default()
        };
        assert_eq!(
            [0.0, 2.5, 15.0, 35.0, 40.0].map(|us| slower_than(&l, us)),
            [76, 26, 6, 1, 0]
        );
        assert_eq!(slower_than(&Quantiles::default(), 1.0), 0);
    }

    #[test]
    fn events_that_chance_deals_out_are_no_cluster_and_those_of_a_few_seconds_are() {
        // As many alarms as the test allows itself, and not many more.
        let alarms = (0..60_u64).filter(|seed| {
            let mut seconds = vec![(0, 60); 12];
            for event in 0..24 {
                seconds[(mix(*seed, event, 3) % 12) as usize].0 += 1;
            }
            clusters(&seconds)
        });
        assert!(alarms.count() <= 3);
        let mut seconds = vec![(1, 60); 12];
        seconds[4..8].fill((7, 60));
        assert!(clusters(&seconds));
        assert!(
            !clusters(&[(1, 60), (0, 60), (0, 60)]),
            "one slow request is no cluster"
        );
        assert!(
            clusters(&[(9_000, 10_000), (100, 10_000), (100, 10_000)]),
            "many are thinned"
        );
    }
}
