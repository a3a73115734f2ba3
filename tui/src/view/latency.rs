//! Screen 4: latency over time as a heat map, percentiles, and exemplars that lead to traces.
//!
//! Owns this layout. The selected exemplar is marked in the map. Must not know histograms.

use model::timestamp::format_clock;
use ratatui::layout::Rect;

use super::{split, stack};
use crate::app::App;
use crate::data::{Data, Percentile, Sampled};
use crate::fetch::latency::name_of;
use crate::format::{ABSENT, seconds};
use crate::pen::{Cell, Pen, cell, names, numbers, ordered, words};
use crate::sort::{Key, sorted};
use crate::theme::Role;

/// Columns from which the routes are listed too.
const WIDE: u16 = 150;

pub(crate) fn visible<'a>(app: &App, data: &'a Data) -> Vec<&'a Sampled> {
    let passes = |e: &&Sampled| app.passes(&[&e.service, &e.route, &e.status]);
    sorted(app, data.exemplars.iter().filter(passes).collect(), key)
}

fn key(e: &Sampled, column: usize) -> Key {
    match column {
        0 => Key::Text(e.trace_id.to_string()),
        1 => Key::Number(e.t_ms as f64),
        2 => Key::Number(e.seconds),
        3 => e.service.as_str().into(),
        4 => e.route.as_str().into(),
        _ => e.status.parse().ok().into(),
    }
}

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    let below = (body.height * 2 / 5).clamp(9, 16);
    let [map_at, lists_at] = stack(body, [body.height - below, below]);
    let shown = visible(app, data);
    let chosen = shown.get(app.row).copied();
    map(pen, app, data, chosen, map_at);
    let (left, right) = split(lists_at, 38);
    percentiles(pen, data, left);
    if body.width >= WIDE {
        let (routes_at, right) = split(right, right.width * 2 / 5);
        routes(pen, app, data, routes_at);
        exemplars(pen, app, data, &shown, right);
    } else {
        exemplars(pen, app, data, &shown, right);
    }
}

fn map(pen: &mut Pen<'_>, app: &App, data: &Data, chosen: Option<&Sampled>, area: Rect) {
    let route = app.pick.route.as_ref();
    let at = data
        .routes
        .iter()
        .position(|r| route.is_some_and(|(s, t)| *s == r.service && *t == r.route));
    let number = format!("{} of {}", at.map_or(0, |i| i + 1), data.routes.len());
    let heat = data.heat.as_ref().filter(|h| h.used().is_some());
    let title = match heat {
        Some(h) => format!(
            "latency  {}  ({} histogram, a column is {})",
            name_of(route),
            h.from,
            seconds(Some(h.step_ms as f64 / 1e3))
        ),
        None => format!("latency  {}", name_of(route)),
    };
    let inner = pen.panel(area, &title, &format!("route {number}  n next"));
    let Some(heat) = heat else {
        pen.put(inner, 0, 0, "nothing was measured in this range", Role::Dim);
        return;
    };
    let marks: Vec<(String, f64)> = data
        .percentiles
        .iter()
        .filter(|p| [0.5, 0.95, 0.99].contains(&p.quantile))
        .filter_map(|p| Some((name(p.quantile).to_lowercase(), p.now?)))
        .collect();
    pen.heat(inner, heat, &marks, chosen.map(|e| (e.t_ms, e.seconds)));
}

/// `P50`, `P99.9`.
fn name(quantile: f64) -> String {
    let percent = (quantile * 1e5).round() / 1e3;
    format!("P{percent}")
}

fn percentiles(pen: &mut Pen<'_>, data: &Data, area: Rect) {
    let inner = pen.panel(area, "percentiles", "");
    let row = |p: &Percentile| {
        let change = match (p.now, p.before) {
            (Some(now), Some(before)) if before > 0.0 => (now / before - 1.0) * 100.0,
            _ => f64::NAN,
        };
        let (text, role) = match change {
            c if c.is_nan() => (ABSENT.to_owned(), Role::Text),
            c if c >= 25.0 => (format!("▲ {c:+.0}%"), Role::Warn),
            c if c >= 0.5 => (format!("▲ {c:+.0}%"), Role::Text),
            c if c <= -0.5 => (format!("▼ {c:+.0}%"), Role::Text),
            _ => ("=".to_owned(), Role::Text),
        };
        vec![
            cell(name(p.quantile)),
            cell(seconds(p.now)),
            cell(seconds(p.before)),
            Cell(text, role),
        ]
    };
    let rows: Vec<Vec<Cell>> = data.percentiles.iter().map(row).collect();
    let columns = [
        words("", 0),
        numbers("NOW", 0),
        numbers("RANGE AGO", 0),
        numbers("CHANGE", 1),
    ];
    pen.table(inner, &columns, &rows, None);
}

fn routes(pen: &mut Pen<'_>, app: &App, data: &Data, area: Rect) {
    let inner = pen.panel(area, "routes", "n N choose");
    let route = app.pick.route.as_ref();
    let mark = |on: bool| if on { "▸" } else { " " };
    let mut rows = vec![vec![
        cell(mark(route.is_none())),
        cell(name_of(None)),
        cell(""),
        cell(""),
    ]];
    rows.extend(data.routes.iter().map(|r| {
        let on = route.is_some_and(|(s, t)| *s == r.service && *t == r.route);
        vec![
            cell(mark(on)),
            cell(name_of(Some(&(r.service.clone(), r.route.clone())))),
            cell(seconds(r.p50)),
            cell(seconds(r.p99)),
        ]
    }));
    let columns = [
        words("", 0),
        names("ROUTE"),
        numbers("P50", 1),
        numbers("P99", 0),
    ];
    pen.table(inner, &columns, &rows, None);
}

fn exemplars(pen: &mut Pen<'_>, app: &App, data: &Data, shown: &[&Sampled], area: Rect) {
    let count = match shown.len() == data.exemplars.len() {
        true => "↵ open trace".to_owned(),
        false => format!("{} of {}", shown.len(), data.exemplars.len()),
    };
    let inner = pen.panel(
        area,
        if app.sort.is_none() {
            "exemplars, slowest first"
        } else {
            "exemplars"
        },
        &count,
    );
    if shown.is_empty() {
        pen.put(inner, 0, 0, "no exemplar in this range passes", Role::Dim);
        return;
    }
    let row = |e: &&Sampled| {
        let id = e.trace_id.to_string();
        let role = if e.failed { Role::Bad } else { Role::Text };
        let status = match (e.failed, e.status.is_empty()) {
            (_, true) => ABSENT.to_owned(),
            (true, _) => format!("✖ {}", e.status),
            _ => e.status.clone(),
        };
        vec![
            cell(format!("{}…{}", &id[..4], &id[28..])),
            cell(format_clock(e.t_ms)),
            cell(seconds(Some(e.seconds))),
            cell(e.service.clone()),
            cell(e.route.clone()),
            Cell(status, role),
        ]
    };
    let rows: Vec<Vec<Cell>> = shown.iter().map(row).collect();
    let columns = vec![
        words("TRACE", 3),
        words("AT", 2),
        numbers("TOOK", 0),
        names("SERVICE"),
        names("ROUTE"),
        numbers("STATUS", 1),
    ];
    pen.table(inner, &ordered(columns, app.sort), &rows, Some(app.row));
}
