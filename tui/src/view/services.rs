//! Screen 2: rate, errors and duration of services, then of routes.
//!
//! Owns these tables. Must not know how values were fetched.

use ratatui::layout::Rect;

use super::overview::share;
use super::stack;
use crate::app::App;
use crate::data::{Data, Red};
use crate::format::{ms, plain};
use crate::pen::{Cell, Column, Pen, cell, names, numbers, ordered};
use crate::sort::{Key, sorted};
use crate::theme::Role;

pub(super) fn visible<'a>(app: &App, data: &'a Data) -> Vec<&'a Red> {
    let passes = |r: &&Red| app.passes(&[&r.service, &r.route]);
    sorted(app, data.routes.iter().filter(passes).collect(), key)
}

fn key(red: &Red, column: usize) -> Key {
    match column {
        0 => red.service.as_str().into(),
        1 => red.route.as_str().into(),
        2 => red.rate.into(),
        3 => red.error_ratio.into(),
        4 => red.p50.into(),
        5 => red.p95.into(),
        _ => red.p99.into(),
    }
}

fn columns(first: &[Column]) -> Vec<Column> {
    let rest = [
        numbers("REQ/S", 0),
        numbers("ERR %", 0),
        numbers("P50 ms", 2),
        numbers("P95 ms", 1),
        numbers("P99 ms", 0),
    ];
    first.iter().copied().chain(rest).collect()
}

fn values(red: &Red) -> Vec<Cell> {
    let slow = red.p99.is_some_and(|p| p >= 1.0);
    vec![
        cell(plain(red.rate)),
        share(red.error_ratio, 0.01, 0.05),
        cell(ms(red.p50)),
        cell(ms(red.p95)),
        Cell(ms(red.p99), if slow { Role::Bad } else { Role::Text }),
    ]
}

/// The short list of the overview.
pub(super) fn list(pen: &mut Pen<'_>, data: &Data, area: Rect) {
    let inner = pen.panel(area, "services (RED)", "2");
    table(pen, data, inner);
}

fn table(pen: &mut Pen<'_>, data: &Data, inner: Rect) {
    if data.services.is_empty() {
        pen.put(inner, 0, 0, "no server spans yet", Role::Dim);
        return;
    }
    let row = |r: &Red| {
        std::iter::once(cell(r.service.clone()))
            .chain(values(r))
            .collect()
    };
    let rows: Vec<Vec<Cell>> = data.services.iter().map(row).collect();
    pen.table(inner, &columns(&[names("SERVICE")]), &rows, None);
}

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    let top = u16::try_from(data.services.len().max(1) + 3)
        .unwrap_or(u16::MAX)
        .min(body.height / 2);
    let [services_at, routes_at] = stack(body, [top, body.height]);
    let inner = pen.panel(services_at, "services (RED)", "busiest first");
    table(pen, data, inner);
    let shown = visible(app, data);
    let count = format!("{} of {}", shown.len(), data.routes.len());
    let inner = pen.panel(routes_at, "routes", &count);
    if shown.is_empty() {
        pen.put(inner, 0, 0, "no route passes", Role::Dim);
        return;
    }
    let row = |r: &&Red| {
        let names = [
            cell(r.service.clone()),
            cell(if r.route.is_empty() {
                "-".into()
            } else {
                r.route.clone()
            }),
        ];
        names.into_iter().chain(values(r)).collect()
    };
    let rows: Vec<Vec<Cell>> = shown.iter().map(row).collect();
    pen.table(
        inner,
        &ordered(columns(&[names("SERVICE"), names("ROUTE")]), app.sort),
        &rows,
        Some(app.row),
    );
}
