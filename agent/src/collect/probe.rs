//! Health probes: HTTP and TCP, with rise and fall.
//!
//! Owns the state machine that decides `probe_up`. Must not know what is behind a target.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::config::{JsonAssertion, ProbeConfig};
use super::record::Recorder;
use super::rounds::Rounds;
use super::{fetch, scrape};
use crate::ingest::{Ingest, Target};

/// The longest body that a probe reads.
const BODY_LIMIT: usize = 1 << 20;

/// Up until `fall` failures in a row, down until `rise` successes in a row. The first result decides at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    up: Option<bool>,
    streak: u32,
}

// === impl Health ===

impl Health {
    pub(super) fn new() -> Self {
        Health {
            up: None,
            streak: 0,
        }
    }

    /// The state after one more result.
    pub(super) fn observe(&mut self, success: bool, fall: u32, rise: u32) -> bool {
        let up = *self.up.get_or_insert(success);
        if success == up {
            self.streak = 0;
            return up;
        }
        self.streak += 1;
        if self.streak >= (if up { fall } else { rise }).max(1) {
            self.streak = 0;
            self.up = Some(success);
            return success;
        }
        up
    }
}

/// Probes until `shutdown`.
pub(super) async fn run(config: ProbeConfig, ingest: Ingest, shutdown: CancellationToken) {
    let url = url::Url::parse(&config.url).ok();
    let instance = url.as_ref().and_then(scrape::address_of);
    let instance = instance.unwrap_or_else(|| "invalid".into());
    let name = config.name.clone().unwrap_or_else(|| instance.clone());
    let labels = [
        ("job", "probe"),
        ("instance", instance.as_str()),
        ("target", name.as_str()),
    ];
    let mut recorder = Recorder::new(&labels);
    let timeout = config.timeout.duration().min(config.interval.duration());
    let shown = url.clone().map_or_else(
        || "invalid".to_owned(),
        |mut u| {
            let _ = u.set_password(None);
            u.to_string()
        },
    );
    let row = Target {
        job: "probe".into(),
        url: shown,
        labels: model::Labels::from_pairs(labels),
        interval_ms: config.interval.0,
        timeout_ms: i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX),
        ..Target::default()
    };
    ingest.report_target(row.clone());
    let mut rounds = Rounds::new(&name, config.interval.duration(), shutdown.clone());
    let mut health = Health::new();
    while let Some(t_ms) = rounds.next().await {
        let begun = Instant::now();
        let outcome = tokio::select! {
            outcome = attempt(&config, timeout) => outcome,
            () = shutdown.cancelled() => return,
        };
        let duration = begun.elapsed().as_secs_f64();
        let up = health.observe(outcome.is_ok(), config.fall, config.rise);
        let bit = |b: bool| f64::from(u8::from(b));
        recorder.begin(t_ms);
        recorder.gauge("probe_success", &[], bit(outcome.is_ok()));
        recorder.gauge("probe_duration_seconds", &[], duration);
        recorder.gauge("probe_up", &[], bit(up));
        recorder.commit(&ingest);
        ingest.report_target(Target {
            up: Some(outcome.is_ok()),
            last_error: outcome.err().unwrap_or_default(),
            last_ms: t_ms,
            duration_seconds: duration,
            ..row.clone()
        });
    }
}

async fn attempt(config: &ProbeConfig, timeout: Duration) -> Result<(), String> {
    if let Some(address) = config.url.strip_prefix("tcp://") {
        return match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("no connection within {timeout:?}")),
        };
    }
    let request = fetch::Request {
        url: &config.url,
        body_limit: BODY_LIMIT,
        ..fetch::Request::default()
    };
    let fetched = fetch::get(request, timeout).await?;
    judge(config, fetched.status, &fetched.body)
}

fn judge(config: &ProbeConfig, status: u16, body: &[u8]) -> Result<(), String> {
    match config.status {
        Some(wanted) if status != wanted => {
            return Err(format!("status {status}, wanted {wanted}"));
        }
        None if !(200..300).contains(&status) => return Err(format!("status {status}")),
        _ => {}
    }
    let Some(JsonAssertion { pointer, equals }) = &config.json else {
        return Ok(());
    };
    let json: serde_json::Value =
        serde_json::from_slice(body).map_err(|e| format!("the body is not JSON: {e}"))?;
    match json.pointer(pointer) {
        Some(found) if found == equals => Ok(()),
        Some(found) => Err(format!("{pointer} is {found}, wanted {equals}")),
        None => Err(format!("the body has no {pointer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_failures_take_down_and_three_successes_bring_back() {
        let mut health = Health::new();
        let results = [
            true, false, true, false, false, true, true, false, true, true, true,
        ];
        let states: Vec<bool> = results.iter().map(|r| health.observe(*r, 2, 3)).collect();
        assert_eq!(
            states,
            [
                true, true, true, true, false, false, false, false, false, false, true
            ]
        );
        assert!(!Health::new().observe(false, 2, 3));
    }

    #[test]
    fn the_body_can_be_asserted() {
        let config = ProbeConfig {
            json: Some(JsonAssertion {
                pointer: "/status".into(),
                equals: "ok".into(),
            }),
            ..ProbeConfig::default()
        };
        assert!(judge(&config, 200, br#"{"status":"ok"}"#).is_ok());
        let error = |status, body: &[u8]| judge(&config, status, body).unwrap_err();
        assert_eq!(
            error(200, br#"{"status":"bad"}"#),
            r#"/status is "bad", wanted "ok""#
        );
        assert_eq!(error(503, b""), "status 503");
        assert!(error(200, b"{").contains("not JSON"));
        assert!(error(200, b"{}").contains("no /status"));
    }
}
