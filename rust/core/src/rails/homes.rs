//! The rail that a buffer used last.

use std::sync::atomic::{AtomicU64, Ordering};

/// Remembers a rail for each of many buffers, in a fixed number of bytes: buffers that share an entry share its rail.
#[derive(Debug)]
pub struct Homes(
    /// The rail, and above its eight bits the epoch in which it was planned, which does not come again for weeks. Written and read by all submitters of a connection. Each entry stands
    /// alone and is a hint, so Relaxed.
    [AtomicU64; ENTRIES],
);

/// A few times as many as a program has buffers in use with one peer.
const ENTRIES: usize = 64;

/// The value of an entry that remembers no rail.
const NONE: u64 = u64::MAX;

impl Homes {
    /// The rail that the buffer used last, if one is remembered. `buffer` is a number that stays with it, such as its address.
    #[inline]
    pub fn of(&self, buffer: u64) -> Option<u8> {
        self.entry(buffer).filter(|entry| *entry != NONE).map(|entry| entry as u8)
    }

    /// The same, if that was planned in this epoch, as the number stands for it. So a short transfer may follow a plan without making
    /// one, for as long as loads are as they were.
    #[inline]
    pub fn of_epoch(&self, buffer: u64, epoch: u32) -> Option<u8> {
        self.entry(buffer)
            .filter(|entry| (entry >> 8) as u32 == epoch && *entry as u8 != NONE as u8)
            .map(|entry| entry as u8)
    }

    /// The buffer uses this rail now, by a plan of this epoch.
    #[inline]
    pub fn set(&self, buffer: u64, rail: u8, epoch: u32) {
        let value = u64::from(epoch) << 8 | u64::from(rail);
        // Most often it is the same one again: then the processors that share the entry keep it.
        if let Some(entry) = self.0.get(index(buffer))
            && entry.load(Ordering::Relaxed) != value
        {
            entry.store(value, Ordering::Relaxed);
        }
    }

    fn entry(&self, buffer: u64) -> Option<u64> {
        self.0.get(index(buffer)).map(|entry| entry.load(Ordering::Relaxed))
    }
}

impl Default for Homes {
    fn default() -> Self {
        Self([const { AtomicU64::new(NONE) }; ENTRIES])
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
        homes.set(1 << 20, 3, 0);
        assert_eq!(homes.of(1 << 20), Some(3));
        homes.set(1 << 20, 5, 0);
        assert_eq!(homes.of(1 << 20), Some(5));
    }

    #[test]
    fn a_plan_is_followed_in_its_own_epoch_alone() {
        let homes = Homes::default();
        assert!(
            [0, 255, 1 << 24, u32::MAX].into_iter().all(|epoch| homes.of_epoch(1 << 20, epoch).is_none()),
            "nothing was planned"
        );
        homes.set(1 << 20, 3, 7);
        assert_eq!([6, 7, 8].map(|epoch| homes.of_epoch(1 << 20, epoch)), [None, Some(3), None]);
        assert_eq!(homes.of(1 << 20), Some(3), "it is still its home");
        assert_eq!([7 + 256, 7 + (1 << 24)].map(|epoch| homes.of_epoch(1 << 20, epoch)), [None, None]);
        homes.set(1 << 20, 0, u32::MAX);
        assert_eq!([7, u32::MAX].map(|epoch| homes.of_epoch(1 << 20, epoch)), [None, Some(0)]);
    }

    #[test]
    fn addresses_of_pages_use_most_entries() {
        let used: std::collections::BTreeSet<_> = (0..256u64).map(|page| index(page << 21)).collect();
        assert!(used.len() > ENTRIES / 2, "{}", used.len());
    }
}
