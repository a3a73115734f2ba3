//! What is typed in a box: a range, an acknowledgement, a silence; and what must be confirmed.
//!
//! Owns these forms and their checks. Must not know how they are drawn, nor who carries them out.

use client::{NewSilence, Silence};
use model::api::AlertBody;
use model::api::SilenceMatcher;
use model::duration::{format_ms, parse_ms};

/// Characters of a field at most.
const MAX_FIELD: usize = 120;
/// The longest silence.
const MAX_SILENCE_MS: i64 = 90 * 86_400_000;
/// The shortest and the longest range.
const RANGES: (i64, i64) = (10_000, 30 * 86_400_000);

/// One line that is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub name: &'static str,
    /// What was typed.
    pub text: String,
}

/// What a dialog is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Another range.
    Range,
    /// A silence of what these matchers meet.
    Silence(Vec<SilenceMatcher>),
    /// The end of the silence of this id.
    EndSilence(String),
}

/// A box that takes all keys until it is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    /// What it is for.
    pub purpose: Purpose,
    /// Its title.
    pub title: String,
    /// What it says above its fields.
    pub lines: Vec<String>,
    /// What is typed.
    pub fields: Vec<Field>,
    /// The field that takes letters.
    pub at: usize,
    /// Whether all is typed, and `y` is waited for.
    pub confirm: bool,
    /// What is wrong with what was typed; empty for nothing.
    pub error: String,
}

/// What an accepted dialog asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// Nothing yet.
    Nothing,
    /// This range, milliseconds.
    Range(i64),
    /// This silence.
    Silence(NewSilence),
    /// The end of the silence of this id.
    EndSilence(String),
}

// === impl Dialog ===

impl Dialog {
    /// Asks for a range; `range_ms` is the present one.
    #[must_use]
    pub fn range(range_ms: i64) -> Self {
        Dialog {
            purpose: Purpose::Range,
            title: "range".into(),
            lines: vec![format!(
                "how far back? now {}; such as 90s, 5m, 1h, 2h30m, 7d",
                format_ms(range_ms)
            )],
            fields: vec![Field {
                name: "range",
                text: String::new(),
            }],
            at: 0,
            confirm: false,
            error: String::new(),
        }
    }

    /// Asks for a silence. An acknowledgement is one of this very alert; else all alerts of its name are silenced.
    #[must_use]
    pub fn silence(alert: &AlertBody, all: &[AlertBody], ack: bool, author: &str) -> Self {
        let name = alert.labels.get("alertname").unwrap_or_default();
        let matchers: Vec<SilenceMatcher> = match ack {
            true => alert
                .labels
                .iter()
                .map(|(n, v)| SilenceMatcher::equal(n, v))
                .collect(),
            false => vec![SilenceMatcher::equal("alertname", name)],
        };
        let met = |a: &&AlertBody| matchers.iter().all(|m| m.meets(&a.labels));
        let hidden: Vec<&str> = all
            .iter()
            .filter(met)
            .map(|a| a.labels.get("alertname").unwrap_or_default())
            .collect();
        let words: Vec<String> = matchers
            .iter()
            .map(|m| format!("{}={:?}", m.name, m.value))
            .collect();
        let (title, length, comment) = match ack {
            true => (format!("acknowledge {name}"), "1h", "acknowledged"),
            false => (format!("silence {name}"), "4h", "silenced"),
        };
        let field = |name, text: &str| Field {
            name,
            text: text.to_owned(),
        };
        Dialog {
            purpose: Purpose::Silence(matchers),
            title,
            lines: vec![
                format!("tells nobody of: {}", words.join(" ")),
                format!(
                    "now that is {} of {} alerts: {}",
                    hidden.len(),
                    all.len(),
                    hidden.join(", ")
                ),
            ],
            fields: vec![
                field("author", author),
                field("for", length),
                field("comment", comment),
            ],
            at: 0,
            confirm: false,
            error: String::new(),
        }
    }

    /// Asks whether a silence is to end.
    #[must_use]
    pub fn end_silence(silence: &Silence) -> Self {
        let words: Vec<String> = silence
            .matchers
            .iter()
            .map(|m| format!("{}={:?}", m.name, m.value))
            .collect();
        Dialog {
            purpose: Purpose::EndSilence(silence.id.clone()),
            title: "end silence".into(),
            lines: vec![
                words.join(" "),
                format!("of {}: {}", silence.created_by, silence.comment),
            ],
            fields: Vec::new(),
            at: 0,
            confirm: true,
            error: String::new(),
        }
    }

    /// Takes a letter.
    pub fn letter(&mut self, c: char) {
        if let Some(field) = self.fields.get_mut(self.at)
            && field.text.chars().count() < MAX_FIELD
            && !c.is_control()
        {
            field.text.push(c);
            self.error.clear();
        }
    }

    /// Removes the last letter.
    pub fn erase(&mut self) {
        if let Some(field) = self.fields.get_mut(self.at) {
            field.text.pop();
            self.error.clear();
        }
    }

    /// Goes to the next field.
    pub fn next_field(&mut self) {
        self.at = (self.at + 1) % self.fields.len().max(1);
    }

    fn text(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|f| f.name == name);
        found.map_or("", |f| f.text.trim())
    }

    /// Enter, or `y` where it is waited for.
    pub fn accept(&mut self, now_ms: i64) -> Accepted {
        match self.check(now_ms) {
            Ok(accepted) if self.confirm || matches!(accepted, Accepted::Range(_)) => accepted,
            Ok(_) => {
                self.confirm = true;
                Accepted::Nothing
            }
            Err(error) => {
                self.error = error;
                Accepted::Nothing
            }
        }
    }

    fn check(&mut self, now_ms: i64) -> Result<Accepted, String> {
        match &self.purpose {
            Purpose::Range => {
                let ms = parse_ms(self.text("range")).map_err(|e| e.to_string())?;
                if !(RANGES.0..=RANGES.1).contains(&ms) {
                    return Err("between 10s and 30d".into());
                }
                Ok(Accepted::Range(ms))
            }
            Purpose::EndSilence(id) => Ok(Accepted::EndSilence(id.clone())),
            Purpose::Silence(matchers) => {
                let wrong = |at: usize, text: String| (at, text);
                let checked = (|| {
                    let author = self.text("author").to_owned();
                    if author.is_empty() {
                        return Err(wrong(0, "say who you are".into()));
                    }
                    let ms = parse_ms(self.text("for")).map_err(|e| wrong(1, e.to_string()))?;
                    if !(1_000..=MAX_SILENCE_MS).contains(&ms) {
                        return Err(wrong(1, "between 1s and 90d".into()));
                    }
                    let comment = self.text("comment").to_owned();
                    if comment.is_empty() {
                        return Err(wrong(2, "say why".into()));
                    }
                    Ok(Accepted::Silence(NewSilence {
                        matchers: matchers.clone(),
                        starts_ms: now_ms,
                        ends_ms: now_ms + ms,
                        created_by: author,
                        comment,
                    }))
                })();
                checked.map_err(|(at, error)| {
                    self.at = at;
                    error
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn type_in(dialog: &mut Dialog, text: &str) {
        while !dialog.fields[dialog.at].text.is_empty() {
            dialog.erase();
        }
        text.chars().for_each(|c| dialog.letter(c));
    }

    #[test]
    fn a_range_is_checked() {
        let mut dialog = Dialog::range(900_000);
        for bad in ["", "x", "1s", "31d", "5"] {
            type_in(&mut dialog, bad);
            assert_eq!(dialog.accept(0), Accepted::Nothing, "{bad}");
            assert!(!dialog.error.is_empty());
        }
        type_in(&mut dialog, "2h30m");
        assert_eq!(dialog.accept(0), Accepted::Range(9_000_000));
    }

    #[test]
    fn an_acknowledgement_hides_one_alert_and_needs_a_yes() {
        let alerts = fixture::data().alerts;
        let mut dialog = Dialog::silence(&alerts[1], &alerts, true, "kim");
        assert!(dialog.lines[1].contains("1 of 3"), "{:?}", dialog.lines);
        dialog.next_field();
        type_in(&mut dialog, "forever");
        assert_eq!(dialog.accept(5), Accepted::Nothing);
        assert!(!dialog.confirm && dialog.at == 1 && !dialog.error.is_empty());
        type_in(&mut dialog, "90m");
        assert_eq!(dialog.accept(5), Accepted::Nothing);
        assert!(dialog.confirm);
        let Accepted::Silence(made) = dialog.accept(5) else {
            panic!("no silence");
        };
        assert_eq!((made.starts_ms, made.ends_ms), (5, 5_400_005));
        assert_eq!(made.created_by, "kim");
        assert_eq!(made.matchers.len(), 2, "all its labels");
    }
}
