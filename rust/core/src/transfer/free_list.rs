//! Which slots are free: a stack, so that the slot released last, which still is in the cache, is taken first.

use crossbeam::utils::CachePadded;

use super::slots::SLOT_BITS;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The rest of the head is the number of a taking.
const INDEX_BITS: u32 = SLOT_BITS;
/// No slot's index.
const NONE: u32 = INDEX_MASK as u32;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// What a taking adds to the head.
const ONE_TAKING: u64 = 1 << INDEX_BITS;

/// A stack of slot indices (Treiber's), with its links in the slots themselves.
#[derive(Debug)]
pub(super) struct FreeList {
    /// The topmost index in the low bits, and above them the number of the last taking: a thread that was interrupted
    /// between reading the top's link and taking the top so finds out that the link is an old one, for what it has read
    /// can only be there again after the top was taken. Exchanged by threads that push or pop: Release when pushing,
    /// Acquire when popping, so that the popping thread sees the link and what was done with the slot.
    head: CachePadded<AtomicU64>,
}

impl Default for FreeList {
    fn default() -> Self {
        Self { head: CachePadded::new(AtomicU64::new(u64::from(NONE))) }
    }
}

impl FreeList {
    /// Takes a slot. `slot` finds one by its index, `link` its link.
    #[inline]
    pub(super) fn pop<S>(
        &self,
        slot: impl Fn(u32) -> Option<S>,
        link: impl Fn(&S) -> &AtomicU32,
    ) -> Option<S> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let taken = slot((head & INDEX_MASK) as u32)?;
            // A link read while another thread pops and pushes the slot may be any: the exchange then fails.
            let next = u64::from(link(&taken).load(Ordering::Relaxed));
            let number = (head & !INDEX_MASK).wrapping_add(ONE_TAKING);
            match self.head.compare_exchange(head, number | next, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(taken),
                Err(other) => head = other,
            }
        }
    }

    /// Frees the slot `index`; `link` is its link.
    #[inline]
    pub(super) fn push(&self, index: u32, link: &AtomicU32) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.store((head & INDEX_MASK) as u32, Ordering::Relaxed);
            let given = head & !INDEX_MASK | u64::from(index);
            match self.head.compare_exchange(head, given, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod models {
    use super::*;
    use crate::sync::Arc;

    /// One thread takes a slot while another takes two and pushes the first again, which looks to the one as if nothing had
    /// happened: no slot has two owners, and none is missing.
    #[test]
    fn no_slot_has_two_owners() {
        loom::model(|| {
            let shared = Arc::new((FreeList::default(), [AtomicU32::new(NONE), AtomicU32::new(NONE)]));
            (0..2).for_each(|index| shared.0.push(index, &shared.1[index as usize]));
            let take = |shared: &(FreeList, [AtomicU32; 2])| {
                let taken =
                    shared.0.pop(|index| Some((index, shared.1.get(index as usize)?)), |(_, link)| link);
                taken.map(|(index, _)| index)
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
