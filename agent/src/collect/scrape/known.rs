//! [`Known`]: the series that a target had at the scrape before, by their text in the body.
//!
//! Owns the cache, and the guess which series comes next: exporters write theirs in one order, so that most are found by
//! one comparison with the text that followed last time. Must not know values, nor where samples go.

use std::collections::HashMap;
use std::sync::Arc;

use model::Labels;
use store::SeriesId;

use super::super::derive::Role;
use super::super::quick_hash::Seed;

/// Stands for no series.
const NONE: u32 = u32::MAX;

/// A series.
pub(super) struct Entry {
    /// As the body writes it; empty when the place is free.
    text: Arc<str>,
    pub(super) labels: Labels,
    pub(super) role: Option<Role>,
    /// Had no timestamp of its own, so its end must be marked.
    pub(super) tracked: bool,
    /// What the store calls it, once that is known.
    pub(super) id: Option<SeriesId>,
    /// The scrape that had it last.
    round: u64,
    /// Which one followed it last time.
    next: u32,
}

/// All of them.
pub(super) struct Known {
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_text: HashMap<Arc<str>, u32, Seed>,
    round: u64,
    /// Series of this round so far.
    seen: usize,
    /// The series before, or [`NONE`] at the start of a body.
    last: u32,
    /// The first series of the body.
    first: u32,
    /// Series that are new in this round, until it ends.
    added: Vec<u32>,
    /// Whether the round that ended last had new series.
    grew: bool,
}

// === impl Known ===

impl Known {
    pub(super) fn new() -> Self {
        Known {
            entries: Vec::new(),
            free: Vec::new(),
            by_text: HashMap::with_hasher(Seed::random()),
            round: 0,
            seen: 0,
            last: NONE,
            first: NONE,
            added: Vec::new(),
            grew: false,
        }
    }

    /// Begins a body.
    pub(super) fn begin(&mut self) {
        self.round += 1;
        self.seen = 0;
        self.last = NONE;
        self.added.clear();
    }

    /// The text of the series that is likely to come next, or empty.
    #[inline]
    pub(super) fn expected(&self) -> &str {
        let at = self.guess();
        self.entries.get(at as usize).map_or("", |e| &e.text)
    }

    fn guess(&self) -> u32 {
        let last = self.entries.get(self.last as usize);
        last.map_or(self.first, |last| last.next)
    }

    /// The series with this text, if it is known; it is the one before the next then.
    #[inline]
    pub(super) fn find(&mut self, text: &str) -> Option<u32> {
        let guess = self.guess();
        let at = match self.entries.get(guess as usize) {
            Some(entry) if *entry.text == *text => guess,
            _ => {
                let at = *self.by_text.get(text)?;
                self.follow(at);
                at
            }
        };
        self.last = at;
        let entry = &mut self.entries[at as usize];
        self.seen += usize::from(entry.round != self.round);
        entry.round = self.round;
        Some(at)
    }

    /// Adds a series that is not known.
    pub(super) fn add(&mut self, text: &str, labels: Labels, role: Option<Role>) -> u32 {
        let entry = Entry {
            text: Arc::from(text),
            labels,
            role,
            tracked: true,
            id: None,
            round: self.round,
            next: NONE,
        };
        let key = Arc::clone(&entry.text);
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.by_text.insert(key, at);
        self.follow(at);
        self.last = at;
        self.seen += 1;
        self.added.push(at);
        at
    }

    fn follow(&mut self, at: u32) {
        match self.entries.get_mut(self.last as usize) {
            Some(last) => last.next = at,
            None => self.first = at,
        }
    }

    pub(super) fn get(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }

    pub(super) fn get_mut(&mut self, at: u32) -> &mut Entry {
        &mut self.entries[at as usize]
    }

    /// Whether the round that ended last had series that were not known before it.
    pub(super) fn grew(&self) -> bool {
        self.grew
    }

    /// There was no body, or it was not one: its new series are forgotten, and none of the others was in it.
    pub(super) fn fail(&mut self) {
        for at in std::mem::take(&mut self.added) {
            self.remove(at);
        }
        self.begin();
    }

    /// Forgets the series that were not in this round's body; `ended` gets those whose end must be marked.
    pub(super) fn end_round(&mut self, mut ended: impl FnMut(Labels)) {
        self.grew = !self.added.is_empty();
        self.added.clear();
        if self.seen == self.by_text.len() {
            return;
        }
        for at in 0..self.entries.len() as u32 {
            let entry = &self.entries[at as usize];
            if entry.text.is_empty() || entry.round == self.round {
                continue;
            }
            if entry.tracked {
                ended(entry.labels.clone());
            }
            self.remove(at);
        }
    }

    fn remove(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        self.by_text.remove(&entry.text);
        (entry.text, entry.labels) = (Arc::from(""), Labels::empty());
        self.free.push(at);
    }

    /// The series that are known and whose end must be marked.
    pub(super) fn tracked(&self) -> impl Iterator<Item = &Labels> {
        let all = self.entries.iter().filter(|e| !e.text.is_empty());
        all.filter(|e| e.tracked).map(|e| &e.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body of one-letter series; returns how many were found by the guess alone.
    fn read(known: &mut Known, body: &str) -> usize {
        known.begin();
        let mut guessed = 0;
        for text in body.split(' ') {
            guessed += usize::from(known.expected() == text);
            if known.find(text).is_none() {
                known.add(text, Labels::from_pairs([("__name__", text)]), None);
            }
        }
        guessed
    }

    fn ended(known: &mut Known) -> Vec<String> {
        let mut out = Vec::new();
        known.end_round(|labels| out.push(labels.name().to_owned()));
        out
    }

    #[test]
    fn the_order_is_learned_and_what_vanishes_is_told() {
        let mut known = Known::new();
        for (body, guessed, gone, added) in [
            ("a b c d", 0, "", 4),
            ("a b c d", 4, "", 0),
            // A series in between breaks the guess once, there and behind.
            ("a b x c d", 3, "", 1),
            ("a b x c d", 5, "", 0),
            ("b x c d", 3, "a", 0),
            ("b x d c", 2, "", 0),
            ("e b x b", 1, "c d", 1),
        ] {
            assert_eq!(read(&mut known, body), guessed, "{body}");
            assert_eq!(known.added.len(), added, "{body}");
            let mut names = ended(&mut known);
            assert_eq!(known.grew(), added > 0);
            names.sort();
            assert_eq!(names.join(" "), gone, "{body}");
        }
        assert_eq!(known.tracked().count(), 3);
    }

    #[test]
    fn a_failed_body_adds_nothing_and_ends_what_was_there() {
        let mut known = Known::new();
        read(&mut known, "a b");
        assert_eq!(ended(&mut known), [""; 0]);
        read(&mut known, "a c");
        known.fail();
        assert_eq!(ended(&mut known), ["a", "b"]);
        assert_eq!(known.tracked().count(), 0);
        read(&mut known, "c a");
        assert_eq!(known.added.len(), 2);
        assert_eq!(ended(&mut known), [""; 0]);
        // No body at all.
        known.fail();
        let mut names = ended(&mut known);
        names.sort();
        assert_eq!(names, ["a", "c"]);
    }
}
