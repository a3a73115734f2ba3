//! End to end over the real binary, and the rules of the house.
//!
//! Owns the list of end-to-end tests. Each module must not know another's servers or files.

mod ab;
mod api_shapes;
mod architecture;
mod artillery;
mod bad_input;
mod cli;
mod demo;
mod differential;
mod disk_full;
mod docs;
mod explain;
mod import;
mod live;
mod load_beside;
mod load_capacity;
mod load_ci;
mod load_fleet;
mod load_gate;
mod load_pages;
mod load_wire;
mod otel;
mod remote;
mod running;
mod tools;
