//! nginx: `stub_status`, and RED from the JSON access log.
//!
//! Owns both readings of one server. Must not know how a file is followed.

use std::time::Duration;

use super::nginx_log::Red;
use super::{Collector, errors, saturation, utilization};
use crate::collect::config::NginxConfig;
use crate::collect::fetch;
use crate::collect::logs::Tail;
use crate::collect::record::Recorder;

/// The seven numbers of `stub_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stub {
    active: u64,
    accepted: u64,
    handled: u64,
    requests: u64,
    reading: u64,
    writing: u64,
    waiting: u64,
}

pub(super) struct Nginx {
    status_url: Option<String>,
    log: Option<Tail>,
    red: Red,
    max_connections: Option<u64>,
}

// === impl Nginx ===

impl Nginx {
    pub(super) fn new(config: &NginxConfig) -> Self {
        Nginx {
            status_url: config.status_url.clone(),
            log: config
                .access_log
                .as_ref()
                .map(|path| Tail::new(path.clone(), false)),
            red: Red::default(),
            max_connections: config.max_connections,
        }
    }
}

impl Collector for Nginx {
    async fn read(&mut self, r: &mut Recorder, _t_ms: i64) -> Result<(), String> {
        if let Some(log) = &mut self.log {
            let red = &mut self.red;
            log.read_new(|line| red.observe(line))?;
        }
        if let Some(url) = &self.status_url {
            let request = fetch::Request {
                url,
                body_limit: 64 << 10,
                ..fetch::Request::default()
            };
            let fetched = fetch::get(request, Duration::from_secs(60)).await?;
            if fetched.status != 200 {
                return Err(format!(
                    "stub_status answered with status {}",
                    fetched.status
                ));
            }
            let stub = parse_stub(&fetched.body).ok_or("the answer is not stub_status'")?;
            report(r, stub, self.max_connections);
        }
        if self.log.is_some() {
            self.red.report(r);
        }
        Ok(())
    }
}

/// Reads `stub_status`.
pub(super) fn parse_stub(body: &[u8]) -> Option<Stub> {
    let text = std::str::from_utf8(body).ok()?;
    if !text.starts_with("Active connections:") {
        return None;
    }
    let numbers: Vec<u64> = text
        .split_ascii_whitespace()
        .filter_map(|w| w.parse().ok())
        .collect();
    let [
        active,
        accepted,
        handled,
        requests,
        reading,
        writing,
        waiting,
    ] = numbers[..]
    else {
        return None;
    };
    Some(Stub {
        active,
        accepted,
        handled,
        requests,
        reading,
        writing,
        waiting,
    })
}

fn report(r: &mut Recorder, s: Stub, max_connections: Option<u64>) {
    r.counter("nginx_requests_total", &[], s.requests as f64);
    r.counter("nginx_connections_accepted_total", &[], s.accepted as f64);
    r.counter("nginx_connections_handled_total", &[], s.handled as f64);
    for (state, n) in [
        ("active", s.active),
        ("reading", s.reading),
        ("writing", s.writing),
        ("waiting", s.waiting),
    ] {
        r.gauge("nginx_connections_current", &[("state", state)], n as f64);
    }
    if let Some(max) = max_connections {
        utilization(r, "nginx", "connections", s.active as f64, max as f64);
    }
    saturation(
        r,
        "nginx",
        "connections",
        "requests_in_flight",
        (s.reading + s.writing) as f64,
    );
    errors(
        r,
        "nginx",
        "connections",
        s.accepted.saturating_sub(s.handled) as f64,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_numbers() {
        let stub = parse_stub(b"Active connections: 2 \nserver accepts handled requests\n 10 9 31 \nReading: 0 Writing: 1 Waiting: 1 \n").unwrap();
        assert_eq!(
            (
                stub.active,
                stub.accepted,
                stub.handled,
                stub.requests,
                stub.writing
            ),
            (2, 10, 9, 31, 1)
        );
        assert_eq!(parse_stub(b"<html>"), None);
    }
}
