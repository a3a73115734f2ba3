//! RabbitMQ: the management API's overview, nodes and queues. Its numbers are up to 5 s old.
//!
//! Owns the reading of that JSON. Must not know AMQP.

use std::time::Duration;

use serde_json::Value as Json;

use super::{Collector, errors, saturation, utilization};
use crate::collect::config::RabbitConfig;
use crate::collect::fetch;
use crate::collect::record::Recorder;

const BODY_LIMIT: usize = 16 << 20;

pub(super) struct Rabbit {
    url: String,
    max_queues: usize,
    timeout: Duration,
}

// === impl Rabbit ===

impl Rabbit {
    pub(super) fn new(config: &RabbitConfig) -> Self {
        Rabbit {
            url: config.url.0.trim_end_matches('/').to_owned(),
            max_queues: config.max_queues,
            timeout: config.timeout.duration(),
        }
    }

    async fn get(&self, path: &str) -> Result<Json, String> {
        let url = format!("{}/api/{path}", self.url);
        let request = fetch::Request {
            url: &url,
            body_limit: BODY_LIMIT,
            ..fetch::Request::default()
        };
        let fetched = fetch::get(request, self.timeout).await?;
        if fetched.status != 200 {
            return Err(format!(
                "the management API answered with status {}",
                fetched.status
            ));
        }
        serde_json::from_slice(&fetched.body)
            .map_err(|e| format!("the management API's answer is not JSON: {e}"))
    }
}

impl Collector for Rabbit {
    async fn read(&mut self, r: &mut Recorder, _t_ms: i64) -> Result<(), String> {
        let (overview, nodes, queues) =
            tokio::try_join!(self.get("overview"), self.get("nodes"), self.get("queues"))?;
        report_overview(r, &overview);
        for node in nodes.as_array().into_iter().flatten() {
            report_node(r, node);
        }
        report_queues(r, &queues, self.max_queues);
        Ok(())
    }
}

fn float(json: &Json, pointer: &str) -> Option<f64> {
    json.pointer(pointer)?.as_f64()
}

fn report_overview(r: &mut Recorder, overview: &Json) {
    for (name, key) in [
        ("rabbitmq_connection_count", "connections"),
        ("rabbitmq_channel_count", "channels"),
        ("rabbitmq_queue_count", "queues"),
    ] {
        if let Some(v) = float(overview, &format!("/object_totals/{key}")) {
            r.gauge(name, &[], v);
        }
    }
    for (name, key) in [
        ("rabbitmq_connections_opened_total", "connection_created"),
        ("rabbitmq_connections_closed_total", "connection_closed"),
    ] {
        if let Some(v) = float(overview, &format!("/churn_rates/{key}")) {
            r.counter(name, &[], v);
        }
    }
    let lost = float(overview, "/message_stats/drop_unroutable").unwrap_or(0.0);
    r.counter("rabbitmq_message_dropped_total", &[], lost);
    let returned = float(overview, "/message_stats/return_unroutable").unwrap_or(0.0);
    r.counter("rabbitmq_message_returned_total", &[], returned);
    errors(r, "rabbitmq", "messages", lost + returned);
}

fn report_node(r: &mut Recorder, node: &Json) {
    let name = node.get("name").and_then(Json::as_str).unwrap_or("");
    let base = [("node", name)];
    for (metric, key) in [
        ("rabbitmq_node_memory_used_bytes", "/mem_used"),
        ("rabbitmq_node_memory_limit_bytes", "/mem_limit"),
        ("rabbitmq_node_disk_free_bytes", "/disk_free"),
        ("rabbitmq_node_disk_free_limit_bytes", "/disk_free_limit"),
        ("rabbitmq_node_fd_used", "/fd_used"),
        ("rabbitmq_node_fd_limit", "/fd_total"),
        ("rabbitmq_node_sockets_used", "/sockets_used"),
        ("rabbitmq_node_sockets_limit", "/sockets_total"),
        ("rabbitmq_node_run_queue", "/run_queue"),
        ("rabbitmq_node_uptime_milliseconds", "/uptime"),
    ] {
        if let Some(v) = float(node, key) {
            r.gauge(metric, &base, v);
        }
    }
    let flag = |key: &str| {
        f64::from(u8::from(
            node.get(key).and_then(Json::as_bool) == Some(true),
        ))
    };
    r.gauge("rabbitmq_node_running", &base, flag("running"));
    r.gauge("rabbitmq_node_memory_alarm", &base, flag("mem_alarm"));
    r.gauge("rabbitmq_node_disk_alarm", &base, flag("disk_free_alarm"));
    for (resource, used, limit) in [
        ("memory", "/mem_used", "/mem_limit"),
        ("file_descriptors", "/fd_used", "/fd_total"),
        ("sockets", "/sockets_used", "/sockets_total"),
    ] {
        if let (Some(used), Some(limit)) = (float(node, used), float(node, limit)) {
            utilization(r, "rabbitmq", resource, used, limit);
        }
    }
    saturation(
        r,
        "rabbitmq",
        "node",
        "run_queue",
        float(node, "/run_queue").unwrap_or(0.0),
    );
}

fn report_queues(r: &mut Recorder, queues: &Json, max: usize) {
    let mut queues: Vec<&Json> = queues.as_array().into_iter().flatten().collect();
    let depth = |q: &Json| q.get("messages").and_then(Json::as_u64).unwrap_or(0);
    queues.sort_by_key(|q| std::cmp::Reverse(depth(q)));
    for queue in queues.into_iter().take(max) {
        let text = |key: &str| queue.get(key).and_then(Json::as_str).unwrap_or("");
        let base = [("queue", text("name")), ("vhost", text("vhost"))];
        let with = |state: &'static str| [base[0], base[1], ("state", state)];
        let ready = float(queue, "/messages_ready").unwrap_or(0.0);
        r.gauge("rabbitmq_message_current", &with("ready"), ready);
        r.gauge(
            "rabbitmq_message_current",
            &with("unacknowledged"),
            float(queue, "/messages_unacknowledged").unwrap_or(0.0),
        );
        r.gauge(
            "rabbitmq_consumer_count",
            &base,
            float(queue, "/consumers").unwrap_or(0.0),
        );
        saturation(r, "rabbitmq", text("name"), "messages_ready", ready);
        for (metric, key) in [
            ("rabbitmq_message_published_total", "/message_stats/publish"),
            (
                "rabbitmq_message_delivered_total",
                "/message_stats/deliver_get",
            ),
            ("rabbitmq_message_acknowledged_total", "/message_stats/ack"),
            (
                "rabbitmq_message_redelivered_total",
                "/message_stats/redeliver",
            ),
        ] {
            if let Some(v) = float(queue, key) {
                r.counter(metric, &base, v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::testing::{last, read};
    use crate::ingest::Ingest;
    use serde_json::json;

    #[test]
    fn the_fullest_queues_are_reported() {
        let queues = json!([
            {"name": "a", "vhost": "/", "messages": 1, "messages_ready": 1, "consumers": 2},
            {"name": "b", "vhost": "/", "messages": 9, "messages_ready": 7, "messages_unacknowledged": 2, "message_stats": {"publish": 40}},
        ]);
        let ingest = Ingest::in_memory(1000);
        let mut r = Recorder::new(&[]);
        r.begin(1);
        report_queues(&mut r, &queues, 1);
        report_node(
            &mut r,
            &json!({"name": "n", "mem_used": 50, "mem_limit": 200, "mem_alarm": true}),
        );
        report_overview(&mut r, &json!({"message_stats": {"drop_unroutable": 3}}));
        r.commit(&ingest);
        assert_eq!(read(&ingest, "rabbitmq_consumer_count").len(), 1);
        assert_eq!(
            last(
                &ingest,
                "rabbitmq_message_current",
                &[("queue", "b"), ("state", "ready")]
            ),
            Some(7.0)
        );
        assert_eq!(
            last(
                &ingest,
                "rabbitmq_message_published_total",
                &[("queue", "b")]
            ),
            Some(40.0)
        );
        assert_eq!(
            last(
                &ingest,
                "nines_use_utilization_ratio",
                &[("resource", "memory")]
            ),
            Some(0.25)
        );
        assert_eq!(last(&ingest, "rabbitmq_node_memory_alarm", &[]), Some(1.0));
        assert_eq!(last(&ingest, "nines_use_errors_total", &[]), Some(3.0));
    }
}
