//! Owns which connection runs out of time next. All requests may take equally long, so those under way, in the order
//! they started, are in the order of their deadlines: a list through an array, constant time, one entry a connection.
//! Reads no clock.

use std::time::Duration;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    at: Duration,
    before: u32,
    after: u32,
    listed: bool,
}

/// The deadlines of connections, by key.
pub(super) struct Deadlines {
    nodes: Vec<Node>,
    first: u32,
    last: u32,
}

impl Deadlines {
    pub(super) fn new() -> Deadlines {
        Deadlines {
            nodes: Vec::new(),
            first: NONE,
            last: NONE,
        }
    }

    /// The deadline that passes first, and whose it is.
    pub(super) fn first(&self) -> Option<(usize, Duration)> {
        let node = self.nodes.get(self.first as usize)?;
        Some((self.first as usize, node.at))
    }

    /// Whose deadlines there are, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = usize> {
        let node = |key: u32| Some((key as usize, self.nodes.get(key as usize)?));
        let each = std::iter::successors(node(self.first), move |(_, n)| node(n.after));
        each.map(|(key, _)| key)
    }

    /// Adds a deadline that is not before any other.
    pub(super) fn push(&mut self, key: usize, at: Duration) {
        self.remove(key);
        let free = Node {
            at,
            before: NONE,
            after: NONE,
            listed: false,
        };
        if self.nodes.len() <= key {
            self.nodes.resize(key + 1, free);
        }
        self.nodes[key] = Node {
            before: self.last,
            listed: true,
            ..free
        };
        match self.nodes.get_mut(self.last as usize) {
            Some(last) => last.after = key as u32,
            None => self.first = key as u32,
        }
        self.last = key as u32;
    }

    /// Takes it out, if it is in.
    pub(super) fn remove(&mut self, key: usize) {
        let Some(node) = self.nodes.get_mut(key).filter(|n| n.listed) else {
            return;
        };
        node.listed = false;
        let Node { before, after, .. } = *node;
        match self.nodes.get_mut(before as usize) {
            Some(before) => before.after = after,
            None => self.first = after,
        }
        match self.nodes.get_mut(after as usize) {
            Some(after) => after.before = before,
            None => self.last = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_the_order_they_were_added() {
        let mut list = Deadlines::new();
        let at = |n| Duration::from_secs(n);
        assert_eq!((list.first(), list.keys().next()), (None, None));
        for key in [3, 0, 2, 1] {
            list.push(key, at(10 + key as u64));
        }
        list.remove(0);
        list.remove(0);
        list.push(3, at(20));
        assert_eq!(list.keys().collect::<Vec<_>>(), [2, 1, 3]);
        let mut order = Vec::new();
        while let Some((key, at)) = list.first() {
            order.push((key, at.as_secs()));
            list.remove(key);
        }
        assert_eq!(order, [(2, 12), (1, 11), (3, 20)]);
    }
}
