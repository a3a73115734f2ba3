//! Which group of an aggregation each series belongs to.
//!
//! Owns the keys: the packed form of the labels that stay, computed once a series. Must not know what groups gather.

use std::collections::HashMap;

use model::hashing::FoldState;
use model::{Labels, METRIC_NAME};

use super::block::{Block, Meta};
use crate::syntax::ast::Grouping;

/// Numbers for groups, in the order in which they are met.
pub(crate) struct Groups<'g> {
    grouping: Option<&'g Grouping>,
    ids: HashMap<Box<str>, usize, FoldState>,
    /// The labels of each group.
    labels: Vec<Labels>,
    drop_name: Vec<bool>,
    key: String,
    /// The group of the series before, and its key: neighbours often share it.
    last: (String, usize),
}

/// Whether a label stays in a group's labels.
pub(crate) fn keeps(grouping: Option<&Grouping>, name: &str) -> bool {
    match grouping {
        None => false,
        Some(g) if g.without => name != METRIC_NAME && !g.labels.iter().any(|l| l == name),
        Some(g) => g.labels.iter().any(|l| l == name),
    }
}

// === impl Groups ===

impl<'g> Groups<'g> {
    pub(crate) fn new(grouping: Option<&'g Grouping>) -> Self {
        Groups {
            grouping,
            ids: HashMap::default(),
            labels: Vec::new(),
            drop_name: Vec::new(),
            key: String::new(),
            last: (String::new(), 0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The group of a series.
    pub(crate) fn id(&mut self, labels: &Labels, drop_name: bool) -> usize {
        self.key.clear();
        if self.grouping.is_some() {
            labels.pack_retained(&mut self.key, |n| keeps(self.grouping, n));
        }
        let id = if !self.labels.is_empty() && self.key == self.last.0 {
            self.last.1
        } else {
            let id = match self.ids.get(self.key.as_str()) {
                Some(id) => *id,
                None => self.add(labels),
            };
            std::mem::swap(&mut self.last.0, &mut self.key);
            self.last.1 = id;
            id
        };
        self.drop_name[id] |= drop_name;
        id
    }

    fn add(&mut self, labels: &Labels) -> usize {
        let id = self.labels.len();
        self.ids.insert(self.key.as_str().into(), id);
        self.labels.push(labels.retain(|n| keeps(self.grouping, n)));
        self.drop_name.push(false);
        id
    }

    /// A block with a series for each group, without values.
    pub(crate) fn into_block(self, steps: usize) -> Block {
        let mut out = Block::new(steps);
        for (labels, drop_name) in self.labels.into_iter().zip(self.drop_name) {
            out.push_series(Meta { labels, drop_name });
        }
        out
    }
}

/// The numbers of the series of each group.
pub(crate) fn members(groups: &mut Groups<'_>, series: &[Meta]) -> Vec<Vec<usize>> {
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (s, meta) in series.iter().enumerate() {
        let id = groups.id(&meta.labels, meta.drop_name);
        if id == members.len() {
            members.push(Vec::new());
        }
        members[id].push(s);
    }
    members
}
