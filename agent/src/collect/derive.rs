//! Series that follow from an application's own metrics: pools and queues in the uniform USE view, cache hits.
//!
//! Owns which scraped names mean what. Must not know how they were scraped. Pure: readings in, readings out.

use std::collections::BTreeMap;

use model::{Labels, LabelsBuilder};

/// What a scraped series contributes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    PoolInUse,
    PoolMax,
    PoolWaiters,
    QueueDepth,
    DeadLetters,
    Cache,
}

/// The role of a series, by its name.
pub(super) fn role(labels: &Labels) -> Option<Role> {
    match labels.name() {
        "db_pool_in_use" => Some(Role::PoolInUse),
        "db_pool_max" => Some(Role::PoolMax),
        "db_pool_waiters" => Some(Role::PoolWaiters),
        "queue_depth" => Some(Role::QueueDepth),
        "dlq_depth" => Some(Role::DeadLetters),
        "cache_requests_total" => Some(Role::Cache),
        _ => None,
    }
}

/// The derived readings of one scrape, in the order of their labels.
pub(super) fn derive(readings: &[(Role, Labels, f64)]) -> Vec<(Labels, f64)> {
    let mut out: BTreeMap<Labels, f64> = BTreeMap::new();
    let max_of = |pool: Option<&str>| {
        readings
            .iter()
            .find(|(role, labels, _)| *role == Role::PoolMax && labels.get("pool") == pool)
            .map(|(_, _, max)| *max)
    };
    for (role, labels, value) in readings {
        let pool = labels.get("pool");
        match role {
            Role::PoolInUse => {
                if let Some(max) = max_of(pool).filter(|max| *max > 0.0) {
                    let key = uniform(labels, "nines_use_utilization_ratio", "db_pool", "pool", "");
                    out.insert(key, value / max);
                }
            }
            Role::PoolWaiters => {
                let key = uniform(labels, "nines_use_saturation", "db_pool", "pool", "waiters");
                out.insert(key, *value);
            }
            Role::QueueDepth => {
                let key = uniform(labels, "nines_use_saturation", "queue", "queue", "messages");
                out.insert(key, *value);
            }
            Role::DeadLetters => {
                let key = uniform(
                    labels,
                    "nines_use_saturation",
                    "queue",
                    "queue",
                    "dead_letters",
                );
                out.insert(key, *value);
            }
            Role::PoolMax => {}
            Role::Cache => {
                let name = match labels.get("result") {
                    Some("hit") => "nines_cache_hits_total",
                    Some("miss") => "nines_cache_misses_total",
                    _ => continue,
                };
                let mut builder = target_labels(labels);
                builder.set("__name__", name).set("source", "app");
                builder.set("tier", labels.get("tier").unwrap_or(""));
                *out.entry(builder.build()).or_insert(0.0) += value;
            }
        }
    }
    out.into_iter().collect()
}

fn target_labels(labels: &Labels) -> LabelsBuilder {
    labels
        .retain(|n| n == "job" || n == "instance")
        .to_builder()
}

fn uniform(labels: &Labels, name: &str, kind: &str, resource: &str, unit: &str) -> Labels {
    let mut builder = target_labels(labels);
    builder
        .set("__name__", name)
        .set("kind", kind)
        .set("unit", unit);
    builder.set("resource", labels.get(resource).unwrap_or(kind));
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_queues_and_caches_join_the_uniform_view() {
        let reading = |name: &str, label: (&str, &str), result: &str, v| {
            let labels = Labels::from_pairs([
                ("__name__", name),
                label,
                ("result", result),
                ("instance", "i"),
            ]);
            (role(&labels).unwrap(), labels, v)
        };
        let derived = derive(&[
            reading("db_pool_in_use", ("pool", "primary"), "", 3.0),
            reading("db_pool_max", ("pool", "primary"), "", 4.0),
            reading("db_pool_waiters", ("pool", "primary"), "", 7.0),
            reading("db_pool_in_use", ("pool", "unknown_max"), "", 3.0),
            reading("queue_depth", ("queue", "orders"), "", 9.0),
            reading("cache_requests_total", ("tier", "l1"), "hit", 90.0),
            reading("cache_requests_total", ("tier", "l1"), "miss", 10.0),
            reading("cache_requests_total", ("tier", "l1"), "bypass", 5.0),
        ]);
        let text: Vec<String> = derived.iter().map(|(l, v)| format!("{l} {v}")).collect();
        assert_eq!(
            text,
            [
                r#"nines_cache_hits_total{instance="i", source="app", tier="l1"} 90"#,
                r#"nines_cache_misses_total{instance="i", source="app", tier="l1"} 10"#,
                r#"nines_use_saturation{instance="i", kind="db_pool", resource="primary", unit="waiters"} 7"#,
                r#"nines_use_saturation{instance="i", kind="queue", resource="orders", unit="messages"} 9"#,
                r#"nines_use_utilization_ratio{instance="i", kind="db_pool", resource="primary"} 0.75"#,
            ]
        );
    }
}
