//! Owns the comparison of a run with an earlier one: better, worse or no evidence, per route and percentile, with how
//! much and how sure. Pure: same reports, same answer.

use crate::report::{Quantiles, Report, RouteSecond, Second};
use crate::schedule::mix;

/// The chance of a false alarm accepted in a whole comparison.
pub const ALPHA: f64 = 0.05;
/// Changes smaller than this are not reported as such: 1 %.
pub const LEAST: f64 = 0.01;
/// Seconds that belong together, at least: neighbouring seconds resemble each other.
const BLOCK: usize = 5;
/// Blocks in a run when that makes them longer: a level that wanders slowly needs long blocks to show.
const BLOCKS: usize = 6;
/// Fewest seconds of each run.
const SECONDS: usize = 10;
const RESAMPLES: u64 = 400;

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Faster than the baseline.
    Better,
    /// Slower than the baseline.
    Worse,
    /// Neither was shown.
    NoEvidence,
}

impl Verdict {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::NoEvidence => "no evidence",
        }
    }
}

/// One percentile of one route, or of the whole run, against the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The route; none for the whole run.
    pub route: Option<String>,
    /// `p50`, `p95` or `p99`.
    pub metric: &'static str,
    /// The baseline's typical second, microseconds.
    pub before_us: f64,
    /// This run's typical second, microseconds.
    pub after_us: f64,
    /// Relative change: 0.02 is 2 % slower.
    pub change: f64,
    /// 95 % interval of the change.
    pub interval: (f64, f64),
    /// Chance of such a change between runs that do not differ, corrected for the number of comparisons.
    pub p: f64,
    /// What follows.
    pub verdict: Verdict,
}

impl Change {
    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{:11}  {} {}  {:+.1} % ({:+.1} to {:+.1} %)  {:.2} ms, was {:.2} ms",
            self.verdict.as_str(),
            self.route.as_deref().unwrap_or("all requests"),
            self.metric,
            self.change * 100.0,
            self.interval.0 * 100.0,
            self.interval.1 * 100.0,
            self.after_us / 1e3,
            self.before_us / 1e3
        )
    }
}

/// Per-second values of one percentile in both runs, microseconds.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The route; none for the whole run.
    pub route: Option<String>,
    /// Name of the percentile.
    pub metric: &'static str,
    /// The baseline's seconds.
    pub before: Vec<f64>,
    /// This run's seconds.
    pub after: Vec<f64>,
}

/// Compares a run with its baseline: the whole, and each route that both have, at p50, p95 and p99.
///
/// # Errors
/// When either has fewer than 10 measured seconds in which something was answered.
pub fn compare(before: &Report, after: &Report) -> Result<Vec<Change>, String> {
    let mut pairs = Vec::new();
    type Of<T> = fn(&T) -> u64;
    let whole: [(&'static str, Of<Quantiles>); 3] =
        [("p50", |q| q.p50), ("p95", |q| q.p95), ("p99", |q| q.p99)];
    let of_route: [(&'static str, Of<RouteSecond>); 3] =
        [("p50", |q| q.p50), ("p95", |q| q.p95), ("p99", |q| q.p99)];
    for (metric, get) in whole {
        let seconds = |r: &Report| -> Vec<f64> {
            let measured = measured(r).filter(|s| s.latency.count > 0);
            measured.map(|s| get(&s.latency) as f64).collect()
        };
        pairs.push(Pair {
            route: None,
            metric,
            before: seconds(before),
            after: seconds(after),
        });
    }
    for run in [(before, "the baseline"), (after, "this run")] {
        let seconds = measured(run.0).filter(|s| s.latency.count > 0).count();
        if seconds < SECONDS {
            return Err(format!(
                "{} has {seconds} measured seconds with percentiles; a comparison needs {SECONDS}",
                run.1
            ));
        }
    }
    for name in before
        .routes
        .keys()
        .filter(|n| after.routes.contains_key(*n))
    {
        for (metric, get) in of_route {
            let seconds = |r: &Report| -> Vec<f64> {
                let Some(i) = r.routes.keys().position(|n| n == name) else {
                    return Vec::new();
                };
                let of = measured(r).filter_map(|s| s.routes.get(i));
                of.filter(|s| s.count > 0).map(|s| get(s) as f64).collect()
            };
            let (before, after) = (seconds(before), seconds(after));
            if before.len() >= SECONDS && after.len() >= SECONDS {
                let route = Some(name.clone());
                pairs.push(Pair {
                    route,
                    metric,
                    before,
                    after,
                });
            }
        }
    }
    Ok(judge(&pairs))
}

/// Whole seconds of the measured part.
fn measured(r: &Report) -> impl Iterator<Item = &Second> {
    r.per_second
        .iter()
        .filter(|s| !s.warm_up && s.length_s > 0.9)
}

/// The verdict on each pair; the chance that any of them is a false alarm is at most [`ALPHA`] (Holm).
pub fn judge(pairs: &[Pair]) -> Vec<Change> {
    let mut all: Vec<Change> = pairs.iter().map(change).collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| all[*a].p.total_cmp(&all[*b].p));
    let mut worst = 0.0_f64;
    for (rank, i) in order.iter().enumerate() {
        let corrected = all[*i].p * (order.len() - rank) as f64;
        worst = worst.max(corrected.min(1.0));
        all[*i].p = worst;
    }
    for c in &mut all {
        c.verdict = match c.change {
            x if c.p > ALPHA || x.abs() < LEAST => Verdict::NoEvidence,
            x if x > 0.0 => Verdict::Worse,
            _ => Verdict::Better,
        };
    }
    all
}

fn change(pair: &Pair) -> Change {
    let logs = |v: &[f64]| -> Vec<f64> { v.iter().map(|us| us.max(1.0).ln()).collect() };
    let (before, after) = (logs(&pair.before), logs(&pair.after));
    let (a, b) = (trimmed_mean(&before), trimmed_mean(&after));
    let (va, vb) = (variance(&before, 1), variance(&after, 2));
    let (ka, kb) = (blocks(before.len()), blocks(after.len()));
    // Welch: two runs may differ in how much they vary.
    let error = (va + vb).sqrt();
    let freedom = if error > 0.0 {
        (va + vb).powi(2) / (va.powi(2) / (ka - 1.0) + vb.powi(2) / (kb - 1.0))
    } else {
        ka + kb - 2.0
    };
    let difference = b - a;
    let p = if error > 0.0 {
        two_sided(difference / error, freedom)
    } else if difference == 0.0 {
        1.0
    } else {
        0.0
    };
    let wide = critical(freedom) * error;
    Change {
        route: pair.route.clone(),
        metric: pair.metric,
        before_us: a.exp(),
        after_us: b.exp(),
        change: difference.exp_m1(),
        interval: ((difference - wide).exp_m1(), (difference + wide).exp_m1()),
        p,
        verdict: Verdict::NoEvidence,
    }
}

/// The length of a block in a run of so many seconds.
fn block(seconds: usize) -> usize {
    (seconds / BLOCKS).max(BLOCK)
}

fn blocks(seconds: usize) -> f64 {
    (seconds / block(seconds)).max(2) as f64
}

/// The mean without the lowest and highest tenth: one pause of a second does not decide.
fn trimmed_mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = sorted.len() / 10;
    let kept = &sorted[cut..sorted.len() - cut];
    kept.iter().sum::<f64>() / kept.len().max(1) as f64
}

/// Variance of the trimmed mean, by a circular block bootstrap with a fixed seed; scaled by k/(k-1) for k blocks, of
/// which the bootstrap's own variance falls short.
fn variance(values: &[f64], stream: u64) -> f64 {
    let n = values.len();
    let length = block(n);
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut drawn = Vec::with_capacity(n + length);
    for resample in 0..RESAMPLES {
        drawn.clear();
        for block in 0..n.div_ceil(length) as u64 {
            let from = (mix(stream, resample, block) % n as u64) as usize;
            drawn.extend((0..length).map(|i| values[(from + i) % n]));
        }
        drawn.truncate(n);
        let mean = trimmed_mean(&drawn);
        sum += mean;
        squares += mean * mean;
    }
    let count = RESAMPLES as f64;
    let own = (squares / count - (sum / count).powi(2)).max(0.0);
    let k = blocks(n);
    own * k / (k - 1.0)
}

/// Chance of |T| >= |t| under Student's distribution with so many degrees of freedom.
fn two_sided(t: f64, freedom: f64) -> f64 {
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The t of which 5 % lie beyond on both sides.
fn critical(freedom: f64) -> f64 {
    let (mut low, mut high) = (1.0, 200.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if two_sided(middle, freedom) > 0.05 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The regularised incomplete beta function (continued fraction after Lentz).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front =
        (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta_fraction(b, a, 1.0 - x) * front / b;
    }
    incomplete_beta_fraction(a, b, x) * front / a
}

fn incomplete_beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let safe = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / safe(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..500 {
        let m = f64::from(m);
        for numerator in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / safe(1.0 + numerator * d);
            c = safe(1.0 + numerator / c);
            h *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-14 {
            break;
        }
    }
    h
}

/// Logarithm of the gamma function (Lanczos, g = 7), for x > 0.
fn ln_gamma(x: f64) -> f64 {
    const C: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let t = x + 7.5;
    let sum = (1..9).fold(C[0], |s, i| s + C[i] / (x + i as f64));
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::normal_quantile;

    #[test]
    fn student_matches_the_tables() {
        for (freedom, t) in [
            (2.0, 4.302_65),
            (10.0, 2.228_14),
            (22.0, 2.073_87),
            (1000.0, 1.962_34),
        ] {
            assert!((critical(freedom) - t).abs() < 1e-4, "{freedom}");
        }
    }

    fn normal(seed: u64, i: u64) -> f64 {
        normal_quantile(((mix(seed, i, 77) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64)
    }

    /// How the level of a simulated server moves.
    #[derive(Clone, Copy)]
    struct Moves {
        /// How much of a second's deviation the next one takes over.
        keeps: f64,
        /// Standard deviation of what each second adds.
        adds: f64,
        /// Change of the level over the minute, in both runs.
        drift: f64,
        /// Chance that a second is three times as slow: a pause.
        pauses: f64,
    }

    const WANDERS: Moves = Moves {
        keeps: 0.4,
        adds: 0.005,
        drift: 0.0,
        pauses: 0.0,
    };
    const SLOWLY: Moves = Moves {
        keeps: 0.8,
        adds: 0.005,
        ..WANDERS
    };
    const DRIFTS: Moves = Moves {
        drift: 0.02,
        ..WANDERS
    };
    const PAUSES: Moves = Moves {
        pauses: 0.03,
        ..WANDERS
    };

    fn uniform(seed: u64, i: u64, stream: u64) -> f64 {
        ((mix(seed, i, stream) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// A minute of per-second percentiles of a server with lognormal delays (sigma 0.5) at 1,000/s, whose level moves.
    /// The noise of a percentile is the sampling error of that distribution.
    fn minute(seed: u64, metric: &'static str, shift: f64, moves: Moves) -> Vec<f64> {
        let (sampling, level): (f64, f64) = match metric {
            "p50" => (0.0198, 5000.0),
            "p95" => (0.0334, 11_400.0),
            _ => (0.0590, 16_000.0),
        };
        let mut off = 0.0;
        (0..60)
            .map(|i| {
                off = moves.keeps * off + moves.adds * normal(seed, 2 * i);
                let slope = moves.drift * (i as f64 / 60.0 - 0.5);
                let pause = if uniform(seed, i, 78) < moves.pauses {
                    3.0
                } else {
                    1.0
                };
                let noise = sampling * normal(seed, 2 * i + 1);
                level * (1.0 + shift) * pause * (off + slope + noise).exp()
            })
            .collect()
    }

    fn experiment(seed: u64, routes: u64, shift: f64, moves: Moves) -> Vec<Change> {
        let mut pairs = Vec::new();
        for route in 0..routes {
            for (k, metric) in ["p50", "p95", "p99"].into_iter().enumerate() {
                let seed = mix(seed, route, k as u64);
                let slower = if route == 0 { shift } else { 0.0 };
                pairs.push(Pair {
                    route: (route > 0).then(|| format!("route {route}")),
                    metric,
                    before: minute(seed, metric, 0.0, moves),
                    after: minute(seed ^ 0x5555, metric, slower, moves),
                });
            }
        }
        judge(&pairs)
    }

    fn share(runs: u64, routes: u64, shift: f64, moves: Moves, hit: fn(&[Change]) -> bool) -> f64 {
        // NINES_SIMULATIONS: so many times as many experiments.
        let more = std::env::var("NINES_SIMULATIONS").map_or(1, |n| n.parse().unwrap());
        let runs = runs * more;
        let hits = (0..runs).filter(|seed| hit(&experiment(*seed, routes, shift, moves)));
        hits.count() as f64 / runs as f64
    }

    /// One of so many experiments may be unlucky: three standard errors.
    fn at_most(share: f64, runs: f64) -> bool {
        share <= 0.05 + 3.0 * (0.05 * 0.95 / runs).sqrt()
    }

    #[test]
    fn equal_runs_cry_wolf_in_at_most_one_of_twenty() {
        let alarm: fn(&[Change]) -> bool =
            |all| all.iter().any(|c| c.verdict != Verdict::NoEvidence);
        for (name, moves, routes, runs) in [
            ("wanders", WANDERS, 1, 100),
            ("wanders slowly", SLOWLY, 1, 100),
            ("drifts by 2 %", DRIFTS, 1, 100),
            ("pauses", PAUSES, 1, 100),
            ("wanders, 6 routes", WANDERS, 6, 20),
            ("wanders slowly, 32 routes", SLOWLY, 32, 5),
        ] {
            let alarms = share(runs, routes, 0.0, moves, alarm);
            println!("false alarms, {name}: {alarms}");
            assert!(at_most(alarms, runs as f64), "{name}: {alarms}");
        }
    }

    #[test]
    fn two_per_cent_are_found_in_a_minute() {
        let found: fn(&[Change]) -> bool = |all| {
            all.iter().any(|c| c.verdict == Verdict::Worse)
                && all.iter().all(|c| c.verdict != Verdict::Better)
        };
        for (name, moves, routes, runs, least) in [
            ("wanders", WANDERS, 1, 100, 0.95),
            ("wanders slowly", SLOWLY, 1, 100, 0.7),
            ("drifts by 2 %", DRIFTS, 1, 100, 0.85),
            ("pauses", PAUSES, 1, 100, 0.65),
            ("wanders, 6 routes", WANDERS, 6, 20, 0.8),
        ] {
            let power = share(runs, routes, 0.02, moves, found);
            println!("power, {name}: {power}");
            assert!(power >= least, "{name}: {power}");
        }
        let better: fn(&[Change]) -> bool = |all| all.iter().any(|c| c.verdict == Verdict::Better);
        assert!(share(50, 1, -0.04, WANDERS, better) >= 0.95);
    }

    #[test]
    fn degenerate_seconds_are_compared_too() {
        let pair = |before: f64, after: f64| Pair {
            route: None,
            metric: "p50",
            before: vec![before; 12],
            after: vec![after; 30],
        };
        let verdict = |b, a| judge(&[pair(b, a)])[0].verdict;
        assert_eq!(verdict(2000.0, 2000.0), Verdict::NoEvidence);
        assert_eq!(verdict(2000.0, 2500.0), Verdict::Worse);
        assert_eq!(verdict(0.0, 0.0), Verdict::NoEvidence);
    }
}
