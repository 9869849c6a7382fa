//! A part on its way onto a lane: acquired under the worker's lock, filled by the caller, and started.

use super::lane::LaneKey;
use super::part_owner::PartOwner;
use super::request_list::RequestList;
use super::shared_worker::Worker;
use super::worker::WorkerState;
use crate::memory::Recent;

/// A part that is being filled, under its worker's lock, which is held as long as this lives: fill it quickly, and call
/// nothing that may wait. Dropped before [`NewPart::start`], nothing has begun.
#[derive(Debug)]
pub struct NewPart<'a> {
    worker: &'a Worker,
    state: spin::MutexGuard<'a, WorkerState>,
    lane: LaneKey,
    /// `None` once it is started.
    index: Option<u32>,
}

impl<'a> NewPart<'a> {
    /// `None` if the lane is not healthy.
    #[inline(always)]
    pub(super) fn acquire(
        worker: &'a Worker,
        mut state: spin::MutexGuard<'a, WorkerState>,
        lane: LaneKey,
    ) -> Option<Self> {
        let index = Some(state.acquire_part(lane)?);
        Some(Self { worker, state, lane, index })
    }

    /// Its list, which is empty, and the regions that the lane's last part used.
    #[inline(always)]
    pub fn contents(&mut self) -> Option<(&mut RequestList, &mut Recent)> {
        self.state.part_contents(self.lane, self.index?)
    }

    /// Begins the part: posts what credits allow. A part without requests ends at once. The caller has counted it in
    /// `owner`; `first` is whether it counts as the beginning of its transfer on the lane.
    #[inline(always)]
    pub fn start(mut self, owner: &'static dyn PartOwner, first: bool) {
        if let Some(index) = self.index.take() {
            self.state.start_part(self.lane, index, owner, first);
        }
        self.state.caller_steps = self.state.caller_steps.wrapping_add(1);
        let needs_thread = self.state.has_backlog();
        let worker = self.worker;
        drop(self);
        worker.wake_for(needs_thread);
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
