//! One fetch: what a screen needs, asked for at once.
//!
//! Owns which queries a screen needs, and the shaping of answers into [`Data`]. Must not know how they are drawn.

pub(crate) mod boards;
pub(crate) mod latency;

use std::collections::BTreeMap;

use client::{Client, ClientError, LogSearch, TraceSearch};
use dashboards::queries::red::By;
use dashboards::queries::{self, load, red, usage};
use futures_util::future::{join, join_all, join3, join4};
use model::labels::Labels;
use model::query::{QueryData, RangeSeries};
use model::sample::Value;
use model::slo::SloAlert;

use crate::app::Request;
use crate::data::{Data, Line, LoadRun, Red, Use};
use crate::heat::{Heat, apart, lay};
use crate::screen::Screen;

/// Points of a line.
const POINTS: i64 = 120;
/// Traces and events that are listed.
const LISTED: usize = 200;
/// Log records that are listed.
const LOGGED: usize = 500;
/// Percentiles of a load.
pub(crate) const LOAD_QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];

struct Asker<'a> {
    client: &'a Client,
    t_ms: i64,
    range_ms: i64,
    window: &'a str,
}

type Rows = Vec<(Labels, f64)>;

/// Fetches what `request`'s screen needs; `now_ms` is the clock. Errors when the agent does not answer its own state;
/// what else it cannot answer is absent.
pub(crate) async fn fetch(
    client: &Client,
    request: &Request,
    now_ms: i64,
) -> Result<Data, ClientError> {
    let t_ms = request.at_ms.unwrap_or(now_ms);
    let own = match client.self_status().await {
        Ok(own) => Some(own),
        // A plain Prometheus has no such thing; it must answer something, though.
        Err(e) if e.is_not_found() => {
            client.query("vector(1)", t_ms).await?;
            None
        }
        Err(e) => return Err(e),
    };
    let ask = Asker {
        client,
        t_ms,
        range_ms: request.range_ms,
        window: &request.window,
    };
    let mut data = Data {
        t_ms,
        range_ms: request.range_ms,
        own,
        ..Data::default()
    };
    judged(&ask, &mut data).await;
    let screen = request.screen;
    data.lines_end_ms = match screen {
        Screen::Overview | Screen::Load => ask.lines_end_ms(),
        _ => 0,
    };
    let new_lines = request.lines != Some((ask.range_ms, data.lines_end_ms));
    if screen == Screen::Overview {
        golden(&ask, &mut data).await;
        if new_lines {
            lines(&ask, &mut data).await;
        }
    }
    if matches!(screen, Screen::Overview | Screen::Services) {
        data.services = reds(&ask, By::Service).await;
    }
    match screen {
        Screen::Services => data.routes = reds(&ask, By::Route).await,
        Screen::Overview | Screen::Resources => data.resources = uses(&ask).await,
        Screen::Traces => traced(&ask, request, &mut data).await,
        Screen::Load => loaded(&ask, new_lines, &mut data).await,
        Screen::Latency => {
            data.routes = reds(&ask, By::Route).await;
            latency::fetch(&ask, request, &mut data).await;
        }
        Screen::Logs => logged(&ask, request, &mut data).await,
        Screen::Dashboards => data.board = boards::fetch(&ask, request.pick.board).await,
        Screen::Alerts | Screen::Own => {}
    }
    if matches!(screen, Screen::Overview | Screen::Alerts) {
        data.silences = client.silences().await.unwrap_or_default();
    }
    Ok(data)
}

// === impl Asker ===

impl Asker<'_> {
    async fn rows(&self, text: &str) -> Rows {
        self.rows_at(text, self.t_ms).await
    }

    async fn rows_at(&self, text: &str, t_ms: i64) -> Rows {
        match self.client.query(text, t_ms).await {
            Ok(QueryData::Vector(all)) => all
                .into_iter()
                .filter_map(|e| Some((e.labels, float(e.value)?)))
                .collect(),
            _ => Vec::new(),
        }
    }

    async fn matrix(
        &self,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Vec<RangeSeries> {
        let answer = self.client.query_range(text, start_ms, end_ms, step_ms);
        match answer.await {
            Ok(QueryData::Matrix(all)) => all,
            _ => Vec::new(),
        }
    }

    async fn one(&self, text: String) -> Option<f64> {
        self.rows(&text).await.first().map(|(_, v)| *v)
    }

    async fn many<const N: usize>(&self, texts: [String; N]) -> [Option<f64>; N] {
        let mut answers = join_all(texts.into_iter().map(|t| self.one(t)))
            .await
            .into_iter();
        std::array::from_fn(|_| answers.next().flatten())
    }

    fn step_ms(&self) -> i64 {
        (self.range_ms / POINTS).max(1)
    }

    /// The end of the last whole step.
    fn lines_end_ms(&self) -> i64 {
        self.t_ms.div_euclid(self.step_ms()) * self.step_ms()
    }

    async fn lines(&self, text: String) -> Vec<(Labels, Line)> {
        let step_ms = self.step_ms();
        let end_ms = self.lines_end_ms();
        let start_ms = end_ms - step_ms * (POINTS - 1);
        let all = self.matrix(&text, start_ms, end_ms, step_ms).await;
        let series = all.into_iter().map(|s| {
            let mut line: Line = vec![None; POINTS as usize];
            for (t, v) in s.points.t_ms.iter().zip(&s.points.values) {
                let at = usize::try_from((t - start_ms + step_ms / 2) / step_ms).ok();
                if let Some(slot) = at.and_then(|i| line.get_mut(i)) {
                    *slot = Some(*v).filter(|v| v.is_finite());
                }
            }
            (s.labels, line)
        });
        series.collect()
    }

    async fn line(&self, text: String) -> Line {
        self.lines(text)
            .await
            .into_iter()
            .next()
            .map_or_else(Vec::new, |(_, line)| line)
    }
}

fn float(value: Value) -> Option<f64> {
    match value {
        Value::Float(v) if v.is_finite() => Some(v),
        _ => None,
    }
}

/// Fills a map's columns from cumulative buckets by `le`; whether there were any.
fn by_column(rows: Vec<RangeSeries>, out: &mut Heat, start_ms: i64) -> bool {
    let mut cumulative: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    for series in rows {
        let Some(bound) = series.labels.get("le").and_then(model::api::parse_float) else {
            continue;
        };
        for (t, v) in series.points.t_ms.iter().zip(&series.points.values) {
            let at = usize::try_from((t - start_ms + out.step_ms / 2) / out.step_ms);
            if let (Ok(at), true) = (at, v.is_finite()) {
                cumulative.entry(at).or_default().push((bound, *v));
            }
        }
    }
    let found = !cumulative.is_empty();
    for (at, all) in cumulative {
        if let Some(slot) = out.columns.get_mut(at) {
            *slot = Some(lay(&apart(all)));
        }
    }
    found
}

fn label(labels: &Labels, name: &str) -> String {
    labels.get(name).unwrap_or_default().to_owned()
}

async fn judged(ask: &Asker<'_>, data: &mut Data) {
    let (slos, alerts, rules, events) = join4(
        ask.client.slos(),
        ask.client.alerts(),
        ask.client.rules(),
        ask.client.alert_events(),
    )
    .await;
    data.slos = slos.unwrap_or_default();
    let left = |s: &model::slo::SloStatus| s.budget_left.unwrap_or(f64::INFINITY);
    let rank = |alert| match alert {
        SloAlert::Page => 0,
        SloAlert::Ticket => 1,
        SloAlert::Ok => 2,
    };
    data.slos.sort_by(|a, b| {
        rank(a.alert)
            .cmp(&rank(b.alert))
            .then(left(a).total_cmp(&left(b)))
    });
    data.alerts = alerts.map(|b| b.alerts).unwrap_or_default();
    data.alerts.sort_by_key(|a| {
        let severity = match a.labels.get("severity").unwrap_or_default() {
            "critical" | "page" => 0,
            "warning" | "ticket" => 1,
            _ => 2,
        };
        (a.state != "firing", severity, a.active_at.clone())
    });
    let groups = rules.map(|r| r.groups).unwrap_or_default();
    data.rules = groups
        .iter()
        .flat_map(|g| &g.rules)
        .filter(|r| r.kind == "alerting")
        .count();
    data.events = events.unwrap_or_default();
    data.events.sort_by_key(|e| std::cmp::Reverse(e.t_ms));
    data.events.truncate(LISTED);
}

async fn golden(ask: &Asker<'_>, data: &mut Data) {
    let w = ask.window;
    [
        data.p50,
        data.p95,
        data.p99,
        data.traffic,
        data.errors,
        data.error_ratio,
        data.cache_hit,
        data.pool,
        data.cpu,
        data.memory,
    ] = ask
        .many([
            queries::latency(0.5, w),
            queries::latency(0.95, w),
            queries::latency(0.99, w),
            queries::traffic(w),
            queries::errors(w),
            queries::error_ratio(w),
            queries::cache_hit_ratio(w),
            queries::pool_utilization(),
            queries::utilization_of("cpu"),
            queries::utilization_of("memory"),
        ])
        .await;
    // "No 5xx" is only known where requests are seen at all.
    data.errors = data.errors.filter(|_| data.traffic.is_some());
}

async fn lines(ask: &Asker<'_>, data: &mut Data) {
    let w = ask.window;
    let golden = join_all([
        ask.line(queries::latency(0.99, w)),
        ask.line(queries::traffic(w)),
        ask.line(queries::error_ratio(w)),
        ask.line(queries::cache_hit_ratio(w)),
        ask.line(queries::pool_utilization()),
    ]);
    let (golden, services) = join(golden, ask.lines(red::latency(By::Service, 0.99, w))).await;
    let mut golden = golden.into_iter();
    let mut next = || golden.next().unwrap_or_default();
    (data.p99_line, data.traffic_line, data.error_line) = (next(), next(), next());
    (data.cache_line, data.pool_line) = (next(), next());
    let named = services
        .into_iter()
        .map(|(l, line)| (label(&l, "service_name"), line));
    data.service_lines = named.collect();
    let last = |line: &Line| line.iter().rev().flatten().next().copied().unwrap_or(-1.0);
    data.service_lines
        .sort_by(|a, b| last(&b.1).total_cmp(&last(&a.1)).then(a.0.cmp(&b.0)));
}

async fn reds(ask: &Asker<'_>, by: By) -> Vec<Red> {
    let w = ask.window;
    let texts = [
        red::rate(by, w),
        red::error_ratio(by, w),
        red::latency(by, 0.5, w),
        red::latency(by, 0.95, w),
        red::latency(by, 0.99, w),
    ];
    let answers = join_all(texts.iter().map(|t| ask.rows(t))).await;
    let mut found: BTreeMap<(String, String), Red> = BTreeMap::new();
    for (at, rows) in answers.into_iter().enumerate() {
        for (labels, value) in rows {
            let service = label(&labels, "service_name");
            let route = format!(
                "{} {}",
                label(&labels, "http_request_method"),
                label(&labels, "http_route")
            );
            let route = route.trim().to_owned();
            let entry = found
                .entry((service.clone(), route.clone()))
                .or_insert_with(|| Red {
                    service,
                    route,
                    ..Red::default()
                });
            let slot = match at {
                0 => &mut entry.rate,
                1 => &mut entry.error_ratio,
                2 => &mut entry.p50,
                3 => &mut entry.p95,
                _ => &mut entry.p99,
            };
            *slot = Some(value);
        }
    }
    let mut all: Vec<Red> = found.into_values().collect();
    let rate = |r: &Red| r.rate.unwrap_or(0.0);
    all.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
    all
}

async fn uses(ask: &Asker<'_>) -> Vec<Use> {
    let texts = [
        usage::utilization(),
        usage::saturation(),
        usage::errors(ask.window),
    ];
    let (utilization, saturation, errors) = join3(
        ask.rows(&texts[0]),
        ask.rows(&texts[1]),
        ask.rows(&texts[2]),
    )
    .await;
    let mut found: BTreeMap<(String, String, String), Use> = BTreeMap::new();
    for (at, rows) in [utilization, saturation, errors].into_iter().enumerate() {
        for (labels, value) in rows {
            let [kind, resource, instance] =
                ["kind", "resource", "instance"].map(|n| label(&labels, n));
            let key = (kind.clone(), resource.clone(), instance.clone());
            let entry = found.entry(key).or_insert_with(|| Use {
                kind,
                resource,
                instance,
                ..Use::default()
            });
            match at {
                0 => entry.utilization = Some(value),
                1 => entry.saturation.push((label(&labels, "unit"), value)),
                _ => entry.errors = Some(value),
            }
        }
    }
    let mut all: Vec<Use> = found.into_values().collect();
    let busy = |u: &Use| u.utilization.unwrap_or(-1.0);
    all.sort_by(|a, b| busy(b).total_cmp(&busy(a)));
    all
}

async fn traced(ask: &Asker<'_>, request: &Request, data: &mut Data) {
    let search = TraceSearch {
        start_ms: Some(ask.t_ms - ask.range_ms),
        end_ms: request.at_ms,
        limit: Some(LISTED),
        ..TraceSearch::default()
    };
    data.traces = ask.client.traces(&search).await.unwrap_or_default();
    if let Some(id) = request.trace {
        data.spans = ask.client.trace(id).await.unwrap_or_default();
    }
}

/// `service:x` in a search names the service; the rest is text in bodies.
pub(crate) fn log_words(search: &str) -> (Option<String>, String) {
    let mut service = None;
    let mut rest = Vec::new();
    for word in search.split_whitespace() {
        let named = word
            .strip_prefix("service:")
            .or_else(|| word.strip_prefix("service="));
        match named {
            Some(name) if !name.is_empty() => service = Some(name.to_owned()),
            _ => rest.push(word),
        }
    }
    (service, rest.join(" "))
}

async fn logged(ask: &Asker<'_>, request: &Request, data: &mut Data) {
    let (service, text) = log_words(&request.pick.search);
    let search = LogSearch {
        service,
        severity: request.pick.severity,
        text: Some(text).filter(|t| !t.is_empty()),
        trace_id: request.pick.log_trace.map(|id| id.to_string()),
        start_ms: Some(ask.t_ms - ask.range_ms),
        end_ms: request.at_ms,
        limit: Some(LOGGED),
    };
    data.logs = ask.client.logs(&search).await.unwrap_or_default();
}

async fn loaded(ask: &Asker<'_>, new_lines: bool, data: &mut Data) {
    let w = ask.window;
    let mut texts = vec![load::offered(), load::achieved(), load::in_flight()];
    texts.extend(LOAD_QUANTILES.map(|q| load::latency(q, w)));
    texts.extend(LOAD_QUANTILES.map(|q| load::service_time(q, w)));
    let answers = join_all(texts.iter().map(|t| ask.rows(t))).await;
    let mut found: BTreeMap<String, LoadRun> = BTreeMap::new();
    let n = LOAD_QUANTILES.len();
    for (at, rows) in answers.into_iter().enumerate() {
        for (labels, value) in rows {
            let run = found
                .entry(label(&labels, "run_id"))
                .or_insert_with(|| LoadRun {
                    run_id: label(&labels, "run_id"),
                    scenario: label(&labels, "scenario"),
                    target: label(&labels, "target"),
                    latency: vec![None; n],
                    service_time: vec![None; n],
                    ..LoadRun::default()
                });
            match at {
                0 => run.offered = Some(value),
                1 => run.achieved = Some(value),
                2 => run.in_flight = Some(value),
                i if i < 3 + n => run.latency[i - 3] = Some(value),
                i => run.service_time[i - 3 - n] = Some(value),
            }
        }
    }
    data.loads = found.into_values().collect();
    if new_lines {
        let sum = |text: String| format!("sum({text})");
        (data.offered_line, data.achieved_line) = join(
            ask.line(sum(load::offered())),
            ask.line(sum(load::achieved())),
        )
        .await;
    }
    let texts = [load::by_status(w), load::errors(w), load::late()];
    let (status, errors, late) = join3(
        ask.rows(&texts[0]),
        ask.rows(&texts[1]),
        ask.rows(&texts[2]),
    )
    .await;
    let named = |rows: Rows, name: &str| -> Vec<(String, f64)> {
        let mut all: Vec<_> = rows.iter().map(|(l, v)| (label(l, name), *v)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    data.load_status = named(status, "status");
    data.load_errors = named(errors, "kind");
    data.load_late = named(late, "quantile");
}
