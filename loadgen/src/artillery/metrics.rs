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

/// What the responses of an endpoint count.
#[derive(Debug)]
struct Endpoint {
    /// What its figures' names begin with.
    space: String,
    status: BTreeMap<u16, u64>,
    /// In microseconds.
    times: Histogram<u64>,
    first: i64,
    last: i64,
}

/// What every request counts, of the current period and not yet among its figures: names cost more than numbers.
#[derive(Debug)]
struct Often {
    requests: u64,
    responses: u64,
    bytes: u64,
    status: BTreeMap<u16, u64>,
    /// By name.
    endpoints: BTreeMap<String, Endpoint>,
    /// In microseconds; all, and by the first digit of the status.
    times: [Histogram<u64>; 6],
    /// First and last instant of a request, of a response.
    requested: Option<(i64, i64)>,
    responded: Option<(i64, i64)>,
}

impl Often {
    /// These few names have their place whatever others there are.
    fn add_to(&self, figures: &mut Figures) {
        for (name, endpoint) in &self.endpoints {
            endpoint.add_to(name, figures);
        }
        if let Some((first, last)) = self.requested {
            *slot(&mut figures.counters, usize::MAX, "http.requests", || 0) += self.requests;
            let new = || (first, last, 0);
            let rate = slot(&mut figures.rates, usize::MAX, "http.request_rate", new);
            *rate = (rate.0.min(first), rate.1.max(last), rate.2 + self.requests);
        }
        for at in [self.requested, self.responded].into_iter().flatten() {
            widen(&mut figures.counted, at.0);
            widen(&mut figures.counted, at.1);
        }
        let Some((first, last)) = self.responded else {
            return;
        };
        for (name, by) in [
            ("http.responses", self.responses),
            ("http.downloaded_bytes", self.bytes),
        ] {
            *slot(&mut figures.counters, usize::MAX, name, || 0) += by;
        }
        for (status, by) in &self.status {
            let name = format!("http.codes.{status}");
            *slot(&mut figures.counters, usize::MAX, &name, || 0) += by;
        }
        for (class, times) in self.times.iter().enumerate().filter(|(_, t)| !t.is_empty()) {
            let name = match class {
                0 => "http.response_time".to_owned(),
                n => format!("http.response_time.{n}xx"),
            };
            let summary = slot(&mut figures.summaries, usize::MAX, &name, histogram);
            let added = summary.add(times);
            debug_assert!(added.is_ok(), "both grow");
        }
        widen(&mut figures.timed, first);
        widen(&mut figures.timed, last);
    }
}

impl Endpoint {
    fn add_to(&self, name: &str, figures: &mut Figures) {
        let space = &self.space;
        for (status, by) in &self.status {
            let name = format!("{space}.{name}.codes.{status}");
            *slot(&mut figures.counters, MAX_COUNTERS, &name, || 0) += by;
        }
        let name = format!("{space}.response_time.{name}");
        let summary = slot(&mut figures.summaries, MAX_NAMES, &name, histogram);
        let added = summary.add(&self.times);
        debug_assert!(added.is_ok(), "both grow");
        for range in [&mut figures.counted, &mut figures.timed] {
            widen(range, self.first);
            widen(range, self.last);
        }
    }
}

impl Default for Often {
    fn default() -> Often {
        Often {
            requests: 0,
            responses: 0,
            bytes: 0,
            status: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            times: std::array::from_fn(|_| histogram()),
            requested: None,
            responded: None,
        }
    }
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    total: Figures,
    /// The current period.
    current: Figures,
    often: Often,
    /// Its start, milliseconds since 1970.
    current_ms: i64,
    /// Periods that have ended.
    ended: Vec<(i64, Figures)>,
}

impl Metrics {
    /// Counts a request.
    pub(crate) fn request(&mut self, at_ms: i64) {
        self.at(at_ms);
        self.often.requests += 1;
        widen(&mut self.often.requested, at_ms);
    }

    /// Counts a response: its status, the length of its body, and the microseconds until its head was there.
    pub(crate) fn response(&mut self, status: u16, bytes: u64, first_byte_us: u64, at_ms: i64) {
        self.at(at_ms);
        let often = &mut self.often;
        often.responses += 1;
        often.bytes += bytes;
        *often.status.entry(status).or_default() += 1;
        widen(&mut often.responded, at_ms);
        let class = usize::from(status / 100);
        for i in [Some(0), (2..6).contains(&class).then_some(class)]
            .into_iter()
            .flatten()
        {
            let recorded = often.times[i].record(first_byte_us.clamp(1, MAX_US));
            debug_assert!(recorded.is_ok(), "{first_byte_us} us did not fit");
        }
    }

    /// Counts a response of an endpoint: its status, and the microseconds until its head was there.
    pub(crate) fn endpoint(
        &mut self,
        space: &str,
        name: &str,
        status: u16,
        first_byte_us: u64,
        at_ms: i64,
    ) {
        self.at(at_ms);
        let all = &mut self.often.endpoints;
        if all.len() >= MAX_NAMES && !all.contains_key(name) {
            self.count(&format!("{space}.{name}.codes.{status}"), 1, at_ms);
            return self.time(
                &format!("{space}.response_time.{name}"),
                first_byte_us,
                at_ms,
            );
        }
        let endpoint = slot(all, MAX_NAMES, name, || Endpoint {
            space: space.to_owned(),
            status: BTreeMap::new(),
            times: histogram(),
            first: at_ms,
            last: at_ms,
        });
        *endpoint.status.entry(status).or_default() += 1;
        endpoint.last = endpoint.last.max(at_ms);
        let recorded = endpoint.times.record(first_byte_us.clamp(1, MAX_US));
        debug_assert!(recorded.is_ok(), "{first_byte_us} us did not fit");
    }

    /// Puts what every request counts among the figures.
    fn settle(&mut self) {
        let mut often = std::mem::take(&mut self.often);
        for figures in [&mut self.total, &mut self.current] {
            often.add_to(figures);
        }
        // Emptied and not made anew: it has grown to what the times need.
        often.times.iter_mut().for_each(Histogram::reset);
        self.often.times = often.times;
    }

    /// The figures since the start.
    pub(crate) fn total(&mut self) -> &Figures {
        self.settle();
        &self.total
    }

    fn at(&mut self, at_ms: i64) {
        let period = at_ms - at_ms.rem_euclid(PERIOD_MS);
        if period > self.current_ms {
            self.end();
            self.current_ms = period;
        }
    }

    /// Ends the current period.
    pub(crate) fn end(&mut self) {
        self.settle();
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
        assert_eq!(m.total().counter("a"), 3);
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
