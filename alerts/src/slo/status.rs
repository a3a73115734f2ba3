//! The status of SLOs, read from what their rules recorded.
//!
//! Owns the queries and how answers become [`SloStatus`]. Must not know the store.

use std::collections::BTreeMap;

use model::duration::format_ms;
use model::slo::{BurnRate, SloAlert, SloStatus};
use model::{QueryData, Source, Value, VectorElement};

use super::generate::{GOOD_PERIOD, RATIO, TOTAL_PERIOD};
use super::math::{self, WINDOWS_MS};
use super::{Slo, SloFile};

/// The status of every SLO of a file at `now_ms`, from the recordings of [`super::rules`]. `time_scale` is what the
/// rules were scaled by (1 for not at all): it shortens the period from which the time to empty follows. Errors when a
/// query fails; what was not recorded yet is `None`.
pub fn status(
    file: &SloFile,
    source: &dyn Source,
    engine: &promql::Engine,
    now_ms: i64,
    time_scale: f64,
) -> Result<Vec<SloStatus>, String> {
    let mut query = |text: &str| match engine.instant(source, text, now_ms) {
        Ok(output) => Ok(output.data),
        Err(e) => Err(e.to_string()),
    };
    status_with(file, &mut query, time_scale)
}

/// [`status`] with PromQL as a closure.
pub(super) fn status_with(
    file: &SloFile,
    query: &mut dyn FnMut(&str) -> Result<QueryData, String>,
    time_scale: f64,
) -> Result<Vec<SloStatus>, String> {
    let recorded = vector(query(
        "{__name__=~\"slo:(sli_error|good_events|total_events):.+\"}",
    )?);
    let firing = vector(query("ALERTS{alertstate=\"firing\", slo!=\"\"}")?);
    Ok(file
        .slos
        .iter()
        .map(|slo| one(slo, &recorded, &firing, time_scale))
        .collect())
}

fn vector(data: QueryData) -> Vec<VectorElement> {
    match data {
        QueryData::Vector(all) => all,
        _ => Vec::new(),
    }
}

fn one(
    slo: &Slo,
    recorded: &[VectorElement],
    firing: &[VectorElement],
    time_scale: f64,
) -> SloStatus {
    let mine = recorded
        .iter()
        .filter(|e| e.labels.get("slo") == Some(&slo.name));
    let values: BTreeMap<&str, f64> = mine
        .filter_map(|e| match e.value {
            Value::Float(v) if v.is_finite() => Some((e.labels.name(), v)),
            _ => None,
        })
        .collect();
    let burn: Vec<BurnRate> = WINDOWS_MS
        .iter()
        .map(|ms| {
            let window = format_ms(*ms);
            let error = values.get(format!("{RATIO}{window}").as_str()).copied();
            BurnRate {
                rate: error.map(|e| math::burn_rate(e, slo.objective)),
                window,
            }
        })
        .collect();
    let good = values.get(GOOD_PERIOD).copied();
    let total = values.get(TOTAL_PERIOD).copied();
    let sli = match (good, total) {
        (Some(good), Some(total)) if total > 0.0 => Some((good / total).clamp(0.0, 1.0)),
        _ => None,
    };
    let budget_left = sli.map(|s| math::budget_left(1.0 - s, slo.objective));
    let hour = burn.iter().find(|b| b.window == "1h").and_then(|b| b.rate);
    let period_ms = crate::rules::divide(slo.period_ms, time_scale.max(f64::MIN_POSITIVE));
    SloStatus {
        name: slo.name.clone(),
        description: slo.description.clone(),
        objective: slo.objective,
        period: slo.period.clone(),
        sli,
        good,
        total,
        budget_left,
        empty_in_ms: match (budget_left, hour) {
            (Some(left), Some(rate)) => math::empty_in_ms(left, rate, period_ms),
            _ => None,
        },
        burn,
        alert: alert(slo, firing),
    }
}

fn alert(slo: &Slo, firing: &[VectorElement]) -> SloAlert {
    let mine = firing
        .iter()
        .filter(|e| e.labels.get("slo") == Some(&slo.name));
    mine.map(|e| match e.labels.get("slo_alert") {
        Some("page") => SloAlert::Page,
        Some("ticket") => SloAlert::Ticket,
        _ => SloAlert::Ok,
    })
    .max_by_key(|a| *a as u8)
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Labels;

    fn element(name: &str, extra: &[(&str, &str)], v: f64) -> VectorElement {
        let mut labels = Labels::from_pairs([("__name__", name), ("slo", "a")]).to_builder();
        for (k, v) in extra {
            labels.set(*k, *v);
        }
        VectorElement {
            labels: labels.build(),
            t_ms: 0,
            value: Value::Float(v),
        }
    }

    #[test]
    fn reads_recordings() {
        let text = "slos:\n  - name: a\n    objective: 99.9\n    good: sum(increase(h[$window]))\n    total: sum(increase(t[$window]))\n  - name: b\n    objective: 99\n    good: sum(increase(h[$window]))\n    total: sum(increase(t[$window]))\n";
        let file = SloFile::parse("s.yaml", text).unwrap();
        let mut query = |text: &str| {
            Ok(QueryData::Vector(if text.starts_with("ALERTS") {
                vec![
                    element("ALERTS", &[("slo_alert", "page")], 1.0),
                    element("ALERTS", &[("slo_alert", "ticket")], 1.0),
                ]
            } else {
                vec![
                    element(GOOD_PERIOD, &[], 9_995.0),
                    element(TOTAL_PERIOD, &[], 10_000.0),
                    element("slo:sli_error:ratio_rate1h", &[], 0.002),
                    element("slo:sli_error:ratio_rate5m", &[], f64::NAN),
                ]
            }))
        };
        let all = status_with(&file, &mut query, 60.0).unwrap();
        let a = &all[0];
        assert!((a.budget_left.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!((a.burn[0].window.as_str(), a.burn[0].rate), ("5m", None));
        assert!((a.burn[2].rate.unwrap() - 2.0).abs() < 1e-9);
        // Half of the budget at twice the rate: a quarter of the period, which is 12 h at this scale.
        assert!(
            (a.empty_in_ms.unwrap() - 3 * 3_600_000).abs() <= 1,
            "{:?}",
            a.empty_in_ms
        );
        assert_eq!(a.alert, SloAlert::Page);
        assert_eq!(
            (all[1].sli, all[1].budget_left, all[1].alert),
            (None, None, SloAlert::Ok)
        );
    }
}
