//! Crate alerts.
