//! Crate tui.
