//! The agent's HTTP API against a real Prometheus over the same samples: statuses, error types, and the shape of bodies.
//!
//! Owns the list of requests and what may differ. Must not know how either answers.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
use std::collections::BTreeMap;
use std::process::Command;

use model::Labels;
use serde_json::Value as Json;

use super::remote::{Prometheus, now_ms};
use super::running::{Agent, stdout};

/// Status and body. A body that is not JSON is a text.
fn ask(base: &str, method: &str, path: &str, form: &str) -> (u16, Json) {
    let url = format!("{base}{path}");
    let mut args = vec!["-s", "-w", "\n%{http_code}", "-X", method];
    let with_form;
    if method == "POST" {
        args.extend(["--data", form, &url]);
    } else {
        with_form = format!("{url}?{form}");
        args.push(&with_form);
    }
    let output = Command::new("curl").args(&args).output().unwrap();
    let text = stdout(&output);
    let (body, status) = text.rsplit_once('\n').unwrap();
    let json = serde_json::from_str(body).unwrap_or_else(|_| Json::String(body.to_owned()));
    (status.parse().unwrap(), json)
}

/// Every path in a body with the type that is there; of lists the first entry. Names of labels, metrics and flags are
/// data, not shape.
fn shape(body: &Json, at: &str, out: &mut BTreeMap<String, &'static str>) {
    let data = ["metric", "seriesLabels", "labels", "discoveredLabels"];
    let name = at.rsplit('.').next().unwrap_or("");
    let kind = match body {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(all) => {
            if let Some(first) = all.first() {
                shape(first, &format!("{at}[]"), out);
            }
            "array"
        }
        Json::Object(all) => {
            for (key, value) in all {
                if !data.contains(&name) {
                    shape(value, &format!("{at}.{key}"), out);
                }
            }
            "object"
        }
    };
    out.insert(at.to_owned(), kind);
}

/// Paths that Prometheus has and we have not, or of another type.
fn differences(theirs: &Json, ours: &Json) -> Vec<String> {
    let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
    shape(theirs, "", &mut a);
    shape(ours, "", &mut b);
    let missing = a.iter().filter(|(path, kind)| b.get(*path) != Some(kind));
    missing
        .map(|(path, kind)| format!("{path}: {kind} there, {:?} here", b.get(path)))
        .collect()
}

/// (path, parameters). T stands for now in seconds.
const REQUESTS: &[(&str, &str)] = &[
    ("/api/v1/query", "query=books&time=T"),
    ("/api/v1/query", "query=books[1m]&time=T"),
    ("/api/v1/query", "query=scalar(books)&time=T"),
    ("/api/v1/query", "query=\"text\""),
    ("/api/v1/query", "query=1"),
    ("/api/v1/query", "query=books&time=T&timeout=10s"),
    ("/api/v1/query", "query=books&timeout=x"),
    ("/api/v1/query", "query=books&time=never"),
    ("/api/v1/query", "query=sum("),
    ("/api/v1/query", "query="),
    ("/api/v1/query", "query=rate(books)"),
    ("/api/v1/query", "query=books%2Bon()books&time=T"),
    (
        "/api/v1/query",
        "query=label_replace(books,\"bad-\",\"\",\"\",\"(\")&time=T",
    ),
    ("/api/v1/query_range", "query=books&start=T&end=T&step=15"),
    ("/api/v1/query_range", "query=books&start=T&end=T&step=1m"),
    ("/api/v1/query_range", "query=books&start=T&end=T"),
    ("/api/v1/query_range", "query=books&start=T&end=T&step=0"),
    ("/api/v1/query_range", "query=books&start=T&end=T&step=-1"),
    ("/api/v1/query_range", "query=books&start=T&end=0&step=1"),
    ("/api/v1/query_range", "query=books&end=T&step=1"),
    ("/api/v1/query_range", "query=books&start=0&end=T&step=1"),
    (
        "/api/v1/query_range",
        "query=books[5m]&start=T&end=T&step=1",
    ),
    ("/api/v1/query_range", "query=\"text\"&start=T&end=T&step=1"),
    ("/api/v1/series", "match[]=books"),
    ("/api/v1/series", "match[]=books&start=T&end=0"),
    ("/api/v1/series", ""),
    ("/api/v1/series", "match[]={}"),
    ("/api/v1/series", "match[]={x=~\".*\"}"),
    ("/api/v1/series", "match[]=rate(x[1m])"),
    ("/api/v1/series", "match[]=books{"),
    ("/api/v1/labels", ""),
    ("/api/v1/labels", "match[]=books"),
    ("/api/v1/labels", "match[]=books{"),
    ("/api/v1/labels", "start=x"),
    ("/api/v1/labels", "start=T&end=0"),
    ("/api/v1/label/shelf/values", ""),
    ("/api/v1/label/shelf/values", "match[]=books&start=0&end=T"),
    ("/api/v1/label/shelf/values", "match[]={"),
    ("/api/v1/label/nothing/values", ""),
    ("/api/v1/metadata", ""),
    ("/api/v1/metadata", "metric=nothing"),
    ("/api/v1/metadata", "limit=x"),
    ("/api/v1/query_exemplars", "query=books&start=0&end=T"),
    ("/api/v1/query_exemplars", "query=sum("),
    ("/api/v1/query_exemplars", "query=books&start=T&end=0"),
    ("/api/v1/format_query", "query=sum(books)by(x)"),
    ("/api/v1/format_query", "query=sum("),
    ("/api/v1/rules", ""),
    ("/api/v1/rules", "type=alert"),
    ("/api/v1/rules", "type=x"),
    ("/api/v1/alerts", ""),
    ("/api/v1/targets", ""),
    ("/api/v1/targets", "state=dropped"),
    ("/api/v1/status/buildinfo", ""),
    ("/api/v1/status/runtimeinfo", ""),
    ("/api/v1/status/config", ""),
    ("/api/v1/status/tsdb", ""),
    ("/api/v1/nothing", ""),
    ("/-/healthy", ""),
    ("/-/ready", ""),
];

/// Paths that take a form too.
const POSTED: &[&str] = &[
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/query_exemplars",
    "/api/v1/format_query",
];

#[test]
#[ignore = "needs prometheus and curl"]
fn remote_api_answers_in_the_shape_of_a_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.yaml");
    let text = "groups:\n- name: g\n  interval: 1s\n  rules:\n  - record: r\n    expr: sum(books)\n  - alert: A\n    expr: books > 0\n    annotations: {a: b}\n";
    std::fs::write(&rules, text).unwrap();
    let more = format!(
        "rule_files: [{}]\nscrape_configs:\n- job_name: j\n  scrape_interval: 1s\n  static_configs: [{{targets: ['127.0.0.1:1']}}]\n",
        rules.display()
    );
    let prometheus = Prometheus::start(dir.path(), &more);
    let config = dir.path().join("agent.yaml");
    let text = "alerts: {pack: false}\ncollect:\n  scrape:\n  - {job: j, interval: 1s, targets: ['127.0.0.1:1']}\n";
    std::fs::write(&config, text).unwrap();
    let agent = Agent::start(
        dir.path(),
        &[
            "--config",
            config.to_str().unwrap(),
            "--rules",
            rules.to_str().unwrap(),
        ],
    );
    let labels = |shelf| Labels::from_pairs([("__name__", "books"), ("shelf", shelf)]);
    let points = |v| vec![(now_ms() - 2_000, v), (now_ms() - 1_000, v + 1.0)];
    let series = [(labels("a"), points(1.0)), (labels("b"), points(9.0))];
    prompt_write(&prometheus.url, &series);
    prompt_write(&agent.url, &series);
    // Until both have scraped and evaluated once.
    std::thread::sleep(std::time::Duration::from_millis(3_500));
    let now = (now_ms() / 1_000).to_string();
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (path, parameters) in REQUESTS {
        let parameters = parameters.replace("=T", &format!("={now}"));
        let encoded = encode(&parameters);
        let methods = if POSTED.contains(path) {
            &["GET", "POST"][..]
        } else {
            &["GET"]
        };
        for method in methods {
            asked += 1;
            let (status, theirs) = ask(&prometheus.url, method, path, &encoded);
            let (ours_status, ours) = ask(&agent.url, method, path, &encoded);
            let what = format!("{method} {path}?{parameters}");
            if status != ours_status {
                wrong.push(format!(
                    "{what}: {status} there, {ours_status} here\n  {theirs}\n  {ours}"
                ));
                continue;
            }
            if theirs["errorType"] != ours["errorType"] {
                wrong.push(format!("{what}: {theirs} there, {ours} here"));
            }
            let beyond = differences(&theirs, &ours);
            if !beyond.is_empty() {
                wrong.push(format!("{what}: {beyond:?}\n  {theirs}\n  {ours}"));
            }
        }
    }
    assert!(asked > 70, "{asked}");
    assert!(
        wrong.is_empty(),
        "{} of {asked}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn prompt_write(url: &str, series: &[(Labels, Vec<(i64, f64)>)]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = client::Client::new(url.to_owned());
    runtime.block_on(client.remote_write(series)).unwrap();
}

/// Percent-encodes what a query string cannot carry.
fn encode(parameters: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"=&%._-()".contains(&b);
    parameters
        .bytes()
        .map(|b| match keep(b) {
            true => char::from(b).to_string(),
            false => format!("%{b:02X}"),
        })
        .collect()
}
