//! The store from outside: one binary for all integration tests.

mod admin;
mod api;
mod blocks;
mod crash;
mod format;
mod reference;
