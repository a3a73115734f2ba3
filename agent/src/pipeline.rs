//! What happens to a request that was read: check, keep, derive, count.
//!
//! Owns the order of those steps: nothing of a malformed request has an effect; what is acknowledged is on disk; RED
//! counts exactly what was acknowledged. Must not know transports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::log::LogRecord;
use store::StoreError;

use crate::analyse::graph::Graph;
use crate::analyse::red::Red;
use crate::clock;
use crate::config::Config;
use crate::ingest::{Appended, Ingest, Sample, Value};
use crate::keep::logs::Logs;
use crate::keep::traces::Traces;
use crate::receive::metrics::{Translated, Translator};
use crate::receive::remote_write::Write;
use crate::receive::{log_records, metrics, spans};
use crate::telemetry::Telemetry;

/// The state that requests change. Shared by all receivers.
pub struct Pipeline {
    /// Where samples go.
    pub ingest: Ingest,
    /// Where traces go.
    pub traces: Traces,
    /// Where logs go.
    pub logs: Logs,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    red: Mutex<Red>,
    graph: Mutex<Graph>,
    translator: Mutex<Translator>,
    interval_ms: i64,
}

/// A request was taken, perhaps not all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Items refused.
    pub rejected: u64,
    /// Why, in words; empty when nothing was refused.
    pub reason: String,
}

/// What became of a remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Of floats.
    pub floats: Appended,
    /// Of native histograms.
    pub histograms: Appended,
    /// Exemplars kept.
    pub exemplars: u64,
    /// Floats that are kept, those included that were there already.
    pub floats_taken: u64,
    /// Native histograms likewise.
    pub histograms_taken: u64,
}

impl Written {
    /// Both kinds.
    #[must_use]
    pub fn total(&self) -> Appended {
        let mut total = self.floats;
        total.add(&self.histograms);
        total
    }
}

/// A request was refused; nothing of it had an effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It can never be taken.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// It may be taken later.
    #[error("cannot store the request now: {0}")]
    Unavailable(String),
}

// === impl Pipeline ===

impl Pipeline {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        config: &Config,
        ingest: Ingest,
        traces: Traces,
        logs: Logs,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let spans = &config.spans;
        Pipeline {
            ingest,
            traces,
            logs,
            red: Mutex::new(Red::new(
                spans.max_series_per_service,
                telemetry.started_ms(),
            )),
            graph: Mutex::new(Graph::new(
                spans.graph_wait.0,
                spans.graph_pending,
                telemetry.started_ms(),
            )),
            translator: Mutex::new(Translator::new(config.limits.delta_streams)),
            interval_ms: spans.interval.0,
            telemetry,
        }
    }

    /// Takes an `ExportTraceServiceRequest`.
    pub fn traces(&self, request: &[u8], transport: &str) -> Result<Accepted, Refused> {
        let walked = spans::walk(request).map_err(malformed)?;
        let too_large = self.traces.append(request, &walked).map_err(unavailable)?;
        let count = walked.spans.len() as u64;
        lock(&self.red).record(&walked);
        lock(&self.graph).record(&walked, clock::now_ms());
        self.received("traces", transport, count, request.len());
        let t = &self.telemetry;
        t.drop_items("traces", "invalid_id", walked.invalid);
        t.drop_items("traces", "resource_too_large_to_keep", too_large as u64);
        let reason = if walked.invalid > 0 {
            "a span needs a trace id of 16 bytes and a span id of 8 bytes, neither all zero"
        } else {
            ""
        };
        Ok(Accepted {
            rejected: walked.invalid,
            reason: reason.to_owned(),
        })
    }

    /// Takes an `ExportMetricsServiceRequest`.
    pub fn metrics(&self, request: &[u8], transport: &str) -> Result<Accepted, Refused> {
        metrics::check(request).map_err(malformed)?;
        let mut total = Appended::default();
        let (mut points, mut rejected, mut reason) = (0, 0, "");
        // Appended under the lock, so that totals of deltas reach the store in order.
        let mut translator = lock(&self.translator);
        let mut emit = |part: Translated| {
            total.add(&self.ingest.append(&part.samples));
            for (name, metadata) in part.metadata {
                self.ingest.metadata(&name, metadata);
            }
            self.ingest.exemplars(&part.exemplars);
            points += part.points;
            rejected += part.rejected;
            if part.rejected > 0 {
                reason = part.reason;
            }
        };
        translator
            .translate(request, clock::now_ms(), &mut emit)
            .map_err(malformed)?;
        drop(translator);
        self.count_refused("metrics", &total);
        if total.failed > 0 {
            return Err(Refused::Unavailable(self.ingest.failure()));
        }
        self.received("metrics", transport, points, request.len());
        self.telemetry
            .drop_items("metrics", "no_prometheus_form", rejected);
        Ok(Accepted {
            rejected: rejected + total.refused(),
            reason: match (rejected, total.refused()) {
                (0, 0) => String::new(),
                (0, _) => refusal(&total),
                _ => reason.to_owned(),
            },
        })
    }

    /// Takes an `ExportLogsServiceRequest`.
    pub fn logs(&self, request: &[u8], transport: &str) -> Result<Accepted, Refused> {
        let now_ns = clock::now_ns();
        let extent = log_records::walk(request, now_ns).map_err(malformed)?;
        let too_large = self.logs.append(request, now_ns).map_err(unavailable)?;
        self.received("logs", transport, extent.records, request.len());
        self.telemetry
            .drop_items("logs", "resource_too_large_to_keep", too_large as u64);
        Ok(Accepted::default())
    }

    /// Takes log records that a collector read. Returns how many were kept.
    pub fn collected_logs(&self, records: &[LogRecord]) -> usize {
        let n = records.len() as u64;
        match self.logs.append_records(records, clock::now_ns()) {
            Ok(()) => {
                self.received("logs", "collected", n, 0);
                records.len()
            }
            Err(_) => {
                self.telemetry.drop_items("logs", "disk", n);
                0
            }
        }
    }

    /// Takes a remote write. The report says what was refused. `None`, without any effect, when it names a series that
    /// has left memory by its id: then read it again, without ids.
    pub fn remote_write(&self, write: Write, bytes: usize) -> Result<Option<Written>, Refused> {
        let count = (write.packed.len() + write.samples.len()) as u64;
        let is_float = |s: &Sample| matches!(s.value, Value::Float(_));
        let (floats, histograms): (Vec<Sample>, Vec<Sample>) =
            write.samples.into_iter().partition(is_float);
        let mut written = Written::default();
        if !write.packed.is_empty() {
            let appended = self.ingest.append_packed(&write.packed);
            let Some(floats) = appended else {
                return Ok(None);
            };
            written.floats = floats;
            self.settle_write(
                &written.floats,
                write.packed.len(),
                &mut written.floats_taken,
            )?;
        }
        for (samples, report, taken) in [
            (floats, &mut written.floats, &mut written.floats_taken),
            (
                histograms,
                &mut written.histograms,
                &mut written.histograms_taken,
            ),
        ] {
            if samples.is_empty() {
                continue;
            }
            *report = self.ingest.append(&samples);
            self.settle_write(report, samples.len(), taken)?;
        }
        for (name, metadata) in write.metadata {
            self.ingest.metadata(&name, metadata);
        }
        self.ingest.exemplars(&write.exemplars);
        written.exemplars = write.exemplars.len() as u64;
        self.received("samples", "remote_write", count, bytes);
        Ok(Some(written))
    }

    /// Counts what became of a part of a remote write. An error when the disk refused it.
    fn settle_write(
        &self,
        report: &Appended,
        samples: usize,
        taken: &mut u64,
    ) -> Result<(), Refused> {
        if report.failed > 0 {
            return Err(Refused::Unavailable(self.ingest.failure()));
        }
        self.count_refused("samples", report);
        *taken = samples as u64 - report.refused();
        Ok(())
    }

    /// Writes RED and graph series as of now. Every span acknowledged before the call is counted in them.
    pub fn flush_spans(&self, now_ms: i64) {
        let begun = std::time::Instant::now();
        let mut red = lock(&self.red);
        let (t_ms, mut flushed) = red.flush(now_ms, self.interval_ms);
        let mut graph = lock(&self.graph);
        graph.flush(t_ms, self.interval_ms, &mut flushed.samples);
        let appended = self.ingest.append(&flushed.samples);
        self.ingest.exemplars(&flushed.exemplars);
        self.count_refused("span_metrics", &appended);
        let t = &self.telemetry;
        t.set("span_metrics_series", red.series() as u64);
        t.set("span_metrics_overflowed_spans", red.overflowed());
        t.set("service_graph_pending", graph.pending() as u64);
        t.set("service_graph_edges", graph.edges() as u64);
        t.set("service_graph_unpaired", graph.counters.unpaired);
        t.set("service_graph_evicted", graph.counters.evicted);
        t.set("service_graph_dropped", graph.counters.dropped);
        t.flush_seconds.observe(begun.elapsed().as_secs_f64());
    }

    fn received(&self, signal: &str, transport: &str, items: u64, bytes: usize) {
        let t = &self.telemetry;
        t.received
            .with_label_values(&[signal, transport])
            .inc_by(items);
        t.received_bytes
            .with_label_values(&[signal])
            .inc_by(bytes as u64);
    }

    fn count_refused(&self, signal: &str, appended: &Appended) {
        let t = &self.telemetry;
        t.drop_items(signal, "out_of_order", appended.out_of_order);
        t.drop_items(signal, "duplicate", appended.duplicate);
        t.drop_items(signal, "too_many_series", appended.cardinality);
        t.drop_items(signal, "disk", appended.failed);
    }
}

/// What was refused of a batch, in words.
#[must_use]
pub fn refusal(appended: &Appended) -> String {
    let parts = [
        (appended.out_of_order, "out of order"),
        (
            appended.duplicate,
            "with another value for the same instant",
        ),
        (appended.cardinality, "of too many series"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
    format!("samples refused: {}", parts.join(", "))
}

fn malformed(error: model::protobuf::WireError) -> Refused {
    Refused::Malformed(error.to_string())
}

fn unavailable(error: StoreError) -> Refused {
    Refused::Unavailable(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
