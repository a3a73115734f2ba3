//! Owns reading a report back from its JSON: every count and every histogram without loss.
//! Only builds a [`Report`].

use std::collections::BTreeMap;
use std::str::FromStr;

use hdrhistogram::Histogram;
use serde_json::{Map, Value};

use crate::hdr;
use crate::report::{Own, Phases, Quantiles, Report, RouteReport, RouteSecond, Second};

/// Why a file is not a stored run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read the run: {at}: {why}")]
pub struct StoredError {
    /// The field, as a path.
    pub at: String,
    /// What is wrong with it.
    pub why: String,
}

/// A JSON object and the path that led to it.
struct At<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

type Read<T> = Result<T, StoredError>;

impl<'a> At<'a> {
    fn wrong(&self, key: &str, why: impl Into<String>) -> StoredError {
        StoredError {
            at: format!("{}.{key}", self.path),
            why: why.into(),
        }
    }

    fn value(&self, key: &str) -> Read<&'a Value> {
        self.map.get(key).ok_or_else(|| {
            self.wrong(
                key,
                "missing; the file is not a JSON report of this version of nines",
            )
        })
    }

    fn get<T>(&self, key: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Read<T> {
        read(self.value(key)?).ok_or_else(|| self.wrong(key, format!("expected {what}")))
    }

    fn u64(&self, key: &str) -> Read<u64> {
        self.get(key, "a whole number", Value::as_u64)
    }

    fn f64(&self, key: &str) -> Read<f64> {
        self.get(key, "a number", Value::as_f64)
    }

    fn bool(&self, key: &str) -> Read<bool> {
        self.get(key, "true or false", Value::as_bool)
    }

    fn text(&self, key: &str) -> Read<String> {
        self.get(key, "a text", Value::as_str).map(str::to_owned)
    }

    fn object(&self, key: &str) -> Read<At<'a>> {
        let map = self.get(key, "an object", Value::as_object)?;
        let path = format!("{}.{key}", self.path);
        Ok(At { map, path })
    }

    fn list(&self, key: &str) -> Read<&'a Vec<Value>> {
        self.get(key, "a list", Value::as_array)
    }

    fn counts<K: FromStr + Ord>(&self, key: &str) -> Read<BTreeMap<K, u64>> {
        let object = self.object(key)?;
        let each = object.map.iter().map(|(k, v)| {
            let pair = k.parse().ok().zip(v.as_u64());
            pair.ok_or_else(|| object.wrong(k, "expected a count"))
        });
        each.collect()
    }

    fn histogram(&self, key: &str) -> Read<Histogram<u64>> {
        let read = hdr::decode(&self.text(key)?).map_err(|why| self.wrong(key, why))?;
        let mut ours = crate::stats::histogram();
        ours.add(&read)
            .map_err(|e| self.wrong(key, format!("beyond our range: {e}")))?;
        Ok(ours)
    }

    fn quantiles(&self, key: &str) -> Read<Quantiles> {
        let q = self.object(key)?;
        let count = q.u64("count")?;
        if count == 0 {
            return Ok(Quantiles::default());
        }
        Ok(Quantiles {
            count,
            min: q.u64("min")?,
            max: q.u64("max")?,
            mean: q.f64("mean")?,
            p25: q.map.get("0.25").and_then(Value::as_u64).unwrap_or(0),
            p50: q.u64("0.5")?,
            p75: q.u64("0.75")?,
            p90: q.u64("0.9")?,
            p95: q.u64("0.95")?,
            p99: q.u64("0.99")?,
            p999: q.u64("0.999")?,
        })
    }
}

impl Report {
    /// Reads what [`Report::to_json`] wrote.
    ///
    /// # Errors
    /// [`StoredError`] names the first field that is missing or wrong.
    pub fn from_json(json: &Value) -> Result<Report, StoredError> {
        let root = At {
            map: json.as_object().ok_or_else(|| StoredError {
                at: "the file".to_owned(),
                why: "expected a JSON object".to_owned(),
            })?,
            path: String::new(),
        };
        let n = root.object("nines")?;
        let hdr = n.object("hdr")?;
        let late = n.object("late_us")?;
        let routes = routes(&n)?;
        let mut per_second = Vec::new();
        for (i, value) in n.list("per_second")?.iter().enumerate() {
            let path = format!("nines.per_second[{i}]");
            let map = value.as_object().ok_or_else(|| StoredError {
                at: path.clone(),
                why: "expected an object".to_owned(),
            })?;
            per_second.push(second(&At { map, path })?);
        }
        let reasons = n.list("reasons")?.iter().filter_map(Value::as_str);
        Ok(Report {
            run_id: n.text("run_id")?,
            scenario: n.text("scenario")?,
            shard: n.map.get("shard").and_then(Value::as_array).and_then(|s| {
                let part = |i: usize| u32::try_from(s.get(i)?.as_u64()?).ok();
                part(0).zip(part(1))
            }),
            target: n.text("target")?,
            started_ms: n.get("started_ms", "a whole number", Value::as_i64)?,
            duration_s: n.f64("duration_s")?,
            planned: n.u64("planned")?,
            requests: n.u64("requests")?,
            responses: n.u64("responses")?,
            errors: n.counts("errors")?,
            status: n.counts("status")?,
            bytes: n.u64("bytes")?,
            reconnects: n.u64("reconnects")?,
            connections_opened: n.u64("connections_opened")?,
            waited_for_connection: n.u64("waited_for_connection")?,
            latency: hdr.histogram("latency")?,
            failure_time: hdr.histogram("failure_time")?,
            service_time: hdr.histogram("service_time")?,
            phases: Phases {
                generator: hdr.histogram("generator_wait")?,
                connection: hdr.histogram("connection_wait")?,
                connect: hdr.histogram("connect")?,
                tls: hdr.histogram("tls")?,
                first_byte: hdr.histogram("first_byte")?,
                transfer: hdr.histogram("transfer")?,
            },
            late_p50_us: late.u64("0.5")?,
            late_p99_us: late.u64("0.99")?,
            timeouts: n.u64("timeouts")?,
            unsent: n.u64("unsent")?,
            unsent_wait: hdr.histogram("unsent_wait")?,
            stopped: n.bool("stopped")?,
            valid: n.bool("valid")?,
            reasons: reasons.map(str::to_owned).collect(),
            per_second,
            // Reports written before there were any have none.
            counts: match n.map.get("counts") {
                Some(_) => n.counts("counts")?,
                None => BTreeMap::new(),
            },
            routes,
            late_sends: n.map.get("late_sends").and_then(Value::as_u64).unwrap_or(0),
            own: own(&n),
        })
    }
}

/// Reports of versions before 0.2 say nothing of it.
fn own(n: &At<'_>) -> Own {
    let text = |key: &str| n.map.get(key).and_then(Value::as_str);
    let client = |key: &str| n.map.get("client").and_then(|c| c.get(key));
    let number = |key: &str| client(key).and_then(Value::as_f64);
    Own {
        engine: text("engine").unwrap_or_default().to_owned(),
        threads: number("threads").unwrap_or(0.0) as u32,
        cpu_s: number("cpu_s").unwrap_or(0.0),
        busy: number("busy").unwrap_or(0.0),
        kept_awake: client("kept_awake").and_then(Value::as_bool) == Some(true),
    }
}

fn routes(n: &At<'_>) -> Read<BTreeMap<String, RouteReport>> {
    let routes = n.object("routes")?;
    let mut read = BTreeMap::new();
    for name in routes.map.keys() {
        let r = routes.object(name)?;
        let hdr = r.object("hdr")?;
        let report = RouteReport {
            requests: r.u64("requests")?,
            responses: r.u64("responses")?,
            errors: r.counts("errors")?,
            status: r.counts("status")?,
            latency: hdr.histogram("latency")?,
            service_time: hdr.histogram("service_time")?,
        };
        read.insert(name.clone(), report);
    }
    Ok(read)
}

fn second(s: &At<'_>) -> Read<Second> {
    let error_kinds: BTreeMap<String, u64> = s.counts("errors")?;
    let routes = match s.map.get("routes_us") {
        None => Vec::new(),
        Some(_) => s.list("routes_us")?.iter().map(route_second).collect(),
    };
    Ok(Second {
        at_s: s.f64("at_s")?,
        length_s: s.f64("length_s")?,
        warm_up: s.bool("warm_up")?,
        offered: s.f64("offered")?,
        sent: s.u64("sent")?,
        responses: s.u64("responses")?,
        errors: error_kinds.values().sum(),
        status: s.counts("status")?,
        error_kinds,
        latency: s.quantiles("latency_us")?,
        first_byte: s.quantiles("first_byte_us")?,
        routes,
        hdr: s.map.get("hdr").and_then(Value::as_str).map(str::to_owned),
    })
}

fn route_second(value: &Value) -> RouteSecond {
    let at = |i: usize| value.get(i).and_then(Value::as_u64).unwrap_or_default();
    RouteSecond {
        count: at(0),
        p50: at(1),
        p95: at(2),
        p99: at(3),
    }
}
