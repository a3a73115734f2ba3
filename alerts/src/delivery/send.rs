//! One attempt over HTTP.
//!
//! Owns the request and the reading of the answer. Must not know the outbox. No error text holds a URL or a key.

use std::time::Duration;

use super::backoff;
use super::config::{DeliveryConfig, ReceiverConfig, ReceiverKind};
use super::message::Message;
use super::outbox::Outcome;
use super::{DeliveryError, pagerduty, slack, webhook};

/// How much of a receiver's answer is quoted, characters.
const QUOTED: usize = 200;

pub(super) fn client(config: &DeliveryConfig) -> Result<reqwest::Client, DeliveryError> {
    // A provider that is installed already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(Duration::from_millis(config.timeout.max(1).unsigned_abs()))
        .redirect(reqwest::redirect::Policy::none())
        .user_agent("nines")
        .build()
        .map_err(|e| DeliveryError::Client(e.to_string()))
}

/// Sends a message; never fails, the outcome says it all.
pub(super) async fn send(
    client: &reqwest::Client,
    receiver: &ReceiverConfig,
    message: &Message,
    now_ms: i64,
) -> Outcome {
    let request = match request(client, receiver, message) {
        Ok(request) => request,
        // A missing secret may be mounted later.
        Err(reason) => {
            return Outcome::Retry {
                reason,
                after_ms: None,
            };
        }
    };
    match request.send().await {
        Ok(response) => read(response, now_ms).await,
        Err(e) if e.is_builder() => Outcome::Rejected {
            reason: format!("the request cannot be built: {}", e.without_url()),
        },
        Err(e) => Outcome::Retry {
            reason: causes(&e.without_url()),
            after_ms: None,
        },
    }
}

fn request(
    client: &reqwest::Client,
    receiver: &ReceiverConfig,
    message: &Message,
) -> Result<reqwest::RequestBuilder, String> {
    Ok(match receiver.kind()? {
        ReceiverKind::PagerDuty(p) => client
            .post(&p.url)
            .json(&pagerduty::body(message, &p.routing_key.reveal()?)),
        ReceiverKind::Slack(s) => client.post(s.url.reveal()?).json(&slack::body(message)),
        ReceiverKind::Webhook(w) => {
            let request = client
                .post(w.url.reveal()?)
                .json(&webhook::body(message, &receiver.name));
            match &w.bearer_token {
                Some(token) => request.bearer_auth(token.reveal()?),
                None => request,
            }
        }
    })
}

async fn read(response: reqwest::Response, now_ms: i64) -> Outcome {
    let status = response.status();
    let header = response.headers().get(reqwest::header::RETRY_AFTER);
    let after_ms = header
        .and_then(|v| v.to_str().ok())
        .and_then(|v| backoff::retry_after_ms(v, now_ms));
    if status.is_success() {
        return Outcome::Delivered;
    }
    let quoted = quote(response).await;
    let reason = match quoted.as_str() {
        "" => format!("status {}", status.as_u16()),
        text => format!("status {}: {text}", status.as_u16()),
    };
    let retry = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
    if retry {
        Outcome::Retry { reason, after_ms }
    } else {
        Outcome::Rejected { reason }
    }
}

/// The beginning of the answer, on one line; at most a few kilobytes are read.
async fn quote(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < 4 * QUOTED {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            _ => break,
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(QUOTED).collect()
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.chars().take(2 * QUOTED).collect()
}
