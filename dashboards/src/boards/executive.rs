//! For those who answer to customers: is the promise kept, and what is left of the budget?
//!
//! Owns this dashboard's panels. Must not know Grafana.

use crate::panel::{Dashboard, Kind, Panel, RATE_INTERVAL as W, Unit};
use crate::queries;

/// The promise of availability.
const OBJECTIVE: f64 = 0.999;
/// Its period.
const PERIOD: &str = "30d";

pub(super) fn board() -> Dashboard {
    Dashboard {
        name: "executive",
        title: "nines / Executive",
        help: "SLO attainment, error budget, incidents and business volume over 30 days.",
        from: "now-24h",
        panels: vec![
            Panel::new("Availability (30 d)", Kind::Stat, Unit::Ratio,
                "Share of requests without a 5xx. The promise is 99.9 %, 43 minutes of full outage in 30 days.")
                .query("availability", queries::availability(PERIOD)).worse_below(OBJECTIVE, 0.9995),
            Panel::new("Error budget left (30 d)", Kind::Gauge, Unit::Ratio,
                "1 is untouched, 0 is spent, below 0 the promise is broken: stop risky changes.")
                .query("budget", format!("1 - ({})", queries::burn_rate(OBJECTIVE, PERIOD))).worse_below(0.0, 0.25),
            Panel::new("Requests under 300 ms (30 d)", Kind::Stat, Unit::Ratio,
                "Share of requests answered within 300 ms.")
                .query("fast", queries::within("0.3", PERIOD)).worse_below(0.99, 0.995),
            Panel::new("Alerts firing", Kind::Stat, Unit::None, "Open incidents, all severities.")
                .query("firing", r#"count(ALERTS{alertstate="firing"}) or on() vector(0)"#.into()).worse_above(1.0, 3.0),
            Panel::new("Requests", Kind::TimeSeries, Unit::PerSecond, "Client requests per second.")
                .query("requests", queries::traffic(W)),
            Panel::new("Orders", Kind::TimeSeries, Unit::PerSecond, "Orders per second by outcome.")
                .query("{{status}}", format!("sum by (status) (rate(orders_total[{W}])) or on() vector(0)")),
            Panel::new("p95 latency", Kind::TimeSeries, Unit::Seconds, "The target is 200 ms.")
                .query("p95", queries::latency(0.95, W)).worse_above(0.2, 0.5),
            Panel::new("Degraded answers", Kind::TimeSeries, Unit::PerSecond,
                "Answers given from a fallback: the customer was served, but not well.")
                .query("{{reason}}", format!("sum by (reason) (rate(degraded_responses_total[{W}])) or on() vector(0)")),
        ],
    }
}
