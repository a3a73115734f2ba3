//! Owns the seconds of a run in constant memory: so many are kept apart, and from then on neighbours are joined in pairs,
//! oldest first, so that a run of any length is told in steps of 1, 2, 4 ... seconds. Their whole histograms are joined,
//! so that a step's percentiles are as true as a second's. Reads no clock.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

use crate::hdr;
use crate::report::{Quantiles, RouteSecond, Second};
use crate::stats::growing;

/// So many are kept: ten minutes second by second, an hour in steps of 8 s, a day in steps of 256 s.
pub(crate) const MOST: usize = 600;

/// What joining needs of the seconds in a list beside it.
#[derive(Default)]
pub(crate) struct Kept {
    each: Vec<Sketch>,
}

/// A step's histograms without loss, and of how many seconds it is.
struct Sketch {
    seconds: u32,
    latency: Vec<u8>,
    first_byte: Vec<u8>,
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
        list.push(second);
        self.each.push(Sketch {
            seconds: 1,
            latency: bytes(latency),
            first_byte: bytes(first_byte),
        });
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
        let latency = sum(&self.latency, &theirs.latency);
        let first_byte = sum(&self.first_byte, &theirs.first_byte);
        (self.latency, self.first_byte) = (bytes(&latency), bytes(&first_byte));
        let length = into.length_s + from.length_s;
        into.offered = (into.offered * into.length_s + from.offered * from.length_s) / length;
        into.length_s = length;
        into.sent += from.sent;
        into.responses += from.responses;
        into.errors += from.errors;
        add(&mut into.status, from.status);
        add(&mut into.error_kinds, from.error_kinds);
        into.latency = Quantiles::of(&latency);
        into.first_byte = Quantiles::of(&first_byte);
        for (a, b) in into.routes.iter_mut().zip(&from.routes) {
            *a = most(*a, *b);
        }
        if into.hdr.is_some() {
            into.hdr = Some(hdr::encode(&latency));
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

/// The histogram as bytes, a few hundred where a second has a few hundred values; nothing when it is empty.
fn bytes(h: &Histogram<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    if !h.is_empty() {
        let written = V2Serializer::new().serialize(h, &mut out);
        written.expect("writing to memory does not fail");
        out.shrink_to_fit();
    }
    out
}

fn sum(a: &[u8], b: &[u8]) -> Histogram<u64> {
    let mut whole = growing();
    for mut part in [a, b] {
        if !part.is_empty() {
            let read = Deserializer::new().deserialize::<u64, _>(&mut part);
            let read = read.expect("what we wrote is read");
            whole.add(&read).expect("ours grow as they must");
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(i: u64, warm_up: bool) -> (Second, Histogram<u64>) {
        let mut h = growing();
        (0..20).for_each(|k| h.record(1000 + 37 * (i % 97) + k).unwrap());
        let second = Second {
            at_s: i as f64,
            length_s: 1.0,
            warm_up,
            offered: 20.0,
            sent: 20,
            responses: 19,
            errors: 1,
            status: BTreeMap::from([(200, 19)]),
            error_kinds: BTreeMap::from([("timeout".to_owned(), 1)]),
            latency: Quantiles::of(&h),
            first_byte: Quantiles::of(&h),
            routes: vec![RouteSecond::of(&h); 2],
            hdr: None,
        };
        (second, h)
    }

    #[test]
    fn a_day_is_kept_in_bounded_memory_and_nothing_of_it_is_lost() {
        let (mut kept, mut list) = (Kept::default(), Vec::new());
        let mut whole = growing();
        for i in 0..86_400 {
            let (second, h) = second(i, i < 30);
            whole.add(&h).unwrap();
            kept.push(&mut list, second, &h, &h);
            assert!(list.len() <= MOST && kept.each.len() == list.len());
        }
        assert_eq!(list.iter().map(|s| s.sent).sum::<u64>(), 20 * 86_400);
        assert_eq!(
            list.iter().map(|s| s.status[&200]).sum::<u64>(),
            19 * 86_400
        );
        let routes: u64 = list.iter().map(|s| s.routes[1].count).sum();
        assert_eq!(routes, 20 * 86_400);
        let mut again = growing();
        for sketch in &kept.each {
            again.add(&sum(&sketch.latency, &[])).unwrap();
        }
        assert_eq!(again, whole, "the histograms are whole");
        // One after the other without a gap, the warm-up apart.
        for pair in list.windows(2) {
            assert_eq!(pair[0].at_s + pair[0].length_s, pair[1].at_s);
            assert!(pair[0].length_s >= pair[1].length_s || pair[0].warm_up);
        }
        let warm_up = list.iter().filter(|s| s.warm_up);
        assert_eq!(warm_up.map(|s| s.length_s).sum::<f64>(), 30.0);
        let longest = list.iter().map(|s| s.length_s).fold(0.0, f64::max);
        assert_eq!(longest, 256.0);
        let bytes: usize = kept
            .each
            .iter()
            .map(|s| s.latency.capacity() + s.first_byte.capacity())
            .sum();
        assert!(bytes < MOST * 10_000, "{bytes} bytes");
    }

    #[test]
    fn a_step_has_the_percentiles_of_its_seconds_together() {
        let (mut kept, mut list) = (Kept::default(), Vec::new());
        for i in 0..=MOST as u64 {
            let (mut s, h) = second(i, false);
            s.hdr = Some(hdr::encode(&h));
            kept.push(&mut list, s, &h, &h);
        }
        let mut both = second(0, false).1;
        both.add(&second(1, false).1).unwrap();
        assert_eq!(list.len(), MOST);
        assert_eq!((list[0].length_s, list[1].length_s), (2.0, 1.0));
        assert_eq!(list[0].latency, Quantiles::of(&both));
        assert_eq!(hdr::decode(list[0].hdr.as_ref().unwrap()).unwrap(), both);
        assert_eq!(list[0].routes[0].p99, second(1, false).0.routes[0].p99);
        assert_eq!(list[0].offered, 20.0);
    }
}
