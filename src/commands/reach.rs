//! How a command reaches an agent or another server, and how results are laid out.
//!
//! Owns the address and token flags, the JSON and table output. Must not know what is asked.

use clap::Args;
use client::{Client, Peer, RemoteSource};

/// Where the agent is.
#[derive(Debug, Clone, Args)]
pub struct Reach {
    /// The agent's address (or any Prometheus-compatible server, for queries)
    #[arg(
        long = "url",
        env = "NINES_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:9909"
    )]
    pub url: String,

    /// The agent's bearer token
    #[arg(
        long,
        env = "NINES_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,
}

impl Reach {
    /// A client for it.
    pub fn client(&self) -> Client {
        Client::new(self.url.clone()).with_token(self.token.clone())
    }
}

/// A Prometheus-compatible server to read from instead of an agent.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// Read from this Prometheus-compatible server instead of an agent
    #[arg(long, env = "NINES_SOURCE", value_name = "URL")]
    pub source: Option<String>,

    /// The bearer token of --source
    #[arg(
        long,
        env = "NINES_SOURCE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub source_token: Option<String>,
}

/// Who evaluates PromQL over `--source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Evaluate {
    /// We do, over its samples: the same semantics whatever the server
    Here,
    /// The server does
    There,
}

impl Remote {
    /// A client of the server, when one is named.
    pub fn client(&self) -> Option<Client> {
        let url = self.source.clone()?;
        let client = Client::new(url).with_peer(Peer::Server);
        Some(client.with_token(self.source_token.clone()))
    }

    /// The client of the server, or else of the agent.
    pub fn client_or(&self, reach: &Reach) -> Client {
        self.client().unwrap_or_else(|| reach.client())
    }
}

/// A server as a source of series. Must be called within a runtime.
pub fn source(client: Client, evaluate: Evaluate) -> RemoteSource {
    let evaluate = match evaluate {
        Evaluate::Here => client::Evaluate::Here,
        Evaluate::There => client::Evaluate::There,
    };
    RemoteSource::new(client, tokio::runtime::Handle::current()).evaluating(evaluate)
}

/// Runs blocking work (reading from a [`RemoteSource`]) on a runtime and waits for it.
pub fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    crate::console::block_on(async { tokio::task::spawn_blocking(work).await? })
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Any serialisable value as indented JSON with a last newline.
pub fn json<T: serde::Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Rows as columns that line up, two spaces between them.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.chars().count());
        cells
            .chain([header[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(header.to_vec());
    for row in rows {
        out += &line(row.iter().map(String::as_str).collect());
    }
    out
}

/// Text from elsewhere without the control characters that would move a terminal's cursor.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_go() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["long".to_owned(), "2".to_owned()],
        ];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME  N\na     1\nlong  2\n");
        assert_eq!(clean("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}
