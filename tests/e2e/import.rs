//! `nines load import` end to end: what is imported is run against the reference backend, and every request is answered.
//!
//! Owns its sources. Must not know how importers work.

use std::path::Path;
use std::process::{Command, Output};

use super::running::{Backend, nines, stderr, stdout};

const API: &str = r##"openapi: 3.0.3
info: {title: backend, version: "1"}
servers: [{url: "http://elsewhere.example"}]
components:
  securitySchemes:
    bearerAuth: {type: http, scheme: bearer}
paths:
  /api/products:
    get: {operationId: products, parameters: [{name: page, in: query, required: true, schema: {type: integer, minimum: 2}}]}
  /api/products/{id}:
    get: {operationId: product, parameters: [{name: id, in: path, required: true, schema: {type: integer, maximum: 1000}}]}
  /api/v1/tasks:
    post:
      operationId: task
      requestBody:
        content: {application/json: {schema: {type: object, required: [title], properties: {title: {type: string}}}}}
  /api/v1/auth/me:
    get: {operationId: me, security: [{bearerAuth: []}]}
"##;

const LOG: &str = r#"1.1.1.1 - - [10/Oct/2000:13:55:36 -0700] "GET /api/products/1 HTTP/1.1" 200 1 "-" "x"
1.1.1.1 - - [10/Oct/2000:13:55:36 -0700] "GET /api/products/2 HTTP/1.1" 200 1 "-" "x"
1.1.1.1 - - [10/Oct/2000:13:55:37 -0700] "GET /api/products/2?page=1 HTTP/1.1" 200 1 "-" "x"
1.1.1.1 - - [10/Oct/2000:13:55:39 -0700] "HEAD /health HTTP/1.1" 200 1 "-" "x"
1.1.1.1 - - [10/Oct/2000:13:55:39 -0700] "POST /api/orders HTTP/1.1" 200 1 "-" "x"
"#;

/// A recording of this server: a page, a login with a secret, and somebody else's script.
fn recording(front: &str) -> String {
    let entry = |at: &str, method: &str, url: &str, more: &str| {
        format!(
            r#"{{"startedDateTime": "2026-01-31T12:00:0{at}Z", "time": 5, "request": {{"method": "{method}", "url": "{url}", "headers": [
            {{"name": "Accept", "value": "*/*"}}, {{"name": "Authorization", "value": "Bearer sesame"}}]{more}}}, "response": {{"status": 200}}}}"#
        )
    };
    let login = r#", "postData": {"mimeType": "application/json", "text": "{\"email\": \"user1@example.com\", \"password\": \"password\"}"}"#;
    let entries = [
        entry("0.000", "GET", &format!("{front}/api/products?page=1"), ""),
        entry("0.020", "GET", "https://cdn.example/app.js", ""),
        entry(
            "0.300",
            "POST",
            &format!("{front}/api/v1/auth/login"),
            login,
        ),
    ];
    format!(
        r#"{{"log": {{"version": "1.2", "entries": [{}]}}}}"#,
        entries.join(",\n")
    )
}

/// Runs a script with the variables that stand for secrets.
fn run(script: &Path, report: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nines"))
        .args(["load", "run", "-q"])
        .arg(script)
        .arg("-o")
        .arg(report)
        .env("AUTHORIZATION", "Bearer none")
        .env("BEARER_AUTH", "none")
        .env("PASSWORD", "password")
        .env_remove("NINES_URL")
        .output()
        .expect("the binary starts")
}

#[test]
fn import_runs_against_the_backend_and_every_request_is_answered() {
    let dir = tempfile::tempdir().expect("a folder");
    let backend = Backend::start();
    let front = backend.url.as_str();
    let sources = [
        ("har", "shop.har", recording(front), vec![]),
        (
            "openapi",
            "api.yaml",
            API.to_owned(),
            vec!["--mutating", "-t", front],
        ),
        ("log", "access.log", LOG.to_owned(), vec!["-t", front]),
    ];
    for (kind, name, text, more) in sources {
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path(name), text).expect("written");
        let (source, script, report) = (path(name), path("s.yml"), path("r.json"));
        let (source, out) = (source.display().to_string(), script.display().to_string());
        let mut args = vec![
            "load",
            "import",
            kind,
            &source,
            "-o",
            &out,
            "--rate",
            "20",
            "--duration",
            "1s",
        ];
        args.extend(more);
        let imported = nines(&args);
        let said = stderr(&imported);
        assert_eq!(imported.status.code(), Some(0), "{kind}: {said}");
        let yaml = std::fs::read_to_string(&script).expect("the script is there");
        assert!(
            !yaml.contains("sesame") && !said.contains("sesame"),
            "{yaml}{said}"
        );
        let checked = nines(&["load", "run", "--check", &out]);
        assert_eq!(
            checked.status.code(),
            Some(0),
            "{kind}: {}\n{yaml}",
            stderr(&checked)
        );
        let ran = run(&script, &report);
        assert_eq!(
            ran.status.code(),
            Some(0),
            "{kind}: {}{}",
            stdout(&ran),
            stderr(&ran)
        );
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&report).expect("a report"))
                .expect("JSON");
        let counters = &json["aggregate"]["counters"];
        let sent = counters["http.requests"].as_u64().unwrap_or(0);
        assert!(sent >= 20, "{kind}: {counters}");
        assert_eq!(
            counters["http.responses"].as_u64(),
            Some(sent),
            "{kind}: {counters}"
        );
        // Only the token that is none is refused.
        let bad = ["400", "404", "405", "422", "500", "502"];
        let count = |code: &&str| counters[format!("http.codes.{code}")].as_u64().unwrap_or(0);
        assert_eq!(
            bad.iter().map(count).sum::<u64>(),
            0,
            "{kind}: {counters}\n{yaml}"
        );
    }
}

#[test]
fn import_says_where_a_file_is_wrong() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.har");
    std::fs::write(&path, "{\"log\": {\n  \"entries\": 5}}").expect("written");
    let path = path.display().to_string();
    let output = nines(&["load", "import", "har", &path]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(
        said.contains("a.har:2:14: entries is the number 5"),
        "{said}"
    );
    let output = nines(&["load", "import", "log", &path, "-t", "nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("--target: "),
        "{}",
        stderr(&output)
    );
}
