//! OTLP attributes on the wire: `KeyValue` and `AnyValue` as borrowed views and as text.
//!
//! Owns how a value of any type becomes text (arrays and maps as JSON). Must not know what a key means.

use base64::Engine as _;
use model::span::Attribute;
use serde_json::Value as Json;

use model::protobuf::{Reader, WireError};

/// Nesting of arrays and maps that is read; deeper is refused.
const MAX_DEPTH: u32 = 16;

/// A value, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AnyValue<'a> {
    /// Nothing.
    Empty,
    /// Text, which the sender says is UTF-8.
    Text(&'a [u8]),
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Double(f64),
    /// `ArrayValue` on the wire.
    Array(&'a [u8]),
    /// `KeyValueList` on the wire.
    Map(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl<'a> AnyValue<'a> {
    /// Reads an `AnyValue` message; of several fields the last stays, as in protobuf.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut value = AnyValue::Empty;
        let mut reader = Reader::new(message);
        while let Some((n, field)) = reader.next_field()? {
            value = match n {
                1 => AnyValue::Text(field.bytes(n)?),
                2 => AnyValue::Bool(field.number(n)? != 0),
                3 => AnyValue::Int(field.number(n)?.cast_signed()),
                4 => AnyValue::Double(field.double(n)?),
                5 => AnyValue::Array(field.bytes(n)?),
                6 => AnyValue::Map(field.bytes(n)?),
                7 => AnyValue::Bytes(field.bytes(n)?),
                _ => value,
            };
        }
        Ok(value)
    }

    /// As text; arrays and maps as JSON, bytes as base64, invalid UTF-8 repaired.
    pub fn to_text(self) -> Result<String, WireError> {
        Ok(match self {
            AnyValue::Empty => String::new(),
            AnyValue::Text(t) => lossy(t),
            AnyValue::Bool(b) => b.to_string(),
            AnyValue::Int(i) => i.to_string(),
            AnyValue::Double(d) => model::api::format_float(d),
            AnyValue::Bytes(b) => base64::engine::general_purpose::STANDARD.encode(b),
            AnyValue::Array(_) | AnyValue::Map(_) => self.to_json(0)?.to_string(),
        })
    }

    /// The value as a small unsigned number (a status code), from an integer or from text.
    #[must_use]
    pub fn as_u16(self) -> Option<u16> {
        match self {
            AnyValue::Int(i) => u16::try_from(i).ok(),
            AnyValue::Text(t) => std::str::from_utf8(t).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The bytes when the value is text, else nothing.
    #[must_use]
    pub fn as_text(self) -> &'a [u8] {
        match self {
            AnyValue::Text(t) => t,
            _ => b"",
        }
    }

    /// Reads all that is nested in the value, so that whoever reads it later can.
    pub fn check(self) -> Result<(), WireError> {
        self.check_at(0)
    }

    fn check_at(self, depth: u32) -> Result<(), WireError> {
        if depth > MAX_DEPTH {
            return Err(WireError::TooDeep);
        }
        let (message, is_map) = match self {
            AnyValue::Array(message) => (message, false),
            AnyValue::Map(message) => (message, true),
            _ => return Ok(()),
        };
        let mut reader = Reader::new(message);
        while let Some((n, field)) = reader.next_field()? {
            if n == 1 {
                let inner = field.bytes(n)?;
                let value = match is_map {
                    true => key_value(inner)?.1,
                    false => AnyValue::parse(inner)?,
                };
                value.check_at(depth + 1)?;
            }
        }
        Ok(())
    }

    fn to_json(self, depth: u32) -> Result<Json, WireError> {
        if depth > MAX_DEPTH {
            return Err(WireError::TooDeep);
        }
        Ok(match self {
            AnyValue::Empty => Json::Null,
            AnyValue::Bool(b) => Json::Bool(b),
            AnyValue::Int(i) => Json::from(i),
            AnyValue::Double(d) => Json::from(d),
            AnyValue::Text(_) | AnyValue::Bytes(_) => Json::String(self.to_text()?),
            AnyValue::Array(message) => {
                let mut items = Vec::new();
                let mut reader = Reader::new(message);
                while let Some((n, field)) = reader.next_field()? {
                    if n == 1 {
                        items.push(AnyValue::parse(field.bytes(n)?)?.to_json(depth + 1)?);
                    }
                }
                Json::Array(items)
            }
            AnyValue::Map(message) => {
                let mut map = serde_json::Map::new();
                let mut reader = Reader::new(message);
                while let Some((n, field)) = reader.next_field()? {
                    if n == 1 {
                        let (key, value) = key_value(field.bytes(n)?)?;
                        map.insert(lossy(key), value.to_json(depth + 1)?);
                    }
                }
                Json::Object(map)
            }
        })
    }
}

/// Reads a `KeyValue` message.
pub fn key_value(message: &[u8]) -> Result<(&[u8], AnyValue<'_>), WireError> {
    let (mut key, mut value) = (&b""[..], AnyValue::Empty);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => key = field.bytes(n)?,
            2 => value = AnyValue::parse(field.bytes(n)?)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Reads a `KeyValue` message and all that is nested in its value.
pub fn checked(message: &[u8]) -> Result<(&[u8], AnyValue<'_>), WireError> {
    let (key, value) = key_value(message)?;
    value.check()?;
    Ok((key, value))
}

/// Reads a `KeyValue` message into text.
pub fn to_attribute(message: &[u8]) -> Result<Attribute, WireError> {
    let (key, value) = key_value(message)?;
    Ok((lossy(key), value.to_text()?))
}

/// All attributes of a `Resource` message, as text.
pub fn resource(message: &[u8]) -> Result<Vec<Attribute>, WireError> {
    let mut out = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        if n == 1 {
            out.push(to_attribute(field.bytes(n)?)?);
        }
    }
    Ok(out)
}

/// Bytes as text; what is not UTF-8 becomes the replacement character.
#[must_use]
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `service.name` among attributes, or `unknown_service` as the OpenTelemetry resource specification has it.
#[must_use]
pub fn service_name(attributes: &[Attribute]) -> &str {
    attributes
        .iter()
        .find(|(k, v)| k == "service.name" && !v.is_empty())
        .map_or("unknown_service", |(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::protobuf::put_bytes;

    /// A `KeyValue` whose value is an array in a map, and so on, so many deep.
    fn nested(depth: u32) -> Vec<u8> {
        let message = |number, inner: &[u8]| {
            let mut out = Vec::new();
            put_bytes(&mut out, number, inner);
            out
        };
        let mut value = message(1, b"bottom");
        for level in 0..depth {
            value = match level % 2 {
                0 => message(5, &message(1, &value)),
                _ => message(
                    6,
                    &message(1, &[message(1, b"k"), message(2, &value)].concat()),
                ),
            };
        }
        [message(1, b"key"), message(2, &value)].concat()
    }

    #[test]
    fn what_is_checked_can_be_read_and_the_rest_is_refused() {
        for depth in [0, 1, MAX_DEPTH, MAX_DEPTH + 1, 5_000] {
            let message = nested(depth);
            let deep = depth > MAX_DEPTH;
            assert_eq!(checked(&message).is_err(), deep, "{depth}");
            assert_eq!(to_attribute(&message).is_err(), deep, "{depth}");
        }
        let mut broken = nested(2);
        let len = broken.len();
        broken[len - 8] = 0xff;
        assert!(checked(&broken).is_err() && to_attribute(&broken).is_err());
    }
}
