//! Owns servers on loopback whose delays are known exactly, and the latencies an open load on them must show: what the
//! generator's accuracy is judged against. Knows nothing of plans or reports.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::schedule::mix;

mod server;

pub use server::{Account, Server, serve};

/// How a server of known delay behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Profile {
    /// A constant delay, and a stall at the end of each period in which no response leaves.
    Stall {
        /// Delay of every response.
        delay: Duration,
        /// Length of a period, counted from the first request.
        every: Duration,
        /// Length of the stall that ends each period; zero for none.
        stall: Duration,
    },
    /// Delays whose distribution over a whole run is exactly lognormal: each request gets one of so many quantiles, in
    /// a shuffled order.
    Lognormal {
        /// Median delay.
        median: Duration,
        /// Standard deviation of the delay's logarithm.
        sigma: f64,
        /// Requests in a run.
        requests: u64,
    },
    /// Delays drawn at random from a lognormal distribution, as a real server's are.
    Random {
        /// Median delay.
        median: Duration,
        /// Standard deviation of the delay's logarithm.
        sigma: f64,
        /// Another seed draws other delays.
        seed: u64,
    },
    /// One worker that serves one request at a time, in order of arrival.
    Queue {
        /// What each request takes.
        service: Duration,
    },
}

impl Profile {
    /// The three servers of the accuracy table, for so many requests at 500/s: a stall of 1 s in every 5 s, lognormal
    /// delays of median 5 ms, and a worker that is asked for 25 % more than it can do.
    pub fn table(requests: u64) -> [(&'static str, Profile); 3] {
        let ms = Duration::from_millis;
        [
            (
                "stall",
                Profile::Stall {
                    delay: ms(2),
                    every: ms(5000),
                    stall: ms(1000),
                },
            ),
            (
                "lognormal",
                Profile::Lognormal {
                    median: ms(5),
                    sigma: 0.7,
                    requests,
                },
            ),
            (
                "overload",
                Profile::Queue {
                    service: Duration::from_micros(2500),
                },
            ),
        ]
    }

    /// The behaviour from its start.
    pub fn delays(&self) -> Delays {
        Delays {
            profile: *self,
            index: 0,
            busy_until: Duration::ZERO,
        }
    }

    /// The latencies, sorted, of requests due at these offsets, in order, over so many connections that carry one
    /// request at a time and need `turnaround` between two of them. With more connections than ever wait at once the
    /// limit does not matter. What has not started `drain` after the last one was due has the time it had waited when
    /// the last response came.
    pub fn latencies(
        &self,
        due: impl Iterator<Item = Duration>,
        connections: usize,
        turnaround: Duration,
        drain: Duration,
    ) -> Vec<Duration> {
        self.served(due, connections, turnaround, drain, &[])
    }

    /// As [`Profile::latencies`], but each response leaves as much later as the server says it did, in order of
    /// arrival ([`Account::each_late_us`]): what a generator without any error of its own would have seen.
    pub fn served(
        &self,
        due: impl Iterator<Item = Duration>,
        connections: usize,
        turnaround: Duration,
        drain: Duration,
        each_late_us: &[u32],
    ) -> Vec<Duration> {
        let due: Vec<Duration> = due.collect();
        let cut = due.last().copied().unwrap_or_default() + drain;
        let mut delays = self.delays();
        let mut free = BinaryHeap::new();
        let mut all = Vec::with_capacity(due.len());
        let (mut ended, mut unsent) = (Duration::ZERO, Vec::new());
        for due in due {
            // First in is first out: the next request takes the connection that is free first.
            let mut start = due;
            if free.len() >= connections
                && let Some(Reverse(at)) = free.pop()
            {
                start = due.max(at);
            }
            if start > cut {
                free.push(Reverse(start));
                unsent.push(due);
                continue;
            }
            let late = each_late_us.get(all.len()).copied().unwrap_or_default();
            let leaves = delays.leaves(start) + Duration::from_micros(late.into());
            ended = ended.max(leaves);
            free.push(Reverse(leaves + turnaround));
            all.push(leaves - due);
        }
        all.extend(unsent.into_iter().map(|due| ended.saturating_sub(due)));
        all.sort_unstable();
        all
    }
}

/// The value of rank `ceil(q * n)` of sorted values; zero of none.
pub fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let rank = ((sorted.len() as f64 * q - 1e-9).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A server's delays, request by request.
#[derive(Debug, Clone)]
pub struct Delays {
    profile: Profile,
    index: u64,
    busy_until: Duration,
}

impl Delays {
    /// When the response to the next request leaves; it arrived at this offset, not before its predecessor.
    pub fn leaves(&mut self, arrived: Duration) -> Duration {
        let index = self.index;
        self.index += 1;
        match self.profile {
            Profile::Stall {
                delay,
                every,
                stall,
            } => stalled(arrived + delay, every, stall),
            Profile::Lognormal {
                median,
                sigma,
                requests,
            } => {
                // Ranks 1 to n in an order that looks random: a stride that shares no factor with n visits each once.
                let n = requests.max(2);
                let rank = (index % n * stride(n) + n / 3) % n + 1;
                // The last rank would be infinite.
                let q = (rank as f64 / n as f64).min(1.0 - 0.5 / n as f64);
                arrived + median.mul_f64((sigma * normal_quantile(q)).exp())
            }
            Profile::Random {
                median,
                sigma,
                seed,
            } => {
                let uniform = (mix(seed, index, 11) >> 11) as f64 + 0.5;
                let q = uniform / (1_u64 << 53) as f64;
                arrived + median.mul_f64((sigma * normal_quantile(q)).exp())
            }
            Profile::Queue { service } => {
                self.busy_until = self.busy_until.max(arrived) + service;
                self.busy_until
            }
        }
    }
}

fn stalled(at: Duration, every: Duration, stall: Duration) -> Duration {
    if stall.is_zero() || every.is_zero() {
        return at;
    }
    let (at_ns, every) = (at.as_nanos() as u64, every.as_nanos() as u64);
    let into = at_ns % every;
    if into >= every.saturating_sub(stall.as_nanos() as u64) {
        Duration::from_nanos(at_ns - into + every)
    } else {
        at
    }
}

/// Near n times the golden section, and without a common factor with n.
fn stride(n: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let first = (n as f64 * 0.618_033_988_749_895) as u64;
    (first.max(1)..).find(|s| gcd(*s, n) == 1).unwrap_or(1)
}

/// The standard normal distribution's quantile (Acklam's rational approximation, relative error below 1.2e-9).
pub fn normal_quantile(q: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
    ];
    let poly = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = |q: f64| {
        let x = (-2.0 * q.ln()).sqrt();
        poly(&C, x) / (poly(&D, x) * x + 1.0)
    };
    if q < 0.02425 {
        tail(q)
    } else if q > 1.0 - 0.02425 {
        -tail(1.0 - q)
    } else {
        let x = q - 0.5;
        let r = x * x;
        poly(&A, r) * x / (poly(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn truth(profile: Profile, connections: usize, q: f64) -> f64 {
        let due = (0..10_000).map(|i| 2 * MS * i);
        let all = profile.latencies(due, connections, Duration::ZERO, 60 * 1000 * MS);
        quantile(&all, q).as_secs_f64() * 1e3
    }

    #[test]
    fn the_truth_without_a_limit_is_the_formula() {
        let expected = [
            [2.0, 502.0, 952.0, 997.0],
            [5.0, 12.262, 25.478, 43.494],
            [2501.5, 4501.5, 4951.5, 4997.0],
        ];
        for ((name, profile), expected) in Profile::table(10_000).into_iter().zip(expected) {
            for (q, expected) in [0.5, 0.9, 0.99, 0.999].into_iter().zip(expected) {
                let got = truth(profile, 10_000, q);
                assert!(
                    (got - expected).abs() <= expected * 1e-3 + 0.01,
                    "{name} {q}: {got}"
                );
            }
        }
    }

    #[test]
    fn a_limit_delays_what_waits_in_the_generator_only() {
        let [(_, stall), (_, lognormal), (_, queue)] = Profile::table(10_000);
        // 500 fall due in a stall; 64 of them wait in the server, the rest leave in rounds of 64 every 2 ms.
        assert_eq!(truth(stall, 64, 0.5), 2.0);
        assert!((503.0..515.0).contains(&truth(stall, 64, 0.9)));
        for q in [0.5, 0.9, 0.99, 0.999] {
            assert_eq!(truth(lognormal, 64, q), truth(lognormal, 10_000, q));
            assert_eq!(truth(queue, 1, q), truth(queue, 10_000, q));
        }
        assert!(truth(lognormal, 1, 0.5) > 20_000.0);
    }

    #[test]
    fn what_is_cut_off_has_the_time_it_waited() {
        let [_, _, (_, queue)] = Profile::table(10_000);
        let due = || (0..10_000).map(|i| 2 * MS * i);
        let cut = queue.latencies(due(), 1, Duration::ZERO, 1000 * MS);
        assert_eq!(cut.len(), 10_000);
        // 8,400 leave within 21 s; the rest had waited from their due instant until then.
        assert!(
            quantile(&cut, 0.999) < 4300 * MS,
            "{:?}",
            quantile(&cut, 0.999)
        );
    }

    #[test]
    fn normal_quantiles_match_the_tables() {
        for (q, z) in [
            (0.5, 0.0),
            (0.9, 1.281_551_566),
            (0.99, 2.326_347_874),
            (0.999, 3.090_232_306),
            (0.01, -2.326_347_874),
        ] {
            assert!((normal_quantile(q) - z).abs() < 1e-7, "{q}");
        }
    }
}
