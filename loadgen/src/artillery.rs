//! Owns Artillery scripts: reading them with exact places for mistakes, running their virtual users over HTTP,
//! and reports under Artillery's names. Must not know the terminal, the agent or the store; never prints.
//!
//! [`read`] gives a [`Script`]; [`run`] runs one and gives [`Results`].

mod arrivals;
mod capture;
mod config;
pub(crate) mod cookies;
mod document;
mod ensure;
mod exchange;
mod expect;
mod expr;
mod fake;
pub(crate) mod fields;
mod flow;
mod grpc;
mod grpc_flow;
mod grpc_reflect;
#[cfg(test)]
mod grpc_tests;
mod hooks;
mod js;
mod metrics;
pub(crate) mod mistake;
mod net;
mod payload;
mod read;
#[cfg(test)]
mod read_tests;
mod report;
mod request;
mod routes;
mod run;
#[cfg(test)]
mod run_tests;
mod script;
mod template;
pub(crate) mod tree;
mod vars;
mod vu;
mod ws;
mod ws_flow;

pub use ensure::Verdict;
pub use mistake::Mistake;
pub use read::{ReadOptions, read};
pub use report::{Period, Results};
pub(crate) use run::check_target;
pub use run::{Event, PhaseShown, RunError, RunOptions, run};
pub use script::Script;
