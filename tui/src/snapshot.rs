//! One frame without a terminal: as text, JSON or Markdown.
//!
//! Owns these three forms. Must not print.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::app::{App, Event, Pick, Request, update};
use crate::data::{Data, Red};
use crate::export;
use crate::fetch::fetch;
use crate::format::{ABSENT, age, clean, ms, percent, percent_sign, plain};
use crate::options::{ExitStatus, TuiError, TuiOptions};
use crate::run::{connect, now_ms};
use crate::screen::Screen;
use crate::theme::Theme;
use crate::view::draw;

/// One answer and the state it is shown in.
#[derive(Debug, Clone)]
pub struct Snapshot {
    app: App,
}

/// Asks the agent once, for `screen`. Errors when it cannot be reached.
pub async fn snapshot(options: TuiOptions, screen: Screen) -> Result<Snapshot, TuiError> {
    let client = connect(&options);
    let now = now_ms();
    let request = Request {
        number: 1,
        screen,
        at_ms: None,
        range_ms: options.range_ms.max(1_000),
        window: options.window.clone(),
        trace: None,
        pick: Pick::default(),
        heat: None,
        lines: None,
    };
    let data = fetch(&client, &request, now).await?;
    Ok(Snapshot::of(options, screen, now, data))
}

/// The cells of a buffer as lines, without spaces at their ends.
pub(crate) fn lines(buffer: &Buffer) -> String {
    let mut out = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let row: String = (buffer.area.left()..buffer.area.right())
            .map(|x| buffer[(x, y)].symbol())
            .collect();
        out.push_str(row.trim_end());
        out.push('\n');
    }
    out
}

// === impl Snapshot ===

impl Snapshot {
    fn of(mut options: TuiOptions, screen: Screen, now_ms: i64, data: Data) -> Self {
        options.theme = Theme::Mono;
        options.screen = screen;
        let mut app = App::new(options);
        // The first request of a new state has number 1.
        update(&mut app, Event::Tick(now_ms));
        update(
            &mut app,
            Event::Answer {
                number: 1,
                now_ms,
                result: Ok(Box::new(data)),
            },
        );
        Snapshot { app }
    }

    fn data(&self) -> &Data {
        // `of` always answers the first request.
        static EMPTY: std::sync::OnceLock<Data> = std::sync::OnceLock::new();
        self.app
            .data
            .as_deref()
            .unwrap_or_else(|| EMPTY.get_or_init(Data::default))
    }

    /// The frame as text; at least 80x24.
    #[must_use]
    pub fn text(&self, width: u16, height: u16) -> String {
        let area = Rect::new(0, 0, width.clamp(80, 400), height.clamp(24, 200));
        let mut buffer = Buffer::empty(area);
        draw(&self.app, area, &mut buffer);
        lines(&buffer)
    }

    /// The data of the screen. Absent values are `null`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        export::json(&self.app)
    }

    /// Signals, objectives, alerts and services as Markdown tables; for other screens than the overview, their tables.
    #[must_use]
    pub fn markdown(&self) -> String {
        if self.app.screen != Screen::Overview {
            return export::markdown(&self.app);
        }
        let d = self.data();
        let cell = |text: &str| clean(text).replace('|', "\\|");
        let mut out = String::from("| signal | now |\n|---|---|\n");
        let latency = format!("{} / {} / {} ms", ms(d.p50), ms(d.p95), ms(d.p99));
        for (name, value) in [
            ("latency p50 / p95 / p99", latency),
            ("traffic, req/s", plain(d.traffic)),
            ("errors", percent_sign(d.error_ratio)),
            ("cache hit", percent_sign(d.cache_hit)),
            ("pool", percent_sign(d.pool)),
            ("cpu", percent_sign(d.cpu)),
            ("memory", percent_sign(d.memory)),
        ] {
            out.push_str(&format!("| {name} | {value} |\n"));
        }
        out.push_str("\n| SLO | objective | SLI | budget left | empty in | alert |\n|---|--:|--:|--:|--:|---|\n");
        for s in &d.slos {
            let empty = s.empty_in_ms.map_or_else(|| ABSENT.into(), age);
            let alert = format!("{:?}", s.alert).to_lowercase();
            let sli = s
                .sli
                .map_or_else(|| ABSENT.into(), |v| format!("{:.3} %", v * 100.0));
            let objective = plain(Some(s.objective * 100.0));
            out.push_str(&format!(
                "| {} | {objective} % | {sli} | {} | {empty} | {alert} |\n",
                cell(&s.name),
                percent_sign(s.budget_left)
            ));
        }
        out.push_str("\n| alert | state | since |\n|---|---|---|\n");
        for a in &d.alerts {
            let name = a.labels.get("alertname").unwrap_or(ABSENT);
            out.push_str(&format!(
                "| {} | {} | {} |\n",
                cell(name),
                cell(&a.state),
                cell(&a.active_at)
            ));
        }
        out.push_str("\n| service | route | req/s | errors % | p50 ms | p95 ms | p99 ms |\n|---|---|--:|--:|--:|--:|--:|\n");
        let row = |r: &Red| {
            format!(
                "| {} | {} | {} | {} | {} | {} | {} |\n",
                cell(&r.service),
                cell(&r.route),
                plain(r.rate),
                percent(r.error_ratio),
                ms(r.p50),
                ms(r.p95),
                ms(r.p99)
            )
        };
        d.services
            .iter()
            .chain(&d.routes)
            .for_each(|r| out.push_str(&row(r)));
        out
    }

    /// How the objectives stand: exit code 3 if any pages.
    #[must_use]
    pub fn exit_status(&self) -> ExitStatus {
        self.app.exit_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_same_data_in_three_forms() {
        let options = TuiOptions {
            notice: Some("time scale 60x".into()),
            ..TuiOptions::default()
        };
        let shot = Snapshot::of(options, Screen::Overview, fixture::NOW_MS, fixture::data());
        assert!(shot.text(10, 10).contains("[1 Over]"));
        assert!(shot.text(120, 36).contains("time scale 60x"));
        assert_eq!(shot.json()["data"]["p99"], 0.412);
        assert_eq!(shot.exit_status().code(), 3);
        let md = shot.markdown();
        assert!(
            md.contains("| latency p50 / p95 / p99 | 8.1 / 96 / 412 ms |"),
            "{md}"
        );
    }
}
