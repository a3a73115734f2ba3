//! Owns one column of times: a histogram in microseconds with three digits, exact least, greatest, mean and deviation.
//! Must not know which column it is.

use hdrhistogram::Histogram;

/// An hour in microseconds: the longest time told apart.
const LONGEST_US: u64 = 3_600_000_000;

#[derive(Debug, Clone)]
pub(super) struct Column {
    us: Histogram<u64>,
    least: u64,
    greatest: u64,
    sum: f64,
    squares: f64,
}

impl Column {
    pub(super) fn new() -> Column {
        Column {
            us: Histogram::new_with_bounds(1, LONGEST_US, 3).expect("constant bounds are valid"),
            least: u64::MAX,
            greatest: 0,
            sum: 0.0,
            squares: 0.0,
        }
    }

    pub(super) fn add(&mut self, us: u64) {
        self.us.saturating_record(us);
        self.least = self.least.min(us);
        self.greatest = self.greatest.max(us);
        self.sum += us as f64;
        self.squares += us as f64 * us as f64;
    }

    /// Times taken.
    pub(super) fn count(&self) -> u64 {
        self.us.len()
    }

    /// In microseconds; 0 when there are none.
    pub(super) fn least(&self) -> u64 {
        if self.us.is_empty() { 0 } else { self.least }
    }

    /// In microseconds.
    pub(super) fn greatest(&self) -> u64 {
        self.greatest
    }

    /// All times added, in microseconds.
    pub(super) fn sum(&self) -> u64 {
        self.sum as u64
    }

    /// In microseconds, rounded down as ab does.
    pub(super) fn mean(&self) -> u64 {
        (self.sum() as f64 / self.us.len().max(1) as f64) as u64
    }

    /// Of the sample (n - 1), in microseconds.
    pub(super) fn deviation(&self) -> f64 {
        let n = self.us.len() as f64;
        if n < 2.0 {
            return 0.0;
        }
        ((self.squares - self.sum * self.sum / n).max(0.0) / (n - 1.0)).sqrt()
    }

    /// The time at this place of the sorted times (from 0), in microseconds, to three digits.
    pub(super) fn at(&self, place: u64) -> u64 {
        let last = self.us.len().saturating_sub(1);
        if place >= last {
            return self.greatest;
        }
        if place == 0 {
            return self.least();
        }
        let quantile = (place as f64 + 0.5) / self.us.len() as f64;
        self.us
            .value_at_quantile(quantile)
            .clamp(self.least, self.greatest)
    }

    /// In microseconds.
    pub(super) fn quantile(&self, q: f64) -> u64 {
        self.us
            .value_at_quantile(q)
            .clamp(self.least(), self.greatest)
    }

    /// The middle of the sorted times, in microseconds.
    pub(super) fn median(&self) -> u64 {
        self.at(self.us.len() / 2)
    }
}

/// Microseconds to whole milliseconds, half up.
pub(super) fn whole_ms(us: u64) -> u64 {
    (us + 500) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_sorted_times() {
        let mut column = Column::new();
        for us in (1..=1000).rev() {
            column.add(us);
        }
        assert_eq!(
            (column.least(), column.greatest(), column.mean()),
            (1, 1000, 500)
        );
        for place in [0, 1, 499, 500, 900, 998, 999] {
            assert_eq!(column.at(place), place + 1);
        }
        assert_eq!(column.median(), 501);
        assert!((column.deviation() - 288.819).abs() < 0.001);
        let empty = Column::new();
        assert_eq!((empty.least(), empty.at(5), empty.mean()), (0, 0, 0));
        assert_eq!((whole_ms(499), whole_ms(500)), (0, 1));
    }
}
