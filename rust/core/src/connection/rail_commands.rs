//! What the recovery does with rails: it opens them, and takes note of those that are not made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

use super::lane_commands::RecoveryNotifier;
use super::lanes::LaneHandle;
use super::nic_context::NicContext;
use super::rail::{LANES_PER_RAIL, Rail};
use super::rail_record::RailRecord;
use super::{CLOSED_HERE, Connection, DRAIN_LIMIT, DeviceHealth, RAILS, rail_places};
use crate::control::RailRefusal;
use crate::events::Wakeup;
use crate::fabric::Device;
use crate::memory::{Cursor, RemoteRegions, Subscription};
use crate::pool::{EndState, LaneSetup, LaneStatus, PoolError, Worker, worker_bit, workers_used};
use crate::sync::{AtomicBool, Ordering};

/// Called by the connection's recovery. `open_rail` blocks for commands of the device, never for the peer.
impl Connection {
    /// Opens this end of rail `rail`: its NIC, by its place in the list that was sent to the peer, and `lanes` lanes without queue pairs,
    /// which wait for their rebuilds.
    pub(super) fn open_rail(
        self: &Arc<Self>,
        rail: usize,
        (own, peer): (u16, u16),
        lanes: usize,
    ) -> Result<(), RailRefusal> {
        if rail >= self.context.settings.rails {
            return Err(RailRefusal::Limited);
        }
        let place = self.rails.place(rail).ok_or(RailRefusal::Unknown)?;
        if let Some(made) = place.get() {
            let is_same = (made.own, made.peer, made.lanes.len()) == (own, peer, lanes);
            return if is_same { Ok(()) } else { Err(RailRefusal::Unknown) };
        }
        let refused = |why: RailRefusal, reason: &str| {
            self.note_refused(rail, own, reason);
            why
        };
        if !self.context.slots.have_room_for(self.context.nic_if_open(usize::from(own))) {
            return Err(refused(RailRefusal::Limited, "rails use as many NICs of this host as they can"));
        }
        let nic = self
            .context
            .open_nic(usize::from(own))
            .map_err(|error| refused(RailRefusal::Unusable, &error.to_string()))?;
        self.suits(&**nic.device()).map_err(|reason| refused(RailRefusal::Unlike, &reason))?;
        let lanes = self
            .make_lanes(&nic, lanes)
            .map_err(|error| refused(RailRefusal::Unusable, &error.to_string()))?;
        let record = RailRecord::new(rail as u8, self.peer.control, nic.device().attributes());
        let events = nic.device_events.clone();
        record.set_peer_nic(&self.rails.adding.peer_name(peer));
        let remote = match self.rails.adding.first_pair() {
            Some((_, first)) if first == peer => RemoteRegions::of_rail_over_first_nic(),
            _ => RemoteRegions::of_rail(),
        };
        let remote = Arc::new(remote);
        let made = Rail { nic, own, peer, lanes, remote, record, added: AtomicBool::new(false) };
        let is_closed = rail_places::fill(place, made, &self.gate);
        self.rails.adding.note_made(rail, own, peer);
        if let Some(events) = events {
            events.watch(self);
        }
        if is_closed {
            let deadline = std::time::Instant::now() + DRAIN_LIMIT;
            for lane in self.lanes_of(rail) {
                self.close_lane(lane, EndState::Cancelled, CLOSED_HERE, deadline);
            }
            return Err(RailRefusal::Unusable);
        }
        Ok(())
    }

    /// Lanes without queue pairs on the workers of a NIC in turn.
    fn make_lanes(&self, nic: &Arc<NicContext>, count: usize) -> Result<Vec<LaneHandle>, PoolError> {
        /// Where the next rail's first lane goes. Only a spread: Relaxed.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let slot = self.context.slots.of(nic).ok_or(PoolError::TooManyLanes)?;
        let workers = nic.pool.workers();
        let used = workers_used(slot, workers.len()).max(1);
        let first = NEXT.fetch_add(count, StdOrdering::Relaxed);
        let mut lanes: Vec<LaneHandle> = Vec::with_capacity(count);
        for lane in 0..count.min(LANES_PER_RAIL) {
            let index = first.wrapping_add(lane) % used;
            match self.make_lane(nic, workers.get(index), worker_bit(slot, index)) {
                Ok(made) => lanes.push(made),
                Err(error) => {
                    // Their places are given back, which a peer could use up by asking again. They are drained.
                    for made in &lanes {
                        let _ = made.worker.close_lane(made.key, EndState::Failed, "its rail is not made");
                    }
                    return Err(error);
                }
            }
        }
        Ok(lanes)
    }

    fn make_lane(
        &self,
        nic: &NicContext,
        worker: Option<&Arc<Worker>>,
        worker_index: usize,
    ) -> Result<LaneHandle, PoolError> {
        let worker = worker.map(Arc::clone).ok_or(PoolError::TooManyLanes)?;
        let notifier = Arc::new(RecoveryNotifier(Arc::clone(&self.wakeup)));
        let status = Arc::new(LaneStatus::absent(Some(notifier)));
        let setup = LaneSetup { status: Arc::clone(&status), heals: self.heals };
        let key = worker.with_state(|state| state.add_absent_lane(setup))?;
        nic.count_lane(&status);
        let device_events = nic.device_events.clone();
        Ok(LaneHandle { worker, worker_index, key, status, device_events })
    }

    /// Whether the queue pairs of a device take the requests that this connection makes.
    pub(super) fn suits(&self, device: &dyn Device) -> Result<(), String> {
        let attributes = device.attributes();
        let name = &attributes.name;
        if !self.policy.fits(attributes.max_sge, u32::MAX) {
            return Err(format!(
                "{name} takes {} entries a request, fewer than the first rail's",
                attributes.max_sge
            ));
        }
        let port = device.port().map_err(|error| format!("a port cannot be asked: {error}"))?;
        // As they were when the engine was opened: the device of the first rail may be lost.
        let first = self.context.nics().get(self.context.own_nic()).map(|nic| nic.link_layer);
        if let Some(first) = first.filter(|first| *first != port.link_layer) {
            return Err(format!("{name} has link layer {}, the first rail's NIC {first}", port.link_layer));
        }
        let longest = self.context.slice_sizes.max_message();
        if port.max_message < longest {
            return Err(format!(
                "{name} carries messages of {} bytes, the first rail's NIC of {longest}",
                port.max_message
            ));
        }
        Ok(())
    }

    /// The regions of both ends on a further rail that is made; `wakeup` wakes the task on changes of those here.
    pub(super) fn regions_of_rail(
        &self,
        rail: usize,
        wakeup: Arc<Wakeup>,
    ) -> Option<(Subscription, Arc<RemoteRegions>)> {
        let made = self.rails.get(rail)?;
        let local = made.nic.registry.announced().subscribe(Cursor::default(), wakeup);
        Some((local, Arc::clone(&made.remote)))
    }

    /// A lane of a further rail has got its queue pair. True the first time for each rail.
    pub(super) fn note_added(&self, rail: usize) -> bool {
        let Some(made) = self.rails.get(rail) else { return false };
        let is_first = !made.added.swap(true, Ordering::Relaxed);
        if is_first {
            made.record.added();
            self.rails.adding.demand.made(rail);
            // It may have been given up.
            self.rails.adding.note_made(rail, made.own, made.peer);
            // Not before: what no peer makes is to cost transfers nothing.
            self.gate.fetch_or(RAILS, Ordering::Relaxed);
        }
        is_first
    }

    /// The health of the NIC of each rail.
    pub(super) fn rail_devices(&self) -> impl Iterator<Item = (usize, DeviceHealth)> {
        let further = self.rails.made().map(|(rail, made)| (rail, made.nic.device_health()));
        std::iter::once((0, self.context.device_health())).chain(further)
    }
}
