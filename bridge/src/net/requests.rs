//! What a `void **request` holds: not an address but a number of a slot and its generation.
//! So a request that is polled again after it was done is recognised, and nothing is allocated for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::queue::ArrayQueue;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fork::{PerProcess, ProcessGeneration};
use flagcx_p2p::internals::transfer::TransferId;
use once_cell::sync::OnceCell;

/// The requests of the process.
#[derive(Debug)]
pub(super) struct Requests {
    /// Made when they are first needed, never moved.
    chunks: [OnceCell<Box<[Mutex<Slot>]>>; CHUNKS],
    free: ArrayQueue<u32>,
    /// Chunks made so far.
    growth: Mutex<usize>,
}

/// A request in flight.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) connection: Arc<Connection>,
    pub(super) transfer: TransferId,
    /// Bytes of all its pieces.
    pub(super) bytes: u64,
}

/// How a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poll {
    Pending,
    /// All its bytes are where they belong; 0 bytes for what is no request any more.
    Done(u64),
    /// It has ended and something failed, which has been logged.
    Failed,
    /// It was made by a process from which this one was forked.
    Inherited,
}

#[derive(Debug, Default)]
struct Slot {
    /// Times that the slot was taken.
    generation: u64,
    content: Content,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Empty,
    InFlight(Request),
    /// Free; its last request failed, and reads so when it is polled again.
    Failed,
}

const CHUNKS: usize = 64;
const CHUNK: usize = 1024;
const SLOT_BITS: u32 = 16;
/// Odd, so that no request looks like an aligned address.
const MARK: usize = 1;

const _: () = assert!(CHUNKS * CHUNK == 1 << SLOT_BITS);

/// The requests of the process.
pub(super) static REQUESTS: PerProcess<Requests> = PerProcess::new(Requests::default);

impl Default for Requests {
    fn default() -> Self {
        Self {
            chunks: [const { OnceCell::new() }; CHUNKS],
            free: ArrayQueue::new(CHUNKS * CHUNK),
            growth: Mutex::default(),
        }
    }
}

impl Requests {
    /// Names `request`; `None` when 65,536 are waiting to be polled.
    pub(super) fn insert(&self, request: Request) -> Option<usize> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow()?,
        };
        let mut slot = lock(self.slot(index)?);
        slot.generation += 1;
        slot.content = Content::InFlight(request);
        Some(name(index, slot.generation))
    }

    /// Polls a request by `look`, and frees its slot when it is not pending any more.
    pub(super) fn poll(&self, name: usize, look: impl FnOnce(&Request) -> Poll) -> Poll {
        let index = (name >> 1) & ((1 << SLOT_BITS) - 1);
        if is_inherited(name, ProcessGeneration::current().number()) {
            return Poll::Inherited;
        }
        let Some(slot) = self.slot(index as u32) else { return Poll::Done(0) };
        let mut slot = lock(slot);
        if self::name(index as u32, slot.generation) != name {
            return Poll::Done(0);
        }
        let state = match &slot.content {
            Content::Empty => return Poll::Done(0),
            Content::Failed => return Poll::Failed,
            Content::InFlight(request) => look(request),
        };
        slot.content = match state {
            Poll::Pending => return state,
            Poll::Done(_) => Content::Empty,
            Poll::Failed | Poll::Inherited => Content::Failed,
        };
        drop(slot);
        let _ = self.free.push(index as u32);
        state
    }

    fn slot(&self, index: u32) -> Option<&Mutex<Slot>> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    #[cold]
    fn grow(&self) -> Option<u32> {
        let mut made = lock(&self.growth);
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        self.chunks.get(*made)?.set((0..CHUNK).map(|_| Mutex::default()).collect()).ok()?;
        let first = (*made * CHUNK) as u32;
        *made += 1;
        for index in first + 1..first + CHUNK as u32 {
            let _ = self.free.push(index);
        }
        Some(first)
    }
}

/// Comes round again after 2^39 uses of the same slot.
fn name(index: u32, generation: u64) -> usize {
    (generation as usize) << (SLOT_BITS + 9)
        | (process() as usize) << (SLOT_BITS + 1)
        | (index as usize) << 1
        | MARK
}

/// Distinguishes a process from its ancestors by fork, up to 255 generations.
fn process() -> u8 {
    ProcessGeneration::current().number() as u8
}

/// Whether a request of that name was made by an ancestor of the process with this number in its line of forks. What never was
/// a request is not: that is done.
fn is_inherited(name: usize, process: u32) -> bool {
    let maker = (name >> (1 + SLOT_BITS)) as u8;
    let has_other_ancestors = process > u8::MAX.into();
    name & MARK != 0
        && maker != process as u8
        && (has_other_ancestors || (1..process).contains(&maker.into()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_ancestors_are_told_from_what_never_was_a_request() {
        let name_of = |process: usize| 7 << (SLOT_BITS + 9) | process << (SLOT_BITS + 1) | 5 << 1 | MARK;
        for of_none in [1, 2, 0x7fff_1234_5678, usize::MAX, name_of(1), name_of(9)] {
            assert!(!is_inherited(of_none, 1), "{of_none:#x}");
        }
        assert!(is_inherited(name_of(1), 3) && is_inherited(name_of(2), 3));
        assert!(
            !is_inherited(name_of(3), 3)
                && !is_inherited(name_of(4), 3)
                && !is_inherited(name_of(1) - MARK, 3)
        );
        // Numbers come round again after 255 forks in a line: then every other one is an ancestor's.
        assert!(is_inherited(name_of(1), 256 + 7) && !is_inherited(name_of(7), 256 + 7));
    }
}
