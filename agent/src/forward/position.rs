//! How far a server has been sent the queue, shard by shard, on disk.
//!
//! Owns that file. Must not know the queue. The file is replaced as a whole, so it is always one of its states.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::queue::Tail;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(super) struct Position {
    /// The number of a block.
    pub block: u64,
    /// How many of its entries lie before the place.
    pub entry: usize,
    /// Samples enqueued before that block.
    pub before: u64,
}

/// One shard's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Shard {
    /// Everything before this was taken, or refused for good.
    pub done: Position,
    /// Where the request ends that was begun at `done`. It may have been taken: it must be repeated as it was.
    pub sending: Option<Position>,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    /// One for each shard; their number is the divisor of hashes.
    pub shards: Vec<Shard>,
}

/// What a former run left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Former {
    /// Nothing: the server is new.
    New,
    /// How far it was.
    Known(Saved),
    /// A file that cannot be read: how far it was is not known.
    Damaged,
}

/// The state of all shards of one server.
#[derive(Debug)]
pub(super) struct Positions {
    path: PathBuf,
    saved: Mutex<Saved>,
}

// === impl Positions ===

impl Positions {
    /// Reads the file of the server `key` in `dir`.
    pub(super) fn load(dir: &Path, key: &str) -> Former {
        let text = match std::fs::read(dir.join(format!("{key}.json"))) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Former::New,
            Err(_) => return Former::Damaged,
        };
        match serde_json::from_slice::<Saved>(&text) {
            Ok(saved) if !saved.shards.is_empty() => Former::Known(saved),
            _ => Former::Damaged,
        }
    }

    /// Goes on from `saved`.
    pub(super) fn new(dir: &Path, key: &str, saved: Saved) -> Self {
        Positions {
            path: dir.join(format!("{key}.json")),
            saved: Mutex::new(saved),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All shards.
    pub(super) fn all(&self) -> Saved {
        self.lock().clone()
    }

    /// One shard.
    pub(super) fn get(&self, shard: usize) -> Shard {
        self.lock().shards.get(shard).copied().unwrap_or_default()
    }

    /// Writes one shard's state.
    pub(super) fn set(&self, shard: usize, state: Shard) -> std::io::Result<()> {
        let mut saved = self.lock();
        if let Some(slot) = saved.shards.get_mut(shard) {
            *slot = state;
        }
        self.write(&saved)
    }

    /// Writes all shards' state.
    pub(super) fn replace(&self, all: Saved) -> std::io::Result<()> {
        let mut saved = self.lock();
        *saved = all;
        self.write(&saved)
    }

    fn write(&self, saved: &Saved) -> std::io::Result<()> {
        let text = serde_json::to_vec(saved)?;
        let new = self.path.with_extension("json.new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &self.path)
    }
}

// === impl Saved ===

impl Saved {
    /// So many shards, all at one place.
    pub(super) fn at(shards: usize, tail: Tail) -> Self {
        let done = Position {
            block: tail.next,
            entry: 0,
            before: tail.samples,
        };
        let shard = Shard {
            done,
            sending: None,
        };
        Saved {
            shards: vec![shard; shards],
        }
    }

    /// The shard that is furthest behind.
    pub(super) fn behind(&self) -> Position {
        self.shards.iter().map(|s| s.done).min().unwrap_or_default()
    }

    /// The furthest place that any shard knows of.
    pub(super) fn ahead(&self) -> Position {
        let all = self.shards.iter();
        all.map(|s| s.sending.unwrap_or(s.done).max(s.done))
            .max()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let tail = Tail {
            next: 5,
            samples: 70,
        };
        assert_eq!(Positions::load(dir.path(), "a"), Former::New);
        let positions = Positions::new(dir.path(), "a", Saved::at(2, tail));
        let mut state = positions.get(1);
        state.sending = Some(Position {
            block: 6,
            entry: 3,
            before: 90,
        });
        positions.set(1, state).unwrap();
        let Former::Known(saved) = Positions::load(dir.path(), "a") else {
            panic!("not there")
        };
        assert_eq!(saved, positions.all());
        assert_eq!((saved.behind().block, saved.ahead().block), (5, 6));
        std::fs::write(dir.path().join("a.json"), b"{\"sha").unwrap();
        assert_eq!(Positions::load(dir.path(), "a"), Former::Damaged);
    }
}
