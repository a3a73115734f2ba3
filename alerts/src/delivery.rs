//! Delivery: from notifications to pages, at least once, in order for each (receiver, dedup key).
//!
//! Owns routing, grouping, the outbox on disk and the notifiers. Must not know rules.
//!
//! ```text
//! submit ─▶ silences ─▶ route ─▶ group (wait, interval) ─▶ outbox: intent, fsync ─▶ send ─▶ ack | retry | dead letter
//! ```

mod backoff;
pub mod config;
mod dispatcher;
mod group;
mod journal;
mod message;
mod outbox;
pub mod pagerduty;
mod route;
mod send;
pub mod slack;
pub mod webhook;

pub use config::{DeliveryConfig, ReceiverConfig, ReceiverKind, RouteConfig, Secret};
pub use dispatcher::{DeliveryStats, Dispatcher};
pub use message::Message;
pub use outbox::{Decision, Job, Outbox, Outcome};

/// Why delivery cannot start, or take a notification.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// The outbox cannot be read or written. What was submitted is not on disk.
    #[error("outbox: {0}")]
    Io(#[from] std::io::Error),
    /// The HTTP client cannot be built.
    #[error("http client: {0}")]
    Client(String),
}

#[cfg(test)]
mod bodies_tests;
