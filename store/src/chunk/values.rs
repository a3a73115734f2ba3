//! Float values of a chunk: constant, integer or scaled decimal differences, or xor byte planes.
//!
//! Owns the value part of a chunk. Must not know its times. Words are split in byte planes (first the low bytes of all,
//! then the next ones) on purpose: the pages that chunks end up in are compressed again, and planes of equal or few
//! different bytes compress where packed bits do not. A plane decodes without a branch.

use std::ops::Range;

use crate::chunk::{Encoding, split};
use crate::wire::{
    Damaged, MAX_EXACT, Reader, as_exact_integer, put_ivarint, put_varint, unzigzag, zigzag,
};

/// The most decimal places that are tried.
const MAX_PLACES: usize = 9;

const POWERS: [f64; MAX_PLACES + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Values per chunk that integers are collected for on the stack.
const ON_STACK: usize = 64;

/// Appends `values` (not empty) in the encoding that suits them, and says which.
pub(crate) fn encode(out: &mut Vec<u8>, values: &[f64]) -> Encoding {
    let first = values[0].to_bits();
    if values.iter().all(|v| v.to_bits() == first) {
        out.extend_from_slice(&first.to_le_bytes());
        return Encoding::Constant;
    }
    if values.len() <= ON_STACK {
        let mut scaled = [0i64; ON_STACK];
        encode_varying(out, values, &mut scaled[..values.len()])
    } else {
        encode_varying(out, values, &mut vec![0; values.len()])
    }
}

fn encode_varying(out: &mut Vec<u8>, values: &[f64], scaled: &mut [i64]) -> Encoding {
    let Some((places, exceptions)) = scale(values, scaled) else {
        return put_patternless(out, values);
    };
    let at = out.len();
    let encoding = begin_scaled(out, scaled, places);
    put_exceptions(out, values, places, exceptions);
    put_differences(out, scaled, encoding.is_of_differences());
    if out.len() - at > values.len() * 6 {
        let mut other = Vec::with_capacity(values.len() * 8 + 16);
        let encoding = put_patternless(&mut other, values);
        if other.len() < out.len() - at {
            out.truncate(at);
            out.extend_from_slice(&other);
            return encoding;
        }
    }
    encoding
}

/// Appends the values that are `numbers` (not empty) divided by `10^places` exactly, as [`encode`] would. `None`, and
/// nothing is appended, when another encoding or fewer places may suit them better.
pub(crate) fn encode_numbers(
    out: &mut Vec<u8>,
    numbers: &[i64],
    places: usize,
) -> Option<Encoding> {
    let first = numbers[0];
    if numbers.iter().all(|n| *n == first) {
        let value = match places {
            0 => first as f64,
            _ => first as f64 / POWERS[places],
        };
        out.extend_from_slice(&value.to_bits().to_le_bytes());
        return Some(Encoding::Constant);
    }
    if places > 0 && numbers.iter().all(|n| n % 10 == 0) {
        return None;
    }
    let at = out.len();
    let encoding = begin_scaled(out, numbers, places);
    put_varint(out, 0);
    put_differences(out, numbers, encoding.is_of_differences());
    if out.len() - at > numbers.len() * 6 {
        out.truncate(at);
        return None;
    }
    Some(encoding)
}

/// Decides how integers are written, and appends their decimal places when there are any.
fn begin_scaled(out: &mut Vec<u8>, scaled: &[i64], places: usize) -> Encoding {
    if places > 0 {
        out.push(places as u8);
    }
    match (places > 0, prefers_delta_of_delta(scaled)) {
        (false, false) => Encoding::IntegerDelta,
        (false, true) => Encoding::IntegerDeltaOfDelta,
        (true, false) => Encoding::DecimalDelta,
        (true, true) => Encoding::DecimalDeltaOfDelta,
    }
}

/// Finds the fewest decimal places that make every value an integer, and how many exceptions that leaves: values that
/// are not finite, and negative zeros. An exception repeats the integer before it.
fn scale(values: &[f64], scaled: &mut [i64]) -> Option<(usize, usize)> {
    let mut places = 0;
    'again: loop {
        let mut exceptions = 0;
        let mut last = 0;
        for (value, integer) in values.iter().zip(scaled.iter_mut()) {
            if let Some(exact) = scaled_integer(*value, places) {
                last = exact;
            } else if is_exception(*value) {
                exceptions += 1;
            } else {
                places =
                    (places + 1..=MAX_PLACES).find(|p| scaled_integer(*value, *p).is_some())?;
                continue 'again;
            }
            *integer = last;
        }
        let affordable = exceptions <= values.len() / 8 + 1;
        return affordable.then_some((places, exceptions));
    }
}

fn is_exception(value: f64) -> bool {
    !value.is_finite() || value.to_bits() == (-0.0f64).to_bits()
}

#[inline]
fn scaled_integer(value: f64, places: usize) -> Option<i64> {
    if places == 0 {
        return as_exact_integer(value);
    }
    let power = POWERS[places];
    let scaled = value * power;
    // Rounds by truncation: rounding itself is a call on processors without SSE 4.1.
    let integer = (scaled + 0.5f64.copysign(scaled)) as i64 as f64;
    let fits = integer.abs() <= MAX_EXACT as f64 && integer.to_bits() != (-0.0f64).to_bits();
    let exact = fits && (integer / power).to_bits() == value.to_bits();
    exact.then_some(integer as i64)
}

/// Whether differences of differences are much shorter than differences. A little is not enough: differences that are
/// random have a sign more and a wider spread when taken twice.
fn prefers_delta_of_delta(scaled: &[i64]) -> bool {
    let (mut delta_bits, mut dod_bits) = (0u32, 0u32);
    let mut before = 0i64;
    for pair in scaled.windows(2) {
        let delta = pair[1] - pair[0];
        delta_bits += magnitude(delta);
        dod_bits += magnitude(delta - before);
        before = delta;
    }
    dod_bits * 4 < delta_bits * 3
}

/// Bits of the magnitude: a finer measure than bytes, since pages are entropy coded again.
#[inline]
fn magnitude(value: i64) -> u32 {
    64 - value.unsigned_abs().leading_zeros()
}

fn put_exceptions(out: &mut Vec<u8>, values: &[f64], places: usize, count: usize) {
    put_varint(out, count as u64);
    if count == 0 {
        return;
    }
    let mut after = 0;
    for (index, value) in values.iter().enumerate() {
        if scaled_integer(*value, places).is_none() {
            put_varint(out, (index - after) as u64);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
            after = index + 1;
        }
    }
}

fn put_differences(out: &mut Vec<u8>, scaled: &[i64], of_differences: bool) {
    put_ivarint(out, scaled[0]);
    let mut before = 0;
    let words = scaled.windows(2).map(|pair| {
        let delta = pair[1] - pair[0];
        let word = zigzag(delta - before);
        if of_differences {
            before = delta;
        }
        word
    });
    let count = scaled.len() - 1;
    if count <= ON_STACK {
        let mut few = [0; ON_STACK];
        few.iter_mut().zip(words).for_each(|(to, word)| *to = word);
        put_planes(out, &few[..count]);
    } else {
        put_planes(out, &words.collect::<Vec<u64>>());
    }
}

/// Appends values that are neither integers nor short decimals.
fn put_patternless(out: &mut Vec<u8>, values: &[f64]) -> Encoding {
    let at = out.len();
    put_xor(out, values);
    match split::plan(values) {
        Some(plan) if plan.bytes < out.len() - at => {
            out.truncate(at);
            split::encode(out, values, &plan);
            Encoding::Split
        }
        _ => Encoding::Xor,
    }
}

fn put_xor(out: &mut Vec<u8>, values: &[f64]) {
    out.extend_from_slice(&values[0].to_bits().to_le_bytes());
    let pairs = values.windows(2);
    let words: Vec<u64> = pairs.map(|p| p[0].to_bits() ^ p[1].to_bits()).collect();
    put_planes(out, &words);
}

/// Appends words as a mask of the byte planes that are not all zero, then those planes.
fn put_planes(out: &mut Vec<u8>, words: &[u64]) {
    let any = words.iter().fold(0, |all, word| all | word);
    let mask = (0..8)
        .filter(|plane| (any >> (plane * 8)) & 0xff != 0)
        .fold(0u8, |mask, plane| mask | 1 << plane);
    out.push(mask);
    for plane in (0..8).filter(|p| mask >> p & 1 == 1) {
        out.extend(words.iter().map(|word| (word >> (plane * 8)) as u8));
    }
}

/// Words that were read; those of a small chunk need no memory.
struct Words {
    few: [u64; ON_STACK],
    many: Vec<u64>,
}

impl Default for Words {
    fn default() -> Self {
        Words {
            few: [0; ON_STACK],
            many: Vec::new(),
        }
    }
}

// === impl Words ===

impl Words {
    /// Reads `count` words, and gives the first `needed` of them.
    fn read(
        &mut self,
        reader: &mut Reader<'_>,
        count: usize,
        needed: usize,
    ) -> Result<&[u64], Damaged> {
        let mask = reader.byte()?;
        let bytes = reader.take(mask.count_ones() as usize * count)?;
        let words = if needed <= ON_STACK {
            &mut self.few[..needed]
        } else {
            self.many.resize(needed, 0);
            self.many.as_mut_slice()
        };
        for (k, plane) in (0..8).filter(|p| mask >> p & 1 == 1).enumerate() {
            for (word, byte) in words.iter_mut().zip(&bytes[k * count..(k + 1) * count]) {
                *word |= u64::from(*byte) << (plane * 8);
            }
        }
        Ok(words)
    }
}

/// Appends those of the `count` values of a chunk whose positions are `inside`. What comes before them is added up, not
/// kept.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    encoding: Encoding,
    count: usize,
    inside: &Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Damaged> {
    match encoding {
        Encoding::Constant => {
            let value = f64::from_bits(reader.u64()?);
            out.resize(out.len() + inside.len(), value);
            Ok(())
        }
        Encoding::IntegerDelta => read_integers(reader, false, 0, (count, inside), out),
        Encoding::IntegerDeltaOfDelta => read_integers(reader, true, 0, (count, inside), out),
        Encoding::DecimalDelta => read_decimals(reader, false, (count, inside), out),
        Encoding::DecimalDeltaOfDelta => read_decimals(reader, true, (count, inside), out),
        Encoding::Xor => read_xor(reader, count, inside, out),
        Encoding::Split => split::decode(reader, count, inside, out),
        Encoding::Histogram => Err(Damaged("histograms are not floats")),
    }
}

/// How many values a chunk has, and which of them are wanted.
type Wanted<'a> = (usize, &'a Range<usize>);

fn read_decimals(
    reader: &mut Reader<'_>,
    of_differences: bool,
    wanted: Wanted<'_>,
    out: &mut Vec<f64>,
) -> Result<(), Damaged> {
    let places = reader.byte()? as usize;
    if places == 0 || places > MAX_PLACES {
        return Err(Damaged("a decimal chunk has an impossible scale"));
    }
    read_integers(reader, of_differences, places, wanted, out)
}

fn read_integers(
    reader: &mut Reader<'_>,
    of_differences: bool,
    places: usize,
    (count, inside): Wanted<'_>,
    out: &mut Vec<f64>,
) -> Result<(), Damaged> {
    let exceptions = reader.count(9)?;
    let mut listed = reader.clone();
    for _ in 0..exceptions {
        reader.uvarint()?;
        reader.u64()?;
    }
    let at = out.len();
    let mut sums = Sums {
        value: reader.ivarint()?,
        delta: 0,
        of_differences,
    };
    let rest = count - 1;
    let (skipped, needed) = words_of(inside);
    out.reserve(inside.len());
    if inside.contains(&0) {
        out.push(sums.value as f64);
    }
    match reader.rest().first() {
        // One or two bytes a word, by far the most common, need no words in between.
        Some(0b1) => {
            reader.byte()?;
            let (before, wanted) = reader.take(rest)?[..needed].split_at(skipped);
            sums.skip(before.iter().map(|b| u64::from(*b)));
            sums.put(wanted.iter().map(|b| u64::from(*b)), out);
        }
        Some(0b11) => {
            reader.byte()?;
            let (low, high) = reader.take(2 * rest)?.split_at(rest);
            let words = |part: Range<usize>| {
                let pairs = low[part.clone()].iter().zip(&high[part]);
                pairs.map(|(l, h)| u64::from(*l) | u64::from(*h) << 8)
            };
            sums.skip(words(0..skipped));
            sums.put(words(skipped..needed), out);
        }
        _ => {
            let mut words = Words::default();
            let (before, wanted) = words.read(reader, rest, needed)?.split_at(skipped);
            sums.skip(before.iter().copied());
            sums.put(wanted.iter().copied(), out);
        }
    }
    if places > 0 {
        let power = POWERS[places];
        out[at..].iter_mut().for_each(|v| *v /= power);
    }
    let mut next = 0usize;
    for _ in 0..exceptions {
        let gap = usize::try_from(listed.uvarint()?).unwrap_or(usize::MAX);
        let index = next.saturating_add(gap);
        let value = f64::from_bits(listed.u64()?);
        if index >= count {
            return Err(Damaged("an exception is outside its chunk"));
        }
        if inside.contains(&index) {
            out[at + index - inside.start] = value;
        }
        next = index + 1;
    }
    Ok(())
}

/// Of the words between values: how many come before the first wanted value's, and how many are needed.
fn words_of(inside: &Range<usize>) -> (usize, usize) {
    let needed = inside.end.saturating_sub(1);
    (inside.start.saturating_sub(1).min(needed), needed)
}

/// Values of which the words are the differences, or the differences of differences.
struct Sums {
    value: i64,
    delta: i64,
    of_differences: bool,
}

// === impl Sums ===

impl Sums {
    /// Goes past words.
    #[inline]
    fn skip(&mut self, words: impl Iterator<Item = u64>) {
        if self.of_differences {
            for word in words {
                self.delta = self.delta.wrapping_add(unzigzag(word));
                self.value = self.value.wrapping_add(self.delta);
            }
        } else {
            let add = |sum: i64, word| sum.wrapping_add(unzigzag(word));
            self.value = self.value.wrapping_add(words.fold(0, add));
        }
    }

    /// Appends the values after the words.
    #[inline]
    fn put(self, words: impl Iterator<Item = u64>, out: &mut Vec<f64>) {
        let (mut value, mut delta) = (self.value, self.delta);
        if self.of_differences {
            out.extend(words.map(|word| {
                delta = delta.wrapping_add(unzigzag(word));
                value = value.wrapping_add(delta);
                value as f64
            }));
        } else {
            out.extend(words.map(|word| {
                value = value.wrapping_add(unzigzag(word));
                value as f64
            }));
        }
    }
}

fn read_xor(
    reader: &mut Reader<'_>,
    count: usize,
    inside: &Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Damaged> {
    let mut last = reader.u64()?;
    let (skipped, needed) = words_of(inside);
    let mut words = Words::default();
    let (before, wanted) = words.read(reader, count - 1, needed)?.split_at(skipped);
    out.reserve(inside.len());
    if inside.contains(&0) {
        out.push(f64::from_bits(last));
    }
    last = before.iter().fold(last, |last, word| last ^ word);
    out.extend(wanted.iter().map(|word| {
        last ^= *word;
        f64::from_bits(last)
    }));
    Ok(())
}
