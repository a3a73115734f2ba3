//! Rate, errors and duration from nginx' JSON access log.
//!
//! Owns the counters and their bounds: methods that are not HTTP's count as OTHER, upstreams beyond 50 as other.
//! Pure: lines in, readings out.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::collect::record::Recorder;

/// Upper bounds of the duration buckets, seconds: the HTTP conventions' and the thresholds that SLOs use.
pub(super) const BOUNDS: [(&str, f64); 17] = [
    ("0.001", 0.001),
    ("0.0025", 0.0025),
    ("0.005", 0.005),
    ("0.01", 0.01),
    ("0.025", 0.025),
    ("0.05", 0.05),
    ("0.1", 0.1),
    ("0.2", 0.2),
    ("0.25", 0.25),
    ("0.3", 0.3),
    ("0.5", 0.5),
    ("0.75", 0.75),
    ("1", 1.0),
    ("2.5", 2.5),
    ("5", 5.0),
    ("7.5", 7.5),
    ("10", 10.0),
];

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE",
];
const MAX_UPSTREAMS: usize = 50;

/// The fields that are read; others are ignored.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    method: std::borrow::Cow<'a, str>,
    status: u16,
    request_time: f64,
    #[serde(default, borrow)]
    upstream_addr: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    upstream_status: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    upstream_response_time: std::borrow::Cow<'a, str>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
}

// === impl Histogram ===

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        let at = BOUNDS
            .iter()
            .position(|(_, bound)| seconds <= *bound)
            .unwrap_or(BOUNDS.len());
        self.counts[at] += 1;
        self.sum += seconds;
    }

    fn report(&self, r: &mut Recorder, names: [&str; 3], labels: &[(&str, &str)]) {
        let mut total = 0;
        let bounds = BOUNDS.iter().map(|(text, _)| *text).chain(["+Inf"]);
        for (bound, count) in bounds.zip(self.counts) {
            total += count;
            let all: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound)]).collect();
            r.sample(names[0], &all, total as f64);
        }
        r.sample(names[1], labels, self.sum);
        r.sample(names[2], labels, total as f64);
    }
}

/// Everything counted since the agent began to follow the log.
#[derive(Debug, Default)]
pub(super) struct Red {
    requests: BTreeMap<(&'static str, u16), Histogram>,
    upstreams: BTreeMap<String, Histogram>,
    upstream_requests: BTreeMap<(String, String), u64>,
    unreadable: u64,
}

// === impl Red ===

impl Red {
    /// Counts one line of the log.
    pub(super) fn observe(&mut self, line: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
            self.unreadable += 1;
            return;
        };
        let method = METHODS
            .iter()
            .find(|m| **m == line.method)
            .copied()
            .unwrap_or("OTHER");
        self.requests
            .entry((method, line.status))
            .or_default()
            .observe(line.request_time);
        // After a retry the fields are lists, `a, b` (and `a : b` over an internal redirect): one entry an attempt.
        let list = |text: &str| -> Vec<String> {
            text.split([',', ' '])
                .filter(|w| !w.is_empty() && *w != ":")
                .map(str::to_owned)
                .collect()
        };
        let (statuses, times) = (
            list(&line.upstream_status),
            list(&line.upstream_response_time),
        );
        for (i, address) in list(&line.upstream_addr).into_iter().enumerate() {
            let known =
                self.upstreams.contains_key(&address) || self.upstreams.len() < MAX_UPSTREAMS;
            let upstream = if known { address } else { "other".to_owned() };
            let status = statuses
                .get(i)
                .filter(|s| s.len() == 3)
                .cloned()
                .unwrap_or_else(|| "-".into());
            let histogram = self.upstreams.entry(upstream.clone()).or_default();
            if let Some(seconds) = times.get(i).and_then(|t| t.parse().ok()) {
                histogram.observe(seconds);
            }
            *self
                .upstream_requests
                .entry((upstream, status))
                .or_default() += 1;
        }
    }

    /// The counters so far.
    pub(super) fn report(&self, r: &mut Recorder) {
        for ((method, status), histogram) in &self.requests {
            let status = status.to_string();
            let labels = [("status", status.as_str()), ("method", *method)];
            r.counter(
                "nginx_http_requests_total",
                &labels,
                histogram.counts.iter().sum::<u64>() as f64,
            );
            let names = [
                "nginx_http_request_duration_seconds_bucket",
                "nginx_http_request_duration_seconds_sum",
                "nginx_http_request_duration_seconds_count",
            ];
            histogram.report(r, names, &labels);
        }
        for ((upstream, status), n) in &self.upstream_requests {
            r.counter(
                "nginx_http_upstream_requests_total",
                &[("upstream", upstream), ("status", status)],
                *n as f64,
            );
        }
        for (upstream, histogram) in &self.upstreams {
            let names = [
                "nginx_http_upstream_duration_seconds_bucket",
                "nginx_http_upstream_duration_seconds_sum",
                "nginx_http_upstream_duration_seconds_count",
            ];
            histogram.report(r, names, &[("upstream", upstream)]);
        }
        r.counter(
            "nginx_access_log_unreadable_lines_total",
            &[],
            self.unreadable as f64,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::testing::last;
    use crate::ingest::Ingest;

    #[test]
    fn lines_become_red() {
        let mut red = Red::default();
        red.observe(br#"{"method":"GET","status":200,"request_time":0.012,"upstream_addr":"127.0.0.1:1","upstream_status":"200","upstream_response_time":"0.010"}"#);
        red.observe(br#"{"method":"GET","status":200,"request_time":0.300,"upstream_addr":"127.0.0.1:1, 127.0.0.1:2","upstream_status":"502, 200","upstream_response_time":"0.1, 0.2"}"#);
        red.observe(br#"{"method":"WEIRD","status":400,"request_time":0.000,"upstream_addr":""}"#);
        red.observe(b"not json");
        let ingest = Ingest::in_memory(1000);
        let mut r = Recorder::new(&[]);
        r.begin(1);
        red.report(&mut r);
        r.commit(&ingest);
        let ok = [("status", "200"), ("method", "GET")];
        assert_eq!(last(&ingest, "nginx_http_requests_total", &ok), Some(2.0));
        assert_eq!(
            last(
                &ingest,
                "nginx_http_request_duration_seconds_bucket",
                &[ok[0], ok[1], ("le", "0.025")]
            ),
            Some(1.0)
        );
        assert_eq!(
            last(
                &ingest,
                "nginx_http_request_duration_seconds_bucket",
                &[ok[0], ok[1], ("le", "0.3")]
            ),
            Some(2.0)
        );
        assert_eq!(
            last(&ingest, "nginx_http_requests_total", &[("method", "OTHER")]),
            Some(1.0)
        );
        assert_eq!(
            last(
                &ingest,
                "nginx_http_upstream_requests_total",
                &[("upstream", "127.0.0.1:1"), ("status", "502")]
            ),
            Some(1.0)
        );
        assert_eq!(
            last(
                &ingest,
                "nginx_http_upstream_duration_seconds_count",
                &[("upstream", "127.0.0.1:2")]
            ),
            Some(1.0)
        );
        assert_eq!(
            last(&ingest, "nginx_access_log_unreadable_lines_total", &[]),
            Some(1.0)
        );
    }
}
