//! Owns what a virtual user asks of the script's JavaScript: function steps, the hooks around a request, conditions,
//! and what a hook changed of its request. Must not know how JavaScript runs.

use base64::Engine as _;
use http::Method;
use serde_json::{Map, Value, json};

use super::script::{BodySpec, Hooks, Part, RequestStep};
use super::template::{self, as_text};
use super::vu::{Failure, Vu, lock};
use crate::artillery::js::{Processor, Returned};

/// A request after its hooks, and what its endpoint is called by.
pub(crate) struct Hooked {
    pub(crate) step: RequestStep,
    /// URL and name as they were after the scenario's hooks and before the request's own.
    pub(crate) endpoint: (String, Option<String>),
    /// The number under which JavaScript knows the request.
    pub(crate) number: u64,
}

impl Vu {
    fn processor(&self) -> Option<&Processor> {
        self.shared.script.processor.as_deref()
    }

    fn message(&self, kind: &str) -> Map<String, Value> {
        let (set, gone) = lock(&self.vars).news();
        let mut call = Map::new();
        call.insert("kind".to_owned(), kind.into());
        call.insert("vu".to_owned(), self.number.into());
        call.insert("counted".to_owned(), self.counted.into());
        call.insert("vars".to_owned(), set.into());
        if !gone.is_empty() {
            call.insert("gone".to_owned(), gone.into());
        }
        call
    }

    fn took(&self, returned: Returned) -> Result<Value, Failure> {
        lock(&self.vars).take(returned.set, &returned.gone);
        match returned.failed {
            Some(label) => Err(label),
            None => Ok(returned.value),
        }
    }

    async fn ask(&self, call: Map<String, Value>) -> Result<Value, Failure> {
        let Some(processor) = self.processor() else {
            return Ok(Value::Null);
        };
        let returned = processor.call(&Value::Object(call)).await;
        self.took(returned)
    }

    /// A function step. One that does not exist is counted as an error and passed over, as in Artillery.
    pub(crate) async fn function(&self, name: &str) -> Result<(), Failure> {
        if !self.processor().is_some_and(|p| p.has(name)) {
            self.count(&format!("errors.Undefined function \"{name}\""));
            return Ok(());
        }
        let mut call = self.message("step");
        call.insert("name".to_owned(), name.into());
        self.ask(call).await.map(|_| ())
    }

    /// What `whileTrue` says after a turn.
    pub(crate) async fn goes_on(&self, name: &str) -> Result<bool, Failure> {
        let mut call = self.message("whileTrue");
        call.insert("name".to_owned(), name.into());
        Ok(self.ask(call).await? == Value::Bool(true))
    }

    /// What an `ifTrue` that names a function says; it is sent when the function fails.
    pub(crate) async fn condition(&self, name: &str) -> bool {
        let mut call = self.message("ifTrue");
        call.insert("name".to_owned(), name.into());
        self.ask(call)
            .await
            .map_or(true, |v| v != Value::Bool(false))
    }

    /// A template function that the script put into `context.funcs`.
    pub(crate) fn own_function(&self, name: &str, args: &[Value]) -> Option<String> {
        let processor = self.processor()?;
        let mut call = self.message("fill");
        call.insert("name".to_owned(), name.into());
        call.insert("args".to_owned(), args.into());
        let returned = processor.call_now(&Value::Object(call))?;
        match self.took(returned).ok()? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn names(&self, hooks: &[String]) -> Vec<Value> {
        let fill = |name: &String| Value::from(template::string(name, self));
        hooks.iter().map(fill).collect()
    }

    /// Runs what goes before a request; none when no hook concerns it.
    pub(crate) async fn before_request(
        &self,
        step: &RequestStep,
    ) -> Result<Option<Hooked>, Failure> {
        let (Some(processor), own, scenario) = (self.processor(), &step.hooks, &self.hooks) else {
            return Ok(None);
        };
        let any = |h: &Hooks| !(h.before.is_empty() && h.after.is_empty() && h.on_error.is_empty());
        if !any(own) && !any(scenario) {
            return Ok(None);
        }
        let number = processor.number();
        let script = &self.shared.script;
        let mut params = match &*step.raw {
            Value::Object(map) => map.clone(),
            _ => Map::new(),
        };
        let url = super::request::full_url(&step.url, &script.target);
        params.insert("url".to_owned(), url.clone().into());
        params.shift_remove("uri");
        params.insert("method".to_owned(), step.method.as_str().into());
        params.insert(
            "timeout".to_owned(),
            script.http.timeout.as_secs_f64().into(),
        );
        params.insert("uuid".to_owned(), template::uuid().into());
        let mut hooked = Hooked {
            step: step.clone(),
            endpoint: (url, step.name.clone()),
            number,
        };
        let mut call = self.message("before");
        call.insert("rid".to_owned(), number.into());
        call.insert("params".to_owned(), params.clone().into());
        call.insert(
            "scenarioHooks".to_owned(),
            self.names(&scenario.before).into(),
        );
        call.insert("requestHooks".to_owned(), self.names(&own.before).into());
        if let Value::Array(parts) = self.ask(call).await? {
            if let Some(Value::Object(after)) = parts.first() {
                change(&mut hooked.step, &params, after);
            }
            if let Some(at) = parts.get(1) {
                let text = |key: &str| at[key].as_str().map(str::to_owned);
                hooked.endpoint = (text("url").unwrap_or_default(), text("name"));
            }
        }
        Ok(Some(hooked))
    }

    /// Runs what goes after a response.
    pub(crate) async fn after_response(
        &self,
        number: u64,
        hooks: &[String],
        last: bool,
        sent: Value,
        response: Value,
    ) -> Result<(), Failure> {
        let hooks = self.names(hooks);
        let mut call = self.message("after");
        call.insert("rid".to_owned(), number.into());
        call.insert("last".to_owned(), last.into());
        call.insert("hooks".to_owned(), hooks.into());
        call.insert("params".to_owned(), sent);
        call.insert("res".to_owned(), response);
        self.ask(call).await.map(|_| ())
    }

    /// Runs what goes after a request without a response. What the hooks say does not matter.
    pub(crate) async fn after_failure(&self, number: u64, code: &str) {
        let hooks = self.names(&self.hooks.on_error);
        if hooks.is_empty() {
            return;
        }
        let mut call = self.message("error");
        call.insert("rid".to_owned(), number.into());
        call.insert("last".to_owned(), true.into());
        call.insert("hooks".to_owned(), hooks.into());
        call.insert("error".to_owned(), code.into());
        call.insert("code".to_owned(), code.into());
        let _ = self.ask(call).await;
    }

    /// Runs the function that says where a WebSocket goes: its arguments after the call.
    pub(crate) async fn connect_function(&self, name: &str, args: Value) -> Result<Value, Failure> {
        let mut call = self.message("connect");
        call.insert("name".to_owned(), name.into());
        call.insert("args".to_owned(), args);
        self.ask(call).await
    }

    /// JavaScript may let go of this user.
    pub(crate) fn leave(&self) {
        if let Some(processor) = self.processor() {
            processor.forget(self.number);
        }
    }
}

fn pairs(value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        _ => Vec::new(),
    }
}

/// Bytes that a hook made of a Buffer.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    let text = value.get("$bytes")?.as_str()?;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn truthy(value: Option<&Value>) -> bool {
    value.is_some_and(super::expr::truthy)
}

/// Takes over what a hook has changed: `before` are the request's parameters as it got them, `after` as it left them.
fn change(step: &mut RequestStep, before: &Map<String, Value>, after: &Map<String, Value>) {
    let new = |key: &str| {
        (before.get(key) != after.get(key)).then(|| after.get(key).unwrap_or(&Value::Null))
    };
    if let Some(Value::String(url)) = new("uri").filter(|v| v.is_string()).or_else(|| new("url")) {
        step.url.clone_from(url);
    }
    if let Some(Value::String(method)) = new("method")
        && let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes())
    {
        step.method = method;
    }
    if let Some(name) = new("name") {
        step.name = name.as_str().map(str::to_owned);
    }
    for (key, slot) in [("headers", &mut step.headers), ("cookie", &mut step.cookie)] {
        if let Some(value) = new(key) {
            *slot = pairs(value);
        }
    }
    for key in ["qs", "searchParams"] {
        match new(key) {
            Some(Value::String(text)) => {
                let parsed = url::form_urlencoded::parse(text.trim_start_matches('?').as_bytes());
                step.qs = parsed
                    .map(|(k, v)| (k.into_owned(), v.into_owned().into()))
                    .collect();
            }
            Some(value) if key == "qs" || value.is_object() => step.qs = pairs(value),
            _ => {}
        }
    }
    for (key, slot) in [
        ("followRedirect", &mut step.follow),
        ("gzip", &mut step.gzip),
    ] {
        if let Some(Value::Bool(value)) = new(key) {
            *slot = *value;
        }
    }
    if let Some(seconds) = new("timeout").and_then(Value::as_f64) {
        step.timeout = std::time::Duration::try_from_secs_f64(seconds).ok();
    }
    if let Some(auth) = new("auth") {
        let get = |key: &str| auth.get(key).cloned().unwrap_or_else(|| "".into());
        step.auth = auth.is_object().then(|| (get("user"), get("pass")));
    }
    let body_keys = ["json", "body", "form", "formData"];
    if body_keys.iter().any(|key| new(key).is_some()) {
        step.body = body(after);
    }
}

fn body(params: &Map<String, Value>) -> BodySpec {
    if let Some(Value::Object(parts)) = params.get("formData") {
        let part = |(name, value): (&String, &Value)| {
            let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
            Part {
                name: name.clone(),
                from_file: text("fromFile"),
                content_type: text("contentType"),
                value: match value.get("value") {
                    Some(inner) => inner.clone(),
                    None => value.clone(),
                },
            }
        };
        return BodySpec::Multipart(parts.iter().map(part).collect());
    }
    if let Some(form) = params.get("form").filter(|f| f.is_object()) {
        return BodySpec::Form(pairs(form));
    }
    if let Some(value) = params.get("json").filter(|v| truthy(Some(v))) {
        return BodySpec::Json(value.clone());
    }
    match params.get("body") {
        None | Some(Value::Null) => BodySpec::None,
        Some(value) => match bytes(value) {
            Some(raw) => BodySpec::Bytes(raw.into()),
            None => BodySpec::Text(value.clone()),
        },
    }
}

/// A response as hooks see it.
pub(crate) fn response(
    status: http::StatusCode,
    headers: &http::HeaderMap,
    body: &[u8],
    ms: f64,
) -> Value {
    let mut all = Map::new();
    for name in headers.keys() {
        let values: Vec<String> = headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
            .collect();
        let value = match name.as_str() {
            "set-cookie" => json!(values),
            _ => values.join(", ").into(),
        };
        all.insert(name.as_str().to_owned(), value);
    }
    json!({
        "statusCode": status.as_u16(),
        "statusMessage": status.canonical_reason().unwrap_or_default(),
        "headers": all,
        "body": String::from_utf8_lossy(body),
        "timings": {"phases": {"firstByte": ms, "total": ms}},
    })
}

/// What hooks after a response find in their request beside what they knew: it as it was sent.
pub(crate) fn sent(url: &str, headers: &http::HeaderMap, step: &RequestStep, vars: &Vu) -> Value {
    let mut all = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.insert(name.as_str().to_owned(), value.into());
    }
    let mut params = json!({"url": url, "headers": all, "followRedirect": step.follow});
    match &step.body {
        BodySpec::Json(value) => {
            params["json"] = template::fill(value, vars).unwrap_or(Value::Null)
        }
        BodySpec::Text(value) => {
            params["body"] = as_text(template::fill(value, vars).as_ref()).into()
        }
        _ => {}
    }
    if let Some(name) = &step.name {
        params["name"] = template::string(name, vars).into();
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artillery::read::{ReadOptions, read_tree};
    use crate::artillery::script::Step;
    use crate::artillery::tree;

    #[test]
    fn a_hook_changes_its_request() {
        let text = "
config: {target: http://x}
scenarios: [{flow: [{post: {url: /a, json: {a: 1}, headers: {h: '1'}}}]}]";
        let script = read_tree(tree::parse("s", text).unwrap(), &ReadOptions::default()).unwrap();
        let Step::Request(step) = &script.scenarios[0].flow[0] else {
            panic!("a request")
        };
        let before = step.raw.as_object().cloned().unwrap();
        let changed = |patch: Value| {
            let mut after = before.clone();
            after.extend(patch.as_object().cloned().unwrap());
            let mut step = (**step).clone();
            change(&mut step, &before, &after);
            step
        };
        let step = changed(
            json!({"url": "/b", "headers": {"h": "2"}, "json": {"a": 2}, "method": "put",
            "qs": {"q": 1}, "timeout": 0.5, "auth": {"user": "u", "pass": "p"}, "followRedirect": false}),
        );
        assert_eq!(
            (step.url.as_str(), step.method.as_str(), step.follow),
            ("/b", "PUT", false)
        );
        assert_eq!(step.headers, [("h".to_owned(), json!("2"))]);
        assert_eq!(step.qs, [("q".to_owned(), json!(1))]);
        assert!(matches!(&step.body, BodySpec::Json(v) if *v == json!({"a": 2})));
        assert_eq!(step.timeout, Some(std::time::Duration::from_millis(500)));
        assert_eq!(step.auth, Some((json!("u"), json!("p"))));
        let step = changed(json!({"json": null, "body": {"$bytes": "AAE="}}));
        assert!(matches!(&step.body, BodySpec::Bytes(b) if b[..] == [0, 1]));
        let step = changed(json!({"json": null, "form": {"f": 1}, "searchParams": "?a=b"}));
        assert!(matches!(&step.body, BodySpec::Form(_)));
        assert_eq!(step.qs, [("a".to_owned(), json!("b"))]);
        // JSON goes before a body, wherever each comes from.
        let step = changed(json!({"body": "text"}));
        assert!(matches!(&step.body, BodySpec::Json(_)));
    }
}
