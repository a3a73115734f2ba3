//! Crate client.
