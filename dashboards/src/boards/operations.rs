//! For those on call: what burns, what is broken, what is about to be?
//!
//! Owns this dashboard's panels. Must not know Grafana.

use crate::panel::{Dashboard, Kind, Panel, RATE_INTERVAL as W, Unit};
use crate::queries;

const OBJECTIVE: f64 = 0.999;

pub(super) fn board() -> Dashboard {
    Dashboard {
        name: "operations",
        title: "nines / Operations",
        help: "Burn rates, alerts, health of dependencies and queues, saturation.",
        from: "now-1h",
        panels: signals().into_iter().chain(dependencies()).collect(),
    }
}

fn signals() -> Vec<Panel> {
    vec![
        Panel::new(
            "Error ratio",
            Kind::Stat,
            Unit::Ratio,
            "5xx among requests. Warns at 1 %, pages at 5 %.",
        )
        .query("errors", queries::error_ratio(W))
        .worse_above(0.01, 0.05),
        Panel::new("p99 latency", Kind::Stat, Unit::Seconds, "Pages at 1 s.")
            .query("p99", queries::latency(0.99, W))
            .worse_above(0.5, 1.0),
        Panel::new(
            "Cache hit ratio",
            Kind::Stat,
            Unit::Ratio,
            "Warns below 70 %; 85 to 95 % is expected.",
        )
        .query("hit", queries::cache_hit_ratio(W))
        .worse_below(0.7, 0.85),
        Panel::new(
            "Pool utilisation",
            Kind::Gauge,
            Unit::Ratio,
            "The fullest database pool.",
        )
        .query("pool", queries::pool_utilization())
        .worse_above(0.8, 0.95),
        ["5m", "1h", "6h", "3d"]
            .into_iter()
            .fold(
                Panel::new(
                    "Burn rate of the availability budget",
                    Kind::TimeSeries,
                    Unit::None,
                    "14.4 over 1 h and 5 m pages; 1 spends the budget exactly over 30 days.",
                ),
                |panel, window| panel.query(window, queries::burn_rate(OBJECTIVE, window)),
            )
            .worse_above(1.0, 14.4),
        Panel::new(
            "Alerts",
            Kind::Table,
            Unit::None,
            "What fires or is pending.",
        )
        .query(
            "",
            r#"sum by (alertname, severity, alertstate) (ALERTS) or on() vector(0)"#.into(),
        ),
        Panel::new(
            "Answers by status",
            Kind::TimeSeries,
            Unit::PerSecond,
            "Requests per second by status.",
        )
        .query(
            "{{status}}",
            format!(
                r#"sum by (status) (rate(http_server_requests_total{{service="gateway"}}[{W}]))"#
            ),
        ),
        [0.5, 0.95, 0.99]
            .into_iter()
            .zip(["p50", "p95", "p99"])
            .fold(
                Panel::new(
                    "Latency",
                    Kind::TimeSeries,
                    Unit::Seconds,
                    "Percentiles at the gateway.",
                ),
                |panel, (q, name)| panel.query(name, queries::latency(q, W)),
            ),
    ]
}

fn dependencies() -> Vec<Panel> {
    vec![
        Panel::new("Backends up", Kind::TimeSeries, Unit::None, "What the balancer sends to: 1 in, 0 out.")
            .query("{{backend}}", "min by (backend) (backend_up) or min by (job, instance) (up)".into()),
        Panel::new("Circuit breakers", Kind::TimeSeries, Unit::None, "0 closed, 1 half-open, 2 open.")
            .query("{{dependency}}", "max by (dependency) (circuit_state) or on() vector(0)".into()).worse_above(1.0, 2.0),
        Panel::new("Queue depth", Kind::TimeSeries, Unit::None, "Messages that wait, and dead letters.")
            .query("{{queue}}", "max by (queue) (queue_depth) or on() vector(0)".into())
            .query("dead {{queue}}", "max by (queue) (dlq_depth) or on() vector(0)".into()),
        Panel::new("Oldest message", Kind::TimeSeries, Unit::Seconds, "How long the oldest message waits.")
            .query("{{queue}}", "max by (queue) (queue_oldest_age_seconds) or on() vector(0)".into()),
        Panel::new("Retries", Kind::TimeSeries, Unit::PerSecond, "Retries per second by dependency.")
            .query("{{dependency}}", format!("sum by (dependency) (rate(retries_total[{W}])) or on() vector(0)")),
        Panel::new("Requests limited", Kind::TimeSeries, Unit::PerSecond, "429 by scope and tier.")
            .query("{{scope}} {{tier}}", format!(r#"sum by (scope, tier) (rate(ratelimit_decisions_total{{result="limited"}}[{W}])) or on() vector(0)"#)),
        Panel::new("Targets up", Kind::Table, Unit::None, "What is scraped: 1 answers, 0 does not.")
            .query("", "up".into()).wide(),
    ]
}
