//! Filesystems: `/proc/self/mounts` and `statvfs`, asked on a thread of its own: a dead network mount blocks only that.
//!
//! Owns the thread. While a call hangs, the last sizes are not repeated: the series end, and `..._stuck` says 1.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::files::{lines, read_once, words};
use crate::collect::record::Recorder;

/// How often sizes are asked for.
const EVERY: Duration = Duration::from_secs(5);
/// A question that has no answer after this is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// Types that hold no data of their own.
const VIRTUAL: [&[u8]; 27] = [
    b"proc",
    b"sysfs",
    b"devpts",
    b"devtmpfs",
    b"cgroup",
    b"cgroup2",
    b"securityfs",
    b"debugfs",
    b"tracefs",
    b"pstore",
    b"bpf",
    b"configfs",
    b"fusectl",
    b"mqueue",
    b"hugetlbfs",
    b"autofs",
    b"binfmt_misc",
    b"rpc_pipefs",
    b"nsfs",
    b"efivarfs",
    b"selinuxfs",
    b"squashfs",
    b"ramfs",
    b"fuse.gvfsd-fuse",
    b"fuse.portal",
    b"fuse.lxcfs",
    b"iso9660",
];

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) device: String,
    pub(super) point: String,
    pub(super) kind: String,
}

/// Reads `/proc/self/mounts`: filesystems that hold data, each device once.
pub(super) fn parse_mounts(bytes: &[u8]) -> Vec<Mount> {
    let mut seen = HashSet::new();
    let mut mounts = Vec::new();
    for line in lines(bytes) {
        let mut words = words(line);
        let (Some(device), Some(point), Some(kind)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if VIRTUAL.contains(&kind) {
            continue;
        }
        let mount = Mount {
            device: unescape(device),
            point: unescape(point),
            kind: unescape(kind),
        };
        let memory = matches!(kind, b"tmpfs" | b"overlay");
        let key = if memory {
            mount.point.clone()
        } else {
            mount.device.clone()
        };
        if seen.insert(key) {
            mounts.push(mount);
        }
    }
    mounts
}

/// Undoes the octal escapes of mount tables: `\040` is a space.
fn unescape(word: &[u8]) -> String {
    let mut out = Vec::with_capacity(word.len());
    let mut i = 0;
    while i < word.len() {
        let octal = (word[i] == b'\\').then(|| word.get(i + 1..i + 4)).flatten();
        let code = octal
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        if let Some(code) = code {
            out.push(code);
            i += 4;
        } else {
            out.push(word[i]);
            i += 1;
        }
    }
    super::files::text(&out)
}

#[derive(Debug, Clone)]
struct Size {
    mount: Mount,
    total: f64,
    free: f64,
    available: f64,
    inodes: f64,
    inodes_free: f64,
}

pub(super) struct Filesystems {
    mounts: PathBuf,
    asked: Option<Instant>,
    pending: Option<Receiver<Vec<Size>>>,
    sizes: Vec<Size>,
}

// === impl Filesystems ===

impl Filesystems {
    pub(super) fn new(proc: &Path) -> Self {
        Filesystems {
            mounts: proc.join("self/mounts"),
            asked: None,
            pending: None,
            sizes: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, r: &mut Recorder) {
        let first = self.asked.is_none();
        if self.pending.is_none() && self.asked.is_none_or(|at| at.elapsed() >= EVERY) {
            self.ask();
        }
        if first {
            // The first round shows sizes at once, unless a mount hangs.
            if let Some(sizes) = self
                .pending
                .as_ref()
                .and_then(|p| p.recv_timeout(Duration::from_millis(200)).ok())
            {
                (self.sizes, self.pending) = (sizes, None);
            }
        }
        match self.pending.as_ref().map(Receiver::try_recv) {
            Some(Ok(sizes)) => (self.sizes, self.pending) = (sizes, None),
            Some(Err(TryRecvError::Disconnected)) => self.pending = None,
            Some(Err(TryRecvError::Empty)) | None => {}
        }
        let stuck = self.pending.is_some() && self.asked.is_some_and(|at| at.elapsed() >= STUCK);
        if stuck {
            self.sizes.clear();
        }
        r.gauge("system_filesystem_stuck", &[], f64::from(u8::from(stuck)));
        for s in &self.sizes {
            report(r, s);
        }
    }

    /// Starts one thread that asks for all sizes. Never more than one: a hanging call keeps `pending`.
    fn ask(&mut self) {
        let (sender, receiver) = sync_channel(1);
        let mounts = self.mounts.clone();
        self.asked = Some(Instant::now());
        let ask = move || ask_all(&mounts, &sender);
        if std::thread::Builder::new()
            .name("nines-statvfs".into())
            .spawn(ask)
            .is_ok()
        {
            self.pending = Some(receiver);
        }
    }
}

fn ask_all(mounts: &Path, sender: &SyncSender<Vec<Size>>) {
    let mounts = read_once(mounts)
        .map(|b| parse_mounts(&b))
        .unwrap_or_default();
    let sizes = mounts.into_iter().filter_map(|mount| {
        let v = rustix::fs::statvfs(mount.point.as_str()).ok()?;
        let unit = v.f_frsize as f64;
        (v.f_blocks > 0).then_some(Size {
            mount,
            total: v.f_blocks as f64 * unit,
            free: v.f_bfree as f64 * unit,
            available: v.f_bavail as f64 * unit,
            inodes: v.f_files as f64,
            inodes_free: v.f_ffree as f64,
        })
    });
    let _ = sender.send(sizes.collect());
}

fn report(r: &mut Recorder, s: &Size) {
    let (device, point) = (s.mount.device.as_str(), s.mount.point.as_str());
    let used = s.total - s.free;
    for (state, value) in [
        ("used", used),
        ("free", s.available),
        ("reserved", s.free - s.available),
    ] {
        let labels = [
            ("device", device),
            ("mountpoint", point),
            ("type", s.mount.kind.as_str()),
            ("state", state),
        ];
        r.gauge("system_filesystem_usage_bytes", &labels, value);
    }
    // As df counts: what is reserved for root is not to be had.
    let ratio = if used + s.available > 0.0 {
        used / (used + s.available)
    } else {
        0.0
    };
    r.gauge(
        "system_filesystem_utilization_ratio",
        &[("mountpoint", point)],
        ratio,
    );
    r.gauge(
        "nines_use_utilization_ratio",
        &[("resource", point), ("kind", "filesystem")],
        ratio,
    );
    if s.inodes > 0.0 {
        for (state, value) in [("used", s.inodes - s.inodes_free), ("free", s.inodes_free)] {
            r.gauge(
                "system_filesystem_inodes_usage",
                &[("mountpoint", point), ("state", state)],
                value,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_hold_data_once() {
        let mounts = parse_mounts(b"/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/sda1 /bind ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nnas:/x /mnt/my\\040disk nfs4 rw 0 0\n");
        let points: Vec<_> = mounts.iter().map(|m| m.point.as_str()).collect();
        assert_eq!(points, ["/", "/run", "/tmp", "/mnt/my disk"]);
    }
}
