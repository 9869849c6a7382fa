//! A part on its way onto a lane: acquired under the worker's lock, filled by the caller, and started.

use super::lane_key::LaneKey;
use super::part_owner::PartOwner;
use super::request_list::RequestList;
use super::shared_worker::{Backlog, Worker};
use super::worker::WorkerState;
use crate::memory::Recent;

/// A part that is being filled, under its worker's lock, which is held as long as this lives: fill it quickly, and call
/// nothing that may wait. Dropped before [`NewPart::start`], nothing has begun.
#[derive(Debug)]
pub struct NewPart<'a> {
    worker: &'a Worker,
    state: spin::MutexGuard<'a, WorkerState>,
    lane: LaneKey,
    /// `None` before it is acquired, and once it is started.
    index: Option<u32>,
}

impl<'a> NewPart<'a> {
    /// One for this lane, still to be acquired.
    #[inline(always)]
    pub(super) fn new(worker: &'a Worker, state: spin::MutexGuard<'a, WorkerState>, lane: LaneKey) -> Self {
        Self { worker, state, lane, index: None }
    }

    /// Acquires it: its list, which is empty, and the regions that the lane's last part used. `None` if the lane is not healthy,
    /// or this was called before. One look at the lane for the two answers.
    #[inline(always)]
    pub fn acquire(&mut self) -> Option<(&mut RequestList, &mut Recent)> {
        if self.index.is_some() {
            return None;
        }
        let (index, list, recent) = self.state.acquire_part(self.lane)?;
        self.index = Some(index);
        Some((list, recent))
    }

    /// Begins the part: posts what credits allow. A part without requests ends at once, and nothing begins if it is not acquired.
    /// The caller has counted it in `owner`; `first` is whether it counts as the beginning of its transfer on the lane.
    #[inline(always)]
    pub fn start(mut self, owner: &'static dyn PartOwner, first: bool) {
        if let Some(index) = self.index.take() {
            self.state.start_part(self.lane, index, owner, first, 0);
        }
        self.state.caller_steps = self.state.caller_steps.wrapping_add(1);
        let backlog = Backlog(self.state.has_backlog());
        let worker = self.worker;
        drop(self);
        worker.wake_for(backlog);
    }
}

impl Drop for NewPart<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(index) = self.index {
            self.state.release_unstarted(index);
        }
    }
}
