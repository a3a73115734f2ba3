//! Native histograms of a chunk: the layout once, then each histogram's counts as differences to the one before.
//!
//! Owns the histogram part of a chunk. Must not know its times, nor judge whether a histogram makes sense.

use model::NativeHistogram;
use model::histogram::{ResetHint, Span};

use crate::wire::{Damaged, Reader, as_exact_integer, put_ivarint, put_number, put_varint};

const SAME_LAYOUT: u8 = 1;
const INTEGER_DELTAS: u8 = 2;

/// Appends histograms one after another.
pub(crate) fn encode<'a>(out: &mut Vec<u8>, all: impl Iterator<Item = &'a NativeHistogram>) {
    let mut before: Option<&NativeHistogram> = None;
    for histogram in all {
        encode_one(out, histogram, before);
        before = Some(histogram);
    }
}

/// Appends one histogram, given the one before it.
pub(crate) fn encode_one(out: &mut Vec<u8>, h: &NativeHistogram, before: Option<&NativeHistogram>) {
    let same = before.filter(|b| has_same_layout(b, h));
    let deltas = same.filter(|b| are_integers(b) && are_integers(h));
    let flags =
        u8::from(same.is_some()) * SAME_LAYOUT + u8::from(deltas.is_some()) * INTEGER_DELTAS;
    out.push(flags);
    if same.is_none() {
        put_layout(out, h);
    }
    out.push(hint_code(h.reset_hint));
    put_number(out, h.zero_count);
    put_number(out, h.count);
    put_number(out, h.sum);
    match deltas {
        Some(b) => {
            for (now, then) in buckets(h).zip(buckets(b)) {
                put_ivarint(out, now as i64 - then as i64);
            }
        }
        None => buckets(h).for_each(|v| put_number(out, v)),
    }
}

fn buckets(h: &NativeHistogram) -> impl Iterator<Item = f64> + '_ {
    h.positive_buckets
        .iter()
        .chain(&h.negative_buckets)
        .copied()
}

fn are_integers(h: &NativeHistogram) -> bool {
    buckets(h).all(|v| as_exact_integer(v).is_some())
}

fn has_same_layout(a: &NativeHistogram, b: &NativeHistogram) -> bool {
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && a.positive_buckets.len() == b.positive_buckets.len()
        && a.negative_buckets.len() == b.negative_buckets.len()
        && a.custom_values.len() == b.custom_values.len()
        && a.custom_values
            .iter()
            .zip(&b.custom_values)
            .all(|(x, y)| x.to_bits() == y.to_bits())
}

fn put_layout(out: &mut Vec<u8>, h: &NativeHistogram) {
    put_ivarint(out, i64::from(h.schema));
    put_number(out, h.zero_threshold);
    for spans in [&h.positive_spans, &h.negative_spans] {
        put_varint(out, spans.len() as u64);
        for span in spans {
            put_ivarint(out, i64::from(span.offset));
            put_varint(out, u64::from(span.length));
        }
    }
    put_varint(out, h.positive_buckets.len() as u64);
    put_varint(out, h.negative_buckets.len() as u64);
    put_varint(out, h.custom_values.len() as u64);
    h.custom_values.iter().for_each(|v| put_number(out, *v));
}

fn hint_code(hint: ResetHint) -> u8 {
    match hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    }
}

/// Reads `count` histograms.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    count: usize,
    out: &mut Vec<NativeHistogram>,
) -> Result<(), Damaged> {
    for _ in 0..count {
        let next = decode_one(reader, out.last())?;
        out.push(next);
    }
    Ok(())
}

/// Reads one histogram, given the one before it.
pub(crate) fn decode_one(
    reader: &mut Reader<'_>,
    before: Option<&NativeHistogram>,
) -> Result<NativeHistogram, Damaged> {
    let flags = reader.byte()?;
    if flags & !(SAME_LAYOUT | INTEGER_DELTAS) != 0 {
        return Err(Damaged("unknown histogram flags"));
    }
    let (mut h, positive, negative) = if flags & SAME_LAYOUT != 0 {
        let b = before.ok_or(Damaged("a histogram refers to one before the first"))?;
        (
            b.clone(),
            b.positive_buckets.len(),
            b.negative_buckets.len(),
        )
    } else {
        read_layout(reader)?
    };
    h.reset_hint = match reader.byte()? {
        0 => ResetHint::Unknown,
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        _ => return Err(Damaged("unknown reset hint")),
    };
    h.zero_count = reader.number()?;
    h.count = reader.number()?;
    h.sum = reader.number()?;
    if flags & INTEGER_DELTAS != 0 {
        if flags & SAME_LAYOUT == 0 {
            return Err(Damaged("histogram differences without a layout"));
        }
        for bucket in h.positive_buckets.iter_mut().chain(&mut h.negative_buckets) {
            *bucket = (*bucket as i64).wrapping_add(reader.ivarint()?) as f64;
        }
    } else {
        read_numbers(reader, positive, &mut h.positive_buckets)?;
        read_numbers(reader, negative, &mut h.negative_buckets)?;
    }
    Ok(h)
}

fn read_layout(reader: &mut Reader<'_>) -> Result<(NativeHistogram, usize, usize), Damaged> {
    let mut h = NativeHistogram {
        schema: narrow(reader.ivarint()?)?,
        zero_threshold: reader.number()?,
        ..NativeHistogram::default()
    };
    for spans in [&mut h.positive_spans, &mut h.negative_spans] {
        for _ in 0..reader.count(2)? {
            let offset = narrow(reader.ivarint()?)?;
            let length =
                u32::try_from(reader.uvarint()?).map_err(|_| Damaged("a span is too long"))?;
            spans.push(Span { offset, length });
        }
    }
    let positive = reader.count(1)?;
    let negative = reader.count(1)?;
    let custom = reader.count(1)?;
    read_numbers(reader, custom, &mut h.custom_values)?;
    Ok((h, positive, negative))
}

fn narrow(value: i64) -> Result<i32, Damaged> {
    i32::try_from(value).map_err(|_| Damaged("a histogram's number is out of range"))
}

fn read_numbers(reader: &mut Reader<'_>, count: usize, out: &mut Vec<f64>) -> Result<(), Damaged> {
    if reader.len() < count {
        return Err(Damaged("a count is larger than its data"));
    }
    out.clear();
    for _ in 0..count {
        out.push(reader.number()?);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Histograms that validate, with odd sums.
    pub(crate) fn any_histogram() -> impl Strategy<Value = NativeHistogram> {
        let buckets = proptest::collection::btree_map(-20i32..20, 0u32..1000, 0..12);
        (
            -4i32..=8,
            buckets.clone(),
            buckets,
            any::<u64>(),
            any::<bool>(),
            0..4u8,
        )
            .prop_map(|(schema, positive, negative, sum, fraction, hint)| {
                let add = if fraction { 0.5 } else { 0.0 };
                let side = |m: std::collections::BTreeMap<i32, u32>| {
                    model::histogram::from_indexed(
                        m.into_iter().map(|(i, c)| (i, f64::from(c) + add)),
                    )
                };
                let (positive_spans, positive_buckets) = side(positive);
                let (negative_spans, negative_buckets) = side(negative);
                NativeHistogram {
                    schema,
                    zero_threshold: 1e-9,
                    zero_count: 3.0,
                    count: 17.0,
                    sum: f64::from_bits(sum),
                    positive_spans,
                    negative_spans,
                    positive_buckets,
                    negative_buckets,
                    custom_values: Vec::new(),
                    reset_hint: [
                        ResetHint::Unknown,
                        ResetHint::Reset,
                        ResetHint::NotReset,
                        ResetHint::Gauge,
                    ][hint as usize],
                }
            })
    }

    fn same(a: &NativeHistogram, b: &NativeHistogram) -> bool {
        let zeroed = |h: &NativeHistogram| NativeHistogram {
            sum: 0.0,
            ..h.clone()
        };
        zeroed(a) == zeroed(b) && a.sum.to_bits() == b.sum.to_bits()
    }

    proptest! {
        #[test]
        fn histograms_round_trip(all in proptest::collection::vec(any_histogram(), 1..6), repeat in any::<bool>()) {
            let mut all = all;
            if repeat {
                let mut again = all[0].clone();
                again.positive_buckets.iter_mut().for_each(|b| *b += 2.0);
                all.insert(1, again);
            }
            let mut out = Vec::new();
            encode(&mut out, all.iter());
            let mut read = Vec::new();
            let mut reader = Reader::new(&out);
            decode(&mut reader, all.len(), &mut read).expect("own bytes");
            prop_assert!(reader.is_empty());
            prop_assert!(all.iter().zip(&read).all(|(a, b)| same(a, b)));
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&mut Reader::new(&bytes), 3, &mut Vec::new());
        }
    }

    #[test]
    fn custom_buckets_round_trip() {
        let h = NativeHistogram {
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            custom_values: vec![0.1, 0.5, 1.0],
            positive_spans: vec![Span {
                offset: 0,
                length: 4,
            }],
            positive_buckets: vec![1.0, 2.0, 3.0, 4.0],
            count: 10.0,
            sum: 4.5,
            ..NativeHistogram::default()
        };
        let mut out = Vec::new();
        encode(&mut out, [&h, &h].into_iter());
        let mut read = Vec::new();
        decode(&mut Reader::new(&out), 2, &mut read).expect("own bytes");
        assert_eq!(read, [h.clone(), h]);
    }
}
