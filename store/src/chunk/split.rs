//! Split floats: sign and exponent as Rice codes, the mantissa's bits as they are.
//!
//! Owns the encoding for values without a pattern (latencies, ratios), whose mantissas are noise but whose exponents
//! are few. Must not know when it is worth it: [`plan`] says what it would cost.
//!
//! With `e` the sign and exponent (the upper 12 bits) of a value and `emax` the largest of them, a value is
//! `(emax - e) >> rice` ones, a zero, the low `rice` bits of `emax - e`, then the mantissa without the `zeros` low bits
//! that are zero in every value. Bits fill each byte from its lowest bit up.

use std::ops::Range;

use crate::wire::{Damaged, Reader};

const MANTISSA_BITS: u32 = 52;

/// The most ones of a code: a code and its low bits fit in one read.
const MAX_ONES: u64 = 40;

/// Bits that one read gives at least.
const READ_BITS: u32 = 57;

/// How a run of values would be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    emax: u64,
    rice: u32,
    zeros: u32,
    /// Bytes that it takes.
    pub(crate) bytes: usize,
}

fn exponent(value: f64) -> u64 {
    value.to_bits() >> MANTISSA_BITS
}

/// What it would cost; `None` when exponents differ too much.
pub(crate) fn plan(values: &[f64]) -> Option<Plan> {
    let emax = values.iter().map(|v| exponent(*v)).max()?;
    let emin = values.iter().map(|v| exponent(*v)).min()?;
    let any = values.iter().fold(0, |any, v| any | v.to_bits());
    let zeros = any.trailing_zeros().min(MANTISSA_BITS);
    let code_bits = |rice: u32| -> u64 {
        let of = |v: &f64| ((emax - exponent(*v)) >> rice) + 1 + u64::from(rice);
        values.iter().map(of).sum()
    };
    let fits = |rice: &u32| (emax - emin) >> rice <= MAX_ONES;
    let (bits, rice) = (0..=11)
        .filter(fits)
        .map(|rice| (code_bits(rice), rice))
        .min()?;
    let mantissas = u64::from(MANTISSA_BITS - zeros) * values.len() as u64;
    Some(Plan {
        emax,
        rice,
        zeros,
        bytes: 4 + (bits + mantissas).div_ceil(8) as usize,
    })
}

/// Appends the values as planned.
pub(crate) fn encode(out: &mut Vec<u8>, values: &[f64], plan: &Plan) {
    out.extend_from_slice(&(plan.emax as u16).to_le_bytes());
    out.push(plan.rice as u8);
    out.push(plan.zeros as u8);
    let mut bits = BitWriter {
        out,
        buffer: 0,
        used: 0,
    };
    for value in values {
        let below = plan.emax - exponent(*value);
        let ones = (below >> plan.rice) as u32;
        bits.put((1u64 << ones) - 1, ones + 1);
        bits.put(below & ((1 << plan.rice) - 1), plan.rice);
        let mantissa = value.to_bits() & ((1 << MANTISSA_BITS) - 1);
        bits.put(mantissa >> plan.zeros, MANTISSA_BITS - plan.zeros);
    }
    bits.finish();
}

struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    buffer: u128,
    used: u32,
}

// === impl BitWriter ===

impl BitWriter<'_> {
    fn put(&mut self, bits: u64, count: u32) {
        self.buffer |= u128::from(bits) << self.used;
        self.used += count;
        if self.used >= 64 {
            self.out
                .extend_from_slice(&(self.buffer as u64).to_le_bytes());
            self.buffer >>= 64;
            self.used -= 64;
        }
    }

    fn finish(self) {
        let bytes = self.used.div_ceil(8) as usize;
        self.out
            .extend_from_slice(&self.buffer.to_le_bytes()[..bytes]);
    }
}

/// Reads those of `count` values whose positions are `inside`; all take the rest of the chunk.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    count: usize,
    inside: &Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Damaged> {
    let emax = u64::from(reader.byte()?) | u64::from(reader.byte()?) << 8;
    let (rice, zeros) = (u32::from(reader.byte()?), u32::from(reader.byte()?));
    if emax >= 1 << 12 || rice > 11 || zeros > MANTISSA_BITS {
        return Err(Damaged("a split chunk has impossible parameters"));
    }
    let bytes = reader.take(reader.len())?;
    if bytes.len() * 8 < count {
        return Err(Damaged("a count is larger than its data"));
    }
    let mantissa_bits = MANTISSA_BITS - zeros;
    let mut at = 0u64;
    out.reserve(inside.len());
    for position in 0..inside.end {
        let word = word_at(bytes, at);
        let ones = u64::from((!word).trailing_zeros());
        if ones > MAX_ONES {
            return Err(Damaged("a split chunk has an impossible code"));
        }
        let low = (word >> (ones + 1)) & ((1 << rice) - 1);
        at += ones + 1 + u64::from(rice);
        let mantissa_at = at;
        at += u64::from(mantissa_bits);
        if position < inside.start {
            continue;
        }
        let mantissa = word_at(bytes, mantissa_at) & ((1 << mantissa_bits) - 1);
        let below = ones << rice | low;
        let high = emax.checked_sub(below);
        let high = high.ok_or(Damaged("a split chunk has an impossible code"))?;
        out.push(f64::from_bits(high << MANTISSA_BITS | mantissa << zeros));
    }
    if inside.end < count || at.div_ceil(8) == bytes.len() as u64 {
        Ok(())
    } else {
        Err(Damaged("a split chunk has a wrong length"))
    }
}

/// At least [`READ_BITS`] bits from bit `at` on; past the end they are zero.
fn word_at(bytes: &[u8], at: u64) -> u64 {
    debug_assert!(MAX_ONES as u32 + 1 + 11 <= READ_BITS);
    let from = (at / 8) as usize;
    let rest = bytes.get(from..).unwrap_or(&[]);
    let word = match rest.first_chunk::<8>() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => {
            let mut eight = [0; 8];
            eight[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(eight)
        }
    };
    word >> (at % 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[f64]) -> bool {
        let Some(plan) = plan(values) else {
            return false;
        };
        let mut out = Vec::new();
        encode(&mut out, values, &plan);
        assert_eq!(out.len(), plan.bytes);
        let mut read = Vec::new();
        decode(
            &mut Reader::new(&out),
            values.len(),
            &(0..values.len()),
            &mut read,
        )
        .expect("own bytes");
        let bits = |all: &[f64]| all.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read), bits(values));
        true
    }

    proptest! {
        #[test]
        fn values_round_trip(values in proptest::collection::vec(any::<f64>(), 1..80)) {
            round_trip(&values);
        }

        #[test]
        fn ratios_round_trip_and_are_shorter(values in proptest::collection::vec(0.0f64..1.0, 50..80)) {
            if round_trip(&values) {
                prop_assert!(plan(&values).is_some_and(|p| p.bytes < values.len() * 8));
            }
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), count in 1usize..50) {
            let _ = decode(&mut Reader::new(&bytes), count, &(count / 3..count), &mut Vec::new());
        }
    }
}
