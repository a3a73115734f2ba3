//! Screen 1: the golden signals, budgets, the slowest services, alerts, services, resources.
//!
//! ```text
//! tiles                       always
//! SLOs                        always
//! chart      | alerts         from 27 rows; below, alerts take the resources' place
//! services   | resources
//! ```
//!
//! Owns this layout. Must not know how values were fetched.

use model::slo::{SloAlert, SloStatus};
use ratatui::layout::Rect;

use super::{alerts, resources, services, short, split, stack};
use crate::app::App;
use crate::data::{Data, Line};
use crate::format::{ABSENT, age, ms, percent, percent_sign, plain, seconds};
use crate::pen::{Cell, MARKS, Pen, cell, fit, names, numbers, words};
use crate::theme::Role;

/// Rows from which the chart is shown.
const TALL: u16 = 27;
/// Services with a line in the chart.
const CHARTED: usize = 4;
/// Cells of a budget's bar.
const BAR: usize = 12;

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    let tall = body.height >= TALL;
    let tile = if tall { 6 } else { 5 };
    let most = if tall { 8 } else { 5 };
    let slos = u16::try_from(data.slos.len().clamp(1, most)).unwrap_or(1) + 3;
    let rest = body.height.saturating_sub(tile + slos);
    let chart = if tall { rest - rest * 2 / 5 } else { 0 };
    let [tiles_at, slos_at, chart_at, lists_at] = stack(body, [tile, slos, chart, rest - chart]);
    tiles(pen, data, tiles_at);
    budgets(pen, data, slos_at);
    let cut = body.width * 62 / 100;
    if tall {
        let (left, right) = split(chart_at, cut);
        slowest(pen, data, left);
        alerts::list(pen, app, data, right, None);
        let (left, right) = split(lists_at, cut);
        services::list(pen, data, left);
        resources::list(pen, data, right);
    } else {
        let (left, right) = split(lists_at, cut - 8);
        services::list(pen, data, left);
        alerts::list(pen, app, data, right, None);
    }
}

struct Tile {
    title: &'static str,
    value: Vec<String>,
    role: Role,
    change: Vec<String>,
    line: Line,
}

fn tiles(pen: &mut Pen<'_>, data: &Data, area: Rect) {
    let ago = short(data.range_ms);
    let change = |now: Option<f64>, line: &Line, points: bool| changes(now, line, points, &ago);
    let (p50, p95, p99) = (ms(data.p50), ms(data.p95), ms(data.p99));
    let failed = data
        .errors
        .map_or_else(|| ABSENT.into(), |e| format!("{} /s 5xx", plain(Some(e))));
    let worse = |v: Option<f64>, warn: f64, bad: f64| match v {
        Some(v) if v >= bad => Role::Bad,
        Some(v) if v >= warn => Role::Warn,
        _ => Role::Title,
    };
    let pool = percent_sign(data.pool);
    let whole = |v: Option<f64>| v.map_or_else(|| ABSENT.into(), |r| format!("{:.0}%", r * 100.0));
    let (cpu, memory) = (whole(data.cpu), whole(data.memory));
    let all = [
        Tile {
            title: "latency p50 p95 p99",
            value: vec![
                format!("{p50}  {p95}  {p99} ms"),
                format!("{p50} {p95} {p99}ms"),
                format!("p99 {p99}ms"),
            ],
            role: worse(data.p99, 0.5, 1.0),
            change: change(data.p99, &data.p99_line, false)
                .into_iter()
                .map(|t| format!("p99 {t}"))
                .collect(),
            line: data.p99_line.clone(),
        },
        Tile {
            title: "traffic",
            value: vec![format!("{} req/s", plain(data.traffic))],
            role: Role::Title,
            change: change(data.traffic, &data.traffic_line, false),
            line: data.traffic_line.clone(),
        },
        Tile {
            title: "errors",
            value: vec![percent_sign(data.error_ratio)],
            role: worse(data.error_ratio, 0.01, 0.05),
            change: vec![failed],
            line: data.error_line.clone(),
        },
        Tile {
            title: "cache hit",
            value: vec![percent_sign(data.cache_hit)],
            role: worse(data.cache_hit.map(|h| 1.0 - h), 0.15, 0.3),
            change: change(data.cache_hit, &data.cache_line, true),
            line: data.cache_line.clone(),
        },
        Tile {
            title: "saturation",
            value: vec![format!("pool {pool}")],
            role: worse(data.pool, 0.8, 0.95),
            change: vec![
                format!("cpu {cpu}  mem {memory}"),
                format!("c {cpu} m {memory}"),
                format!("cpu {cpu}"),
            ],
            line: data.pool_line.clone(),
        },
    ];
    if pen.recorded.is_some() {
        let row = |t: &Tile| {
            let first = |texts: &[String]| texts.first().cloned().unwrap_or_default();
            vec![t.title.to_owned(), first(&t.value), first(&t.change)]
        };
        let header = ["SIGNAL", "NOW", "CHANGE"].map(str::to_owned);
        pen.record(header.to_vec(), all.iter().map(row).collect());
    }
    let n = all.len() as u16;
    for (i, tile) in (0u16..).zip(all) {
        let (from, to) = (area.width * i / n, area.width * (i + 1) / n);
        let short_title = tile.title.split(" p").next().unwrap_or(tile.title);
        let inner = pen.panel(
            Rect {
                x: area.x + from,
                width: to - from,
                ..area
            },
            if to - from < 24 {
                short_title
            } else {
                tile.title
            },
            "",
        );
        let room = usize::from(inner.width);
        pen.put(inner, 0, 0, &fit(&tile.value, room), tile.role);
        pen.put(inner, 0, 1, &fit(&tile.change, room), Role::Text);
        pen.spark(inner, 2, &tile.line, Role::Series(usize::from(i)));
        pen.put(inner, 0, 3, &format!("{ago} ago"), Role::Dim);
        if inner.height > 3 {
            pen.put_right(inner, 3, "now", Role::Dim);
        }
    }
}

/// How a value differs from the median of the first quarter of its line: long and short words.
fn changes(now: Option<f64>, line: &Line, points: bool, ago: &str) -> Vec<String> {
    let mut first: Vec<f64> = line[..line.len() / 4].iter().flatten().copied().collect();
    first.sort_by(f64::total_cmp);
    let (Some(now), Some(before)) = (now, first.get(first.len() / 2).copied()) else {
        return vec![format!("{ABSENT} vs {ago}"), ABSENT.into()];
    };
    let text = if points {
        let by = (now - before) * 100.0;
        (by, format!("{by:+.1} pt"))
    } else if before > 0.0 {
        let by = (now / before - 1.0) * 100.0;
        (by, format!("{by:+.0}%"))
    } else {
        return vec![format!("{ABSENT} vs {ago}"), ABSENT.into()];
    };
    let arrow = match text.0 {
        by if by >= 0.5 => "▲",
        by if by <= -0.5 => "▼",
        _ => "=",
    };
    let short = format!("{arrow} {}", text.1);
    vec![format!("{short} vs {ago}"), short]
}

fn verdict(slo: &SloStatus) -> Cell {
    match slo.alert {
        SloAlert::Page => Cell("✖ PAGE".into(), Role::Bad),
        SloAlert::Ticket => Cell("▲ ticket".into(), Role::Warn),
        SloAlert::Ok => Cell("● ok".into(), Role::Good),
    }
}

fn bar(left: Option<f64>) -> String {
    let full = left.map_or(0, |l| (l.clamp(0.0, 1.0) * BAR as f64).round() as usize);
    format!("{}{}", "█".repeat(full), "·".repeat(BAR - full))
}

fn budgets(pen: &mut Pen<'_>, data: &Data, area: Rect) {
    let count = format!("{} objectives · worst first", data.slos.len());
    let inner = pen.panel(area, "SLOs  error budget and burn rate", &count);
    if data.slos.is_empty() {
        pen.put(
            inner,
            0,
            0,
            "no objective is judged: the agent has no SLO file, or does not answer it yet",
            Role::Dim,
        );
        return;
    }
    const BURNS: [&str; 6] = [
        "burn 1st", "burn 2nd", "burn 3rd", "burn 4th", "burn 5th", "burn 6th",
    ];
    let windows: Vec<String> = data.slos[0]
        .burn
        .iter()
        .map(|b| b.window.clone())
        .take(BURNS.len())
        .collect();
    let title = |w: &str| match w {
        "5m" => "burn 5m",
        "30m" => "30m",
        "1h" => "1h",
        "2h" => "2h",
        "6h" => "6h",
        "1d" => "1d",
        "3d" => "3d",
        _ => "burn",
    };
    let mut columns = vec![
        names("SLO"),
        numbers("target", 5),
        numbers("SLI", 4),
        words("budget", 3),
        numbers("left", 0),
    ];
    columns.extend(
        windows
            .iter()
            .zip(0u8..)
            .map(|(w, i)| numbers(title(w), if i == 0 { 0 } else { 5 + i })),
    );
    columns.extend([numbers("empty in", 2), words("alert", 0)]);
    let rows: Vec<Vec<Cell>> = data
        .slos
        .iter()
        .map(|s| {
            let low = s.budget_left.is_some_and(|l| l < 0.25);
            let role = if low { Role::Bad } else { Role::Text };
            let sli = s
                .sli
                .map_or_else(|| ABSENT.into(), |v| format!("{:.3} %", v * 100.0));
            let mut row = vec![
                cell(s.name.clone()),
                cell(format!("{} %", plain(Some(s.objective * 100.0)))),
                cell(sli),
                Cell(bar(s.budget_left), role),
                Cell(percent_sign(s.budget_left), role),
            ];
            row.extend((0..windows.len()).map(|i| {
                let rate = s.burn.get(i).and_then(|b| b.rate);
                let text = rate.map_or_else(|| ABSENT.into(), |r| format!("{r:.1}"));
                Cell(
                    text,
                    if rate.is_some_and(|r| r >= 1.0) {
                        Role::Warn
                    } else {
                        Role::Text
                    },
                )
            }));
            let never = s
                .budget_left
                .map_or_else(|| ABSENT.to_owned(), |_| format!(">{}", s.period));
            row.push(cell(s.empty_in_ms.map_or(never, age)));
            row.push(verdict(s));
            row
        })
        .collect();
    pen.table(inner, &columns, &rows, None);
}

fn slowest(pen: &mut Pen<'_>, data: &Data, area: Rect) {
    let lines: Vec<(String, Line)> = data.service_lines.iter().take(CHARTED).cloned().collect();
    let legend: Vec<String> = lines
        .iter()
        .zip(MARKS)
        .map(|((n, _), mark)| format!("{mark} {n}"))
        .collect();
    let inner = pen.panel(area, &format!("p99 by service  {}", legend.join("  ")), "");
    if lines.is_empty() {
        pen.put(inner, 0, 0, "no spans in this range", Role::Dim);
        return;
    }
    let from = model::timestamp::format_clock(data.t_ms - data.range_ms);
    let to = model::timestamp::format_clock(data.t_ms);
    pen.chart(inner, &lines, seconds, (&from, &to));
}

/// Percent for tables, coloured from two thresholds on.
pub(super) fn share(ratio: Option<f64>, warn: f64, bad: f64) -> Cell {
    let role = match ratio {
        Some(r) if r >= bad => Role::Bad,
        Some(r) if r >= warn => Role::Warn,
        _ => Role::Text,
    };
    Cell(percent(ratio), role)
}
