//! One request to one server: headers, the verdict of an answer, the wait before another try.
//!
//! Owns the protocol's rules (<https://prometheus.io/docs/specs/prw/remote_write_spec/>): 2xx is taken; 5xx and 429
//! come again, after `Retry-After` where there is one; any other 4xx is final. Must not know the queue.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::config::RemoteWrite;
use crate::error::AgentError;

/// Bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 512;
/// The longest `Retry-After` that is followed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every sample is there.
    Taken,
    /// It will never be taken: the status and the server's words.
    Refused(u16, String),
    /// It may be taken later: why, and how long the server wants us to wait.
    Later(String, Option<Duration>),
}

/// A server and how to reach it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    url: String,
    headers: HeaderMap,
    http: reqwest::Client,
    retry_min: Duration,
    retry_max: Duration,
}

// === impl Peer ===

impl Peer {
    pub(super) fn new(config: &RemoteWrite) -> Result<Self, AgentError> {
        let wrong =
            |what: &str| AgentError::Config(format!("`remote_write` to {}: {what}", config.key()));
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ] {
            let name = HeaderName::from_static(name);
            headers.insert(name, HeaderValue::from_static(value));
        }
        let token = config.read_token()?;
        let bearer = token.map(|t| ("authorization".to_owned(), format!("Bearer {t}")));
        let own = config.headers.iter().map(|(n, v)| (n.clone(), v.0.clone()));
        for (name, value) in own.chain(bearer) {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| wrong("a header's name cannot be sent"))?;
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| wrong("a header's value cannot be sent"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        // Someone else may have installed it first; then theirs is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(config.timeout.duration())
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("nines/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| wrong(&e.to_string()))?;
        Ok(Peer {
            url: config.url.clone(),
            headers,
            http,
            retry_min: config.retry_min.duration(),
            retry_max: config.retry_max.duration(),
        })
    }

    /// Sends a compressed `WriteRequest`.
    pub(super) async fn send(&self, body: Vec<u8>) -> Verdict {
        let request = self.http.post(&self.url).headers(self.headers.clone());
        let mut response = match request.body(body).send().await {
            Ok(response) => response,
            Err(error) => return Verdict::Later(root_cause(&error), None),
        };
        let status = response.status().as_u16();
        let after = retry_after(response.headers());
        let mut said = Vec::new();
        while said.len() < MAX_ANSWER_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            said.extend_from_slice(&chunk);
        }
        said.truncate(MAX_ANSWER_BYTES);
        let text = String::from_utf8_lossy(&said);
        let clean: String = text.trim().chars().filter(|c| !c.is_control()).collect();
        verdict(status, clean, after)
    }

    /// How long to wait before try number `tries` (from 1): what the server asks for, or exponential backoff with full
    /// jitter. `dice` is in 0..1.
    pub(super) fn wait(&self, tries: u32, asked: Option<Duration>, dice: f64) -> Duration {
        if let Some(asked) = asked {
            return asked.min(MAX_RETRY_AFTER);
        }
        let doubled = self.retry_min.saturating_mul(
            1u32.checked_shl(tries.saturating_sub(1))
                .unwrap_or(u32::MAX),
        );
        let most = doubled.min(self.retry_max);
        // Never quite at once: a server that refuses connections would be asked in a loop.
        most.mul_f64(0.1 + 0.9 * dice.clamp(0.0, 1.0))
    }
}

fn verdict(status: u16, text: String, after: Option<Duration>) -> Verdict {
    match status {
        200..300 => Verdict::Taken,
        429 | 500..600 => Verdict::Later(format!("{status} {text}"), after),
        // A redirect is not followed with credentials; it may be a server that moves.
        300..400 => Verdict::Later(format!("{status}, which is not followed"), after),
        _ => Verdict::Refused(status, text),
    }
}

/// `Retry-After` in seconds; dates are not used by any server of this protocol.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The last error of the chain: the one that says "connection refused".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(next) = at.source() {
        at = next;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_the_protocol() {
        for (status, wanted) in [(200, 't'), (204, 't'), (400, 'r'), (401, 'r'), (404, 'r')] {
            let got = match verdict(status, String::new(), None) {
                Verdict::Taken => 't',
                Verdict::Refused(..) => 'r',
                Verdict::Later(..) => 'l',
            };
            assert_eq!(got, wanted, "{status}");
        }
        for status in [429, 500, 503, 307] {
            let after = Some(Duration::from_secs(7));
            let got = verdict(status, String::new(), after);
            assert!(
                matches!(got, Verdict::Later(_, a) if a == after),
                "{status}"
            );
        }
    }

    #[test]
    fn waits_double_up_to_the_most() {
        let peer = Peer::new(&RemoteWrite {
            url: "http://127.0.0.1:1/".into(),
            ..RemoteWrite::default()
        })
        .unwrap();
        let ms = |tries, dice| peer.wait(tries, None, dice).as_millis();
        assert_eq!(
            [1, 2, 3, 8, 99].map(|n| ms(n, 1.0)),
            [100, 200, 400, 10_000, 10_000]
        );
        assert_eq!(ms(1, 0.0), 10);
        let asked = |s| peer.wait(1, Some(Duration::from_secs(s)), 0.5).as_secs();
        assert_eq!((asked(7), asked(86_400)), (7, 300));
    }
}
