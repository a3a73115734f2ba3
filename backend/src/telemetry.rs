//! Spans and logs: tracing spans bridged to OpenTelemetry, sent by OTLP with one `service.name` per role even
//! when all roles share a process, and JSON log lines. Must not know handlers.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use opentelemetry::trace::{Status, TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter,
};
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

mod logs;

use crate::settings::Settings;
use logs::{Line, OtlpLogs};

/// Parts of the backend, each with its own `service.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Token, limits, deadline; calls the services.
    Gateway,
    /// Accounts and tokens.
    User,
    /// Catalogue and inventory.
    Product,
    /// Orders.
    Order,
    /// Payments.
    Payment,
    /// Messages to people.
    Notification,
    /// Tasks.
    Task,
    /// Background jobs.
    Worker,
}

/// Every role.
pub(crate) const ROLES: [Role; 8] = [
    Role::Gateway,
    Role::User,
    Role::Product,
    Role::Order,
    Role::Payment,
    Role::Notification,
    Role::Task,
    Role::Worker,
];

/// Kind of a span.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Server,
    Client,
    Producer,
    Consumer,
}

/// Where a request is: the span that is its parent, and whom it serves. Passed on explicitly.
#[derive(Clone, Debug)]
pub(crate) struct Cx {
    /// Parent of the next span.
    pub span: Span,
    /// Correlation id.
    pub request_id: String,
    /// User, when known.
    pub user_id: Option<i64>,
}

/// Spans and logs of one backend.
#[derive(Debug)]
pub(crate) struct Telemetry {
    dispatch: Option<tracing::Dispatch>,
    provider: Option<SdkTracerProvider>,
    log: Mutex<Option<LogSink>>,
    otlp_logs: Option<OtlpLogs>,
    counts: Arc<Counts>,
    /// How far the clock of log lines is ahead, ms.
    pub skew_ms: AtomicI64,
}

#[derive(Debug)]
enum LogSink {
    Stderr,
    File(std::fs::File),
}

#[derive(Debug, Default)]
struct Counts {
    ended: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
}

// === impl Role ===

impl Role {
    /// `service.name`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::User => "user",
            Role::Product => "product",
            Role::Order => "order",
            Role::Payment => "payment",
            Role::Notification => "notification",
            Role::Task => "task",
            Role::Worker => "worker",
        }
    }
}

// === impl Telemetry ===

impl Telemetry {
    /// Connects lazily to the setting's endpoint; without one no span is made.
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let (endpoint, log) = (settings.otlp_endpoint.as_deref(), settings.log.as_str());
        let (version, mode, otlp_logs) = (&settings.version, settings.mode(), settings.otlp_logs);
        let counts = Arc::new(Counts::default());
        let sink = match log {
            "off" | "" => None,
            "stderr" => Some(LogSink::Stderr),
            path => {
                let file = std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(path);
                Some(LogSink::File(
                    file.map_err(|e| format!("open log file {path}: {e}"))?,
                ))
            }
        };
        let mut telemetry = Telemetry {
            dispatch: None,
            provider: None,
            log: Mutex::new(sink),
            otlp_logs: None,
            counts,
            skew_ms: AtomicI64::new(0),
        };
        if let Some(endpoint) = endpoint {
            telemetry.connect(endpoint, version, mode)?;
            if otlp_logs {
                telemetry.otlp_logs =
                    Some(OtlpLogs::new(endpoint, |r| resource(r, version, mode))?);
            }
        }
        Ok(telemetry)
    }

    fn connect(&mut self, endpoint: &str, version: &str, mode: &'static str) -> Result<(), String> {
        let mut by_role = HashMap::new();
        for role in ROLES {
            let mut exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build()
                .map_err(|e| format!("build OTLP exporter for {endpoint}: {e}"))?;
            exporter.set_resource(&resource(role, version, mode));
            by_role.insert(role.name(), exporter);
        }
        let exporter = ByRole {
            by_role,
            counts: Arc::clone(&self.counts),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(131_072)
            .with_max_export_batch_size(4096)
            .with_scheduled_delay(std::time::Duration::from_millis(500))
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("refbackend"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_context_activation(false)
            .with_tracked_inactivity(false);
        self.dispatch = Some(tracing::Dispatch::new(
            tracing_subscriber::registry().with(layer),
        ));
        self.provider = Some(provider);
        Ok(())
    }

    /// Whether spans are made.
    pub(crate) fn on(&self) -> bool {
        self.dispatch.is_some()
    }

    /// A span of `role` below `cx.span`, or below `remote` when that is given.
    pub(crate) fn span(
        &self,
        cx: &Cx,
        role: Role,
        kind: Kind,
        name: &str,
        remote: Option<Context>,
    ) -> Span {
        let Some(dispatch) = &self.dispatch else {
            return Span::none();
        };
        self.counts.ended.fetch_add(1, Ordering::Relaxed);
        let kind = match kind {
            Kind::Server => "server",
            Kind::Client => "client",
            Kind::Producer => "producer",
            Kind::Consumer => "consumer",
        };
        // No tracing parent: a registry releases a closed span's parent through the thread's default subscriber,
        // which is not ours, so the parent would stay open for ever. The OpenTelemetry context is the link.
        let span = tracing::dispatcher::with_default(
            dispatch,
            || tracing::info_span!(parent: None, "span", otel.name = name, otel.kind = kind),
        );
        let parent = remote.or_else(|| (!cx.span.is_none()).then(|| cx.span.context()));
        if let Some(parent) = parent {
            // Fails only for a span that has begun, which this one has not.
            let _ = span.set_parent(parent);
        }
        span.set_attribute(ROLE_KEY, role.name());
        span
    }

    /// Writes one line in the seed's schema, and sends it by OTLP.
    pub(crate) fn log(
        &self,
        level: &'static str,
        role: Role,
        cx: &Cx,
        message: &str,
        error: Option<&str>,
        latency_ms: Option<f64>,
    ) {
        let mut sink = self.log.lock().unwrap_or_else(|e| e.into_inner());
        if sink.is_none() && self.otlp_logs.is_none() {
            return;
        }
        let context = cx.span.context();
        let span = context.span().span_context().clone();
        let skew = self.skew_ms.load(Ordering::Relaxed);
        let at_ms = crate::clock::unix_ms().saturating_add_signed(skew);
        if let Some(otlp) = &self.otlp_logs {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at_ms);
            let span = span.clone();
            let (request_id, user_id) = (cx.request_id.as_str(), cx.user_id);
            #[rustfmt::skip]
            otlp.emit(&Line { level, role, message, error, latency_ms, user_id, request_id, span, at });
        }
        if sink.is_none() {
            return;
        }
        let line = serde_json::json!({
            "timestamp": crate::clock::rfc3339(at_ms),
            "level": level,
            "service": role.name(),
            "trace_id": if span.is_valid() { span.trace_id().to_string() } else { cx.request_id.clone() },
            "user_id": cx.user_id,
            "message": message,
            "error": error,
            "latency_ms": latency_ms,
        });
        let text = format!("{line}\n");
        // A full disk or a closed pipe must not stop the service.
        let _ = match &mut *sink {
            Some(LogSink::Stderr) => std::io::stderr().write_all(text.as_bytes()),
            Some(LogSink::File(file)) => file.write_all(text.as_bytes()),
            None => Ok(()),
        };
    }

    /// Sends what is buffered and waits for it. Blocks: call it off the runtime.
    pub(crate) fn flush(&self) -> Result<(), String> {
        let spans = self.provider.as_ref();
        spans.map_or(Ok(()), |p| p.force_flush().map_err(|e| e.to_string()))?;
        self.otlp_logs.as_ref().map_or(Ok(()), OtlpLogs::flush)
    }

    /// Ends the exporters. Blocks.
    pub(crate) fn shutdown(&self) {
        if let Some(p) = &self.provider {
            // A receiver that is gone already is no reason to fail a shutdown.
            let _ = p.shutdown();
        }
        if let Some(logs) = &self.otlp_logs {
            logs.shutdown();
        }
    }

    /// Spans begun, delivered, and refused by the receiver.
    pub(crate) fn counts(&self) -> serde_json::Value {
        let n = |a: &AtomicU64| a.load(Ordering::Relaxed);
        serde_json::json!({"begun": n(&self.counts.ended), "exported": n(&self.counts.exported), "failed": n(&self.counts.failed)})
    }

    /// Log records made, delivered, and refused by the receiver; null when none are sent.
    pub(crate) fn log_counts(&self) -> serde_json::Value {
        self.otlp_logs
            .as_ref()
            .map_or(serde_json::Value::Null, OtlpLogs::counts)
    }
}

/// What a role says of itself.
fn resource(role: Role, version: &str, mode: &'static str) -> Resource {
    Resource::builder()
        .with_service_name(role.name())
        .with_attribute(KeyValue::new("service.version", version.to_owned()))
        .with_attribute(KeyValue::new("deployment.environment.name", "reference"))
        .with_attribute(KeyValue::new("mode", mode))
        .build()
}

const ROLE_KEY: &str = "nines.role";

/// Gives every span to the exporter of its role, so that each carries its own resource.
#[derive(Debug)]
struct ByRole {
    by_role: HashMap<&'static str, opentelemetry_otlp::SpanExporter>,
    counts: Arc<Counts>,
}

impl SpanExporter for ByRole {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut groups: HashMap<&'static str, Vec<SpanData>> = HashMap::new();
        for mut span in batch {
            let at = span
                .attributes
                .iter()
                .position(|kv| kv.key.as_str() == ROLE_KEY);
            let role = at.map(|i| span.attributes.swap_remove(i).value.to_string());
            let role = ROLES
                .iter()
                .map(|r| r.name())
                .find(|n| Some(*n) == role.as_deref())
                .unwrap_or("gateway");
            groups.entry(role).or_default().push(span);
        }
        let mut result: Result<(), OTelSdkError> = Ok(());
        for (role, spans) in groups {
            let n = spans.len() as u64;
            let Some(exporter) = self.by_role.get(role) else {
                continue;
            };
            match exporter.export(spans).await {
                Ok(()) => self.counts.exported.fetch_add(n, Ordering::Relaxed),
                Err(e) => {
                    result = Err(e);
                    self.counts.failed.fetch_add(n, Ordering::Relaxed)
                }
            };
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: std::time::Duration) -> OTelSdkResult {
        self.by_role
            .values()
            .try_for_each(|e| e.shutdown_with_timeout(timeout))
    }
}

// === impl Cx ===

impl Cx {
    /// The start of a request.
    pub(crate) fn root(request_id: String) -> Self {
        Cx {
            span: Span::none(),
            request_id,
            user_id: None,
        }
    }

    /// The same request below another span.
    pub(crate) fn below(&self, span: &Span) -> Self {
        Cx {
            span: span.clone(),
            request_id: self.request_id.clone(),
            user_id: self.user_id,
        }
    }

    /// W3C `traceparent` of the current span.
    pub(crate) fn traceparent(&self) -> Option<String> {
        if self.span.is_none() {
            return None;
        }
        let context = self.span.context();
        let s = context.span().span_context().clone();
        s.is_valid().then(|| {
            format!(
                "00-{}-{}-{:02x}",
                s.trace_id(),
                s.span_id(),
                s.trace_flags().to_u8()
            )
        })
    }
}

/// Parses a W3C `traceparent`; anything malformed is no parent.
pub(crate) fn parse_traceparent(text: &str) -> Option<Context> {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    let parts: Vec<&str> = text.trim().split('-').collect();
    let [version, trace, span, flags] = parts[..] else {
        return None;
    };
    if version.len() != 2
        || version == "ff"
        || trace.len() != 32
        || span.len() != 16
        || flags.len() != 2
    {
        return None;
    }
    let trace = TraceId::from_hex(trace).ok()?;
    let span = SpanId::from_hex(span).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let remote = SpanContext::new(trace, span, flags, true, TraceState::default());
    remote
        .is_valid()
        .then(|| Context::new().with_remote_span_context(remote))
}

/// Sets an attribute (nothing on a span that is off).
pub(crate) fn attr(span: &Span, key: &'static str, value: impl Into<Value>) {
    if !span.is_none() {
        span.set_attribute(key, value);
    }
}

/// Marks a span as failed with `error.type`.
pub(crate) fn fail(span: &Span, error_type: &str) {
    if !span.is_none() {
        span.set_attribute("error.type", error_type.to_owned());
        span.set_status(Status::error(error_type.to_owned()));
    }
}
