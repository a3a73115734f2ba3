//! What the latency screen needs: the heat map, percentiles now and a range ago, exemplars.
//!
//! Owns these queries. A route is read from the native histogram of its spans, or the classic one where there is none;
//! all routes together from the gateway's request histogram, or spans where there is none. Must not know drawing.

use std::collections::BTreeSet;

use dashboards::queries;
use futures_util::future::{join, join_all};
use model::matcher::Matcher;
use model::span::TraceId;

use super::{Asker, LISTED, label};
use crate::app::Request;
use crate::data::{Data, Percentile, Sampled};
use crate::heat::{Cell, Heat, lay, step_ms};

/// Samples come this much late, milliseconds: a column is complete only then.
const LATE_MS: i64 = 1_500;
/// The name of all routes together.
pub(crate) const ALL_ROUTES: &str = "all routes";
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];
const NATIVE: &str = "traces_span_metrics_duration_seconds";

/// Which spans are meant.
struct Spans(String);

// === impl Spans ===

impl Spans {
    /// Those of a service's route (method and path), or all that serve.
    fn of(route: Option<&(String, String)>) -> Spans {
        let mut all = vec![Matcher::equal("span_kind", "SPAN_KIND_SERVER")];
        if let Some((service, route)) = route {
            let (method, path) = match route.split_once(' ') {
                Some((method, path)) => (method, path),
                None if route.starts_with('/') => ("", route.as_str()),
                None => (route.as_str(), ""),
            };
            all.push(Matcher::equal("service_name", service));
            all.push(Matcher::equal("http_request_method", method));
            all.push(Matcher::equal("http_route", path));
        }
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        Spans(format!("{{{}}}", texts.join(",")))
    }

    fn native(&self, window: &str) -> String {
        format!("sum(rate({NATIVE}{}[{window}]))", self.0)
    }

    fn classic(&self, window: &str) -> String {
        format!("sum by (le) (rate({NATIVE}_bucket{}[{window}]))", self.0)
    }

    fn quantile(&self, q: f64, window: &str) -> String {
        let (native, classic) = (self.native(window), self.classic(window));
        format!(
            "(histogram_quantile({q}, {native}) >= 0) or (histogram_quantile({q}, {classic}) >= 0)"
        )
    }
}

/// The name of a choice: the route with its service, or all.
pub(crate) fn name_of(route: Option<&(String, String)>) -> String {
    match route {
        None => ALL_ROUTES.into(),
        Some((service, route)) => format!("{service} {route}").trim_end().to_owned(),
    }
}

pub(super) async fn fetch(ask: &Asker<'_>, request: &Request, data: &mut Data) {
    let route = request.pick.route.as_ref();
    let spans = Spans::of(route);
    (data.heat, data.percentiles) = join(
        heat(ask, request, &spans),
        percentiles(ask, route.is_none(), &spans),
    )
    .await;
    // Exemplars are many: they are asked for when the map has a new column, and kept in between.
    if data.heat.as_ref().is_none_or(|h| !h.columns.is_empty()) {
        data.exemplars = exemplars(ask, &spans).await;
    }
}

async fn heat(ask: &Asker<'_>, request: &Request, spans: &Spans) -> Option<Heat> {
    let step_ms = step_ms(ask.range_ms);
    let name = name_of(request.pick.route.as_ref());
    let end_ms = (ask.t_ms - LATE_MS).div_euclid(step_ms) * step_ms;
    let first_ms = end_ms - (crate::heat::COLUMNS - 1) * step_ms;
    let known = request.heat.as_ref();
    // Where time went back, the map begins anew.
    let known = known.filter(|(n, step, end)| *n == name && *step == step_ms && *end <= end_ms);
    let start_ms = known.map_or(first_ms, |(_, _, end)| (end + step_ms).max(first_ms));
    let mut out = Heat {
        name,
        from: "native".into(),
        end_ms,
        step_ms,
        columns: Vec::new(),
    };
    if start_ms > end_ms {
        return Some(out);
    }
    let window_ms = model::duration::parse_ms(ask.window).unwrap_or(60_000);
    let window = format!("{}ms", window_ms.max(step_ms));
    let n = usize::try_from((end_ms - start_ms) / step_ms + 1).unwrap_or(1);
    out.columns = vec![None; n];
    let at = |t: i64| usize::try_from((t - start_ms + step_ms / 2) / step_ms).ok();
    let classic_first = request.pick.route.is_none();
    let classic = match classic_first {
        true => queries::latency_buckets(&window),
        false => spans.classic(&window),
    };
    if classic_first && classic_columns(ask, &classic, &mut out, start_ms).await {
        out.from = "classic".into();
        return Some(out);
    }
    let native = ask
        .client
        .query_range_buckets(&spans.native(&window), start_ms, end_ms, step_ms)
        .await
        .unwrap_or_default();
    if let Some((_, points)) = native.into_iter().next() {
        for (t, buckets) in points {
            let cells: Vec<Cell> = buckets
                .iter()
                .map(|b| (b.lower, b.upper, b.count))
                .collect();
            if let Some(slot) = at(t).and_then(|i| out.columns.get_mut(i)) {
                *slot = Some(lay(&cells));
            }
        }
        return Some(out);
    }
    if !classic_first && classic_columns(ask, &classic, &mut out, start_ms).await {
        out.from = "classic".into();
    }
    Some(out)
}

/// Fills the map's columns from cumulative buckets by `le`; whether there were any.
async fn classic_columns(ask: &Asker<'_>, text: &str, out: &mut Heat, start_ms: i64) -> bool {
    let rows = ask.matrix(text, start_ms, out.end_ms, out.step_ms).await;
    super::by_column(rows, out, start_ms)
}

async fn percentiles(ask: &Asker<'_>, all: bool, spans: &Spans) -> Vec<Percentile> {
    let text = |q: f64| match all {
        true => format!(
            "({}) or ({})",
            queries::latency(q, ask.window),
            spans.quantile(q, ask.window)
        ),
        false => spans.quantile(q, ask.window),
    };
    let one = |q: f64| async move {
        let text = text(q);
        let (now, before) = join(
            ask.rows_at(&text, ask.t_ms),
            ask.rows_at(&text, ask.t_ms - ask.range_ms),
        )
        .await;
        Percentile {
            quantile: q,
            now: now.first().map(|r| r.1),
            before: before.first().map(|r| r.1),
        }
    };
    join_all(QUANTILES.map(one)).await
}

async fn exemplars(ask: &Asker<'_>, spans: &Spans) -> Vec<Sampled> {
    let text = format!("{NATIVE}_bucket{}", spans.0);
    let found = ask
        .client
        .exemplars(&text, ask.t_ms - ask.range_ms, ask.t_ms)
        .await
        .unwrap_or_default();
    let mut out: Vec<Sampled> = Vec::new();
    for (series, exemplars) in found {
        for e in exemplars {
            let id = e.labels.get("trace_id").and_then(TraceId::from_hex);
            let (Some(trace_id), true) = (id, e.value.is_finite()) else {
                continue;
            };
            let route = format!(
                "{} {}",
                label(&series, "http_request_method"),
                label(&series, "http_route")
            );
            out.push(Sampled {
                trace_id,
                seconds: e.value,
                t_ms: e.t_ms,
                service: label(&series, "service_name"),
                route: route.trim().to_owned(),
                status: label(&series, "http_response_status_code"),
                failed: series.get("status_code") == Some("STATUS_CODE_ERROR"),
            });
        }
    }
    out.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(b.t_ms.cmp(&a.t_ms)));
    // The slowest span of each trace.
    let mut seen = BTreeSet::new();
    out.retain(|e| seen.insert(e.trace_id));
    out.truncate(LISTED);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_become_selectors() {
        let of = |service: &str, route: &str| Spans::of(Some(&(service.into(), route.into()))).0;
        assert_eq!(
            of("a\"b", "GET /x/{id}"),
            "{span_kind=\"SPAN_KIND_SERVER\",service_name=\"a\\\"b\",http_request_method=\"GET\",http_route=\"/x/{id}\"}"
        );
        assert!(of("a", "/x").contains("http_request_method=\"\",http_route=\"/x\""));
        assert!(of("a", "").contains("http_request_method=\"\",http_route=\"\""));
        assert_eq!(Spans::of(None).0, "{span_kind=\"SPAN_KIND_SERVER\"}");
        assert_eq!(name_of(None), ALL_ROUTES);
        assert_eq!(name_of(Some(&("a".into(), String::new()))), "a");
    }
}
