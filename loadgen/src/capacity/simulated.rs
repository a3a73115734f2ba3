//! Simulated servers of known capacity, for the tests: arrivals even or Poisson, service constant or exponential, one
//! worker or several.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::judge::{Observed, Slice};
use crate::schedule::mix;

/// A server and how requests come to it.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub workers: usize,
    pub service_s: f64,
    pub exponential: bool,
    pub poisson: bool,
}

fn uniform(seed: u64, i: u64, stream: u64) -> f64 {
    ((mix(seed, i, stream) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

const TICK_S: f64 = 0.25;

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
        // Nanoseconds in the heap: floats have no order.
        let mut free: BinaryHeap<Reverse<u64>> = (0..self.workers).map(|_| Reverse(0)).collect();
        let (mut at, mut i, mut total, mut count) = (0.0, 0, 0.0, 0_u64);
        while at < length_s {
            let service = self.service_s
                * if self.exponential {
                    -uniform(seed, i, 1).ln()
                } else {
                    1.0
                };
            let Reverse(ready) = free.pop().unwrap();
            let start = f64::max(at, ready as f64 / 1e9);
            let end = start + service;
            free.push(Reverse((end * 1e9) as u64));
            if let Some(slice) = slices.get_mut((at / TICK_S) as usize) {
                slice.sent += 1;
                slice.due += 1.0;
            }
            let tick = (end / TICK_S) as usize;
            if let Some(slice) = slices.get_mut(tick) {
                *slice.status.entry(200).or_default() += 1;
                // As our histograms do: three digits.
                let us = ((end - at) * 1e6).round() as u64;
                *latencies[tick].entry(us).or_default() += 1;
                total += end - at;
                count += 1;
            }
            i += 1;
            at += if self.poisson {
                -uniform(seed, i, 2).ln() / rate
            } else {
                1.0 / rate
            };
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

    /// Probability that a request takes longer than `t` seconds at a rate, in the steady state.
    fn longer(&self, rate: f64, t: f64) -> f64 {
        let (mu, c) = (1.0 / self.service_s, self.workers as f64);
        let a = rate / mu;
        if a >= c {
            return 1.0;
        }
        if !self.poisson && !self.exponential {
            return f64::from(self.service_s > t);
        }
        if !self.exponential {
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

    /// The rate up to which the quantile q of the latency stays at or below `t` seconds.
    pub fn capacity(&self, q: f64, t: f64) -> f64 {
        let (mut low, mut high) = (0.0, self.workers as f64 / self.service_s);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if self.longer(middle, t) <= 1.0 - q {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
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
