//! Owns the time that no span accounts for: between this generator and the first span of the server. Pure.

use std::collections::BTreeMap;

use super::{Cause, Kind, Line, Observed, Symptom, What, ms, percent};
use crate::report::Report;

/// The client's wait for the first byte and the length of the server's spans, nanoseconds.
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
/// growth between good and bad seconds, or, when no second stands out, of the whole. The spans are those of the service
/// that answers the client; what a trace does after the answer does not count.
pub(super) fn cause(report: &Report, seen: &Observed, symptom: &Symptom) -> Option<Cause> {
    let stands_out = symptom.stands_out();
    let service = front(seen)?;
    let is_front = |l: &&Line| l.what == What::ServiceP99 && l.label("service_name") == service;
    let line = seen.lines.iter().find(is_front)?;
    let (spans_bad, spans_good) = symptom.split(&line.values, seen.step_s);
    let side = |want: bool, spans: Option<f64>| -> Option<Pair> {
        let measured = report.per_second.iter().filter(|s| !s.warm_up);
        let with = measured
            .zip(&symptom.bad)
            .filter(|(s, bad)| s.first_byte.count > 0 && **bad == want);
        let client = super::mean(with.map(|(s, _)| s.first_byte.p99 as f64 * 1e3))?;
        Some(Pair {
            client,
            spans: spans? * 1e9,
        })
    };
    let good = side(false, spans_good)?;
    let bad = if stands_out {
        side(true, spans_bad)?
    } else {
        good
    };
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
            "answers take at p99"
        }
    );
    let mut evidence = vec![format!(
        "in the bad seconds the first byte came after {} here (p99), spans of {service} took {} (p99)",
        ms(bad.client),
        ms(bad.spans)
    )];
    if stands_out {
        evidence.push(format!(
            "in the others after {}, its spans took {}",
            ms(good.client),
            ms(good.spans)
        ));
    } else {
        evidence = vec![format!(
            "the first byte came after {} here (p99), spans of {service} took {} (p99)",
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

/// The service whose spans are the roots.
fn front(seen: &Observed) -> Option<&str> {
    let mut roots: BTreeMap<&str, usize> = BTreeMap::new();
    for trace in &seen.sample {
        *roots.entry(trace.root_service.as_str()).or_default() += 1;
    }
    let most = roots.into_iter().max_by_key(|(_, n)| *n);
    most.map(|(name, _)| name)
}
