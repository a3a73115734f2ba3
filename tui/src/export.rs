//! The screen as a file: all its data as JSON, or its tables as Markdown.
//!
//! Owns these forms. Tables come from drawing the screen on a large buffer that is thrown away, so that a file has the
//! rows and the order that the screen has. Must not write files.

use model::timestamp::format_rfc3339;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::json;

use crate::app::{App, Mode};
use crate::format::clean;
use crate::pen::{Pen, Recorded};
use crate::view;

/// The size on which tables are drawn: rows beyond are left out.
const SIZE: (u16, u16) = (300, 420);

/// The screen's data. Absent values are `null`.
pub(crate) fn json(app: &App) -> serde_json::Value {
    json!({
        "screen": app.screen.title().to_lowercase(),
        "target": app.options.base_url,
        "window": app.options.window,
        "notice": app.options.notice,
        "pages": app.exit_status().pages,
        "data": app.data,
    })
}

/// [`json`] as text, indented.
pub(crate) fn json_text(app: &App) -> String {
    let value = json(app);
    serde_json::to_string_pretty(&value).unwrap_or_else(|_| value.to_string()) + "\n"
}

/// The screen's tables, with what they are of.
pub(crate) fn markdown(app: &App) -> String {
    let at = match app.mode {
        Mode::Live => app.now_ms,
        Mode::Paused(at) => at,
    };
    let mut out = format!(
        "# {}\n\n{}, {}, last {}, window {}\n",
        app.screen.title(),
        cell(&app.options.base_url),
        format_rfc3339(at),
        view::short(app.range_ms),
        app.options.window
    );
    for table in tables(app) {
        out.push('\n');
        out.push_str(&one(&table));
    }
    out
}

/// Every table of the screen.
pub(crate) fn tables(app: &App) -> Vec<Recorded> {
    let area = Rect::new(0, 0, SIZE.0, SIZE.1);
    let mut buffer = Buffer::empty(area);
    let mut pen = Pen {
        buffer: &mut buffer,
        theme: app.theme,
        ascii: false,
        title: String::new(),
        recorded: Some(Vec::new()),
    };
    if let Some(data) = &app.data {
        view::screen(&mut pen, app, data, area);
    }
    pen.recorded.unwrap_or_default()
}

/// A text that fits in a table's cell, without bars.
fn cell(text: &str) -> String {
    let kept = clean(text).replace(['█', '▌'], "").replace('|', "\\|");
    let kept = kept.trim();
    // A bar's empty part.
    match kept.chars().all(|c| c == '·') {
        true => String::new(),
        false => kept.to_owned(),
    }
}

fn one(table: &Recorded) -> String {
    let mut columns: Vec<usize> = (0..table.header.len()).collect();
    let text = |row: &Vec<String>, c: usize| row.get(c).map(|t| cell(t)).unwrap_or_default();
    columns.retain(|c| {
        !table.header[*c].is_empty() || table.rows.iter().any(|row| !text(row, *c).is_empty())
    });
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = String::new();
    if !table.title.is_empty() {
        out = format!("## {}\n\n", cell(&table.title));
    }
    out += &line(columns.iter().map(|c| cell(&table.header[*c])).collect());
    out += &line(columns.iter().map(|_| "---".to_owned()).collect());
    for row in &table.rows {
        out += &line(columns.iter().map(|c| text(row, *c)).collect());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::options::TuiOptions;
    use crate::screen::Screen;

    #[test]
    fn every_screen_has_its_tables() {
        for (screen, wanted) in [
            (
                Screen::Overview,
                "| latency p50 p95 p99 | 8.1  96  412 ms |",
            ),
            (Screen::Services, "| payment | POST /charges |"),
            (Screen::Resources, "| db_pool | primary |"),
            (Screen::Latency, "| P99 | 412ms |"),
            (Screen::Traces, "| 0101…0101 |"),
            (Screen::Alerts, "| 04m12s | ErrorBudgetBurn |"),
            (Screen::Logs, "| 20:36:24.538 | ▲ WARN |"),
            (Screen::Load, "| status 503 | 3.50 /s |"),
            (
                Screen::Dashboards,
                "| Error budget left (30 d) | ● 61.2 % |",
            ),
            (Screen::Own, "| series in the head | 4,321 |"),
        ] {
            let app = fixture::app(TuiOptions {
                screen,
                ..TuiOptions::default()
            });
            let text = markdown(&app);
            assert!(text.starts_with(&format!("# {}\n", screen.title())));
            assert!(text.contains(wanted), "{text}");
            assert!(!text.contains('█'), "{text}");
        }
    }

    #[test]
    fn cells_cannot_break_a_table() {
        assert_eq!(cell("a|b\nc"), "a\\|b?c");
        assert_eq!(cell("████····"), "");
    }
}
