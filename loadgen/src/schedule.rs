//! Owns when each request is due: offsets from the run's start as a pure function of plan, seed and index.
//! Reads no clock and sends nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::plan::{Model, Plan};
use crate::shape::Shape;

/// A well-mixed number for (seed, index, stream): SplitMix64's finaliser over their combination.
pub(crate) fn mix(seed: u64, index: u64, stream: u64) -> u64 {
    let mut z = seed
        .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(stream.wrapping_mul(0xd1b5_4a32_d192_ed03))
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    z
}

/// Recorded offsets and the request each is.
type Entries = Arc<[(Duration, u32)]>;

/// The arrivals of an open model.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    from: f64,
    to: f64,
    poisson: bool,
    warm_up: f64,
    measured: f64,
    seed: u64,
    /// This worker's first index and the step to its next.
    share: (u64, u64),
    shape: Option<Shape>,
    /// Recorded arrivals and how many times as fast they are repeated.
    recorded: Option<(Entries, f64)>,
    peak: f64,
    /// Evenly spaced arrivals of the warm-up.
    warm: f64,
    /// By which part of the gap after it each arrival is later than it would be.
    phase: f64,
}

/// The first index of a worker and the step to its next.
pub(crate) fn share(plan: &Plan) -> (u64, u64) {
    plan.shard.map_or((0, 1), |(number, of)| {
        (u64::from(number.saturating_sub(1)), u64::from(of.max(1)))
    })
}

impl Schedule {
    /// The plan's arrivals; none for the closed model.
    pub fn of(plan: &Plan) -> Option<Schedule> {
        let (mut shape, mut recorded) = (None, None);
        let (from, to, poisson) = match plan.model {
            Model::Rate {
                per_second,
                poisson,
            } => (per_second, per_second, poisson),
            Model::Ramp { from, to } => (from, to, false),
            Model::Shape(given) => {
                shape = Some(given);
                (given.rate(0.0), 0.0, false)
            }
            Model::Replay { speed } => {
                recorded = Some((Arc::clone(&plan.recorded), speed));
                (0.0, 0.0, false)
            }
            Model::Closed { .. } => return None,
        };
        let (warm_up, measured) = (plan.warm_up.as_secs_f64(), plan.duration.as_secs_f64());
        Some(Schedule {
            from,
            to,
            poisson,
            warm_up,
            measured,
            seed: plan.seed,
            share: share(plan),
            peak: shape.map_or(from.max(to), |s| s.peak(measured)),
            shape,
            recorded,
            warm: if from > 0.0 {
                (from * warm_up - 1e-9).ceil().max(0.0)
            } else {
                0.0
            },
            phase: plan.phase(),
        })
    }

    /// One of `of` equal parts of what is this worker's: every `of`-th arrival.
    #[cfg(target_os = "linux")]
    pub(crate) fn part(&self, number: usize, of: usize) -> Schedule {
        let (first, step) = self.share;
        Schedule {
            share: (first + number as u64 * step, step * of as u64),
            ..self.clone()
        }
    }

    /// When the last arrival is over: warm-up plus measured part.
    pub fn end(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up + self.measured)
    }

    /// The highest rate it reaches, requests per second; 0 for a recording.
    pub fn peak_rate(&self) -> f64 {
        self.peak
    }

    /// Requests per second due at this offset.
    pub fn rate_at(&self, offset: Duration) -> f64 {
        let t = offset.as_secs_f64() - self.warm_up;
        if t >= self.measured {
            0.0
        } else if let Some((entries, speed)) = &self.recorded {
            // Of the second around it.
            let edge = |t: f64| {
                let at = Duration::from_secs_f64((t * speed).max(0.0));
                entries.partition_point(|(due, _)| *due < at)
            };
            (edge(t + 0.5) - edge(t - 0.5)) as f64 / self.share.1 as f64
        } else if let Some(shape) = &self.shape {
            shape.rate(t.max(0.0)) / self.share.1 as f64
        } else {
            (self.from + (self.to - self.from) * t.max(0.0) / self.measured) / self.share.1 as f64
        }
    }

    /// Seconds until evenly spaced arrival `index`; infinite when it never comes.
    fn even(&self, index: u64) -> f64 {
        if let Some((entries, speed)) = &self.recorded {
            return entries
                .get(index as usize)
                .map_or(f64::INFINITY, |(at, _)| at.as_secs_f64() / speed);
        }
        let index = index as f64;
        if index < self.warm {
            return index / self.from;
        }
        let n = index - self.warm;
        if n == 0.0 && self.from > 0.0 {
            return self.warm_up;
        }
        if let Some(shape) = &self.shape {
            return self.warm_up + shape.when(n, self.measured);
        }
        // Arrivals until t are from*t + slope*t^2/2; solved for t in the form that does not cancel.
        let slope = (self.to - self.from) / self.measured;
        let root = (self.from * self.from + 2.0 * slope * n).sqrt();
        let t = if root.is_nan() {
            f64::INFINITY
        } else {
            2.0 * n / (self.from + root)
        };
        if t.is_nan() {
            self.warm_up
        } else {
            self.warm_up + t
        }
    }

    /// How much later than evenly spaced this arrival is, since another run's is there: a part of the gap that follows.
    fn later(&self, index: u64) -> f64 {
        if self.phase == 0.0 {
            return 0.0;
        }
        let gap = self.even(index + 1) - self.even(index);
        if gap.is_finite() {
            self.phase * gap
        } else {
            0.0
        }
    }

    /// All arrivals in order.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals {
            schedule: self.clone(),
            index: 0,
            at: 0.0,
        }
    }
}

/// Iterates over a schedule's offsets in constant memory; two of the same schedule agree exactly.
#[derive(Debug, Clone)]
pub struct Arrivals {
    schedule: Schedule,
    index: u64,
    at: f64,
}

/// One of them, and all that is needed to go on after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Arrival {
    /// Among all workers' requests.
    pub(crate) index: u64,
    pub(crate) due: Duration,
    /// The same, as exact as the schedule has it, in seconds.
    at: f64,
}

impl Arrivals {
    /// The next, with its index.
    pub(crate) fn arrival(&mut self) -> Option<Arrival> {
        let due = self.next()?;
        Some(Arrival {
            index: self.index - 1,
            due,
            at: self.at,
        })
    }

    /// What comes after this one comes next.
    pub(crate) fn go_on_after(&mut self, last: Arrival) {
        self.index = last.index + 1;
        self.at = last.at;
    }

    /// The index, among all workers' requests, of the arrival that comes next here.
    fn next_index(&self) -> u64 {
        let (first, step) = self.schedule.share;
        // The iterator's own index is where it looks next; its share of it is the next at or after that.
        self.index + (first + step - self.index % step) % step
    }

    /// The next of all workers' arrivals.
    fn any(&mut self) -> Option<Duration> {
        let s = &self.schedule;
        let at = if s.poisson {
            // 53 random bits as a number in (0, 1].
            let stream = if s.phase > 0.0 { 7 } else { 6 };
            let u = ((mix(s.seed, self.index, stream) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            self.at - u.ln() / s.from
        } else {
            s.even(self.index) + s.later(self.index)
        };
        if at >= s.warm_up + s.measured - 1e-9 {
            return None;
        }
        self.index += 1;
        self.at = at;
        Some(Duration::from_nanos((at * 1e9 + 0.5) as u64))
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let mine = self.next_index();
        while self.index < mine {
            self.any()?;
        }
        self.any()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(model: Model, warm_up: u64, seconds: u64) -> Vec<f64> {
        let plan = Plan {
            model,
            warm_up: Duration::from_secs(warm_up),
            duration: Duration::from_secs(seconds),
            ..Plan::new("http://localhost").unwrap()
        };
        let schedule = Schedule::of(&plan).unwrap();
        let all: Vec<f64> = schedule.arrivals().map(|d| d.as_secs_f64()).collect();
        assert_eq!(
            all,
            schedule
                .arrivals()
                .map(|d| d.as_secs_f64())
                .collect::<Vec<_>>()
        );
        assert!(all.windows(2).all(|w| w[0] <= w[1]));
        all
    }

    #[test]
    fn even_arrivals_are_exact() {
        let all = arrivals(
            Model::Rate {
                per_second: 500.0,
                poisson: false,
            },
            0,
            10,
        );
        assert_eq!(all.len(), 5000);
        assert!((all[4999] - 9.998).abs() < 1e-6);
        let all = arrivals(
            Model::Rate {
                per_second: 3.0,
                poisson: false,
            },
            2,
            4,
        );
        assert_eq!(all.len(), 18);
        assert_eq!(all.iter().filter(|t| **t >= 2.0).count(), 12);
        assert_eq!(
            arrivals(
                Model::Rate {
                    per_second: 0.1,
                    poisson: false
                },
                0,
                10
            ),
            [0.0]
        );
    }

    #[test]
    fn shards_split_the_whole_exactly() {
        for (model, of) in [
            (
                Model::Ramp {
                    from: 3.0,
                    to: 77.0,
                },
                3,
            ),
            (
                Model::Rate {
                    per_second: 41.0,
                    poisson: true,
                },
                8,
            ),
            (
                Model::Rate {
                    per_second: 10.0,
                    poisson: false,
                },
                1,
            ),
        ] {
            let whole = Plan {
                model,
                ..Plan::new("http://localhost").unwrap()
            };
            let collect = |plan: &Plan| {
                let mut arrivals = Schedule::of(plan).unwrap().arrivals();
                let mut all = Vec::new();
                loop {
                    let index = arrivals.next_index();
                    let Some(at) = arrivals.next() else { break };
                    all.push((index, at));
                }
                all
            };
            let mut joined: Vec<_> = (1..=of)
                .flat_map(|number| {
                    collect(&Plan {
                        shard: Some((number, of)),
                        ..whole.clone()
                    })
                })
                .collect();
            joined.sort_unstable();
            assert_eq!(joined, collect(&whole));
        }
    }

    #[test]
    fn shapes_and_recordings_are_followed() {
        let spike = Shape::Spike {
            base: 10.0,
            peak: 110.0,
            at: Duration::from_secs(4),
            length: Duration::from_secs(2),
        };
        let all = arrivals(Model::Shape(spike), 3, 10);
        assert_eq!(all.len(), 30 + 80 + 220);
        let inside = all.iter().filter(|t| (7.0..9.0).contains(*t)).count();
        assert!((219..=221).contains(&inside), "{inside}");
        let ms = Duration::from_millis;
        let plan = Plan {
            model: Model::Replay { speed: 2.0 },
            recorded: [(ms(0), 0), (ms(500), 0), (ms(3000), 0), (ms(9000), 0)].into(),
            duration: Duration::from_secs(2),
            ..Plan::new("http://localhost").unwrap()
        };
        assert_eq!(plan.check(), Ok(()));
        let all: Vec<_> = Schedule::of(&plan).unwrap().arrivals().collect();
        assert_eq!(all, [ms(0), ms(250), ms(1500)]);
    }

    #[test]
    fn arrivals_beside_others_lie_between_them() {
        let models = [
            (
                Model::Rate {
                    per_second: 41.0,
                    poisson: false,
                },
                1.5,
            ),
            (
                Model::Ramp {
                    from: 0.0,
                    to: 77.0,
                },
                0.0,
            ),
            (
                Model::Ramp {
                    from: 50.0,
                    to: 5.0,
                },
                2.0,
            ),
            (
                Model::Shape(Shape::Sine {
                    mean: 30.0,
                    amplitude: 20.0,
                    period: Duration::from_secs(3),
                }),
                1.0,
            ),
            (Model::Replay { speed: 2.0 }, 0.0),
        ];
        let ms = Duration::from_millis;
        for (model, warm_up) in models {
            let plan = Plan {
                model,
                warm_up: Duration::from_secs_f64(warm_up),
                recorded: [(ms(0), 0), (ms(500), 0), (ms(3000), 0)].into(),
                ..Plan::new("http://localhost").unwrap()
            };
            let first = Schedule::of(&plan).unwrap();
            let second = Schedule {
                phase: 0.5,
                ..first.clone()
            };
            let [a, b] = [first, second].map(|s| s.arrivals().collect::<Vec<_>>());
            assert!(
                a.len().abs_diff(b.len()) <= 1,
                "{model:?}: {} {}",
                a.len(),
                b.len()
            );
            // The last of a recording has no gap after it.
            let least = a.windows(2).map(|w| w[1] - w[0]).min().unwrap() / 4;
            let between = a.windows(2).zip(&b);
            for (pair, at) in between {
                assert!(
                    *at > pair[0] + least && *at + least < pair[1],
                    "{model:?}: {at:?} {pair:?}"
                );
            }
        }
        // Random gaps of the same rate, not the same.
        let poisson = Schedule::of(&Plan {
            model: Model::Rate {
                per_second: 1000.0,
                poisson: true,
            },
            ..Plan::new("http://localhost").unwrap()
        })
        .unwrap();
        let second = Schedule {
            phase: 0.5,
            ..poisson.clone()
        };
        let [a, b] = [poisson, second].map(|s| s.arrivals().collect::<Vec<_>>());
        assert!((9_700..10_300).contains(&b.len()) && a[..100] != b[..100]);
    }

    #[test]
    fn ramps_follow_the_area_under_the_line() {
        for (from, to) in [(0.0, 100.0), (100.0, 0.0), (50.0, 50.0), (10.0, 90.0)] {
            let all = arrivals(Model::Ramp { from, to }, 0, 10);
            assert!(
                (499..=501).contains(&all.len()),
                "{from} to {to}: {}",
                all.len()
            );
            let first = all.iter().filter(|t| **t < 5.0).count() as f64;
            let area = 5.0 * (from + (from + to) / 2.0) / 2.0;
            assert!(
                (first - area).abs() <= 2.0,
                "{from} to {to}: {first} against {area}"
            );
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_exponential_gaps() {
        let all = arrivals(
            Model::Rate {
                per_second: 1000.0,
                poisson: true,
            },
            0,
            10,
        );
        assert!((9_700..10_300).contains(&all.len()), "{}", all.len());
        let long = all.windows(2).filter(|w| w[1] - w[0] > 0.001).count() as f64 / all.len() as f64;
        assert!((long - (-1.0_f64).exp()).abs() < 0.02, "{long}");
    }
}
