//! The agent: receives OTLP and remote write, collects, derives RED from spans, keeps it, and answers queries.
//!
//! Owns the receivers, the pipeline and the HTTP API. Must not know the terminal, the load generator or flags.
//!
//! ```text
//! OTLP gRPC ─┐                ┌─▶ traces, logs (segments) ─────┐
//! OTLP HTTP ─┼─▶ pipeline ────┼─▶ RED, service graph ─┐        ├─▶ HTTP API
//! remote write               └─▶ samples ────────────┴─▶ Ingest ─▶ store
//! collectors ────────────────────────────────────────────▲      └─▶ forward ─▶ other servers
//! ```

pub mod analyse;
mod api;
pub mod budget;
pub mod clock;
pub mod collect;
pub mod config;
mod error;
mod failure;
pub mod flush;
mod forward;
pub mod ingest;
mod judge;
pub mod keep;
mod observe;
pub mod own_spans;
pub mod pipeline;
pub mod receive;
mod run;
pub mod serve;
pub mod telemetry;

pub use config::Config;
pub use error::AgentError;
pub use run::{Agent, ShutdownReport, start};
