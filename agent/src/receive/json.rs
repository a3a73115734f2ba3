//! OTLP/JSON rewritten as OTLP protobuf, so that there is one walk over one format.
//!
//! Owns the tables of the JSON names. The rewrite streams: no tree of values is built. Must not know what the fields
//! mean. Specification: OTLP "JSON Protobuf Encoding" (ids in hex, 64-bit integers as text or number, unknown fields
//! ignored).

use std::fmt;

use base64::Engine as _;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use model::protobuf::{put_bytes, put_fixed32, put_fixed64, put_number, put_zigzag};

/// Which request a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `ExportTraceServiceRequest`.
    Traces,
    /// `ExportMetricsServiceRequest`.
    Metrics,
    /// `ExportLogsServiceRequest`.
    Logs,
}

/// How a field is written.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Hex,
    Base64,
    Bool,
    Varint,
    Zigzag,
    Fixed64,
    Fixed32,
    Double,
    Message(&'static Message),
}

/// A message's fields: the name in lowerCamelCase, the number, how it is written. A repeated field is not marked: a
/// JSON array is one.
#[derive(Debug)]
struct Message(&'static [(&'static str, u32, Kind)]);

use Kind::{Base64, Bool, Double, Fixed32, Fixed64, Hex, Text, Varint, Zigzag};

macro_rules! message {
    ($name:ident { $($json:literal = $number:literal $kind:expr),* $(,)? }) => {
        static $name: Message = Message(&[$(($json, $number, $kind)),*]);
    };
}

message!(TRACES { "resourceSpans" = 1 Kind::Message(&RESOURCE_SPANS) });
message!(METRICS { "resourceMetrics" = 1 Kind::Message(&RESOURCE_METRICS) });
message!(LOGS { "resourceLogs" = 1 Kind::Message(&RESOURCE_LOGS) });
message!(RESOURCE_SPANS {
    "resource" = 1 Kind::Message(&RESOURCE), "scopeSpans" = 2 Kind::Message(&SCOPE_SPANS), "schemaUrl" = 3 Text,
});
message!(RESOURCE_METRICS {
    "resource" = 1 Kind::Message(&RESOURCE), "scopeMetrics" = 2 Kind::Message(&SCOPE_METRICS), "schemaUrl" = 3 Text,
});
message!(RESOURCE_LOGS {
    "resource" = 1 Kind::Message(&RESOURCE), "scopeLogs" = 2 Kind::Message(&SCOPE_LOGS), "schemaUrl" = 3 Text,
});
message!(RESOURCE { "attributes" = 1 Kind::Message(&KEY_VALUE), "droppedAttributesCount" = 2 Varint });
message!(SCOPE {
    "name" = 1 Text, "version" = 2 Text, "attributes" = 3 Kind::Message(&KEY_VALUE),
    "droppedAttributesCount" = 4 Varint,
});
message!(KEY_VALUE { "key" = 1 Text, "value" = 2 Kind::Message(&ANY_VALUE) });
message!(ANY_VALUE {
    "stringValue" = 1 Text, "boolValue" = 2 Bool, "intValue" = 3 Varint, "doubleValue" = 4 Double,
    "arrayValue" = 5 Kind::Message(&ARRAY_VALUE), "kvlistValue" = 6 Kind::Message(&KEY_VALUES),
    "bytesValue" = 7 Base64,
});
message!(ARRAY_VALUE { "values" = 1 Kind::Message(&ANY_VALUE) });
message!(KEY_VALUES { "values" = 1 Kind::Message(&KEY_VALUE) });
message!(SCOPE_SPANS {
    "scope" = 1 Kind::Message(&SCOPE), "spans" = 2 Kind::Message(&SPAN), "schemaUrl" = 3 Text,
});
message!(SPAN {
    "traceId" = 1 Hex, "spanId" = 2 Hex, "traceState" = 3 Text, "parentSpanId" = 4 Hex, "name" = 5 Text,
    "kind" = 6 Varint, "startTimeUnixNano" = 7 Fixed64, "endTimeUnixNano" = 8 Fixed64,
    "attributes" = 9 Kind::Message(&KEY_VALUE), "droppedAttributesCount" = 10 Varint,
    "events" = 11 Kind::Message(&EVENT), "droppedEventsCount" = 12 Varint, "links" = 13 Kind::Message(&LINK),
    "droppedLinksCount" = 14 Varint, "status" = 15 Kind::Message(&STATUS), "flags" = 16 Fixed32,
});
message!(EVENT {
    "timeUnixNano" = 1 Fixed64, "name" = 2 Text, "attributes" = 3 Kind::Message(&KEY_VALUE),
    "droppedAttributesCount" = 4 Varint,
});
message!(LINK {
    "traceId" = 1 Hex, "spanId" = 2 Hex, "traceState" = 3 Text, "attributes" = 4 Kind::Message(&KEY_VALUE),
    "droppedAttributesCount" = 5 Varint, "flags" = 6 Fixed32,
});
message!(STATUS { "message" = 2 Text, "code" = 3 Varint });
message!(SCOPE_LOGS {
    "scope" = 1 Kind::Message(&SCOPE), "logRecords" = 2 Kind::Message(&LOG_RECORD), "schemaUrl" = 3 Text,
});
message!(LOG_RECORD {
    "timeUnixNano" = 1 Fixed64, "severityNumber" = 2 Varint, "severityText" = 3 Text,
    "body" = 5 Kind::Message(&ANY_VALUE), "attributes" = 6 Kind::Message(&KEY_VALUE),
    "droppedAttributesCount" = 7 Varint, "flags" = 8 Fixed32, "traceId" = 9 Hex, "spanId" = 10 Hex,
    "observedTimeUnixNano" = 11 Fixed64, "eventName" = 12 Text,
});
message!(SCOPE_METRICS {
    "scope" = 1 Kind::Message(&SCOPE), "metrics" = 2 Kind::Message(&METRIC), "schemaUrl" = 3 Text,
});
message!(METRIC {
    "name" = 1 Text, "description" = 2 Text, "unit" = 3 Text, "gauge" = 5 Kind::Message(&NUMBERS),
    "sum" = 7 Kind::Message(&NUMBERS), "histogram" = 9 Kind::Message(&HISTOGRAM),
    "exponentialHistogram" = 10 Kind::Message(&EXPONENTIAL), "summary" = 11 Kind::Message(&SUMMARY),
    "metadata" = 12 Kind::Message(&KEY_VALUE),
});
message!(NUMBERS {
    "dataPoints" = 1 Kind::Message(&NUMBER_POINT), "aggregationTemporality" = 2 Varint, "isMonotonic" = 3 Bool,
});
message!(HISTOGRAM {
    "dataPoints" = 1 Kind::Message(&HISTOGRAM_POINT), "aggregationTemporality" = 2 Varint,
});
message!(EXPONENTIAL {
    "dataPoints" = 1 Kind::Message(&EXPONENTIAL_POINT), "aggregationTemporality" = 2 Varint,
});
message!(SUMMARY { "dataPoints" = 1 Kind::Message(&SUMMARY_POINT) });
message!(NUMBER_POINT {
    "startTimeUnixNano" = 2 Fixed64, "timeUnixNano" = 3 Fixed64, "asDouble" = 4 Double,
    "exemplars" = 5 Kind::Message(&EXEMPLAR), "asInt" = 6 Fixed64, "attributes" = 7 Kind::Message(&KEY_VALUE),
    "flags" = 8 Varint,
});
message!(HISTOGRAM_POINT {
    "startTimeUnixNano" = 2 Fixed64, "timeUnixNano" = 3 Fixed64, "count" = 4 Fixed64, "sum" = 5 Double,
    "bucketCounts" = 6 Fixed64, "explicitBounds" = 7 Double, "exemplars" = 8 Kind::Message(&EXEMPLAR),
    "attributes" = 9 Kind::Message(&KEY_VALUE), "flags" = 10 Varint, "min" = 11 Double, "max" = 12 Double,
});
message!(EXPONENTIAL_POINT {
    "attributes" = 1 Kind::Message(&KEY_VALUE), "startTimeUnixNano" = 2 Fixed64, "timeUnixNano" = 3 Fixed64,
    "count" = 4 Fixed64, "sum" = 5 Double, "scale" = 6 Zigzag, "zeroCount" = 7 Fixed64,
    "positive" = 8 Kind::Message(&BUCKETS), "negative" = 9 Kind::Message(&BUCKETS), "flags" = 10 Varint,
    "exemplars" = 11 Kind::Message(&EXEMPLAR), "min" = 12 Double, "max" = 13 Double, "zeroThreshold" = 14 Double,
});
message!(BUCKETS { "offset" = 1 Zigzag, "bucketCounts" = 2 Varint });
message!(SUMMARY_POINT {
    "startTimeUnixNano" = 2 Fixed64, "timeUnixNano" = 3 Fixed64, "count" = 4 Fixed64, "sum" = 5 Double,
    "quantileValues" = 6 Kind::Message(&QUANTILE), "attributes" = 7 Kind::Message(&KEY_VALUE), "flags" = 8 Varint,
});
message!(QUANTILE { "quantile" = 1 Double, "value" = 2 Double });
message!(EXEMPLAR {
    "timeUnixNano" = 2 Fixed64, "asDouble" = 3 Double, "spanId" = 4 Hex, "traceId" = 5 Hex, "asInt" = 6 Fixed64,
    "filteredAttributes" = 7 Kind::Message(&KEY_VALUE),
});

/// Rewrites a JSON request as protobuf. The error is a sentence with line and column.
pub fn to_protobuf(signal: Signal, json: &[u8]) -> Result<Vec<u8>, String> {
    let message = match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    };
    let mut out = Vec::with_capacity(json.len() / 2);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer
        .deserialize_map(Fields {
            message,
            out: &mut out,
        })
        .and_then(|()| deserializer.end())
        .map_err(|e| e.to_string())?;
    Ok(out)
}

/// Writes the fields of a JSON object.
struct Fields<'o> {
    message: &'static Message,
    out: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let field = self
                .message
                .0
                .iter()
                .find(|(json, ..)| is_name(json, &name));
            match field {
                Some((_, number, kind)) => map.next_value_seed(One {
                    number: *number,
                    kind: *kind,
                    out: self.out,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Whether `name` is the field's lowerCamelCase or its original snake_case name.
fn is_name(camel: &str, name: &str) -> bool {
    if !name.contains('_') {
        return camel == name;
    }
    let mut snake = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake == name
}

/// Writes one value, or each of an array.
struct One<'o> {
    number: u32,
    kind: Kind,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl One<'_> {
    fn integer<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match self.kind {
            Varint | Bool => put_number(self.out, self.number, value.cast_unsigned()),
            Zigzag => put_zigzag(self.out, self.number, value),
            Fixed64 => put_fixed64(self.out, self.number, value.cast_unsigned()),
            Fixed32 => put_fixed32(self.out, self.number, value as u32),
            Double => put_fixed64(self.out, self.number, (value as f64).to_bits()),
            _ => return Err(E::custom("a number where text or an object belongs")),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of kind {}", kind_name(self.kind))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self.kind {
            Bool => put_number(self.out, self.number, u64::from(value)),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.integer(value.cast_signed())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match self.kind {
            Double => put_fixed64(self.out, self.number, value.to_bits()),
            _ if value.fract() == 0.0 && value.abs() < 9e15 => return self.integer(value as i64),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)),
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let kind = self.kind;
        let invalid = || E::custom(format!("{text:?} is not {}", kind_name(kind)));
        match kind {
            Text => put_bytes(self.out, self.number, text.as_bytes()),
            Hex => put_bytes(self.out, self.number, &unhex(text).ok_or_else(invalid)?),
            Base64 => {
                let engine = base64::engine::general_purpose::STANDARD;
                let bytes = engine.decode(text).map_err(|_| invalid())?;
                put_bytes(self.out, self.number, &bytes);
            }
            Double => {
                let value = match text {
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    other => other.parse().map_err(|_| invalid())?,
                };
                put_fixed64(self.out, self.number, value.to_bits());
            }
            Bool | Kind::Message(_) => return Err(invalid()),
            Varint | Zigzag | Fixed64 | Fixed32 => {
                let signed = text.parse::<i64>().ok();
                let either = signed.or_else(|| text.parse::<u64>().ok().map(u64::cast_signed));
                return self.integer(either.ok_or_else(invalid)?);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(One {
                number: self.number,
                kind: self.kind,
                out: &mut *self.out,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Kind::Message(message) = self.kind else {
            return Err(serde::de::Error::invalid_type(
                serde::de::Unexpected::Map,
                &self,
            ));
        };
        let mut inner = Vec::new();
        Fields {
            message,
            out: &mut inner,
        }
        .visit_map(map)?;
        put_bytes(self.out, self.number, &inner);
        Ok(())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Text => "text",
        Hex => "hex",
        Base64 => "base64",
        Bool => "a truth value",
        Varint | Zigzag | Fixed64 | Fixed32 => "an integer",
        Double => "a number",
        Kind::Message(_) => "an object",
    }
}
