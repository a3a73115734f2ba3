//! One file a subcommand: parse its flags, wire the crates, print.
//!
//! Owns the list of commands. Must not know algorithms.

pub mod agent;
pub mod agent_log;
pub mod alerts;
pub mod backend;
pub mod config;
pub mod dashboards;
pub mod demo;
pub mod gate;
pub mod load;
mod load_beside;
mod load_capacity;
pub mod load_explain;
mod load_import;
mod load_request;
mod load_run;
pub mod load_schedule;
mod load_series;
mod load_transport;
pub mod logs;
pub mod query;
pub mod reach;
pub mod ruler;
pub mod slo;
pub mod store;
pub mod top;
pub mod traces;
