//! Owns the shapes a rate can follow over time: steps, a spike, a sine; their area, and its inverse.
//! Pure arithmetic on seconds.

use std::f64::consts::TAU;
use std::time::Duration;

/// How the rate changes over the measured part, in requests per second. The warm-up runs at the rate of its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// `from`, and `by` more after each `every`; never below 0.
    Steps {
        /// The first rate.
        from: f64,
        /// The height of a step; negative goes down.
        by: f64,
        /// The length of a step.
        every: Duration,
    },
    /// `base`, and `peak` from `at` for `length`.
    Spike {
        /// The rate before and after.
        base: f64,
        /// The rate of the spike.
        peak: f64,
        /// When it begins.
        at: Duration,
        /// How long it lasts.
        length: Duration,
    },
    /// `mean` plus `amplitude` times the sine of the time in `period`s; the amplitude is at most the mean.
    Sine {
        /// The rate about which it swings.
        mean: f64,
        /// How far it swings.
        amplitude: f64,
        /// The length of a swing.
        period: Duration,
    },
}

impl Shape {
    /// The first thing wrong with it, if any.
    pub(crate) fn fault(&self) -> Option<String> {
        let bad = |r: f64| !(r.is_finite() && r >= 0.0);
        match *self {
            Shape::Steps { from, by, every } => (bad(from) || !by.is_finite() || every.is_zero())
                .then(|| format!("steps from {from} by {by} every {every:?} need a rate of at least 0 and a length above 0")),
            Shape::Spike { base, peak, .. } => (bad(base) || bad(peak))
                .then(|| format!("a spike from {base} to {peak} is not between two rates of at least 0")),
            Shape::Sine { mean, amplitude, period } => {
                (bad(mean) || bad(amplitude) || amplitude > mean || period.is_zero()).then(|| {
                    format!("a sine of {amplitude} around {mean} in {period:?} needs an amplitude of at most the mean and a period above 0")
                })
            }
        }
    }

    /// Requests per second at `t` seconds.
    pub(crate) fn rate(&self, t: f64) -> f64 {
        match *self {
            Shape::Steps { from, by, every } => {
                (from + by * (t / every.as_secs_f64()).floor()).max(0.0)
            }
            Shape::Spike {
                base,
                peak,
                at,
                length,
            } => {
                let at = at.as_secs_f64();
                let inside = t >= at && t < at + length.as_secs_f64();
                if inside { peak } else { base }
            }
            Shape::Sine {
                mean,
                amplitude,
                period,
            } => mean + amplitude * (TAU * t / period.as_secs_f64()).sin(),
        }
    }

    /// The highest rate until `end` seconds.
    pub(crate) fn peak(&self, end: f64) -> f64 {
        match *self {
            Shape::Steps { from, .. } => from.max(self.rate((end - 1e-9).max(0.0))),
            Shape::Spike { base, peak, .. } => base.max(peak),
            Shape::Sine {
                mean, amplitude, ..
            } => mean + amplitude,
        }
    }

    /// Requests due until `t` seconds.
    pub(crate) fn area(&self, t: f64) -> f64 {
        match *self {
            Shape::Steps { from, by, every } => {
                let every = every.as_secs_f64();
                // Steps down end at 0.
                let last = if by < 0.0 {
                    (from / -by).ceil()
                } else {
                    f64::INFINITY
                };
                let full = (t / every).floor().min(last);
                let whole = every * (from * full + by * full * (full - 1.0) / 2.0);
                whole + (t - full * every) * (from + by * full).max(0.0)
            }
            Shape::Spike {
                base,
                peak,
                at,
                length,
            } => {
                let inside = (t - at.as_secs_f64()).clamp(0.0, length.as_secs_f64());
                base * t + (peak - base) * inside
            }
            Shape::Sine {
                mean,
                amplitude,
                period,
            } => {
                let w = TAU / period.as_secs_f64();
                mean * t + amplitude / w * (1.0 - (w * t).cos())
            }
        }
    }

    /// When the area reaches `n`, in seconds; infinite when not before `end`.
    pub(crate) fn when(&self, n: f64, end: f64) -> f64 {
        if self.area(end) < n {
            return f64::INFINITY;
        }
        let (mut low, mut high) = (0.0, end);
        // Down to a nanosecond of any run shorter than a month.
        for _ in 0..52 {
            let middle = (low + high) / 2.0;
            if self.area(middle) < n {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_area_is_the_sum_of_the_rate() {
        for shape in [
            Shape::Steps {
                from: 10.0,
                by: 5.0,
                every: S(2),
            },
            Shape::Steps {
                from: 10.0,
                by: -4.0,
                every: S(2),
            },
            Shape::Spike {
                base: 5.0,
                peak: 90.0,
                at: S(3),
                length: S(2),
            },
            Shape::Sine {
                mean: 20.0,
                amplitude: 20.0,
                period: S(4),
            },
        ] {
            assert_eq!(shape.fault(), None);
            let mut sum = 0.0;
            for i in 0..9500 {
                let t = f64::from(i) / 1000.0;
                assert!((shape.area(t) - sum).abs() < 0.1, "{shape:?} at {t}");
                assert!(shape.rate(t) <= shape.peak(10.0) + 1e-9);
                sum += shape.rate(t + 0.0005) / 1000.0;
            }
            let n = (sum / 2.0).floor();
            assert!((shape.area(shape.when(n, 9.5)) - n).abs() < 1e-6);
            assert!(shape.when(sum + 1.0, 9.5).is_infinite());
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(
            Shape::Sine {
                mean: 1.0,
                amplitude: 2.0,
                period: S(1)
            }
            .fault()
            .is_some()
        );
        assert!(
            Shape::Steps {
                from: 1.0,
                by: 2.0,
                every: S(0)
            }
            .fault()
            .is_some()
        );
        assert!(
            Shape::Spike {
                base: -1.0,
                peak: 2.0,
                at: S(0),
                length: S(1)
            }
            .fault()
            .is_some()
        );
    }
}
