//! Simulated servers of known capacity, for the tests: arrivals even or Poisson, service constant or random, one worker
//! or several, with pauses, or with a hard limit of requests at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::judge::{Observed, Slice};
use crate::schedule::mix;
use crate::truth::normal_quantile;

/// How long a request keeps a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Service {
    Constant,
    Exponential,
    /// With this sigma; the mean is the server's.
    Lognormal(f64),
}

/// A server and how requests come to it.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub workers: usize,
    /// Mean.
    pub service_s: f64,
    pub service: Service,
    pub poisson: bool,
    /// Pauses of all workers, 100 ms each: mean seconds between them; 0 for none.
    pub pauses_s: f64,
    /// With all workers busy a request is refused rather than queued.
    pub refuses: bool,
}

fn uniform(seed: u64, i: u64, stream: u64) -> f64 {
    ((mix(seed, i, stream) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

const TICK_S: f64 = 0.25;
const PAUSE_S: f64 = 0.1;

/// A request that came and ended, or was refused.
struct Passed {
    at: f64,
    end: Option<f64>,
}

impl Server {
    /// A trial of so many seconds at a rate, from empty.
    pub fn trial(&self, rate: f64, length_s: f64, seed: u64) -> Observed {
        let ticks = (length_s / TICK_S).floor() as usize;
        let mut slices = vec![
            Slice {
                length_s: TICK_S,
                status: BTreeMap::new(),
                ..Slice::default()
            };
            ticks
        ];
        let mut latencies: Vec<BTreeMap<u64, u64>> = vec![BTreeMap::new(); ticks];
        let (mut total, mut count) = (0.0, 0_u64);
        for Passed { at, end } in self.requests(rate, length_s, seed) {
            if let Some(slice) = slices.get_mut((at / TICK_S) as usize) {
                slice.sent += 1;
                slice.due += 1.0;
                slice.errors += u64::from(end.is_none());
            }
            let Some(end) = end else { continue };
            let tick = (end / TICK_S) as usize;
            if let Some(slice) = slices.get_mut(tick) {
                *slice.status.entry(200).or_default() += 1;
                // As our histograms do: three digits.
                let us = ((end - at) * 1e6).round() as u64;
                *latencies[tick].entry(us).or_default() += 1;
                total += end - at;
                count += 1;
            }
        }
        for (slice, latency) in slices.iter_mut().zip(latencies) {
            slice.latency = latency.into_iter().collect();
        }
        Observed {
            rate,
            slices,
            service_us: total * 1e6 / count.max(1) as f64,
            dead: (count == 0).then(|| "nothing".to_owned()),
            ..Observed::default()
        }
    }

    /// Each request of a load from empty.
    fn requests(&self, rate: f64, length_s: f64, seed: u64) -> impl Iterator<Item = Passed> {
        let server = *self;
        // Nanoseconds in the heap: floats have no order.
        let mut free: BinaryHeap<Reverse<u64>> = (0..self.workers).map(|_| Reverse(0)).collect();
        let (mut at, mut i) = (0.0, 0);
        let gap = move |i: u64| -server.pauses_s * uniform(seed, i, 3).ln();
        let (mut pauses, mut pause_at) = (
            0,
            if server.pauses_s > 0.0 {
                gap(0)
            } else {
                f64::INFINITY
            },
        );
        std::iter::from_fn(move || {
            if at >= length_s {
                return None;
            }
            let came = at;
            i += 1;
            at += if server.poisson {
                -uniform(seed, i, 2).ln() / rate
            } else {
                1.0 / rate
            };
            let Reverse(ready) = *free.peek()?;
            let mut start = f64::max(came, ready as f64 / 1e9);
            if server.refuses && start > came {
                return Some(Passed {
                    at: came,
                    end: None,
                });
            }
            let service = server.service_s
                * match server.service {
                    Service::Constant => 1.0,
                    Service::Exponential => -uniform(seed, i, 1).ln(),
                    Service::Lognormal(sigma) => {
                        (sigma * normal_quantile(uniform(seed, i, 1)) - sigma * sigma / 2.0).exp()
                    }
                };
            // What begins in a pause begins after it, what it meets under way ends later by its length.
            while pause_at < start + service {
                let over = pause_at + PAUSE_S;
                start = if pause_at > start {
                    start + PAUSE_S
                } else {
                    start.max(over)
                };
                pauses += 1;
                pause_at += PAUSE_S + gap(pauses);
            }
            free.pop();
            free.push(Reverse(((start + service) * 1e9) as u64));
            Some(Passed {
                at: came,
                end: Some(start + service),
            })
        })
    }

    /// Probability that a request takes longer than `t` seconds at a rate, in the steady state.
    fn longer(&self, rate: f64, t: f64) -> f64 {
        let (mu, c) = (1.0 / self.service_s, self.workers as f64);
        let a = rate / mu;
        if a >= c {
            return 1.0;
        }
        if !self.poisson && self.service == Service::Constant {
            return f64::from(self.service_s > t);
        }
        if self.service == Service::Constant {
            return 1.0 - md1_waits_at_most(rate, self.service_s, t - self.service_s);
        }
        // M/M/c: Erlang's C, then the time in the system (Gross et al., Fundamentals of Queueing Theory, 2.4).
        let (mut term, mut sum) = (1.0, 0.0);
        for k in 0..self.workers {
            if k > 0 {
                term *= a / k as f64;
            }
            sum += term;
        }
        let last = term * a / c * c / (c - a);
        let waits = last / (sum + last);
        let x = c - 1.0 - a;
        if x.abs() < 1e-9 {
            return (-mu * t).exp() * (1.0 + waits * mu * t);
        }
        (-mu * t).exp() * (1.0 + waits * (1.0 - (-mu * t * x).exp()) / x)
    }

    /// The rate up to which the quantile q of the latency stays at or below `t` seconds; of one that refuses, up to which
    /// that share of the requests is served.
    pub fn capacity(&self, q: f64, t: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1.5 * self.workers as f64 / self.service_s);
        let formula = self.pauses_s == 0.0 && !matches!(self.service, Service::Lognormal(_));
        let longer = |rate: f64| match () {
            () if self.refuses => self.blocks(rate),
            () if formula => self.longer(rate, t),
            () => self.counted(rate, t),
        };
        for _ in 0..if formula || self.refuses { 60 } else { 12 } {
            let middle = (low + high) / 2.0;
            if longer(middle) <= 1.0 - q {
                low = middle;
            } else {
                high = middle;
            }
        }
        (low + high) / 2.0
    }

    /// The same by a simulation of an hour, for want of a formula.
    fn counted(&self, rate: f64, t: f64) -> f64 {
        let (mut all, mut longer) = (0_u64, 0_u64);
        let steady = self.requests(rate, 3600.0, 99).skip(10_000);
        for end in steady.map(|p| p.end.unwrap_or(f64::INFINITY) - p.at) {
            all += 1;
            longer += u64::from(end > t);
        }
        longer as f64 / all.max(1) as f64
    }

    /// The share of requests that find all workers busy: Erlang's B, whatever the service time's distribution.
    fn blocks(&self, rate: f64) -> f64 {
        let load = rate * self.service_s;
        (1..=self.workers).fold(1.0, |b, k| load * b / (k as f64 + load * b))
    }
}

/// M/D/1: the probability of waiting at most `t` (Erlang's series).
fn md1_waits_at_most(rate: f64, service: f64, t: f64) -> f64 {
    if t < 0.0 {
        return 0.0;
    }
    let mut sum = 0.0;
    for k in 0..=(t / service) as u32 {
        let x = rate * (t - f64::from(k) * service);
        let log = (1..=k).fold(x, |l, j| l + (x / f64::from(j)).max(1e-300).ln());
        sum += if k % 2 == 0 { log.exp() } else { -log.exp() };
    }
    (1.0 - rate * service) * sum
}
