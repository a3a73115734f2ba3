//! What screens show: one answer of the agent, as plain values.
//!
//! Owns these shapes. `None` is absence. Must not know how they are fetched nor drawn.

use client::Silence;
use model::api::{AlertBody, AlertEvent, SelfStatus};
use model::log::LogRecord;
use model::slo::SloStatus;
use model::span::{Span, TraceId, TraceSummary};
use serde::Serialize;

use crate::heat::Heat;

/// Values of a chart, oldest first, evenly spaced over the range.
pub type Line = Vec<Option<f64>>;

/// Rate, errors and duration of a service or a route.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Red {
    /// The service.
    pub service: String,
    /// Method and route; empty for the service as a whole.
    pub route: String,
    /// Calls per second.
    pub rate: Option<f64>,
    /// Share that fails, 0 to 1.
    pub error_ratio: Option<f64>,
    /// Median, seconds.
    pub p50: Option<f64>,
    /// 95 % are faster, seconds.
    pub p95: Option<f64>,
    /// 99 % are faster, seconds.
    pub p99: Option<f64>,
}

/// Utilisation, saturation and errors of a resource.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Use {
    /// Its kind, such as `cpu`.
    pub kind: String,
    /// Its name.
    pub resource: String,
    /// Where it is.
    pub instance: String,
    /// How busy it is, 0 to 1.
    pub utilization: Option<f64>,
    /// What waits: (unit, how much).
    pub saturation: Vec<(String, f64)>,
    /// Errors in the window.
    pub errors: Option<f64>,
}

/// One running load.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LoadRun {
    /// Its id.
    pub run_id: String,
    /// Its scenario.
    pub scenario: String,
    /// What it drives.
    pub target: String,
    /// Requests per second that the plan asks for.
    pub offered: Option<f64>,
    /// Requests per second that were sent.
    pub achieved: Option<f64>,
    /// Requests without an answer yet.
    pub in_flight: Option<f64>,
    /// p50, p90, p95, p99, p99.9 from the intended send, seconds.
    pub latency: Vec<Option<f64>>,
    /// The same from the real send.
    pub service_time: Vec<Option<f64>>,
}

/// How much of the requests is faster, now and a range ago.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Percentile {
    /// The share, 0 to 1.
    pub quantile: f64,
    /// Seconds, now.
    pub now: Option<f64>,
    /// Seconds, a range ago.
    pub before: Option<f64>,
}

/// One request whose trace stands for others like it: an exemplar.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Sampled {
    /// Its trace.
    pub trace_id: TraceId,
    /// How long it took, seconds.
    pub seconds: f64,
    /// When, Unix milliseconds.
    pub t_ms: i64,
    /// The service.
    pub service: String,
    /// Method and route.
    pub route: String,
    /// The HTTP status; empty for none.
    pub status: String,
    /// Whether it failed.
    pub failed: bool,
}

/// What one panel of a dashboard shows; which of these depends on its kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct PanelData {
    /// The panel's title.
    pub title: String,
    /// Lines over the range by legend.
    pub series: Vec<(String, Line)>,
    /// Values of the instant by legend.
    pub values: Vec<(String, f64)>,
    /// Counts by bucket over the range.
    pub heat: Option<Heat>,
}

/// One dashboard's data.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Board {
    /// The dashboard's name.
    pub name: String,
    /// Its panels, in its order.
    pub panels: Vec<PanelData>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Data {
    /// The instant it is of, Unix milliseconds.
    pub t_ms: i64,
    /// How far its lines go back, milliseconds.
    pub range_ms: i64,
    /// The agent's own state.
    pub own: Option<SelfStatus>,
    /// Median latency of client requests, seconds.
    pub p50: Option<f64>,
    /// 95 % are faster, seconds.
    pub p95: Option<f64>,
    /// 99 % are faster, seconds.
    pub p99: Option<f64>,
    /// Client requests per second.
    pub traffic: Option<f64>,
    /// Failed client requests per second.
    pub errors: Option<f64>,
    /// Share that fails, 0 to 1.
    pub error_ratio: Option<f64>,
    /// Share of cache look-ups that hit, 0 to 1.
    pub cache_hit: Option<f64>,
    /// The fullest database pool, 0 to 1.
    pub pool: Option<f64>,
    /// CPU, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory, 0 to 1.
    pub memory: Option<f64>,
    /// Where lines end, Unix milliseconds: the end of the last whole step. They are asked for once a step.
    pub lines_end_ms: i64,
    /// p99 over the range.
    pub p99_line: Line,
    /// Traffic over the range.
    pub traffic_line: Line,
    /// Error ratio over the range.
    pub error_line: Line,
    /// Hit ratio over the range.
    pub cache_line: Line,
    /// The fullest pool over the range.
    pub pool_line: Line,
    /// p99 by service over the range.
    pub service_lines: Vec<(String, Line)>,
    /// Services, busiest first.
    pub services: Vec<Red>,
    /// Routes, busiest first.
    pub routes: Vec<Red>,
    /// Resources, busiest first.
    pub resources: Vec<Use>,
    /// Objectives, worst first.
    pub slos: Vec<SloStatus>,
    /// Active alerts, worst first.
    pub alerts: Vec<AlertBody>,
    /// Alerting rules that are watched.
    pub rules: usize,
    /// The alert log, newest first.
    pub events: Vec<AlertEvent>,
    /// Running loads.
    pub loads: Vec<LoadRun>,
    /// Offered rate over the range, all loads.
    pub offered_line: Line,
    /// Achieved rate over the range, all loads.
    pub achieved_line: Line,
    /// Answers per second of the load by status.
    pub load_status: Vec<(String, f64)>,
    /// Requests of the load without an answer, per second, by kind of error.
    pub load_errors: Vec<(String, f64)>,
    /// How late the load's requests are sent, seconds, by quantile.
    pub load_late: Vec<(String, f64)>,
    /// Traces, newest first.
    pub traces: Vec<TraceSummary>,
    /// The opened trace.
    pub spans: Vec<Span>,
    /// Latency over time.
    pub heat: Option<Heat>,
    /// Percentiles of the chosen route.
    pub percentiles: Vec<Percentile>,
    /// Exemplars of the chosen route, slowest first.
    pub exemplars: Vec<Sampled>,
    /// Log records, newest first.
    pub logs: Vec<LogRecord>,
    /// The chosen dashboard.
    pub board: Option<Board>,
    /// Silences.
    pub silences: Vec<Silence>,
}

// === impl Data ===

impl Data {
    /// Takes the lines of older data of the same screen, where they end at the same instant.
    pub(crate) fn keep_lines(&mut self, old: &mut Data) {
        if self.lines_end_ms == 0
            || (self.lines_end_ms, self.range_ms) != (old.lines_end_ms, old.range_ms)
        {
            return;
        }
        let lines = |d: &mut Data| {
            [
                std::mem::take(&mut d.p99_line),
                std::mem::take(&mut d.traffic_line),
                std::mem::take(&mut d.error_line),
                std::mem::take(&mut d.cache_line),
                std::mem::take(&mut d.pool_line),
                std::mem::take(&mut d.offered_line),
                std::mem::take(&mut d.achieved_line),
            ]
        };
        [
            self.p99_line,
            self.traffic_line,
            self.error_line,
            self.cache_line,
            self.pool_line,
            self.offered_line,
            self.achieved_line,
        ] = lines(old);
        self.service_lines = std::mem::take(&mut old.service_lines);
    }
}
