//! Lists of a lane's parts. The links lie in the parts, so that one of a million is taken out without a search.

use super::part::Parts;

/// Number of the list of all parts of a lane that have not ended, the oldest first.
pub(super) const AGE: usize = 0;
/// Number of the list of those that wait to post, in the order in which they are served.
pub(super) const TURN: usize = 1;

/// A part's neighbours in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    /// The part before it, [`NONE`] for the first.
    pub(super) before: u32,
    /// The part behind it, [`NONE`] for the last.
    pub(super) behind: u32,
}

/// No part's index.
pub(super) const NONE: u32 = u32::MAX;

/// One lane's list of the kind `WHICH`: [`AGE`] or [`TURN`]. A part is in one list of a kind at most.
#[derive(Debug)]
pub(super) struct PartList<const WHICH: usize> {
    first: u32,
    last: u32,
}

impl<const WHICH: usize> Default for PartList<WHICH> {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl<const WHICH: usize> PartList<WHICH> {
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// The first part, [`NONE`] if there is none.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// The last part, [`NONE`] if there is none.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    /// Appends a part that is in no list of this kind.
    #[inline(always)]
    pub(super) fn push_back(&mut self, parts: &mut Parts, index: u32) {
        let new_links = self.link_back(parts, index);
        if let Some(links) = parts.links_mut::<WHICH>(index) {
            *links = new_links;
        }
    }

    /// As [`PartList::push_back`], for a caller that looks the part up anyway: the links are for it to store there.
    #[inline(always)]
    pub(super) fn link_back(&mut self, parts: &mut Parts, index: u32) -> Links {
        let last = std::mem::replace(&mut self.last, index);
        match parts.links_mut::<WHICH>(last) {
            Some(links) => links.behind = index,
            None => self.first = index,
        }
        Links { before: last, behind: NONE }
    }

    /// Puts a part that is in no list of this kind before all others.
    pub(super) fn push_front(&mut self, parts: &mut Parts, index: u32) {
        let first = std::mem::replace(&mut self.first, index);
        match parts.links_mut::<WHICH>(first) {
            Some(links) => links.before = index,
            None => self.last = index,
        }
        if let Some(links) = parts.links_mut::<WHICH>(index) {
            *links = Links { before: NONE, behind: first };
        }
    }

    /// Puts a part that is in no list of this kind between two neighbours.
    pub(super) fn insert(&mut self, parts: &mut Parts, index: u32, between: Links) {
        match parts.links_mut::<WHICH>(between.before) {
            Some(links) => links.behind = index,
            None => self.first = index,
        }
        match parts.links_mut::<WHICH>(between.behind) {
            Some(links) => links.before = index,
            None => self.last = index,
        }
        if let Some(links) = parts.links_mut::<WHICH>(index) {
            *links = between;
        }
    }

    /// Takes out a part that is in this list.
    #[inline(always)]
    pub(super) fn remove(&mut self, parts: &mut Parts, index: u32) {
        let Some(&mut Links { before, behind }) = parts.links_mut::<WHICH>(index) else { return };
        match parts.links_mut::<WHICH>(before) {
            Some(links) => links.behind = behind,
            None => self.first = behind,
        }
        match parts.links_mut::<WHICH>(behind) {
            Some(links) => links.before = before,
            None => self.last = before,
        }
    }

    /// Takes out the first part.
    pub(super) fn pop_front(&mut self, parts: &mut Parts) -> Option<u32> {
        let first = Some(self.first).filter(|_| !self.is_empty())?;
        self.remove(parts, first);
        Some(first)
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(list: &PartList<AGE>, parts: &mut Parts) -> Vec<u32> {
        let (mut all, mut at, mut before) = (Vec::new(), list.first(), NONE);
        while let Some(&mut links) = parts.links_mut::<AGE>(at) {
            assert_eq!(links.before, before);
            all.push(at);
            (before, at) = (at, links.behind);
        }
        assert_eq!(list.last(), before);
        all
    }

    proptest! {
        /// Two lists of the same parts do what two vectors do, whatever is taken out of them and where.
        #[test]
        fn are_lists(steps in prop::collection::vec((0u8..10, any::<prop::sample::Index>()), 0..200)) {
            let mut parts = Parts::default();
            let mut lists = [PartList::<AGE>::default(), PartList::default()];
            let mut models: [Vec<u32>; 2] = Default::default();
            for (step, at) in steps {
                let which = usize::from(step % 2);
                let (Some(list), Some(model)) = (lists.get_mut(which), models.get_mut(which)) else { continue };
                match step / 2 {
                    0 => {
                        let first = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(list.pop_front(&mut parts), first);
                        first.map(|index| parts.release(index, None));
                    }
                    1 if !model.is_empty() => {
                        let index = model.remove(at.index(model.len()));
                        list.remove(&mut parts, index);
                        parts.release(index, None);
                    }
                    2 => {
                        let index = parts.acquire();
                        list.push_front(&mut parts, index);
                        model.insert(0, index);
                    }
                    3 => {
                        let index = parts.acquire();
                        let place = at.index(model.len() + 1);
                        let neighbour = |at: Option<usize>| at.and_then(|at| model.get(at)).copied().unwrap_or(NONE);
                        let between = Links { before: neighbour(place.checked_sub(1)), behind: neighbour(Some(place)) };
                        list.insert(&mut parts, index, between);
                        model.insert(place, index);
                    }
                    _ => {
                        let index = parts.acquire();
                        list.push_back(&mut parts, index);
                        model.push(index);
                    }
                }
                prop_assert_eq!(contents(list, &mut parts), model.clone());
                prop_assert_eq!(list.is_empty(), model.is_empty());
            }
        }
    }
}
