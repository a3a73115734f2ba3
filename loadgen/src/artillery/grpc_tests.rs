//! gRPC calls against a server in this process that answers by the same `.proto` file, and describes itself.
//! Owns that server. Must not know the internals of a run.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

use super::read::{ReadOptions, read_tree};
use super::run_tests::play_at;
use super::tree;

const PROTO: &str = r#"syntax = "proto3";
package shop;
import "money.proto";
message Ask { string sku = 1; int64 count = 2; repeated string tags = 3; }
message Price { string sku = 1; money.Sum sum = 2; int64 total_cents = 3; }
service Shop {
  rpc Quote(Ask) returns (Price);
  rpc Watch(Ask) returns (stream Price);
}"#;
const MONEY: &str = r#"syntax = "proto3";
package money;
message Sum { int64 cents = 1; string currency = 2; }"#;

type Log = Arc<Mutex<Vec<String>>>;

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

fn answer(status: &str, message: Option<Bytes>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    let frames = message
        .map(Frame::data)
        .into_iter()
        .chain([Frame::trailers(trailers)]);
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
    let mut response = Response::new(Body::new(body));
    let kind = "application/grpc".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    response
}

fn quote(pool: &DescriptorPool, message: &[u8], log: &Log, headers: &HeaderMap) -> Response<Body> {
    let method = super::grpc::method(pool, "shop.Shop/Quote").unwrap();
    let ask = DynamicMessage::decode(method.input(), message).unwrap();
    let field = |name: &str| ask.get_field_by_name(name).unwrap().into_owned();
    let (sku, count) = (field("sku"), field("count"));
    let header = headers
        .get("x-who")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    log.lock()
        .unwrap()
        .push(format!("{sku:?} {count:?} {:?} {header}", field("tags")));
    if sku == Value::String("none".into()) {
        return answer("5", None);
    }
    let mut price = DynamicMessage::new(method.output());
    price.set_field_by_name("sku", sku);
    price.set_field_by_name("total_cents", Value::I64(250));
    let mut sum = DynamicMessage::new(pool.get_message_by_name("money.Sum").unwrap());
    sum.set_field_by_name("cents", Value::I64(125));
    price.set_field_by_name("sum", Value::Message(sum));
    answer("0", Some(framed(&price.encode_to_vec())))
}

/// Answers reflection by the symbol `shop.Shop` and by file name, as field 4 of the response.
fn describe(pool: &DescriptorPool, message: &[u8]) -> Response<Body> {
    let text = String::from_utf8_lossy(message);
    let name = if text.contains("money.proto") {
        "money.proto"
    } else {
        "shop.proto"
    };
    let file = pool
        .get_file_by_name(name)
        .unwrap()
        .file_descriptor_proto()
        .encode_to_vec();
    let wrap = |tag: u32, bytes: &[u8]| {
        let mut out = Vec::new();
        prost_reflect::prost::encoding::encode_key(
            tag,
            prost_reflect::prost::encoding::WireType::LengthDelimited,
            &mut out,
        );
        prost_reflect::prost::encoding::encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    };
    answer("0", Some(framed(&wrap(4, &wrap(1, &file)))))
}

async fn serve(directory: &std::path::Path) -> (String, Log) {
    std::fs::write(directory.join("shop.proto"), PROTO).unwrap();
    std::fs::write(directory.join("money.proto"), MONEY).unwrap();
    let set = protox::compile(["shop.proto"], [directory]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let log = Log::default();
    let heard = Arc::clone(&log);
    let app = axum::Router::new().fallback(move |request: Request| {
        let (pool, log) = (pool.clone(), Arc::clone(&log));
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            match parts.uri.path() {
                "/shop.Shop/Quote" => quote(&pool, &body[5..], &log, &parts.headers),
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
                    describe(&pool, &body[5..])
                }
                _ => answer("12", None),
            }
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (target, heard)
}

const FLOW: &str = "
scenarios:
  - engine: grpc
    flow:
      - call:
          method: shop.Shop/Quote
          message: {sku: '{{ sku }}', count: 2, tags: [a, b]}
          metadata: {x-who: '{{ who }}'}
          capture: [{json: $.sum.cents, as: cents}, {json: $.total_cents, as: total}]
          match: {json: $.sku, value: tea}
      - call: {method: shop.Shop/Quote, message: {sku: '{{ cents }}-{{ total }}'}}
      - call: {method: shop.Shop/Quote, message: {sku: none}}
";

#[tokio::test]
async fn calls_are_made_by_a_proto_file_and_by_reflection() {
    let dir = tempfile::tempdir().unwrap();
    let (target, heard) = serve(dir.path()).await;
    for engines in ["{grpc: {proto: shop.proto}}", "{grpc: {}}"] {
        heard.lock().unwrap().clear();
        let config = format!("  variables: {{who: ann, sku: tea}}\n  engines: {engines}");
        let ran = play_at(dir.path(), Some(&target), &config, FLOW).await;
        let said = heard.lock().unwrap().clone();
        let want = [
            r#"String("tea") I64(2) List([String("a"), String("b")]) ann"#,
            r#"String("125-250") I64(0) List([]) "#,
            r#"String("none") I64(0) List([]) "#,
        ];
        assert_eq!(
            said,
            want,
            "{engines} {:?}",
            ran.results.to_json()["aggregate"]["counters"]
        );
        for (name, count) in [
            ("grpc.requests", 3),
            ("grpc.responses", 3),
            ("grpc.codes.OK", 2),
            ("grpc.codes.NOT_FOUND", 1),
            ("vusers.completed", 1),
            ("http.requests", 0),
        ] {
            assert_eq!(ran.counter(name), count, "{engines} {name}");
        }
        let json = ran.results.to_json();
        assert_eq!(
            json["aggregate"]["summaries"]["grpc.response_time"]["count"],
            3
        );
        assert_eq!(json["nines"]["latency_us"]["count"], 3);
    }
}

#[test]
fn methods_are_checked_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shop.proto"), PROTO).unwrap();
    std::fs::write(dir.path().join("money.proto"), MONEY).unwrap();
    std::fs::write(dir.path().join("bad.proto"), "syntax = \"proto3\"; mess").unwrap();
    for (proto, method, place, said) in [
        (
            "shop.proto",
            "shop.Shop/Quota",
            "s.yml:5:23:",
            "did you mean \"shop.Shop/Quote\"",
        ),
        ("shop.proto", "shop.Shop/Watch", "s.yml:5:23:", "only unary"),
        (
            "shop.proto",
            "Quote",
            "s.yml:5:23:",
            "package.Service/Method",
        ),
        ("bad.proto", "a.B/C", "s.yml:2:27:", "bad.proto"),
    ] {
        let text = format!(
            "config: {{target: 'http://h',
  engines: {{grpc: {{proto: {proto}}}}}}}
scenarios:
  - {{engine: grpc, flow: [
      {{call: {{method: {method}}}}}]}}"
        );
        let options = ReadOptions {
            script: dir.path().join("s.yml"),
            ..ReadOptions::default()
        };
        let error = read_tree(tree::parse("s.yml", &text).unwrap(), &options).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with(place), "{error}");
        assert!(error.contains(said), "{error}");
    }
}
