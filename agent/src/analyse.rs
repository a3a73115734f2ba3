//! What is derived from spans as they arrive: RED series and the service graph.
//!
//! Owns no state of its own. Must not know receivers' transports or the store.

pub mod durations;
pub mod graph;
pub mod red;
