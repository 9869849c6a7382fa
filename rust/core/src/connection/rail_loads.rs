//! What submitters know of the rails of their connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32};

use once_cell::sync::OnceCell;

use super::nic_flow::{NicFlow, known_speed};
use crate::events::Wakeup;
use crate::rails::{Flow, Homes, MAX_RAILS, RailLoad, RailSet};
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// The loads of a connection's rails, as its task has last seen them. The task writes, submitters read without a lock.
#[derive(Debug)]
pub(super) struct RailLoads {
    /// The rails that take parts. Written by the task, read by submitters: a hint, the lanes' own state decides, so Relaxed.
    up: AtomicU8,
    /// The task does not look at the rails. Set by the task; cleared by it, and by the submitter that wakes it. Relaxed: the task looks
    /// once more an interval after it has set it, and what a submitter had posted before it read it as clear is seen by then.
    at_rest: AtomicBool,
    /// Goes forward when short transfers are to be planned again. Written by the task, read by submitters: a hint, Relaxed.
    epoch: AtomicU32,
    rails: [Place; MAX_RAILS],
    /// Which rail a buffer used last.
    homes: Homes,
}

/// What is known of one rail. All numbers are written by the task and read by submitters; each is an estimate and stands alone: Relaxed.
#[derive(Debug, Default)]
struct Place {
    /// Bytes per second; 0 before the rail is made.
    rate: AtomicU64,
    /// Nanoseconds from a request to its completion where nothing waits; 0 before it is known.
    latency: AtomicU64,
    /// Bytes that this connection had under way on it at the last look, which the flow of its NIC contains, and one more; 0 before
    /// the first look.
    looked: AtomicU64,
    /// The flow of its NIC; set once, before the rail is up.
    nic: OnceCell<Arc<NicFlow>>,
}

impl RailLoads {
    /// Of a connection with its first rail, which is up.
    pub(super) fn new() -> Self {
        Self {
            up: AtomicU8::new(RailSet::first(1).0),
            at_rest: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
            rails: std::array::from_fn(|_| Place::default()),
            homes: Homes::default(),
        }
    }

    /// The rails that take parts.
    #[inline]
    pub(super) fn up(&self) -> RailSet {
        RailSet(self.up.load(Ordering::Relaxed))
    }

    /// The loads of all rails, with the bytes that this connection has under way on each now, and the requests that the lanes of each may
    /// still post. Rails that are not made are not up.
    #[inline]
    pub(super) fn snapshot(
        &self,
        in_flight_bytes: &[u64; MAX_RAILS],
        credits: &[u32; MAX_RAILS],
    ) -> [RailLoad; MAX_RAILS] {
        let up = self.up();
        let mut loads = [RailLoad::default(); MAX_RAILS];
        let known = self.rails.iter().zip(in_flight_bytes).zip(credits).enumerate();
        for (load, (rail, ((place, bytes), credits))) in loads.iter_mut().zip(known) {
            let Some(nic) = place.nic.get() else { continue };
            *load = place.load(nic.get(), *bytes, *credits);
            load.up = up.has(rail);
        }
        loads
    }

    /// The load of a rail that is not made, over a NIC of this host with this flow, `None` if it is not open; `speed` is that of the
    /// slower port, in bytes per second.
    pub(super) fn of_unmade(nic: Option<&NicFlow>, speed: u64) -> RailLoad {
        let idle = Flow { bytes: 0, rate: known_speed(speed) };
        RailLoad { up: false, ..RailLoad::up(nic.map_or(idle, NicFlow::get), idle, 0, 1) }
    }

    /// The rail that a buffer used last.
    #[inline]
    pub(super) fn home_of(&self, buffer: u64) -> Option<u8> {
        self.homes.of(buffer)
    }

    /// A buffer uses this rail now.
    #[inline]
    pub(super) fn set_home(&self, buffer: u64, rail: u8) {
        self.homes.set(buffer, rail, self.epoch.load(Ordering::Relaxed));
    }

    /// The rail that a short transfer of a buffer takes without a plan: its last one, if that was planned since loads were published
    /// last, and is up.
    #[inline]
    pub(super) fn planned(&self, buffer: u64) -> Option<usize> {
        let rail = usize::from(self.homes.of_epoch(buffer, self.epoch.load(Ordering::Relaxed))?);
        self.up().has(rail).then_some(rail)
    }

    /// The loads have changed: short transfers are planned again.
    pub(super) fn next_epoch(&self) {
        self.epoch.store(self.epoch.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether the task must be woken, because parts were posted while it does not look: asked behind posting them, by one load unless
    /// so. True for one submitter alone.
    #[inline]
    pub(super) fn wake_needed(&self) -> bool {
        self.at_rest.load(Ordering::Relaxed) && self.at_rest.swap(false, Ordering::Relaxed)
    }

    /// Wakes the task if it must be.
    #[inline]
    pub(super) fn wake_if_needed(&self, task: &Wakeup) {
        if self.wake_needed() {
            task.wake();
        }
    }

    pub(super) fn set_up(&self, up: RailSet) {
        if self.up() != up {
            self.up.store(up.0, Ordering::Relaxed);
            self.next_epoch();
        }
    }

    /// A rail is made over the NIC with this flow.
    pub(super) fn add(&self, rail: usize, nic: Arc<NicFlow>) {
        if let Some(place) = self.rails.get(rail) {
            // A rail is made once.
            let _ = place.nic.set(nic);
        }
    }

    /// The first rail is there, over the NIC with this flow; `speed` is that of the slower of its ports, 0 if they do not say.
    pub(super) fn add_first(&self, nic: Arc<NicFlow>, speed: u64) {
        self.add(0, nic);
        self.set(0, known_speed(speed), 0);
    }

    pub(super) fn set(&self, rail: usize, rate: u64, latency: u64) {
        if let Some(place) = self.rails.get(rail) {
            place.rate.store(rate, Ordering::Relaxed);
            place.latency.store(latency, Ordering::Relaxed);
        }
    }

    pub(super) fn set_looked(&self, rail: usize, bytes: u64) {
        if let Some(place) = self.rails.get(rail) {
            place.looked.store(bytes.saturating_add(1), Ordering::Relaxed);
        }
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.at_rest.load(Ordering::Relaxed)
    }

    pub(super) fn set_at_rest(&self, is_at_rest: bool) {
        self.at_rest.store(is_at_rest, Ordering::Relaxed);
    }
}

impl Place {
    /// The NIC's flow was seen at a look: of it, what this connection had then is replaced by what it has now. A connection that is not
    /// looked at may be most of the flow.
    fn load(&self, nic: Flow, bytes: u64, credits: u32) -> RailLoad {
        let looked = self.looked.load(Ordering::Relaxed).checked_sub(1).unwrap_or(bytes);
        let others = nic.bytes.saturating_sub(looked);
        let nic = Flow { bytes: others.saturating_add(bytes), rate: nic.rate };
        let rail = Flow { bytes, rate: self.rate.load(Ordering::Relaxed) };
        RailLoad::up(nic, rail, self.latency.load(Ordering::Relaxed), credits)
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;
    use crate::rails::{MILLISECOND, RailCounts};

    #[test]
    fn what_the_connection_has_under_way_counts_once() {
        let (loads, nic) = (RailLoads::new(), Arc::new(NicFlow::new(1_000_000_000)));
        loads.add(0, Arc::clone(&nic));
        loads.set(0, 1_000_000_000, 5_000);
        // 3,000,000 bytes are on the NIC, 1,000,000 of them of this connection.
        nic.look(MILLISECOND, 1, || RailCounts { bytes_in_flight: 3_000_000, ..RailCounts::default() });
        let ready = |bytes| {
            let mut in_flight = [0; MAX_RAILS];
            in_flight[0] = bytes;
            loads.snapshot(&in_flight, &[4; MAX_RAILS])[0].ready
        };
        assert_eq!((ready(1_000_000), ready(4_000_000)), (3_005_000, 4_005_000), "it was not looked at");
        loads.set_looked(0, 1_000_000);
        assert_eq!(ready(1_000_000), 3_005_000);
        assert_eq!(ready(0), 2_005_000);
        assert_eq!(ready(2_000_000), 4_005_000);
    }

    #[test]
    fn rails_that_are_not_made_or_not_up_are_not_used() {
        let loads = RailLoads::new();
        assert!(loads.snapshot(&[0; MAX_RAILS], &[1; MAX_RAILS]).iter().all(|load| !load.up));
        (0..2).for_each(|rail| loads.add(rail, Arc::new(NicFlow::new(1))));
        let up = || loads.snapshot(&[0; MAX_RAILS], &[1; MAX_RAILS]).map(|load| load.up);
        assert_eq!(up()[..3], [true, false, false]);
        loads.set_up(RailSet(0b110));
        assert_eq!(up()[..3], [false, true, false]);
    }

    #[test]
    fn a_short_transfer_follows_the_last_plan_until_loads_change() {
        let loads = RailLoads::new();
        assert_eq!(loads.planned(1 << 20), None);
        loads.set_up(RailSet(0b11));
        loads.set_home(1 << 20, 1);
        assert_eq!(loads.planned(1 << 20), Some(1));
        loads.next_epoch();
        assert_eq!((loads.planned(1 << 20), loads.home_of(1 << 20)), (None, Some(1)));
        loads.set_home(1 << 20, 1);
        loads.set_up(RailSet(0b11));
        assert_eq!(loads.planned(1 << 20), Some(1), "nothing has changed");
        loads.set_up(RailSet(0b01));
        assert_eq!(loads.planned(1 << 20), None, "the rail is not up");
        loads.set_home(1 << 20, 1);
        assert_eq!(loads.planned(1 << 20), None, "by a plan that was late");
    }

    #[test]
    fn one_submitter_wakes_the_task() {
        let loads = RailLoads::new();
        assert!(!loads.wake_needed());
        loads.set_at_rest(true);
        assert_eq!([loads.wake_needed(), loads.wake_needed()], [true, false]);
    }
}
