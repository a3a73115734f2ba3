//! The log of alert events: the newest in memory and, line by line, in a file beside the alerts' state.
//!
//! Owns that file (`events.jsonl`, one event a line, oldest first). Must not know what an event means. A line that was
//! torn by a crash is skipped; a file that cannot be written costs the history after the next start, nothing else.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use model::api::AlertEvent;

/// Events kept; the oldest go first.
const MAX_EVENTS: usize = 10_000;
/// Bytes of a file that are read at the start; a longer one was not written by us.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The log.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    events: VecDeque<AlertEvent>,
    path: PathBuf,
    file: Option<File>,
    /// Lines in the file, those included that are no longer kept.
    lines: usize,
}

// === impl EventLog ===

impl EventLog {
    /// Reads what a former run left in `dir` and goes on there.
    pub(super) fn open(dir: &Path) -> Self {
        let mut log = EventLog {
            path: dir.join("events.jsonl"),
            ..EventLog::default()
        };
        let size = std::fs::metadata(&log.path).map_or(0, |m| m.len());
        if size <= MAX_FILE_BYTES
            && let Ok(bytes) = std::fs::read(&log.path)
        {
            for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                if let Ok(event) = serde_json::from_slice(line) {
                    log.events.push_back(event);
                }
            }
        }
        log.trim();
        if let Err(error) = log.rewrite() {
            tracing::warn!(%error, "the log of alert events cannot be written");
        }
        log
    }

    /// Adds events, oldest first.
    pub(super) fn add(&mut self, new: Vec<AlertEvent>) {
        if new.is_empty() {
            return;
        }
        let mut lines = Vec::new();
        for event in &new {
            // An event is plain data: it always has a JSON form.
            if serde_json::to_writer(&mut lines, event).is_ok() {
                lines.push(b'\n');
            }
        }
        self.lines += new.len();
        self.events.extend(new);
        self.trim();
        let written = match &mut self.file {
            _ if self.lines > 2 * MAX_EVENTS => self.rewrite(),
            Some(file) => file.write_all(&lines),
            None => Ok(()),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the log of alert events cannot be written");
            self.file = None;
        }
    }

    /// The newest `limit` events since `since_ms`, oldest first.
    pub(super) fn since(&self, since_ms: i64, limit: usize) -> Vec<AlertEvent> {
        let newest = self.events.iter().rev();
        let wanted = newest.filter(|e| e.t_ms >= since_ms).take(limit);
        let mut wanted: Vec<AlertEvent> = wanted.cloned().collect();
        wanted.reverse();
        wanted
    }

    fn trim(&mut self) {
        let too_many = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..too_many);
    }

    /// Replaces the file by what is kept.
    fn rewrite(&mut self) -> std::io::Result<()> {
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut text = Vec::new();
        for event in &self.events {
            serde_json::to_writer(&mut text, event)?;
            text.push(b'\n');
        }
        let new = self.path.with_extension("jsonl.new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &self.path)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.lines = self.events.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Labels;

    fn event(t_ms: i64) -> AlertEvent {
        AlertEvent {
            t_ms,
            kind: "firing".into(),
            alert: "A".into(),
            labels: Labels::from_pairs([("alertname", "A")]),
            receiver: String::new(),
            dedup_key: String::new(),
            detail: "line\nbreak".into(),
        }
    }

    #[test]
    fn events_survive_a_restart_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("alerts");
        let mut log = EventLog::open(&state);
        log.add(vec![event(1), event(2)]);
        log.add(vec![event(3)]);
        drop(log);
        let path = state.join("events.jsonl");
        let mut text = std::fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"t_ms\": 4, \"ki");
        std::fs::write(&path, text).unwrap();
        let mut log = EventLog::open(&state);
        log.add(vec![event(5)]);
        assert_eq!(log.since(2, 10), [event(2), event(3), event(5)]);
        drop(log);
        let log = EventLog::open(&state);
        assert_eq!(log.since(0, 2), [event(3), event(5)]);
    }

    #[test]
    fn the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(dir.path());
        let most = i64::try_from(MAX_EVENTS).unwrap();
        for from in [0, most, 2 * most] {
            log.add((from..from + most).map(event).collect());
        }
        assert_eq!(log.since(0, usize::MAX).len(), MAX_EVENTS);
        assert_eq!(log.lines, MAX_EVENTS);
        drop(log);
        let log = EventLog::open(dir.path());
        assert_eq!(log.since(0, 1), [event(3 * most - 1)]);
    }
}
