//! A fast hash of label sets, for maps of a query and for the store's series.
//!
//! Owns the arithmetic: sixteen bytes a multiplication, seeded for each map so that nobody outside can choose
//! collisions. Must not know what is hashed.

use std::hash::{BuildHasher, Hasher, RandomState};

const K: u64 = 0x9e37_79b9_7f4a_7c15;

/// Builds [`FoldHasher`]s of one seed. `HashMap<Labels, T, FoldState>`.
#[derive(Debug, Clone, Copy)]
pub struct FoldState(u64);

impl Default for FoldState {
    fn default() -> Self {
        FoldState(RandomState::new().build_hasher().finish())
    }
}

impl BuildHasher for FoldState {
    type Hasher = FoldHasher;
    #[inline]
    fn build_hasher(&self) -> FoldHasher {
        FoldHasher {
            state: self.0,
            seed: self.0,
        }
    }
}

/// Folds the halves of 128-bit products.
#[derive(Debug, Clone, Copy)]
pub struct FoldHasher {
    state: u64,
    seed: u64,
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ (wide >> 64) as u64
}

/// Sixteen bytes as two numbers.
#[inline]
fn halves(bytes: &[u8; 16]) -> (u64, u64) {
    let all = u128::from_le_bytes(*bytes);
    (all as u64, (all >> 64) as u64)
}

impl Hasher for FoldHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut state = self.state ^ bytes.len() as u64;
        let (pairs, rest) = bytes.as_chunks::<16>();
        for pair in pairs {
            let (a, b) = halves(pair);
            state = fold(state ^ a, K ^ b);
        }
        let mut last = [0u8; 16];
        last[..rest.len()].copy_from_slice(rest);
        let (a, b) = halves(&last);
        self.state = fold(state ^ a, b ^ self.seed.rotate_left(32) ^ K);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.seed ^ K);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn near_texts_hash_apart_and_equal_ones_together() {
        let state = FoldState::default();
        let texts: Vec<String> = (0..20_000)
            .map(|i| format!("{}route{}", "x".repeat(i % 40), i))
            .collect();
        let hashes: HashSet<u64> = texts.iter().map(|t| state.hash_one(t)).collect();
        assert_eq!(hashes.len(), texts.len());
        assert_eq!(state.hash_one("a"), state.hash_one(String::from("a")));
        // hashbrown takes the upper seven bits and the lower ones: both have to vary.
        let upper: HashSet<u64> = hashes.iter().map(|h| h >> 57).collect();
        let lower: HashSet<u64> = hashes.iter().map(|h| h & 0xff).collect();
        assert_eq!((upper.len(), lower.len()), (128, 256));
    }
}
