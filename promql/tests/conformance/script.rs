//! The script language: load, clear, eval with what is expected.
//!
//! Owns its grammar. Must not know the engine.

use model::Labels;
use promql::series::{SequenceValue, parse_line};

pub(crate) enum Command {
    Clear,
    Load(Load),
    Eval(Eval),
    Broken(usize, String),
}

/// Start timestamps relative to the samples, milliseconds.
pub(crate) type Starts = Vec<Option<i64>>;

pub(crate) struct Load {
    pub(crate) gap_ms: i64,
    pub(crate) custom_buckets: bool,
    pub(crate) series: Vec<(Labels, Vec<SequenceValue>, Option<Starts>)>,
}

#[derive(Debug)]
pub(crate) enum Match {
    Any,
    Exact(String),
    Pattern(regex::Regex),
}

impl Match {
    pub(crate) fn accepts(&self, text: &str) -> bool {
        match self {
            Match::Any => true,
            Match::Exact(want) => want == text,
            Match::Pattern(p) => p.is_match(text),
        }
    }
}

#[derive(Default)]
pub(crate) struct Eval {
    pub(crate) line: usize,
    pub(crate) expr: String,
    pub(crate) instant: bool,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) step: i64,
    pub(crate) matrix: bool,
    pub(crate) ordered: bool,
    pub(crate) fail: Option<Vec<Match>>,
    pub(crate) warn: Option<Vec<Match>>,
    pub(crate) info: Option<Vec<Match>>,
    pub(crate) no_warn: bool,
    pub(crate) no_info: bool,
    pub(crate) text: Option<String>,
    pub(crate) scalar: Option<f64>,
    pub(crate) series: Vec<(Labels, Vec<SequenceValue>)>,
}

pub(crate) fn parse(text: &str) -> Vec<Command> {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .map(|l| if l.starts_with('#') { "" } else { l })
        .collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        if line.is_empty() {
            at += 1;
            continue;
        }
        let body: Vec<&str> = lines[at + 1..]
            .iter()
            .copied()
            .take_while(|l| !l.is_empty())
            .collect();
        let command = if line.starts_with("clear") {
            at += 1;
            out.push(Command::Clear);
            continue;
        } else if line.starts_with("load") {
            load(line, &body).map(Command::Load)
        } else {
            eval(line, &body, at + 1).map(Command::Eval)
        };
        out.push(command.unwrap_or_else(|e| Command::Broken(at + 1, e)));
        at += 1 + body.len();
    }
    out
}

fn duration(text: &str) -> Result<i64, String> {
    model::duration::parse_ms(text).map_err(|e| e.to_string())
}

fn load(line: &str, body: &[&str]) -> Result<Load, String> {
    let (command, gap) = line
        .split_once(char::is_whitespace)
        .ok_or("load without a step")?;
    let mut load = Load {
        gap_ms: duration(gap.trim())?,
        custom_buckets: command.ends_with("with_nhcb"),
        series: Vec::new(),
    };
    let mut starts = None;
    for line in body {
        let head = line.split_whitespace().next().unwrap_or("");
        if head.ends_with("@st") {
            starts = Some(offsets(line[head.len()..].trim())?);
            continue;
        }
        let (labels, values) = parse_line(line)?;
        load.series.push((labels, values, starts.take()));
    }
    Ok(load)
}

/// `-1m`, `_x3`, `-1m+10sx3`: milliseconds before each sample.
fn offsets(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        if let Some(rest) = item.strip_prefix('_') {
            let n = rest
                .strip_prefix('x')
                .map_or(Ok(1), str::parse)
                .map_err(|e| format!("{item}: {e}"))?;
            out.extend(std::iter::repeat_n(None, n));
            continue;
        }
        let (body, times) = match item.split_once('x') {
            Some((body, n)) => (body, n.parse::<i64>().map_err(|e| format!("{item}: {e}"))?),
            None => (item, 0),
        };
        let split = body[1..].find(['+', '-']).map(|i| i + 1);
        let signed = |t: &str| -> Result<i64, String> {
            let ms = duration(t.trim_start_matches(['+', '-']))?;
            Ok(if t.starts_with('-') { -ms } else { ms })
        };
        let (first, delta) = match split {
            Some(i) => (
                signed(&body[..i])?,
                signed(
                    body[i..]
                        .strip_prefix("+-")
                        .map_or(&body[i..], |r| &body[body.len() - r.len() - 1..]),
                )?,
            ),
            None => (signed(body)?, 0),
        };
        out.extend((0..=times).map(|i| Some(first + i * delta)));
    }
    Ok(out)
}

fn eval(line: &str, body: &[&str], number: usize) -> Result<Eval, String> {
    let mut eval = Eval {
        line: number,
        step: 1,
        ..Eval::default()
    };
    let (command, rest) = line.split_once(char::is_whitespace).ok_or("empty eval")?;
    match command {
        "eval" => {}
        "eval_fail" => eval.fail = Some(vec![Match::Any]),
        "eval_warn" => eval.warn = Some(vec![Match::Any]),
        "eval_info" => eval.info = Some(vec![Match::Any]),
        "eval_ordered" => eval.ordered = true,
        _ => return Err(format!("unknown command {command}")),
    }
    let word = |text: &str| -> (String, String) {
        let text = text.trim_start();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        (text[..end].to_owned(), text[end..].trim().to_owned())
    };
    let (kind, mut rest) = word(rest);
    if kind == "instant" {
        eval.instant = true;
        let (at, tail) = word(&rest);
        if at == "at" {
            let (t, tail) = word(&tail);
            eval.start = duration(&t)?;
            rest = tail;
        } else {
            rest = format!("{at} {tail}");
        }
        eval.end = eval.start;
    } else {
        for (name, slot) in [
            ("from", &mut eval.start),
            ("to", &mut eval.end),
            ("step", &mut eval.step),
        ] {
            let (found, tail) = word(&rest);
            if found != name {
                return Err(format!("expected {name}"));
            }
            let (t, tail) = word(&tail);
            *slot = duration(&t)?;
            rest = tail;
        }
    }
    eval.expr = rest;
    for line in body {
        expectation(&mut eval, line)?;
    }
    Ok(eval)
}

fn expectation(eval: &mut Eval, line: &str) -> Result<(), String> {
    if let Some(rest) = line.strip_prefix("expect range vector") {
        let words: Vec<&str> = rest.split_whitespace().collect();
        eval.matrix = true;
        eval.start = duration(words[1])?;
        eval.end = duration(words[3])?;
        eval.step = duration(words[5])?;
        return Ok(());
    }
    if let Some(rest) = line.strip_prefix("expect string ") {
        let parsed = promql::parse(rest).map_err(|e| e.to_string())?;
        if let promql::ExprKind::String(s) = parsed.kind {
            eval.text = Some(s);
        }
        return Ok(());
    }
    for (prefix, exact) in [
        ("expected_fail_message", true),
        ("expected_fail_regexp", false),
    ] {
        if let Some(rest) = line.strip_prefix(prefix) {
            eval.fail = Some(vec![matcher(rest.trim(), exact)?]);
            return Ok(());
        }
    }
    let Some(rest) = line.strip_prefix("expect ") else {
        if let Ok(v) = line.parse::<f64>() {
            eval.scalar = Some(v);
            return Ok(());
        }
        eval.series.push(parse_line(line)?);
        return Ok(());
    };
    let (kind, tail) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let wanted = match tail.trim_start().split_once(':') {
        Some(("msg", text)) => matcher(text.trim(), true)?,
        Some(("regex", text)) => matcher(text.trim(), false)?,
        _ => Match::Any,
    };
    match kind {
        "ordered" => eval.ordered = true,
        "fail" => eval.fail.get_or_insert_default().push(wanted),
        "warn" => eval.warn.get_or_insert_default().push(wanted),
        "info" => eval.info.get_or_insert_default().push(wanted),
        "no_warn" => eval.no_warn = true,
        "no_info" => eval.no_info = true,
        _ => return Err(format!("unknown expectation {line:?}")),
    }
    Ok(())
}

fn matcher(text: &str, exact: bool) -> Result<Match, String> {
    if exact {
        return Ok(Match::Exact(text.to_owned()));
    }
    regex::Regex::new(text)
        .map(Match::Pattern)
        .map_err(|e| e.to_string())
}
