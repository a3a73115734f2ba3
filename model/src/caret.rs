//! A line of a text with carets under the place that is meant.
//!
//! Owns how such an excerpt is cut and printed, so that every message looks alike. Must not know what the text is.

use std::fmt;

/// How many characters of a line are shown.
const WINDOW: usize = 100;

/// A line and the characters marked in it. `Display` gives `"\n  LINE\n  ^^^"`: the line and the carets, each on a new
/// line and indented by two. Tabs are shown as one blank; of a line of more than 100 characters the part around the
/// place is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    shown: String,
    /// Characters before the first caret.
    indent: usize,
    width: usize,
}

impl Excerpt {
    /// Marks `width` characters of the line from `column` on (in characters, from 1). At least one and at most what the
    /// shown part has are marked.
    pub fn new(line: &str, column: usize, width: usize) -> Excerpt {
        let at = column.saturating_sub(1);
        let skip = match line.chars().nth(WINDOW) {
            Some(_) => at.saturating_sub(WINDOW / 2),
            None => 0,
        };
        let part = line.chars().skip(skip).take(WINDOW);
        let shown: String = part.map(|c| if c == '\t' { ' ' } else { c }).collect();
        let indent = at - skip;
        let room = shown.chars().count().saturating_sub(indent).max(1);
        let width = width.clamp(1, room);
        Excerpt {
            shown,
            indent,
            width,
        }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (blank, marks) = (" ".repeat(self.indent), "^".repeat(self.width));
        write!(f, "\n  {}\n  {blank}{marks}", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_stand_under_the_place() {
        for (line, column, width, want) in [
            ("a: bc", 4, 2, "\n  a: bc\n     ^^"),
            ("\ta: bc", 2, 1, "\n   a: bc\n   ^"),
            ("ab", 2, 9, "\n  ab\n   ^"),
            ("ab", 1, 0, "\n  ab\n  ^"),
            ("ab", 3, 1, "\n  ab\n    ^"),
            ("", 1, 5, "\n  \n  ^"),
            ("äöü x", 5, 1, "\n  äöü x\n      ^"),
        ] {
            assert_eq!(Excerpt::new(line, column, width).to_string(), want);
        }
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        for at in [0, 40, 99, 100, 500, 999] {
            let line = format!("{}?{}", "a".repeat(at), "b".repeat(1000 - at));
            let shown = Excerpt::new(&line, at + 1, 1).to_string();
            let lines: Vec<&str> = shown.lines().collect();
            assert_eq!(lines[1].find('?'), lines[2].find('^'), "{at}");
            assert!(lines[1].len() <= WINDOW + 2);
        }
    }
}
