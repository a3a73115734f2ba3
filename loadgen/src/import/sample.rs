//! Owns a value for a JSON schema as OpenAPI 3.0 and 3.1 write it: its example, its default, or the simplest that fits.
//! Must not know paths or operations. Bounded: references, depth and length.

use serde_json::{Map, Value, json};

/// Nested schemas deeper than this are null.
const MAX_DEPTH: usize = 8;
/// Items and characters that a lower bound can ask for.
const MAX_LENGTH: u64 = 200;
/// Values in one sample.
const MAX_VALUES: usize = 2000;

/// Finds what `$ref` names.
pub(super) struct Lookup<'a> {
    pub(super) root: &'a Value,
}

impl<'a> Lookup<'a> {
    /// The value itself, or what it refers to within the document (`#/...`), through at most 20 references.
    pub(super) fn follow(&self, mut value: &'a Value) -> Option<&'a Value> {
        for _ in 0..20 {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
                return Some(value);
            };
            let pointer = reference.strip_prefix('#')?;
            let decoded = percent_decoded(pointer);
            value = self.root.pointer(&decoded)?;
        }
        None
    }

    /// A value for this schema.
    pub(super) fn sample(&self, schema: &'a Value) -> Value {
        let mut left = MAX_VALUES;
        self.value(schema, 0, &mut left)
    }

    fn value(&self, schema: &'a Value, depth: usize, left: &mut usize) -> Value {
        let Some(schema) = self
            .follow(schema)
            .filter(|_| depth <= MAX_DEPTH && *left > 0)
        else {
            return Value::Null;
        };
        *left -= 1;
        if let Some(given) = given(schema) {
            return given;
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            let own = self.typed(schema, depth, left);
            let mut whole = own.as_object().cloned().unwrap_or_default();
            let mut last = Value::Null;
            for part in parts.iter().take(50) {
                match self.value(part, depth + 1, left) {
                    Value::Object(map) => whole.extend(map),
                    Value::Null => {}
                    other => last = other,
                }
            }
            return match whole.is_empty() && !last.is_null() {
                true => last,
                false => Value::Object(whole),
            };
        }
        for one in ["oneOf", "anyOf"] {
            let choices = schema.get(one).and_then(Value::as_array);
            let is_null = |v: &&Value| v.get("type") == Some(&json!("null"));
            if let Some(choice) = choices.and_then(|all| all.iter().find(|v| !is_null(v))) {
                return self.value(choice, depth + 1, left);
            }
        }
        self.typed(schema, depth, left)
    }

    fn typed(&self, schema: &'a Value, depth: usize, left: &mut usize) -> Value {
        let named = match schema.get("type") {
            Some(Value::String(name)) => Some(name.as_str()),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                names.into_iter().find(|name| *name != "null")
            }
            _ => None,
        };
        match named {
            Some("string") => {
                let text = string(schema);
                *left = left.saturating_sub(text.len() / 20);
                Value::String(text)
            }
            Some("integer") => json!(number(schema, true) as i64),
            Some("number") => json!(number(schema, false)),
            Some("boolean") => Value::Bool(true),
            Some("null") => Value::Null,
            Some("array") => self.array(schema, depth, left),
            Some("object") => self.object(schema, depth, left),
            _ if schema.get("properties").is_some() => self.object(schema, depth, left),
            _ if schema.get("items").is_some() => self.array(schema, depth, left),
            Some(_) | None => match schema.get("allOf").is_some() {
                true => Value::Null,
                false => json!("text"),
            },
        }
    }

    fn array(&self, schema: &'a Value, depth: usize, left: &mut usize) -> Value {
        let least = whole(schema, "minItems").unwrap_or(1).clamp(1, MAX_LENGTH);
        let Some(items) = schema.get("items") else {
            return Value::Array(Vec::new());
        };
        let mut all = Vec::new();
        while (all.len() as u64) < least && *left > 0 {
            all.push(self.value(items, depth + 1, left));
        }
        Value::Array(all)
    }

    /// Required properties; near the top also the others. What only answers hold is left out.
    fn object(&self, schema: &'a Value, depth: usize, left: &mut usize) -> Value {
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|r| r == name));
        let mut map = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let Some(resolved) = self.follow(property) else {
                continue;
            };
            let answers_only = resolved.get("readOnly") == Some(&Value::Bool(true));
            if answers_only || *left == 0 || !(depth < 3 || is_required(name)) {
                continue;
            }
            map.insert(name.clone(), self.value(property, depth + 1, left));
        }
        Value::Object(map)
    }
}

/// A value that the schema states.
fn given(schema: &Value) -> Option<Value> {
    let first = |key: &str| schema.get(key).and_then(Value::as_array)?.first().cloned();
    let stated = |key: &str| schema.get(key).cloned();
    stated("example")
        .or_else(|| first("examples"))
        .or_else(|| stated("const"))
        .or_else(|| stated("default"))
        .or_else(|| first("enum"))
}

fn whole(schema: &Value, key: &str) -> Option<u64> {
    schema.get(key).and_then(Value::as_u64)
}

fn string(schema: &Value) -> String {
    let format = schema.get("format").and_then(Value::as_str);
    let text = match format.unwrap_or_default() {
        "date-time" => "2026-01-31T12:00:00Z",
        "date" => "2026-01-31",
        "time" => "12:00:00Z",
        "duration" => "PT1H",
        "uuid" => "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "email" => "user@example.com",
        "hostname" => "example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uri" | "url" => "https://example.com/",
        "byte" => "dGV4dA==",
        "password" => "correct-horse",
        _ => "text",
    };
    let mut text = text.to_owned();
    let least = whole(schema, "minLength").unwrap_or(0).min(MAX_LENGTH) as usize;
    while text.len() < least {
        text.push('x');
    }
    if let Some(most) = whole(schema, "maxLength").filter(|most| (*most as usize) < text.len()) {
        text.truncate(most as usize);
    }
    text
}

/// The least number from 1 on that the bounds allow.
fn number(schema: &Value, integer: bool) -> f64 {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let step = bound("multipleOf").filter(|s| *s > 0.0);
    let unit = step.unwrap_or(if integer { 1.0 } else { 0.1 });
    let exclusive = |key: &str, closed: &str| match schema.get(key) {
        // In 3.0 a boolean that changes the bound, in 3.1 the bound itself.
        Some(Value::Bool(true)) => bound(closed),
        Some(other) => other.as_f64(),
        None => None,
    };
    let mut value = bound("minimum").unwrap_or(1.0);
    let above = exclusive("exclusiveMinimum", "minimum");
    if let Some(above) = above {
        value = value.max(if step.is_some() { above } else { above + unit });
    }
    if let Some(most) = bound("maximum") {
        value = value.min(most);
    }
    if let Some(below) = exclusive("exclusiveMaximum", "maximum") {
        value = value.min(below - unit);
    }
    if let Some(step) = step {
        value = (value / step).ceil() * step;
        if above.is_some_and(|above| value <= above) {
            value += step;
        }
    }
    if integer { value.ceil() } else { value }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code.filter(|_| bytes[at] == b'%') {
            Some(code) => {
                out.push(code);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(schema: Value) -> Value {
        let root = json!({"schemas": {"a b": schema, "loop": {"type": "object", "required": ["next"], "properties":
            {"next": {"$ref": "#/schemas/loop"}}}}});
        Lookup { root: &root }.sample(&root["schemas"]["a b"])
    }

    #[test]
    fn values_fit_their_schema() {
        let cases = [
            (json!({"type": "string", "example": "e"}), json!("e")),
            (json!({"type": "string", "examples": ["f"]}), json!("f")),
            (json!({"type": ["null", "integer"], "minimum": 7}), json!(7)),
            (
                json!({"type": "integer", "minimum": 7, "exclusiveMinimum": true}),
                json!(8),
            ),
            (
                json!({"type": "integer", "exclusiveMinimum": 7, "multipleOf": 5}),
                json!(10),
            ),
            (json!({"type": "integer", "maximum": -3}), json!(-3)),
            (json!({"type": "number", "exclusiveMaximum": 1}), json!(0.9)),
            (json!({"enum": ["x", "y"]}), json!("x")),
            (json!({"type": "string", "minLength": 6}), json!("textxx")),
            (
                json!({"type": "string", "format": "uuid", "maxLength": 4}),
                json!("3f25"),
            ),
            (
                json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2}),
                json!([true, true]),
            ),
            (
                json!({"oneOf": [{"type": "null"}, {"type": "integer"}]}),
                json!(1),
            ),
            (
                json!({"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"const": 2}}}]}),
                json!({"a": 1, "b": 2}),
            ),
            (
                json!({"type": "object", "properties": {"id": {"type": "integer", "readOnly": true}, "n": {"type": "string"}}}),
                json!({"n": "text"}),
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(sample(schema.clone()), expected, "{schema}");
        }
    }

    #[test]
    fn loops_and_huge_bounds_end() {
        let looped = sample(json!({"$ref": "#/schemas/loop"}));
        assert!(looped["next"]["next"].is_object());
        let wide = json!({"type": "array", "minItems": 4_000_000_000_u64, "items": {"type": "array", "minItems": 9999,
            "items": {"type": "integer"}}});
        assert!(serde_json::to_string(&sample(wide)).unwrap().len() < 100_000);
        assert_eq!(sample(json!({"$ref": "#/schemas/a%20b"})), Value::Null);
        assert_eq!(sample(json!({"$ref": "other.yaml#/x"})), Value::Null);
    }
}
