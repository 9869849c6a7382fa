//! What is posted on a lane, in posting order.

/// One posted list: which part it belongs to and where it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// The part that it belongs to.
    pub(super) part: u32,
    /// Sequence number of its first request that is still outstanding.
    pub(super) first: u32,
    /// Requests of it that are still outstanding.
    pub(super) count: u32,
    /// Index of its first outstanding request in the part's list.
    pub(super) start: u32,
}

impl Group {
    /// Takes `done` requests off its front.
    pub(super) fn retire(&mut self, done: u32) {
        self.first = self.first.wrapping_add(done);
        self.start += done;
        self.count -= done;
    }
}

/// A queue of groups. Not a `VecDeque`: that is a call, which hands a group over in memory in such a way that the
/// processor waits for it, a fifteenth of the time of a transfer of one request.
#[derive(Debug)]
pub(super) struct Groups {
    /// Its length is a power of two.
    ring: Box<[Group]>,
    /// Index of the first one, modulo the length of the ring.
    head: u32,
    len: u32,
}

impl Default for Groups {
    fn default() -> Self {
        Self { ring: Box::new([Group::default(); 8]), head: 0, len: 0 }
    }
}

impl Groups {
    #[inline(always)]
    fn position(&self, index: u32) -> usize {
        self.head.wrapping_add(index) as usize & (self.ring.len() - 1)
    }

    #[inline(always)]
    pub(super) fn push_back(&mut self, group: Group) {
        if self.len as usize == self.ring.len() {
            self.grow();
        }
        let at = self.position(self.len);
        if let Some(vacant) = self.ring.get_mut(at) {
            *vacant = group;
            self.len += 1;
        }
    }

    #[inline(always)]
    pub(super) fn front_mut(&mut self) -> Option<&mut Group> {
        let at = self.position(0);
        if self.len == 0 { None } else { self.ring.get_mut(at) }
    }

    #[inline(always)]
    pub(super) fn pop_front(&mut self) {
        if self.len > 0 {
            self.head = self.head.wrapping_add(1);
            self.len -= 1;
        }
    }

    pub(super) fn back(&self) -> Option<&Group> {
        self.ring.get(self.position(self.len.checked_sub(1)?))
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        (0..self.len).filter_map(|index| self.ring.get(self.position(index)))
    }

    #[cold]
    fn grow(&mut self) {
        let mut ring: Vec<_> = self.iter().copied().collect();
        ring.resize(2 * self.ring.len(), Group::default());
        self.ring = ring.into_boxed_slice();
        self.head = 0;
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It does what the standard library's queue does, however often its ring was used before.
        #[test]
        fn is_a_queue(steps in prop::collection::vec(0u8..10, 0..200), head: u32) {
            let mut groups = Groups { head, ..Groups::default() };
            let mut model = VecDeque::new();
            for (part, step) in (0..).zip(steps) {
                match step {
                    0..4 => {
                        groups.pop_front();
                        model.pop_front();
                    }
                    _ => {
                        let group = Group { part, ..Group::default() };
                        groups.push_back(group);
                        model.push_back(group);
                    }
                }
                prop_assert!(groups.iter().eq(&model));
                prop_assert_eq!(groups.front_mut(), model.front_mut());
                prop_assert_eq!(groups.back(), model.back());
            }
            groups.clear();
            prop_assert!(groups.front_mut().is_none());
        }
    }
}
