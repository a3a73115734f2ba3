//! `nines config show`: the agent's settings, and where each comes from.
//!
//! Owns the listing, and which values are not shown. Must not know what a setting does.

use std::collections::BTreeSet;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value as Json, json};

use super::agent;
use super::reach::{self, Format, clean, table};
use crate::console::{CommandResult, Outcome, print, read_file, usage};

/// Flags of `nines config`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every setting with its value; takes the flags of `nines agent`
    Show(Box<Show>),
}

#[derive(Debug, ClapArgs)]
struct Show {
    /// Show where each comes from: a flag, a variable, the file, or the default
    #[arg(long)]
    origin: bool,

    /// Output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    #[command(flatten)]
    agent: agent::Args,
}

/// Words in a setting's name that say that its value is nobody's business.
const SECRET: [&str; 6] = ["token", "key", "secret", "password", "headers", "dsn"];

/// Runs the subcommand.
pub fn run(args: Args) -> CommandResult {
    let Command::Show(show) = args.command;
    let overridden = show.agent.overridden();
    let file = match show.agent.file() {
        None => None,
        Some(path) => Some(read_file(&path)?),
    };
    let config = agent::configure(show.agent)?;
    let mut in_file = BTreeSet::new();
    if let Some((name, text)) = &file {
        // The whole file was read as a configuration before; an empty one is no value at all.
        let tree: Option<Json> =
            serde_saphyr::from_str(text).map_err(|e| usage(format!("{name}: {e}")))?;
        let mut all = Vec::new();
        flatten("", &tree.unwrap_or(Json::Null), &mut all);
        in_file.extend(all.into_iter().map(|(setting, _)| setting));
    }
    let mut settings = Vec::new();
    flatten("", &serde_json::to_value(&config)?, &mut settings);
    let origin = |setting: &str| {
        let by_flag = overridden.iter().find(|(s, ..)| below(setting, s));
        match (by_flag, &file) {
            (Some((_, flag, variable)), _) => by_hand(flag, variable),
            // A value may be a list in the file and a part of it here, or the other way round.
            (None, Some((name, _))) if in_file.iter().any(|s| below(setting, s)) => {
                format!("file {name}")
            }
            _ => "default".to_owned(),
        }
    };
    let shown: Vec<(String, Json, String)> = settings
        .into_iter()
        .map(|(setting, value)| {
            let origin = origin(&setting);
            let value = mask(&setting, value);
            (setting, value, origin)
        })
        .collect();
    match show.format {
        Format::Json => {
            let all = shown.iter().map(|(setting, value, origin)| {
                let mut one = json!({"setting": setting, "value": value});
                if show.origin {
                    one["origin"] = json!(origin);
                }
                one
            });
            print(&reach::json(&all.collect::<Vec<_>>())?)?;
        }
        Format::Text => {
            let columns = if show.origin { 3 } else { 2 };
            let rows: Vec<Vec<String>> = shown
                .iter()
                .map(|(setting, value, origin)| {
                    let mut row = vec![clean(setting), clean(&plain(value)), clean(origin)];
                    row.truncate(columns);
                    row
                })
                .collect();
            print(&table(&["SETTING", "VALUE", "ORIGIN"][..columns], &rows))?;
        }
    }
    Ok(Outcome::Good)
}

/// Whether the flag was on the command line; otherwise its variable did it.
fn by_hand(flag: &str, variable: &str) -> String {
    let given = std::env::args().any(|a| {
        let rest = a.strip_prefix(flag);
        rest.is_some_and(|r| r.is_empty() || r.starts_with('='))
    });
    match given || variable.is_empty() {
        true => format!("flag {flag}"),
        false => format!("variable {variable}"),
    }
}

/// Whether `setting` is `of` or a part of it.
fn below(setting: &str, of: &str) -> bool {
    let rest = setting.strip_prefix(of);
    rest.is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']))
}

/// Every leaf with its dotted name. Empty lists and maps are leaves.
fn flatten(at: &str, value: &Json, out: &mut Vec<(String, Json)>) {
    match value {
        Json::Object(all) if !all.is_empty() => {
            for (key, value) in all {
                let name = match at {
                    "" => key.clone(),
                    _ => format!("{at}.{key}"),
                };
                flatten(&name, value, out);
            }
        }
        Json::Array(all) if !all.is_empty() => {
            for (index, value) in all.iter().enumerate() {
                flatten(&format!("{at}[{index}]"), value, out);
            }
        }
        Json::Null if at.is_empty() => {}
        _ => out.push((at.to_owned(), value.clone())),
    }
}

/// The configuration as JSON without its secrets.
pub fn masked(at: &str, value: Json) -> Json {
    match value {
        Json::Object(all) => {
            let one = |(key, value): (String, Json)| {
                let value = masked(&format!("{at}.{key}"), value);
                (key, value)
            };
            all.into_iter().map(one).collect()
        }
        Json::Array(all) => all.into_iter().map(|v| masked(at, v)).collect(),
        leaf => mask(at, leaf),
    }
}

fn mask(setting: &str, value: Json) -> Json {
    let Json::String(text) = &value else {
        return value;
    };
    let secret = setting
        .split(['.', '['])
        .any(|part| SECRET.iter().any(|word| part.contains(word)) && !part.ends_with("_file"));
    let user_info = text
        .split_once("://")
        .is_some_and(|(_, rest)| rest.split(['/', '?']).next().unwrap_or("").contains('@'));
    match secret || user_info || text.contains("password=") {
        true => json!("[secret]"),
        false => value,
    }
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) if text.is_empty() => "\"\"".to_owned(),
        Json::String(text) => text.clone(),
        Json::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let tree = masked("", json!({"a": [{"token": "x", "n": 1}], "token": null}));
        let wanted = json!({"a": [{"token": "[secret]", "n": 1}], "token": null});
        assert_eq!(tree, wanted);
        for (setting, text, hidden) in [
            ("token", "x", true),
            ("token_file", "/etc/token", false),
            ("remote_write[0].headers.A", "x", true),
            (
                "alerts.delivery.receivers[0].pagerduty.routing_key",
                "x",
                true,
            ),
            ("collect.redis[0].url", "redis://:pw@127.0.0.1/", true),
            ("collect.postgres[0].url", "host=a password=b", true),
            ("remote_write[0].url", "http://a:9090/x@y", false),
            ("name", "shop", false),
        ] {
            let shown = mask(setting, json!(text));
            assert_eq!(shown == json!("[secret]"), hidden, "{setting}");
        }
    }

    #[test]
    fn leaves_have_dotted_names() {
        let mut out = Vec::new();
        flatten("", &json!({"a": {"b": [1, {"c": "d"}]}, "e": []}), &mut out);
        let names: Vec<&str> = out.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["a.b[0]", "a.b[1].c", "e"]);
        assert!(below("a.b[0]", "a.b") && below("a", "a") && !below("ab", "a"));
    }
}
