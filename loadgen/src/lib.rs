//! Owns load generation: HTTP connections, schedules, the engine that drives them, and reports of what was seen.
//! Must not know the agent, the store or the terminal; never prints.

pub mod ab;
pub mod artillery;
pub mod awake;
pub mod beside;
mod beta;
pub mod capacity;
pub mod compare;
pub mod conn;
mod decode;
mod dial;
mod dispatch;
mod engine;
pub mod explain;
pub mod export;
#[cfg(target_os = "linux")]
mod fast;
pub mod gate;
mod h2;
mod hdr;
pub mod html;
pub mod http1;
pub mod import;
mod json;
pub mod little;
mod merge;
pub mod outgoing;
mod pacer;
pub mod plan;
pub mod report;
pub mod schedule;
mod seconds;
mod shape;
mod stats;
mod stored;
pub mod targets;
mod tls;
pub mod transport;
pub mod truth;
mod wire;

pub use engine::{Progress, run};
pub use merge::merge;
pub use plan::{Engine, Model, Plan, RequestSpec};
pub use report::{Own, Phases, Quantiles, Report, RouteReport, RouteSecond, Second};
pub use shape::Shape;
pub use stored::StoredError;
pub use transport::Transport;

/// Why a run cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The target is not something to send HTTP to.
    #[error("use target {text:?}: {why}; expected http(s)://host[:port]")]
    Target {
        /// The text given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The plan contradicts itself or is out of bounds.
    #[error("check the plan: {0}")]
    Plan(String),
    /// More than 100 requests per second to a host that is not this machine.
    #[error(
        "send {rate} to {host}: more than 100 requests per second to a host other than this one needs the statement that the target is yours"
    )]
    NotYours {
        /// The host.
        host: String,
        /// The rate asked for, as text.
        rate: String,
    },
    /// This machine's processors cannot be kept awake.
    #[error("keep the processors awake: {0}")]
    Awake(String),
    /// TLS could not be set up.
    #[error("set up TLS: {0}")]
    Tls(String),
}
