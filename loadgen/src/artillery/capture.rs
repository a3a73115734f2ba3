//! Owns taking a value out of a response: by JSON path, XPath, regular expression, selector or header. Must not know scripts.

use fancy_regex::Regex;
use http::HeaderMap;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::document::{self, Pick};

/// How to take a value out of a response.
#[derive(Debug, Clone)]
pub(crate) enum Extractor {
    Json {
        /// As written; may hold templates.
        path: String,
        /// A random one of many values; else all of them.
        multiple: bool,
    },
    Regexp {
        regex: Box<Regex>,
        group: Option<String>,
    },
    Header(String),
    /// XPath; may hold templates.
    Xpath(String),
    Selector {
        /// As written; may hold templates.
        css: String,
        attr: Option<String>,
        pick: Pick,
    },
}

impl Extractor {
    /// The value; none when there is nothing. `fill` fills in templates.
    pub(crate) fn take(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        fill: &dyn Fn(&str) -> String,
    ) -> Option<Value> {
        match self {
            Extractor::Json { path, multiple } => {
                let document: Value = serde_json::from_slice(body).ok()?;
                let found = query(&document, &fill(path)).ok()?;
                pick(found, *multiple)
            }
            Extractor::Regexp { regex, group } => {
                let text = String::from_utf8_lossy(body);
                // A pattern that backtracks too long finds nothing.
                let found = regex.captures(&*text).ok()??;
                let wanted = group.as_deref().and_then(|g| match g.parse() {
                    Ok(n) => found.get(n),
                    Err(_) => found.name(g),
                });
                let value = wanted.or_else(|| found.get(0))?.as_str();
                Some(value.into())
            }
            Extractor::Xpath(path) => document::xpath(body, &fill(path)),
            Extractor::Selector { css, attr, pick } => {
                let attr = attr.as_ref().map(|a| fill(a));
                document::selector(body, &fill(css), attr.as_deref(), *pick)
            }
            Extractor::Header(name) => {
                let values = headers.get_all(fill(name).to_ascii_lowercase());
                let texts: Vec<_> = values
                    .iter()
                    .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
                    .collect();
                (!texts.is_empty()).then(|| texts.join(", ").into())
            }
        }
    }

    /// As written, for messages and reports.
    pub(crate) fn shown(&self) -> &str {
        match self {
            Extractor::Json { path, .. } => path,
            Extractor::Regexp { regex, .. } => regex.as_str(),
            Extractor::Header(name) => name,
            Extractor::Xpath(path) => path,
            Extractor::Selector { css, .. } => css,
        }
    }
}

fn pick(mut found: Vec<Value>, multiple: bool) -> Option<Value> {
    match found.len() {
        0 => None,
        1 => found.pop(),
        n if multiple => Some(found.swap_remove(rand::random_range(0..n))),
        _ => Some(Value::Array(found)),
    }
}

/// Whether a JSON path can be read.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    query(&Value::Array(Vec::new()), path).map(|_| ())
}

/// All values at a JSON path. Only objects and arrays have any.
fn query(document: &Value, path: &str) -> Result<Vec<Value>, String> {
    let path = standard(path);
    let parse = |p: &str| JsonPath::parse(p).map_err(|e| e.to_string());
    let parsed = parse(&path)?;
    if !(document.is_object() || document.is_array()) {
        return Ok(Vec::new());
    }
    let found: Vec<Value> = parsed.query(document).all().into_iter().cloned().collect();
    if let (true, Some(parent)) = (found.is_empty(), path.strip_suffix(".length")) {
        let parents = parse(parent)?.query(document).all();
        let length = |v: &&Value| match v {
            Value::Array(items) => Some(items.len().into()),
            Value::String(s) => Some(s.encode_utf16().count().into()),
            _ => None,
        };
        return Ok(parents.iter().filter_map(length).collect());
    }
    Ok(found)
}

/// The path as RFC 9535 has it: scripts may leave out the `$.` and write JavaScript's operators.
fn standard(path: &str) -> String {
    let path = path.trim();
    let path = match path.chars().next() {
        Some('$') => path.to_owned(),
        Some('[' | '.') => format!("${path}"),
        _ => format!("$.{path}"),
    };
    let path = path.replace("!==", "!=").replace("===", "==");
    let path = path.replace("[(@.length-1)]", "[-1]");
    // An index may stand as a member: $.items.0.id
    let mut parts = path.split('.');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits > 0 && part[digits..].chars().next().is_none_or(|c| c == '[');
        if whole && !out.contains('?') {
            out.push_str(&format!("[{}]{}", &part[..digits], &part[digits..]));
        } else {
            out.push('.');
            out.push_str(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_paths_find_values() {
        let document =
            json!({"id": 7, "items": [{"n": 1, "t": "a"}, {"n": 2, "t": "b"}], "s": "xyz"});
        for (path, want) in [
            ("$.id", json!([7])),
            ("id", json!([7])),
            ("$.items[*].n", json!([1, 2])),
            ("$..n", json!([1, 2])),
            ("$.items[-1].t", json!(["b"])),
            ("$.items[(@.length-1)].t", json!(["b"])),
            ("$.items[?(@.t === 'b')].n", json!([2])),
            ("$.items.1.t", json!(["b"])),
            ("$.items[?(@.n !== 1.0)].t", json!(["b"])),
            ("$.items.length", json!([2])),
            ("$.nix", json!([])),
        ] {
            assert_eq!(query(&document, path).map(Value::Array), Ok(want), "{path}");
        }
        assert!(check_path("$.items[").is_err());
        assert_eq!(query(&json!("text"), "$"), Ok(vec![]));
    }

    #[test]
    fn captures_take_from_body_and_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("x-token", "abc".parse().unwrap());
        let take = |e: Extractor, body: &str| e.take(&headers, body.as_bytes(), &str::to_owned);
        let regexp = |text: &str, group: Option<&str>| Extractor::Regexp {
            regex: Box::new(Regex::new(text).unwrap()),
            group: group.map(str::to_owned),
        };
        assert_eq!(
            take(Extractor::Header("X-Token".into()), ""),
            Some(json!("abc"))
        );
        assert_eq!(
            take(regexp("id=(\\d+)", Some("1")), "id=42"),
            Some(json!("42"))
        );
        assert_eq!(
            take(regexp("id=(?<id>\\d+)", Some("id")), "id=42"),
            Some(json!("42"))
        );
        assert_eq!(
            take(regexp("id=(\\d+)", None), "id=42"),
            Some(json!("id=42"))
        );
        assert_eq!(take(regexp("nix", None), "id=42"), None);
        let all = |multiple| Extractor::Json {
            path: "$.*".into(),
            multiple,
        };
        assert_eq!(take(all(false), "[1,2]"), Some(json!([1, 2])));
        assert!([Some(json!(1)), Some(json!(2))].contains(&take(all(true), "[1,2]")));
    }
}
