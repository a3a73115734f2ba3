//! The agent's own metrics, `nines_agent_*`.
//!
//! Owns their names and the registry (the `prometheus` crate). Must not know who counts.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{LabelsBuilder, METRIC_NAME};
use prometheus::proto::{Metric, MetricType};
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::ingest::Sample;

/// The job label of the agent's own series.
pub const JOB: &str = "nines-agent";

/// All of the agent's own metrics.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    /// Items received: spans, points, log records, samples; by signal and transport.
    pub received: IntCounterVec,
    /// Requests refused, by signal and reason.
    pub rejected: IntCounterVec,
    /// Items dropped after their request was taken, by signal and reason.
    pub dropped: IntCounterVec,
    /// Bytes of request bodies, decompressed, by signal.
    pub received_bytes: IntCounterVec,
    /// Seconds that queries took, by kind.
    pub query_seconds: HistogramVec,
    /// Queries that failed, by reason.
    pub query_failures: IntCounterVec,
    /// Seconds that a flush of span metrics took.
    pub flush_seconds: Histogram,
    /// Numbers that are looked up when somebody asks: queues, store, budget.
    pub gauges: IntGaugeVec,
    /// Samples of remote write out, by server and result: `sent`, `refused`, `lost`, `skipped`.
    pub forward_samples: IntCounterVec,
    /// Requests of remote write out, by server and result: `taken`, `refused`, `retried`.
    pub forward_requests: IntCounterVec,
    /// Samples that wait for remote write out, by server.
    pub forward_pending: IntGaugeVec,
    /// Seconds that the oldest of them has waited, by server.
    pub forward_lag: GaugeVec,
    /// Rule evaluations, by result.
    pub rules: IntCounterVec,
    connections: IntGaugeVec,
    cardinality: IntGaugeVec,
    started_ms: IntGauge,
    queries: AtomicU64,
}

// === impl Telemetry ===

impl Telemetry {
    /// A fresh registry.
    pub fn new(started_ms: i64) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(format!("nines_agent_{name}"), help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(format!("nines_agent_{name}"), help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let query_seconds = HistogramVec::new(
            HistogramOpts::new(
                "nines_agent_query_duration_seconds",
                "Time to answer a query",
            )
            .buckets(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]),
            &["kind"],
        )?;
        registry.register(Box::new(query_seconds.clone()))?;
        let flush_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "nines_agent_span_flush_seconds",
                "Time to write span metrics",
            )
            .buckets(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0]),
        )?;
        registry.register(Box::new(flush_seconds.clone()))?;
        let forward_lag = GaugeVec::new(
            Opts::new(
                "nines_agent_remote_write_lag_seconds",
                "How long the oldest sample has waited for remote write out",
            ),
            &["peer"],
        )?;
        registry.register(Box::new(forward_lag.clone()))?;
        let started = IntGauge::new(
            "nines_agent_start_time_milliseconds",
            "When the agent started",
        )?;
        registry.register(Box::new(started.clone()))?;
        started.set(started_ms);
        Ok(Telemetry {
            received: counter("received_total", "Items received", &["signal", "transport"])?,
            rejected: counter("rejected_total", "Requests refused", &["signal", "reason"])?,
            dropped: counter(
                "dropped_total",
                "Items dropped or refused one by one",
                &["signal", "reason"],
            )?,
            received_bytes: counter(
                "received_bytes_total",
                "Bytes of bodies, decompressed",
                &["signal"],
            )?,
            query_failures: counter("query_failures_total", "Queries that failed", &["reason"])?,
            rules: counter("rule_ticks_total", "Evaluations of all rules", &["result"])?,
            gauges: gauge("state", "Queues, store and budget, by what", &["what"])?,
            connections: gauge("connections", "Open connections", &["listener"])?,
            cardinality: gauge(
                "cardinality_excess",
                "Label sets past a limit on series, and the label with the most values",
                &["scope", "name", "label"],
            )?,
            forward_samples: counter(
                "remote_write_samples_total",
                "Samples of remote write out",
                &["peer", "result"],
            )?,
            forward_requests: counter(
                "remote_write_requests_total",
                "Requests of remote write out",
                &["peer", "result"],
            )?,
            forward_pending: gauge(
                "remote_write_pending_samples",
                "Samples that wait for remote write out",
                &["peer"],
            )?,
            forward_lag,
            query_seconds,
            flush_seconds,
            started_ms: started,
            queries: AtomicU64::new(0),
            registry,
        })
    }

    /// When the agent started, Unix milliseconds.
    #[must_use]
    pub fn started_ms(&self) -> i64 {
        self.started_ms.get()
    }

    /// Counts a refused request.
    pub fn reject(&self, signal: &str, reason: &str) {
        self.rejected.with_label_values(&[signal, reason]).inc();
    }

    /// Counts items dropped.
    pub fn drop_items(&self, signal: &str, reason: &str, n: u64) {
        if n > 0 {
            self.dropped.with_label_values(&[signal, reason]).inc_by(n);
        }
    }

    /// Counts a query and its time.
    pub fn query(&self, kind: &str, seconds: f64) {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.query_seconds
            .with_label_values(&[kind])
            .observe(seconds);
    }

    /// Queries answered.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// Sets a looked-up number.
    pub fn set(&self, what: &str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.gauges.with_label_values(&[what]).set(value);
    }

    /// Says which metric or source is past its limit on series; true the first time.
    pub fn cardinality(&self, scope: &str, name: &str, label: &str, excess: u64) -> bool {
        let gauge = self.cardinality.with_label_values(&[scope, name, label]);
        let first = gauge.get() == 0;
        gauge.set(i64::try_from(excess).unwrap_or(i64::MAX));
        first
    }

    /// The gauge of open connections of a listener.
    #[must_use]
    pub fn connections(&self, listener: &str) -> IntGauge {
        self.connections.with_label_values(&[listener])
    }

    /// Everything refused or dropped so far: `signal: reason` to how many.
    #[must_use]
    pub fn losses(&self) -> std::collections::BTreeMap<String, u64> {
        let mut out = std::collections::BTreeMap::new();
        for family in self.registry.gather() {
            if !matches!(
                family.name(),
                "nines_agent_rejected_total" | "nines_agent_dropped_total"
            ) {
                continue;
            }
            for metric in family.get_metric() {
                let value = metric.get_counter().get_value() as u64;
                let labels: Vec<&str> =
                    metric.get_label().iter().rev().map(|l| l.value()).collect();
                *out.entry(labels.join(": ")).or_insert(0) += value;
            }
        }
        out.retain(|_, n| *n > 0);
        out
    }

    /// In Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let families = self.registry.gather();
        // Writing to memory cannot fail; a family without samples is left out.
        let _ = prometheus::TextEncoder::new().encode(&families, &mut out);
        out
    }

    /// As samples with `job` [`JOB`] and the given instance.
    #[must_use]
    pub fn samples(&self, instance: &str, t_ms: i64) -> Vec<Sample> {
        let mut out = Vec::new();
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let mut base = LabelsBuilder::default();
                base.set("job", JOB).set("instance", instance);
                for label in metric.get_label() {
                    base.set(label.name(), label.value());
                }
                let mut push = |suffix: &str, le: Option<String>, value: f64| {
                    let mut labels = base.clone();
                    labels.set(METRIC_NAME, format!("{}{suffix}", family.name()));
                    labels.set("le", le.unwrap_or_default());
                    out.push(Sample::float(labels.build(), t_ms, value));
                };
                write_metric(family.get_field_type(), metric, &mut push);
            }
        }
        out
    }
}

fn write_metric(
    kind: MetricType,
    metric: &Metric,
    push: &mut impl FnMut(&str, Option<String>, f64),
) {
    match kind {
        MetricType::COUNTER => push("", None, metric.get_counter().get_value()),
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            for bucket in histogram.get_bucket() {
                let le = model::api::format_float(bucket.upper_bound());
                push("_bucket", Some(le), bucket.cumulative_count() as f64);
            }
            let count = histogram.get_sample_count() as f64;
            push("_bucket", Some("+Inf".into()), count);
            push("_sum", None, histogram.get_sample_sum());
            push("_count", None, count);
        }
        _ => push("", None, metric.get_gauge().get_value()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_out_as_text_samples_and_losses() {
        let telemetry = Telemetry::new(5).unwrap();
        telemetry
            .received
            .with_label_values(&["traces", "grpc"])
            .inc_by(3);
        telemetry.reject("traces", "truncated");
        telemetry.drop_items("spans", "invalid_id", 2);
        telemetry.query("instant", 0.002);
        let text = String::from_utf8(telemetry.text()).unwrap();
        assert!(
            text.contains(r#"nines_agent_received_total{signal="traces",transport="grpc"} 3"#),
            "{text}"
        );
        let losses = telemetry.losses();
        assert_eq!(losses.get("traces: truncated"), Some(&1));
        assert_eq!(losses.get("spans: invalid_id"), Some(&2));
        let samples = telemetry.samples("here", 9);
        assert!(samples.iter().any(|s| s.labels.to_string()
            == r#"nines_agent_query_duration_seconds_bucket{instance="here", job="nines-agent", kind="instant", le="0.005"}"#));
    }
}
