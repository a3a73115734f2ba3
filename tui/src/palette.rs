//! Which colours and characters the terminal has, from the environment.
//!
//! Owns that reading of `NO_COLOR`, `COLORTERM`, `TERM` and the locale. Must not know themes.

use std::ffi::OsString;

/// The colours that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Palette {
    /// What the environment says.
    #[default]
    Auto,
    /// None.
    Off,
    /// The 16 classic ones, by their classic codes.
    Classic,
    /// 256, by number.
    Indexed,
}

// === impl Palette ===

impl Palette {
    /// The palette of a name: `auto`, `off`, `16`, `256`.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Palette::Auto),
            "off" => Some(Palette::Off),
            "16" => Some(Palette::Classic),
            "256" => Some(Palette::Indexed),
            _ => None,
        }
    }

    /// `self`, with the environment's answer in the place of [`Palette::Auto`].
    pub(crate) fn resolved(self) -> Self {
        match self {
            Palette::Auto => detect(|name| std::env::var_os(name)),
            other => other,
        }
    }
}

fn text(get: &impl Fn(&str) -> Option<OsString>, name: &str) -> String {
    let value = get(name).unwrap_or_default();
    value.to_string_lossy().to_ascii_lowercase()
}

fn detect(get: impl Fn(&str) -> Option<OsString>) -> Palette {
    let term = text(&get, "TERM");
    if !text(&get, "NO_COLOR").is_empty() || term == "dumb" {
        return Palette::Off;
    }
    let many = [
        "256",
        "direct",
        "truecolor",
        "kitty",
        "alacritty",
        "ghostty",
        "foot",
        "wezterm",
    ];
    if !text(&get, "COLORTERM").is_empty() || many.iter().any(|m| term.contains(m)) {
        return Palette::Indexed;
    }
    match term.starts_with("vt1") || term.starts_with("vt2") || term.ends_with("-m") {
        true => Palette::Off,
        false => Palette::Classic,
    }
}

/// Whether the locale names a character set that is not UTF-8. Without any locale the terminal is taken to know UTF-8.
#[must_use]
pub fn locale_is_ascii() -> bool {
    ascii(|name| std::env::var_os(name))
}

fn ascii(get: impl Fn(&str) -> Option<OsString>) -> bool {
    let all = ["LC_ALL", "LC_CTYPE", "LANG"].map(|name| text(&get, name));
    let first = all.iter().find(|value| !value.is_empty());
    first.is_some_and(|value| !value.contains("utf-8") && !value.contains("utf8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(all: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| {
            all.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| OsString::from(v))
        }
    }

    #[test]
    fn the_environment_says_which_colours_there_are() {
        for (vars, wanted) in [
            (&[("TERM", "xterm-256color")][..], Palette::Indexed),
            (
                &[("TERM", "xterm"), ("COLORTERM", "truecolor")],
                Palette::Indexed,
            ),
            (&[("TERM", "xterm")], Palette::Classic),
            (&[("TERM", "linux")], Palette::Classic),
            (&[], Palette::Classic),
            (&[("TERM", "vt220")], Palette::Off),
            (&[("TERM", "dumb")], Palette::Off),
            (
                &[("TERM", "xterm-256color"), ("NO_COLOR", "1")],
                Palette::Off,
            ),
            (
                &[("TERM", "xterm-256color"), ("NO_COLOR", "")],
                Palette::Indexed,
            ),
        ] {
            assert_eq!(detect(env(vars)), wanted, "{vars:?}");
        }
    }

    #[test]
    fn the_locale_says_which_characters_there_are() {
        for (vars, wanted) in [
            (&[][..], false),
            (&[("LANG", "en_US.UTF-8")], false),
            (&[("LANG", "C.utf8")], false),
            (&[("LANG", "C")], true),
            (&[("LANG", "de_DE.ISO-8859-1")], true),
            (&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")], true),
            (&[("LC_ALL", ""), ("LANG", "en_US.UTF-8")], false),
        ] {
            assert_eq!(ascii(env(vars)), wanted, "{vars:?}");
        }
    }
}
