//! The content of one block of the queue: samples grouped by series, each with its hash.
//!
//! Owns those bytes. Must not know where blocks are kept nor who reads them. Labels and points are kept as the protobuf
//! fields of a `TimeSeries`, so that sending them is copying.
//!
//! ```text
//! block: entry*     entry: hash u64, labels u32 + bytes, points u32, point*
//!                   point: t_ms i64, kind u8 (0 float, 1 histogram), u32 + bytes     all little-endian
//! ```

use std::collections::HashMap;

use model::{Labels, Value, prompb};

use crate::ingest::Sample;

/// Points of one entry at most; more become another entry.
const MAX_POINTS: usize = 1_000;

/// One series of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry<'a> {
    /// Of the labels; stable over restarts and versions.
    pub hash: u64,
    /// `Label` fields.
    pub labels: &'a [u8],
    points: &'a [u8],
    /// How many points there are.
    pub count: u32,
}

/// One point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point<'a> {
    pub t_ms: i64,
    pub histogram: bool,
    /// A `Sample` or `Histogram` field.
    pub field: &'a [u8],
}

/// Samples as a block.
pub(super) fn encode(samples: &[Sample]) -> Vec<u8> {
    let mut order: Vec<(&Labels, Vec<&Sample>)> = Vec::new();
    let mut at: HashMap<&Labels, usize> = HashMap::new();
    for sample in samples {
        let index = *at.entry(&sample.labels).or_insert(order.len());
        match order.get_mut(index) {
            Some((_, list)) if list.len() < MAX_POINTS => list.push(sample),
            _ => {
                at.insert(&sample.labels, order.len());
                order.push((&sample.labels, vec![sample]));
            }
        }
    }
    let mut out = Vec::with_capacity(samples.len() * 96);
    let mut scratch = Vec::new();
    for (labels, list) in order {
        scratch.clear();
        prompb::put_labels(&mut scratch, labels);
        out.extend_from_slice(&hash(&scratch).to_le_bytes());
        put(&mut out, &scratch);
        put_len(&mut out, list.len());
        for sample in list {
            scratch.clear();
            prompb::put_point(&mut scratch, sample.t_ms, &sample.value);
            out.extend_from_slice(&sample.t_ms.to_le_bytes());
            out.push(u8::from(matches!(sample.value, Value::Histogram(_))));
            put(&mut out, &scratch);
        }
    }
    out
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// FNV-1a, then mixed so that its low bits are fit for a remainder.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(number(bytes)?) as usize;
    let (head, tail) = bytes.split_at_checked(len)?;
    *bytes = tail;
    Some(head)
}

/// The entries of a block in order. Ends early where the bytes are not a block (checksums keep that from happening).
pub(super) fn entries(block: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let hash = u64::from_le_bytes(number(&mut rest)?);
        let labels = take(&mut rest)?;
        let count = u32::from_le_bytes(number(&mut rest)?);
        let points = rest;
        for _ in 0..count {
            point(&mut rest)?;
        }
        Some(Entry {
            hash,
            labels,
            points,
            count,
        })
    })
}

fn point<'a>(rest: &mut &'a [u8]) -> Option<Point<'a>> {
    Some(Point {
        t_ms: i64::from_le_bytes(number(rest)?),
        histogram: number::<1>(rest)? == [1],
        field: take(rest)?,
    })
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// Its points in the order in which they came.
    pub(super) fn points(&self) -> impl Iterator<Item = Point<'a>> + use<'a> {
        let mut rest = self.points;
        (0..self.count).map_while(move |_| point(&mut rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn samples_are_grouped_by_series_in_order() {
        let labels = |n: &str| Labels::from_pairs([("__name__", n)]);
        let samples = [
            Sample::float(labels("a"), 1, 1.0),
            Sample::float(labels("b"), 1, 2.0),
            Sample::float(labels("a"), -2, 3.0),
        ];
        let block = encode(&samples);
        let all: Vec<Entry<'_>> = entries(&block).collect();
        assert_eq!(all.len(), 2);
        let times: Vec<i64> = all[0].points().map(|p| p.t_ms).collect();
        assert_eq!((times, all[0].count, all[1].count), (vec![1, -2], 2, 1));
        let field = all[1].points().next().unwrap().field;
        let mut wanted = Vec::new();
        prompb::put_point(&mut wanted, 1, &Value::Float(2.0));
        assert_eq!(field, wanted);
        let again = encode(&samples[1..2]);
        assert_eq!(entries(&again).next().unwrap().hash, all[1].hash);
    }

    #[test]
    fn long_series_become_several_entries_and_hashes_spread() {
        let labels = Labels::from_pairs([("__name__", "a")]);
        let samples: Vec<Sample> = (0..2_500)
            .map(|t| Sample::float(labels.clone(), t, 0.0))
            .collect();
        let block = encode(&samples);
        let counts: Vec<u32> = entries(&block).map(|e| e.count).collect();
        assert_eq!(counts, [1_000, 1_000, 500]);
        let many: Vec<Sample> = (0..4_000)
            .map(|i| Labels::from_pairs([("__name__", "a".to_owned()), ("i", i.to_string())]))
            .map(|l| Sample::float(l, 0, 0.0))
            .collect();
        let mut shards = [0; 4];
        for entry in entries(&encode(&many)) {
            shards[usize::try_from(entry.hash % 4).unwrap()] += 1;
        }
        assert!(
            shards.iter().all(|n| (800..1_200).contains(n)),
            "{shards:?}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for entry in entries(&bytes) {
                let _ = entry.points().count();
            }
        }
    }
}
