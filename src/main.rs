//! The `nines` binary: read the command line, run one command, turn its outcome into an exit code.
//!
//! Owns nothing else. Must not know algorithms: those live in the crates that the commands wire together.

use std::process::ExitCode;

mod cli;
mod commands;
mod console;

fn main() -> ExitCode {
    console::install_tls_provider();
    cli::run()
}
