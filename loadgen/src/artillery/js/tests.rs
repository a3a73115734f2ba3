//! Processors read and called without a run: modules, built-ins, ways to say "done", limits, errors with places.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{Processor, Returned, Unusable};

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn load(dir: &Path, name: &str) -> Result<Processor, Unusable> {
    let env = BTreeMap::from([("FRUIT".to_owned(), "pear".to_owned())]);
    Processor::load(&dir.join(name), dir, &env)
}

async fn step(processor: &Processor, name: &str, vars: Value) -> Returned {
    let call = json!({"kind": "step", "vu": 1, "counted": true, "vars": vars, "name": name});
    processor.call(&call).await
}

#[tokio::test]
async fn functions_are_called_back_from_in_every_way() {
    let dir = folder(&[(
        "p.js",
        "
module.exports = {
  plain(context, ee, next) { context.vars.a = context.vars.b + 1; delete context.vars.gone; next(); },
  async later(context) { await new Promise((r) => setTimeout(r, 5)); context.vars.list.push(3); },
  fails(context, ee, next) { next({ code: 'E1' }); },
  async rejects() { throw new Error('no') },
  throws() { undefinedName(); },
  keeps(context, ee, next) { context.count = (context.count ?? 0) + 1; context.vars.count = context.count; next(); },
  endless() { for (;;) {} },
  async promised() { throw undefined },
  async awaits(context, ee, next) { next(); },
  reads(context, ee, next) { context.vars.nix.deep = 1; },
};",
    )]);
    let p = load(dir.path(), "p.js").unwrap();
    assert!(p.has("plain") && !p.has("nix"));
    let got = step(
        &p,
        "plain",
        json!({"b": 1, "gone": 2, "list": [1], "same": {"x": 1}}),
    )
    .await;
    assert_eq!(
        (Value::Object(got.set), got.gone),
        (json!({"a": 2}), vec!["gone".to_owned()])
    );
    let got = step(&p, "later", json!({})).await;
    assert_eq!(Value::Object(got.set), json!({"list": [1, 3]}));
    for (name, label) in [
        ("fails", "E1"),
        ("rejects", "no"),
        ("throws", "undefinedName is not defined"),
        ("promised", "rejected"),
        ("awaits", "next is not a function"),
        (
            "reads",
            "Cannot set properties of undefined (setting 'deep')",
        ),
    ] {
        assert_eq!(
            step(&p, name, json!({})).await.failed.as_deref(),
            Some(label),
            "{name}"
        );
    }
    step(&p, "keeps", json!({})).await;
    assert_eq!(step(&p, "keeps", json!({})).await.set["count"], 2);
}

#[tokio::test]
async fn hooks_share_their_request_and_conditions_answer() {
    let dir = folder(&[(
        "p.mjs",
        "
import { createHmac } from 'node:crypto';
import helper, { twice } from './helper.js';
import data from './data.json';
export function sign(req, context, ee, next) { req.headers = { sig: createHmac('sha256', 'k').update('x').digest('hex').slice(0, 8) }; req.seen = helper.n; next(); }
export async function change(req) { req.json = { n: twice(data.n), body: Buffer.from('hi') }; }
export function look(req, res, context, ee, next) { context.vars.saw = [req.seen, res.statusCode, res.body]; next(); }
export async function refuses(req) { return 'an error, as in Artillery'; }
export const wants = (vars) => vars.n > 3;
export function goesOn(context, next) { next(context.vars.n < 5); }
",
    ), ("helper.js", "exports.n = 7; exports.twice = (n) => 2 * n;"), ("data.json", "{\"n\": 21}")]);
    let p = load(dir.path(), "p.mjs").unwrap();
    let call = json!({"kind": "before", "vu": 1, "counted": true, "rid": 5, "params": {"url": "/"},
        "scenarioHooks": ["sign"], "requestHooks": ["change", "nix"]});
    let got = p.call(&call).await;
    assert_eq!(got.failed, None);
    let params = &got.value[0];
    assert_eq!(params["headers"]["sig"], "c38edc88");
    assert_eq!(params["json"], json!({"n": 42, "body": {"$bytes": "aGk="}}));
    let call = json!({"kind": "after", "vu": 1, "counted": true, "rid": 5, "last": true, "hooks": ["look"],
        "params": {}, "res": {"statusCode": 200, "body": "b"}});
    assert_eq!(p.call(&call).await.set["saw"], json!([7, 200, "b"]));
    let call = json!({"kind": "before", "vu": 1, "counted": true, "rid": 6, "params": {},
        "scenarioHooks": ["refuses"], "requestHooks": []});
    assert_eq!(p.call(&call).await.failed.as_deref(), Some("undefined"));
    let ask = |kind: &str, name: &str, n: u32| {
        let call = json!({"kind": kind, "vu": 2, "counted": true, "vars": {"n": n}, "name": name});
        let p = &p;
        async move { p.call(&call).await.value }
    };
    assert_eq!(ask("ifTrue", "wants", 3).await, json!(false));
    assert_eq!(ask("ifTrue", "wants", 4).await, json!(true));
    assert_eq!(ask("whileTrue", "goesOn", 4).await, json!(true));
}

#[tokio::test]
async fn built_ins_are_those_of_node() {
    let dir = folder(&[
        (
            "p.js",
            r#"
const fs = require('fs'), path = require('path'), util = require('util'), url = require('node:url');
const qs = require('querystring'), crypto = require('crypto'), EventEmitter = require('events');
const plus = require('plus');
module.exports.all = (context, ee, next) => {
  const u = new URL('http://a.b:81/c?d=e&d=f#g'); u.searchParams.append('h', 'i j');
  const e = new EventEmitter(); let heard; e.once('x', (v) => { heard = v; }); e.emit('x', 1); e.emit('x', 2);
  let outside; try { fs.readFileSync('/etc/hostname'); } catch (error) { outside = error.code; }
  let missing; try { fs.readFileSync('nix'); } catch (error) { missing = error.code; }
  context.vars.out = [
    fs.readFileSync(path.join(__dirname, 'data.txt'), 'utf8'), fs.existsSync('./data.txt'), outside, missing,
    path.resolve('/a/b', '../c', './d.txt'), path.basename('/x/y.json', '.json'), path.relative('/a/b', '/a/c'),
    util.format('%s is %d of %j', 'x', 1, { a: 1 }), util.inspect({ a: [1, 'b'] }), u.href, u.host, u.searchParams.getAll('d'),
    url.parse('http://h:1/p?q=1', true).query.q, qs.stringify({ a: 'b c', d: [1, 2] }), qs.parse('a=b&a=c').a,
    crypto.randomBytes(4).length, crypto.randomUUID().length, crypto.createHash('md5').update('a').update('b').digest('hex'),
    Buffer.from('häß').toString('base64'), Buffer.from('ff00', 'hex')[0], Buffer.concat([Buffer.from('a'), Buffer.from('b')]).toString(),
    atob(btoa('xyz')), new TextDecoder().decode(new TextEncoder().encode('ü')), heard, plus(1, 2), process.env.FRUIT,
    context.funcs.$template('{{ n.m }}-{{ n.o[0] }}'), typeof process.hrtime.bigint(), JSON.stringify(Buffer.from('a')),
  ];
  next();
};"#,
        ),
        ("data.txt", "text"),
        (
            "node_modules/plus/index.js",
            "module.exports = (a, b) => a + b;",
        ),
    ]);
    let p = load(dir.path(), "p.js").unwrap();
    let got = step(&p, "all", json!({"n": {"m": 1, "o": ["z"]}})).await;
    assert_eq!(got.failed, None);
    let want = json!([
        "text",
        true,
        "EACCES",
        "ENOENT",
        "/a/c/d.txt",
        "y",
        "../c",
        "x is 1 of {\"a\":1}",
        "{ a: [ 1, 'b' ] }",
        "http://a.b:81/c?d=e&d=f&h=i+j#g",
        "a.b:81",
        ["e", "f"],
        "1",
        "a=b%20c&d=1&d=2",
        ["b", "c"],
        4,
        36,
        "187ef4436122d1cc2f40dc2b92f0eba0",
        "aMOkw58=",
        255,
        "ab",
        "xyz",
        "ü",
        1,
        3,
        "pear",
        "1-z",
        "bigint",
        "{\"type\":\"Buffer\",\"data\":[97]}"
    ]);
    assert_eq!(got.set["out"], want);
}

#[test]
fn what_cannot_be_read_has_a_place() {
    for (name, text, line, column, why) in [
        ("a.js", "let a = 1;\nlet b = ;\n", 2, 9, "SyntaxError"),
        ("a.js", "let a = ;\n", 1, 9, "SyntaxError"),
        (
            "a.js",
            "\nconst h = require('https');",
            2,
            11,
            "\"https\" is not supported",
        ),
        (
            "a.mjs",
            "import x from './x.js';\nimport _ from 'lodash';",
            2,
            15,
            "the package \"lodash\"",
        ),
        (
            "a.mjs",
            "export const a = 1;\nnix();",
            2,
            1,
            "nix is not defined",
        ),
        ("a.ts", "export const a: number = 1;", 0, 0, "TypeScript"),
        (
            "a.js",
            "process.exit(1)",
            1,
            8,
            "process.exit() is not supported",
        ),
    ] {
        let dir = folder(&[(name, text), ("x.js", "")]);
        let error = load(dir.path(), name).unwrap_err();
        assert!(error.why.contains(why), "{error:?}");
        assert_eq!(
            error.at.unwrap_or((0, 0)),
            (line, column),
            "{text} {error:?}"
        );
    }
}
