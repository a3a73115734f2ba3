//! The host: CPU, memory, disks, filesystems, network, pressure, processes and cgroups, from proc and sys.
//!
//! Owns the thread that reads them and the readings that need the round before (utilization). Each file's parser is a
//! pure function over bytes in a module below. Must not know the store. Files that every round reads stay open.

mod cgroup;
mod disk;
mod files;
mod filesystem;
mod memory;
mod network;
mod pressure;
mod process;
mod processor;

use std::path::Path;
use std::time::Instant;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::HostConfig;
use super::record::Recorder;
use super::rounds;
use crate::ingest::Ingest;

/// Reads the host every interval on a thread of its own, so that a slow file never delays an async task.
pub(super) fn spawn(
    config: HostConfig,
    ingest: Ingest,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        let mut host = Host::new(&config);
        let interval = config.interval.duration();
        let mut next = Instant::now();
        while !shutdown.is_cancelled() {
            let begun = Instant::now();
            if begun >= next {
                host.round(rounds::now_ms(), begun);
                host.recorder.commit(&ingest);
                next = (next + interval).max(Instant::now());
            }
            let left = next.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(std::time::Duration::from_millis(100)));
        }
    })
}

/// Everything that is kept from round to round.
struct Host {
    recorder: Recorder,
    processor: processor::Processor,
    memory: memory::Memory,
    disk: disk::Disks,
    filesystem: filesystem::Filesystems,
    network: network::Network,
    pressure: pressure::Pressure,
    process: process::Processes,
    cgroup: Option<cgroup::Cgroups>,
    last: Option<Instant>,
}

// === impl Host ===

impl Host {
    fn new(config: &HostConfig) -> Self {
        let (proc, sys): (&Path, &Path) = (&config.proc_dir, &config.sys_dir);
        let name = std::fs::read_to_string(proc.join("sys/kernel/hostname")).unwrap_or_default();
        let name = match name.trim() {
            "" => "localhost",
            name => name,
        };
        Host {
            recorder: Recorder::new(&[("job", "host"), ("instance", name)]),
            processor: processor::Processor::new(proc),
            memory: memory::Memory::new(proc),
            disk: disk::Disks::new(proc),
            filesystem: filesystem::Filesystems::new(proc),
            network: network::Network::new(proc, sys),
            pressure: pressure::Pressure::new(proc),
            process: process::Processes::new(proc, config.top_processes, &config.processes),
            cgroup: config
                .cgroups
                .then(|| cgroup::Cgroups::new(&sys.join("fs/cgroup"))),
            last: None,
        }
    }

    /// Reads everything once. What cannot be read is left out, so its series end.
    fn round(&mut self, t_ms: i64, now: Instant) {
        let elapsed = self.last.map(|last| now.duration_since(last).as_secs_f64());
        let elapsed = elapsed.filter(|s| *s > 0.0);
        self.last = Some(now);
        let r = &mut self.recorder;
        r.begin(t_ms);
        self.pressure.read(r);
        self.processor.read(r);
        self.memory.read(r, elapsed);
        self.disk.read(r, elapsed);
        self.filesystem.read(r);
        self.network.read(r, elapsed);
        self.process.read(r, now);
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.read(r, now);
        }
        let duration = now.elapsed().as_secs_f64();
        r.gauge("nines_agent_host_round_seconds", &[], duration);
        let dropped = r.dropped() as f64;
        r.counter("nines_agent_host_series_dropped_total", &[], dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::testing::{last, read};

    #[test]
    #[cfg(target_os = "linux")]
    fn this_host_reads_plausibly() {
        let ingest = Ingest::in_memory(100_000);
        let mut host = Host::new(&HostConfig::default());
        let start = Instant::now();
        host.round(1000, start);
        host.recorder.commit(&ingest);
        host.round(2000, start + std::time::Duration::from_secs(1));
        host.recorder.commit(&ingest);
        let busy = last(&ingest, "system_cpu_utilization_ratio", &[]);
        assert!(busy.is_none_or(|b| (0.0..=1.0).contains(&b)), "{busy:?}");
        let memory = last(&ingest, "system_memory_utilization_ratio", &[]).unwrap();
        assert!(memory > 0.0 && memory < 1.0);
        assert!(
            last(
                &ingest,
                "system_filesystem_utilization_ratio",
                &[("mountpoint", "/")]
            )
            .is_some()
        );
        assert!(!read(&ingest, "process_memory_usage_bytes").is_empty());
        assert!(!read(&ingest, "system_network_io_bytes_total").is_empty());
        assert!(
            last(
                &ingest,
                "nines_use_utilization_ratio",
                &[("kind", "memory")]
            )
            .is_some()
        );
    }
}
