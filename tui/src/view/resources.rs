//! Screen 3: utilisation, saturation and errors of resources.
//!
//! Owns these tables. Must not know how values were fetched.

use ratatui::layout::Rect;

use super::overview::share;
use crate::app::App;
use crate::data::{Data, Use};
use crate::format::{ABSENT, percent_sign, plain};
use crate::pen::{Cell, Pen, cell, names, numbers, ordered, words};
use crate::sort::{Key, sorted};
use crate::theme::Role;

pub(super) fn visible<'a>(app: &App, data: &'a Data) -> Vec<&'a Use> {
    let passes = |u: &&Use| app.passes(&[&u.kind, &u.resource, &u.instance]);
    sorted(app, data.resources.iter().filter(passes).collect(), key)
}

fn key(u: &Use, column: usize) -> Key {
    match column {
        0 => u.kind.as_str().into(),
        1 => u.resource.as_str().into(),
        2 => u.instance.as_str().into(),
        5 => u.saturation.first().map(|s| s.1).into(),
        6 => u.errors.into(),
        _ => u.utilization.into(),
    }
}

fn waits(u: &Use) -> String {
    if u.saturation.is_empty() {
        return ABSENT.into();
    }
    let all = u.saturation.iter().map(|(unit, v)| waits_as(unit, *v));
    all.collect::<Vec<_>>().join("  ")
}

/// The words are those of the series' `unit` label, short enough for a column.
fn waits_as(unit: &str, value: f64) -> String {
    let words = match unit {
        "runnable_waiting" => "waiting".into(),
        "dropped_packets_per_second" => "dropped/s".into(),
        "swapped_pages_per_second" => "swapped pages/s".into(),
        "queued_operations" => "queued".into(),
        "psi_some_ratio" => return format!("PSI {}", percent_sign(Some(value))),
        other => match other.strip_suffix("_ratio") {
            Some(name) => {
                return format!("{} {}", name.replace('_', " "), percent_sign(Some(value)));
            }
            None => other.replace('_', " "),
        },
    };
    format!("{words} {}", plain(Some(value)))
}

fn errors(u: &Use) -> Cell {
    let some = u.errors.is_some_and(|e| e > 0.0);
    Cell(plain(u.errors), if some { Role::Warn } else { Role::Text })
}

/// The short list of the overview.
pub(super) fn list(pen: &mut Pen<'_>, data: &Data, area: Rect) {
    let inner = pen.panel(area, "resources (USE)", "3");
    if data.resources.is_empty() {
        pen.put(inner, 0, 0, "no resource is measured yet", Role::Dim);
        return;
    }
    let row = |u: &Use| {
        vec![
            cell(format!("{} {}", u.kind, u.resource)),
            share(u.utilization, 0.8, 0.95),
            cell(waits(u)),
            errors(u),
        ]
    };
    let rows: Vec<Vec<Cell>> = data.resources.iter().map(row).collect();
    let columns = [
        names("RESOURCE"),
        numbers("UTIL %", 0),
        names("WAITS"),
        numbers("ERR", 1),
    ];
    pen.table(inner, &columns, &rows, None);
}

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    let shown = visible(app, data);
    let count = format!("{} of {}", shown.len(), data.resources.len());
    let inner = pen.panel(body, "resources (USE)", &count);
    if shown.is_empty() {
        pen.put(
            inner,
            0,
            0,
            "no resource passes, or none is measured yet",
            Role::Dim,
        );
        return;
    }
    let bar = |u: &Use| {
        let full = u
            .utilization
            .map_or(0, |v| (v.clamp(0.0, 1.0) * 20.0).round() as usize);
        format!("{}{}", "█".repeat(full), "·".repeat(20 - full))
    };
    let row = |u: &&Use| {
        vec![
            words_cell(&u.kind),
            cell(u.resource.clone()),
            cell(u.instance.clone()),
            share(u.utilization, 0.8, 0.95),
            cell(bar(u)),
            cell(waits(u)),
            errors(u),
        ]
    };
    let rows: Vec<Vec<Cell>> = shown.iter().map(row).collect();
    let columns = vec![
        words("KIND", 0),
        names("RESOURCE"),
        names("INSTANCE"),
        numbers("UTIL %", 0),
        words("", 2),
        names("WAITS"),
        numbers("ERRORS", 0),
    ];
    pen.table(inner, &ordered(columns, app.sort), &rows, Some(app.row));
}

fn words_cell(text: &str) -> Cell {
    Cell(text.to_owned(), Role::Text)
}
