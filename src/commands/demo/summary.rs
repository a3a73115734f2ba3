//! What the demo shows at its end: what was sent, what happened, what the agent says of it, and the drill's timeline.
//!
//! Owns the comparison of the agent's counts with the backend's own truth. Must not know how either counts.

use client::Client;
use model::api::AlertEvent;
use model::slo::SloStatus;
use model::timestamp::format_clock;
use serde::Serialize;

use super::parts::Parts;
use super::sink::Arrival;
use crate::commands::reach::{clean, table};
use crate::console::now_ms;

/// A fault that was injected; times in Unix milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Injected {
    /// Its name.
    pub fault: String,
    /// When it began.
    pub from_ms: i64,
    /// When it ended.
    pub until_ms: i64,
}

/// A count as the agent reports it beside the truth.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// What is counted.
    pub name: &'static str,
    /// The backend's exact count.
    pub truth: u64,
    /// The agent's count, by PromQL.
    pub agent: Option<f64>,
    /// Whether they are the same.
    pub equal: bool,
}

/// The demo's result.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Requests sent a second.
    pub requests_per_second: f64,
    /// Windows of rules were divided by this.
    pub time_scale: f64,
    /// The load generator's report (its `nines` object).
    pub load: serde_json::Value,
    /// The agent's counts beside the truth.
    pub counts: Vec<Count>,
    /// Server-side quantiles in seconds, by the agent: 0.5, 0.95, 0.99.
    pub server_quantiles: [Option<f64>; 3],
    /// Share of cache lookups that hit, before, and the least during the fault.
    pub hit_rate: [Option<f64>; 2],
    /// Whether a breaker was seen open.
    pub breaker_opened: bool,
    /// Objectives at the end.
    pub slos: Vec<SloStatus>,
    /// The fault, when one was injected.
    pub injected: Option<Injected>,
    /// Alert transitions and deliveries, in order.
    pub events: Vec<AlertEvent>,
    /// What arrived at the local on-call, in order.
    pub arrivals: Vec<Arrival>,
    /// What is not as it must be.
    pub problems: Vec<String>,
}

/// Name, where the truth has it, and the agent's query of each count. Health checks are left out: a real balancer goes on
/// with them while the two are compared.
const COUNTS: [(&str, Truth, &str); 5] = [
    (
        "requests",
        Truth::Requests(0),
        r#"sum(http_server_requests_total{service="gateway",route!~"/health.*"})"#,
    ),
    (
        "errors",
        Truth::Requests(500),
        r#"sum(http_server_requests_total{service="gateway",route!~"/health.*",status=~"5.."}) or vector(0)"#,
    ),
    (
        "cache hits",
        Truth::At("/cache/hits"),
        r#"sum(cache_requests_total{result="hit"}) or vector(0)"#,
    ),
    (
        "cache misses",
        Truth::At("/cache/misses"),
        r#"sum(cache_requests_total{result="miss"}) or vector(0)"#,
    ),
    (
        "requests, from spans",
        Truth::Requests(0),
        r#"sum(traces_span_metrics_calls_total{service_name="gateway",span_kind="SPAN_KIND_SERVER",http_route!~"/health.*"})"#,
    ),
];

/// Where the truth has a count.
#[derive(Clone, Copy)]
enum Truth {
    /// Requests with at least this status, but for health checks.
    Requests(u64),
    /// A JSON pointer.
    At(&'static str),
}

impl Truth {
    fn of(self, state: &serde_json::Value) -> u64 {
        let number = |v: &serde_json::Value| v.as_u64().unwrap_or(0);
        match self {
            Truth::At(pointer) => state.pointer(pointer).map_or(0, number),
            Truth::Requests(least) => {
                let rows = state["requests"]["by_route"].as_array();
                let rows = rows.into_iter().flatten();
                rows.filter(|r| !r["route"].as_str().unwrap_or("").starts_with("/health"))
                    .filter(|r| number(&r["status"]) >= least)
                    .map(|r| number(&r["count"]))
                    .sum()
            }
        }
    }
}

impl Summary {
    /// Flushes, asks, compares.
    pub async fn collect(
        parts: &Parts,
        load: &loadgen::Report,
        scale: f64,
        injected: Option<Injected>,
    ) -> anyhow::Result<Summary> {
        parts.flush().await?;
        let client = Client::new(parts.agent_url());
        let truth = parts.truth();
        let mut counts = Vec::new();
        for (name, place, query) in COUNTS {
            let truth = place.of(&truth);
            let agent = client.query(query, now_ms()).await?.first_float();
            counts.push(Count {
                name,
                truth,
                agent,
                equal: agent == Some(truth as f64),
            });
        }
        let mut server_quantiles = [None; 3];
        for (slot, q) in server_quantiles.iter_mut().zip([0.5, 0.95, 0.99]) {
            let query = format!(
                r#"histogram_quantile({q}, sum(traces_span_metrics_duration_seconds{{service_name="gateway",span_kind="SPAN_KIND_SERVER"}}))"#
            );
            *slot = client.query(&query, now_ms()).await?.first_float();
        }
        let mut summary = Summary {
            requests_per_second: load.requests as f64 / load.duration_s.max(1e-9),
            time_scale: scale,
            load: load.to_json()["nines"].clone(),
            counts,
            server_quantiles,
            hit_rate: hit_rates(&client, injected.as_ref()).await?,
            breaker_opened: breaker_opened(&client, injected.as_ref()).await?,
            slos: client.slos().await?,
            events: client.alert_events().await?,
            arrivals: parts.sink.arrivals(),
            injected,
            problems: Vec::new(),
        };
        summary.judge(load);
        Ok(summary)
    }

    fn judge(&mut self, load: &loadgen::Report) {
        let problems = &mut self.problems;
        for count in self.counts.iter().filter(|c| !c.equal) {
            problems.push(format!(
                "{}: the agent says {:?}, the truth is {}",
                count.name, count.agent, count.truth
            ));
        }
        if !load.valid {
            problems.extend(load.reasons.iter().map(|r| format!("load: {r}")));
        }
        if self
            .injected
            .as_ref()
            .is_some_and(|i| i.fault == "redis-down")
        {
            let pages = |action: &str| {
                self.arrivals
                    .iter()
                    .filter(|a| a.channel == "pagerduty" && a.action == action)
                    .count()
            };
            let (triggers, resolves) = (pages("trigger"), pages("resolve"));
            if (triggers, resolves) != (1, 1) {
                problems.push(format!(
                    "{triggers} pages and {resolves} resolves arrived; one of each must"
                ));
            }
            if !self.breaker_opened {
                problems.push("no breaker opened".into());
            }
        }
    }

    /// Whether everything is as it must be.
    pub fn good(&self) -> bool {
        self.problems.is_empty()
    }

    /// For people.
    pub fn text(&self) -> String {
        let number = |v: Option<f64>, factor: f64, unit: &str| {
            v.map_or("-".into(), |v| format!("{:.1}{unit}", v * factor))
        };
        let [p50, p95, p99] = self.server_quantiles.map(|q| number(q, 1e3, " ms"));
        let latency = |q: &str| {
            let us = self.load["latency_us"][q].as_f64();
            number(us, 1e-3, " ms")
        };
        let mut out = format!(
            "load      {:.1} req/s; latency from the planned send: p50 {}, p95 {}, p99 {}\n\
             server    p50 {p50}, p95 {p95}, p99 {p99} (from spans)\n\
             cache     hit rate {}{}\n",
            self.requests_per_second,
            latency("0.5"),
            latency("0.95"),
            latency("0.99"),
            number(self.hit_rate[0], 100.0, " %"),
            self.hit_rate[1].map_or(String::new(), |v| format!(
                ", at the least {:.1} % during the fault",
                v * 100.0
            )),
        );
        if self.time_scale > 1.0 {
            let five = model::duration::format_ms((300_000.0 / self.time_scale) as i64);
            out += &format!("rules     time scale {}x: 5m is {five}\n", self.time_scale);
        }
        let rows: Vec<Vec<String>> = self
            .counts
            .iter()
            .map(|c| {
                let agent = c.agent.map_or("-".into(), |v| v.to_string());
                let verdict = if c.equal { "equal" } else { "DIFFERENT" };
                vec![c.name.into(), c.truth.to_string(), agent, verdict.into()]
            })
            .collect();
        out += "\n";
        out += &table(&["COUNT", "TRUTH", "AGENT", ""], &rows);
        out += "\n";
        out += &self.timeline();
        for problem in &self.problems {
            out += &format!("problem   {}\n", clean(problem));
        }
        out += if self.good() { "good\n" } else { "not good\n" };
        out
    }

    fn timeline(&self) -> String {
        let mut lines: Vec<(i64, String)> = Vec::new();
        if let Some(injected) = &self.injected {
            lines.push((
                injected.from_ms,
                format!("fault      {} begins", injected.fault),
            ));
            lines.push((
                injected.until_ms,
                format!("fault      {} ends", injected.fault),
            ));
        }
        for event in &self.events {
            let kind = &event.kind;
            if matches!(kind.as_str(), "pending" | "firing" | "resolved")
                && event.labels.get("severity") != Some("info")
            {
                lines.push((
                    event.t_ms,
                    format!(
                        "{kind:<10} {} ({})",
                        clean(&event.alert),
                        event.labels.get("severity").unwrap_or("-")
                    ),
                ));
            }
        }
        for arrival in &self.arrivals {
            lines.push((
                arrival.t_ms,
                format!(
                    "{:<10} {} {}",
                    arrival.channel,
                    arrival.action,
                    clean(&arrival.summary)
                ),
            ));
        }
        lines.sort();
        let mut out = String::new();
        for (t_ms, line) in lines {
            out += &format!(
                "{}.{:03}  {line}\n",
                format_clock(t_ms),
                t_ms.rem_euclid(1_000)
            );
        }
        out
    }
}

async fn hit_rates(
    client: &Client,
    injected: Option<&Injected>,
) -> anyhow::Result<[Option<f64>; 2]> {
    const RATE: &str = r#"sum(rate(cache_requests_total{result="hit"}[5s])) / sum(rate(cache_requests_total[5s]))"#;
    let before = injected.map_or_else(now_ms, |i| i.from_ms);
    let usual = client.query(RATE, before).await?.first_float();
    let Some(injected) = injected else {
        return Ok([usual, None]);
    };
    let seconds = ((injected.until_ms - injected.from_ms) / 1_000).max(1);
    let least = format!("min_over_time(({RATE})[{seconds}s:1s])");
    Ok([
        usual,
        client.query(&least, injected.until_ms).await?.first_float(),
    ])
}

async fn breaker_opened(client: &Client, injected: Option<&Injected>) -> anyhow::Result<bool> {
    let Some(injected) = injected else {
        return Ok(false);
    };
    let seconds = ((injected.until_ms - injected.from_ms) / 1_000).max(1);
    let most = format!("max(max_over_time(circuit_state[{seconds}s]))");
    Ok(client.query(&most, injected.until_ms).await?.first_float() == Some(2.0))
}
