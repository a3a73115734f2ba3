//! State, and how events change it.
//!
//! Owns the pure core of the terminal. Must not know clocks (the time comes in events), terminals or the network.

use client::NewSilence;
use crossterm::event::{KeyCode, KeyModifiers};
use model::log::Severity;
use model::slo::SloStatus;
use model::span::TraceId;

use crate::data::Data;
use crate::dialog::{Accepted, Dialog};
use crate::export;
use crate::keymap::{Action, Scope, lookup};
use crate::options::{ExitStatus, TuiOptions};
use crate::palette::Palette;
use crate::screen::Screen;
use crate::sort::{self, Sort};
use crate::theme::Theme;
use crate::view;

/// Ranges that `[` and `]` step through, milliseconds.
const RANGES: [i64; 7] = [
    60_000, 300_000, 900_000, 3_600_000, 10_800_000, 21_600_000, 86_400_000,
];
/// A scrub moves by this part of the range.
const SCRUB_PART: i64 = 20;
const FIRST_RETRY_MS: i64 = 250;
const LAST_RETRY_MS: i64 = 5_000;
/// Characters of a filter at most.
const MAX_FILTER: usize = 40;

/// Which instant is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Now, as it goes on.
    Live,
    /// One instant, Unix milliseconds.
    Paused(i64),
}

/// How the agent can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// No answer yet.
    Connecting,
    /// The last fetch was answered.
    Up,
    /// The last fetch failed.
    Down {
        /// Why, in words.
        error: String,
        /// Failed attempts so far.
        attempts: u32,
        /// When the next one is made, Unix milliseconds.
        retry_ms: i64,
    },
}

/// What is chosen on the screens that show one of many.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pick {
    /// Latency: service and route; none for all routes.
    pub route: Option<(String, String)>,
    /// Dashboards: which one.
    pub board: usize,
    /// Logs: text in bodies.
    pub search: String,
    /// Logs: the least severity.
    pub severity: Option<Severity>,
    /// Logs: only this trace's.
    pub log_trace: Option<TraceId>,
}

/// What drawing has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Painted {
    /// Frames.
    pub frames: u64,
    /// Microseconds of the last one.
    pub last_us: u64,
    /// Microseconds of the slowest one.
    pub worst_us: u64,
    /// Bytes of the last one.
    pub last_bytes: u64,
    /// Bytes of all.
    pub bytes: u64,
}

/// What to fetch.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Answers to older requests are not shown.
    pub number: u64,
    /// The screen, which decides what is needed.
    pub screen: Screen,
    /// The instant, Unix milliseconds; `None` for now.
    pub at_ms: Option<i64>,
    /// How far lines go back, milliseconds.
    pub range_ms: i64,
    /// Window of rates.
    pub window: String,
    /// The opened trace.
    pub trace: Option<TraceId>,
    /// What is chosen.
    pub pick: Pick,
    /// The part of the heat map that is known: its name, its columns' width and its end, milliseconds.
    pub heat: Option<(String, i64, i64)>,
    /// The lines that are known: their range and their end, milliseconds.
    pub lines: Option<(i64, i64)>,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time passes: Unix milliseconds.
    Tick(i64),
    /// A key is pressed.
    Key(KeyCode, KeyModifiers),
    /// The mouse is clicked at a column and a row.
    Click(u16, u16),
    /// The terminal has another size (columns, rows).
    Resize(u16, u16),
    /// A fetch ended.
    Answer {
        /// The request's number.
        number: u64,
        /// When, Unix milliseconds.
        now_ms: i64,
        /// The data, or why there is none.
        result: Result<Box<Data>, String>,
    },
    /// A frame was drawn: how long that took, microseconds, and the bytes it had.
    Painted(u64, u64),
    /// A file was written, or a silence made or ended: what is to be said of it, or what went wrong.
    Done(Result<String, String>),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Fetch, off the draw path.
    Fetch(Box<Request>),
    /// Write a new file.
    Write {
        /// Its name, without a folder.
        name: String,
        /// What is in it.
        text: String,
    },
    /// Make a silence.
    Silence(NewSilence),
    /// End the silence of this id.
    EndSilence(String),
    /// Leave.
    Quit,
}

/// Everything that is shown and remembered.
#[derive(Debug, Clone)]
pub struct App {
    /// What the caller chose.
    pub options: TuiOptions,
    /// The theme, which a key changes.
    pub theme: Theme,
    /// The screen.
    pub screen: Screen,
    /// The instant that is shown.
    pub mode: Mode,
    /// How far back lines go, milliseconds.
    pub range_ms: i64,
    /// The clock, Unix milliseconds; 0 before the first tick.
    pub now_ms: i64,
    /// The last answer.
    pub data: Option<Box<Data>>,
    /// When the last answer came, Unix milliseconds.
    pub answered_ms: i64,
    /// How the agent can be reached.
    pub link: Link,
    /// Whether the keys are shown.
    pub help: bool,
    /// Only rows with this text are shown.
    pub filter: String,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// The selected row of the screen's table.
    pub row: usize,
    /// The opened trace.
    pub trace: Option<TraceId>,
    /// What is chosen.
    pub pick: Pick,
    /// Whether the selected panel fills the screen.
    pub zoomed: bool,
    /// The order of rows; as they come when none.
    pub sort: Option<Sort>,
    /// The box that takes all keys.
    pub dialog: Option<Dialog>,
    /// What was done last, or what went wrong; until a key is pressed.
    pub said: Option<Result<String, String>>,
    /// The first line of the help that is shown.
    pub help_from: usize,
    /// The screen that the last answer is for.
    pub answered: Option<Screen>,
    /// What drawing has cost.
    pub painted: Painted,
    /// Columns of the terminal, for clicks.
    pub width: u16,
    number: u64,
    in_flight: bool,
    next_fetch_ms: i64,
}

// === impl App ===

impl App {
    /// A state before anything is known.
    #[must_use]
    pub fn new(options: TuiOptions) -> Self {
        App {
            theme: options.theme,
            screen: options.screen,
            mode: Mode::Live,
            range_ms: options.range_ms.max(1_000),
            now_ms: 0,
            data: None,
            answered_ms: 0,
            link: Link::Connecting,
            help: false,
            filter: String::new(),
            typing: false,
            row: 0,
            trace: None,
            pick: Pick::default(),
            zoomed: false,
            sort: None,
            dialog: None,
            said: None,
            help_from: 0,
            answered: None,
            painted: Painted::default(),
            width: 80,
            number: 0,
            in_flight: false,
            next_fetch_ms: 0,
            options,
        }
    }

    /// How the objectives stand.
    #[must_use]
    pub fn exit_status(&self) -> ExitStatus {
        let slos: &[SloStatus] = self.data.as_ref().map_or(&[], |d| &d.slos);
        ExitStatus::of(slos)
    }

    /// Milliseconds between two fetches. A dashboard asks many queries, and changes slowly.
    fn refresh_ms(&self) -> i64 {
        let each = i64::try_from(self.options.refresh.as_millis()).map_or(1_000, |ms| ms.max(100));
        match self.screen {
            Screen::Dashboards => each * 5,
            _ => each,
        }
    }

    /// The age of what is shown, milliseconds, when it is older than it should be.
    #[must_use]
    pub fn stale_ms(&self) -> Option<i64> {
        let age = self.now_ms - self.answered_ms;
        let late = age > 3 * self.refresh_ms() + 2_000;
        let live = self.mode == Mode::Live;
        (self.data.is_some() && live && (late || matches!(self.link, Link::Down { .. })))
            .then_some(age.max(0))
    }

    /// Whether a row with these texts passes the filter.
    pub(crate) fn passes(&self, texts: &[&str]) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty() || texts.iter().any(|t| t.to_lowercase().contains(&wanted))
    }

    fn fetch(&mut self) -> Vec<Effect> {
        self.number += 1;
        self.in_flight = true;
        self.next_fetch_ms = self.now_ms + self.refresh_ms();
        vec![Effect::Fetch(Box::new(Request {
            number: self.number,
            screen: self.screen,
            at_ms: match self.mode {
                Mode::Live => None,
                Mode::Paused(at) => Some(at),
            },
            range_ms: self.range_ms,
            window: self.options.window.clone(),
            trace: self.trace,
            pick: Pick {
                search: self.filter.clone(),
                ..self.pick.clone()
            },
            heat: self
                .data
                .as_ref()
                .and_then(|d| d.heat.as_ref())
                .filter(|h| self.answered == Some(self.screen) && !h.columns.is_empty())
                .map(|h| (h.name.clone(), h.step_ms, h.end_ms)),
            lines: self
                .data
                .as_ref()
                .filter(|d| self.answered == Some(self.screen) && d.lines_end_ms > 0)
                .map(|d| (d.range_ms, d.lines_end_ms)),
        }))]
    }

    fn go(&mut self, screen: Screen) -> Vec<Effect> {
        self.screen = screen;
        (self.row, self.trace, self.zoomed, self.sort) = (0, None, false, None);
        self.help = false;
        self.pick.log_trace = None;
        self.fetch()
    }

    /// The next (or previous) route or dashboard.
    fn choose(&mut self, on: bool) -> Vec<Effect> {
        let Some(data) = &self.data else {
            return Vec::new();
        };
        let step = |at: usize, n: usize| (if on { at + 1 } else { at + n - 1 }) % n;
        match self.screen {
            Screen::Latency => {
                // Number 0 is all routes.
                let routes: Vec<_> = data.routes.iter().map(|r| (&r.service, &r.route)).collect();
                let is = |p: &(String, String)| routes.iter().position(|r| *r == (&p.0, &p.1));
                let at = self.pick.route.as_ref().and_then(is).map_or(0, |i| i + 1);
                let next = step(at, routes.len() + 1);
                let route = next.checked_sub(1).and_then(|i| routes.get(i));
                self.pick.route = route.map(|(s, r)| ((*s).clone(), (*r).clone()));
            }
            Screen::Dashboards => {
                let n = crate::fetch::boards::all().len().max(1);
                self.pick.board = step(self.pick.board % n, n);
            }
            _ => return Vec::new(),
        }
        (self.row, self.zoomed) = (0, false);
        // What is shown is not what is chosen until the answer comes.
        self.answered = None;
        self.fetch()
    }

    fn next_severity(&mut self) -> Vec<Effect> {
        if self.screen != Screen::Logs {
            return Vec::new();
        }
        self.pick.severity = match self.pick.severity {
            None => Some(Severity::Info),
            Some(Severity::Info) => Some(Severity::Warn),
            Some(Severity::Warn) => Some(Severity::Error),
            _ => None,
        };
        self.row = 0;
        self.fetch()
    }

    /// The log records of the trace that is opened or selected.
    fn trace_logs(&mut self) -> Vec<Effect> {
        let Some(id) = self.trace.or_else(|| self.selected_trace()) else {
            return Vec::new();
        };
        self.go(Screen::Logs);
        self.filter.clear();
        self.pick.log_trace = Some(id);
        self.fetch()
    }

    /// The trace of the selected row.
    fn selected_trace(&self) -> Option<TraceId> {
        let data = self.data.as_ref()?;
        let id = match self.screen {
            Screen::Traces => view::visible_traces(self, data).get(self.row)?.trace_id,
            Screen::Latency => view::visible_exemplars(self, data).get(self.row)?.trace_id,
            Screen::Logs => view::visible_logs(self, data).get(self.row)?.trace_id,
            _ => return None,
        };
        Some(id).filter(|id| !id.is_zero())
    }

    fn scrub(&mut self, by_ms: i64) -> Vec<Effect> {
        let from = match self.mode {
            Mode::Live => self.now_ms,
            Mode::Paused(at) => at,
        };
        let to = (from + by_ms).max(0);
        self.mode = if to >= self.now_ms {
            Mode::Live
        } else {
            Mode::Paused(to)
        };
        self.fetch()
    }

    fn change_range(&mut self, wider: bool) -> Vec<Effect> {
        let next = match wider {
            true => RANGES.into_iter().find(|r| *r > self.range_ms),
            false => RANGES.into_iter().rev().find(|r| *r < self.range_ms),
        };
        match next {
            Some(range_ms) => {
                self.range_ms = range_ms;
                self.fetch()
            }
            None => Vec::new(),
        }
    }

    fn open(&mut self) -> Vec<Effect> {
        if self.screen == Screen::Dashboards {
            self.zoomed = !self.zoomed;
            return Vec::new();
        }
        let Some(id) = self.selected_trace() else {
            return Vec::new();
        };
        if self.screen != Screen::Traces {
            self.go(Screen::Traces);
            self.filter.clear();
        }
        self.trace = Some(id);
        self.fetch()
    }

    fn act(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::Quit => return vec![Effect::Quit],
            Action::Help => (self.help, self.help_from) = (!self.help, 0),
            Action::Up if self.help => self.help_from = self.help_from.saturating_sub(1),
            Action::Down if self.help => {
                self.help_from = (self.help_from + 1).min(crate::keymap::KEYMAP.len());
            }
            Action::Back if self.help => self.help = false,
            Action::Back if self.zoomed => self.zoomed = false,
            Action::Back if self.trace.is_some() => self.trace = None,
            Action::Back if self.pick.log_trace.is_some() => {
                self.pick.log_trace = None;
                return self.fetch();
            }
            Action::Back | Action::Cancel => {
                let had = !self.filter.is_empty();
                self.filter.clear();
                self.typing = false;
                if had && self.screen == Screen::Logs {
                    return self.fetch();
                }
            }
            Action::Go(screen) => return self.go(screen),
            Action::NextScreen => return self.go(self.screen.step(1)),
            Action::PreviousScreen => return self.go(self.screen.step(Screen::ALL.len() - 1)),
            Action::Pause if self.mode == Mode::Live => self.mode = Mode::Paused(self.now_ms),
            Action::Pause | Action::Now => {
                self.mode = Mode::Live;
                return self.fetch();
            }
            Action::Earlier => return self.scrub(-self.range_ms / SCRUB_PART),
            Action::Later => return self.scrub(self.range_ms / SCRUB_PART),
            Action::Narrower => return self.change_range(false),
            Action::Wider => return self.change_range(true),
            Action::Up => self.row = self.row.saturating_sub(1),
            Action::Down => self.row += 1,
            Action::First => self.row = 0,
            Action::Last => self.row = usize::MAX - 1,
            Action::Open => return self.open(),
            Action::Filter => self.typing = true,
            Action::Accept => {
                self.typing = false;
                // The agent searches all that it keeps, not only what is shown.
                if self.screen == Screen::Logs {
                    return self.fetch();
                }
            }
            Action::Erase => {
                self.filter.pop();
            }
            Action::Refresh => return self.fetch(),
            Action::NextChoice => return self.choose(true),
            Action::PreviousChoice => return self.choose(false),
            Action::Severity => return self.next_severity(),
            Action::TraceLogs => return self.trace_logs(),
            Action::Range => self.dialog = Some(Dialog::range(self.range_ms)),
            Action::Sort => self.sort = sort::next(self.sort, view::columns(self)),
            Action::Reverse => {
                if let Some(sort) = &mut self.sort {
                    sort.reversed = !sort.reversed;
                }
            }
            Action::ExportJson | Action::ExportMarkdown => return self.export(action),
            Action::Ack | Action::Silence | Action::EndSilence => self.ask_silence(action),
            Action::NextField => {}
            Action::Theme if self.options.palette == Palette::Off => {
                self.said = Some(Err("this terminal has no colours".into()));
            }
            Action::Theme => self.theme = self.theme.next(),
        }
        self.row = self.row.min(view::rows(self).saturating_sub(1));
        Vec::new()
    }

    /// Opens the box for what is to be done with the selected alert.
    fn ask_silence(&mut self, action: Action) {
        if self.options.read_only {
            self.said = Some(Err("read only: nothing is acknowledged or silenced".into()));
            return;
        }
        let Some(data) = self.data.as_ref().filter(|_| self.screen == Screen::Alerts) else {
            return;
        };
        let Some(alert) = view::visible_alerts(self, data).get(self.row).copied() else {
            return;
        };
        let silence = data.silences.iter().find(|s| s.covers(&alert.labels));
        self.dialog = match (action, silence) {
            (Action::EndSilence, None) => {
                self.said = Some(Err("no silence covers this alert".into()));
                None
            }
            (Action::EndSilence, Some(silence)) => Some(Dialog::end_silence(silence)),
            (action, _) => {
                let ack = action == Action::Ack;
                let author = &self.options.author;
                Some(Dialog::silence(alert, &data.alerts, ack, author))
            }
        };
    }

    fn export(&mut self, action: Action) -> Vec<Effect> {
        if self.data.is_none() || self.answered != Some(self.screen) {
            self.said = Some(Err("there is nothing to write yet".into()));
            return Vec::new();
        }
        let (ending, text) = match action {
            Action::ExportJson => ("json", export::json_text(self)),
            _ => ("md", export::markdown(self)),
        };
        let at = match self.mode {
            Mode::Live => self.now_ms,
            Mode::Paused(at) => at,
        };
        let stamp: String = model::timestamp::format_rfc3339(at)
            .chars()
            .take(19)
            .filter(|c| !matches!(c, '-' | ':'))
            .collect();
        let screen = self.screen.title().to_lowercase();
        vec![Effect::Write {
            name: format!("nines-{screen}-{stamp}Z.{ending}"),
            text,
        }]
    }

    /// A key while a box is open.
    fn answer_dialog(&mut self, action: Option<Action>, code: KeyCode) -> Vec<Effect> {
        let Some(dialog) = &mut self.dialog else {
            return Vec::new();
        };
        match (action, code) {
            (Some(Action::Quit), _) => return vec![Effect::Quit],
            (Some(Action::Cancel), _) => self.dialog = None,
            (Some(Action::NextField), _) => dialog.next_field(),
            (Some(Action::Erase), _) => dialog.erase(),
            (Some(Action::Accept), _) => {
                let accepted = dialog.accept(self.now_ms);
                if accepted != Accepted::Nothing {
                    self.dialog = None;
                }
                match accepted {
                    Accepted::Nothing => {}
                    Accepted::Range(range_ms) => {
                        self.range_ms = range_ms;
                        return self.fetch();
                    }
                    Accepted::Silence(new) => return vec![Effect::Silence(new)],
                    Accepted::EndSilence(id) => return vec![Effect::EndSilence(id)],
                }
            }
            (None, KeyCode::Char(c)) if !dialog.confirm => dialog.letter(c),
            _ => {}
        }
        Vec::new()
    }

    /// Where keys are looked up now.
    pub(crate) fn scope(&self) -> Scope {
        match &self.dialog {
            Some(dialog) if dialog.confirm => Scope::Confirm,
            Some(_) => Scope::Form,
            None if self.typing => Scope::Filter,
            None => Scope::Global,
        }
    }

    fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Vec<Effect> {
        self.said = None;
        let action = lookup(self.scope(), code, modifiers);
        let control = modifiers.contains(KeyModifiers::CONTROL);
        if self.dialog.is_some() {
            return match control && action.is_none() {
                true => Vec::new(),
                false => self.answer_dialog(action, code),
            };
        }
        match (action, code) {
            (Some(action), _) => self.act(action),
            (None, KeyCode::Char(c)) if self.typing && !control => {
                if self.filter.chars().count() < MAX_FILTER && !c.is_control() {
                    self.filter.push(c);
                }
                self.row = 0;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Takes new data; the selection stays on what was selected, unless that is the newest.
    fn replace(&mut self, mut data: Box<Data>) {
        let same_screen = self.answered == Some(self.screen);
        let selected = view::identity(self, self.row).filter(|_| same_screen && self.row > 0);
        if let Some(mut old) = self.data.take().filter(|_| same_screen) {
            data.keep_lines(&mut old);
            if data.heat.as_ref().is_some_and(|h| h.columns.is_empty()) {
                data.exemplars = std::mem::take(&mut old.exemplars);
            }
            data.heat = match (old.heat, data.heat.take()) {
                (Some(old), Some(new)) => Some(old.continued(new)),
                (_, new) => new,
            };
        }
        self.data = Some(data);
        self.answered = Some(self.screen);
        let rows = view::rows(self);
        let found = selected
            .and_then(|s| (0..rows).find(|row| view::identity(self, *row).as_ref() == Some(&s)));
        let opened = self
            .trace
            .filter(|_| !same_screen && self.screen == Screen::Traces);
        let opened = opened.map(|id| id.to_string());
        let opened = (0..rows).find(|r| opened.is_some() && view::identity(self, *r) == opened);
        let row = found.or(opened).unwrap_or(self.row);
        self.row = row.min(rows.saturating_sub(1));
    }

    fn answer(&mut self, now_ms: i64, result: Result<Box<Data>, String>) {
        self.in_flight = false;
        match result {
            Ok(data) => {
                self.link = Link::Up;
                self.answered_ms = now_ms;
                self.replace(data);
            }
            Err(error) => {
                let attempts = match &self.link {
                    Link::Down { attempts, .. } => attempts + 1,
                    _ => 1,
                };
                let doubled = FIRST_RETRY_MS << (attempts - 1).min(10);
                let longest = doubled.min(LAST_RETRY_MS);
                self.next_fetch_ms =
                    now_ms + jittered(longest, self.options.seed ^ now_ms.unsigned_abs());
                let retry_ms = self.next_fetch_ms;
                self.link = Link::Down {
                    error,
                    attempts,
                    retry_ms,
                };
            }
        }
    }
}

/// Between a half of `longest` and all of it, so that many that lost one agent do not come back at once.
fn jittered(longest: i64, seed: u64) -> i64 {
    // SplitMix64.
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let half = longest / 2;
    half + i64::try_from(z % half.max(1).unsigned_abs()).unwrap_or(0)
}

/// Changes the state by an event, and says what is to be done.
pub fn update(app: &mut App, event: Event) -> Vec<Effect> {
    match event {
        Event::Tick(now_ms) => {
            app.now_ms = now_ms.max(app.now_ms);
            let wanted = app.mode == Mode::Live
                || app.data.is_none()
                || matches!(app.link, Link::Down { .. });
            if wanted && !app.in_flight && app.now_ms >= app.next_fetch_ms {
                return app.fetch();
            }
            Vec::new()
        }
        Event::Key(code, modifiers) => app.key(code, modifiers),
        Event::Painted(us, bytes) => {
            let all = &mut app.painted;
            all.frames += 1;
            (all.last_us, all.last_bytes) = (us, bytes);
            all.worst_us = all.worst_us.max(us);
            all.bytes += bytes;
            Vec::new()
        }
        Event::Done(said) => {
            app.said = Some(said);
            // A silence shows at once.
            if app.screen == Screen::Alerts && app.mode == Mode::Live {
                return app.fetch();
            }
            Vec::new()
        }
        Event::Click(..) if app.dialog.is_some() => Vec::new(),
        Event::Click(x, y) => match view::tab_at(app, x, y) {
            Some(screen) => app.go(screen),
            None => Vec::new(),
        },
        Event::Resize(width, _) => {
            app.width = width;
            Vec::new()
        }
        Event::Answer {
            number,
            now_ms,
            result,
        } => {
            app.now_ms = now_ms.max(app.now_ms);
            if number == app.number {
                app.answer(now_ms, result);
            }
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
