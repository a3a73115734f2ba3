//! Errors of configuration files as people can use them: the place, the line, what is expected, what was meant.
//!
//! Owns the wording. Must not know any setting: the expected names come with serde's error.

use model::spelling::nearest;

/// Describes an error of the file `file` with the content `text`.
pub(super) fn describe(file: &str, text: &str, error: &serde_saphyr::Error) -> String {
    let message = error.to_string();
    let summary = summary(&message);
    let Some(location) = error.location() else {
        return format!("{file}: {summary}");
    };
    let (line, column) = (location.line(), location.column());
    let source = usize::try_from(line)
        .ok()
        .and_then(|l| text.lines().nth(l.saturating_sub(1)))
        .unwrap_or("");
    let caret = " ".repeat(usize::try_from(column).unwrap_or(1).saturating_sub(1));
    format!("{file}:{line}:{column}: {summary}\n  {source}\n  {caret}^")
}

/// The first line of serde's message, with a suggestion when it is about an unknown name.
fn summary(message: &str) -> String {
    let first = message.lines().next().unwrap_or("");
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let first = match first.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        _ => first,
    };
    let Some((found, expected)) = unknown_field(first) else {
        return first.to_owned();
    };
    let best = nearest(found, expected.iter().copied());
    let hint = match best {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("expected one of: {}", expected.join(", ")),
    };
    format!("unknown setting `{found}`; {hint}")
}

/// The names in "unknown field `a`, expected one of b, c".
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (found, rest) = rest.split_once('`')?;
    let (_, names) = rest.split_once("expected ")?;
    let names = names.strip_prefix("one of ").unwrap_or(names);
    Some((
        found,
        names.split(", ").map(|n| n.trim_matches('`')).collect(),
    ))
}
