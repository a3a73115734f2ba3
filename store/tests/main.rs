//! The store from outside: one binary for all integration tests.

mod api;
mod blocks;
mod crash;
mod reference;
