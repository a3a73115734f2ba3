//! Owns reading one map of a script: which keys it may have, what type each value is, and the message when not.
//! Must not know which keys there are.

use std::time::Duration;

use model::spelling::nearest;
use serde_json::Value;

use super::mistake::Mistake;
use super::tree::{Key, Kind, Node};

pub(crate) type Read<T> = Result<T, Mistake>;

/// A map being read, and what it is.
pub(crate) struct Fields<'a> {
    pub(crate) node: &'a Node,
    what: &'static str,
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// Fails when the node is no map.
    pub(crate) fn of(node: &'a Node, what: &'static str) -> Read<Fields<'a>> {
        match &node.kind {
            Kind::Map(entries) => Ok(Fields {
                node,
                what,
                entries,
            }),
            _ => Err(Mistake::at(
                &node.place,
                format!("{what} is {}; expected a map of keys", node.what()),
            )),
        }
    }

    /// Every key must be known; those of `refused` are known and say why they are not supported.
    pub(crate) fn allow(&self, known: &[&str], refused: &[(&str, &str)]) -> Read<()> {
        for (key, _) in self.entries {
            let name = key.text.as_str();
            if let Some((_, why)) = refused.iter().find(|(k, _)| *k == name) {
                return Err(
                    Mistake::at(&key.place, format!("{name:?} is not supported")).hint(*why),
                );
            }
            if known.contains(&name) {
                continue;
            }
            let all = known.join(", ");
            let hint = match nearest(name, known.iter().copied()) {
                Some(guess) => format!("did you mean {guess:?}? (known: {all})"),
                None => format!("known keys: {all}"),
            };
            let message = format!("unknown key {name:?} in {}", self.what);
            return Err(Mistake::at(&key.place, message).hint(hint));
        }
        Ok(())
    }

    /// The value of a key; none when it is missing or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Node> {
        let (_, value) = self.entries.iter().find(|(k, _)| k.text == key)?;
        (!matches!(value.kind, Kind::Scalar(Value::Null))).then_some(value)
    }

    /// The value of a key that must be there.
    pub(crate) fn need(&self, key: &str) -> Read<&'a Node> {
        self.get(key).ok_or_else(|| {
            Mistake::at(
                &self.node.place,
                format!("{} has no {key:?}, which it needs", self.what),
            )
        })
    }

    /// Keys and values in order.
    pub(crate) fn entries(&self) -> &'a [(Key, Node)] {
        self.entries
    }
}

fn wrong<T>(node: &Node, key: &str, expected: &str) -> Read<T> {
    let message = format!("{key} is {}; expected {expected}", node.what());
    Err(Mistake::at(&node.place, message))
}

/// A text; numbers and booleans are taken as written.
pub(crate) fn text(node: &Node, key: &str) -> Read<String> {
    match &node.kind {
        Kind::Scalar(Value::String(s)) => Ok(s.clone()),
        Kind::Scalar(v @ (Value::Number(_) | Value::Bool(_))) => Ok(v.to_string()),
        _ => wrong(node, key, "a text"),
    }
}

/// A number of at least 0, also as text.
pub(crate) fn number(node: &Node, key: &str) -> Read<f64> {
    let n = match &node.kind {
        Kind::Scalar(Value::Number(n)) => n.as_f64(),
        Kind::Scalar(Value::String(s)) => s.trim().parse().ok(),
        _ => None,
    };
    match n {
        Some(n) if n.is_finite() && n >= 0.0 => Ok(n),
        _ => wrong(node, key, "a number of at least 0"),
    }
}

/// A whole number of at least 0, also as text.
pub(crate) fn whole(node: &Node, key: &str) -> Read<u64> {
    match number(node, key) {
        Ok(n) if n.fract() == 0.0 && n < 1e15 => Ok(n as u64),
        _ => wrong(node, key, "a whole number of at least 0"),
    }
}

/// True or false, also as text.
pub(crate) fn truth(node: &Node, key: &str) -> Read<bool> {
    match &node.kind {
        Kind::Scalar(Value::Bool(b)) => Ok(*b),
        Kind::Scalar(Value::String(s)) if s == "true" => Ok(true),
        Kind::Scalar(Value::String(s)) if s == "false" => Ok(false),
        _ => wrong(node, key, "true or false"),
    }
}

/// The items of a list.
pub(crate) fn list<'a>(node: &'a Node, key: &str) -> Read<&'a [Node]> {
    match &node.kind {
        Kind::List(items) => Ok(items),
        _ => wrong(node, key, "a list (each item begins with \"- \")"),
    }
}

/// The items of a list, or the thing itself.
pub(crate) fn one_or_more(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// A map's keys and values, values as they are.
pub(crate) fn pairs(node: &Node, what: &'static str) -> Read<Vec<(String, Value)>> {
    let fields = Fields::of(node, what)?;
    let all = fields.entries().iter();
    Ok(all.map(|(k, v)| (k.text.clone(), v.value())).collect())
}

/// Seconds, or a number with a unit such as "500ms", "2m", "1.5 hours". Above 0.
pub(crate) fn span(node: &Node, key: &str) -> Read<Duration> {
    let found = match &node.kind {
        Kind::Scalar(value) => duration(value),
        _ => None,
    };
    match found {
        Some(d) if !d.is_zero() && d <= Duration::from_secs(86_400 * 366) => Ok(d),
        _ => wrong(
            node,
            key,
            "seconds, or a number with a unit: 500ms, 30s, 2m, 1h, 1d",
        ),
    }
}

/// Seconds as a number or text, or a number with a unit.
pub(crate) fn duration(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(n) => n.as_f64()?,
        Value::String(s) => {
            let s = s.trim();
            let at = s
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(s.len());
            let (number, unit) = s.split_at(at);
            let factor = match unit.trim().to_ascii_lowercase().as_str() {
                "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 0.001,
                "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
                "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
                "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
                "d" | "day" | "days" => 86_400.0,
                "w" | "week" | "weeks" => 604_800.0,
                _ => return None,
            };
            number.parse::<f64>().ok()? * factor
        }
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}
