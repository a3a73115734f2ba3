//! A box over the screen: what it asks, what is typed, what is wrong.
//!
//! Owns its layout. Must not know what is done with the answers.

use ratatui::layout::Rect;

use crate::app::App;
use crate::dialog::Dialog;
use crate::pen::{Pen, width, wrap};
use crate::theme::Role;

/// Columns of the box at most.
const WIDTH: u16 = 72;

pub(super) fn draw(pen: &mut Pen<'_>, app: &App, body: Rect) {
    let Some(dialog) = &app.dialog else { return };
    let wide = WIDTH.min(body.width.saturating_sub(4));
    let room = usize::from(wide.saturating_sub(4)).max(1);
    let lines: Vec<String> = dialog.lines.iter().flat_map(|l| wrap(l, room)).collect();
    let lines = &lines[..lines.len().min(8)];
    let tall = lines.len() + dialog.fields.len() + 6;
    let tall = u16::try_from(tall).unwrap_or(u16::MAX).min(body.height);
    let area = Rect {
        x: body.x + (body.width - wide) / 2,
        y: body.y + (body.height - tall) / 3,
        width: wide,
        height: tall,
    };
    let blank = " ".repeat(usize::from(area.width));
    for y in 0..area.height {
        pen.put(area, 0, y, &blank, Role::Text);
    }
    let inner = pen.panel(area, &dialog.title, "");
    let mut y = 0;
    for line in lines {
        pen.put(inner, 0, y, line, Role::Text);
        y += 1;
    }
    y += 1;
    for (i, field) in dialog.fields.iter().enumerate() {
        let here = i == dialog.at && !dialog.confirm;
        let name = format!("{:>9}  ", field.name);
        let x = pen.put(inner, 0, y, &name, Role::Dim);
        let cursor = if here { "│" } else { "" };
        let role = if here { Role::Accent } else { Role::Text };
        pen.put(
            inner,
            x,
            y,
            &tail(&format!("{}{cursor}", field.text), room - 11),
            role,
        );
        y += 1;
    }
    last_line(pen, dialog, inner);
}

fn last_line(pen: &mut Pen<'_>, dialog: &Dialog, inner: Rect) {
    let y = inner.height.saturating_sub(2);
    match (&dialog.error, dialog.confirm) {
        (error, _) if !error.is_empty() => {
            let lines = wrap(&format!("✖ {error}"), usize::from(inner.width).max(1));
            for (y, line) in (y..).zip(lines.iter().take(2)) {
                pen.put(inner, 0, y, line, Role::Bad);
            }
        }
        (_, true) => {
            pen.put(inner, 0, y, "▲ do this? y yes   esc no", Role::Warn);
        }
        _ => {
            let text = "↵ go on   tab next field   esc close";
            pen.put(inner, 0, y, text, Role::Dim);
        }
    }
}

/// The end of a text, as far as there is room.
fn tail(text: &str, room: usize) -> String {
    let mut out = text.to_owned();
    while width(&out) > room && !out.is_empty() {
        out.remove(0);
    }
    out
}
