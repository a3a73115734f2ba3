//! The client against servers in this process: what is sent, what is read, and what errors say.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use client::{Client, ClientError, NewSilence, Peer, RemoteSource, TraceSearch};
use model::api::{SilenceMatcher, path};
use model::labels::Labels;
use model::matcher::Matcher;
use model::query::QueryData;
use model::source::{SelectRequest, Source, WholeQuery};
use serde_json::json;

type Seen = Arc<Mutex<Vec<(String, String, Option<String>)>>>;

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// Answers everything with `status` and `body` and notes what was asked.
async fn canned(status: u16, body: String) -> (String, Seen) {
    let seen: Seen = Arc::default();
    let notes = Arc::clone(&seen);
    let router = Router::new().fallback(move |uri: Uri, headers: HeaderMap, sent: Bytes| {
        let token = headers
            .get("authorization")
            .map(|v| v.to_str().unwrap().to_owned());
        let text = String::from_utf8_lossy(&sent).into_owned();
        notes.lock().unwrap().push((uri.to_string(), text, token));
        async move { (StatusCode::from_u16(status).unwrap(), body) }
    });
    (serve(router).await, seen)
}

fn matrix() -> String {
    json!({"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"__name__": "up", "job": "a"}, "values": [[1, "1"], [2.5, "+Inf"]]}]}})
    .to_string()
}

#[tokio::test]
async fn silences_are_made_and_ended_as_alertmanager_wants_it() {
    let (base, seen) = canned(200, r#"{"silenceID":"a-b"}"#.into()).await;
    let client = Client::new(base).with_token(Some("secret".into()));
    let new = NewSilence {
        matchers: vec![SilenceMatcher::equal("alertname", "A")],
        starts_ms: 0,
        ends_ms: 3_600_000,
        created_by: "kim".into(),
        comment: "seen".into(),
    };
    assert_eq!(client.silence(&new).await.unwrap(), "a-b");
    client.end_silence("a/b").await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[0].0, path::AM_SILENCES);
    let sent: serde_json::Value = serde_json::from_str(&seen[0].1).unwrap();
    assert_eq!(sent["endsAt"], "1970-01-01T01:00:00.000Z");
    let matcher = json!({"name": "alertname", "value": "A", "isRegex": false, "isEqual": true});
    assert_eq!(sent["matchers"][0], matcher);
    assert_eq!(seen[1].0, "/api/v2/silence/a%2Fb");
    assert_eq!(seen[1].2.as_deref(), Some("Bearer secret"));
    let (base, _) = canned(400, r#""the end is before the start""#.into()).await;
    let error = Client::new(base).silence(&new).await.unwrap_err();
    assert!(
        error.to_string().ends_with("the end is before the start"),
        "{error}"
    );
    let (base, _) = canned(404, r#""silence x not found""#.into()).await;
    let error = Client::new(base).end_silence("x").await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn asks_with_token_and_reads_the_answer() {
    let (base, seen) = canned(200, matrix()).await;
    let client = Client::new(format!("{base}/")).with_token(Some("secret".into()));
    let data = client
        .query_range("rate(up[5m])", 1_000, 61_000, 500)
        .await
        .unwrap();
    assert!(matches!(data, QueryData::Matrix(all) if all[0].points.t_ms == [1_000, 2_500]));
    let (uri, body, token) = seen.lock().unwrap()[0].clone();
    assert_eq!(uri, path::QUERY_RANGE);
    assert_eq!(
        body,
        "query=rate%28up%5B5m%5D%29&start=1.000&end=61.000&step=0.500"
    );
    assert_eq!(token.as_deref(), Some("Bearer secret"));
}

#[tokio::test]
async fn searches_carry_only_what_was_given() {
    let (base, seen) = canned(200, json!({"status": "success", "data": []}).to_string()).await;
    let search = TraceSearch {
        service: Some("gate way".into()),
        min_duration_ms: Some(300),
        error: Some(true),
        ..TraceSearch::default()
    };
    assert!(Client::new(base).traces(&search).await.unwrap().is_empty());
    let uri = seen.lock().unwrap()[0].0.clone();
    assert_eq!(
        uri,
        format!(
            "{}?service=gate+way&min_duration=300ms&error=true",
            path::TRACES
        )
    );
}

#[tokio::test]
async fn remote_write_is_a_snappy_block() {
    let got: Arc<Mutex<Vec<u8>>> = Arc::default();
    let kept = Arc::clone(&got);
    let take = move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["content-encoding"], "snappy");
        *kept.lock().unwrap() = body.to_vec();
        StatusCode::NO_CONTENT
    };
    let base = serve(Router::new().route(path::REMOTE_WRITE, axum::routing::post(take))).await;
    let series = [(Labels::from_pairs([("__name__", "x")]), vec![(1, 2.0)])];
    Client::new(base).remote_write(&series).await.unwrap();
    let raw = snap::raw::Decoder::new()
        .decompress_vec(&got.lock().unwrap())
        .unwrap();
    assert_eq!(raw, client::encode_write_request(&series));
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let error = Client::new(free.to_string()).alerts().await.unwrap_err();
    assert!(error.is_retryable());
    let text = error.to_string();
    assert!(
        text.starts_with(&format!(
            "cannot reach http://{free}: is `nines agent` running?"
        )),
        "{text}"
    );
    let server = Client::new(free.to_string()).with_peer(Peer::Server);
    let text = server.query("up", 0).await.unwrap_err().to_string();
    assert!(
        text.starts_with(&format!(
            "cannot reach http://{free}: does the server run, and is this its address?"
        )) && !text.contains("agent"),
        "{text}"
    );

    let body = json!({"status": "error", "errorType": "bad_data", "error": "1:5: no such thing"});
    let (base, _) = canned(400, body.to_string()).await;
    let error = Client::new(base).query("sum(", 0).await.unwrap_err();
    assert_eq!(error.to_string(), "bad_data: 1:5: no such thing");
    assert!(!error.is_retryable());

    let (base, _) = canned(401, "{}".into()).await;
    assert!(matches!(
        Client::new(base).rules().await,
        Err(ClientError::Unauthorized { .. })
    ));

    let (base, _) = canned(404, "<html>\u{1b}[31m nginx".into()).await;
    let error = Client::new(base).slos().await.unwrap_err();
    assert!(
        error.is_not_found() && !error.to_string().contains('\u{1b}'),
        "{error}"
    );

    let error = Client::new("ftp://x").slos().await.unwrap_err();
    assert!(matches!(error, ClientError::BadUrl { .. }));
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = silent.local_addr().unwrap().to_string();
    let client = Client::new(base).with_timeout(Duration::from_millis(50));
    let error = client.self_status().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_server_is_a_source() {
    let (base, seen) = canned(200, matrix()).await;
    let source = RemoteSource::new(Client::new(base), tokio::runtime::Handle::current());
    let work = move || {
        let matchers = [Matcher::equal("__name__", "up")];
        let request = SelectRequest {
            matchers: &matchers,
            start_ms: 1_000,
            end_ms: 3_000,
            max_points: 2,
        };
        let series = source.select(&request).unwrap();
        assert_eq!(series[0].points.values, [1.0, f64::INFINITY]);
        assert!(
            source
                .select(&SelectRequest {
                    max_points: 1,
                    ..request
                })
                .is_err()
        );
        let whole = WholeQuery {
            text: "up",
            start_ms: 0,
            end_ms: 5_000,
            step_ms: 0,
        };
        assert!(source.evaluate(&whole).unwrap().is_ok());
    };
    tokio::task::spawn_blocking(work).await.unwrap();
    let asked = seen.lock().unwrap();
    assert_eq!(asked[0].0, path::REMOTE_READ, "tried once");
    assert_eq!(
        asked[1].1,
        "query=%7B__name__%3D%22up%22%7D%5B2001ms%5D&time=3.000"
    );
    assert_eq!(asked[3].1, "query=up&time=5.000");
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_come_by_remote_read_and_are_evaluated_here() {
    use model::sample::{Points, STALE_NAN_BITS, SeriesData};
    let mut points = Points::default();
    for (t_ms, value) in [
        (500, 0.0),
        (1_000, 1.0),
        (2_000, f64::from_bits(STALE_NAN_BITS)),
    ] {
        points.push_float(t_ms, value);
    }
    let labels = Labels::from_pairs([("__name__", "up")]);
    let series = model::prompb::series(&SeriesData { labels, points });
    let (mut result, mut message) = (Vec::new(), Vec::new());
    model::protobuf::put_bytes(&mut result, 1, &series);
    model::protobuf::put_bytes(&mut message, 1, &result);
    let answer = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    let asked: Arc<Mutex<Vec<u8>>> = Arc::default();
    let kept = Arc::clone(&asked);
    let read = move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["x-prometheus-remote-read-version"], "0.1.0");
        *kept.lock().unwrap() = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        ([("content-type", "application/x-protobuf")], answer)
    };
    let base = serve(Router::new().route(path::REMOTE_READ, axum::routing::post(read))).await;
    let source = RemoteSource::new(Client::new(base), tokio::runtime::Handle::current())
        .evaluating(client::Evaluate::Here);
    let work = move || {
        let matchers = [Matcher::equal("__name__", "up")];
        let request = SelectRequest {
            matchers: &matchers,
            start_ms: 1_000,
            end_ms: 3_000,
            max_points: 3,
        };
        let points = source.select(&request).unwrap().remove(0).points;
        assert_eq!(points.t_ms, [1_000, 2_000], "cut to the bounds");
        assert!(model::is_stale(points.values[1]));
        let whole = WholeQuery {
            text: "up",
            start_ms: 0,
            end_ms: 5_000,
            step_ms: 0,
        };
        assert!(source.evaluate(&whole).is_none());
        let few = SelectRequest {
            max_points: 2,
            ..request
        };
        assert!(source.select(&few).is_err());
    };
    tokio::task::spawn_blocking(work).await.unwrap();
    let read = model::prompb::read_request(&asked.lock().unwrap()).unwrap();
    assert_eq!(
        (read.queries[0].start_ms, read.queries[0].end_ms),
        (1_000, 3_000)
    );
}
