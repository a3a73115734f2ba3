//! A really started agent on free ports, driven by real clients: tonic with the published OTLP messages, and HTTP.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic where it stands"
)]

#[path = "agent_it/alerting.rs"]
mod alerting;
#[path = "agent_it/clients.rs"]
mod clients;
#[path = "agent_it/forward.rs"]
mod forward;
#[path = "agent_it/harness.rs"]
mod harness;
#[path = "agent_it/lifecycle.rs"]
mod lifecycle;
#[path = "agent_it/otlp_grpc.rs"]
mod otlp_grpc;
#[path = "agent_it/otlp_http.rs"]
mod otlp_http;
#[path = "agent_it/queries.rs"]
mod queries;
#[path = "agent_it/remote.rs"]
mod remote;
#[path = "agent_it/walks.rs"]
mod walks;
