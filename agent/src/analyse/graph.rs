//! The service graph: client and server spans (producer and consumer likewise) paired by trace and parent id.
//!
//! Owns the pairing, its bounded memory and the edges' series. Must not know OTLP's bytes beyond [`SpanView`].
//! A client without a server becomes an edge to a virtual node when it names its peer; a call to a database is one at
//! once. A server whose caller sends no spans has the client `user`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use model::span::{SpanId, SpanKind, SpanStatus, TraceId};
use model::{Labels, METRIC_NAME};

use super::durations::{Durations, Names};
use super::red::clean;
use crate::ingest::Sample;
use crate::receive::spans::{Request, SpanView};

/// Edges with series of their own.
const MAX_EDGES: usize = 10_000;
/// The client of servers whose caller is not observed.
const USER: &str = "user";

/// Pairs spans into edges.
#[derive(Debug)]
pub struct Graph {
    wait_ms: i64,
    max_pending: usize,
    callers: HashMap<Key, Half>,
    callees: HashMap<Key, Half>,
    order: VecDeque<(i64, Side, Key)>,
    edges: HashMap<EdgeKey, Edge>,
    last_flush_ms: i64,
    /// What could not be paired or kept.
    pub counters: Counters,
}

/// What could not be paired or kept, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Spans that found no other half and name no peer.
    pub unpaired: u64,
    /// Halves given up early because too many waited.
    pub evicted: u64,
    /// Calls on edges past the limit.
    pub dropped: u64,
}

type Key = (TraceId, SpanId);
type EdgeKey = (Arc<str>, Arc<str>, Connection);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Caller,
    Callee,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Connection {
    Direct,
    Messaging,
    Database,
    Virtual,
}

#[derive(Debug, Clone)]
struct Half {
    service: Arc<str>,
    peer: Option<Arc<str>>,
    seconds: f64,
    failed: bool,
    messaging: bool,
    paired: bool,
}

#[derive(Debug)]
struct Edge {
    requests: Labels,
    failures: Labels,
    server_names: Names,
    client_names: Names,
    total: u64,
    failed: u64,
    server: Durations,
    client: Durations,
    born: bool,
}

// === impl Graph ===

impl Graph {
    /// Halves wait `wait_ms` for the other one, at most `max_pending` of them. Nothing is written before `started_ms`.
    #[must_use]
    pub fn new(wait_ms: i64, max_pending: usize, started_ms: i64) -> Self {
        Graph {
            wait_ms,
            max_pending: max_pending.max(1),
            callers: HashMap::new(),
            callees: HashMap::new(),
            order: VecDeque::new(),
            edges: HashMap::new(),
            last_flush_ms: started_ms,
            counters: Counters::default(),
        }
    }

    /// Pairs what a request brings.
    pub fn record(&mut self, request: &Request<'_>, now_ms: i64) {
        let services: Vec<Arc<str>> = request
            .services
            .iter()
            .map(|s| Arc::from(clean(s.as_bytes())))
            .collect();
        for span in &request.spans {
            let Some(service) = services.get(span.service) else {
                continue;
            };
            match span.kind {
                SpanKind::Client | SpanKind::Producer => self.caller(service, span, now_ms),
                SpanKind::Server | SpanKind::Consumer => self.callee(service, span, now_ms),
                SpanKind::Internal | SpanKind::Unspecified => {}
            }
        }
    }

    /// Gives up halves that waited long enough, then writes every edge.
    pub fn flush(&mut self, now_ms: i64, interval_ms: i64, out: &mut Vec<Sample>) {
        self.expire(now_ms);
        let t_ms = now_ms.max(self.last_flush_ms + 2);
        let before_ms = self.last_flush_ms.max(t_ms - interval_ms.max(1));
        self.last_flush_ms = t_ms;
        for edge in self.edges.values_mut() {
            if !edge.born {
                edge.born = true;
                Edge::zero(edge, before_ms, out);
            }
            edge.samples(t_ms, out);
        }
    }

    /// Halves that wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.callers.len() + self.callees.len()
    }

    /// Edges known.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.edges.len()
    }

    fn caller(&mut self, service: &Arc<str>, span: &SpanView<'_>, now_ms: i64) {
        let mut half = half(service, span);
        if !span.db_system.is_empty() {
            let database: Arc<str> = Arc::from(clean(span.db_system));
            self.edge(service, &database, Connection::Database, |edge| {
                edge.count(half.failed);
                edge.client.record(half.seconds);
            });
            return;
        }
        let key = (span.trace_id, span.span_id);
        if let Some(callee) = self.callees.remove(&key) {
            half.paired = true;
            self.pair(&half, &callee);
        }
        self.wait(Side::Caller, key, half, now_ms);
    }

    fn callee(&mut self, service: &Arc<str>, span: &SpanView<'_>, now_ms: i64) {
        let half = half(service, span);
        let parent = (span.trace_id, span.parent_id);
        let key = match span.link {
            Some(link)
                if span.kind == SpanKind::Consumer && !self.callers.contains_key(&parent) =>
            {
                link
            }
            _ => parent,
        };
        if key.1.is_zero() {
            self.lonely_callee(&half);
            return;
        }
        // A caller stays, because one message may have many consumers.
        if let Some(caller) = self.callers.get_mut(&key) {
            caller.paired = true;
            let caller = caller.clone();
            self.pair(&caller, &half);
            return;
        }
        self.wait(Side::Callee, key, half, now_ms);
    }

    fn pair(&mut self, caller: &Half, callee: &Half) {
        let connection = if caller.messaging || callee.messaging {
            Connection::Messaging
        } else {
            Connection::Direct
        };
        let failed = caller.failed || callee.failed;
        self.edge(&caller.service, &callee.service, connection, |edge| {
            edge.count(failed);
            edge.client.record(caller.seconds);
            edge.server.record(callee.seconds);
        });
    }

    fn wait(&mut self, side: Side, key: Key, half: Half, now_ms: i64) {
        while self.pending() >= self.max_pending {
            let Some((_, side, key)) = self.order.pop_front() else {
                break;
            };
            self.counters.evicted += 1;
            self.give_up(side, key);
        }
        self.order.push_back((now_ms + self.wait_ms, side, key));
        match side {
            Side::Caller => self.callers.insert(key, half),
            Side::Callee => self.callees.insert(key, half),
        };
    }

    fn expire(&mut self, now_ms: i64) {
        while let Some((deadline, side, key)) = self.order.front().copied() {
            if deadline > now_ms {
                break;
            }
            self.order.pop_front();
            self.give_up(side, key);
        }
    }

    fn give_up(&mut self, side: Side, key: Key) {
        match side {
            Side::Caller => match self.callers.remove(&key) {
                Some(half) if !half.paired => self.lonely_caller(&half),
                _ => {}
            },
            Side::Callee => {
                if let Some(half) = self.callees.remove(&key) {
                    self.lonely_callee(&half);
                }
            }
        }
    }

    fn lonely_caller(&mut self, half: &Half) {
        let Some(peer) = &half.peer else {
            self.counters.unpaired += 1;
            return;
        };
        let connection = if half.messaging {
            Connection::Messaging
        } else {
            Connection::Virtual
        };
        self.edge(&half.service, peer, connection, |edge| {
            edge.count(half.failed);
            edge.client.record(half.seconds);
        });
    }

    fn lonely_callee(&mut self, half: &Half) {
        if half.messaging {
            self.counters.unpaired += 1;
            return;
        }
        self.edge(
            &Arc::from(USER),
            &half.service,
            Connection::Virtual,
            |edge| {
                edge.count(half.failed);
                edge.server.record(half.seconds);
            },
        );
    }

    fn edge(
        &mut self,
        client: &Arc<str>,
        server: &Arc<str>,
        connection: Connection,
        change: impl FnOnce(&mut Edge),
    ) {
        let key = (Arc::clone(client), Arc::clone(server), connection);
        if !self.edges.contains_key(&key) && self.edges.len() >= MAX_EDGES {
            self.counters.dropped += 1;
            return;
        }
        change(
            self.edges
                .entry(key)
                .or_insert_with(|| Edge::new(client, server, connection)),
        );
    }
}

fn half(service: &Arc<str>, span: &SpanView<'_>) -> Half {
    let peer = [span.peer, span.destination, span.server_address]
        .into_iter()
        .find(|p| !p.is_empty());
    Half {
        service: Arc::clone(service),
        peer: peer.map(|p| Arc::from(clean(p))),
        seconds: span.duration_ns() as f64 / 1e9,
        failed: span.status == SpanStatus::Error,
        messaging: matches!(span.kind, SpanKind::Producer | SpanKind::Consumer)
            || !span.messaging_system.is_empty(),
        paired: false,
    }
}

impl Connection {
    fn label(self) -> &'static str {
        match self {
            Connection::Direct => "",
            Connection::Messaging => "messaging_system",
            Connection::Database => "database",
            Connection::Virtual => "virtual_node",
        }
    }
}

impl Edge {
    fn new(client: &str, server: &str, connection: Connection) -> Self {
        let base = Labels::from_pairs([
            ("client", client),
            ("server", server),
            ("connection_type", connection.label()),
        ]);
        let named = |name: &str| base.with(METRIC_NAME, name);
        Edge {
            requests: named("traces_service_graph_request_total"),
            failures: named("traces_service_graph_request_failed_total"),
            server_names: Names::new("traces_service_graph_request_server_seconds", &base, false),
            client_names: Names::new("traces_service_graph_request_client_seconds", &base, false),
            total: 0,
            failed: 0,
            server: Durations::default(),
            client: Durations::default(),
            born: false,
        }
    }

    fn count(&mut self, failed: bool) {
        self.total += 1;
        self.failed += u64::from(failed);
    }

    fn zero(&self, t_ms: i64, out: &mut Vec<Sample>) {
        out.push(Sample::float(self.requests.clone(), t_ms, 0.0));
        out.push(Sample::float(self.failures.clone(), t_ms, 0.0));
        Durations::default().samples(&self.server_names, t_ms, out);
        Durations::default().samples(&self.client_names, t_ms, out);
    }

    fn samples(&self, t_ms: i64, out: &mut Vec<Sample>) {
        out.push(Sample::float(
            self.requests.clone(),
            t_ms,
            self.total as f64,
        ));
        out.push(Sample::float(
            self.failures.clone(),
            t_ms,
            self.failed as f64,
        ));
        self.server.samples(&self.server_names, t_ms, out);
        self.client.samples(&self.client_names, t_ms, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Value;

    fn span(kind: SpanKind, id: u8, parent: u8) -> SpanView<'static> {
        SpanView {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([id; 8]),
            parent_id: SpanId([parent; 8]),
            kind,
            end_ns: 2_000_000,
            ..SpanView::default()
        }
    }

    fn send(graph: &mut Graph, service: &str, view: SpanView<'_>, now_ms: i64) {
        let request = Request {
            services: vec![service.to_owned()],
            spans: vec![view],
            invalid: 0,
        };
        graph.record(&request, now_ms);
    }

    fn totals(graph: &mut Graph, now_ms: i64) -> Vec<(String, f64)> {
        let mut out = Vec::new();
        graph.flush(now_ms, 1_000, &mut out);
        let mut totals: Vec<(String, f64)> = out
            .iter()
            .filter(|s| s.labels.name() == "traces_service_graph_request_total")
            .filter_map(|s| match s.value {
                Value::Float(v) if v > 0.0 => Some((s.labels.without_name().to_string(), v)),
                _ => None,
            })
            .collect();
        totals.sort_by(|a, b| a.0.cmp(&b.0));
        totals
    }

    #[test]
    fn pairs_in_either_order() {
        let mut graph = Graph::new(10_000, 100, 0);
        send(&mut graph, "gateway", span(SpanKind::Client, 2, 1), 0);
        send(&mut graph, "order", span(SpanKind::Server, 3, 2), 0);
        send(&mut graph, "order", span(SpanKind::Server, 13, 12), 0);
        send(&mut graph, "gateway", span(SpanKind::Client, 12, 1), 0);
        let edge = (r#"{client="gateway", server="order"}"#.to_owned(), 2.0);
        assert_eq!(totals(&mut graph, 1), std::slice::from_ref(&edge));
        assert_eq!(totals(&mut graph, 20_000), [edge], "no virtual node later");
        assert_eq!(graph.pending(), 0);
    }

    #[test]
    fn virtual_nodes_at_expiry_databases_at_once() {
        let mut graph = Graph::new(10_000, 100, 0);
        let db = SpanView {
            db_system: b"redis",
            ..span(SpanKind::Client, 5, 1)
        };
        send(&mut graph, "order", db, 0);
        let out = SpanView {
            peer: b"stripe",
            ..span(SpanKind::Client, 6, 1)
        };
        send(&mut graph, "order", out, 0);
        send(&mut graph, "order", span(SpanKind::Client, 7, 1), 0);
        send(&mut graph, "gateway", span(SpanKind::Server, 8, 99), 0);
        send(&mut graph, "gateway", span(SpanKind::Server, 9, 0), 0);
        assert_eq!(totals(&mut graph, 1).len(), 2);
        let text: Vec<String> = totals(&mut graph, 10_001)
            .into_iter()
            .map(|(l, v)| format!("{l} {v}"))
            .collect();
        assert_eq!(
            text,
            [
                r#"{client="order", connection_type="database", server="redis"} 1"#,
                r#"{client="order", connection_type="virtual_node", server="stripe"} 1"#,
                r#"{client="user", connection_type="virtual_node", server="gateway"} 2"#,
            ]
        );
        assert_eq!(graph.counters.unpaired, 1);
    }

    #[test]
    fn a_message_may_have_many_consumers() {
        let mut graph = Graph::new(10_000, 100, 0);
        send(&mut graph, "order", span(SpanKind::Producer, 2, 1), 0);
        send(&mut graph, "email", span(SpanKind::Consumer, 3, 2), 0);
        let linked = SpanView {
            link: Some((TraceId([1; 16]), SpanId([2; 8]))),
            trace_id: TraceId([4; 16]),
            ..span(SpanKind::Consumer, 4, 0)
        };
        send(&mut graph, "billing", linked, 0);
        assert_eq!(
            totals(&mut graph, 1)
                .iter()
                .map(|(l, _)| l.as_str())
                .collect::<Vec<_>>(),
            [
                r#"{client="order", connection_type="messaging_system", server="billing"}"#,
                r#"{client="order", connection_type="messaging_system", server="email"}"#,
            ]
        );
    }

    #[test]
    fn the_map_is_bounded_and_evictions_are_counted() {
        let mut graph = Graph::new(10_000, 3, 0);
        for id in 1..=10 {
            send(&mut graph, "a", span(SpanKind::Client, id, 0), 0);
        }
        assert!(graph.pending() <= 3);
        assert_eq!((graph.counters.evicted, graph.counters.unpaired), (7, 7));
    }
}
