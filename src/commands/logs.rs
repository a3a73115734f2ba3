//! `nines logs`: search log records, or follow them as they come.
//!
//! Owns its flags and output. Must not know how records are kept.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use clap::Args as ClapArgs;
use client::LogSearch;
use model::log::{LogRecord, Severity};
use model::span::SpanId;
use model::timestamp;

use super::reach::{Format, Reach, clean, json};
use crate::console::{
    CommandResult, Outcome, block_on, duration_ms, note, now_ms, print, stop_token, usage,
};

/// Flags of `nines logs`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only records whose text contains this
    text: Option<String>,

    /// Only this service
    #[arg(long)]
    service: Option<String>,

    /// At least this severity: trace, debug, info, warn, error, fatal
    #[arg(long)]
    severity: Option<String>,

    /// Only records of this trace
    #[arg(long, value_name = "TRACE")]
    trace: Option<String>,

    /// How far back
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    since: String,

    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,

    /// Output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// Go on: print records as they come, oldest first, until Ctrl-C. As JSON: one record a line
    #[arg(short, long)]
    follow: bool,

    #[command(flatten)]
    reach: Reach,
}

/// How often a follower asks.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The longest wait after failures.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Records that come this much late are still followed, milliseconds.
const LATE_MS: i64 = 15_000;
/// Records that one question of a follower brings at most.
const AT_ONCE: usize = 10_000;

/// Searches and prints.
pub fn run(args: Args) -> CommandResult {
    let severity = args.severity.as_deref().map(read_severity).transpose()?;
    let since = duration_ms(&args.since)?;
    let search = LogSearch {
        service: args.service,
        severity,
        text: args.text,
        trace_id: args.trace,
        start_ms: Some(now_ms() - since),
        limit: Some(args.limit),
        ..LogSearch::default()
    };
    let client = args.reach.client();
    if args.follow {
        return block_on(follow(client, search, args.format));
    }
    let found = block_on(async { Ok(client.logs(&search).await?) })?;
    if args.format == Format::Json {
        print(&json(&found)?)?;
        return Ok(Outcome::Good);
    }
    print(&found.iter().map(line).collect::<String>())?;
    Ok(Outcome::Good)
}

fn line(record: &LogRecord) -> String {
    let t = timestamp::format_rfc3339(i64::try_from(record.time_ns / 1_000_000).unwrap_or(0));
    let severity = format!("{:?}", record.severity).to_uppercase();
    let (service, body) = (clean(&record.service), clean(&record.body));
    format!("{t}  {severity:<5}  {service}  {body}\n")
}

/// Prints what is found, then what comes, until Ctrl-C or until nobody reads. An agent that is gone is waited for.
async fn follow(client: client::Client, search: LogSearch, format: Format) -> CommandResult {
    let stop = stop_token();
    let mut tail = Tail::default();
    let mut wait = ASK_EVERY;
    let mut asked = search.clone();
    // The first question must be answered: a wrong address is told at once.
    let mut answer = client.logs(&asked).await;
    if let Err(error) = answer {
        return Err(error.into());
    }
    loop {
        match answer {
            Ok(found) => {
                if wait > ASK_EVERY {
                    note("the agent answers again");
                }
                wait = ASK_EVERY;
                if asked.limit == Some(AT_ONCE) && found.len() >= AT_ONCE {
                    note("records come faster than they are printed: some are left out");
                }
                if tail.newest_ns == 0 && found.len() >= search.limit.unwrap_or(usize::MAX) {
                    tail.begin_at(&found);
                }
                let fresh = tail.fresh(found);
                let printed = fresh.iter().map(|r| match format {
                    Format::Text => Ok(line(r)),
                    Format::Json => Ok(serde_json::to_string(r)? + "\n"),
                });
                let text = printed.collect::<anyhow::Result<String>>()?;
                if !write(&text)? {
                    return Ok(Outcome::Good);
                }
            }
            Err(error) => {
                if wait == ASK_EVERY {
                    note(&format!("{error}; waiting for it"));
                }
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return Ok(Outcome::Good),
        }
        let first_ms = search.start_ms.unwrap_or(0);
        asked = LogSearch {
            start_ms: Some(tail.since_ms().unwrap_or(first_ms).max(first_ms)),
            limit: Some(AT_ONCE),
            ..search.clone()
        };
        answer = tokio::select! {
            answer = client.logs(&asked) => answer,
            () = stop.cancelled() => return Ok(Outcome::Good),
        };
    }
}

/// Writes to standard output; `false` when nobody reads any more.
fn write(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// What was printed of the last seconds, so that nothing is printed twice and what comes late is not missed.
#[derive(Debug, Default)]
struct Tail {
    printed: BTreeSet<(u64, SpanId, String, String)>,
    newest_ns: u64,
    first_ns: u64,
}

// === impl Tail ===

impl Tail {
    /// From when on to ask, Unix milliseconds; `None` before the first record.
    fn since_ms(&self) -> Option<i64> {
        let newest_ms = i64::try_from(self.newest_ns / 1_000_000).unwrap_or(0);
        (newest_ms > 0).then_some(newest_ms - LATE_MS)
    }

    /// The first answer was cut to so many: what is older than it stays left out.
    fn begin_at(&mut self, found: &[LogRecord]) {
        self.first_ns = found.iter().map(|r| r.time_ns).min().unwrap_or(0);
    }

    /// The records that were not printed yet, oldest first.
    fn fresh(&mut self, found: Vec<LogRecord>) -> Vec<LogRecord> {
        let newest = found.iter().map(|r| r.time_ns).max().unwrap_or(0);
        self.newest_ns = self.newest_ns.max(newest);
        let key = |r: &LogRecord| (r.time_ns, r.span_id, r.service.clone(), r.body.clone());
        let mut fresh = found;
        fresh.retain(|r| r.time_ns >= self.first_ns && self.printed.insert(key(r)));
        fresh.sort_by_key(|r| r.time_ns);
        let since_ns = self.since_ms().map_or(0, |ms| ms.max(0).unsigned_abs()) * 1_000_000;
        self.printed.retain(|(time_ns, ..)| *time_ns >= since_ns);
        fresh
    }
}

fn read_severity(text: &str) -> anyhow::Result<Severity> {
    serde_json::from_value(serde_json::Value::String(text.to_lowercase())).map_err(|_| {
        usage(format!(
            "--severity {text:?} is none of trace, debug, info, warn, error, fatal"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ms: u64, body: &str) -> LogRecord {
        LogRecord {
            time_ns: ms * 1_000_000,
            body: body.into(),
            ..LogRecord::default()
        }
    }

    #[test]
    fn a_follower_prints_each_record_once_oldest_first_and_late_ones_too() {
        let mut tail = Tail::default();
        let bodies =
            |fresh: Vec<LogRecord>| -> String { fresh.into_iter().map(|r| r.body).collect() };
        assert_eq!(tail.since_ms(), None);
        assert_eq!(
            bodies(tail.fresh(vec![record(60_000, "b"), record(59_000, "a")])),
            "ab"
        );
        assert_eq!(tail.since_ms(), Some(45_000));
        let again = vec![
            record(70_000, "d"),
            record(60_000, "b"),
            record(58_000, "late"),
        ];
        assert_eq!(bodies(tail.fresh(again)), "lated");
        assert_eq!(tail.since_ms(), Some(55_000));
        assert_eq!(
            tail.printed.len(),
            4,
            "only the last seconds are remembered"
        );
        tail.begin_at(&[record(150_000, "x")]);
        let cut = tail.fresh(vec![record(200_000, "e"), record(149_000, "older")]);
        assert_eq!(bodies(cut), "e");
        assert_eq!(tail.printed.len(), 1);
    }
}
