//! One condition of a silence, as Alertmanager's API writes it.
//!
//! Owns its shape and its meaning as a [`Matcher`]. Must not know what a silence is for.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::matcher::{InvalidRegex, MatchOp, Matcher};

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceMatcher {
    /// The label's name.
    pub name: String,
    /// The value or pattern.
    pub value: String,
    /// Whether the value is a regular expression.
    #[serde(rename = "isRegex", default)]
    pub is_regex: bool,
    /// Whether it must match, or must not.
    #[serde(rename = "isEqual", default = "yes")]
    pub is_equal: bool,
}

fn yes() -> bool {
    true
}

// === impl SilenceMatcher ===

impl SilenceMatcher {
    /// The label `name` must be `value`.
    #[must_use]
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        SilenceMatcher {
            name: name.into(),
            value: value.into(),
            is_regex: false,
            is_equal: true,
        }
    }

    /// As a matcher.
    ///
    /// # Errors
    /// When the pattern is no regular expression.
    pub fn matcher(&self) -> Result<Matcher, InvalidRegex> {
        let op = match (self.is_regex, self.is_equal) {
            (false, true) => MatchOp::Equal,
            (false, false) => MatchOp::NotEqual,
            (true, true) => MatchOp::Regex,
            (true, false) => MatchOp::NotRegex,
        };
        Matcher::new(self.name.as_str(), op, self.value.as_str())
    }

    /// Whether labels meet it; a pattern that is none meets nothing.
    #[must_use]
    pub fn meets(&self, labels: &Labels) -> bool {
        self.matcher().is_ok_and(|m| m.matches_labels(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_meets_what_it_says() {
        let labels = Labels::from_pairs([("job", "b")]);
        for (text, op, meets) in [
            (r#"{"name":"job","value":"b"}"#, MatchOp::Equal, true),
            (
                r#"{"name":"job","value":"b","isEqual":false}"#,
                MatchOp::NotEqual,
                false,
            ),
            (
                r#"{"name":"job","value":"a|b","isRegex":true}"#,
                MatchOp::Regex,
                true,
            ),
            (
                r#"{"name":"job","value":"a|b","isRegex":true,"isEqual":false}"#,
                MatchOp::NotRegex,
                false,
            ),
        ] {
            let one: SilenceMatcher = serde_json::from_str(text).unwrap();
            assert_eq!(
                (one.matcher().unwrap().op, one.meets(&labels)),
                (op, meets),
                "{text}"
            );
        }
        let broken = SilenceMatcher {
            is_regex: true,
            ..SilenceMatcher::equal("job", "(")
        };
        assert!(broken.matcher().is_err() && !broken.meets(&labels));
    }
}
