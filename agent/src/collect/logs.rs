//! Log files with one JSON object a line, followed as they grow.
//!
//! Owns following (rotation, truncation, bounds) and the reading of a line in the schema `timestamp, level, service,
//! trace_id, message, ...`. Must not know where records are kept: they go to the callback [`Keep`].

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

use model::log::{LogRecord, Severity};
use model::span::{SpanId, TraceId};
use serde_json::{Map, Value as Json};
use tokio_util::sync::CancellationToken;

use super::config::LogFileConfig;
use super::rounds::{Rounds, now_ms};

/// Where records go, a batch at a time.
pub type Keep = Box<dyn Fn(Vec<LogRecord>) + Send + Sync>;

/// The most that is read of a file in one round.
const ROUND_BYTES: usize = 8 << 20;
/// A longer line is skipped and counted.
const MAX_LINE: usize = 256 << 10;
/// The most attributes of a record.
const MAX_ATTRIBUTES: usize = 64;
/// How often a file is looked at.
const EVERY: Duration = Duration::from_millis(250);

/// Follows one file until `shutdown`. Lines that are not JSON objects become records with the line as their text.
pub async fn run(config: LogFileConfig, keep: Keep, shutdown: CancellationToken) {
    let mut tail = Tail::new(config.path.clone(), config.from_start);
    let mut rounds = Rounds::new(&config.path.display().to_string(), EVERY, shutdown);
    let mut failed = false;
    while rounds.next().await.is_some() {
        let mut records = Vec::new();
        let now_ns = u64::try_from(now_ms()).unwrap_or(0) * 1_000_000;
        let result = tail.read_new(|line| {
            if !line.is_empty() {
                records.push(parse_line(line, &config.service, now_ns));
            }
        });
        match result {
            Ok(()) => failed = false,
            Err(e) if !failed => {
                failed = true;
                tracing::warn!(path = %config.path.display(), error = %e, "the log file cannot be read; trying on");
            }
            Err(_) => {}
        }
        if !records.is_empty() {
            keep(records);
        }
    }
}

/// A file that is read as it grows. A file that was renamed away is read to its end before the new one is begun.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    from_start: bool,
    open: Option<Open>,
    skipped: u64,
    looked: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: (u64, u64),
    offset: u64,
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
    /// The line is too long: drop until its end.
    skipping: bool,
}

// === impl Tail ===

impl Tail {
    /// Follows `path`, from its start or from its present end. A file that appears later is read from its start.
    #[must_use]
    pub fn new(path: PathBuf, from_start: bool) -> Self {
        Tail {
            path,
            from_start,
            open: None,
            skipped: 0,
            looked: false,
        }
    }

    /// Lines that were skipped because they are longer than 256 KiB.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Hands every complete line that is new to `line`, at most 8 MiB a call. A missing file is not an error.
    /// Errors with the reason when it cannot be read.
    pub fn read_new(&mut self, mut line: impl FnMut(&[u8])) -> Result<(), String> {
        let mut budget = ROUND_BYTES;
        let now = match std::fs::metadata(&self.path) {
            Ok(meta) => Some((meta.dev(), meta.ino())),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e.to_string()),
        };
        if let Some(open) = &mut self.open {
            let drained = open.read(&mut budget, &mut self.skipped, &mut line)?;
            if now == Some(open.inode) || now.is_none() || !drained {
                return Ok(());
            }
            self.open = None;
        }
        let first_look = !std::mem::replace(&mut self.looked, true);
        if now.is_none() {
            return Ok(());
        }
        let mut open = Open::new(&self.path, first_look && !self.from_start)?;
        open.read(&mut budget, &mut self.skipped, &mut line)?;
        self.open = Some(open);
        Ok(())
    }
}

// === impl Open ===

impl Open {
    fn new(path: &std::path::Path, at_end: bool) -> Result<Self, String> {
        let mut file = File::open(path).map_err(|e| e.to_string())?;
        let meta = file.metadata().map_err(|e| e.to_string())?;
        let offset = if at_end {
            file.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?
        } else {
            0
        };
        Ok(Open {
            file,
            inode: (meta.dev(), meta.ino()),
            offset,
            partial: Vec::new(),
            skipping: false,
        })
    }

    /// Reads on. Whether the end was reached.
    fn read(
        &mut self,
        budget: &mut usize,
        skipped: &mut u64,
        line: &mut impl FnMut(&[u8]),
    ) -> Result<bool, String> {
        let len = self.file.metadata().map_err(|e| e.to_string())?.len();
        if len < self.offset {
            // Truncated in place: begin again.
            self.offset = 0;
            self.partial.clear();
            self.skipping = false;
        }
        let mut chunk = vec![0u8; 64 << 10];
        while *budget > 0 {
            let n = self
                .file
                .read_at(&mut chunk, self.offset)
                .map_err(|e| e.to_string())?;
            if n == 0 {
                return Ok(true);
            }
            self.offset += n as u64;
            *budget = budget.saturating_sub(n);
            self.take(&chunk[..n], skipped, line);
        }
        Ok(false)
    }

    fn take(&mut self, chunk: &[u8], skipped: &mut u64, line: &mut impl FnMut(&[u8])) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (piece, tail) = (&rest[..end], &rest[end + 1..]);
            rest = tail;
            if self.skipping || self.partial.len() + piece.len() > MAX_LINE {
                *skipped += 1;
            } else if self.partial.is_empty() {
                line(piece.strip_suffix(b"\r").unwrap_or(piece));
            } else {
                self.partial.extend_from_slice(piece);
                line(self.partial.strip_suffix(b"\r").unwrap_or(&self.partial));
            }
            self.partial.clear();
            self.skipping = false;
        }
        if self.skipping || self.partial.len() + rest.len() > MAX_LINE {
            self.skipping = true;
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(rest);
        }
    }
}

/// Reads one line. Fields that the record has no place for become attributes; a `trace_id` that is not 32 hexadecimal
/// digits stays an attribute and links nothing.
#[must_use]
pub fn parse_line(line: &[u8], service: &str, now_ns: u64) -> LogRecord {
    let mut record = LogRecord {
        time_ns: now_ns,
        service: service.to_owned(),
        ..LogRecord::default()
    };
    let Ok(Json::Object(mut fields)) = serde_json::from_slice::<Json>(line) else {
        record.body = String::from_utf8_lossy(line).into_owned();
        return record;
    };
    if let Some(t) =
        take(&mut fields, &["timestamp", "time", "ts", "@timestamp"]).and_then(|v| time_ns(&v))
    {
        record.time_ns = t;
    }
    if let Some(level) = take(&mut fields, &["level", "severity"]) {
        record.severity = severity(&text(&level));
    }
    if let Some(name) = take(&mut fields, &["service", "service_name", "service.name"]) {
        record.service = text(&name);
    }
    if let Some(id) = fields
        .get("trace_id")
        .and_then(Json::as_str)
        .and_then(TraceId::from_hex)
    {
        record.trace_id = id;
        fields.remove("trace_id");
    }
    if let Some(id) = fields
        .get("span_id")
        .and_then(Json::as_str)
        .and_then(SpanId::from_hex)
    {
        record.span_id = id;
        fields.remove("span_id");
    }
    if let Some(body) = take(&mut fields, &["message", "msg", "body"]) {
        record.body = text(&body);
    }
    // tracing-subscriber's JSON nests its fields.
    if let Some(Json::Object(nested)) = fields.remove("fields") {
        for (name, value) in nested {
            if name == "message" && record.body.is_empty() {
                record.body = text(&value);
            } else {
                fields.insert(name, value);
            }
        }
    }
    let attributes = fields.into_iter().take(MAX_ATTRIBUTES);
    record.attributes = attributes
        .map(|(name, value)| (name, text(&value)))
        .collect();
    record
}

fn take(fields: &mut Map<String, Json>, names: &[&str]) -> Option<Json> {
    names
        .iter()
        .find_map(|n| fields.remove(*n))
        .filter(|v| !v.is_null())
}

fn text(value: &Json) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// RFC 3339, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size.
fn time_ns(value: &Json) -> Option<u64> {
    if let Some(text) = value.as_str() {
        return u64::try_from(model::timestamp::parse_rfc3339(text)?)
            .ok()?
            .checked_mul(1_000_000);
    }
    let number = value.as_f64().filter(|n| *n > 0.0)?;
    let unit = match number {
        n if n < 1e11 => 1e9,
        n if n < 1e14 => 1e6,
        n if n < 1e17 => 1e3,
        _ => 1.0,
    };
    Some((number * unit) as u64)
}

fn severity(level: &str) -> Severity {
    match level.to_ascii_lowercase().as_str() {
        "trace" => Severity::Trace,
        "debug" => Severity::Debug,
        "warn" | "warning" => Severity::Warn,
        "error" | "err" => Severity::Error,
        "fatal" | "critical" | "crit" | "panic" | "emergency" => Severity::Fatal,
        _ => Severity::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(tail: &mut Tail) -> Vec<String> {
        let mut got = Vec::new();
        tail.read_new(|l| got.push(String::from_utf8_lossy(l).into_owned()))
            .unwrap();
        got
    }

    #[test]
    fn follows_over_growth_rotation_and_truncation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut tail = Tail::new(path.clone(), false);
        assert!(lines(&mut tail).is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(lines(&mut tail), ["one"]);
        file.write_all(b"o\r\nthree\n").unwrap();
        assert_eq!(lines(&mut tail), ["two", "three"]);
        std::fs::rename(&path, directory.path().join("a.log.1")).unwrap();
        file.write_all(b"late\n").unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(lines(&mut tail), ["late", "new"]);
        std::fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::write(&path, "x\n").unwrap();
        assert_eq!(lines(&mut tail), ["x"]);
        let mut at_end = Tail::new(path.clone(), false);
        assert!(lines(&mut at_end).is_empty());
        assert_eq!(lines(&mut Tail::new(path, true)), ["x"]);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        std::fs::write(&path, format!("{}\nok\n", "x".repeat(3 * MAX_LINE))).unwrap();
        let mut tail = Tail::new(path, true);
        assert_eq!(lines(&mut tail), ["ok"]);
        assert_eq!(tail.skipped(), 1);
    }

    #[test]
    fn the_schema_is_read() {
        let line = br#"{"timestamp":"2026-01-02T03:04:05.250Z","level":"ERROR","service":"order","trace_id":"0af7651916cd43dd8448eb211c80319c","user_id":7,"message":"no","latency_ms":1.5}"#;
        let r = parse_line(line, "x", 1);
        assert_eq!(
            (r.severity, r.service.as_str(), r.body.as_str()),
            (Severity::Error, "order", "no")
        );
        assert_eq!(r.time_ns % 1_000_000_000, 250_000_000);
        assert!(!r.trace_id.is_zero());
        assert!(r.attributes.contains(&("user_id".into(), "7".into())));
        let odd = parse_line(
            br#"{"trace_id":"abc-123","msg":"m","ts":1700000000}"#,
            "x",
            1,
        );
        assert_eq!(
            (odd.time_ns, odd.service.as_str()),
            (1_700_000_000_000_000_000, "x")
        );
        assert!(
            odd.attributes
                .contains(&("trace_id".into(), "abc-123".into()))
        );
        assert_eq!(parse_line(b"plain", "x", 5).body, "plain");
        let nested = parse_line(br#"{"fields":{"message":"hello","a":1}}"#, "x", 5);
        assert_eq!(
            (nested.body.as_str(), nested.attributes.len()),
            ("hello", 1)
        );
    }
}
