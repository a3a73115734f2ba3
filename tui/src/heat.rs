//! A heat map's cells: how much of what took how long, over time, on one grid for native and classic histograms.
//!
//! Owns the grid and how buckets of any bounds are laid on it. A grid line is a quarter of a doubling. Columns stand at
//! multiples of their width, so that a map changes only when a column is complete. Must not know how buckets are
//! fetched, nor how cells are drawn.

use serde::Serialize;

/// Grid lines of one doubling.
const PER_DOUBLING: f64 = 4.0;
/// The grid's lowest bound: 2 to this power, seconds (about 15 us).
const LOWEST: f64 = -16.0;
/// Grid lines: up to 2^7 seconds (128 s).
pub(crate) const SLOTS: usize = 92;
/// Columns of a map.
pub(crate) const COLUMNS: i64 = 120;

/// A bucket: lower and upper bound in seconds, and how much per second.
pub(crate) type Cell = (f64, f64, f64);

/// A heat map.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Heat {
    /// What it shows, such as `GET /x`; maps of different names do not continue each other.
    pub name: String,
    /// `native` or `classic`: the histograms it was made from.
    pub from: String,
    /// The end of the last column, Unix milliseconds.
    pub end_ms: i64,
    /// The width of a column, milliseconds.
    pub step_ms: i64,
    /// Columns, oldest first: per grid line how much per second; none where nothing is known.
    pub columns: Vec<Option<Vec<f32>>>,
}

/// The width of a column for a range, milliseconds.
pub(crate) fn step_ms(range_ms: i64) -> i64 {
    (range_ms / COLUMNS).max(1_000)
}

/// The bounds of a grid line, seconds.
pub(crate) fn bounds(slot: usize) -> (f64, f64) {
    let at = |i: usize| 2f64.powf(LOWEST + i as f64 / PER_DOUBLING);
    (at(slot), at(slot + 1))
}

/// The grid line of a value, as a fraction.
fn place(seconds: f64) -> f64 {
    if seconds <= 0.0 {
        return 0.0;
    }
    ((seconds.log2() - LOWEST) * PER_DOUBLING).clamp(0.0, SLOTS as f64)
}

/// Buckets on the grid: what a bucket holds is spread evenly over the grid lines it covers. One that begins at 0 (or
/// below) is taken to span one doubling, one that has no end one grid line.
pub(crate) fn lay(cells: &[Cell]) -> Vec<f32> {
    let mut out = vec![0f32; SLOTS];
    for &(lower, upper, amount) in cells {
        if !(amount.is_finite() && amount > 0.0) || upper <= 0.0 {
            continue;
        }
        let (from, to) = match (lower > 0.0, upper.is_finite()) {
            (_, false) => (place(lower), place(lower) + 1.0),
            (false, true) => (place(upper) - PER_DOUBLING, place(upper)),
            (true, true) => (place(lower), place(upper)),
        };
        let to = to.clamp(1e-6, SLOTS as f64);
        let from = from.clamp(0.0, to - 1e-6);
        let mut slot = from.floor() as usize;
        while (slot as f64) < to && slot < SLOTS {
            let part = (to.min(slot as f64 + 1.0) - from.max(slot as f64)) / (to - from);
            out[slot] += (amount * part) as f32;
            slot += 1;
        }
    }
    out
}

/// Cumulative buckets of a classic histogram (bound, at or below it) as buckets of their own.
pub(crate) fn apart(mut cumulative: Vec<(f64, f64)>) -> Vec<Cell> {
    cumulative.retain(|(bound, _)| !bound.is_nan());
    cumulative.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut before = (f64::NEG_INFINITY, 0.0);
    let mut out = Vec::new();
    for (bound, total) in cumulative {
        out.push((before.0, bound, (total - before.1).max(0.0)));
        before = (bound, total.max(before.1));
    }
    out
}

// === impl Heat ===

impl Heat {
    /// This map continued by a newer one; the newer one alone where they do not fit together. A newer one without
    /// columns says that nothing new is complete.
    #[must_use]
    pub(crate) fn continued(mut self, newer: Heat) -> Heat {
        if self.name != newer.name || self.step_ms != newer.step_ms {
            return newer;
        }
        if newer.columns.is_empty() {
            return self;
        }
        let gap = (newer.end_ms - self.end_ms) / self.step_ms.max(1) - newer.columns.len() as i64;
        if !(0..COLUMNS).contains(&gap) {
            return newer;
        }
        self.columns.extend((0..gap).map(|_| None));
        self.columns.extend(newer.columns);
        let surplus = self.columns.len().saturating_sub(COLUMNS as usize);
        self.columns.drain(..surplus);
        Heat {
            columns: self.columns,
            ..newer
        }
    }

    /// `rows` x `columns` cells for drawing, lowest row first, over the grid lines from `first` to `last`; `None` where
    /// nothing is known.
    pub(crate) fn cells(
        &self,
        (first, last): (usize, usize),
        rows: usize,
        columns: usize,
    ) -> Vec<Vec<Option<f32>>> {
        let lines = last.saturating_sub(first) + 1;
        let n = self.columns.len();
        let mut out = vec![vec![None; columns]; rows];
        if n == 0 || rows == 0 || columns == 0 {
            return out;
        }
        for x in 0..columns {
            let from = x * n / columns;
            let to = ((x + 1) * n).div_ceil(columns).clamp(from + 1, n);
            let known: Vec<&Vec<f32>> = self.columns[from..to].iter().flatten().collect();
            if known.is_empty() {
                continue;
            }
            for (row, line) in out.iter_mut().enumerate() {
                let low = first + row * lines / rows;
                let high = (first + (row + 1) * lines / rows).clamp(low + 1, SLOTS);
                let sum: f32 = known.iter().flat_map(|c| &c[low..high]).sum();
                line[x] = Some(sum / known.len() as f32);
            }
        }
        out
    }

    /// The grid lines between which anything is; `None` when nothing is.
    pub(crate) fn used(&self) -> Option<(usize, usize)> {
        let any = |slot: &usize| self.columns.iter().flatten().any(|c| c[*slot] > 1e-4);
        let first = (0..SLOTS).find(any)?;
        let last = (0..SLOTS).rev().find(any)?;
        Some((first, last))
    }

    /// The latency below which the share `q` of what the last `columns` columns hold stays, seconds.
    #[cfg(test)]
    pub(crate) fn quantile(&self, q: f64, columns: usize) -> Option<f64> {
        let mut sums = vec![0f64; SLOTS];
        for column in self.columns.iter().rev().take(columns).flatten() {
            for (sum, v) in sums.iter_mut().zip(column) {
                *sum += f64::from(*v);
            }
        }
        let total: f64 = sums.iter().sum();
        let mut left = q * total;
        for (slot, sum) in sums.iter().enumerate() {
            if *sum > 0.0 && left <= *sum {
                let (low, high) = bounds(slot);
                return Some(low + (high - low) * left / sum);
            }
            left -= sum;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heat(end_ms: i64, columns: &[f32]) -> Heat {
        let column = |v: &f32| Some(lay(&[(0.01, 0.02, f64::from(*v))]));
        Heat {
            name: "x".into(),
            from: "native".into(),
            end_ms,
            step_ms: 1_000,
            columns: columns.iter().map(column).collect(),
        }
    }

    #[test]
    fn nothing_is_lost_on_the_grid() {
        for cells in [
            vec![(0.001, 0.0025, 3.0), (0.0025, 0.005, 1.5)],
            vec![
                (f64::NEG_INFINITY, 0.001, 2.0),
                (10.0, f64::INFINITY, 1.0),
                (200.0, f64::INFINITY, 1.0),
            ],
            vec![(0.0, 1e-9, 1.0), (1e5, 2e5, 1.0)],
        ] {
            let wanted: f64 = cells.iter().map(|c| c.2).sum();
            let sum: f32 = lay(&cells).iter().sum();
            assert!((f64::from(sum) - wanted).abs() < 1e-3, "{sum} {cells:?}");
        }
        assert!(lay(&[(0.1, 0.2, f64::NAN)]).iter().all(|v| *v == 0.0));
    }

    #[test]
    fn a_value_lies_on_its_grid_line() {
        let laid = lay(&[(0.0625, 0.07, 1.0)]);
        let at = laid.iter().position(|v| *v > 0.0).unwrap();
        let (low, high) = bounds(at);
        assert!(low <= 0.0625 + 1e-9 && 0.07 <= high, "{low} {high}");
        let q = heat(5_000, &[1.0, 2.0]).quantile(0.5, 2).unwrap();
        assert!((0.01..0.02).contains(&q), "{q}");
    }

    #[test]
    fn cumulative_buckets_come_apart() {
        let apart = apart(vec![(f64::INFINITY, 5.0), (0.1, 2.0), (0.2, 1.9)]);
        assert_eq!(
            apart,
            [
                (f64::NEG_INFINITY, 0.1, 2.0),
                (0.1, 0.2, 0.0),
                (0.2, f64::INFINITY, 3.0)
            ]
        );
    }

    #[test]
    fn a_map_goes_on_where_it_ended() {
        let old = heat(10_000, &[1.0, 2.0, 3.0]);
        let next = old.clone().continued(heat(12_000, &[4.0]));
        assert_eq!((next.columns.len(), next.end_ms), (5, 12_000));
        assert!(
            next.columns[3].is_none(),
            "the second that nobody asked for"
        );
        assert_eq!(old.clone().continued(heat(10_000, &[])), old);
        let far = heat(10_000_000, &[9.0]);
        assert_eq!(old.clone().continued(far.clone()), far);
        let mut other = heat(11_000, &[4.0]);
        other.name = "y".into();
        assert_eq!(old.continued(other.clone()), other);
        let full = heat(0, &[1.0; 120]).continued(heat(1_000, &[2.0]));
        assert_eq!(full.columns.len(), 120);
    }

    #[test]
    fn cells_keep_rates_at_any_size() {
        let map = heat(3_000, &[4.0, 4.0, 4.0]);
        let used = map.used().unwrap();
        for (rows, columns) in [(1, 1), (3, 2), (2, 9)] {
            let cells = map.cells(used, rows, columns);
            assert_eq!((cells.len(), cells[0].len()), (rows, columns));
        }
        assert_eq!(map.cells(used, 1, 1)[0][0].map(|v| v.round()), Some(4.0));
        assert_eq!(heat(0, &[0.0]).used(), None);
    }
}
