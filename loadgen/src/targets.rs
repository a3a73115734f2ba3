//! Owns reading requests from files of other tools: vegeta's targets, and access logs with their own timing.
//! Pure but for the body files that targets name, which the caller reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;

use crate::plan::RequestSpec;
use crate::report::{MOST_ROUTES, OTHER_ROUTE};

/// More entries than this are refused.
const MAX_ENTRIES: usize = 10_000_000;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct TargetsError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what is expected.
    pub why: String,
}

/// Reads vegeta's targets: its JSON format when the first line that is not blank begins with `{`, else its HTTP format.
///
/// # Errors
/// As for [`vegeta`] and [`vegeta_json`].
pub fn any(
    text: &str,
    base: &str,
    read: impl FnMut(&str) -> Result<String, String>,
) -> Result<Vec<RequestSpec>, TargetsError> {
    match text.trim_start().starts_with('{') {
        true => vegeta_json(text, base),
        false => vegeta(text, base, read),
    }
}

/// Reads vegeta's JSON format: an object a line with `method`, `url`, and optionally `header` (a list of values by name)
/// and `body` (base64). URLs are as for [`vegeta`].
///
/// # Errors
/// The first line that is wrong.
pub fn vegeta_json(text: &str, base: &str) -> Result<Vec<RequestSpec>, TargetsError> {
    let mut all = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let spec = json_target(line, base).map_err(|why| TargetsError { line: i + 1, why })?;
        all.push(spec);
    }
    if all.is_empty() {
        return Err(TargetsError {
            line: 1,
            why: "no target; expected lines such as {\"method\": \"GET\", \"url\": \"http://127.0.0.1:8080/\"}"
                .to_owned(),
        });
    }
    limit_names(&mut all);
    Ok(all)
}

fn json_target(line: &str, base: &str) -> Result<RequestSpec, String> {
    let value: serde_json::Value =
        serde_json::from_str(line).map_err(|e| format!("no JSON at column {}: {e}", e.column()))?;
    let object = value.as_object().ok_or("expected an object in braces")?;
    let known = ["method", "url", "header", "body"];
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("unknown key {key:?} (known: {})", known.join(", ")));
    }
    let word = |key: &str| {
        let text = object.get(key).and_then(serde_json::Value::as_str);
        text.filter(|t| !t.is_empty())
            .ok_or_else(|| format!("{key:?} must be a text that is not empty"))
    };
    let (method, path) = (word("method")?, path_of(word("url")?, base)?);
    let mut spec = RequestSpec::get(&path);
    spec.name = format!("{method} {}", before_query(&path));
    spec.method = method.to_owned();
    match object.get("header") {
        None | Some(serde_json::Value::Null) => {}
        Some(serde_json::Value::Object(headers)) => {
            for (name, values) in headers {
                let values = values
                    .as_array()
                    .ok_or_else(|| format!("header {name:?} must be a list of texts"))?;
                for value in values {
                    let value = value
                        .as_str()
                        .ok_or_else(|| format!("header {name:?} must be a list of texts"))?;
                    spec.headers.push((name.clone(), value.to_owned()));
                }
            }
        }
        Some(_) => return Err("\"header\" must be an object of lists".to_owned()),
    }
    match object.get("body") {
        None | Some(serde_json::Value::Null) => {}
        Some(serde_json::Value::String(coded)) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(coded)
                .map_err(|e| format!("\"body\" is no base64: {e}"))?;
            let body = String::from_utf8(bytes)
                .map_err(|_| "\"body\" is not UTF-8; binary bodies are not supported".to_owned())?;
            spec.body = Some(body).filter(|b| !b.is_empty());
        }
        Some(_) => return Err("\"body\" must be a text in base64".to_owned()),
    }
    Ok(spec)
}

/// Reads vegeta's HTTP format: `METHOD URL`, then headers, then `@file` for a body; a blank line ends a target and `#`
/// begins a comment. URLs are paths, or begin with `base` (such as `http://127.0.0.1:8080`). `read` reads a body file.
///
/// # Errors
/// The first line that is wrong.
pub fn vegeta(
    text: &str,
    base: &str,
    mut read: impl FnMut(&str) -> Result<String, String>,
) -> Result<Vec<RequestSpec>, TargetsError> {
    let mut all: Vec<RequestSpec> = Vec::new();
    let mut open = false;
    for (i, line) in text.lines().enumerate() {
        let wrong = |why: String| TargetsError { line: i + 1, why };
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        if line.is_empty() {
            open = false;
            continue;
        }
        let starts = line.split_once(' ').filter(|(method, url)| {
            let method = method.chars().all(|c| c.is_ascii_uppercase());
            method && (url.trim().starts_with('/') || url.contains("://"))
        });
        if let Some((method, url)) = starts {
            let path = path_of(url.trim(), base).map_err(wrong)?;
            let mut spec = RequestSpec::get(&path);
            spec.name = format!("{method} {}", before_query(&path));
            spec.method = method.to_owned();
            all.push(spec);
            open = true;
            continue;
        }
        let Some(spec) = all.last_mut().filter(|_| open) else {
            return Err(wrong(format!("{line:?} is not METHOD URL")));
        };
        if let Some(file) = line.strip_prefix('@') {
            let body = read(file).map_err(|e| wrong(format!("cannot read {file}: {e}")))?;
            spec.body = Some(body);
            open = false;
        } else if let Some((name, value)) = line.split_once(':') {
            let header = (name.trim().to_owned(), value.trim().to_owned());
            spec.headers.push(header);
        } else {
            return Err(wrong(format!(
                "{line:?} is neither a header (Name: value) nor @file"
            )));
        }
    }
    if all.is_empty() {
        return Err(TargetsError {
            line: 1,
            why: "no target; expected lines such as GET http://127.0.0.1:8080/".to_owned(),
        });
    }
    limit_names(&mut all);
    Ok(all)
}

fn path_of(url: &str, base: &str) -> Result<String, String> {
    if url.starts_with('/') {
        return Ok(url.to_owned());
    }
    let base = base.trim_end_matches('/');
    match url.strip_prefix(base) {
        Some("") => Ok("/".to_owned()),
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        Some(query) if query.starts_with('?') => Ok(format!("/{query}")),
        _ => Err(format!(
            "{url} is not below {base}; a run sends to the one target that the command names"
        )),
    }
}

fn before_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or(path)
}

/// Keeps the most frequent names.
fn limit_names(all: &mut [RequestSpec]) {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for spec in all.iter() {
        *counts.entry(spec.name.clone()).or_default() += u64::from(spec.weight.max(1));
    }
    if counts.len() <= MOST_ROUTES {
        return;
    }
    let mut order: Vec<_> = counts.into_iter().collect();
    order.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    order.truncate(MOST_ROUTES - 1);
    let kept: std::collections::HashSet<String> = order.into_iter().map(|(n, _)| n).collect();
    for spec in all.iter_mut().filter(|s| !kept.contains(&s.name)) {
        OTHER_ROUTE.clone_into(&mut spec.name);
    }
}

/// Requests with the instants at which they once came.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Each distinct request; its weight says how often it came.
    pub requests: Vec<RequestSpec>,
    /// Offset from the first, in order, and which request it was.
    pub entries: Arc<[(Duration, u32)]>,
    /// Entries left out because their method may change something, or is not to be repeated without its body.
    pub skipped_methods: u64,
    /// Lines that are no entries.
    pub skipped_lines: u64,
}

/// Reads an access log in the common or combined format (nginx's and Apache's), its time in brackets as
/// `10/Oct/2000:13:55:36 -0700`, RFC 3339 or Unix seconds. Entries of one whole second are spread evenly over it, in
/// order. Only GET and HEAD are taken: a log has no bodies.
///
/// # Errors
/// When no line is an entry, or there are too many.
pub fn access_log(text: &str) -> Result<Recording, TargetsError> {
    let mut stamped: Vec<(i64, u32)> = Vec::new();
    let mut requests: Vec<RequestSpec> = Vec::new();
    let mut known: HashMap<(String, String), u32> = HashMap::new();
    let (mut skipped_methods, mut skipped_lines) = (0, 0);
    for (i, line) in text.lines().enumerate() {
        let Some((at, method, path)) = entry(line) else {
            skipped_lines += u64::from(!line.trim().is_empty());
            continue;
        };
        if !matches!(method, "GET" | "HEAD") {
            skipped_methods += 1;
            continue;
        }
        if stamped.len() >= MAX_ENTRIES {
            let why = format!("more than {MAX_ENTRIES} entries; replay a part of the log");
            return Err(TargetsError { line: i + 1, why });
        }
        let key = (method.to_owned(), path.to_owned());
        let index = *known.entry(key).or_insert_with(|| {
            let mut spec = RequestSpec::get(path);
            spec.name = format!("{method} {}", before_query(path));
            spec.method = method.to_owned();
            spec.weight = 0;
            requests.push(spec);
            requests.len() as u32 - 1
        });
        requests[index as usize].weight += 1;
        stamped.push((at, index));
    }
    if stamped.is_empty() {
        return Err(TargetsError {
            line: 1,
            why: "no GET or HEAD in the log; expected lines such as 1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET /x HTTP/1.1\" 200 12".to_owned(),
        });
    }
    limit_names(&mut requests);
    Ok(Recording {
        entries: spread(stamped).into(),
        requests,
        skipped_methods,
        skipped_lines,
    })
}

/// Milliseconds to offsets; entries that share a whole second are spread over it.
fn spread(mut stamped: Vec<(i64, u32)>) -> Vec<(Duration, u32)> {
    // Stable: a log is written when requests end, so it is nearly but not wholly in order.
    stamped.sort_by_key(|(at, _)| *at);
    let first = stamped[0].0;
    let whole = stamped.iter().all(|(at, _)| at % 1000 == 0);
    let mut out = Vec::with_capacity(stamped.len());
    for group in stamped.chunk_by(|a, b| a.0 == b.0) {
        for (i, (at, request)) in group.iter().enumerate() {
            let mut offset = Duration::from_millis((at - first).unsigned_abs());
            if whole {
                offset += Duration::from_secs(1).mul_f64(i as f64 / group.len() as f64);
            }
            out.push((offset, *request));
        }
    }
    out
}

fn entry(line: &str) -> Option<(i64, &str, &str)> {
    let (_, rest) = line.split_once('[')?;
    let (time, rest) = rest.split_once(']')?;
    let (_, rest) = rest.split_once('"')?;
    let (request, _) = rest.split_once('"')?;
    let mut words = request.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let usable = path.starts_with('/') && path.parse::<http::Uri>().is_ok();
    usable.then_some(())?;
    Some((time_ms(time.trim())?, method, path))
}

fn time_ms(text: &str) -> Option<i64> {
    if let Some(ms) = model::timestamp::parse_rfc3339(text) {
        return Some(ms);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some((seconds * 1e3) as i64);
    }
    // 10/Oct/2000:13:55:36 -0700
    let (date, zone) = text.split_once(' ')?;
    let mut parts = date.split(['/', ':']);
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = MONTHS.iter().position(|m| *m == month)? + 1;
    let (h, m, s) = (parts.next()?, parts.next()?, parts.next()?);
    let (hours, minutes) = zone.split_at_checked(3)?;
    let rfc = format!("{year}-{month:02}-{day:0>2}T{h}:{m}:{s}{hours}:{minutes}");
    model::timestamp::parse_rfc3339(&rfc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(name: &str) -> Result<String, String> {
        if name == "b.json" {
            Ok("{}".to_owned())
        } else {
            Err("not there".to_owned())
        }
    }

    #[test]
    fn vegetas_targets_are_read() {
        let text = "# c\nGET http://h:1/a?x=1\nX-A: b: c\n\nPOST /b\nContent-Type: application/json\n@b.json\n\nDELETE http://h:1\n";
        let all = vegeta(text, "http://h:1", body).unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|s| (s.name.as_str(), s.path.as_str(), s.body.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("GET /a", "/a?x=1", None),
                ("POST /b", "/b", Some("{}")),
                ("DELETE /", "/", None)
            ]
        );
        assert_eq!(all[0].headers, [("X-A".to_owned(), "b: c".to_owned())]);
        let wrong = |text: &str| vegeta(text, "http://h:1", body).unwrap_err().to_string();
        assert!(wrong("GET http://other/").contains("line 1: http://other/ is not below"));
        assert!(wrong("GET /\n\nX: y").contains("line 3"));
        assert!(wrong("GET /\n@no").contains("cannot read no"));
        assert!(wrong("").contains("no target"));
    }

    #[test]
    fn vegetas_json_targets_are_read() {
        let text = "{\"method\":\"GET\",\"url\":\"http://h:1/a?x=1\",\"header\":{\"X-A\":[\"1\",\"2\"]}}\n\n\
            {\"method\":\"POST\",\"url\":\"/b\",\"body\":\"e30=\"}\n";
        let all = any(text, "http://h:1", body).unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|s| (s.name.as_str(), s.path.as_str(), s.body.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [("GET /a", "/a?x=1", None), ("POST /b", "/b", Some("{}"))]
        );
        let pair = |value: &str| ("X-A".to_owned(), value.to_owned());
        assert_eq!(all[0].headers, [pair("1"), pair("2")]);
        let cases = [
            ("{\"method\":\"GET\"}", "line 1: \"url\" must be a text"),
            (
                "{\"method\":\"GET\",\"url\":\"http://x/\"}",
                "is not below http://h:1",
            ),
            (
                "{\"method\":\"GET\",\"url\":\"/\",\"body\":\"%\"}",
                "is no base64",
            ),
            (
                "{\"method\":\"GET\",\"url\":\"/\",\"heder\":1}",
                "unknown key \"heder\"",
            ),
            (
                "{\"method\":\"GET\",\"url\":\"/\",\"header\":{\"a\":\"b\"}}",
                "must be a list",
            ),
            (
                "{\"method\":\"GET\",\"url\":\"/\"}\n{\"",
                "line 2: no JSON at column",
            ),
        ];
        for (text, expected) in cases {
            let error = any(text, "http://h:1", body).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(any("GET /x", "http://h", body).unwrap()[0].path, "/x");
        assert!(vegeta_json("", "http://h").is_err());
    }

    #[test]
    fn a_log_keeps_its_timing() {
        let log = "\
1.1.1.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 1 \"-\" \"x [y]\"
1.1.1.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /b?q HTTP/1.1\" 200 1
1.1.1.1 - - [10/Oct/2000:13:55:36 -0700] \"POST /c HTTP/1.1\" 200 1
garbage
1.1.1.1 - - [10/Oct/2000:20:55:38 +0000] \"GET /a HTTP/1.1\" 200 1
";
        let r = access_log(log).unwrap();
        let ms = Duration::from_millis;
        assert_eq!(*r.entries, [(ms(0), 0), (ms(500), 1), (ms(2000), 0)]);
        assert_eq!((r.skipped_methods, r.skipped_lines), (1, 1));
        assert_eq!(
            (r.requests[0].weight, r.requests[1].name.as_str()),
            (2, "GET /b")
        );
        let exact = "- [1700000000.25] \"GET / HTTP/1.1\"\n- [1700000000.75] \"HEAD / HTTP/1.1\"";
        assert_eq!(access_log(exact).unwrap().entries[1].0, ms(500));
        assert!(access_log("x\ny").is_err());
    }

    #[test]
    fn rare_names_are_joined() {
        let text: String = (0..200).map(|i| format!("GET /{i}\n")).collect();
        let all = vegeta(&text, "http://h", body).unwrap();
        let names: std::collections::BTreeSet<_> = all.iter().map(|s| &s.name).collect();
        assert_eq!(names.len(), MOST_ROUTES);
    }
}
