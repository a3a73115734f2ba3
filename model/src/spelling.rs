//! Suggestions for misspelt names: the known name that is near enough to be what was meant.
//!
//! Owns the distance and the limit, so that every parser suggests alike. Must not know what the names stand for.

/// The candidate nearest to `word` when it is near enough to be a slip: at most one edit for each three characters,
/// case aside. Of equally near ones, one that `word` begins, then the first in alphabetical order. Nothing is suggested
/// for words longer than 40 bytes. Time: candidates x their length x the word's.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 40 {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .map(|known| {
            let known_lower = known.to_ascii_lowercase();
            let begun = known_lower.starts_with(&lower);
            (distance(&lower, &known_lower), !begun, known)
        })
        .filter(|(d, ..)| *d <= limit)
        .min()
        .map(|(.., known)| known)
}

/// Edits from one word to the other: insert, delete, replace, swap of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
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
            ("raet", "rate", 1),
            ("abcd", "badc", 2),
        ] {
            assert_eq!(distance(a, b), d, "{a} {b}");
            assert_eq!(distance(b, a), d, "{b} {a}");
        }
    }

    #[test]
    fn nearest_is_a_slip_not_a_stranger() {
        let names = ["rate", "irate", "annotations", "histogram_quantile"];
        for (word, expected) in [
            ("histogram_quantlie", Some("histogram_quantile")),
            ("raet", Some("rate")),
            ("Annotation", Some("annotations")),
            ("severity", None),
            ("foo", None),
        ] {
            assert_eq!(nearest(word, names.into_iter()), expected, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(41), ["a"].into_iter()), None);
    }
}
