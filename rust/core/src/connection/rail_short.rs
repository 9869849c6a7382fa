//! Short transfers on a connection with several rails: over one rail, without a plan where a late one was for them as well.
//!
//! A short transfer cannot gain much by a plan: it goes over one rail anyway, and what lies before it on a lane is little, or it is planned.
//! So it follows the last plan for its buffer, as long as loads have not been published since, on the path of a connection with one rail.

use super::Connection;
use super::lane_choice::thread_hint;
use super::lanes::LaneHandle;
use crate::fabric::Opcode;
use crate::memory::Recent;
use crate::pool::RequestList;
use crate::transfer::{Iov, IovSource, NewTransfer, OnRail, Scope, Share, TransferId, build, build_one};

impl Connection {
    /// [`Connection::begin_one`] of a connection with several rails: `None`, and nothing is done, also if the transfer is to be planned.
    #[cold]
    #[inline(never)]
    pub(super) fn begin_one_on_rails(&self, opcode: Opcode, mut iov: Iov) -> Option<TransferId> {
        if !self.is_open_with_rails() {
            return None;
        }
        let (rail, lane) = self.short_lane(iov.local, iov.length)?;
        let mut part = lane.worker.try_begin(lane.key)?;
        let (list, recent) = part.acquire()?;
        if rail > 0 {
            iov.remote.rkey = recent.key_on_rail.of(iov.remote.rkey, iov.remote.address, iov.length)?;
        }
        if !build_one(&iov, &self.policy(), opcode, list, recent) {
            return None;
        }
        let transfers = &self.context.transfers;
        // Workers of further NICs have no slots of their own. Where none is listed, the other path makes more, without the worker's lock.
        let transfer = match rail {
            0 => transfers.acquire_at(lane.worker_index)?,
            _ => transfers.acquire_listed()?,
        };
        let record = transfer.record();
        record.start(1, self.context.time_limit);
        let id = self.context.transfers.publish(transfer, 1 << lane.worker_index);
        part.start(record, true);
        self.rails.loads.wake_if_needed(&self.wakeup);
        Some(id)
    }

    /// Starts a transfer of so many bytes on the rail that was planned for its buffer. `None`, and nothing is done, if it is to be planned,
    /// or anything is out of the ordinary.
    pub(super) fn start_short<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        bytes: u64,
    ) -> Option<TransferId> {
        let (rail, lane) = self.short_lane(iovs.iov(0)?.local, bytes)?;
        let transfer = self.context.transfers.acquire()?;
        match self.start_short_on(rail, lane, opcode, iovs, &transfer) {
            Some(()) => {
                let id = self.context.transfers.publish(transfer, 1 << lane.worker_index);
                self.rails.loads.wake_if_needed(&self.wakeup);
                Some(id)
            }
            None => {
                self.context.transfers.release_new(transfer);
                None
            }
        }
    }

    fn start_short_on<S: IovSource + ?Sized>(
        &self,
        rail: usize,
        lane: &LaneHandle,
        opcode: Opcode,
        iovs: &S,
        transfer: &NewTransfer,
    ) -> Option<()> {
        let mut part = lane.worker.try_begin(lane.key)?;
        let (list, recent) = part.acquire()?;
        match rail {
            0 => self.build(iovs, Share::all(iovs), opcode, list, Some(recent)).ok()?,
            _ => self.build_short(rail, opcode, iovs, list, recent)?,
        }
        transfer.record().start(1, self.context.time_limit);
        part.start(transfer.record(), true);
        Some(())
    }

    /// Makes the requests of a transfer with the keys of a further rail. The tables are loaded under the worker's lock: what is found in them
    /// is forgotten under that lock, once it is gone.
    fn build_short<S: IovSource + ?Sized>(
        &self,
        rail: usize,
        opcode: Opcode,
        iovs: &S,
        list: &mut RequestList,
        recent: &mut Recent,
    ) -> Option<()> {
        let (nic, remote) = (self.nic_of(rail)?, self.remote_of(rail)?);
        let scope = Scope {
            local: &nic.registry,
            remote,
            policy: &self.policy(),
            carries_gpu: nic.pool.device().attributes().capabilities.gpu_memory,
        };
        let (first, table) = (self.remote.table(), remote.table());
        let source = OnRail::new(iovs, &first, &table, opcode);
        build(&source, Share::all(iovs), scope, opcode, list, Some(recent)).ok()?;
        recent.key_on_rail = source.last_key().filter(|_| source.fits())?;
        Some(())
    }

    /// The rail that was planned for short transfers of a buffer, and the lane there which the thread prefers: `None` if there is no such
    /// plan, the transfer is not short, or so much lies before it on the lane that another rail may be better.
    #[inline]
    fn short_lane(&self, buffer: u64, bytes: u64) -> Option<(usize, &LaneHandle)> {
        let limits = &self.context.settings.plan_limits;
        if bytes == 0 || bytes >= limits.one_rail_below || !self.spread.keeps_whole(bytes) {
            return None;
        }
        let rail = self.rails.loads.planned(buffer)?;
        let lanes = self.data_lanes(rail);
        let hint = thread_hint();
        let lane = lanes.get(hint).or_else(|| lanes.get(hint.checked_rem(lanes.len())?))?;
        let is_idle = lane.status.requests().1 == 0;
        (is_idle || bytes_under_way(lane) < limits.least_share).then_some((rail, lane))
    }
}

fn bytes_under_way(lane: &LaneHandle) -> u64 {
    let (started, ended) = lane.status.counts.bytes();
    started.saturating_sub(ended)
}
