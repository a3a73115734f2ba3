//! Tests of ab: command lines, and runs against a server on this machine.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use tokio_util::sync::CancellationToken;

use super::*;

fn args(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn flags_are_read_as_ab_reads_them() {
    let o = parse(&args(
        "-n100 -kc 10 -rq -s 5 -C a=b -C c=d -A u:p -H X-A:1 127.0.0.1:80/x",
    ))
    .unwrap();
    assert_eq!((o.requests, o.concurrency, o.keep_alive), (100, 10, true));
    assert!(o.keep_going && o.quiet);
    assert_eq!(o.url, "http://127.0.0.1:80/x");
    let headers: Vec<_> = o
        .headers
        .iter()
        .map(|(n, v)| format!("{n}={}", v.to_str().unwrap()))
        .collect();
    assert_eq!(
        headers,
        ["authorization=Basic dTpw", "x-a=1", "cookie=a=b; c=d"]
    );
    assert_eq!(parse(&args("-t 3 http://h/")).unwrap().requests, 50_000);
    assert_eq!(parse(&args("-t 3 -n 7 http://h/")).unwrap().requests, 7);
}

#[test]
fn what_is_wrong_or_unsupported_is_named() {
    let cases = [
        ("-X p:1 http://h/", "take -X: not supported (no proxy)"),
        (
            "-w http://h/",
            "take -w: not supported (HTML tables are not written)",
        ),
        (
            "-n 0 http://h/",
            "read -n \"0\": expected a whole number from 1",
        ),
        ("-n 2 -c 3 http://h/", "use a concurrency level greater"),
        ("-p a -u b http://h/", "mix -p, -u, -i and -m"),
        ("-H nope http://h/", "expected 'Name: value'"),
        ("-n", "read -n: it needs a value"),
        ("-Q http://h/", "know option -Q"),
        ("-k", "wrong number of arguments (0)"),
        ("http://h/ -k", "wrong number of arguments (2)"),
    ];
    for (line, expected) in cases {
        let error = parse(&args(line)).unwrap_err();
        assert!(error.to_string().contains(expected), "{line}: {error}");
        assert_eq!(error.exit_code(), 22, "{line}");
    }
    assert_eq!(parse(&args("-h")).unwrap_err().exit_code(), 0);
    assert!(matches!(parse(&args("-V")), Err(AbError::Info(_))));
}

type Seen = Arc<Mutex<Vec<String>>>;

async fn record(
    State(seen): State<Seen>,
    request: Request,
) -> ([(&'static str, &'static str); 1], &'static str) {
    let mut line = format!(
        "{} {} {:?}",
        request.method(),
        request.uri(),
        request.version()
    );
    for name in ["connection", "x-a", "content-type"] {
        if let Some(v) = request.headers().get(name) {
            line += &format!(" {name}={}", v.to_str().unwrap());
        }
    }
    let body = axum::body::to_bytes(request.into_body(), 1000)
        .await
        .unwrap();
    line += &format!(" {}", String::from_utf8_lossy(&body));
    seen.lock().unwrap().push(line);
    ([("server", "test/1")], "hello")
}

async fn serve() -> (String, Seen) {
    let seen = Seen::default();
    let app = Router::new().fallback(record).with_state(Arc::clone(&seen));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (addr.to_string(), seen)
}

#[tokio::test]
async fn requests_are_http_1_0_and_counted_exactly() {
    let (addr, seen) = serve().await;
    let options = parse(&args(&format!("-n 25 -c 4 -g g -H X-A:1 {addr}/p?q=1"))).unwrap();
    let report = run(options, CancellationToken::new()).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 25);
    assert_eq!(seen[0].trim(), "GET /p?q=1 HTTP/1.0 x-a=1");
    assert_eq!(
        (report.complete, report.failures(), report.html),
        (25, 0, 125)
    );
    let text = report.text();
    for line in [
        "Server Software:        test/1",
        "Document Path:          /p?q=1",
        "Document Length:        5 bytes",
        "Concurrency Level:      4",
        "Complete requests:      25",
        "Failed requests:        0",
        "HTML transferred:       125 bytes",
        "              min  mean[+/-sd] median   max",
        "Percentiles with decimals (ms)",
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "{line:?} missing in\n{text}"
        );
    }
    assert_eq!(report.csv().lines().count(), 101);
    let gnuplot = report.gnuplot();
    assert_eq!(gnuplot.lines().count(), 26);
    assert_eq!(gnuplot.lines().nth(1).unwrap().split('\t').count(), 6);
}

#[tokio::test]
async fn keep_alive_reuses_and_a_body_is_posted() {
    let (addr, seen) = serve().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    std::fs::write(&file, "abc").unwrap();
    let line = format!("-n 6 -c 2 -k -T text/x -p {} {addr}/", file.display());
    let report = run(parse(&args(&line)).unwrap(), CancellationToken::new())
        .await
        .unwrap();
    assert_eq!((report.complete, report.kept_alive), (6, 6));
    assert_eq!(
        seen.lock().unwrap()[0],
        "POST / HTTP/1.0 connection=Keep-Alive content-type=text/x abc"
    );
    assert!(report.text().contains("Keep-Alive requests:    6\n"));
}

#[tokio::test]
async fn a_shut_port_aborts_with_the_errno_and_other_hosts_need_consent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let options = parse(&args(&format!("-n 5 {addr}/"))).unwrap();
    let error = run(options, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.exit_code(), 111, "{error}");
    let options = parse(&args("-n 5 http://192.0.2.1/")).unwrap();
    let error = run(options, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, AbError::Load(LoadError::NotYours { .. })));
}
