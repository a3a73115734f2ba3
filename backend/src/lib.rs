//! The reference backend: the system that is observed, driven and broken. It is somebody else's system and
//! must not know any other crate of the workspace; it talks OTLP, `/metrics` and logs like any service.

mod admin;
mod app;
pub mod backoff;
pub mod breaker;
mod cache;
mod clock;
mod data;
mod edge;
pub mod faults;
mod gateway;
mod inventory;
pub mod jwt;
pub mod limiter;
mod peer;
mod queue;
mod rabbit;
mod record;
mod redis_cache;
mod routes;
mod schema;
mod services;
pub mod settings;
#[cfg(test)]
#[allow(dead_code, reason = "the test of real mode uses the rest of it")]
mod stack_test;
mod start;
mod tasks;
mod telemetry;

pub use settings::Settings;
pub use start::{Backend, Error, Result, start};
