//! Owns how a mistake in a script reads: the place, the line with a caret, what was expected, a guess.
//! Must not know what any key means.

use std::fmt;
use std::sync::Arc;

use model::caret::Excerpt;

/// A text that positions point into.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A place in a source: line and column in characters, both from 1, and the characters to underline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) source: Arc<Source>,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) width: usize,
}

/// A mistake in a script. `Display` gives `file:line:column: message`, the line, a caret, and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    place: Option<Place>,
    file: String,
    message: String,
    hint: Option<String>,
}

impl std::error::Error for Mistake {}

impl Mistake {
    pub(crate) fn at(place: &Place, message: impl Into<String>) -> Mistake {
        Mistake {
            place: Some(place.clone()),
            file: place.source.name.clone(),
            message: message.into(),
            hint: None,
        }
    }

    /// A mistake that has no place, such as a file that cannot be read.
    pub(crate) fn file(file: &str, message: impl Into<String>) -> Mistake {
        Mistake {
            place: None,
            file: file.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Mistake {
        self.hint = Some(hint.into());
        self
    }

    /// Line from 1; 0 when the mistake has no place.
    pub fn line(&self) -> usize {
        self.place.as_ref().map_or(0, |p| p.line)
    }

    /// Column in characters from 1; 0 when the mistake has no place.
    pub fn column(&self) -> usize {
        self.place.as_ref().map_or(0, |p| p.column)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            None => write!(f, "{}: {}", self.file, self.message)?,
            Some(p) => {
                write!(f, "{}:{}:{}: {}", self.file, p.line, p.column, self.message)?;
                let line = p.source.text.lines().nth(p.line.saturating_sub(1));
                let excerpt = Excerpt::new(line.unwrap_or_default(), p.column, p.width);
                write!(f, "{excerpt}")?;
            }
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}
