//! RED from spans: calls, errors and durations per service, route, method and status, before any sampling.
//!
//! Owns the series, their limit per service, and exemplars. Must not know OTLP's bytes beyond [`SpanView`], nor the
//! store. Counts are exact: every span handed to [`Red::record`] is in exactly one series, past the limit in the
//! service's overflow series (`otel_metric_overflow="true"`, as the OpenTelemetry SDK specification has it).

use std::collections::HashMap;

use model::source::Exemplar;
use model::span::SpanStatus;
use model::{Labels, LabelsBuilder, METRIC_NAME};

use super::durations::{BOUNDS, Durations, Names, bucket_of};
use crate::ingest::Sample;
use crate::receive::attributes::lossy;
use crate::receive::spans::{Request, SpanView};

/// The counter of calls.
pub const CALLS: &str = "traces_span_metrics_calls_total";
/// The histogram of durations, native under this name and classic with its suffixes.
pub const DURATION: &str = "traces_span_metrics_duration_seconds";

/// Services with series of their own; the rest share one name.
const MAX_SERVICES: usize = 1_000;
/// The name that services past the limit share.
const OTHER_SERVICE: &str = "other";
/// Bytes of a name that becomes a label value; longer ones are cut.
const MAX_VALUE_BYTES: usize = 256;

/// Counts spans by what they did.
#[derive(Debug)]
pub struct Red {
    max_series: usize,
    services: HashMap<String, Service>,
    scratch: Vec<u8>,
    last_flush_ms: i64,
    /// Spans counted in an overflow series.
    overflowed: u64,
}

#[derive(Debug, Default)]
struct Service {
    series: HashMap<Box<[u8]>, Series>,
}

#[derive(Debug)]
struct Series {
    calls: Labels,
    names: Names,
    durations: Durations,
    born: bool,
    /// The latest span of each bucket since the last flush.
    exemplars: Vec<Option<Exemplar>>,
}

/// What a flush writes.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Samples.
    pub samples: Vec<Sample>,
    /// Exemplars by series.
    pub exemplars: Vec<(Labels, Exemplar)>,
}

// === impl Red ===

impl Red {
    /// With at most `max_series` label sets per service. Nothing is written before `started_ms`, so that the zero
    /// before a first sample never falls between the samples of a former run.
    #[must_use]
    pub fn new(max_series: usize, started_ms: i64) -> Self {
        Red {
            max_series: max_series.max(1),
            services: HashMap::new(),
            scratch: Vec::new(),
            last_flush_ms: started_ms,
            overflowed: 0,
        }
    }

    /// Counts every span of a request.
    pub fn record(&mut self, request: &Request<'_>) {
        for span in &request.spans {
            let service = request
                .services
                .get(span.service)
                .map_or("", String::as_str);
            self.record_span(service, span);
        }
    }

    /// Spans that went into an overflow series.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// How many label sets there are.
    #[must_use]
    pub fn series(&self) -> usize {
        self.services.values().map(|s| s.series.len()).sum()
    }

    /// Every series as of now, at an instant after the last flush. A series' first flush also writes a zero at the
    /// instant of the flush before, so that `increase` sees its first calls.
    pub fn flush(&mut self, now_ms: i64, interval_ms: i64) -> (i64, Flushed) {
        let t_ms = now_ms.max(self.last_flush_ms + 2);
        let before_ms = self.last_flush_ms.max(t_ms - interval_ms.max(1));
        self.last_flush_ms = t_ms;
        let mut out = Flushed::default();
        for series in self
            .services
            .values_mut()
            .flat_map(|s| s.series.values_mut())
        {
            series.flush(before_ms, t_ms, &mut out);
        }
        (t_ms, out)
    }

    fn record_span(&mut self, service: &str, span: &SpanView<'_>) {
        key_of(span, &mut self.scratch);
        if !self.services.contains_key(service) {
            let name = if self.services.len() < MAX_SERVICES {
                service
            } else {
                OTHER_SERVICE
            };
            self.services.entry(name.to_owned()).or_default();
        }
        let known = self.services.contains_key(service);
        let service = if known { service } else { OTHER_SERVICE };
        let Some(entry) = self.services.get_mut(service) else {
            return;
        };
        if let Some(series) = entry.series.get_mut(self.scratch.as_slice()) {
            series.record(span);
            return;
        }
        // The overflow series has the empty key and does not count towards the limit.
        let full =
            entry.series.len() - usize::from(entry.series.contains_key(&[][..])) >= self.max_series;
        let (key, labels) = if full {
            self.overflowed += 1;
            (Box::default(), overflow_labels(service))
        } else {
            (self.scratch.as_slice().into(), labels_of(service, span))
        };
        let series = entry
            .series
            .entry(key)
            .or_insert_with(|| Series::new(&labels));
        series.record(span);
    }
}

impl Series {
    fn new(base: &Labels) -> Self {
        Series {
            calls: base.with(METRIC_NAME, CALLS),
            names: Names::new(DURATION, base, true),
            durations: Durations::default(),
            born: false,
            exemplars: vec![None; BOUNDS.len() + 1],
        }
    }

    fn record(&mut self, span: &SpanView<'_>) {
        let seconds = span.duration_ns() as f64 / 1e9;
        self.durations.record(seconds);
        let slot = &mut self.exemplars[bucket_of(seconds)];
        if slot.as_ref().is_none_or(|e| e.value <= seconds) {
            *slot = Some(Exemplar {
                labels: Labels::from_pairs([
                    ("trace_id", span.trace_id.to_string()),
                    ("span_id", span.span_id.to_string()),
                ]),
                value: seconds,
                t_ms: i64::try_from(span.end_ns / 1_000_000).unwrap_or(i64::MAX),
            });
        }
    }

    fn flush(&mut self, before_ms: i64, t_ms: i64, out: &mut Flushed) {
        if !self.born {
            self.born = true;
            out.samples
                .push(Sample::float(self.calls.clone(), before_ms, 0.0));
            Durations::default().samples(&self.names, before_ms, &mut out.samples);
        }
        let calls = self.durations.count() as f64;
        out.samples
            .push(Sample::float(self.calls.clone(), t_ms, calls));
        self.durations.samples(&self.names, t_ms, &mut out.samples);
        for (bucket, slot) in self.exemplars.iter_mut().enumerate() {
            if let Some(exemplar) = slot.take() {
                if let Some(native) = self.names.native() {
                    out.exemplars.push((native.clone(), exemplar.clone()));
                }
                out.exemplars
                    .push((self.names.bucket(bucket).clone(), exemplar));
            }
        }
    }
}

/// The bytes that tell series of one service apart; never empty.
fn key_of(span: &SpanView<'_>, key: &mut Vec<u8>) {
    key.clear();
    key.push(span.kind as u8);
    key.push(span.status as u8);
    key.extend_from_slice(&span.status_code.to_le_bytes());
    for text in [span.name, span.route, span.method, span.rpc_method] {
        let text = &text[..text.len().min(MAX_VALUE_BYTES)];
        key.extend_from_slice(&(text.len() as u16).to_le_bytes());
        key.extend_from_slice(text);
    }
}

fn labels_of(service: &str, span: &SpanView<'_>) -> Labels {
    let text = |bytes: &[u8]| clean(&bytes[..bytes.len().min(MAX_VALUE_BYTES)]);
    let mut builder = LabelsBuilder::default();
    builder
        .set("service_name", clean(service.as_bytes()))
        .set("span_name", text(span.name))
        .set("span_kind", span.kind.as_otel())
        .set("status_code", status_text(span.status))
        .set("http_route", text(span.route))
        .set("http_request_method", text(span.method))
        .set("rpc_method", text(span.rpc_method));
    if span.status_code != 0 {
        builder.set("http_response_status_code", span.status_code.to_string());
    }
    builder.build()
}

fn overflow_labels(service: &str) -> Labels {
    Labels::from_pairs([
        ("service_name", clean(service.as_bytes()).as_str()),
        ("otel_metric_overflow", "true"),
    ])
}

fn status_text(status: SpanStatus) -> &'static str {
    match status {
        SpanStatus::Unset => "STATUS_CODE_UNSET",
        SpanStatus::Ok => "STATUS_CODE_OK",
        SpanStatus::Error => "STATUS_CODE_ERROR",
    }
}

/// Text fit for a label: valid UTF-8, without control characters.
pub fn clean(bytes: &[u8]) -> String {
    let mut text = lossy(bytes);
    text.retain(|c| !c.is_control());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Value;
    use model::span::{SpanId, SpanKind, TraceId};

    fn span(name: &'static [u8], status_code: u16, ms: u64) -> SpanView<'static> {
        SpanView {
            trace_id: TraceId([7; 16]),
            span_id: SpanId([9; 8]),
            name,
            kind: SpanKind::Server,
            route: b"/users/{id}",
            method: b"GET",
            status_code,
            start_ns: 1_000_000_000,
            end_ns: 1_000_000_000 + ms * 1_000_000,
            ..SpanView::default()
        }
    }

    fn request(spans: Vec<SpanView<'_>>) -> Request<'_> {
        Request {
            services: vec!["gateway".into()],
            spans,
            invalid: 0,
        }
    }

    fn calls(flushed: &Flushed, t_ms: i64) -> Vec<(String, f64)> {
        let mut out: Vec<(String, f64)> = flushed
            .samples
            .iter()
            .filter(|s| s.labels.name() == CALLS && s.t_ms == t_ms)
            .map(|s| match s.value {
                Value::Float(v) => (s.labels.to_string(), v),
                Value::Histogram(_) => unreachable!("calls are floats"),
            })
            .collect();
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    #[test]
    fn counts_by_label_set_with_a_zero_before_the_first() {
        let mut red = Red::new(10, 0);
        red.record(&request(vec![
            span(b"GET /users/{id}", 200, 3),
            span(b"GET /users/{id}", 200, 4),
            span(b"GET /users/{id}", 500, 9),
        ]));
        let (t, flushed) = red.flush(10_000, 1_000);
        assert_eq!(t, 10_000);
        let all = calls(&flushed, t);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].1, all[1].1), (2.0, 1.0));
        assert_eq!(
            all[0].0,
            r#"traces_span_metrics_calls_total{http_request_method="GET", http_response_status_code="200", http_route="/users/{id}", service_name="gateway", span_kind="SPAN_KIND_SERVER", span_name="GET /users/{id}", status_code="STATUS_CODE_UNSET"}"#
        );
        assert!(calls(&flushed, 9_000).iter().all(|(_, v)| *v == 0.0));
        assert!(
            flushed.exemplars.iter().any(|(l, e)| {
                l.get("le") == Some("0.01") && e.labels.get("trace_id").is_some()
            })
        );
        let (t, flushed) = red.flush(10_000, 1_000);
        assert_eq!(t, 10_002, "flushes have distinct instants");
        assert!(flushed.exemplars.is_empty());
    }

    #[test]
    fn past_the_limit_spans_overflow_and_none_is_lost() {
        let names: Vec<Vec<u8>> = (0..50).map(|i| format!("n{i}").into_bytes()).collect();
        let mut red = Red::new(5, 0);
        for name in names.iter().chain(&names) {
            let view = SpanView {
                name,
                ..span(b"", 200, 1)
            };
            red.record(&request(vec![view]));
        }
        let (t, flushed) = red.flush(10_000, 1_000);
        let all = calls(&flushed, t);
        assert_eq!(all.len(), 6);
        assert_eq!(all.iter().map(|(_, v)| v).sum::<f64>(), 100.0);
        assert_eq!(red.overflowed(), 90);
    }

    #[test]
    fn services_past_the_limit_share_one_name() {
        let mut red = Red::new(5, 0);
        for i in 0..MAX_SERVICES + 5 {
            let mut one = request(vec![span(b"a", 200, 1)]);
            one.services = vec![format!("s{i}")];
            red.record(&one);
        }
        let (t, flushed) = red.flush(10_000, 1_000);
        let sum: f64 = calls(&flushed, t).iter().map(|(_, v)| v).sum();
        assert_eq!(sum, (MAX_SERVICES + 5) as f64);
        assert!(red.services.len() <= MAX_SERVICES + 1);
    }
}
