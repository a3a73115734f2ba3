//! From YAML to [`RuleFile`].
//!
//! Owns the raw shape with places. Must not know what makes a value acceptable (that is `check`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::check::{self, Context};
use super::{RuleError, RuleFile, RuleGroup};
use crate::file_error::{FileError, Place};

/// A mapping of text to text in the order written, each value with its place.
#[derive(Debug, Default)]
pub(crate) struct Pairs(pub(crate) Vec<(String, Spanned<String>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = Pairs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a mapping of names to texts")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Pairs, A::Error> {
                let mut out = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    out.push(entry);
                }
                Ok(Pairs(out))
            }
            fn visit_unit<E>(self) -> Result<Pairs, E> {
                Ok(Pairs::default())
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    groups: Option<Vec<RawGroup>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    #[serde(default)]
    name: Option<Spanned<String>>,
    #[serde(default)]
    interval: Option<Spanned<String>>,
    #[serde(default)]
    query_offset: Option<Spanned<String>>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    labels: Option<Pairs>,
    #[serde(default)]
    rules: Option<Vec<Spanned<RawRule>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    #[serde(default)]
    pub(super) record: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) alert: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) expr: Option<Spanned<String>>,
    #[serde(default, rename = "for")]
    pub(super) hold: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) keep_firing_for: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) labels: Option<Pairs>,
    #[serde(default)]
    pub(super) annotations: Option<Pairs>,
}

pub(super) fn parse(file_name: &str, text: &str) -> Result<RuleFile, RuleError> {
    let context = Context {
        file: file_name,
        text,
    };
    let raw: Option<RawFile> = if text.trim().is_empty() {
        None
    } else {
        serde_saphyr::from_str(text).map_err(|e| FileError::from_yaml(file_name, text, &e))?
    };
    let mut file = RuleFile {
        name: file_name.to_owned(),
        groups: Vec::new(),
    };
    for raw in raw.and_then(|r| r.groups).unwrap_or_default() {
        let group = group(&context, raw, &file.groups)?;
        file.groups.push(group);
    }
    Ok(file)
}

fn group(
    context: &Context<'_>,
    raw: RawGroup,
    before: &[RuleGroup],
) -> Result<RuleGroup, RuleError> {
    let Some(name) = raw.name.filter(|n| !n.value.is_empty()) else {
        let place = raw
            .rules
            .iter()
            .flatten()
            .next()
            .map(|r| Place::from(r.referenced))
            .unwrap_or_default();
        return Err(context
            .error(place, "a group has no name")
            .hint("write `- name: my-group`; names are unique in a file"));
    };
    if before.iter().any(|g| g.name == name.value) {
        return Err(context.error(
            name.referenced.into(),
            format!("groupname {:?} is repeated in the same file", name.value),
        ));
    }
    let labels: BTreeMap<String, String> = context.labels(raw.labels.as_ref(), false)?;
    let mut rules = Vec::new();
    for rule in raw.rules.unwrap_or_default() {
        rules.push(check::rule(context, rule, &labels)?);
    }
    Ok(RuleGroup {
        name: name.value,
        interval_ms: match raw.interval {
            Some(i) => Some(context.duration(&i)?).filter(|ms| *ms > 0),
            None => None,
        },
        limit: raw.limit.unwrap_or(0),
        query_offset_ms: raw.query_offset.map_or(Ok(0), |d| context.duration(&d))?,
        labels,
        rules,
    })
}
