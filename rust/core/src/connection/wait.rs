//! Asking about transfers, waiting for them, ending them early.

use std::time::{Duration, Instant};

use super::{Connection, device_copies};
use crate::pool::Verdict;
use crate::sync::Ordering;
use crate::transfer::{Live, Outcome, Status, TransferId};

/// A sleeping waiter looks up this often, in case its transfer was released by another thread.
const NAP: Duration = Duration::from_millis(100);

/// How long a cancelled transfer may finish by itself before its queue pairs are moved to ERROR.
const CANCEL_GRACE: Duration = Duration::from_millis(20);

impl Connection {
    /// The state of a transfer of this connection's engine; helps progress if it is pending. The first `Ended`
    /// answer releases the id, whose outcome stays readable for the engine's last 4,096 transfers.
    #[inline]
    pub fn status(&self, id: TransferId) -> Status {
        match self.look(id) {
            Look::Pending => Status::Pending,
            Look::Done => Status::Ended(Outcome::Done),
            Look::Other => self.other_status(id),
        }
    }

    /// Whether [`Connection::status`] would answer anything but `Pending`; does what that does.
    #[inline]
    pub fn has_ended(&self, id: TransferId) -> bool {
        match self.look(id) {
            Look::Pending => false,
            Look::Done => true,
            Look::Other => !matches!(self.other_status(id), Status::Pending),
        }
    }

    /// The quick part of a status: what most transfers are, most of the time.
    #[inline(always)]
    fn look(&self, id: TransferId) -> Look {
        let Some(live) = self.context.transfers.find(id) else { return Look::Other };
        if !live.task().is_ended() {
            self.help(live);
            if !live.task().is_ended() {
                return Look::Pending;
            }
        }
        if self.context.transfers.release_done(&live) {
            return Look::Done;
        }
        Look::Other
    }

    /// The status of a transfer that has not ended well, or that somebody else has released.
    #[cold]
    fn other_status(&self, id: TransferId) -> Status {
        if id == TransferId::COMPLETE {
            return Status::Ended(Outcome::Done);
        }
        let transfers = &self.context.transfers;
        let released = match transfers.find(id) {
            Some(live) if !live.task().is_ended() => return Status::Pending,
            Some(live) => transfers.release(&live, || self.peer.control.to_string()),
            None => None,
        };
        let Some(outcome) = released else {
            return transfers.outcome(id).map_or(Status::Unknown, Status::Ended);
        };
        if outcome != Outcome::Done {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(transfer = id.0, peer = %self.peer.control, "transfer {outcome}");
        }
        Status::Ended(outcome)
    }

    /// Does some of a transfer's work, wherever that is done. Not inlined: its registers would be saved with every look.
    #[inline(never)]
    fn help(&self, live: Live) {
        if live.has_workers() {
            live.drive(self.context.pool.workers());
        } else {
            self.context.device_copies.poll(live.id());
        }
    }

    /// Waits until a transfer has ended, at most `timeout`; `Pending` if it has not. Drives the workers for a
    /// moment, then sleeps while their threads drive.
    pub fn wait(&self, id: TransferId, timeout: Duration) -> Status {
        let now = Instant::now();
        // A far deadline stands for "no limit", which an Instant cannot express.
        let deadline = now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(1 << 30));
        let (mut idle_since, begun) = (None, now);
        loop {
            let status = self.status(id);
            if !matches!(status, Status::Pending) {
                return status;
            }
            let Some(live) = self.context.transfers.find(id) else { continue };
            let now = Instant::now();
            if now >= deadline {
                return Status::Pending;
            }
            if now.duration_since(*idle_since.get_or_insert(now)) < self.context.settings.spin {
                std::hint::spin_loop();
                continue;
            }
            if live.has_workers() {
                self.sleep(&live, deadline.min(now + NAP));
                idle_since = None;
            } else {
                self.sleep_beside_copies(&live, now.duration_since(begun), deadline);
            }
        }
    }

    /// Sleeps while the GPU copies, which wakes nobody: not longer than a small part of the time that it has taken already,
    /// so that a copy of 50 us is not found after 300.
    fn sleep_beside_copies(&self, live: &Live, waited: Duration, deadline: Instant) {
        if waited < device_copies::SHORT {
            std::thread::yield_now();
        } else {
            let nap = (waited / 8).min(device_copies::LOOK);
            self.sleep(live, deadline.min(Instant::now() + nap));
        }
    }

    /// Ends a transfer early: when this answers true it has ended, as cancelled unless it was over before, and nothing
    /// touches its memory any more. False for an id that is not in flight.
    pub fn cancel(&self, id: TransferId) -> bool {
        let Some(live) = self.context.transfers.find(id) else { return false };
        let life = live.task().life();
        if !live.is_current() {
            // Released meanwhile: the task may be another transfer's by now.
            return false;
        }
        if !live.task().is_ended() {
            live.task().condemn_life(life, Verdict::Cancelled);
        }
        let grace = Instant::now() + CANCEL_GRACE;
        while live.is_current() && !live.task().is_ended() {
            self.help(live);
            if Instant::now() >= grace {
                live.task().abort(life);
                self.sleep(&live, Instant::now() + Duration::from_millis(1));
            }
        }
        true
    }

    /// One pass over many ids: `ended[i]` is set when `ids[i]` has ended, and stays set. Answers how many have.
    /// Ids and answers are paired up to the shorter of the two.
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
        let workers = self.context.pool.workers();
        let attendance: [Option<_>; 8] = {
            let mut indices = live.workers().filter_map(|index| workers.get(index));
            std::array::from_fn(|_| indices.next().map(|worker| worker.attend(live.task(), until)))
        };
        live.task().sleep_until_ended(until);
        drop(attendance);
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
