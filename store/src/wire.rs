//! Integers and floats as bytes: LEB128 varints (protobuf's), zigzag, little-endian words, and a reader that never panics.
//!
//! Owns the primitive encodings that every file of the store shares. Must not know what the numbers mean.

pub(crate) use model::protobuf::{put_varint, unzigzag, zigzag};

/// Bytes that cannot be what they claim to be; the text says which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Damaged(pub(crate) &'static str);

/// The largest integer that every smaller one can be a float exactly.
pub(crate) const MAX_EXACT: i64 = 1 << 53;

/// Appends a signed integer, zigzag then LEB128.
#[inline]
pub(crate) fn put_ivarint(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// Appends bytes with their length before them.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The integer that `value` is exactly, when it is one of at most 53 bits and not negative zero.
#[inline]
pub(crate) fn as_exact_integer(value: f64) -> Option<i64> {
    let integer = value as i64;
    let exact = (integer as f64).to_bits() == value.to_bits();
    (exact && (-MAX_EXACT..=MAX_EXACT).contains(&integer)).then_some(integer)
}

/// Appends a float: an exact integer as a short varint, anything else as its eight bytes after a 1.
pub(crate) fn put_number(out: &mut Vec<u8>, value: f64) {
    match as_exact_integer(value) {
        Some(integer) => put_varint(out, zigzag(integer) << 1),
        None => {
            out.push(1);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}

/// Reads from the front of a slice; every method fails instead of reading past the end.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(Damaged("unexpected end"))?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Damaged> {
        let (first, tail) = self.rest.split_first().ok_or(Damaged("unexpected end"))?;
        self.rest = tail;
        Ok(*first)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damaged> {
        self.word::<4>().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damaged> {
        self.word::<8>().map(u64::from_le_bytes)
    }

    fn word<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Damaged("unexpected end"))?;
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn uvarint(&mut self) -> Result<u64, Damaged> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        self.long_uvarint(first)
    }

    fn long_uvarint(&mut self, first: u8) -> Result<u64, Damaged> {
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damaged("a varint is longer than 64 bits"))
    }

    #[inline]
    pub(crate) fn ivarint(&mut self) -> Result<i64, Damaged> {
        Ok(unzigzag(self.uvarint()?))
    }

    /// A count of things that take at least `min_bytes` each: refused when the rest cannot hold that many.
    pub(crate) fn count(&mut self, min_bytes: usize) -> Result<usize, Damaged> {
        let count = self.uvarint()?;
        let most = self.rest.len() / min_bytes.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(Damaged("a count is larger than its data")),
        }
    }

    /// Bytes with their length before them.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let len = usize::try_from(self.uvarint()?).unwrap_or(usize::MAX);
        self.take(len)
    }

    /// Text with its length before it.
    pub(crate) fn text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged("text is not UTF-8"))
    }

    pub(crate) fn number(&mut self) -> Result<f64, Damaged> {
        let tagged = self.uvarint()?;
        if tagged & 1 == 0 {
            return Ok(unzigzag(tagged >> 1) as f64);
        }
        Ok(f64::from_bits(self.u64()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(a in any::<u64>(), b in any::<i64>(), bits in any::<u64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, a);
            put_ivarint(&mut out, b);
            put_number(&mut out, f64::from_bits(bits));
            put_number(&mut out, a as u32 as f64);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.uvarint(), Ok(a));
            prop_assert_eq!(reader.ivarint(), Ok(b));
            prop_assert_eq!(reader.number().map(f64::to_bits), Ok(bits));
            prop_assert_eq!(reader.number(), Ok(a as u32 as f64));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(Reader::new(&[0x80]).uvarint().is_err());
        assert!(Reader::new(&[0xff; 11]).uvarint().is_err());
        assert!(Reader::new(&[200, 1]).bytes().is_err());
        assert_eq!(as_exact_integer(-0.0), None);
        assert_eq!(as_exact_integer(f64::NAN), None);
        assert_eq!(as_exact_integer(1e300), None);
        assert_eq!(as_exact_integer(-7.0), Some(-7));
    }
}
