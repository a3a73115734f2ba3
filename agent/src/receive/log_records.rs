//! `ExportLogsServiceRequest` on the wire: log records read from it and written to it.
//!
//! Owns OTLP's field numbers for logs. Must not know where records are kept.
//! Schema: opentelemetry-proto, `logs/v1/logs.proto`.

use model::log::{LogRecord, Severity};
use model::span::{SpanId, TraceId};

use super::attributes::{self, AnyValue, lossy};
use model::protobuf::{Reader, WireError, put_bytes, put_fixed64, put_number};

/// What a walk over a request found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// How many records there are.
    pub records: u64,
    /// The earliest, Unix nanoseconds; `u64::MAX` without any.
    pub min_ns: u64,
    /// The latest, Unix nanoseconds.
    pub max_ns: u64,
}

/// Checks a request and counts its records; records without any time count as `now_ns`.
pub fn walk(request: &[u8], now_ns: u64) -> Result<Extent, WireError> {
    let mut extent = Extent {
        min_ns: u64::MAX,
        ..Extent::default()
    };
    each(request, now_ns, |record, _| {
        extent.records += 1;
        extent.min_ns = extent.min_ns.min(record.time_ns);
        extent.max_ns = extent.max_ns.max(record.time_ns);
        Ok(())
    })?;
    Ok(extent)
}

/// Reads every record in full and hands it to `then`.
pub fn each_record(
    request: &[u8],
    now_ns: u64,
    mut then: impl FnMut(LogRecord),
) -> Result<(), WireError> {
    each(request, now_ns, |record, service| {
        then(record.to_owned_record(service)?);
        Ok(())
    })
}

/// Writes records as a request, so that collected lines are kept the way received ones are.
#[must_use]
pub fn encode(records: &[LogRecord]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let mut resource = Vec::new();
        put_bytes(
            &mut resource,
            1,
            &text_attribute("service.name", &record.service),
        );
        let mut scope = Vec::new();
        put_bytes(&mut scope, 2, &encode_record(record));
        let mut resource_logs = Vec::new();
        put_bytes(&mut resource_logs, 1, &resource);
        put_bytes(&mut resource_logs, 2, &scope);
        put_bytes(&mut out, 1, &resource_logs);
    }
    out
}

fn encode_record(record: &LogRecord) -> Vec<u8> {
    let severity = match record.severity {
        Severity::Trace => 1,
        Severity::Debug => 5,
        Severity::Info => 9,
        Severity::Warn => 13,
        Severity::Error => 17,
        Severity::Fatal => 21,
    };
    let mut body = Vec::new();
    put_bytes(&mut body, 1, record.body.as_bytes());
    let mut out = Vec::new();
    put_fixed64(&mut out, 1, record.time_ns);
    put_number(&mut out, 2, severity);
    put_bytes(&mut out, 5, &body);
    for (key, value) in &record.attributes {
        put_bytes(&mut out, 6, &text_attribute(key, value));
    }
    if !record.trace_id.is_zero() {
        put_bytes(&mut out, 9, &record.trace_id.0);
    }
    if !record.span_id.is_zero() {
        put_bytes(&mut out, 10, &record.span_id.0);
    }
    out
}

fn text_attribute(key: &str, value: &str) -> Vec<u8> {
    let mut any = Vec::new();
    put_bytes(&mut any, 1, value.as_bytes());
    let mut out = Vec::new();
    put_bytes(&mut out, 1, key.as_bytes());
    put_bytes(&mut out, 2, &any);
    out
}

struct RecordView<'a> {
    time_ns: u64,
    severity: u64,
    severity_text: &'a [u8],
    body: AnyValue<'a>,
    trace_id: TraceId,
    span_id: SpanId,
    message: &'a [u8],
}

impl RecordView<'_> {
    fn to_owned_record(&self, service: &str) -> Result<LogRecord, WireError> {
        let mut attributes = Vec::new();
        let mut reader = Reader::new(self.message);
        while let Some((n, field)) = reader.next_field()? {
            if n == 6 {
                attributes.push(attributes::to_attribute(field.bytes(n)?)?);
            }
        }
        Ok(LogRecord {
            time_ns: self.time_ns,
            severity: severity(self.severity, self.severity_text),
            service: service.to_owned(),
            body: self.body.to_text()?,
            trace_id: self.trace_id,
            span_id: self.span_id,
            attributes,
        })
    }
}

/// The number when there is one, else what the text says.
fn severity(number: u64, text: &[u8]) -> Severity {
    if number != 0 {
        return Severity::from_otlp(number);
    }
    match lossy(text).to_ascii_lowercase().as_str() {
        "trace" => Severity::Trace,
        "debug" => Severity::Debug,
        "warn" | "warning" => Severity::Warn,
        "error" | "err" => Severity::Error,
        "fatal" | "critical" | "panic" => Severity::Fatal,
        _ => Severity::Info,
    }
}

fn each<'a>(
    request: &'a [u8],
    now_ns: u64,
    mut then: impl FnMut(&RecordView<'a>, &str) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut reader = Reader::new(request);
    while let Some((n, field)) = reader.next_field()? {
        if n != 1 {
            continue;
        }
        let (mut resource, mut scopes) = (&b""[..], Vec::new());
        let mut inner = Reader::new(field.bytes(n)?);
        while let Some((n, field)) = inner.next_field()? {
            match n {
                1 => resource = field.bytes(n)?,
                2 => scopes.push(field.bytes(n)?),
                _ => {}
            }
        }
        let attributes = attributes::resource(resource)?;
        let service = attributes::service_name(&attributes);
        for scope in scopes {
            let mut reader = Reader::new(scope);
            while let Some((n, field)) = reader.next_field()? {
                if n == 2 {
                    then(&view(field.bytes(n)?, now_ns)?, service)?;
                }
            }
        }
    }
    Ok(())
}

fn view(message: &[u8], now_ns: u64) -> Result<RecordView<'_>, WireError> {
    let mut record = RecordView {
        time_ns: 0,
        severity: 0,
        severity_text: b"",
        body: AnyValue::Empty,
        trace_id: TraceId::default(),
        span_id: SpanId::default(),
        message,
    };
    let mut observed_ns = 0;
    let mut reader = Reader::new(message);
    while let Some((n, field)) = reader.next_field()? {
        match n {
            1 => record.time_ns = field.number(n)?,
            2 => record.severity = field.number(n)?,
            3 => record.severity_text = field.bytes(n)?,
            5 => {
                record.body = AnyValue::parse(field.bytes(n)?)?;
                record.body.check()?;
            }
            6 => {
                attributes::checked(field.bytes(n)?)?;
            }
            9 => record.trace_id = TraceId(field.bytes(n)?.try_into().unwrap_or_default()),
            10 => record.span_id = SpanId(field.bytes(n)?.try_into().unwrap_or_default()),
            11 => observed_ns = field.number(n)?,
            _ => {}
        }
    }
    if record.time_ns == 0 {
        record.time_ns = if observed_ns == 0 {
            now_ns
        } else {
            observed_ns
        };
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let records = [
            LogRecord {
                time_ns: 5,
                severity: Severity::Error,
                service: "order".into(),
                body: "boom".into(),
                trace_id: TraceId([1; 16]),
                span_id: SpanId([2; 8]),
                attributes: vec![("k".into(), "v".into())],
            },
            LogRecord {
                time_ns: 9,
                service: "user".into(),
                body: "fine".into(),
                ..LogRecord::default()
            },
        ];
        let bytes = encode(&records);
        let mut back = Vec::new();
        each_record(&bytes, 0, |r| back.push(r)).unwrap();
        assert_eq!(back, records);
        let extent = walk(&bytes, 0).unwrap();
        assert_eq!((extent.records, extent.min_ns, extent.max_ns), (2, 5, 9));
        assert!(walk(&bytes[..bytes.len() - 1], 0).is_err());
    }
}
