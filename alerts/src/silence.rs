//! Silences: matchers and a time span in which alerts that match are not told.
//!
//! Owns their life, their file, and Alertmanager's v2 shapes of silences and alerts. Must not know routing.

use std::path::{Path, PathBuf};

use model::api::SilenceMatcher;
use model::timestamp::{format_rfc3339, parse_rfc3339};
use model::{Labels, MatchOp, Matcher};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::notification::{Fnv, Notification, Status};

/// Expired silences are kept this long, milliseconds.
const KEPT_MS: i64 = 5 * 86_400_000;
/// The most silences that are kept.
const MAX_SILENCES: usize = 10_000;
const FILE: &str = "silences.json";

/// One silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// All must match.
    pub matchers: Vec<SilenceMatcher>,
    /// First instant, Unix milliseconds.
    pub starts_at_ms: i64,
    /// First instant after it, Unix milliseconds.
    pub ends_at_ms: i64,
    /// When it was changed last, Unix milliseconds.
    pub updated_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

/// Why a silence is refused.
#[derive(Debug, thiserror::Error)]
pub enum SilenceError {
    /// The request makes no sense (HTTP 400).
    #[error("{0}")]
    Bad(String),
    /// There is no such silence (HTTP 404).
    #[error("silence {0} not found")]
    NotFound(String),
    /// It cannot be kept (HTTP 500).
    #[error("silences are not saved: {0}")]
    Io(#[from] std::io::Error),
}

/// The body of `POST /api/v2/silences`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostableSilence {
    /// The silence to change; none to create one.
    #[serde(default)]
    pub id: Option<String>,
    /// All must match.
    pub matchers: Vec<SilenceMatcher>,
    /// RFC 3339.
    pub starts_at: String,
    /// RFC 3339.
    pub ends_at: String,
    /// Who makes it.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

/// All silences, kept in a file.
#[derive(Debug, Default)]
pub struct Silences {
    dir: Option<PathBuf>,
    all: Vec<(Silence, Vec<Matcher>)>,
}

// === impl Silence ===

impl Silence {
    /// `pending`, `active` or `expired`.
    #[must_use]
    pub fn state(&self, now_ms: i64) -> &'static str {
        if now_ms < self.starts_at_ms {
            "pending"
        } else if now_ms < self.ends_at_ms {
            "active"
        } else {
            "expired"
        }
    }

    /// As Alertmanager's v2 API shows it.
    #[must_use]
    pub fn to_json(&self, now_ms: i64) -> Json {
        json!({
            "id": self.id,
            "status": {"state": self.state(now_ms)},
            "updatedAt": format_rfc3339(self.updated_at_ms),
            "comment": self.comment,
            "createdBy": self.created_by,
            "startsAt": format_rfc3339(self.starts_at_ms),
            "endsAt": format_rfc3339(self.ends_at_ms),
            "matchers": self.matchers,
        })
    }
}

// === impl Silences ===

impl Silences {
    /// Reads the silences kept in `dir`. Errors when the file is there but cannot be read: a silence that is lost pages
    /// someone, one that is ignored does so wrongly, so the caller decides.
    pub fn open(dir: &Path) -> Result<Silences, SilenceError> {
        let path = dir.join(FILE);
        let mut silences = Silences {
            dir: Some(dir.to_owned()),
            all: Vec::new(),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(silences),
            Err(e) => return Err(e.into()),
        };
        let bad = |e: String| SilenceError::Bad(format!("{}: {e}", path.display()));
        let all: Vec<Silence> = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        for silence in all {
            let matchers = compile(&silence.matchers).map_err(&bad)?;
            silences.all.push((silence, matchers));
        }
        Ok(silences)
    }

    /// The id of an active silence that matches these labels.
    #[must_use]
    pub fn silenced_by(&self, labels: &Labels, now_ms: i64) -> Option<&str> {
        let active = self.all.iter().filter(|(s, _)| s.state(now_ms) == "active");
        let mut matching = active.filter(|(_, m)| m.iter().all(|m| m.matches_labels(labels)));
        matching.next().map(|(s, _)| s.id.as_str())
    }

    /// All silences, the newest first. Filters are matchers such as `alertname=X` on the silence's own matchers.
    #[must_use]
    pub fn list(&self, filters: &[Matcher]) -> Vec<&Silence> {
        let fits = |s: &Silence| {
            let own = Labels::from_pairs(
                s.matchers
                    .iter()
                    .map(|m| (m.name.as_str(), m.value.as_str())),
            );
            filters.iter().all(|f| f.matches_labels(&own))
        };
        let mut found: Vec<&Silence> = self
            .all
            .iter()
            .map(|(s, _)| s)
            .filter(|s| fits(s))
            .collect();
        found.sort_by_key(|s| std::cmp::Reverse(s.starts_at_ms));
        found
    }

    /// One silence.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Silence> {
        self.all.iter().map(|(s, _)| s).find(|s| s.id == id)
    }

    /// Creates a silence, or replaces the one of the same id. Returns the id; on disk when this returns.
    pub fn post(&mut self, wanted: PostableSilence, now_ms: i64) -> Result<String, SilenceError> {
        let time = |name: &str, text: &str| {
            parse_rfc3339(text).ok_or_else(|| {
                SilenceError::Bad(format!("{name} {text:?} is not an RFC 3339 time"))
            })
        };
        let starts_at_ms = time("startsAt", &wanted.starts_at)?;
        let ends_at_ms = time("endsAt", &wanted.ends_at)?;
        if ends_at_ms <= starts_at_ms {
            return Err(SilenceError::Bad("endsAt must be after startsAt".into()));
        }
        if ends_at_ms <= now_ms {
            return Err(SilenceError::Bad("endsAt cannot be in the past".into()));
        }
        let matchers = compile(&wanted.matchers).map_err(SilenceError::Bad)?;
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(SilenceError::Bad(
                "at least one matcher must not match the empty value, or everything would be silenced".into(),
            ));
        }
        let id = match wanted.id.filter(|id| !id.is_empty()) {
            Some(id) if self.get(&id).is_some() => id,
            Some(id) => return Err(SilenceError::NotFound(id)),
            None => self.new_id(&wanted.comment, now_ms),
        };
        let silence = Silence {
            id: id.clone(),
            matchers: wanted.matchers,
            starts_at_ms,
            ends_at_ms,
            updated_at_ms: now_ms,
            created_by: wanted.created_by,
            comment: wanted.comment,
        };
        self.change(now_ms, |all| {
            all.retain(|(s, _)| s.id != silence.id);
            all.push((silence, matchers));
        })?;
        Ok(id)
    }

    /// Ends a silence now. On disk when this returns.
    pub fn expire(&mut self, id: &str, now_ms: i64) -> Result<(), SilenceError> {
        if self.get(id).is_none() {
            return Err(SilenceError::NotFound(id.to_owned()));
        }
        self.change(now_ms, |all| {
            for (s, _) in all.iter_mut().filter(|(s, _)| s.id == id) {
                s.ends_at_ms = s.ends_at_ms.min(now_ms);
                s.starts_at_ms = s.starts_at_ms.min(now_ms);
                s.updated_at_ms = now_ms;
            }
        })
    }

    /// Applies a change; when it cannot be saved, nothing changes.
    fn change(
        &mut self,
        now_ms: i64,
        change: impl FnOnce(&mut Vec<(Silence, Vec<Matcher>)>),
    ) -> Result<(), SilenceError> {
        let mut next = self.all.clone();
        change(&mut next);
        next.retain(|(s, _)| now_ms - s.ends_at_ms < KEPT_MS);
        if next.len() > MAX_SILENCES {
            return Err(SilenceError::Bad(format!(
                "there are {MAX_SILENCES} silences already"
            )));
        }
        if let Some(dir) = &self.dir {
            let all: Vec<&Silence> = next.iter().map(|(s, _)| s).collect();
            let json = serde_json::to_vec_pretty(&all).map_err(std::io::Error::from)?;
            crate::engine::replace_file(dir, FILE, &json)?;
        }
        self.all = next;
        Ok(())
    }

    /// Unique, in the form of a UUID, which `amtool` prints.
    fn new_id(&self, comment: &str, now_ms: i64) -> String {
        let mut salt = 0u64;
        loop {
            let half = |which: u8| {
                let mut hash = Fnv::default();
                hash.write(&[which]);
                hash.write(comment.as_bytes());
                hash.write(&now_ms.to_le_bytes());
                hash.write(&(self.all.len() as u64 + salt).to_le_bytes());
                hash.0
            };
            let digits = format!("{:016x}{:016x}", half(1), half(2));
            let (a, b, c, d, e) = (
                &digits[..8],
                &digits[8..12],
                &digits[12..16],
                &digits[16..20],
                &digits[20..],
            );
            let id = format!("{a}-{b}-{c}-{d}-{e}");
            if self.get(&id).is_none() {
                return id;
            }
            salt += 1;
        }
    }
}

fn compile(matchers: &[SilenceMatcher]) -> Result<Vec<Matcher>, String> {
    if matchers.is_empty() {
        return Err("a silence needs at least one matcher".into());
    }
    let one = |m: &SilenceMatcher| {
        if m.name.is_empty() {
            return Err("a matcher needs a name".to_owned());
        }
        m.matcher().map_err(|e| e.to_string())
    };
    matchers.iter().map(one).collect()
}

/// Reads one matcher in Alertmanager's syntax: `name=value`, `name!="value"`, `name=~"a|b"`, `name!~"c"`.
pub fn parse_matcher(text: &str) -> Result<Matcher, String> {
    let bad = || format!("{text:?} is not a matcher; write name=\"value\", !=, =~ or !~");
    let text_trimmed = text.trim();
    let at = text_trimmed.find(['=', '!']).ok_or_else(bad)?;
    let (name, rest) = text_trimmed.split_at(at);
    let operators = [
        ("=~", MatchOp::Regex),
        ("!~", MatchOp::NotRegex),
        ("!=", MatchOp::NotEqual),
        ("=", MatchOp::Equal),
    ];
    let found = operators
        .iter()
        .find_map(|(o, op)| rest.strip_prefix(o).map(|v| (*op, v)));
    let (op, value) = found.ok_or_else(bad)?;
    let (name, value) = (
        unquote(name).ok_or_else(bad)?,
        unquote(value).ok_or_else(bad)?,
    );
    if name.is_empty() {
        return Err(bad());
    }
    Matcher::new(name, op, value).map_err(|e| e.to_string())
}

fn unquote(text: &str) -> Option<String> {
    let text = text.trim();
    let Some(inner) = text.strip_prefix('"') else {
        return (!text.contains('"')).then(|| text.to_owned());
    };
    let inner = inner.strip_suffix('"')?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next()? {
                'n' => '\n',
                c => c,
            }),
            '"' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

/// One alert of `GET /api/v2/alerts`.
#[must_use]
pub fn am_alert(
    alert: &Notification,
    silenced_by: Option<&str>,
    receivers: &[String],
    now_ms: i64,
) -> Json {
    let ends = alert.ends_at_ms.unwrap_or(now_ms + 5 * 60_000);
    let state = match (alert.status, silenced_by) {
        (_, Some(_)) => "suppressed",
        (Status::Firing | Status::Resolved, None) => "active",
    };
    json!({
        "annotations": alert.annotations,
        "endsAt": format_rfc3339(ends),
        "fingerprint": alert.fingerprint(),
        "receivers": receivers.iter().map(|r| json!({"name": r})).collect::<Vec<_>>(),
        "startsAt": format_rfc3339(alert.starts_at_ms),
        "status": {
            "inhibitedBy": [],
            "mutedBy": [],
            "silencedBy": silenced_by.iter().collect::<Vec<_>>(),
            "state": state,
        },
        "updatedAt": format_rfc3339(now_ms),
        "generatorURL": alert.generator_url,
        "labels": alert.labels,
    })
}

/// `GET /api/v2/status`.
#[must_use]
pub fn am_status(version: &str, started_ms: i64) -> Json {
    json!({
        "cluster": {"name": "nines", "status": "disabled", "peers": []},
        "config": {"original": ""},
        "uptime": format_rfc3339(started_ms),
        "versionInfo": {
            "branch": "", "buildDate": "", "buildUser": "", "goVersion": "", "revision": "", "version": version,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(
        name: &str,
        value: &str,
        is_regex: bool,
        from_ms: i64,
        to_ms: i64,
    ) -> PostableSilence {
        serde_json::from_value(json!({
            "matchers": [{"name": name, "value": value, "isRegex": is_regex}],
            "startsAt": format_rfc3339(from_ms),
            "endsAt": format_rfc3339(to_ms),
            "createdBy": "me",
            "comment": "why",
        }))
        .unwrap()
    }

    #[test]
    fn lives_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut silences = Silences::open(dir.path()).unwrap();
        let id = silences
            .post(wanted("alertname", "Hi.*", true, 1_000, 2_000), 500)
            .unwrap();
        let labels = Labels::from_pairs([("alertname", "HighP99")]);
        let silenced = |s: &Silences, t| s.silenced_by(&labels, t).map(str::to_owned);
        assert_eq!(silenced(&silences, 999), None);
        assert_eq!(silenced(&silences, 1_000), Some(id.clone()));
        let mut silences = Silences::open(dir.path()).unwrap();
        assert_eq!(silenced(&silences, 1_999), Some(id.clone()));
        assert_eq!(silenced(&silences, 2_000), None);
        silences.expire(&id, 1_500).unwrap();
        assert_eq!(silenced(&silences, 1_600), None);
        assert_eq!(silences.get(&id).unwrap().state(1_600), "expired");
        assert!(matches!(
            silences.expire("no", 0),
            Err(SilenceError::NotFound(_))
        ));
        assert_eq!(silences.list(&[]).len(), 1);
        assert_eq!(
            silences
                .list(&[parse_matcher("alertname=other").unwrap()])
                .len(),
            0
        );
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let mut silences = Silences::default();
        for (bad, part) in [
            (wanted("a", "b", false, 2_000, 1_000), "after startsAt"),
            (wanted("a", "b", false, 0, 400), "in the past"),
            (
                wanted("a", ".*", true, 0, 1_000),
                "everything would be silenced",
            ),
            (wanted("a", "(", true, 0, 1_000), "regular expression"),
        ] {
            let error = silences.post(bad, 500).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn reads_matchers() {
        for (text, want) in [
            ("a=b", "a=\"b\""),
            (" a = \"b c\" ", "a=\"b c\""),
            ("a!=\"x\\\"y\"", "a!=\"x\\\"y\""),
            ("a=~\"b|c\"", "a=~\"b|c\""),
            ("a!~d", "a!~\"d\""),
        ] {
            assert_eq!(parse_matcher(text).unwrap().to_string(), want);
        }
        for text in ["", "a", "=b", "a=\"b", "a=~("] {
            assert!(parse_matcher(text).is_err(), "{text}");
        }
    }
}
