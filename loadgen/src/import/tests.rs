//! Tests of importers: whole documents in, scripts that can be read out, mistakes with their place.

use std::path::PathBuf;

use super::*;
use crate::artillery::{ReadOptions, read};

fn options() -> Options {
    Options {
        target: None,
        host: None,
        verbs: Verbs::Usual,
        rate: None,
        duration_s: 5,
    }
}

/// The script must be one that `nines load run --check` takes.
fn readable(imported: &Imported) {
    let dir = tempfile::tempdir().unwrap();
    let script: PathBuf = dir.path().join("s.yml");
    // Variables of the environment stand for secrets and are not set here.
    let text = imported.script.replace("$env.", "");
    std::fs::write(&script, text).unwrap();
    let options = ReadOptions {
        script,
        ..ReadOptions::default()
    };
    if let Err(e) = read(&options) {
        panic!("{e}\n{}", imported.script);
    }
}

const HAR: &str = r#"{"log": {"version": "1.2", "creator": {"name": "x", "version": "1"},
 "pages": [{"id": "p1", "title": "Shop", "startedDateTime": "2026-01-31T12:00:00.000Z"}, {"id": "p2", "startedDateTime": "2026-01-31T12:00:03.000Z"}],
 "entries": [
  {"pageref": "p2", "startedDateTime": "2026-01-31T14:00:03.500+02:00", "time": 20,
   "request": {"method": "POST", "url": "http://127.0.0.1:8080/api/v1/auth/login?token=abc", "headers": [
     {"name": "Content-Type", "value": "application/json"}, {"name": "Authorization", "value": "Bearer very-secret"}],
     "postData": {"mimeType": "application/json", "text": "{\"email\":\"user1@example.com\",\"password\":\"hunter2\"}"}},
   "response": {"status": 302}},
  {"pageref": "p1", "startedDateTime": "2026-01-31T12:00:00.100Z", "time": 400,
   "request": {"method": "GET", "url": "http://127.0.0.1:8080/api/products/17?page=1", "headers": [
     {"name": ":authority", "value": "x"}, {"name": "Accept", "value": "text/html"}, {"name": "Cookie", "value": "sid=1"},
     {"name": "sec-fetch-mode", "value": "x"}, {"name": "Accept-Language", "value": "de \ud83d\ude00"}]},
   "response": {"status": 200}},
  {"pageref": "p1", "startedDateTime": "2026-01-31T12:00:00.200Z", "time": 1,
   "request": {"method": "GET", "url": "https://cdn.example.com/a.js", "headers": []}, "response": {"status": 200}},
  {"pageref": "p1", "startedDateTime": "2026-01-31T12:00:00.250Z", "time": 1,
   "request": {"method": "GET", "url": "http://127.0.0.1:8080/blocked", "headers": []}, "response": {"status": 0}},
  {"startedDateTime": "2026-01-31T12:00:00.260Z", "time": 1,
   "request": {"method": "GET", "url": "data:text/plain,x", "headers": []}, "response": {"status": 200}}
 ]}}"#;

#[test]
fn a_har_becomes_one_flow_with_its_pauses_and_without_its_secrets() {
    let imported = har("shop.har", HAR, &options()).unwrap();
    readable(&imported);
    let script = &imported.script;
    assert_eq!(imported.requests, 2);
    for secret in [
        "very-secret",
        "hunter2",
        "abc",
        "sid=1",
        "sec-fetch",
        "authority",
    ] {
        assert!(!script.contains(secret), "{secret}\n{script}");
        assert!(!imported.notes.iter().any(|n| n.contains(secret)));
    }
    for wanted in [
        "  target: \"http://127.0.0.1:8080\"\n",
        "      # page: Shop\n      - get:\n          url: \"/api/products/17?page=1\"\n          name: \"GET /api/products/{id}\"\n",
        "            \"Accept\": \"text/html\"\n",
        "      - think: 3\n      # page: p2\n      - post:\n          url: \"/api/v1/auth/login?token={{ $env.TOKEN }}\"\n",
        "            \"Authorization\": \"{{ $env.AUTHORIZATION }}\"\n",
        "          followRedirect: false\n",
        "          body: \"{\\\"email\\\":\\\"user1@example.com\\\",\\\"password\\\":\\\"{{ $env.PASSWORD }}\\\"}\"\n",
    ] {
        assert!(script.contains(wanted), "{wanted}\n{script}");
    }
    for wanted in [
        "left out: 1 x request to cdn.example.com",
        "left out: 1 x request without a response",
        "left out: 1 x data: URL",
        "1 requests may change something",
    ] {
        assert!(
            imported.notes.iter().any(|n| n.starts_with(wanted)),
            "{wanted}: {:?}",
            imported.notes
        );
    }
    let reading = Options {
        verbs: Verbs::Reading,
        ..options()
    };
    assert_eq!(har("shop.har", HAR, &reading).unwrap().requests, 1);
    let elsewhere = Options {
        host: Some("cdn.example.com".to_owned()),
        target: Some("http://127.0.0.1:1".to_owned()),
        ..options()
    };
    let elsewhere = har("shop.har", HAR, &elsewhere).unwrap();
    assert!(
        elsewhere.script.contains("target: \"http://127.0.0.1:1\"")
            && elsewhere.script.contains("/a.js")
    );
}

#[test]
fn mistakes_in_a_har_have_their_place() {
    let cases = [
        (
            "{\"log\": {\"entries\": [\n {\"request\": 5}]}}",
            "h.har:2:14: request is the number 5; expected a map of keys\n",
        ),
        ("{\"log\": {}}", "h.har:1:9: log has no \"entries\""),
        (
            "{\"log\": {\"entries\": []}}",
            "h.har:1:9: no request over HTTP",
        ),
        (
            "{\"log\": {\"entries\": [\n{\"request\": {\"method\": \"GET\", \"url\": \"nonsense\"}}]}}",
            "h.har:2:38: \"nonsense\" is no URL",
        ),
        (
            "{\"log\": {\"entries\": [{\"startedDateTime\": \"now\",\n\"request\": {\"method\": \"GET\", \"url\": \"http://h/\"}}]}}",
            "h.har:1:42: startedDateTime \"now\" is no time",
        ),
        ("{\"log\": \n {", "h.har:2:"),
        ("", "h.har: the file is empty"),
    ];
    for (text, expected) in cases {
        let error = har("h.har", text, &options()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

const API: &str = r##"
openapi: 3.1.0
info: {title: shop, version: "1"}
servers: [{url: "http://{host}:8080/api", variables: {host: {default: 127.0.0.1}}}]
security: [{bearerAuth: []}]
components:
  securitySchemes:
    bearerAuth: {type: http, scheme: bearer}
    key: {type: apiKey, in: query, name: api_key}
  parameters:
    id: {name: id, in: path, required: true, schema: {type: integer, minimum: 3}}
  schemas:
    Item: {type: object, required: [productId], properties: {productId: {type: integer}, note: {type: [string, "null"]}, id: {type: integer, readOnly: true}}}
    Order: {type: object, properties: {items: {type: array, items: {$ref: "#/components/schemas/Item"}}}}
paths:
  /products/{id}:
    parameters: [{$ref: "#/components/parameters/id"}]
    get:
      operationId: product
      security: []
      parameters:
        - {name: verbose, in: query, required: true, example: "a b", schema: {type: string}}
        - {name: page, in: query, schema: {type: integer}}
        - {name: X-Tenant, in: header, required: true, schema: {enum: [blue]}}
      responses: {"200": {description: ok}}
    delete: {responses: {}}
  /orders:
    post:
      requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}
    put:
      security: [{key: []}]
      requestBody: {content: {application/x-www-form-urlencoded: {example: {a: 1, b: x}}}}
  /raw:
    post:
      requestBody: {required: true, content: {application/pdf: {}}}
  /bad/{what}:
    get: {}
"##;

#[test]
fn an_openapi_document_reads_by_default_and_changes_when_told() {
    let imported = openapi("api.yaml", API, &options()).unwrap();
    readable(&imported);
    assert_eq!(imported.requests, 1, "{}", imported.script);
    for wanted in [
        "  target: \"http://127.0.0.1:8080\"\n",
        "  - name: \"product\"\n",
        "          url: \"/api/products/3?verbose=a%20b\"\n          name: \"GET /products/{id}\"\n          headers:\n            \"X-Tenant\": \"blue\"\n",
    ] {
        assert!(
            imported.script.contains(wanted),
            "{wanted}\n{}",
            imported.script
        );
    }
    assert!(
        !imported.script.contains("$env"),
        "security: [] asks for none"
    );
    assert!(
        imported
            .notes
            .iter()
            .any(|n| n == "left out: 1 x DELETE operation; --mutating takes it"),
        "{:?}",
        imported.notes
    );
    let all = Options {
        verbs: Verbs::All,
        ..options()
    };
    let imported = openapi("api.yaml", API, &all).unwrap();
    readable(&imported);
    assert_eq!(imported.requests, 4);
    for wanted in [
        "    weight: 1\n",
        "      - delete:\n          url: \"/api/products/3\"\n",
        "            \"authorization\": \"Bearer {{ $env.BEARER_AUTH }}\"\n",
        "          json: {\"items\": [{\"productId\": 1, \"note\": \"text\"}]}\n",
        "          url: \"/api/orders?api_key={{ $env.KEY }}\"\n",
        "          form: {\"a\": \"1\", \"b\": \"x\"}\n",
    ] {
        assert!(
            imported.script.contains(wanted),
            "{wanted}\n{}",
            imported.script
        );
    }
    for wanted in ["application/pdf", "a parameter that it does not describe"] {
        assert!(
            imported.notes.iter().any(|n| n.contains(wanted)),
            "{:?}",
            imported.notes
        );
    }
}

#[test]
fn mistakes_in_an_openapi_document_have_their_place() {
    let cases = [
        (
            "swagger: '2.0'",
            "a.yml:1:10: Swagger 2.0 is not supported\n",
        ),
        (
            "openapi: 4.0.0\npaths: {}",
            "a.yml:1:10: OpenAPI \"4.0.0\" is not supported\n",
        ),
        (
            "openapi: 3.0.0\npaths: {}",
            "a.yml:1:1: the first of servers, \"/\", names no host\n",
        ),
        (
            "openapi: 3.0.0\nservers: [{url: http://h}]\npaths: {x: {}}",
            "a.yml:3:9: the path \"x\" does not begin with /\n",
        ),
        (
            "openapi: 3.0.0\nservers: [{url: http://h}]\npaths:\n  /x: 5\n",
            "a.yml:4:7: a path is the number 5;",
        ),
        (
            "openapi: 3.0.0\nservers: [{url: http://h}]\npaths:\n  /x: {post: {}}\n",
            "a.yml:4:3: no operation is left to send\n",
        ),
        ("openapi: 3.0.0\npaths: [\n", "a.yml:"),
    ];
    for (text, expected) in cases {
        let error = openapi("a.yml", text, &options()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_log_becomes_routes_with_weights() {
    let mut log = String::new();
    for n in 0..40 {
        log += &format!(
            "1.1.1.1 - - [10/Oct/2000:13:55:{:02} -0700] \"GET /products/{} HTTP/1.1\" 200 1 \"-\" \"x\"\n",
            n / 4,
            n % 3
        );
    }
    log += "1.1.1.1 - - [10/Oct/2000:13:55:30 -0700] \"GET /health HTTP/1.1\" 200 1\n";
    log += "1.1.1.1 - - [10/Oct/2000:13:55:30 -0700] \"POST /orders HTTP/1.1\" 200 1\njunk\n";
    let error = access_log("a.log", &log, &options())
        .unwrap_err()
        .to_string();
    assert!(error.contains("--target http://"), "{error}");
    let to = Options {
        target: Some("http://127.0.0.1:8080".to_owned()),
        ..options()
    };
    let imported = access_log("a.log", &log, &to).unwrap();
    readable(&imported);
    for wanted in [
        "  - name: \"GET /products/{id}\"\n    weight: 40\n    flow:\n      - get:\n          url: \"{{ url1 }}\"\n",
        "    url1:\n      - \"/products/0\"\n",
        "  - name: \"GET /health\"\n    weight: 1\n",
        "arrivalRate: 1}",
    ] {
        assert!(
            imported.script.contains(wanted),
            "{wanted}\n{}",
            imported.script
        );
    }
    assert!(
        imported
            .notes
            .iter()
            .any(|n| n.starts_with("left out: 1 x method")),
        "{:?}",
        imported.notes
    );
    let braces = "1.1.1.1 - - [10/Oct/2000:13:55:30 -0700] \"GET /x?{{y}} HTTP/1.1\" 200 1\n";
    assert!(access_log("a.log", braces, &to).is_err());
    let error = access_log("a.log", "junk line\n", &to)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("a.log:1:1: no GET or HEAD in the log; expected lines such as"),
        "{error}"
    );
    assert!(error.contains("\n  junk line\n  ^^^^^^^^^"), "{error}");
}

#[test]
fn damaged_sources_are_refused_or_read_and_never_panic() {
    let log = "1.1.1.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /p/1?token=a HTTP/1.1\" 200 1\n1.1.1.1 - - [10/Oct/2000:13:55:38 +0000] \"HEAD /p/2 HTTP/1.1\" 200 1\n";
    let all = Options {
        target: Some("http://127.0.0.1:1".to_owned()),
        verbs: Verbs::All,
        ..options()
    };
    // xorshift, so that a failure is the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    type Importer = fn(&str, &str, &Options) -> Result<Imported, Mistake>;
    let sources: [(&str, Importer); 3] = [(HAR, har), (API, openapi), (log, access_log)];
    let bits = [
        "\"", "{", "}", "[", "]", ":", ",", "$ref", "null", "-", "0", "\u{e9}", "{{", "%", "&",
        "*a", "\n", "  ", "\\", "Z",
    ];
    let (mut good, mut bad) = (0, 0);
    for round in 0..600 {
        let (source, read) = sources[round % 3];
        let mut text: Vec<char> = source.chars().collect();
        for _ in 0..=draw(4) {
            let at = draw(text.len());
            match draw(3) {
                0 => drop(text.remove(at)),
                1 => drop(text.drain(at..(at + draw(40)).min(text.len()))),
                _ => drop(text.splice(at..at, bits[draw(bits.len())].chars())),
            }
        }
        let text: String = text.into_iter().collect();
        match read("file", &text, &all) {
            Ok(imported) => {
                good += 1;
                assert!(imported.requests > 0 && imported.script.len() < 100_000);
            }
            Err(error) => {
                bad += 1;
                assert!(error.to_string().starts_with("file:"), "{error}");
            }
        }
    }
    assert!(good > 100 && bad > 100, "{good} {bad}");
}
