//! Colours by role.
//!
//! Owns themes. Colours are the terminal's own 16 (the colour-blind theme: 256), so that they fit its background; state is
//! never told by colour alone. Must not know what is drawn.

use ratatui::style::{Color, Modifier, Style};

/// A theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    /// For dark backgrounds.
    #[default]
    Dark,
    /// For light backgrounds.
    Light,
    /// Bright and bold only.
    HighContrast,
    /// Blue, orange and yellow instead of green and red (Okabe and Ito).
    ColourBlind,
    /// No colour at all.
    Mono,
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Text,
    Dim,
    Title,
    Border,
    Accent,
    Good,
    Warn,
    Bad,
    Series(usize),
    /// How much, 1 to 5.
    Heat(usize),
}

// === impl Theme ===

impl Theme {
    /// All, in the order of the key that changes them.
    pub const ALL: [Theme; 5] = [
        Theme::Dark,
        Theme::Light,
        Theme::HighContrast,
        Theme::ColourBlind,
        Theme::Mono,
    ];

    /// The theme of a name: `dark`, `light`, `high-contrast`, `colour-blind`, `mono`.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Theme::ALL.into_iter().find(|t| t.name() == text)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Theme::Dark => "dark",
            Theme::Light => "light",
            Theme::HighContrast => "high-contrast",
            Theme::ColourBlind => "colour-blind",
            Theme::Mono => "mono",
        }
    }

    /// `self`, or mono where `NO_COLOR` is set and not empty or the terminal is `dumb`.
    #[must_use]
    pub fn from_env(self) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        if no_color || dumb { Theme::Mono } else { self }
    }

    /// Colours of little to much.
    fn heat(self) -> [Color; 5] {
        match self {
            Theme::Light => [
                Color::Cyan,
                Color::Blue,
                Color::Green,
                Color::Magenta,
                Color::Red,
            ],
            Theme::HighContrast => [
                Color::LightBlue,
                Color::LightCyan,
                Color::LightGreen,
                Color::LightYellow,
                Color::White,
            ],
            Theme::ColourBlind => [61, 31, 37, 148, 226].map(Color::Indexed),
            _ => [
                Color::Blue,
                Color::Cyan,
                Color::Green,
                Color::Yellow,
                Color::Red,
            ],
        }
    }

    pub(crate) fn next(self) -> Self {
        let at = Theme::ALL.iter().position(|t| *t == self).unwrap_or(0);
        Theme::ALL[(at + 1) % Theme::ALL.len()]
    }

    pub(crate) fn style(self, role: Role) -> Style {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        if self == Theme::Mono {
            return match role {
                Role::Title | Role::Accent | Role::Bad | Role::Warn => bold,
                Role::Dim | Role::Border => plain.add_modifier(Modifier::DIM),
                _ => plain,
            };
        }
        let series = match self {
            Theme::ColourBlind => [33, 208, 226, 45, 175].map(Color::Indexed),
            Theme::Light => [
                Color::Blue,
                Color::Magenta,
                Color::Red,
                Color::Green,
                Color::Cyan,
            ],
            _ => [
                Color::Cyan,
                Color::Magenta,
                Color::Yellow,
                Color::Green,
                Color::Blue,
            ],
        };
        let (good, warn, bad, accent, dim) = match self {
            Theme::Light => (
                Color::Green,
                Color::Magenta,
                Color::Red,
                Color::Blue,
                Color::DarkGray,
            ),
            Theme::HighContrast => (
                Color::LightGreen,
                Color::LightYellow,
                Color::LightRed,
                Color::White,
                Color::White,
            ),
            Theme::ColourBlind => (
                Color::Indexed(39),
                Color::Indexed(226),
                Color::Indexed(208),
                Color::Indexed(117),
                Color::Gray,
            ),
            _ => (
                Color::Green,
                Color::Yellow,
                Color::Red,
                Color::Cyan,
                Color::Gray,
            ),
        };
        match role {
            Role::Text => plain,
            Role::Dim | Role::Border => plain.fg(dim),
            Role::Title => bold,
            Role::Accent => bold.fg(accent),
            Role::Good => plain.fg(good),
            Role::Warn => bold.fg(warn),
            Role::Bad => bold.fg(bad),
            Role::Series(n) => plain.fg(series[n % series.len()]),
            Role::Heat(n) => plain.fg(self.heat()[n.clamp(1, 5) - 1]),
        }
    }
}
