//! Silences, through Alertmanager's v2 API.
//!
//! Owns their shapes and calls. Must not know who asks for one, nor what an alert is.

use model::api::{SilenceMatcher, path};
use model::labels::Labels;
use model::timestamp::{format_rfc3339, parse_rfc3339};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::ClientError;
use crate::http::Client;

/// Where a silence is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SilenceState {
    /// `pending`, `active` or `expired`.
    pub state: String,
}

/// One silence that the server keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// Where it is in its life.
    #[serde(default)]
    pub status: SilenceState,
    /// All must match.
    pub matchers: Vec<SilenceMatcher>,
    /// First instant, RFC 3339.
    pub starts_at: String,
    /// First instant after it, RFC 3339.
    pub ends_at: String,
    /// Who made it.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

/// A silence to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSilence {
    /// All must match; at least one.
    pub matchers: Vec<SilenceMatcher>,
    /// First instant, Unix milliseconds.
    pub starts_ms: i64,
    /// First instant after it, Unix milliseconds.
    pub ends_ms: i64,
    /// Who makes it.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

#[derive(Deserialize)]
struct Posted {
    #[serde(rename = "silenceID")]
    id: String,
}

// === impl Silence ===

impl Silence {
    /// Whether it is active and all its conditions hold for `labels`.
    #[must_use]
    pub fn covers(&self, labels: &Labels) -> bool {
        self.status.state == "active" && self.matchers.iter().all(|m| m.meets(labels))
    }

    /// When it ends, Unix milliseconds, when that can be read.
    #[must_use]
    pub fn ends_ms(&self) -> Option<i64> {
        parse_rfc3339(&self.ends_at)
    }
}

// === impl Client ===

impl Client {
    /// All silences, the expired ones too.
    pub async fn silences(&self) -> Result<Vec<Silence>, ClientError> {
        let bytes = self.plain(Method::GET, path::AM_SILENCES, None).await?;
        serde_json::from_slice(&bytes).map_err(|e| self.strange(&e))
    }

    /// Makes a silence; its id.
    pub async fn silence(&self, new: &NewSilence) -> Result<String, ClientError> {
        let body = json!({
            "matchers": new.matchers,
            "startsAt": format_rfc3339(new.starts_ms),
            "endsAt": format_rfc3339(new.ends_ms),
            "createdBy": new.created_by,
            "comment": new.comment,
        });
        let body = Some(body.to_string().into_bytes());
        let bytes = self.plain(Method::POST, path::AM_SILENCES, body).await?;
        let posted: Posted = serde_json::from_slice(&bytes).map_err(|e| self.strange(&e))?;
        Ok(posted.id)
    }

    /// Ends a silence; [`ClientError::is_not_found`] when there is none of that id.
    pub async fn end_silence(&self, id: &str) -> Result<(), ClientError> {
        let encoded: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let path = path::AM_SILENCE.replace("{id}", &encoded);
        self.plain(Method::DELETE, &path, None).await.map(|_| ())
    }

    fn strange(&self, error: &serde_json::Error) -> ClientError {
        ClientError::Protocol {
            url: format!("{}{}", self.base_url(), path::AM_SILENCES),
            status: 200,
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_covers_what_all_its_matchers_meet() {
        let text = r#"{"id":"x","status":{"state":"active"},"matchers":[{"name":"alertname","value":"A","isRegex":false},
            {"name":"job","value":"a|b","isRegex":true,"isEqual":true}],"startsAt":"2026-11-20T00:00:00Z",
            "endsAt":"2026-11-20T01:00:00.000Z","createdBy":"me","comment":"","updatedAt":"2026-11-20T00:00:00Z"}"#;
        let mut silence: Silence = serde_json::from_str(text).unwrap();
        let labels = |job: &str| Labels::from_pairs([("alertname", "A"), ("job", job)]);
        assert!(silence.covers(&labels("b")) && !silence.covers(&labels("c")));
        assert!(silence.ends_ms().is_some());
        silence.status.state = "expired".into();
        assert!(!silence.covers(&labels("b")));
    }
}
