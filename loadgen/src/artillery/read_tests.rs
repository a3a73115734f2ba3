//! Scripts with mistakes, each with the whole text that the user sees, and scripts that are fine.
//! Owns the corpus. Must not run any.

use std::path::PathBuf;

use super::read::{ReadOptions, read_tree};
use super::script::{PhaseKind, Script, Step, Turns};
use super::tree;

fn options() -> ReadOptions {
    ReadOptions {
        script: PathBuf::from("s.yml"),
        ..ReadOptions::default()
    }
}

fn read_with(text: &str, options: &ReadOptions) -> Result<Script, String> {
    let root = tree::parse("s.yml", text).map_err(|e| e.to_string())?;
    read_tree(root, options).map_err(|e| e.to_string())
}

fn read(text: &str) -> Result<Script, String> {
    read_with(text, &options())
}

/// A script of one scenario with this flow, each line indented by 6.
fn flow(lines: &[&str]) -> String {
    let mut text = "config:\n  target: http://127.0.0.1:1\nscenarios:\n  - flow:\n".to_owned();
    for line in lines {
        text.push_str(&format!("      {line}\n"));
    }
    text
}

/// A script with these lines in its configuration, each indented by 2.
fn config(lines: &[&str]) -> String {
    let mut text = "config:\n  target: http://127.0.0.1:1\n".to_owned();
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    text + "scenarios: [{flow: [{get: {url: /}}]}]\n"
}

#[test]
fn mistakes_name_the_place_and_the_way_out() {
    let phase = "known: duration, arrivalRate, arrivalCount, rampTo, pause, maxVusers, name, mode";
    let steps =
        "known: get, post, put, patch, delete, head, options, think, log, loop, parallel, function";
    for (text, want) in [
        (
            config(&["phases:", "  - duration: 10", "    arivalRate: 5"]),
            format!(
                "s.yml:5:7: unknown key \"arivalRate\" in a phase\n        arivalRate: 5\n        ^^^^^^^^^^\n  did you mean \"arrivalRate\"? ({phase})"
            ),
        ),
        (
            config(&["phases: [{duration: 2 moons, arrivalRate: 1}]"]),
            "s.yml:3:23: duration is the text \"2 moons\"; expected seconds, or a number with a unit: 500ms, 30s, 2m, 1h, 1d\n    phases: [{duration: 2 moons, arrivalRate: 1}]\n                        ^^^^^^^".to_owned(),
        ),
        (
            flow(&["- gett:", "    url: /"]),
            format!(
                "s.yml:5:9: unknown step \"gett\"\n        - gett:\n          ^^^^\n  did you mean \"get\"? ({steps})"
            ),
        ),
        (
            config(&["bundling: {}"]),
            "s.yml:3:3: \"bundling\" is not supported\n    bundling: {}\n    ^^^^^^^^\n  it is for Artillery's cloud only; remove it".to_owned(),
        ),
        (
            config(&["plugins:", "  memory-inspector: {}"]),
            "s.yml:4:5: the plugin \"memory-inspector\" is not supported\n      memory-inspector: {}\n      ^^^^^^^^^^^^^^^^\n  supported plugins: ensure, expect, metrics-by-endpoint, apdex, fake-data".to_owned(),
        ),
        (
            flow(&["- get:", "  url: /"]),
            "s.yml:6:9: \"url\" stands beside \"get\", not under it\n          url: /\n          ^^^\n  indent it further".to_owned(),
        ),
        (
            flow(&["- get: {url: /, ifTrue: \"a <\"}"]),
            "s.yml:5:35: ifTrue: it ends where a number, a \"text\" or a name is expected\n        - get: {url: /, ifTrue: \"a <\"}\n                                    ^".to_owned(),
        ),
    ] {
        assert_eq!(read(&text).map(|_| ()), Err(want), "{text}");
    }
}

#[test]
fn every_kind_of_mistake_is_refused_in_its_place() {
    for (text, place, said) in [
        (String::new(), "s.yml:", "empty"),
        ("a: [1".to_owned(), "s.yml:1:", ""),
        ("a: 1\na: 2".to_owned(), "s.yml:2:1:", "stands twice"),
        ("scenarios: []".to_owned(), "s.yml:1:", "no \"config\""),
        (
            "config: {target: 'http://h'}".to_owned(),
            "s.yml:1:1:",
            "no \"scenarios\"",
        ),
        (
            "config: {target: 'ftp://h'}\nscenarios: []".to_owned(),
            "s.yml:1:18:",
            "scheme",
        ),
        (
            config(&["targett: x"]),
            "s.yml:3:3:",
            "did you mean \"target\"",
        ),
        (config(&["phases: []"]), "s.yml:3:11:", "no user"),
        (
            config(&["phases: [{duration: 1}]"]),
            "s.yml:3:12:",
            "exactly one of",
        ),
        (
            config(&["phases: [{duration: 1, arrivalRate: -1}]"]),
            "s.yml:3:39:",
            "at least 0",
        ),
        (
            config(&["phases: [{duration: 1, rampTo: 3, arrivalCount: 2}]"]),
            "s.yml:3:12:",
            "rampTo needs arrivalRate",
        ),
        (
            config(&["engines: {playwright: {}}"]),
            "s.yml:3:13:",
            "playwright",
        ),
        (
            config(&["mode: random"]),
            "s.yml:3:9:",
            "uniform or poisson",
        ),
        (
            config(&["payload: {path: nix.csv, fields: [a]}"]),
            "s.yml:3:19:",
            "cannot read the payload",
        ),
        (
            config(&["http: {timeout: 1h}"]),
            "s.yml:3:19:",
            "10 minutes",
        ),
        (config(&["http: {pool: 0}"]), "s.yml:3:16:", "1 to 65536"),
        (
            config(&["ensure: {p90: 3}"]),
            "s.yml:3:12:",
            "did you mean \"p95\"",
        ),
        (
            config(&["ensure: {conditions: [{expression: 'vusers.failed =< 2'}]}"]),
            "s.yml:3:",
            "expected an operator",
        ),
        (
            config(&["http: {defaults: {headers: {a: '{{ $env.NINES_NIX }}'}}}"]),
            "s.yml:3:",
            "\"NINES_NIX\" is not set",
        ),
        (flow(&["- function: f"]), "s.yml:5:19:", "no processor"),
        (flow(&["- loop: []"]), "s.yml:5:15:", "no steps"),
        (
            flow(&["- loop: []", "  whileTrue: f"]),
            "s.yml:6:20:",
            "no processor",
        ),
        (flow(&["- think: soon"]), "s.yml:5:16:", "500ms"),
        (
            flow(&["- get: {url: /, beforeRequest: f}"]),
            "s.yml:5:38:",
            "no processor",
        ),
        (
            flow(&["- get: {url: /, capture: {json: '$.a'}}"]),
            "s.yml:5:32:",
            "no \"as\"",
        ),
        (
            flow(&["- get: {url: /, capture: {json: '$.a[', as: x}}"]),
            "s.yml:5:39:",
            "no JSON path",
        ),
        (
            flow(&["- get: {url: /, capture: {regexp: '(?=a', as: x}}"]),
            "s.yml:5:41:",
            "no regular expression",
        ),
        (
            flow(&["- get: {url: /, capture: {selector: 'a[', as: x}}"]),
            "s.yml:5:43:",
            "no CSS selector",
        ),
        (
            flow(&["- get: {url: /, expect: {jmespath: 'a['}}"]),
            "s.yml:5:42:",
            "no JMESPath",
        ),
        (
            flow(&["- get: {url: /, expect: [{statuscode: 200}]}"]),
            "s.yml:5:33:",
            "did you mean \"statusCode\"",
        ),
        (
            flow(&["- get: {url: '/{{ $uid() }}'}"]),
            "s.yml:5:20:",
            "$randomNumber",
        ),
        (flow(&["- get: {nourl: /}"]), "s.yml:5:15:", "nourl"),
        (
            flow(&["- emit: {channel: x}"]),
            "s.yml:5:9:",
            "unknown step",
        ),
        (
            flow(&["- get: {url: /}"]).replace("- flow:", "- engine: socketio\n    flow:"),
            "s.yml:4:13:",
            "engine \"socketio\"",
        ),
        (
            flow(&["- get: {url: /}"]).replace("- flow:", "- engine: ws\n    flow:"),
            "s.yml:6:9:",
            "no step of a WebSocket scenario",
        ),
    ] {
        let error = read(&text).map(|_| ()).expect_err(&text);
        assert!(error.starts_with(place), "{text}\n{error}");
        assert!(error.contains(said), "{text}\n{error}");
    }
}

#[test]
fn what_artillery_lets_pass_in_silence_is_warned_of() {
    for (text, place, said) in [
        (
            config(&["ensure: {p99: 3}"]),
            "",
            "ensure is not checked: it needs \"plugins: { ensure: {} }\"",
        ),
        (
            config(&["apdex: {threshold: 3}"]),
            "",
            "apdex is not counted: it needs \"plugins: { apdex: {} }\"",
        ),
        (
            config(&["http: {defaults: {headers: {a: '{{ name }}'}}}"]),
            "s.yml:3:",
            "\"name\" is not known when the configuration is read",
        ),
        (
            config(&["defaults: {think: 2}"]),
            "s.yml:3:21:",
            "changes nothing",
        ),
        (
            config(&[]).replace("http://127.0.0.1:1", "http://127.0.0.1:1/"),
            "",
            "begins with \"//\"",
        ),
        (
            format!("version: 1\n{}", config(&[])),
            "",
            "\"version\" changes nothing",
        ),
        (
            flow(&["- get: {url: /, capture: {xpath: '/a[', as: x}}"]),
            "s.yml:5:40:",
            "no XPath",
        ),
        (
            flow(&["- get: {url: /, ifTrue: a === 3}"]),
            "s.yml:5:31:",
            "there is no \"===\", so the request is always sent",
        ),
        (
            config(&["phases: [{duration: 1, arrivalRate: 2, arrivalCount: 3}]"]),
            "s.yml:3:12:",
            "arrivalCount counts",
        ),
        (
            flow(&["- loop: [{get: {url: /}}]"]),
            "s.yml:5:15:",
            "it goes round for ever",
        ),
    ] {
        let script = read(&text).expect(&text);
        let [note] = script.notes() else {
            panic!("{text}\n{:?}", script.notes());
        };
        assert!(
            note.starts_with(place) && note.contains(said),
            "{text}\n{note}"
        );
    }
}

#[test]
fn ensure_and_apdex_of_the_configuration_take_the_place_of_the_plugins_own() {
    let text = config(&[
        "plugins: {ensure: {p99: 1, p95: 1}, apdex: {threshold: 1}}",
        "ensure: {max: 7}",
        "apdex: {threshold: 9}",
    ]);
    let script = read(&text).unwrap();
    let shown: Vec<&str> = script.checks.iter().map(|c| c.shown.as_str()).collect();
    assert_eq!(shown, ["max < 7"]);
    assert_eq!(script.apdex.map(|d| d.as_millis()), Some(9));
}

#[test]
fn files_and_environments_are_laid_over_list_by_list() {
    let text = "
config:
  target: http://one
  phases: [{duration: 1, arrivalRate: 1}, {pause: 3}]
  environments:
    two: {phases: [{duration: 5}]}
scenarios: [{flow: [{log: x}]}]
";
    let mut o = options();
    o.environment = Some("two".into());
    let seconds = |script: &Script| -> Vec<u64> {
        script.phases.iter().map(|p| p.length.as_secs()).collect()
    };
    // As lodash's merge, which Artillery uses: what the environment does not name stays.
    assert_eq!(seconds(&read_with(text, &o).unwrap()), [5, 3]);
    o.overrides = Some(r#"{"config": {"phases": [{"pause": 7}]}}"#.into());
    assert_eq!(seconds(&read_with(text, &o).unwrap()), [7]);
    let dir = tempfile::tempdir().unwrap();
    let (script, over) = (dir.path().join("s.yml"), dir.path().join("c.yml"));
    std::fs::write(&script, text).unwrap();
    std::fs::write(&over, "config: {target: 'http://three'}").unwrap();
    let o = ReadOptions {
        script,
        config: Some(over),
        ..ReadOptions::default()
    };
    assert_eq!(super::read::read(&o).unwrap().target, "http://three");
}

#[test]
fn phases_of_every_kind_are_read() {
    let script = read(&config(&[
        "phases:",
        "  - {duration: 2m, arrivalRate: 5, name: warm}",
        "  - {duration: '30', arrivalRate: '1', rampTo: 10, maxVusers: 7}",
        "  - {pause: 500ms}",
        "  - {duration: 1.5 h, arrivalCount: 20}",
        "  - {duration: 10, arrivalRate: 2, mode: poisson}",
        "  - {duration: 10, arrivalRate: 0}",
    ]))
    .unwrap();
    let seconds: Vec<f64> = script
        .phases
        .iter()
        .map(|p| p.length.as_secs_f64())
        .collect();
    assert_eq!(seconds, [120.0, 30.0, 0.5, 5_400.0, 10.0, 10.0]);
    let kinds: Vec<PhaseKind> = script.phases.iter().map(|p| p.kind).collect();
    let rate = |rate, poisson| PhaseKind::Rate { rate, poisson };
    let ramp = PhaseKind::Ramp {
        from: 1.0,
        to: 10.0,
    };
    let pause = PhaseKind::Pause;
    let want = [
        rate(5.0, false),
        ramp,
        pause,
        PhaseKind::Count(20),
        rate(2.0, true),
        pause,
    ];
    assert_eq!(kinds, want);
    assert_eq!(script.phases[1].max_vusers, Some(7));
    assert_eq!(script.phases[0].name.as_deref(), Some("warm"));
}

#[test]
fn environments_overrides_and_variables_are_laid_over() {
    let text = "
config:
  target: http://one
  variables: {a: 1, b: [2, 3]}
  phases: [{duration: 1, arrivalRate: 1}]
  environments:
    two: {target: 'http://two', phases: [{duration: 5, arrivalRate: 1}]}
scenarios:
  - {name: first, flow: [{get: {url: /}}]}
  - {name: second, flow: &f [{get: {url: /}}, {loop: [{think: 1}], count: 2}]}
  - flow: [*f, {log: x}]
";
    let mut o = options();
    o.environment = Some("none".into());
    let script = read_with(
        "config: {target: 'http://h'}\nscenarios: [{flow: [{log: x}]}]",
        &o,
    );
    assert_eq!(
        script.unwrap().notes(),
        ["there is no environment \"none\": config.environments is missing"]
    );
    o.environment = None;
    assert_eq!(read_with(text, &o).unwrap().target, "http://one");
    o.environment = Some("tow".into());
    let error = read_with(text, &o).unwrap_err();
    assert!(error.contains("did you mean \"two\""), "{error}");
    o.environment = Some("two".into());
    o.overrides = Some(r#"{"config": {"phases": [{"duration": 9, "arrivalRate": 1}]}}"#.into());
    o.variables = Some(r#"{"a": 5, "c": true}"#.into());
    o.scenario_name = Some("^sec".into());
    let script = read_with(text, &o).unwrap();
    assert_eq!(
        (script.target.as_str(), script.phases.len()),
        ("http://two", 1)
    );
    // As in Artillery: the environment lies on the script, the overrides on both.
    assert_eq!(script.phases[0].length.as_secs(), 9);
    assert_eq!(script.scenarios.len(), 1);
    o.overrides = None;
    let script = read_with(text, &o).unwrap();
    assert_eq!(script.phases[0].length.as_secs(), 5);
    o.scenario_name = Some("first".into());
    o.overrides = Some("[1]".into());
    let error = read_with(text, &o).unwrap_err();
    assert!(error.starts_with("--overrides:1:1:"), "{error}");
}

#[test]
fn lists_within_a_flow_are_flattened_and_anchors_expanded() {
    let text = "
x-login: &login
  - post: {url: /login}
config: {target: http://h}
scenarios:
  - flow:
      - *login
      - loop: [{get: {url: '/{{ $loopElement }}'}}]
        over: [a, b]
";
    let script = read(text).unwrap();
    let steps = &script.scenarios[0].flow;
    assert_eq!(steps.len(), 2);
    let Step::Loop(turns) = &steps[1] else {
        panic!("{steps:?}");
    };
    assert!(matches!(&turns.turns, Turns::Values(v) if v.len() == 2));
}
