//! Owns what counts as a secret in a recording, and the environment variables that take their place.
//! Must not know HAR or OpenAPI.

use regex::{Captures, Regex};

use crate::artillery::Mistake;

/// The variables that stand for secrets: each different value of a name has its own.
pub(super) struct Secrets {
    /// Name in the script, the secret itself, how often.
    known: Vec<(String, String, u64)>,
    json: Regex,
    pairs: Regex,
}

const HEADERS: [&str; 4] = ["authorization", "x-api-key", "api-key", "apikey"];
const PARTS: [&str; 6] = [
    "token", "secret", "password", "passwd", "api-key", "session",
];

/// Names of fields whose value is a secret, for the two patterns.
const FIELDS: &str = "password|passwd|pwd|secret|token|access_token|refresh_token|id_token|api_key|apikey|client_secret";

impl Secrets {
    pub(super) fn new() -> Result<Secrets, Mistake> {
        let compile = |pattern: String| {
            Regex::new(&pattern).map_err(|e| Mistake::file("import", e.to_string()))
        };
        Ok(Secrets {
            known: Vec::new(),
            json: compile(format!(r#"(?i)("(?:{FIELDS})"\s*:\s*")((?:[^"\\]|\\.)+)""#))?,
            pairs: compile(format!(r"(?i)((?:^|[?&])(?:{FIELDS})=)([^&#]+)"))?,
        })
    }

    /// The expression that stands for this secret.
    pub(super) fn variable(&mut self, name: &str, secret: &str) -> String {
        let mut base = String::new();
        let mut small = false;
        for c in name.chars().take(60) {
            if small && c.is_ascii_uppercase() {
                base.push('_');
            }
            small = c.is_ascii_lowercase();
            base.push(if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            });
        }
        if base.is_empty() || base.starts_with(|c: char| c.is_ascii_digit()) {
            base.insert(0, '_');
        }
        let found = self.known.iter_mut().find(|(known, value, _)| {
            let same_name = known == &base
                || known
                    .strip_prefix(base.as_str())
                    .and_then(|rest| rest.strip_prefix('_'))
                    .is_some_and(|n| n.parse::<u32>().is_ok());
            same_name && value == secret
        });
        let name = match found {
            Some((name, _, count)) => {
                *count += 1;
                name.clone()
            }
            None => {
                let mut name = base.clone();
                let mut number = 1;
                while self.known.iter().any(|(known, ..)| *known == name) {
                    number += 1;
                    name = format!("{base}_{number}");
                }
                self.known.push((name.clone(), secret.to_owned(), 1));
                name
            }
        };
        format!("{{{{ $env.{name} }}}}")
    }

    /// A header's value, replaced when the name says that it is a secret.
    pub(super) fn header(&mut self, name: &str, value: &str) -> String {
        let lower = name.to_ascii_lowercase();
        match HEADERS.contains(&lower.as_str()) || PARTS.iter().any(|part| lower.contains(part)) {
            true => self.variable(name, value),
            // A Referer may hold a query of its own.
            false => self.pairs(value),
        }
    }

    /// A URL's query or a form, secrets replaced.
    pub(super) fn pairs(&mut self, text: &str) -> String {
        let pattern = self.pairs.clone();
        let put = |c: &Captures<'_>| {
            let name = c[1]
                .trim_start_matches(['?', '&'])
                .trim_end_matches('=')
                .to_owned();
            format!("{}{}", &c[1], self.variable(&name, &c[2]))
        };
        pattern.replace_all(text, put).into_owned()
    }

    /// A JSON text, secrets replaced.
    pub(super) fn json(&mut self, text: &str) -> String {
        let pattern = self.json.clone();
        let put = |c: &Captures<'_>| {
            let name = c[1].trim_start_matches('"');
            let name = name.split('"').next().unwrap_or("SECRET").to_owned();
            format!("{}{}\"", &c[1], self.variable(&name, &c[2]))
        };
        pattern.replace_all(text, put).into_owned()
    }

    /// A line for each variable that must be set.
    pub(super) fn notes(&self) -> Vec<String> {
        let line = |(name, _, count): &(String, String, u64)| {
            format!("set the environment variable {name}: it stands for a secret used {count} x")
        };
        self.known.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_and_counted() {
        let mut secrets = Secrets::new().unwrap();
        assert_eq!(
            secrets.header("Authorization", "Bearer a"),
            "{{ $env.AUTHORIZATION }}"
        );
        assert_eq!(
            secrets.header("authorization", "Bearer b"),
            "{{ $env.AUTHORIZATION_2 }}"
        );
        assert_eq!(
            secrets.header("Authorization", "Bearer a"),
            "{{ $env.AUTHORIZATION }}"
        );
        assert_eq!(secrets.header("Accept", "x"), "x");
        let referer = secrets.header("Referer", "http://h/?api_key=k");
        assert_eq!(referer, "http://h/?api_key={{ $env.API_KEY }}");
        assert_eq!(
            secrets.pairs("/a?x=1&token=ab%20c&y"),
            "/a?x=1&token={{ $env.TOKEN }}&y"
        );
        assert_eq!(
            secrets.json(r#"{"user":"u","password": "p\"q","n":1}"#),
            r#"{"user":"u","password": "{{ $env.PASSWORD }}","n":1}"#
        );
        let notes = secrets.notes();
        assert_eq!(notes.len(), 5);
        assert!(notes[0].contains("AUTHORIZATION: it stands for a secret used 2 x"));
        assert!(notes.iter().all(|note| !note.contains("Bearer")));
    }
}
