//! Owns reading OpenAPI 3.0 and 3.1 (<https://spec.openapis.org/oas/v3.1.0>): each operation becomes a scenario of one
//! request, its parameters and body filled from examples or the schema. Must not know the script's text.

use serde_json::{Map, Value};

use super::sample::Lookup;
use super::script::{Body, Draft, Request, Scene, Step, method, reads};
use super::secrets::Secrets;
use super::{Imported, LeftOut, Options, Verbs, document};
use crate::artillery::Mistake;
use crate::artillery::fields::{Fields, Read, text};
use crate::artillery::tree::Node;

/// Operations taken.
const MAX_OPERATIONS: usize = 5000;

/// Makes a script of an OpenAPI document, JSON or YAML. Only operations that read are taken unless all are asked for.
///
/// # Errors
/// The first thing that is not as OpenAPI has it, with its place; or that no operation is left.
pub fn openapi(name: &str, source: &str, options: &Options) -> Result<Imported, Mistake> {
    let root = document(name, source)?;
    let top = Fields::of(&root, "the OpenAPI document")?;
    version(&top)?;
    let whole = root.value();
    let lookup = Lookup { root: &whole };
    let (target, base) = server(&top, &whole, options)?;
    let paths = Fields::of(top.need("paths")?, "paths")?;
    let mut left_out = LeftOut::default();
    let mut secrets = Secrets::new()?;
    let mut draft = Draft {
        about: vec![format!(
            "Imported from {name} by nines load import openapi."
        )],
        target,
        rate: options.rate.unwrap_or(1),
        duration_s: options.duration_s,
        ..Draft::default()
    };
    for (path, item) in paths.entries() {
        if path.text.starts_with("x-") {
            continue;
        }
        if !path.text.starts_with('/') {
            let said = format!("the path {:?} does not begin with /", path.text);
            return Err(Mistake::at(&path.place, said));
        }
        Fields::of(item, "a path")?;
        let value = item.value();
        let Some(item_value) = lookup_owned(&lookup, &value) else {
            left_out.add("path whose $ref is not in this document");
            continue;
        };
        for (key, operation) in item_value.as_object().into_iter().flatten() {
            let Some(verb) = method(key).filter(|_| operation.is_object()) else {
                continue;
            };
            if options.verbs != Verbs::All && !reads(&verb) {
                left_out.add(format!(
                    "{} operation; --mutating takes it",
                    key.to_uppercase()
                ));
                continue;
            }
            if draft.scenarios.len() >= MAX_OPERATIONS {
                left_out.add(format!("operation beyond the first {MAX_OPERATIONS}"));
                continue;
            }
            let one = Operation {
                lookup: &lookup,
                item: &item_value,
                operation,
                verb,
                route: &path.text,
                base: &base,
            };
            match one.scene(&mut secrets) {
                Ok(scene) => draft.scenarios.push(scene),
                Err(why) => left_out.add(why),
            }
        }
    }
    if draft.scenarios.is_empty() {
        let said = "no operation is left to send";
        let why: Vec<String> = left_out.notes().collect();
        return Err(Mistake::at(&paths.node.place, said).hint(why.join("; ")));
    }
    let mut notes = secrets.notes();
    notes.extend(left_out.notes());
    Ok(Imported {
        script: draft.text(),
        requests: draft.requests(),
        notes,
    })
}

/// The path item, a `$ref` followed.
fn lookup_owned(lookup: &Lookup<'_>, value: &Value) -> Option<Value> {
    match value.get("$ref").and_then(Value::as_str) {
        None => Some(value.clone()),
        Some(reference) => {
            let target = lookup.root.pointer(reference.strip_prefix('#')?)?;
            lookup.follow(target).cloned()
        }
    }
}

fn version(top: &Fields<'_>) -> Read<()> {
    if let Some(old) = top.get("swagger") {
        let said = format!("Swagger {} is not supported", text(old, "swagger")?);
        return Err(Mistake::at(&old.place, said).hint("convert it to OpenAPI 3.0 or 3.1 first"));
    }
    let node = top.need("openapi")?;
    let version = text(node, "openapi")?;
    match version.starts_with("3.") {
        true => Ok(()),
        false => {
            let said = format!("OpenAPI {:?} is not supported", short(&version));
            Err(Mistake::at(&node.place, said).hint("expected 3.0.x or 3.1.x"))
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// `config.target` and the path that stands before every route.
fn server(top: &Fields<'_>, whole: &Value, options: &Options) -> Read<(String, String)> {
    let first = whole.pointer("/servers/0");
    let mut url = first
        .and_then(|s| s.get("url"))
        .and_then(Value::as_str)
        .unwrap_or("/")
        .to_owned();
    let variables = first
        .and_then(|s| s.get("variables"))
        .and_then(Value::as_object);
    for (name, variable) in variables.into_iter().flatten() {
        let value = match variable.get("default") {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => continue,
        };
        url = url.replace(&format!("{{{name}}}"), &value);
    }
    let parsed = url::Url::parse(&url).ok().filter(|u| u.has_host());
    let base = match &parsed {
        Some(parsed) => parsed.path().to_owned(),
        None => format!("/{}", url.trim_start_matches('/')),
    };
    let target = match (&options.target, parsed) {
        (Some(target), _) => target.clone(),
        (None, Some(url)) if matches!(url.scheme(), "http" | "https") => {
            url.origin().ascii_serialization()
        }
        _ => {
            let place = top
                .get("servers")
                .map_or(&top.node.place, |s: &Node| &s.place);
            let said = format!("the first of servers, {:?}, names no host", short(&url));
            return Err(Mistake::at(place, said).hint("give one: --target http://127.0.0.1:8080"));
        }
    };
    Ok((target, base.trim_end_matches('/').to_owned()))
}

struct Operation<'a> {
    lookup: &'a Lookup<'a>,
    item: &'a Value,
    operation: &'a Value,
    verb: String,
    route: &'a str,
    base: &'a str,
}

impl<'a> Operation<'a> {
    /// The scenario; or why the operation is left out.
    fn scene(&self, secrets: &mut Secrets) -> Result<Scene, String> {
        let title = format!("{} {}", self.verb.to_uppercase(), self.route);
        let id = self.operation.get("operationId").and_then(Value::as_str);
        let mut request = Request {
            method: self.verb.clone(),
            name: title.clone(),
            ..Request::default()
        };
        let mut path = self.route.to_owned();
        let mut query = Vec::new();
        for parameter in self.parameters() {
            let word = |key: &str| {
                parameter
                    .get(key)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let (name, place) = (word("name"), word("in"));
            let required = parameter.get("required") == Some(&Value::Bool(true));
            if name.is_empty() || !(required || place == "path") {
                continue;
            }
            let value = plain(&self.example(parameter));
            match place {
                "path" => path = path.replace(&format!("{{{name}}}"), &encoded(&value)),
                "query" => query.push(format!("{}={}", encoded(name), encoded(&value))),
                "header"
                    if !matches!(
                        name.to_ascii_lowercase().as_str(),
                        "accept" | "content-type" | "authorization"
                    ) =>
                {
                    request.headers.push((name.to_owned(), value));
                }
                "cookie" => request.cookies.push((name.to_owned(), value)),
                _ => {}
            }
        }
        if path.contains('{') {
            return Err(
                "operation whose path has a parameter that it does not describe".to_owned(),
            );
        }
        self.security(&mut request, &mut query, secrets);
        request.url = format!("{}{path}", self.base);
        if !query.is_empty() {
            request.url = format!("{}?{}", request.url, query.join("&"));
        }
        if !reads(&self.verb) {
            self.body(&mut request)?;
        }
        Ok(Scene {
            name: id.map_or(title, str::to_owned),
            weight: 1,
            steps: vec![Step::Send(Box::new(request))],
        })
    }

    /// Those of the path, those of the operation in place of or beside them.
    fn parameters(&self) -> Vec<&'a Value> {
        let mut all: Vec<&Value> = Vec::new();
        for owner in [self.item, self.operation] {
            let given = owner.get("parameters").and_then(Value::as_array);
            for parameter in given
                .into_iter()
                .flatten()
                .filter_map(|p| self.lookup.follow(p))
            {
                let key = |p: &Value| (p.get("name").cloned(), p.get("in").cloned());
                all.retain(|known| key(known) != key(parameter));
                all.push(parameter);
            }
        }
        all
    }

    /// `example`, the first of `examples`, or what the schema gives.
    fn example(&self, holder: &'a Value) -> Value {
        if let Some(example) = holder.get("example") {
            return example.clone();
        }
        let named = holder.get("examples").and_then(Value::as_object);
        let first = named.and_then(|all| {
            all.values()
                .find_map(|e| self.lookup.follow(e)?.get("value"))
        });
        if let Some(example) = first {
            return example.clone();
        }
        let content = holder.get("content").and_then(Value::as_object);
        let inner = content.and_then(|c| c.values().next());
        let schema = holder.get("schema").or_else(|| inner?.get("schema"));
        schema.map_or(Value::Null, |schema| self.lookup.sample(schema))
    }

    /// Each scheme of the first requirement: a header, query parameter or cookie whose value comes from the environment.
    fn security(&self, request: &mut Request, query: &mut Vec<String>, secrets: &mut Secrets) {
        let own = self
            .operation
            .get("security")
            .or_else(|| self.lookup.root.get("security"));
        let first = own.and_then(Value::as_array).and_then(|all| all.first());
        for name in first
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::keys)
        {
            let schemes = self.lookup.root.pointer("/components/securitySchemes");
            let scheme = schemes
                .and_then(|all| all.get(name))
                .and_then(|s| self.lookup.follow(s));
            let Some(scheme) = scheme else {
                continue;
            };
            let word = |key: &str| scheme.get(key).and_then(Value::as_str).unwrap_or_default();
            let secret = secrets.variable(name, name);
            match (word("type"), word("in")) {
                ("apiKey", "query") => query.push(format!("{}={secret}", encoded(word("name")))),
                ("apiKey", "cookie") => request.cookies.push((word("name").to_owned(), secret)),
                ("apiKey", _) => request.headers.push((word("name").to_owned(), secret)),
                ("http", _) if word("scheme").eq_ignore_ascii_case("basic") => {
                    request
                        .headers
                        .push(("authorization".to_owned(), format!("Basic {secret}")));
                }
                _ => request
                    .headers
                    .push(("authorization".to_owned(), format!("Bearer {secret}"))),
            }
        }
    }

    fn body(&self, request: &mut Request) -> Result<(), String> {
        let given = self
            .operation
            .get("requestBody")
            .and_then(|b| self.lookup.follow(b));
        let Some(given) = given else {
            return Ok(());
        };
        let content = given.get("content").and_then(Value::as_object);
        let kinds = || content.into_iter().flatten();
        let is_json = |kind: &str| {
            kind.split(';')
                .next()
                .is_some_and(|k| k == "application/json" || k.ends_with("+json"))
        };
        let find = |wanted: &dyn Fn(&str) -> bool| kinds().find(|(kind, _)| wanted(kind));
        let form = "application/x-www-form-urlencoded";
        if let Some((kind, media)) = find(&is_json) {
            request.body = Body::Json(self.example(media));
            if kind != "application/json" {
                request
                    .headers
                    .push(("content-type".to_owned(), kind.clone()));
            }
        } else if let Some((_, media)) = find(&|kind| kind == form) {
            request.body = Body::Form(flat(self.example(media)));
        } else if let Some((_, media)) = find(&|kind| kind == "multipart/form-data") {
            request.body = Body::FormData(flat(self.example(media)));
        } else if let Some((kind, media)) = find(&|kind| kind.starts_with("text/")) {
            request.body = Body::Text(plain(&self.example(media)));
            request
                .headers
                .push(("content-type".to_owned(), kind.clone()));
        } else if given.get("required") == Some(&Value::Bool(true)) {
            let kind = kinds().next().map_or("nothing", |(kind, _)| kind.as_str());
            return Err(format!("operation whose body is {}", short(kind)));
        }
        Ok(())
    }
}

/// A value as text in a URL, header or form.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// An object whose values are texts.
fn flat(value: Value) -> Value {
    let Value::Object(map) = value else {
        return Value::Object(Map::new());
    };
    Value::Object(
        map.into_iter()
            .map(|(k, v)| (k, Value::String(plain(&v))))
            .collect(),
    )
}

/// Percent-encoded but for unreserved characters (RFC 3986).
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte))
            }
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}
