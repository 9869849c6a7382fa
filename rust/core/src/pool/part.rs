//! The share of a transfer that one lane moves.

use std::collections::BTreeSet;

use super::part_list::{AGE, Links, NONE};
use super::part_owner::PartOwner;
use super::request_list::RequestList;
use crate::memory::{Recent, RegionId};

/// Parts that are kept while none is in use.
const MAX_IDLE: usize = 4096;

/// One part, in a worker's slab. Reused, and so is its list's memory.
#[derive(Debug)]
pub(super) struct Part {
    /// Its neighbours in its lane's lists; see [`PartList`](super::part_list::PartList).
    pub(super) links: [Links; 2],
    /// What it is a part of; `None` while it is filled, or free.
    pub(super) owner: Option<&'static dyn PartOwner>,
    pub(super) list: RequestList,
    /// Requests posted: index of the next one.
    pub(super) cursor: usize,
    /// Requests posted and not retired.
    pub(super) outstanding: u32,
    /// Index of its lane.
    pub(super) lane: u16,
    /// It stands in its lane's `turns`.
    pub(super) waiting: bool,
    /// The count of the worker's [`SlowClock`](super::slow_clock::SlowClock) when it began.
    pub(super) begun_at: u32,
    /// When its transfer began, in nanoseconds of the quick clock, if its latency is measured, it has waited for the worker, it has other parts, or
    /// it began after a pause; else 0.
    pub(super) begun: u64,
    /// Its latency is one of the sample. False again once it has ended.
    pub(super) is_measured: bool,
    /// When a look at deadlines found it first, in milliseconds of the pool's clock: the time of its transfer counts from then
    /// on. 0 before. Left over from an earlier part until this one begins.
    pub(super) since: u64,
    /// How often it was interrupted and resumed.
    pub(super) interruptions: u8,
    /// How often it was the first to fail where a failing path and a bad request have the same name.
    pub(super) local_failures: u8,
    /// How often it went to another lane: each time it may be interrupted once more.
    pub(super) moves: u8,
    /// Where to resume: the first request that was flushed.
    pub(super) rewind: Option<usize>,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            links: [Links { before: NONE, behind: NONE }; 2],
            owner: None,
            list: RequestList::default(),
            cursor: 0,
            outstanding: 0,
            lane: 0,
            waiting: false,
            begun_at: 0,
            begun: 0,
            is_measured: false,
            since: 0,
            interruptions: 0,
            local_failures: 0,
            moves: 0,
            rewind: None,
        }
    }
}

impl Part {
    /// Empties it for reuse; answers its owner. Keeps its lease if that is still the one of its lane.
    #[inline(always)]
    fn clear(&mut self, recent: Option<&Recent>) -> Option<&'static dyn PartOwner> {
        if !recent.is_some_and(|recent| recent.has(&self.list.lease)) {
            self.list.lease = None;
        }
        self.list.clear_but_lease();
        self.cursor = 0;
        (self.interruptions, self.local_failures, self.moves) = (0, 0, 0);
        // The others have these values when a part ends.
        debug_assert!(self.outstanding == 0 && !self.waiting && self.rewind.is_none());
        self.owner.take()
    }

    /// The part of its lane that was begun next.
    pub(super) fn behind(&self) -> u32 {
        self.links[AGE].behind
    }

    /// The part of its lane that was begun before it.
    pub(super) fn before(&self) -> u32 {
        self.links[AGE].before
    }

    pub(super) fn is_posted(&self) -> bool {
        self.cursor >= self.list.len()
    }
}

/// All parts of a worker.
#[derive(Debug, Default)]
pub(super) struct Parts {
    all: Vec<Part>,
    free: Vec<u32>,
}

impl Parts {
    /// The index of a part that was free, empty.
    #[inline(always)]
    pub(super) fn acquire(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| self.grow())
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        self.all.push(Part::default());
        (self.all.len() - 1) as u32
    }

    #[inline]
    pub(super) fn get(&mut self, index: u32) -> Option<&mut Part> {
        self.all.get_mut(index as usize)
    }

    /// A part's neighbours in the list of the kind `WHICH`.
    #[inline(always)]
    pub(super) fn links_mut<const WHICH: usize>(&mut self, index: u32) -> Option<&mut Links> {
        self.all.get_mut(index as usize)?.links.get_mut(WHICH)
    }

    /// Empties a part, which is free then; answers its owner. `recent` is that of its lane, if the part was started.
    #[inline(always)]
    pub(super) fn release(&mut self, index: u32, recent: Option<&Recent>) -> Option<&'static dyn PartOwner> {
        let owner = self.get(index)?.clear(recent);
        self.free.push(index);
        owner
    }

    /// No part that is free keeps a lease on these regions.
    pub(super) fn forget(&mut self, regions: &BTreeSet<RegionId>) {
        for index in &self.free {
            if let Some(part) = self.all.get_mut(*index as usize) {
                // Its list has no other holds.
                part.list.lease.take_if(|lease| regions.contains(&lease.region().id));
            }
        }
    }

    /// Releases the memory of a burst, if none is in use.
    pub(super) fn trim(&mut self) {
        if self.all.len() > MAX_IDLE && self.len() == 0 {
            *self = Self::default();
        }
    }

    /// Parts in use.
    pub(super) fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Parts, in use and free: each has an index below this.
    pub(super) fn capacity(&self) -> u32 {
        self.all.len() as u32
    }
}
