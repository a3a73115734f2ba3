//! What handlers share.
//!
//! Owns the handle and the way work leaves the async threads. Must not know routes.

use std::sync::Arc;

use store::Store;
use tokio::sync::Semaphore;

use super::respond::ApiError;
use crate::config::Config;
use crate::judge::Judge;
use crate::pipeline::Pipeline;
use crate::receive::body::BodyLimits;
use crate::telemetry::Telemetry;

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    pub pipeline: Arc<Pipeline>,
    pub store: Store,
    pub telemetry: Arc<Telemetry>,
    pub config: Arc<Config>,
    pub judge: Arc<Judge>,
    pub engine: promql::Engine,
    /// One permit for each query that may run.
    pub turns: Arc<Semaphore>,
    pub limits: BodyLimits,
    pub token: Option<Arc<str>>,
    /// The instance label of the agent's own series.
    pub instance: Arc<str>,
}

/// Runs blocking work and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(ApiError::new("internal", "the worker failed")))
}
