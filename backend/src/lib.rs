//! Crate backend.
