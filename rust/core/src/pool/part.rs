//! The share of a transfer that one lane moves.

use std::time::Instant;

use super::request_list::RequestList;
use super::task::Task;

/// Slots that are kept while none is in use: each look at the deadlines walks all there are.
const MAX_IDLE: usize = 4096;

/// One part, in a worker's slab. The slot is reused, so its list's memory is too.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The transfer; `None` for a free slot.
    pub(super) task: Option<&'static Task>,
    pub(super) list: RequestList,
    /// Requests posted: index of the next one.
    pub(super) cursor: usize,
    /// Requests posted and not retired.
    pub(super) outstanding: u32,
    /// Index of its lane.
    pub(super) lane: u16,
    /// It stands in its lane's `waiting`.
    pub(super) waiting: bool,
    /// How often it was interrupted and resumed.
    pub(super) interruptions: u8,
    /// When it began, if its latency is measured.
    pub(super) begun: Option<Instant>,
    /// Where to resume: the first request that was flushed.
    pub(super) rewind: Option<usize>,
}

impl Part {
    /// Empties it for another transfer; answers the task of the one that it was of.
    #[inline(always)]
    pub(super) fn vacate(&mut self) -> Option<&'static Task> {
        self.list.clear();
        self.cursor = 0;
        self.outstanding = 0;
        self.waiting = false;
        self.interruptions = 0;
        self.rewind = None;
        self.begun = None;
        self.task.take()
    }

    pub(super) fn is_posted(&self) -> bool {
        self.cursor >= self.list.len()
    }
}

/// All parts of a worker.
#[derive(Debug, Default)]
pub(super) struct Parts {
    slots: Vec<Part>,
    free: Vec<u32>,
}

impl Parts {
    /// A free slot's index.
    #[inline(always)]
    pub(super) fn claim(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| self.grow())
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        self.slots.push(Part::default());
        (self.slots.len() - 1) as u32
    }

    #[inline]
    pub(super) fn get(&mut self, index: u32) -> Option<&mut Part> {
        self.slots.get_mut(index as usize)
    }

    /// Gives a slot back; answers its task.
    pub(super) fn release(&mut self, index: u32) -> Option<&'static Task> {
        let task = self.get(index)?.vacate();
        self.give(index);
        task
    }

    /// Gives an emptied slot back.
    #[inline(always)]
    pub(super) fn give(&mut self, index: u32) {
        self.free.push(index);
    }

    /// Gives back the memory of a burst, if none is in use.
    pub(super) fn trim(&mut self) {
        if self.slots.len() > MAX_IDLE && self.len() == 0 {
            *self = Self::default();
        }
    }

    /// Parts in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots, used and free: every part has an index below this.
    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }
}
