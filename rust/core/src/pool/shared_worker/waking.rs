//! What moves a worker's transfers on: callers, or its thread, and how that is woken.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;

use super::{Backlog, Worker};
use crate::events::{Interest, wait_for};
use crate::pool::drive_guard::{DriveGuard, OwnedDriveGuard};
use crate::pool::part_owner::PartOwner;
use crate::sync::Ordering;

impl Worker {
    /// Moves bytes for a while on the worker's thread, if the device wants that; with `may_leave` not while a caller is at it.
    /// True if it was left to a caller. Called without the lock.
    pub(in crate::pool) fn move_bytes(&self, may_leave: bool) -> bool {
        let Some(progress) = &self.progress else { return false };
        let leaves =
            may_leave && self.movers.load(Ordering::Relaxed) != 0 && !self.has_sleepers() && !self.shares();
        if !leaves {
            progress.advance();
        }
        leaves
    }

    /// Has the threads of all these workers move bytes beside callers, where the device does not: for a transfer that is spread
    /// over them, of which each has left its backlog. They do so once processors are free for them; until then, and if none is,
    /// the caller moves the bytes.
    ///
    /// Wakes one thread, which wakes the others. A caller on one of two processors that wakes all four has its processor
    /// taken by the second of them.
    pub fn share(workers: impl Iterator<Item = (Arc<Self>, Backlog)>) {
        let mut workers = workers;
        let Some((first, backlog)) = workers.next() else { return };
        if first.progress.is_none() {
            first.wake_for(backlog);
            workers.for_each(|(worker, backlog)| worker.wake_for(backlog));
            return;
        }
        let rest: Vec<_> = workers.collect();
        first.shares.begin();
        first.parking.cancel();
        first.run_soon(move || {
            for (worker, backlog) in rest {
                // It may nap, and then a part that is posted does not wake it.
                if worker.shares.begin() {
                    worker.kick();
                }
                worker.wake_for(backlog);
            }
        });
    }

    /// The thread parks.
    pub(in crate::pool) fn note_park(&self) {
        self.shares.note_park();
    }

    /// Whether the thread moves bytes beside callers.
    pub(in crate::pool) fn shares(&self) -> bool {
        self.shares.is_on()
    }

    /// Whether callers and the thread move the bytes, and not the device.
    pub(in crate::pool) fn moves_bytes(&self) -> bool {
        self.progress.is_some()
    }

    /// A caller is going to sleep until `owner` ends, at most until `until`: until it drops the answer, the worker's thread
    /// drives. Takes no longer than until then, whatever holds the lock.
    pub fn thread_drives(&self, owner: &dyn PartOwner, until: Instant) -> DriveGuard<'_> {
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        if let Some(_state) = self.lock_until(Some(until)) {
            owner.watch();
        }
        self.kick();
        DriveGuard::new(self)
    }

    /// The worker's thread drives until the answer is dropped, and the end of `owner` is seen to be watched. For transfers
    /// that notify something of their end. Waits for the worker's lock, however long that is held.
    pub(crate) fn thread_drives_until_end(self: &Arc<Self>, owner: &dyn PartOwner) -> OwnedDriveGuard {
        let is_first = self.sleepers.fetch_add(1, Ordering::Relaxed) == 0;
        let driving = OwnedDriveGuard::new(Arc::clone(self));
        while self.lock_until(None).map(|_state| owner.watch()).is_none() {}
        if is_first {
            self.kick();
        } else {
            self.wake_if_parked();
        }
        driving
    }

    /// A caller that slept, or a transfer that notified of its end, needs the thread no longer.
    pub(in crate::pool) fn end_driving(&self) {
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes the thread whatever it does.
    pub fn kick(&self) {
        self.parking.cancel();
        self.wake.notify();
    }

    /// Sleeps until woken, until a completion (if `completions`), or until `timeout`.
    pub(in crate::pool) fn sleep(&self, completions: bool, timeout: Option<Duration>) {
        let fds = [(self.wake.as_fd(), Interest::Read), (self.completions.as_fd(), Interest::Read)];
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let watched = if completions { &fds[..] } else { fds.split_at(1).0 };
        // An interrupted or failed poll is a wake-up like any other: the loop looks at the state anyway.
        let _ = wait_for(watched, timeout.as_ref(), |_| {});
        self.wake.acknowledge();
    }

    /// Wakes the thread after a caller's step if there is something left for it: a backlog, or a device to poll.
    #[inline]
    pub fn wake_for(&self, backlog: Backlog) {
        if self.device_needs_polling || backlog.0 {
            self.wake_if_parked();
        }
    }

    #[inline]
    pub(super) fn wake_if_parked(&self) {
        if self.parking.must_wake() {
            self.wake.notify();
        }
    }

    /// The fd that wakes the thread; for tests.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
