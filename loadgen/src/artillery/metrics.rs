//! Owns the figures of a run under Artillery's names: counters, rates and summaries, for each period of ten seconds and
//! in total, in memory bounded by the number of names. Reads no clock.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Length of a period.
pub(crate) const PERIOD_MS: i64 = 10_000;
/// The most counters; beyond them figures are counted under [`OTHER`].
const MAX_COUNTERS: usize = 10_000;
/// The same for summaries, which are larger, and for rates.
const MAX_NAMES: usize = 500;
/// What figures of names beyond the limit are called.
pub(crate) const OTHER: &str = "other";
/// The longest name.
const MAX_NAME: usize = 1_024;

/// The longest time told apart: a day.
const MAX_US: u64 = 86_400_000_000;

/// Microseconds, three digits, growing with the values seen (a few KB when they lie close together).
fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits is a precision hdrhistogram accepts")
}

/// The figures of a period, or of the run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) counters: BTreeMap<String, u64>,
    /// In microseconds.
    pub(crate) summaries: BTreeMap<String, Histogram<u64>>,
    /// Events by name: first and last instant, and how many.
    rates: BTreeMap<String, (i64, i64, u64)>,
    /// First and last instant of a counter, and of a summary, milliseconds since 1970.
    pub(crate) counted: Option<(i64, i64)>,
    pub(crate) timed: Option<(i64, i64)>,
}

fn slot<'a, T>(
    map: &'a mut BTreeMap<String, T>,
    most: usize,
    name: &str,
    new: impl FnOnce() -> T,
) -> &'a mut T {
    let end = name.char_indices().map(|(i, c)| i + c.len_utf8());
    let end = end.take_while(|e| *e <= MAX_NAME).last().unwrap_or(0);
    let mut name = &name[..end];
    if map.len() >= most && !map.contains_key(name) {
        name = OTHER;
    }
    if !map.contains_key(name) {
        map.insert(name.to_owned(), new());
    }
    map.get_mut(name).expect("the name was inserted just above")
}

fn widen(range: &mut Option<(i64, i64)>, at_ms: i64) {
    let (first, last) = range.unwrap_or((at_ms, at_ms));
    *range = Some((first.min(at_ms), last.max(at_ms)));
}

impl Figures {
    fn count(&mut self, name: &str, by: u64, at_ms: i64) {
        *slot(&mut self.counters, MAX_COUNTERS, name, || 0) += by;
        widen(&mut self.counted, at_ms);
    }

    fn time(&mut self, name: &str, us: u64, at_ms: i64) {
        // Saturating would clamp to the current size instead of growing.
        let summary = slot(&mut self.summaries, MAX_NAMES, name, histogram);
        let recorded = summary.record(us.clamp(1, MAX_US));
        debug_assert!(recorded.is_ok(), "{us} us did not fit");
        widen(&mut self.timed, at_ms);
    }

    fn event(&mut self, name: &str, at_ms: i64) {
        let (first, last, n) = slot(&mut self.rates, MAX_NAMES, name, || (at_ms, at_ms, 0));
        (*first, *last, *n) = ((*first).min(at_ms), (*last).max(at_ms), *n + 1);
    }

    /// Events per second between the first and the last, over at least one second.
    pub(crate) fn rates(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rates.iter().map(|(name, (first, last, n))| {
            let seconds = (last - first).max(1_000) as f64 / 1e3;
            (name.as_str(), (*n as f64 / seconds).round() as u64)
        })
    }

    #[cfg(test)]
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.counters.is_empty() && self.summaries.is_empty() && self.rates.is_empty()
    }
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) total: Figures,
    /// The current period.
    current: Figures,
    /// Its start, milliseconds since 1970.
    current_ms: i64,
    /// Periods that have ended.
    ended: Vec<(i64, Figures)>,
}

impl Metrics {
    fn at(&mut self, at_ms: i64) {
        let period = at_ms - at_ms.rem_euclid(PERIOD_MS);
        if period > self.current_ms {
            self.end();
            self.current_ms = period;
        }
    }

    /// Ends the current period.
    pub(crate) fn end(&mut self) {
        let figures = std::mem::take(&mut self.current);
        if !figures.is_empty() {
            self.ended.push((self.current_ms, figures));
        }
    }

    /// Counts under a name.
    pub(crate) fn count(&mut self, name: &str, by: u64, at_ms: i64) {
        self.at(at_ms);
        self.total.count(name, by, at_ms);
        self.current.count(name, by, at_ms);
    }

    /// Records a time under a name.
    pub(crate) fn time(&mut self, name: &str, us: u64, at_ms: i64) {
        self.at(at_ms);
        self.total.time(name, us, at_ms);
        self.current.time(name, us, at_ms);
    }

    /// Counts an event towards the rate of this name.
    pub(crate) fn event(&mut self, name: &str, at_ms: i64) {
        self.at(at_ms);
        self.total.event(name, at_ms);
        self.current.event(name, at_ms);
    }

    /// The periods that have ended since the last call, with their starts, the current one too if it is over.
    pub(crate) fn take_ended(&mut self, now_ms: i64) -> Vec<(i64, Figures)> {
        self.at(now_ms);
        std::mem::take(&mut self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_end_and_totals_stay() {
        let mut m = Metrics::default();
        m.count("a", 1, 1_000);
        m.time("t", 5_000, 9_999);
        m.count("a", 2, 10_000);
        let ended = m.take_ended(10_001);
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].0, ended[0].1.counter("a")), (0, 1));
        assert_eq!(ended[0].1.timed, Some((9_999, 9_999)));
        m.end();
        let ended = m.take_ended(10_002);
        assert_eq!((ended[0].0, ended[0].1.counter("a")), (10_000, 2));
        assert_eq!(m.total.counter("a"), 3);
    }

    #[test]
    fn times_of_any_length_are_kept() {
        let mut f = Figures::default();
        for us in [0, 5, 7_000_000, u64::MAX] {
            f.time("t", us, 0);
        }
        let h = &f.summaries["t"];
        assert_eq!((h.len(), h.min()), (4, 1));
        assert!(h.equivalent(h.max(), MAX_US));
        assert!(h.equivalent(h.value_at_quantile(0.75), 7_000_000));
    }

    #[test]
    fn names_are_bounded() {
        let mut f = Figures::default();
        for i in 0..MAX_COUNTERS + 4_500 {
            f.count(&format!("n{i}"), 1, 0);
        }
        assert_eq!(f.counters.len(), MAX_COUNTERS + 1);
        assert_eq!(f.counter(OTHER), 4_500);
        f.count(&"é".repeat(2_000), 1, 0);
    }

    #[test]
    fn the_rate_is_over_the_time_with_requests() {
        let mut f = Figures::default();
        assert_eq!(f.rates().count(), 0);
        for i in 0..=20 {
            f.event("r", i * 100);
        }
        assert_eq!(f.rates().collect::<Vec<_>>(), [("r", 11)]);
    }
}
