//! Owns the time that no span accounts for: between this generator and the first span of the server. Pure.

use super::{Cause, Kind, Observed, Symptom, ms, percent};
use crate::report::Report;

/// Fewest traces on either side that say something.
const TRACES: usize = 8;

/// Client's and spans' p95, nanoseconds.
#[derive(Clone, Copy)]
struct Pair {
    client: f64,
    spans: f64,
}

impl Pair {
    fn gap(self) -> f64 {
        (self.client - self.spans).max(0.0)
    }
}

/// A cause when what the client waited for the first byte is much longer than the spans of the same seconds: of the
/// growth between good and bad seconds, or, when no second stands out, of the whole.
pub(super) fn cause(report: &Report, seen: &Observed, symptom: &Symptom) -> Option<Cause> {
    let stands_out = symptom.stands_out();
    let side = |want: bool| -> Option<Pair> {
        let measured = report.per_second.iter().filter(|s| !s.warm_up);
        let with = measured
            .zip(&symptom.bad)
            .filter(|(s, _)| s.first_byte.count > 0);
        let chosen = with.filter(|(_, bad)| **bad == want);
        let client = super::mean(chosen.map(|(s, _)| s.first_byte.p95 as f64 * 1e3))?;
        let start_ns = report.started_ms as f64 * 1e6;
        let within = seen
            .sample
            .iter()
            .filter(|t| symptom.is_bad_at((t.start_ns as f64 - start_ns) / 1e9) == want);
        let mut spans: Vec<u64> = within.map(|t| t.duration_ns).collect();
        spans.sort_unstable();
        (spans.len() >= TRACES).then(|| Pair {
            client,
            spans: spans[(spans.len() - 1) * 95 / 100] as f64,
        })
    };
    let good = side(false)?;
    let bad = if stands_out { side(true)? } else { good };
    let (outside, all) = match stands_out {
        true => (bad.gap() - good.gap(), bad.client - good.client),
        false => (good.gap(), good.client),
    };
    let share = (outside / all.max(1.0)).min(1.0);
    if outside < 10e6 || share < 0.5 {
        return None;
    }
    let headline = format!(
        "{} of the {} by which {} lie outside of every span: the network, a proxy, or requests that wait to be accepted",
        percent(share),
        ms(all),
        if stands_out {
            "answers come later in the bad seconds"
        } else {
            "answers take at p95"
        }
    );
    let mut evidence = vec![format!(
        "in the bad seconds the first byte came after {} here (p95), spans took {} (p95)",
        ms(bad.client),
        ms(bad.spans)
    )];
    if stands_out {
        evidence.push(format!(
            "in the others after {}, spans took {}",
            ms(good.client),
            ms(good.spans)
        ));
    } else {
        evidence = vec![format!(
            "the first byte came after {} here (p95), spans took {} (p95)",
            ms(good.client),
            ms(good.spans)
        )];
    }
    Some(Cause {
        kind: Kind::Outside,
        subject: report.target.clone(),
        headline,
        evidence,
        weight: 0.9 * share * (all / bad.client.max(1.0)).clamp(0.0, 1.0),
        trace: None,
    })
}
