//! The keys: one table for input, footer, help and the documentation.
//!
//! Owns what each key does by name. Must not know how.

mod table;

use crossterm::event::{KeyCode, KeyModifiers};

use crate::screen::Screen;
pub use table::KEYMAP;

/// Where a key is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere but in the filter's line.
    Global,
    /// While the filter is typed.
    Filter,
    /// While a box is filled in.
    Form,
    /// While a box waits for yes or no.
    Confirm,
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
    /// The next route or dashboard.
    NextChoice,
    /// The previous route or dashboard.
    PreviousChoice,
    /// The next least severity.
    Severity,
    /// The log records of a trace.
    TraceLogs,
    /// Type a range.
    Range,
    /// Order rows by the next column.
    Sort,
    /// Reverse that order.
    Reverse,
    /// Write the screen's data to a file as JSON.
    ExportJson,
    /// Write the screen to a file as Markdown.
    ExportMarkdown,
    /// Acknowledge the selected alert.
    Ack,
    /// Silence all alerts of the selected one's name.
    Silence,
    /// End the silence of the selected alert.
    EndSilence,
    /// The next field of a box.
    NextField,
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
    /// Where it does something; empty for everywhere.
    pub on: &'static [Screen],
}

// === impl Action ===

impl Action {
    /// Whether it changes something on the agent.
    pub(crate) fn changes(self) -> bool {
        matches!(self, Action::Ack | Action::Silence | Action::EndSilence)
    }
}

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
        let on: Vec<String> = b.on.iter().map(|s| s.digit().to_string()).collect();
        let on = match on.is_empty() {
            true => String::new(),
            false => format!("on {}: ", on.join(", ")),
        };
        let place = match b.scope {
            Scope::Global => "",
            Scope::Filter => "while typing a filter: ",
            Scope::Form => "in a box: ",
            Scope::Confirm => "in a box, when asked: ",
        };
        out.push_str(&format!("| `{}` | {place}{on}{} |\n", b.shown, b.help));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use KeyCode::Char;
    use Scope::Global;

    const NONE: KeyModifiers = KeyModifiers::NONE;

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
                Some(Action::Go(screen))
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
