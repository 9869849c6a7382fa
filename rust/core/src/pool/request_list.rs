//! What a worker is given to move: work requests, cut and checked, and what must stay alive until they are done.

use crate::fabric::{Sge, WorkRequest};
use crate::memory::Hold;

use super::lane::LaneKey;

/// The work requests of one part of a transfer, in posting order. Made once, when the transfer is checked; posting takes
/// the next so many of them, and a repetition takes them again. A slice costs the 48 bytes of a request with one entry.
#[derive(Debug, Default)]
pub struct RequestList {
    pub(super) requests: Vec<WorkRequest>,
    /// Their scatter/gather entries.
    pub(super) entries: Vec<Sge>,
    /// Bytes of all requests.
    pub(super) bytes: u64,
    /// Keeps the local regions registered until the part has ended.
    pub holds: Vec<Hold>,
    /// This is the first part of its transfer: where the transfer is counted.
    pub first: bool,
}

impl RequestList {
    /// Most requests of one list: what indices of 32 bits name, and 3 GiB of memory.
    pub const LONGEST: usize = 1 << 26;
    /// Largest capacity that is kept for reuse: 1.5 MiB of requests and entries.
    const KEEP: usize = 1 << 15;

    /// Number of requests.
    #[inline]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Empties the list for reuse, giving back the memory of an unusually long one.
    #[inline]
    pub fn clear(&mut self) {
        self.requests.clear();
        self.entries.clear();
        self.holds.clear();
        self.bytes = 0;
        if self.requests.capacity() > Self::KEEP {
            self.requests.shrink_to(Self::KEEP);
            self.entries.shrink_to(Self::KEEP);
        }
    }

    /// The next at most `most` requests from index `start` on, numbered from `first` on for `lane`. The last one is
    /// signaled, and every `signal_every`-th.
    #[inline]
    pub(super) fn next_run(
        &mut self,
        start: usize,
        most: usize,
        lane: LaneKey,
        first: u32,
        signal_every: usize,
    ) -> (&[WorkRequest], &[Sge]) {
        let end = self.requests.len().min(start.saturating_add(most));
        let run = self.requests.get_mut(start..end).unwrap_or_default();
        let mut sequence = first;
        for request in run.iter_mut() {
            request.id = lane.request_id(sequence);
            // Also for those that are posted once more.
            request.signaled = false;
            sequence = sequence.wrapping_add(1);
        }
        run.iter_mut()
            .skip(signal_every - 1)
            .step_by(signal_every)
            .for_each(|request| request.signaled = true);
        if let Some(last) = run.last_mut() {
            last.signaled = true;
        }
        (run, &self.entries)
    }

    /// The caller's iov that request `index` came from (the first one, if several were joined).
    pub(super) fn iov(&self, index: usize) -> u32 {
        self.requests.get(index).map_or(0, |request| request.origin)
    }
}
