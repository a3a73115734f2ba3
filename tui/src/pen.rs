//! Drawing: text, boxes, tables, sparklines, bars and charts on a buffer.
//!
//! Owns widgets. All text goes through [`Pen::put`], which cleans it, keeps it inside, and makes it ASCII where wanted.
//! Must not know what the numbers mean.

use model::timestamp::format_clock;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::format::{ascii, clean};
use crate::heat::{self, Heat};
use crate::sort::Sort;
use crate::theme::{Role, Theme};

const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Marks of a chart's lines.
pub(crate) const MARKS: [char; 5] = ['•', '+', '*', 'x', 'o'];
/// The narrowest that a text column becomes.
const MIN_FLEX: usize = 12;

/// What is drawn with.
pub(crate) struct Pen<'a> {
    pub(crate) buffer: &'a mut Buffer,
    pub(crate) theme: Theme,
    pub(crate) ascii: bool,
    /// The title of the last panel.
    pub(crate) title: String,
    /// What tables and charts hold, where it is wanted.
    pub(crate) recorded: Option<Vec<Recorded>>,
}

/// What a table or a chart holds, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A table's cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell(pub(crate) String, pub(crate) Role);

/// A table's column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    flex: bool,
    /// Columns with the highest number are dropped first where there is no room; 0 never.
    drop: u8,
    /// Rows are in this column's order: whether descending.
    order: Option<bool>,
}

// === impl Column ===

impl Column {
    fn text(&self) -> String {
        let mark = match self.order {
            None => "",
            Some(true) => "▼",
            Some(false) => "▲",
        };
        format!("{}{mark}", self.title)
    }
}

/// Marks the column by which rows are ordered.
pub(crate) fn ordered(mut columns: Vec<Column>, sort: Option<Sort>) -> Vec<Column> {
    if let Some(sort) = sort
        && let Some(column) = columns.get_mut(sort.column)
    {
        column.order = Some(column.right != sort.reversed);
        column.drop = 0;
    }
    columns
}

/// Columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A plain cell.
pub(crate) fn cell(text: impl Into<String>) -> Cell {
    Cell(text.into(), Role::Text)
}

/// A column of names: it shrinks.
pub(crate) fn names(title: &'static str) -> Column {
    Column {
        title,
        right: false,
        flex: true,
        drop: 0,
        order: None,
    }
}

/// A column of words that are never cut.
pub(crate) fn words(title: &'static str, drop: u8) -> Column {
    Column {
        title,
        right: false,
        flex: false,
        drop,
        order: None,
    }
}

/// A column of numbers, which are never cut.
pub(crate) fn numbers(title: &'static str, drop: u8) -> Column {
    Column {
        title,
        right: true,
        flex: false,
        drop,
        order: None,
    }
}

/// `text` in at most `room` columns, with `…` for what is cut.
pub(crate) fn shorten(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        if width(&out) + width(&c.to_string()) + 1 > room {
            break;
        }
        out.push(c);
    }
    if room > 0 {
        out.push('…');
    }
    out
}

/// The first of `texts` that has room; the last one cut where none has.
pub(crate) fn fit(texts: &[String], room: usize) -> String {
    let found = texts.iter().find(|t| width(t) <= room);
    found
        .or(texts.last())
        .map_or_else(String::new, |t| shorten(t, room))
}

/// `text` in lines of at most `room` columns, broken at spaces where there are any.
pub(crate) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut out = Vec::new();
    for part in text.lines() {
        let mut line = String::new();
        for word in part.split(' ') {
            let mut word = word.to_owned();
            if !line.is_empty() && width(&line) + width(&word) + 1 > room {
                out.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            while width(&word) > room.max(2) {
                let cut: String = shorten(&word, room.max(2)).trim_end_matches('…').to_owned();
                word.drain(..cut.len());
                out.push(cut);
            }
            line.push_str(&word);
        }
        if !line.is_empty() {
            out.push(line);
        }
    }
    out
}

// === impl Pen ===

impl Pen<'_> {
    pub(crate) fn style(&self, role: Role) -> Style {
        self.theme.style(role)
    }

    /// Writes `text` at a place inside `area` (relative), cut at its edge. Returns the columns taken.
    pub(crate) fn put(&mut self, area: Rect, x: u16, y: u16, text: &str, role: Role) -> u16 {
        if x >= area.width || y >= area.height {
            return 0;
        }
        let mut text = clean(text);
        if self.ascii {
            text = text.chars().map(ascii).collect();
        }
        let room = usize::from(area.width - x);
        let style = self.style(role);
        let (end, _) = self
            .buffer
            .set_stringn(area.x + x, area.y + y, text, room, style);
        end.saturating_sub(area.x + x)
    }

    /// Writes at the right edge.
    pub(crate) fn put_right(&mut self, area: Rect, y: u16, text: &str, role: Role) {
        let taken = u16::try_from(width(text))
            .unwrap_or(u16::MAX)
            .min(area.width);
        self.put(area, area.width - taken, y, text, role);
    }

    /// Keeps what a table or a chart holds, where it is wanted.
    pub(crate) fn record(&mut self, header: Vec<String>, rows: Vec<Vec<String>>) {
        let title = std::mem::take(&mut self.title);
        if let Some(recorded) = &mut self.recorded {
            recorded.push(Recorded {
                title,
                header,
                rows,
            });
        }
    }

    /// A box with a title and a word at its right; returns what is inside.
    pub(crate) fn panel(&mut self, area: Rect, title: &str, right: &str) -> Rect {
        title.clone_into(&mut self.title);
        if area.width < 4 || area.height < 2 {
            return Rect::new(area.x, area.y, 0, 0);
        }
        let line = |l: &str, r: &str| format!("{l}{}{r}", "─".repeat(usize::from(area.width) - 2));
        self.put(area, 0, 0, &line("┌", "┐"), Role::Border);
        self.put(area, 0, area.height - 1, &line("└", "┘"), Role::Border);
        for y in 1..area.height - 1 {
            self.put(area, 0, y, "│", Role::Border);
            self.put(area, area.width - 1, y, "│", Role::Border);
        }
        let room = usize::from(area.width).saturating_sub(5);
        let title = shorten(title, room);
        self.put(area, 2, 0, &format!(" {title} "), Role::Title);
        if !right.is_empty() && width(&title) + width(right) + 4 <= room {
            let inside = Rect {
                width: area.width - 2,
                ..area
            };
            self.put_right(inside, 0, &format!(" {right} "), Role::Dim);
        }
        Rect::new(area.x + 2, area.y + 1, area.width - 4, area.height - 2)
    }

    /// Bars of `line`'s newest values over the whole width, scaled from 0 to its greatest.
    pub(crate) fn spark(&mut self, area: Rect, y: u16, line: &[Option<f64>], role: Role) {
        let columns = resample(line, usize::from(area.width));
        let top = columns.iter().flatten().copied().fold(0.0, f64::max);
        let glyph = |v: &Option<f64>| match v {
            None => ' ',
            Some(v) if top <= 0.0 || *v <= 0.0 => SPARKS[0],
            Some(v) => SPARKS[((v / top * 7.0).round() as usize).min(7)],
        };
        let text: String = columns.iter().map(glyph).collect();
        self.put(area, 0, y, &text, role);
    }

    /// Rows under titles. Columns that have no room are dropped in their declared order, names shrink, numbers never.
    pub(crate) fn table(
        &mut self,
        area: Rect,
        columns: &[Column],
        rows: &[Vec<Cell>],
        selected: Option<usize>,
    ) {
        if area.width == 0 || area.height == 0 {
            return;
        }
        self.record(
            columns.iter().map(|c| c.title.to_owned()).collect(),
            rows.iter()
                .map(|r| r.iter().map(|c| c.0.clone()).collect())
                .collect(),
        );
        let (shown, widths) = arrange(columns, rows, usize::from(area.width));
        let room = usize::from(area.height) - 1;
        let first = selected.map_or(0, |s| (s + 1).saturating_sub(room));
        let titles: Vec<Cell> = columns
            .iter()
            .map(|c| {
                let role = c.order.map_or(Role::Dim, |_| Role::Accent);
                Cell(c.text(), role)
            })
            .collect();
        let visible = rows.iter().enumerate().skip(first).take(room);
        let all = std::iter::once((None, &titles)).chain(visible.map(|(i, r)| (Some(i), r)));
        for (y, (index, row)) in all.enumerate() {
            let y = u16::try_from(y).unwrap_or(u16::MAX);
            let mut x = 0usize;
            for (&c, &w) in shown.iter().zip(&widths) {
                let Some(Cell(text, role)) = row.get(c) else {
                    continue;
                };
                let text = if columns[c].flex {
                    shorten(text, w)
                } else {
                    text.clone()
                };
                let pad = if columns[c].right {
                    w.saturating_sub(width(&text))
                } else {
                    0
                };
                let at = u16::try_from(x + pad).unwrap_or(u16::MAX);
                self.put(area, at, y, &text, *role);
                x += w + 2;
            }
            if index.is_some() && index == selected && y < area.height {
                let line = Rect {
                    y: area.y + y,
                    height: 1,
                    ..area
                };
                self.buffer
                    .set_style(line, Style::new().add_modifier(Modifier::REVERSED));
            }
        }
    }

    /// Lines over time with an axis at the left and the ends of time below.
    pub(crate) fn chart(
        &mut self,
        area: Rect,
        lines: &[(String, Vec<Option<f64>>)],
        format: fn(Option<f64>) -> String,
        ends: (&str, &str),
    ) {
        const AXIS: u16 = 8;
        if area.width < AXIS + 4 || area.height < 3 {
            return;
        }
        if self.recorded.is_some() {
            let row = |(name, line): &(String, Vec<Option<f64>>)| {
                let all = || line.iter().flatten().copied();
                let cells = [
                    all().next_back(),
                    all().reduce(f64::min),
                    all().reduce(f64::max),
                ];
                let name = std::iter::once(name.clone());
                name.chain(cells.map(format)).collect()
            };
            let header = ["LINE", "LAST", "LEAST", "MOST"].map(str::to_owned);
            self.record(header.to_vec(), lines.iter().map(row).collect());
        }
        let values = lines.iter().flat_map(|(_, l)| l.iter().flatten());
        let top = nice(values.copied().fold(0.0, f64::max));
        let (w, h) = (area.width - AXIS, area.height - 1);
        for y in 0..h {
            let share = 1.0 - f64::from(y) / f64::from((h - 1).max(1));
            // Five labels, evenly spread.
            let labelled = (0..=4).any(|i| (i * (h - 1) + 2) / 4 == y);
            let text = match labelled {
                true => format!("{:>6} ┤", format(Some(top * share))),
                false => "       ┤".to_owned(),
            };
            self.put(area, 0, y, &text, Role::Dim);
        }
        let inside = Rect {
            x: area.x + AXIS,
            width: w,
            ..area
        };
        for (n, (_, line)) in lines.iter().enumerate() {
            let mark = MARKS[n % MARKS.len()].to_string();
            for (x, v) in resample(line, usize::from(w)).into_iter().enumerate() {
                let Some(v) = v else { continue };
                let below = (v / top).clamp(0.0, 1.0) * f64::from(h - 1);
                let y = h - 1 - below.round() as u16;
                self.put(
                    inside,
                    u16::try_from(x).unwrap_or(u16::MAX),
                    y,
                    &mark,
                    Role::Series(n),
                );
            }
        }
        let bottom = Rect {
            y: area.y + h,
            height: 1,
            ..inside
        };
        self.put(bottom, 0, 0, ends.0, Role::Dim);
        self.put_right(bottom, 0, ends.1, Role::Dim);
    }
}

/// Glyphs of a heat map's cells, from none to most.
const SHADES: [&str; 6] = [" ", "·", "░", "▒", "▓", "█"];

impl Pen<'_> {
    /// A heat map with latency at the left, time below, `marks` (name, seconds) at the right and the `chosen` point
    /// (Unix milliseconds, seconds) marked. Shades go by the square root.
    pub(crate) fn heat(
        &mut self,
        area: Rect,
        heat: &Heat,
        marks: &[(String, f64)],
        chosen: Option<(i64, f64)>,
    ) {
        const AXIS: u16 = 8;
        let right: u16 = if marks.is_empty() { 0 } else { 6 };
        let Some((first, last)) = heat.used() else {
            return;
        };
        if area.width < AXIS + right + 8 || area.height < 3 {
            return;
        }
        let (w, h) = (area.width - AXIS - right, area.height - 1);
        let rows = usize::from(h);
        let (first, last) = spread(first, last, rows);
        let cells = heat.cells((first, last), rows, usize::from(w));
        let most = cells
            .iter()
            .flatten()
            .flatten()
            .copied()
            .fold(0f32, f32::max);
        let lines = last + 1 - first;
        let row_of = |seconds: f64| {
            let slot = (0..heat::SLOTS).find(|s| seconds < heat::bounds(*s).1)?;
            let at = slot.checked_sub(first)?;
            (0..rows).find(|r| at < (r + 1) * lines / rows)
        };
        let y_of = |row: usize| h - 1 - u16::try_from(row).unwrap_or(0);
        let inside = Rect {
            x: area.x + AXIS,
            width: w,
            height: h,
            ..area
        };
        for (row, line) in cells.iter().enumerate() {
            let y = y_of(row);
            let low = heat::bounds(first + row * lines / rows).0;
            let label = match row % 2 == 0 {
                true => format!("{:>6} ┤", two_digits(low)),
                false => "       ┤".to_owned(),
            };
            self.put(area, 0, y, &label, Role::Dim);
            let shade = |v: &Option<f32>| match v {
                Some(v) if *v > 1e-4 && most > 0.0 => {
                    1 + ((v / most).sqrt() * 4.99).floor().clamp(0.0, 4.0) as usize
                }
                _ => 0,
            };
            let shades: Vec<usize> = line.iter().map(shade).collect();
            let mut x = 0;
            while x < shades.len() {
                let n = shades[x..].iter().take_while(|s| **s == shades[x]).count();
                let text = SHADES[shades[x]].repeat(n);
                let at = u16::try_from(x).unwrap_or(u16::MAX);
                if shades[x] > 0 {
                    self.put(inside, at, y, &text, Role::Heat(shades[x]));
                }
                x += n;
            }
        }
        for (name, seconds) in marks {
            if let Some(row) = row_of(*seconds) {
                self.put(
                    area,
                    area.width - right,
                    y_of(row),
                    &format!("◄{name}"),
                    Role::Accent,
                );
            }
        }
        let span_ms = heat.step_ms * heat.columns.len() as i64;
        let start_ms = heat.end_ms - span_ms;
        if let Some((t_ms, seconds)) = chosen {
            let at = (t_ms - start_ms) as f64 / span_ms.max(1) as f64 * f64::from(w);
            if let (Some(row), true) = (row_of(seconds), (0.0..f64::from(w)).contains(&at)) {
                self.put(inside, at as u16, y_of(row), "◆", Role::Bad);
            }
        }
        let bottom = Rect {
            y: area.y + h,
            height: 1,
            width: w,
            x: area.x + AXIS,
        };
        self.put(bottom, 0, 0, &format_clock(start_ms), Role::Dim);
        self.put_right(bottom, 0, &format_clock(heat.end_ms), Role::Dim);
    }
}

/// A bound of a heat map's row, short: `7.8ms`, `250ms`, `1.4s`.
fn two_digits(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.999e-3 => (s * 1e6, "us"),
        s if s < 0.999 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    match value {
        v if v < 9.95 => format!("{v:.1}{unit}"),
        v => format!("{v:.0}{unit}"),
    }
}

/// Grid lines from `first` to `last` widened to a multiple of `rows`, or of which `rows` is a multiple, where possible.
fn spread(first: usize, last: usize, rows: usize) -> (usize, usize) {
    let lines = last + 1 - first;
    let wanted = lines.max(4).div_ceil(rows) * rows;
    let wanted = match rows / lines.max(4) {
        0 | 1 => wanted,
        times => rows.div_ceil(times),
    };
    let more = wanted.saturating_sub(lines);
    let last = (last + more.div_ceil(2)).min(heat::SLOTS - 1);
    let first = (last + 1).saturating_sub(wanted.max(lines));
    (first, last)
}

/// Which columns are shown, and how wide each is.
fn arrange(columns: &[Column], rows: &[Vec<Cell>], room: usize) -> (Vec<usize>, Vec<usize>) {
    let natural = |c: usize| {
        let cells = rows
            .iter()
            .filter_map(|r| r.get(c))
            .map(|cell| width(&cell.0));
        cells.fold(width(&columns[c].text()), usize::max)
    };
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let mut widths: Vec<usize> = shown.iter().map(|c| natural(*c)).collect();
    let least = |shown: &[usize], widths: &[usize]| -> usize {
        let each = shown.iter().zip(widths).map(|(c, w)| {
            if columns[*c].flex {
                MIN_FLEX.min(*w)
            } else {
                *w
            }
        });
        each.sum::<usize>() + 2 * shown.len().saturating_sub(1)
    };
    while least(&shown, &widths) > room {
        let last = (0..shown.len())
            .filter(|i| columns[shown[*i]].drop > 0)
            .max_by_key(|i| columns[shown[*i]].drop);
        let Some(i) = last else { break };
        shown.remove(i);
        widths.remove(i);
    }
    loop {
        let total = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        let flexible =
            (0..shown.len()).filter(|i| columns[shown[*i]].flex && widths[*i] > MIN_FLEX);
        let Some(widest) = flexible.max_by_key(|i| widths[*i]) else {
            break;
        };
        if total <= room {
            break;
        }
        widths[widest] -= (total - room)
            .min(widths[widest] - MIN_FLEX)
            .min((total - room).div_ceil(2));
    }
    (shown, widths)
}

/// `line` on `columns` columns: the greatest value of those that share one.
fn resample(line: &[Option<f64>], columns: usize) -> Vec<Option<f64>> {
    let n = line.len();
    if n == 0 || columns == 0 {
        return vec![None; columns];
    }
    let part = |x: usize| {
        let from = x * n / columns;
        let to = ((x + 1) * n).div_ceil(columns).clamp(from + 1, n);
        line[from..to].iter().flatten().copied().reduce(f64::max)
    };
    (0..columns).map(part).collect()
}

/// The next 1, 2, 4, 5 or 8 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    steps
        .iter()
        .map(|s| s * power)
        .find(|s| *s >= value * 0.999_999)
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_drop_before_numbers_are_cut() {
        let columns = [
            names("NAME"),
            numbers("A", 0),
            numbers("B", 1),
            numbers("C", 2),
        ];
        let row = ["a-long-name-of-a-service", "1,234", "1,234", "1,234"]
            .map(cell)
            .to_vec();
        let at = |room| arrange(&columns, std::slice::from_ref(&row), room);
        assert_eq!(at(60), (vec![0, 1, 2, 3], vec![24, 5, 5, 5]));
        assert_eq!(at(34), (vec![0, 1, 2, 3], vec![13, 5, 5, 5]));
        assert_eq!(at(30), (vec![0, 1, 2], vec![16, 5, 5]));
        assert_eq!(at(20), (vec![0, 1], vec![13, 5]));
    }

    #[test]
    fn lines_stretch_and_shrink() {
        assert_eq!(
            resample(&[Some(1.0), None, Some(3.0), Some(2.0)], 2),
            [Some(1.0), Some(3.0)]
        );
        assert_eq!(
            resample(&[Some(1.0), Some(2.0)], 4),
            [Some(1.0), Some(1.0), Some(2.0), Some(2.0)]
        );
        assert_eq!(nice(0.7), 0.8);
    }
}
