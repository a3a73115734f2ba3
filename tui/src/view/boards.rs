//! Screen 9: a dashboard's panels.
//!
//! Owns how panels flow (24 columns, as in Grafana) and what each kind looks like. Must not know the queries.

use dashboards::{Dashboard, Kind, Level, Panel, Unit};
use model::timestamp::format_clock;
use ratatui::layout::Rect;

use super::stack;
use crate::app::App;
use crate::data::{Data, Line, PanelData};
use crate::fetch::boards::{all, numbered};
use crate::format::{ABSENT, bytes, percent, percent_sign, plain, seconds};
use crate::pen::{Cell, MARKS, Pen, cell, fit, names, numbers, wrap};
use crate::theme::Role;

/// Rows of a panel with one number.
const LOW: u16 = 5;
/// Rows of a chart or a table at least.
const HIGH: u16 = 9;
/// Rows below which it is not begun.
const LEAST: u16 = 7;
/// Columns of a dashboard.
const GRID: u32 = 24;
/// Narrower panels stand alone.
const NARROW: u16 = 38;

/// Panels of the chosen dashboard, for the selection.
pub(super) fn count(app: &App) -> usize {
    numbered(app.pick.board).map_or(0, |b| b.panels.len())
}

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    let Some(board) = numbered(app.pick.board) else {
        return;
    };
    let [title_at, panels_at] = stack(body, [1, body.height]);
    let mut x = 1;
    for other in all() {
        let on = other.name == board.name;
        let text = if on {
            format!("[{}]", other.name)
        } else {
            format!(" {} ", other.name)
        };
        let role = if on { Role::Accent } else { Role::Text };
        x += pen.put(title_at, x, 0, &text, role);
    }
    let rest = Rect {
        x: title_at.x + (x + 2).min(title_at.width),
        width: title_at.width.saturating_sub(x + 3),
        ..title_at
    };
    let help = crate::pen::shorten(board.help, usize::from(rest.width));
    pen.put_right(rest, 0, &help, Role::Dim);
    let known = data.board.as_ref().filter(|b| b.name == board.name);
    let shown = |i: usize| known.and_then(|k| k.panels.get(i));
    if app.zoomed {
        if let (Some(panel), Some(is)) = (board.panels.get(app.row), shown(app.row)) {
            enlarged(pen, data, panel, is, panels_at);
        }
        return;
    }
    let places = flow(board, panels_at.width, panels_at.height);
    let selected = places.get(app.row).copied().unwrap_or_default();
    let scroll = (selected.y + selected.height).saturating_sub(panels_at.height);
    // A whole row of panels at the top.
    let scroll = places
        .iter()
        .map(|p| p.y)
        .filter(|y| *y >= scroll)
        .min()
        .unwrap_or(0);
    for (i, (panel, place)) in board.panels.iter().zip(&places).enumerate() {
        let Some(y) = place.y.checked_sub(scroll) else {
            continue;
        };
        let least = if is_low(panel) { LOW } else { LEAST };
        if y + least > panels_at.height {
            continue;
        }
        let area = Rect {
            x: panels_at.x + place.x,
            y: panels_at.y + y,
            width: place.width,
            height: place.height.min(panels_at.height - y),
        };
        let mark = if i == app.row { "▸ " } else { "" };
        match shown(i) {
            Some(is) => one(pen, data, (panel, is), area, mark),
            None => {
                pen.panel(area, &format!("{mark}{}", panel.title), "");
            }
        }
    }
}

/// Where panels stand, from the top of the dashboard: they flow, wrap, and share what is left of `height`.
fn flow(board: &Dashboard, width: u16, height: u16) -> Vec<Rect> {
    let mut rows: Vec<Vec<&Panel>> = Vec::new();
    let mut used = GRID;
    for panel in &board.panels {
        let narrow = u32::from(width) * panel.width / GRID < u32::from(NARROW);
        let columns = match is_low(panel) {
            false if narrow => GRID,
            _ => panel.width,
        };
        let same_kind = rows
            .last()
            .and_then(|r| r.first())
            .is_some_and(|p| is_low(p) == is_low(panel));
        if used + columns > GRID || !same_kind {
            rows.push(Vec::new());
            used = 0;
        }
        if let Some(row) = rows.last_mut() {
            row.push(panel);
        }
        used += columns;
    }
    let least = |row: &Vec<&Panel>| {
        if row.iter().all(|p| is_low(p)) {
            LOW
        } else {
            HIGH
        }
    };
    let needed: u16 = rows.iter().map(least).sum();
    let high = rows.iter().filter(|r| least(r) == HIGH).count() as u16;
    let extra = height.saturating_sub(needed).checked_div(high).unwrap_or(0);
    let mut out = Vec::new();
    let mut y = 0;
    for row in &rows {
        let tall = least(row) + if least(row) == HIGH { extra } else { 0 };
        let total: u32 = row.iter().map(|p| p.width).sum();
        let mut from = 0u32;
        for panel in row {
            let at = |c: u32| u16::try_from(u32::from(width) * c / total.max(1)).unwrap_or(width);
            let (left, right) = (at(from), at(from + panel.width));
            out.push(Rect::new(left, y, right - left, tall));
            from += panel.width;
        }
        y += tall;
    }
    out
}

fn is_low(panel: &Panel) -> bool {
    matches!(panel.kind, Kind::Stat | Kind::Gauge)
}

fn value(unit: Unit, v: Option<f64>) -> String {
    match (unit, v) {
        (_, None) => ABSENT.into(),
        (Unit::None, v) => plain(v),
        // Nines are counted.
        (Unit::Ratio, Some(v)) if (0.99..1.0).contains(&v) => {
            format!("{:.3} %", (v * 1e5).floor() / 1e3)
        }
        (Unit::Ratio, v) => percent_sign(v),
        (Unit::Seconds, v) => seconds(v),
        (Unit::PerSecond, v) => format!("{} /s", plain(v)),
        (Unit::Bytes, Some(v)) => bytes(v),
        (Unit::BytesPerSecond, Some(v)) => format!("{}/s", bytes(v)),
    }
}

fn axis(unit: Unit) -> fn(Option<f64>) -> String {
    match unit {
        Unit::Ratio => |v| format!("{}%", percent(v)),
        Unit::Seconds => seconds,
        Unit::Bytes | Unit::BytesPerSecond => |v| {
            v.map_or_else(
                || ABSENT.into(),
                |v| bytes(v).replace("iB", "").replace(' ', ""),
            )
        },
        Unit::None | Unit::PerSecond => plain,
    }
}

/// What the thresholds say of a value, with the sign that says it without colour.
fn judged(panel: &Panel, v: Option<f64>) -> (&'static str, Role) {
    let Some(v) = v else { return ("", Role::Text) };
    let reached = panel
        .thresholds
        .iter()
        .rev()
        .find(|t| t.from.is_none_or(|from| v >= from));
    match reached.map(|t| t.level) {
        Some(Level::Critical) => ("✖ ", Role::Bad),
        Some(Level::Warning) => ("▲ ", Role::Warn),
        Some(Level::Good) => ("● ", Role::Good),
        None => ("", Role::Text),
    }
}

fn one(pen: &mut Pen<'_>, data: &Data, (panel, is): (&Panel, &PanelData), area: Rect, mark: &str) {
    let title = format!("{mark}{}", panel.title);
    match panel.kind {
        Kind::Stat | Kind::Gauge => {
            let inner = pen.panel(area, &title, "");
            number(pen, panel, is, inner);
        }
        Kind::Table => {
            let inner = pen.panel(area, &title, &format!("{}", is.values.len()));
            table(pen, panel, is, inner);
        }
        Kind::TimeSeries => {
            let lines: Vec<(String, Line)> = is.series.iter().take(MARKS.len()).cloned().collect();
            let legend: Vec<String> = lines
                .iter()
                .zip(MARKS)
                .map(|((name, _), m)| format!("{m} {name}"))
                .collect();
            let more = match is.series.len().saturating_sub(lines.len()) {
                0 => String::new(),
                n => format!("+{n}"),
            };
            let inner = pen.panel(area, &title, &more);
            if lines.is_empty() {
                pen.put(inner, 0, 0, "nothing in this range", Role::Dim);
                return;
            }
            let [legend_at, chart_at] = stack(inner, [1, inner.height]);
            let mut x = 0;
            for (n, text) in legend.iter().enumerate() {
                x += pen.put(legend_at, x, 0, text, Role::Series(n)) + 2;
            }
            chart(pen, data, panel, &lines, chart_at);
        }
        Kind::Heatmap => {
            let inner = pen.panel(area, &title, "");
            match is.heat.as_ref().filter(|h| h.used().is_some()) {
                Some(heat) => pen.heat(inner, heat, &[], None),
                None => {
                    pen.put(inner, 0, 0, "nothing in this range", Role::Dim);
                }
            }
        }
    }
}

fn chart(pen: &mut Pen<'_>, data: &Data, panel: &Panel, lines: &[(String, Line)], area: Rect) {
    let from = format_clock(data.t_ms - data.range_ms);
    let to = format_clock(data.t_ms);
    pen.chart(area, lines, axis(panel.unit), (&from, &to));
}

fn number(pen: &mut Pen<'_>, panel: &Panel, is: &PanelData, inner: Rect) {
    let v = is.values.first().map(|(_, v)| *v);
    let (sign, role) = judged(panel, v);
    if pen.recorded.is_some() {
        let row = vec![
            panel.title.to_owned(),
            format!("{sign}{}", value(panel.unit, v)),
        ];
        pen.title.clear();
        pen.record(vec!["WHAT".into(), "NOW".into()], vec![row]);
    }
    let role = if role == Role::Text {
        Role::Title
    } else {
        role
    };
    pen.put(
        inner,
        0,
        0,
        &format!("{sign}{}", value(panel.unit, v)),
        role,
    );
    if let (Kind::Gauge, Some(v)) = (panel.kind, v) {
        let room = usize::from(inner.width);
        let full = (v.clamp(0.0, 1.0) * room as f64).round() as usize;
        let bar = format!("{}{}", "█".repeat(full), "·".repeat(room - full));
        pen.put(inner, 0, 1, &bar, role);
    }
    let room = usize::from(inner.width);
    let words: Vec<String> = panel.help.split(". ").map(str::to_owned).take(1).collect();
    pen.put(inner, 0, inner.height - 1, &fit(&words, room), Role::Dim);
}

fn table(pen: &mut Pen<'_>, panel: &Panel, is: &PanelData, inner: Rect) {
    if is.values.is_empty() {
        pen.put(inner, 0, 0, "nothing at this instant", Role::Dim);
        return;
    }
    let row = |(name, v): &(String, f64)| {
        let (sign, role) = judged(panel, Some(*v));
        let name = if name.is_empty() { ABSENT } else { name };
        let sign = if role == Role::Good { "" } else { sign };
        let role = if role == Role::Good { Role::Text } else { role };
        vec![
            cell(name),
            Cell(format!("{sign}{}", value(panel.unit, Some(*v))), role),
        ]
    };
    let rows: Vec<Vec<Cell>> = is.values.iter().map(row).collect();
    pen.table(inner, &[names("WHAT"), numbers("NOW", 0)], &rows, None);
}

/// One panel on the whole screen: with its help, and all lines' present values.
fn enlarged(pen: &mut Pen<'_>, data: &Data, panel: &Panel, is: &PanelData, area: Rect) {
    let help = wrap(panel.help, usize::from(area.width.saturating_sub(4)).max(1));
    let lines = u16::try_from(help.len()).unwrap_or(1).min(3);
    let values = match panel.kind {
        Kind::TimeSeries => {
            (u16::try_from(is.series.len()).unwrap_or(u16::MAX)).min(area.height / 3) + 3
        }
        _ => 0,
    };
    let rest = area.height.saturating_sub(lines + values);
    let [help_at, panel_at, values_at] = stack(area, [lines, rest, values]);
    for (y, line) in (0u16..).zip(&help) {
        pen.put(help_at, 2, y, line, Role::Dim);
    }
    one(pen, data, (panel, is), panel_at, "");
    if values > 0 {
        let inner = pen.panel(values_at, "last values", "esc closes");
        let row = |(name, line): &(String, Line)| {
            let all = || line.iter().flatten().copied();
            let cells = [
                line.iter().rev().flatten().next().copied(),
                all().reduce(f64::min),
                all().reduce(f64::max),
            ];
            let name = if name.is_empty() { ABSENT } else { name };
            std::iter::once(cell(name))
                .chain(cells.map(|v| cell(value(panel.unit, v))))
                .collect()
        };
        let rows: Vec<Vec<Cell>> = is.series.iter().map(row).collect();
        let columns = [
            names("LINE"),
            numbers("LAST", 0),
            numbers("LEAST", 1),
            numbers("MOST", 1),
        ];
        pen.table(inner, &columns, &rows, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_fill_the_width_and_do_not_overlap() {
        for board in all() {
            for (w, h) in [(80, 20), (120, 36), (200, 56)] {
                let places = flow(board, w, h);
                assert_eq!(places.len(), board.panels.len());
                for (i, a) in places.iter().enumerate() {
                    assert!(a.x + a.width <= w, "{a:?}");
                    for b in &places[..i] {
                        assert!(a.intersection(*b).area() == 0, "{a:?} {b:?}");
                    }
                }
            }
        }
    }
}
