//! Processes: `stat`, `status` and `io` of those that use most CPU, and of those named in the configuration.
//!
//! Owns the choice and its bound: what is reported never exceeds the configured number plus 200 named processes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::files::{lines, number, read_once, text, words};
use super::processor::TICKS;
use crate::collect::record::Recorder;

/// The most processes that are reported by name.
const MAX_NAMED: usize = 200;

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) name: String,
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    pub(super) threads: u64,
    pub(super) start_ticks: u64,
    pub(super) virtual_bytes: u64,
    pub(super) resident_pages: u64,
}

/// Reads `/proc/PID/stat`. The name stands in parentheses and may contain anything, parentheses too.
pub(super) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|b| *b == b'(')?;
    let close = bytes.iter().rposition(|b| *b == b')')?;
    let fields: Vec<&[u8]> = words(bytes.get(close + 1..)?).collect();
    let field = |n: usize| fields.get(n - 3).and_then(|w| number(w)).unwrap_or(0);
    Some(Stat {
        name: text(bytes.get(open + 1..close)?),
        minor_faults: field(10),
        major_faults: field(12),
        user_ticks: field(14),
        system_ticks: field(15),
        threads: field(20),
        start_ticks: field(22),
        virtual_bytes: field(23),
        resident_pages: field(24),
    })
}

/// The value after `key` in `status` or `io`.
pub(super) fn value_of(bytes: &[u8], key: &str) -> Option<u64> {
    lines(bytes).find_map(|line| {
        words(line.strip_prefix(key.as_bytes())?.strip_prefix(b":")?)
            .next()
            .and_then(number)
    })
}

struct Seen {
    stat: Stat,
    used: u64,
}

pub(super) struct Processes {
    proc: PathBuf,
    top: usize,
    named: Vec<String>,
    before: HashMap<u32, (u64, u64)>,
}

// === impl Processes ===

impl Processes {
    pub(super) fn new(proc: &Path, top: usize, named: &[String]) -> Self {
        Processes {
            proc: proc.to_owned(),
            top,
            named: named.to_owned(),
            before: HashMap::new(),
        }
    }

    pub(super) fn read(&mut self, r: &mut Recorder, _now: Instant) {
        if self.top == 0 && self.named.is_empty() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(&self.proc) else {
            return;
        };
        let mut all: Vec<(u32, Seen)> = Vec::new();
        let mut now = HashMap::new();
        for pid in entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        {
            let Some(stat) = self.bytes(pid, "stat").and_then(|b| parse_stat(&b)) else {
                continue;
            };
            let total = stat.user_ticks + stat.system_ticks;
            let before = self
                .before
                .get(&pid)
                .filter(|(start, _)| *start == stat.start_ticks);
            let used = before.map_or(0, |(_, ticks)| total.saturating_sub(*ticks));
            now.insert(pid, (stat.start_ticks, total));
            all.push((pid, Seen { stat, used }));
        }
        self.before = now;
        r.gauge("system_processes_total_count", &[], all.len() as f64);
        all.sort_by(|(a_pid, a), (b_pid, b)| {
            let weight = |s: &Seen| (s.used, s.stat.user_ticks + s.stat.system_ticks);
            weight(b).cmp(&weight(a)).then(a_pid.cmp(b_pid))
        });
        let mut named = 0;
        for (rank, (pid, seen)) in all.iter().enumerate() {
            let by_name = self.named.contains(&seen.stat.name) && named < MAX_NAMED;
            if rank < self.top || by_name {
                named += usize::from(by_name);
                self.report(r, *pid, &seen.stat);
            }
        }
    }

    fn bytes(&self, pid: u32, file: &str) -> Option<Vec<u8>> {
        read_once(&self.proc.join(pid.to_string()).join(file))
    }

    fn report(&self, r: &mut Recorder, pid: u32, stat: &Stat) {
        let pid_text = pid.to_string();
        let base = [
            ("pid", pid_text.as_str()),
            ("executable_name", stat.name.as_str()),
        ];
        let with = |name: &'static str, value: &'static str| [base[0], base[1], (name, value)];
        for (state, ticks) in [("user", stat.user_ticks), ("system", stat.system_ticks)] {
            r.counter(
                "process_cpu_time_seconds_total",
                &with("state", state),
                ticks as f64 / TICKS,
            );
        }
        r.gauge(
            "process_memory_usage_bytes",
            &base,
            stat.resident_pages as f64 * rustix::param::page_size() as f64,
        );
        r.gauge(
            "process_memory_virtual_bytes",
            &base,
            stat.virtual_bytes as f64,
        );
        r.gauge("process_thread_count", &base, stat.threads as f64);
        for (kind, faults) in [("minor", stat.minor_faults), ("major", stat.major_faults)] {
            r.counter(
                "process_paging_faults_total",
                &with("type", kind),
                faults as f64,
            );
        }
        if let Some(status) = self.bytes(pid, "status") {
            for (kind, key) in [
                ("voluntary", "voluntary_ctxt_switches"),
                ("involuntary", "nonvoluntary_ctxt_switches"),
            ] {
                if let Some(n) = value_of(&status, key) {
                    r.counter(
                        "process_context_switches_total",
                        &with("type", kind),
                        n as f64,
                    );
                }
            }
        }
        if let Some(io) = self.bytes(pid, "io") {
            for (direction, key) in [("read", "read_bytes"), ("write", "write_bytes")] {
                if let Some(n) = value_of(&io, key) {
                    r.counter(
                        "process_disk_io_bytes_total",
                        &with("direction", direction),
                        n as f64,
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name() {
        let stat = parse_stat(b"12 (a) (b c) S 1 12 12 0 -1 4194560 100 0 5 0 70 30 0 0 20 0 9 0 4242 1000000 250 184\n").unwrap();
        assert_eq!(
            stat,
            Stat {
                name: "a) (b c".into(),
                minor_faults: 100,
                major_faults: 5,
                user_ticks: 70,
                system_ticks: 30,
                threads: 9,
                start_ticks: 4242,
                virtual_bytes: 1_000_000,
                resident_pages: 250
            }
        );
        assert_eq!(parse_stat(b"12 no"), None);
        assert_eq!(
            value_of(
                b"Name:\tx\nvoluntary_ctxt_switches:\t15\n",
                "voluntary_ctxt_switches"
            ),
            Some(15)
        );
        assert_eq!(
            value_of(b"rchar: 1\nread_bytes: 4096\n", "read_bytes"),
            Some(4096)
        );
    }
}
