//! `ExportMetricsServiceRequest` on the wire, translated to Prometheus samples.
//!
//! Owns OTLP's field numbers for metrics and the walk; names are [`super::names`]', distributions
//! `distributions`', deltas [`super::deltas`]'. Must not know the store.
//! Schema: opentelemetry-proto, `metrics/v1/metrics.proto`.

use std::collections::HashMap;

use model::source::{Exemplar, Metadata};
use model::{Labels, LabelsBuilder, METRIC_NAME, stale_nan};

use super::attributes::{self, lossy};
use super::deltas::Deltas;
use super::distributions;
use super::names::{Kind, label_name, metric_name, unit_name};
use crate::ingest::Sample;
use model::protobuf::{Field, Reader, WireError};

/// `target_info` of one resource is written again after this long.
const TARGET_INFO_EVERY_MS: i64 = 60_000;
/// Resources whose last `target_info` is remembered.
const MAX_RESOURCES: usize = 10_000;
/// Samples after which a part is handed over.
const PART_SAMPLES: usize = 10_000;
/// The data point flag that says: nothing was recorded.
const NO_RECORDED_VALUE: u64 = 1;

/// What a request, or a part of one, amounts to.
#[derive(Debug, Default)]
pub struct Translated {
    /// Samples in the order of the request.
    pub samples: Vec<Sample>,
    /// Metadata by metric name.
    pub metadata: Vec<(String, Metadata)>,
    /// Exemplars by series.
    pub exemplars: Vec<(Labels, Exemplar)>,
    /// Data points translated.
    pub points: u64,
    /// Data points that have no Prometheus form, or for which there was no room.
    pub rejected: u64,
    /// Why the last of them was rejected.
    pub reason: &'static str,
    /// The newest point of the resource at hand.
    newest_ms: Option<i64>,
}

/// Translates requests; remembers what deltas add up to.
#[derive(Debug)]
pub struct Translator {
    deltas: Deltas,
    resources: HashMap<Labels, i64>,
}

/// Takes parts of a request as they are translated.
type Emit<'e> = dyn FnMut(Translated) + 'e;

/// Where a point belongs.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    pub resource: &'a ResourceLabels,
    pub name: String,
    pub delta: bool,
    /// Whether its points count from a start on.
    pub counts: bool,
}

/// The labels that every series of a resource carries.
#[derive(Debug)]
pub(super) struct ResourceLabels {
    base: LabelsBuilder,
}

/// The parts that every kind of point has.
#[derive(Debug, Default)]
pub(super) struct Common<'a> {
    pub attributes: Vec<&'a [u8]>,
    pub t_ms: i64,
    pub start_ms: i64,
    pub exemplars: Vec<&'a [u8]>,
    pub flags: u64,
}

// === impl Translator ===

impl Translator {
    /// Remembers at most `max_streams` delta streams.
    #[must_use]
    pub fn new(max_streams: usize) -> Self {
        Translator {
            deltas: Deltas::new(max_streams),
            resources: HashMap::new(),
        }
    }

    /// Translates a request and hands it to `emit` in parts of about 10,000 samples, so that memory does not
    /// grow with the request. Its form must be known to be good: call [`check`] first, so that a malformed request
    /// changes nothing.
    pub fn translate(
        &mut self,
        request: &[u8],
        now_ms: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), WireError> {
        let mut out = Translated::default();
        let mut reader = Reader::new(request);
        while let Some((n, field)) = reader.next_field()? {
            if n == 1 {
                self.resource(field.bytes(n)?, now_ms, &mut out, emit)?;
            }
        }
        emit(out);
        Ok(())
    }

    fn resource(
        &mut self,
        message: &[u8],
        now_ms: i64,
        out: &mut Translated,
        emit: &mut Emit<'_>,
    ) -> Result<(), WireError> {
        let (mut resource, mut scopes) = (&b""[..], Vec::new());
        let mut reader = Reader::new(message);
        while let Some((n, field)) = reader.next_field()? {
            match n {
                1 => resource = field.bytes(n)?,
                2 => scopes.push(field.bytes(n)?),
                _ => {}
            }
        }
        let (mut labels, info) = resource_labels(resource)?;
        out.newest_ms = None;
        for scope in scopes {
            self.scope(scope, &mut labels, now_ms, out, emit)?;
        }
        if let Some(t_ms) = out.newest_ms {
            self.target_info(info, t_ms, out);
        }
        Ok(())
    }

    fn scope(
        &mut self,
        message: &[u8],
        labels: &mut ResourceLabels,
        now_ms: i64,
        out: &mut Translated,
        emit: &mut Emit<'_>,
    ) -> Result<(), WireError> {
        let (mut name, mut version, mut metrics) = (String::new(), String::new(), Vec::new());
        let mut reader = Reader::new(message);
        while let Some((n, field)) = reader.next_field()? {
            match n {
                1 => {
                    let mut scope = Reader::new(field.bytes(n)?);
                    while let Some((n, field)) = scope.next_field()? {
                        match n {
                            1 => name = lossy(field.bytes(n)?),
                            2 => version = lossy(field.bytes(n)?),
                            _ => {}
                        }
                    }
                }
                2 => metrics.push(field.bytes(n)?),
                _ => {}
            }
        }
        labels.base.set("otel_scope_name", name);
        labels.base.set("otel_scope_version", version);
        for metric in metrics {
            self.metric(metric, labels, now_ms, out, emit)?;
        }
        Ok(())
    }

    fn metric(
        &mut self,
        message: &[u8],
        resource: &ResourceLabels,
        now_ms: i64,
        out: &mut Translated,
        emit: &mut Emit<'_>,
    ) -> Result<(), WireError> {
        let (mut name, mut help, mut unit) = (String::new(), String::new(), String::new());
        let mut data = None;
        let mut reader = Reader::new(message);
        while let Some((n, field)) = reader.next_field()? {
            match n {
                1 => name = lossy(field.bytes(n)?),
                2 => help = lossy(field.bytes(n)?),
                3 => unit = lossy(field.bytes(n)?),
                5 | 7 | 9 | 10 | 11 => data = Some((n, field.bytes(n)?)),
                _ => {}
            }
        }
        let Some((which, data)) = data else {
            return Ok(());
        };
        let (points, temporality, monotonic) = data_fields(data)?;
        let (kind, type_name) = match which {
            7 if monotonic => (Kind::Counter, "counter"),
            5 | 7 => (Kind::Gauge, "gauge"),
            11 => (Kind::Distribution, "summary"),
            _ => (Kind::Distribution, "histogram"),
        };
        let origin = Origin {
            resource,
            name: metric_name(&name, &unit, kind),
            delta: temporality == 1,
            counts: matches!(kind, Kind::Counter | Kind::Distribution),
        };
        if origin.name.is_empty() {
            out.rejected += points.len() as u64;
            out.reason = "a metric's name has no letter";
            return Ok(());
        }
        for point in &points {
            match which {
                5 | 7 => self.number(point, &origin, now_ms, out)?,
                9 => distributions::classic(point, &origin, &mut self.deltas, now_ms, out)?,
                10 => distributions::exponential(point, &origin, &mut self.deltas, now_ms, out)?,
                _ => distributions::summary(point, &origin, now_ms, out)?,
            }
            if out.samples.len() >= PART_SAMPLES {
                let newest_ms = out.newest_ms;
                emit(std::mem::take(out));
                out.newest_ms = newest_ms;
            }
        }
        let metadata = Metadata {
            kind: type_name.to_owned(),
            help,
            unit: unit_name(&unit),
        };
        out.metadata.push((origin.name, metadata));
        Ok(())
    }

    fn number(
        &mut self,
        message: &[u8],
        origin: &Origin<'_>,
        now_ms: i64,
        out: &mut Translated,
    ) -> Result<(), WireError> {
        let mut common = Common::default();
        let mut value = 0.0;
        let mut reader = Reader::new(message);
        while let Some((n, field)) = reader.next_field()? {
            match n {
                7 => common.attributes.push(field.bytes(n)?),
                4 => value = field.double(n)?,
                6 => value = field.number(n)?.cast_signed() as f64,
                5 => common.exemplars.push(field.bytes(n)?),
                8 => common.flags = field.number(n)?,
                _ => common.times(n, field)?,
            }
        }
        let labels = origin.labels(&common, "")?;
        let t_ms = common.time(now_ms, out);
        if common.nothing_recorded() {
            value = stale_nan();
        } else if origin.delta {
            match self.deltas.add_number(&labels, value) {
                Some(sum) => value = sum,
                None => return out.reject("too many delta streams"),
            }
        }
        out.exemplars_of(&labels, &common)?;
        out.started(labels, t_ms, origin.start(&common), value);
        out.points += 1;
        Ok(())
    }

    fn target_info(&mut self, info: Option<Labels>, t_ms: i64, out: &mut Translated) {
        let Some(info) = info else { return };
        let due = self
            .resources
            .get(&info)
            .is_none_or(|last| t_ms >= last.saturating_add(TARGET_INFO_EVERY_MS));
        if !due {
            return;
        }
        if self.resources.len() >= MAX_RESOURCES {
            self.resources.clear();
        }
        self.resources.insert(info.clone(), t_ms);
        out.samples.push(Sample::float(info, t_ms, 1.0));
    }
}

/// Walks a whole request without an effect; an error means that it is malformed.
pub fn check(request: &[u8]) -> Result<(), WireError> {
    Translator::new(0).translate(request, 0, &mut |_| {})
}

// === impl of the parts ===

impl Origin<'_> {
    /// When a point began to count, 0 when that is not known: what deltas add up to began at some other time.
    pub(super) fn start(&self, common: &Common<'_>) -> i64 {
        if self.counts && !self.delta {
            common.start_ms
        } else {
            0
        }
    }

    /// The labels of a point's series: resource, attributes and the name with `suffix`.
    pub(super) fn labels(&self, common: &Common<'_>, suffix: &str) -> Result<Labels, WireError> {
        let mut builder = self.resource.base.clone();
        for attribute in &common.attributes {
            let (key, value) = attributes::to_attribute(attribute)?;
            let key = label_name(&key);
            if key != "job" && key != "instance" {
                // Two keys that differ only in punctuation share a label; the specification joins their values.
                let joined = match builder.get(&key) {
                    Some(before) if !before.is_empty() && before != value => {
                        format!("{before};{value}")
                    }
                    _ => value,
                };
                builder.set(key, joined);
            }
        }
        builder.set(METRIC_NAME, format!("{}{suffix}", self.name));
        Ok(builder.build())
    }
}

impl<'a> Common<'a> {
    /// Fields 2 and 3, the same in every kind of point.
    pub(super) fn times(&mut self, n: u32, field: Field<'a>) -> Result<(), WireError> {
        let ms = |ns: u64| i64::try_from(ns / 1_000_000).unwrap_or(0);
        match n {
            2 => self.start_ms = ms(field.number(n)?),
            3 => self.t_ms = ms(field.number(n)?),
            _ => {}
        }
        Ok(())
    }

    /// When the point was taken; a point without a time is taken now.
    pub(super) fn time(&self, now_ms: i64, out: &mut Translated) -> i64 {
        let t_ms = if self.t_ms == 0 { now_ms } else { self.t_ms };
        out.newest_ms = out.newest_ms.max(Some(t_ms));
        t_ms
    }

    /// Whether the point ends its series.
    pub(super) fn nothing_recorded(&self) -> bool {
        self.flags & NO_RECORDED_VALUE != 0
    }
}

impl Translated {
    pub(super) fn reject(&mut self, reason: &'static str) -> Result<(), WireError> {
        self.rejected += 1;
        self.reason = reason;
        Ok(())
    }

    /// Keeps a point's exemplars under the series that `labels` names.
    pub(super) fn exemplars_of(
        &mut self,
        labels: &Labels,
        common: &Common<'_>,
    ) -> Result<(), WireError> {
        for message in &common.exemplars {
            let exemplar = exemplar(message)?;
            self.exemplars.push((labels.clone(), exemplar));
        }
        Ok(())
    }

    pub(super) fn float(&mut self, labels: Labels, t_ms: i64, value: f64) {
        self.started(labels, t_ms, 0, value);
    }

    /// A float that began to count at `start_ms`.
    pub(super) fn started(&mut self, labels: Labels, t_ms: i64, start_ms: i64, value: f64) {
        self.samples
            .push(Sample::float(labels, t_ms, value).started(start_ms));
    }
}

/// Reads an exemplar: value, time, trace id and span id; other attributes while they fit in 128 characters.
pub(super) fn exemplar(message: &[u8]) -> Result<Exemplar, WireError> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut builder = LabelsBuilder::default();
    let (mut value, mut t_ms, mut length) = (0.0, 0, 0);
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            2 => t_ms = i64::try_from(field.number(n)? / 1_000_000).unwrap_or(0),
            3 => value = field.double(n)?,
            6 => value = field.number(n)?.cast_signed() as f64,
            4 => {
                builder.set("span_id", hex(field.bytes(n)?));
            }
            5 => {
                builder.set("trace_id", hex(field.bytes(n)?));
            }
            7 => {
                let (key, text) = attributes::to_attribute(field.bytes(n)?)?;
                length += key.chars().count() + text.chars().count();
                if length <= 60 {
                    builder.set(label_name(&key), text);
                }
            }
            _ => {}
        }
    }
    Ok(Exemplar {
        labels: builder.build(),
        value,
        t_ms,
    })
}

/// The points of a `Gauge`, `Sum`, `Histogram`, …, its temporality and whether it is monotonic.
fn data_fields(data: &[u8]) -> Result<(Vec<&[u8]>, u64, bool), WireError> {
    let (mut points, mut temporality, mut monotonic) = (Vec::new(), 0, false);
    let mut reader = Reader::new(data);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => points.push(field.bytes(n)?),
            2 => temporality = field.number(n)?,
            3 => monotonic = field.number(n)? != 0,
            _ => {}
        }
    }
    Ok((points, temporality, monotonic))
}

/// `job` and `instance` of a resource, and the labels of its `target_info` when it has any other attribute.
fn resource_labels(resource: &[u8]) -> Result<(ResourceLabels, Option<Labels>), WireError> {
    let attributes = attributes::resource(resource)?;
    let get = |name: &str| {
        let found = attributes.iter().find(|(k, _)| k == name);
        found.map_or("", |(_, v)| v.as_str())
    };
    let service = attributes::service_name(&attributes);
    let job = match get("service.namespace") {
        "" => service.to_owned(),
        namespace => format!("{namespace}/{service}"),
    };
    let mut base = LabelsBuilder::default();
    base.set("job", job)
        .set("instance", get("service.instance.id"));
    let mut info = base.clone();
    let mut any = false;
    for (key, value) in &attributes {
        if !matches!(
            key.as_str(),
            "service.name" | "service.namespace" | "service.instance.id"
        ) {
            info.set(label_name(key), value.as_str());
            any = true;
        }
    }
    info.set(METRIC_NAME, "target_info");
    Ok((ResourceLabels { base }, any.then(|| info.build())))
}
