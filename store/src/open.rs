//! The newest samples of a series, one after another in few bytes, until they are enough for a chunk.
//!
//! Owns their encoding, which is never on disk: a byte a sample for what most series do (the same value again, a counter
//! that grows a little, a gauge of few decimals that moves a little), at a regular step. Must not know series. Every
//! float comes back bit for bit.
//!
//! ```text
//! 0..=219      regular time; the number is the one before plus unzigzag(byte)
//! 226          u8 count: the number before, so many times more, at regular times
//! 220, 221     the number is the one before plus an ivarint; 221: an ivarint before it, time minus regular time
//! 222, 223     u8 places, ivarint number; 223: as 221. A value is its number divided by 10^places
//! 224, 225     eight bytes of a float; 225: as 221. The number before stays
//! ```

use crate::wire::{
    Damaged, MAX_EXACT, Reader, as_exact_integer, put_ivarint, put_varint, unzigzag, zigzag,
};

/// Samples that are held like this before they become a chunk.
pub(crate) const OPEN: usize = 64;

/// Or this many bytes: values without a pattern are smaller in a chunk.
pub(crate) const OPEN_BYTES: usize = 280;

/// The most bytes that a sample takes.
pub(crate) const SAMPLE_BYTES: usize = 21;

const DIFFERENCE: u8 = 220;
const ABSOLUTE: u8 = 222;
const BITS: u8 = 224;
const REPEAT: u8 = 226;

/// The most decimals that are looked for.
const MAX_PLACES: u8 = 6;

const TENS: [f64; MAX_PLACES as usize + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6];

/// Values that were no decimals before they are no longer tried as such.
pub(crate) const MAX_MISSES: u8 = 2;

/// How the next value is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Values {
    /// The number before.
    pub(crate) number: i64,
    /// Its decimals.
    pub(crate) places: u8,
    /// Values in a row that were no decimals.
    pub(crate) misses: u8,
    /// How often the last number has been repeated at regular times, as the end of the bytes says.
    pub(crate) repeats: u8,
}

// === impl Values ===

impl Values {
    /// What most samples are: at a regular time, with a number near the one before. False when this is none. `room`
    /// makes room for so many bytes.
    #[inline]
    pub(crate) fn put_near(
        &mut self,
        out: &mut Vec<u8>,
        value: f64,
        room: impl FnOnce(&mut Vec<u8>, usize),
    ) -> bool {
        let Some(number) = as_number(value, self.places) else {
            return false;
        };
        let step = zigzag(number.wrapping_sub(self.number));
        if step >= u64::from(DIFFERENCE) {
            return false;
        }
        self.number = number;
        if step != 0 || self.repeats == 0 {
            room(out, 1);
            out.push(step as u8);
            self.repeats = u8::from(step == 0);
            return true;
        }
        self.repeat(out, room);
        true
    }

    fn repeat(&mut self, out: &mut Vec<u8>, room: impl FnOnce(&mut Vec<u8>, usize)) {
        if self.repeats == 1 {
            room(out, 1);
            if let Some(last) = out.last_mut() {
                *last = REPEAT;
            }
            out.push(1);
        }
        self.repeats += 1;
        if let Some(count) = out.last_mut() {
            *count = self.repeats;
        }
    }

    /// Appends any sample, at most [`SAMPLE_BYTES`]. `late_ms`: its time minus that of a regular one. The first sample
    /// needs no others to be read.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, first: bool, late_ms: i64, value: f64) {
        self.repeats = 0;
        let same_places = as_number(value, self.places);
        if let (Some(number), false) = (same_places, first) {
            let step = zigzag(number.wrapping_sub(self.number));
            self.number = number;
            put_front(out, DIFFERENCE, late_ms);
            put_varint(out, step);
            return;
        }
        let found = match same_places {
            Some(number) => Some((self.places, number)),
            None => self.find(value),
        };
        match found {
            Some((places, number)) => {
                (self.places, self.number) = (places, number);
                put_front(out, ABSOLUTE, late_ms);
                out.push(places);
                put_ivarint(out, number);
            }
            None => {
                if first {
                    // A reader knows no number before it.
                    (self.number, self.places) = (0, 0);
                }
                put_front(out, BITS, late_ms);
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
    }

    /// Another number of decimals that suits the value.
    fn find(&mut self, value: f64) -> Option<(u8, i64)> {
        if self.misses >= MAX_MISSES {
            return None;
        }
        let found = (0..=MAX_PLACES).find_map(|p| Some((p, as_number(value, p)?)));
        self.misses = if found.is_some() { 0 } else { self.misses + 1 };
        found
    }
}

#[inline]
fn put_front(out: &mut Vec<u8>, form: u8, late_ms: i64) {
    if late_ms == 0 {
        out.push(form);
    } else {
        out.push(form + 1);
        put_ivarint(out, late_ms);
    }
}

/// The integer that divided by `10^places` is `value`, bit for bit.
#[inline]
fn as_number(value: f64, places: u8) -> Option<i64> {
    if places == 0 {
        return as_exact_integer(value);
    }
    let tens = TENS[places as usize];
    let scaled = value * tens;
    // Rounds by truncation: rounding itself is a call on processors without SSE 4.1.
    let number = (scaled + 0.5f64.copysign(scaled)) as i64;
    let exact = (number as f64 / tens).to_bits() == value.to_bits();
    (exact && (-MAX_EXACT..=MAX_EXACT).contains(&number)).then_some(number)
}

/// Most numbers are integers, which need no division.
#[inline]
fn divided(number: i64, tens: f64) -> f64 {
    match tens {
        1.0 => number as f64,
        _ => number as f64 / tens,
    }
}

/// Samples read back.
#[derive(Debug)]
pub(crate) struct Opened {
    times: [i64; OPEN],
    values: [f64; OPEN],
    len: usize,
    /// Whether the times are a first one plus multiples of the step.
    pub(crate) regular: bool,
}

// === impl Opened ===

impl Opened {
    /// Reads samples of which the last one is at `last_t`.
    pub(crate) fn read(bytes: &[u8], step_ms: i64, last_t: i64) -> Result<Self, Damaged> {
        let mut all = Opened {
            times: [0; OPEN],
            values: [0.0; OPEN],
            len: 0,
            regular: true,
        };
        let (mut number, mut tens) = (0i64, 1.0);
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let control = reader.byte()?;
            let at = all.len;
            let (Some(time), Some(value)) = (all.times.get_mut(at), all.values.get_mut(at)) else {
                return Err(Damaged("too many samples"));
            };
            if control == REPEAT {
                let count = usize::from(reader.byte()?);
                let values = all.values.get_mut(at..at + count);
                values
                    .ok_or(Damaged("too many samples"))?
                    .fill(divided(number, tens));
                all.times[at..at + count].fill(step_ms);
                all.len += count;
                continue;
            }
            all.len += 1;
            // For now the distance from the sample before.
            *time = step_ms;
            if control < DIFFERENCE {
                number = number.wrapping_add(unzigzag(u64::from(control)));
                *value = divided(number, tens);
                continue;
            }
            if control & 1 == 1 {
                *time = step_ms.wrapping_add(reader.ivarint()?);
                all.regular = false;
            }
            match control & !1 {
                DIFFERENCE => number = number.wrapping_add(unzigzag(reader.uvarint()?)),
                ABSOLUTE => {
                    let places = usize::from(reader.byte()?);
                    tens = *TENS.get(places).ok_or(Damaged("too many decimals"))?;
                    number = reader.ivarint()?;
                }
                BITS => {
                    *value = f64::from_bits(reader.u64()?);
                    continue;
                }
                _ => return Err(Damaged("unknown sample form")),
            }
            *value = divided(number, tens);
        }
        let mut t = last_t;
        for time in all.times[..all.len].iter_mut().rev() {
            (*time, t) = (t, t.wrapping_sub(*time));
        }
        Ok(all)
    }

    pub(crate) fn times(&self) -> &[i64] {
        &self.times[..self.len]
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.values[..self.len]
    }
}

/// The numbers of samples that are all at regular times and have the same decimals: those decimals and how many they are.
/// `None` for any others.
pub(crate) fn numbers(bytes: &[u8], out: &mut [i64; OPEN]) -> Option<(u8, usize)> {
    let mut reader = Reader::new(bytes);
    if reader.byte().ok()? != ABSOLUTE {
        return None;
    }
    let places = reader.byte().ok().filter(|p| *p <= MAX_PLACES)?;
    let mut number = reader.ivarint().ok()?;
    out[0] = number;
    let mut len = 1;
    while !reader.is_empty() {
        let control = reader.byte().ok()?;
        let step = match control {
            REPEAT => {
                let count = usize::from(reader.byte().ok()?);
                out.get_mut(len..len + count)?.fill(number);
                len += count;
                continue;
            }
            DIFFERENCE => reader.uvarint().ok()?,
            near if near < DIFFERENCE => u64::from(near),
            _ => return None,
        };
        number = number.wrapping_add(unzigzag(step));
        *out.get_mut(len)? = number;
        len += 1;
    }
    Some((places, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(samples: &[(i64, f64)], step_ms: i64, mut values: Values) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, (t, value)) in samples.iter().enumerate() {
            let late = match i {
                0 => 0,
                _ => t.wrapping_sub(samples[i - 1].0).wrapping_sub(step_ms),
            };
            let near = i > 0 && late == 0 && values.put_near(&mut out, *value, Vec::reserve);
            if !near {
                let before = out.len();
                values.put(&mut out, i == 0, late, *value);
                assert!(out.len() - before <= SAMPLE_BYTES);
            }
        }
        out
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-300i64..300).prop_map(|n| n as f64),
            (0i64..2).prop_map(|n| n as f64),
            (-30_000i64..30_000).prop_map(|n| n as f64 / 100.0),
            any::<i32>().prop_map(|n| f64::from(n) / 1e6),
            Just(-0.0),
            Just(f64::from_bits(model::STALE_NAN_BITS)),
        ]
    }

    proptest! {
        #[test]
        fn samples_come_back_bit_for_bit(
            samples in proptest::collection::vec((prop_oneof![Just(0i64), -3i64..3, any::<i64>()], value()), 1..=OPEN),
            step in prop_oneof![Just(10_000i64), any::<i64>()],
            (number, places, misses) in (-9i64..9, 0..=MAX_PLACES, 0..=MAX_MISSES),
        ) {
            let mut t = 1_700_000_000_000i64;
            let samples: Vec<(i64, f64)> = samples.into_iter().map(|(late, v)| {
                t = t.wrapping_add(step).wrapping_add(late);
                (t, v)
            }).collect();
            let before = Values { number, places, misses, repeats: 0 };
            let opened = Opened::read(&written(&samples, step, before), step, t).expect("own bytes");
            let read: Vec<(i64, u64)> = opened.times().iter().copied().zip(opened.values().iter().map(|v| v.to_bits())).collect();
            let expected: Vec<(i64, u64)> = samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn numbers_are_those_of_the_samples(values in proptest::collection::vec(value(), 1..=OPEN)) {
            let samples: Vec<(i64, f64)> = (0..).map(|i| i * 5).zip(values).collect();
            let mut all = [0; OPEN];
            if let Some((places, len)) = numbers(&written(&samples, 5, Values::default()), &mut all) {
                let read: Vec<u64> = all[..len].iter().map(|n| divided(*n, TENS[places as usize]).to_bits()).collect();
                let expected: Vec<u64> = samples.iter().map(|(_, v)| v.to_bits()).collect();
                prop_assert_eq!(read, expected);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Opened::read(&bytes, 1, 2);
            let _ = numbers(&bytes, &mut [0; OPEN]);
        }
    }

    #[test]
    fn what_most_series_do_takes_a_byte() {
        let at = |i: i64| i * 10_000;
        let counter: Vec<(i64, f64)> = (0..20)
            .map(|i| (at(i), (1_000_000 + i * 99) as f64))
            .collect();
        let gauge: Vec<(i64, f64)> = (0..20)
            .map(|i| (at(i), (5_000 + i % 7 * 13) as f64 / 100.0))
            .collect();
        let constant: Vec<(i64, f64)> = (0..20).map(|i| (at(i), 7.0)).collect();
        let noise: Vec<(i64, f64)> = (0..20).map(|i| (at(i), (i as f64).sqrt().sin())).collect();
        for (samples, bytes) in [(counter, 24), (gauge, 25), (constant, 5), (noise, 20 * 9)] {
            let len = written(&samples, 10_000, Values::default()).len();
            assert!(len <= bytes, "{len} > {bytes}: {samples:?}");
        }
    }
}
