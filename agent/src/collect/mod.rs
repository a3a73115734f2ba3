//! Collectors: what the agent fetches itself (scrapes, probes, the host, resources, tailed files).
//!
//! Owns their configuration and their tasks. Everything they find goes through [`Ingest`]; rows for `/api/v1/targets`
//! through [`Ingest::report_target`]. Must not know the store, the receivers or the HTTP API.

pub mod config;
mod derive;
mod discover;
pub mod exposition;
mod fetch;
mod host;
pub mod logs;
mod probe;
mod quick_hash;
mod record;
mod resource;
mod rounds;
mod scrape;
#[cfg(test)]
mod testing;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ingest::Ingest;

pub use config::CollectConfig;

/// Starts one task for each collector. Each ends soon after `shutdown` is cancelled. Must be called within a tokio
/// runtime.
pub fn spawn_all(
    config: &CollectConfig,
    ingest: Ingest,
    shutdown: CancellationToken,
) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    let mut start = |task: JoinHandle<()>| tasks.push(task);
    for job in &config.scrape {
        let run = discover::run_job(job.clone(), ingest.clone(), shutdown.clone());
        start(tokio::spawn(run));
    }
    for probe in &config.probes {
        let run = probe::run(probe.clone(), ingest.clone(), shutdown.clone());
        start(tokio::spawn(run));
    }
    if config.host.enabled {
        start(host::spawn(
            config.host.clone(),
            ingest.clone(),
            shutdown.clone(),
        ));
    }
    for task in resource::spawn(config, &ingest, &shutdown) {
        start(task);
    }
    for file in &config.logs {
        let ingest = ingest.clone();
        let keep: logs::Keep = Box::new(move |records| {
            ingest.logs(&records);
        });
        start(tokio::spawn(logs::run(
            file.clone(),
            keep,
            shutdown.clone(),
        )));
    }
    tasks
}
