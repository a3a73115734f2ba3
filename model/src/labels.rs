//! Label sets: sorted name/value pairs in one shared allocation.
//!
//! Owns the packed encoding and its order. Must not know what any label means, apart from the metric's name.
//!
//! Encoding: for each pair, in ascending order of the name, `len(name) name len(value) value` in one `str`, where a
//! length in bytes is written as one `char` (the surrogate gap skipped). So every slice is valid UTF-8 without
//! `unsafe`, equality is one `memcmp`, and a clone is one reference count.

use std::fmt;
use std::sync::Arc;

/// The label that carries the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// The longest name or value that a label may have, in bytes.
pub const MAX_LABEL_BYTES: usize = 1 << 20;

/// An immutable, sorted, duplicate-free set of labels. Labels with an empty value do not exist (as in Prometheus).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Default for Labels {
    fn default() -> Self {
        Labels(Arc::from(""))
    }
}

// === impl Labels ===

impl Labels {
    /// The empty set.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Builds a set from pairs in any order; of a repeated name the last value stays; empty values are dropped.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// The pairs in ascending order of the name.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.0 }
    }

    /// The value of `name`, or `None`. O(labels).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .take_while(|(n, _)| *n <= name)
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v)
    }

    /// The metric's name, or the empty string.
    #[must_use]
    pub fn name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The packed form: stable within a process and on disk, unique for a set.
    #[must_use]
    pub fn as_packed(&self) -> &str {
        &self.0
    }

    /// Reads the packed form back. Errors when it is not one: lengths past the end, names out of order or repeated,
    /// empty names or values.
    pub fn from_packed(packed: &str) -> Result<Self, InvalidPacked> {
        let mut rest = packed;
        let mut last: Option<&str> = None;
        while !rest.is_empty() {
            let (name, tail) = take(rest).ok_or(InvalidPacked)?;
            let (value, tail) = take(tail).ok_or(InvalidPacked)?;
            if name.is_empty() || value.is_empty() || last.is_some_and(|l| l >= name) {
                return Err(InvalidPacked);
            }
            last = Some(name);
            rest = tail;
        }
        Ok(Labels(Arc::from(packed)))
    }

    /// A builder that starts with this set.
    #[must_use]
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder {
            pairs: self
                .iter()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect(),
        }
    }

    /// This set without the metric's name.
    #[must_use]
    pub fn without_name(&self) -> Labels {
        self.retain(|n| n != METRIC_NAME)
    }

    /// The labels whose name `keep` accepts.
    #[must_use]
    pub fn retain(&self, mut keep: impl FnMut(&str) -> bool) -> Labels {
        let mut packed = String::with_capacity(self.0.len());
        for (name, value) in self {
            if keep(name) {
                push(&mut packed, name);
                push(&mut packed, value);
            }
        }
        Labels(Arc::from(packed))
    }

    /// Appends the packed form of the labels whose name `keep` accepts: what identifies them, without an allocation.
    pub fn pack_retained(&self, packed: &mut String, mut keep: impl FnMut(&str) -> bool) {
        let mut rest: &str = &self.0;
        while let Some((name, tail)) = take(rest) {
            let Some((_, tail)) = take(tail) else { break };
            if keep(name) {
                packed.push_str(&rest[..rest.len() - tail.len()]);
            }
            rest = tail;
        }
    }

    /// This set with `name` set to `value` (removed when empty).
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Labels {
        let mut builder = self.to_builder();
        builder.set(name, value);
        builder.build()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Prometheus' order: pair by pair by name, then value; a prefix sorts first.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Pairs that are the same need no reading but for where they end.
        let same = shared_prefix(self.0.as_bytes(), other.0.as_bytes());
        let mut at = 0;
        while let Some(end) = pair_end(&self.0[at..]).filter(|end| at + end <= same) {
            at += end;
        }
        (Iter {
            rest: &self.0[at..],
        })
        .cmp(Iter {
            rest: &other.0[at..],
        })
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// As PromQL writes it: `name{a="b"}`, names that are not plain identifiers quoted.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        let plain_name = is_metric_identifier(name);
        if plain_name {
            f.write_str(name)?;
        }
        let mut first = true;
        if !plain_name && !name.is_empty() {
            write!(f, "{{{name:?}")?;
            first = false;
        }
        for (n, v) in self.iter().filter(|(n, _)| *n != METRIC_NAME) {
            f.write_str(if first { "{" } else { ", " })?;
            first = false;
            if is_label_identifier(n) {
                write!(f, "{n}={v:?}")?;
            } else {
                write!(f, "{n:?}={v:?}")?;
            }
        }
        if !first {
            f.write_str("}")?;
        } else if name.is_empty() {
            f.write_str("{}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Labels {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> serde::Deserialize<'de> for Labels {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(Labels::from_pairs(map))
    }
}

/// The packed form was not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a packed label set")]
pub struct InvalidPacked;

/// Iterates over a set's pairs in ascending order of the name.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);
    fn next(&mut self) -> Option<Self::Item> {
        let (name, tail) = take(self.rest)?;
        let (value, tail) = take(tail)?;
        self.rest = tail;
        Some((name, value))
    }
}

/// Collects labels in any order. O(n) a change: sets are small.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

// === impl LabelsBuilder ===

impl LabelsBuilder {
    /// Sets `name` to `value`; an empty value removes it. Values past [`MAX_LABEL_BYTES`] are cut at a character.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        let (mut name, mut value) = (name.into(), value.into());
        cut(&mut name);
        cut(&mut value);
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(&name)) {
            Ok(at) if value.is_empty() => {
                self.pairs.remove(at);
            }
            Ok(at) => self.pairs[at].1 = value,
            Err(_) if value.is_empty() || name.is_empty() => {}
            Err(at) => self.pairs.insert(at, (name, value)),
        }
        self
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// The value set for `name` so far.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self
            .pairs
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .ok()?;
        Some(&self.pairs[at].1)
    }

    /// The finished set.
    #[must_use]
    pub fn build(&self) -> Labels {
        let bytes = self.pairs.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
        let mut packed = String::with_capacity(bytes);
        for (name, value) in &self.pairs {
            push(&mut packed, name);
            push(&mut packed, value);
        }
        Labels(Arc::from(packed))
    }
}

/// Collects labels that come in ascending order of the name, as remote write demands: no allocation a label, and none at
/// all when it is used again.
#[derive(Debug, Clone, Default)]
pub struct AscendingLabels {
    packed: String,
    /// Where the last name is in `packed`.
    last: std::ops::Range<usize>,
}

// === impl AscendingLabels ===

impl AscendingLabels {
    /// Forgets all labels.
    pub fn clear(&mut self) {
        self.packed.clear();
        self.last = 0..0;
    }

    /// Appends a label; one with an empty value does not exist, and is left out. False, and nothing is appended, when
    /// the name is not above the last one, is empty, or either is longer than [`MAX_LABEL_BYTES`]: then a
    /// [`LabelsBuilder`] has to do it.
    pub fn push(&mut self, name: &str, value: &str) -> bool {
        let fits = !name.is_empty() && name.len().max(value.len()) <= MAX_LABEL_BYTES;
        if !fits || self.packed[self.last.clone()] >= *name {
            return false;
        }
        if !value.is_empty() {
            push(&mut self.packed, name);
            self.last = self.packed.len() - name.len()..self.packed.len();
            push(&mut self.packed, value);
        }
        true
    }

    /// The packed form, as [`Labels::as_packed`].
    #[must_use]
    pub fn as_packed(&self) -> &str {
        &self.packed
    }

    /// The finished set.
    #[must_use]
    pub fn build(&self) -> Labels {
        Labels(Arc::from(self.packed.as_str()))
    }
}

/// Packs labels as they come, without looking at them: only good for asking whether a set with the same bytes is known
/// already. No allocation when it is used again.
#[derive(Debug, Clone, Default)]
pub struct UncheckedLabels {
    packed: Vec<u8>,
}

// === impl UncheckedLabels ===

impl UncheckedLabels {
    /// Forgets all labels.
    #[inline]
    pub fn clear(&mut self) {
        self.packed.clear();
    }

    /// Appends a label; one with an empty value does not exist, and is left out.
    #[inline]
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        if !value.is_empty() {
            push_bytes(&mut self.packed, name);
            push_bytes(&mut self.packed, value);
        }
    }

    /// Equal to the bytes of [`Labels::as_packed`] exactly when the labels pushed are those of the set, in its order.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.packed
    }
}

/// Whether `name` can stand in PromQL as a metric's name without quotes: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
#[must_use]
pub fn is_metric_identifier(name: &str) -> bool {
    is_identifier(name, |b| b == b':')
}

/// Whether `name` can stand in PromQL as a label's name without quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
#[must_use]
pub fn is_label_identifier(name: &str) -> bool {
    is_identifier(name, |_| false)
}

fn is_identifier(name: &str, extra: impl Fn(u8) -> bool) -> bool {
    !name.is_empty()
        && name.bytes().enumerate().all(|(i, b)| {
            b == b'_' || b.is_ascii_alphabetic() || extra(b) || (i > 0 && b.is_ascii_digit())
        })
}

fn cut(text: &mut String) {
    if text.len() > MAX_LABEL_BYTES {
        text.truncate(text.floor_char_boundary_at(MAX_LABEL_BYTES));
    }
}

trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, index: usize) -> usize;
}

impl FloorCharBoundary for String {
    fn floor_char_boundary_at(&self, index: usize) -> usize {
        (0..=index)
            .rev()
            .find(|&i| self.is_char_boundary(i))
            .unwrap_or(0)
    }
}

/// First code point of the surrogate gap, which no `char` can be.
const GAP_START: u32 = 0xD800;
/// Width of the surrogate gap.
const GAP: u32 = 0x800;

fn push(packed: &mut String, text: &str) {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let code = if len < GAP_START { len } else { len + GAP };
    packed.push(char::from_u32(code).unwrap_or('\0'));
    packed.push_str(text);
}

/// How many bytes two texts begin with in common.
fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    let (x, y) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let whole = x.iter().zip(y).take_while(|(x, y)| x == y).count() * 8;
    let rest = a[whole..].iter().zip(&b[whole..]);
    whole + rest.take_while(|(x, y)| x == y).count()
}

/// Where the first pair ends.
fn pair_end(packed: &str) -> Option<usize> {
    let (_, tail) = take(packed)?;
    let (_, tail) = take(tail)?;
    Some(packed.len() - tail.len())
}

/// [`push`] of bytes that may not be text.
#[inline]
fn push_bytes(packed: &mut Vec<u8>, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(len) if len < 0x80 => packed.push(len),
        _ => {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let code = if len < GAP_START {
                len
            } else {
                len.saturating_add(GAP)
            };
            let code = char::from_u32(code).unwrap_or('\0');
            packed.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    packed.extend_from_slice(bytes);
}

#[inline]
fn take(packed: &str) -> Option<(&str, &str)> {
    let first = *packed.as_bytes().first()?;
    if first < 0x80 {
        let rest = &packed[1..];
        return rest.split_at_checked(first as usize);
    }
    take_long(packed)
}

fn take_long(packed: &str) -> Option<(&str, &str)> {
    let mut chars = packed.chars();
    let code = chars.next()? as u32;
    let len = if code < GAP_START { code } else { code - GAP } as usize;
    let rest = chars.as_str();
    Some((rest.get(..len)?, rest.get(len..)?))
}

/// Undoes the escapes of the text formats (label values, `# HELP`): `\n` is a line feed, and a backslash before anything
/// else stands for that. A lone backslash at the end is dropped.
#[must_use]
pub fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn builds_sorted_and_drops_empty_values() {
        let labels = Labels::from_pairs([("z", "1"), ("a", "2"), ("gone", ""), ("z", "3")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "2"), ("z", "3")]);
        assert_eq!(labels.get("z"), Some("3"));
        assert_eq!(labels.get("gone"), None);
    }

    proptest! {
        #[test]
        fn unchecked_labels_are_packed_as_labels_are(
            pairs in proptest::collection::btree_map("[a-zé]{1,3}", prop_oneof!["[xyß]{0,3}", Just("v".repeat(200)), Just("w".repeat(60_000))], 0..6),
        ) {
            let mut unchecked = UncheckedLabels::default();
            for (name, value) in &pairs {
                unchecked.push(name.as_bytes(), value.as_bytes());
            }
            let labels = Labels::from_pairs(pairs);
            prop_assert_eq!(unchecked.as_bytes(), labels.as_packed().as_bytes());
            unchecked.clear();
            prop_assert_eq!(unchecked.as_bytes(), b"");
        }
    }

    #[test]
    fn displays_as_promql() {
        let labels =
            Labels::from_pairs([("__name__", "up"), ("job", "a\"b"), ("dotted.name", "x")]);
        assert_eq!(labels.to_string(), r#"up{"dotted.name"="x", job="a\"b"}"#);
        assert_eq!(Labels::empty().to_string(), "{}");
        assert_eq!(
            Labels::from_pairs([("__name__", "a.b")]).to_string(),
            r#"{"a.b"}"#
        );
        assert_eq!(Labels::from_pairs([("__name__", "up")]).to_string(), "up");
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let labels = Labels::from_pairs([("a", "é".repeat(MAX_LABEL_BYTES))]);
        assert_eq!(labels.get("a").map(str::len), Some(MAX_LABEL_BYTES));
        let crosses_the_gap = "x".repeat(0xD900);
        let labels = Labels::from_pairs([("a", crosses_the_gap.as_str()), ("b", "2")]);
        assert_eq!(labels.get("a"), Some(crosses_the_gap.as_str()));
        assert_eq!(labels.get("b"), Some("2"));
    }

    #[test]
    fn from_packed_refuses_what_is_not_packed() {
        for bad in [
            "\u{5}ab",
            "\u{1}b\u{1}1\u{1}a\u{1}1",
            "\u{1}a",
            "\u{0}\u{1}a",
            "\u{1}a\u{0}",
        ] {
            assert_eq!(Labels::from_packed(bad), Err(InvalidPacked), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn packed_round_trips(pairs in proptest::collection::btree_map("[a-zé.]{1,12}", ".{1,40}", 0..8)) {
            let labels = Labels::from_pairs(pairs.clone());
            prop_assert_eq!(Labels::from_packed(labels.as_packed()), Ok(labels.clone()));
            let read: std::collections::BTreeMap<String, String> =
                labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn ascending_labels_are_the_same_set(pairs in proptest::collection::btree_map("[a-zé.]{1,12}", ".{0,40}", 0..8)) {
            let mut ascending = AscendingLabels::default();
            ascending.push("z", "not there any more");
            ascending.clear();
            for (n, v) in &pairs {
                prop_assert!(ascending.push(n, v));
                prop_assert!(v.is_empty() || !ascending.push(n, v), "twice");
                prop_assert!(!ascending.push("", v), "no name");
            }
            let labels = Labels::from_pairs(pairs.clone());
            prop_assert_eq!(ascending.as_packed(), labels.as_packed());
            prop_assert_eq!(ascending.build(), labels);
        }

        #[test]
        fn order_is_that_of_the_pairs(
            a in proptest::collection::btree_map("[ab]{1,3}", "[xyé]{1,17}", 0..5),
            b in proptest::collection::btree_map("[ab]{1,3}", "[xyé]{1,17}", 0..5),
            shared in proptest::collection::btree_map("[AZ]{1,3}", "[xy]{1,140}", 0..4),
        ) {
            let of = |own: std::collections::BTreeMap<String, String>| {
                Labels::from_pairs(own.into_iter().chain(shared.clone()))
            };
            let (a, b) = (of(a), of(b));
            prop_assert_eq!(a.cmp(&b), a.iter().cmp(b.iter()));
            prop_assert_eq!(a.cmp(&a.clone()), std::cmp::Ordering::Equal);
            let mut packed = String::new();
            a.pack_retained(&mut packed, |n| n != "a");
            let kept = a.retain(|n| n != "a");
            prop_assert_eq!(packed.as_str(), kept.as_packed());
        }

        #[test]
        fn from_packed_never_panics(text in ".{0,40}") {
            let _ = Labels::from_packed(&text);
        }
    }

    #[test]
    fn escapes_of_text_formats_are_undone() {
        for (text, plain) in [
            ("plain", "plain"),
            (r#"a\\b\"c\nd"#, "a\\b\"c\nd"),
            (r"\t is no escape", "t is no escape"),
            ("at the end\\", "at the end"),
        ] {
            assert_eq!(unescape(text), plain);
        }
    }
}
