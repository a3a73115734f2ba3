//! Values of settings as people write them: `15d`, `20MiB`, `off`.
//!
//! Owns their parsing and printing. Must not know which settings have them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in milliseconds, written as a Prometheus duration (`5m`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis(pub i64);

/// A number of bytes, written as `20MiB`, `1GB` or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A value, or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrOff<T> {
    /// The value.
    On(T),
    /// Turned off.
    Off,
}

/// An address to listen on, `host:port`, or `off`.
pub type Address = OrOff<String>;

// === impl Millis ===

impl Millis {
    /// As the standard library's type; negative is zero.
    #[must_use]
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.max(0).unsigned_abs())
    }
}

impl FromStr for Millis {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        model::duration::parse_ms(text)
            .map(Millis)
            .map_err(|e| e.to_string())
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&model::duration::format_ms(self.0))
    }
}

// === impl Bytes ===

/// Units from the longest spelling, so that a suffix is found whole.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(unit, n)| Some((trimmed.strip_suffix(unit)?.trim_end(), *n)))
            .unwrap_or((trimmed, 1));
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(unit))
            .map(Bytes)
            .ok_or_else(|| {
                format!("{text:?} is not a size; write a number with a unit (kB, MB, GB, KiB, MiB, GiB), as in 20MiB")
            })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS[..4]
            .iter()
            .find(|(_, n)| self.0 > 0 && self.0.is_multiple_of(*n));
        match binary {
            Some((unit, n)) => write!(f, "{}{unit}", self.0 / n),
            None => write!(f, "{}", self.0),
        }
    }
}

// === impl OrOff ===

impl<T> OrOff<T> {
    /// The value, unless it is off.
    pub fn as_option(&self) -> Option<&T> {
        match self {
            OrOff::On(value) => Some(value),
            OrOff::Off => None,
        }
    }
}

impl<T: FromStr> FromStr for OrOff<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "off" {
            Ok(OrOff::Off)
        } else {
            text.parse().map(OrOff::On)
        }
    }
}

impl<T: fmt::Display> fmt::Display for OrOff<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrOff::On(value) => value.fmt(f),
            OrOff::Off => f.write_str("off"),
        }
    }
}

/// Text, a number or a truth value (`off` is one in YAML 1.1), as text.
struct Written(String);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text such as 5m, 20MiB, 127.0.0.1:4317 or off")
            }
            fn visit_str<E>(self, text: &str) -> Result<Written, E> {
                Ok(Written(text.to_owned()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Written, E> {
                Ok(Written(number.to_string()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Written, E> {
                Ok(Written(number.to_string()))
            }
            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<Written, E> {
                if on {
                    Err(E::invalid_value(serde::de::Unexpected::Bool(on), &self))
                } else {
                    Ok(Written("off".to_owned()))
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let Written(text) = Written::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Millis);
as_text!(Bytes);
as_text!(OrOff<Millis>);
as_text!(OrOff<Bytes>);
as_text!(OrOff<String>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("20MiB", 20 << 20),
            ("1 GB", 1_000_000_000),
            ("7", 7),
            ("3B", 3),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "MiB", "1.5GB", "-1", "99999999999TiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert_eq!(Bytes(20 << 20).to_string(), "20MiB");
        assert_eq!(Bytes(7).to_string(), "7");
    }

    #[test]
    fn off_is_off() {
        assert_eq!("off".parse(), Ok(OrOff::<Millis>::Off));
        assert_eq!("5m".parse(), Ok(OrOff::On(Millis(300_000))));
        assert_eq!(OrOff::On(Millis(300_000)).to_string(), "5m");
    }
}
