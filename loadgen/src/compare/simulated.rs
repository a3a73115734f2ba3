//! Simulated runs of servers whose delays are known, request by request, summed up a second at a time as a run is.

use super::{Group, Measure};
use crate::schedule::mix;
use crate::truth::normal_quantile;

/// Seconds of a run.
pub const SECONDS: usize = 60;

/// What a request takes when nothing disturbs it.
#[derive(Debug, Clone, Copy)]
pub enum Delays {
    /// Median 5 ms, sigma 0.5.
    Lognormal,
    /// Two exponential stages of 2.5 ms.
    Gamma,
    /// 1 ms with this chance (a cache), else 12 ms; both lognormal.
    HitOr(f64),
    /// One worker, Poisson arrivals, exponential service, as busy as this.
    Queue(f64),
}

/// A server.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub delays: Delays,
    /// Requests per second.
    pub rate: usize,
    /// How much of a second's deviation of the level the next one takes over.
    pub keeps: f64,
    /// Standard deviation of what each second adds to it.
    pub adds: f64,
    /// Standard deviation of what each second adds for good.
    pub walks: f64,
    /// Change of the level over the minute, the same in every run.
    pub drift: f64,
    /// Standard deviation of a change of the level over the minute, another in every run.
    pub own_drift: f64,
    /// Standard deviation of a run's whole level.
    pub own_level: f64,
    /// Chance that a second is three times as slow.
    pub slow_seconds: f64,
    /// Mean seconds between pauses of 100 to 300 ms; 0 for none.
    pub pauses: f64,
}

pub const PLAIN: Server = Server {
    delays: Delays::Lognormal,
    rate: 1000,
    keeps: 0.0,
    adds: 0.0,
    walks: 0.0,
    drift: 0.0,
    own_drift: 0.0,
    own_level: 0.0,
    slow_seconds: 0.0,
    pauses: 0.0,
};

/// Random numbers of one run.
struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        ((mix(self.seed, self.drawn, 77) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        normal_quantile(self.uniform())
    }

    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }
}

/// What decides a run: its requests, and what disturbs the machine, when that is another's.
struct Chance {
    own: Random,
    machine: Option<Random>,
}

impl Chance {
    fn machine(&mut self) -> &mut Random {
        self.machine.as_mut().unwrap_or(&mut self.own)
    }
}

/// The measures of a run, in the order of [`NAMES`].
pub type Run = Vec<Vec<f64>>;

const NAMES: [&str; 7] = ["mean", "p25", "p50", "p75", "p90", "p95", "p99"];

impl Server {
    /// A minute of a server that is slower by `shift`.
    pub fn run(&self, seed: u64, shift: f64) -> Run {
        let own = Random { seed, drawn: 0 };
        self.minute(Chance { own, machine: None }, shift)
    }

    /// The same on a machine whose disturbances are decided by `machine`: servers that run there at the same time share
    /// them. Its pauses are no longer for a slower server.
    pub fn run_on(&self, machine: u64, seed: u64, shift: f64) -> Run {
        let random = |seed| Random { seed, drawn: 0 };
        let chance = Chance {
            own: random(seed),
            machine: Some(random(machine)),
        };
        self.minute(chance, shift)
    }

    fn minute(&self, mut chance: Chance, shift: f64) -> Run {
        let of_pauses = if chance.machine.is_some() { 0.0 } else { shift };
        let r = chance.machine();
        let mut wander = self.adds / (1.0 - self.keeps * self.keeps).sqrt() * r.normal();
        let own = self.own_drift * r.normal();
        // Drawn only where it counts, so that the other servers' seeds mean what they meant.
        let own_level = match self.own_level {
            0.0 => 0.0,
            deviation => deviation * r.normal(),
        };
        let (mut walk, mut arrived, mut free) = (0.0, 0.0, 0.0_f64);
        let mut pause = (0.0, 0.0);
        let mut next_pause = if self.pauses > 0.0 {
            self.pauses * r.exponential()
        } else {
            f64::INFINITY
        };
        let mut out: Run = vec![Vec::with_capacity(SECONDS); NAMES.len()];
        for second in 0..SECONDS {
            let part = second as f64 / SECONDS as f64;
            let r = chance.machine();
            wander = self.keeps * wander + self.adds * r.normal();
            walk += self.walks * r.normal();
            let slow = if r.uniform() < self.slow_seconds {
                3.0
            } else {
                1.0
            };
            let moved = own_level + wander + walk + self.drift * (part - 0.5) + own * part;
            let level = (1.0 + shift) * slow * moved.exp();
            let mut taken: Vec<f64> = Vec::with_capacity(self.rate);
            for i in 0..self.rate {
                let mut at = second as f64 + i as f64 / self.rate as f64;
                let mut us = level * self.delay(&mut chance.own);
                if let Delays::Queue(_) = self.delays {
                    arrived += chance.own.exponential() / self.rate as f64;
                    at = arrived;
                    free = free.max(at) + us / 1e6;
                    us = (free - at) * 1e6;
                }
                while at > pause.1 && at > next_pause {
                    let r = chance.machine();
                    pause = (
                        next_pause,
                        next_pause + (0.1 + 0.2 * r.uniform()) * (1.0 + of_pauses),
                    );
                    next_pause = pause.1 + self.pauses * r.exponential();
                }
                if (pause.0..pause.1).contains(&at) {
                    us += (pause.1 - at) * 1e6;
                }
                taken.push(us);
            }
            let mean = taken.iter().sum::<f64>() / taken.len() as f64;
            taken.sort_unstable_by(f64::total_cmp);
            let at = |q: f64| taken[(q * taken.len() as f64).ceil() as usize - 1];
            let values = [0.25, 0.5, 0.75, 0.9, 0.95, 0.99].map(at);
            for (series, value) in out.iter_mut().zip([mean].into_iter().chain(values)) {
                series.push(super::log(value));
            }
        }
        out
    }

    fn delay(&self, r: &mut Random) -> f64 {
        match self.delays {
            Delays::Lognormal => 5000.0 * (0.5 * r.normal()).exp(),
            Delays::Gamma => 2500.0 * (r.exponential() + r.exponential()),
            Delays::HitOr(hit) if r.uniform() < hit => 1000.0 * (0.2 * r.normal()).exp(),
            Delays::HitOr(_) => 12_000.0 * (0.4 * r.normal()).exp(),
            Delays::Queue(busy) => busy * 1e6 / self.rate as f64 * r.exponential(),
        }
    }
}

/// A minute whose seconds have percentiles like those of lognormal delays at 1,000/s (sigma 0.5), without its requests:
/// cheap, for many routes.
pub fn sketch(seed: u64, shift: f64) -> Run {
    let mut r = Random { seed, drawn: 0 };
    let noise = [0.0168, 0.0216, 0.0198, 0.0216, 0.0270, 0.0334, 0.0590];
    let level = [
        5666.0,
        3569.0,
        5000.0,
        7006.0,
        9490.0,
        11_380.0,
        16_000.0_f64,
    ];
    let mut second = || {
        let shared = r.normal();
        let each = |i: usize, own: f64| {
            level[i].ln() + (1.0_f64 + shift).ln() + noise[i] * (0.7 * shared + 0.714 * own)
        };
        [0, 1, 2, 3, 4, 5, 6].map(|i| each(i, r.normal()))
    };
    let seconds: Vec<[f64; 7]> = (0..SECONDS).map(|_| second()).collect();
    (0..NAMES.len())
        .map(|i| seconds.iter().map(|s| s[i]).collect())
        .collect()
}

/// A run and its baselines as they are compared; a route has p50, p95 and p99 only.
pub fn group(route: Option<String>, before: &[Run], after: Run) -> Group {
    let kept = |name: &str| route.is_none() || super::TOLD.contains(&name);
    let measures = NAMES.into_iter().zip(after).enumerate();
    Group {
        measures: measures
            .filter(|(_, (name, _))| kept(name))
            .map(|(i, (name, after))| Measure {
                name,
                before: before.iter().map(|run| run[i].clone()).collect(),
                after,
            })
            .collect(),
        route,
    }
}
