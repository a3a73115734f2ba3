//! Which series of a block match: its postings, read from the block.
//!
//! Owns the decoding of a label's values. Must not know chunks.

use model::matcher::RegexShape;
use model::{MatchOp, Matcher};

use super::Block;
use crate::cache::Cache;
use crate::error::StoreError;
use crate::postings;
use crate::wire::{Damaged, Reader};

// === impl Block ===

impl Block {
    /// Ordinals that can match, ascending; `None` when no matcher narrows anything.
    pub(crate) fn candidates(
        &self,
        matchers: &[Matcher],
        cache: &Cache,
    ) -> Result<Option<Vec<u32>>, StoreError> {
        let mut lists = Vec::new();
        for matcher in matchers.iter().filter(|m| postings::is_narrowing(m)) {
            let list = self.matching(matcher, cache)?;
            if list.is_empty() {
                return Ok(Some(Vec::new()));
            }
            lists.push(list);
        }
        Ok(postings::intersect_all(lists))
    }

    fn matching(&self, matcher: &Matcher, cache: &Cache) -> Result<Vec<u32>, StoreError> {
        let mut lists: Vec<Vec<u32>> = Vec::new();
        self.visit_values(&matcher.name, cache, |value, list| {
            if let Some(past) = is_past(matcher, value) {
                return Ok(past);
            }
            if matcher.matches(value) {
                lists.push(decode_list(list, self.footer.series)?);
            }
            Ok(false)
        })?;
        Ok(postings::union_all(
            lists.iter().map(Vec::as_slice).collect(),
        ))
    }

    /// Visits a label's values, ascending, until `visit` says that it has seen enough.
    pub(crate) fn visit_values(
        &self,
        name: &str,
        cache: &Cache,
        mut visit: impl FnMut(&str, &[u8]) -> Result<bool, Damaged>,
    ) -> Result<(), StoreError> {
        let labels = &self.footer.labels;
        let Ok(at) = labels.binary_search_by(|(n, _)| n.as_str().cmp(name)) else {
            return Ok(());
        };
        let part = labels[at].1;
        let raw = self.cached(part, cache)?;
        let mut reader = Reader::new(&raw);
        let mut read = || {
            for _ in 0..reader.count(2)? {
                let value = reader.text()?;
                if visit(value, reader.bytes()?)? {
                    break;
                }
            }
            Ok(())
        };
        read().map_err(|e| self.corrupt(part, e))
    }
}

/// Whether a value, in an ascending walk, need not be looked at (`false`) or ends the walk (`true`).
fn is_past(matcher: &Matcher, value: &str) -> Option<bool> {
    let wanted = match (matcher.op, matcher.regex_shape()) {
        (MatchOp::Equal, _) => matcher.value.as_str(),
        (MatchOp::Regex, Some(RegexShape::Prefix(prefix))) => {
            return match value.starts_with(prefix.as_str()) {
                true => None,
                false => Some(value > prefix.as_str()),
            };
        }
        _ => return None,
    };
    (value != wanted).then_some(value > wanted)
}

pub(crate) fn decode_list(bytes: &[u8], series: u32) -> Result<Vec<u32>, Damaged> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::with_capacity(bytes.len());
    let mut ordinal = 0u64;
    while !reader.is_empty() {
        let step = reader.uvarint()?;
        ordinal = ordinal.saturating_add(step);
        if ordinal >= u64::from(series) || (step == 0 && !all.is_empty()) {
            return Err(Damaged("a list of series is not ascending"));
        }
        all.push(ordinal as u32);
    }
    Ok(all)
}
