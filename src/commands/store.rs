//! `nines store`: look into, check, export and import the samples in a data folder.
//!
//! Owns its flags and output. Must not know the files' format.

use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use model::{SelectRequest, timestamp};

use super::reach::table;
use crate::console::{CommandResult, Outcome, note, now_ms, print};

/// Flags of `nines store`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List blocks and log files with their bounds and sizes
    Inspect {
        /// The samples' folder, such as nines-data/metrics
        dir: PathBuf,
    },
    /// Read everything and check every checksum; exit code 1 on damage
    Verify {
        /// The samples' folder
        dir: PathBuf,
    },
    /// Write every sample as OpenMetrics text to standard output
    Export {
        /// The samples' folder (no agent may be using it)
        dir: PathBuf,
        /// Only what OpenMetrics 1.0 can say, for other tools: no native histograms, staleness markers, start times
        #[arg(long)]
        plain: bool,
    },
    /// Copy the samples up to a time into a new folder; blocks are hard links (a running agent: POST /api/v1/admin/tsdb/snapshot)
    Snapshot {
        /// The samples' folder (no agent may be using it)
        dir: PathBuf,
        /// The new folder; it must not exist, or be empty
        to: PathBuf,
        /// Samples up to this time: RFC 3339, or Unix seconds [default: all]
        #[arg(long, value_parser = parse_time)]
        at: Option<i64>,
    },
    /// Read OpenMetrics text from standard input
    Import {
        /// The samples' folder (no agent may be using it)
        dir: PathBuf,
    },
}

/// Runs the subcommand.
pub fn run(args: Args) -> CommandResult {
    match args.command {
        Command::Inspect { dir } => {
            let found = store::admin::inspect(&dir)?;
            let time = timestamp::format_rfc3339;
            let block = |b: &store::admin::BlockReport| {
                vec![
                    b.path.display().to_string(),
                    b.series.to_string(),
                    b.samples.to_string(),
                    b.bytes.to_string(),
                    time(b.bounds.0),
                    time(b.bounds.1),
                ]
            };
            let log = |l: &store::admin::LogReport| {
                let bound = |t: Option<i64>| t.map_or("-".into(), time);
                vec![
                    l.path.display().to_string(),
                    l.series.to_string(),
                    (l.floats + l.histograms).to_string(),
                    l.bytes.to_string(),
                    bound(l.bounds.map(|b| b.0)),
                    bound(l.bounds.map(|b| b.1)),
                ]
            };
            let rows: Vec<Vec<String>> = found
                .blocks
                .iter()
                .map(block)
                .chain(found.log.iter().map(log))
                .collect();
            print(&table(
                &["FILE", "SERIES", "SAMPLES", "BYTES", "FROM", "TO"],
                &rows,
            ))?;
            Ok(report(&found.problems))
        }
        Command::Verify { dir } => {
            let found = store::admin::verify(&dir)?;
            print(&format!(
                "{} blocks, {} series, {} chunks, {} samples; log: {} records, {} samples\n",
                found.blocks,
                found.series,
                found.chunks,
                found.samples,
                found.records,
                found.log_samples
            ))?;
            Ok(report(&found.problems))
        }
        Command::Export { dir, plain } => {
            let dialect = match plain {
                true => store::admin::Dialect::Plain,
                false => store::admin::Dialect::Whole,
            };
            let store = open(dir)?;
            let mut out = BufWriter::new(std::io::stdout().lock());
            let everything = SelectRequest {
                matchers: &[],
                start_ms: i64::MIN,
                end_ms: i64::MAX,
                max_points: usize::MAX,
            };
            let done = store::admin::export(&store, &everything, dialect, &mut out)?;
            out.flush()?;
            note(&format!(
                "exported {} samples of {} series",
                done.samples, done.series
            ));
            let left = [
                (done.histograms, "native histograms"),
                (done.stale, "staleness markers"),
                (done.starts, "start times"),
            ];
            for (count, what) in left.into_iter().filter(|(count, _)| *count > 0) {
                note(&format!("left out {count} {what} (--plain)"));
            }
            Ok(Outcome::Good)
        }
        Command::Snapshot { dir, to, at } => {
            let done = open(dir)?.snapshot(&to, at.unwrap_or(i64::MAX))?;
            note(&format!(
                "{} samples in {}: {} blocks linked, {} written",
                done.samples,
                to.display(),
                done.linked,
                done.written
            ));
            Ok(Outcome::Good)
        }
        Command::Import { dir } => {
            let store = open(dir)?;
            let mut input = BufReader::new(std::io::stdin().lock());
            let done = store::admin::import(&store, &mut input, Some(now_ms()))?;
            store.flush()?;
            note(&format!(
                "imported {} samples from {} lines",
                done.appended, done.lines
            ));
            let left = [
                (done.duplicate, "were there already"),
                (done.out_of_order, "are too old"),
                (done.rejected_cardinality, "are of too many series"),
            ];
            for (count, why) in left.into_iter().filter(|(count, _)| *count > 0) {
                note(&format!("left out {count} samples that {why}"));
            }
            Ok(Outcome::Good)
        }
    }
}

/// A store without the agent's limits: samples of any time and any number of series go in and out.
fn open(dir: PathBuf) -> Result<store::Store, store::StoreError> {
    let mut options = store::StoreOptions::new(dir);
    options.retention_ms = None;
    options.max_series = usize::MAX;
    options.max_series_per_metric = usize::MAX;
    options.max_series_per_source = usize::MAX;
    store::Store::open(options)
}

fn parse_time(text: &str) -> Result<i64, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| s.abs() < 1e12);
    seconds
        .map(|s| (s * 1000.0).round() as i64)
        .or_else(|| timestamp::parse_rfc3339(text))
        .ok_or_else(|| {
            format!("{text:?} is neither a time such as 2026-01-02T03:04:05Z nor Unix seconds")
        })
}

fn report(problems: &[store::admin::Problem]) -> Outcome {
    for problem in problems {
        note(&format!(
            "damaged: {}: {}",
            problem.path.display(),
            problem.what
        ));
    }
    if problems.is_empty() {
        Outcome::Good
    } else {
        Outcome::Failed
    }
}
