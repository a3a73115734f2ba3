//! Frame time and bytes per frame at three sizes, with data that changes from frame to frame.
#![allow(clippy::unwrap_used, reason = "a bench that fails should stop")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};
use tui::{Screen, TuiOptions, fixture, view};

const FRAMES: usize = 400;

#[derive(Clone, Default)]
struct Count(Arc<Mutex<usize>>);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.0.lock().unwrap() += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn main() {
    println!(
        "{:<10} {:>8} {:>10} {:>10} {:>12}",
        "screen", "size", "p50 us", "p99 us", "bytes/frame"
    );
    for screen in Screen::ALL {
        for (w, h) in [(80, 24), (120, 36), (200, 60)] {
            let sink = Count::default();
            let viewport = Viewport::Fixed(Rect::new(0, 0, w, h));
            let backend = CrosstermBackend::new(sink.clone());
            let mut terminal =
                Terminal::with_options(backend, TerminalOptions { viewport }).unwrap();
            let mut app = fixture::app(TuiOptions {
                screen,
                ..TuiOptions::default()
            });
            let mut times = Vec::new();
            for frame in 0..FRAMES {
                let data = app.data.as_mut().unwrap();
                data.p99_line.rotate_left(1);
                data.service_lines
                    .iter_mut()
                    .for_each(|(_, l)| l.rotate_left(1));
                data.traffic = Some(1_200.0 + frame as f64);
                // A map's columns complete every few seconds only.
                if let Some(heat) = data.heat.as_mut().filter(|_| frame % 7 == 0) {
                    heat.columns.rotate_left(1);
                }
                data.logs.rotate_right(1);
                app.now_ms += 1_000;
                app.answered_ms = app.now_ms;
                let start = Instant::now();
                terminal.draw(|f| view(&app, f)).unwrap();
                times.push(start.elapsed().as_micros());
            }
            times.sort_unstable();
            let bytes = *sink.0.lock().unwrap() / FRAMES;
            let (p50, p99) = (times[FRAMES / 2], times[FRAMES * 99 / 100]);
            println!(
                "{:<10} {:>8} {p50:>10} {p99:>10} {bytes:>12}",
                screen.title(),
                format!("{w}x{h}")
            );
        }
    }
}
