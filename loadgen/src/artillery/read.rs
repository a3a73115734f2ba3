//! Owns reading a script as the command line asks: files merged, environment and overrides laid over, templates of
//! the configuration filled in, then checked section by section. Must not open a connection.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::spelling::nearest;
use serde_json::Value;

use super::fields::{Fields, Read, list, text};
use super::mistake::{Mistake, Place, Source};
use super::script::{Connect, Engine, Scenario, Script, Step};
use super::template::{self, Segment};
use super::tree::{self, Kind, Lists, Node};
use super::{config, flow, ws_flow};

/// What to read and what the command line lays over it.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// The script.
    pub script: PathBuf,
    /// A file whose content is laid over the script's own.
    pub config: Option<PathBuf>,
    /// Name of one of `config.environments`.
    pub environment: Option<String>,
    /// Replaces `config.target`.
    pub target: Option<String>,
    /// JSON laid over the whole script.
    pub overrides: Option<String>,
    /// JSON object of variables, laid over `config.variables`.
    pub variables: Option<String>,
    /// CSV for a `config.payload` that names no path.
    pub payload: Option<PathBuf>,
    /// Trust any certificate.
    pub insecure: bool,
    /// File of `NAME=value` lines, under the environment of the process.
    pub dotenv: Option<PathBuf>,
    /// Run only this scenario: its name or a regular expression that fits one.
    pub scenario_name: Option<String>,
}

/// Reads and checks a script.
///
/// # Errors
/// The first mistake, with its place.
pub fn read(options: &ReadOptions) -> Result<Script, Mistake> {
    let mut root = file(&options.script)?;
    if let Some(path) = &options.config {
        root.merge(file(path)?, Lists::ByPlace);
    }
    read_tree(root, options)
}

fn file(path: &Path) -> Read<Node> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Mistake::file(&name, format!("cannot be read: {e}")))?;
    tree::parse(&name, &text)
}

/// A value given on the command line as JSON.
fn argument(flag: &str, text: &str) -> Read<Node> {
    let node = tree::parse(flag, text)?;
    match &node.kind {
        Kind::Map(_) => Ok(node),
        _ => Err(Mistake::at(
            &node.place,
            format!("{} instead of a JSON object", node.what()),
        )),
    }
}

const TOP: [&str; 4] = ["config", "scenarios", "before", "after"];

/// Checks a script that has been parsed.
pub(crate) fn read_tree(mut root: Node, options: &ReadOptions) -> Result<Script, Mistake> {
    Fields::of(&root, "the script")?;
    let mut config = match root.remove("config") {
        Some(config) => config,
        None if options.config.is_none() && options.target.is_none() => {
            return Err(Mistake::at(&root.place, "the script has no \"config\"")
                .hint("it needs at least config.target"));
        }
        None => Node::from_value(&Value::Object(serde_json::Map::new()), &root.place),
    };
    // As in Compose files: a place for anchors.
    if let Kind::Map(entries) = &mut root.kind {
        entries.retain(|(key, _)| !key.text.starts_with("x-"));
    }
    let version = root.remove("version").is_some();
    let mut variables = None;
    let nowhere = lay_environment(&mut config, options)?;
    let on_line = |value: &str, flag: &str| {
        let place = flag_place(flag, value);
        Node::from_value(&Value::from(value), &place)
    };
    if let Some(target) = &options.target {
        config.set("target", on_line(target, "--target"));
    }
    if let Some(json) = &options.overrides {
        let mut over = argument("--overrides", json)?;
        if let Some(mut over) = over.remove("config") {
            // The environment has been chosen.
            over.remove("environments");
            config.merge(over, Lists::Replaced);
        }
        root.merge(over, Lists::Replaced);
    }
    Fields::of(&root, "the script")?.allow(&TOP, &[])?;
    if let Some(json) = &options.variables {
        let given = argument("--variables", json)?;
        variables = Some(given.value());
        let empty = Node::from_value(&Value::Object(serde_json::Map::new()), &given.place);
        let mut all = config.remove("variables").unwrap_or(empty);
        if let Kind::Map(entries) = given.kind {
            for (key, value) in entries {
                all.set(&key.text, value);
            }
        }
        config.set("variables", all);
    }
    let env = environment(options)?;
    let empty = fill_config(&mut config, options, variables.as_ref(), &env)?;
    let mut script = config::read(&config, options, env)?;
    script.notes.extend(empty);
    script.notes.extend(nowhere);
    let fields = Fields::of(&root, "the script")?;
    let notes = RefCell::new(Vec::new());
    if version {
        notes
            .borrow_mut()
            .push("\"version\" changes nothing, as in Artillery".to_owned());
    }
    let processor = script.processor.clone();
    let grpc = script.grpc.clone();
    let around = flow::Around {
        processor: processor.as_deref(),
        engine: Engine::Http,
        grpc: &grpc,
        fake: script.fake.is_some(),
        notes: &notes,
    };
    script.scenarios = scenarios(&fields, options.scenario_name.as_deref(), &around)?;
    for (key, slot) in [("before", &mut script.before), ("after", &mut script.after)] {
        if let Some(node) = fields.get(key) {
            *slot = Some(scenario(node, 0, &around)?);
        }
    }
    script.notes.extend(notes.take());
    config::check_expectations(&mut script);
    Ok(script)
}

fn flag_place(flag: &str, value: &str) -> Place {
    let source = Source {
        name: flag.to_owned(),
        text: value.to_owned(),
    };
    Place {
        source: source.into(),
        line: 1,
        column: 1,
        width: value.chars().count(),
    }
}

/// Lays the chosen environment over the configuration. Gives a warning when the script has none at all, which is no error
/// in Artillery: `$environment` stands for the name all the same.
fn lay_environment(config: &mut Node, options: &ReadOptions) -> Read<Option<String>> {
    let environments = config.remove("environments");
    let Some(wanted) = &options.environment else {
        return Ok(None);
    };
    if environments.is_none() {
        let warning = format!("there is no environment {wanted:?}: config.environments is missing");
        return Ok(Some(warning));
    }
    let place = environments.as_ref().unwrap_or(config).place.clone();
    let mut environments = environments;
    if let Some(chosen) = environments.as_mut().and_then(|e| e.remove(wanted)) {
        config.merge(chosen, Lists::ByPlace);
        return Ok(None);
    }
    let names: Vec<&str> = match environments.as_ref().map(|e| &e.kind) {
        Some(Kind::Map(entries)) => entries.iter().map(|(k, _)| k.text.as_str()).collect(),
        _ => Vec::new(),
    };
    let message = format!("there is no environment {wanted:?}");
    let hint = match nearest(wanted, names.iter().copied()) {
        Some(guess) => format!("did you mean {guess:?}? (known: {})", names.join(", ")),
        None => format!("known: {}", names.join(", ")),
    };
    Err(Mistake::at(&place, message).hint(hint))
}

/// What templates of the configuration may name.
struct ConfigVariables<'a> {
    options: &'a ReadOptions,
    given: Option<&'a Value>,
    env: &'a BTreeMap<String, String>,
}

impl template::Variables for ConfigVariables<'_> {
    fn find(&self, path: &[Segment]) -> Option<Value> {
        match path.first()?.0.as_str() {
            "$env" | "$processEnvironment" => {
                self.env.get(&path.get(1)?.0).map(|v| v.as_str().into())
            }
            "$environment" => self.options.environment.clone().map(Value::from),
            "$dirname" => {
                let beside = self.options.config.as_ref();
                let file = beside.unwrap_or(&self.options.script);
                Some(directory(file).display().to_string().into())
            }
            "$scenarioFile" => {
                let file = std::path::absolute(&self.options.script);
                Some(file.ok()?.display().to_string().into())
            }
            _ => template::descend(self.given?, path).cloned(),
        }
    }
}

/// The directory of a file, absolute when it can be known.
pub(crate) fn directory(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().map(Path::to_owned).unwrap_or_default()
}

/// The environment of the process, over it what `--dotenv` says.
fn environment(options: &ReadOptions) -> Read<BTreeMap<String, String>> {
    let mut all: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let Some(path) = &options.dotenv else {
        return Ok(all);
    };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Mistake::file(&name, format!("cannot be read: {e}")))?;
    for (i, line) in text.lines().enumerate() {
        let plain = line.trim();
        let plain = plain.strip_prefix("export ").unwrap_or(plain).trim_start();
        if plain.is_empty() || plain.starts_with('#') {
            continue;
        }
        let Some((key, value)) = plain.split_once('=') else {
            let message = format!("line {}: {line:?} is not NAME=value", i + 1);
            return Err(Mistake::file(&name, message));
        };
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|q| {
            let inner = value.strip_prefix(q)?;
            Some((q, inner.split_once(q)?.0))
        });
        let value = match quoted {
            Some(('"', inner)) => inner.replace("\\n", "\n"),
            Some((_, inner)) => inner.to_owned(),
            None => value
                .split(" #")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
        };
        all.insert(key.trim().to_owned(), value);
    }
    Ok(all)
}

/// Fills in the templates of the configuration. As in Artillery, this happens once: what names a variable of the virtual
/// users becomes nothing. Gives a warning for each.
fn fill_config(
    config: &mut Node,
    options: &ReadOptions,
    given: Option<&Value>,
    env: &BTreeMap<String, String>,
) -> Read<Vec<String>> {
    let warnings = RefCell::new(Vec::new());
    let vars = ConfigVariables {
        options,
        given,
        env,
    };
    config.map_texts(&|text, place| {
        if !text.contains("{{") {
            return Ok(None);
        }
        for name in template::names(text) {
            let known = template::Variables::find(&vars, &name).is_some();
            match name.first().map(|s| s.0.as_str()) {
                _ if known => {}
                Some("$env" | "$processEnvironment") => {
                    let variable = name.get(1).map_or("", |s| s.0.as_str());
                    let message = format!("the environment variable {variable:?} is not set");
                    return Err(Mistake::at(place, message));
                }
                // The run's, which has none yet: filled in for each user.
                Some("$testId") => return Ok(None),
                Some(first) => {
                    let message = format!("{first:?} is not known when the configuration is read, so it stands for nothing, as in Artillery");
                    let hint = "$env and --variables are known here; in scenarios those of the users are too";
                    let warning = Mistake::at(place, message).hint(hint);
                    warnings.borrow_mut().push(warning.to_string());
                }
                None => {}
            }
        }
        let filled = template::fill(&Value::from(text), &vars);
        Ok(Some(filled.unwrap_or(Value::Null)))
    })?;
    Ok(warnings.into_inner())
}

fn scenarios(
    fields: &Fields<'_>,
    wanted: Option<&str>,
    around: &flow::Around<'_>,
) -> Read<Vec<Scenario>> {
    let node = fields.need("scenarios")?;
    let items = list(node, "scenarios")?;
    let mut all = Vec::new();
    for (i, item) in items.iter().enumerate() {
        all.push(scenario(item, i, around)?);
    }
    if all.is_empty() {
        return Err(Mistake::at(
            &node.place,
            "scenarios is empty: there is nothing to do",
        ));
    }
    if let Some(wanted) = wanted {
        let regex = regex::Regex::new(wanted).ok();
        let named =
            |s: &Scenario| s.name == wanted || regex.as_ref().is_some_and(|r| r.is_match(&s.name));
        let names: Vec<String> = all.iter().map(|s| s.name.clone()).collect();
        all.retain(named);
        if all.len() != 1 {
            let message = format!("{} scenarios fit {wanted:?}; expected one", all.len());
            let hint = format!("scenarios: {}", names.join(", "));
            return Err(Mistake::at(&node.place, message).hint(hint));
        }
    }
    Ok(all)
}

fn scenario(node: &Node, index: usize, around: &flow::Around<'_>) -> Read<Scenario> {
    let fields = Fields::of(node, "a scenario")?;
    let known = [
        "name",
        "weight",
        "flow",
        "engine",
        "beforeScenario",
        "afterScenario",
        "beforeRequest",
        "afterResponse",
        "onError",
    ];
    fields.allow(&known, &[])?;
    let mut around = *around;
    if let Some(engine) = fields.get("engine") {
        around.engine = match text(engine, "engine")?.as_str() {
            "http" => Engine::Http,
            "ws" => Engine::Ws,
            "grpc" => Engine::Grpc,
            name => {
                let message = format!("the engine {name:?} is not supported");
                return Err(Mistake::at(&engine.place, message).hint("http, ws and grpc are"));
            }
        };
    }
    let around = &around;
    let name = match fields.get("name") {
        Some(name) => text(name, "name")?,
        None => index.to_string(),
    };
    let weight = fields.get("weight").map_or(Value::from(1), Node::value);
    let functions = |key: &str| -> Read<Vec<Step>> {
        let names = around.functions(&fields, key)?;
        Ok(names.into_iter().map(Step::Function).collect())
    };
    let mut steps = functions("beforeScenario")?;
    let (flow, connect) = connection(fields.need("flow")?, around)?;
    steps.extend(flow::steps(&flow, around)?);
    steps.extend(functions("afterScenario")?);
    Ok(Scenario {
        name,
        weight,
        flow: steps,
        hooks: around.hooks(&fields)?,
        engine: around.engine,
        connect,
    })
}

/// A WebSocket scenario's flow without its first step, when that says where to connect.
fn connection(flow: &Node, around: &flow::Around<'_>) -> Read<(Node, Option<Connect>)> {
    let mut flow = flow.clone();
    if around.engine == Engine::Ws
        && let Kind::List(items) = &mut flow.kind
        && let Some(Kind::Map(entries)) = items.first().map(|n| &n.kind)
        && let Some((_, node)) = entries.iter().find(|(k, _)| k.text == "connect")
    {
        let connect = ws_flow::connect(node, around)?;
        items.remove(0);
        return Ok((flow, Some(connect)));
    }
    Ok((flow, None))
}
