//! `nines load import`: a HAR file, an OpenAPI document or an access log becomes an Artillery script.
//!
//! Owns its flags, the files read and written, and the notes. Must not know the formats.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use loadgen::import::{self, Options, Verbs};
use model::duration;

use crate::cli::Shared;
use crate::console::{CommandResult, Outcome, note, print, read_file_or_stdin, usage};

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// HAR 1.2, as browsers save it: one user's flow, with its pauses
    Har,
    /// OpenAPI 3.0 or 3.1, JSON or YAML: a scenario for each operation
    Openapi,
    /// An access log (nginx, Apache; common or combined): a scenario for each route, as often as it came
    Log,
}

/// Flags of `nines load import`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What the file is
    kind: Kind,

    /// The file, or - for standard input
    file: PathBuf,

    /// Write the script here, not to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// config.target of the script, in place of what the file says
    #[arg(short, long, value_name = "URL")]
    target: Option<String>,

    /// har: take only requests to this host, or host:port [default: that of the first request]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Take only GET, HEAD and OPTIONS (what openapi does anyway)
    #[arg(long, conflicts_with = "mutating")]
    only_get: bool,

    /// openapi: also take the operations that change something
    #[arg(long)]
    mutating: bool,

    /// Users a second [default: 1; of a log its mean rate]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,

    /// Length of the load
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    duration: String,
}

/// Reads, writes, tells what was left out.
pub fn run(args: Args, shared: Shared) -> CommandResult {
    let (name, text) = read_file_or_stdin(&args.file)?;
    let length =
        duration::parse_ms(&args.duration).map_err(|e| usage(format!("--duration: {e}")))?;
    if let Some(target) = &args.target {
        loadgen::conn::Target::parse(target).map_err(|e| usage(format!("--target: {e}")))?;
    }
    let options = Options {
        target: args.target,
        host: args.host,
        verbs: match (args.only_get, args.mutating) {
            (true, _) => Verbs::Reading,
            (_, true) => Verbs::All,
            _ => Verbs::Usual,
        },
        rate: args.rate,
        duration_s: (length / 1000).max(1).unsigned_abs(),
    };
    let read = match args.kind {
        Kind::Har => import::har,
        Kind::Openapi => import::openapi,
        Kind::Log => import::access_log,
    };
    let imported = read(&name, &text, &options).map_err(|e| usage(e.to_string()))?;
    match &args.output {
        Some(path) => std::fs::write(path, &imported.script)
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?,
        None => print(&imported.script)?,
    }
    for line in &imported.notes {
        note(line);
    }
    if !shared.quiet {
        let place = args
            .output
            .map_or("standard output".to_owned(), |p| p.display().to_string());
        note(&format!(
            "{} requests written to {place}",
            imported.requests
        ));
    }
    Ok(Outcome::Good)
}
