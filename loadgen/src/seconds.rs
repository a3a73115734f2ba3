//! Owns the seconds of a run in constant memory: so many are kept apart, and from then on neighbours are joined in pairs,
//! oldest first, so that a run of any length is told in steps of 1, 2, 4 ... seconds. Their whole histograms are joined,
//! so that a step's percentiles are as true as a second's. Reads no clock.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use model::protobuf::{Reader, put_varint};

use crate::hdr;
use crate::report::{Quantiles, RouteSecond, Second};

/// So many are kept: ten minutes second by second, an hour in steps of 8 s, a day in steps of 256 s.
pub(crate) const MOST: usize = 600;

/// What joining needs of the seconds in a list beside it.
#[derive(Default)]
pub(crate) struct Kept {
    each: Vec<Sketch>,
}

/// Of how many seconds a step is, and its histograms.
struct Sketch {
    seconds: u32,
    latency: Sparse,
    first_byte: Sparse,
}

impl Kept {
    /// Adds a second to the list, and joins two that are in it when they are too many. A call costs at most one join.
    pub(crate) fn push(
        &mut self,
        list: &mut Vec<Second>,
        second: Second,
        latency: &Histogram<u64>,
        first_byte: &Histogram<u64>,
    ) {
        self.add(
            list,
            second,
            Sketch {
                seconds: 1,
                latency: Sparse::of(latency),
                first_byte: Sparse::of(first_byte),
            },
        );
    }

    fn add(&mut self, list: &mut Vec<Second>, second: Second, sketch: Sketch) {
        list.push(second);
        self.each.push(sketch);
        if list.len() > MOST
            && let Some(at) = self.next_pair(list)
        {
            let (from, theirs) = (list.remove(at + 1), self.each.remove(at + 1));
            self.each[at].join(&mut list[at], from, &theirs);
        }
    }

    /// The first of the oldest two neighbours of the shortest steps. The newest second is left alone: its figures are
    /// still being told.
    fn next_pair(&self, list: &[Second]) -> Option<usize> {
        let alike = |i: &usize| {
            self.each[*i].seconds == self.each[i + 1].seconds
                && list[*i].warm_up == list[i + 1].warm_up
        };
        let pairs = (0..self.each.len().saturating_sub(2)).filter(alike);
        pairs.min_by_key(|i| self.each[*i].seconds)
    }
}

impl Sketch {
    fn join(&mut self, into: &mut Second, from: Second, theirs: &Sketch) {
        self.seconds += theirs.seconds;
        self.latency = self.latency.join(&theirs.latency);
        self.first_byte = self.first_byte.join(&theirs.first_byte);
        let length = into.length_s + from.length_s;
        into.offered = (into.offered * into.length_s + from.offered * from.length_s) / length;
        into.length_s = length;
        into.sent += from.sent;
        into.responses += from.responses;
        into.errors += from.errors;
        add(&mut into.status, from.status);
        add(&mut into.error_kinds, from.error_kinds);
        into.latency = self.latency.quantiles(into.latency, from.latency);
        into.first_byte = self.first_byte.quantiles(into.first_byte, from.first_byte);
        for (a, b) in into.routes.iter_mut().zip(&from.routes) {
            *a = most(*a, *b);
        }
        if let (Some(a), Some(b)) = (into.hdr.take(), from.hdr) {
            into.hdr = joined(&a, &b);
        }
    }
}

/// Of a route no histogram is kept for each second: a percentile of two steps together is at most the higher of both.
fn most(a: RouteSecond, b: RouteSecond) -> RouteSecond {
    RouteSecond {
        count: a.count + b.count,
        p50: a.p50.max(b.p50),
        p95: a.p95.max(b.p95),
        p99: a.p99.max(b.p99),
    }
}

fn add<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}

/// Two whole histograms as text, together; ours are always of one range.
fn joined(a: &str, b: &str) -> Option<String> {
    let (mut whole, other) = (hdr::decode(a).ok()?, hdr::decode(b).ok()?);
    whole.add(&other).ok()?;
    Some(hdr::encode(&whole))
}

/// A histogram's counts, without those that are zero: by value, the difference to the value before and the count, each
/// in as many bytes as it needs (LEB128). A second of a few hundred values takes a few hundred bytes.
#[derive(Default)]
struct Sparse(Vec<u8>);

impl Sparse {
    fn of(h: &Histogram<u64>) -> Sparse {
        let counts = h.iter_recorded();
        Sparse::from_counts(counts.map(|v| (v.value_iterated_to(), v.count_since_last_iteration())))
    }

    fn from_counts(counts: impl Iterator<Item = (u64, u64)>) -> Sparse {
        let (mut bytes, mut last) = (Vec::new(), 0);
        for (value, count) in counts {
            put_varint(&mut bytes, value - last);
            put_varint(&mut bytes, count);
            last = value;
        }
        bytes.shrink_to_fit();
        Sparse(bytes)
    }

    /// Values, each the highest of those that the histogram does not tell from it, and counts.
    fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let (mut bytes, mut value) = (Reader::new(&self.0), 0);
        std::iter::from_fn(move || {
            value += bytes.varint().ok()?;
            Some((value, bytes.varint().ok()?))
        })
    }

    fn join(&self, other: &Sparse) -> Sparse {
        let (mut a, mut b) = (self.counts().peekable(), other.counts().peekable());
        Sparse::from_counts(std::iter::from_fn(|| match (a.peek(), b.peek()) {
            (Some((x, n)), Some((y, m))) if x == y => {
                let both = (*x, n + m);
                a.next();
                b.next();
                Some(both)
            }
            (Some((x, _)), Some((y, _))) if y < x => b.next(),
            (Some(_), _) => a.next(),
            (None, _) => b.next(),
        }))
    }

    /// The summary of two steps' histogram, from theirs.
    fn quantiles(&self, a: Quantiles, b: Quantiles) -> Quantiles {
        if a.count == 0 || b.count == 0 {
            return if a.count == 0 { b } else { a };
        }
        let count = a.count + b.count;
        // As HdrHistogram has it: the value at which so large a share of the counts is reached.
        let at = |q: f64| {
            let wanted = ((q * count as f64).ceil() as u64).max(1);
            let mut seen = 0;
            let reached = self.counts().find(|(_, n)| {
                seen += n;
                seen >= wanted
            });
            reached.map_or(a.max.max(b.max), |(value, _)| value)
        };
        let mean = (a.mean * a.count as f64 + b.mean * b.count as f64) / count as f64;
        Quantiles::new(count, a.min.min(b.min), a.max.max(b.max), mean, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::growing;

    fn second(i: u64, h: &Histogram<u64>) -> Second {
        Second {
            at_s: i as f64,
            length_s: 1.0,
            offered: 20.0,
            sent: 20,
            responses: 19,
            errors: 1,
            status: BTreeMap::from([(200, 19)]),
            error_kinds: BTreeMap::from([("timeout".to_owned(), 1)]),
            latency: Quantiles::of(h),
            first_byte: Quantiles::of(h),
            routes: vec![RouteSecond::of(h); 2],
            ..Second::default()
        }
    }

    fn values(i: u64, count: u64) -> Histogram<u64> {
        let mut h = growing();
        (0..count).for_each(|k| h.record(1000 + 37 * (i % 97) + 53 * k * k).unwrap());
        h
    }

    #[test]
    fn a_day_is_kept_in_bounded_memory_and_nothing_of_it_is_lost() {
        let (mut kept, mut list) = (Kept::default(), Vec::new());
        // A few seconds' figures, over and over.
        let each: Vec<_> = (0..7).map(|i| values(i, 4)).collect();
        let seconds: Vec<_> = each.iter().map(|h| second(0, h)).collect();
        let sparse: Vec<_> = each.iter().map(Sparse::of).collect();
        for i in 0..86_400 {
            let kind = i % 7;
            let second = Second {
                at_s: i as f64,
                warm_up: i < 30,
                ..seconds[kind].clone()
            };
            let copy = || Sparse(sparse[kind].0.clone());
            let sketch = Sketch {
                seconds: 1,
                latency: copy(),
                first_byte: copy(),
            };
            kept.add(&mut list, second, sketch);
            assert!(list.len() <= MOST && kept.each.len() == list.len());
        }
        assert_eq!(list.iter().map(|s| s.sent).sum::<u64>(), 20 * 86_400);
        assert_eq!(
            list.iter().map(|s| s.status[&200]).sum::<u64>(),
            19 * 86_400
        );
        let routes: u64 = list.iter().map(|s| s.routes[1].count).sum();
        assert_eq!(routes, 4 * 86_400);
        let counted = |s: &Sparse| s.counts().map(|(_, n)| n).sum::<u64>();
        let latencies: u64 = kept.each.iter().map(|s| counted(&s.latency)).sum();
        assert_eq!(latencies, 4 * 86_400, "the histograms are whole");
        // One after the other without a gap, the warm-up apart.
        for pair in list.windows(2) {
            assert_eq!(pair[0].at_s + pair[0].length_s, pair[1].at_s);
            assert!(pair[0].length_s >= pair[1].length_s || pair[0].warm_up);
        }
        let warm_up = list.iter().filter(|s| s.warm_up);
        assert_eq!(warm_up.map(|s| s.length_s).sum::<f64>(), 30.0);
        let longest = list.iter().map(|s| s.length_s).fold(0.0, f64::max);
        assert_eq!(longest, 256.0);
        let bytes = |s: &Sketch| s.latency.0.capacity() + s.first_byte.0.capacity();
        let bytes: usize = kept.each.iter().map(bytes).sum();
        assert!(bytes < MOST * 2_000, "{bytes} bytes");
    }

    #[test]
    fn a_step_has_the_percentiles_of_its_seconds_together() {
        let (mut kept, mut list) = (Kept::default(), Vec::new());
        for i in 0..=MOST as u64 {
            let h = values(i, 20);
            let mut s = second(i, &h);
            s.hdr = Some(hdr::encode(&h));
            kept.push(&mut list, s, &h, &h);
        }
        let mut both = values(0, 20);
        both.add(values(1, 20)).unwrap();
        assert_eq!(list.len(), MOST);
        assert_eq!((list[0].length_s, list[1].length_s), (2.0, 1.0));
        let (got, expected) = (list[0].latency, Quantiles::of(&both));
        assert!((got.mean - expected.mean).abs() < 1e-6);
        let mean = 0.0;
        assert_eq!(Quantiles { mean, ..got }, Quantiles { mean, ..expected });
        let read = hdr::decode(list[0].hdr.as_ref().unwrap()).unwrap();
        assert_eq!(Sparse::of(&read).0, Sparse::of(&both).0);
        assert_eq!(list[0].routes[0].p99, RouteSecond::of(&values(1, 20)).p99);
        assert_eq!(list[0].offered, 20.0);
    }

    #[test]
    fn an_empty_second_joins_without_a_trace() {
        let (full, none) = (values(3, 20), growing());
        let joined = Sparse::of(&none).join(&Sparse::of(&full));
        assert_eq!(joined.0, Sparse::of(&full).0);
        let (a, b) = (Quantiles::of(&none), Quantiles::of(&full));
        assert_eq!(joined.quantiles(a, b), b);
        assert_eq!(joined.quantiles(b, a), b);
    }
}
