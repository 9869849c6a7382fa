//! Asking about transfers, waiting for them, ending them early.

use std::time::{Duration, Instant};

use super::lane_choice::thread_hint;
use super::{Connection, FAILURES_HELD};
use crate::events::Wait;
use crate::observe::report;
use crate::pool::{COPY_WORKER, EndState, PartOwner};
use crate::sync::Ordering;
use crate::transfer::{Asked, Live, Outcome, Status, TransferGeneration, TransferId};

/// A sleeping waiter looks up this often, in case its transfer was released by another thread.
const NAP: Duration = Duration::from_millis(100);

/// A waiter for a copy of GPU memory looks for so long before it sleeps: to be woken at the end of a copy takes 150 us, by the
/// driver's thread, the worker and the waiter, which is a twentieth of this time. An H200 copies 64 MiB from the host in 1.24 ms.
/// `cuMemcpy` looks for as long as the copy takes.
const COPY_SPIN: Duration = Duration::from_millis(3);

/// After so long the waiter for a copy lets other threads of its processor run between two looks.
const COPY_SPIN_ALONE: Duration = Duration::from_micros(300);

/// How long a cancelled transfer may finish by itself before its queue pairs are moved to ERROR.
const CANCEL_GRACE: Duration = Duration::from_millis(20);

impl Connection {
    /// The state of a transfer of this connection's engine. Never waits, and moves bytes meanwhile if it is pending.
    ///
    /// The first answer that it has ended gives its id back; how it ended stays readable for the engine's last 4,096
    /// transfers. In a forked child: [`Status::Unknown`].
    #[inline]
    pub fn status(&self, id: TransferId) -> Status {
        match self.look(id) {
            Look::Pending => Status::Pending,
            Look::Done => Status::Ended(Outcome::Done),
            Look::Other => self.other_status(id),
        }
    }

    /// Whether a transfer of this connection's engine has ended, for callers that take a yes for success; helps progress
    /// if it is pending. The first yes releases the id.
    ///
    /// One that failed or timed out reads as not ended for `FLAGCX_P2P_FAILED_HOLD_MS` from the first question on, or
    /// until [`Connection::status`], [`Connection::wait`] or [`Connection::test_batch`] has told how it ended. After the hold
    /// it reads as ended, and the calling thread's next notification on this connection is refused with the failure.
    #[doc(hidden)]
    #[inline]
    pub fn has_ended(&self, id: TransferId) -> bool {
        match self.look(id) {
            Look::Pending => false,
            Look::Done => true,
            Look::Other => self.has_ended_otherwise(id),
        }
    }

    /// Whether a transfer that has not ended well, or that another thread has released, reads as ended.
    #[cold]
    fn has_ended_otherwise(&self, id: TransferId) -> bool {
        if !self.is_here() {
            return false;
        }
        if id == TransferId::COMPLETE {
            return true;
        }
        let transfers = &self.context.transfers;
        let asked = Asked { connection: self.number, thread: thread_hint(), now: Instant::now() };
        if let Some(live) = transfers.find(id) {
            if !live.record().is_ended() {
                return false;
            }
            if let Some(outcome) = transfers.set_aside(&live, asked, || self.peer.control.to_string()) {
                self.count_failure(id, &outcome);
                if !transfers.has_room_for_failures(self.number) {
                    self.gate.fetch_or(FAILURES_HELD, Ordering::Relaxed);
                }
            }
        }
        transfers.has_failed_ended(id, asked).unwrap_or(true)
    }

    fn count_failure(&self, id: TransferId, outcome: &Outcome) {
        let (id, peer) = (id.0, &self.peer.control);
        match outcome {
            Outcome::TimedOut => report!(warn, TransferTimedOut, peer = peer, "transfer {id} timed out"),
            Outcome::Failed(_) => report!(warn, TransferFailed, peer = peer, "transfer {id} {outcome}"),
            Outcome::Done | Outcome::Cancelled => tracing::debug!(%peer, "transfer {id} {outcome}"),
        }
    }

    /// The quick part of a status: what most transfers are, most of the time.
    #[inline(always)]
    fn look(&self, id: TransferId) -> Look {
        if !self.is_here() {
            return Look::Other;
        }
        let Some(live) = self.context.transfers.find(id) else { return Look::Other };
        if !live.record().is_ended() {
            self.help(live);
            if !live.record().is_ended() {
                return Look::Pending;
            }
        }
        if self.context.transfers.release_done(&live) {
            return Look::Done;
        }
        Look::Other
    }

    /// The status of a transfer that has not ended well, or that another thread has released.
    #[cold]
    fn other_status(&self, id: TransferId) -> Status {
        if !self.is_here() {
            return Status::Unknown;
        }
        if id == TransferId::COMPLETE {
            return Status::Ended(Outcome::Done);
        }
        let transfers = &self.context.transfers;
        let released = match transfers.find(id) {
            Some(live) if !live.record().is_ended() => return Status::Pending,
            Some(live) => transfers.release(&live, || self.peer.control.to_string()),
            None => None,
        };
        let Some(outcome) = released else {
            let known = transfers.take_failed(id, thread_hint()).or_else(|| transfers.outcome(id));
            return known.map_or(Status::Unknown, Status::Ended);
        };
        if outcome != Outcome::Done {
            self.count_failure(id, &outcome);
        }
        Status::Ended(outcome)
    }

    /// Does some of a transfer's work, wherever that is done. Not inlined: its registers would be saved with every look.
    #[inline(never)]
    fn help(&self, live: Live) {
        live.drive(|index| self.context.worker(index));
    }

    /// Waits until a transfer has ended, at most for `timeout`: [`Status::Pending`] if it has not ended then.
    ///
    /// Moves bytes itself for the time of `FLAGCX_P2P_SPIN_US`, up to 500 us from the beginning where no NIC moves them and no
    /// other thread wants the core, then sleeps while the workers' threads do. For copies of GPU memory it looks once for 3 ms, and lets
    /// other threads of the core run after the first 300 us.
    pub fn wait(&self, id: TransferId, timeout: Duration) -> Status {
        if id == TransferId::COMPLETE {
            return self.other_status(id);
        }
        let began = Instant::now();
        // A far deadline stands for "no limit", which an Instant cannot express.
        let deadline = began.checked_add(timeout).unwrap_or_else(|| began + Duration::from_secs(1 << 30));
        let mut idle_since = None;
        let mut polled: Option<Wait<'_>> = None;
        loop {
            let status = self.status(id);
            if !matches!(status, Status::Pending) {
                if let Some(wait) = polled {
                    wait.end();
                }
                return status;
            }
            let Some(live) = self.context.transfers.find(id) else { continue };
            let now = Instant::now();
            if now >= deadline {
                if let Some(wait) = polled {
                    wait.end();
                }
                return Status::Pending;
            }
            let copies = live.is_with(COPY_WORKER);
            let spin = self.context.settings.spin.max(if copies { COPY_SPIN } else { Duration::ZERO });
            let polling = self.context.polling.as_ref().filter(|_| !copies);
            let wait = polling.map(|polling| polled.get_or_insert_with(|| polling.begin()));
            let idle = now.duration_since(*idle_since.get_or_insert(now));
            if idle < spin {
                match wait {
                    // The peer may be on this core.
                    Some(wait) => wait.give_way(now),
                    None if copies && idle >= COPY_SPIN_ALONE => std::thread::yield_now(),
                    None => std::hint::spin_loop(),
                }
                continue;
            }
            if wait.is_some_and(|wait| wait.polls_on()) {
                continue;
            }
            self.sleep(&live, deadline.min(now + NAP));
            // Looking for a long copy again after each nap would take 3 % of a processor.
            if !copies {
                idle_since = None;
            }
        }
    }

    /// Ends a transfer early. When this answers true it has ended, as cancelled unless it was over before, and nothing touches
    /// its memory any more. False for an id that is not in flight, but for
    /// [`TransferId::COMPLETE`], which has ended.
    ///
    /// Waits: most often for some microseconds; for 20 ms and the drain of a queue pair, 2 s at most, if the peer does not
    /// answer. A copy of a GPU cannot be stopped: it is waited for as long as it takes.
    pub fn cancel(&self, id: TransferId) -> bool {
        if !self.is_here() {
            return false;
        }
        if id == TransferId::COMPLETE {
            return true;
        }
        let transfers = &self.context.transfers;
        let Some(live) = transfers.find(id) else {
            return transfers.take_failed(id, thread_hint()).is_some();
        };
        let generation = live.record().generation();
        if !live.is_current() {
            // Released meanwhile: the record may be another transfer's by now.
            return false;
        }
        self.condemn(&live, generation);
        let grace = Instant::now() + CANCEL_GRACE;
        while live.is_current() && !live.record().is_ended() {
            self.help(live);
            if Instant::now() >= grace {
                live.record().abort_generation(generation);
                self.context.pool.early_ends().note();
                self.sleep(&live, Instant::now() + Duration::from_millis(1));
            }
        }
        if matches!(live.record().end_state(), EndState::Failed | EndState::TimedOut) && live.is_current() {
            // The caller wants nothing more of it: its failure is told by its outcome alone.
            let _ = self.status(id);
        }
        true
    }

    /// As [`Connection::cancel`], for a thread that must not wait for as long: true if nothing touches the transfer's memory any
    /// more, which it looks for as long as `patience`. False: the transfer is going to end as cancelled, which `cancel` waits for.
    #[doc(hidden)]
    pub fn try_cancel(&self, id: TransferId, patience: Duration) -> bool {
        if !self.is_here() {
            return true;
        }
        let Some(live) = self.context.transfers.find(id) else { return true };
        let generation = live.record().generation();
        if !live.is_current() {
            return true;
        }
        self.condemn(&live, generation);
        let until = Instant::now() + patience;
        while live.is_current() && !live.record().is_ended() {
            if Instant::now() >= until {
                return false;
            }
            self.help(live);
        }
        true
    }

    fn condemn(&self, live: &Live, generation: TransferGeneration) {
        if !live.record().is_ended() {
            live.record().condemn_generation(generation, EndState::Cancelled);
            self.context.pool.early_ends().note();
        }
    }

    /// Asks about many transfers in one pass, and answers how many have ended: `ended[i]` is set when `ids[i]` has, and is not
    /// asked about again.
    ///
    /// Ids and answers are paired up to the shorter of the two. Never waits.
    pub fn test_batch(&self, ids: &[TransferId], ended: &mut [Option<Status>]) -> usize {
        let mut count = 0;
        for (id, slot) in ids.iter().zip(ended) {
            if slot.is_none() {
                *slot = Some(self.status(*id)).filter(|status| !matches!(status, Status::Pending));
            }
            count += usize::from(slot.is_some());
        }
        count
    }

    fn sleep(&self, live: &Live, until: Instant) {
        let workers = live.workers().filter_map(|index| self.context.worker(index));
        let driving: Vec<_> = workers.map(|worker| worker.thread_drives(live.record(), until)).collect();
        live.record().sleep_until_ended(until);
        drop(driving);
    }
}

/// What a first look at a transfer finds.
enum Look {
    /// Not over.
    Pending,
    /// Ended well, and released.
    Done,
    /// Anything else: it did not end well, or is not in flight.
    Other,
}
