//! Where a load's own series go: an agent, and any receiver of remote write.
//!
//! Owns those flags, and what is kept while a receiver is away. Must not know what the series say.

use clap::Args as ClapArgs;
use client::Client;
use model::Labels;

use crate::console::{note, usage};

/// Samples kept for a receiver that is away; more are dropped, the oldest first, and counted.
const KEPT: usize = 200_000;
/// Last tries when the load is over, a second apart.
const LAST_TRIES: u32 = 5;

/// A receiver of remote write.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct RemoteWrite {
    /// Send the run's own series to this remote-write receiver, such as http://prometheus:9090/api/v1/write
    #[arg(long, env = "NINES_REMOTE_WRITE", value_name = "URL")]
    remote_write: Option<String>,

    /// A header for it, such as 'X-Scope-OrgID: team'; may be repeated
    #[arg(
        long = "remote-write-header",
        value_name = "HEADER",
        requires = "remote_write"
    )]
    remote_write_headers: Vec<String>,
}

type Sample = (Labels, Vec<(i64, f64)>);

/// Receivers of one load's series.
#[derive(Default)]
pub struct Writers(Vec<Writer>);

struct Writer {
    name: &'static str,
    client: Client,
    path: String,
    waiting: Vec<Sample>,
    dropped: usize,
    told: bool,
}

impl Writers {
    /// The agent and the receiver that the flags name.
    pub fn new(agent: Option<&str>, remote: &RemoteWrite) -> anyhow::Result<Writers> {
        let mut all = Vec::new();
        let writer = |name, client, path: &str| Writer {
            name,
            client,
            path: path.to_owned(),
            waiting: Vec::new(),
            dropped: 0,
            told: false,
        };
        if let Some(url) = agent {
            let path = model::api::path::REMOTE_WRITE;
            all.push(writer("the agent", Client::new(url), path));
        }
        if let Some(url) = &remote.remote_write {
            let (base, path) = split(url)?;
            let mut client = Client::new(base).with_peer(client::Peer::Server);
            for header in &remote.remote_write_headers {
                let (name, value) = header.split_once(':').ok_or_else(|| {
                    usage(format!(
                        "--remote-write-header {header:?} has no colon; write it as 'Name: value'"
                    ))
                })?;
                client = client
                    .with_header(name.trim(), value.trim())
                    .map_err(|e| usage(format!("--remote-write-header {e}")))?;
            }
            all.push(writer("the remote-write receiver", client, path));
        }
        Ok(Writers(all))
    }

    /// Sends a moment's samples, and what an earlier failure left.
    pub async fn send(&mut self, series: Vec<Sample>) {
        for writer in &mut self.0 {
            writer.waiting.extend(series.iter().cloned());
            writer.flush().await;
        }
    }

    /// Tries for a few seconds more to send what is left, and says what could not be.
    pub async fn finish(mut self) {
        for writer in &mut self.0 {
            for _ in 0..LAST_TRIES {
                if writer.waiting.is_empty() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                writer.flush().await;
            }
            let lost = writer.dropped + writer.waiting.len();
            if lost > 0 {
                note(&format!("{lost} samples did not reach {}", writer.name));
            }
        }
    }
}

impl Writer {
    async fn flush(&mut self) {
        let sent = self.client.remote_write_at(&self.path, &self.waiting).await;
        let Err(error) = sent else {
            self.waiting.clear();
            return;
        };
        if !std::mem::replace(&mut self.told, true) {
            note(&format!(
                "the run's series do not reach {}: {error}",
                self.name
            ));
        }
        if !error.is_retryable() {
            self.dropped += self.waiting.len();
            self.waiting.clear();
        }
        let beyond = self.waiting.len().saturating_sub(KEPT);
        self.waiting.drain(..beyond);
        self.dropped += beyond;
    }
}

/// The server and the path of a receiver's URL; Prometheus' path when there is none.
fn split(url: &str) -> anyhow::Result<(&str, &str)> {
    let wrong = || {
        usage(format!(
            "--remote-write {url:?} is no URL; write it as http://prometheus:9090/api/v1/write"
        ))
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    if !matches!(scheme, "http" | "https") || rest.is_empty() {
        return Err(wrong());
    }
    let at = url.len() - rest.len() + rest.find('/').unwrap_or(rest.len());
    let (base, path) = url.split_at(at);
    Ok(match path {
        "" | "/" => (base, model::api::path::REMOTE_WRITE),
        path => (base, path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_server_and_path() {
        assert_eq!(
            split("http://a:9090").unwrap(),
            ("http://a:9090", "/api/v1/write")
        );
        assert_eq!(split("https://a/b/push").unwrap(), ("https://a", "/b/push"));
        for text in ["", "a:9090", "ftp://a", "http://"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
