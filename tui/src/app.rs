//! State, and how events change it.
//!
//! Owns the pure core of the terminal. Must not know clocks (the time comes in events), terminals or the network.

use crossterm::event::{KeyCode, KeyModifiers};
use model::log::Severity;
use model::slo::SloStatus;
use model::span::TraceId;

use crate::data::Data;
use crate::keymap::{Action, Scope, lookup};
use crate::options::{ExitStatus, TuiOptions};
use crate::screen::Screen;
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
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Fetch, off the draw path.
    Fetch(Box<Request>),
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
    /// The screen that the last answer is for.
    pub answered: Option<Screen>,
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
            answered: None,
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
        }))]
    }

    fn go(&mut self, screen: Screen) -> Vec<Effect> {
        self.screen = screen;
        (self.row, self.trace, self.zoomed) = (0, None, false);
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
            Action::Help => self.help = !self.help,
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
            Action::Theme => self.theme = self.theme.next(),
        }
        self.row = self.row.min(view::rows(self).saturating_sub(1));
        Vec::new()
    }

    fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Vec<Effect> {
        let scope = if self.typing {
            Scope::Filter
        } else {
            Scope::Global
        };
        match (lookup(scope, code, modifiers), code) {
            (Some(action), _) => self.act(action),
            (None, KeyCode::Char(c))
                if self.typing && !modifiers.contains(KeyModifiers::CONTROL) =>
            {
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
        let old = self.data.take().and_then(|d| d.heat);
        data.heat = match (old, data.heat.take()) {
            (Some(old), Some(new)) if same_screen => Some(old.continued(new)),
            (_, new) => new,
        };
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
                self.next_fetch_ms = now_ms + doubled.min(LAST_RETRY_MS);
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
mod tests {
    use super::*;
    use crate::fixture;

    fn press(app: &mut App, c: char) -> Vec<Effect> {
        update(app, Event::Key(KeyCode::Char(c), KeyModifiers::NONE))
    }

    fn requested(effects: &[Effect]) -> &Request {
        match effects {
            [Effect::Fetch(request)] => request,
            other => panic!("no fetch in {other:?}"),
        }
    }

    #[test]
    fn retries_back_off_to_five_seconds_and_recover() {
        let mut app = App::new(TuiOptions::default());
        let mut now = 1_000_000;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let number = requested(&update(&mut app, Event::Tick(now))).number;
            assert!(
                update(&mut app, Event::Tick(now)).is_empty(),
                "one at a time"
            );
            update(
                &mut app,
                Event::Answer {
                    number,
                    now_ms: now,
                    result: Err("no".into()),
                },
            );
            let Link::Down { retry_ms, .. } = app.link else {
                panic!("up")
            };
            waits.push(retry_ms - now);
            assert!(update(&mut app, Event::Tick(retry_ms - 1)).is_empty());
            now = retry_ms;
        }
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        let number = requested(&update(&mut app, Event::Tick(now))).number;
        let result = Ok(Box::new(fixture::data()));
        update(
            &mut app,
            Event::Answer {
                number,
                now_ms: now,
                result,
            },
        );
        assert_eq!(app.link, Link::Up);
    }

    #[test]
    fn time_can_be_paused_scrubbed_and_left() {
        let mut app = fixture::app(TuiOptions::default());
        let now = app.now_ms;
        press(&mut app, ' ');
        assert_eq!(app.mode, Mode::Paused(now));
        assert!(
            update(&mut app, Event::Tick(now + 60_000)).is_empty(),
            "paused data stays"
        );
        let effects = press(&mut app, 'h');
        assert_eq!(requested(&effects).at_ms, Some(now - 45_000));
        press(&mut app, ']');
        assert_eq!(app.range_ms, 3_600_000);
        assert_eq!(requested(&press(&mut app, '.')).at_ms, None);
        assert_eq!(app.mode, Mode::Live);
    }

    #[test]
    fn a_filter_takes_letters_that_are_keys_elsewhere() {
        let mut app = fixture::app(TuiOptions::default());
        for c in "/q1".chars() {
            assert!(press(&mut app, c).is_empty());
        }
        assert_eq!(app.filter, "q1");
        update(&mut app, Event::Key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(app.filter.is_empty() && !app.typing);
        assert_eq!(press(&mut app, 'q'), [Effect::Quit]);
    }

    #[test]
    fn old_answers_are_not_shown() {
        let mut app = App::new(TuiOptions::default());
        let old = requested(&update(&mut app, Event::Tick(1_000))).number;
        let new = requested(&press(&mut app, '2')).number;
        let data = || Ok(Box::new(fixture::data()));
        update(
            &mut app,
            Event::Answer {
                number: old,
                now_ms: 1_001,
                result: data(),
            },
        );
        assert!(app.data.is_none());
        update(
            &mut app,
            Event::Answer {
                number: new,
                now_ms: 1_002,
                result: data(),
            },
        );
        assert!(app.data.is_some());
        assert!(app.exit_status().pages && app.exit_status().code() == 3);
    }

    #[test]
    fn a_trace_opens_and_closes() {
        let mut app = fixture::app(TuiOptions::default());
        press(&mut app, '5');
        update(&mut app, Event::Key(KeyCode::Down, KeyModifiers::NONE));
        let effects = update(&mut app, Event::Key(KeyCode::Enter, KeyModifiers::NONE));
        assert_eq!(
            requested(&effects).trace,
            Some(fixture::data().traces[1].trace_id)
        );
        update(&mut app, Event::Key(KeyCode::Esc, KeyModifiers::NONE));
        assert_eq!(app.trace, None);
    }

    #[test]
    fn an_exemplar_and_a_record_lead_to_their_trace_and_back_to_its_records() {
        let mut app = fixture::app(TuiOptions {
            screen: Screen::Latency,
            ..TuiOptions::default()
        });
        update(&mut app, Event::Key(KeyCode::Down, KeyModifiers::NONE));
        let enter = Event::Key(KeyCode::Enter, KeyModifiers::NONE);
        let effects = update(&mut app, enter.clone());
        assert_eq!(app.screen, Screen::Traces);
        let opened = app.trace.unwrap();
        assert_eq!(opened, fixture::data().exemplars[1].trace_id);
        assert_eq!(requested(&effects[..1]).trace, Some(opened));
        press(&mut app, 'L');
        assert_eq!(
            (app.screen, app.pick.log_trace),
            (Screen::Logs, Some(opened))
        );
        update(&mut app, Event::Key(KeyCode::Esc, KeyModifiers::NONE));
        assert_eq!(app.pick.log_trace, None);
        let effects = press(&mut app, 'v');
        assert_eq!(requested(&effects).pick.severity, Some(Severity::Info));
        answer(&mut app, requested(&effects).number, fixture::data());
        // The sixth record has no trace.
        app.row = 5;
        assert!(update(&mut app, enter).is_empty());
    }

    #[test]
    fn routes_and_dashboards_are_chosen_around_the_end() {
        let mut app = fixture::app(TuiOptions {
            screen: Screen::Latency,
            ..TuiOptions::default()
        });
        let routes = fixture::data().routes;
        for r in &routes {
            let effects = press(&mut app, 'n');
            let wanted = Some((r.service.clone(), r.route.clone()));
            assert_eq!(requested(&effects).pick.route, wanted);
            assert_eq!(requested(&effects).heat, None, "another map");
        }
        press(&mut app, 'n');
        assert_eq!(app.pick.route, None);
        press(&mut app, 'N');
        assert_eq!(app.pick.route.unwrap().1, routes[2].route);
        let mut app = fixture::app(TuiOptions {
            screen: Screen::Dashboards,
            ..TuiOptions::default()
        });
        press(&mut app, 'N');
        assert_eq!(app.pick.board, 3);
        assert_eq!(requested(&press(&mut app, 'n')).pick.board, 0);
    }

    #[test]
    fn the_selection_stays_on_its_record_while_newer_ones_come() {
        let mut app = fixture::app(TuiOptions {
            screen: Screen::Logs,
            ..TuiOptions::default()
        });
        app.row = 3;
        let newer = |app: &mut App| {
            let mut data = fixture::data();
            data.logs.drain(7..);
            for i in 0..2u64 {
                let mut record = data.logs[0].clone();
                record.time_ns += 1_000_000 * (2 - i);
                data.logs.insert(usize::try_from(i).unwrap(), record);
            }
            let number = requested(&press(app, '.')).number;
            answer(app, number, data);
        };
        newer(&mut app);
        assert_eq!(app.row, 5);
        app.row = 0;
        newer(&mut app);
        assert_eq!(app.row, 0, "the newest stays selected");
    }

    fn answer(app: &mut App, number: u64, data: Data) {
        let (now_ms, result) = (app.now_ms, Ok(Box::new(data)));
        let event = Event::Answer {
            number,
            now_ms,
            result,
        };
        update(app, event);
    }
}
