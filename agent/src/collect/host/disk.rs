//! Disks: `/proc/diskstats`. Partitions, loop and RAM devices are left out.

use std::collections::HashMap;
use std::path::Path;

use super::files::{Kept, lines, number, text, words};
use crate::collect::record::Recorder;

/// One device's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) device: String,
    /// reads, merged, sectors, ms; writes, merged, sectors, ms; in progress, ms busy, weighted ms.
    pub(super) fields: [u64; 11],
}

/// Reads `/proc/diskstats`.
pub(super) fn parse_diskstats(bytes: &[u8]) -> Vec<Disk> {
    let mut disks: Vec<Disk> = Vec::new();
    for line in lines(bytes) {
        let mut words = words(line).skip(2);
        let Some(device) = words.next() else { continue };
        if device.starts_with(b"loop") || device.starts_with(b"ram") {
            continue;
        }
        let mut fields = [0; 11];
        for (slot, word) in fields.iter_mut().zip(words) {
            *slot = number(word).unwrap_or(0);
        }
        let device = text(device);
        let partition = disks.iter().any(|d| is_partition(&device, &d.device));
        if fields.iter().any(|f| *f > 0) && !partition {
            disks.push(Disk { device, fields });
        }
    }
    disks
}

/// Whether `name` is a partition of `disk`: `sda1` of `sda`, `nvme0n1p1` of `nvme0n1`.
fn is_partition(name: &str, disk: &str) -> bool {
    let Some(rest) = name.strip_prefix(disk) else {
        return false;
    };
    let rest = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        rest.strip_prefix('p')
    } else {
        Some(rest)
    };
    rest.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) struct Disks {
    stats: Kept,
    before: HashMap<String, (u64, u64)>,
}

// === impl Disks ===

impl Disks {
    pub(super) fn new(proc: &Path) -> Self {
        Disks {
            stats: Kept::new(proc.join("diskstats")),
            before: HashMap::new(),
        }
    }

    pub(super) fn read(&mut self, r: &mut Recorder, elapsed: Option<f64>) {
        let Some(disks) = self.stats.read().map(parse_diskstats) else {
            return;
        };
        let mut now = HashMap::new();
        for Disk { device, fields: f } in &disks {
            let device = device.as_str();
            for (direction, at) in [("read", 0), ("write", 4)] {
                let labels = [("device", device), ("direction", direction)];
                r.counter("system_disk_operations_total", &labels, f[at] as f64);
                r.counter("system_disk_merged_total", &labels, f[at + 1] as f64);
                r.counter(
                    "system_disk_io_bytes_total",
                    &labels,
                    f[at + 2] as f64 * 512.0,
                );
                r.counter(
                    "system_disk_operation_time_seconds_total",
                    &labels,
                    f[at + 3] as f64 / 1000.0,
                );
            }
            r.gauge(
                "system_disk_pending_operations",
                &[("device", device)],
                f[8] as f64,
            );
            r.counter(
                "system_disk_io_time_seconds_total",
                &[("device", device)],
                f[9] as f64 / 1000.0,
            );
            r.counter(
                "system_disk_weighted_io_time_seconds_total",
                &[("device", device)],
                f[10] as f64 / 1000.0,
            );
            if let (Some((busy, weighted)), Some(elapsed)) = (self.before.get(device), elapsed) {
                let share =
                    |now: u64, before: u64| now.saturating_sub(before) as f64 / 1000.0 / elapsed;
                let labels = [("resource", device), ("kind", "disk")];
                r.gauge(
                    "nines_use_utilization_ratio",
                    &labels,
                    share(f[9], *busy).min(1.0),
                );
                let labels = [
                    ("resource", device),
                    ("kind", "disk"),
                    ("unit", "queued_operations"),
                ];
                r.gauge("nines_use_saturation", &labels, share(f[10], *weighted));
            }
            now.insert(device.to_owned(), (f[9], f[10]));
        }
        self.before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_disks_only() {
        let bytes = b"   7 0 loop0 1 2 3 4 5 6 7 8 9 10 11 0 0\n   8 0 sda 1 2 3 4 5 6 7 8 9 10 11 0 0\n   8 1 sda1 1 2 3 4 5 6 7 8 9 10 11\n 259 0 nvme0n1 1 0 0 0 0 0 0 0 0 0 0\n 259 1 nvme0n1p2 1 0 0 0 0 0 0 0 0 0 0\n 8 2 sdb 0 0 0\n";
        let disks = parse_diskstats(bytes);
        assert_eq!(
            disks.iter().map(|d| d.device.as_str()).collect::<Vec<_>>(),
            ["sda", "nvme0n1"]
        );
        assert_eq!(disks[0].fields, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    }
}
