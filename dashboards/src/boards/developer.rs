//! For those who change the code: which route is slow or fails, and where its time goes.
//!
//! Owns this dashboard's panels. Must not know Grafana.

use crate::panel::{Dashboard, Kind, Panel, RATE_INTERVAL as W, Unit};
use crate::queries;
use crate::queries::red::{self, By};

pub(super) fn board() -> Dashboard {
    let route = "{{service_name}} {{http_request_method}} {{http_route}}";
    let edge = "{{client}} > {{server}}";
    Dashboard {
        name: "developer",
        title: "nines / Developer",
        help: "RED by service and route from spans, the call graph, cache, database and workers.",
        from: "now-1h",
        panels: vec![
            Panel::new("Calls by service", Kind::TimeSeries, Unit::PerSecond, "Server spans per second.")
                .query("{{service_name}}", red::rate(By::Service, W)),
            Panel::new("Errors by service", Kind::TimeSeries, Unit::Ratio, "Share of server spans that fail.")
                .query("{{service_name}}", red::error_ratio(By::Service, W)).worse_above(0.01, 0.05),
            Panel::new("p99 by service", Kind::TimeSeries, Unit::Seconds, "From spans, before any sampling.")
                .query("{{service_name}}", red::latency(By::Service, 0.99, W)),
            Panel::new("Latency heat map", Kind::Heatmap, Unit::Seconds, "Requests at the gateway by latency: look for two modes.")
                .query("{{le}}", queries::latency_buckets(W)),
            Panel::new("Routes: calls", Kind::Table, Unit::PerSecond, "Calls per second by route.")
                .query(route, red::rate(By::Route, W)),
            Panel::new("Routes: p95", Kind::Table, Unit::Seconds, "p95 by route.")
                .query(route, red::latency(By::Route, 0.95, W)).worse_above(0.2, 0.5),
            Panel::new("Routes: errors", Kind::Table, Unit::Ratio, "Share of calls that fail by route.")
                .query(route, red::error_ratio(By::Route, W)).worse_above(0.01, 0.05),
            Panel::new("Call graph", Kind::Table, Unit::PerSecond, "Calls per second between services.")
                .query(edge, format!("sum by (client, server) (rate(traces_service_graph_request_total[{W}])) or on() vector(0)")),
            Panel::new("Cache by tier", Kind::TimeSeries, Unit::PerSecond, "Look-ups per second by tier and result.")
                .query("{{tier}} {{result}}", format!("sum by (tier, result) (rate(cache_requests_total[{W}]))")),
            Panel::new("Database p95", Kind::TimeSeries, Unit::Seconds, "Queries by role and operation.")
                .query("{{role}} {{op}}", format!("histogram_quantile(0.95, sum by (le, role, op) (rate(db_query_duration_seconds_bucket[{W}]))) >= 0 or on() vector(0)")),
            Panel::new("Worker jobs", Kind::TimeSeries, Unit::PerSecond, "Jobs per second by queue and result.")
                .query("{{queue}} {{result}}", format!("sum by (queue, result) (rate(worker_jobs_total[{W}])) or on() vector(0)")),
            Panel::new("Stale reads", Kind::TimeSeries, Unit::PerSecond, "Reads older than a write that came before them.")
                .query("stale", format!("sum(rate(stale_reads_total[{W}])) or on() vector(0)")),
            Panel::new("Versions", Kind::Table, Unit::None, "What runs.")
                .query("{{service}} {{version}}", "sum by (service, version) (build_info)".into()).wide(),
        ],
    }
}
