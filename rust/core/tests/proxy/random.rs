//! Repeatable random numbers and bytes.

use std::sync::OnceLock;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `limit - 1`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Bytes, other ones at nearly every call.
    pub fn bytes(&mut self, length: usize) -> &'static [u8] {
        /// More than the largest buffer.
        const POOL: usize = 5 << 20;
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        let pool = BYTES.get_or_init(|| {
            let mut random = Self::new(7);
            (0..POOL / 8).flat_map(|_| random.next().to_ne_bytes()).collect()
        });
        let start = self.below((POOL - length) as u64) as usize;
        &pool[start..start + length]
    }
}
