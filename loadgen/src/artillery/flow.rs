//! Owns the flow of a scenario: each kind of step, each key of a request, and what is refused. Must not run any.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use fancy_regex::RegexBuilder;
use model::spelling::nearest;
use serde_json::Value;

use super::capture::{self, Extractor};
use super::config::expression;
use super::document::{self, Pick};
use super::expr::Expr;
use super::fake;
use super::fields::{Fields, Read, duration, list, number, one_or_more, pairs, text, truth, whole};
use super::grpc_flow;
use super::js::Processor;
use super::mistake::Mistake;
use super::script::{
    BodySpec, Capture, Engine, Expectation, GrpcOptions, Hooks, LoopStep, Match, Part, RequestStep,
    Step, Turns,
};
use super::template;
use super::tree::{Kind, Node};
use super::ws_flow;

const VERBS: [&str; 7] = ["get", "post", "put", "patch", "delete", "head", "options"];
const STEPS: [&str; 5] = ["think", "log", "loop", "parallel", "function"];

/// What a flow may refer to besides itself.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) processor: Option<&'a Processor>,
    /// What the scenario speaks.
    pub(crate) engine: Engine,
    pub(crate) grpc: &'a GrpcOptions,
    /// The plugin `fake-data` is there.
    pub(crate) fake: bool,
    /// Where warnings go.
    pub(crate) notes: &'a RefCell<Vec<String>>,
}

impl Around<'_> {
    /// Whether a template may call a function that is not built in: JavaScript may bring it along.
    fn calls(&self, name: &str) -> bool {
        self.processor.is_some() || (self.fake && fake::is_known(name))
    }

    /// The name of a JavaScript function. One that does not exist is warned of: Artillery runs such a script.
    pub(crate) fn function(&self, node: &Node, key: &str) -> Read<String> {
        let name = text(node, key)?;
        let Some(processor) = self.processor else {
            let message =
                format!("{key} names the function {name:?}, but the script has no processor");
            return Err(
                Mistake::at(&node.place, message).hint("put \"processor: ./file.js\" into config")
            );
        };
        if !processor.has(&name) && !name.contains("{{") {
            let known = processor.functions();
            let message = format!("the processor has no function {name:?}");
            let guess = nearest(&name, known.iter().map(String::as_str));
            let hint = match guess {
                Some(guess) => format!("did you mean {guess:?}? (it has: {})", known.join(", ")),
                None => format!("it has: {}", known.join(", ")),
            };
            let warning = Mistake::at(&node.place, message).hint(hint);
            self.notes.borrow_mut().push(warning.to_string());
        }
        Ok(name)
    }

    /// The functions around a request that a scenario or a request names.
    pub(crate) fn hooks(&self, fields: &Fields<'_>) -> Read<Hooks> {
        let names = |key: &'static str| self.functions(fields, key);
        Ok(Hooks {
            before: names("beforeRequest")?,
            after: names("afterResponse")?,
            on_error: names("onError")?,
        })
    }

    /// The functions of one hook: a name or a list of names.
    pub(crate) fn functions(&self, fields: &Fields<'_>, key: &str) -> Read<Vec<String>> {
        let nodes = fields.get(key).map(one_or_more).unwrap_or_default();
        nodes.iter().map(|n| self.function(n, key)).collect()
    }
}

/// The steps of a flow; a list within the list (from a YAML anchor) counts as its items.
pub(crate) fn steps(node: &Node, around: &Around<'_>) -> Read<Vec<Step>> {
    let mut all = Vec::new();
    for item in list(node, "flow")? {
        match &item.kind {
            Kind::List(_) => all.extend(steps(item, around)?),
            _ => all.push(step(item, around)?),
        }
    }
    Ok(all)
}

fn step(node: &Node, around: &Around<'_>) -> Read<Step> {
    let fields = Fields::of(node, "a step of the flow")?;
    if let Some(texts) = first_unknown_call(node).filter(|(_, name)| !around.calls(name)) {
        let message = format!("the template function {:?} does not exist", texts.1);
        return Err(
            Mistake::at(&texts.0.place, message).hint(match around.fake {
                true => format!(
                    "fake-data has here: {}",
                    fake::NAMES.map(|(n, _)| format!("${n}")).join(", ")
                ),
                false => "there are $randomNumber(a, b) and $randomString(n)".to_owned(),
            }),
        );
    }
    let keys = || fields.entries().iter().map(|(k, _)| k);
    let kind = keys().find(|k| STEPS.contains(&k.text.as_str()));
    let kind = kind.or_else(|| keys().next());
    let Some(key) = kind else {
        return Err(Mistake::at(&node.place, "an empty step"));
    };
    match key.text.as_str() {
        "loop" => loop_step(&fields, around),
        "parallel" => {
            fields.allow(&["parallel", "limit", "name"], &[])?;
            let limit = fields.get("limit").map(|n| whole(n, "limit")).transpose()?;
            Ok(Step::Parallel {
                steps: steps(fields.need("parallel")?, around)?,
                limit: limit.unwrap_or(100).clamp(1, 10_000) as usize,
            })
        }
        "think" => think(&fields),
        "log" => {
            fields.allow(&["log", "name"], &[])?;
            Ok(Step::Log(fields.need("log")?.value()))
        }
        "send" | "wait" if around.engine == Engine::Ws => {
            fields.allow(&[key.text.as_str(), "name"], &[])?;
            let node = fields.need(&key.text)?;
            Ok(Step::Ws(Box::new(ws_flow::step(&key.text, node, around)?)))
        }
        "connect" if around.engine == Engine::Ws => Err(Mistake::at(
            &key.place,
            "connect is the first step of a WebSocket scenario, and only that",
        )),
        "call" if around.engine == Engine::Grpc => {
            fields.allow(&["call", "name"], &[])?;
            let call = grpc_flow::call(fields.need("call")?, around)?;
            Ok(Step::Grpc(Box::new(call)))
        }
        verb if VERBS.contains(&verb) && around.engine != Engine::Http => {
            let (what, known) = match around.engine {
                Engine::Grpc => ("gRPC", "call, think, log, loop, parallel, function"),
                _ => (
                    "WebSocket",
                    "connect, send, wait, think, log, loop, function",
                ),
            };
            let message = format!("{verb:?} is no step of a {what} scenario");
            Err(Mistake::at(&key.place, message).hint(known))
        }
        verb if VERBS.contains(&verb) => {
            let known: Vec<&str> = vec![verb, "name"];
            if let Some((stray, _)) = fields.entries().iter().find(|(k, _)| k.text == "url") {
                return Err(Mistake::at(
                    &stray.place,
                    format!("\"url\" stands beside {verb:?}, not under it"),
                )
                .hint("indent it further"));
            }
            fields.allow(&known, &[])?;
            request(verb, fields.need(verb)?, around)
        }
        "function" => {
            fields.allow(&["function", "name"], &[])?;
            let node = fields.need("function")?;
            Ok(Step::Function(around.function(node, "function")?))
        }
        other => {
            let known = || VERBS.into_iter().chain(STEPS);
            let all: Vec<&str> = known().collect();
            let hint = match nearest(other, known()) {
                Some(guess) => format!("did you mean {guess:?}? (known: {})", all.join(", ")),
                None => format!("known steps: {}", all.join(", ")),
            };
            Err(Mistake::at(&key.place, format!("unknown step {other:?}")).hint(hint))
        }
    }
}

/// A text with a call of a function that does not exist, looked for in everything but nested steps.
fn first_unknown_call(node: &Node) -> Option<(&Node, String)> {
    match &node.kind {
        Kind::Scalar(Value::String(s)) => template::unknown_calls(s).map(|name| (node, name)),
        Kind::Scalar(_) => None,
        Kind::List(items) => items.iter().find_map(first_unknown_call),
        Kind::Map(entries) => {
            let nested = |key: &str| matches!(key, "loop" | "parallel");
            let own = entries.iter().filter(|(k, _)| !nested(&k.text));
            own.map(|(_, v)| v).find_map(first_unknown_call)
        }
    }
}

fn think(fields: &Fields<'_>) -> Read<Step> {
    fields.allow(&["think", "jitter", "name"], &[])?;
    let node = fields.need("think")?;
    let time = node.value();
    let template = time.as_str().is_some_and(|s| s.contains("{{"));
    if !template && duration(&time).is_none() {
        return Err(
            Mistake::at(&node.place, format!("think is {}", node.what()))
                .hint("expected seconds, a number with a unit such as 500ms, or a template"),
        );
    }
    Ok(Step::Think {
        time,
        jitter: fields
            .get("jitter")
            .map(|n| text(n, "jitter"))
            .transpose()?,
    })
}

fn loop_step(fields: &Fields<'_>, around: &Around<'_>) -> Read<Step> {
    let known = [
        "loop",
        "count",
        "over",
        "whileTrue",
        "loopValue",
        "loopElement",
        "name",
    ];
    fields.allow(&known, &[])?;
    let node = fields.need("loop")?;
    let turns = match (fields.get("count"), fields.get("over")) {
        _ if fields.get("whileTrue").is_some() => {
            let node = fields.need("whileTrue")?;
            let name = around.function(node, "whileTrue")?;
            if !around.processor.is_some_and(|p| p.has(&name)) {
                // Artillery would go round for ever.
                let message = format!("the processor has no function {name:?}");
                return Err(Mistake::at(&node.place, message));
            }
            Turns::While(name)
        }
        (_, Some(over)) => match &over.kind {
            Kind::List(items) => Turns::Values(items.iter().map(Node::value).collect()),
            _ => Turns::Variable(text(over, "over")?),
        },
        (Some(count), None) => {
            let value = count.value();
            let fine = match &value {
                Value::Number(n) => n.as_i64().is_some(),
                Value::String(s) => s.contains("{{") || range(s).is_some(),
                _ => false,
            };
            if !fine {
                return Err(
                    Mistake::at(&count.place, format!("count is {}", count.what()))
                        .hint("expected a whole number, \"a-b\" or a template"),
                );
            }
            Turns::Count(value)
        }
        (None, None) if matches!(&node.kind, Kind::List(items) if items.is_empty()) => {
            return Err(Mistake::at(&node.place, "the loop has no steps"));
        }
        (None, None) => {
            // As Artillery: for ever.
            let message = "the loop has none of \"count\", \"over\" and \"whileTrue\": it goes round for ever";
            let warning = Mistake::at(&node.place, message);
            let warning = warning.hint("put one beside \"loop\", at the same indent");
            around.notes.borrow_mut().push(warning.to_string());
            Turns::Count((-1).into())
        }
    };
    let name = |key: &str, default: &str| match fields.get(key) {
        Some(node) => text(node, key),
        None => Ok(default.to_owned()),
    };
    Ok(Step::Loop(Box::new(LoopStep {
        steps: steps(node, around)?,
        turns,
        index_name: name("loopValue", "$loopCount")?,
        element_name: name("loopElement", "$loopElement")?,
    })))
}

/// `n` or `a-b`: from, and up to but not including; below 0 is for ever.
pub(crate) fn range(text: &str) -> Option<(i64, i64)> {
    let text = text.trim();
    if let Ok(n) = text.parse() {
        return Some((0, n));
    }
    let (a, b) = text.split_once('-')?;
    Some((a.trim().parse().ok()?, b.trim().parse().ok()?))
}

const REQUEST: [&str; 21] = [
    "url",
    "uri",
    "name",
    "headers",
    "cookie",
    "qs",
    "json",
    "body",
    "form",
    "formData",
    "gzip",
    "followRedirect",
    "auth",
    "capture",
    "match",
    "expect",
    "ifTrue",
    "probability",
    "setContentLengthHeader",
    "beforeRequest",
    "afterResponse",
];

fn request(verb: &str, node: &Node, around: &Around<'_>) -> Read<Step> {
    let fields = Fields::of(node, "a request")?;
    fields.allow(&REQUEST, &[])?;
    let url = match fields.get("uri") {
        Some(node) => text(node, "uri")?,
        None => text(fields.need("url")?, "url")?,
    };
    let map = |key: &str, what| match fields.get(key) {
        Some(node) => pairs(node, what),
        None => Ok(Vec::new()),
    };
    let flag = |key: &str| match fields.get(key) {
        Some(node) => truth(node, key),
        None => Ok(true),
    };
    let auth = match fields.get("auth") {
        Some(node) => {
            let auth = Fields::of(node, "auth")?;
            auth.allow(&["user", "pass", "username", "password"], &[])?;
            let get = |a: &str, b: &str| auth.get(a).or_else(|| auth.get(b)).map(Node::value);
            let none = || Value::from("");
            let user = get("user", "username").unwrap_or_else(none);
            Some((user, get("pass", "password").unwrap_or_else(none)))
        }
        None => None,
    };
    let probability = fields.get("probability").map(|n| number(n, "probability"));
    let if_true = match fields.get("ifTrue") {
        Some(node) => condition(node, around)?,
        None => None,
    };
    let method = http::Method::from_bytes(verb.to_uppercase().as_bytes());
    Ok(Step::Request(Box::new(RequestStep {
        route: 0,
        method: method.unwrap_or_default(),
        url,
        name: fields.get("name").map(|n| text(n, "name")).transpose()?,
        headers: map("headers", "headers")?,
        cookie: map("cookie", "cookie")?,
        qs: map("qs", "qs")?,
        body: body(&fields)?,
        gzip: flag("gzip")?,
        follow: flag("followRedirect")?,
        auth,
        capture: captures(fields.get("capture"), around)?,
        matches: matches(fields.get("match"), around)?,
        expect: expectations(fields.get("expect"))?,
        if_true,
        probability: probability.transpose()?,
        timeout: None,
        hooks: around.hooks(&fields)?,
        raw: Arc::new(node.value()),
        fixed: OnceLock::new(),
    })))
}

/// `ifTrue`. What Artillery's expressions do not have lets the request be sent there, so it does here.
fn condition(node: &Node, around: &Around<'_>) -> Read<Option<Expr>> {
    let written = text(node, "ifTrue")?;
    if let Some(sign) = ["===", "!=="].into_iter().find(|s| written.contains(s)) {
        let message =
            format!("ifTrue: there is no {sign:?}, so the request is always sent, as in Artillery");
        let hint = "compare with == or !=, and put texts into double quotes";
        let warning = Mistake::at(&node.place, message).hint(hint);
        around.notes.borrow_mut().push(warning.to_string());
        return Ok(None);
    }
    Ok(Some(expression(node, "ifTrue")?.1))
}

fn body(fields: &Fields<'_>) -> Read<BodySpec> {
    if let Some(node) = fields.get("formData") {
        let parts = Fields::of(node, "formData")?;
        let parts = parts.entries().iter().map(|(k, v)| part(&k.text, v));
        return Ok(BodySpec::Multipart(parts.collect::<Read<_>>()?));
    }
    if let Some(node) = fields.get("form") {
        return Ok(BodySpec::Form(pairs(node, "form")?));
    }
    if let Some(node) = fields.get("json") {
        return Ok(BodySpec::Json(node.value()));
    }
    Ok(match fields.get("body") {
        Some(node) => BodySpec::Text(node.value()),
        None => BodySpec::None,
    })
}

fn part(name: &str, node: &Node) -> Read<Part> {
    let mut part = Part {
        name: name.to_owned(),
        value: node.value(),
        from_file: None,
        content_type: None,
    };
    if matches!(node.kind, Kind::Map(_)) {
        let fields = Fields::of(node, "a part of formData")?;
        fields.allow(&["fromFile", "contentType", "value"], &[])?;
        let get = |key| fields.get(key).map(|n| text(n, key)).transpose();
        part.from_file = get("fromFile")?;
        part.content_type = get("contentType")?;
        part.value = fields.get("value").map_or(Value::Null, Node::value);
    }
    Ok(part)
}

const KINDS: &str = "one of json, xpath, regexp, header and selector (with attr and index)";

fn no_regex(node: &Node, pattern: &str, error: &fancy_regex::Error) -> Mistake {
    let why = error.to_string();
    let why = why.lines().last().unwrap_or_default();
    Mistake::at(
        &node.place,
        format!("{pattern:?} is no regular expression: {why}"),
    )
}

fn extractor(fields: &Fields<'_>, around: &Around<'_>) -> Read<Extractor> {
    if let Some(node) = fields.get("json") {
        let path = text(node, "json")?;
        if !path.contains("{{") {
            capture::check_path(&path).map_err(|e| {
                let e = e.lines().next().unwrap_or_default().to_owned();
                Mistake::at(&node.place, format!("{path:?} is no JSON path: {e}"))
            })?;
        }
        let multiple = fields.get("multiple").map(|n| truth(n, "multiple"));
        let multiple = multiple.transpose()?.unwrap_or(true);
        return Ok(Extractor::Json { path, multiple });
    }
    if let Some(node) = fields.get("regexp") {
        let pattern = text(node, "regexp")?;
        let flags = fields.get("flags").map(|n| text(n, "flags")).transpose()?;
        let flags = flags.unwrap_or_default();
        let regex = RegexBuilder::new(&pattern)
            .case_insensitive(flags.contains('i'))
            .multi_line(flags.contains('m'))
            .dot_matches_new_line(flags.contains('s'))
            .build()
            .map_err(|e| no_regex(node, &pattern, &e))?;
        let group = fields.get("group").map(|n| text(n, "group")).transpose()?;
        let regex = Box::new(regex);
        return Ok(Extractor::Regexp { regex, group });
    }
    if let Some(node) = fields.get("header") {
        return Ok(Extractor::Header(text(node, "header")?));
    }
    let no = |node: &Node, what: &str, text: &str, why: String| {
        let why = why.lines().next().unwrap_or_default().to_owned();
        Mistake::at(&node.place, format!("{text:?} is no {what}: {why}"))
    };
    if let Some(node) = fields.get("xpath") {
        let path = text(node, "xpath")?;
        if !path.contains("{{") {
            // As Artillery: it finds nothing.
            if let Err(e) = document::check_xpath(&path) {
                let warning = no(node, "XPath", &path, e).hint("it finds nothing, as in Artillery");
                around.notes.borrow_mut().push(warning.to_string());
            }
        }
        return Ok(Extractor::Xpath(path));
    }
    if let Some(node) = fields.get("selector") {
        let css = text(node, "selector")?;
        if !css.contains("{{") {
            document::check_selector(&css).map_err(|e| no(node, "CSS selector", &css, e))?;
        }
        let pick = match fields.get("index") {
            None => Pick::At(0),
            Some(node) => match text(node, "index")?.as_str() {
                "last" => Pick::Last,
                "random" => Pick::Random,
                _ => Pick::At(whole(node, "index")? as usize),
            },
        };
        let attr = fields.get("attr").map(|n| text(n, "attr")).transpose()?;
        return Ok(Extractor::Selector { css, attr, pick });
    }
    Err(Mistake::at(&fields.node.place, "nothing says where the value is").hint(KINDS))
}

pub(crate) fn captures(node: Option<&Node>, around: &Around<'_>) -> Read<Vec<Capture>> {
    let mut all = Vec::new();
    for item in node.map(one_or_more).unwrap_or_default() {
        let fields = Fields::of(item, "a capture")?;
        let known = [
            "json", "xpath", "regexp", "header", "selector", "as", "strict", "group", "flags",
            "multiple", "attr", "index",
        ];
        let transform = "change the value in an afterResponse function";
        fields.allow(&known, &[("transform", transform)])?;
        all.push(Capture {
            from: extractor(&fields, around)?,
            name: text(fields.need("as")?, "as")?,
            strict: fields
                .get("strict")
                .map(|n| truth(n, "strict"))
                .transpose()?,
        });
    }
    Ok(all)
}

pub(crate) fn matches(node: Option<&Node>, around: &Around<'_>) -> Read<Vec<Match>> {
    let mut all = Vec::new();
    for item in node.map(one_or_more).unwrap_or_default() {
        let fields = Fields::of(item, "a match")?;
        let known = [
            "json", "xpath", "regexp", "header", "selector", "value", "strict", "group", "flags",
            "multiple", "attr", "index",
        ];
        fields.allow(&known, &[])?;
        let strict = fields
            .get("strict")
            .map(|n| truth(n, "strict"))
            .transpose()?;
        all.push(Match {
            from: extractor(&fields, around)?,
            value: fields.need("value")?.value(),
            strict: strict.unwrap_or(true),
        });
    }
    Ok(all)
}

const EXPECTATIONS: [&str; 13] = [
    "statusCode",
    "notStatusCode",
    "contentType",
    "hasProperty",
    "notHasProperty",
    "equals",
    "hasHeader",
    "headerEquals",
    "matchesRegexp",
    "cdnHit",
    "jmespath",
    "jpath",
    "description",
];

fn expectations(node: Option<&Node>) -> Read<Vec<Expectation>> {
    let mut all = Vec::new();
    for item in node.map(one_or_more).unwrap_or_default() {
        let fields = Fields::of(item, "an expectation")?;
        fields.allow(&EXPECTATIONS, &[])?;
        for (key, value) in fields.entries() {
            if let ("matchesRegexp", Kind::Scalar(Value::String(s))) =
                (key.text.as_str(), &value.kind)
                && let Err(e) = fancy_regex::Regex::new(s)
                && !s.contains("{{")
            {
                return Err(no_regex(value, s, &e));
            }
            if let ("jmespath" | "jpath", Kind::Scalar(Value::String(s))) =
                (key.text.as_str(), &value.kind)
                && let Err(e) = jmespath::compile(s)
            {
                let why = e.to_string();
                let why = why.lines().next().unwrap_or_default();
                let message = format!("{s:?} is no JMESPath expression: {why}");
                return Err(Mistake::at(&value.place, message));
            }
            if key.text == "description" {
                // What it is called, beside jmespath.
                continue;
            }
            let (kind, value) = (key.text.clone(), value.value());
            all.push(Expectation { kind, value });
        }
    }
    Ok(all)
}
