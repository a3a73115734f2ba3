//! Owns turning what other tools recorded or described into an Artillery script: HAR files, OpenAPI documents, access
//! logs. Must not know the terminal or files: text in, text and notes out.
//!
//! What is left out is counted in the notes. Secrets never reach the script: `{{ $env.NAME }}` stands in their place.

mod access;
mod har;
mod openapi;
mod sample;
mod script;
mod secrets;

use crate::artillery::Mistake;
use crate::artillery::mistake::{Place, Source};
use crate::artillery::tree::{self, Node};

pub use access::access_log;
pub use har::har;
pub use openapi::openapi;

/// Which requests of a source are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// All that were recorded; of an OpenAPI document only those that read.
    Usual,
    /// Only GET, HEAD and OPTIONS.
    Reading,
    /// Also those that change something.
    All,
}

/// How to import.
#[derive(Debug, Clone)]
pub struct Options {
    /// `config.target` in place of what the source says.
    pub target: Option<String>,
    /// Of a HAR: only requests to this host, or host and port; by default that of its first request.
    pub host: Option<String>,
    /// Which requests.
    pub verbs: Verbs,
    /// Users that arrive a second; by default 1, of a log its own mean rate.
    pub rate: Option<u32>,
    /// Length of the load, in seconds.
    pub duration_s: u64,
}

/// A script, and what a person should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The Artillery script, YAML.
    pub script: String,
    /// Requests in it.
    pub requests: usize,
    /// What was left out or replaced, a line each.
    pub notes: Vec<String>,
}

/// Reads a document that is JSON or YAML. JSON that YAML does not allow (such as surrogate escapes) is read too, then
/// without places.
fn document(name: &str, text: &str) -> Result<Node, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.trim_start().chars().next();
    let yaml = tree::parse(name, text);
    if yaml.is_ok() || !matches!(first, Some('{' | '[')) {
        return yaml;
    }
    let place = |line: usize, column: usize| Place {
        source: Source {
            name: name.to_owned(),
            text: text.to_owned(),
        }
        .into(),
        line: line.max(1),
        column: column.max(1),
        width: 1,
    };
    match serde_json::from_str(text) {
        Ok(value) => Ok(Node::from_value(&value, &place(1, 1))),
        Err(e) => {
            let why = e.to_string();
            let why = why.split(" at line ").next().unwrap_or_default();
            let said = format!("this is no JSON: {why}");
            Err(Mistake::at(&place(e.line(), e.column()), said))
        }
    }
}

/// Reasons told apart.
const MAX_REASONS: usize = 30;

/// Counts what is left out, by reason, in the order in which the reasons appear.
#[derive(Debug, Default)]
struct LeftOut(Vec<(String, u64)>);

impl LeftOut {
    fn add(&mut self, why: impl Into<String>) {
        let why = why.into();
        // A source cannot make the notes longer than a page.
        let full = self.0.len() >= MAX_REASONS;
        match self.0.iter().position(|(known, _)| *known == why) {
            Some(at) => self.0[at].1 += 1,
            None if full => self.0[MAX_REASONS - 1].1 += 1,
            None if self.0.len() + 1 == MAX_REASONS => {
                self.0.push(("for other reasons".to_owned(), 1))
            }
            None => self.0.push((why, 1)),
        }
    }

    fn notes(self) -> impl Iterator<Item = String> {
        let line = |(why, count)| format!("left out: {count} x {why}");
        self.0.into_iter().map(line)
    }
}

#[cfg(test)]
mod tests;
