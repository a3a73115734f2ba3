//! Screen 5: traces, and one trace as a waterfall.
//!
//! Owns these panels. A parent that is missing makes a root; a loop of parents ends. Must not know how traces are kept.

use std::collections::BTreeSet;

use model::span::{Span, SpanId, SpanStatus, TraceSummary};
use model::timestamp::format_clock;
use ratatui::layout::Rect;

use super::stack;
use crate::app::App;
use crate::data::Data;
use crate::format::seconds;
use crate::pen::{Cell, Pen, cell, names, numbers, ordered, shorten, words};
use crate::sort::{Key, sorted};
use crate::theme::Role;

pub(crate) fn visible<'a>(app: &App, data: &'a Data) -> Vec<&'a TraceSummary> {
    let passes = |t: &&TraceSummary| {
        let id = t.trace_id.to_string();
        app.passes(&[&t.root_name, &t.root_service, &t.route, &id])
    };
    sorted(app, data.traces.iter().filter(passes).collect(), key)
}

fn key(t: &TraceSummary, column: usize) -> Key {
    match column {
        0 => Key::Text(t.trace_id.to_string()),
        1 => Key::Number(t.start_ns as f64),
        2 => t.root_name.as_str().into(),
        3 => t.root_service.as_str().into(),
        4 => Key::Number(f64::from(t.spans)),
        5 => Key::Number(t.duration_ns as f64),
        6 => Some(f64::from(t.status_code)).filter(|s| *s > 0.0).into(),
        _ => Key::Number(f64::from(t.errors)),
    }
}

fn length(ns: u64) -> String {
    seconds(Some(ns as f64 / 1e9))
}

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    let top = if app.trace.is_some() {
        body.height / 3
    } else {
        body.height
    };
    let [list_at, fall_at] = stack(body, [top, body.height]);
    let shown = visible(app, data);
    let inner = pen.panel(
        list_at,
        "traces",
        &format!("{} of {}", shown.len(), data.traces.len()),
    );
    if shown.is_empty() {
        pen.put(inner, 0, 0, "no trace in this range passes", Role::Dim);
    } else {
        let rows: Vec<Vec<Cell>> = shown.iter().map(|t| line(t)).collect();
        let columns = vec![
            words("TRACE", 3),
            words("START", 2),
            names("ROOT"),
            names("SERVICE"),
            numbers("SPANS", 1),
            numbers("DURATION", 0),
            numbers("STATUS", 0),
            words("ERRORS", 0),
        ];
        pen.table(inner, &ordered(columns, app.sort), &rows, Some(app.row));
    }
    if let Some(id) = app.trace {
        let spans: Vec<&Span> = data.spans.iter().filter(|s| s.trace_id == id).collect();
        waterfall(pen, &id.to_string(), &spans, fall_at);
    }
}

fn line(t: &TraceSummary) -> Vec<Cell> {
    let failed = match t.errors {
        0 => cell("-"),
        n => Cell(format!("✖ {n}"), Role::Bad),
    };
    let status = if t.status_code == 0 {
        "-".into()
    } else {
        t.status_code.to_string()
    };
    let start_ms = i64::try_from(t.start_ns / 1_000_000).unwrap_or(0);
    let id = t.trace_id.to_string();
    vec![
        cell(format!("{}…{}", &id[..4], &id[28..])),
        cell(format_clock(start_ms)),
        cell(t.root_name.clone()),
        cell(t.root_service.clone()),
        cell(t.spans.to_string()),
        cell(length(t.duration_ns)),
        cell(status),
        failed,
    ]
}

/// Spans as a tree, parents before children, children by start: (depth, span).
fn tree<'a>(spans: &[&'a Span]) -> Vec<(usize, &'a Span)> {
    let known: BTreeSet<SpanId> = spans.iter().map(|s| s.span_id).collect();
    let mut sorted = spans.to_vec();
    sorted.sort_by_key(|s| (s.start_ns, s.end_ns));
    let mut out = Vec::new();
    let mut seen = BTreeSet::new();
    let roots = sorted
        .iter()
        .filter(|s| !known.contains(&s.parent_id) || s.parent_id == s.span_id);
    // After the roots come all others: those in a loop have no root above them.
    for start in roots.chain(&sorted) {
        let mut todo = vec![(0usize, *start)];
        while let Some((depth, span)) = todo.pop() {
            if !seen.insert((span.span_id, span.start_ns, span.end_ns)) {
                continue;
            }
            out.push((depth, span));
            let children = sorted.iter().rev().filter(|c| c.parent_id == span.span_id);
            todo.extend(children.map(|c| (depth + 1, *c)));
        }
    }
    out
}

/// What a span says of itself: its status' message and its events, as (what, text).
fn remarks(span: &Span, begin_ns: u64) -> Vec<(String, String, Role)> {
    let failed = span.status == SpanStatus::Error;
    let role = if failed { Role::Bad } else { Role::Text };
    let message = Some(&span.status_message).filter(|m| !m.is_empty());
    let message = message.map(|m| ("message".to_owned(), m.clone(), role));
    let events = span.events.iter().map(|e| {
        let all = e
            .attributes
            .iter()
            .map(|(name, value)| format!("  {name}={value}"));
        let at = length(e.time_ns.saturating_sub(begin_ns));
        let text = format!("{}{}", e.name, all.collect::<String>());
        (format!("event at {at}"), text, Role::Dim)
    });
    message.into_iter().chain(events).collect()
}

fn waterfall(pen: &mut Pen<'_>, id: &str, spans: &[&Span], area: Rect) {
    let begin = spans.iter().map(|s| s.start_ns).min().unwrap_or(0);
    let end = spans.iter().map(|s| s.end_ns).max().unwrap_or(begin);
    let whole = end.saturating_sub(begin).max(1);
    let title = format!("waterfall  {id}  {}  {} spans", length(whole), spans.len());
    let inner = pen.panel(area, &title, "esc closes");
    if spans.is_empty() {
        pen.put(inner, 0, 0, "fetching, or no longer kept", Role::Dim);
        return;
    }
    let room = usize::from(inner.width / 2).saturating_sub(4).max(10);
    let bar = |s: &Span| {
        let at = |ns: u64| (ns.saturating_sub(begin) as f64 / whole as f64 * room as f64) as usize;
        let from = at(s.start_ns).min(room - 1);
        let to = at(s.end_ns).clamp(from + 1, room);
        format!(
            "{}{}{}",
            " ".repeat(from),
            "█".repeat(to - from),
            " ".repeat(room - to)
        )
    };
    let row = |(depth, s): (usize, &Span)| {
        let failed = s.status == SpanStatus::Error;
        let role = if failed { Role::Bad } else { Role::Text };
        let mark = if failed { "✖ " } else { "" };
        let indent = "  ".repeat(depth.min(12));
        let bar_role = if failed { Role::Bad } else { Role::Series(0) };
        vec![
            Cell(format!("{indent}{mark}{}", s.name), role),
            cell(s.service.clone()),
            cell(length(s.duration_ns())),
            Cell(bar(s), bar_role),
        ]
    };
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for (depth, span) in tree(spans) {
        rows.push(row((depth, span)));
        let indent = "  ".repeat(depth.min(12) + 1);
        rows.extend(remarks(span, begin).into_iter().map(|(what, text, role)| {
            let name = Cell(format!("{indent}└ {what}"), Role::Dim);
            vec![name, cell(""), cell(""), Cell(shorten(&text, room), role)]
        }));
    }
    let columns = [
        names("SPAN"),
        names("SERVICE"),
        numbers("DURATION", 0),
        words("", 0),
    ];
    pen.table(inner, &columns, &rows, None);
}
