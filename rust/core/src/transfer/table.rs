//! The transfers of one engine by id: a slab of recycled tasks whose ids carry a sequence number, so that an old id is
//! recognised for what it is and never reaches a stranger's transfer.

use std::collections::VecDeque;
use std::sync::Arc;

use once_cell::race::OnceRef;

use super::free_list::{FreeList, INDEX_BITS as SLOT_BITS, Taken};
use super::slots::{CHUNK, Chunk, SPARE, Slot};
use super::{Failure, Outcome, TransferId};
use crate::pool::{Task, Verdict, Worker};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Low bits of an id: the slot. The rest is the sequence number: of the taking of that slot.
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Transfers whose outcome stays readable after their release.
pub const REMEMBERED: usize = 4096;

/// One less than indices allow: the highest index means none.
const CHUNKS: usize = (1 << SLOT_BITS) / CHUNK - 1;

/// All transfers of one engine.
#[derive(Debug)]
pub struct Table {
    /// Slot `i` is in chunk `i / CHUNK`.
    chunks: Box<[OnceRef<'static, Chunk>]>,
    free: FreeList,
    growth: Mutex<usize>,
    outcomes: Outcomes,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            chunks: (0..CHUNKS).map(|_| OnceRef::new()).collect(),
            free: FreeList::default(),
            growth: Mutex::new(0),
            outcomes: Outcomes::default(),
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.chunks.iter().filter_map(OnceRef::get).for_each(|chunk| SPARE.give(chunk));
    }
}

/// A slot that a submitter has taken and not yet published.
#[derive(Debug)]
pub struct Claim(Taken<'static, Slot>);

impl Claim {
    /// The task to start and hand to workers.
    #[inline]
    pub fn task(&self) -> &'static Task {
        &self.0.slot.task
    }
}

impl Table {
    /// Takes a free slot; `None` when 1,048,512 transfers are in flight.
    #[inline]
    pub fn claim(&self) -> Option<Claim> {
        self.take_free().or_else(|| self.grow()).map(Claim)
    }

    /// Gives a slot back that was never published, and whose task no worker has.
    pub fn abandon(&self, claim: Claim) {
        claim.task().start(0, 0);
        self.recycle(claim.0.index, claim.0.slot);
    }

    /// Publishes a claimed slot under a new id.
    #[inline]
    pub fn publish(&self, claim: Claim, workers: u32) -> TransferId {
        let Taken { index, slot, number } = claim.0;
        let id = number << SLOT_BITS | u64::from(index);
        slot.workers.store(workers, Ordering::Relaxed);
        slot.id.store(id, Ordering::Release);
        TransferId(id)
    }

    /// The live transfer of an id.
    #[inline]
    pub fn find(&self, id: TransferId) -> Option<Live> {
        let slot = self.slot((id.0 & SLOT_MASK) as u32)?;
        (id.0 != 0 && slot.id.load(Ordering::Acquire) == id.0).then_some(Live { slot, id })
    }

    /// Releases a transfer that has ended well; false if somebody else just did.
    #[inline]
    pub fn release_done(&self, live: &Live) -> bool {
        // Recorded before the slot is free, so that no reader finds the id in neither place.
        live.is_current() && {
            self.outcomes.record(live.id, DONE);
            self.free(live)
        }
    }

    /// Releases an ended transfer and answers its outcome; `None` if somebody else just did.
    #[cold]
    pub fn release(&self, live: &Live, peer: impl FnOnce() -> String) -> Option<Outcome> {
        let verdict = live.slot.task.verdict();
        let failure = if verdict == Verdict::Failed { live.slot.task.failure() } else { None };
        if !live.is_current() {
            return None;
        }
        let (code, outcome) = match verdict {
            Verdict::Fine => (DONE, Outcome::Done),
            Verdict::TimedOut => (TIMED_OUT, Outcome::TimedOut),
            Verdict::Cancelled => (CANCELLED, Outcome::Cancelled),
            Verdict::Failed => {
                let failure = Failure {
                    iov: failure.as_ref().map_or(0, |failure| failure.iov as usize),
                    status: failure.as_ref().map_or(crate::fabric::CompletionStatus::General, |f| f.status),
                    vendor_error: failure.as_ref().map_or(0, |failure| failure.vendor_error),
                    peer: peer(),
                    reason: failure.map_or_else(String::new, |failure| failure.reason),
                };
                self.outcomes.keep(live.id, &failure);
                (FAILED, Outcome::Failed(failure))
            }
        };
        self.outcomes.record(live.id, code);
        self.free(live).then_some(outcome)
    }

    /// Frees the slot of a transfer; false if somebody else just did.
    #[inline]
    fn free(&self, live: &Live) -> bool {
        let id = &live.slot.id;
        let freed = id.compare_exchange(live.id.0, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if freed {
            self.recycle((live.id.0 & SLOT_MASK) as u32, live.slot);
        }
        freed
    }

    #[inline]
    fn recycle(&self, index: u32, slot: &Slot) {
        self.free.push(index, &slot.next_free);
    }

    #[inline]
    fn take_free(&self) -> Option<Taken<'static, Slot>> {
        self.free.pop(|index| self.slot(index), |slot| &slot.next_free)
    }

    /// The outcome of a released transfer, if it is among the last [`REMEMBERED`].
    pub fn outcome(&self, id: TransferId) -> Option<Outcome> {
        self.outcomes.find(id)
    }

    /// Every id in flight now.
    pub fn live_ids(&self) -> Vec<TransferId> {
        let made = *lock(&self.growth);
        (0..made as u32)
            .filter_map(|index| self.slot(index))
            .map(|slot| TransferId(slot.id.load(Ordering::Acquire)))
            .filter(|id| id.0 != 0)
            .collect()
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&'static Slot> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    #[cold]
    fn grow(&self) -> Option<Taken<'static, Slot>> {
        let mut made = lock(&self.growth);
        loop {
            if let Some(free) = self.take_free() {
                return Some(free);
            }
            let chunk = self.chunks.get(*made / CHUNK)?;
            let slots = SPARE.take();
            chunk.set(slots).ok()?;
            let first = *made as u32;
            *made += CHUNK;
            (first..*made as u32).zip(slots).rev().for_each(|(index, slot)| self.recycle(index, slot));
        }
    }
}

/// A transfer found by its id. It may be released by another thread at any time; what is read from it then is stale
/// but never another transfer's, because reading ends with [`Live::is_current`].
#[derive(Debug)]
pub struct Live {
    slot: &'static Slot,
    id: TransferId,
}

impl Live {
    /// Its task.
    #[inline]
    pub fn task(&self) -> &'static Task {
        &self.slot.task
    }

    /// Whether the slot still is this transfer's.
    #[inline]
    pub fn is_current(&self) -> bool {
        self.slot.id.load(Ordering::Acquire) == self.id.0
    }

    /// Whether workers have parts of it; the device runtime moves it otherwise.
    #[inline]
    pub fn has_workers(&self) -> bool {
        self.slot.workers.load(Ordering::Relaxed) != 0
    }

    /// Runs a step on each worker that has a part of it and is free.
    #[inline]
    pub fn drive(&self, workers: &[Arc<Worker>]) {
        let mut bits = self.slot.workers.load(Ordering::Relaxed);
        while bits != 0 {
            let index = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if let Some(worker) = workers.get(index) {
                let _ = worker.drive_as_caller();
            }
        }
    }

    /// The workers that have a part of it.
    pub fn workers(&self) -> impl Iterator<Item = usize> + use<> {
        let bits = self.slot.workers.load(Ordering::Relaxed);
        (0..32).filter(move |index| bits & (1 << index) != 0)
    }
}

/// Outcomes of the last released transfers.
#[derive(Debug)]
struct Outcomes {
    /// The sequence number, where ids have it, with a code below, at `sequence % len`; 0 for none. Written by whoever
    /// released the transfer, read by anyone: one word, so Relaxed. A straggler does not overwrite a younger transfer's.
    ring: Box<[AtomicU64; RING]>,
    /// Details of failed ones, oldest first.
    failures: Mutex<VecDeque<(TransferId, Failure)>>,
}

/// Twice as many as promised, so that long-running transfers between them do not push out the last ones released. A
/// power of two: the remainder costs nothing.
const RING: usize = 2 * REMEMBERED;

const DONE: u64 = 1;
const FAILED: u64 = 2;
const TIMED_OUT: u64 = 3;
const CANCELLED: u64 = 4;

impl Default for Outcomes {
    fn default() -> Self {
        Self { ring: Box::new(std::array::from_fn(|_| AtomicU64::new(0))), failures: Mutex::default() }
    }
}

impl Outcomes {
    #[inline]
    fn record(&self, id: TransferId, code: u64) {
        let sequence = id.0 >> SLOT_BITS;
        let Some(entry) = self.ring.get(sequence as usize % RING) else { return };
        let value = id.0 & !SLOT_MASK | code;
        // Sequence numbers begin anew after 2^44.
        if (value.wrapping_sub(entry.load(Ordering::Relaxed)) as i64) > 0 {
            entry.store(value, Ordering::Relaxed);
        }
    }

    /// Keeps the details of a failure.
    fn keep(&self, id: TransferId, failure: &Failure) {
        let mut failures = lock(&self.failures);
        // Two threads may release the same transfer at the same time and both come here.
        if !failures.iter().rev().take(64).any(|(failed, _)| *failed == id) {
            if failures.len() == REMEMBERED {
                failures.pop_front();
            }
            failures.push_back((id, failure.clone()));
        }
    }

    fn find(&self, id: TransferId) -> Option<Outcome> {
        let sequence = id.0 >> SLOT_BITS;
        let value = self.ring.get(sequence as usize % RING)?.load(Ordering::Relaxed);
        if sequence == 0 || value >> SLOT_BITS != sequence {
            return None;
        }
        match value & SLOT_MASK {
            DONE => Some(Outcome::Done),
            TIMED_OUT => Some(Outcome::TimedOut),
            CANCELLED => Some(Outcome::Cancelled),
            _ => {
                let failures = lock(&self.failures);
                failures
                    .iter()
                    .rev()
                    .find(|(failed, _)| *failed == id)
                    .map(|(_, f)| Outcome::Failed(f.clone()))
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn finish(table: &Table) -> TransferId {
        let claim = table.claim().unwrap();
        claim.task().start(1, 0);
        let id = table.publish(claim, 1);
        table.find(id).unwrap().task().end_part();
        let live = table.find(id).unwrap();
        assert_eq!(table.release(&live, String::new), Some(Outcome::Done));
        id
    }

    #[test]
    fn an_old_id_is_known_as_ended_and_then_forgotten_but_never_live() {
        let table = Table::default();
        let first = finish(&table);
        assert!(table.find(first).is_none());
        for n in 0..2 * REMEMBERED {
            if n < REMEMBERED {
                assert_eq!(table.outcome(first), Some(Outcome::Done), "after {n}");
            }
            assert_ne!(finish(&table), first);
        }
        assert_eq!(table.outcome(first), None);
        assert_eq!(table.outcome(TransferId(0)), None);
        assert_eq!(table.outcome(TransferId(u64::MAX)), None);
        assert!(table.find(TransferId(u64::MAX)).is_none());
    }

    #[test]
    fn grows_to_what_is_in_flight_and_reuses_slots() {
        let table = Table::default();
        let ids: Vec<_> = (0..1000)
            .map(|_| {
                let claim = table.claim().unwrap();
                claim.task().start(1, 0);
                table.publish(claim, 1)
            })
            .collect();
        assert_eq!(table.live_ids().len(), 1000);
        for id in &ids {
            let live = table.find(*id).unwrap();
            live.task().end_part();
            assert!(table.release(&live, String::new).is_some());
            assert!(table.release(&live, String::new).is_none(), "released twice");
        }
        assert_eq!(table.live_ids(), []);
        assert!(finish(&table).0 & SLOT_MASK < 1024);
    }

    #[test]
    fn a_failure_keeps_its_details() {
        let table = Table::default();
        let claim = table.claim().unwrap();
        claim.task().start(1, 0);
        let id = table.publish(claim, 0);
        let live = table.find(id).unwrap();
        live.task().fail(crate::pool::RequestFailure {
            iov: 17,
            status: crate::fabric::CompletionStatus::RemoteAccess,
            vendor_error: 9,
            reason: "why".to_owned(),
        });
        live.task().end_part();
        assert!(table.release(&live, || "peer".to_owned()).is_some());
        let Some(Outcome::Failed(failure)) = table.outcome(id) else { panic!("no failure") };
        assert_eq!((failure.iov, failure.vendor_error, failure.peer.as_str()), (17, 9, "peer"));
    }
}
