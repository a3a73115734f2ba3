//! The screens that there are.
//!
//! Owns their names, digits and order. Must not know what they show.

/// A screen; its digit is its tab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Screen {
    /// Everything at a glance.
    #[default]
    Overview,
    /// RED by service and route.
    Services,
    /// USE by resource.
    Resources,
    /// Traces and one trace's waterfall.
    Traces,
    /// Alerts and their log.
    Alerts,
    /// The running load.
    Load,
    /// The agent itself.
    Own,
}

// === impl Screen ===

impl Screen {
    /// All, in the order of tabs.
    pub const ALL: [Screen; 7] = [
        Screen::Overview,
        Screen::Services,
        Screen::Resources,
        Screen::Traces,
        Screen::Alerts,
        Screen::Load,
        Screen::Own,
    ];

    /// The key of its tab.
    #[must_use]
    pub fn digit(self) -> char {
        match self {
            Screen::Overview => '1',
            Screen::Services => '2',
            Screen::Resources => '3',
            Screen::Traces => '5',
            Screen::Alerts => '6',
            Screen::Load => '8',
            Screen::Own => '0',
        }
    }

    /// Its name on the tab.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Screen::Overview => "Overview",
            Screen::Services => "Services",
            Screen::Resources => "Resources",
            Screen::Traces => "Traces",
            Screen::Alerts => "Alerts",
            Screen::Load => "Load",
            Screen::Own => "Self",
        }
    }

    /// The screen of a name (any case) or digit.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        let is =
            |s: &&Screen| s.title().eq_ignore_ascii_case(text) || s.digit().to_string() == text;
        Screen::ALL.iter().find(is).copied()
    }

    /// The one `by` tabs further, around the end.
    #[must_use]
    pub(crate) fn step(self, by: usize) -> Self {
        let at = Screen::ALL.iter().position(|s| *s == self).unwrap_or(0);
        Screen::ALL[(at + by) % Screen::ALL.len()]
    }
}
