//! Numbers that the agent looks up about itself: store, segments, budget, memory.
//!
//! Owns where each is found. Must not know who shows them.

use store::{Offender, Scope};

use crate::api::Api;
use crate::clock;
use crate::telemetry::Telemetry;

/// Metrics and sources past their limits that are shown.
const MAX_OFFENDERS: usize = 20;

/// Sets every gauge that is looked up rather than counted.
pub(crate) fn look_up(api: &Api) {
    let t = &api.telemetry;
    let stats = api.store.stats();
    t.set("store_series", stats.series as u64);
    t.set("store_samples_appended", stats.appended);
    t.set("store_head_samples", stats.head_samples);
    t.set("store_head_bytes", stats.head_bytes);
    t.set("store_log_bytes", stats.log_bytes);
    t.set("store_out_of_order", stats.out_of_order);
    t.set("store_duplicates", stats.duplicates);
    t.set("store_rejected_cardinality", stats.rejected_cardinality);
    t.set("store_blocks", stats.blocks as u64);
    t.set("store_block_bytes", stats.block_bytes);
    t.set("store_failed_syncs", stats.failed_syncs);
    t.set("store_exemplars", stats.exemplars as u64);
    t.set("store_full", u64::from(stats.full));
    t.set("store_refused_full", stats.refused_full);
    t.set("store_expired_samples", stats.expired_samples);
    t.set("store_expired_blocks", stats.expired_blocks);
    t.set("store_damaged_blocks", stats.damaged_blocks);
    t.set("store_corrupt_reads", stats.corrupt_reads);
    t.set("store_failed_maintenance", stats.failed_maintenance);
    t.set("store_torn_bytes", stats.recovery.torn_bytes);
    t.set("store_damaged_bytes", stats.recovery.damaged_bytes);
    blame(t, stats.offenders);
    for (name, stats) in [
        ("traces", api.pipeline.traces.stats()),
        ("logs", api.pipeline.logs.stats()),
    ] {
        t.set(&format!("{name}_disk_bytes"), stats.bytes);
        t.set(&format!("{name}_blocks"), stats.blocks as u64);
        t.set(&format!("{name}_items"), stats.items);
        t.set(&format!("{name}_expired_items"), stats.expired.items);
        t.set(&format!("{name}_damaged"), stats.damaged);
    }
    t.set("in_flight_bytes", api.limits.budget.used() as u64);
    t.set("in_flight_limit_bytes", api.limits.budget.limit() as u64);
    t.set("resident_bytes", resident_bytes());
}

/// Shows the metrics and sources that are furthest past their limits on series, and says each once.
fn blame(telemetry: &Telemetry, mut offenders: Vec<Offender>) {
    offenders.sort_by_key(|o| std::cmp::Reverse(o.excess));
    for offender in offenders.iter().take(MAX_OFFENDERS) {
        let scope = match offender.scope {
            Scope::Metric => "metric",
            Scope::Source => "source",
            Scope::Store => "store",
        };
        let Offender { name, label, .. } = offender;
        if telemetry.cardinality(scope, name, label, offender.excess) {
            tracing::warn!(
                scope,
                name,
                label,
                values = offender.distinct_values,
                limit = offender.limit,
                "too many series: further ones fold into one, or are refused; the label has the most values"
            );
        }
    }
}

/// Writes the agent's own metrics into its own store.
pub(crate) fn append_own(api: &Api) {
    look_up(api);
    let samples = api.telemetry.samples(&api.instance, clock::now_ms());
    api.pipeline.ingest.append(&samples);
}

/// Items received of one signal.
pub(crate) fn received(telemetry: &Telemetry, signal: &str) -> u64 {
    ["grpc", "http", "collected", "remote_write"]
        .iter()
        .map(|transport| {
            telemetry
                .received
                .with_label_values(&[signal, transport])
                .get()
        })
        .sum()
}

/// Bytes on disk: the log, blocks, traces and logs.
pub(crate) fn disk_bytes(api: &Api) -> u64 {
    let store = api.store.stats();
    store.log_bytes
        + store.block_bytes
        + api.pipeline.traces.stats().bytes
        + api.pipeline.logs.stats().bytes
}

/// Resident memory of this process; 0 where `/proc` does not say.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
