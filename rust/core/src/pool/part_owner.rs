//! What a part belongs to, as a worker sees it: what it asks about the whole, and what it reports.

use std::fmt::Debug;

use crate::fabric::CompletionStatus;
pub use crate::observe::EndState;

/// The end of a part: how its whole has gone so far, and whether this was the last part, so that it has ended like that.
///
/// In one byte, the state in the two lowest bits and the last part's mark above: a place among counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartEnd(u8);

impl PartEnd {
    const LAST: u8 = 4;

    /// The end of the last part. The state has its number in the two lowest bits of `code`.
    #[inline(always)]
    pub fn of_last(code: u8) -> Self {
        Self(code & 3 | Self::LAST)
    }

    /// The end of another part.
    #[inline(always)]
    pub fn of_other(code: u8) -> Self {
        Self(code & 3)
    }

    /// How the whole has gone so far.
    pub fn state(self) -> EndState {
        EndState::from_code(self.0)
    }

    /// No part is left.
    #[inline(always)]
    pub fn is_last(self) -> bool {
        self.0 & Self::LAST != 0
    }

    /// The number among eight: see [`TransferCounts::end`](crate::observe::TransferCounts::end).
    #[inline(always)]
    pub(super) fn code(self) -> u8 {
        self.0
    }
}

/// The first request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFailure {
    /// Index of the caller's iov, or of the first of those that may be it.
    pub iov: u32,
    /// Index of the last iov that may be it: another one where the device does not name the request that failed.
    pub last_iov: u32,
    /// How its request completed.
    pub status: CompletionStatus,
    /// The vendor's own code.
    pub vendor_error: u32,
    /// In words, empty if the status says it all.
    pub reason: String,
}

/// What parts belong to. Lives as long as the process: workers refer to it without counting references, which takes two
/// locked instructions less for each transfer.
///
/// Workers call it while they have a part of it, several at a time. One dynamic call for each part that begins or ends:
/// none for each request.
pub trait PartOwner: Debug + Sync {
    /// A part has ended: nothing touches its memory any more. Once for each part, under the lock of the worker that had
    /// it, if one had it. After the call for the last part the worker does not use the owner any more.
    fn end_part(&self) -> PartEnd;

    /// Names this use of it, among all that it has been put to: owners are reused.
    fn generation(&self) -> u64;

    /// Parts that have not ended.
    fn parts_left(&self) -> u32;

    /// How it has gone so far; final once the last part has ended.
    fn end_state(&self) -> EndState;

    /// It is to end so, and not well. The first such call or failed request stands; true if it was this call.
    fn condemn(&self, state: EndState) -> bool;

    /// A request failed. The first failure stands.
    fn fail(&self, failure: RequestFailure);

    /// Asks workers to end it now, even at the price of its queue pairs.
    fn abort(&self);

    /// Whether it is to end now, even at the price of its queue pairs.
    fn is_aborted(&self) -> bool;

    /// Whether its time is over at `now`, in milliseconds of the pool's clock. Its time counts from the first call on.
    fn is_late(&self, now: u64) -> bool;

    /// A caller is going to sleep until it has ended. Called under the lock of each worker that has a part of it.
    fn watch(&self);

    /// A part of it goes to the worker with this [bit](super::worker_bit). From then on it counts as watched, so that
    /// callers hear of its end although they do not know of that worker. Called while no worker has the part, which was
    /// [watched](PartOwner::watch) when it left the last one.
    fn moves_to(&self, worker: usize);

    /// Whether its parts are to end now rather than be moved.
    fn ends_early(&self) -> bool {
        self.end_state() != EndState::Done || self.is_aborted()
    }
}
