//! `POST admin/tsdb/snapshot`, as Prometheus has it: a copy of the samples, beside them, while everything goes on.
//!
//! Owns where snapshots are and how many there may be. Must not know how they are made.

use std::path::Path;

use axum::extract::State;
use axum::response::Response;
use model::timestamp::format_rfc3339;
use serde_json::json;

use super::form::Params;
use super::respond::{ApiError, success};
use super::state::{Api, blocking};
use crate::clock;

/// Snapshots that may be kept: each holds its blocks on the disk for as long as it exists.
const MAX_SNAPSHOTS: usize = 16;

/// `POST admin/tsdb/snapshot?at`: samples up to `at`, all when it is left out. The name is a folder below `snapshots` in
/// the data folder, a store like any other.
pub(super) async fn snapshot(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let at_ms = params.time("at")?.unwrap_or(i64::MAX);
    let done = blocking(move || {
        let dir = api.config.data_dir.join("snapshots");
        let kept = count(&dir);
        if kept >= MAX_SNAPSHOTS {
            return Err(ApiError::new(
                "unavailable",
                format!(
                    "there are {kept} snapshots in {}; delete some",
                    dir.display()
                ),
            ));
        }
        let name = name(clock::now_ms());
        let report = api.store.snapshot(&dir.join(&name), at_ms)?;
        Ok(json!({"name": name, "samples": report.samples}))
    });
    done.await.map(success)
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, |entries| entries.flatten().count())
}

/// `20260102T030405.678Z`.
fn name(now_ms: i64) -> String {
    format_rfc3339(now_ms)
        .chars()
        .filter(|c| !matches!(c, '-' | ':'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names_in_order() {
        let (first, second) = (name(1_700_000_000_123), name(1_700_000_001_000));
        assert!(
            first < second && first.starts_with("20231114T221320"),
            "{first}"
        );
        assert!(first.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'));
    }
}
