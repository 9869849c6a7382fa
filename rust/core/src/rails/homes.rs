//! The rail that a buffer used last.

use std::sync::atomic::{AtomicU8, Ordering};

/// Remembers a rail for each of many buffers, in a fixed number of bytes: buffers that share an entry share its rail.
#[derive(Debug)]
pub struct Homes(
    /// Written and read by all submitters of a connection. Each entry stands alone and is a hint, so Relaxed.
    [AtomicU8; ENTRIES],
);

/// A few times as many as a program has buffers in use with one peer.
const ENTRIES: usize = 64;

/// The value of an entry that remembers no rail.
const NONE: u8 = u8::MAX;

impl Homes {
    /// The rail that the buffer used last, if one is remembered. `buffer` is a number that stays with it, such as its address.
    #[inline]
    pub fn of(&self, buffer: u64) -> Option<u8> {
        self.0.get(index(buffer)).map(|rail| rail.load(Ordering::Relaxed)).filter(|rail| *rail != NONE)
    }

    /// The buffer uses this rail now.
    #[inline]
    pub fn set(&self, buffer: u64, rail: u8) {
        // Most often it is the same one again: then the processors that share the entry keep it.
        if let Some(entry) = self.0.get(index(buffer))
            && entry.load(Ordering::Relaxed) != rail
        {
            entry.store(rail, Ordering::Relaxed);
        }
    }
}

impl Default for Homes {
    fn default() -> Self {
        Self([const { AtomicU8::new(NONE) }; ENTRIES])
    }
}

/// Fibonacci hashing: addresses are multiples of a page, so their low bits say nothing.
#[inline]
fn index(buffer: u64) -> usize {
    (buffer.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_its_rail_until_it_uses_another_one() {
        let homes = Homes::default();
        assert_eq!(homes.of(1 << 20), None);
        homes.set(1 << 20, 3);
        assert_eq!(homes.of(1 << 20), Some(3));
        homes.set(1 << 20, 5);
        assert_eq!(homes.of(1 << 20), Some(5));
    }

    #[test]
    fn addresses_of_pages_use_most_entries() {
        let used: std::collections::BTreeSet<_> = (0..256u64).map(|page| index(page << 21)).collect();
        assert!(used.len() > ENTRIES / 2, "{}", used.len());
    }
}
