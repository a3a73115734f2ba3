//! Pressure stall information: `/proc/pressure/{cpu,memory,io}`.

use std::path::Path;

use super::files::{Kept, decimal, lines, number, words};
use crate::collect::record::Recorder;

const WINDOWS: [&str; 3] = ["10", "60", "300"];

/// One line of a pressure file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stall {
    /// `some` or `full`.
    pub(super) kind: &'static str,
    /// Shares (0..1) over 10, 60 and 300 s.
    pub(super) shares: [f64; 3],
    /// Stalled since boot, seconds.
    pub(super) total_seconds: f64,
}

/// Reads a pressure file.
pub(super) fn parse_pressure(bytes: &[u8]) -> Vec<Stall> {
    let mut stalls = Vec::new();
    for line in lines(bytes) {
        let mut words = words(line);
        let kind = match words.next() {
            Some(b"some") => "some",
            Some(b"full") => "full",
            _ => continue,
        };
        let mut stall = Stall {
            kind,
            shares: [0.0; 3],
            total_seconds: 0.0,
        };
        for word in words {
            let Some(at) = word.iter().position(|b| *b == b'=') else {
                continue;
            };
            let value = &word[at + 1..];
            let percent = decimal(value).unwrap_or(0.0) / 100.0;
            match &word[..at] {
                b"avg10" => stall.shares[0] = percent,
                b"avg60" => stall.shares[1] = percent,
                b"avg300" => stall.shares[2] = percent,
                b"total" => stall.total_seconds = number(value).unwrap_or(0) as f64 / 1e6,
                _ => {}
            }
        }
        stalls.push(stall);
    }
    stalls
}

pub(super) struct Pressure {
    files: [(&'static str, Kept); 3],
}

// === impl Pressure ===

impl Pressure {
    pub(super) fn new(proc: &Path) -> Self {
        let kept = |name: &'static str| (name, Kept::new(proc.join("pressure").join(name)));
        Pressure {
            files: [kept("cpu"), kept("memory"), kept("io")],
        }
    }

    pub(super) fn read(&mut self, r: &mut Recorder) {
        for (resource, file) in &mut self.files {
            let resource: &'static str = resource;
            let Some(stalls) = file.read().map(parse_pressure) else {
                continue;
            };
            for stall in stalls {
                let base = [("resource", resource), ("stall_type", stall.kind)];
                r.counter(
                    "system_linux_psi_total_time_seconds_total",
                    &base,
                    stall.total_seconds,
                );
                for (window, share) in WINDOWS.iter().zip(stall.shares) {
                    let labels = [
                        ("resource", resource),
                        ("stall_type", stall.kind),
                        ("window", window),
                    ];
                    r.gauge("system_linux_psi_pressure_ratio", &labels, share);
                }
                if stall.kind == "some" {
                    let kind = if resource == "io" { "disk" } else { resource };
                    let labels = [
                        ("resource", resource),
                        ("kind", kind),
                        ("unit", "psi_some_ratio"),
                    ];
                    r.gauge("nines_use_saturation", &labels, stall.shares[0]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines() {
        let stalls = parse_pressure(b"some avg10=1.50 avg60=0.10 avg300=100.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
        assert_eq!(
            stalls[0],
            Stall {
                kind: "some",
                shares: [0.015, 0.001, 1.0],
                total_seconds: 2.5
            }
        );
        assert_eq!(stalls[1].kind, "full");
        assert!(parse_pressure(b"garbage\n").is_empty());
    }
}
