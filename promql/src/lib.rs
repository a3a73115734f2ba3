//! Crate promql.
