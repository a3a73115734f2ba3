//! Alerts: SLO maths, rule files, evaluation, alert state, routing, silences, the delivery outbox and notifiers.
//!
//! Owns everything from a rule's text to the page. Must not know where series are stored (that is
//! [`model::Source`]), nor serve HTTP.
//!
//! ```text
//! rules (RuleFile) ─▶ engine (RuleEngine::tick) ─▶ notifications ─▶ delivery (Dispatcher) ─▶ PagerDuty, Slack, webhook
//! slo   (SloFile)  ─┘  recordings, ALERTS, state on disk             silences, outbox on disk
//! ```

pub mod delivery;
pub mod engine;
pub mod file_error;
pub mod notification;
pub mod pack;
pub mod rules;
pub mod silence;
pub mod slo;
pub mod template;
pub mod unit_test;

pub use delivery::{DeliveryConfig, Dispatcher, Outbox};
pub use engine::{EngineOptions, RuleEngine, Tick};
pub use file_error::FileError;
pub use notification::{Notification, Status};
pub use rules::{Rule, RuleFile, RuleGroup, RuleKind, scale};
