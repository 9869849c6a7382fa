//! Starting a transfer on a connection with several rails.

use std::time::Instant;

use super::Connection;
use super::lane_choice::thread_hint;
use super::rail::LANES_PER_RAIL;
use super::submit::WhenFull;
use super::submit_parts::{PartOnRail, ROOM_TAKEN_LIMIT};
use crate::fabric::Opcode;
use crate::pool::{RequestList, SpareLists, transfer_begins};
use crate::rails::{RailPlan, RailSet, Shape, plan};
use crate::transfer::{IovSource, OnRail, Scope, Share, SubmitError, TransferId, build};

impl Connection {
    /// Starts a transfer over the rails by which it ends first: over the first rail alone as on a connection that has no other.
    pub(super) fn start_on_rails<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        when_full: WhenFull,
    ) -> Result<TransferId, SubmitError> {
        let mut looks = 1;
        loop {
            match self.start_on_rails_seen(opcode, iovs, when_full) {
                // Those that were up when it looked no longer were when it planned: others may be by now.
                Err(SubmitError::Down { .. }) if looks < LOOKS && self.has_open_rail() => looks += 1,
                started => return started,
            }
        }
    }

    /// The same, over the rails that are up now.
    fn start_on_rails_seen<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        when_full: WhenFull,
    ) -> Result<TransferId, SubmitError> {
        let sizes = Sizes::of(iovs);
        if let Some(id) = self.start_short(opcode, iovs, sizes.bytes) {
            return Ok(id);
        }
        let mut eligible = self.rails_up();
        let mut healing = if eligible.0 == 0 { self.healing_rail() } else { None };
        loop {
            let plan = match healing.take() {
                Some(rail) => RailPlan::one(rail),
                None => self.rail_plan(iovs, sizes.bytes, eligible),
            };
            if matches!(plan.shares(), [] | [_]) && plan.shares().iter().all(|share| share.rail == 0) {
                let started = self.start_now(opcode, iovs, when_full);
                self.rails.loads.wake_if_needed(&self.wakeup);
                return started;
            }
            let begun = transfer_begins();
            let lists = match self.build_on_rails(opcode, iovs, sizes, &plan) {
                Ok(lists) => lists,
                // A key is missing there, or was taken back: as long as the others can carry it, they do. The first rail says what is wrong.
                Err(Unbuilt::NotOn(rail)) => {
                    eligible = RailSet(eligible.0 & !(1 << rail));
                    continue;
                }
                Err(Unbuilt::Refused(error)) => return Err(error),
            };
            return self.start_lists(opcode, lists, when_full, begun);
        }
    }

    fn rail_plan<S: IovSource + ?Sized>(&self, iovs: &S, bytes: u64, eligible: RailSet) -> RailPlan {
        if bytes == 0 {
            // Of empty iovs no part is made; that of the first rail may be empty.
            return RailPlan::default();
        }
        self.consider_rails(|| iovs.iov(0), || bytes);
        if eligible.0 & !1 == 0 {
            return RailPlan::default();
        }
        let buffer = iovs.iov(0).map_or(0, |iov| iov.local);
        let home = self.rails.loads.home_of(buffer);
        let shape = Shape { bytes, eligible, home, spread: thread_hint() as u32 };
        let (flow, credits) = self.rails_flow();
        let loads = self.rails.loads.snapshot(&flow, &credits);
        let found = plan(&shape, &loads, &self.context.settings.plan_limits);
        if let [share] = found.shares() {
            self.rails.loads.set_home(buffer, share.rail);
        }
        found
    }

    /// Builds all parts, each with the keys of its rail, before any is posted.
    fn build_on_rails<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        sizes: Sizes,
        plan: &RailPlan,
    ) -> Result<Vec<PartOnRail>, Unbuilt> {
        let first = self.remote.table();
        let cut = Cut::of(iovs, sizes, plan.shares().len());
        let mut parts: Vec<PartOnRail> = Vec::with_capacity(plan.shares().len() * LANES_PER_RAIL);
        for share in plan.shares() {
            let rail = usize::from(share.rail);
            let of = self.parts_on(rail, share.of(cut.bytes).1);
            for part in 0..of {
                let mut list = self.spare_lists_of(rail).acquire();
                let share = cut.share(share.part(part, of), iovs.len());
                let built = self.build_on_rail(opcode, iovs, &first, rail, share, &mut list);
                // Short iovs may leave a share without any.
                if list.is_empty() {
                    self.spare_lists_of(rail).release(list);
                } else {
                    parts.push(PartOnRail { rail, lane: part as usize, list });
                }
                if let Err(error) = built {
                    self.release_lists(parts);
                    return Err(error);
                }
            }
        }
        if parts.is_empty() { Err(Unbuilt::Refused(SubmitError::Empty)) } else { Ok(parts) }
    }

    fn build_on_rail<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        first: &crate::memory::RemoteTable,
        rail: usize,
        share: Share,
        list: &mut RequestList,
    ) -> Result<(), Unbuilt> {
        if rail == 0 {
            return self.build(iovs, share, opcode, list, None).map_err(Unbuilt::Refused);
        }
        let (Some(nic), Some(remote)) = (self.nic_of(rail), self.remote_of(rail)) else {
            return Err(Unbuilt::NotOn(rail));
        };
        let scope = Scope {
            local: &nic.registry,
            remote,
            policy: &self.policy(),
            carries_gpu: nic.pool.device().attributes().capabilities.gpu_memory,
        };
        let table = remote.table();
        let source = OnRail::new(iovs, first, &table, opcode);
        match build(&source, share, scope, opcode, list, None) {
            Ok(()) if source.fits() => Ok(()),
            _ => Err(Unbuilt::NotOn(rail)),
        }
    }

    /// Over how many of its lanes a rail's share goes.
    fn parts_on(&self, rail: usize, bytes: u64) -> u32 {
        let lanes = self.data_lanes(rail).len().clamp(1, LANES_PER_RAIL);
        self.spread.parts(bytes).min(lanes) as u32
    }

    fn start_lists(
        &self,
        opcode: Opcode,
        lists: Vec<PartOnRail>,
        when_full: WhenFull,
        begun: u64,
    ) -> Result<TransferId, SubmitError> {
        let hint = thread_hint();
        let room = |part: &PartOnRail| {
            self.lanes_of(part.rail).iter().all(|lane| lane.worker.room(hint) >= lists.len())
        };
        if when_full == WhenFull::Refuse && !lists.iter().all(room) {
            self.release_lists(lists);
            return Err(SubmitError::WouldBlock);
        }
        let started = Instant::now();
        let transfer = match self.acquire_transfer(when_full, started) {
            Ok(transfer) => transfer,
            Err(error) => {
                self.release_lists(lists);
                return Err(error);
            }
        };
        let limit = if when_full == WhenFull::Refuse { ROOM_TAKEN_LIMIT } else { self.room_limit() };
        let parts = (lists.len(), lists.into_iter());
        let workers = self.hand_out(transfer.record(), opcode, parts, begun, started, limit);
        self.rails.loads.wake_if_needed(&self.wakeup);
        Ok(self.context.transfers.publish(transfer, workers))
    }

    fn release_lists(&self, parts: Vec<PartOnRail>) {
        parts.into_iter().for_each(|part| self.spare_lists_of(part.rail).release(part.list));
    }

    /// The spare lists of the pool that a part of this rail comes back to.
    pub(super) fn spare_lists_of(&self, rail: usize) -> &SpareLists {
        self.nic_of(rail).map_or(&*self.context.pool, |nic| &*nic.pool).spare_lists()
    }
}

/// How often a transfer looks for rails at most. Few: a rail that is up need not have keys for its memory, and each look may wait for room.
const LOOKS: usize = 3;

/// Why parts were not built.
enum Unbuilt {
    /// This rail cannot carry the transfer now.
    NotOn(usize),
    /// No rail can.
    Refused(SubmitError),
}

/// How the iovs of a transfer are cut into shares.
struct Cut {
    bytes: u64,
    /// Its iovs are many and short: shares are of whole iovs, in a row, which are built in runs.
    in_rows: bool,
}

/// What is to be known of the lengths of iovs.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    bytes: u64,
    /// No less than the longest, and less than twice as long.
    longest: u64,
}

impl Sizes {
    /// Two sums that the compiler makes several at a time; all lengths or-ed are no less than the longest.
    fn of<S: IovSource + ?Sized>(iovs: &S) -> Self {
        let (sum, any) =
            iovs.lengths().fold((0u64, 0u64), |(sum, any), length| (sum.wrapping_add(length), any | length));
        let is_short = any <= u64::from(u32::MAX) && iovs.len() <= u32::MAX as usize;
        let bytes = if is_short { sum } else { iovs.lengths().fold(0, u64::saturating_add) };
        Self { bytes, longest: any }
    }
}

impl Cut {
    fn of<S: IovSource + ?Sized>(iovs: &S, Sizes { bytes, longest }: Sizes, shares: usize) -> Self {
        // As for parts of one rail: dealing out whole iovs balances well unless one of them is a large share of all.
        let large = bytes / (2 * shares.max(1) as u64);
        Self { bytes, in_rows: longest <= large || iovs.lengths().all(|length| length <= large) }
    }

    fn share(&self, (start, end): (u32, u32), iovs: usize) -> Share {
        if !self.in_rows {
            return Share::Fraction { start, end };
        }
        let at = |bound: u32| (iovs as u128 * u128::from(bound) / u128::from(Share::WHOLE)) as usize;
        Share::Range { start: at(start), end: at(end) }
    }
}
