//! The walks on the wire against the published messages: what prost encodes is read the same, however it is cut or bent.

use agent::receive::json::{Signal, to_protobuf};
use agent::receive::{log_records, metrics, spans};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;

use crate::harness::resource;

fn value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        "[a-zé%]{0,12}".prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        (-1e9f64..1e9).prop_map(Value::DoubleValue),
        proptest::collection::vec(any::<u8>(), 0..8).prop_map(Value::BytesValue),
    ];
    let any = |v| AnyValue { value: Some(v) };
    leaf.prop_map(any).prop_recursive(2, 8, 3, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(move |values| any(Value::ArrayValue(ArrayValue { values }))),
            proptest::collection::vec(("[a-z]{1,4}", inner), 0..3).prop_map(move |pairs| {
                let values = pairs
                    .into_iter()
                    .map(|(key, value)| pair(key, value))
                    .collect();
                any(Value::KvlistValue(KeyValueList { values }))
            }),
        ]
    })
}

fn pair(key: String, value: AnyValue) -> KeyValue {
    KeyValue {
        key,
        value: Some(value),
        ..KeyValue::default()
    }
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop_oneof![
        Just("http.route".to_owned()),
        Just("http.response.status_code".to_owned()),
        "[a-z.]{1,10}",
    ];
    proptest::collection::vec((key, value()), 0..5)
        .prop_map(|all| all.into_iter().map(|(k, v)| pair(k, v)).collect())
}

prop_compose! {
    fn span()(
        trace_id in proptest::collection::vec(any::<u8>(), 16),
        span_id in proptest::collection::vec(any::<u8>(), 8),
        parent in proptest::option::of(proptest::collection::vec(any::<u8>(), 8)),
        name in "[a-z /é]{0,20}",
        kind in 0..6i32,
        start in 0..u64::MAX / 2,
        length in 0..1u64 << 40,
        attributes in attributes(),
        event in attributes(),
        code in 0..3i32,
        message in "[a-z]{0,5}",
        linked in any::<bool>(),
    ) -> Span {
        Span {
            links: linked.then(|| Link { trace_id: trace_id.clone(), span_id: span_id.clone(), ..Link::default() }).into_iter().collect(),
            trace_id,
            span_id,
            parent_span_id: parent.unwrap_or_default(),
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: start + length,
            attributes,
            events: vec![Event { name: "e".into(), time_unix_nano: start, attributes: event, ..Event::default() }],
            status: Some(Status { code, message }),
            flags: 0x0101,
            ..Span::default()
        }
    }
}

prop_compose! {
    fn request()(services in proptest::collection::vec(("[a-z]{1,6}", proptest::collection::vec(span(), 0..4)), 0..4)) -> ExportTraceServiceRequest {
        let resource_spans = services.into_iter().map(|(service, spans)| ResourceSpans {
            resource: Some(resource(&service)),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        });
        ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
    }
}

fn all_spans(request: &ExportTraceServiceRequest) -> Vec<&Span> {
    let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
    scopes.flat_map(|s| &s.spans).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_walk_reads_what_prost_wrote(request in request()) {
        let bytes = request.encode_to_vec();
        let walked = spans::walk(&bytes).unwrap();
        let full = spans::materialise(&bytes, |_| true).unwrap();
        let wanted: Vec<&Span> = all_spans(&request)
            .into_iter()
            .filter(|s| s.trace_id.iter().any(|b| *b != 0) && s.span_id.iter().any(|b| *b != 0))
            .collect();
        prop_assert_eq!(walked.spans.len(), wanted.len());
        prop_assert_eq!(full.len(), wanted.len());
        for ((view, full), wanted) in walked.spans.iter().zip(&full).zip(wanted) {
            prop_assert_eq!(&view.trace_id.0[..], &wanted.trace_id);
            prop_assert_eq!(view.name, wanted.name.as_bytes());
            prop_assert_eq!((view.start_ns, view.end_ns), (wanted.start_time_unix_nano, wanted.end_time_unix_nano));
            prop_assert_eq!(&full.service, &walked.services[view.service]);
            prop_assert_eq!(&full.name, &wanted.name);
            prop_assert_eq!(full.kind as i32, wanted.kind);
            prop_assert_eq!(full.attributes.len(), wanted.attributes.len());
            prop_assert_eq!(full.events[0].attributes.len(), wanted.events[0].attributes.len());
            prop_assert_eq!(full.links.len(), wanted.links.len());
            let status = wanted.status.clone().unwrap_or_default();
            prop_assert_eq!((full.status as i32, &full.status_message), (status.code, &status.message));
            let route = wanted.attributes.iter().rev().find(|a| a.key == "http.route").and_then(|a| a.value.clone()?.value);
            if let Some(Value::StringValue(route)) = route {
                prop_assert_eq!(view.route, route.as_bytes());
            }
        }
    }

    #[test]
    fn json_says_the_same(request in request()) {
        let json = serde_json::to_vec(&request).unwrap();
        let bytes = to_protobuf(Signal::Traces, &json).unwrap();
        let wanted = spans::materialise(&request.encode_to_vec(), |_| true).unwrap();
        prop_assert_eq!(spans::materialise(&bytes, |_| true).unwrap(), wanted);
    }

    #[test]
    fn bent_requests_never_panic_and_cut_ones_are_refused_or_shorter(request in request(), at in any::<prop::sample::Index>(), byte: u8) {
        let whole = request.encode_to_vec();
        if !whole.is_empty() {
            let mut bent = whole.clone();
            bent[at.index(whole.len())] = byte;
            if let Ok(walked) = spans::walk(&bent)
                && let Ok(full) = spans::materialise(&bent, |_| true)
            {
                prop_assert_eq!(full.len(), walked.spans.len());
            }
            let _ = metrics::check(&bent);
            let _ = log_records::walk(&bent, 0);
            let cut = &whole[..at.index(whole.len())];
            if let Ok(walked) = spans::walk(cut) {
                prop_assert!(walked.spans.len() <= all_spans(&request).len());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = spans::walk(&bytes);
        let _ = spans::materialise(&bytes, |_| true);
        let _ = metrics::check(&bytes);
        let _ = log_records::walk(&bytes, 0);
        for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
            let _ = to_protobuf(signal, &bytes);
        }
    }
}
