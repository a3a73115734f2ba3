//! The table of keys.
//!
//! Owns every binding, in the order of help and footer. Must not know what an action does.

use crossterm::event::{KeyCode, KeyModifiers};

use super::{Action, Binding, Scope};
use crate::screen::Screen;

const NONE: KeyModifiers = KeyModifiers::NONE;
const CTRL: KeyModifiers = KeyModifiers::CONTROL;

const fn bind(
    scope: Scope,
    keys: &'static [(KeyCode, KeyModifiers)],
    shown: &'static str,
    action: Action,
    footer: &'static str,
    help: &'static str,
) -> Binding {
    Binding {
        scope,
        keys,
        shown,
        action,
        help,
        footer,
        on: &[],
    }
}

/// A binding that does something on these screens only.
const fn on(screens: &'static [Screen], binding: Binding) -> Binding {
    Binding {
        on: screens,
        ..binding
    }
}

use Action as A;
use KeyCode::Char;
use Scope::{Filter, Global};

/// All keys.
pub const KEYMAP: &[Binding] = &[
    bind(
        Global,
        &[(Char('1'), NONE)],
        "1",
        A::Go(Screen::Overview),
        "",
        "Overview: everything at a glance",
    ),
    bind(
        Global,
        &[(Char('2'), NONE)],
        "2",
        A::Go(Screen::Services),
        "",
        "Services: rate, errors, duration by service and route",
    ),
    bind(
        Global,
        &[(Char('3'), NONE)],
        "3",
        A::Go(Screen::Resources),
        "",
        "Resources: utilisation, saturation, errors",
    ),
    bind(
        Global,
        &[(Char('4'), NONE)],
        "4",
        A::Go(Screen::Latency),
        "",
        "Latency: heat map, percentiles, exemplars",
    ),
    bind(
        Global,
        &[(Char('5'), NONE)],
        "5",
        A::Go(Screen::Traces),
        "",
        "Traces: list and waterfall",
    ),
    bind(
        Global,
        &[(Char('6'), NONE)],
        "6",
        A::Go(Screen::Alerts),
        "",
        "Alerts and their log",
    ),
    bind(
        Global,
        &[(Char('7'), NONE)],
        "7",
        A::Go(Screen::Logs),
        "",
        "Logs: records as they come",
    ),
    bind(
        Global,
        &[(Char('8'), NONE)],
        "8",
        A::Go(Screen::Load),
        "",
        "Load: offered and achieved rate, percentiles",
    ),
    bind(
        Global,
        &[(Char('9'), NONE)],
        "9",
        A::Go(Screen::Dashboards),
        "",
        "Dashboards: executive, operations, developer, infrastructure",
    ),
    bind(
        Global,
        &[(Char('0'), NONE)],
        "0",
        A::Go(Screen::Own),
        "",
        "Self: the agent's own state",
    ),
    bind(
        Global,
        &[(KeyCode::Tab, NONE)],
        "tab",
        A::NextScreen,
        "",
        "next screen",
    ),
    bind(
        Global,
        &[
            (KeyCode::BackTab, NONE),
            (KeyCode::BackTab, KeyModifiers::SHIFT),
        ],
        "shift-tab",
        A::PreviousScreen,
        "",
        "previous screen",
    ),
    bind(
        Global,
        &[(KeyCode::Enter, NONE)],
        "↵",
        A::Open,
        "open",
        "open the selected trace, or enlarge the selected panel",
    ),
    on(
        &[Screen::Latency, Screen::Dashboards],
        bind(
            Global,
            &[(Char('n'), NONE)],
            "n",
            A::NextChoice,
            "next",
            "next route or dashboard",
        ),
    ),
    on(
        &[Screen::Latency, Screen::Dashboards],
        bind(
            Global,
            &[(Char('N'), NONE), (Char('N'), KeyModifiers::SHIFT)],
            "N",
            A::PreviousChoice,
            "",
            "previous route or dashboard",
        ),
    ),
    on(
        &[Screen::Logs],
        bind(
            Global,
            &[(Char('v'), NONE)],
            "v",
            A::Severity,
            "severity",
            "least severity: all, info, warn, error",
        ),
    ),
    on(
        &[Screen::Latency, Screen::Traces],
        bind(
            Global,
            &[(Char('L'), NONE), (Char('L'), KeyModifiers::SHIFT)],
            "L",
            A::TraceLogs,
            "logs",
            "log records of the trace",
        ),
    ),
    bind(
        Global,
        &[(Char(' '), NONE)],
        "space",
        A::Pause,
        "pause",
        "pause at this instant; again to go on live",
    ),
    bind(
        Global,
        &[(Char('['), NONE)],
        "[",
        A::Narrower,
        "",
        "shorter range",
    ),
    bind(
        Global,
        &[(Char(']'), NONE)],
        "]",
        A::Wider,
        "range",
        "longer range",
    ),
    bind(
        Global,
        &[(KeyCode::Left, NONE), (Char('h'), NONE)],
        "←",
        A::Earlier,
        "",
        "back in time by a twentieth of the range (also h)",
    ),
    bind(
        Global,
        &[(KeyCode::Right, NONE), (Char('l'), NONE)],
        "→",
        A::Later,
        "scrub",
        "on in time (also l)",
    ),
    bind(Global, &[(Char('.'), NONE)], ".", A::Now, "", "back to now"),
    bind(
        Global,
        &[(KeyCode::Up, NONE), (Char('k'), NONE)],
        "k",
        A::Up,
        "",
        "row above (also the arrow)",
    ),
    bind(
        Global,
        &[(KeyCode::Down, NONE), (Char('j'), NONE)],
        "j",
        A::Down,
        "rows",
        "row below (also the arrow)",
    ),
    bind(
        Global,
        &[(Char('g'), NONE), (KeyCode::Home, NONE)],
        "g",
        A::First,
        "",
        "first row",
    ),
    bind(
        Global,
        &[
            (Char('G'), NONE),
            (Char('G'), KeyModifiers::SHIFT),
            (KeyCode::End, NONE),
        ],
        "G",
        A::Last,
        "",
        "last row",
    ),
    bind(
        Global,
        &[(Char('/'), NONE)],
        "/",
        A::Filter,
        "filter",
        "show only rows that hold a text",
    ),
    bind(
        Global,
        &[(Char('r'), CTRL)],
        "ctrl-r",
        A::Refresh,
        "",
        "fetch at once",
    ),
    bind(
        Global,
        &[(Char('t'), NONE)],
        "t",
        A::Theme,
        "",
        "next theme: dark, light, high-contrast, colour-blind, mono",
    ),
    bind(
        Global,
        &[(KeyCode::Esc, NONE)],
        "esc",
        A::Back,
        "",
        "close help, a panel, a trace, the filter",
    ),
    bind(
        Global,
        &[(Char('?'), NONE), (Char('?'), KeyModifiers::SHIFT)],
        "?",
        A::Help,
        "help",
        "these keys",
    ),
    bind(
        Global,
        &[(Char('q'), NONE), (Char('c'), CTRL)],
        "q",
        A::Quit,
        "quit",
        "leave (also ctrl-c)",
    ),
    bind(
        Filter,
        &[(KeyCode::Enter, NONE)],
        "↵",
        A::Accept,
        "accept",
        "keep the filter",
    ),
    bind(
        Filter,
        &[(KeyCode::Esc, NONE)],
        "esc",
        A::Cancel,
        "drop",
        "drop the filter",
    ),
    bind(
        Filter,
        &[(KeyCode::Backspace, NONE)],
        "backspace",
        A::Erase,
        "erase",
        "remove the last character",
    ),
    bind(
        Filter,
        &[(Char('c'), CTRL)],
        "ctrl-c",
        A::Quit,
        "quit",
        "leave",
    ),
];
