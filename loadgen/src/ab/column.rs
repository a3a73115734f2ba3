//! Owns one column of times: a histogram in microseconds, mean and deviation.
//! Must not know which column it is.

use std::time::Duration;

use hdrhistogram::Histogram;

/// An hour in microseconds: the longest time told apart.
const LONGEST_US: u64 = 3_600_000_000;

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) us: Histogram<u64>,
    sum_ms: f64,
    squares: f64,
}

impl Column {
    pub(super) fn new() -> Column {
        Column {
            us: Histogram::new_with_bounds(1, LONGEST_US, 3).expect("constant bounds are valid"),
            sum_ms: 0.0,
            squares: 0.0,
        }
    }

    pub(super) fn add(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.us.saturating_record(us);
        let ms = us as f64 / 1e3;
        self.sum_ms += ms;
        self.squares += ms * ms;
    }

    pub(super) fn mean(&self) -> f64 {
        if self.us.is_empty() {
            0.0
        } else {
            self.sum_ms / self.us.len() as f64
        }
    }

    pub(super) fn deviation(&self) -> f64 {
        let n = self.us.len() as f64;
        if n < 2.0 {
            return 0.0;
        }
        ((self.squares - self.sum_ms * self.sum_ms / n).max(0.0) / (n - 1.0)).sqrt()
    }

    pub(super) fn quantile_ms(&self, q: f64) -> f64 {
        if q >= 1.0 {
            self.us.max() as f64 / 1e3
        } else {
            self.us.value_at_quantile(q) as f64 / 1e3
        }
    }
}
