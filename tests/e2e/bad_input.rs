//! What a hostile or broken peer sends: every refusal is clear and counted, and the agent goes on answering.
//!
//! Owns the bad bytes. Must not know how they are refused.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use model::protobuf::put_varint;

use super::otel::otlp_addresses;
use super::running::Agent;

/// The agent's limit of one body.
const LIMIT: usize = 20 << 20;
const PROTOBUF: &str = "content-type: application/x-protobuf\r\n";
const SNAPPY: &str = "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\n";
const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";

/// One request on a connection of its own: status and body of the answer. `headers` end in a line break each.
fn request(method: &str, address: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the agent accepts");
    let timeout = Some(Duration::from_secs(60));
    stream.set_read_timeout(timeout).expect("a timeout is set");
    stream.set_write_timeout(timeout).expect("a timeout is set");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .expect("a request is written");
    // A server may refuse by the head alone and read no further: its answer counts, not that writing ends early.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{method} {path}: {ended:?}, {text:?}"));
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

/// The host and port that an agent's API listens on.
fn api(agent: &Agent) -> String {
    let rest = agent.url.trim_start_matches("http://");
    rest.trim_end_matches('/').to_owned()
}

fn query(api: &str, text: &str) -> (u16, String) {
    let encoded: String = text.bytes().fold("query=".to_owned(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() {
            all.push(char::from(byte));
        } else {
            all.push_str(&format!("%{byte:02X}"));
        }
        all
    });
    request("POST", api, "/api/v1/query", FORM, encoded.as_bytes())
}

/// The agent is up and its engine works.
fn still_answers(api: &str) {
    let (status, body) = query(api, "1 + 1");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"2\""), "{body}");
}

/// What `/metrics` says of refusals of a signal for a reason; for every reason when that is empty.
fn rejected(api: &str, signal: &str, reason: &str) -> u64 {
    let (status, body) = request("GET", api, "/metrics", "", b"");
    assert_eq!(status, 200);
    let signal = format!("signal=\"{signal}\"");
    let reason = format!("reason=\"{reason}");
    body.lines()
        .filter(|line| line.starts_with("nines_agent_rejected_total{"))
        .filter(|line| line.contains(&signal) && line.contains(&reason))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// A protobuf field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    put_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

/// An attribute whose value is an array in an array, so many deep.
fn deep_attribute(depth: usize) -> Vec<u8> {
    let deepest = field(1, b"bottom");
    let value = (0..depth).fold(deepest, |inner, _| field(5, &field(1, &inner)));
    [field(1, b"key"), field(2, &value)].concat()
}

/// Sends a body in chunks until the agent answers, a gigabyte at most: the status, and how many bytes were written.
fn endless(address: &str, path: &str, headers: &str, begin: &[u8]) -> (String, usize) {
    let mut stream = TcpStream::connect(address).expect("the agent accepts");
    let timeout = Some(Duration::from_secs(60));
    stream.set_write_timeout(timeout).expect("a timeout is set");
    stream.set_read_timeout(timeout).expect("a timeout is set");
    let mut reader = stream.try_clone().expect("the socket is shared");
    let answer = std::thread::spawn(move || {
        let mut status = [0; 12];
        let _ = reader.read_exact(&mut status);
        String::from_utf8_lossy(&status).into_owned()
    });
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\n{headers}transfer-encoding: chunked\r\n\r\n"
    );
    let mut written = 0;
    let mut chunk = |bytes: &[u8], stream: &mut TcpStream| {
        let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        written += bytes.len();
        stream.write_all(&framed).is_ok() && written < 1 << 30
    };
    stream
        .write_all(head.as_bytes())
        .expect("a head is written");
    let part = vec![b'x'; 64 << 10];
    let mut goes_on = chunk(begin, &mut stream);
    while goes_on && !answer.is_finished() {
        goes_on = chunk(&part, &mut stream);
    }
    (answer.join().expect("the reader ends"), written)
}

/// The fields of a span.
fn one_span_fields() -> Vec<u8> {
    let mut span = [field(1, &[7; 16]), field(2, &[8; 8]), field(5, b"once")].concat();
    for (number, time) in [(7_u8, 1_000_u64), (8, 2_000)] {
        span.push(number << 3 | 1);
        span.extend(time.to_le_bytes());
    }
    span
}

/// A `TracesData` with one span.
fn one_span() -> Vec<u8> {
    field(1, &field(2, &field(2, &one_span_fields())))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("bytes are packed");
    encoder.finish().expect("bytes are packed")
}

#[test]
fn bad_otlp_is_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]);
    let (_, otlp) = otlp_addresses(&agent);
    let api = api(&agent);
    let post = |path: &str, headers: &str, body: &[u8]| {
        let (status, text) = request("POST", &otlp, path, headers, body);
        assert!(!text.is_empty(), "{path}: {status} without a reason");
        status
    };
    let good = one_span();
    let (status, text) = request("POST", &otlp, "/v1/traces", PROTOBUF, &good);
    assert_eq!(status, 200, "{text}");

    let cut = &good[..good.len() - 5];
    assert_eq!(post("/v1/traces", PROTOBUF, cut), 400);
    assert_eq!(rejected(&api, "traces", "malformed"), 1);
    assert_eq!(post("/v1/traces", PROTOBUF, &vec![0; LIMIT + 1]), 413);
    let packed = format!("{PROTOBUF}content-encoding: gzip\r\n");
    let bomb = gzip(&vec![0; LIMIT * 4]);
    assert!(bomb.len() < LIMIT / 100);
    let began = Instant::now();
    assert_eq!(post("/v1/traces", &packed, &bomb), 413);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(post("/v1/traces", &packed, &good), 400, "not gzip");
    let half = gzip(&good);
    assert_eq!(post("/v1/traces", &packed, &half[..half.len() - 9]), 400);
    assert_eq!(
        post("/v1/traces", "content-type: text/plain\r\n", &good),
        415
    );
    assert_eq!(rejected(&api, "traces", "content_type"), 1);
    let brotli = format!("{PROTOBUF}content-encoding: br\r\n");
    assert_eq!(post("/v1/traces", &brotli, &good), 415);
    assert_eq!(post("/v1/nothing", PROTOBUF, &good), 404);
    let json = "content-type: application/json\r\n";
    assert_eq!(post("/v1/metrics", json, b"{\"resourceMetrics\": 7}"), 400);
    assert_eq!(rejected(&api, "metrics", "malformed"), 1);
    // Cut, oversized, bomb, not gzip, half a gzip, type, encoding: each exactly once. A path is no signal.
    assert_eq!(rejected(&api, "traces", ""), 7);
    still_answers(&api);
}

#[test]
fn bad_remote_write_is_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]);
    let api = api(&agent);
    // Snappy begins with the length it will have: 4 GiB less one, then 100 bytes for 3, then no message at all.
    // Last a label that says it has a gigabyte, in a message of ten bytes.
    let lies: [(&[u8], u16); 4] = [
        (&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, b'x'], 413),
        (&[100, 8, b'a', b'b', b'c'], 400),
        (&[3, 8, 0xff, 0xff, 0xff], 400),
        (
            &[10, 36, 0x0a, 8, 0x0a, 6, 0x0a, 0x80, 0x80, 0x80, 0x80, 4],
            400,
        ),
    ];
    for (n, (body, expected)) in (1..).zip(lies) {
        let (status, text) = request("POST", &api, "/api/v1/write", SNAPPY, body);
        assert_eq!(status, expected, "{body:?}: {text}");
        assert!(text.contains("\"error\""), "{text}");
        assert_eq!(rejected(&api, "samples", "malformed"), n, "{body:?}");
    }
    // A gigabyte that is announced is refused before any of it is read.
    let mut stream = TcpStream::connect(&api).expect("the agent accepts");
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nhost: {api}\r\n{SNAPPY}content-length: {}\r\n\r\n",
        1 << 30
    );
    stream
        .write_all(head.as_bytes())
        .expect("a head is written");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 413");
    assert_eq!(rejected(&api, "samples", "body_too_large"), 1);
    still_answers(&api);
}

#[test]
fn what_has_no_end_or_no_bottom_is_refused_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.yaml");
    std::fs::write(&file, "query: {max_samples: 1000}\n").unwrap();
    let agent = Agent::start(dir.path(), &["--config", file.to_str().unwrap()]);
    let (_, otlp) = otlp_addresses(&agent);
    let api = api(&agent);
    let before = agent.peak_resident_bytes();

    // A label that says it has a gigabyte, and then keeps coming.
    let label = [
        10, 0x80, 0x80, 0x80, 0x80, 4, 0x0a, 0x80, 0x80, 0x80, 0x80, 4,
    ];
    let snappy = [&[0x80, 0x80, 0x80, 0x80, 4, 0xf0, 11], &label[..]].concat();
    for (address, path, headers, begin) in [
        (&api, "/api/v1/write", SNAPPY, snappy.as_slice()),
        (&otlp, "/v1/metrics", PROTOBUF, label.as_slice()),
        (
            &otlp,
            "/v1/logs",
            "content-type: application/json\r\n",
            b"{\"resourceLogs\":[\"",
        ),
    ] {
        let (status, written) = endless(address, path, headers, begin);
        assert_eq!(status, "HTTP/1.1 413", "{path} after {written} bytes");
        assert!(
            written < LIMIT + (32 << 20),
            "{path}: {written} bytes were taken"
        );
    }

    let attribute = deep_attribute(2_000);
    // Span, point of a gauge, log record: their attributes.
    let span = field(2, &[one_span_fields(), field(9, &attribute)].concat());
    let point = [vec![25, 1, 0, 0, 0, 0, 0, 0, 0], field(7, &attribute)].concat();
    let gauge = [field(1, b"depth"), field(5, &field(1, &point))].concat();
    let metric = field(2, &gauge);
    let record = field(2, &field(6, &attribute));
    for (path, leaf) in [
        ("/v1/traces", span),
        ("/v1/metrics", metric),
        ("/v1/logs", record),
    ] {
        let body = field(1, &field(2, &leaf));
        let (status, text) = request("POST", &otlp, path, PROTOBUF, &body);
        assert_eq!(status, 400, "{path}: {text}");
        assert!(text.contains("nested"), "{path}: {text}");
    }
    let json = format!(
        "{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{{\"attributes\":[{{\"key\":\"k\",\"value\":{}{{}}{}}}]}}]}}]}}]}}",
        "{\"arrayValue\":{\"values\":[".repeat(20_000),
        "]}}".repeat(20_000)
    );
    let headers = "content-type: application/json\r\n";
    let (status, text) = request("POST", &otlp, "/v1/traces", headers, json.as_bytes());
    assert_eq!(status, 400, "{text}");
    // Groups in groups.
    let groups = snap_literal(&[0x0b; 60_000]);
    let (status, text) = request("POST", &api, "/api/v1/write", SNAPPY, &groups);
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("\"errorType\":\"bad_data\""), "{text}");
    // Says one byte, has three.
    let (status, text) = request(
        "POST",
        &api,
        "/api/v1/write",
        SNAPPY,
        &[1, 8, b'a', b'b', b'c'],
    );
    assert_eq!(status, 400, "{text}");

    let now = super::remote::now_ms();
    let labels = model::Labels::from_pairs([("__name__", "many")]);
    let samples = (0..2_000).map(|i| (now - i * 1_000, 1.0)).rev().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = client::Client::new(agent.url.clone());
    runtime
        .block_on(client.remote_write(&[(labels, samples)]))
        .unwrap();
    let (status, text) = query(&api, "sum(count_over_time(many[1h]))");
    assert_eq!(status, 422, "{text}");
    assert!(
        text.contains("\"status\":\"error\"")
            && text.contains("\"errorType\":\"execution\"")
            && text.contains("query processing would load too many samples into memory"),
        "{text}"
    );

    still_answers(&api);
    let grown = agent.peak_resident_bytes() - before;
    println!("peak memory grew by {grown} bytes, from {before}");
    assert!(grown < 256 << 20, "{grown} bytes");
}

/// Snappy's form of at most 64 KiB as they are.
fn snap_literal(bytes: &[u8]) -> Vec<u8> {
    let less_one = u16::try_from(bytes.len() - 1).expect("short");
    let mut out = Vec::new();
    put_varint(&mut out, bytes.len() as u64);
    out.push(61 << 2);
    out.extend_from_slice(&less_one.to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

#[test]
fn monstrous_queries_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]);
    let api = api(&agent);
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let queries = [
        ("a megabyte of sums", format!("1{}", "+1".repeat(500_000))),
        ("a megabyte of text", "x ".repeat(500_000)),
        ("parentheses", deep),
        ("open parentheses", "(".repeat(100_000)),
        ("minus", format!("{}1", "-".repeat(100_000))),
        (
            "a regex bomb",
            "up{job=~\"((a{1000}){1000}){1000}\"}".to_owned(),
        ),
        (
            "a regex bomb in a call",
            "label_replace(vector(1), \"a\", \"$1\", \"b\", \"((a{1000}){1000}){1000}\")"
                .to_owned(),
        ),
    ];
    for (what, text) in queries {
        let began = Instant::now();
        let (status, body) = query(&api, &text);
        let begin: String = body.chars().take(300).collect();
        assert!((400..500).contains(&status), "{what}: {status} {begin}");
        assert!(body.contains("\"status\":\"error\""), "{what}: {begin}");
        assert!(
            body.len() < 16 << 10,
            "{what}: {} bytes of error",
            body.len()
        );
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        still_answers(&api);
    }
    let (status, _) = query(&api, &"1".repeat(5 << 20));
    assert_eq!(status, 400, "a form has at most 4 MiB");
    still_answers(&api);
}

/// Serves every connection: reads a little, sends `answer`, and ends it, or keeps it open in silence.
fn target(answer: Option<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming().flatten() {
            let Some(bytes) = &answer else {
                silent.push(stream);
                continue;
            };
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        }
    });
    address
}

fn config(dir: &Path, targets: &[(&str, String)]) -> String {
    let mut text = "collect:\n  scrape:\n".to_owned();
    for (job, address) in targets {
        text.push_str(&format!(
            "  - job: {job}\n    targets: [\"{address}\"]\n    interval: 200ms\n    timeout: 150ms\n"
        ));
    }
    let file = dir.join("agent.yaml");
    std::fs::write(&file, text).expect("a file is written");
    file.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn bad_scrape_targets_are_down_with_a_reason_and_delay_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let ok = |body: &[u8]| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n";
        Some([&head[..], body].concat())
    };
    let targets = [
        ("good", target(ok(b"fine 1\n"))),
        ("binary", target(ok(&[0xff, 0, 0xfe, b'\n'].repeat(5_000)))),
        ("half", target(ok(b"broken{a=\"b"))),
        ("not_http", target(Some(vec![0x16; 5_000]))),
        ("silent", target(None)),
    ];
    let file = config(dir.path(), &targets);
    let agent = Agent::start(dir.path(), &["--config", &file]);
    let api = api(&agent);
    let deadline = Instant::now() + Duration::from_secs(20);
    let state = loop {
        let (status, body) = request("GET", &api, "/api/v1/targets", "", b"");
        assert_eq!(status, 200);
        let state: serde_json::Value = serde_json::from_str(&body).unwrap();
        let active = state["data"]["activeTargets"].as_array().unwrap().clone();
        let known = active.iter().filter(|t| t["health"] != "unknown").count();
        if known >= targets.len() {
            break active;
        }
        assert!(Instant::now() < deadline, "{body}");
        std::thread::sleep(Duration::from_millis(100));
    };
    // Several rounds with the bad ones in place.
    std::thread::sleep(Duration::from_secs(1));
    let (status, _) = request("POST", &api, "/api/nines/v1/flush", "", b"");
    assert_eq!(status, 200);
    for (job, _) in &targets {
        let found = state.iter().find(|t| t["labels"]["job"] == *job).unwrap();
        let error = found["lastError"].as_str().unwrap();
        let good = *job == "good";
        assert_eq!(found["health"], if good { "up" } else { "down" }, "{found}");
        assert_eq!(error.is_empty(), good, "{found}");
        let (_, body) = query(&api, &format!("up{{job=\"{job}\"}} == bool 1"));
        let value = if good { "\"1\"]" } else { "\"0\"]" };
        assert!(body.contains(value), "{job}: {body}");
    }
    let (_, body) = query(&api, "count_over_time(fine[1m]) >= 4");
    assert!(
        body.contains("\"good\""),
        "the good one was delayed: {body}"
    );
    // On a slow machine the shipped rules have already seen that they are down.
    let (_, body) = query(
        &api,
        "count({job=~\"binary|half|not_http\",__name__!~\"up|scrape_.*|ALERTS.*\"})",
    );
    assert!(body.contains("\"result\":[]"), "parts of garbage: {body}");
    still_answers(&api);
}
