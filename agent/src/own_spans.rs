//! Spans of the agent's own work, sent by OTLP like anybody's.
//!
//! Owns the exporter and which spans are sent: those of target [`TARGET`] (queries, searches, rules, maintenance),
//! never those of receiving, so that an agent that sends to itself does not feed itself. Must not know who installs
//! the subscriber: a library never does.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::error::AgentError;

/// The target of spans that are sent.
pub const TARGET: &str = "nines_agent";

/// The exporter. Call [`OwnSpans::shutdown`] at the end, or the last spans are lost.
#[derive(Debug)]
pub struct OwnSpans {
    provider: SdkTracerProvider,
}

// === impl OwnSpans ===

impl OwnSpans {
    /// An exporter to an OTLP/gRPC endpoint such as `http://127.0.0.1:4317`. Connects when there is something to send.
    /// Must be called within a tokio runtime.
    pub fn start(endpoint: &str) -> Result<Self, AgentError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|e| {
                let fix = "write http://HOST:PORT of an OTLP/gRPC receiver";
                AgentError::Config(format!("`own_spans` is {endpoint:?}: {e}; {fix}"))
            })?;
        let resource = Resource::builder()
            .with_service_name(crate::telemetry::JOB)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(OwnSpans { provider })
    }

    /// A layer for `tracing_subscriber::registry()`.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(TARGET))
            .with_filter(filter_fn(|metadata| metadata.target() == TARGET))
    }

    /// Sends what is left; blocks until it is sent or given up. False when spans were lost.
    #[must_use]
    pub fn shutdown(self) -> bool {
        self.provider.shutdown().is_ok()
    }
}
