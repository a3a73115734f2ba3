//! Screen 7: log records as they come, and the selected one in full.
//!
//! Owns these panels. Must not know how records are kept.

use model::log::{LogRecord, Severity};
use model::timestamp::format_clock;
use ratatui::layout::Rect;

use super::stack;
use crate::app::App;
use crate::data::Data;
use crate::fetch::log_words;
use crate::format::ABSENT;
use crate::pen::{Cell, Pen, cell, names, words, wrap};
use crate::theme::Role;

/// Rows of the selected record's panel.
const DETAIL: u16 = 8;

pub(crate) fn visible<'a>(app: &App, data: &'a Data) -> Vec<&'a LogRecord> {
    let (service, text) = log_words(&app.filter);
    let text = text.to_lowercase();
    let passes = |r: &&LogRecord| {
        service.as_ref().is_none_or(|s| r.service.starts_with(s))
            && r.body.to_lowercase().contains(&text)
    };
    data.logs.iter().filter(passes).collect()
}

pub(super) fn severity(severity: Severity) -> Cell {
    match severity {
        Severity::Fatal => Cell("✖ FATAL".into(), Role::Bad),
        Severity::Error => Cell("✖ ERROR".into(), Role::Bad),
        Severity::Warn => Cell("▲ WARN".into(), Role::Warn),
        Severity::Info => Cell("· INFO".into(), Role::Text),
        Severity::Debug => Cell("· DEBUG".into(), Role::Dim),
        Severity::Trace => Cell("· TRACE".into(), Role::Dim),
    }
}

/// A clock with milliseconds.
fn clock(ns: u64) -> String {
    let ms = i64::try_from(ns / 1_000_000).unwrap_or(0);
    format!("{}.{:03}", format_clock(ms), ms.rem_euclid(1000))
}

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    let [list_at, detail_at] = stack(body, [body.height.saturating_sub(DETAIL), DETAIL]);
    let shown = visible(app, data);
    let mut title = match app.pick.severity {
        None => "logs".to_owned(),
        Some(least) => format!("logs  {} and worse", format!("{least:?}").to_lowercase()),
    };
    if let Some(id) = app.pick.log_trace {
        title += &format!("  of trace {id} (esc: all)");
    }
    let count = match shown.len() {
        n if n == data.logs.len() => format!("{n}, newest first"),
        n => format!("{n} of {}, newest first", data.logs.len()),
    };
    let inner = pen.panel(list_at, &title, &count);
    if shown.is_empty() {
        let text = "no record in this range passes";
        pen.put(inner, 0, 0, text, Role::Dim);
        pen.panel(detail_at, "record", "");
        return;
    }
    let row = |r: &&LogRecord| {
        let id = r.trace_id.to_string();
        let trace = match r.trace_id.is_zero() {
            true => ABSENT.to_owned(),
            false => format!("{}…{}", &id[..4], &id[28..]),
        };
        vec![
            cell(clock(r.time_ns)),
            severity(r.severity),
            cell(r.service.clone()),
            cell(trace),
            cell(r.body.lines().next().unwrap_or_default()),
        ]
    };
    // Only what may be seen is laid out.
    let room = usize::from(inner.height);
    let first = (app.row + 1).saturating_sub(room.saturating_sub(1));
    let rows: Vec<Vec<Cell>> = shown.iter().skip(first).take(room).map(row).collect();
    let columns = [
        words("TIME", 0),
        words("SEVERITY", 0),
        words("SERVICE", 2),
        words("TRACE", 3),
        names("TEXT"),
    ];
    pen.table(inner, &columns, &rows, Some(app.row - first));
    if let Some(record) = shown.get(app.row) {
        detail(pen, record, detail_at);
    }
}

fn detail(pen: &mut Pen<'_>, record: &LogRecord, area: Rect) {
    let right = match record.trace_id.is_zero() {
        true => "no trace".to_owned(),
        false => format!("trace {}  ↵ open", record.trace_id),
    };
    let title = format!("record  {}  {}", clock(record.time_ns), record.service);
    let inner = pen.panel(area, &title, &right);
    let mut lines = wrap(&record.body, usize::from(inner.width));
    let attributes: Vec<String> = record
        .attributes
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let bodies = lines.len();
    lines.extend(wrap(&attributes.join("  "), usize::from(inner.width)));
    for (y, line) in (0u16..).zip(&lines) {
        let role = if usize::from(y) < bodies {
            Role::Text
        } else {
            Role::Dim
        };
        pen.put(inner, 0, y, line, role);
    }
}
