//! Label matchers: `=`, `!=`, `=~`, `!~`, with fast paths for regular expressions that are literals in disguise.
//!
//! Owns the semantics of matching one label. Must not know how series are stored or indexed.
//! Regular expressions are anchored at both ends, `.` matches newline, as in Prometheus (RE2 syntax, linear time).

use std::fmt;

use crate::labels::{Labels, is_label_identifier};

/// The largest compiled size of one regular expression, in bytes; past it the expression is refused.
const REGEX_SIZE_LIMIT: usize = 4 << 20;

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        })
    }
}

/// One condition on one label. A label that a series lacks has the empty value.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// How it compares.
    pub op: MatchOp,
    /// The value or pattern as written.
    pub value: String,
    regex: Option<CompiledRegex>,
}

/// What a pattern amounts to, so that an index can use more than a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegexShape {
    /// It matches just these values: `a|b|c`.
    Literals(Vec<String>),
    /// Every match begins with this text (never empty).
    Prefix(String),
    /// Nothing simpler.
    Any,
}

#[derive(Debug, Clone)]
struct CompiledRegex {
    regex: regex::Regex,
    shape: RegexShape,
}

/// A pattern that is not a regular expression, or one too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid regular expression {pattern:?}: {reason}")]
pub struct InvalidRegex {
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it, in one line.
    pub reason: String,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

// === impl Matcher ===

impl Matcher {
    /// Builds a matcher; compiles the pattern when `op` is a regular expression.
    pub fn new(
        name: impl Into<String>,
        op: MatchOp,
        value: impl Into<String>,
    ) -> Result<Self, InvalidRegex> {
        let (name, value) = (name.into(), value.into());
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(compile(&value)?),
        };
        Ok(Matcher {
            name,
            op,
            value,
            regex,
        })
    }

    /// An equality matcher, which cannot fail.
    #[must_use]
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Matcher {
            name: name.into(),
            op: MatchOp::Equal,
            value: value.into(),
            regex: None,
        }
    }

    /// Whether a label of this value (empty when absent) satisfies the matcher.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match self.op {
            MatchOp::Equal => value == self.value,
            MatchOp::NotEqual => value != self.value,
            MatchOp::Regex => self.regex_matches(value),
            MatchOp::NotRegex => !self.regex_matches(value),
        }
    }

    /// Whether a series with `labels` satisfies the matcher.
    #[must_use]
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or(""))
    }

    /// Whether a series that lacks the label satisfies the matcher.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// What the pattern amounts to; `None` for `=` and `!=`.
    #[must_use]
    pub fn regex_shape(&self) -> Option<&RegexShape> {
        self.regex.as_ref().map(|r| &r.shape)
    }

    fn regex_matches(&self, value: &str) -> bool {
        let Some(compiled) = &self.regex else {
            return false;
        };
        match &compiled.shape {
            RegexShape::Literals(all) => all.iter().any(|l| l == value),
            RegexShape::Prefix(p) => {
                value.starts_with(p.as_str()) && compiled.regex.is_match(value)
            }
            RegexShape::Any => compiled.regex.is_match(value),
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_label_identifier(&self.name) {
            write!(f, "{}{}{:?}", self.name, self.op, self.value)
        } else {
            write!(f, "{:?}{}{:?}", self.name, self.op, self.value)
        }
    }
}

fn compile(pattern: &str) -> Result<CompiledRegex, InvalidRegex> {
    let invalid = |reason: String| InvalidRegex {
        pattern: pattern.to_owned(),
        reason,
    };
    let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(REGEX_SIZE_LIMIT)
        .build()
        .map_err(|e| invalid(last_line(&e.to_string())))?;
    Ok(CompiledRegex {
        regex,
        shape: shape_of(pattern),
    })
}

fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or("").trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// How many literal alternatives are worth looking up one by one.
const MAX_LITERALS: usize = 256;

fn shape_of(pattern: &str) -> RegexShape {
    use regex_syntax::hir::literal::{ExtractKind, Extractor};
    let parsed = regex_syntax::ParserBuilder::new()
        .dot_matches_new_line(true)
        .build()
        .parse(pattern);
    let Ok(hir) = parsed else {
        return RegexShape::Any;
    };
    if !hir.properties().look_set().is_empty() {
        return RegexShape::Any;
    }
    let literals = Extractor::new()
        .kind(ExtractKind::Prefix)
        .limit_total(MAX_LITERALS)
        .extract(&hir);
    let Some(found) = literals.literals() else {
        return RegexShape::Any;
    };
    let as_text = |l: &regex_syntax::hir::literal::Literal| {
        std::str::from_utf8(l.as_bytes()).ok().map(str::to_owned)
    };
    if literals.is_exact() {
        let all: Option<Vec<String>> = found.iter().map(as_text).collect();
        return all.map_or(RegexShape::Any, RegexShape::Literals);
    }
    let longest = literals.longest_common_prefix().unwrap_or(b"");
    match std::str::from_utf8(longest) {
        Ok(prefix) if !prefix.is_empty() => RegexShape::Prefix(prefix.to_owned()),
        _ => RegexShape::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn regex(pattern: &str) -> Matcher {
        Matcher::new("a", MatchOp::Regex, pattern).unwrap()
    }

    #[test]
    fn patterns_are_anchored_and_dot_matches_newline() {
        assert!(regex("5..").matches("503"));
        assert!(!regex("5..").matches("1503"));
        assert!(regex("a.b").matches("a\nb"));
        assert!(regex("a|bc").matches("bc"));
        assert!(!regex("a|bc").matches("abc"));
        assert!(regex("").matches(""));
        assert!(regex(".*").matches_empty());
        assert!(!regex(".+").matches_empty());
    }

    #[test]
    fn shapes_are_recognised() {
        let shape = |p: &str| regex(p).regex_shape().cloned();
        assert_eq!(
            shape("hit|miss"),
            Some(RegexShape::Literals(vec!["hit".into(), "miss".into()]))
        );
        assert_eq!(shape("api-.*"), Some(RegexShape::Prefix("api-".into())));
        assert_eq!(shape(".*"), Some(RegexShape::Any));
        assert_eq!(
            shape("(?i)get"),
            Some(RegexShape::Literals(
                ["GET", "GEt", "GeT", "Get", "gET", "gEt", "geT", "get"]
                    .map(String::from)
                    .to_vec()
            ))
        );
    }

    #[test]
    fn bad_patterns_say_why() {
        let error = Matcher::new("a", MatchOp::Regex, "a(").unwrap_err();
        assert!(error.reason.contains("unclosed group"), "{}", error.reason);
        assert!(Matcher::new("a", MatchOp::Regex, "((a{1000}){1000}){1000}").is_err());
    }

    proptest! {
        /// The fast paths never change the answer of the plain regular expression.
        #[test]
        fn shape_agrees_with_regex(pattern in "[ab.|*()+?]{0,8}", value in "[ab]{0,6}") {
            if let Ok(matcher) = Matcher::new("a", MatchOp::Regex, pattern.clone()) {
                let plain = regex::Regex::new(&format!("^(?s:{pattern})$")).unwrap();
                prop_assert_eq!(matcher.matches(&value), plain.is_match(&value), "{} on {}", pattern, value);
            }
        }
    }
}
