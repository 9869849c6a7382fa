//! Faults that a test switches on and off while a device is at work, of each device by itself.
//!
//! Unlike those of a [`super::FaultPlan`], which are the same for all devices of a list and for as long as they live.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fabric::CompletionStatus;
use crate::sync::{Mutex, MutexGuard, lock};

/// How often a queue pair of a silent device looks whether it still is.
const LOOK: Duration = Duration::from_micros(500);

/// The switches of one device, all off at first. Its threads see a change with the next request that they look at.
#[derive(Debug, Default)]
pub struct FaultSwitches {
    /// Relaxed, as all of them: nothing is published with a switch.
    silent: AtomicBool,
    port_down: AtomicBool,
    lost: AtomicBool,
    /// Microseconds; 0: none.
    delay: AtomicU64,
    /// Microseconds; 0: none.
    late: AtomicU64,
    /// See [`FaultSwitches::set_slow`].
    slow: AtomicU64,
    /// Every so many-th request; 0: none.
    failing: AtomicU64,
    /// As `failing`.
    refusing: AtomicU64,
    /// See [`FaultSwitches::set_unreachable`].
    unreachable: AtomicU64,
    /// See [`FaultSwitches::set_connects`].
    connects: AtomicU64,
    /// Requests that have been looked at.
    requests: AtomicU64,
    injected: AtomicU64,
    left: AtomicU64,
    landed: AtomicU64,
    /// Held while a late WRITE lands, and for a moment by a queue pair that goes to ERROR: after that none lands through it.
    landing: Mutex<()>,
}

impl FaultSwitches {
    /// The device accepts requests and completes none, its own or its peer's, until it is switched back: then it goes on with those
    /// that were not flushed meanwhile. A peer in another process of this host copies on, because it needs nothing of this device:
    /// there the device at the other end is to be silent as well.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Each request takes at least so long, one after the other; none for zero.
    pub fn set_delay(&self, delay: Duration) {
        self.delay.store(microseconds(delay), Ordering::Relaxed);
    }

    /// Bytes move as if memory moved 10 GB/s divided by `factor`; at full speed for 0.
    pub fn set_slow(&self, factor: u32) {
        self.slow.store(factor.into(), Ordering::Relaxed);
    }

    /// Every `count`-th request of the device's queue pairs fails as "retries exceeded"; none for 0.
    pub fn set_failing(&self, count: u64) {
        self.failing.store(count, Ordering::Relaxed);
    }

    /// Every `count`-th request of the device's queue pairs fails as a "remote access error", which this device makes up; none for 0.
    pub fn set_refusing(&self, count: u64) {
        self.refusing.store(count, Ordering::Relaxed);
    }

    /// Queue pairs do not connect to those of the devices in `devices` at the other end: bit 3 stands for `sw3`. Those that are connected
    /// stay so. Between devices of one process.
    pub fn set_unreachable(&self, devices: u64) {
        self.unreachable.store(devices, Ordering::Relaxed);
    }

    /// So many queue pairs connect to those devices all the same, from now on: after that they do not.
    pub fn set_connects(&self, count: u64) {
        self.connects.store(count, Ordering::Relaxed);
    }

    /// WRITEs that are flushed arrive nevertheless, up to this time later, as from a queue on the way: unless the queue pair that they
    /// go to is in ERROR by then. For zero they do not. Of peers in this process.
    pub fn set_late(&self, late: Duration) {
        self.late.store(microseconds(late), Ordering::Relaxed);
    }

    /// All of the above off.
    pub fn clear(&self) {
        self.set_silent(false);
        self.set_delay(Duration::ZERO);
        self.set_failing(0);
        self.set_refusing(0);
        self.set_slow(0);
        self.set_unreachable(0);
        self.set_connects(0);
        self.set_late(Duration::ZERO);
    }

    /// Requests that failed, or waited for a switch.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// WRITEs of this device that were flushed and left on the way.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Of these, the ones that have arrived.
    pub fn landed(&self) -> u64 {
        self.landed.load(Ordering::Relaxed)
    }

    pub(super) fn set_port_down(&self, down: bool) {
        self.port_down.store(down, Ordering::Relaxed);
    }

    pub(super) fn is_port_down(&self) -> bool {
        self.port_down.load(Ordering::Relaxed)
    }

    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether nothing moves through the device; then when to look again.
    pub(super) fn silence(&self) -> Option<Instant> {
        let is_silent = self.silent.load(Ordering::Relaxed) || self.is_port_down();
        is_silent.then(|| Instant::now() + LOOK)
    }

    /// What a request meets that is looked at for the first time.
    pub(super) fn draw(&self) -> (Duration, Option<CompletionStatus>) {
        let number = 1 + self.requests.fetch_add(1, Ordering::Relaxed);
        let is_met = |every: &AtomicU64| match every.load(Ordering::Relaxed) {
            0 => false,
            every => number.is_multiple_of(every),
        };
        let failure = if is_met(&self.failing) {
            Some(CompletionStatus::RetryExceeded)
        } else {
            is_met(&self.refusing).then_some(CompletionStatus::RemoteAccess)
        };
        let delay = Duration::from_micros(self.delay.load(Ordering::Relaxed));
        if failure.is_some() || !delay.is_zero() {
            self.injected.fetch_add(1, Ordering::Relaxed);
        }
        (delay, failure)
    }

    /// Whether queue pairs connect to those of the device with this name.
    pub(super) fn reaches(&self, device: &str) -> bool {
        let number = device.trim_start_matches("sw").parse::<u32>().ok();
        let bit = number.and_then(|number| 1_u64.checked_shl(number)).unwrap_or(0);
        let is_left = |left: u64| left.checked_sub(1);
        self.unreachable.load(Ordering::Relaxed) & bit == 0
            || self.connects.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_left).is_ok()
    }

    pub(super) fn slowness(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    /// How late flushed WRITEs arrive, if they do.
    pub(super) fn lateness(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.late.load(Ordering::Relaxed))).filter(|late| !late.is_zero())
    }

    pub(super) fn note_left(&self, count: u64) {
        self.left.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn note_landed(&self, count: u64) {
        self.landed.fetch_add(count, Ordering::Relaxed);
    }

    /// Held while a late WRITE lands on this device.
    pub(super) fn landing(&self) -> MutexGuard<'_, ()> {
        lock(&self.landing)
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The switches of a device that has some.
pub(super) type Switches = Option<Arc<FaultSwitches>>;
