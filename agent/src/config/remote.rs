//! Settings of remote write out: `remote_write`, a list of servers.
//!
//! Owns their names, defaults and checks. Must not know how samples are sent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Config, Millis, Secret};
use crate::error::AgentError;

/// One server that every sample is written to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteWrite {
    /// Where, such as `http://127.0.0.1:9090/api/v1/write`.
    pub url: String,
    /// Its name in metrics and on disk. Default: host and port of the URL.
    pub name: String,
    /// Headers of every request.
    pub headers: BTreeMap<String, Secret>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// A file with that token, read at the start.
    pub token_file: Option<PathBuf>,
    /// Labels added to series that lack them.
    pub external_labels: BTreeMap<String, String>,
    /// Requests in flight; a series always goes through the same shard. Default 4.
    pub shards: usize,
    /// Samples of one request. Default 2000.
    pub max_samples: usize,
    /// How long samples may wait for a request to fill. Default `1s`.
    pub wait: Millis,
    /// When a request is given up and tried again. Default `30s`.
    pub timeout: Millis,
    /// First wait before a request is tried again; it doubles up to `retry_max`, with full jitter. Default `100ms`.
    pub retry_min: Millis,
    /// Longest wait, unless the server asks for more. Default `10s`.
    pub retry_max: Millis,
    /// Whether native histograms are sent: a server that does not take them refuses the request. Default false.
    pub native_histograms: bool,
}

impl Default for RemoteWrite {
    fn default() -> Self {
        RemoteWrite {
            url: String::new(),
            name: String::new(),
            headers: BTreeMap::new(),
            token: None,
            token_file: None,
            external_labels: BTreeMap::new(),
            shards: 4,
            max_samples: 2_000,
            wait: Millis(1_000),
            timeout: Millis(30_000),
            retry_min: Millis(100),
            retry_max: Millis(10_000),
            native_histograms: false,
        }
    }
}

/// Shards of one server at most.
const MAX_SHARDS: usize = 64;

// === impl RemoteWrite ===

impl RemoteWrite {
    /// The name, or what stands for it: lower-case letters, digits, `.`, `-` and `_`.
    #[must_use]
    pub fn key(&self) -> String {
        let text = match (self.name.as_str(), url::Url::parse(&self.url)) {
            ("", Ok(url)) => {
                let host = url.host_str().unwrap_or("peer").to_owned();
                url.port()
                    .map_or(host.clone(), |port| format!("{host}-{port}"))
            }
            (name, _) => name.to_owned(),
        };
        let safe = |c: char| match c {
            'a'..='z' | '0'..='9' | '.' | '-' | '_' => c,
            'A'..='Z' => c.to_ascii_lowercase(),
            _ => '-',
        };
        text.chars().map(safe).collect()
    }

    fn check(&self, at: usize, listen: &str) -> Result<(), AgentError> {
        let wrong = |text: String| Err(AgentError::Config(format!("`remote_write[{at}]`: {text}")));
        let url = match url::Url::parse(&self.url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url,
            _ => {
                let text = format!(
                    "`url` is {:?}; write it as http://127.0.0.1:9090/api/v1/write",
                    self.url
                );
                return wrong(text);
            }
        };
        let own = (url.host_str(), url.port_or_known_default());
        if let Some((host, port)) = listen.rsplit_once(':')
            && own == (Some(host), port.parse().ok())
        {
            return wrong("`url` is this agent's own address".into());
        }
        for (name, value) in [("shards", self.shards), ("max_samples", self.max_samples)] {
            if value == 0 {
                return wrong(format!("`{name}` is 0; give it a value above 0"));
            }
        }
        if self.shards > MAX_SHARDS {
            return wrong(format!("`shards` is {}; at most {MAX_SHARDS}", self.shards));
        }
        if self.timeout.0 <= 0 || self.retry_min.0 <= 0 || self.retry_max.0 < self.retry_min.0 {
            return wrong(
                "`timeout` and `retry_min` must be above 0, and `retry_max` at least `retry_min`"
                    .into(),
            );
        }
        for (name, value) in &self.headers {
            let good = http::HeaderName::from_bytes(name.as_bytes()).is_ok()
                && http::HeaderValue::from_str(&value.0).is_ok();
            if !good {
                return wrong(format!("header {name:?} is not one that HTTP can carry"));
            }
        }
        Ok(())
    }

    /// The token, from the setting or its file.
    pub(crate) fn read_token(&self) -> Result<Option<String>, AgentError> {
        match (&self.token_file, &self.token) {
            (Some(path), _) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(source) => Err(AgentError::Read {
                    path: path.display().to_string(),
                    source,
                }),
            },
            (None, token) => Ok(token.as_ref().map(|t| t.0.clone())),
        }
    }
}

/// Checks the whole list: every URL, and that no two have one name.
pub(super) fn check(config: &Config) -> Result<(), AgentError> {
    let mut names = std::collections::BTreeSet::new();
    for (at, peer) in config.remote_write.iter().enumerate() {
        peer.check(at, &config.listen)?;
        if !names.insert(peer.key()) {
            return Err(AgentError::Config(format!(
                "`remote_write[{at}]`: another entry has the name {:?}; give each a `name`",
                peer.key()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_checked() {
        let check_text = |text: &str| {
            let config = Config::from_yaml("n.yaml", text).unwrap();
            check(&config).map_err(|e| e.to_string())
        };
        let one = "remote_write:\n- url: http://Prom.example:9090/api/v1/write\n";
        assert_eq!(check_text(one), Ok(()));
        let config = Config::from_yaml("n.yaml", one).unwrap();
        assert_eq!(config.remote_write[0].key(), "prom.example-9090");
        let twice = format!("{one}- url: http://prom.example:9090/other\n");
        assert!(
            check_text(&twice)
                .unwrap_err()
                .contains("give each a `name`")
        );
        for (text, says) in [
            ("url: prom:9090", "write it as http://"),
            ("url: http://127.0.0.1:9909/api/v1/write", "own address"),
            ("{url: 'http://a/', shards: 0}", "`shards` is 0"),
            ("{url: 'http://a/', retry_max: 1ms}", "retry_max"),
            ("{url: 'http://a/', headers: {'a b': c}}", "header \"a b\""),
        ] {
            let text = format!("remote_write:\n- {text}\n");
            let error = check_text(&text).unwrap_err();
            assert!(
                error.contains(says) && error.contains("remote_write[0]"),
                "{error}"
            );
        }
    }
}
