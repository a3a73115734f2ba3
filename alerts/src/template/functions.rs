//! The functions of templates: Go's built-in ones and Prometheus' own.
//!
//! Owns the list and what each does. Must not know syntax.

use std::collections::BTreeMap;

use model::{QueryData, Value as Sample};

use super::exec::Machine;
use super::humanize;
use super::printf;
use super::value::Value;

const NAMES: [&str; 49] = [
    "and",
    "or",
    "not",
    "len",
    "index",
    "slice",
    "print",
    "println",
    "printf",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "html",
    "js",
    "urlquery",
    "query",
    "first",
    "label",
    "value",
    "strvalue",
    "sortByLabel",
    "args",
    "reReplaceAll",
    "match",
    "safeHtml",
    "title",
    "toUpper",
    "toLower",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "toTime",
    "toDuration",
    "now",
    "parseDuration",
    "stripPort",
    "stripDomain",
    "pathPrefix",
    "externalURL",
    "graphLink",
    "tableLink",
    "urlQueryEscape",
    "call",
    "tmpl",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

type Called = Result<Value, String>;

pub(super) fn call(machine: &mut Machine<'_, '_>, name: &str, a: Vec<Value>) -> Called {
    match name {
        "query" => query(machine, &text(&a, 0)?),
        "externalURL" => Ok(Value::Str(machine.scope.external_url.to_owned())),
        "pathPrefix" => Ok(Value::Str(path_of(machine.scope.external_url))),
        "graphLink" => Ok(Value::Str(link(&text(&a, 0)?, 0))),
        "tableLink" => Ok(Value::Str(link(&text(&a, 0)?, 1))),
        "now" => Ok(Value::Float(machine.scope.now_ms as f64 / 1000.0)),
        _ => pure(name, a),
    }
}

fn pure(name: &str, a: Vec<Value>) -> Called {
    let string = |s: String| Ok(Value::Str(s));
    match name {
        // Operands that decided were returned before the call.
        "and" | "or" => a
            .last()
            .cloned()
            .ok_or_else(|| "wrong number of args".to_owned()),
        "not" => Ok(Value::Bool(!argument(&a, 0)?.is_true())),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, &a),
        "len" => length(argument(&a, 0)?),
        "index" => index(&a),
        "slice" => slice(&a),
        "print" => string(a.iter().map(Value::print).collect()),
        "println" => string(a.iter().map(Value::print).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => string(printf::sprintf(&text(&a, 0)?, &a[1..])),
        "html" | "js" | "urlquery" | "urlQueryEscape" | "safeHtml" | "title" | "toUpper"
        | "toLower" | "stripPort" | "stripDomain" => on_text(name, &text(&a, 0)?),
        "first" => match argument(&a, 0)? {
            Value::List(l) => l
                .first()
                .cloned()
                .ok_or_else(|| "first() called on vector with no elements".to_owned()),
            other => Err(format!("not a vector but {}", other.type_name())),
        },
        "label" => {
            let labels = argument(&a, 1)?.field("Labels")?;
            labels.field(&text(&a, 0)?)
        }
        "value" => argument(&a, 0)?.field("Value"),
        "strvalue" => argument(&a, 0)?.field("Labels")?.field("__value__"),
        "sortByLabel" => sort_by_label(&text(&a, 0)?, argument(&a, 1)?),
        "args" => Ok(Value::Map(
            a.into_iter()
                .enumerate()
                .map(|(i, v)| (format!("arg{i}"), v))
                .collect::<BTreeMap<_, _>>(),
        )),
        "reReplaceAll" => {
            let with = text(&a, 1)?;
            string(
                regex(&text(&a, 0)?)?
                    .replace_all(&text(&a, 2)?, with)
                    .into_owned(),
            )
        }
        "match" => Ok(Value::Bool(regex(&text(&a, 0)?)?.is_match(&text(&a, 1)?))),
        "humanize" => string(humanize::humanize(number(&a)?)),
        "humanize1024" => string(humanize::humanize_1024(number(&a)?)),
        "humanizeDuration" => string(humanize::humanize_duration(number(&a)?)),
        "humanizePercentage" => string(humanize::humanize_percentage(number(&a)?)),
        "humanizeTimestamp" | "toTime" => string(humanize::humanize_timestamp(number(&a)?)),
        "toDuration" => string(model::duration::format_ms((number(&a)? * 1000.0) as i64)),
        "parseDuration" => {
            let ms = model::duration::parse_ms(&text(&a, 0)?).map_err(|e| e.to_string())?;
            Ok(Value::Float(ms as f64 / 1000.0))
        }
        other => Err(format!("{other} is not supported here")),
    }
}

fn argument(a: &[Value], at: usize) -> Result<&Value, String> {
    a.get(at).ok_or_else(|| {
        format!(
            "wrong number of args: want at least {}, got {}",
            at + 1,
            a.len()
        )
    })
}

fn text(a: &[Value], at: usize) -> Result<String, String> {
    match argument(a, at)? {
        Value::Str(s) => Ok(s.clone()),
        other => Err(format!(
            "wrong type for value; expected string; got {}",
            other.type_name()
        )),
    }
}

fn number(a: &[Value]) -> Result<f64, String> {
    let value = argument(a, 0)?;
    value.to_number().ok_or_else(|| {
        format!(
            "can't convert {} {:?} to float",
            value.type_name(),
            value.print()
        )
    })
}

fn regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|_| format!("{pattern:?} is not a regular expression"))
}

fn compare(name: &str, a: &[Value]) -> Called {
    let first = argument(a, 0)?;
    argument(a, 1)?;
    if name == "eq" {
        for other in &a[1..] {
            if order(first, other)? == Some(std::cmp::Ordering::Equal) {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    let found = order(first, &a[1])?;
    Ok(Value::Bool(match name {
        "ne" => found != Some(std::cmp::Ordering::Equal),
        "lt" => found.is_some_and(std::cmp::Ordering::is_lt),
        "le" => found.is_some_and(std::cmp::Ordering::is_le),
        "gt" => found.is_some_and(std::cmp::Ordering::is_gt),
        _ => found.is_some_and(std::cmp::Ordering::is_ge),
    }))
}

/// Go refuses to compare an int with a float; here numbers compare, which only accepts more.
fn order(a: &Value, b: &Value) -> Result<Option<std::cmp::Ordering>, String> {
    match (a, b) {
        (Value::Str(x), Value::Str(y)) => Ok(Some(x.cmp(y))),
        (Value::Bool(x), Value::Bool(y)) => Ok(Some(x.cmp(y))),
        (Value::Int(x), Value::Int(y)) => Ok(Some(x.cmp(y))),
        (Value::Nil, Value::Nil) => Ok(Some(std::cmp::Ordering::Equal)),
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            Ok(a.to_number().partial_cmp(&b.to_number()))
        }
        _ => Err(format!(
            "incompatible types for comparison: {} and {}",
            a.type_name(),
            b.type_name()
        )),
    }
}

fn length(value: &Value) -> Called {
    let n = match value {
        Value::Str(s) => s.len(),
        Value::List(l) => l.len(),
        Value::Map(m) => m.len(),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(n as i64))
}

fn index(a: &[Value]) -> Called {
    let mut value = argument(a, 0)?.clone();
    for key in &a[1..] {
        value = match (&value, key) {
            (Value::Map(_), Value::Str(k)) => value.field(k)?,
            (Value::List(l), Value::Int(i)) => usize::try_from(*i)
                .ok()
                .and_then(|i| l.get(i))
                .cloned()
                .ok_or_else(|| format!("index out of range: {i}"))?,
            _ => return Err(format!("can't index item of type {}", value.type_name())),
        };
    }
    Ok(value)
}

fn slice(a: &[Value]) -> Called {
    let bound = |at: usize, otherwise: usize| match a.get(at) {
        None => Ok(otherwise),
        Some(Value::Int(i)) => usize::try_from(*i).map_err(|_| format!("index out of range: {i}")),
        Some(other) => Err(format!("cannot index slice with {}", other.type_name())),
    };
    match argument(a, 0)? {
        Value::Str(s) => s
            .get(bound(1, 0)?..bound(2, s.len())?)
            .map(|s| Value::Str(s.to_owned()))
            .ok_or_else(|| "index out of range".to_owned()),
        Value::List(l) => l
            .get(bound(1, 0)?..bound(2, l.len())?)
            .map(|l| Value::List(l.to_vec()))
            .ok_or_else(|| "index out of range".to_owned()),
        other => Err(format!("can't slice item of type {}", other.type_name())),
    }
}

fn on_text(name: &str, s: &str) -> Called {
    Ok(Value::Str(match name {
        "toUpper" => s.to_uppercase(),
        "toLower" => s.to_lowercase(),
        "title" => title(s),
        "html" => s
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&#34;")
            .replace('\'', "&#39;"),
        "js" => s
            .replace('\\', "\\\\")
            .replace('\'', "\\'")
            .replace('"', "\\\""),
        "urlquery" | "urlQueryEscape" => escape_query(s),
        "stripPort" => match s.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.is_empty() => {
                host.trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned()
            }
            _ => s.to_owned(),
        },
        "stripDomain" => {
            let (host, port) = match s.rsplit_once(':') {
                Some((h, p)) if p.bytes().all(|b| b.is_ascii_digit()) => (h, format!(":{p}")),
                _ => (s, String::new()),
            };
            if host.parse::<std::net::IpAddr>().is_ok() {
                s.to_owned()
            } else {
                format!("{}{port}", host.split('.').next().unwrap_or(host))
            }
        }
        _ => s.to_owned(),
    }))
}

fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut start = true;
    for c in s.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

/// As Go's `url.QueryEscape`.
pub(crate) fn escape_query(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for byte in s.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte.into())
            }
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn link(expr: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", escape_query(expr))
}

fn path_of(url: &str) -> String {
    let after = url.split_once("://").map_or(url, |(_, rest)| rest);
    after
        .find('/')
        .map_or(String::new(), |i| after[i..].to_owned())
}

fn query(machine: &mut Machine<'_, '_>, expr: &str) -> Called {
    let sample = |labels: &model::Labels, v: f64| {
        Value::Struct(BTreeMap::from([
            ("Labels".to_owned(), super::labels_value(labels)),
            ("Value".to_owned(), Value::Float(v)),
        ]))
    };
    let none = model::Labels::empty();
    match (machine.query)(expr)? {
        QueryData::Vector(all) => Ok(Value::List(
            all.iter()
                .map(|e| {
                    let v = match &e.value {
                        Sample::Float(v) => *v,
                        Sample::Histogram(h) => h.count,
                    };
                    sample(&e.labels, v)
                })
                .collect(),
        )),
        QueryData::Scalar(_, v) => Ok(Value::List(vec![sample(&none, v)])),
        QueryData::String(_, s) => {
            let labels = model::Labels::from_pairs([("__value__", s.as_str())]);
            Ok(Value::List(vec![sample(&labels, 0.0)]))
        }
        QueryData::Matrix(_) => Err("query result is not a vector or scalar".to_owned()),
    }
}

fn sort_by_label(name: &str, vector: &Value) -> Called {
    let Value::List(list) = vector else {
        return Err(format!("not a vector but {}", vector.type_name()));
    };
    let key = |v: &Value| {
        v.field("Labels")
            .and_then(|l| l.field(name))
            .map(|l| l.print())
            .unwrap_or_default()
    };
    let mut sorted = list.clone();
    sorted.sort_by_key(key);
    Ok(Value::List(sorted))
}
