//! Network: `/proc/net/dev`, `snmp`, `netstat`, `softnet_stat`, and interface speed from sys.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::files::{Kept, lines, number, read_once, text, words};
use crate::collect::record::Recorder;

/// One interface's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) device: String,
    /// Received: bytes, packets, errors, dropped.
    pub(super) received: [u64; 4],
    /// Transmitted: the same.
    pub(super) transmitted: [u64; 4],
}

/// Reads `/proc/net/dev`.
pub(super) fn parse_dev(bytes: &[u8]) -> Vec<Interface> {
    let mut interfaces = Vec::new();
    for line in lines(bytes) {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let values: Vec<u64> = words(&line[colon + 1..]).filter_map(number).collect();
        let Some(name) = words(&line[..colon]).next() else {
            continue;
        };
        if values.len() < 16 {
            continue;
        }
        interfaces.push(Interface {
            device: text(name),
            received: [values[0], values[1], values[2], values[3]],
            transmitted: [values[8], values[9], values[10], values[11]],
        });
    }
    interfaces
}

/// Values by `Protocol` and `Field` of `/proc/net/snmp` and `/proc/net/netstat`: a line of names, then one of values.
pub(super) fn field(bytes: &[u8], protocol: &str, name: &str) -> Option<u64> {
    let mut names: Option<Vec<&[u8]>> = None;
    for line in lines(bytes) {
        let Some(rest) = line
            .strip_prefix(protocol.as_bytes())
            .and_then(|l| l.strip_prefix(b":"))
        else {
            continue;
        };
        match names {
            None => names = Some(words(rest).collect()),
            Some(names) => {
                let at = names.iter().position(|n| *n == name.as_bytes())?;
                return words(rest).nth(at).and_then(number);
            }
        }
    }
    None
}

/// Packets processed, dropped and time squeezes of all cores in `/proc/net/softnet_stat` (hexadecimal columns).
pub(super) fn parse_softnet(bytes: &[u8]) -> [u64; 3] {
    let mut sums = [0u64; 3];
    for line in lines(bytes) {
        for (sum, word) in sums.iter_mut().zip(words(line)) {
            let hex = std::str::from_utf8(word).ok();
            *sum += hex
                .and_then(|h| u64::from_str_radix(h, 16).ok())
                .unwrap_or(0);
        }
    }
    sums
}

const PROTOCOL_COUNTERS: [(&str, &str, &str, bool); 8] = [
    (
        "Tcp",
        "RetransSegs",
        "system_network_tcp_retransmits_total",
        true,
    ),
    (
        "Tcp",
        "OutSegs",
        "system_network_tcp_segments_sent_total",
        true,
    ),
    (
        "Tcp",
        "ActiveOpens",
        "system_network_tcp_active_opens_total",
        true,
    ),
    (
        "Tcp",
        "PassiveOpens",
        "system_network_tcp_passive_opens_total",
        true,
    ),
    (
        "Tcp",
        "EstabResets",
        "system_network_tcp_resets_total",
        true,
    ),
    (
        "Udp",
        "RcvbufErrors",
        "system_network_udp_receive_buffer_errors_total",
        true,
    ),
    (
        "TcpExt",
        "ListenOverflows",
        "system_network_tcp_listen_overflows_total",
        false,
    ),
    (
        "TcpExt",
        "ListenDrops",
        "system_network_tcp_listen_drops_total",
        false,
    ),
];

pub(super) struct Network {
    dev: Kept,
    snmp: Kept,
    netstat: Kept,
    softnet: Kept,
    speeds: PathBuf,
    before: HashMap<String, (u64, u64, u64)>,
}

// === impl Network ===

impl Network {
    pub(super) fn new(proc: &Path, sys: &Path) -> Self {
        let kept = |name: &str| Kept::new(proc.join("net").join(name));
        Network {
            dev: kept("dev"),
            snmp: kept("snmp"),
            netstat: kept("netstat"),
            softnet: kept("softnet_stat"),
            speeds: sys.join("class/net"),
            before: HashMap::new(),
        }
    }

    pub(super) fn read(&mut self, r: &mut Recorder, elapsed: Option<f64>) {
        if let Some(interfaces) = self.dev.read().map(parse_dev) {
            self.interfaces(r, &interfaces, elapsed);
        }
        let (snmp, netstat) = (self.snmp.read(), self.netstat.read());
        for (protocol, name, metric, in_snmp) in PROTOCOL_COUNTERS {
            let bytes = if in_snmp { snmp } else { netstat };
            if let Some(value) = bytes.and_then(|b| field(b, protocol, name)) {
                r.counter(metric, &[], value as f64);
            }
        }
        if let Some(established) = snmp.and_then(|b| field(b, "Tcp", "CurrEstab")) {
            let labels = [("protocol", "tcp"), ("state", "established")];
            r.gauge(
                "system_network_connection_count",
                &labels,
                established as f64,
            );
        }
        if let Some([processed, dropped, squeezed]) = self.softnet.read().map(parse_softnet) {
            r.counter(
                "system_network_softnet_processed_total",
                &[],
                processed as f64,
            );
            r.counter("system_network_softnet_dropped_total", &[], dropped as f64);
            r.counter(
                "system_network_softnet_squeezed_total",
                &[],
                squeezed as f64,
            );
        }
    }

    fn interfaces(&mut self, r: &mut Recorder, interfaces: &[Interface], elapsed: Option<f64>) {
        let mut now = HashMap::new();
        for i in interfaces {
            let device = i.device.as_str();
            for (direction, v) in [("receive", i.received), ("transmit", i.transmitted)] {
                let labels = [("device", device), ("direction", direction)];
                r.counter("system_network_io_bytes_total", &labels, v[0] as f64);
                r.counter("system_network_packet_count_total", &labels, v[1] as f64);
                r.counter("system_network_errors_total", &labels, v[2] as f64);
                r.counter("system_network_packet_dropped_total", &labels, v[3] as f64);
            }
            let labels = [("resource", device), ("kind", "network")];
            r.counter(
                "nines_use_errors_total",
                &labels,
                (i.received[2] + i.transmitted[2]) as f64,
            );
            let dropped = i.received[3] + i.transmitted[3];
            if let (Some((rx, tx, drops)), Some(elapsed)) = (self.before.get(device), elapsed) {
                let unit = [
                    ("resource", device),
                    ("kind", "network"),
                    ("unit", "dropped_packets_per_second"),
                ];
                r.gauge(
                    "nines_use_saturation",
                    &unit,
                    dropped.saturating_sub(*drops) as f64 / elapsed,
                );
                if let Some(speed) = self.bytes_per_second(device) {
                    let busiest = i.received[0]
                        .saturating_sub(*rx)
                        .max(i.transmitted[0].saturating_sub(*tx));
                    r.gauge(
                        "nines_use_utilization_ratio",
                        &labels,
                        (busiest as f64 / elapsed / speed).min(1.0),
                    );
                }
            }
            now.insert(
                device.to_owned(),
                (i.received[0], i.transmitted[0], dropped),
            );
        }
        self.before = now;
    }

    /// The link's speed, when the driver says one.
    fn bytes_per_second(&self, device: &str) -> Option<f64> {
        let text = read_once(&self.speeds.join(device).join("speed"))?;
        let megabits = number(&text).filter(|m| *m > 0)?;
        Some(megabits as f64 * 125_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_snmp_and_softnet() {
        let dev = b"Inter-|   Receive |  Transmit\n face |bytes packets\n    lo:100 2 3 4 0 0 0 0 200 6 7 8 0 0 0 0\n  eth0: 1 2 3\n";
        let interfaces = parse_dev(dev);
        assert_eq!(
            interfaces,
            [Interface {
                device: "lo".into(),
                received: [100, 2, 3, 4],
                transmitted: [200, 6, 7, 8]
            }]
        );
        let snmp = b"Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm CurrEstab RetransSegs\nTcp: 1 12 34\nUdp: X\nUdp: 1\n";
        assert_eq!(field(snmp, "Tcp", "RetransSegs"), Some(34));
        assert_eq!(field(snmp, "Tcp", "Nothing"), None);
        assert_eq!(
            parse_softnet(b"0000000a 00000001 00000002 0\n00000006 00000000 00000001 0\n"),
            [16, 1, 3]
        );
    }
}
