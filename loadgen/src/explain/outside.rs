//! Owns the time that no span accounts for: between this generator and the first span of the server. Pure.

use super::{Cause, Kind, Observed, Symptom, ms, percent};
use crate::report::Report;

/// Fewest traces that say something.
const TRACES: usize = 20;

/// A cause when the slow requests, as the client saw them, are much longer than the slowest root spans.
pub(super) fn cause(report: &Report, seen: &Observed, symptom: &Symptom) -> Option<Cause> {
    if seen.sample.len() < TRACES || report.service_time.is_empty() {
        return None;
    }
    let mut spans: Vec<u64> = seen.sample.iter().map(|t| t.duration_ns).collect();
    spans.sort_unstable();
    // The sample is even over time and the slowest are listed apart: the tail of the spans is at least this.
    let all = seen
        .slowest
        .iter()
        .map(|t| t.duration_ns)
        .max()
        .unwrap_or(0);
    let at = |q: f64| spans[((spans.len() - 1) as f64 * q) as usize] as f64;
    let (span_p50, span_p95) = (at(0.5), at(0.95));
    let [p50, p95] = [0.5, 0.95].map(|q| report.service_time.value_at_quantile(q) as f64 * 1e3);
    let [gap_p50, gap_p95] = [p50 - span_p50, p95 - span_p95];
    let share = gap_p95 / p95.max(1.0);
    if gap_p95 < 10e6
        || share < 0.5
        || gap_p95 < 2.0 * gap_p50.max(0.0) && !symptom.stands_out() && gap_p50 < 10e6
    {
        return None;
    }
    let headline = format!(
        "{} of the service time's p95 of {} lie outside of every span: the network, a proxy, or requests that wait to be accepted",
        percent(share),
        ms(p95)
    );
    let evidence = vec![
        format!(
            "service time as sent and received here: p50 {}, p95 {}",
            ms(p50),
            ms(p95)
        ),
        format!(
            "root spans of the server: p50 {}, p95 {}, longest seen {}",
            ms(span_p50),
            ms(span_p95),
            ms(all.max(*spans.last().unwrap_or(&0)) as f64)
        ),
    ];
    Some(Cause {
        kind: Kind::Outside,
        subject: report.target.clone(),
        headline,
        evidence,
        weight: 0.85 * share.min(1.0),
        trace: None,
    })
}
