//! Spans and traces as values, after the OpenTelemetry trace data model.
//!
//! Owns ids, the span, and the trace summary. Must not know OTLP's bytes nor where spans are kept.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A 16-byte trace id, W3C `trace-id`; all zero is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TraceId(pub [u8; 16]);

/// An 8-byte span id, W3C `parent-id`; all zero means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SpanId(pub [u8; 8]);

macro_rules! hex_id {
    ($name:ident, $bytes:literal) => {
        impl $name {
            /// Reads lower- or upper-case hex of the exact length.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let digits = text.as_bytes();
                if digits.len() != $bytes * 2 {
                    return None;
                }
                let mut id = [0u8; $bytes];
                for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
                    let high = char::from(pair[0]).to_digit(16)?;
                    let low = char::from(pair[1]).to_digit(16)?;
                    *byte = u8::try_from(high * 16 + low).ok()?;
                }
                Some($name(id))
            }

            /// Whether every byte is zero.
            #[must_use]
            pub fn is_zero(&self) -> bool {
                self.0.iter().all(|b| *b == 0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                if text.is_empty() {
                    return Ok($name::default());
                }
                $name::from_hex(&text).ok_or_else(|| {
                    serde::de::Error::custom(format!("{text:?} is not {} hex digits", $bytes * 2))
                })
            }
        }
    };
}

hex_id!(TraceId, 16);
hex_id!(SpanId, 8);

/// What a span stands for in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanKind {
    /// Not stated.
    #[default]
    Unspecified,
    /// Work inside a service.
    Internal,
    /// Serves a call.
    Server,
    /// Makes a call.
    Client,
    /// Sends a message.
    Producer,
    /// Handles a message.
    Consumer,
}

impl SpanKind {
    /// From OTLP's number; what is unknown is unspecified.
    #[must_use]
    pub fn from_otlp(number: u64) -> Self {
        match number {
            1 => SpanKind::Internal,
            2 => SpanKind::Server,
            3 => SpanKind::Client,
            4 => SpanKind::Producer,
            5 => SpanKind::Consumer,
            _ => SpanKind::Unspecified,
        }
    }

    /// As the span metrics' `span_kind` label has it.
    #[must_use]
    pub fn as_otel(&self) -> &'static str {
        match self {
            SpanKind::Unspecified => "SPAN_KIND_UNSPECIFIED",
            SpanKind::Internal => "SPAN_KIND_INTERNAL",
            SpanKind::Server => "SPAN_KIND_SERVER",
            SpanKind::Client => "SPAN_KIND_CLIENT",
            SpanKind::Producer => "SPAN_KIND_PRODUCER",
            SpanKind::Consumer => "SPAN_KIND_CONSUMER",
        }
    }
}

/// How a span ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanStatus {
    /// Not stated.
    #[default]
    Unset,
    /// Stated to be good.
    Ok,
    /// Failed.
    Error,
}

/// One attribute; the value as text (arrays and maps as JSON).
pub type Attribute = (String, String);

/// An event on a span, such as an exception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanEvent {
    /// When, Unix nanoseconds.
    pub time_ns: u64,
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
}

/// A link to a span of this or another trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanLink {
    /// The other trace.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
}

/// One span.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Span {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// Its parent; zero for a root.
    pub parent_id: SpanId,
    /// `service.name` of its resource.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// Start, Unix nanoseconds.
    pub start_ns: u64,
    /// End, Unix nanoseconds.
    pub end_ns: u64,
    /// How it ended.
    pub status: SpanStatus,
    /// The status' message.
    pub status_message: String,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Attributes of its resource (service.name included).
    pub resource: Vec<Attribute>,
    /// Its events.
    pub events: Vec<SpanEvent>,
    /// Its links.
    pub links: Vec<SpanLink>,
}

impl Span {
    /// Length in nanoseconds; 0 when it ends before it starts.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }
}

/// One line of a list of traces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TraceSummary {
    /// The trace.
    pub trace_id: TraceId,
    /// Service of the root span (or of the earliest one when the root is missing).
    pub root_service: String,
    /// Name of the root span.
    pub root_name: String,
    /// Start, Unix nanoseconds.
    pub start_ns: u64,
    /// From the first start to the last end, nanoseconds.
    pub duration_ns: u64,
    /// Spans seen.
    pub spans: u32,
    /// Spans with status error.
    pub errors: u32,
    /// Services seen, ascending.
    pub services: Vec<String>,
    /// `http.response.status_code` of the root, or 0.
    pub status_code: u16,
    /// `http.route` of the root, or empty.
    pub route: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_as_hex() {
        let text = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(TraceId::from_hex(text).unwrap().to_string(), text);
        assert_eq!(
            SpanId::from_hex("00F067AA0BA902B7").unwrap().to_string(),
            "00f067aa0ba902b7"
        );
        for bad in [
            "",
            "4bf9",
            "4bf92f3577b34da6a3ce929d0e0e473g",
            "4bf92f3577b34da6a3ce929d0e0e47é",
        ] {
            assert_eq!(TraceId::from_hex(bad), None, "{bad}");
        }
    }
}
