//! What makes a rule acceptable, with the same verdicts as `promtool check rules`.
//!
//! Owns the checks and their words. Must not know YAML's syntax beyond places.

use std::collections::BTreeMap;

use serde_saphyr::Spanned;

use super::locate;
use super::parse::{Pairs, RawRule};
use super::{Rule, RuleError, RuleKind};
use crate::file_error::{FileError, Place};
use crate::template::Template;

/// The file that is being read.
pub(super) struct Context<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

// === impl Context ===

impl Context<'_> {
    pub(super) fn error(&self, place: Place, message: impl Into<String>) -> FileError {
        FileError::at(self.file, self.text, place, message)
    }

    pub(super) fn duration(&self, text: &Spanned<String>) -> Result<i64, RuleError> {
        model::duration::parse_ms(&text.value).map_err(|e| {
            self.error(text.referenced.into(), e.to_string())
                .width(text.value.chars().count())
        })
    }

    /// Labels or annotations: names checked, and the templates of `templates`.
    pub(super) fn labels(
        &self,
        pairs: Option<&Pairs>,
        templates: bool,
    ) -> Result<BTreeMap<String, String>, RuleError> {
        let mut out = BTreeMap::new();
        for (name, value) in pairs.iter().flat_map(|p| &p.0) {
            let place = Place::from(value.referenced);
            if name.is_empty() || name == model::METRIC_NAME {
                return Err(self.error(place, format!("invalid label name: {name:?}")));
            }
            if templates {
                Template::parse(&value.value).map_err(|e| {
                    self.error(place, format!("template of {name:?}: {e}"))
                        .hint("templates are Go's: {{ $labels.job }}, {{ $value | humanize }}")
                })?;
            }
            out.insert(name.clone(), value.value.clone());
        }
        Ok(out)
    }

    fn expr(&self, expr: &Spanned<String>) -> Result<promql::Expr, RuleError> {
        promql::parse(&expr.value).map_err(|e| {
            let place =
                locate::inside(self.text, expr.referenced.into(), &expr.value, e.span.start);
            let width = expr
                .value
                .get(e.span.start..e.span.end)
                .map_or(1, |s| s.chars().count());
            let out = self
                .error(place, format!("could not parse expression: {}", e.message))
                .width(width);
            match e.hint {
                Some(hint) => out.hint(hint),
                None => out,
            }
        })
    }
}

pub(super) fn rule(
    context: &Context<'_>,
    raw: Spanned<RawRule>,
    group_labels: &BTreeMap<String, String>,
) -> Result<Rule, RuleError> {
    let place = Place::from(raw.referenced);
    let raw = raw.value;
    let (kind, name) = match (raw.alert, raw.record) {
        (Some(_), Some(record)) => {
            return Err(context.error(
                record.referenced.into(),
                "only one of 'record' and 'alert' must be set",
            ));
        }
        (None, None) => {
            return Err(context
                .error(place, "one of 'record' or 'alert' must be set")
                .hint(
                    "give the rule a name: `alert: HighErrorRate` or `record: job:errors:rate5m`",
                ));
        }
        (Some(alert), None) => (RuleKind::Alert, alert),
        (None, Some(record)) => (RuleKind::Record, record),
    };
    if name.value.is_empty() {
        return Err(context.error(place, "one of 'record' or 'alert' must be set"));
    }
    let Some(expr) = raw.expr.filter(|e| !e.value.trim().is_empty()) else {
        return Err(context.error(
            place,
            format!("field 'expr' must be set in rule {:?}", name.value),
        ));
    };
    let is_alert = kind == RuleKind::Alert;
    if !is_alert {
        refuse_on_recording(context, place, &name, &raw.hold, "for")?;
        refuse_on_recording(
            context,
            place,
            &name,
            &raw.keep_firing_for,
            "keep_firing_for",
        )?;
        if raw.annotations.as_ref().is_some_and(|a| !a.0.is_empty()) {
            return Err(context.error(place, "invalid field 'annotations' in recording rule"));
        }
        if name.value.contains(['{', '}']) {
            return Err(context.error(
                name.referenced.into(),
                format!(
                    "braces present in the recording rule name; should it be in expr?: {}",
                    name.value
                ),
            ));
        }
    }
    let parsed = context.expr(&expr)?;
    let mut labels = group_labels.clone();
    labels.extend(context.labels(raw.labels.as_ref(), is_alert)?);
    Ok(Rule {
        kind,
        name: name.value,
        expr: expr.value.trim().to_owned(),
        parsed,
        for_ms: raw.hold.map_or(Ok(0), |d| context.duration(&d))?,
        keep_firing_for_ms: raw
            .keep_firing_for
            .map_or(Ok(0), |d| context.duration(&d))?,
        labels,
        annotations: context.labels(raw.annotations.as_ref(), true)?,
        line: place.line,
    })
}

fn refuse_on_recording(
    context: &Context<'_>,
    place: Place,
    name: &Spanned<String>,
    field: &Option<Spanned<String>>,
    what: &str,
) -> Result<(), RuleError> {
    match field {
        Some(value) if value.value != "0s" && value.value != "0" => Err(context.error(
            place,
            format!("invalid field '{what}' in recording rule {:?}", name.value),
        )),
        _ => Ok(()),
    }
}
