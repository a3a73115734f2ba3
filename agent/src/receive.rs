//! Receivers: OTLP over gRPC and HTTP, and Prometheus remote write.
//!
//! Owns every wire format that comes in by push; none of them leaves this module. Must not know the query API.

pub mod attributes;
pub mod body;
pub mod deltas;
mod distributions;
pub mod grpc;
pub mod json;
pub mod log_records;
pub mod metrics;
pub mod names;
pub mod otlp;
pub mod otlp_http;
pub mod remote_write;
pub mod remote_write_v2;
pub mod spans;
