//! Crate loadgen.
