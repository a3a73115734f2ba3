//! Collectors: what the agent fetches itself (scrapes, probes, the host, resources, tailed files).
//!
//! Owns their configuration and their tasks. Everything they find goes through [`Ingest`]; rows for `/api/v1/targets`
//! through [`Ingest::report_target`]. Who polls also polls on [`Ingest::flushes`]. Must not know the store, the receivers or the HTTP API.

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ingest::Ingest;

/// What is collected.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectConfig {}

/// Starts one task for each collector. Each ends soon after `shutdown` is cancelled. Must be called within a tokio
/// runtime.
pub fn spawn_all(
    config: &CollectConfig,
    ingest: Ingest,
    shutdown: CancellationToken,
) -> Vec<JoinHandle<()>> {
    let _ = (config, ingest, shutdown);
    Vec::new()
}
