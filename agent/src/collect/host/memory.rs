//! Memory and paging: `/proc/meminfo` and `/proc/vmstat`.

use std::path::Path;

use super::files::{Kept, lines, number, words};
use crate::collect::record::Recorder;

/// `/proc/meminfo`, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MemInfo {
    pub(super) total: u64,
    pub(super) free: u64,
    pub(super) available: u64,
    pub(super) buffers: u64,
    pub(super) cached: u64,
    pub(super) slab_reclaimable: u64,
    pub(super) slab_unreclaimable: u64,
    pub(super) swap_total: u64,
    pub(super) swap_free: u64,
    pub(super) dirty: u64,
}

/// Reads `/proc/meminfo`.
pub(super) fn parse_meminfo(bytes: &[u8]) -> MemInfo {
    let mut m = MemInfo::default();
    for line in lines(bytes) {
        let mut words = words(line);
        let (Some(key), Some(value)) = (words.next(), words.next().and_then(number)) else {
            continue;
        };
        let slot = match key {
            b"MemTotal:" => &mut m.total,
            b"MemFree:" => &mut m.free,
            b"MemAvailable:" => &mut m.available,
            b"Buffers:" => &mut m.buffers,
            b"Cached:" => &mut m.cached,
            b"SReclaimable:" => &mut m.slab_reclaimable,
            b"SUnreclaim:" => &mut m.slab_unreclaimable,
            b"SwapTotal:" => &mut m.swap_total,
            b"SwapFree:" => &mut m.swap_free,
            b"Dirty:" => &mut m.dirty,
            _ => continue,
        };
        *slot = value.saturating_mul(1024);
    }
    m
}

/// What `/proc/vmstat` says about paging.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct VmStat {
    pub(super) swapped_in: u64,
    pub(super) swapped_out: u64,
    pub(super) faults: u64,
    pub(super) major_faults: u64,
    pub(super) oom_kills: u64,
}

/// Reads `/proc/vmstat`; pages, not bytes.
pub(super) fn parse_vmstat(bytes: &[u8]) -> VmStat {
    let mut v = VmStat::default();
    for line in lines(bytes) {
        let mut words = words(line);
        let (Some(key), Some(value)) = (words.next(), words.next().and_then(number)) else {
            continue;
        };
        match key {
            b"pswpin" => v.swapped_in = value,
            b"pswpout" => v.swapped_out = value,
            b"pgfault" => v.faults = value,
            b"pgmajfault" => v.major_faults = value,
            b"oom_kill" => v.oom_kills = value,
            _ => {}
        }
    }
    v
}

pub(super) struct Memory {
    info: Kept,
    vmstat: Kept,
    swapped: Option<u64>,
}

// === impl Memory ===

impl Memory {
    pub(super) fn new(proc: &Path) -> Self {
        Memory {
            info: Kept::new(proc.join("meminfo")),
            vmstat: Kept::new(proc.join("vmstat")),
            swapped: None,
        }
    }

    pub(super) fn read(&mut self, r: &mut Recorder, elapsed: Option<f64>) {
        if let Some(m) = self.info.read().map(parse_meminfo).filter(|m| m.total > 0) {
            let used = m
                .total
                .saturating_sub(m.free + m.buffers + m.cached + m.slab_reclaimable);
            for (state, value) in [
                ("used", used),
                ("free", m.free),
                ("buffered", m.buffers),
                ("cached", m.cached),
                ("slab_reclaimable", m.slab_reclaimable),
                ("slab_unreclaimable", m.slab_unreclaimable),
            ] {
                r.gauge(
                    "system_memory_usage_bytes",
                    &[("state", state)],
                    value as f64,
                );
            }
            r.gauge("system_memory_limit_bytes", &[], m.total as f64);
            r.gauge(
                "system_memory_linux_available_bytes",
                &[],
                m.available as f64,
            );
            r.gauge("system_memory_linux_dirty_bytes", &[], m.dirty as f64);
            r.gauge(
                "system_paging_usage_bytes",
                &[("state", "used")],
                m.swap_total.saturating_sub(m.swap_free) as f64,
            );
            r.gauge(
                "system_paging_usage_bytes",
                &[("state", "free")],
                m.swap_free as f64,
            );
            let ratio = 1.0 - m.available as f64 / m.total as f64;
            r.gauge("system_memory_utilization_ratio", &[], ratio);
            r.gauge(
                "nines_use_utilization_ratio",
                &[("resource", "memory"), ("kind", "memory")],
                ratio,
            );
        }
        if let Some(v) = self.vmstat.read().map(parse_vmstat) {
            r.counter(
                "system_paging_operations_total",
                &[("direction", "in")],
                v.swapped_in as f64,
            );
            r.counter(
                "system_paging_operations_total",
                &[("direction", "out")],
                v.swapped_out as f64,
            );
            r.counter(
                "system_paging_faults_total",
                &[("type", "minor")],
                v.faults.saturating_sub(v.major_faults) as f64,
            );
            r.counter(
                "system_paging_faults_total",
                &[("type", "major")],
                v.major_faults as f64,
            );
            r.counter("system_linux_oom_kills_total", &[], v.oom_kills as f64);
            r.counter(
                "nines_use_errors_total",
                &[("resource", "memory"), ("kind", "memory")],
                v.oom_kills as f64,
            );
            let swapped = v.swapped_in + v.swapped_out;
            if let (Some(before), Some(elapsed)) = (self.swapped, elapsed) {
                let rate = swapped.saturating_sub(before) as f64 / elapsed;
                r.gauge(
                    "nines_use_saturation",
                    &[
                        ("resource", "memory"),
                        ("kind", "memory"),
                        ("unit", "swapped_pages_per_second"),
                    ],
                    rate,
                );
            }
            self.swapped = Some(swapped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_and_vmstat() {
        let m = parse_meminfo(b"MemTotal:        2048 kB\nMemFree:  1024 kB\nMemAvailable: 1536 kB\nHugePages_Total: 0\nSwapTotal: 8 kB\n");
        assert_eq!(
            (m.total, m.free, m.available, m.swap_total),
            (2 << 20, 1 << 20, 1536 << 10, 8192)
        );
        let v = parse_vmstat(
            b"nr_free_pages 9\npswpin 1\npswpout 2\npgfault 10\npgmajfault 3\noom_kill 4\n",
        );
        assert_eq!(
            v,
            VmStat {
                swapped_in: 1,
                swapped_out: 2,
                faults: 10,
                major_faults: 3,
                oom_kills: 4
            }
        );
    }
}
