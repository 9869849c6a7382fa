//! The transfers of one engine by id: a slab of recycled tasks whose ids carry a sequence number, so that an old id is
//! recognised for what it is and never reaches a stranger's transfer.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::utils::CachePadded;
use once_cell::sync::OnceCell;

use super::free_list::FreeList;
use super::{Failure, Outcome, TransferId};
use crate::pool::{Task, Verdict, Worker};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// Low bits of an id: the slot. The rest is the sequence number.
const SLOT_BITS: u32 = 20;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Transfers whose outcome stays readable after their release.
pub const REMEMBERED: usize = 4096;

/// Slots of the first chunk; each further chunk doubles the table.
const FIRST_CHUNK: usize = 64;
const CHUNKS: usize = 15;

/// All transfers of one engine.
#[derive(Debug)]
pub struct Table {
    /// Chunk `k` holds `FIRST_CHUNK << k` slots (chunk 0 and 1 the same number); made once, never moved.
    chunks: [OnceCell<Box<[Slot]>>; CHUNKS],
    free: FreeList,
    growth: Mutex<usize>,
    /// Next sequence number. Incremented by submitters, Relaxed: only uniqueness matters.
    sequence: CachePadded<AtomicU64>,
    outcomes: Outcomes,
}

/// One transfer.
#[derive(Debug)]
struct Slot {
    /// The id of the transfer in it, 0 when free. Stored by the submitter (Release) after everything else is set up;
    /// swapped to 0 by whoever releases it (AcqRel), which settles who that is. Readers load it before (Acquire) and
    /// check it again after using the slot.
    id: AtomicU64,
    /// What workers share.
    task: Arc<Task>,
    /// Bit set of the workers that have a part of it, by their index in the pool. Written by the submitter before
    /// `id` is published, read by callers that drive: Relaxed under `id`'s ordering.
    workers: AtomicU32,
    /// The list of free slots goes on there; see [`FreeList`].
    next_free: AtomicU32,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            chunks: Default::default(),
            free: FreeList::default(),
            growth: Mutex::new(0),
            sequence: CachePadded::new(AtomicU64::new(1)),
            outcomes: Outcomes::default(),
        }
    }
}

/// A slot that a submitter has taken and not yet published.
#[derive(Debug)]
pub struct Claim<'a> {
    slot: &'a Slot,
    index: u32,
}

impl Claim<'_> {
    /// The task to start and hand to workers.
    pub fn task(&self) -> &Arc<Task> {
        &self.slot.task
    }
}

impl Table {
    /// Takes a free slot; `None` when 1,048,576 transfers are in flight.
    #[inline]
    pub fn claim(&self) -> Option<Claim<'_>> {
        let index = match self.take_free() {
            Some(index) => index,
            None => self.grow()?,
        };
        Some(Claim { slot: self.slot(index)?, index })
    }

    /// Gives a slot back that was never published.
    pub fn abandon(&self, claim: Claim<'_>) {
        self.recycle(claim.index);
    }

    /// Publishes a claimed slot under a new id.
    #[inline]
    pub fn publish(&self, claim: Claim<'_>, workers: u32) -> TransferId {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let id = sequence << SLOT_BITS | u64::from(claim.index);
        claim.slot.workers.store(workers, Ordering::Relaxed);
        claim.slot.id.store(id, Ordering::Release);
        TransferId(id)
    }

    /// The live transfer of an id.
    #[inline]
    pub fn find(&self, id: TransferId) -> Option<Live<'_>> {
        let slot = self.slot((id.0 & SLOT_MASK) as u32)?;
        (id.0 != 0 && slot.id.load(Ordering::Acquire) == id.0).then_some(Live { slot, id })
    }

    /// Releases an ended transfer and answers its outcome; `None` if somebody else just did.
    #[inline]
    pub fn release(&self, live: &Live<'_>, peer: impl FnOnce() -> String) -> Option<Outcome> {
        let verdict = live.slot.task.verdict();
        let failure = if verdict == Verdict::Failed { live.slot.task.failure() } else { None };
        if !live.is_current() {
            return None;
        }
        let outcome = match verdict {
            Verdict::Fine => Outcome::Done,
            Verdict::TimedOut => Outcome::TimedOut,
            Verdict::Cancelled => Outcome::Cancelled,
            Verdict::Failed => Outcome::Failed(Failure {
                iov: failure.as_ref().map_or(0, |failure| failure.iov as usize),
                status: failure.as_ref().map_or(crate::fabric::CompletionStatus::General, |f| f.status),
                vendor_error: failure.as_ref().map_or(0, |failure| failure.vendor_error),
                peer: peer(),
                reason: failure.map_or_else(String::new, |failure| failure.reason),
            }),
        };
        // Recorded before the slot is free, so that no reader finds the id in neither place.
        self.outcomes.record(live.id, &outcome);
        live.slot.id.compare_exchange(live.id.0, 0, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        self.recycle((live.id.0 & SLOT_MASK) as u32);
        Some(outcome)
    }

    #[inline]
    fn recycle(&self, index: u32) {
        if let Some(slot) = self.slot(index) {
            self.free.push(index, &slot.next_free);
        }
    }

    #[inline]
    fn take_free(&self) -> Option<u32> {
        self.free.pop(|index| Some(&self.slot(index)?.next_free))
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
    fn slot(&self, index: u32) -> Option<&Slot> {
        let index = index as usize;
        // Chunk 0 holds the first FIRST_CHUNK slots, chunk k the next FIRST_CHUNK << (k - 1).
        let chunk = (usize::BITS - (index / FIRST_CHUNK).leading_zeros()) as usize;
        let start = if chunk == 0 { 0 } else { FIRST_CHUNK << (chunk - 1) };
        self.chunks.get(chunk)?.get()?.get(index - start)
    }

    #[cold]
    fn grow(&self) -> Option<u32> {
        let mut made = lock(&self.growth);
        if let Some(index) = self.take_free() {
            return Some(index);
        }
        let chunk = if *made == 0 { 0 } else { (*made / FIRST_CHUNK).ilog2() as usize + 1 };
        let size = if chunk == 0 { FIRST_CHUNK } else { FIRST_CHUNK << (chunk - 1) };
        let slots = (0..size)
            .map(|_| Slot {
                id: AtomicU64::new(0),
                task: Arc::default(),
                workers: AtomicU32::new(0),
                next_free: AtomicU32::new(0),
            })
            .collect();
        self.chunks.get(chunk)?.set(slots).ok()?;
        let first = *made as u32;
        *made += size;
        (first + 1..*made as u32).rev().for_each(|index| self.recycle(index));
        Some(first)
    }
}

/// A transfer found by its id. It may be released by another thread at any time; what is read from it then is stale
/// but never another transfer's, because reading ends with [`Live::is_current`].
#[derive(Debug)]
pub struct Live<'a> {
    slot: &'a Slot,
    id: TransferId,
}

impl Live<'_> {
    /// Its task.
    #[inline]
    pub fn task(&self) -> &Arc<Task> {
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
    /// `sequence << 8 | code` at `sequence % len`; 0 for none. Written by whoever released the transfer, read by
    /// anyone: one word, so Relaxed. A straggler does not overwrite a younger transfer's.
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
    fn record(&self, id: TransferId, outcome: &Outcome) {
        let sequence = id.0 >> SLOT_BITS;
        let Some(entry) = self.ring.get(sequence as usize % RING) else { return };
        let code = match outcome {
            Outcome::Done => DONE,
            Outcome::TimedOut => TIMED_OUT,
            Outcome::Cancelled => CANCELLED,
            Outcome::Failed(failure) => {
                let mut failures = lock(&self.failures);
                // Two threads may release the same transfer at the same time and both come here.
                if !failures.iter().rev().take(64).any(|(failed, _)| *failed == id) {
                    if failures.len() == REMEMBERED {
                        failures.pop_front();
                    }
                    failures.push_back((id, failure.clone()));
                }
                FAILED
            }
        };
        let value = sequence << 8 | code;
        if entry.load(Ordering::Relaxed) < value {
            entry.store(value, Ordering::Relaxed);
        }
    }

    fn find(&self, id: TransferId) -> Option<Outcome> {
        let sequence = id.0 >> SLOT_BITS;
        let value = self.ring.get(sequence as usize % RING)?.load(Ordering::Relaxed);
        if sequence == 0 || value >> 8 != sequence {
            return None;
        }
        match value & 0xff {
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
