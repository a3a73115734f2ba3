//! Scripts run against a server in this process that writes down what it was asked.
//! Owns that server. Must not know the internals of a run beyond its results.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::read::{ReadOptions, read_tree};
use super::{Event, Results, RunOptions, run, tree};

/// One request as the server saw it.
#[derive(Debug, Clone)]
struct Asked {
    line: String,
    headers: HeaderMap,
    body: String,
}

type Log = Arc<Mutex<Vec<Asked>>>;

async fn answer(State(log): State<Log>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20)
        .await
        .unwrap_or(Bytes::new());
    let path = parts.uri.path().to_owned();
    log.lock().unwrap().push(Asked {
        line: format!("{} {}", parts.method, parts.uri),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    match path.as_str() {
        "/login" => {
            let cookies = [
                (header::SET_COOKIE, "sid=abc; Path=/"),
                (header::ETAG, "tag-1"),
            ];
            let body = json!({"token": "t1", "items": [{"id": 4}, {"id": 5}], "n": 3});
            (cookies, axum::Json(body)).into_response()
        }
        "/text" => "order id=77; done".into_response(),
        "/old" => (StatusCode::FOUND, [(header::LOCATION, "/new?x=1")]).into_response(),
        "/see" => (StatusCode::SEE_OTHER, [(header::LOCATION, "/new?x=2")]).into_response(),
        "/round" => (StatusCode::FOUND, [(header::LOCATION, "/round")]).into_response(),
        "/missing" => StatusCode::NOT_FOUND.into_response(),
        "/gzip" => {
            use std::io::Write;
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(br#"{"z": "zipped"}"#).unwrap();
            ([(header::CONTENT_ENCODING, "gzip")], out.finish().unwrap()).into_response()
        }
        "/xml" => "<r><a id='7'>x</a><a id='8'>y</a></r>".into_response(),
        "/html" => "<p><a class=n href=/p1>1</a><a class=n href=/p2>2</a>".into_response(),
        "/br" => {
            // {"z":"br"} as one brotli block that is not compressed.
            let raw = [&[0x8b, 0x04, 0x80][..], br#"{"z":"br"}"#, &[0x03]].concat();
            ([(header::CONTENT_ENCODING, "br")], raw).into_response()
        }
        _ => axum::Json(json!({"ok": true})).into_response(),
    }
}

pub(crate) struct Ran {
    asked: Vec<Asked>,
    pub(crate) results: Results,
    said: Vec<String>,
    complaints: Vec<String>,
}

impl Ran {
    fn lines(&self) -> Vec<&str> {
        self.asked.iter().map(|a| a.line.as_str()).collect()
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.results.to_json()["aggregate"]["counters"][name]
            .as_u64()
            .unwrap_or(0)
    }
}

/// Runs a script whose lines are given without `config.target`; `config` lines are indented by 2.
async fn play_in(directory: &Path, config: &str, rest: &str) -> Ran {
    play_at(directory, None, config, rest).await
}

/// The same against another target than the server in this process.
pub(crate) async fn play_at(
    directory: &Path,
    instead: Option<&str>,
    config: &str,
    rest: &str,
) -> Ran {
    let log = Log::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new()
        .fallback(answer)
        .with_state(Arc::clone(&log));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let text = format!("config:\n  target: {target}\n{config}\n{rest}");
    let options = ReadOptions {
        script: directory.join("s.yml"),
        target: instead.map(str::to_owned),
        ..ReadOptions::default()
    };
    let root = tree::parse("s.yml", &text).unwrap();
    let script = read_tree(root, &options).unwrap_or_else(|e| panic!("{e}"));
    let options = RunOptions {
        run_id: "r1".into(),
        seed: 1,
        own_target: false,
        keep_seconds: false,
        keep_awake: false,
        beside: None,
    };
    let (tx, mut rx) = mpsc::channel(1024);
    let results = run(script, options, tx, CancellationToken::new())
        .await
        .unwrap();
    let (mut said, mut complaints) = (Vec::new(), Vec::new());
    while let Some(event) = rx.recv().await {
        match event {
            Event::Log(text) => said.push(text),
            Event::Complaint(text) => complaints.push(text),
            _ => {}
        }
    }
    let asked = log.lock().unwrap().clone();
    Ran {
        asked,
        results,
        said,
        complaints,
    }
}

async fn play(config: &str, rest: &str) -> Ran {
    play_in(&PathBuf::from("/tmp"), config, rest).await
}

#[tokio::test]
async fn a_flow_is_run_in_order_with_captures_and_cookies() {
    let ran = play(
        "  variables: {user: [ann]}",
        "
scenarios:
  - name: buy
    flow:
      - post:
          url: /login
          json: {user: '{{ user }}', n: 1, none: '{{ nix }}'}
          capture:
            - {json: $.token, as: token}
            - {json: '$.items[1].id', as: id}
            - {header: etag, as: tag}
            - {json: $.items, as: items, multiple: false}
      - log: 'token {{ token }}'
      - get:
          url: '/items/{{ id }}'
          headers: {Authorization: 'Bearer {{ token }}', X-Tag: '{{ tag }}'}
          qs: {a: 1, b: 'x y'}
      - get: {url: /text, capture: {regexp: 'id=(\\d+)', group: 1, as: order}}
      - put: {url: '/orders/{{ order }}', form: {a: '1', b: 'ä &'}, auth: {user: u, pass: p}}
      - loop: [{get: {url: '/of/{{ $loopElement.id }}/{{ $loopCount }}'}}]
        over: items
      - loop: [{delete: {url: '/n/{{ $loopCount }}'}}]
        count: 2
      - loop: [{patch: {url: '/e/{{ el }}', body: 'b{{ el }}'}}]
        over: [x, y]
        loopValue: i
        loopElement: el
      - get: {url: /never, ifTrue: 'token == \"no\"'}
      - get: {url: /gzip, capture: {json: $.z, as: z}}
      - head: {url: '/{{ z }}', ifTrue: id > 4}
",
    )
    .await;
    let want = [
        "POST /login",
        "GET /items/5?a=1&b=x+y",
        "GET /text",
        "PUT /orders/77",
        "GET /of/4/0",
        "GET /of/5/1",
        "DELETE /n/0",
        "DELETE /n/1",
        "PATCH /e/x",
        "PATCH /e/y",
        "GET /gzip",
        "HEAD /zipped",
    ];
    assert_eq!(ran.lines(), want);
    let asked = |i: usize| &ran.asked[i];
    assert_eq!(asked(0).body, r#"{"user":"ann","n":1}"#);
    assert_eq!(asked(0).headers["content-type"], "application/json");
    assert!(asked(0).headers.get("cookie").is_none());
    assert_eq!(asked(1).headers["cookie"], "sid=abc");
    assert_eq!(asked(1).headers["authorization"], "Bearer t1");
    assert_eq!(asked(1).headers["x-tag"], "tag-1");
    assert_eq!(asked(1).headers["x-nines-run-id"], "r1");
    let [one, other] = [1, 3].map(|i| asked(i).headers["traceparent"].to_str().unwrap());
    assert_eq!(one.len(), 55);
    let key = format!("00-{:016x}", crate::plan::trace_key("r1"));
    assert!(one.starts_with(&key) && other.starts_with(&key) && one != other);
    assert_eq!(asked(3).body, "a=1&b=%C3%A4+%26");
    assert_eq!(asked(3).headers["authorization"], "Basic dTpw");
    assert_eq!(asked(8).body, "bx");
    assert_eq!(ran.said, ["token t1"]);
    assert_eq!(ran.results.exit_code(), 0);
    for (name, count) in [
        ("vusers.created", 1),
        ("vusers.created_by_name.buy", 1),
        ("vusers.completed", 1),
        ("http.requests", 12),
        ("http.responses", 12),
        ("http.codes.200", 12),
        ("plugins.metrics-by-endpoint./items/{{ id }}.codes.200", 1),
    ] {
        assert_eq!(ran.counter(name), count, "{name}");
    }
}

#[tokio::test]
async fn redirects_are_followed_and_counted() {
    let ran = play(
        "",
        "
scenarios:
  - flow:
      - post: {url: /old, json: {a: 1}}
      - post: {url: /see, json: {a: 1}}
      - post: {url: /old, followRedirect: false}
      - get: {url: /round}
",
    )
    .await;
    assert_eq!(
        ran.lines()[..3],
        ["POST /old", "POST /new?x=1", "POST /see"]
    );
    assert_eq!(ran.lines()[3..5], ["GET /new?x=2", "POST /old"]);
    assert_eq!(
        (ran.asked[1].body.as_str(), ran.asked[3].body.as_str()),
        (r#"{"a":1}"#, "")
    );
    assert_eq!(ran.counter("errors.ERR_TOO_MANY_REDIRECTS"), 1);
    assert_eq!(ran.counter("http.codes.302"), 2 + 11);
    assert_eq!(ran.counter("vusers.failed"), 1);
}

#[tokio::test]
async fn own_cookies_go_with_their_request_until_a_response_sets_one() {
    let flow = "scenarios: [{flow: [{post: {url: /a, cookie: {c: d}}}, {get: {url: /b}}, {get: {url: /login}}, {get: {url: /c}}]}]";
    let ran = play("", flow).await;
    let cookie = |i: usize| {
        ran.asked[i]
            .headers
            .get("cookie")
            .map(|v| v.to_str().unwrap())
    };
    assert_eq!(cookie(0), Some("c=d"));
    assert_eq!((cookie(1), cookie(2)), (None, None));
    assert_eq!(cookie(3), Some("c=d; sid=abc"));
    assert_eq!(ran.asked[0].headers["content-length"], "0");
}

#[tokio::test]
async fn strict_captures_end_the_user_and_others_do_not() {
    let flow = |strict: &str| {
        format!(
            "
scenarios:
  - flow:
      - get: {{url: /text, capture: {{regexp: nix, as: a{strict}}}}}
      - get: {{url: '/then/{{{{ a }}}}'}}
"
        )
    };
    let ran = play("", &flow("")).await;
    assert_eq!(ran.lines(), ["GET /text"]);
    assert_eq!(ran.counter("errors.Failed capture or match"), 1);
    let ran = play("", &flow(", strict: false")).await;
    assert_eq!(ran.lines(), ["GET /text", "GET /then/"]);
    let ran = play("  http: {defaults: {strictCapture: false}}", &flow("")).await;
    assert_eq!(ran.lines().len(), 2);
    let ran = play(
        "",
        "scenarios: [{flow: [{get: {url: /login, match: [{json: $.n, value: 3}]}}, {get: {url: /login, match: {json: $.n, value: 4}}}]}]",
    )
    .await;
    assert_eq!((ran.lines().len(), ran.counter("vusers.failed")), (2, 1));
}

#[tokio::test]
async fn weights_phases_payload_and_pool_decide_who_does_what() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("u.csv"), "name,n\nann,1\nbob,2\n").unwrap();
    let ran = play_in(
        directory.path(),
        "  phases: [{duration: 1, arrivalCount: 40}]
  http: {pool: 2}
  payload: {path: u.csv, fields: [name, n], order: sequence, skipHeader: true}",
        "
scenarios:
  - {name: never, weight: 0, flow: [{get: {url: /never}}]}
  - {name: often, weight: 9, flow: [{get: {url: '/{{ name }}/{{ n }}'}}]}
  - {name: seldom, weight: '1', flow: [{get: {url: '/{{ name }}/{{ n }}'}}]}
",
    )
    .await;
    assert_eq!(ran.counter("vusers.created"), 40);
    assert_eq!(ran.counter("vusers.created_by_name.never"), 0);
    assert!(ran.counter("vusers.created_by_name.often") >= 25);
    let of = |line: &str| ran.lines().iter().filter(|l| **l == line).count();
    assert_eq!((of("GET /ann/1"), of("GET /bob/2")), (20, 20));
    let json = ran.results.to_json();
    assert!(
        json["nines"]["connections_opened"].as_u64().unwrap() <= 2,
        "{}",
        json["nines"]
    );
    let length = &json["aggregate"]["summaries"]["vusers.session_length"];
    assert_eq!(length["count"], 40);
    assert_eq!(
        json["intermediate"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| &p["counters"]["vusers.created"])
            .filter_map(Value::as_u64)
            .sum::<u64>(),
        40
    );
}

#[tokio::test]
async fn users_beyond_the_limit_are_skipped() {
    let ran = play(
        "  phases: [{duration: 1, arrivalCount: 5, maxVusers: 2}]",
        "scenarios: [{flow: [{think: 1200ms}, {get: {url: /}}]}]",
    )
    .await;
    assert_eq!(
        (ran.counter("vusers.created"), ran.counter("vusers.skipped")),
        (2, 3)
    );
    let json = ran.results.to_json();
    let length = &json["aggregate"]["summaries"]["vusers.session_length"]["min"];
    assert!(length.as_f64().unwrap() > 1_000.0, "{length}");
    let late = &json["nines"]["latency_us"];
    // The thought is not part of the wait.
    assert!(late["max"].as_u64().unwrap() < 1_000_000, "{late}");
}

#[tokio::test]
async fn a_branch_that_fails_leaves_the_others_to_end_and_a_url_too_long_is_an_error() {
    let flow = "scenarios: [{flow: [{parallel: [{get: {url: 'nowhere://x'}}, {get: {url: /}}, {get: {url: /}}]}]}]";
    let ran = play("", flow).await;
    let count = |name: &str| ran.counter(name);
    assert_eq!((count("http.requests"), count("http.responses")), (2, 2));
    assert_eq!(count("vusers.failed"), 1);
    let long = "x".repeat(70_000);
    let flow = format!("scenarios: [{{flow: [{{get: {{url: /, qs: {{q: {long}}}}}}}]}}]");
    let ran = play("", &flow).await;
    assert_eq!(ran.counter("vusers.failed"), 1);
    assert_eq!(
        ran.counter("http.requests"),
        0,
        "nothing else is sent in its place"
    );
}

#[tokio::test]
async fn checks_and_expectations_decide_the_exit_code() {
    let flow = "scenarios: [{flow: [{get: {url: /missing, expect: [{statusCode: 200}, {hasHeader: date}]}}, {get: {url: /}}]}]";
    let ran = play("  plugins: {expect: {}}", flow).await;
    assert_eq!((ran.results.exit_code(), ran.lines().len()), (21, 2));
    assert_eq!(ran.counter("plugins.expect.failed.statusCode"), 1);
    assert_eq!(ran.counter("plugins.expect.ok.hasHeader"), 1);
    assert!(
        ran.said[0].contains("expected: 200\n       got: 404"),
        "{:?}",
        ran.said
    );
    let ran = play("  plugins: {expect: {reportFailuresAsErrors: true}}", flow).await;
    assert_eq!((ran.lines().len(), ran.counter("vusers.failed")), (1, 1));
    let ran = play("", flow).await;
    assert_eq!(
        (
            ran.results.exit_code(),
            ran.counter("plugins.expect.failed")
        ),
        (0, 0)
    );
    let checks = "
  apdex: {threshold: 60000}
  plugins: {ensure: {}, apdex: {}}
  ensure:
    maxErrorRate: 0
    thresholds: [{http.response_time.p99: 5000}, {'plugins.metrics-by-endpoint.response_time./missing.max': 5000}]
    conditions:
      - expression: http.codes.404 == 0 and vusers.failed == 0
        strict: false
      - expression: http.codes.500 == 0";
    let ran = play(checks, flow).await;
    let verdicts: Vec<(bool, &str)> = ran
        .results
        .checks
        .iter()
        .map(|c| (c.ok, c.check.as_str()))
        .collect();
    assert_eq!(
        verdicts.iter().filter(|(ok, _)| *ok).count(),
        4,
        "{verdicts:?}"
    );
    assert_eq!(ran.results.exit_code(), 0);
    assert!(
        ran.results
            .summary()
            .contains("\nApdex score: 1 (excellent)\n")
    );
    assert_eq!(
        (
            ran.counter("apdex.satisfied"),
            ran.counter("apdex.tolerated")
        ),
        (2, 0)
    );
    assert!(
        ran.results
            .summary()
            .contains("fail: http.codes.404 == 0 and vusers.failed == 0 (optional)\n")
    );
    let ran = play(
        "  plugins: {ensure: {thresholds: [{http.codes.404: 1}, {nix.p99: 1}]}}",
        flow,
    )
    .await;
    assert_eq!(ran.results.exit_code(), 1);
    let problems = ran
        .results
        .checks
        .iter()
        .filter_map(|c| c.problem.as_deref());
    assert_eq!(
        problems.collect::<Vec<_>>(),
        ["there is nothing named nix.p99"]
    );
}

#[tokio::test]
async fn before_and_after_run_once_and_hand_on_variables() {
    let ran = play(
        "  phases: [{duration: 1, arrivalCount: 3}]",
        "
before: {flow: [{post: {url: /login, capture: {json: $.token, as: t}}}]}
after: {flow: [{delete: {url: '/{{ t }}'}}]}
scenarios:
  - flow:
      - parallel:
          - get: {url: '/{{ t }}'}
          - get: {url: '/{{ t }}'}
          - think: 0.01
",
    )
    .await;
    let lines = ran.lines();
    assert_eq!(
        (lines.len(), lines[0], lines[7]),
        (8, "POST /login", "DELETE /t1")
    );
    assert_eq!(lines.iter().filter(|l| **l == "GET /t1").count(), 6);
    assert_eq!(ran.counter("http.requests"), 6);
    let ran = play(
        "",
        "
after: {flow: [{get: {url: '/', match: {json: $.ok, value: false}}}]}
scenarios: [{flow: [{loop: [{get: {url: '/{{ $loopCount }}/{{ $loopElement }}'}}], count: '2-4'}]}]
",
    )
    .await;
    assert_eq!(ran.lines(), ["GET /2/2", "GET /3/2", "GET /"]);
    assert_eq!((ran.results.exit_code(), ran.said.len()), (1, 1));
}

#[tokio::test]
async fn forms_with_files_are_sent() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.txt"), "file text").unwrap();
    let ran = play_in(
        directory.path(),
        "",
        "scenarios: [{flow: [{post: {url: /up, formData: {a: 1, f: {fromFile: a.txt, contentType: text/plain}}}}, {post: {url: /up, formData: {f: {fromFile: nix}}}}]}]",
    )
    .await;
    let body = &ran.asked[0].body;
    assert!(body.contains("name=\"a\"\r\n\r\n1\r\n"), "{body}");
    let file = "name=\"f\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nfile text\r\n";
    assert!(body.contains(file), "{body}");
    assert_eq!((ran.asked.len(), ran.counter("vusers.failed")), (1, 1));
}

#[tokio::test]
async fn javascript_takes_part_in_a_flow() {
    let dir = tempfile::tempdir().unwrap();
    let processor = "
let made = 0;
module.exports = {
  start(context, ee, next) { context.vars.who = 'ann' + ++made; ee.emit('counter', 'started', 2); next(); },
  sign(req, context, ee, next) { req.headers['x-sig'] = context.vars.who + req.method; next(); },
  async put(req, context, ee) { req.json = { of: context.vars.who, at: '{{ n }}' }; req.url = req.url + '?h=1'; },
  look(req, res, context, ee, next) {
    context.vars.token = JSON.parse(res.body).token + res.headers.etag;
    ee.emit('histogram', 'size', res.body.length); ee.emit('rate', 'looks'); next();
  },
  more(context, next) { next(context.vars.$loopCount < 2); },
  wanted(vars) { return vars.who === 'nobody'; },
  bye(context, ee, next) { console.log('bye %s', context.vars.who); next(); },
  failed(error, req, context, ee, next) { ee.emit('counter', 'seen.' + error.code, 1); next(); },
};
";
    std::fs::write(dir.path().join("p.js"), processor).unwrap();
    let ran = play_in(
        dir.path(),
        "  processor: ./p.js\n  variables: {n: 5}\n  phases: [{duration: 1, arrivalCount: 2}]",
        "
scenarios:
  - beforeScenario: start
    afterScenario: [bye]
    beforeRequest: sign
    onError: failed
    flow:
      - post: {url: /login, headers: {a: b}, beforeRequest: put, afterResponse: look}
      - loop: [{get: {url: '/{{ token }}/{{ $loopCount }}', headers: {}}}]
        whileTrue: more
      - get: {url: /never, ifTrue: wanted}
      - function: nix
      - get: {url: 'http://127.0.0.1:9/', headers: {}}
",
    )
    .await;
    let lines = ["POST /login?h=1", "GET /t1tag-1/0", "GET /t1tag-1/1"];
    for line in lines {
        let count = ran.lines().iter().filter(|l| **l == line).count();
        assert_eq!(count, 2, "{:?}", ran.lines());
    }
    assert_eq!(ran.asked.len(), 6);
    let logins = ran.asked.iter().filter(|a| a.line.starts_with("POST"));
    let bodies: Vec<&str> = logins.map(|a| a.body.as_str()).collect();
    assert!(bodies.contains(&r#"{"of":"ann1","at":5}"#), "{bodies:?}");
    assert!(bodies.contains(&r#"{"of":"ann2","at":5}"#), "{bodies:?}");
    let signed = |a: &Asked| a.headers["x-sig"].to_str().unwrap().starts_with("ann");
    assert!(ran.asked.iter().all(signed));
    for (name, count) in [
        ("started", 4),
        ("seen.ECONNREFUSED", 2),
        ("errors.ECONNREFUSED", 2),
        ("errors.Undefined function \"nix\"", 2),
        ("vusers.failed", 2),
        ("plugins.metrics-by-endpoint./login.codes.200", 2),
    ] {
        assert_eq!(ran.counter(name), count, "{name}");
    }
    let json = ran.results.to_json();
    assert_eq!(json["aggregate"]["summaries"]["size"]["count"], 2);
    assert_eq!(json["aggregate"]["rates"]["looks"], 2);
}

#[tokio::test]
async fn a_function_that_never_ends_fails_its_user_only() {
    let dir = tempfile::tempdir().unwrap();
    let processor = "module.exports = {
  stuck(context, ee, next) { if (context.vars.n === 1) for (;;) {} next(); },
  oops(context, ee, next) { missing(); },
}";
    std::fs::write(dir.path().join("p.js"), processor).unwrap();
    std::fs::write(dir.path().join("n.csv"), "1\n2\n").unwrap();
    let ran = play_in(
        dir.path(),
        "  processor: ./p.js\n  phases: [{duration: 1, arrivalCount: 2}]\n  payload: {path: n.csv, fields: [n], order: sequence}",
        "scenarios: [{flow: [{function: stuck}, {get: {url: /a}}, {function: oops}]}]",
    )
    .await;
    assert_eq!(ran.lines(), ["GET /a"]);
    assert_eq!(ran.counter("errors.ERR_SCRIPT_TIMEOUT"), 1);
    assert_eq!(ran.counter("errors.missing is not defined"), 1);
    let place = "p.js:3:29: ReferenceError: missing is not defined";
    let shown = ran.complaints.iter().any(|c| c.contains(place));
    assert!(shown, "{:?}", ran.complaints);
}

#[tokio::test]
async fn values_are_taken_from_xml_html_and_by_any_regular_expression() {
    let ran = play(
        "  plugins: {expect: {}, fake-data: {numberInt: {min: 4, max: 4}}}",
        "
scenarios:
  - flow:
      - get: {url: /xml, capture: [{xpath: '//a[2]/@id', as: id}, {xpath: 'count(//a)', as: n}], match: {xpath: '//a', value: x}}
      - get: {url: /html, capture: [{selector: a.n, attr: href, index: last, as: next}]}
      - get: {url: /text, capture: {regexp: '(?<=id=)(\\d)\\1', as: twice}}
      - get: {url: /br, capture: {json: $.z, as: z}}
      - get: {url: '{{ next }}/{{ id }}/{{ n }}/{{ twice }}/{{ z }}/{{ $numberInt() }}', expect: [{jmespath: 'ok == `true`'}, {jmespath: nix}]}
",
    )
    .await;
    assert_eq!(ran.lines()[4], "GET /p2/8/2/77/br/4");
    assert_eq!(ran.counter("plugins.expect.ok.jmespath"), 1);
    assert_eq!(ran.counter("plugins.expect.failed.jmespath"), 1);
    assert_eq!(ran.results.exit_code(), 21);
}

/// A WebSocket server that answers each text with what it is told to; its address.
async fn socket_server() -> (String, Arc<Mutex<Vec<String>>>) {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let log = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let seen = Arc::clone(&log);
                #[expect(clippy::result_large_err, reason = "the type is the library's")]
                let look = move |request: &Request,
                                 mut response: Response|
                      -> Result<Response, ErrorResponse> {
                    let header = |name: &str| {
                        request
                            .headers()
                            .get(name)
                            .map(|v| v.to_str().unwrap().to_owned())
                    };
                    let protocol = header("sec-websocket-protocol");
                    if let Some(first) = protocol.as_deref().and_then(|p| p.split(',').next()) {
                        response
                            .headers_mut()
                            .insert("sec-websocket-protocol", first.parse().unwrap());
                    }
                    seen.lock().unwrap().push(format!(
                        "{} {protocol:?} {:?}",
                        request.uri(),
                        header("x-a")
                    ));
                    Ok(response)
                };
                let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, look).await else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    let Message::Text(text) = message else { break };
                    log.lock().unwrap().push(text.to_string());
                    let answer = match text.as_str() {
                        text if !text.starts_with("hi") => continue,
                        text => format!("{{\"echo\": \"{text}\", \"n\": 4}}"),
                    };
                    let _ = socket.send(Message::text(answer)).await;
                }
            });
        }
    });
    (address, heard)
}

#[tokio::test]
async fn web_sockets_send_wait_capture_and_count() {
    let (address, heard) = socket_server().await;
    let ran = play(
        "  ws: {subprotocols: [chat], headers: {X-A: ann, X-B: '{{ who }}'}, timeout: 0.3}\n  variables: {who: ann}",
        &"
scenarios:
  - engine: ws
    flow:
      - connect: ADDRESS/room?of={{ who }}
      - send: hello
      - send: {payload: 'hi {{ who }}', capture: {json: $.n, as: n}, match: {json: $.echo, value: hi ann}}
      - loop: [{send: {a: '{{ $loopCount }}', n: '{{ n }}'}}]
        count: 2
      - think: 0.01
      - send: {payload: silence, capture: {json: $.n, as: m}}
"
        .replace("ADDRESS", &address),
    )
    .await;
    let said = heard.lock().unwrap().clone();
    let want = [
        "/room?of=ann Some(\"chat\") Some(\"ann\")",
        "hello",
        "hi ann",
        r#"{"a":0,"n":4}"#,
        r#"{"a":1,"n":4}"#,
        "silence",
    ];
    assert_eq!(said, want);
    for (name, count) in [
        ("websocket.messages_sent", 5),
        ("websocket.messages_received", 1),
        ("errors.response timeout", 1),
        ("vusers.failed", 1),
        ("http.requests", 0),
    ] {
        assert_eq!(ran.counter(name), count, "{name}");
    }
    let json = ran.results.to_json();
    // Opened, answered once, unanswered once.
    assert_eq!(json["nines"]["requests"], 3);
    let ran = play(
        "",
        "scenarios: [{engine: ws, flow: [{connect: 'ws://127.0.0.1:9/'}, {send: x}]}]",
    )
    .await;
    assert_eq!(ran.counter("errors.connect ECONNREFUSED 127.0.0.1:9"), 1);
    assert_eq!(ran.counter("errors.ECONNREFUSED"), 1);
}
