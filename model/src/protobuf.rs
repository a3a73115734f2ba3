//! A walk over protobuf on the wire: fields as borrowed slices, no structs, no copies.
//!
//! Owns the encoding (varints, fixed numbers, length-delimited fields) in both directions. Must not know any message.
//! Specification: protobuf.dev/programming-guides/encoding. Groups, which proto3 has not, are refused.

/// A malformed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("truncated protobuf message")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("protobuf varint is longer than 10 bytes")]
    LongVarint,
    /// A field number of zero, or a wire type that proto3 does not have.
    #[error("invalid protobuf tag {0}")]
    InvalidTag(u64),
    /// A known field has another wire type than its schema says.
    #[error("protobuf field {0} has the wrong wire type")]
    WrongType(u32),
    /// Messages nested deeper than anyone means.
    #[error("protobuf message is nested too deeply")]
    TooDeep,
}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: text, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The bytes of a length-delimited field number `n`.
    pub fn bytes(self, n: u32) -> Result<&'a [u8], WireError> {
        match self {
            Field::Bytes(b) => Ok(b),
            _ => Err(WireError::WrongType(n)),
        }
    }

    /// A varint or fixed number as 64 bits.
    pub fn number(self, n: u32) -> Result<u64, WireError> {
        match self {
            Field::Varint(v) | Field::Fixed64(v) => Ok(v),
            Field::Fixed32(v) => Ok(u64::from(v)),
            Field::Bytes(_) => Err(WireError::WrongType(n)),
        }
    }

    /// A double.
    pub fn double(self, n: u32) -> Result<f64, WireError> {
        match self {
            Field::Fixed64(v) => Ok(f64::from_bits(v)),
            _ => Err(WireError::WrongType(n)),
        }
    }
}

/// Reads the fields of one message in order.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Reads `message` from its start.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Reader { rest: message }
    }

    /// The next field and its number; `None` at the end.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<(u32, Field<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::InvalidTag(tag))?;
        if number == 0 {
            return Err(WireError::InvalidTag(tag));
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError::InvalidTag(tag)),
        };
        Ok(Some((number, field)))
    }

    /// One varint without a tag, as in packed fields.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        // Tags and most lengths are one byte.
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            WireError::Truncated
        } else {
            WireError::LongVarint
        })
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Eight bytes without a tag, as in packed fixed64 and double fields.
    pub fn fixed64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }
}

/// Maps small numbers of either sign to small unsigned ones: 0, -1, 1, -2 to 0, 1, 2, 3.
#[inline]
#[must_use]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The inverse of [`zigzag`]: the signed number of a `sint32`/`sint64` field.
#[inline]
#[must_use]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Appends a `sint32`/`sint64` field.
pub fn put_zigzag(out: &mut Vec<u8>, number: u32, value: i64) {
    put_number(out, number, zigzag(value));
}

/// Reads a repeated `double`/`fixed64` field, packed or not, into `out` as bits.
pub fn repeated_fixed64(n: u32, field: Field<'_>, out: &mut Vec<u64>) -> Result<(), WireError> {
    match field {
        Field::Fixed64(v) => out.push(v),
        Field::Bytes(packed) => {
            let mut reader = Reader::new(packed);
            while !reader.is_empty() {
                out.push(reader.fixed64()?);
            }
        }
        _ => return Err(WireError::WrongType(n)),
    }
    Ok(())
}

/// Reads a repeated varint field, packed or not, into `out`.
pub fn repeated_varint(n: u32, field: Field<'_>, out: &mut Vec<u64>) -> Result<(), WireError> {
    match field {
        Field::Varint(v) => out.push(v),
        Field::Bytes(packed) => {
            let mut reader = Reader::new(packed);
            while !reader.is_empty() {
                out.push(reader.varint()?);
            }
        }
        _ => return Err(WireError::WrongType(n)),
    }
    Ok(())
}

/// Appends a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field.
pub fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a fixed64 or double field, given as bits.
pub fn put_fixed64(out: &mut Vec<u8>, number: u32, bits: u64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&bits.to_le_bytes());
}

/// Appends a fixed32 field.
pub fn put_fixed32(out: &mut Vec<u8>, number: u32, bits: u32) {
    put_varint(out, u64::from(number) << 3 | 5);
    out.extend_from_slice(&bits.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, Field<'_>)>, WireError> {
        let mut reader = Reader::new(message);
        let mut out = Vec::new();
        while let Some(field) = reader.next_field()? {
            out.push(field);
        }
        Ok(out)
    }

    #[test]
    fn every_wire_type_round_trips() {
        let mut message = Vec::new();
        put_number(&mut message, 1, 300);
        put_fixed64(&mut message, 2, 1.5f64.to_bits());
        put_bytes(&mut message, 3, b"abc");
        put_fixed32(&mut message, 1000, 7);
        let wanted = [
            (1, Field::Varint(300)),
            (2, Field::Fixed64(1.5f64.to_bits())),
            (3, Field::Bytes(b"abc")),
            (1000, Field::Fixed32(7)),
        ];
        assert_eq!(all(&message).unwrap(), wanted);
        assert_eq!([0, 1, 2, 3].map(unzigzag), [0, -1, 1, -2]);
        for value in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn malformed_messages_are_named() {
        for (message, error) in [
            (&[0x0a, 5, 1][..], WireError::Truncated),
            (&[0x80][..], WireError::Truncated),
            (&[0x08, 0x80, 0x80][..], WireError::Truncated),
            (&[0xff; 11][..], WireError::LongVarint),
            (&[0x00, 1][..], WireError::InvalidTag(0)),
            (&[0x0b][..], WireError::InvalidTag(11)),
            (&[0x09, 1, 2][..], WireError::Truncated),
        ] {
            assert_eq!(all(message), Err(error), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(Reader::new(&out).varint(), Ok(value));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes);
        }
    }
}
