//! Owns the `config` section: each key, its type, its default, and what is refused. Must not know flows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::fields::{Fields, Read, list, number, one_or_more, pairs, span, text, truth, whole};
use super::js::{Processor, Unusable};
use super::mistake::{Mistake, Place, Source};
use super::payload::{self, Payload};
use super::read::{ReadOptions, directory};
use super::script::{
    AfterResponse, EndpointOptions, ExpectOptions, HttpOptions, Phase, PhaseKind, Script, Step,
};
use super::tree::{Kind, Node};
use super::{ensure, expr, fake, grpc_flow, ws_flow};
use crate::conn::Target;

const KNOWN: [&str; 17] = [
    "target",
    "phases",
    "http",
    "tls",
    "payload",
    "variables",
    "plugins",
    "ensure",
    "defaults",
    "timeout",
    "mode",
    "statsInterval",
    "engines",
    "includeFiles",
    "apdex",
    "processor",
    "ws",
];

const REFUSED: [(&str, &str); 3] = [
    (
        "pluginsScope",
        "plugins of one's own (npm packages) are not supported",
    ),
    (
        "socketio",
        "the Socket.IO engine is not supported; http, ws and grpc are",
    ),
    ("bundling", "it is for Artillery's cloud only; remove it"),
];

/// Reads `config`; scenarios are left empty.
pub(crate) fn read(
    node: &Node,
    options: &ReadOptions,
    env: BTreeMap<String, String>,
) -> Read<Script> {
    let fields = Fields::of(node, "config")?;
    fields.allow(&KNOWN, &REFUSED)?;
    let target_node = fields.need("target")?;
    let target = text(target_node, "target")?;
    Target::parse(&as_http(&target)).map_err(|e| Mistake::at(&target_node.place, e.to_string()))?;
    let mut grpc_node = None;
    if let Some(engines) = fields.get("engines") {
        let engines = Fields::of(engines, "config.engines")?;
        engines.allow(&["http", "ws", "grpc"], &[])?;
        grpc_node = engines.get("grpc");
    }
    let poisson = match fields.get("mode") {
        Some(mode) => is_poisson(mode)?,
        None => false,
    };
    let mut notes = Vec::new();
    let http = http(&fields, &mut notes)?;
    let mut script = Script {
        name: options.script.display().to_string(),
        directory: directory(&options.script),
        config_directory: directory(options.config.as_ref().unwrap_or(&options.script)),
        environment: options.environment.clone(),
        processor: processor(&fields, options, &env)?,
        env: Arc::new(env),
        target,
        phases: phases(&fields, poisson, &mut notes)?,
        scenarios: Vec::new(),
        before: None,
        after: None,
        variables: variables(&fields)?,
        payloads: payloads(&fields, options)?,
        grpc: grpc_flow::options(grpc_node, options)?,
        ws: ws_flow::options(fields.get("ws"), http.timeout)?,
        http,
        insecure: options.insecure,
        checks: Vec::new(),
        expect: None,
        apdex: None,
        after_response: Vec::new(),
        endpoints: EndpointOptions {
            only_names: false,
            strip_query: true,
            ignore_unnamed: false,
            group_dynamic: true,
            namespace: "plugins.metrics-by-endpoint".to_owned(),
            show: false,
        },
        fake: None,
        notes,
    };
    if script.target.ends_with('/') {
        let doubled = "the target ends with \"/\", so the path of a request begins with \"//\", as in Artillery";
        script.notes.push(doubled.to_owned());
    }
    if let Some(tls) = fields.get("tls") {
        let tls = Fields::of(tls, "config.tls")?;
        tls.allow(&["rejectUnauthorized"], &[])?;
        if let Some(reject) = tls.get("rejectUnauthorized") {
            script.insecure |= !truth(reject, "rejectUnauthorized")?;
        }
    }
    if let Some(plugins) = fields.get("plugins") {
        read_plugins(plugins, &mut script)?;
    }
    if !script.after_response.contains(&AfterResponse::Endpoint) {
        // As Artillery, which adds the plugin when it is not named.
        script.after_response.push(AfterResponse::Endpoint);
    }
    if let Some(node) = fields.get("apdex") {
        let threshold = apdex(node)?;
        match script.apdex {
            Some(_) => script.apdex = Some(threshold),
            None => script.notes.push(
                "apdex is not counted: it needs \"plugins: { apdex: {} }\" in config, as in Artillery".to_owned(),
            ),
        }
    }
    if let Some(node) = fields.get("ensure") {
        let checks = ensure::read(node)?;
        if has_plugin(&fields, "ensure") {
            // As Artillery: instead of what stands under the plugin.
            script.checks = checks;
        } else if !checks.is_empty() {
            script.notes.push(
                "ensure is not checked: it needs \"plugins: { ensure: {} }\" in config, as in Artillery".to_owned(),
            );
        }
    }
    Ok(script)
}

/// Whether `config.plugins` names it, with options or without.
fn has_plugin(config: &Fields<'_>, name: &str) -> bool {
    match config.get("plugins").map(|n| &n.kind) {
        Some(Kind::Map(entries)) => entries.iter().any(|(k, _)| k.text == name),
        _ => false,
    }
}

/// The JavaScript of the script: relative to the file that `--config` names, or else, as in Artillery, to the script.
fn processor(
    config: &Fields<'_>,
    options: &ReadOptions,
    env: &BTreeMap<String, String>,
) -> Read<Option<Arc<Processor>>> {
    let Some(node) = config.get("processor") else {
        return Ok(None);
    };
    let name = text(node, "processor")?;
    let beside = |file: &Path| directory(file).join(&name);
    let file = match options.config.as_deref().map(beside) {
        Some(file) if file.exists() => file,
        _ => beside(&options.script),
    };
    let file = match file.canonicalize() {
        Ok(file) => file,
        Err(e) => {
            let message = format!("{} cannot be read: {e}", file.display());
            return Err(Mistake::at(&node.place, message));
        }
    };
    let folder = directory(&options.script);
    match Processor::load(&file, &folder, env) {
        Ok(processor) => Ok(Some(Arc::new(processor))),
        Err(unusable) => Err(unusable_mistake(&unusable, &node.place)),
    }
}

/// At the place in the JavaScript when it is known, else where the script names it.
fn unusable_mistake(unusable: &Unusable, named: &Place) -> Mistake {
    let file = unusable.file.display().to_string();
    let Some((line, column)) = unusable.at else {
        return Mistake::at(named, &unusable.why);
    };
    let text = std::fs::read_to_string(&unusable.file).unwrap_or_default();
    let place = Place {
        source: Arc::new(Source { name: file, text }),
        line,
        column,
        width: 1,
    };
    let mistake = Mistake::at(&place, &unusable.why);
    match &unusable.hint {
        Some(hint) => mistake.hint(hint),
        None => mistake,
    }
}

/// A WebSocket's address as the HTTP address it shares host and port with.
pub(crate) fn as_http(target: &str) -> String {
    match target.strip_prefix("ws") {
        Some(rest) if rest.starts_with("://") || rest.starts_with("s://") => format!("http{rest}"),
        _ => target.to_owned(),
    }
}

/// The same for a URL.
pub(crate) fn as_http_url(url: &url::Url) -> url::Url {
    let http = url::Url::parse(&as_http(url.as_str()));
    http.unwrap_or_else(|_| url.clone())
}

fn is_poisson(node: &Node) -> Read<bool> {
    match text(node, "mode")?.as_str() {
        "uniform" => Ok(false),
        "poisson" => Ok(true),
        other => Err(
            Mistake::at(&node.place, format!("mode {other:?} is not known"))
                .hint("uniform or poisson"),
        ),
    }
}

fn phases(config: &Fields<'_>, poisson: bool, notes: &mut Vec<String>) -> Read<Vec<Phase>> {
    let Some(node) = config.get("phases") else {
        // As Artillery does: one user.
        return Ok(vec![Phase {
            name: None,
            length: Duration::from_secs(1),
            kind: PhaseKind::Count(1),
            max_vusers: None,
        }]);
    };
    let mut all = Vec::new();
    for item in list(node, "phases")? {
        all.push(phase(item, poisson, notes)?);
    }
    if all.is_empty() {
        return Err(Mistake::at(
            &node.place,
            "phases is empty: no user would arrive",
        ));
    }
    Ok(all)
}

fn phase(node: &Node, poisson: bool, notes: &mut Vec<String>) -> Read<Phase> {
    let fields = Fields::of(node, "a phase")?;
    let known = [
        "duration",
        "arrivalRate",
        "arrivalCount",
        "rampTo",
        "pause",
        "maxVusers",
        "name",
        "mode",
    ];
    fields.allow(&known, &[])?;
    let has = |key: &str| fields.get(key).is_some();
    let kinds = ["pause", "arrivalCount", "arrivalRate"].map(|k| (k, has(k)));
    let mut kinds = kinds.into_iter().filter_map(|(k, has)| has.then_some(k));
    let kind = kinds.next();
    if let (Some(first), Some(second)) = (kind, kinds.next()) {
        // Phases laid upon each other become this.
        let message = format!("a phase has {first} and {second}: {first} counts, as in Artillery");
        notes.push(Mistake::at(&node.place, message).to_string());
    }
    let Some(kind) = kind else {
        let message = "a phase has exactly one of arrivalRate, arrivalCount and pause";
        return Err(Mistake::at(&node.place, message).hint(
            "such as: duration: 60, arrivalRate: 5 (users a second), and rampTo: 50 for a ramp",
        ));
    };
    if has("rampTo") && !has("arrivalRate") {
        return Err(Mistake::at(
            &node.place,
            "rampTo needs arrivalRate, where the ramp begins",
        ));
    }
    let poisson = match fields.get("mode") {
        Some(mode) => is_poisson(mode)?,
        None => poisson,
    };
    let rate = |key: &str| match fields.get(key) {
        Some(node) => match number(node, key)? {
            n if n <= 100_000.0 => Ok(Some(n)),
            n => Err(Mistake::at(
                &node.place,
                format!("{key} {n} is beyond 100000 a second"),
            )),
        },
        None => Ok(None),
    };
    let (length, kind) = if let Some(pause) = fields.get("pause") {
        (span(pause, "pause")?, PhaseKind::Pause)
    } else {
        let length = span(fields.need("duration")?, "duration")?;
        let kind = match (kind, rate("arrivalRate")?, rate("rampTo")?) {
            ("arrivalRate", Some(0.0), None) => PhaseKind::Pause,
            ("arrivalRate", Some(rate), None) => PhaseKind::Rate { rate, poisson },
            ("arrivalRate", Some(from), Some(to)) => PhaseKind::Ramp { from, to },
            _ => PhaseKind::Count(whole(fields.need("arrivalCount")?, "arrivalCount")?),
        };
        (length, kind)
    };
    let name = fields.get("name").map(|n| text(n, "name")).transpose()?;
    let max = fields.get("maxVusers").map(|n| whole(n, "maxVusers"));
    Ok(Phase {
        name,
        length,
        kind,
        max_vusers: max.transpose()?,
    })
}

fn variables(config: &Fields<'_>) -> Read<Vec<(String, Vec<Value>)>> {
    let Some(node) = config.get("variables") else {
        return Ok(Vec::new());
    };
    let all = pairs(node, "config.variables")?.into_iter();
    Ok(all
        .map(|(name, value)| match value {
            Value::Array(values) => (name, values),
            value => (name, vec![value]),
        })
        .collect())
}

fn payloads(config: &Fields<'_>, options: &ReadOptions) -> Read<Vec<Payload>> {
    let Some(node) = config.get("payload") else {
        return Ok(Vec::new());
    };
    one_or_more(node)
        .iter()
        .map(|n| payload(n, options))
        .collect()
}

fn payload(node: &Node, options: &ReadOptions) -> Read<Payload> {
    let fields = Fields::of(node, "config.payload")?;
    let known = [
        "path",
        "fields",
        "order",
        "skipHeader",
        "delimiter",
        "cast",
        "skipEmptyLines",
        "loadAll",
        "name",
        "options",
    ];
    let csv = "it stands under \"options\"";
    fields.allow(&known, &[("quote", csv), ("escape", csv), ("columns", csv)])?;
    let mut read = payload::Options::default();
    if let Some(node) = fields.get("options") {
        csv_options(node, &mut read)?;
    }
    let flag = |key: &str, default| match fields.get(key) {
        Some(node) => truth(node, key),
        None => Ok(default),
    };
    if let Some(node) = fields.get("delimiter") {
        read.delimiter = character(node, "delimiter")?;
    }
    let order = fields
        .get("order")
        .map(|n| Ok((n, text(n, "order")?)))
        .transpose()?;
    let sequence = match order {
        None => false,
        Some((_, order)) if order == "random" => false,
        Some((_, order)) if order == "sequence" => true,
        Some((node, order)) => {
            return Err(
                Mistake::at(&node.place, format!("order {order:?} is not known"))
                    .hint("random or sequence"),
            );
        }
    };
    let (path, place) = match (fields.get("path"), &options.payload) {
        (Some(node), _) => {
            let path = text(node, "path")?;
            (directory(&options.script).join(path), &node.place)
        }
        (None, Some(path)) => (path.clone(), &node.place),
        (None, None) => {
            return Err(Mistake::at(&node.place, "the payload names no file")
                .hint("give it a \"path\", or use --payload"));
        }
    };
    read.skip_header = flag("skipHeader", false)?;
    read.skip_empty = flag("skipEmptyLines", read.skip_empty)?;
    read.cast = flag("cast", read.cast)?;
    let mut names = Vec::new();
    if let Some(node) = fields.get("fields") {
        for item in list(node, "fields")? {
            names.push(text(item, "fields")?);
        }
    }
    let load_all = match (flag("loadAll", false)?, fields.get("name")) {
        (true, Some(name)) => Some(text(name, "name")?),
        (true, None) => {
            return Err(Mistake::at(
                &node.place,
                "loadAll needs \"name\", the variable to hold the rows",
            ));
        }
        (false, _) => None,
    };
    if names.is_empty() && load_all.is_none() {
        return Err(Mistake::at(
            &node.place,
            "the payload has no \"fields\", the names of its columns",
        ));
    }
    Ok(Payload {
        fields: names,
        rows: Arc::new(rows(&path, &read, place)?),
        sequence,
        load_all,
        next: Arc::default(),
    })
}

fn character(node: &Node, key: &str) -> Read<char> {
    let text = text(node, key)?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => Err(Mistake::at(&node.place, format!("{key} is one character"))),
    }
}

/// Options of csv-parse, which Artillery hands on.
fn csv_options(node: &Node, read: &mut payload::Options) -> Read<()> {
    let fields = Fields::of(node, "the options of the payload")?;
    let known = [
        "delimiter",
        "quote",
        "escape",
        "comment",
        "trim",
        "ltrim",
        "rtrim",
        "from_line",
        "to_line",
        "to",
        "cast",
        "skip_empty_lines",
        "relax_column_count",
        "relax_quotes",
        "bom",
    ];
    fields.allow(&known, &[])?;
    for (key, node) in fields.entries() {
        match key.text.as_str() {
            "delimiter" => read.delimiter = character(node, "delimiter")?,
            "quote" => {
                let none = matches!(node.kind, Kind::Scalar(Value::Null | Value::Bool(false)));
                read.quote = (!none).then(|| character(node, "quote")).transpose()?;
            }
            "escape" => read.escape = Some(character(node, "escape")?),
            "comment" => read.comment = Some(text(node, "comment")?),
            "trim" => {
                (read.trim_start, read.trim_end) = (truth(node, "trim")?, truth(node, "trim")?)
            }
            "ltrim" => read.trim_start = truth(node, "ltrim")?,
            "rtrim" => read.trim_end = truth(node, "rtrim")?,
            "from_line" => read.from_line = whole(node, "from_line")? as usize,
            "to_line" => read.to_line = Some(whole(node, "to_line")? as usize),
            "to" => read.to = Some(whole(node, "to")? as usize),
            "cast" => read.cast = truth(node, "cast")?,
            "skip_empty_lines" => read.skip_empty = truth(node, "skip_empty_lines")?,
            // Rows of any length, stray quotes and a byte order mark are taken always.
            _ => {
                truth(node, &key.text)?;
            }
        }
    }
    Ok(())
}

fn rows(
    path: &Path,
    options: &payload::Options,
    place: &super::mistake::Place,
) -> Read<Vec<Vec<Value>>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Mistake::at(
            place,
            format!("cannot read the payload {}: {e}", path.display()),
        )
    })?;
    payload::parse(&text, options).map_err(|line| {
        let message = format!(
            "{}:{line}: a quote opens here and never closes",
            path.display()
        );
        Mistake::at(place, message)
    })
}

fn http(config: &Fields<'_>, notes: &mut Vec<String>) -> Read<HttpOptions> {
    let mut http = HttpOptions {
        timeout: Duration::from_secs(10),
        pool: None,
        headers: Vec::new(),
        cookie: Vec::new(),
        strict_capture: true,
        think_jitter: None,
        extended_metrics: false,
        loose_cookies: false,
    };
    if let Some(node) = config.get("defaults") {
        defaults(node, &mut http, notes)?;
    }
    if let Some(node) = config.get("http") {
        let fields = Fields::of(node, "config.http")?;
        fields.allow(
            &[
                "timeout",
                "pool",
                "maxSockets",
                "extendedMetrics",
                "defaults",
                "distributedTracing",
                "cookieJarOptions",
            ],
            &[],
        )?;
        if let Some(node) = fields.get("cookieJarOptions") {
            let options = Fields::of(node, "cookieJarOptions")?;
            let public =
                "there is no list of public suffixes here: any domain of the host is taken";
            options.allow(
                &["looseMode", "prefixSecurity", "allowSpecialUseDomain"],
                &[("rejectPublicSuffixes", public)],
            )?;
            if let Some(node) = options.get("looseMode") {
                http.loose_cookies = truth(node, "looseMode")?;
            }
        }
        for key in ["maxSockets", "pool"] {
            if let Some(node) = fields.get(key) {
                let pool = whole(node, key)?;
                if !(1..=65_536).contains(&pool) {
                    return Err(Mistake::at(
                        &node.place,
                        format!("{key} {pool} is not 1 to 65536"),
                    ));
                }
                // Each user has one connection anyhow: only `pool` is shared.
                http.pool = (key == "pool").then_some(pool as usize).or(http.pool);
            }
        }
        if let Some(node) = fields.get("extendedMetrics") {
            http.extended_metrics = truth(node, "extendedMetrics")?;
        }
        if let Some(node) = fields.get("timeout") {
            http.timeout = timeout(node)?;
        }
        if let Some(node) = fields.get("defaults") {
            defaults(node, &mut http, notes)?;
        }
    }
    if let Some(node) = config.get("timeout") {
        http.timeout = timeout(node)?;
    }
    Ok(http)
}

fn timeout(node: &Node) -> Read<Duration> {
    let timeout = span(node, "timeout")?;
    if timeout > Duration::from_secs(600) {
        return Err(Mistake::at(&node.place, "timeout is beyond 10 minutes"));
    }
    Ok(timeout)
}

fn defaults(node: &Node, http: &mut HttpOptions, notes: &mut Vec<String>) -> Read<()> {
    let fields = Fields::of(node, "the http defaults")?;
    fields.allow(&["headers", "cookie", "strictCapture", "think"], &[])?;
    if let Some(node) = fields.get("headers") {
        http.headers = pairs(node, "headers")?;
    }
    if let Some(node) = fields.get("cookie") {
        http.cookie = pairs(node, "cookie")?;
    }
    if let Some(node) = fields.get("strictCapture") {
        http.strict_capture = truth(node, "strictCapture")?;
    }
    if let Some(node) = fields.get("think") {
        if let Kind::Scalar(Value::Number(_)) = node.kind {
            let message = "a number as default of think changes nothing, as in Artillery";
            let hint = "a default is there for the jitter only: think: { jitter: \"20%\" }";
            notes.push(Mistake::at(&node.place, message).hint(hint).to_string());
            return Ok(());
        }
        let think = Fields::of(node, "think")?;
        think.allow(&["jitter"], &[])?;
        http.think_jitter = think.get("jitter").map(|n| text(n, "jitter")).transpose()?;
    }
    Ok(())
}

fn read_plugins(node: &Node, script: &mut Script) -> Read<()> {
    let fields = Fields::of(node, "config.plugins")?;
    let known = [
        "ensure",
        "expect",
        "metrics-by-endpoint",
        "apdex",
        "fake-data",
    ];
    for (key, node) in fields.entries() {
        let given = matches!(node.kind, Kind::Map(_));
        script.after_response.extend(match key.text.as_str() {
            "expect" => Some(AfterResponse::Expect),
            "apdex" => Some(AfterResponse::Apdex),
            "metrics-by-endpoint" => Some(AfterResponse::Endpoint),
            _ => None,
        });
        match key.text.as_str() {
            "ensure" if given => script.checks.extend(ensure::read(node)?),
            "expect" => script.expect = Some(expect_options(node)?),
            "metrics-by-endpoint" if given => endpoint_options(node, &mut script.endpoints)?,
            "apdex" => script.apdex = Some(apdex(node)?),
            "fake-data" => script.fake = Some(fake_options(node)?),
            "publish-metrics" => {
                let message = "the plugin \"publish-metrics\" is not supported";
                return Err(Mistake::at(&key.place, message)
                    .hint("--agent URL sends the run's series to an agent, which writes them to Prometheus, OTLP and others"));
            }
            "slack" => {
                let message = "the plugin \"slack\" is not supported";
                return Err(Mistake::at(&key.place, message)
                    .hint("\"nines gate\" judges the report; the agent's alerts notify Slack"));
            }
            "ensure" | "metrics-by-endpoint" => {}
            other => {
                let message = format!("the plugin {other:?} is not supported");
                let hint = format!("supported plugins: {}", known.join(", "));
                return Err(Mistake::at(&key.place, message).hint(hint));
            }
        }
    }
    Ok(())
}

fn fake_options(node: &Node) -> Read<fake::Options> {
    let mut options = fake::Options::default();
    if !matches!(node.kind, Kind::Map(_)) {
        return Ok(options);
    }
    let fields = Fields::of(node, "plugins.fake-data")?;
    fields.allow(&["numberInt"], &[])?;
    if let Some(node) = fields.get("numberInt") {
        let fields = Fields::of(node, "numberInt")?;
        fields.allow(&["min", "max"], &[])?;
        let bound = |key, default| match fields.get(key) {
            Some(node) => Ok(whole(node, key)? as i64),
            None => Ok(default),
        };
        options.int = (bound("min", options.int.0)?, bound("max", options.int.1)?);
    }
    Ok(options)
}

/// The threshold of `apdex`, 500 ms when it has none.
fn apdex(node: &Node) -> Read<Duration> {
    let default = Duration::from_millis(500);
    if !matches!(node.kind, Kind::Map(_)) {
        return Ok(default);
    }
    let fields = Fields::of(node, "apdex")?;
    fields.allow(&["threshold"], &[])?;
    let Some(node) = fields.get("threshold") else {
        return Ok(default);
    };
    let ms = number(node, "threshold")?;
    Duration::try_from_secs_f64(ms / 1e3)
        .map_err(|e| Mistake::at(&node.place, format!("threshold: {e}")))
}

fn expect_options(node: &Node) -> Read<ExpectOptions> {
    let mut options = ExpectOptions {
        failures_are_errors: false,
        default_200: false,
        only_names: false,
    };
    if !matches!(node.kind, Kind::Map(_)) {
        return Ok(options);
    }
    let fields = Fields::of(node, "plugins.expect")?;
    let known = [
        "outputFormat",
        "formatter",
        "reportFailuresAsErrors",
        "expectDefault200",
        "useOnlyRequestNames",
    ];
    fields.allow(&known, &[])?;
    for (key, slot) in [
        ("reportFailuresAsErrors", &mut options.failures_are_errors),
        ("expectDefault200", &mut options.default_200),
        ("useOnlyRequestNames", &mut options.only_names),
    ] {
        if let Some(node) = fields.get(key) {
            *slot = truth(node, key)?;
        }
    }
    Ok(options)
}

fn endpoint_options(node: &Node, options: &mut EndpointOptions) -> Read<()> {
    let fields = Fields::of(node, "plugins.metrics-by-endpoint")?;
    let known = [
        "useOnlyRequestNames",
        "stripQueryString",
        "ignoreUnnamedRequests",
        "groupDynamicURLs",
        "metricsNamespace",
        "suppressOutput",
    ];
    fields.allow(&known, &[])?;
    (options.show, options.strip_query) = (true, false);
    let mut hide = false;
    for (key, slot) in [
        ("useOnlyRequestNames", &mut options.only_names),
        ("stripQueryString", &mut options.strip_query),
        ("ignoreUnnamedRequests", &mut options.ignore_unnamed),
        ("groupDynamicURLs", &mut options.group_dynamic),
        ("suppressOutput", &mut hide),
    ] {
        if let Some(node) = fields.get(key) {
            *slot = truth(node, key)?;
        }
    }
    options.show = !hide;
    if let Some(node) = fields.get("metricsNamespace") {
        options.namespace = text(node, "metricsNamespace")?;
    }
    Ok(())
}

/// Expectations count only with the plugin: as Artillery, but not silently.
pub(crate) fn check_expectations(script: &mut Script) {
    fn has(steps: &[Step]) -> bool {
        steps.iter().any(|step| match step {
            Step::Request(r) => !r.expect.is_empty(),
            Step::Loop(l) => has(&l.steps),
            Step::Parallel { steps, .. } => has(steps),
            Step::Think { .. } | Step::Log(_) | Step::Function(_) | Step::Ws(_) | Step::Grpc(_) => {
                false
            }
        })
    }
    if script.expect.is_none() && script.scenarios.iter().any(|s| has(&s.flow)) {
        script.notes.push(
            "expect is not checked: it needs \"plugins: { expect: {} }\" in config, as in Artillery".to_owned(),
        );
    }
}

/// Parses an expression that stands at a node.
pub(crate) fn expression(node: &Node, key: &str) -> Read<(String, expr::Expr)> {
    let source = text(node, key)?;
    let parsed = expr::parse(&source, &[]).map_err(|wrong| {
        let mut place = node.place.clone();
        let line = place.source.text.lines().nth(place.line.saturating_sub(1));
        let first = line.and_then(|l| l.chars().nth(place.column.saturating_sub(1)));
        place.column += wrong.at + usize::from(matches!(first, Some('"' | '\'')));
        place.width = 1;
        Mistake::at(&place, format!("{key}: {}", wrong.why))
    })?;
    Ok((source, parsed))
}
