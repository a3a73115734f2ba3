//! Request limiter: token bucket or sliding window, pure over the time that is passed in.
//! Must not know users, addresses or HTTP.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// How a limit is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Refills evenly; a full bucket may be spent at once.
    TokenBucket,
    /// Counts this window and the share of the last one that still overlaps.
    SlidingWindow,
}

/// Limits by key.
#[derive(Debug)]
pub struct Limiter {
    algorithm: Algorithm,
    window_ms: u64,
    max_keys: usize,
    keys: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    seen_ms: u64,
    /// Tokens left, or requests in this window.
    now: f64,
    /// Requests in the window before (sliding only).
    before: f64,
    window: u64,
}

// === impl Limiter ===

impl Limiter {
    /// A limiter without keys.
    pub fn new(algorithm: Algorithm, window_ms: u64, max_keys: usize) -> Self {
        Limiter {
            algorithm,
            window_ms: window_ms.max(1),
            max_keys: max_keys.max(2),
            keys: HashMap::new(),
        }
    }

    /// `Ok` when the request fits into `limit` per window, else the time in ms after which to try again.
    pub fn check(&mut self, key: &str, limit: u64, now_ms: u64) -> Result<(), u64> {
        if !self.keys.contains_key(key) {
            self.make_room();
            let now = if self.algorithm == Algorithm::TokenBucket {
                limit as f64
            } else {
                0.0
            };
            let entry = Entry {
                seen_ms: now_ms,
                now,
                before: 0.0,
                window: now_ms / self.window_ms,
            };
            self.keys.insert(key.to_owned(), entry);
        }
        let (algorithm, window_ms) = (self.algorithm, self.window_ms);
        let Some(entry) = self.keys.get_mut(key) else {
            return Ok(());
        };
        match algorithm {
            Algorithm::TokenBucket => entry.bucket(limit as f64, now_ms, window_ms),
            Algorithm::SlidingWindow => entry.sliding(limit as f64, now_ms, window_ms),
        }
    }

    fn make_room(&mut self) {
        if self.keys.len() < self.max_keys {
            return;
        }
        let mut seen: Vec<u64> = self.keys.values().map(|e| e.seen_ms).collect();
        let middle = seen.len() / 2;
        let (_, cut, _) = seen.select_nth_unstable(middle);
        let cut = *cut;
        self.keys.retain(|_, e| e.seen_ms > cut);
    }
}

// === impl Entry ===

impl Entry {
    fn bucket(&mut self, limit: f64, now_ms: u64, window_ms: u64) -> Result<(), u64> {
        let per_ms = limit / window_ms as f64;
        self.now = (self.now + now_ms.saturating_sub(self.seen_ms) as f64 * per_ms).min(limit);
        self.seen_ms = now_ms;
        if self.now >= 1.0 {
            self.now -= 1.0;
            return Ok(());
        }
        Err(((1.0 - self.now) / per_ms.max(f64::MIN_POSITIVE))
            .ceil()
            .min(window_ms as f64) as u64)
    }

    fn sliding(&mut self, limit: f64, now_ms: u64, window_ms: u64) -> Result<(), u64> {
        let window = now_ms / window_ms;
        if window != self.window {
            self.before = if window == self.window + 1 {
                self.now
            } else {
                0.0
            };
            self.now = 0.0;
            self.window = window;
        }
        self.seen_ms = now_ms;
        let into = (now_ms % window_ms) as f64 / window_ms as f64;
        if self.before * (1.0 - into) + self.now + 1.0 <= limit {
            self.now += 1.0;
            return Ok(());
        }
        Err(window_ms - now_ms % window_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(l: &mut Limiter, n: u64, now: u64) -> u64 {
        (0..n).filter(|_| l.check("u", 100, now).is_ok()).count() as u64
    }

    #[test]
    fn request_101_is_refused_by_both() {
        for a in [Algorithm::TokenBucket, Algorithm::SlidingWindow] {
            let mut l = Limiter::new(a, 60_000, 10);
            assert_eq!(allowed(&mut l, 101, 600_000), 100);
            assert!(l.check("other", 100, 600_000).is_ok());
        }
    }

    #[test]
    fn burst_over_the_window_edge_differs() {
        let mut bucket = Limiter::new(Algorithm::TokenBucket, 60_000, 10);
        let mut sliding = Limiter::new(Algorithm::SlidingWindow, 60_000, 10);
        // 100 just before the edge, then 100 half a window later.
        assert_eq!(allowed(&mut bucket, 100, 119_000), 100);
        assert_eq!(allowed(&mut sliding, 100, 119_000), 100);
        assert_eq!(
            allowed(&mut bucket, 100, 121_000),
            3,
            "two seconds refill 3.3 tokens"
        );
        assert_eq!(
            allowed(&mut sliding, 100, 121_000),
            1,
            "59/60 of the old window still count"
        );
    }

    #[test]
    fn keys_are_bounded() {
        let mut l = Limiter::new(Algorithm::TokenBucket, 60_000, 100);
        for i in 0..10_000 {
            let _ = l.check(&i.to_string(), 1, i);
        }
        assert!(l.keys.len() <= 100);
    }
}
