//! The index of the series in memory: which slots have which label.
//!
//! Owns postings (ascending slots of each label pair) and how matchers use them. Must not know samples or files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use model::matcher::RegexShape;
use model::{Labels, MatchOp, Matcher};

/// Ascending slots; most label pairs of a churning label have one.
#[derive(Debug, Clone)]
enum Slots {
    One(u32),
    Many(Vec<u32>),
}

// === impl Slots ===

impl Slots {
    fn as_slice(&self) -> &[u32] {
        match self {
            Slots::One(slot) => std::slice::from_ref(slot),
            Slots::Many(all) => all,
        }
    }

    fn insert(&mut self, slot: u32) {
        match self {
            Slots::One(first) if *first == slot => {}
            Slots::One(first) => *self = Slots::Many(vec![(*first).min(slot), (*first).max(slot)]),
            Slots::Many(all) => match all.last() {
                Some(last) if *last < slot => all.push(slot),
                _ => {
                    if let Err(at) = all.binary_search(&slot) {
                        all.insert(at, slot);
                    }
                }
            },
        }
    }
}

/// Values of one label, each with the slots that have it.
type Values = BTreeMap<Box<str>, Slots>;

/// Label pairs to slots.
#[derive(Debug, Default)]
pub(crate) struct Postings {
    names: HashMap<Box<str>, Values>,
}

// === impl Postings ===

impl Postings {
    pub(crate) fn insert(&mut self, slot: u32, labels: &Labels) {
        for (name, value) in labels {
            if !self.names.contains_key(name) {
                self.names.insert(name.into(), Values::new());
            }
            let Some(values) = self.names.get_mut(name) else {
                continue;
            };
            match values.get_mut(value) {
                Some(slots) => slots.insert(slot),
                None => {
                    values.insert(value.into(), Slots::One(slot));
                }
            }
        }
    }

    /// Forgets slots. O(index).
    pub(crate) fn remove(&mut self, gone: &HashSet<u32>) {
        for values in self.names.values_mut() {
            values.retain(|_, slots| match slots {
                Slots::One(slot) => !gone.contains(slot),
                Slots::Many(all) => {
                    all.retain(|slot| !gone.contains(slot));
                    !all.is_empty()
                }
            });
        }
        self.names.retain(|_, values| !values.is_empty());
    }

    /// How many slots have the pair.
    pub(crate) fn count(&self, name: &str, value: &str) -> usize {
        self.slots(name, value).len()
    }

    /// The slots that have the pair, ascending.
    pub(crate) fn slots(&self, name: &str, value: &str) -> &[u32] {
        self.names
            .get(name)
            .and_then(|values| values.get(value))
            .map_or(&[], Slots::as_slice)
    }

    pub(crate) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(AsRef::as_ref)
    }

    pub(crate) fn label_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.names
            .get(name)
            .into_iter()
            .flat_map(|values| values.keys().map(AsRef::as_ref))
    }

    /// Slots that can match, ascending, and whether every matcher has been applied. `None` when no matcher narrows
    /// anything: all slots are candidates.
    pub(crate) fn candidates(&self, matchers: &[Matcher]) -> Option<Vec<u32>> {
        let mut lists: Vec<Vec<u32>> = Vec::new();
        for matcher in matchers.iter().filter(|m| is_narrowing(m)) {
            let list = self.matching(matcher);
            if list.is_empty() {
                return Some(Vec::new());
            }
            lists.push(list);
        }
        intersect_all(lists)
    }

    fn matching(&self, matcher: &Matcher) -> Vec<u32> {
        let Some(values) = self.names.get(matcher.name.as_str()) else {
            return Vec::new();
        };
        let mut found: Vec<&[u32]> = Vec::new();
        match (matcher.op, matcher.regex_shape()) {
            (MatchOp::Equal, _) => {
                found.extend(values.get(matcher.value.as_str()).map(Slots::as_slice));
            }
            (MatchOp::Regex, Some(RegexShape::Literals(all))) => {
                found.extend(
                    all.iter()
                        .filter_map(|v| values.get(v.as_str()))
                        .map(Slots::as_slice),
                );
            }
            (MatchOp::Regex, Some(RegexShape::Prefix(prefix))) => {
                let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
                found.extend(
                    values
                        .range::<str, _>(from)
                        .take_while(|(v, _)| v.starts_with(prefix.as_str()))
                        .filter(|(v, _)| matcher.matches(v))
                        .map(|(_, s)| s.as_slice()),
                );
            }
            _ => found.extend(
                values
                    .iter()
                    .filter(|(v, _)| matcher.matches(v))
                    .map(|(_, s)| s.as_slice()),
            ),
        }
        union_all(found)
    }
}

/// Whether only series that have the label can match, so that postings say which.
pub(crate) fn is_narrowing(matcher: &Matcher) -> bool {
    !matcher.matches_empty()
}

/// The union of ascending lists that may overlap.
pub(crate) fn union_all(lists: Vec<&[u32]>) -> Vec<u32> {
    if let [only] = lists.as_slice() {
        return only.to_vec();
    }
    let mut all: Vec<u32> = lists.concat();
    all.sort_unstable();
    all.dedup();
    all
}

/// The intersection of ascending lists; `None` when there is no list.
pub(crate) fn intersect_all(mut lists: Vec<Vec<u32>>) -> Option<Vec<u32>> {
    lists.sort_by_key(Vec::len);
    let mut lists = lists.into_iter();
    let mut result = lists.next()?;
    for other in lists {
        if result.len() * 16 < other.len() {
            result.retain(|slot| other.binary_search(slot).is_ok());
        } else {
            let mut rest = other.iter().peekable();
            result.retain(|slot| {
                while rest.next_if(|o| *o < slot).is_some() {}
                rest.peek() == Some(&slot)
            });
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Postings {
        let mut index = Postings::default();
        for slot in 0..60u32 {
            let labels = Labels::from_pairs([
                ("__name__", if slot % 2 == 0 { "a" } else { "b" }.to_owned()),
                ("code", format!("{}0{}", 2 + slot % 3, slot % 5)),
            ]);
            index.insert(slot, &labels);
        }
        index
    }

    fn found(matchers: &[(&str, MatchOp, &str)]) -> Option<Vec<u32>> {
        let matchers: Vec<Matcher> = matchers
            .iter()
            .map(|(n, op, v)| Matcher::new(*n, *op, *v).unwrap())
            .collect();
        index().candidates(&matchers)
    }

    #[test]
    fn matchers_narrow_by_postings() {
        use MatchOp::{Equal, NotEqual, Regex};
        let expected: Vec<u32> = (0..60).filter(|s| s % 2 == 0 && s % 3 == 2).collect();
        assert_eq!(
            found(&[("__name__", Equal, "a"), ("code", Regex, "4..")]),
            Some(expected.clone())
        );
        assert_eq!(
            found(&[("__name__", Equal, "a"), ("code", Regex, ".*4.*|4.*")]),
            Some(
                (0..60)
                    .filter(|s| s % 2 == 0 && (s % 3 == 2 || s % 5 == 4))
                    .collect()
            )
        );
        assert_eq!(
            found(&[("code", Regex, "200|401"), ("__name__", Regex, "a|b")]),
            Some(
                (0..60)
                    .filter(|s| (s % 3 == 0 && s % 5 == 0) || (s % 3 == 2 && s % 5 == 1))
                    .collect()
            )
        );
        assert_eq!(found(&[("nope", Equal, "x")]), Some(vec![]));
        assert_eq!(found(&[("code", NotEqual, "200")]), None);
        assert_eq!(found(&[("nope", Equal, "")]), None);
    }

    #[test]
    fn intersection_of_uneven_lists() {
        let long: Vec<u32> = (0..1000).collect();
        assert_eq!(
            intersect_all(vec![long.clone(), vec![5, 2000]]),
            Some(vec![5])
        );
        assert_eq!(intersect_all(vec![long.clone(), long.clone()]), Some(long));
        assert_eq!(intersect_all(vec![]), None);
    }
}
