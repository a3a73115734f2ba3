//! Screen 8: the running load: offered against achieved, percentiles from the intended send beside those from the real one.
//!
//! Owns these panels. Must not know the load generator.

use ratatui::layout::Rect;

use super::{split, stack};
use crate::data::{Data, LoadRun};
use crate::format::{ms, plain};
use crate::pen::{Cell, Pen, cell, names, numbers, words};
use crate::theme::Role;

pub(super) fn draw(pen: &mut Pen<'_>, data: &Data, body: Rect) {
    let runs = u16::try_from(data.loads.len().max(1))
        .unwrap_or(u16::MAX)
        .min(body.height / 5);
    let [runs_at, latency_at, rest] = stack(body, [runs + 3, 2 * runs + 3, body.height]);
    let inner = pen.panel(runs_at, "running loads", "");
    if data.loads.is_empty() {
        pen.put(
            inner,
            0,
            0,
            "no load is running: start one with `nines load`",
            Role::Dim,
        );
        return;
    }
    let rows: Vec<Vec<Cell>> = data.loads.iter().map(rates).collect();
    let columns = [
        names("RUN"),
        names("SCENARIO"),
        names("TARGET"),
        numbers("OFFERED/S", 0),
        numbers("ACHIEVED/S", 0),
        words("KEEPS UP", 1),
        numbers("IN FLIGHT", 2),
    ];
    pen.table(inner, &columns, &rows, None);
    let inner = pen.panel(
        latency_at,
        "latency, ms",
        "intended send corrects for coordinated omission",
    );
    let columns = [
        names("RUN"),
        words("FROM", 0),
        numbers("P50", 0),
        numbers("P90", 1),
        numbers("P95", 0),
        numbers("P99", 0),
        numbers("P99.9", 0),
    ];
    let line = |run: &LoadRun, from: &str, values: &[Option<f64>]| {
        let mut row = vec![cell(run.run_id.clone()), cell(from)];
        row.extend(values.iter().map(|v| cell(ms(*v))));
        row
    };
    let both = |r: &LoadRun| {
        [
            line(r, "intended send", &r.latency),
            line(r, "real send", &r.service_time),
        ]
    };
    let rows: Vec<Vec<Cell>> = data.loads.iter().flat_map(both).collect();
    pen.table(inner, &columns, &rows, None);
    let (left, right) = split(rest, rest.width * 62 / 100);
    let inner = pen.panel(left, "rate  • offered  + achieved", "req/s");
    let lines = [
        ("offered".to_owned(), data.offered_line.clone()),
        ("achieved".to_owned(), data.achieved_line.clone()),
    ];
    let from = model::timestamp::format_clock(data.t_ms - data.range_ms);
    let to = model::timestamp::format_clock(data.t_ms);
    pen.chart(inner, &lines, plain, (&from, &to));
    outcomes(pen, data, right);
}

fn rates(run: &LoadRun) -> Vec<Cell> {
    let verdict = match (run.offered, run.achieved) {
        (Some(o), Some(a)) if o > 0.0 && a >= 0.99 * o => Cell("● yes".into(), Role::Good),
        (Some(o), Some(_)) if o > 0.0 => Cell("▲ behind".into(), Role::Warn),
        _ => cell("-"),
    };
    vec![
        cell(run.run_id.clone()),
        cell(run.scenario.clone()),
        cell(run.target.clone()),
        cell(plain(run.offered)),
        cell(plain(run.achieved)),
        verdict,
        cell(plain(run.in_flight)),
    ]
}

fn outcomes(pen: &mut Pen<'_>, data: &Data, area: Rect) {
    let inner = pen.panel(area, "outcomes", "");
    let status = data.load_status.iter().map(|(s, v)| {
        let role = if s.starts_with('5') {
            Role::Bad
        } else {
            Role::Text
        };
        vec![
            Cell(format!("status {s}"), role),
            cell(format!("{} /s", plain(Some(*v)))),
        ]
    });
    let errors = data.load_errors.iter().map(|(k, v)| {
        let role = if *v > 0.0 { Role::Bad } else { Role::Text };
        vec![
            Cell(format!("error {k}"), role),
            cell(format!("{} /s", plain(Some(*v)))),
        ]
    });
    let late = data.load_late.iter().map(|(q, v)| {
        vec![
            cell(format!("sent late, q {q}")),
            cell(format!("{} ms", ms(Some(*v)))),
        ]
    });
    let rows: Vec<Vec<Cell>> = status.chain(errors).chain(late).collect();
    pen.table(inner, &[names("WHAT"), numbers("NOW", 0)], &rows, None);
}
