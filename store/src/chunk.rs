//! Chunks: a run of samples of one series as few bytes, in the encoding that suits its values.
//!
//! Owns the choice of encoding and the chunk's layout (docs/store-format.md, "Chunk"). Must not know where chunks are
//! kept. Every float comes back bit for bit: NaN payloads, staleness markers, infinities and negative zero included.

use std::ops::Range;
use std::sync::Arc;

use model::{NativeHistogram, Points};

use crate::wire::{Damaged, Reader, put_ivarint, put_varint};

pub(crate) mod histogram;
pub(crate) mod split;
pub(crate) mod values;

/// The most samples that a chunk may claim to have; a reader refuses more before it allocates.
pub(crate) const MAX_SAMPLES: usize = 1 << 16;

const ENCODING_MASK: u8 = 0x0f;
const IRREGULAR: u8 = 0x10;
const STARTS: u8 = 0x20;

/// Which value encoding a chunk has (the low four bits of its first byte).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Encoding {
    /// Every value has the same bits.
    Constant = 0,
    /// Exact integers, as differences.
    IntegerDelta = 1,
    /// Exact integers, as differences of differences.
    IntegerDeltaOfDelta = 2,
    /// Exact multiples of a power of ten, as differences.
    DecimalDelta = 3,
    /// Exact multiples of a power of ten, as differences of differences.
    DecimalDeltaOfDelta = 4,
    /// Bits of each float xor those before, split in byte planes.
    Xor = 5,
    /// Native histograms.
    Histogram = 6,
    /// Floats without a pattern: exponents as short codes, mantissas as they are.
    Split = 7,
}

// === impl Encoding ===

impl Encoding {
    /// All encodings, in the order of their codes.
    pub const ALL: [Encoding; 8] = [
        Encoding::Constant,
        Encoding::IntegerDelta,
        Encoding::IntegerDeltaOfDelta,
        Encoding::DecimalDelta,
        Encoding::DecimalDeltaOfDelta,
        Encoding::Xor,
        Encoding::Histogram,
        Encoding::Split,
    ];

    fn is_of_differences(self) -> bool {
        matches!(
            self,
            Encoding::IntegerDeltaOfDelta | Encoding::DecimalDeltaOfDelta
        )
    }

    fn from_code(code: u8) -> Result<Self, Damaged> {
        Self::ALL
            .get(code as usize)
            .copied()
            .ok_or(Damaged("unknown chunk encoding"))
    }

    /// A short name for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Constant => "constant",
            Encoding::IntegerDelta => "integer delta",
            Encoding::IntegerDeltaOfDelta => "integer delta of delta",
            Encoding::DecimalDelta => "decimal delta",
            Encoding::DecimalDeltaOfDelta => "decimal delta of delta",
            Encoding::Xor => "xor",
            Encoding::Histogram => "histogram",
            Encoding::Split => "split float",
        }
    }
}

/// When the samples of a chunk are: strictly ascending.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Times<'a> {
    /// `first`, `first + step`, ...
    Regular { first: i64, step: i64, count: usize },
    /// One by one.
    Listed(&'a [i64]),
}

// === impl Times ===

impl Times<'_> {
    pub(crate) fn count(&self) -> usize {
        match self {
            Times::Regular { count, .. } => *count,
            Times::Listed(all) => all.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> i64 {
        match self {
            Times::Regular { first, step, .. } => {
                first.wrapping_add(step.wrapping_mul(index as i64))
            }
            Times::Listed(all) => all[index],
        }
    }
}

/// What the front of a chunk says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) encoding: Encoding,
    pub(crate) count: usize,
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
    regular: bool,
    starts: bool,
}

// === impl Header ===

impl Header {
    pub(crate) fn overlaps(&self, start: i64, end: i64) -> bool {
        self.min_t <= end && self.max_t >= start
    }

    /// How far apart regular times are, and which of them are in `start..=end`.
    fn steps_inside(&self, start: i64, end: i64) -> Result<(i64, Range<usize>), Damaged> {
        let gaps = (self.count as u64 - 1).max(1);
        let span = self.max_t.wrapping_sub(self.min_t) as u64;
        if !span.is_multiple_of(gaps) {
            return Err(Damaged("regular times do not divide"));
        }
        if !self.overlaps(start, end) || start > end {
            return Ok((0, 0..0));
        }
        // Of one sample alone any step will do.
        let step = (span / gaps).max(1);
        let whole = |steps: u64| usize::try_from(steps).unwrap_or(usize::MAX);
        let from = match start > self.min_t {
            true => whole((start.wrapping_sub(self.min_t) as u64).div_ceil(step)),
            false => 0,
        };
        let last = whole(end.wrapping_sub(self.min_t) as u64 / step).min(self.count - 1);
        Ok((step as i64, from..(last + 1).max(from)))
    }
}

/// Appends a chunk of floats. `times` and `values` are as long as each other and not empty; so is `starts`, or it is
/// empty (when each sample began to count, 0 for unknown).
pub(crate) fn encode_floats(
    out: &mut Vec<u8>,
    times: Times<'_>,
    starts: &[i64],
    values: &[f64],
) -> Encoding {
    debug_assert!(times.count() == values.len() && !values.is_empty());
    let at = out.len();
    put_times(out, times, starts);
    let encoding = values::encode(out, values);
    out[at] |= encoding as u8;
    encoding
}

/// The same for the values that are `numbers` divided by `10^places` exactly. `None`, and nothing is appended, when
/// [`encode_floats`] may find something better.
pub(crate) fn encode_numbers(
    out: &mut Vec<u8>,
    times: Times<'_>,
    starts: &[i64],
    numbers: &[i64],
    places: usize,
) -> Option<Encoding> {
    debug_assert!(times.count() == numbers.len() && !numbers.is_empty());
    let at = out.len();
    put_times(out, times, starts);
    let Some(encoding) = values::encode_numbers(out, numbers, places) else {
        out.truncate(at);
        return None;
    };
    out[at] |= encoding as u8;
    Some(encoding)
}

/// A histogram, when it is, and when it began to count.
pub(crate) type HistogramAt = (i64, i64, Arc<NativeHistogram>);

/// Appends a chunk of histograms.
pub(crate) fn encode_histograms(out: &mut Vec<u8>, all: &[HistogramAt]) {
    let times: Vec<i64> = all.iter().map(|(t, _, _)| *t).collect();
    let starts: Vec<i64> = all.iter().map(|(_, start, _)| *start).collect();
    let at = out.len();
    put_times(out, Times::Listed(&times), &starts);
    out[at] |= Encoding::Histogram as u8;
    histogram::encode(out, all.iter().map(|(_, _, h)| h.as_ref()));
}

/// Appends the chunks that hold `points`, each of at most `most` samples and of one kind.
pub(crate) fn encode_points(points: &Points, most: usize, mut emit: impl FnMut(&[u8])) {
    let mut out = Vec::new();
    let mut at = 0;
    while at < points.len() {
        let is_histogram = points.histogram(at).is_some();
        let end = (at..points.len())
            .take(most)
            .take_while(|i| points.histogram(*i).is_some() == is_histogram)
            .last()
            .map_or(at + 1, |i| i + 1);
        out.clear();
        if is_histogram {
            let all: Vec<_> = (at..end)
                .filter_map(|i| {
                    let h = points.histogram(i)?;
                    Some((points.t_ms[i], points.start(i), Arc::clone(h)))
                })
                .collect();
            encode_histograms(&mut out, &all);
        } else {
            encode_floats(
                &mut out,
                Times::Listed(&points.t_ms[at..end]),
                points.start_ms.get(at..end).unwrap_or(&[]),
                &points.values[at..end],
            );
        }
        emit(&out);
        at = end;
    }
}

fn put_times(out: &mut Vec<u8>, times: Times<'_>, starts: &[i64]) {
    let count = times.count();
    let (first, last) = (times.get(0), times.get(count - 1));
    let span = last.wrapping_sub(first) as u64;
    let regular = is_regular(times);
    let started = starts.iter().any(|s| *s != 0);
    out.push(if regular { 0 } else { IRREGULAR } | if started { STARTS } else { 0 });
    put_varint(out, count as u64);
    put_ivarint(out, first);
    if count > 1 {
        put_varint(out, span);
    }
    if let (false, Times::Listed(all)) = (regular, times) {
        let mut delta = span / (count as u64 - 1);
        for pair in all.windows(2) {
            let next = pair[1].wrapping_sub(pair[0]) as u64;
            put_ivarint(out, next.wrapping_sub(delta) as i64);
            delta = next;
        }
    }
    if started {
        put_starts(out, first, starts);
    }
}

/// Runs of samples that began to count at the same time.
fn put_starts(out: &mut Vec<u8>, first: i64, starts: &[i64]) {
    let runs = || starts.chunk_by(|a, b| a == b);
    put_varint(out, runs().count() as u64);
    let mut before = first;
    for run in runs() {
        put_varint(out, run.len() as u64);
        put_ivarint(out, run[0].wrapping_sub(before));
        before = run[0];
    }
}

fn read_starts(
    reader: &mut Reader<'_>,
    header: &Header,
    out: &mut Vec<i64>,
) -> Result<(), Damaged> {
    let end = out.len() + header.count;
    let mut start = header.min_t;
    for _ in 0..reader.uvarint()? {
        let count = usize::try_from(reader.uvarint()?).unwrap_or(usize::MAX);
        start = start.wrapping_add(reader.ivarint()?);
        if count == 0 || count > end - out.len() {
            return Err(Damaged("start times of more samples than there are"));
        }
        out.resize(out.len() + count, start);
    }
    if out.len() == end {
        Ok(())
    } else {
        Err(Damaged("samples without a start time"))
    }
}

fn is_regular(times: Times<'_>) -> bool {
    match times {
        Times::Regular { .. } => true,
        Times::Listed(all) => {
            let step = |w: &[i64]| w[1].wrapping_sub(w[0]);
            all.len() < 3 || all.windows(2).all(|w| step(w) == step(all))
        }
    }
}

/// Reads the front of a chunk; the reader is left at the times.
pub(crate) fn read_header(reader: &mut Reader<'_>) -> Result<Header, Damaged> {
    let first = reader.byte()?;
    let encoding = Encoding::from_code(first & ENCODING_MASK)?;
    if first & !(ENCODING_MASK | IRREGULAR | STARTS) != 0 {
        return Err(Damaged("unknown chunk flags"));
    }
    let count = reader.uvarint()? as usize;
    if count == 0 || count > MAX_SAMPLES {
        return Err(Damaged("a chunk has no samples or too many"));
    }
    let min_t = reader.ivarint()?;
    let span = if count > 1 { reader.uvarint()? } else { 0 };
    let max_t = min_t.wrapping_add(span as i64);
    if max_t < min_t || span < count as u64 - 1 {
        return Err(Damaged("a chunk ends before it begins"));
    }
    Ok(Header {
        encoding,
        count,
        min_t,
        max_t,
        regular: first & IRREGULAR == 0,
        starts: first & STARTS != 0,
    })
}

/// Appends those of a chunk's samples that are in `start..=end`. On damage `out` may have got
/// some columns and not others: the caller throws it away.
pub(crate) fn decode(
    chunk: &[u8],
    start: i64,
    end: i64,
    out: &mut Points,
) -> Result<Header, Damaged> {
    let mut reader = Reader::new(chunk);
    let header = read_header(&mut reader)?;
    decode_rest(reader, &header, start, end, out)?;
    Ok(header)
}

/// The same, after the header has been read.
pub(crate) fn decode_rest(
    mut reader: Reader<'_>,
    header: &Header,
    start: i64,
    end: i64,
    out: &mut Points,
) -> Result<(), Damaged> {
    let at = out.t_ms.len();
    let inside = if header.regular {
        let (step, inside) = header.steps_inside(start, end)?;
        let time = |i: usize| header.min_t.wrapping_add(step.wrapping_mul(i as i64));
        out.t_ms.extend(inside.clone().map(time));
        inside
    } else {
        read_times(&mut reader, header, &mut out.t_ms)?;
        let times = &out.t_ms[at..];
        let from = times.partition_point(|t| *t < start);
        let inside = from..times.partition_point(|t| *t <= end).max(from);
        keep(&mut out.t_ms, at, &inside);
        inside
    };
    if header.starts {
        out.start_ms.resize(at, 0);
        read_starts(&mut reader, header, &mut out.start_ms)?;
        keep(&mut out.start_ms, at, &inside);
    } else if !out.start_ms.is_empty() {
        out.start_ms.resize(at + inside.len(), 0);
    }
    if header.encoding == Encoding::Histogram {
        let mut all = Vec::with_capacity(header.count.min(4096));
        histogram::decode(&mut reader, header.count, &mut all)?;
        out.histograms.resize(at, None);
        out.histograms
            .extend(all.into_iter().map(|h| Some(Arc::new(h))));
        keep(&mut out.histograms, at, &inside);
        out.values.resize(at + inside.len(), 0.0);
    } else {
        let (count, values) = (header.count, &mut out.values);
        values::decode(&mut reader, header.encoding, count, &inside, values)?;
        if !out.histograms.is_empty() {
            out.histograms.resize(at + inside.len(), None);
        }
    }
    if !reader.is_empty() {
        return Err(Damaged("bytes are left after a chunk"));
    }
    Ok(())
}

/// Removes what is not `inside` of what `at` begins.
fn keep<T>(column: &mut Vec<T>, at: usize, inside: &Range<usize>) {
    column.truncate(at + inside.end);
    column.drain(at..at + inside.start);
}

/// Reads times that are listed.
fn read_times(reader: &mut Reader<'_>, header: &Header, out: &mut Vec<i64>) -> Result<(), Damaged> {
    let Header {
        count,
        min_t,
        max_t,
        ..
    } = *header;
    let gaps = (count as u64).saturating_sub(1).max(1);
    let span = max_t.wrapping_sub(min_t) as u64;
    let mut delta = span / gaps;
    if reader.len() < count - 1 {
        return Err(Damaged("a count is larger than its data"));
    }
    let mut t = min_t;
    out.push(t);
    for _ in 1..count {
        delta = delta.wrapping_add(reader.ivarint()? as u64);
        let next = t.wrapping_add(delta as i64);
        if next <= t {
            return Err(Damaged("times are not ascending"));
        }
        t = next;
        out.push(t);
    }
    if t == max_t {
        Ok(())
    } else {
        Err(Damaged("times do not end where they should"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Value;
    use proptest::prelude::*;

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    fn round_trip(times: &[i64], values: &[f64]) -> Encoding {
        let mut out = Vec::new();
        let encoding = encode_floats(&mut out, Times::Listed(times), &[], values);
        let mut points = Points::default();
        let header = decode(&out, i64::MIN, i64::MAX, &mut points).expect("own bytes");
        assert_eq!(header.encoding, encoding);
        assert_eq!(points.t_ms, times);
        assert_eq!(bits(&points.values), bits(values));
        assert!(points.histograms.is_empty());
        encoding
    }

    proptest! {
        #[test]
        fn a_part_of_a_chunk_is_that_part(
            kind in 0..6,
            seeds in proptest::collection::vec(any::<u32>(), 1..150),
            irregular in any::<bool>(),
            started in any::<bool>(),
            (from, to) in (-5i64..160, -5i64..160),
        ) {
            let mut sum = 0;
            let values: Vec<f64> = seeds.iter().enumerate().map(|(i, seed)| {
                sum += i64::from(seed % 100);
                match kind {
                    0 => 7.0,
                    1 => sum as f64,
                    2 => (i * i) as f64,
                    3 if i % 40 == 3 => f64::NAN,
                    3 => sum as f64 / 100.0,
                    4 => f64::from(*seed).sqrt(),
                    _ => f64::from_bits(u64::from(*seed) << 32 | u64::from(*seed)),
                }
            }).collect();
            let time = |i: usize| i as i64 * 10 + if irregular { (i % 3) as i64 } else { 0 };
            let times: Vec<i64> = (0..values.len()).map(time).collect();
            let starts: Vec<i64> = (0..values.len() as i64).map(|i| if started { i / 50 + 1 } else { 0 }).collect();
            let mut chunk = Vec::new();
            encode_floats(&mut chunk, Times::Listed(&times), &starts, &values);
            let read = |start, end| {
                // Behind other samples.
                let mut points = Points::default();
                points.push(-1_000, Value::Float(1.0));
                decode(&chunk, start, end, &mut points).expect("own bytes");
                let all = (1..points.len()).map(|i| (points.t_ms[i], points.values[i].to_bits(), points.start(i)));
                all.collect::<Vec<_>>()
            };
            let (start, end) = (from * 10 + 1, to * 10 + 1);
            let all = read(i64::MIN, i64::MAX);
            prop_assert_eq!(all.len(), values.len());
            let part: Vec<_> = all.into_iter().filter(|s| (start..=end).contains(&s.0)).collect();
            prop_assert_eq!(read(start, end), part);
        }

        #[test]
        fn numbers_make_the_chunk_that_their_values_make(
            numbers in prop_oneof![
                proptest::collection::vec(-300i64..300, 1..100),
                proptest::collection::vec(Just(7i64), 1..100),
                proptest::collection::vec(any::<i64>().prop_map(|n| n >> 11), 1..100),
            ],
            places in 0usize..4,
        ) {
            let values: Vec<f64> = numbers.iter().map(|n| *n as f64 / 10f64.powi(places as i32)).collect();
            let times = every(15_000, numbers.len());
            let (mut from_numbers, mut from_values) = (Vec::new(), Vec::new());
            if encode_numbers(&mut from_numbers, Times::Listed(&times), &[], &numbers, places).is_some() {
                encode_floats(&mut from_values, Times::Listed(&times), &[], &values);
                let mut points = Points::default();
                decode(&from_numbers, i64::MIN, i64::MAX, &mut points).expect("own bytes");
                prop_assert_eq!(bits(&points.values), bits(&values));
                prop_assert!(from_numbers.len() <= from_values.len() + 8 * numbers.len());
                if numbers.iter().any(|n| n % 10 != 0) && numbers.iter().all(|n| n.abs() < 1 << 40) {
                    prop_assert_eq!(from_numbers, from_values);
                }
            } else {
                prop_assert!(from_numbers.is_empty());
            }
        }
    }

    fn every(step: i64, count: usize) -> Vec<i64> {
        (0..count as i64).map(|i| 1_000 + i * step).collect()
    }

    #[test]
    fn each_kind_of_values_gets_its_encoding() {
        let times = every(15_000, 100);
        let of = |f: &dyn Fn(usize) -> f64| (0..100).map(f).collect::<Vec<f64>>();
        assert_eq!(round_trip(&times, &of(&|_| f64::NAN)), Encoding::Constant);
        assert_eq!(
            round_trip(&times, &of(&|i| (i * 7) as f64)),
            Encoding::IntegerDeltaOfDelta
        );
        assert_eq!(
            round_trip(&times, &of(&|i| ((i * i * i * 7_919 + i * i) % 97) as f64)),
            Encoding::IntegerDelta
        );
        assert_eq!(
            round_trip(
                &times,
                &of(&|i| ((i * i * i * 7_919 + i * i) % 97) as f64 / 100.0)
            ),
            Encoding::DecimalDelta
        );
        assert_eq!(
            round_trip(&times, &of(&|i| ((i + 1) as f64).sqrt())),
            Encoding::Split
        );
        assert_eq!(
            round_trip(
                &times,
                &of(&|i| f64::from_bits(0.1f64.to_bits() + (i as u64 * 7) % 5))
            ),
            Encoding::Xor
        );
    }

    #[test]
    fn a_stale_marker_does_not_spoil_an_integer_chunk() {
        let times = every(15_000, 20);
        let mut values: Vec<f64> = (0..20).map(|i| (i * i) as f64).collect();
        values[19] = model::stale_nan();
        values[3] = -0.0;
        assert_eq!(round_trip(&times, &values), Encoding::IntegerDeltaOfDelta);
    }

    #[test]
    fn extreme_times_round_trip() {
        round_trip(&[i64::MIN, -1, i64::MAX - 1], &[1.0, 2.0, 3.5]);
        round_trip(&[i64::MAX], &[1.0]);
        round_trip(&[i64::MIN, i64::MAX], &[1.0, 1.0]);
    }

    #[test]
    fn decode_clips_to_the_bounds() {
        let mut out = Vec::new();
        encode_floats(
            &mut out,
            Times::Listed(&[1, 2, 3, 5]),
            &[0, 0, 2, 2],
            &[1.0, 2.0, 3.0, 5.0],
        );
        let mut points = Points::default();
        points.push_float(0, 9.0);
        decode(&out, 2, 4, &mut points).expect("own bytes");
        assert_eq!(points.t_ms, [0, 2, 3]);
        assert_eq!(points.values, [9.0, 2.0, 3.0]);
        assert_eq!(points.start_ms, [0, 0, 2]);
    }

    fn values_strategy() -> impl Strategy<Value = Vec<f64>> {
        let special = prop_oneof![
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(-0.0),
            Just(f64::from_bits(model::STALE_NAN_BITS)),
            any::<u64>().prop_map(f64::from_bits),
        ];
        let integer = (-1_000_000i64..1_000_000).prop_map(|v| v as f64);
        let decimal =
            (-1_000_000i64..1_000_000, 0..6i32).prop_map(|(v, e)| v as f64 / 10f64.powi(e));
        let wide = any::<i64>().prop_map(|v| v as f64);
        prop_oneof![
            proptest::collection::vec(integer.clone(), 1..200),
            proptest::collection::vec(decimal.clone(), 1..200),
            proptest::collection::vec(any::<f64>(), 1..100),
            proptest::collection::vec(prop_oneof![8 => integer, 1 => special.clone()], 1..100),
            proptest::collection::vec(prop_oneof![8 => decimal, 1 => special], 1..100),
            proptest::collection::vec(wide, 1..100),
        ]
    }

    proptest! {
        #[test]
        fn floats_round_trip_bit_for_bit(
            values in values_strategy(),
            first in any::<i32>(),
            gaps in proptest::collection::vec(1u32..100_000, 200),
            regular in any::<bool>(),
            starts in proptest::collection::vec(prop_oneof![3 => Just(0i64), 3 => Just(77), 1 => any::<i64>()], 200),
        ) {
            let mut t = i64::from(first);
            let times: Vec<i64> = (0..values.len())
                .map(|i| { t += if regular { 15_000 } else { i64::from(gaps[i % 200]) }; t })
                .collect();
            round_trip(&times, &values);
            let starts: Vec<i64> = starts.into_iter().cycle().take(values.len()).collect();
            let mut out = Vec::new();
            encode_floats(&mut out, Times::Listed(&times), &starts, &values);
            let mut points = Points::default();
            prop_assert!(decode(&out, i64::MIN, i64::MAX, &mut points).is_ok());
            prop_assert_eq!((0..values.len()).map(|i| points.start(i)).collect::<Vec<_>>(), starts);
            prop_assert_eq!(bits(&points.values), bits(&values));
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 0, 1_000, &mut Points::default());
        }

        #[test]
        fn decoding_a_damaged_chunk_never_panics(values in values_strategy(), at in any::<usize>(), flip in 1u8..) {
            let times = every(1000, values.len());
            let mut out = Vec::new();
            encode_floats(&mut out, Times::Listed(&times), &times, &values);
            let at = at % out.len();
            out[at] ^= flip;
            let _ = decode(&out, 0, i64::MAX, &mut Points::default());
        }
    }
}
