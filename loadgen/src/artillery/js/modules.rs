//! Owns finding modules as Node does: built-in names, files relative to the one that asks, JSON, folders, packages in
//! `node_modules`. Must not run anything.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Built-in modules there are.
pub(super) const BUILTINS: [&str; 18] = [
    "path",
    "path/posix",
    "util",
    "url",
    "querystring",
    "events",
    "crypto",
    "fs",
    "fs/promises",
    "assert",
    "assert/strict",
    "os",
    "buffer",
    "process",
    "console",
    "timers",
    "timers/promises",
    "perf_hooks",
];

/// Built-in modules of Node that there are not.
const REFUSED: [&str; 22] = [
    "http",
    "https",
    "http2",
    "net",
    "tls",
    "dns",
    "dgram",
    "child_process",
    "cluster",
    "worker_threads",
    "stream",
    "zlib",
    "readline",
    "vm",
    "v8",
    "tty",
    "string_decoder",
    "async_hooks",
    "inspector",
    "os/constants",
    "diagnostics_channel",
    "wasi",
];

/// The largest file read, in bytes.
pub(super) const MAX_FILE: u64 = 32 << 20;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Builtin(String),
    Json(PathBuf),
    /// A CommonJS module.
    Common(PathBuf),
    /// An ES module.
    Module(PathBuf),
}

impl Found {
    /// As the JavaScript side names it: kind and path.
    pub(super) fn parts(&self) -> (&'static str, String) {
        match self {
            Found::Builtin(name) => ("builtin", name.clone()),
            Found::Json(path) => ("json", path.display().to_string()),
            Found::Common(path) => ("common", path.display().to_string()),
            Found::Module(path) => ("module", path.display().to_string()),
        }
    }
}

/// Finds what `name` means in the file `from`.
pub(super) fn resolve(from: &Path, name: &str) -> Result<Found, String> {
    let plain = name.strip_prefix("node:");
    let bare = plain.unwrap_or(name);
    if BUILTINS.contains(&bare) {
        return Ok(Found::Builtin(bare.to_owned()));
    }
    if plain.is_some() || REFUSED.contains(&bare) {
        return Err(format!(
            "the built-in module {bare:?} is not supported; there are {}",
            BUILTINS.join(", ")
        ));
    }
    let folder = from.parent().unwrap_or(Path::new("/"));
    if name.starts_with("./")
        || name.starts_with("../")
        || name.starts_with('/')
        || name == "."
        || name == ".."
    {
        let path = plainly(&folder.join(name));
        return file_or_folder(&path).ok_or_else(|| {
            format!(
                "cannot find module {name:?} ({} does not exist)",
                path.display()
            )
        })?;
    }
    for place in folder.ancestors().take(64) {
        let found = package(&place.join("node_modules"), name);
        if let Some(found) = found {
            return found;
        }
    }
    Err(format!(
        "cannot find the package {name:?}: no node_modules beside the script has it (npm install puts it there)"
    ))
}

/// `a/./b/../c` as `a/c`.
fn plainly(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

fn file_or_folder(path: &Path) -> Option<Result<Found, String>> {
    let exact = path.is_file().then(|| path.to_owned());
    let guess = || {
        let tried = [".js", ".json", ".cjs", ".mjs"];
        tried
            .into_iter()
            .map(|e| with_extension(path, e))
            .find(|p| p.is_file())
    };
    if let Some(file) = exact.or_else(guess) {
        return Some(kind(&file));
    }
    let typescript = with_extension(path, ".ts");
    if typescript.is_file() {
        return Some(kind(&typescript));
    }
    if !path.is_dir() {
        return None;
    }
    let main = package_json(path).and_then(|p| Some(p.get("main")?.as_str()?.to_owned()));
    if let Some(main) = main
        && let Some(found) = file_or_folder(&plainly(&path.join(main)))
    {
        return Some(found);
    }
    ["index.js", "index.json", "index.cjs", "index.mjs"]
        .into_iter()
        .map(|name| path.join(name))
        .find(|p| p.is_file())
        .map(|p| kind(&p))
}

fn package_json(folder: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(folder.join("package.json")).ok()?;
    serde_json::from_str(&text).ok()
}

/// `name`, `name/sub` or `@scope/name/sub` in a `node_modules`.
fn package(modules: &Path, name: &str) -> Option<Result<Found, String>> {
    let words = if name.starts_with('@') { 2 } else { 1 };
    let mut parts = name.splitn(words + 1, '/');
    let folder = parts
        .by_ref()
        .take(words)
        .fold(modules.to_owned(), |at, part| at.join(part));
    if !folder.is_dir() {
        return None;
    }
    let below = parts.next();
    let exports = package_json(&folder).and_then(|p| p.get("exports").cloned());
    let key = below.map_or_else(|| ".".to_owned(), |b| format!("./{b}"));
    if let Some(exports) = exports {
        let entry = match &exports {
            Value::Object(map) if map.keys().any(|k| k.starts_with('.')) => map.get(&key),
            whole if below.is_none() => Some(whole),
            _ => None,
        };
        if let Some(target) = entry.and_then(condition) {
            return file_or_folder(&plainly(&folder.join(target)));
        }
    }
    match below {
        Some(below) => file_or_folder(&folder.join(below)),
        None => file_or_folder(&folder),
    }
}

/// The target of `exports` that a program like Node gets, CommonJS first.
fn condition(value: &Value) -> Option<String> {
    match value {
        Value::String(target) => Some(target.clone()),
        Value::Array(items) => items.iter().find_map(condition),
        Value::Object(map) => ["require", "node", "default", "import"]
            .into_iter()
            .find_map(|name| map.get(name).and_then(condition)),
        _ => None,
    }
}

/// What kind of module a file is.
pub(super) fn kind(file: &Path) -> Result<Found, String> {
    let file = file.to_owned();
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or("js");
    Ok(match extension {
        "json" => Found::Json(file),
        "mjs" => Found::Module(file),
        "cjs" => Found::Common(file),
        "ts" | "mts" | "cts" | "tsx" => {
            return Err(format!(
                "{} is TypeScript, which does not run here; compile it to JavaScript (npx tsc, npx esbuild)",
                file.display()
            ));
        }
        _ => match is_module(&file) {
            true => Found::Module(file),
            false => Found::Common(file),
        },
    })
}

/// A `.js` file is an ES module when its package says so or, as in Node 22, when it is written as one.
fn is_module(file: &Path) -> bool {
    for folder in file.ancestors().skip(1).take(64) {
        if let Some(package) = package_json(folder) {
            match package.get("type").and_then(Value::as_str) {
                Some("module") => return true,
                Some("commonjs") => return false,
                _ => break,
            }
        }
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().any(|line| {
        let rest = |word: &str| line.strip_prefix(word).and_then(|r| r.chars().next());
        rest("export").is_some_and(|c| c == ' ' || c == '{' || c == '*')
            || rest("import").is_some_and(|c| c == ' ' || c == '{' || c == '*')
    })
}

/// Reads a module's text.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map(|m| m.len());
    if size.is_ok_and(|n| n > MAX_FILE) {
        return Err(format!("{} is larger than 32 MiB", path.display()));
    }
    let bytes =
        std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    // As Node: what is no UTF-8 is replaced.
    let text = String::from_utf8_lossy(&bytes);
    // A line that names an interpreter is no JavaScript; keep the count of lines.
    Ok(match text.strip_prefix("#!") {
        Some(rest) => format!("//{rest}"),
        None => text.into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_files_as_in_node() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("a.js", "module.exports = 1");
        put("m.js", "export const a = 1");
        put("d.json", "{}");
        put("t.ts", "let a: number");
        put("sub/index.js", "");
        put("node_modules/p/package.json", r#"{"main": "lib/x.js"}"#);
        put("node_modules/p/lib/x.js", "");
        put("node_modules/p/extra.js", "");
        put(
            "node_modules/@s/q/package.json",
            r#"{"exports": {".": {"import": "./i.mjs", "require": "./r.cjs"}}}"#,
        );
        put("node_modules/@s/q/r.cjs", "");
        let from = dir.path().join("sub/from.js");
        for (name, want) in [
            ("../a", "common a.js"),
            ("../m.js", "module m.js"),
            ("../d", "json d.json"),
            (".", "common sub/index.js"),
            ("p", "common node_modules/p/lib/x.js"),
            ("p/extra", "common node_modules/p/extra.js"),
            ("@s/q", "common node_modules/@s/q/r.cjs"),
            ("node:fs", "builtin fs"),
        ] {
            let (kind, path) = resolve(&from, name).unwrap().parts();
            let path = path.replace(&format!("{}/", dir.path().display()), "");
            assert_eq!(format!("{kind} {path}"), want, "{name}");
        }
        for (name, why) in [
            ("../t", "is TypeScript"),
            ("node:https", "\"https\" is not supported"),
            ("nix", "cannot find the package \"nix\""),
            ("./nix", "cannot find module \"./nix\""),
        ] {
            let error = resolve(&from, name).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
