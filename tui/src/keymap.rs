//! The keys: one table for input, footer, help and the documentation.
//!
//! Owns what each key does by name. Must not know how.

use crossterm::event::{KeyCode, KeyModifiers};

use crate::screen::Screen;

/// Where a key is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere but in the filter's line.
    Global,
    /// While the filter is typed.
    Filter,
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave the program.
    Quit,
    /// Show or hide the keys.
    Help,
    /// Close what is open.
    Back,
    /// Go to a screen.
    Go(Screen),
    /// Go to the next screen.
    NextScreen,
    /// Go to the previous screen.
    PreviousScreen,
    /// Stop at this instant, or go on live.
    Pause,
    /// Go back to now.
    Now,
    /// Back in time by a twentieth of the range.
    Earlier,
    /// On in time by a twentieth of the range.
    Later,
    /// A shorter range.
    Narrower,
    /// A longer range.
    Wider,
    /// The row above.
    Up,
    /// The row below.
    Down,
    /// The first row.
    First,
    /// The last row.
    Last,
    /// Open the row.
    Open,
    /// Type a filter.
    Filter,
    /// Accept the filter.
    Accept,
    /// Drop the filter.
    Cancel,
    /// Remove the filter's last character.
    Erase,
    /// Fetch at once.
    Refresh,
    /// The next theme.
    Theme,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// Where.
    pub scope: Scope,
    /// The keys, all of which do it.
    pub keys: &'static [(KeyCode, KeyModifiers)],
    /// The keys as they are written.
    pub shown: &'static str,
    /// What they do.
    pub action: Action,
    /// What they do, in words.
    pub help: &'static str,
    /// The word in the footer; empty for none.
    pub footer: &'static str,
}

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
        &[(Char('8'), NONE)],
        "8",
        A::Go(Screen::Load),
        "",
        "Load: offered and achieved rate, percentiles",
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
        "open the selected trace",
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
        "close help, a trace, the filter",
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

/// What a key does in a scope.
#[must_use]
pub(crate) fn lookup(scope: Scope, code: KeyCode, modifiers: KeyModifiers) -> Option<Action> {
    let hit = |b: &&Binding| b.scope == scope && b.keys.contains(&(code, modifiers));
    KEYMAP.iter().find(hit).map(|b| b.action)
}

/// The table as Markdown, for `docs/top.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("| key | does |\n|---|---|\n");
    for b in KEYMAP {
        let place = if b.scope == Filter {
            "while typing a filter: "
        } else {
            ""
        };
        out.push_str(&format!("| `{}` | {place}{} |\n", b.shown, b.help));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_bound_twice_in_a_scope() {
        let mut seen = Vec::new();
        for b in KEYMAP {
            for key in b.keys {
                assert!(!seen.contains(&(b.scope, *key)), "{key:?} twice");
                seen.push((b.scope, *key));
            }
        }
    }

    #[test]
    fn every_screen_has_its_digit() {
        for screen in Screen::ALL {
            assert_eq!(
                lookup(Global, Char(screen.digit()), NONE),
                Some(A::Go(screen))
            );
        }
    }

    /// Set `UPDATE_FILES=1` to write it.
    #[test]
    fn the_documentation_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/top.md");
        let docs = std::fs::read_to_string(path).unwrap();
        let (before, rest) = docs.split_once("<!-- keys -->\n").unwrap();
        let (_, after) = rest.split_once("<!-- /keys -->").unwrap();
        let wanted = format!("{before}<!-- keys -->\n{}<!-- /keys -->{after}", markdown());
        if std::env::var_os("UPDATE_FILES").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == wanted,
            "docs/top.md has drifted: run with UPDATE_FILES=1"
        );
    }
}
