//! Which slots are free: a stack, so that the slot released last, which still is in the cache, is taken first.

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// No slot's index.
const NONE: u32 = u32::MAX;

/// A stack of slot indices (Treiber's) whose links lie in the slots themselves.
#[derive(Debug)]
pub(super) struct FreeList {
    /// The topmost index in the low half, and in the high half a count of all changes: a thread that was interrupted
    /// between reading the top's link and taking the top so finds out that the link is an old one, unless 2^32 changes
    /// passed meanwhile. Exchanged by whoever takes or gives a slot: Release when giving, Acquire when taking, so that
    /// the taker sees the link and what the giver did with the slot.
    head: CachePadded<AtomicU64>,
}

impl Default for FreeList {
    fn default() -> Self {
        Self { head: CachePadded::new(AtomicU64::new(u64::from(NONE))) }
    }
}

impl FreeList {
    /// Takes a slot; `link` finds the link of a slot.
    #[inline]
    pub(super) fn pop<'a>(&self, link: impl Fn(u32) -> Option<&'a AtomicU32>) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let index = head as u32;
            // A link read while somebody else takes and gives the slot may be any: the exchange then fails.
            let next = link(index)?.load(Ordering::Relaxed);
            match self.replace(head, next, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(other) => head = other,
            }
        }
    }

    /// Gives a slot, whose link is `link`.
    #[inline]
    pub(super) fn push(&self, index: u32, link: &AtomicU32) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.store(head as u32, Ordering::Relaxed);
            match self.replace(head, index, Ordering::Release) {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }

    #[inline]
    fn replace(&self, head: u64, top: u32, order: Ordering) -> Result<u64, u64> {
        let changes = (head >> 32).wrapping_add(1) << 32;
        self.head.compare_exchange(head, changes | u64::from(top), order, Ordering::Acquire)
    }
}

#[cfg(all(test, loom))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod models {
    use super::*;
    use crate::sync::Arc;

    /// One thread takes a slot while another takes two and gives the first back, which looks to the one as if nothing had
    /// happened: no slot is in two hands, and none gets lost.
    #[test]
    fn no_slot_is_in_two_hands() {
        loom::model(|| {
            let shared = Arc::new((FreeList::default(), [AtomicU32::new(NONE), AtomicU32::new(NONE)]));
            (0..2).for_each(|index| shared.0.push(index, &shared.1[index as usize]));
            let take = |shared: &(FreeList, [AtomicU32; 2])| {
                let links: Vec<_> = shared.1.iter().collect();
                shared.0.pop(|index| links.get(index as usize).copied())
            };
            let other = {
                let shared = shared.clone();
                loom::thread::spawn(move || take(&shared))
            };
            let (first, second) = (take(&shared), take(&shared));
            if let Some(first) = first {
                shared.0.push(first, &shared.1[first as usize]);
            }
            let mut held: Vec<_> =
                [second, other.join().unwrap(), take(&shared)].into_iter().flatten().collect();
            held.sort_unstable();
            assert_eq!((held, take(&shared)), (vec![0, 1], None));
        });
    }
}
