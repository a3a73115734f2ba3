//! Crate dashboards.
