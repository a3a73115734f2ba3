//! Owns the report's JSON: Artillery's schema (`aggregate`, `intermediate`) plus the `nines` object.
//! Only reads a [`Report`].

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use crate::hdr;
use crate::report::{Phases, Quantiles, Report, RouteSecond, Second};

impl Report {
    /// The report as Artillery's JSON with a `nines` object. Artillery's figures are milliseconds and its
    /// `http.response_time` is the time to first byte; the `nines` figures are microseconds.
    pub fn to_json(&self) -> Value {
        let mut nines = self.nines();
        nines[PER_SECOND] = self.per_second.iter().map(plain_second).collect();
        let intermediate: Vec<Value> = self.intermediate().collect();
        json!({ "aggregate": self.aggregate(), "intermediate": intermediate, "nines": nines })
    }

    /// Writes [`Report::to_json`], indented, with only one second in memory as JSON, which takes many times the room.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: impl std::io::Write) -> std::io::Result<()> {
        serde_json::to_writer_pretty(out, &Written(self)).map_err(Into::into)
    }

    fn aggregate(&self) -> Value {
        let mut counters = Map::new();
        let errors = self.error_count();
        add_counts(&mut counters, self.requests, self.responses, errors);
        counters.insert("http.downloaded_bytes".into(), self.bytes.into());
        add_codes(&mut counters, &self.status, &self.errors);
        let mut summaries = Map::new();
        summaries.insert(
            "http.response_time".into(),
            summary(Quantiles::of(&self.phases.first_byte)),
        );
        summaries.insert(
            "http.total".into(),
            summary(Quantiles::of(&self.service_time)),
        );
        summaries.insert(
            "vusers.session_length".into(),
            summary(Quantiles::of(&self.latency)),
        );
        if !self.phases.connect.is_empty() {
            summaries.insert(
                "http.tcp".into(),
                summary(Quantiles::of(&self.phases.connect)),
            );
        }
        if !self.phases.tls.is_empty() {
            summaries.insert("http.tls".into(), summary(Quantiles::of(&self.phases.tls)));
        }
        for (name, route) in &self.routes {
            let key = "plugins.metrics-by-endpoint";
            for (status, count) in &route.status {
                counters.insert(format!("{key}.{name}.codes.{status}"), (*count).into());
            }
            let times = summary(Quantiles::of(&route.service_time));
            summaries.insert(format!("{key}.response_time.{name}"), times);
        }
        let last_ms = self.started_ms + (self.duration_s * 1e3) as i64;
        let rate = self.requests as f64 / self.duration_s.max(1e-9);
        part(
            counters,
            summaries,
            rate,
            self.started_ms,
            (self.started_ms, last_ms),
        )
    }

    /// The measured seconds in Artillery's terms.
    fn intermediate(&self) -> impl Iterator<Item = Value> {
        let warm_up = self.warm_up_s();
        let measured = self.per_second.iter().filter(|s| !s.warm_up);
        measured.map(move |s| second(s, self.started_ms + ((s.at_s - warm_up) * 1e3) as i64))
    }

    /// The `nines` object but for its seconds.
    fn nines(&self) -> Value {
        let routes: Map<String, Value> = self
            .routes
            .iter()
            .map(|(name, r)| {
                let value = json!({
                    "requests": r.requests, "responses": r.responses, "errors": r.errors, "status": r.status,
                    "latency_us": quantiles(&r.latency), "service_time_us": quantiles(&r.service_time),
                    "hdr": { "latency": hdr::encode(&r.latency), "service_time": hdr::encode(&r.service_time) },
                });
                (name.clone(), value)
            })
            .collect();
        json!({
            "run_id": self.run_id,
            "scenario": self.scenario,
            "shard": self.shard.map(|(number, of)| [number, of]),
            "target": self.target,
            "started_ms": self.started_ms,
            "duration_s": self.duration_s,
            "valid": self.valid,
            "reasons": self.reasons,
            "stopped": self.stopped,
            "planned": self.planned,
            "requests": self.requests,
            "responses": self.responses,
            "errors": self.errors,
            "status": self.status,
            "unsent": self.unsent,
            "reconnects": self.reconnects,
            "connections_opened": self.connections_opened,
            "waited_for_connection": self.waited_for_connection,
            "bytes": self.bytes,
            "counts": self.counts,
            "latency_us": quantiles(&self.latency),
            "service_time_us": quantiles(&self.service_time),
            "failure_time_us": quantiles(&self.failure_time),
            "timeouts": self.timeouts,
            "phases_us": phases(&self.phases),
            "late_us": { "0.5": self.late_p50_us, "0.99": self.late_p99_us },
            "late_sends": self.late_sends,
            "engine": self.own.engine,
            "client": { "threads": self.own.threads, "cpu_s": self.own.cpu_s, "busy": self.own.busy, "kept_awake": self.own.kept_awake },
            "unsent_wait_us": quantiles(&self.unsent_wait),
            "routes": routes,
            "step_s": self.step_s(),
            PER_SECOND: null,
            "hdr": self.encoded(),
        })
    }

    /// Every histogram without loss.
    fn encoded(&self) -> Map<String, Value> {
        let own = [
            ("latency", &self.latency),
            ("service_time", &self.service_time),
            ("failure_time", &self.failure_time),
            ("unsent_wait", &self.unsent_wait),
        ];
        own.into_iter()
            .chain(self.phases.named())
            .map(|(name, h)| (name.to_owned(), hdr::encode(h).into()))
            .collect()
    }
}

const PER_SECOND: &str = "per_second";

/// A report that is written piece by piece.
struct Written<'a>(&'a Report);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(3))?;
        map.serialize_entry("aggregate", &self.0.aggregate())?;
        map.serialize_entry("intermediate", &Each(|| self.0.intermediate()))?;
        map.serialize_entry("nines", &WrittenNines(self.0))?;
        map.end()
    }
}

struct WrittenNines<'a>(&'a Report);

impl Serialize for WrittenNines<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.nines();
        let mut map = to.serialize_map(None)?;
        for (name, value) in fields.as_object().into_iter().flatten() {
            if name == PER_SECOND {
                map.serialize_entry(name, &Each(|| self.0.per_second.iter().map(plain_second)))?;
            } else {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// A list whose values are made as they are written.
struct Each<F>(F);

impl<I: Iterator<Item = Value>, F: Fn() -> I> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq((self.0)())
    }
}

/// A second in the terms of the `nines` object.
fn plain_second(s: &Second) -> Value {
    let mut value = json!({
        "at_s": s.at_s, "length_s": s.length_s, "warm_up": s.warm_up, "offered": s.offered,
        "sent": s.sent, "responses": s.responses, "status": s.status, "errors": s.error_kinds,
        "latency_us": brief(s.latency), "first_byte_us": brief(s.first_byte),
    });
    if !s.routes.is_empty() {
        let row = |r: &RouteSecond| [r.count, r.p50, r.p95, r.p99];
        value["routes_us"] = json!(s.routes.iter().map(row).collect::<Vec<_>>());
    }
    if let Some(hdr) = &s.hdr {
        value["hdr"] = hdr.as_str().into();
    }
    value
}

/// Artillery counts virtual users; here each request is one.
fn add_counts(counters: &mut Map<String, Value>, requests: u64, responses: u64, errors: u64) {
    for (name, count) in [
        ("vusers.created", requests),
        ("vusers.completed", responses),
        ("vusers.failed", errors),
        ("http.requests", requests),
        ("http.responses", responses),
    ] {
        counters.insert(name.into(), count.into());
    }
}

fn add_codes(
    counters: &mut Map<String, Value>,
    status: &BTreeMap<u16, u64>,
    errors: &BTreeMap<String, u64>,
) {
    for (status, count) in status {
        counters.insert(format!("http.codes.{status}"), (*count).into());
    }
    for (kind, count) in errors {
        // Two kinds may share a code.
        let entry = counters
            .entry(format!("errors.{}", node_code(kind)))
            .or_insert(Value::from(0_u64));
        *entry = (entry.as_u64().unwrap_or(0) + count).into();
    }
}

fn part(
    counters: Map<String, Value>,
    summaries: Map<String, Value>,
    rate: f64,
    period: i64,
    (first, last): (i64, i64),
) -> Value {
    json!({
        "counters": counters,
        "rates": { "http.request_rate": rate.round() as u64 },
        "firstCounterAt": first, "firstHistogramAt": first, "lastCounterAt": last, "lastHistogramAt": last,
        "firstMetricAt": first, "lastMetricAt": last,
        "period": period,
        "histograms": summaries.clone(),
        "summaries": summaries,
    })
}

fn second(s: &Second, at_ms: i64) -> Value {
    let mut counters = Map::new();
    add_counts(&mut counters, s.sent, s.responses, s.errors);
    add_codes(&mut counters, &s.status, &s.error_kinds);
    let mut summaries = Map::new();
    if s.first_byte.count > 0 {
        summaries.insert("http.response_time".into(), summary(s.first_byte));
    }
    if s.latency.count > 0 {
        summaries.insert("vusers.session_length".into(), summary(s.latency));
    }
    let rate = s.sent as f64 / s.length_s.max(1e-9);
    part(
        counters,
        summaries,
        rate,
        at_ms,
        (at_ms, at_ms + (s.length_s * 1e3) as i64),
    )
}

/// Artillery's summary in milliseconds; zeros when empty (Artillery itself prints Infinity and NaN).
fn summary(q: Quantiles) -> Value {
    let ms = |us: u64| us as f64 / 1e3;
    json!({
        "min": ms(q.min), "max": ms(q.max), "count": q.count, "mean": q.mean.round() / 1e3,
        "p50": ms(q.p50), "median": ms(q.p50), "p75": ms(q.p75), "p90": ms(q.p90), "p95": ms(q.p95),
        "p99": ms(q.p99), "p999": ms(q.p999),
    })
}

/// The phases of requests by name, each as [`quantiles`].
fn phases(phases: &Phases) -> Map<String, Value> {
    let all = phases.named().into_iter();
    all.map(|(name, h)| (name.to_owned(), quantiles(h)))
        .collect()
}

/// An empty histogram has a count and nothing else: absence is not zero.
fn quantiles(h: &Histogram<u64>) -> Value {
    brief(Quantiles::of(h))
}

fn brief(q: Quantiles) -> Value {
    if q.count == 0 {
        return json!({ "count": 0 });
    }
    json!({
        "count": q.count, "min": q.min, "mean": q.mean, "max": q.max, "0.25": q.p25, "0.5": q.p50, "0.75": q.p75,
        "0.9": q.p90, "0.95": q.p95, "0.99": q.p99, "0.999": q.p999,
    })
}

/// The name Node, and so Artillery, gives to a kind of failure.
fn node_code(kind: &str) -> String {
    match kind {
        "refused" => "ECONNREFUSED".to_owned(),
        "reset" | "closed" => "ECONNRESET".to_owned(),
        "timeout" => "ETIMEDOUT".to_owned(),
        "dns" => "ENOTFOUND".to_owned(),
        "unreachable" => "EHOSTUNREACH".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_piece_by_piece_is_the_whole() {
        let mut report = crate::report::sample();
        report.per_second[0].warm_up = true;
        let mut written = Vec::new();
        report.write_json(&mut written).unwrap();
        let whole = serde_json::to_string_pretty(&report.to_json()).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), whole);
        let seconds = &report.to_json()["nines"]["per_second"];
        assert_eq!(seconds.as_array().unwrap().len(), 10);
        assert_eq!(
            report.to_json()["intermediate"].as_array().unwrap().len(),
            9
        );
    }
}
