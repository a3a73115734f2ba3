//! What rule files are accepted and refused, with places.

use super::*;

fn error(text: &str) -> String {
    RuleFile::parse("r.yaml", text).unwrap_err().to_string()
}

#[test]
fn errors_name_the_place_and_the_fix() {
    let group = |rule: &str| format!("groups:\n  - name: g\n    rules:\n{rule}");
    for (text, want) in [
        (
            group("      - alert: A\n        expr: sum(raet(x[5m])) > 1\n"),
            "r.yaml:5:19: could not parse expression: unknown function",
        ),
        (
            group(
                "      - alert: A\n        expr: |\n          up == 0\n            and sum(foo\n",
            ),
            "r.yaml:7:",
        ),
        (
            group("      - alert: A\n        expr: up\n        fro: 5m\n"),
            "r.yaml:6:9: unknown key \"fro\"\n          fro: 5m\n          ^^^\n  did you mean \"for\"?",
        ),
        (
            group("      - alert: A\n        expr: up\n        for: 5 minutes\n"),
            "r.yaml:6:14: \"5 minutes\" is not a duration",
        ),
        (
            group(
                "      - alert: A\n        expr: up\n        annotations: {summary: '{{ $lable.x }}'}\n",
            ),
            "undefined variable \"$lable\"",
        ),
        (
            group("      - expr: up\n"),
            "r.yaml:4:9: one of 'record' or 'alert' must be set",
        ),
        (
            group("      - alert: A\n"),
            "field 'expr' must be set in rule \"A\"",
        ),
        (
            group("      - alert: A\n        record: b\n        expr: up\n"),
            "only one of 'record' and 'alert'",
        ),
        (
            group("      - record: a\n        expr: up\n        for: 1m\n"),
            "invalid field 'for' in recording rule",
        ),
        (
            group("      - record: 'a{b=\"c\"}'\n        expr: up\n"),
            "braces present in the recording rule name",
        ),
        (
            group("      - alert: A\n        expr: up\n        labels: {__name__: x}\n"),
            "invalid label name",
        ),
        (
            "groups:\n  - name: a\n  - name: a\n".into(),
            "r.yaml:3:11: groupname \"a\" is repeated",
        ),
        ("groups:\n  - rules: []\n".into(), "a group has no name"),
        ("groups: [\n".into(), "r.yaml:"),
        ("group:\n".into(), "did you mean \"groups\"?"),
    ] {
        let error = error(&text);
        assert!(error.contains(want), "wanted {want:?} in:\n{error}");
    }
}

#[test]
fn reads_the_whole_format() {
    let text = "groups:\n  - name: g\n    interval: 30s\n    limit: 5\n    query_offset: 1m\n    labels: {team: a, over: group}\n    rules:\n      - alert: A\n        expr: up == 0\n        for: 1h30m\n        keep_firing_for: 5m\n        labels: {over: rule, version: 1.10}\n        annotations:\n          n: 5\n      - record: job:up\n        expr: 1\n";
    let file = RuleFile::parse("r.yaml", text).unwrap();
    let group = &file.groups[0];
    assert_eq!(
        (group.interval_ms, group.limit, group.query_offset_ms),
        (Some(30_000), 5, 60_000)
    );
    let rule = &group.rules[0];
    assert_eq!((rule.for_ms, rule.keep_firing_for_ms), (5_400_000, 300_000));
    assert_eq!(
        (
            rule.labels["over"].as_str(),
            rule.labels["version"].as_str()
        ),
        ("rule", "1.10")
    );
    assert_eq!(rule.annotations["n"], "5");
    assert_eq!(
        (group.rules[1].kind, group.rules[1].expr.as_str()),
        (RuleKind::Record, "1")
    );
    for empty in ["", "# nothing\n", "groups:\n", "groups: []\n", "{}"] {
        assert!(RuleFile::parse("r.yaml", empty).is_ok(), "{empty:?}");
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "(groups:\n|  - name: a\n|    rules:\n|      - alert: b\n|        expr: |up|sum\\(|\n|[ -~é]){0,12}") {
        let _ = RuleFile::parse("r.yaml", &text);
    }
}
