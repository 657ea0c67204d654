//! Reproducible randomness: one printed seed gives the whole run.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The stream of numbers that belongs to `seed`.
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The seed of this run: `AZULITE_SEED` when set, else one from the operating system. Always printed.
    pub(crate) fn run_seed() -> u64 {
        let seed = std::env::var("AZULITE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            use std::hash::{BuildHasher as _, Hasher as _};
            std::collections::hash_map::RandomState::new().build_hasher().finish()
        });
        println!("seed: AZULITE_SEED={seed}");
        seed
    }

    /// A stream of its own for part `number` of the run.
    pub(crate) fn fork(&self, number: u64) -> Random {
        let mut child = Random::new(self.state ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        child.next();
        child
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number in `0..bound`, for indexing and lengths.
    pub(crate) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).unwrap())).unwrap()
    }

    /// `length` random bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
