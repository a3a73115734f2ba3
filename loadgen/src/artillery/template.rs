//! Owns templates: `{{ variable.path[0] }}`, `{{ $randomNumber(1, 9) }}`, `{{ $randomString(5) }}`. A template that is
//! one variable and nothing else keeps the variable's type. Must not know where variables come from.

use serde_json::{Map, Value};

/// What templates may name.
pub(crate) trait Variables {
    /// The value at a path; none when there is nothing.
    fn find(&self, path: &[Segment]) -> Option<Value>;

    /// What a function that the script brings along gives; none when there is none of this name.
    fn call(&self, _name: &str, _args: &[f64]) -> Option<String> {
        None
    }
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment(pub(crate) String);

/// Fills in all templates of a value. None when it is one variable that does not exist.
pub(crate) fn fill(value: &Value, vars: &dyn Variables) -> Option<Value> {
    match value {
        Value::String(text) => fill_text(text, vars),
        Value::Array(items) => {
            let filled = |v| fill(v, vars).unwrap_or(Value::Null);
            Some(Value::Array(items.iter().map(filled).collect()))
        }
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                if let Some(value) = fill(value, vars) {
                    out.insert(string(key, vars), value);
                }
            }
            Some(Value::Object(out))
        }
        other => Some(other.clone()),
    }
}

/// Whether filling it in leaves it as it is.
pub(crate) fn is_plain(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains("{{"),
        Value::Array(items) => items.iter().all(is_plain),
        Value::Object(map) => map.iter().all(|(k, v)| !k.contains("{{") && is_plain(v)),
        _ => true,
    }
}

/// Fills in a text that must stay a text.
pub(crate) fn string(text: &str, vars: &dyn Variables) -> String {
    as_text(fill_text(text, vars).as_ref())
}

/// A value as JavaScript would put it into a text, objects as JSON.
pub(crate) fn as_text(value: Option<&Value>) -> String {
    match value {
        None => "undefined".to_owned(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Number(n)) => number_text(n),
        Some(other) => other.to_string(),
    }
}

/// JavaScript writes 2.0 as 2.
fn number_text(n: &serde_json::Number) -> String {
    match n.as_f64() {
        Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() < 1e15 => format!("{f:.0}"),
        _ => n.to_string(),
    }
}

fn fill_text(text: &str, vars: &dyn Variables) -> Option<Value> {
    if !text.contains("{{") {
        return Some(text.into());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let Some(found) = braces(&rest[open..]) else {
            out.push_str(&rest[..open + 2]);
            rest = &rest[open + 2..];
            continue;
        };
        let value = match found.inside {
            Inside::Call(name, args) => {
                match call(name, &args).or_else(|| vars.call(name, &args)) {
                    Some(text) => Some(Value::String(text)),
                    None => Some(rest[open..open + found.length].into()),
                }
            }
            Inside::Path(path) => {
                let value = vars.find(&path);
                if found.length == text.len() {
                    return value;
                }
                value
            }
        };
        out.push_str(&rest[..open]);
        out.push_str(&as_text(value.as_ref()));
        rest = &rest[open + found.length..];
    }
    out.push_str(rest);
    Some(out.into())
}

struct Found<'a> {
    length: usize,
    inside: Inside<'a>,
}

enum Inside<'a> {
    Path(Vec<Segment>),
    Call(&'a str, Vec<f64>),
}

/// The template at the start of this text, which begins with two braces; none when it is not one.
fn braces(text: &str) -> Option<Found<'_>> {
    let open = if text.starts_with("{{{") { 3 } else { 2 };
    let close = text.find("}}")?;
    let inner = text.get(open..close)?.trim();
    let length = close
        + if text[close..].starts_with("}}}") {
            3
        } else {
            2
        };
    if let Some(rest) = inner.strip_suffix(')') {
        let (name, args) = rest.split_once('(')?;
        let args = args.split(',').map(str::trim).filter(|a| !a.is_empty());
        let args = args.map(str::parse).collect::<Result<Vec<f64>, _>>().ok()?;
        let inside = Inside::Call(name.trim(), args);
        return Some(Found { length, inside });
    }
    let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "$_.[]'\"-".contains(c);
    if inner.is_empty() || !inner.chars().all(allowed) {
        return None;
    }
    let inside = Inside::Path(path(inner));
    Some(Found { length, inside })
}

/// `a.b[0]['c']` as its segments.
pub(crate) fn path(text: &str) -> Vec<Segment> {
    let mut all = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars();
    let push = |word: &mut String, all: &mut Vec<Segment>| {
        if !word.is_empty() {
            all.push(Segment(std::mem::take(word)));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '.' => push(&mut word, &mut all),
            '[' => {
                push(&mut word, &mut all);
                let inner: String = chars.by_ref().take_while(|c| *c != ']').collect();
                all.push(Segment(inner.trim_matches(['\'', '"', ' ']).to_owned()));
            }
            c => word.push(c),
        }
    }
    push(&mut word, &mut all);
    all
}

/// The value below `value` at these segments.
pub(crate) fn descend<'a>(value: &'a Value, path: &[Segment]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, segment| match value {
        Value::Object(map) => map.get(&segment.0),
        Value::Array(items) => items.get(segment.0.parse::<usize>().ok()?),
        _ => None,
    })
}

fn call(name: &str, args: &[f64]) -> Option<String> {
    let whole = |i: usize, default: i64| args.get(i).map_or(default, |n| *n as i64);
    match name {
        "$randomNumber" => {
            let (a, b) = match args.len() {
                0 => (0, 1),
                1 => (0, whole(0, 1)),
                _ => (whole(0, 0), whole(1, 1)),
            };
            Some(rand::random_range(a.min(b)..=a.max(b)).to_string())
        }
        "$randomString" => Some(letters(whole(0, 10).clamp(0, 1 << 20) as usize)),
        _ => None,
    }
}

/// So many random letters and digits.
pub(crate) fn letters(length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let letter = |_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    (0..length).map(letter).collect()
}

/// The paths that a text's templates name.
pub(crate) fn names(text: &str) -> Vec<Vec<Segment>> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        if let Some(Inside::Path(path)) = braces(&rest[open..]).map(|f| f.inside) {
            all.push(path);
        }
        rest = &rest[open + 2..];
    }
    all
}

/// Names of functions that a template in this text calls and that do not exist.
pub(crate) fn unknown_calls(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        if let Some(found) = braces(&rest[open..])
            && let Inside::Call(name, _) = found.inside
            && !matches!(name, "$randomNumber" | "$randomString")
        {
            return Some(name.to_owned());
        }
        rest = &rest[open + 2..];
    }
    None
}

/// A random (version 4) UUID.
pub(crate) fn uuid() -> String {
    let bits: u128 = rand::random();
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Vars(Value);

    impl Variables for Vars {
        fn find(&self, path: &[Segment]) -> Option<Value> {
            descend(&self.0, path).cloned()
        }
    }

    #[test]
    fn templates_are_filled_in() {
        let vars = Vars(json!({"n": 3, "o": {"a": [1, {"b-c": "x"}]}, "$loopCount": 2, "f": 2.0}));
        for (template, want) in [
            (json!("{{ n }}"), json!(3)),
            (json!(" {{n}}"), json!(" 3")),
            (json!("{{{ n }}}-{{ o.a[1]['b-c'] }}"), json!("3-x")),
            (json!("{{ o }}!"), json!("{\"a\":[1,{\"b-c\":\"x\"}]}!")),
            (json!("{{ o }}"), json!({"a": [1, {"b-c": "x"}]})),
            (
                json!("{{ nix }}/{{ $loopCount }}/{{ f }}"),
                json!("undefined/2/2"),
            ),
            (
                json!({"a": ["{{ n }}"], "b": "{{ nix }}", "c{{n}}": 1}),
                json!({"a": [3], "c3": 1}),
            ),
            (json!("{{ a + b }} {{"), json!("{{ a + b }} {{")),
            (json!("{{ $nix(1) }}"), json!("{{ $nix(1) }}")),
        ] {
            assert_eq!(fill(&template, &vars), Some(want), "{template}");
        }
        assert_eq!(fill(&json!("{{ nix }}"), &vars), None);
    }

    #[test]
    fn functions_draw() {
        let vars = Vars(Value::Null);
        for _ in 0..50 {
            let n: i64 = string("{{ $randomNumber( 5, 7 ) }}", &vars)
                .parse()
                .unwrap();
            assert!((5..=7).contains(&n));
        }
        let s = string("{{ $randomString(12) }}-{{ $randomString() }}", &vars);
        assert_eq!(s.len(), 23);
        assert_eq!(
            unknown_calls("x {{ $random(1) }}").as_deref(),
            Some("$random")
        );
        assert_eq!((uuid().len(), uuid().as_bytes()[14]), (36, b'4'));
    }
}
