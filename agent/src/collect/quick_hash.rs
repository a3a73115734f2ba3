//! [`Seed`]: a hash for maps whose keys are long texts that others choose.
//!
//! Owns the mixing: sixteen bytes a multiplication. The seed is random, so that nobody outside can choose collisions;
//! a collision costs time only. Must not know what is hashed.

use std::hash::{BuildHasher, Hasher, RandomState};

const K: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes hashers; all of one seed agree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u64);

// === impl Seed ===

impl Seed {
    /// A seed that nobody knows.
    pub(super) fn random() -> Self {
        Seed(RandomState::new().build_hasher().finish())
    }
}

impl BuildHasher for Seed {
    type Hasher = Mixer;
    fn build_hasher(&self) -> Mixer {
        Mixer {
            state: self.0,
            seed: self.0.rotate_left(32) ^ K,
        }
    }
}

/// One hash in the making.
#[derive(Debug)]
pub(super) struct Mixer {
    state: u64,
    seed: u64,
}

/// The product of two numbers, both halves folded into one.
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ (wide >> 64) as u64
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let mut state = self.state ^ bytes.len() as u64;
        let (pairs, rest) = bytes.as_chunks::<16>();
        let mix = |state: u64, pair: &[u8; 16]| {
            let all = u128::from_le_bytes(*pair);
            fold(state ^ all as u64, self.seed ^ (all >> 64) as u64)
        };
        for pair in pairs {
            state = mix(state, pair);
        }
        let mut last = [0u8; 16];
        last[..rest.len()].copy_from_slice(rest);
        self.state = mix(state, &last);
    }

    fn write_u8(&mut self, byte: u8) {
        self.state = fold(self.state ^ u64::from(byte), self.seed);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_differ_in_their_hashes_and_seeds_too() {
        let seed = Seed(7);
        let texts: Vec<String> = (0..2_000)
            .flat_map(|i| [format!("a{{b=\"{i}\"}}"), "x".repeat(i)])
            .collect();
        let hashes: Vec<u64> = texts.iter().map(|t| seed.hash_one(t)).collect();
        // A table takes the low bits for the place and the high ones to tell apart.
        for part in [0xffff_ffff, u64::MAX << 32] {
            let mut parts: Vec<u64> = hashes.iter().map(|h| h & part).collect();
            parts.sort_unstable();
            parts.dedup();
            assert!(parts.len() > 3_990, "{} of {}", parts.len(), texts.len());
        }
        assert_eq!(seed.hash_one("a"), seed.hash_one("a"));
        assert_ne!(seed.hash_one("a"), Seed(8).hash_one("a"));
    }
}
