//! Screen 0: the agent's own state, and what drawing costs.
//!
//! Owns this table. Must not know where the numbers come from.

use ratatui::layout::Rect;

use super::stack;
use crate::app::App;
use crate::data::Data;
use crate::format::{age, bytes, number, seconds};
use crate::pen::{Cell, Pen, cell, names, numbers};
use crate::theme::Role;

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    let [agent_at, screen_at] = stack(body, [body.height - 6, 6]);
    painted(pen, app, screen_at);
    let inner = pen.panel(agent_at, "agent", "");
    let Some(own) = &data.own else {
        pen.put(
            inner,
            0,
            0,
            "this server does not tell its own state: it is not `nines agent`",
            Role::Dim,
        );
        return;
    };
    let count = |v: u64| cell(number(v as f64, 0));
    let mut rows = vec![
        vec![cell("version"), cell(own.version.clone())],
        vec![cell("up since"), cell(age(own.now_ms - own.started_ms))],
        vec![cell("time scale"), cell(format!("{}x", own.time_scale))],
        vec![cell("series in the head"), count(own.series)],
        vec![cell("samples appended"), count(own.samples)],
        vec![cell("spans received"), count(own.spans)],
        vec![cell("log records received"), count(own.logs)],
        vec![cell("queries answered"), count(own.queries)],
        vec![cell("resident memory"), cell(bytes(own.rss_bytes as f64))],
        vec![cell("bytes on disk"), cell(bytes(own.disk_bytes as f64))],
        vec![
            cell("bytes of the write-ahead log"),
            cell(bytes(own.wal_bytes as f64)),
        ],
    ];
    let lost = own.dropped.iter().map(|(reason, n)| {
        let role = if *n > 0 { Role::Warn } else { Role::Text };
        vec![
            cell(format!("dropped: {reason}")),
            Cell(number(*n as f64, 0), role),
        ]
    });
    rows.extend(lost);
    pen.table(inner, &[names("WHAT"), numbers("VALUE", 0)], &rows, None);
}

/// What this program itself costs.
fn painted(pen: &mut Pen<'_>, app: &App, area: Rect) {
    let inner = pen.panel(area, "this screen", "");
    let all = app.painted;
    let count = |v: u64| cell(number(v as f64, 0));
    let took = |us: u64| cell(seconds(Some(us as f64 / 1e6)));
    let whole = cell(bytes(all.bytes as f64));
    let (last, worst) = (took(all.last_us), took(all.worst_us));
    let rows = [
        vec![
            cell("frames"),
            count(all.frames),
            cell("bytes in all"),
            whole,
        ],
        vec![
            cell("bytes of the last"),
            count(all.last_bytes),
            cell("it took"),
            last,
        ],
        vec![cell(""), cell(""), cell("the slowest took"), worst],
    ];
    let columns = [
        names("WHAT"),
        numbers("VALUE", 0),
        names(""),
        numbers("", 0),
    ];
    pen.table(inner, &columns, &rows, None);
}
