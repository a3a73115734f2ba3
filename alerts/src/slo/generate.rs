//! From SLOs to rules: recordings of error ratios, and multi-window burn-rate alerts.
//!
//! Owns the names of recordings and the shape of alerts. Must not know evaluation.

use std::collections::BTreeMap;

use model::duration::format_ms;

use super::math::{self, BurnWindow, WINDOWS_MS};
use super::{Part, Slo, SloFile};
use crate::file_error::FileError;
use crate::rules::{Rule, RuleFile, RuleGroup, RuleKind};

/// Recorded error ratio of a window: this and the window, as in `slo:sli_error:ratio_rate5m{slo="…"}`.
pub(super) const RATIO: &str = "slo:sli_error:ratio_rate";
/// Recorded number of bad events in a window.
const BAD: &str = "slo:bad_events:increase";
/// Recorded number of good events in the period.
pub(super) const GOOD_PERIOD: &str = "slo:good_events:increase_period";
/// Recorded number of all events in the period.
pub(super) const TOTAL_PERIOD: &str = "slo:total_events:increase_period";

/// Windows from here on are recorded by a group of their own, less often.
const LONG_FROM_MS: i64 = 86_400_000;
/// Interval of that group, milliseconds.
const LONG_INTERVAL_MS: i64 = 60_000;

/// The rules of all SLOs of a file: for each a group of short windows and alerts, and one of long windows. Errors only
/// when a query cannot stand where `$window` is replaced.
pub fn rules(file: &SloFile) -> Result<RuleFile, FileError> {
    let mut groups = Vec::new();
    for slo in &file.slos {
        let (short, long) = groups_of(slo)
            .map_err(|e| FileError::whole_file(&file.name, format!("SLO {:?}: {e}", slo.name)))?;
        groups.extend([long, short]);
    }
    Ok(RuleFile {
        name: file.name.clone(),
        groups,
    })
}

fn groups_of(slo: &Slo) -> Result<(RuleGroup, RuleGroup), String> {
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for window_ms in WINDOWS_MS {
        let window = format_ms(window_ms);
        let group = if window_ms < LONG_FROM_MS {
            &mut short
        } else {
            &mut long
        };
        group.push(record(
            slo,
            &format!("{RATIO}{window}"),
            &ratio(slo, &window),
        )?);
        if is_long(window_ms) {
            group.push(record(slo, &format!("{BAD}{window}"), &bad(slo, &window))?);
        }
    }
    long.push(record(slo, GOOD_PERIOD, &good(slo, &slo.period))?);
    long.push(record(
        slo,
        TOTAL_PERIOD,
        &at(&slo.events.total, &slo.period),
    )?);
    for (severity, windows, kind) in [
        (&slo.page, &math::PAGE, "page"),
        (&slo.ticket, &math::TICKET, "ticket"),
    ] {
        if let Some(severity) = severity
            && let Some(rule) = alert(slo, severity, windows, kind)?
        {
            short.push(rule);
        }
    }
    let group = |suffix: &str, interval_ms, rules| RuleGroup {
        name: format!("slo-{}{suffix}", slo.name),
        interval_ms,
        limit: 0,
        query_offset_ms: 0,
        labels: BTreeMap::new(),
        rules,
    };
    Ok((
        group("", None, short),
        group("-long", Some(LONG_INTERVAL_MS), long),
    ))
}

fn is_long(window_ms: i64) -> bool {
    let mut all = math::PAGE.iter().chain(&math::TICKET);
    all.any(|w| w.long_ms == window_ms)
}

fn at(query: &str, window: &str) -> String {
    query.replace("$window", window)
}

/// Good events; without any good series, none of the total.
fn good(slo: &Slo, window: &str) -> String {
    let total = at(&slo.events.total, window);
    match &slo.events.part {
        Part::Good(good) => format!("({}) or ({total}) * 0", at(good, window)),
        Part::Bad(_) => format!("({total}) - ({})", bad(slo, window)),
    }
}

/// Bad events; without any bad series, none of the total.
fn bad(slo: &Slo, window: &str) -> String {
    let total = at(&slo.events.total, window);
    match &slo.events.part {
        Part::Bad(bad) => format!("({}) or ({total}) * 0", at(bad, window)),
        Part::Good(_) => format!("({total}) - ({})", good(slo, window)),
    }
}

/// The error ratio; no sample without traffic, so that 0/0 is never a verdict.
fn ratio(slo: &Slo, window: &str) -> String {
    let total = at(&slo.events.total, window);
    format!("({}) / (({total}) > 0)", bad(slo, window))
}

fn record(slo: &Slo, name: &str, expr: &str) -> Result<Rule, String> {
    let mut labels = slo.labels.clone();
    labels.insert("slo".into(), slo.name.clone());
    rule(RuleKind::Record, name, expr, labels, BTreeMap::new())
}

fn rule(
    kind: RuleKind,
    name: &str,
    expr: &str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
) -> Result<Rule, String> {
    let parsed = promql::parse(expr).map_err(|e| format!("{}: {expr}", e.message))?;
    Ok(Rule {
        kind,
        name: name.to_owned(),
        expr: promql::format(&parsed),
        parsed,
        for_ms: 0,
        keep_firing_for_ms: 0,
        labels,
        annotations,
        line: 0,
    })
}

/// One alert over both pairs. A pair whose threshold is 100 % errors or more can never fire and is left out.
fn alert(
    slo: &Slo,
    severity: &str,
    windows: &[BurnWindow],
    kind: &str,
) -> Result<Option<Rule>, String> {
    let name = &slo.name;
    let pair = |w: &BurnWindow| {
        let threshold = math::threshold(w.rate, slo.objective);
        let (long, short) = (format_ms(w.long_ms), format_ms(w.short_ms));
        let limit = round(threshold);
        (threshold < 1.0).then(|| {
            format!(
                "({RATIO}{long}{{slo=\"{name}\"}} > {limit} and {RATIO}{short}{{slo=\"{name}\"}} > {limit} \
                 and {BAD}{long}{{slo=\"{name}\"}} >= {})",
                slo.min_bad_events
            )
        })
    };
    let pairs: Vec<String> = windows.iter().filter_map(pair).collect();
    if pairs.is_empty() {
        return Ok(None);
    }
    let mut labels = slo.labels.clone();
    labels.extend([
        ("slo".into(), name.clone()),
        ("severity".into(), severity.to_owned()),
        ("slo_alert".into(), kind.to_owned()),
    ]);
    labels
        .entry("incident".into())
        .or_insert_with(|| format!("slo-{name}"));
    let (title, speed) = match kind {
        "page" => ("SloBurnPage", "fast"),
        _ => ("SloBurnTicket", "slowly but steadily"),
    };
    let objective = round(slo.objective * 100.0);
    let annotations = BTreeMap::from([
        (
            "summary".into(),
            format!(
                "SLO {name} burns its error budget {speed}: {{{{ $value | humanizePercentage }}}} of events are bad"
            ),
        ),
        (
            "description".into(),
            format!(
                "{} The objective is {objective}% over {}. Above the limit in a long and a short window: {}.",
                slo.description,
                slo.period,
                windows
                    .iter()
                    .map(|w| format!(
                        "{}x in {} and {}",
                        w.rate,
                        format_ms(w.long_ms),
                        format_ms(w.short_ms)
                    ))
                    .collect::<Vec<_>>()
                    .join(", or ")
            ),
        ),
        ("runbook".into(), slo.runbook.clone()),
    ]);
    rule(
        RuleKind::Alert,
        title,
        &pairs.join(" or "),
        labels,
        annotations,
    )
    .map(Some)
}

/// Without the dust of binary fractions: 0.0144, not 0.014400000000000012.
fn round(v: f64) -> f64 {
    (v * 1e12).round() / 1e12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_recordings_and_alerts_that_parse_again() {
        let text = "slos:\n  - name: a\n    objective: 99.9\n    bad: sum(increase(x{ok=\"0\"}[$window]))\n    total: sum(increase(x[$window]))\n";
        let file = rules(&SloFile::parse("s.yaml", text).unwrap()).unwrap();
        let names: Vec<&str> = file.rules().map(|(_, r)| r.name.as_str()).collect();
        assert!(names.contains(&"slo:sli_error:ratio_rate5m"));
        assert!(names.contains(&"slo:bad_events:increase3d"));
        let page = file
            .rules()
            .find(|(_, r)| r.name == "SloBurnPage")
            .unwrap()
            .1;
        assert!(page.expr.contains("0.0144"), "{}", page.expr);
        assert_eq!(page.severity(), "critical");
        let again = RuleFile::parse("g.yaml", &file.to_yaml()).unwrap();
        assert_eq!(again.groups.len(), file.groups.len());
    }

    #[test]
    fn a_pair_that_can_never_fire_is_left_out() {
        let text = "slos:\n  - name: hits\n    objective: 85\n    good: sum(increase(h[$window]))\n    total: sum(increase(t[$window]))\n";
        let file = rules(&SloFile::parse("s.yaml", text).unwrap()).unwrap();
        let page = file
            .rules()
            .find(|(_, r)| r.name == "SloBurnPage")
            .unwrap()
            .1;
        assert!(
            !page.expr.contains("rate1h"),
            "14.4 x 15 % is more than everything: {}",
            page.expr
        );
        assert!(page.expr.contains("rate6h"));
    }
}
