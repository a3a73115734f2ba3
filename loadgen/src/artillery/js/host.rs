//! Owns the functions that the JavaScript side gets from Rust: time, text and bytes, digests, URLs, reading files below
//! the script's folder, and the ends of calls. Must not know who calls or why.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rquickjs::function::Func;
use rquickjs::{Ctx, Exception, Function, Object, Result, TypedArray, Value};

use super::modules::{self, Found};
use super::realm::{Finished, Setting};
use crate::artillery::template;

/// What comes before a CommonJS module's text, on its first line.
pub(super) const WRAPPER: &str = "(function (exports, require, module, __filename, __dirname) {";

/// What the host's functions share with the thread that runs them.
pub(super) struct Desk {
    pub(super) setting: Setting,
    pub(super) began: Instant,
    /// Calls that are under way.
    pub(super) pending: RefCell<HashMap<u64, super::Reply>>,
    /// The module that an ES module asked for in vain: by which file, its name, why.
    pub(super) missing: RefCell<Option<(String, String, String)>>,
}

fn throw<'js, T>(ctx: &Ctx<'js>, code: &str, message: &str) -> Result<T> {
    let error = Exception::from_message(ctx.clone(), message)?.into_object();
    error.set("code", code)?;
    Err(ctx.throw(error.into_value()))
}

fn bytes<'js>(ctx: &Ctx<'js>, data: Vec<u8>) -> Result<Value<'js>> {
    TypedArray::new(ctx.clone(), data).map(TypedArray::into_value)
}

/// The object of all functions.
pub(super) fn host<'js>(ctx: &Ctx<'js>, desk: &Rc<Desk>) -> Result<Object<'js>> {
    let host = Object::new(ctx.clone())?;
    let began = desk.began;
    host.set(
        "now",
        Func::from(move || began.elapsed().as_secs_f64() * 1e3),
    )?;
    let directory = desk.setting.directory.display().to_string();
    host.set("directory", directory)?;
    host.set("origin", 0)?;
    run(ctx, &host, desk)?;
    text(&host)?;
    files(&host, desk)?;
    loading(&host, desk)?;
    Ok(host)
}

/// What belongs to the run.
fn run<'js>(ctx: &Ctx<'js>, host: &Object<'js>, desk: &Rc<Desk>) -> Result<()> {
    let sink = || std::sync::Arc::clone(&desk.setting.sink);
    let out = sink();
    let say = move |wrong: bool, text: String| out.say(wrong, text);
    host.set("say", Func::from(say))?;
    let out = sink();
    let emit = move |kind: String, name: String, value: f64| {
        let Some(run) = out.run() else { return };
        match kind.as_str() {
            "counter" => run.count(&name, value.max(0.0).round() as u64),
            "rate" => run.rate(&name),
            "error" => run.count(&format!("errors.{name}"), 1),
            _ => run.time(&name, value),
        }
    };
    host.set("emit", Func::from(emit))?;
    let out = sink();
    let exit_code = move |code: i32| -> Option<i32> {
        let mut state = super::lock(&out.state);
        if code >= 0 {
            state.exit_code = Some(code);
        }
        state.exit_code
    };
    host.set("exitCode", Func::from(exit_code))?;
    let env = serde_json::to_string(&desk.setting.env).unwrap_or_default();
    host.set("env", Func::from(move || env.clone()))?;
    let memory = |ctx: Ctx<'_>| {
        let _ = ctx;
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let resident: u64 = pages
            .split(' ')
            .nth(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        serde_json::json!({"rss": resident * 4096, "heapUsed": 0, "heapTotal": 0, "external": 0})
            .to_string()
    };
    host.set("memory", Func::from(memory))?;
    let at = Rc::clone(desk);
    let done = move |id: f64, error: String, changes: String, value: String| {
        at.finish(
            id as u64,
            &Finished {
                error,
                changes,
                value,
            },
        );
    };
    host.set("done", Function::new(ctx.clone(), done)?)?;
    Ok(())
}

/// Text, bytes, digests, URLs. Bytes come in as texts of one character a byte.
fn text(host: &Object<'_>) -> Result<()> {
    host.set("utf8", Func::from(utf8))?;
    let decode = |data: String| String::from_utf8_lossy(&unpacked(&data)).into_owned();
    host.set("text", Func::from(decode))?;
    let base64 = |data: String, url: bool| match url {
        true => URL_SAFE_NO_PAD.encode(unpacked(&data)),
        false => STANDARD.encode(unpacked(&data)),
    };
    host.set("base64", Func::from(base64))?;
    host.set("unbase64", Func::from(unbase64))?;
    host.set("random", Func::from(random))?;
    host.set("uuid", Func::from(template::uuid))?;
    host.set("digest", Func::from(digest))?;
    host.set("hmac", Func::from(hmac))?;
    host.set("url", Func::from(url))
}

fn unpacked(text: &str) -> Vec<u8> {
    text.chars().map(|c| c as u32 as u8).collect()
}

fn utf8<'js>(ctx: Ctx<'js>, text: String) -> Result<Value<'js>> {
    bytes(&ctx, text.into_bytes())
}

fn unbase64<'js>(ctx: Ctx<'js>, text: String) -> Result<Value<'js>> {
    let digit = |c| match c {
        '-' => Some('+'),
        '_' => Some('/'),
        c if c.is_ascii_alphanumeric() || c == '+' || c == '/' => Some(c),
        _ => None,
    };
    let plain: String = text.chars().filter_map(digit).collect();
    bytes(&ctx, STANDARD_NO_PAD.decode(plain).unwrap_or_default())
}

fn random<'js>(ctx: Ctx<'js>, size: f64) -> Result<Value<'js>> {
    let mut data = vec![0_u8; size.clamp(0.0, 65_536.0) as usize];
    rand::fill(&mut data[..]);
    bytes(&ctx, data)
}

fn digest<'js>(ctx: Ctx<'js>, name: String, data: String) -> Result<Value<'js>> {
    let found = super::digest::digest(&name, &unpacked(&data));
    bytes(&ctx, found.unwrap_or_default())
}

fn hmac<'js>(ctx: Ctx<'js>, name: String, key: String, data: String) -> Result<Value<'js>> {
    let found = super::digest::hmac(&name, &unpacked(&key), &unpacked(&data));
    bytes(&ctx, found.unwrap_or_default())
}

/// The parts of a URL as JSON, one of them changed first when `part` is given; none when it is no URL.
fn url(href: String, base: String, part: String, value: String) -> Option<String> {
    let mut url = match base.as_str() {
        "" => url::Url::parse(&href),
        base => url::Url::parse(base).and_then(|b| b.join(&href)),
    }
    .ok()?;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match part.as_str() {
        "" => {}
        "href" => url = url::Url::parse(&value).ok()?,
        "protocol" => url.set_scheme(value.trim_end_matches(':')).ok()?,
        "username" => url.set_username(&value).ok()?,
        "password" => url.set_password(some(&value).as_deref()).ok()?,
        "host" => match value.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => {
                url.set_host(Some(name)).ok()?;
                url.set_port(port.parse().ok()).ok()?;
            }
            _ => url.set_host(Some(&value)).ok()?,
        },
        "hostname" => url.set_host(Some(&value)).ok()?,
        "port" => url.set_port(value.parse().ok()).ok()?,
        "pathname" => url.set_path(&value),
        "search" => url.set_query(some(value.trim_start_matches('?')).as_deref()),
        _ => url.set_fragment(some(value.trim_start_matches('#')).as_deref()),
    }
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| p.to_string()).unwrap_or_default();
    let with = |mark: &str, text: Option<&str>| match text {
        Some(text) if !text.is_empty() => format!("{mark}{text}"),
        _ => String::new(),
    };
    let full_host = format!("{host}{}", with(":", Some(&port)));
    let parts = serde_json::json!({
        "href": url.as_str(), "protocol": format!("{}:", url.scheme()), "username": url.username(),
        "password": url.password().unwrap_or_default(), "host": full_host, "hostname": host, "port": port,
        "pathname": url.path(), "search": with("?", url.query()), "hash": with("#", url.fragment()),
        "origin": url.origin().ascii_serialization(),
    });
    Some(parts.to_string())
}

/// Files below the script's folder.
fn files<'js>(host: &Object<'js>, desk: &Rc<Desk>) -> Result<()> {
    let root = desk.setting.directory.clone();
    let read = move |ctx: Ctx<'js>, path: String| -> Result<Value<'js>> {
        let path = inside(&ctx, &root, &path, "open")?;
        let size = std::fs::metadata(&path).map_or(0, |m| m.len());
        if size > modules::MAX_FILE {
            return throw(
                &ctx,
                "EFBIG",
                &format!("EFBIG: {} is larger than 32 MiB", path.display()),
            );
        }
        match std::fs::read(&path) {
            Ok(data) => bytes(&ctx, data),
            Err(e) => throw(&ctx, "EIO", &format!("{e}, open '{}'", path.display())),
        }
    };
    host.set("readFile", Func::from(read))?;
    let root = desk.setting.directory.clone();
    let stat = move |ctx: Ctx<'js>, path: String| -> Result<String> {
        let path = inside(&ctx, &root, &path, "stat")?;
        let Ok(found) = std::fs::metadata(&path) else {
            return throw(
                &ctx,
                "ENOENT",
                &format!(
                    "ENOENT: no such file or directory, stat '{}'",
                    path.display()
                ),
            );
        };
        let changed = found.modified().ok();
        let since = changed.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let ms = since.unwrap_or_default().as_millis() as u64;
        Ok(serde_json::json!([found.len(), found.is_dir(), ms]).to_string())
    };
    host.set("stat", Func::from(stat))?;
    let root = desk.setting.directory.clone();
    let list = move |ctx: Ctx<'js>, path: String| -> Result<String> {
        let path = inside(&ctx, &root, &path, "scandir")?;
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .take(100_000)
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(serde_json::json!(names).to_string())
    };
    host.set("list", Func::from(list))
}

/// The real path, when it is below `root`.
fn inside(ctx: &Ctx<'_>, root: &Path, path: &str, doing: &str) -> Result<PathBuf> {
    let Ok(real) = Path::new(path).canonicalize() else {
        let text = format!("ENOENT: no such file or directory, {doing} '{path}'");
        return throw(ctx, "ENOENT", &text);
    };
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    if real.starts_with(&root) {
        return Ok(real);
    }
    let text =
        format!("EACCES: a processor reads files below the script's folder only, {doing} '{path}'");
    throw(ctx, "EACCES", &text)
}

/// Modules.
fn loading<'js>(host: &Object<'js>, desk: &Rc<Desk>) -> Result<()> {
    let _ = desk;
    let resolve = |ctx: Ctx<'js>, from: String, name: String| -> Result<Vec<String>> {
        match modules::resolve(Path::new(&from), &name) {
            Ok(found) => {
                let (kind, path) = found.parts();
                Ok(vec![kind.to_owned(), path])
            }
            Err(why) => throw(&ctx, "MODULE_NOT_FOUND", &why),
        }
    };
    host.set("resolve", Func::from(resolve))?;
    let source = |ctx: Ctx<'js>, path: String| -> Result<String> {
        modules::text(Path::new(&path)).or_else(|why| throw(&ctx, "ENOENT", &why))
    };
    host.set("source", Func::from(source))?;
    let compile = |ctx: Ctx<'js>, path: String| -> Result<Value<'js>> {
        let text = modules::text(Path::new(&path)).or_else(|why| throw(&ctx, "ENOENT", &why))?;
        evaluate(&ctx, &path, format!("{WRAPPER}{text}\n}})"))
    };
    host.set("compile", Func::from(compile))?;
    host.set(
        "called",
        Func::from(|stack: String| super::realm::called(&stack)),
    )
}

/// Evaluates a text that stands in a file, as sloppy code.
pub(super) fn evaluate<'js>(ctx: &Ctx<'js>, file: &str, text: String) -> Result<Value<'js>> {
    let mut options = rquickjs::context::EvalOptions::default();
    options.global = true;
    options.strict = false;
    options.filename = Some(file.to_owned());
    ctx.eval_with_options(text, options)
}

/// Finds and loads what ES modules import.
pub(super) struct Imports(pub(super) Rc<Desk>);

impl rquickjs::loader::Resolver for Imports {
    fn resolve<'js>(
        &mut self,
        _ctx: &Ctx<'js>,
        base: &str,
        name: &str,
        _attributes: Option<rquickjs::loader::ImportAttributes<'js>>,
    ) -> Result<String> {
        match modules::resolve(Path::new(base), name) {
            Ok(Found::Module(path)) => Ok(path.display().to_string()),
            Ok(found) => {
                let (kind, path) = found.parts();
                Ok(format!("{kind}:{path}"))
            }
            Err(why) => {
                let mut missing = self.0.missing.borrow_mut();
                missing.get_or_insert((base.to_owned(), name.to_owned(), why.clone()));
                Err(rquickjs::Error::new_resolving_message(base, name, why))
            }
        }
    }
}

impl rquickjs::loader::Loader for Imports {
    fn load<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        name: &str,
        _attributes: Option<rquickjs::loader::ImportAttributes<'js>>,
    ) -> Result<rquickjs::Module<'js, rquickjs::module::Declared>> {
        let Some((kind, path)) = name.split_once(':') else {
            let text = modules::text(Path::new(name));
            let text = text.or_else(|why| throw(ctx, "ENOENT", &why))?;
            let module = rquickjs::Module::declare(ctx.clone(), name, text)?;
            let meta = module.meta()?;
            meta.set("url", format!("file://{name}"))?;
            meta.set("filename", name)?;
            let folder = Path::new(name).parent().unwrap_or(Path::new("/"));
            meta.set("dirname", folder.display().to_string())?;
            return Ok(module);
        };
        let require: Function<'js> = ctx.globals().get("__nines_require")?;
        let exports: Value<'js> = require.call((kind, path))?;
        let mut source = format!(
            "const m = __nines_require({kind:?}, {});\nexport default m;\n",
            serde_json::Value::from(path)
        );
        let names = exports.as_object().map(|o| o.keys::<String>());
        for (i, key) in names.into_iter().flatten().enumerate() {
            let key = key?;
            let fine = key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$');
            if fine && key != "default" && !key.starts_with(|c: char| c.is_ascii_digit()) {
                source.push_str(&format!(
                    "const _{i} = m.{key};\nexport {{ _{i} as {key} }};\n"
                ));
            }
        }
        rquickjs::Module::declare(ctx.clone(), name, source)
    }
}
