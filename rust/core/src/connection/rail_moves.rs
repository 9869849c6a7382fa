//! Parts that leave a lane which has failed, and go on over another rail.

use std::sync::Arc;

use super::lane_choice::thread_hint;
use super::lanes::LaneHandle;
use super::nic_context::NicContext;
use super::rail::{LANES_PER_RAIL, Rail};
use super::submit_parts::PartOnRail;
use super::{CANCELS, CLOSED, CLOSED_HERE, Connection};
use crate::fabric::{Opcode, Sge};
use crate::memory::{Hold, Region, RegionId, RegionSnapshot, RemoteCheck, RemoteTable};
use crate::pool::{EndState, LaneHealth, RequestList, TakenPart};
use crate::rails::MAX_RAILS;
use crate::sync::{Ordering, SwapGuard};

impl Connection {
    /// Takes parts from a lane that is drained, and posts them on other rails: those that read, and, if `both_ends` are drained, those that
    /// write. Parts that no other rail can take stay, and wait for the rebuild. Whether any did leave.
    pub(super) fn move_parts(&self, lane: usize, both_ends: bool) -> bool {
        let opcode = if both_ends { None } else { Some(Opcode::Read) };
        let Some(handle) = self.lane(lane) else { return false };
        let taken = handle.worker.with_state(|state| state.take_parts(handle.key, opcode));
        self.place_elsewhere(lane, handle, taken)
    }

    /// The same for parts of which nothing was ever posted: they may leave a lane that is not drained. Whether any did.
    pub(super) fn move_unposted(&self, lane: usize) -> bool {
        let Some(handle) = self.lane(lane) else { return false };
        let taken = handle.worker.with_state(|state| state.take_unposted(handle.key));
        self.place_elsewhere(lane, handle, taken)
    }

    /// Puts parts that were taken off a lane on other rails; those that none takes back on the lane. If that is closed they wait on another rail, where
    /// none works or keys of their memory come, or fail.
    pub(super) fn place_elsewhere(&self, lane: usize, from: &LaneHandle, taken: Vec<TakenPart>) -> bool {
        if taken.is_empty() {
            return false;
        }
        let rail = lane / LANES_PER_RAIL;
        let (mut moved, mut bytes, mut stay, mut lost) = (0, 0, Vec::new(), Vec::new());
        for (number, part) in taken.into_iter().enumerate() {
            let length = part.list.bytes;
            match self.place_on_another(rail, part, number) {
                Ok(()) => (moved, bytes) = (moved + 1, bytes + length),
                Err((part, Keyed(on))) if on == rail => stay.push(part),
                Err((mut part, on)) => {
                    let is_back =
                        KeysOf::of(self, rail).is_some_and(|own| own.give_part(self, on, &mut part));
                    if is_back { stay.push(part) } else { lost.push((part, on)) }
                }
            }
        }
        let refused = match from.status.health() {
            LaneHealth::Closed => stay,
            _ => from.worker.put_back(from.key, stay, from.worker_index),
        };
        lost.extend(refused.into_iter().map(|part| (part, Keyed(rail))));
        let may_wait = !lost.is_empty() && (!self.rails_healthy_but(rail) || self.memory_comes(rail));
        let mut have_left = moved > 0;
        for (part, keyed) in lost {
            let left = if may_wait { self.place_to_wait(rail, part, keyed) } else { Err(part) };
            have_left |= left.is_ok();
            if let Err(part) = left {
                let (state, reason) =
                    self.end_of_unplaced("its lane has failed, and no other rail can carry it");
                from.worker.with_state(|worker| worker.end_taken(from.key, part, state, reason));
            }
        }
        if moved > 0
            && let Some(record) = self.rail_record(rail)
        {
            record.moved(moved, bytes);
        }
        have_left
    }

    /// How a part ends that no lane takes, which would fail for `reason`. Asked behind the refusals: a lane that is closed because
    /// the connection is, was closed after it said so.
    fn end_of_unplaced(&self, reason: &'static str) -> (EndState, &'static str) {
        match self.gate.load(Ordering::SeqCst) {
            gate if gate & CANCELS != 0 => (EndState::Cancelled, CLOSED_HERE),
            gate if gate & CLOSED != 0 => (EndState::Failed, "the connection has ended"),
            _ => (EndState::Failed, reason),
        }
    }

    /// Gives a part that was built for a rail and posted nowhere the keys of another one. Answers a lane there that works or, if none does,
    /// is being rebuilt; `None`, and the part is as it was, if no other rail can carry it.
    pub(super) fn rebuild_elsewhere(&self, part: &mut PartOnRail, hint: usize) -> Option<&LaneHandle> {
        let working = others(part.rail).filter_map(|other| Some((other, self.healthy_lane(other, hint)?)));
        let healing = self.healing_lanes(part.rail, hint);
        for (other, lane) in working.chain(healing) {
            let keys = KeysOf::of(self, other);
            if keys.is_some_and(|keys| keys.give(self, Keyed(part.rail), &mut part.list, 0)) {
                part.rail = other;
                return Some(lane);
            }
        }
        None
    }

    /// A lane of each other rail that was up, if not all its lanes are closed. On one that is not in working order a part waits, as it would have on
    /// its own rail: until that is rebuilt, or yet another one takes over.
    fn healing_lanes(&self, rail: usize, hint: usize) -> impl Iterator<Item = (usize, &LaneHandle)> {
        // One that was never up may never be.
        let was_up = |other: &usize| *other == 0 || self.rails.get(*other).is_some_and(Rail::is_added);
        others(rail)
            .filter(was_up)
            .filter_map(move |other| Some((other, self.pick_lane_of(other, hint).ok()?)))
    }

    /// Puts a part of a closed lane on another rail than this, though that does not work, to wait there. Gives it back if none takes it.
    #[expect(clippy::result_large_err, reason = "the part goes back whole")]
    fn place_to_wait(&self, rail: usize, part: TakenPart, keyed: Keyed) -> Result<(), TakenPart> {
        self.place_on(self.healing_lanes(rail, thread_hint()), part, keyed).map_err(|(part, _)| part)
    }

    /// Puts a part on another rail than this one; gives it back if none takes it, perhaps with the keys of another rail. Parts with numbers
    /// in a row begin with other rails and lanes.
    #[expect(clippy::result_large_err, reason = "the part goes back whole")]
    fn place_on_another(
        &self,
        rail: usize,
        part: TakenPart,
        number: usize,
    ) -> Result<(), (TakenPart, Keyed)> {
        let up = self.rails_up();
        let hint = thread_hint().wrapping_add(number);
        let others =
            (0..MAX_RAILS - 1).map(|step| (rail + 1 + (step + number) % (MAX_RAILS - 1)) % MAX_RAILS);
        // Behind those that are up the others: a rail has a lane that works shortly before it is said to be up, and nothing would ask again.
        let in_order =
            others.clone().filter(|other| up.has(*other)).chain(others.filter(|other| !up.has(*other)));
        let lanes = in_order.filter_map(|other| Some((other, self.healthy_lane(other, hint)?)));
        self.place_on(lanes, part, Keyed(rail))
    }

    /// Puts a part on the first of these lanes, each behind its rail, that takes it; gives it back if none does, perhaps with the keys of another rail.
    #[expect(clippy::result_large_err, reason = "the part goes back whole")]
    fn place_on<'a>(
        &self,
        lanes: impl Iterator<Item = (usize, &'a LaneHandle)>,
        mut part: TakenPart,
        mut keyed: Keyed,
    ) -> Result<(), (TakenPart, Keyed)> {
        for (rail, lane) in lanes {
            if !KeysOf::of(self, rail).is_some_and(|keys| keys.give_part(self, keyed, &mut part)) {
                continue;
            }
            keyed = Keyed(rail);
            match lane.worker.put_parts(lane.key, vec![part], lane.worker_index).pop() {
                None => return Ok(()),
                Some(refused) => part = refused,
            }
        }
        Err((part, keyed))
    }
}

/// The other rails, from the next one on.
fn others(rail: usize) -> impl Iterator<Item = usize> {
    (1..MAX_RAILS).map(move |step| (rail + step) % MAX_RAILS)
}

/// The rail of which the requests of a part have the keys.
#[derive(Clone, Copy, Debug)]
struct Keyed(usize);

/// The keys that memory at both ends has on a rail.
struct KeysOf {
    rail: usize,
    nic: Arc<NicContext>,
    local: SwapGuard<RegionSnapshot>,
    remote: SwapGuard<RemoteTable>,
    /// The peer's regions with the keys of the first rail, which name the memory.
    first: SwapGuard<RemoteTable>,
}

impl KeysOf {
    fn of(connection: &Connection, rail: usize) -> Option<Self> {
        let (nic, remote) = (connection.nic_of(rail)?, connection.remote_of(rail)?);
        let first = connection.remote.table();
        Some(Self {
            rail,
            nic: Arc::clone(nic),
            local: nic.registry.snapshot(),
            remote: remote.table(),
            first,
        })
    }

    /// Gives the requests of a part that are still to be posted the keys of this rail, see [`KeysOf::give`].
    fn give_part(&self, connection: &Connection, before: Keyed, part: &mut TakenPart) -> bool {
        let from = part.first_elsewhere();
        let is_given = self.give(connection, before, &mut part.list, from);
        if is_given {
            part.from = from;
        }
        is_given
    }

    /// Gives the requests of a list from `from` on the keys of this rail, and holds the memory here. False, and nothing is done, if some
    /// of it is not known on this rail.
    fn give(
        &self,
        connection: &Connection,
        Keyed(before): Keyed,
        list: &mut RequestList,
        from: usize,
    ) -> bool {
        let Some(source) = Self::of(connection, before) else { return false };
        let opcode = list.opcode;
        let Some(landing) = self.landing_for(&source, list) else { return false };
        let Some((regions, holds)) = self.regions_of(list, &landing) else { return false };
        let local = |entry: Sge| {
            // The region by which the entry was made: others may hold the same addresses, with other rights, or as they were mapped before.
            let is_of = |region: &Region| {
                let segment = region.segment_holding(entry.address, entry.length.into());
                segment.is_some_and(|segment| segment.lkey == entry.lkey)
            };
            match (regions.iter().find(|(old, _)| is_of(old)), &landing) {
                (Some((_, new)), _) => {
                    let segment = new.segment_at(entry.address)?;
                    let length = u64::from(entry.length).min(segment.end() - entry.address) as u32;
                    Some(Sge { length, lkey: segment.lkey, ..entry })
                }
                (None, Some((old, new))) if entry.address == old.0.address => Some(new.0),
                (None, _) => None,
            }
        };
        let remote = |address, rkey, length| {
            // What the peer has not announced, or has taken back, has no other key.
            let (first, length) = match before {
                0 => (rkey, length),
                _ => source.remote.first_key_at(rkey, address, length)?,
            };
            let RemoteCheck::Inside(known) = self.first.check(first, address, length) else { return None };
            if self.rail == 0 {
                return Some((known, length));
            }
            self.remote.key_at(first, address, length, opcode)
        };
        list.rekey(from, local, remote, holds).is_ok()
    }

    /// The regions of a list, each behind what the list has of it now, as they are on this rail, held; `None` if one is not there, or is being
    /// deregistered.
    fn regions_of(
        &self,
        list: &RequestList,
        landing: &Option<(Landing, Landing)>,
    ) -> Option<(Vec<SameRegion>, Vec<Hold>)> {
        let held = list.lease.as_deref().into_iter().chain(&list.holds).map(Hold::region);
        let is_landing = |id: RegionId| landing.as_ref().is_some_and(|(old, _)| old.1.region().id == id);
        let held = held.filter(|region| !is_landing(region.id));
        let here = |old: &Arc<Region>| Some((Arc::clone(old), Arc::clone(self.local.by_id(old.id)?)));
        let regions: Vec<_> = held.map(here).collect::<Option<_>>()?;
        let mut holds: Vec<_> = regions.iter().map(|(_, new)| new.hold()).collect::<Option<_>>()?;
        if let Some((_, new)) = landing {
            holds.push(new.1.region().hold()?);
        }
        Some((regions, holds))
    }

    /// Of a list with READs that flush GPU memory: where they read to, on the rail before and on this one. `None` if that cannot be
    /// registered here.
    fn landing_for(&self, source: &Self, list: &RequestList) -> Option<Option<(Landing, Landing)>> {
        if !list.flushes_gpu() {
            return Some(None);
        }
        Some(Some((source.nic.registry.gpu_flush_landing()?, self.nic.registry.gpu_flush_landing()?)))
    }
}

/// Where a READ that flushes reads to, and what keeps that registered.
type Landing = (Sge, Hold);

/// A region as two NICs have it: where its part was built, and where it goes.
type SameRegion = (Arc<Region>, Arc<Region>);
