//! Order of a screen's table by one of its columns.
//!
//! Owns that order: the largest number first and texts from a to z, or the reverse; what is absent comes last. Must not
//! know what rows are.

use std::cmp::Ordering;

use crate::app::App;

/// Which column, and whether in reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// The column's number in the screen's table.
    pub column: usize,
    /// Smallest number first, texts from z to a.
    pub reversed: bool,
}

/// What a row is ordered by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Key {
    Number(f64),
    Text(String),
    Absent,
}

impl From<Option<f64>> for Key {
    fn from(value: Option<f64>) -> Self {
        match value.filter(|v| !v.is_nan()) {
            Some(v) => Key::Number(v),
            None => Key::Absent,
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        match text.is_empty() {
            true => Key::Absent,
            false => Key::Text(text.to_lowercase()),
        }
    }
}

fn compare(a: &Key, b: &Key, reversed: bool) -> Ordering {
    let order = match (a, b) {
        (Key::Absent, Key::Absent) => return Ordering::Equal,
        (Key::Absent, _) => return Ordering::Greater,
        (_, Key::Absent) => return Ordering::Less,
        (Key::Number(a), Key::Number(b)) => b.total_cmp(a),
        (Key::Text(a), Key::Text(b)) => a.cmp(b),
        (Key::Number(_), Key::Text(_)) => Ordering::Less,
        (Key::Text(_), Key::Number(_)) => Ordering::Greater,
    };
    if reversed { order.reverse() } else { order }
}

/// Rows in the order that is chosen; as they are when none is. Rows that are equal keep their order.
pub(crate) fn sorted<'a, T>(
    app: &App,
    mut rows: Vec<&'a T>,
    key: fn(&T, usize) -> Key,
) -> Vec<&'a T> {
    if let Some(sort) = app.sort {
        rows.sort_by(|a, b| compare(&key(a, sort.column), &key(b, sort.column), sort.reversed));
    }
    rows
}

/// The order after this one: the next column, and after the last of `columns` none.
pub(crate) fn next(sort: Option<Sort>, columns: usize) -> Option<Sort> {
    let column = sort.map_or(0, |s| s.column + 1);
    (column < columns).then_some(Sort {
        column,
        reversed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_last_in_both_directions() {
        let keys = |reversed| {
            let mut all = vec![
                Key::from(None),
                Key::from(Some(1.0)),
                Key::from(Some(3.0)),
                Key::from(Some(f64::NAN)),
            ];
            all.sort_by(|a, b| compare(a, b, reversed));
            all
        };
        let [one, three, absent] = [Key::Number(1.0), Key::Number(3.0), Key::Absent];
        assert_eq!(
            keys(false),
            [three.clone(), one.clone(), absent.clone(), absent.clone()]
        );
        assert_eq!(keys(true), [one, three, absent.clone(), absent]);
        assert_eq!(
            compare(&Key::from("A"), &Key::from("b"), false),
            Ordering::Less
        );
    }

    #[test]
    fn after_the_last_column_comes_the_first_order() {
        let mut at = None;
        let columns: Vec<_> = (0..4)
            .map(|_| {
                at = next(at, 3);
                at.map(|s| s.column)
            })
            .collect();
        assert_eq!(columns, [Some(0), Some(1), Some(2), None]);
    }
}
