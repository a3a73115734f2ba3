//! Cgroups: version 2 (`cpu.stat`, `memory.*`, `io.stat`, `pids.*`) and version 1 (`cpuacct`, `memory`, `pids`).
//!
//! Owns the walk, which is bounded in depth and number and repeated every 10 s. Must not know container runtimes: the
//! label `cgroup` is the path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files::{lines, number, read_once, words};
use crate::collect::record::Recorder;

const WALK_EVERY: Duration = Duration::from_secs(10);
const MAX_DEPTH: usize = 6;
const MAX_GROUPS: usize = 200;

/// What one cgroup says, whatever its version. Times in seconds, sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) throttled_seconds: Option<f64>,
    pub(super) throttled_periods: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    pub(super) inactive_file: Option<u64>,
    pub(super) oom_kills: Option<u64>,
    pub(super) read_bytes: Option<u64>,
    pub(super) write_bytes: Option<u64>,
    pub(super) pids: Option<u64>,
}

/// The value after `key` in files of `key value` lines.
pub(super) fn keyed(bytes: &[u8], key: &str) -> Option<u64> {
    lines(bytes).find_map(|line| {
        let mut words = words(line);
        (words.next() == Some(key.as_bytes()))
            .then(|| words.next().and_then(number))
            .flatten()
    })
}

/// Read and written bytes of all devices in `io.stat`.
pub(super) fn parse_io_stat(bytes: &[u8]) -> (u64, u64) {
    let sum = |key: &[u8]| {
        words(bytes)
            .flat_map(lines)
            .filter_map(|w| number(w.strip_prefix(key)?))
            .sum()
    };
    (sum(b"rbytes="), sum(b"wbytes="))
}

/// A limit: `max` and version 1's huge numbers are none.
pub(super) fn parse_limit(bytes: &[u8]) -> Option<u64> {
    number(bytes).filter(|n| *n < 1 << 60)
}

fn read_v2(dir: &Path) -> Usage {
    let file = |name: &str| read_once(&dir.join(name));
    let mut usage = Usage::default();
    if let Some(cpu) = file("cpu.stat") {
        let micros = |key: &str| keyed(&cpu, key).map(|us| us as f64 / 1e6);
        usage.cpu_seconds = micros("usage_usec");
        usage.throttled_seconds = micros("throttled_usec");
        usage.throttled_periods = keyed(&cpu, "nr_throttled");
    }
    usage.memory = file("memory.current").as_deref().and_then(number);
    usage.memory_limit = file("memory.max").as_deref().and_then(parse_limit);
    usage.inactive_file = file("memory.stat").and_then(|b| keyed(&b, "inactive_file"));
    usage.oom_kills = file("memory.events").and_then(|b| keyed(&b, "oom_kill"));
    if let Some((read, written)) = file("io.stat").map(|b| parse_io_stat(&b)) {
        (usage.read_bytes, usage.write_bytes) = (Some(read), Some(written));
    }
    usage.pids = file("pids.current").as_deref().and_then(number);
    usage
}

fn read_v1(root: &Path, group: &str) -> Usage {
    let file =
        |controller: &str, name: &str| read_once(&root.join(controller).join(group).join(name));
    let cpu = file("cpu", "cpu.stat");
    Usage {
        cpu_seconds: file("cpuacct", "cpuacct.usage")
            .as_deref()
            .and_then(number)
            .map(|ns| ns as f64 / 1e9),
        throttled_seconds: cpu
            .as_deref()
            .and_then(|b| keyed(b, "throttled_time"))
            .map(|ns| ns as f64 / 1e9),
        throttled_periods: cpu.as_deref().and_then(|b| keyed(b, "nr_throttled")),
        memory: file("memory", "memory.usage_in_bytes")
            .as_deref()
            .and_then(number),
        memory_limit: file("memory", "memory.limit_in_bytes")
            .as_deref()
            .and_then(parse_limit),
        inactive_file: file("memory", "memory.stat").and_then(|b| keyed(&b, "total_inactive_file")),
        oom_kills: file("memory", "memory.oom_control").and_then(|b| keyed(&b, "oom_kill")),
        read_bytes: None,
        write_bytes: None,
        pids: file("pids", "pids.current").as_deref().and_then(number),
    }
}

pub(super) struct Cgroups {
    root: PathBuf,
    v2: bool,
    walked: Option<Instant>,
    groups: Vec<String>,
}

// === impl Cgroups ===

impl Cgroups {
    pub(super) fn new(root: &Path) -> Self {
        let v2 = root.join("cgroup.controllers").exists();
        Cgroups {
            root: root.to_owned(),
            v2,
            walked: None,
            groups: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, r: &mut Recorder, now: Instant) {
        if self
            .walked
            .is_none_or(|at| now.duration_since(at) >= WALK_EVERY)
        {
            self.walked = Some(now);
            self.groups = self.walk();
        }
        for group in &self.groups {
            let usage = if self.v2 {
                read_v2(&self.root.join(group))
            } else {
                read_v1(&self.root, group)
            };
            report(r, &format!("/{group}"), &usage);
        }
    }

    /// Paths of groups below the root, nearest first.
    fn walk(&self) -> Vec<String> {
        let tops: Vec<PathBuf> = if self.v2 {
            vec![self.root.clone()]
        } else {
            ["memory", "cpuacct"].map(|c| self.root.join(c)).into()
        };
        let mut found: BTreeMap<(usize, String), ()> = BTreeMap::new();
        for top in tops {
            let mut queue = vec![(0, String::new())];
            while let Some((depth, path)) = queue.pop() {
                let Ok(entries) = std::fs::read_dir(top.join(&path)) else {
                    continue;
                };
                for entry in entries
                    .flatten()
                    .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let child = if path.is_empty() {
                        name
                    } else {
                        format!("{path}/{name}")
                    };
                    if depth + 1 < MAX_DEPTH && found.len() < 10 * MAX_GROUPS {
                        queue.push((depth + 1, child.clone()));
                    }
                    found.insert((depth, child), ());
                }
            }
        }
        found
            .into_keys()
            .map(|(_, path)| path)
            .take(MAX_GROUPS)
            .collect()
    }
}

fn report(r: &mut Recorder, group: &str, usage: &Usage) {
    let base = [("cgroup", group)];
    if let Some(v) = usage.cpu_seconds {
        r.counter("container_cpu_time_seconds_total", &base, v);
    }
    if let Some(v) = usage.throttled_seconds {
        r.counter("container_cpu_throttled_seconds_total", &base, v);
    }
    if let Some(v) = usage.throttled_periods {
        r.counter("container_cpu_throttled_periods_total", &base, v as f64);
    }
    if let Some(v) = usage.memory {
        r.gauge("container_memory_usage_bytes", &base, v as f64);
        let working_set = v.saturating_sub(usage.inactive_file.unwrap_or(0));
        r.gauge(
            "container_memory_working_set_bytes",
            &base,
            working_set as f64,
        );
        if let Some(limit) = usage.memory_limit.filter(|l| *l > 0) {
            r.gauge("container_memory_limit_bytes", &base, limit as f64);
            let labels = [("resource", group), ("kind", "cgroup_memory")];
            r.gauge(
                "nines_use_utilization_ratio",
                &labels,
                (working_set as f64 / limit as f64).min(1.0),
            );
        }
    }
    if let Some(v) = usage.oom_kills {
        r.counter("container_memory_oom_kills_total", &base, v as f64);
    }
    for (direction, v) in [("read", usage.read_bytes), ("write", usage.write_bytes)] {
        if let Some(v) = v {
            r.counter(
                "container_disk_io_bytes_total",
                &[("cgroup", group), ("direction", direction)],
                v as f64,
            );
        }
    }
    if let Some(v) = usage.pids {
        r.gauge("container_process_count", &base, v as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    #[test]
    fn version_2() {
        let dir = tree(&[
            ("cgroup.controllers", "cpu memory"),
            (
                "a/b/cpu.stat",
                "usage_usec 2500000\nnr_throttled 3\nthrottled_usec 1000000\n",
            ),
            ("a/b/memory.current", "1000\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.stat", "anon 5\ninactive_file 400\n"),
            ("a/b/memory.events", "oom 1\noom_kill 1\n"),
            (
                "a/b/io.stat",
                "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
            ),
        ]);
        let groups = Cgroups::new(dir.path());
        assert_eq!(groups.walk(), ["a", "a/b"]);
        let usage = read_v2(&dir.path().join("a/b"));
        assert_eq!(
            (
                usage.cpu_seconds,
                usage.throttled_seconds,
                usage.throttled_periods
            ),
            (Some(2.5), Some(1.0), Some(3))
        );
        assert_eq!(
            (
                usage.memory,
                usage.memory_limit,
                usage.inactive_file,
                usage.oom_kills
            ),
            (Some(1000), None, Some(400), Some(1))
        );
        assert_eq!((usage.read_bytes, usage.write_bytes), (Some(11), Some(22)));
    }

    #[test]
    fn version_1() {
        let dir = tree(&[
            ("cpuacct/x/cpuacct.usage", "1500000000\n"),
            ("memory/x/memory.usage_in_bytes", "99\n"),
            ("memory/x/memory.limit_in_bytes", "9223372036854771712\n"),
            (
                "memory/x/memory.oom_control",
                "oom_kill_disable 0\noom_kill 2\n",
            ),
        ]);
        let groups = Cgroups::new(dir.path());
        assert_eq!(groups.walk(), ["x"]);
        let usage = read_v1(dir.path(), "x");
        assert_eq!(
            (
                usage.cpu_seconds,
                usage.memory,
                usage.memory_limit,
                usage.oom_kills
            ),
            (Some(1.5), Some(99), None, Some(2))
        );
    }
}
