//! The agent: receives OTLP and remote write, collects, derives RED from spans, keeps it, and answers queries.
//!
//! Owns the receivers, the pipeline and the HTTP API. Must not know the terminal, the load generator or flags.

pub mod collect;
pub mod ingest;
