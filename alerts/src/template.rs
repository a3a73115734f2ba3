//! Templates of labels and annotations: the part of Go's `text/template` that rule files use.
//!
//! Owns parsing and expansion, with Prometheus' functions. Must not know rules, nor where series come from: the
//! `query` function is a closure.
//!
//! ```text
//! text ── lex ──▶ pieces ── parse ──▶ nodes ── exec (values, functions) ──▶ text
//! ```

mod exec;
mod functions;
mod humanize;
mod lex;
mod parse;
mod printf;
mod value;

use std::collections::BTreeMap;

use model::{Labels, QueryData};

pub(crate) use functions::escape_query;
pub use humanize::{humanize, humanize_duration, humanize_percentage};
pub use value::Value;

/// What is wrong with a template, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub String);

/// Answers the `query` function: PromQL at the instant of the evaluation.
pub type QueryFn<'a> = dyn FnMut(&str) -> Result<QueryData, String> + 'a;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    nodes: Vec<parse::Node>,
    defines: BTreeMap<String, Vec<parse::Node>>,
}

/// What a template sees.
pub struct Scope<'a> {
    /// `$labels`: the labels of the series that made the alert.
    pub labels: &'a Labels,
    /// `$value`.
    pub value: f64,
    /// `$externalLabels`.
    pub external_labels: &'a BTreeMap<String, String>,
    /// `$externalURL`.
    pub external_url: &'a str,
    /// The instant of the evaluation, Unix milliseconds.
    pub now_ms: i64,
}

// === impl Template ===

impl Template {
    /// Reads a template. Errors on bad syntax and on functions that do not exist.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let (nodes, defines) = parse::parse(text)?;
        Ok(Template { nodes, defines })
    }

    /// Expands it. Errors name the function or field that failed.
    pub fn expand(
        &self,
        scope: &Scope<'_>,
        query: &mut QueryFn<'_>,
    ) -> Result<String, TemplateError> {
        let labels = labels_value(scope.labels);
        let external = Value::Map(
            scope
                .external_labels
                .iter()
                .map(|(k, v)| (k.clone(), Value::Str(v.clone())))
                .collect(),
        );
        let data = Value::Struct(BTreeMap::from([
            ("Labels".to_owned(), labels.clone()),
            ("ExternalLabels".to_owned(), external.clone()),
            (
                "ExternalURL".to_owned(),
                Value::Str(scope.external_url.to_owned()),
            ),
            ("Value".to_owned(), Value::Float(scope.value)),
        ]));
        let variables = vec![
            ("$".to_owned(), data.clone()),
            ("$labels".to_owned(), labels),
            ("$externalLabels".to_owned(), external),
            (
                "$externalURL".to_owned(),
                Value::Str(scope.external_url.to_owned()),
            ),
            ("$value".to_owned(), Value::Float(scope.value)),
        ];
        exec::run(self, scope, data, variables, query)
    }

    fn define(&self, name: &str) -> Option<&[parse::Node]> {
        self.defines.get(name).map(Vec::as_slice)
    }

    fn nodes(&self) -> &[parse::Node] {
        &self.nodes
    }
}

fn labels_value(labels: &Labels) -> Value {
    Value::Map(
        labels
            .iter()
            .map(|(n, v)| (n.to_owned(), Value::Str(v.to_owned())))
            .collect(),
    )
}

/// Expands `text`; what fails shows in its place as Prometheus shows it: `<error expanding template: …>`.
pub fn expand_or_error(text: &str, scope: &Scope<'_>, query: &mut QueryFn<'_>) -> String {
    if !text.contains("{{") {
        return text.to_owned();
    }
    match Template::parse(text).and_then(|t| t.expand(scope, query)) {
        Ok(out) => out,
        Err(e) => format!("<error expanding template: {e}>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Value as Sample, VectorElement};

    fn expand(text: &str) -> Result<String, TemplateError> {
        let labels = Labels::from_pairs([
            ("job", "api"),
            ("instance", "host:8080"),
            ("empty_not", "x"),
        ]);
        let external = BTreeMap::from([("cluster".to_owned(), "eu".to_owned())]);
        let scope = Scope {
            labels: &labels,
            value: 0.051234,
            external_labels: &external,
            external_url: "http://nines:9909",
            now_ms: 1_000_000,
        };
        let mut query = |text: &str| {
            if text == "bad(" {
                return Err("no".to_owned());
            }
            Ok(QueryData::Vector(vec![
                VectorElement {
                    labels: Labels::from_pairs([("__name__", "up"), ("job", "b")]),
                    t_ms: 0,
                    value: Sample::Float(2.0),
                },
                VectorElement {
                    labels: Labels::from_pairs([("__name__", "up"), ("job", "a")]),
                    t_ms: 0,
                    value: Sample::Float(1.0),
                },
            ]))
        };
        Template::parse(text)?.expand(&scope, &mut query)
    }

    #[test]
    fn expands_what_rule_files_write() {
        for (text, want) in [
            ("plain", "plain"),
            ("{{ $labels.job }}", "api"),
            ("{{ .Labels.job }}/{{ .Value }}", "api/0.051234"),
            ("{{ $labels.nothing }}|", "|"),
            ("{{ $value | humanizePercentage }}", "5.123%"),
            ("{{ printf \"%.2f\" $value }}", "0.05"),
            (
                "{{ printf \"%.1f%% of %s\" 5.25 $labels.job }}",
                "5.2% of api",
            ),
            ("{{ $labels.job | toUpper }}", "API"),
            ("{{ \"hello world\" | title }}", "Hello World"),
            ("{{ if gt $value 0.05 }}high{{ else }}low{{ end }}", "high"),
            (
                "{{ if eq $labels.job \"x\" }}a{{ else if eq .Labels.job \"api\" }}b{{ end }}",
                "b",
            ),
            ("{{- /* note */ -}} a {{- \" b\" -}}  c", "a bc"),
            (
                "{{ range query \"up\" }}{{ .Labels.job }}={{ .Value }};{{ end }}",
                "b=2;a=1;",
            ),
            (
                "{{ range query \"up\" | sortByLabel \"job\" }}{{ .Labels.job }}{{ end }}",
                "ab",
            ),
            (
                "{{ with query \"up\" }}{{ . | first | value }}{{ end }}",
                "2",
            ),
            (
                "{{ with query \"up\" }}{{ . | first | label \"job\" }}{{ end }}",
                "b",
            ),
            (
                "{{ range $k, $v := $labels }}{{ $k }}:{{ $v }},{{ end }}",
                "empty_not:x,instance:host:8080,job:api,",
            ),
            ("{{ $x := 3 }}{{ $x }}{{ $x = 4 }}{{ $x }}", "34"),
            (
                "{{ $externalLabels.cluster }} {{ $externalURL }}",
                "eu http://nines:9909",
            ),
            (
                "{{ define \"t\" }}<{{ . }}>{{ end }}{{ template \"t\" $labels.job }}",
                "<api>",
            ),
            (
                "{{ reReplaceAll \"(.*):.*\" \"$1\" $labels.instance }}",
                "host",
            ),
            ("{{ stripPort $labels.instance }}", "host"),
            ("{{ match \"^a\" $labels.job }}", "true"),
            ("{{ len $labels.job }}{{ index $labels \"job\" }}", "3api"),
            ("{{ (query \"up\" | first).Value }}", "2"),
            (
                "{{ 3661 | humanizeDuration }} {{ 1234567.0 | humanize }} {{ 2048 | humanize1024 }}",
                "1h 1m 1s 1.235M 2ki",
            ),
            (
                "{{ and true $labels.job }}{{ or \"\" \"z\" }}{{ not true }}",
                "apizfalse",
            ),
            ("{{ parseDuration \"1h30m\" }}", "5400"),
            (
                "{{ 1000 | humanizeTimestamp }}",
                "1970-01-01 00:16:40 +0000 UTC",
            ),
            ("{{ args 1 \"b\" | print }}", "map[arg0:1 arg1:b]"),
            (
                "{{ range $i, $s := query \"up\" }}{{ if $i }},{{ end }}{{ $s.Labels.job }}{{ else }}none{{ end }}",
                "b,a",
            ),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_with_a_reason() {
        for (text, part) in [
            ("{{ $labels.job", "unclosed action"),
            ("{{ nosuch 1 }}", "function \"nosuch\" not defined"),
            ("{{ if true }}x", "unexpected EOF"),
            ("{{ end }}", "unexpected {{end}}"),
            ("{{ $nope }}", "undefined variable \"$nope\""),
            ("{{ \"abc }}", "unterminated"),
            ("{{ .Nope }}", "can't evaluate field Nope"),
            ("{{ query \"bad(\" }}", "no"),
            ("{{ \"x\" | humanize }}", "humanize"),
            ("{{ template \"none\" }}", "template \"none\" not defined"),
        ] {
            let error = expand(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(\\{\\{|\\}\\}| |\\$labels|\\.|\"|if|end|range|[a-z|()0-9-]){0,20}") {
            let _ = expand(&text);
        }
    }
}
