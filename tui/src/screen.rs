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
    /// Latency over time: heat map, percentiles, exemplars.
    Latency,
    /// Traces and one trace's waterfall.
    Traces,
    /// Alerts and their log.
    Alerts,
    /// Log records as they come.
    Logs,
    /// The running load.
    Load,
    /// The dashboards.
    Dashboards,
    /// The agent itself.
    Own,
}

// === impl Screen ===

impl Screen {
    /// All, in the order of tabs.
    pub const ALL: [Screen; 10] = [
        Screen::Overview,
        Screen::Services,
        Screen::Resources,
        Screen::Latency,
        Screen::Traces,
        Screen::Alerts,
        Screen::Logs,
        Screen::Load,
        Screen::Dashboards,
        Screen::Own,
    ];

    /// The key of its tab.
    #[must_use]
    pub fn digit(self) -> char {
        match self {
            Screen::Overview => '1',
            Screen::Services => '2',
            Screen::Resources => '3',
            Screen::Latency => '4',
            Screen::Traces => '5',
            Screen::Alerts => '6',
            Screen::Logs => '7',
            Screen::Load => '8',
            Screen::Dashboards => '9',
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
            Screen::Latency => "Latency",
            Screen::Traces => "Traces",
            Screen::Alerts => "Alerts",
            Screen::Logs => "Logs",
            Screen::Load => "Load",
            Screen::Dashboards => "Dashboards",
            Screen::Own => "Self",
        }
    }

    /// Its name where tabs have little room: three or four letters.
    #[must_use]
    pub(crate) fn short_title(self) -> &'static str {
        match self {
            Screen::Overview => "Over",
            Screen::Services => "Serv",
            Screen::Resources => "Res",
            Screen::Latency => "Lat",
            Screen::Traces => "Trace",
            Screen::Alerts => "Alert",
            Screen::Logs => "Logs",
            Screen::Load => "Load",
            Screen::Dashboards => "Dash",
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
