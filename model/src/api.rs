//! The HTTP API's paths and JSON bodies: Prometheus' own where Prometheus has one, ours under `/api/nines/v1`.
//!
//! Owns names and shapes, for the agent that answers and the client that asks. Must not know HTTP libraries.
//! Prometheus writes samples as `[seconds, "value"]`, values as text so that NaN and infinities survive JSON.

mod answer;
mod silence;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::histogram::NativeHistogram;
use crate::labels::Labels;
use crate::query::{QueryData, RangeSeries, VectorElement};
use crate::sample::{Points, Value};

pub use answer::AnswerText;
pub use silence::SilenceMatcher;

/// Paths of the API.
pub mod path {
    /// Instant query.
    pub const QUERY: &str = "/api/v1/query";
    /// Range query.
    pub const QUERY_RANGE: &str = "/api/v1/query_range";
    /// Series by matcher.
    pub const SERIES: &str = "/api/v1/series";
    /// Label names.
    pub const LABELS: &str = "/api/v1/labels";
    /// Values of a label; `{name}` is the label.
    pub const LABEL_VALUES: &str = "/api/v1/label/{name}/values";
    /// Metadata by metric.
    pub const METADATA: &str = "/api/v1/metadata";
    /// Exemplars of a query's series.
    pub const EXEMPLARS: &str = "/api/v1/query_exemplars";
    /// Pretty-prints a query.
    pub const FORMAT_QUERY: &str = "/api/v1/format_query";
    /// A query's syntax tree.
    pub const PARSE_QUERY: &str = "/api/v1/parse_query";
    /// Rules and their state.
    pub const RULES: &str = "/api/v1/rules";
    /// Active alerts.
    pub const ALERTS: &str = "/api/v1/alerts";
    /// Scrape targets.
    pub const TARGETS: &str = "/api/v1/targets";
    /// Build information.
    pub const BUILD_INFO: &str = "/api/v1/status/buildinfo";
    /// Statistics of the store.
    pub const TSDB_STATUS: &str = "/api/v1/status/tsdb";
    /// Remote write in.
    pub const REMOTE_WRITE: &str = "/api/v1/write";
    /// Remote read out.
    pub const REMOTE_READ: &str = "/api/v1/read";
    /// The process answers.
    pub const HEALTHY: &str = "/-/healthy";
    /// The process can do its work.
    pub const READY: &str = "/-/ready";
    /// The agent's own metrics.
    pub const METRICS: &str = "/metrics";
    /// SLO status: `[SloStatus]`.
    pub const SLOS: &str = "/api/nines/v1/slos";
    /// Traces by search: `[TraceSummary]`.
    pub const TRACES: &str = "/api/nines/v1/traces";
    /// One trace: `[Span]`; `{id}` is its hex id.
    pub const TRACE: &str = "/api/nines/v1/traces/{id}";
    /// Log records by search: `[LogRecord]`.
    pub const LOGS: &str = "/api/nines/v1/logs";
    /// The agent's own state: [`super::SelfStatus`].
    pub const SELF: &str = "/api/nines/v1/self";
    /// Waits until everything received is queryable; answers 200.
    pub const FLUSH: &str = "/api/nines/v1/flush";
    /// The log of alert transitions and deliveries: `[AlertEvent]`.
    pub const ALERT_EVENTS: &str = "/api/nines/v1/alert-events";
    /// Alertmanager v2: alerts.
    pub const AM_ALERTS: &str = "/api/v2/alerts";
    /// Alertmanager v2: silences.
    pub const AM_SILENCES: &str = "/api/v2/silences";
    /// Alertmanager v2: one silence.
    pub const AM_SILENCE: &str = "/api/v2/silence/{id}";
    /// Alertmanager v2: status.
    pub const AM_STATUS: &str = "/api/v2/status";
    /// Alertmanager v2: receivers.
    pub const AM_RECEIVERS: &str = "/api/v2/receivers";
}

/// Prometheus' envelope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// `success` or `error`.
    pub status: String,
    /// The answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<T>,
    /// `bad_data`, `execution`, `timeout`, `canceled`, `unavailable`, `internal`, `not_found`, …
    #[serde(rename = "errorType", default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Warnings of the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Remarks of the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub infos: Vec<String>,
}

impl<T> Envelope<T> {
    /// A good answer.
    pub fn success(data: T) -> Self {
        Envelope {
            status: "success".into(),
            data: Some(data),
            error_type: None,
            error: None,
            warnings: Vec::new(),
            infos: Vec::new(),
        }
    }

    /// A refusal.
    pub fn error(error_type: &str, error: impl Into<String>) -> Self {
        Envelope {
            status: "error".into(),
            data: None,
            error_type: Some(error_type.into()),
            error: Some(error.into()),
            warnings: Vec::new(),
            infos: Vec::new(),
        }
    }
}

/// One rule of `GET /api/v1/rules`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleBody {
    /// `alerting` or `recording`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its expression.
    pub query: String,
    /// `inactive`, `pending`, `firing`; empty for a recording.
    #[serde(default)]
    pub state: String,
    /// `for`, in seconds.
    #[serde(default)]
    pub duration: f64,
    /// `keep_firing_for`, in seconds.
    #[serde(rename = "keepFiringFor", default)]
    pub keep_firing_for: f64,
    /// Labels that the rule adds.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations, not yet expanded.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Active alerts.
    #[serde(default)]
    pub alerts: Vec<AlertBody>,
    /// `ok`, `err` or `unknown`.
    pub health: String,
    /// The last error.
    #[serde(
        rename = "lastError",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub last_error: String,
    /// Seconds that the last evaluation took.
    #[serde(rename = "evaluationTime", default)]
    pub evaluation_time: f64,
    /// When it was last evaluated, RFC 3339.
    #[serde(rename = "lastEvaluation", default)]
    pub last_evaluation: String,
}

/// One group of `GET /api/v1/rules`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleGroupBody {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Its rules.
    pub rules: Vec<RuleBody>,
    /// Evaluation interval in seconds.
    pub interval: f64,
    /// The most alerts, or recorded series, that one rule may produce; 0 for no limit.
    #[serde(default)]
    pub limit: usize,
    /// Seconds that the last evaluation took.
    #[serde(rename = "evaluationTime", default)]
    pub evaluation_time: f64,
    /// When it was last evaluated, RFC 3339.
    #[serde(rename = "lastEvaluation", default)]
    pub last_evaluation: String,
}

/// The data of `GET /api/v1/rules`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RulesBody {
    /// All groups.
    pub groups: Vec<RuleGroupBody>,
}

/// One active alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertBody {
    /// Its labels, `alertname` included.
    pub labels: Labels,
    /// Its annotations, expanded.
    pub annotations: BTreeMap<String, String>,
    /// `pending` or `firing`.
    pub state: String,
    /// Since when, RFC 3339.
    #[serde(rename = "activeAt")]
    pub active_at: String,
    /// The expression's value, as text.
    pub value: String,
    /// Since when it only fires because of `keep_firing_for`.
    #[serde(
        rename = "keepFiringSince",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub keep_firing_since: Option<String>,
}

/// The data of `GET /api/v1/alerts`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AlertsBody {
    /// Active alerts.
    pub alerts: Vec<AlertBody>,
}

/// One line of the alert log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// When, Unix milliseconds.
    pub t_ms: i64,
    /// `pending`, `firing`, `resolved`, `queued`, `delivered`, `retry`, `dead_letter`, `silenced`.
    pub kind: String,
    /// `alertname`.
    pub alert: String,
    /// The alert's labels.
    pub labels: Labels,
    /// The receiver, for deliveries.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub receiver: String,
    /// The dedup key, for deliveries.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dedup_key: String,
    /// Detail in words: the value, the error, the attempt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The agent's own state, for headers and the Self screen. Counters are since the start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SelfStatus {
    /// A name for what is observed (`--name`), shown in headers.
    pub name: String,
    /// Version of the binary.
    pub version: String,
    /// When the agent started, Unix milliseconds.
    pub started_ms: i64,
    /// The agent's clock, Unix milliseconds.
    pub now_ms: i64,
    /// Windows of rules and SLOs are divided by this; 1 is real time.
    pub time_scale: f64,
    /// Series in the head.
    pub series: u64,
    /// Samples appended.
    pub samples: u64,
    /// Spans received.
    pub spans: u64,
    /// Log records received.
    pub logs: u64,
    /// Items refused or dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Age of the newest sample, milliseconds.
    pub lag_ms: i64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Queries answered.
    pub queries: u64,
    /// Resident memory of the agent, bytes.
    pub rss_bytes: u64,
}

/// A float as Prometheus writes it in JSON: the shortest digits that read back as the same float, and where two such
/// are equally near, the even one (as Go's `strconv` picks, not as Rust's `Display`); with an exponent of at least two
/// digits and its sign below 1e-6 and from 1e21 on.
#[must_use]
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(value.abs());
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    // The value is 0.DIGITS times ten to the power of `point`.
    let point = whole.len() as i32 - zeros as i32 + exponent.parse::<i32>().unwrap_or(0);
    let digits = digits.trim_matches('0');
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if digits.is_empty() {
        return format!("{sign}0");
    }
    if value.abs() < 1e-6 || value.abs() >= 1e21 {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let (power, of) = (point - 1, if point < 1 { '-' } else { '+' });
        return format!("{sign}{first}{dot}{rest}e{of}{:02}", power.unsigned_abs());
    }
    let split = usize::try_from(point).unwrap_or(0);
    if point <= 0 {
        let zeros = point.unsigned_abs() as usize;
        format!("{sign}0.{:0>width$}", digits, width = zeros + digits.len())
    } else if split >= digits.len() {
        format!("{sign}{digits:0<split$}")
    } else {
        format!("{sign}{}.{}", &digits[..split], &digits[split..])
    }
}

/// Reads a float as Prometheus writes it.
#[must_use]
pub fn parse_float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        other => other.parse().ok(),
    }
}

fn seconds(t_ms: i64) -> Json {
    if t_ms % 1000 == 0 {
        json!(t_ms / 1000)
    } else {
        json!(t_ms as f64 / 1000.0)
    }
}

fn float_pair(t_ms: i64, value: f64) -> Json {
    json!([seconds(t_ms), format_float(value)])
}

fn histogram_pair(t_ms: i64, h: &NativeHistogram) -> Json {
    let buckets: Vec<Json> = h
        .api_buckets()
        .into_iter()
        .map(|(boundary, lower, upper, count)| {
            json!([
                boundary,
                format_float(lower),
                format_float(upper),
                format_float(count)
            ])
        })
        .collect();
    let mut body = json!({"count": format_float(h.count), "sum": format_float(h.sum)});
    if !buckets.is_empty() {
        body["buckets"] = Json::Array(buckets);
    }
    json!([seconds(t_ms), body])
}

impl NativeHistogram {
    /// The non-empty buckets as the API lists them, ascending: (boundary rule, lower, upper, count). The rule is 0 for
    /// open left, 1 for open right, 3 for closed both (2 would be open both).
    #[must_use]
    pub fn api_buckets(&self) -> Vec<(u8, f64, f64, f64)> {
        let mut out = Vec::new();
        if self.has_custom_buckets() {
            for (index, count) in self.positive().filter(|(_, c)| *c != 0.0) {
                let at = usize::try_from(index).unwrap_or(0);
                let lower = at
                    .checked_sub(1)
                    .and_then(|i| self.custom_values.get(i))
                    .copied();
                let upper = self.custom_values.get(at).copied().unwrap_or(f64::INFINITY);
                out.push((0, lower.unwrap_or(f64::NEG_INFINITY), upper, count));
            }
            return out;
        }
        let bound = |index: i32| crate::exphist::lower_bound(index, self.schema);
        let mut negative: Vec<(i32, f64)> = self.negative().filter(|(_, c)| *c != 0.0).collect();
        negative.reverse();
        out.extend(
            negative
                .into_iter()
                .map(|(i, c)| (1, -bound(i), -bound(i - 1), c)),
        );
        if self.zero_count != 0.0 {
            out.push((
                3,
                -self.zero_threshold,
                self.zero_threshold,
                self.zero_count,
            ));
        }
        let positive = self.positive().filter(|(_, c)| *c != 0.0);
        out.extend(positive.map(|(i, c)| (0, bound(i - 1), bound(i), c)));
        out
    }
}

/// The `data` object of a query answer.
#[must_use]
pub fn query_data_to_json(data: &QueryData) -> Json {
    let result = match data {
        QueryData::Scalar(t, v) => float_pair(*t, *v),
        QueryData::String(t, s) => json!([seconds(*t), s]),
        QueryData::Vector(all) => all.iter().map(element_to_json).collect(),
        QueryData::Matrix(all) => all.iter().map(range_to_json).collect(),
    };
    json!({"resultType": data.type_name(), "result": result})
}

fn element_to_json(element: &VectorElement) -> Json {
    match &element.value {
        Value::Float(v) => json!({"metric": element.labels, "value": float_pair(element.t_ms, *v)}),
        Value::Histogram(h) => {
            json!({"metric": element.labels, "histogram": histogram_pair(element.t_ms, h)})
        }
    }
}

fn range_to_json(series: &RangeSeries) -> Json {
    let (mut values, mut histograms) = (Vec::new(), Vec::new());
    for (i, t) in series.points.t_ms.iter().enumerate() {
        match series.points.histogram(i) {
            Some(h) => histograms.push(histogram_pair(*t, h)),
            None => values.push(float_pair(*t, series.points.values[i])),
        }
    }
    let mut body = json!({"metric": series.labels});
    if !values.is_empty() {
        body["values"] = Json::Array(values);
    }
    if !histograms.is_empty() {
        body["histograms"] = Json::Array(histograms);
    }
    body
}

/// A body that is not a query answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a query answer: {0}")]
pub struct InvalidBody(pub String);

/// Reads the `data` object of a query answer back. Histograms are left out: the API's form has lost their schema.
pub fn query_data_from_json(data: &Json) -> Result<QueryData, InvalidBody> {
    let invalid = |what: &str| InvalidBody(what.to_owned());
    let kind = data["resultType"]
        .as_str()
        .ok_or_else(|| invalid("no resultType"))?;
    let result = &data["result"];
    let list = || {
        result
            .as_array()
            .ok_or_else(|| invalid("result is not a list"))
    };
    let labels = |item: &Json| {
        serde_json::from_value::<Labels>(item["metric"].clone())
            .map_err(|e| InvalidBody(e.to_string()))
    };
    match kind {
        "scalar" => read_pair(result).map(|(t, v)| QueryData::Scalar(t, v)),
        "string" => {
            let t = result[0]
                .as_f64()
                .ok_or_else(|| invalid("a sample has no time"))?;
            let text = result[1]
                .as_str()
                .ok_or_else(|| invalid("a string has no text"))?;
            Ok(QueryData::String(
                (t * 1000.0).round() as i64,
                text.to_owned(),
            ))
        }
        "vector" => {
            let floats = list()?.iter().filter(|item| !item["value"].is_null());
            let elements = floats.map(|item| {
                let (t_ms, v) = read_pair(&item["value"])?;
                Ok(VectorElement {
                    labels: labels(item)?,
                    t_ms,
                    value: Value::Float(v),
                })
            });
            elements.collect::<Result<_, _>>().map(QueryData::Vector)
        }
        "matrix" => {
            let series = list()?.iter().map(|item| {
                let mut points = Points::default();
                for pair in item["values"].as_array().into_iter().flatten() {
                    let (t_ms, v) = read_pair(pair)?;
                    points.push_float(t_ms, v);
                }
                Ok(RangeSeries {
                    labels: labels(item)?,
                    points,
                })
            });
            series.collect::<Result<_, _>>().map(QueryData::Matrix)
        }
        other => Err(InvalidBody(format!("unknown resultType {other:?}"))),
    }
}

fn read_pair(pair: &Json) -> Result<(i64, f64), InvalidBody> {
    let t = pair[0].as_f64();
    let v = pair[1].as_str().and_then(parse_float);
    match (t, v) {
        (Some(t), Some(v)) => Ok(((t * 1000.0).round() as i64, v)),
        _ => Err(InvalidBody(format!("{pair} is not [seconds, \"value\"]"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_look_like_prometheus() {
        for (value, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-07"),
            (-0.0, "-0"),
            (123_456_789.0, "123456789"),
            (-1200.0, "-1200"),
            (0.000_012, "0.000012"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (1e20, "100000000000000000000"),
            // ...96.25 and ...96.75: two shortest texts are equally near. As a Prometheus 2.42 writes them.
            (588_899_924_932_996.2, "588899924932996.2"),
            (588_899_924_932_996.8, "588899924932996.8"),
            (4_503_599_627_370_497.5, "4503599627370498"),
        ] {
            assert_eq!(format_float(value), text);
            let back = parse_float(text).unwrap();
            assert!(back == value || (back.is_nan() && value.is_nan()));
        }
    }

    proptest::proptest! {
        #[test]
        fn floats_read_back(bits: u64, small: i32) {
            for v in [f64::from_bits(bits), f64::from(small) / 1000.0] {
                let back = parse_float(&format_float(v)).unwrap();
                proptest::prop_assert!(back.to_bits() == v.to_bits() || (back.is_nan() && v.is_nan()));
            }
        }
    }

    #[test]
    fn answers_round_trip() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        let mut points = Points::default();
        points.push_float(1_500, 1.0);
        points.push_float(2_000, f64::INFINITY);
        for data in [
            QueryData::Scalar(1_000, 2.5),
            QueryData::String(1_000, "x".into()),
            QueryData::Vector(vec![VectorElement {
                labels: labels.clone(),
                t_ms: 1_234,
                value: Value::Float(3.0),
            }]),
            QueryData::Matrix(vec![RangeSeries { labels, points }]),
        ] {
            assert_eq!(query_data_from_json(&query_data_to_json(&data)), Ok(data));
        }
        assert!(query_data_from_json(&json!({"resultType": "vector", "result": 1})).is_err());
        assert!(query_data_from_json(&json!([])).is_err());
    }

    #[test]
    fn a_histogram_lists_its_buckets() {
        let mut h = crate::ExpHistogram::new(0);
        [0.0, 1.5, 3.0, 3.5].iter().for_each(|v| h.record(*v));
        let body = histogram_pair(1_000, &h.to_native());
        assert_eq!(body[1]["count"], "4");
        assert_eq!(body[1]["buckets"][1], json!([0, "1", "2", "1"]));
        assert_eq!(body[1]["buckets"][2], json!([0, "2", "4", "2"]));
    }
}
