//! The reference backend: the system that is observed, driven and broken. It is somebody else's system and
//! must not know any other crate of the workspace; it talks OTLP, `/metrics` and logs like any service.

mod admin;
mod app;
pub mod backoff;
pub mod breaker;
mod clock;
mod db;
mod edge;
pub mod faults;
mod gateway;
mod inventory;
pub mod jwt;
pub mod limiter;
mod queue;
#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "wired by real mode")
)]
mod rabbit;
mod record;
#[cfg_attr(not(test), expect(dead_code, reason = "wired by real mode"))]
mod redis_cache;
mod routes;
mod schema;
mod services;
pub mod settings;
#[cfg(test)]
mod stack_test;
mod start;
mod tasks;
mod telemetry;

pub use settings::Settings;
pub use start::{Backend, Error, Result, start};
