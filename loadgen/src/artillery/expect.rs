//! Owns the expectations of a request: what each kind compares. Must not count or print.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::expr;
use super::script::Expectation;
use super::template::{self, Variables, as_text};

/// How an expectation came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// As counted: `statusCode`, `hasProperty` ...
    pub(crate) kind: String,
    pub(crate) ok: bool,
    pub(crate) expected: String,
    pub(crate) got: String,
}

/// The response that expectations look at.
pub(crate) struct Seen<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// Checks one expectation.
pub(crate) fn check(expectation: &Expectation, seen: &Seen<'_>, vars: &dyn Variables) -> Outcome {
    let expected = template::fill(&expectation.value, vars).unwrap_or(Value::Null);
    let header = |name: &str| {
        let value = seen.headers.get(name.to_ascii_lowercase())?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let kind = header("content-type").unwrap_or_default();
    let is_json = [
        "application/json",
        "application/problem+json",
        "application/ld+json",
    ]
    .iter()
    .any(|k| kind.contains(k));
    let json = || match is_json {
        true => serde_json::from_slice::<Value>(seen.body).ok(),
        false => None,
    };
    let text = as_text(Some(&expected));
    let list = |v: &Value| v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]);
    let among = || {
        let status = f64::from(seen.status.as_u16());
        let number = |v: &Value| as_text(Some(v)).trim().parse::<f64>().ok();
        list(&expected).iter().any(|v| number(v) == Some(status))
    };
    let mut name = expectation.kind.clone();
    let (ok, got) = match expectation.kind.as_str() {
        "statusCode" => (among(), seen.status.as_u16().to_string()),
        "notStatusCode" => (!among(), seen.status.as_u16().to_string()),
        "contentType" if text == "json" => {
            let ok = json().is_some_and(|b| b.is_object() || b.is_array());
            (
                ok,
                if ok {
                    "json".to_owned()
                } else {
                    format!("content-type is {kind}")
                },
            )
        }
        "contentType" => (kind.eq_ignore_ascii_case(&text), kind.clone()),
        "hasProperty" | "notHasProperty" => {
            let path = template::path(&text);
            let found = json().map(|b| template::descend(&b, &path).is_some());
            match found {
                None => (false, "response body is not an object".to_owned()),
                Some(found) => {
                    let got = if found { "has" } else { "has no" };
                    let ok = found == (expectation.kind == "hasProperty");
                    (ok, format!("response body {got} {text} property"))
                }
            }
        }
        "equals" => {
            let all: Vec<String> = list(&expected).iter().map(|v| as_text(Some(v))).collect();
            (all.windows(2).all(|w| w[0] == w[1]), all.join(", "))
        }
        "hasHeader" => match header(&text) {
            Some(_) => (true, text.clone()),
            None => (false, format!("response has no {text} header")),
        },
        "headerEquals" => {
            let pair = list(&expected);
            let part = |i: usize| as_text(pair.get(i));
            name = format!("header {} values equals", part(0));
            match header(&part(0)) {
                Some(value) => (value == part(1), value),
                None => (false, format!("response has no {} header", part(0))),
            }
        }
        "cdnHit" => {
            let hit = expr::truthy(&expected);
            let wanted: &[&str] = if hit { &["hit", "stale"] } else { &["miss"] };
            let names = ["cf-cache-status", "x-cache", "x-vercel-cache"];
            let fits = |value: &String| {
                let value = value.to_ascii_lowercase();
                wanted.iter().any(|w| value.starts_with(w))
            };
            let found = names.iter().filter_map(|n| header(n)).find(fits);
            let missing = || "cache status header not found".to_owned();
            (found.is_some(), found.unwrap_or_else(missing))
        }
        "matchesRegexp" => {
            let body = String::from_utf8_lossy(seen.body);
            let regex = fancy_regex::Regex::new(&text);
            let ok = regex.is_ok_and(|r| r.is_match(&*body).unwrap_or(false));
            (ok, ok.to_string())
        }
        "jmespath" | "jpath" => match json().filter(|b| b.is_object() || b.is_array()) {
            Some(body) => (jmespath_holds(&text, &body), text.clone()),
            None => (false, "response body is not an object".to_owned()),
        },
        other => (false, format!("{other} is not known")),
    };
    Outcome {
        kind: name,
        ok,
        expected: text,
        got,
    }
}

/// Whether a JMESPath expression gives something that JavaScript takes for true.
fn jmespath_holds(expression: &str, body: &Value) -> bool {
    let found = jmespath::compile(expression).and_then(|e| e.search(body));
    let value = found.ok().and_then(|v| serde_json::to_value(&*v).ok());
    value.is_some_and(|v| expr::truthy(&v))
}

#[cfg(test)]
mod tests {
    use super::template::{Segment, descend};
    use super::*;
    use serde_json::json;

    struct Vars(Value);

    impl Variables for Vars {
        fn find(&self, path: &[Segment]) -> Option<Value> {
            descend(&self.0, path).cloned()
        }
    }

    #[test]
    fn expectations_compare() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            "application/json; charset=utf-8".parse().unwrap(),
        );
        headers.insert("x-cache", "Hit from cloudfront".parse().unwrap());
        let seen = Seen {
            status: StatusCode::CREATED,
            headers: &headers,
            body: br#"{"a":{"b":[1]}}"#,
        };
        let vars = Vars(json!({"x": 1}));
        for (kind, value, ok) in [
            ("statusCode", json!(201), true),
            ("statusCode", json!(["200", "201"]), true),
            ("statusCode", json!(200), false),
            ("notStatusCode", json!(200), true),
            ("contentType", json!("json"), true),
            ("contentType", json!("text/html"), false),
            ("hasProperty", json!("a.b[0]"), true),
            ("hasProperty", json!("a.c"), false),
            ("notHasProperty", json!("a.c"), true),
            ("equals", json!(["{{ x }}", 1]), true),
            ("equals", json!(["{{ x }}", 2]), false),
            ("hasHeader", json!("Content-Type"), true),
            ("headerEquals", json!(["content-type", "x"]), false),
            ("matchesRegexp", json!("\\[1\\]"), true),
            ("matchesRegexp", json!("(?<=b.:)\\["), true),
            ("jmespath", json!("a.b[0] == `1`"), true),
            ("jmespath", json!("a.c"), false),
            ("cdnHit", json!(true), true),
            ("cdnHit", json!(false), false),
        ] {
            let expectation = Expectation {
                kind: kind.into(),
                value: value.clone(),
            };
            assert_eq!(check(&expectation, &seen, &vars).ok, ok, "{kind} {value}");
        }
    }
}
