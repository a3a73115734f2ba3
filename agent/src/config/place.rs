//! Errors of configuration files as people can use them: the place, the line, what is expected, what was meant.
//!
//! Owns the wording. Must not know any setting: the expected names come with serde's error.

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
    let best = expected
        .iter()
        .map(|name| (distance(found, name), *name))
        .min()
        .filter(|(d, name)| *d <= 3.max(name.len() / 2));
    let hint = match best {
        Some((_, name)) => format!("did you mean `{name}`?"),
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

/// Edits between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in [
            ("", "", 0),
            ("a", "", 1),
            ("listen_on", "listen", 3),
            ("retension", "retention", 1),
        ] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
    }
}
