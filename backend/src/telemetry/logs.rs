//! Log records by OTLP: one provider, one scope a role, each role's records sent with that role's resource.
//! Must not know which lines exist, nor the JSON log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::SpanContext;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{
    BatchConfigBuilder, BatchLogProcessor, LogBatch, LogExporter, SdkLogger, SdkLoggerProvider,
};

use super::{ROLES, Role};

/// Sends log records; made only when there is an endpoint.
#[derive(Debug)]
pub(crate) struct OtlpLogs {
    provider: SdkLoggerProvider,
    loggers: Vec<SdkLogger>,
    counts: Arc<Counts>,
}

/// One line before it becomes a record.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// `INFO`, `WARN` or `ERROR`.
    pub level: &'static str,
    /// Who says it.
    pub role: Role,
    /// Body of the record.
    pub message: &'a str,
    /// `error.type`, when something failed.
    pub error: Option<&'a str>,
    /// Time the request took, ms.
    pub latency_ms: Option<f64>,
    /// `user.id`.
    pub user_id: Option<i64>,
    /// Correlation id of the request.
    pub request_id: &'a str,
    /// Span in which it was said.
    pub span: SpanContext,
    /// When it was said.
    pub at: SystemTime,
}

#[derive(Debug, Default)]
struct Counts {
    emitted: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
}

// === impl OtlpLogs ===

impl OtlpLogs {
    /// Connects lazily; `resource` gives the resource of a role.
    pub(crate) fn new(endpoint: &str, resource: impl Fn(Role) -> Resource) -> Result<Self, String> {
        let mut by_role = HashMap::new();
        for role in ROLES {
            let mut exporter = opentelemetry_otlp::LogExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build()
                .map_err(|e| format!("build OTLP log exporter for {endpoint}: {e}"))?;
            exporter.set_resource(&resource(role));
            by_role.insert(scope(role), exporter);
        }
        let counts = Arc::new(Counts::default());
        let exporter = ByScope {
            by_role,
            counts: Arc::clone(&counts),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(131_072)
            .with_max_export_batch_size(4096)
            .with_scheduled_delay(Duration::from_millis(500))
            .build();
        let processor = BatchLogProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        let provider = SdkLoggerProvider::builder()
            .with_log_processor(processor)
            .build();
        let loggers = ROLES.map(|r| provider.logger(scope(r))).into();
        Ok(OtlpLogs {
            provider,
            loggers,
            counts,
        })
    }

    /// Queues one record; a full queue drops it (emitted then stays above exported).
    pub(crate) fn emit(&self, line: &Line<'_>) {
        let at = ROLES.iter().position(|r| *r == line.role).unwrap_or(0);
        let Some(logger) = self.loggers.get(at) else {
            return;
        };
        let mut record = logger.create_log_record();
        record.set_timestamp(line.at);
        record.set_observed_timestamp(line.at);
        record.set_severity_text(line.level);
        record.set_severity_number(match line.level {
            "ERROR" => Severity::Error,
            "WARN" => Severity::Warn,
            _ => Severity::Info,
        });
        record.set_body(AnyValue::from(line.message.to_owned()));
        if line.span.is_valid() {
            let s = &line.span;
            record.set_trace_context(s.trace_id(), s.span_id(), Some(s.trace_flags()));
        }
        if !line.request_id.is_empty() {
            record.add_attribute("request.id", line.request_id.to_owned());
        }
        if let Some(user) = line.user_id {
            record.add_attribute("user.id", user.to_string());
        }
        if let Some(error) = line.error {
            record.add_attribute("error.type", error.to_owned());
        }
        if let Some(ms) = line.latency_ms {
            record.add_attribute("latency_ms", ms);
        }
        self.counts.emitted.fetch_add(1, Ordering::Relaxed);
        logger.emit(record);
    }

    /// Sends what is buffered and waits for it. Blocks.
    pub(crate) fn flush(&self) -> Result<(), String> {
        self.provider.force_flush().map_err(|e| e.to_string())
    }

    /// Ends the exporters. Blocks.
    pub(crate) fn shutdown(&self) {
        // A receiver that is gone already is no reason to fail a shutdown.
        let _ = self.provider.shutdown();
    }

    /// Records made, delivered, and refused by the receiver.
    pub(crate) fn counts(&self) -> serde_json::Value {
        let n = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let c = &self.counts;
        serde_json::json!({"emitted": n(&c.emitted), "exported": n(&c.exported), "failed": n(&c.failed)})
    }
}

fn scope(role: Role) -> &'static str {
    role.name()
}

/// Gives every record to the exporter of its scope, so that each carries its role's resource.
#[derive(Debug)]
struct ByScope {
    by_role: HashMap<&'static str, opentelemetry_otlp::LogExporter>,
    counts: Arc<Counts>,
}

impl LogExporter for ByScope {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let mut groups: HashMap<&str, Vec<_>> = HashMap::new();
        for (record, scope) in batch.iter() {
            groups
                .entry(scope.name())
                .or_default()
                .push((record, scope));
        }
        let mut result = Ok(());
        for (name, records) in groups {
            let Some(exporter) = self.by_role.get(name) else {
                continue;
            };
            let n = records.len() as u64;
            match exporter.export(LogBatch::new(&records)).await {
                Ok(()) => self.counts.exported.fetch_add(n, Ordering::Relaxed),
                Err(e) => {
                    result = Err(e);
                    self.counts.failed.fetch_add(n, Ordering::Relaxed)
                }
            };
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.by_role
            .values()
            .try_for_each(|e| e.shutdown_with_timeout(timeout))
    }
}
