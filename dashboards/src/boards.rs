//! The list of dashboards.
//!
//! Owns their order. Must not know what is on them.

mod developer;
mod executive;
mod infrastructure;
mod operations;

use crate::panel::Dashboard;

/// Every dashboard that is shipped.
#[must_use]
pub fn all() -> Vec<Dashboard> {
    vec![
        executive::board(),
        operations::board(),
        developer::board(),
        infrastructure::board(),
    ]
}
