//! The store from outside: one binary for all integration tests.

mod api;
