//! Unit tests of rules, in promtool's format: series in, alerts and values expected.
//!
//! Owns the format, the in-memory source, and the comparison. Must not print. Source:
//! <https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/>

mod memory;

use std::collections::BTreeMap;

use model::api::{format_float, parse_float};
use model::{Labels, QueryData, Value};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::engine::{AlertState, EngineOptions, RuleEngine};
use crate::file_error::{FileError, Place};
use crate::rules::RuleFile;
pub use memory::MemorySource;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    rule_files: Vec<String>,
    #[serde(default)]
    evaluation_interval: Option<Spanned<String>>,
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "accepted for promtool's sake; groups keep their order"
    )]
    group_eval_order: Vec<String>,
    #[serde(default)]
    tests: Vec<RawTest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    #[serde(default)]
    name: String,
    #[serde(default)]
    interval: Option<Spanned<String>>,
    #[serde(default)]
    input_series: Vec<RawSeries>,
    #[serde(default)]
    alert_rule_test: Vec<RawAlertTest>,
    #[serde(default)]
    promql_expr_test: Vec<RawExprTest>,
    #[serde(default)]
    external_labels: BTreeMap<String, String>,
    #[serde(default)]
    external_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSeries {
    series: Spanned<String>,
    values: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlertTest {
    eval_time: Spanned<String>,
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<RawAlert>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlert {
    #[serde(default)]
    exp_labels: BTreeMap<String, String>,
    #[serde(default)]
    exp_annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExprTest {
    expr: String,
    eval_time: Spanned<String>,
    #[serde(default)]
    exp_samples: Vec<RawSample>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSample {
    #[serde(default)]
    labels: Option<Spanned<String>>,
    value: Spanned<String>,
}

/// What a run of a test file found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Expectations that were compared.
    pub checks: usize,
    /// What was not as expected, one text each.
    pub failures: Vec<String>,
    /// Names of alert rules that fired in at least one test.
    pub fired: std::collections::BTreeSet<String>,
}

/// Runs a test file. `load` reads a rule file by the name written in `rule_files`. Errors are mistakes in the files;
/// expectations that are not met are in the report.
pub fn run(
    file: &str,
    text: &str,
    load: &mut dyn FnMut(&str) -> Result<RuleFile, FileError>,
) -> Result<Report, FileError> {
    let raw: RawFile =
        serde_saphyr::from_str(text).map_err(|e| FileError::from_yaml(file, text, &e))?;
    let reader = Reader { file, text };
    let interval_ms = reader.duration(raw.evaluation_interval.as_ref(), 60_000)?;
    let mut rules = Vec::new();
    for name in &raw.rule_files {
        rules.push(load(name)?);
    }
    let mut report = Report::default();
    for test in &raw.tests {
        reader.test(test, &rules, interval_ms, &mut report)?;
    }
    Ok(report)
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
}

type Fired = Vec<(String, Labels, BTreeMap<String, String>)>;

// === impl Reader ===

impl Reader<'_> {
    fn error(&self, place: Place, message: impl Into<String>) -> FileError {
        FileError::at(self.file, self.text, place, message)
    }

    fn duration(&self, text: Option<&Spanned<String>>, default_ms: i64) -> Result<i64, FileError> {
        let Some(text) = text else {
            return Ok(default_ms);
        };
        model::duration::parse_ms(&text.value)
            .map_err(|e| self.error(text.referenced.into(), e.to_string()))
    }

    fn test(
        &self,
        test: &RawTest,
        rules: &[RuleFile],
        interval_ms: i64,
        report: &mut Report,
    ) -> Result<(), FileError> {
        let step_ms = self.duration(test.interval.as_ref(), interval_ms)?.max(1);
        let interval_ms = interval_ms.max(1);
        let source = MemorySource::default();
        for series in &test.input_series {
            let line = format!("{} {}", series.series.value, series.values);
            let (labels, values) = promql::series::parse_line(&line)
                .map_err(|e| self.error(series.series.referenced.into(), e))?;
            for (i, value) in values.into_iter().enumerate() {
                if let Some(value) = value.value {
                    source.append(&labels, i as i64 * step_ms, value);
                }
            }
        }
        let mut times = Vec::new();
        for t in &test.alert_rule_test {
            times.push(self.duration(Some(&t.eval_time), 0)?);
        }
        for t in &test.promql_expr_test {
            times.push(self.duration(Some(&t.eval_time), 0)?);
        }
        let end = times.iter().copied().max().unwrap_or(0);
        let options = EngineOptions {
            default_interval_ms: interval_ms,
            external_labels: test.external_labels.clone(),
            external_url: test.external_url.clone(),
        };
        // As promtool: every group is evaluated at the test's interval.
        let files = rules.iter().cloned().map(|mut f| {
            f.groups.iter_mut().for_each(|g| g.interval_ms = None);
            f
        });
        let mut engine = RuleEngine::with_options(files.collect(), None, options);
        let promql = promql::Engine::default();
        let mut history: BTreeMap<i64, Fired> = BTreeMap::new();
        for tick in 0..=end / interval_ms {
            let now_ms = tick * interval_ms;
            let made = engine.tick(now_ms, &source, &promql);
            for error in made.errors {
                report
                    .failures
                    .push(format!("{} at {now_ms} ms: {error}", test.name));
            }
            made.samples
                .iter()
                .for_each(|(l, t, v)| source.append(l, *t, Value::Float(*v)));
            let firing = engine.alerts().filter(|a| a.state == AlertState::Firing);
            let fired: Fired = firing
                .map(|a| {
                    (
                        a.labels.get("alertname").unwrap_or("").to_owned(),
                        a.labels.clone(),
                        a.annotations.clone(),
                    )
                })
                .collect();
            report.fired.extend(fired.iter().map(|f| f.0.clone()));
            history.insert(now_ms, fired);
        }
        let (alert_times, expr_times) = times.split_at(test.alert_rule_test.len());
        for (check, at) in test.alert_rule_test.iter().zip(alert_times) {
            let fired = history.range(..=*at).next_back().map(|(_, f)| f.as_slice());
            check_alerts(test, check, fired.unwrap_or_default(), report);
        }
        for (check, at) in test.promql_expr_test.iter().zip(expr_times) {
            self.check_expr(test, check, *at, &source, &promql, report)?;
        }
        Ok(())
    }

    fn check_expr(
        &self,
        test: &RawTest,
        check: &RawExprTest,
        at_ms: i64,
        source: &MemorySource,
        engine: &promql::Engine,
        report: &mut Report,
    ) -> Result<(), FileError> {
        report.checks += 1;
        let mut want = Vec::new();
        for sample in &check.exp_samples {
            let labels = match &sample.labels {
                None => Labels::empty(),
                Some(text) => promql::parse_series(&text.value)
                    .map_err(|e| self.error(text.referenced.into(), e.message))?,
            };
            let value = parse_float(&sample.value.value).ok_or_else(|| {
                self.error(sample.value.referenced.into(), "this is not a number")
            })?;
            want.push((labels, value));
        }
        let got = match engine.instant(source, &check.expr, at_ms) {
            Ok(output) => samples(output.data),
            Err(e) => {
                report
                    .failures
                    .push(format!("{}: {}: {e}", test.name, check.expr));
                return Ok(());
            }
        };
        let mut got = got;
        let by_labels = |a: &(Labels, f64), b: &(Labels, f64)| a.0.cmp(&b.0);
        want.sort_by(by_labels);
        got.sort_by(by_labels);
        let close = |a: f64, b: f64| {
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
        };
        let same = want.len() == got.len()
            && want
                .iter()
                .zip(&got)
                .all(|(w, g)| w.0 == g.0 && close(w.1, g.1));
        if !same {
            let show = |all: &[(Labels, f64)]| -> String {
                let each: Vec<String> = all
                    .iter()
                    .map(|(l, v)| format!("{l} {}", format_float(*v)))
                    .collect();
                each.join(", ")
            };
            report.failures.push(format!(
                "{}: {} at {}: expected [{}], got [{}]",
                test.name,
                check.expr,
                check.eval_time.value,
                show(&want),
                show(&got)
            ));
        }
        Ok(())
    }
}

fn samples(data: QueryData) -> Vec<(Labels, f64)> {
    match data {
        QueryData::Scalar(_, v) => vec![(Labels::empty(), v)],
        QueryData::Vector(all) => all
            .into_iter()
            .filter_map(|e| match e.value {
                Value::Float(v) => Some((e.labels, v)),
                Value::Histogram(_) => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn check_alerts(
    test: &RawTest,
    check: &RawAlertTest,
    fired: &[(String, Labels, BTreeMap<String, String>)],
    report: &mut Report,
) {
    report.checks += 1;
    let mut want: Vec<(Labels, &BTreeMap<String, String>)> = check
        .exp_alerts
        .iter()
        .map(|e| {
            let labels =
                Labels::from_pairs(e.exp_labels.clone()).with("alertname", &check.alertname);
            (labels, &e.exp_annotations)
        })
        .collect();
    let mine = fired.iter().filter(|(name, ..)| *name == check.alertname);
    let mut got: Vec<(Labels, &BTreeMap<String, String>)> =
        mine.map(|(_, l, a)| (l.clone(), a)).collect();
    want.sort_by(|a, b| a.0.cmp(&b.0));
    got.sort_by(|a, b| a.0.cmp(&b.0));
    if want != got {
        report.failures.push(format!(
            "{}: {} at {}: expected {want:?}, got {got:?}",
            test.name, check.alertname, check.eval_time.value
        ));
    }
}

#[cfg(test)]
mod tests;
