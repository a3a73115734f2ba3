//! A bounded cache of decoded parts of blocks.
//!
//! Owns which parts stay in memory: two generations, so that what was used lately survives and no list has to be
//! kept in order. Must not know what a part is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// A block's number and an offset in it.
pub(crate) type Key = (u64, u64);

type Generation = HashMap<Key, Arc<Vec<u8>>>;

/// Bytes by key, at most about `limit` of them.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    young: Generation,
    old: Generation,
    young_bytes: usize,
}

// === impl Cache ===

impl Cache {
    pub(crate) fn new(limit: usize) -> Self {
        Cache {
            limit,
            inner: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<Arc<Vec<u8>>> {
        let mut inner = lock(&self.inner);
        if let Some(found) = inner.young.get(&key) {
            return Some(Arc::clone(found));
        }
        let found = inner.old.remove(&key)?;
        self.insert(&mut inner, key, Arc::clone(&found));
        Some(found)
    }

    pub(crate) fn put(&self, key: Key, part: &Arc<Vec<u8>>) {
        self.insert(&mut lock(&self.inner), key, Arc::clone(part));
    }

    fn insert(&self, inner: &mut Inner, key: Key, part: Arc<Vec<u8>>) {
        let bytes = part.capacity() + 64;
        if bytes > self.limit / 2 {
            return;
        }
        if inner.young_bytes + bytes > self.limit / 2 {
            inner.old = std::mem::take(&mut inner.young);
            inner.young_bytes = 0;
        }
        inner.young_bytes += bytes;
        if let Some(before) = inner.young.insert(key, part) {
            inner.young_bytes -= before.capacity() + 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let cache = Cache::new(4_000);
        for i in 0..100 {
            cache.put((1, i), &Arc::new(vec![0; 100]));
            assert!(cache.get((1, 0)).is_some(), "{i}");
        }
        assert!(cache.get((1, 50)).is_none());
        cache.put((2, 0), &Arc::new(vec![0; 3_000]));
        assert!(cache.get((2, 0)).is_none());
    }
}
