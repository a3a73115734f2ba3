//! Typed dashboards as data: executive, operations, developer, infrastructure; and the queries of overview screens.
//!
//! Owns what is shown and the PromQL behind it, and its form as Grafana JSON. Must not know HTTP, terminals or who
//! evaluates a query.

mod boards;
pub mod grafana;
mod panel;
pub mod queries;

pub use boards::all;
pub use panel::{Dashboard, Kind, Level, Panel, Query, RATE_INTERVAL, Threshold, Unit};
