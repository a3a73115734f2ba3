//! PromQL by purpose: what overview screens and dashboards ask.
//!
//! Owns the texts over the metric names that the agent and the reference backend promise. Windows are arguments, such
//! as `5m`, so that short demonstrations work. A ratio has no value without traffic (its denominator is `> 0`); a
//! series that only exists after the first event counts as 0 beside one that always exists. Must not know who asks.

/// The request counter of the edge: split roles count their own requests, the gateway counts each client's once.
const REQUESTS: &str = r#"http_server_requests_total{service="gateway"}"#;
const FAILED: &str = r#"http_server_requests_total{service="gateway",status=~"5.."}"#;
const BUCKETS: &str = r#"http_server_request_duration_seconds_bucket{service="gateway"}"#;
const CALLS: &str = r#"traces_span_metrics_calls_total{span_kind="SPAN_KIND_SERVER"}"#;
const FAILED_CALLS: &str = r#"traces_span_metrics_calls_total{span_kind="SPAN_KIND_SERVER",status_code="STATUS_CODE_ERROR"}"#;
const CALL_BUCKETS: &str =
    r#"traces_span_metrics_duration_seconds_bucket{span_kind="SPAN_KIND_SERVER"}"#;

/// Requests per second.
#[must_use]
pub fn traffic(window: &str) -> String {
    format!("sum(rate({REQUESTS}[{window}]))")
}

/// Failed requests (5xx) per second.
#[must_use]
pub fn errors(window: &str) -> String {
    format!("sum(rate({FAILED}[{window}])) or on() vector(0)")
}

/// Share of requests that fail, 0 to 1.
#[must_use]
pub fn error_ratio(window: &str) -> String {
    format!("({}) / ({} > 0)", errors(window), traffic(window))
}

/// Share of requests that succeed, 0 to 1.
#[must_use]
pub fn availability(window: &str) -> String {
    format!("1 - {}", error_ratio(window))
}

/// How fast an availability budget burns: 1 spends it exactly over its period.
#[must_use]
pub fn burn_rate(objective: f64, window: &str) -> String {
    format!("({}) / (1 - {objective})", error_ratio(window))
}

/// The latency below which the share `q` of requests stays, seconds.
#[must_use]
pub fn latency(q: f64, window: &str) -> String {
    format!("histogram_quantile({q}, sum by (le) (rate({BUCKETS}[{window}]))) >= 0")
}

/// Requests per second by bucket of latency, for heat maps.
#[must_use]
pub fn latency_buckets(window: &str) -> String {
    format!("sum by (le) (rate({BUCKETS}[{window}]))")
}

/// Share of requests answered within `le` seconds, which must be a bucket's bound.
#[must_use]
pub fn within(le: &str, window: &str) -> String {
    format!(
        "sum(rate(http_server_request_duration_seconds_bucket{{service=\"gateway\",le=\"{le}\"}}[{window}])) / \
         (sum(rate(http_server_request_duration_seconds_count{{service=\"gateway\"}}[{window}])) > 0)"
    )
}

/// Share of cache look-ups that hit, over all tiers, 0 to 1.
#[must_use]
pub fn cache_hit_ratio(window: &str) -> String {
    format!(
        "(sum(rate(cache_requests_total{{result=\"hit\"}}[{window}])) or on() vector(0)) / \
         (sum(rate(cache_requests_total{{result=~\"hit|miss\"}}[{window}])) > 0)"
    )
}

/// The fullest database pool, 0 to 1.
#[must_use]
pub fn pool_utilization() -> String {
    "max(db_pool_in_use / (db_pool_max > 0))".into()
}

/// The busiest resource of a kind (`cpu`, `memory`, …), 0 to 1.
#[must_use]
pub fn utilization_of(kind: &str) -> String {
    format!("max(nines_use_utilization_ratio{{kind=\"{kind}\"}})")
}

/// RED of services and their routes, from spans.
pub mod red {
    use super::{CALL_BUCKETS, CALLS, FAILED_CALLS};

    /// What a line stands for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum By {
        /// A service.
        Service,
        /// A service's route and method.
        Route,
    }

    impl By {
        fn labels(self) -> &'static str {
            match self {
                By::Service => "service_name",
                By::Route => "service_name, http_route, http_request_method",
            }
        }
    }

    /// Calls per second.
    #[must_use]
    pub fn rate(by: By, window: &str) -> String {
        format!("sum by ({}) (rate({CALLS}[{window}]))", by.labels())
    }

    /// Share of calls that fail; 0 for those that never did.
    #[must_use]
    pub fn error_ratio(by: By, window: &str) -> String {
        let (labels, all) = (by.labels(), rate(by, window));
        format!("(sum by ({labels}) (rate({FAILED_CALLS}[{window}])) or 0 * {all}) / ({all} > 0)")
    }

    /// The latency below which the share `q` of calls stays, seconds.
    #[must_use]
    pub fn latency(by: By, q: f64, window: &str) -> String {
        let labels = by.labels();
        format!(
            "histogram_quantile({q}, sum by (le, {labels}) (rate({CALL_BUCKETS}[{window}]))) >= 0"
        )
    }
}

/// USE of resources: the agent's uniform view.
pub mod usage {
    /// How busy each resource is, 0 to 1.
    #[must_use]
    pub fn utilization() -> String {
        "max by (kind, resource, instance) (nines_use_utilization_ratio)".into()
    }

    /// How much waits for each resource.
    #[must_use]
    pub fn saturation() -> String {
        "max by (kind, resource, instance, unit) (nines_use_saturation)".into()
    }

    /// Errors of each resource in the window.
    #[must_use]
    pub fn errors(window: &str) -> String {
        format!("sum by (kind, resource, instance) (increase(nines_use_errors_total[{window}]))")
    }
}

/// The running load, as the load generator reports it.
pub mod load {
    /// Requests per second that the plan asks for, by run.
    #[must_use]
    pub fn offered() -> String {
        "sum by (run_id, scenario, target) (nines_load_offered_rate)".into()
    }

    /// Requests per second that were sent, by run.
    #[must_use]
    pub fn achieved() -> String {
        "sum by (run_id, scenario, target) (nines_load_achieved_rate)".into()
    }

    /// Requests without an answer yet, by run.
    #[must_use]
    pub fn in_flight() -> String {
        "sum by (run_id, scenario, target) (nines_load_in_flight)".into()
    }

    /// Latency from the intended send, seconds, by run.
    #[must_use]
    pub fn latency(q: f64, window: &str) -> String {
        format!(
            "histogram_quantile({q}, sum by (le, run_id, scenario, target) \
             (rate(nines_load_latency_seconds_bucket[{window}]))) >= 0"
        )
    }

    /// Latency from the real send, seconds, by run.
    #[must_use]
    pub fn service_time(q: f64, window: &str) -> String {
        format!(
            "histogram_quantile({q}, sum by (le, run_id, scenario, target) \
             (rate(nines_load_service_time_seconds_bucket[{window}]))) >= 0"
        )
    }

    /// Answers per second by status.
    #[must_use]
    pub fn by_status(window: &str) -> String {
        format!("sum by (status) (rate(nines_load_requests_total[{window}]))")
    }

    /// Requests without an answer, per second, by kind of error.
    #[must_use]
    pub fn errors(window: &str) -> String {
        format!("sum by (kind) (rate(nines_load_errors_total[{window}]))")
    }

    /// How late requests are sent, seconds, by quantile.
    #[must_use]
    pub fn late() -> String {
        "max by (quantile) (nines_load_late_seconds)".into()
    }
}
