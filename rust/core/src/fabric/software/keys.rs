//! Which key a registration gets: far from the last one, and as hard to guess as 32 bits allow.

use super::table::{GENERATIONS, REGION_SLOTS, generation_of, key_of, slot_of};

/// Among the bits of a slot: a live region has it. The others are the generation of its last key, 0 before the first.
const IN_USE: u16 = 1 << 15;

/// The slots of a region table, and which of them are free.
///
/// A slot is drawn from all that are free and its generation from all but the last one, so that of the nearly 2^32 keys
/// none says anything of another, and a key that has gone is not the next one of its slot.
#[derive(Debug)]
pub(super) struct Keys {
    slots: Vec<u16>,
    live: usize,
}

impl Keys {
    pub(super) fn new() -> Self {
        // Zeroed memory from the kernel: pages that no key has touched take no memory.
        Self { slots: vec![0; REGION_SLOTS], live: 0 }
    }

    /// A key for a new region; `None` when every slot is in use. `random` is unpredictable and used once.
    pub(super) fn acquire(&mut self, random: u64) -> Option<u32> {
        if self.live == REGION_SLOTS {
            return None;
        }
        let (mut slot, step) = (random as usize, (random >> SLOT_BITS) as usize | 1);
        let high = (random >> 32) as u32;
        // An odd step leads through all slots, for their number is a power of two.
        for _ in 0..REGION_SLOTS {
            slot %= REGION_SLOTS;
            if let Some(state) = self.slots.get_mut(slot).filter(|state| **state & IN_USE == 0) {
                let generation = another_generation(u32::from(*state), high);
                *state = generation as u16 | IN_USE;
                self.live += 1;
                return Some(key_of(slot, generation));
            }
            slot = slot.wrapping_add(step);
        }
        None
    }

    /// The region of `key` is gone, and nothing touches its memory: its slot may serve another one.
    pub(super) fn release(&mut self, key: u32) {
        let in_use = generation_of(key) as u16 | IN_USE;
        if let Some(state) = self.slots.get_mut(slot_of(key)).filter(|state| **state == in_use) {
            *state &= !IN_USE;
            self.live -= 1;
        }
    }

    /// Whether `key` is the last that its slot had: that of a live region, or of one that has ended since a peer was told.
    pub(super) fn is_or_was(&self, key: u32) -> bool {
        let last = self.slots.get(slot_of(key)).map(|state| u32::from(state & !IN_USE));
        generation_of(key) != 0 && last == Some(generation_of(key))
    }

    #[cfg(test)]
    pub(super) fn live(&self) -> usize {
        self.live
    }
}

const SLOT_BITS: u32 = REGION_SLOTS.trailing_zeros();

/// One of the generations from 1 on, but not `last`.
fn another_generation(last: u32, random: u32) -> u32 {
    let others = GENERATIONS - if last == 0 { 1 } else { 2 };
    let generation = 1 + random % others;
    generation + u32::from(last != 0 && generation >= last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn live_keys_are_unique_and_no_slot_repeats_its_last(steps in prop::collection::vec((any::<u64>(), any::<bool>()), 1..400)) {
            let (mut keys, mut live, mut last) = (Keys::new(), Vec::new(), HashMap::new());
            for (random, release) in steps {
                // Few slots and steps, so that they collide.
                let random = random & !0xffff_fff8;
                if release && !live.is_empty() {
                    let gone = live.swap_remove(random as usize % live.len());
                    keys.release(gone);
                    prop_assert!(keys.is_or_was(gone) && !keys.is_or_was(gone ^ 1 << 31));
                    continue;
                }
                let key = keys.acquire(random).unwrap();
                prop_assert_ne!(key, 0);
                prop_assert_ne!(last.insert(slot_of(key), key), Some(key));
                prop_assert!(!live.iter().any(|other| slot_of(*other) == slot_of(key)));
                live.push(key);
                prop_assert!(live.iter().all(|key| keys.is_or_was(*key)) && !keys.is_or_was(slot_of(key) as u32));
            }
        }

        #[test]
        fn every_generation_but_the_last_can_come(last in 0..GENERATIONS, random: u32) {
            let generation = another_generation(last, random);
            prop_assert!((1..GENERATIONS).contains(&generation) && generation != last);
        }
    }

    #[test]
    fn keys_have_no_common_step_and_use_all_bits() {
        let mut keys = Keys::new();
        let random = || u64::from_ne_bytes(crate::auth::random().unwrap());
        let drawn: Vec<_> = (0..1000).map(|_| keys.acquire(random()).unwrap()).collect();
        let steps: HashSet<_> = drawn.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert!(steps.len() > 990, "{} different steps", steps.len());
        for bit in 0..32 {
            let set = drawn.iter().filter(|key| **key >> bit & 1 == 1).count();
            assert!((350..650).contains(&set), "bit {bit} is set in {set} of 1000 keys");
        }
    }

    #[test]
    fn a_table_can_be_filled_to_its_last_slot_and_a_wrong_release_frees_nothing() {
        let mut keys = Keys::new();
        let mut draws = 0_u64;
        let mut draw = || {
            draws = draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
            draws
        };
        let all: HashSet<_> = (0..REGION_SLOTS).map(|_| slot_of(keys.acquire(draw()).unwrap())).collect();
        assert_eq!(all.len(), REGION_SLOTS);
        assert_eq!(keys.acquire(draw()), None);
        let key = key_of(7, u32::from(keys.slots[7] & !IN_USE));
        keys.release(key ^ 1 << 31);
        assert_eq!(keys.acquire(draw()), None);
        keys.release(key);
        keys.release(key);
        let next = keys.acquire(draw()).unwrap();
        assert!(slot_of(next) == 7 && next != key);
        assert_eq!(keys.acquire(draw()), None);
    }
}
