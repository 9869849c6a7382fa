//! What a thread that copies transfers by itself keeps of its own: its place, where no other thread counts, and its clock.

use std::cell::Cell;

use super::copy_clock::CopyClock;
use super::places::Places;
use crate::fork::{PerProcess, ProcessGeneration};

/// A thread looks for a place with its copy of this number: one that makes few copies needs none.
const FIRST_LOOK: u32 = 16;

/// While no place is free it looks again with each copy of this number.
const NEXT_LOOK: u32 = 1024;

static TAKEN: PerProcess<Places> = PerProcess::new(Places::default);

/// The thread's own.
#[derive(Debug)]
pub(super) struct CopyingThread {
    /// The number of the process generation in which it has its place, 0 without one. The thread that goes on in a forked child has none there
    /// at first.
    generation: Cell<u32>,
    place: Cell<usize>,
    /// Copies until it looks for a place.
    until_look: Cell<u32>,
    pub(super) clock: CopyClock,
}

impl CopyingThread {
    const fn new() -> Self {
        Self {
            generation: Cell::new(0),
            place: Cell::new(0),
            until_look: Cell::new(FIRST_LOOK),
            clock: CopyClock::new(),
        }
    }

    /// With that of the current thread. It has no destructor, so it is there for as long as the thread runs.
    #[inline(always)]
    pub(super) fn with<T>(act: impl FnOnce(&Self) -> T) -> T {
        thread_local!(static CURRENT: CopyingThread = const { CopyingThread::new() });
        CURRENT.with(act)
    }

    /// Its place in the process of this generation, which is the current one.
    #[inline(always)]
    pub(super) fn place(&self, generation: u32) -> Option<usize> {
        (self.generation.get() == generation).then(|| self.place.get())
    }

    /// Now and then looks for a place, for a thread without one: its next copy is counted there.
    #[cold]
    pub(super) fn look_for_place(&self) {
        let left = self.until_look.get().saturating_sub(1);
        self.until_look.set(if left == 0 { NEXT_LOOK } else { left });
        // Taken only where it will be given back.
        if left == 0
            && GIVES_BACK.try_with(|_| ()).is_ok()
            && let Some(place) = TAKEN.get().take()
        {
            self.place.set(place);
            self.generation.set(ProcessGeneration::current().number());
        }
    }

    /// The thread ends. What it still copies is counted where threads without a place count.
    fn end(&self) {
        if self.place(ProcessGeneration::current().number()).is_some() {
            TAKEN.get().give_back(self.place.get());
        }
        self.generation.set(0);
        self.until_look.set(u32::MAX);
    }
}

/// Ends a thread's [`CopyingThread`] when the thread drops what is its own.
struct GivesBack;

thread_local!(static GIVES_BACK: GivesBack = const { GivesBack });

impl Drop for GivesBack {
    fn drop(&mut self) {
        CopyingThread::with(CopyingThread::end);
    }
}
