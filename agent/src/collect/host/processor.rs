//! CPU: `/proc/stat` and `/proc/loadavg`.

use std::path::Path;

use super::files::{Kept, decimal, lines, number, text, words};
use crate::collect::record::Recorder;

/// States in the order of `/proc/stat`.
pub(super) const STATES: [&str; 8] = [
    "user",
    "nice",
    "system",
    "idle",
    "wait",
    "interrupt",
    "softirq",
    "steal",
];

/// Ticks a second in proc files (`USER_HZ`, 100 on every Linux that Rust runs on).
pub(super) const TICKS: f64 = 100.0;

/// One reading of `/proc/stat`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Stat {
    /// Ticks of all cores by state.
    pub(super) all: [u64; 8],
    /// The same by core.
    pub(super) cores: Vec<(String, [u64; 8])>,
    pub(super) context_switches: u64,
    pub(super) forks: u64,
    pub(super) running: u64,
    pub(super) blocked: u64,
    pub(super) boot_seconds: u64,
}

/// Reads `/proc/stat`.
pub(super) fn parse_stat(bytes: &[u8]) -> Stat {
    let mut stat = Stat::default();
    for line in lines(bytes) {
        let mut words = words(line);
        let Some(key) = words.next() else { continue };
        if let Some(core) = key.strip_prefix(b"cpu") {
            let mut ticks = [0u64; 8];
            for (slot, word) in ticks.iter_mut().zip(words) {
                *slot = number(word).unwrap_or(0);
            }
            if core.is_empty() {
                stat.all = ticks;
            } else {
                stat.cores.push((text(core), ticks));
            }
            continue;
        }
        let value = words.next().and_then(number).unwrap_or(0);
        match key {
            b"ctxt" => stat.context_switches = value,
            b"processes" => stat.forks = value,
            b"procs_running" => stat.running = value,
            b"procs_blocked" => stat.blocked = value,
            b"btime" => stat.boot_seconds = value,
            _ => {}
        }
    }
    stat
}

/// Busy share of all cores between two readings: everything but idle and waiting for disks.
pub(super) fn utilization(before: &[u64; 8], now: &[u64; 8]) -> Option<f64> {
    let delta: Vec<u64> = now
        .iter()
        .zip(before)
        .map(|(n, b)| n.saturating_sub(*b))
        .collect();
    let total: u64 = delta.iter().sum();
    let idle = delta[3] + delta[4];
    (total > 0).then(|| (total - idle) as f64 / total as f64)
}

pub(super) struct Processor {
    stat: Kept,
    load: Kept,
    before: Option<[u64; 8]>,
}

// === impl Processor ===

impl Processor {
    pub(super) fn new(proc: &Path) -> Self {
        Processor {
            stat: Kept::new(proc.join("stat")),
            load: Kept::new(proc.join("loadavg")),
            before: None,
        }
    }

    pub(super) fn read(&mut self, r: &mut Recorder) {
        if let Some(stat) = self.stat.read().map(parse_stat) {
            for (core, ticks) in &stat.cores {
                for (state, ticks) in STATES.iter().zip(ticks) {
                    r.counter(
                        "system_cpu_time_seconds_total",
                        &[("cpu", core), ("state", state)],
                        *ticks as f64 / TICKS,
                    );
                }
            }
            r.gauge("system_cpu_logical_count", &[], stat.cores.len() as f64);
            r.counter(
                "system_context_switches_total",
                &[],
                stat.context_switches as f64,
            );
            r.counter("system_processes_created_total", &[], stat.forks as f64);
            r.gauge(
                "system_processes_count",
                &[("status", "running")],
                stat.running as f64,
            );
            r.gauge(
                "system_processes_count",
                &[("status", "blocked")],
                stat.blocked as f64,
            );
            r.gauge("system_boot_time_seconds", &[], stat.boot_seconds as f64);
            if let Some(busy) = self
                .before
                .and_then(|before| utilization(&before, &stat.all))
            {
                r.gauge("system_cpu_utilization_ratio", &[], busy);
                r.gauge(
                    "nines_use_utilization_ratio",
                    &[("resource", "cpu"), ("kind", "cpu")],
                    busy,
                );
            }
            let waiting = stat.running.saturating_sub(stat.cores.len() as u64);
            r.gauge(
                "nines_use_saturation",
                &[
                    ("resource", "cpu"),
                    ("kind", "cpu"),
                    ("unit", "runnable_waiting"),
                ],
                waiting as f64,
            );
            self.before = Some(stat.all);
        }
        if let Some(load) = self.load.read() {
            let names = [
                "system_cpu_load_average_1m",
                "system_cpu_load_average_5m",
                "system_cpu_load_average_15m",
            ];
            for (name, word) in names.iter().zip(words(load)) {
                if let Some(value) = decimal(word) {
                    r.gauge(name, &[], value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whole() {
        let stat = parse_stat(b"cpu  100 1 2 300 4 5 6 7 8 9\ncpu0 50 1 2 150 4 5 6 7 0 0\ncpu12 50 0 0 150\nintr 5 1 2\nctxt 77\nbtime 1700000000\nprocesses 9\nprocs_running 3\nprocs_blocked 1\n");
        assert_eq!(stat.all, [100, 1, 2, 300, 4, 5, 6, 7]);
        assert_eq!(stat.cores[1], ("12".into(), [50, 0, 0, 150, 0, 0, 0, 0]));
        assert_eq!(
            (
                stat.context_switches,
                stat.running,
                stat.blocked,
                stat.forks
            ),
            (77, 3, 1, 9)
        );
        let later = [150, 1, 2, 340, 14, 5, 6, 7];
        assert_eq!(utilization(&stat.all, &later), Some(0.5));
        assert_eq!(utilization(&stat.all, &stat.all), None);
    }
}
