//! For those who pay for the machines: utilisation, saturation and errors of every resource.
//!
//! Owns this dashboard's panels. Must not know Grafana.

use crate::panel::{Dashboard, Kind, Panel, RATE_INTERVAL as W, Unit};
use crate::queries::{self, usage};

pub(super) fn board() -> Dashboard {
    let resource = "{{kind}} {{resource}}";
    Dashboard {
        name: "infrastructure",
        title: "nines / Infrastructure",
        help: "USE: utilisation, saturation and errors of hosts, pools, caches, queues and proxies.",
        from: "now-1h",
        panels: vec![
            Panel::new(
                "CPU",
                Kind::Gauge,
                Unit::Ratio,
                "All cores. Scale out above 70 % for 2 minutes.",
            )
            .query("cpu", queries::utilization_of("cpu"))
            .worse_above(0.7, 0.9),
            Panel::new("Memory", Kind::Gauge, Unit::Ratio, "Memory in use.")
                .query("memory", queries::utilization_of("memory"))
                .worse_above(0.8, 0.95),
            Panel::new(
                "Fullest filesystem",
                Kind::Gauge,
                Unit::Ratio,
                "Warns above 80 %.",
            )
            .query(
                "filesystem",
                "max(system_filesystem_utilization_ratio)".into(),
            )
            .worse_above(0.8, 0.95),
            Panel::new(
                "Load per minute",
                Kind::Stat,
                Unit::None,
                "Processes that run or wait, mean of one minute.",
            )
            .query("load", "max(system_cpu_load_average_1m)".into()),
            Panel::new(
                "Utilisation",
                Kind::TimeSeries,
                Unit::Ratio,
                "How busy each resource is.",
            )
            .query(resource, usage::utilization())
            .worse_above(0.8, 0.95),
            Panel::new(
                "Saturation",
                Kind::TimeSeries,
                Unit::None,
                "How much waits for each resource.",
            )
            .query("{{kind}} {{resource}} {{unit}}", usage::saturation()),
            Panel::new(
                "Errors",
                Kind::TimeSeries,
                Unit::None,
                "Errors of each resource in the window.",
            )
            .query(resource, format!("{} or on() vector(0)", usage::errors(W))),
            Panel::new(
                "Network",
                Kind::TimeSeries,
                Unit::BytesPerSecond,
                "Bytes per second by device and direction.",
            )
            .query(
                "{{device}} {{direction}}",
                format!("sum by (device, direction) (rate(system_network_io_bytes_total[{W}]))"),
            ),
            Panel::new(
                "Memory by use",
                Kind::TimeSeries,
                Unit::Bytes,
                "Bytes by state.",
            )
            .query(
                "{{state}}",
                "sum by (state) (system_memory_usage_bytes)".into(),
            ),
            Panel::new(
                "CPU by state",
                Kind::TimeSeries,
                Unit::None,
                "Cores by state.",
            )
            .query(
                "{{state}}",
                format!("sum by (state) (rate(system_cpu_time_seconds_total[{W}]))"),
            ),
            Panel::new(
                "Processes: memory",
                Kind::Table,
                Unit::Bytes,
                "The ten largest.",
            )
            .query(
                "{{executable_name}}",
                "topk(10, sum by (executable_name) (process_memory_usage_bytes)) or on() vector(0)"
                    .into(),
            ),
            Panel::new(
                "Database pools",
                Kind::Table,
                Unit::None,
                "Connections in use and requests that wait.",
            )
            .query("{{pool}} in use", "sum by (pool) (db_pool_in_use)".into())
            .query("{{pool}} waiters", "sum by (pool) (db_pool_waiters)".into()),
        ],
    }
}
