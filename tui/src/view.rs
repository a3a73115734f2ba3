//! From state to cells: header, tabs, the screen, footer.
//!
//! Owns the frame around screens. Must not know clocks or the network; it changes nothing.

mod alerts;
mod boards;
mod dialog;
mod latency;
mod load;
mod logs;
mod overview;
mod own;
mod resources;
mod services;
mod traces;

use model::timestamp::format_clock;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use crate::app::{App, Link, Mode};
use crate::data::Data;
use crate::format::{age, number};
use crate::keymap::{Action, Binding, KEYMAP, Scope};
use crate::pen::{Pen, shorten, width, wrap};
use crate::screen::Screen;
use crate::theme::Role;
pub(crate) use alerts::visible as visible_alerts;
pub(crate) use latency::visible as visible_exemplars;
pub(crate) use logs::visible as visible_logs;
pub(crate) use traces::visible as visible_traces;

/// The smallest terminal that is drawn on.
pub(crate) const MIN_SIZE: (u16, u16) = (80, 24);
/// The row of the tabs.
const TAB_ROW: u16 = 1;

/// Columns from which tabs have their whole titles.
const WIDE_TABS: u16 = 114;

/// Draws the state on a frame.
pub fn view(app: &App, frame: &mut Frame<'_>) {
    draw(app, frame.area(), frame.buffer_mut());
}

/// Draws the state on a buffer; never outside `area`.
pub fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let mut pen = Pen {
        buffer,
        theme: app.theme,
        ascii: app.options.ascii,
        title: String::new(),
        recorded: None,
    };
    if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
        let text = format!(
            "{}x{} is too small: {}x{} is needed",
            area.width, area.height, MIN_SIZE.0, MIN_SIZE.1
        );
        pen.put(area, 0, 0, &text, Role::Text);
        return;
    }
    header(&mut pen, app, area);
    tabs(&mut pen, app, area);
    let mut top = 2;
    if let Some(notice) = &app.options.notice {
        pen.put(area, 1, top, notice, Role::Warn);
        top += 1;
    }
    let body = Rect::new(area.x, area.y + top, area.width, area.height - top - 1);
    if app.help {
        help(&mut pen, app, body);
    } else if let Some(data) = app
        .data
        .as_ref()
        .filter(|_| app.answered == Some(app.screen))
    {
        screen(&mut pen, app, data, body);
        if app.stale_ms().is_some() {
            pen.buffer
                .set_style(body, Style::new().add_modifier(Modifier::DIM));
        }
    } else {
        waiting(&mut pen, app, body);
    }
    dialog::draw(&mut pen, app, body);
    footer(&mut pen, app, area);
}

/// Columns by which the screen's rows can be ordered.
pub(crate) fn columns(app: &App) -> usize {
    match app.screen {
        Screen::Services => 7,
        Screen::Resources => 7,
        Screen::Latency => 6,
        Screen::Traces => 8,
        Screen::Alerts => 6,
        _ => 0,
    }
}

/// Rows of the screen's table, for the selection.
pub(crate) fn rows(app: &App) -> usize {
    let Some(data) = &app.data else { return 0 };
    match app.screen {
        Screen::Services => services::visible(app, data).len(),
        Screen::Resources => resources::visible(app, data).len(),
        Screen::Traces => visible_traces(app, data).len(),
        Screen::Alerts => alerts::visible(app, data).len(),
        Screen::Latency => visible_exemplars(app, data).len(),
        Screen::Logs => visible_logs(app, data).len(),
        Screen::Dashboards => boards::count(app),
        Screen::Overview | Screen::Load | Screen::Own => 0,
    }
}

/// What a row of the screen's table is, so that it is found again in newer data.
pub(crate) fn identity(app: &App, row: usize) -> Option<String> {
    let data = app.data.as_ref()?;
    Some(match app.screen {
        Screen::Services => {
            let r = *services::visible(app, data).get(row)?;
            format!("{} {}", r.service, r.route)
        }
        Screen::Resources => {
            let u = *resources::visible(app, data).get(row)?;
            format!("{} {} {}", u.kind, u.resource, u.instance)
        }
        Screen::Traces => visible_traces(app, data).get(row)?.trace_id.to_string(),
        Screen::Alerts => alerts::visible(app, data).get(row)?.labels.to_string(),
        Screen::Latency => {
            let e = *visible_exemplars(app, data).get(row)?;
            format!("{} {} {}", e.trace_id, e.service, e.t_ms)
        }
        Screen::Logs => {
            let r = *visible_logs(app, data).get(row)?;
            format!("{} {} {}", r.time_ns, r.span_id, r.body)
        }
        Screen::Overview | Screen::Load | Screen::Dashboards | Screen::Own => return None,
    })
}

/// The tab at a place.
pub(crate) fn tab_at(app: &App, x: u16, y: u16) -> Option<Screen> {
    let inside = |(from, text, _): &(u16, String, Screen)| {
        (*from..from.saturating_add(u16::try_from(width(text)).unwrap_or(0))).contains(&x)
    };
    let hit = tab_spans(app, app.width).into_iter().find(inside);
    hit.filter(|_| y == TAB_ROW && !app.options.no_mouse)
        .map(|(_, _, screen)| screen)
}

fn tab_spans(app: &App, columns: u16) -> Vec<(u16, String, Screen)> {
    let alerts = app.data.as_ref().map_or(0, |d| {
        d.alerts.iter().filter(|a| a.state == "firing").count()
    });
    let mut x = 1;
    let place = |screen: Screen| {
        let count = match screen {
            Screen::Alerts if alerts > 0 => format!("({alerts})"),
            _ => String::new(),
        };
        let wide = columns >= WIDE_TABS;
        let (l, r) = match (screen == app.screen, wide) {
            (true, _) => ("[", "]"),
            (false, true) => (" ", " "),
            (false, false) => (" ", ""),
        };
        let title = if wide {
            screen.title()
        } else {
            screen.short_title()
        };
        let text = format!("{l}{} {title}{count}{r}", screen.digit());
        let from = x;
        x += u16::try_from(width(&text)).unwrap_or(0);
        (from, text, screen)
    };
    Screen::ALL.into_iter().map(place).collect()
}

fn tabs(pen: &mut Pen<'_>, app: &App, area: Rect) {
    for (x, text, screen) in tab_spans(app, area.width) {
        let role = if screen == app.screen {
            Role::Accent
        } else {
            Role::Text
        };
        pen.put(area, x, TAB_ROW, &text, role);
    }
}

/// A length of time as short as it goes: `15m`, `1h`.
pub(crate) fn short(ms: i64) -> String {
    model::duration::format_ms(ms)
}

fn state(app: &App) -> (String, Role) {
    if let Link::Down {
        attempts, retry_ms, ..
    } = &app.link
    {
        let wait = (retry_ms - app.now_ms).max(0) as f64 / 1e3;
        return (
            format!("✖ DOWN try {attempts} in {}s", number(wait, 1)),
            Role::Bad,
        );
    }
    match app.mode {
        _ if app.data.is_none() => ("· CONNECTING".into(), Role::Warn),
        Mode::Live => ("● LIVE".into(), Role::Good),
        Mode::Paused(at) => {
            let behind = age(app.now_ms - at);
            (
                format!("‖ PAUSED at {} ({behind} behind live)", format_clock(at)),
                Role::Warn,
            )
        }
    }
}

fn header(pen: &mut Pen<'_>, app: &App, area: Rect) {
    let own = app.data.as_ref().and_then(|d| d.own.as_ref());
    let lag = match (app.stale_ms(), own) {
        (Some(old), _) => format!("data {} old", age(old)),
        (None, Some(own)) => format!("lag {}s", number(own.lag_ms as f64 / 1e3, 1)),
        (None, None) => "lag -".into(),
    };
    let dropped = own.map_or("-".into(), |o| {
        number(o.dropped.values().sum::<u64>() as f64, 0)
    });
    let clock = if app.now_ms == 0 {
        "-".into()
    } else {
        format!("{}Z", format_clock(app.now_ms))
    };
    let tick = format!(
        "tick {}s",
        crate::format::plain(Some(app.options.refresh.as_secs_f64()))
    );
    let (state, role) = state(app);
    let range = format!("last {}", short(app.range_ms));
    let dropped = format!("dropped {dropped}");
    let mut parts = vec![
        (state, role),
        (range, Role::Text),
        (tick, Role::Dim),
        (lag, Role::Text),
        (dropped, Role::Text),
        (clock, Role::Text),
    ];
    let total = |parts: &[(String, Role)]| parts.iter().map(|p| width(&p.0) + 2).sum::<usize>();
    // The tick goes first, then the range; target, lag, dropped and clock stay.
    for at in [2, 1] {
        if total(&parts) + 22 > usize::from(area.width) {
            parts.remove(at);
        }
    }
    let mut x = usize::from(area.width).saturating_sub(total(&parts));
    let name = own.map(|o| o.name.as_str()).filter(|n| !n.is_empty());
    let address = app.options.base_url.trim_start_matches("http://");
    let room = x.saturating_sub(3);
    let mut left = name.map_or_else(|| address.to_owned(), |n| format!("{n}  {address}"));
    if width(&left) > room {
        left = address.to_owned();
    }
    pen.put(area, 1, 0, &shorten(&left, room), Role::Title);
    for (text, role) in parts {
        pen.put(area, u16::try_from(x).unwrap_or(u16::MAX), 0, &text, role);
        x += width(&text) + 2;
    }
}

fn footer(pen: &mut Pen<'_>, app: &App, area: Rect) {
    let y = area.height - 1;
    let mut x = 1;
    if app.typing || !app.filter.is_empty() {
        let cursor = if app.typing { "│" } else { "" };
        x += pen.put(
            area,
            x,
            y,
            &format!("/ {}{cursor}  ", app.filter),
            Role::Accent,
        );
    }
    if let Some(said) = &app.said {
        let (text, role) = match said {
            Ok(text) => (format!("● {text}"), Role::Good),
            Err(text) => (format!("✖ {text}"), Role::Bad),
        };
        let room = usize::from(area.width).saturating_sub(2);
        pen.put(area, 1, y, &shorten(&text, room), role);
        return;
    }
    let scope = app.scope();
    let here = |b: &&Binding| {
        let on = b.on.is_empty() || b.on.contains(&app.screen);
        let may = !(app.options.read_only && b.action.changes());
        b.scope == scope && on && may
    };
    // What only this screen has comes first.
    let (own, common): (Vec<&Binding>, Vec<&Binding>) =
        KEYMAP.iter().filter(here).partition(|b| !b.on.is_empty());
    let mut pending = String::new();
    let mut items: Vec<(String, &str, bool)> = Vec::new();
    for b in own.into_iter().chain(common) {
        // A key without a word stands before the next one that has one, when they are a pair.
        if b.footer.is_empty() {
            pending = match b.shown {
                "[" | "←" | "k" => format!("{} ", b.shown),
                _ => String::new(),
            };
            continue;
        }
        let keys = format!("{pending}{}", b.shown);
        pending.clear();
        items.push((
            keys,
            b.footer,
            matches!(b.action, Action::Help | Action::Quit),
        ));
    }
    let needed = |items: &[(String, &str, bool)]| -> usize {
        let each = items
            .iter()
            .map(|(keys, word, _)| width(keys) + width(word) + 3);
        each.sum()
    };
    // Help and quit stay, the last of the others go.
    while usize::from(x) + needed(&items) > usize::from(area.width) + 2 {
        match items.iter().rposition(|i| !i.2) {
            Some(last) => items.remove(last),
            None => break,
        };
    }
    for (keys, word, _) in items {
        x += pen.put(area, x, y, &keys, Role::Accent);
        x += pen.put(area, x, y, &format!(" {word}  "), Role::Dim);
    }
}

/// All keys, in two columns where they have room; what has none is reached with `j`.
fn help(pen: &mut Pen<'_>, app: &App, body: Rect) {
    let columns = if body.width >= WIDE_TABS { 2 } else { 1 };
    let lines = KEYMAP.len().div_ceil(usize::from(columns));
    let room = usize::from(body.height.saturating_sub(2));
    let from = app.help_from.min(lines.saturating_sub(room));
    let right = match lines > room {
        true => format!("{}-{} of {lines}, j k; esc closes", from + 1, from + room),
        false => "esc closes".to_owned(),
    };
    let inner = pen.panel(body, "keys", &right);
    let column = inner.width / columns;
    for (i, b) in KEYMAP.iter().enumerate() {
        let Some(y) = (i % lines).checked_sub(from) else {
            continue;
        };
        let y = u16::try_from(y).unwrap_or(u16::MAX);
        let area = Rect {
            x: inner.x + if i < lines { 0 } else { column },
            width: column,
            ..inner
        };
        pen.put(area, 0, y, b.shown, Role::Accent);
        let text = Rect {
            x: area.x + 10,
            width: area.width.saturating_sub(11),
            ..area
        };
        let place = match b.scope {
            Scope::Global => String::new(),
            Scope::Filter => "filter: ".to_owned(),
            Scope::Form => "box: ".to_owned(),
            Scope::Confirm => "box, asked: ".to_owned(),
        };
        let on: Vec<String> = b.on.iter().map(|s| s.digit().to_string()).collect();
        let on = if on.is_empty() {
            String::new()
        } else {
            format!("({}) ", on.join(""))
        };
        let words = format!("{place}{on}{}", b.help);
        let words = shorten(&words, usize::from(text.width));
        pen.put(text, 0, y, &words, Role::Text);
    }
}

fn waiting(pen: &mut Pen<'_>, app: &App, body: Rect) {
    let text = match &app.link {
        Link::Down { error, .. } => error.clone(),
        _ => format!("asking {} …", app.options.base_url),
    };
    let room = usize::from(body.width.saturating_sub(4)).max(1);
    for (y, line) in (1u16..).zip(wrap(&text, room)) {
        pen.put(body, 2, y, &line, Role::Text);
    }
}

/// Draws the screen alone.
pub(crate) fn screen(pen: &mut Pen<'_>, app: &App, data: &Data, body: Rect) {
    match app.screen {
        Screen::Overview => overview::draw(pen, app, data, body),
        Screen::Services => services::draw(pen, app, data, body),
        Screen::Resources => resources::draw(pen, app, data, body),
        Screen::Traces => traces::draw(pen, app, data, body),
        Screen::Alerts => alerts::draw(pen, app, data, body),
        Screen::Latency => latency::draw(pen, app, data, body),
        Screen::Logs => logs::draw(pen, app, data, body),
        Screen::Dashboards => boards::draw(pen, app, data, body),
        Screen::Load => load::draw(pen, data, body),
        Screen::Own => own::draw(pen, app, data, body),
    }
}

/// `area` cut into rows of these heights; what has no room is empty.
pub(super) fn stack<const N: usize>(area: Rect, heights: [u16; N]) -> [Rect; N] {
    let mut y = 0;
    heights.map(|h| {
        let height = h.min(area.height - y);
        let part = Rect {
            y: area.y + y,
            height,
            ..area
        };
        y += height;
        part
    })
}

/// `area` cut in two at a column.
pub(super) fn split(area: Rect, left: u16) -> (Rect, Rect) {
    let left = left.min(area.width);
    let right = Rect {
        x: area.x + left,
        width: area.width - left,
        ..area
    };
    (
        Rect {
            width: left,
            ..area
        },
        right,
    )
}
