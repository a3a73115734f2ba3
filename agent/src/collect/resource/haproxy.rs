//! HAProxy: its Prometheus exporter's own series, one `haproxy_server_up` a server, and the uniform view.
//!
//! Owns the normalisation. Must not know HAProxy's configuration.

use std::time::Duration;

use super::{Collector, errors, saturation, utilization};
use crate::collect::exposition::{Format, Item, Parser, labels_of};
use crate::collect::fetch;
use crate::collect::record::Recorder;

const BODY_LIMIT: usize = 16 << 20;

pub(super) struct Haproxy {
    url: String,
}

// === impl Haproxy ===

impl Haproxy {
    pub(super) fn new(url: &str) -> Self {
        Haproxy {
            url: url.to_owned(),
        }
    }
}

impl Collector for Haproxy {
    async fn read(&mut self, r: &mut Recorder, _t_ms: i64) -> Result<(), String> {
        let request = fetch::Request {
            url: &self.url,
            body_limit: BODY_LIMIT,
            ..fetch::Request::default()
        };
        let fetched = fetch::get(request, Duration::from_secs(60)).await?;
        if fetched.status != 200 {
            return Err(format!(
                "the exporter answered with status {}",
                fetched.status
            ));
        }
        report(r, &fetched.body)
    }
}

/// What one backend says of itself.
#[derive(Default)]
struct Backend {
    sessions: f64,
    limit: f64,
    queue: f64,
    errors: f64,
}

fn report(r: &mut Recorder, body: &[u8]) -> Result<(), String> {
    let mut backends: std::collections::BTreeMap<String, Backend> =
        std::collections::BTreeMap::new();
    for item in Parser::new(body, Format::Text).map_err(|e| e.to_string())? {
        let Item::Sample { series, value, .. } = item.map_err(|e| e.to_string())? else {
            continue;
        };
        let pairs = labels_of(series)?;
        let Some(((_, name), labels)) = pairs.split_first() else {
            continue;
        };
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        r.sample(name, &labels, value);
        let get = |key: &str| {
            labels
                .iter()
                .find(|(n, _)| *n == key)
                .map_or("", |(_, v)| *v)
        };
        if name == "haproxy_server_status" && get("state") == "UP" {
            r.gauge(
                "haproxy_server_up",
                &[("proxy", get("proxy")), ("server", get("server"))],
                value,
            );
        }
        if let Some(field) = name.strip_prefix("haproxy_backend_") {
            let backend = backends.entry(get("proxy").to_owned()).or_default();
            match field {
                "current_sessions" => backend.sessions = value,
                "limit_sessions" => backend.limit = value,
                "current_queue" => backend.queue = value,
                "connection_errors_total" | "response_errors_total" => backend.errors += value,
                _ => {}
            }
        }
    }
    if backends.is_empty() {
        return Err("the answer has no haproxy_backend_ series".into());
    }
    for (name, b) in &backends {
        utilization(r, "haproxy", name, b.sessions, b.limit);
        saturation(r, "haproxy", name, "queued_requests", b.queue);
        errors(r, "haproxy", name, b.errors);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::testing::last;
    use crate::ingest::Ingest;

    #[test]
    fn one_up_for_each_server() {
        let body = b"haproxy_server_status{proxy=\"api\",server=\"app1\",state=\"DOWN\"} 1\nhaproxy_server_status{proxy=\"api\",server=\"app1\",state=\"UP\"} 0\nhaproxy_backend_current_sessions{proxy=\"api\"} 5\nhaproxy_backend_limit_sessions{proxy=\"api\"} 20\nhaproxy_backend_connection_errors_total{proxy=\"api\"} 2\nhaproxy_backend_response_errors_total{proxy=\"api\"} 3\n";
        let ingest = Ingest::in_memory(1000);
        let mut r = Recorder::new(&[]);
        r.begin(1);
        report(&mut r, body).unwrap();
        r.commit(&ingest);
        assert_eq!(
            last(&ingest, "haproxy_server_up", &[("server", "app1")]),
            Some(0.0)
        );
        assert_eq!(
            last(
                &ingest,
                "nines_use_utilization_ratio",
                &[("resource", "api")]
            ),
            Some(0.25)
        );
        assert_eq!(
            last(&ingest, "nines_use_errors_total", &[("kind", "haproxy")]),
            Some(5.0)
        );
        assert_eq!(
            last(&ingest, "haproxy_backend_limit_sessions", &[]),
            Some(20.0)
        );
        assert!(report(&mut r, b"a 1\n").is_err());
    }
}
