//! What is wrong in a file that a person wrote: the place, the line with a caret, what was expected, a guess.
//!
//! Owns how such an error reads and how YAML errors become one. Must not know what any file means.

use std::fmt;

use model::caret::Excerpt;
use model::spelling::nearest;

/// A mistake in a file. `Display` gives `file:line:column: message`, the line, a caret, and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The file's name as given.
    pub file: String,
    /// Line from 1; 0 when the place is unknown.
    pub line: usize,
    /// Column in characters from 1; 0 when the place is unknown.
    pub column: usize,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    source_line: Option<String>,
    width: usize,
}

impl std::error::Error for FileError {}

/// A place in a text: line and column in characters, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        let number = |n: u64| usize::try_from(n).unwrap_or(0);
        Place {
            line: number(location.line()),
            column: number(location.column()),
        }
    }
}

// === impl FileError ===

impl FileError {
    pub(crate) fn at(file: &str, text: &str, place: Place, message: impl Into<String>) -> Self {
        FileError {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            message: message.into(),
            hint: None,
            source_line: place
                .line
                .checked_sub(1)
                .and_then(|i| text.lines().nth(i))
                .map(str::to_owned),
            width: 1,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn width(mut self, width: usize) -> Self {
        self.width = width;
        self
    }

    /// A mistake that has no place, such as a file that cannot be read.
    #[must_use]
    pub fn whole_file(file: &str, message: impl Into<String>) -> Self {
        FileError::at(file, "", Place::default(), message)
    }

    /// Turns a YAML error into ours: unknown keys get a guess at what was meant.
    pub(crate) fn from_yaml(file: &str, text: &str, error: &serde_saphyr::Error) -> Self {
        let plain = error.without_snippet();
        let place = plain.location().map(Place::from).unwrap_or_default();
        if let serde_saphyr::Error::SerdeUnknownField {
            field, expected, ..
        } = plain
        {
            let place = find_key(text, place, field);
            let out = FileError::at(file, text, place, format!("unknown key {field:?}"))
                .width(field.chars().count());
            let known = expected.join(", ");
            return match nearest(field, expected.iter().copied()) {
                Some(guess) => out.hint(format!("did you mean {guess:?}? (known: {known})")),
                None => out.hint(format!("known keys: {known}")),
            };
        }
        let message = plain.to_string();
        let message = message
            .lines()
            .next()
            .unwrap_or("not valid YAML")
            .trim()
            .to_owned();
        let message = match message.rfind(" at line ") {
            Some(at) => message[..at].to_owned(),
            None => message,
        };
        FileError::at(file, text, place, message)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.message)?;
        } else {
            write!(
                f,
                "{}:{}:{}: {}",
                self.file, self.line, self.column, self.message
            )?;
        }
        if let Some(line) = &self.source_line {
            write!(f, "{}", Excerpt::new(line, self.column, self.width))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  {hint}")?;
        }
        Ok(())
    }
}

/// The parser may point at the mapping; the key itself is on that line or a later one.
fn find_key(text: &str, from: Place, key: &str) -> Place {
    let start = from.line.saturating_sub(1);
    for (number, line) in text.lines().enumerate().skip(start) {
        let trimmed = line.trim_start().trim_start_matches("- ").trim_start();
        let bare = trimmed.trim_start_matches(['"', '\'']);
        if bare.strip_prefix(key).is_some_and(|r| {
            r.trim_start_matches(['"', '\''])
                .trim_start()
                .starts_with(':')
        }) {
            let column = line.chars().count() - trimmed.chars().count() + 1;
            return Place {
                line: number + 1,
                column,
            };
        }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_place_and_the_hint() {
        let text = "groups:\n- nme: x\n";
        let error = FileError::at("r.yaml", text, Place { line: 2, column: 3 }, "unknown key")
            .width(3)
            .hint("did you mean \"name\"?");
        assert_eq!(
            error.to_string(),
            "r.yaml:2:3: unknown key\n  - nme: x\n    ^^^\n  did you mean \"name\"?"
        );
        assert_eq!(
            FileError::whole_file("x", "cannot be read").to_string(),
            "x: cannot be read"
        );
    }
}
