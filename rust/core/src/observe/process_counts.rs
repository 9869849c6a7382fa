//! What is counted for the process as a whole: it outlives engines, connections and queues.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{PathNames, SharedCounts, Snapshot, event_log, metrics};
use crate::fork::PerProcess;

/// Counts of the process. Rare events: any thread adds, any reads, Relaxed, for they guard no other memory.
#[derive(Debug)]
pub struct ProcessCounts {
    registrations: AtomicU64,
    registration_bytes: AtomicU64,
    registration_failures: AtomicU64,
    registration_nanoseconds: AtomicU64,
    deregistrations: AtomicU64,
    deregistration_bytes: AtomicU64,
    notifications_received: AtomicU64,
    channels_lost: AtomicU64,
    channels_resumed: AtomicU64,
    unplaced: SharedCounts,
}

/// Those of this process.
pub fn process_counts() -> &'static ProcessCounts {
    static COUNTS: PerProcess<ProcessCounts> = PerProcess::new(ProcessCounts::new);
    COUNTS.get()
}

impl ProcessCounts {
    fn new() -> Self {
        Self {
            registrations: AtomicU64::new(0),
            registration_bytes: AtomicU64::new(0),
            registration_failures: AtomicU64::new(0),
            registration_nanoseconds: AtomicU64::new(0),
            deregistrations: AtomicU64::new(0),
            deregistration_bytes: AtomicU64::new(0),
            notifications_received: AtomicU64::new(0),
            channels_lost: AtomicU64::new(0),
            channels_resumed: AtomicU64::new(0),
            unplaced: SharedCounts::new(PathNames { write: "none", read: "none" }),
        }
    }

    /// Trying to register took so long.
    pub fn registration_took(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.registration_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// A registration failed.
    pub fn registration_failed(&self) {
        self.registration_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A region of so many bytes is registered.
    pub fn registered(&self, bytes: u64) {
        self.registration_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.registrations.fetch_add(1, Ordering::Relaxed);
    }

    /// A region of so many bytes is registered no longer.
    pub fn deregistered(&self, bytes: u64) {
        self.deregistration_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.deregistrations.fetch_add(1, Ordering::Relaxed);
    }

    /// A notification arrived.
    pub fn notification_received(&self) {
        self.notifications_received.fetch_add(1, Ordering::Relaxed);
    }

    /// A control channel has failed and is dialled again.
    pub fn channel_lost(&self) {
        self.channels_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// A control channel is made anew.
    pub fn channel_resumed(&self) {
        self.channels_resumed.fetch_add(1, Ordering::Relaxed);
    }

    /// Where parts are counted that no lane took.
    pub fn unplaced(&self) -> &SharedCounts {
        &self.unplaced
    }

    pub(super) fn collect(&self, out: &mut Snapshot) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        out.number(&metrics::CHANNELS_RESUMED, &[], get(&self.channels_resumed));
        out.number(&metrics::CHANNELS_LOST, &[], get(&self.channels_lost));
        // What was removed is read first: it never seems to be more than what there was.
        let (removed, removed_bytes) = (get(&self.deregistrations), get(&self.deregistration_bytes));
        let (added, added_bytes) = (get(&self.registrations), get(&self.registration_bytes));
        out.number(&metrics::REGIONS, &[], added.wrapping_sub(removed));
        out.number(&metrics::REGISTERED_BYTES, &[], added_bytes.wrapping_sub(removed_bytes));
        out.number(&metrics::REGISTRATIONS, &[], added);
        out.number(&metrics::REGISTRATION_BYTES, &[], added_bytes);
        out.number(&metrics::REGISTRATION_FAILURES, &[], get(&self.registration_failures));
        let time = Duration::from_nanos(get(&self.registration_nanoseconds));
        out.seconds(&metrics::REGISTRATION_TIME, &[], time);
        out.number(&metrics::NOTIFICATIONS_RECEIVED, &[], get(&self.notifications_received));
        for (kind, count) in event_log().counts() {
            out.number(&metrics::EVENTS, &[("kind", kind.name().to_owned())], count);
        }
    }
}
