//! Values that a template computes with.
//!
//! Owns truth, printing and field access. Must not know syntax.

use std::collections::BTreeMap;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Str(String),
    /// A list.
    List(Vec<Value>),
    /// A map; a key that it lacks is the empty text.
    Map(BTreeMap<String, Value>),
    /// A value with fixed fields; another field is an error.
    Struct(BTreeMap<String, Value>),
}

// === impl Value ===

impl Value {
    /// Go's idea of truth: not the zero value of its type.
    #[must_use]
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::Str(s) => !s.is_empty(),
            Value::List(l) => !l.is_empty(),
            Value::Map(m) => !m.is_empty(),
            Value::Struct(_) => true,
        }
    }

    /// The number that Prometheus' functions make of it: numbers as they are, texts parsed.
    #[must_use]
    pub fn to_number(&self) -> Option<f64> {
        match self {
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            Value::Str(s) => model::api::parse_float(s),
            _ => None,
        }
    }

    /// The type's name for error messages.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Str(_) => "string",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Struct(_) => "struct",
        }
    }

    /// As Go's `%v` prints it.
    #[must_use]
    pub fn print(&self) -> String {
        match self {
            Value::Nil => "<no value>".into(),
            Value::Bool(b) => b.to_string(),
            Value::Int(i) => i.to_string(),
            Value::Float(f) => super::printf::general(*f, None),
            Value::Str(s) => s.clone(),
            Value::List(l) => {
                let items: Vec<String> = l.iter().map(Value::print).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Map(m) => {
                let items: Vec<String> = m
                    .iter()
                    .map(|(k, v)| format!("{k}:{}", v.print()))
                    .collect();
                format!("map[{}]", items.join(" "))
            }
            Value::Struct(m) => {
                let items: Vec<String> = m.values().map(Value::print).collect();
                format!("{{{}}}", items.join(" "))
            }
        }
    }

    /// The field or key `name`.
    pub(super) fn field(&self, name: &str) -> Result<Value, String> {
        match self {
            Value::Map(m) => Ok(m.get(name).cloned().unwrap_or(Value::Str(String::new()))),
            Value::Struct(m) => m
                .get(name)
                .cloned()
                .ok_or_else(|| format!("can't evaluate field {name} in a value of this type")),
            Value::Nil => Err(format!("nil data; no entry for key {name:?}")),
            other => Err(format!(
                "can't evaluate field {name} in type {}",
                other.type_name()
            )),
        }
    }
}
