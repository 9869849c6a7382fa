//! The end of a lane: its queue pair is destroyed without the worker's lock.

use std::time::Duration;

use super::Worker;
use crate::pool::lane_key::LaneKey;
use crate::pool::part_owner::EndState;
use crate::pool::worker::{DetachedLane, Undrained, WorkerState};

impl Worker {
    /// Closes a lane, see [`WorkerState::close_lane`], and destroys its queue pair without the worker's lock. False while it is
    /// being drained.
    pub fn close_lane(&self, lane: LaneKey, end_state: EndState, reason: &str) -> bool {
        let closing = self.with_state(|state| state.close_lane(lane, end_state, reason));
        closing.is_closed()
    }

    /// Gives up waiting for a flush that does not come: destroys the queue pair, after which the device touches nothing of it,
    /// and ends the lane's parts. Other lanes go on while the device destroys. Waits for the device, whichever thread has
    /// begun it.
    pub fn destroy_lane(&self, lane: LaneKey, end_state: EndState, reason: &str) {
        let detached = self.with_state(|state| {
            state.detach_lane(lane, end_state, reason);
            state.take_detached()
        });
        self.destroy(detached);
        // Also of one of which another thread destroys the queue pair alone.
        while self.with_state(|state| state.is_detached(lane)) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Destroys the queue pair of a lane in ERROR that does not drain; the lane is drained then. Blocks for commands of the device, unless another
    /// thread is at it. False, and nothing is done, where that does not help.
    pub fn destroy_undrained(&self, lane: LaneKey) -> bool {
        match self.with_state(|state| state.take_undrained(lane)) {
            Undrained::Stays => false,
            Undrained::UnderWay => true,
            Undrained::Destroy(mut queue_pair) => {
                let _ = queue_pair.set_error();
                let destroyed = queue_pair.destroy();
                self.with_state(|state| state.end_undrained(lane, destroyed));
                true
            }
        }
    }

    /// Destroys the lanes that steps have found to be past their time.
    #[cold]
    pub(in crate::pool) fn destroy_detached(&self) {
        let detached = self.with_state(WorkerState::take_detached);
        self.destroy(detached);
    }

    fn destroy(&self, lanes: Vec<DetachedLane>) {
        for lane in lanes {
            let destroyed = lane.destroy();
            self.with_state(|state| state.end_destroyed(destroyed));
        }
    }
}
