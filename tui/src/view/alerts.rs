//! Screen 6: what fires or is pending, and the log of transitions and deliveries.
//!
//! Owns these tables. Must not know rules.

use model::api::AlertBody;
use model::timestamp::{format_clock, parse_rfc3339};
use ratatui::layout::Rect;

use super::stack;
use crate::app::App;
use crate::data::Data;
use crate::format::{ABSENT, age, plain};
use crate::pen::{Cell, Pen, cell, names, numbers, ordered, words};
use crate::sort::{Key, sorted};
use crate::theme::Role;

pub(crate) fn visible<'a>(app: &App, data: &'a Data) -> Vec<&'a AlertBody> {
    let passes = |a: &&AlertBody| app.passes(&[name(a), &a.state, &summary(a)]);
    sorted(app, data.alerts.iter().filter(passes).collect(), key)
}

fn key(a: &AlertBody, column: usize) -> Key {
    match column {
        0 => a.state.as_str().into(),
        1 => parse_rfc3339(&a.active_at).map(|t| -(t as f64)).into(),
        2 => name(a).into(),
        3 => a.labels.get("severity").unwrap_or_default().into(),
        4 => model::api::parse_float(&a.value).into(),
        _ => summary(a).as_str().into(),
    }
}

fn name(alert: &AlertBody) -> &str {
    alert.labels.get("alertname").unwrap_or(ABSENT)
}

fn summary(alert: &AlertBody) -> String {
    let words = alert
        .annotations
        .get("summary")
        .or_else(|| alert.annotations.get("description"));
    words.cloned().unwrap_or_default()
}

/// Until when nobody is told of an alert, and who wants that.
fn silenced(data: &Data, alert: &AlertBody, now_ms: i64) -> Option<String> {
    let silence = data.silences.iter().find(|s| s.covers(&alert.labels))?;
    let left = silence.ends_ms().map(|end| end - now_ms);
    let left = left.map_or_else(|| ABSENT.to_owned(), age);
    Some(format!(
        "{}, {left} left: {}",
        silence.created_by, silence.comment
    ))
}

fn state(data: &Data, alert: &AlertBody) -> Cell {
    if data.silences.iter().any(|s| s.covers(&alert.labels)) {
        return Cell("‖ silenced".into(), Role::Dim);
    }
    let critical = matches!(alert.labels.get("severity"), Some("critical" | "page"));
    match alert.state.as_str() {
        "firing" => Cell(
            "✖ FIRING".into(),
            if critical { Role::Bad } else { Role::Warn },
        ),
        "pending" => Cell("▲ pending".into(), Role::Warn),
        other => Cell(format!("· {other}"), Role::Dim),
    }
}

fn since(app: &App, alert: &AlertBody) -> String {
    parse_rfc3339(&alert.active_at).map_or_else(|| ABSENT.into(), |t| age(app.now_ms - t))
}

fn severity(alert: &AlertBody) -> String {
    alert.labels.get("severity").unwrap_or(ABSENT).to_owned()
}

/// The short list, also of the overview.
pub(super) fn list(pen: &mut Pen<'_>, app: &App, data: &Data, area: Rect, selected: Option<usize>) {
    let shown = visible(app, data);
    let inner = pen.panel(area, "alerts", if selected.is_some() { "" } else { "6" });
    if shown.is_empty() {
        let text = match data.rules {
            0 => "no alerting rule is loaded".into(),
            n => format!("● ok  {n} rules watched, none fires"),
        };
        pen.put(
            inner,
            0,
            0,
            &text,
            if data.rules > 0 {
                Role::Good
            } else {
                Role::Dim
            },
        );
        return;
    }
    let value = |a: &AlertBody| plain(model::api::parse_float(&a.value));
    let wide = selected.is_some();
    let rows: Vec<Vec<Cell>> = shown
        .iter()
        .map(|a| {
            let mut row = vec![state(data, a), cell(since(app, a)), cell(name(a))];
            if wide {
                let silenced = silenced(data, a, app.now_ms);
                let silenced = silenced.map_or_else(|| cell(ABSENT), cell);
                row.extend([
                    cell(severity(a)),
                    cell(value(a)),
                    cell(summary(a)),
                    silenced,
                ]);
            } else {
                row.push(cell(severity(a)));
            }
            row
        })
        .collect();
    let mut columns = vec![
        words("STATE", 0),
        numbers("SINCE", 1),
        names("ALERT"),
        words("SEVERITY", 3),
    ];
    if wide {
        columns.extend([numbers("VALUE", 2), names("SUMMARY")]);
        if shown.iter().any(|a| silenced(data, a, 0).is_some()) {
            columns.push(names("SILENCED BY"));
        }
        columns = ordered(columns, app.sort);
    }
    pen.table(inner, &columns, &rows, selected);
}

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    let [alerts_at, log_at] = stack(body, [body.height / 2, body.height]);
    list(pen, app, data, alerts_at, Some(app.row));
    let inner = pen.panel(log_at, "log", "newest first");
    if data.events.is_empty() {
        pen.put(inner, 0, 0, "nothing has happened yet", Role::Dim);
        return;
    }
    let rows: Vec<Vec<Cell>> = data
        .events
        .iter()
        .map(|e| {
            let role = match e.kind.as_str() {
                "firing" | "dead_letter" => Role::Bad,
                "pending" | "retry" => Role::Warn,
                "resolved" | "delivered" => Role::Good,
                _ => Role::Text,
            };
            vec![
                cell(format_clock(e.t_ms)),
                Cell(e.kind.clone(), role),
                cell(e.alert.clone()),
                cell(e.receiver.clone()),
                cell(e.detail.clone()),
            ]
        })
        .collect();
    let columns = [
        words("TIME", 0),
        words("WHAT", 0),
        names("ALERT"),
        words("RECEIVER", 1),
        names("DETAIL"),
    ];
    pen.table(inner, &columns, &rows, None);
}
